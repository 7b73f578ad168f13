"""Profile likelihood: intervals that do not lean on normality."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.estep.quadrature import quadrature_dimension
from saem.exceptions import OptionError, SaemWarning
from saem.inference._working import WorkingScale
from saem.inference.posterior import nodes_for, value_and_gradient
from saem.inference.scoring import prior_score

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.model import NLME

__all__ = ["Profile", "profile"]

#: A maximum is found where no whitened slope exceeds this: 5e-7 nats each are left.
_SLOPE = 1e-3
#: Signed roots of the likelihood ratio are matched to this.
_ROOT = 2e-3
#: Steps of the search for an end, and how far it goes, in standard errors.
_STEPS, _FARTHEST = 14, 8.0
#: Up to which standard errors of a logarithm are taken as they are: that of a variance near 0
#: is without bound.
_LARGEST_LOG = 2.0


@dataclass(frozen=True)
class Profile:
    """Profile of the log-likelihood in one parameter.

    Attributes
    ----------
    name : str
    estimate : float
        Value of greatest likelihood, on the user's scale.
    loglik : float
        The greatest log-likelihood.
    lower, upper : float
        Interval of values that the likelihood-ratio test does not reject; 0 or infinite
        where the likelihood stays above its bound to the edge of the range or as far as was
        looked (8 standard errors below, 24 above).
    level : float
        Its confidence.
    penalised : bool
        Whether the model has priors: then ``log p(y; theta) + log p(theta)`` stands wherever the
        log-likelihood is spoken of, and the interval is that of the penalised likelihood.
    table : DataFrame
        One row per value tried, ascending: ``value``, ``loglik``, the statistic ``lr``, its
        signed root ``root`` (a straight line where Wald intervals hold), and the estimates of
        all parameters at that value.
    """

    name: str
    estimate: float
    loglik: float
    lower: float
    upper: float
    level: float
    table: pd.DataFrame
    penalised: bool = False

    def __str__(self) -> str:
        """Return estimate and interval in words."""
        kind = "penalised profile" if self.penalised else "profile"
        return (
            f"{self.name}: {self.estimate:.4g}, {100.0 * self.level:g} % {kind} interval "
            f"{self.lower:.4g} to {self.upper:.4g}"
        )


def profile(
    model: NLME,
    theta: Array,
    name: str,
    *,
    level: float = 0.95,
    n_points: int = 0,
    n_threads: int | None = None,
) -> Profile:
    """Profile the likelihood in one parameter.

    Parameters
    ----------
    model : NLME
        With up to four random effects.
    theta : ndarray
        Packed parameters, at or near the maximum, to which the profile goes first.
    name : str
        Of a parameter, see ``model.param_names``.
    level : float
        Confidence of the interval.
    n_points : int
        Further values, evenly spread over the interval (on the scale of the search), for a plot.
    n_threads : int, optional

    Returns
    -------
    Profile

    Raises
    ------
    OptionError
        For an unknown name, or too many random effects.

    Notes
    -----
    At each value the other parameters maximise the likelihood by quadrature (quasi-Newton steps
    with gradients by Fisher's identity). Ends solve ``2 (l^ - l_p(value)) = chi2_1(level)``
    by secant steps on the signed root of the statistic. Venzon and Moolgavkar 1988, Appl.
    Statist. 37, 87-94. Of a model with priors the log posterior is profiled.
    """
    import pandas as pd
    from scipy.stats import chi2

    if name not in model.param_names:
        raise OptionError(f"{name!r} is not one of {', '.join(model.param_names)}.")
    if not 0.0 < level < 1.0:
        raise OptionError(f"level={level!r} must lie between 0 and 1, such as 0.95.")
    if model.n_coords and nodes_for(quadrature_dimension(model)) is None:
        raise OptionError(
            f"profiles are computed by quadrature, which {model.n_coords} random effects do not "
            "allow. Remedy: bootstrap(...), or sir(...)."
        )
    search = _Search(model, theta, model.param_names.index(name), n_threads)
    bound = float(np.sqrt(chi2.ppf(level, 1)))
    ends = [search.end(sign, bound) for sign in (-1.0, 1.0)]
    first, last = (
        t if np.isfinite(t) else search.farthest(sign)
        for t, sign in zip(ends, (-1.0, 1.0), strict=True)
    )
    for t in np.linspace(first, last, n_points + 2)[1:-1]:
        search.at(float(t))
    rows = sorted(search.points.values(), key=lambda point: point[0])
    columns = ["value", "loglik", "lr", "root", *model.param_names]
    table = pd.DataFrame([search.row(point) for point in rows], columns=columns)
    table = table.loc[:, ~table.columns.duplicated()]
    lower, upper = (search.value(t) for t in ends)
    top = search.value(search.best)
    return Profile(name, top, search.top, lower, upper, level, table, model.penalised)


class _Search:
    """Constrained maxima, each started from the line that the information predicts."""

    def __init__(self, model: NLME, theta: Array, j: int, n_threads: int | None) -> None:
        self.model, self.j, self.n_threads = model, j, n_threads
        self.scale = WorkingScale(model, theta)
        numbers = self.scale.to_working(model.estimation_vector(theta))
        self.information = self._information(numbers)
        self.others = np.delete(np.arange(numbers.size), j)
        # The maximum itself first: estimates of chains are near it only.
        self.centre, self.top = self._maximise(numbers, np.arange(numbers.size))
        self.information = self._information(self.centre)
        self.covariance = np.linalg.inv(self.information)
        self.best = float(self.centre[j])
        self.se = float(np.sqrt(self.covariance[j, j]))
        self.points: dict[float, tuple[float, float, float, Array]] = {
            self.best: (self.best, self.top, 0.0, self.centre)
        }

    def _information(self, working: Array) -> Array:
        """Linearised information on the working scale."""
        from saem.inference._blocks import marginal_information
        from saem.inference.linearisation import linearise

        theta, slope = self.scale.theta(working), self.scale.slope(working)
        if theta is None:
            raise OptionError("the covariance of the random effects is not positive definite.")
        found = marginal_information(self.model, theta, linearise(self.model, theta))
        return np.asarray(found * np.outer(slope, slope))

    def _maximise(self, start: Array, free: Any) -> tuple[Array, float]:
        """Maximise over the free numbers, in coordinates in which their information is I."""
        from scipy.optimize import minimize

        if not len(free):
            return start, self._negative(start, free)[0] * -1.0
        # Logarithms of variances near 0 have next to no information, but no long way to go.
        floor = np.where(self.scale.logged, _LARGEST_LOG**-2, 0.0)
        matrix = self.information + np.diag(np.maximum(floor - np.diag(self.information), 0.0))
        values, vectors = np.linalg.eigh(matrix[np.ix_(free, free)])
        axes = vectors / np.sqrt(np.maximum(values, 1e-10 * values[-1]))

        def function(u: Array) -> tuple[float, Array]:
            working = start.copy()
            working[free] += axes @ u
            value, gradient = self._negative(working, free)
            return value, axes.T @ gradient

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            found = minimize(
                function, np.zeros(len(free)), jac=True, method="BFGS",
                options={"gtol": _SLOPE, "maxiter": 200},
            )  # fmt: skip
        if not np.abs(found.jac).max() < 30.0 * _SLOPE:
            warnings.warn(
                f"a maximum of the profile of {self.model.param_names[self.j]} was not found to "
                f"the last digit (slope {np.abs(found.jac).max():.2g} per standard error).",
                SaemWarning,
                stacklevel=2,
            )
        best = start.copy()
        best[free] += axes @ found.x
        return best, -float(found.fun)

    def _negative(self, working: Array, free: Any) -> tuple[float, Array]:
        """Negative log-likelihood and its gradient by the free working numbers."""
        theta = self.scale.theta(working)
        if theta is None:
            return 1e10, np.zeros(len(free))
        value, gradient = value_and_gradient(self.model, theta, n_threads=self.n_threads)
        if self.model.penalised:
            value += self.model.log_prior(theta)
            gradient = gradient + prior_score(self.model, theta)
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return 1e10, np.zeros(len(free))
        return -value, -(gradient * self.scale.slope(working))[free]

    def at(self, t: float) -> float:
        """Signed root of the likelihood ratio at a value, on the working scale."""
        if t in self.points:
            return self.points[t][2]
        known = min(self.points, key=lambda other: abs(other - t))
        start = self.points[known][3].copy()
        start += self.covariance[:, self.j] / self.covariance[self.j, self.j] * (t - known)
        start[self.j] = t
        numbers, value = self._maximise(start, self.others)
        root = float(np.sign(t - self.best) * np.sqrt(max(0.0, 2.0 * (self.top - value))))
        self.points[t] = (t, value, root, numbers)
        return root

    def place(self, sign: float, distance: float) -> float:
        """Working value so many standard errors from the best one, above or below.

        Variances and residual scales go up on their own scale, so that the step is right also
        from an estimate near 0, and down on that of their logarithm.
        """
        if not self.scale.logged[self.j]:
            return self.best + sign * distance * self.se
        if sign > 0.0:
            return self.best + float(np.log1p(distance * self.se))
        return self.best - distance * min(self.se, _LARGEST_LOG)

    def farthest(self, sign: float) -> float:
        """Value beyond which nobody looks."""
        return self.place(sign, _FARTHEST if sign < 0.0 else 3.0 * _FARTHEST)

    def end(self, sign: float, bound: float) -> float:
        """Value at which the signed root is the bound; infinite where it never is."""
        inside, outside = (0.0, 0.0), None
        limit = _FARTHEST if sign < 0.0 else 3.0 * _FARTHEST
        distance = bound
        for _ in range(_STEPS):
            root = abs(self.at(self.place(sign, distance)))
            if abs(root - bound) < _ROOT:
                break
            if root < bound:
                if distance >= limit:
                    return sign * np.inf
                inside = (distance, root)
            else:
                outside = (distance, root)
            if outside is None:
                # On by the secant from the maximum, at most threefold.
                distance = min(limit, distance * min(3.0, 1.05 * bound / max(root, 1e-3)))
            else:
                share = (bound - inside[1]) / (outside[1] - inside[1])
                # Away from the ends, so that the bracket shrinks from both sides.
                distance = inside[0] + min(0.95, max(0.05, share)) * (outside[0] - inside[0])
        return self.place(sign, distance)

    def value(self, t: float) -> float:
        """From the working to the user's scale; the edge of the range at infinity."""
        name, kind = self.model.param_names[self.j], self.model.param_kind[self.j]
        if kind == "typical":
            parameter = self.model.parameters[name]
            if not np.isfinite(t):
                return float(parameter.bounds[1 if t > 0 else 0])
            return float(parameter.to_psi(t))
        if self.scale.logged[self.j]:
            return float(np.exp(t))
        return float(t)

    def row(self, point: tuple[float, float, float, Array]) -> list[float]:
        """Row of the table."""
        t, value, root, numbers = point
        theta = self.scale.theta(numbers)
        assert theta is not None
        params = self.model.params_of(theta)
        return [self.value(t), value, 2.0 * (self.top - value), root, *map(float, params)]
