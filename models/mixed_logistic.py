"""Logistic regression with Gaussian random effects of one grouping factor.

    P(y_ij = 1 | b_i) = expit(x_ij'alpha + z_ij'b_i),   b_i ~ N(beta, Omega).

Layouts stand in `saem.models._mixed_logistic_kernels`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from saem._types import make_kernels
from saem.contract import Array
from saem.exceptions import DataError, ModelError, Problems
from saem.statistics import Packed

from . import _mixed_logistic_kernels as kernels
from ._checks import is_symmetric, read_arrays
from ._latent_gaussian import LatentGaussianModel, LatentGaussianResults, hessian, repeated
from ._linear_mixed_data import Design, read_design, used_columns
from ._random_effects import RandomEffectsResults

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MixedLogistic", "MixedLogisticResults", "simulate"]

#: Quadrature nodes per random effect of the standard errors.
_NODES = 9
#: Standard deviation of each random effect's part of the linear predictor, at the start.
_START_SD = 2.0

#: What messages are about.
_OWNER = "the mixed logistic regression"


class MixedLogistic(LatentGaussianModel):
    """Mixed-effects logistic regression.

    Parameters
    ----------
    frame : DataFrame
        One row per observation; the order of rows does not matter.
    formula : str
        Response (0 and 1) and fixed effects, such as ``"y ~ time + dose"``.
    groups : str
        Column whose values name the individual of each row.
    re_formula : str, optional
        Random effects, such as ``"~ time"`` for intercept and slope; each must be a term of
        `formula`. The default is a random intercept.
    covariance : {"full", "diagonal"}
        Of the random effects.

    Raises
    ------
    DataError, ModelError
        With all problems found, before anything is computed.

    Notes
    -----
    A coefficient with a random effect is the mean beta of b_i, with an exact M-step. One
    without has no sufficient statistic; its M-step maximises the quadratic minoriser of
    the logistic log-likelihood at each draw (Boehning and Lindsay 1988), which is linear in
    statistics, so that every algorithm applies, and EM with quadrature never lowers the
    log-likelihood.

    Examples
    --------
    >>> import numpy as np
    >>> frame = simulate(np.random.default_rng(0), 30)
    >>> model = MixedLogistic(frame, "y ~ time + dose", "id", "~ time")
    >>> model.n_individuals, model.nobs, model.n_coords
    (30, 150, 2)
    """

    name: ClassVar[str] = "mixed logistic regression"
    capabilities: ClassVar[frozenset[str]] = frozenset({"gaussian", "surrogate"})
    maximize_errors: ClassVar[dict[int, str]] = {
        kernels.NOT_FINITE: "a statistic is not finite",
        kernels.SINGULAR: "the covariance of the random effects is singular; use fewer",
        kernels.FLAT: "the cross products of the fixed effects are not positive definite",
    }

    def __init__(
        self,
        frame: pd.DataFrame,
        formula: str,
        groups: str,
        re_formula: str | None = None,
        *,
        covariance: str = "full",
    ) -> None:
        if not isinstance(covariance, str) or covariance not in ("full", "diagonal"):
            raise ModelError(f"covariance={covariance!r} must be 'full' or 'diagonal'.")
        design = read_design(frame, formula, groups, re_formula, owner=_OWNER)
        _check(design, groups)
        self.frame, self.formula, self.groups = frame, formula, groups
        self.re_formula, self.covariance = re_formula, covariance
        self.fixed_names, self.random_names = design.x_names, design.z_names
        self.group_labels = design.groups
        is_random = np.array([name in design.z_names for name in design.x_names])
        #: Columns of the fixed effects: those without a random effect, and each random one's.
        self._plain = np.flatnonzero(~is_random)
        self._random = np.array([design.x_names.index(name) for name in design.z_names])
        self.n_individuals, self.nobs = len(design.groups), len(design.y)
        p, q = len(self._plain), len(self._random)
        self._pack(design)
        self.n_coords, self.latent_size = q, p + q
        self.theta_spec = Packed(
            constants=(kernels.HEAD,), alpha=(p,), beta=(q,), omega=(q, q), factor=(q, q)
        )
        self.stat_spec = Packed(b=(q,), bb=(q * (q + 1) // 2,), g=(p,), xx=(p, p))
        names = self.random_names
        entries = [f"cov[{a},{b}]" if a != b else f"var[{a}]" for a, b in self._pairs(names)]
        self.param_names = [*self.fixed_names, *entries]
        self.n_params = len(self.param_names)
        self.kernels = make_kernels(
            log_lik=kernels.log_lik,
            prior=kernels.prior,
            accumulate=kernels.accumulate,
            maximize=kernels.maximize,
            project=kernels.project,
            surrogate=kernels.surrogate,
        )

    def _pairs(self, names: list[str]) -> list[tuple[str, str]]:
        """Entries of Omega that are estimated, row by row of its lower triangle."""
        return [(names[b], names[a]) for a, b in zip(*self._entries, strict=True)]

    @property
    def _entries(self) -> tuple[Any, Any]:
        q = len(self._random)
        if self.covariance == "diagonal":
            return np.arange(q), np.arange(q)
        low = np.tril_indices(q)
        return low[0], low[1]

    def _pack(self, design: Design) -> None:
        x, z = design.x[:, self._plain], design.z
        p, q = x.shape[1], z.shape[1]
        self._start = _starting_coefficients(design)
        self._z_square = np.square(z).mean(axis=0)
        records = []
        for first, last in zip(design.starts[:-1], design.starts[1:], strict=True):
            rows = slice(first, last)
            head = [last - first, p, q]
            parts = [head, (x[rows].T @ x[rows]).ravel(), design.y[rows]]
            records.append(np.concatenate([*parts, x[rows].ravel(), z[rows].ravel()]))
        self.values = np.concatenate(records)
        self.offsets = np.concatenate([[0], np.cumsum([r.size for r in records])]).astype(np.int64)

    def pack_params(self, *, beta: ArrayLike, omega: ArrayLike) -> Array:
        """Theta from the parameters.

        Parameters
        ----------
        beta : array_like of shape (n_fixed,)
            All fixed effects, in the order of `fixed_names`.
        omega : array_like of shape (n_random, n_random)

        Raises
        ------
        ModelError
            If a shape is wrong, a number not finite or omega not positive definite.
        """
        p, q = len(self._plain), len(self._random)
        problems = Problems("the parameters")
        shapes = {"beta": (p + q,), "omega": (q, q)}
        given = read_arrays({"beta": beta, "omega": omega}, shapes, problems)
        problems.raise_if_any(ModelError)
        beta, omega = given["beta"], given["omega"]
        diagonal = self.covariance == "diagonal"
        theta = self.theta_spec.pack(
            {
                "constants": [p, q, 1.0 if diagonal else 0.0],
                "alpha": beta[self._plain],
                "beta": beta[self._random],
                "omega": omega,
                "factor": np.zeros((q, q)),
            }
        )
        if diagonal and np.any(omega != np.diag(np.diag(omega))):
            raise ModelError(f"omega must be diagonal; got\n{omega}")
        if not is_symmetric(omega) or not kernels.derive(theta):
            raise ModelError(f"omega must be symmetric and positive definite; got\n{omega}")
        return theta

    def components(self, theta: Array) -> dict[str, Array]:
        """Parameters as ``beta`` (n_fixed,) and ``omega`` (n_random, n_random)."""
        view = self.theta_spec.view(theta)
        beta = np.empty(len(self.fixed_names))
        beta[self._plain], beta[self._random] = view["alpha"], view["beta"]
        return {"beta": beta, "omega": view["omega"].copy()}

    def params_of(self, theta: Array) -> Array:
        """Fixed effects, then the estimated entries of Omega."""
        parts = self.components(theta)
        return np.concatenate([parts["beta"], parts["omega"][self._entries]])

    def theta_of(self, params: Array) -> Array:
        """Theta from the parameters of `params_of`."""
        k, q = len(self.fixed_names), len(self._random)
        omega = np.zeros((q, q))
        rows, columns = self._entries
        omega[rows, columns] = omega[columns, rows] = params[k:]
        return self.pack_params(beta=params[:k], omega=omega)

    def start(self, rng: np.random.Generator) -> Array:
        """Logistic regression without random effects; wide ones of 2 on the logit scale.

        From too small a covariance Monte Carlo and EM steps grow only slowly.
        """
        omega = np.diag(_START_SD**2 / self._z_square)
        return self.pack_params(beta=self._start, omega=omega)

    def cov_params(self, theta: Array) -> Array:
        """Covariance of the estimates: inverse observed information by adaptive quadrature.

        Returns
        -------
        ndarray of shape (n_params, n_params)
            NaN where it is singular, or for more than four random effects.
        """
        from saem.inference.likelihood import QuadratureRule

        size = self.n_params
        if self.n_coords > 4:
            return np.full((size, size), np.nan)
        parts = self.components(theta)
        rule = QuadratureRule(self, _NODES)
        rule(theta)
        sd = 1.0 / np.sqrt(np.diag(np.linalg.inv(parts["omega"])))
        x_sd = 1.0 / np.sqrt(self._x_square * self.nobs)
        spread = [2.0 * x_sd, np.outer(sd, sd)[self._entries] / np.sqrt(self.n_individuals)]
        at = self.params_of(theta)
        matrix = -hessian(lambda v: rule(self.theta_of(v)), at, np.concatenate(spread))
        try:
            return np.asarray(np.linalg.inv(matrix), dtype=np.float64)
        except np.linalg.LinAlgError:
            return np.full((size, size), np.nan)

    @property
    def _x_square(self) -> Array:
        """Mean square of every column of the fixed effects."""
        out = np.empty(len(self.fixed_names))
        p = len(self._plain)
        total = sum(self.record_of(i)[3 : 3 + p * p] for i in range(self.n_individuals))
        out[self._plain] = np.diag(np.reshape(total, (p, p))) / self.nobs
        out[self._random] = self._z_square
        return out

    def reweighted(self, weights: Array) -> MixedLogistic:
        """Return the model with every group as often as its whole weight says."""
        new, rows = repeated(self, weights)
        new.nobs = int(sum(new.record_of(i)[0] for i in range(new.n_individuals)))
        new.group_labels = self.group_labels[rows]
        return new

    def persist(self) -> dict[str, Any]:
        """Arguments of the constructor, for a fit file, and what `reweighted` did."""
        formulas = [self.formula, self.re_formula]
        return {
            "frame": used_columns(self.frame, formulas, self.groups), "formula": self.formula,
            "groups": self.groups, "re_formula": self.re_formula, "covariance": self.covariance,
            "times": getattr(self, "times", None),
        }  # fmt: skip

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> MixedLogistic:
        """Small simulated instance with a random intercept."""
        frame = simulate(rng, n, beta=(0.5, -0.5, 0.3), omega=(1.0, 0.0, 0.0), scale=0.05)
        return cls(frame, "y ~ time + dose", "id")

    def results(self, record: Any) -> MixedLogisticResults:
        """Wrap the record of a fit."""
        return MixedLogisticResults(self, record)


class MixedLogisticResults(RandomEffectsResults, LatentGaussianResults):
    """Results of mixed-effects logistic regression."""

    model: MixedLogistic
    _covariance_name: ClassVar[str] = "omega"

    @property
    def random_effects(self) -> pd.DataFrame:
        """Posterior modes of b_i less their mean, one row per group."""
        import pandas as pd

        from saem.inference._visits import find_modes

        model, theta = self.model, self.record.theta
        modes = find_modes(model, theta).phi - model.theta_spec.view(theta)["beta"]
        index = model.group_labels.rename(model.groups)
        return pd.DataFrame(modes, index=index, columns=model.random_names)


def _check(design: Design, groups: str) -> None:
    """Check what the reader of linear designs does not: a binary response, terms in both parts."""
    problems = Problems(_OWNER)
    for name in design.z_names:
        if name not in design.x_names:
            problems.add(
                f"random-effect term {name!r} is not a term of formula "
                f"({', '.join(design.x_names)})",
                remedy="add it there: its mean is estimated",
            )
    problems.raise_if_any(ModelError)
    group = np.repeat(np.arange(len(design.groups)), np.diff(design.starts))
    for row in np.flatnonzero((design.y != 0.0) & (design.y != 1.0))[: problems.LIMIT + 1]:
        problems.add(
            f"a response of {groups} {design.groups[group[row]]} is {design.y[row]:g}; it must be "
            "0 or 1"
        )
    problems.raise_if_any(DataError)


def _starting_coefficients(design: Design) -> Array:
    """Logistic regression of all rows, with a small ridge against separation."""
    x, y = design.x, design.y
    ridge = 1e-2 * np.diag(np.square(x).sum(axis=0) / len(y))
    beta = np.zeros(x.shape[1])
    curvature = 0.25 * x.T @ x + ridge  # bound of the curvature: every step ascends
    for _ in range(200):
        share = 1.0 / (1.0 + np.exp(-np.clip(x @ beta, -500.0, 500.0)))
        beta = beta + np.linalg.solve(curvature, x.T @ (y - share) - ridge @ beta)
    return np.asarray(beta, dtype=np.float64)


def simulate(
    rng: np.random.Generator,
    n: int = 300,
    *,
    beta: ArrayLike = (-4.0, -0.5, 1.0),
    omega: ArrayLike = (0.3, 0.2, 0.2),
    times: ArrayLike = (-20.0, -5.0, 10.0, 25.0, 40.0),
    doses: ArrayLike = (10.0, 20.0, 30.0),
    scale: float = 1.0,
) -> pd.DataFrame:
    """Simulate the design of the mini-batch Monte Carlo EM study.

    Arms of equal size differ in dose, given from time 0 on:
    ``logit P(y = 1) = b_0 + b_1 time + b_2 dose``, b ~ N(beta, diag(omega^2)). The study models
    P(y = 0); here 1 is the event.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
        Individuals.
    beta, omega : array_like of shape (3,)
        Means and standard deviations of the coefficients.
    times, doses : array_like
    scale : float
        Factor on times and doses, to work in other units.

    Returns
    -------
    DataFrame
        Columns ``id``, ``y``, ``time``, ``dose``.
    """
    import pandas as pd

    time = np.tile(np.asarray(times, dtype=float) * scale, n)
    m = time.size // n
    group = np.repeat(np.arange(n), m)
    arm = np.asarray(doses, dtype=float)[group % np.size(doses)] * scale
    dose = np.where(time > 0.0, arm, 0.0)
    b = np.asarray(beta) + np.asarray(omega) * rng.standard_normal((n, 3))
    t = np.einsum("ja,ja->j", np.column_stack([np.ones(n * m), time, dose]), b[group])
    y = (rng.uniform(size=n * m) < 1.0 / (1.0 + np.exp(-t))).astype(int)
    return pd.DataFrame({"id": group, "y": y, "time": time, "dose": dose})
