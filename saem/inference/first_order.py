"""Approximate likelihoods by an expansion at each individual's mode, and their gradients.

With ``l_i(phi) = log p(y_i | phi) + log p(phi)`` and phi_i^ its maximum,

    log p(y_i) ~ l_i(phi_i^) + (d / 2) log 2 pi - (1 / 2) log |H_i|.

``"laplace"`` takes for H_i the negative Hessian of l_i at the mode (Tierney and Kadane 1986,
J. Amer. Statist. Assoc. 81, 82-86). ``"focei"``, first-order conditional estimation with
interaction, takes its expectation over the data, in which only first derivatives stand,

    H_i = Omega^-1 + sum_j J_j J_j' / V_j + (1 / 2) sum_j c_j c_j',    c_j = J_j V_j' / V_j,

J_j the slope of prediction f_j in phi, V_j = g(f_j)^2 its residual variance and V_j' the
derivative of that by f_j (Wang 2007, J. Pharmacokinet. Pharmacodyn. 34, 575-593; Almquist,
Leander and Jirstrand 2015, ibid. 42, 191-209, eqs. 18-21).

Gradients take the movement of the modes into account: ``d u^ / d theta = T^-1 d^2 l / d u
d theta``, T the negative Hessian (Almquist et al., eq. 27), so that no mode is searched for.
Modes are those of u in ``phi = mu + L u``, ``L L' = Omega``: derivatives at given u are well
conditioned where those at given phi are not, next to a variance of 0 or a correlation of 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from saem._laplace import laplace_work
from saem._types import make_visitor
from saem.contract import Array
from saem.estep import _moves
from saem.exceptions import OptionError
from saem.inference._blocks import marginal_information
from saem.inference._visits import Modes, find_modes, visit_all
from saem.inference._working_scale import WorkingScale
from saem.inference.linearisation import (
    Linearisation,
    all_phi,
    linearise,
    residual_variance,
    responses_of,
)
from saem.nlme._continuous import require_predictions

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = ["KINDS", "ConditionalObjective", "Expansion", "check_predictions_of"]

#: Objectives, and how results name them.
KINDS = {"focei": "FOCEI", "laplace": "Laplace"}
#: Steps of differences by u, in posterior standard deviations; the second for what holds second
#: differences already.
_STEP, _WIDE = 1e-3, 1e-2
#: Steps of differences by estimates, and for the Hessian: in standard errors, and as parts of
#: the longest step that is taken.
_STEP_SE, _HESSIAN_SE = 2e-4, 2e-2
#: Twice the nats that may be missing at a mode, and the Newton steps that are taken towards it.
_MODE, _SWEEPS = 1e-18, 4


class _Pieces(NamedTuple):
    """Log joint density, its gradient by u and expected curvature, of every individual.

    Without the prior's ``-(d / 2) log 2 pi``, which the approximation's volume cancels.
    """

    value: Array
    score: Array
    expected: Array


class _Near(NamedTuple):
    """Scale of differences: modes nearby, and posterior standard deviations of u."""

    modes: Modes
    sd: Array


@dataclass(frozen=True)
class Expansion:
    """An approximate likelihood at given parameters.

    Attributes
    ----------
    theta : ndarray
        Packed parameters.
    modes : Modes
        Modes, exact to rounding, and factors of the inverse negative Hessians there.
    contributions : ndarray of shape (n_individuals,)
        Approximate log-likelihood of each individual; -inf where no mode was found.
    """

    theta: Array
    modes: Modes
    contributions: Array
    _u: Any = None
    _near: Any = None
    _centre: Any = None
    _hessian: Any = None

    @property
    def value(self) -> float:
        """Sum of the contributions."""
        return float(self.contributions.sum())


def check_predictions_of(model: Any, what: str) -> None:
    """Raise `OptionError` for models without structural predictions.

    Parameters
    ----------
    model : Model
    what : str
        What asks for them.
    """
    if not hasattr(model, "structural") or not hasattr(model, "param_kind"):
        raise OptionError(
            f"{what} needs the predictions of a nonlinear mixed-effects model (saem.NLME), which "
            f"{model.name} does not have. Remedy: loglik('laplace'), or an algorithm of the EM "
            "family."
        )
    require_predictions(model, what, "loglik('laplace'), or an algorithm of the EM family")


class ConditionalObjective:
    """FOCEI's or Laplace's log-likelihood as a function of the population parameters.

    Parameters
    ----------
    model : NLME
    kind : {"focei", "laplace"}
    n_threads : int, optional

    Raises
    ------
    OptionError
        For another kind, or a model without predictions.
    """

    def __init__(self, model: NLME, kind: str = "focei", n_threads: int | None = None) -> None:
        if kind not in KINDS:
            raise OptionError(f"kind={kind!r} must be one of {', '.join(map(repr, KINDS))}.")
        check_predictions_of(model, KINDS[kind])
        self.model, self.kind, self.n_threads = model, kind, n_threads
        #: Scale of derivatives by the parameters.
        self.scale = WorkingScale(model)
        self.response, self.constant = responses_of(model)
        self.starts = model.individuals.offsets[:-1]
        self.random = model.theta_spec.view(model.start(np.random.default_rng(0)))[
            "parameter"
        ].astype(int)

    # -- the objective ------------------------------------------------------------

    def at(self, theta: Array, modes: Modes | None = None, *, search: bool = True) -> Expansion:
        """Expand at the modes that belong to theta.

        Parameters
        ----------
        theta : ndarray
            Packed parameters.
        modes : Modes, optional
            Modes at parameters nearby, from which the search starts.
        search : bool
            Whether others are searched for as well; the best is taken.

        Returns
        -------
        Expansion
        """
        if search or modes is None:
            start = None if modes is None else modes.phi
            found = find_modes(self.model, theta, start=start, n_threads=self.n_threads)
        else:
            found = self._follow(theta, modes)
        if not np.all(np.isfinite(found.log_joint)):
            return Expansion(theta, found, np.full(self.model.n_individuals, -np.inf))
        return self._polish(theta, found)

    def _follow(self, theta: Array, modes: Modes) -> Modes:
        """Modes from those before; that from the prior's mean if it is better."""
        d, size = self.model.n_coords, self.model.latent_size
        memories = np.zeros((self.model.n_individuals, _moves.memory_size(0, d, size)))
        memories[:, 2 * d : 3 * d] = modes.phi
        settings = np.array([0.0, 0.0, float(d), float(size), 0.0])
        _, values = visit_all(
            self.model, make_visitor(_moves.visit_laplace), theta, settings=settings,
            memories=memories, n_threads=self.n_threads,
            work_size=_moves.work_size(0, 0, d, size) + laplace_work(d),
        )  # fmt: skip
        factor = memories[:, 3 * d : 3 * d + d * d].reshape(-1, d, d)
        return Modes(memories[:, 2 * d : 3 * d].copy(), factor.copy(), values)

    def _polish(self, theta: Array, modes: Modes) -> Expansion:
        """Newton steps to modes that are exact, and the contributions there."""
        chol = self.model.theta_spec.view(theta)["chol"]
        u = np.asarray(np.linalg.solve(chol, (modes.phi - self._phi(theta, 0.0)).T).T, dtype=float)
        near = _Near(modes, np.sqrt(np.square(np.linalg.solve(chol, modes.factor)).sum(axis=2)))
        for sweep in range(_SWEEPS):
            lin = self._linearise(theta, u, near)
            pieces = self._pieces(theta, u, lin)
            hessian = self._curvature(theta, u, near, pieces)
            move = np.linalg.solve(hessian, pieces.score[:, :, None])[:, :, 0]
            gain = np.einsum("ia,ia->i", move, pieces.score)
            if not np.max(gain, initial=0.0) > _MODE or sweep == _SWEEPS - 1:
                break
            # Only where the search has left something; a long step would be another mode's.
            u = u + np.where((gain < 0.1)[:, None], move, 0.0)
        spread = np.linalg.cholesky(np.linalg.inv(hessian))
        matrix = hessian if self.kind == "laplace" else pieces.expected
        values = pieces.value - 0.5 * np.linalg.slogdet(matrix)[1]
        values = np.where(np.isfinite(values), values, -np.inf)
        exact = Modes(self._phi(theta, u), chol @ spread, pieces.value)
        return Expansion(theta, exact, values, u, near, lin, hessian)

    def _phi(self, theta: Array, u: Any) -> Array:
        """Random coordinates ``mu_i + L u_i``, L the Cholesky factor of Omega."""
        chol = self.model.theta_spec.view(theta)["chol"]
        mu = all_phi(self.model, theta)[:, self.random]
        return np.asarray(mu + (u @ chol.T if isinstance(u, np.ndarray) else 0.0))

    def _linearise(self, theta: Array, u: Array, near: _Near) -> Linearisation:
        return linearise(
            self.model, theta, at=self._phi(theta, u), modes=near.modes, n_threads=self.n_threads
        )

    def _around(
        self, theta: Array, u: Array, near: _Near, a: int, size: float
    ) -> tuple[tuple[_Pieces, _Pieces], Array]:
        """Pieces at u plus and minus a step in coordinate a, and how far apart the two are."""
        ends, shifted = [], []
        for sign in (1.0, -1.0):
            moved = u.copy()
            moved[:, a] += sign * size * near.sd[:, a]
            shifted.append(moved)
            ends.append(self._pieces(theta, moved, self._linearise(theta, moved, near)))
        return (ends[0], ends[1]), shifted[0][:, a] - shifted[1][:, a]

    def _curvature(self, theta: Array, u: Array, near: _Near, centre: _Pieces) -> Array:
        """Negative Hessians by u; the expected ones where they are not definite."""
        hessian = np.empty_like(centre.expected)
        for a in range(u.shape[1]):
            (up, down), width = self._around(theta, u, near, a, _STEP)
            hessian[:, a] = (down.score - up.score) / width[:, None]
        hessian = 0.5 * (hessian + hessian.transpose(0, 2, 1))
        finite = np.asarray(np.isfinite(hessian).all(axis=(1, 2))).reshape(-1, 1, 1)
        values = np.linalg.eigvalsh(np.where(finite, hessian, 0.0))
        smallest: Array = np.min(values, axis=1, initial=np.inf)
        return np.where(smallest[:, None, None] > 0.0, hessian, centre.expected)

    def _pieces(self, theta: Array, u: Array, lin: Linearisation) -> _Pieces:
        """Log joint density and its derivatives by u; f and its slopes are those of `lin`."""
        variance = lin.variance
        step = 1e-5 * np.maximum(np.abs(lin.f), 1e-8)
        slope = residual_variance(self.model, theta, lin.f + step)
        slope = (slope - residual_variance(self.model, theta, lin.f - step)) / (2.0 * step)
        residual = self.response - lin.f
        square = residual * residual / variance
        rows = np.log(variance) + square
        by_f = residual / variance + 0.5 * slope / variance * (square - 1.0)
        weight = 1.0 / variance + 0.5 * np.square(slope / variance)
        jacobian = lin.jacobian[:, self.random] @ self.model.theta_spec.view(theta)["chol"]
        value = self.constant - 0.5 * np.add.reduceat(rows, self.starts)
        value = value - 0.5 * np.square(u).sum(axis=1)
        score = np.add.reduceat(jacobian * by_f[:, None], self.starts) - u
        outer = (weight[:, None] * jacobian)[:, :, None] * jacobian[:, None, :]
        return _Pieces(value, score, np.add.reduceat(outer, self.starts) + np.eye(u.shape[1]))

    # -- derivatives --------------------------------------------------------------

    def information(self, expansion: Expansion) -> Array:
        """Expected information of the linearised model, shape (n_params, n_params).

        Parameters
        ----------
        expansion : Expansion

        Returns
        -------
        ndarray
            On the estimation (Gaussian) scale; positive definite everywhere.
        """
        return marginal_information(self.model, expansion.theta, expansion._centre)

    def _steps(self, expansion: Expansion, size: float) -> Array:
        """Steps of differences on the working scale, in the order of the estimates."""
        theta = expansion.theta
        jacobian = self.scale.jacobian(theta)
        metric = np.diagonal(jacobian.T @ self.information(expansion) @ jacobian)
        errors = 1.0 / np.sqrt(np.maximum(metric, 1e-300))
        return np.asarray(size * np.minimum(errors, self.scale.longest(theta)))

    def _moved(self, theta: Array, k: int, step: float) -> Array:
        values = self.scale.values(theta)
        values[k] += step
        moved = self.scale.theta(theta, values)
        return theta if moved is None else moved

    def scores(self, expansion: Expansion) -> Array:
        """Gradient of every individual's contribution by the parameters.

        Parameters
        ----------
        expansion : Expansion

        Returns
        -------
        ndarray of shape (n_individuals, n_params)
            On the working scale.
        """
        model, theta = self.model, expansion.theta
        by_u = self._slopes_by_u(expansion)
        gradient = np.empty((model.n_individuals, len(model.param_names)))
        for k, step in enumerate(self._steps(expansion, _STEP_SE)):
            (up, up_score), (down, down_score) = (
                self._fixed_modes(expansion, self._moved(theta, k, sign * step))
                for sign in (1.0, -1.0)
            )
            gradient[:, k] = (up - down) / (2.0 * step)
            lean = (up_score - down_score) / (2.0 * step)
            motion = np.linalg.solve(expansion._hessian, lean[:, :, None])[:, :, 0]
            gradient[:, k] += np.einsum("ia,ia->i", motion, by_u)
        return gradient

    def _fixed_modes(self, expansion: Expansion, theta: Array) -> tuple[Array, Array]:
        """Contributions and scores by u at other parameters, u as it is."""
        u, near = expansion._u, expansion._near
        pieces = self._pieces(theta, u, self._linearise(theta, u, near))
        matrix = pieces.expected
        if self.kind == "laplace":
            matrix = self._curvature(theta, u, near, pieces)
        return pieces.value - 0.5 * np.linalg.slogdet(matrix)[1], pieces.score

    def _slopes_by_u(self, expansion: Expansion) -> Array:
        """Derivatives of ``-log |H_i| / 2`` by u at the modes, shape (n_individuals, d)."""
        theta, u, near = expansion.theta, expansion._u, expansion._near
        slopes = np.zeros_like(u)
        for a in range(u.shape[1]):
            if self.kind == "focei":
                pair, width = self._around(theta, u, near, a, _STEP)
                ends = [pieces.expected for pieces in pair]
            else:
                pair, width = self._around(theta, u, near, a, _WIDE)
                ends = []
                for sign, pieces in zip((0.5, -0.5), pair, strict=True):
                    moved = u.copy()
                    moved[:, a] += sign * width
                    ends.append(self._curvature(theta, moved, near, pieces))
            up, down = (np.linalg.slogdet(matrix)[1] for matrix in ends)
            slopes[:, a] = -0.5 * (up - down) / width
        return slopes

    def gradient(self, expansion: Expansion) -> Array:
        """Gradient of what is climbed: the approximate log-likelihood, and the log prior.

        Parameters
        ----------
        expansion : Expansion

        Returns
        -------
        ndarray of shape (n_params,)
            On the working scale.
        """
        from saem.inference.scoring import prior_score

        total = self.scores(expansion).sum(axis=0)
        if self.model.penalised:
            theta = expansion.theta
            total += self.scale.jacobian(theta).T @ prior_score(self.model, theta)
        return np.asarray(total)

    def height(self, expansion: Expansion) -> float:
        """What is climbed, at an expansion."""
        return expansion.value + self.model.log_prior(expansion.theta)

    def hessian(self, expansion: Expansion) -> Array:
        """Hessian of `height` at its maximum, by central differences of its gradient.

        Parameters
        ----------
        expansion : Expansion

        Returns
        -------
        ndarray of shape (n_params, n_params)
            On the estimation (Gaussian) scale. The gradient is taken to be 0.
        """
        theta = expansion.theta
        steps = self._steps(expansion, _HESSIAN_SE)
        matrix = np.empty((steps.size, steps.size))
        for k, step in enumerate(steps):
            up, down = (
                self.gradient(
                    self.at(self._moved(theta, k, sign * step), expansion.modes, search=False)
                )
                for sign in (1.0, -1.0)
            )
            matrix[k] = (up - down) / (2.0 * step)
        inverse = np.linalg.inv(self.scale.jacobian(theta))
        return np.asarray(inverse.T @ (0.5 * (matrix + matrix.T)) @ inverse)
