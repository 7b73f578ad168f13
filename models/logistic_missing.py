"""Logistic regression whose Gaussian covariates have missing entries.

    z_i ~ N(beta, Omega),   P(y_i = 1 | z_i) = expit(delta_0 + delta'z_i).

Layouts stand in `saem.models._logistic_missing_kernels`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from saem._types import make_kernels
from saem.contract import Array
from saem.exceptions import DataError, ModelError, OptionError, Problems
from saem.statistics import Packed

from . import _logistic_missing_kernels as kernels
from ._binary import mean_expit, read_binary
from ._checks import is_symmetric, read_arrays
from ._incomplete import observed_moments
from ._latent_gaussian import LatentGaussianModel, LatentGaussianResults, hessian, repeated
from ._linear_predictor import predictors
from ._table import read_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LogisticMissing", "LogisticMissingResults", "simulate"]


class LogisticMissing(LatentGaussianModel):
    """Logistic regression with covariates missing at random.

    Parameters
    ----------
    X : array_like or DataFrame of shape (n, p)
        Covariates, jointly normal; not-a-number where missing.
    y : array_like of shape (n,)
        0 and 1, complete.
    coefficients : array_like of shape (1 + p,), optional
        Known coefficients, intercept first; estimated by default.

    Raises
    ------
    DataError, ModelError
        With all problems found, before anything is computed.

    Notes
    -----
    The latent coordinates are the missing entries, with their conditional normal
    distribution given the observed ones as prior; all E-steps for Gaussian coordinates apply:
    chains, and quadrature for up to about three missing entries a row. (beta, Omega) have exact
    statistics. The coefficients have none: their M-step maximises the quadratic minoriser
    of the logistic log-likelihood at each draw (Boehning and Lindsay 1988), which is linear in
    statistics, so that every algorithm applies to them as well, and EM never lowers the
    log-likelihood. On complete data this is the minorisation algorithm of that paper,
    with the usual logistic regression as its limit.

    The model of the stochastic-surrogate and SAEM studies (Jiang, Josse and Lavielle 2020,
    Comput. Statist. Data Anal. 145; Karimi, Wai, Moulines and Lavielle 2022, SIAM J. Optim.
    32), there with the coefficients fitted numerically or known. Responses are modelled as
    ``P(y = 1)``.

    Examples
    --------
    >>> import numpy as np
    >>> X, y = simulate(np.random.default_rng(0), 60)
    >>> model = LogisticMissing(X, y)
    >>> model.n_individuals, model.n_coords
    (60, 2)
    """

    name: ClassVar[str] = "logistic regression with missing covariates"
    capabilities: ClassVar[frozenset[str]] = frozenset({"gaussian", "surrogate"})
    maximize_errors: ClassVar[dict[int, str]] = {
        kernels.NOT_FINITE: "a statistic is not finite",
        kernels.SINGULAR: "the covariance of the covariates is singular",
    }

    def __init__(self, X: Any, y: Any, *, coefficients: ArrayLike | None = None) -> None:
        problems = Problems("the logistic regression")
        table = read_table(X, problems, missing=True)
        problems.raise_if_any(DataError)
        assert table is not None  # or there had been problems
        x, self.covariates = table.values, table.names
        n, p = x.shape
        response = read_binary(y, n, problems)
        mean, variance = observed_moments(x, np.ones(n))
        for j, name in enumerate(table.names):
            if not variance[j] > 1e-24 * max(mean[j] ** 2, 1e-200):
                problems.add(f"column {name!r} has fewer than two different observed values")
        if n <= p + 1:
            problems.add(f"{n} rows are too few for {p} covariates")
        problems.raise_if_any(DataError)
        self.coefficients = None if coefficients is None else _known(coefficients, p + 1)
        self.X, self.y, self.x, self.response = X, y, x, response
        self._observed = mean, variance
        self._share = float(response.mean())
        missing = np.isnan(x)
        self.n_individuals = self.nobs = n
        self.n_coords = max(1, int(missing.sum(axis=1).max()))
        slots = np.where(missing, np.cumsum(missing, axis=1) - 1.0, -1.0)
        columns = [response, missing.sum(axis=1), slots, np.where(missing, 0.0, x)]
        self.values = np.column_stack(columns).ravel()
        self.offsets = np.array([0, 2 + 2 * p])
        self.latent_size = self.n_coords + 1
        self.work_size = kernels.work_size(p)
        self.theta_spec = Packed(
            constants=(kernels.HEAD,), beta=(p,), omega=(p, p), delta=(p + 1,),
            precision=(p, p), half_log_det=(),
        )  # fmt: skip
        self.stat_spec = Packed(z=(p,), zz=(p * (p + 1) // 2,), r=(), zr=(p,))
        self._names()
        self.kernels = make_kernels(
            log_lik=kernels.log_lik,
            prior=kernels.prior,
            accumulate=kernels.accumulate,
            maximize=kernels.maximize,
            project=kernels.project,
            surrogate=kernels.surrogate,
        )

    def _names(self) -> None:
        names = self.covariates
        self.coefficient_names = ["intercept", *names]
        self.param_names = [*(f"mean[{a}]" for a in names)]
        for j, a in enumerate(names):
            self.param_names += [f"cov[{b},{a}]" for b in names[:j]] + [f"var[{a}]"]
        if self.coefficients is None:
            self.param_names += self.coefficient_names
        self.n_params = len(self.param_names)

    def pack_params(
        self, *, beta: ArrayLike, omega: ArrayLike, delta: ArrayLike | None = None
    ) -> Array:
        """Theta from the parameters.

        Parameters
        ----------
        beta : array_like of shape (p,)
            Mean of the covariates.
        omega : array_like of shape (p, p)
            Their covariance.
        delta : array_like of shape (1 + p,), optional
            Coefficients, intercept first; needed unless they are known.

        Raises
        ------
        ModelError
            If a shape is wrong, a number not finite or omega not positive definite.
        """
        p = len(self.covariates)
        if self.coefficients is not None:
            delta = self.coefficients
        problems = Problems("the parameters")
        shapes = {name: self.theta_spec.shapes[name] for name in ("beta", "omega", "delta")}
        given = {"beta": beta, "omega": omega, "delta": delta}
        blocks = read_arrays(given, shapes, problems)
        problems.raise_if_any(ModelError)
        head = [p, self.n_coords, 0.0 if self.coefficients is None else 1.0]
        theta = self.theta_spec.pack(
            {"constants": head, "precision": np.zeros((p, p)), "half_log_det": 0.0, **blocks}
        )
        if not is_symmetric(omega) or not kernels.derive(theta):
            raise ModelError(f"omega must be symmetric and positive definite; got\n{omega!r}")
        return theta

    def params_of(self, theta: Array) -> Array:
        """Means, lower triangle of the covariance, coefficients unless they are known."""
        view = self.theta_spec.view(theta)
        triangle = view["omega"][np.tril_indices(len(self.covariates))]
        free = view["delta"] if self.coefficients is None else np.empty(0)
        return np.concatenate([view["beta"], triangle, free])

    def theta_of(self, params: Array) -> Array:
        """Theta from the parameters of `params_of`."""
        p = len(self.covariates)
        low = np.tril_indices(p)
        omega = np.empty((p, p))
        omega[low] = omega.T[low] = params[p : p + len(low[0])]
        return self.pack_params(beta=params[:p], omega=omega, delta=params[p + len(low[0]) :])

    def start(self, rng: np.random.Generator) -> Array:
        """Means and variances of the observed entries; coefficients 0 but for the intercept."""
        mean, variance = self._observed
        delta = np.zeros(mean.size + 1)
        delta[0] = np.log(self._share / (1.0 - self._share))
        return self.pack_params(beta=mean, omega=np.diag(variance), delta=delta)

    def loglik(self, theta: Array) -> float:
        """Log-likelihood, by quadrature of the linear predictor, which is one-dimensional.

        ``p(y, z_o) = p(z_o) E[expit(+-t) | z_o]`` with t = delta'(1, z) normal given the
        observed entries, however many are missing: independent of the quadrature E-step.
        """
        view = self.theta_spec.view(theta)
        mean, variance, log_density = predictors(self.x, view["beta"], view["omega"], view["delta"])
        sign = 2.0 * self.response - 1.0
        values = log_density + np.log(mean_expit(sign * mean, variance))
        return float(values.sum())

    def cov_params(self, theta: Array) -> Array:
        """Covariance of the estimates: inverse observed information; NaN where singular."""
        p, n = len(self.covariates), self.n_individuals
        omega = self.theta_spec.view(theta)["omega"]
        low = np.tril_indices(p)
        sd = np.sqrt(np.diag(omega))
        spread = [sd, np.outer(sd, sd)[low] * 0.5]
        if self.coefficients is None:
            spread.append(1.0 / np.append(1.0, np.maximum(sd, abs(self._observed[0]))))
        scale = np.concatenate(spread) / np.sqrt(n)
        matrix = -hessian(lambda v: self.loglik(self.theta_of(v)), self.params_of(theta), scale)
        try:
            return np.asarray(np.linalg.inv(matrix), dtype=np.float64)
        except np.linalg.LinAlgError:
            return np.full_like(matrix, np.nan)

    def predict_proba(self, theta: Array, X: Any = None) -> Array:
        """``P(y = 1 | observed covariates)`` of rows, of shape (n,)."""
        x = self.x
        if X is not None:
            problems = Problems("the rows to predict")
            table = read_table(X, problems, self.covariates, missing=True)
            problems.raise_if_any(DataError)
            assert table is not None  # or there had been problems
            x = table.values
        view = self.theta_spec.view(theta)
        mean, variance, _ = predictors(x, view["beta"], view["omega"], view["delta"])
        return mean_expit(mean, variance)

    def reweighted(self, weights: Array) -> LogisticMissing:
        """Return the model with every row as often as its whole weight says."""
        new, rows = repeated(self, weights)
        new.nobs = new.n_individuals
        new.x, new.response = self.x[rows], self.response[rows]
        return new

    def persist(self) -> dict[str, Any]:
        """Arguments of the constructor, for a fit file, and what `reweighted` did."""
        import pandas as pd

        table = read_table(self.X, Problems("X"), missing=True)
        assert table is not None  # the constructor has read it
        return {
            "X": pd.DataFrame(table.values, columns=table.names),
            "y": np.asarray(self.y, dtype=float), "coefficients": self.coefficients,
            "times": getattr(self, "times", None),
        }  # fmt: skip

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> LogisticMissing:
        """Small simulated instance with at most two missing entries a row."""
        X, y = simulate(rng, n, coefficients=(0.2, 1.0, -0.5), missing=0.15)
        return cls(X, y)

    def results(self, record: Any) -> LogisticMissingResults:
        """Wrap the record of a fit."""
        return LogisticMissingResults(self, record)


def _known(coefficients: Any, size: int) -> Array:
    """Known coefficients, checked."""
    try:
        fixed = None if np.iscomplexobj(coefficients) else np.array(coefficients, dtype=float)
    except (TypeError, ValueError):
        fixed = None
    if fixed is None or fixed.shape != (size,) or not np.all(np.isfinite(fixed)):
        raise ModelError(
            f"coefficients={coefficients!r} must be {size} finite numbers, intercept first."
        )
    return fixed


class LogisticMissingResults(LatentGaussianResults):
    """Results of logistic regression with missing covariates."""

    model: LogisticMissing
    _default_method = "predictor"

    def _loglik(self, method: str, **options: Any) -> Any:
        """By default `LogisticMissing.loglik`, which needs no draws."""
        from saem.results import LogLik

        if method == self._default_method and not options:
            return LogLik(self.model.loglik(self.record.theta), 0.0, "quadrature of the predictor")
        return super()._loglik(method, **options)

    @property
    def coefficients(self) -> pd.Series:
        """Coefficients of the logistic regression, intercept first."""
        import pandas as pd

        delta = self.model.theta_spec.view(self.record.theta)["delta"]
        return pd.Series(delta.copy(), index=self.model.coefficient_names, name="coefficient")

    @property
    def covariate_mean(self) -> pd.Series:
        """Mean of the covariates."""
        import pandas as pd

        beta = self.model.theta_spec.view(self.record.theta)["beta"]
        return pd.Series(beta.copy(), index=self.model.covariates, name="mean")

    @property
    def covariate_cov(self) -> pd.DataFrame:
        """Covariance of the covariates, of shape (p, p)."""
        import pandas as pd

        names = self.model.covariates
        omega = self.model.theta_spec.view(self.record.theta)["omega"]
        return pd.DataFrame(omega.copy(), index=names, columns=names)

    def predict_proba(self, X: Any = None) -> Array:
        """``P(y = 1 | observed covariates)``; X may have missing entries."""
        return self.model.predict_proba(self.record.theta, X)


def simulate(
    rng: np.random.Generator,
    n: int = 700,
    *,
    coefficients: ArrayLike = (0.0, 1.0, 1.0, 0.0),
    correlation: float = 0.0,
    missing: float = 0.1,
    mechanism: str = "mcar",
) -> tuple[Array, Array]:
    """Simulate the missing-covariates experiment of the stochastic-surrogate study.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
    coefficients : array_like of shape (1 + p,)
        Intercept first.
    correlation : float
        ``Omega_jk = correlation ** |j - k|``; means are 0.
    missing : float
        Share of missing entries.
    mechanism : {"mcar", "mar"}
        Missing completely at random, or with log odds that rise with the first
        covariate, which is then always observed.

    Returns
    -------
    X : ndarray of shape (n, p)
    y : ndarray of shape (n,)
    """
    if mechanism not in ("mcar", "mar") or not 0.0 <= missing < 1.0:
        raise OptionError(
            f"mechanism={mechanism!r} must be 'mcar' or 'mar', and missing={missing!r} lie in "
            "[0, 1)."
        )
    w = np.asarray(coefficients, dtype=float)
    p = w.size - 1
    index = np.arange(p)
    omega = float(correlation) ** abs(index[:, None] - index)
    X = rng.standard_normal((n, p)) @ np.linalg.cholesky(omega).T
    y = rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-w[0] - X @ w[1:]))
    chance = np.full((n, p), missing)
    if mechanism == "mar" and 0.0 < missing:
        odds = missing / (1.0 - missing) * np.exp(X[:, :1])
        chance = np.repeat(odds / (1.0 + odds), p, axis=1)
        chance[:, 0] = 0.0
    X[rng.uniform(size=(n, p)) < chance] = np.nan
    return X, y.astype(float)
