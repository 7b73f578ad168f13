"""Bayesian logistic regression by Gaussian variational inference, as MISSO does it.

    w ~ N(0, prior_scale^2 I),   P(y_i = 1) = expit(x_i'w),   q(w) = N(mu, diag(sd^2)).

Layouts stand in `saem.models._variational_logistic_kernels`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from saem._types import make_kernels
from saem.contract import Array, Model
from saem.exceptions import DataError, ModelError, Problems
from saem.results import Results
from saem.statistics import Packed

from . import _variational_logistic_kernels as kernels
from ._binary import mean_expit, read_binary
from ._checks import add_bad_flags, is_number, is_whole
from ._incomplete import read_weights
from ._records import expect_records
from ._table import read_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["VariationalLogistic", "VariationalLogisticResults", "simulate"]

#: Squares of smaller prior scales have no inverse.
_NARROWEST = 1e-150


class VariationalLogistic(Model):
    """Mean-field Gaussian approximation of the posterior of a logistic regression.

    Parameters
    ----------
    X : array_like or DataFrame of shape (n, n_columns)
        Covariates; columns of about unit size converge fastest.
    y : array_like of shape (n,)
        0 and 1.
    prior_scale : float
        Standard deviation of the normal prior of every coefficient.
    intercept : bool
        Put a column of ones before X, with the same prior.
    n_nodes : int
        Gauss-Hermite nodes of the exact E-step.
    weights : array_like of shape (n,), optional
        A weight of 2 is the same as the row standing there twice.

    Raises
    ------
    DataError, ModelError
        With all problems found, before anything is computed.

    Notes
    -----
    The quadratic-surrogate case of MISSO (Karimi, Wai, Moulines and Lavielle 2022, SIAM J.
    Optim. 32): maximise the evidence lower bound

        ELBO(mu, sd) = sum_i E_q log p(y_i | x_i'w) - KL(q || prior).

    A visit of i at theta' replaces its loss by its quadratic majoriser there, whose gradient is
    exact by quadrature of the one-dimensional linear predictor (``expect``), or that of one
    reparametrised draw ``w = mu + sd e`` (``draw``). T(s) minimises the mean of the
    majorisers: with the incremental proxy this is MISO, with draws MISSO. Two choices differ
    from the paper's ``theta = mean theta^(tau_i) - (gamma / n) sum g_i``:

    * sd itself and not its logarithm is the parameter, and KL / n is kept exact in T(s),
      which has a closed form and keeps sd above 0. On the scale of log sd the loss has
      no bounded curvature; on this one it has, everywhere (Domke 2020, ICML, "Provable
      smoothness guarantees for black-box variational inference"): the second derivative of
      ``-log expit`` is at most 1/4 and ``E (x, x e)(x, x e)'`` is block-diagonal, so that

          Hessian f_i <= diag(|x_i|^2 / 4 for mu, x_ij^2 / 4 for sd_j).

    * Each individual has its own bound instead of the largest of all, which makes the
      step ``1 / mean_i L_i``.

    Full passes (``"em"``) are then proximal gradient steps and never lower the ELBO, which is
    also what the log-likelihood of results is.

    Examples
    --------
    >>> import numpy as np
    >>> X, y = simulate(np.random.default_rng(0), 100)
    >>> fit = VariationalLogistic(X, y).fit("em", progress=False)
    >>> fit.posterior.shape
    (4, 2)
    """

    name: ClassVar[str] = "variational logistic regression"
    capabilities: ClassVar[frozenset[str]] = frozenset({"expect", "draw", "surrogate"})
    maximize_errors: ClassVar[dict[int, str]] = {
        kernels.NOT_FINITE: "a statistic is not finite",
        kernels.FLAT: "a surrogate has negative curvature",
    }

    def __init__(
        self,
        X: Any,
        y: Any,
        *,
        prior_scale: float = 1.0,
        intercept: bool = True,
        n_nodes: int = 24,
        weights: ArrayLike | None = None,
    ) -> None:
        problems = Problems("the logistic regression")
        if not (is_number(prior_scale) and _NARROWEST < prior_scale < 1.0 / _NARROWEST):
            problems.add(
                f"prior_scale={prior_scale!r} must be a number above 0 with a finite square"
            )
        add_bad_flags(problems, intercept=intercept)
        if not (is_whole(n_nodes) and 2 <= n_nodes <= 200):
            problems.add(f"n_nodes={n_nodes!r} must be a whole number from 2 to 200")
        problems.raise_if_any(ModelError)
        table = read_table(X, problems)
        problems.raise_if_any(DataError)
        assert table is not None  # or there had been problems
        n = len(table.values)
        response = read_binary(y, n, problems)
        self.weights = read_weights(weights, n, problems)
        problems.raise_if_any(DataError)
        design = np.column_stack([np.ones(n), table.values]) if intercept else table.values
        self.coefficient_names = [*(["intercept"] if intercept else []), *table.names]
        self.X, self.y, self.design = X, y, design
        self.prior_scale, self.intercept = float(prior_scale), bool(intercept)
        self.n_nodes = n_nodes
        p = design.shape[1]
        self.n_individuals = self.nobs = n
        self.values = np.column_stack([self.weights, response, design]).ravel()
        self.offsets = np.array([0, 2 + p])
        self.latent_size, self.work_size = 2 * p, p
        self.theta_spec = Packed(
            constants=(kernels.HEAD,), precision=(p,), rule=(2, n_nodes), mean=(p,), sd=(p,)
        )
        self.stat_spec = Packed(mean=(p,), sd=(p,), curvature_mean=(), curvature_sd=(p,))
        names = self.coefficient_names
        self.param_names = [*(f"mean[{c}]" for c in names), *(f"sd[{c}]" for c in names)]
        self.n_params = len(self.param_names)
        self.kernels = make_kernels(
            expect=kernels.expect,
            draw=kernels.draw,
            accumulate=kernels.accumulate,
            maximize=kernels.maximize,
            project=kernels.project,
            surrogate=kernels.surrogate,
        )

    def pack_params(self, *, mean: ArrayLike, sd: ArrayLike) -> Array:
        """Theta from the moments of q.

        Parameters
        ----------
        mean, sd : array_like of shape (n_coefficients,)

        Raises
        ------
        ModelError
            If a shape is wrong, a number is not finite, or a standard deviation not above 0.
        """
        p = len(self.coefficient_names)
        problems = Problems("the parameters")
        for name, value in (("mean", mean), ("sd", sd)):
            if np.shape(value) != (p,) or not np.all(np.isfinite(value)):
                problems.add(f"{name}={value!r} must be {p} finite numbers")
        if not problems and not np.all(np.asarray(sd) > 0.0):
            problems.add(f"sd={sd!r} must be above 0")
        problems.raise_if_any(ModelError)
        nodes, node_weights = np.polynomial.hermite_e.hermegauss(self.n_nodes)
        return self.theta_spec.pack(
            {
                "constants": [p, self.n_individuals, self.n_nodes],
                "precision": np.full(p, self.prior_scale**-2),
                "rule": [nodes, node_weights / node_weights.sum()],
                "mean": mean,
                "sd": sd,
            }
        )

    def params_of(self, theta: Array) -> Array:
        """Means, then standard deviations of the coefficients under q."""
        view = self.theta_spec.view(theta)
        return np.concatenate([view["mean"], view["sd"]])

    def start(self, rng: np.random.Generator) -> Array:
        """Mean 0; the spread that the largest possible curvature of the data would give."""
        square = np.square(self.design).sum(axis=0)
        sd = 1.0 / np.sqrt(self.prior_scale**-2 + 0.25 * square)
        return self.pack_params(mean=np.zeros(sd.size), sd=sd)

    def check_theta(self, theta: Array) -> None:
        """Raise `ModelError` if a starting theta is not admissible."""
        if theta.shape != (self.theta_spec.size,):
            raise ModelError(f"theta must be {self.theta_spec.size} numbers; use `pack_params`.")
        view = self.theta_spec.view(theta)
        self.pack_params(mean=view["mean"], sd=view["sd"])

    def loglik(self, theta: Array) -> float:
        """Evidence lower bound (nats); no larger than the log-likelihood with w integrated out."""
        n = self.n_individuals
        values = np.empty(n)
        expect_records(
            kernels.expect, theta, self.values, int(self.offsets[1]),
            np.empty((n, self.latent_size)), values, np.empty(self.work_size),
        )  # fmt: skip
        return float(values.sum())

    def predict_proba(self, theta: Array, X: Any = None) -> Array:
        """``P(y = 1)`` of rows, w integrated over q; of shape (n,)."""
        design = self.design
        if X is not None:
            problems = Problems("the rows to predict")
            names = self.coefficient_names[1 if self.intercept else 0 :]
            table = read_table(X, problems, names)
            problems.raise_if_any(DataError)
            assert table is not None  # or there had been problems
            ones = np.ones((len(table.values), 1 if self.intercept else 0))
            design = np.column_stack([ones, table.values])
        view = self.theta_spec.view(theta)
        return mean_expit(design @ view["mean"], design**2 @ view["sd"] ** 2)

    def reweighted(self, weights: Array) -> VariationalLogistic:
        """Return the same model and data with other weights of the rows."""
        return VariationalLogistic(
            self.X, self.y, prior_scale=self.prior_scale, intercept=self.intercept,
            n_nodes=self.n_nodes, weights=weights,
        )  # fmt: skip

    def persist(self) -> dict[str, Any]:
        """Arguments of the constructor, for a fit file."""
        import pandas as pd

        first = 1 if self.intercept else 0
        names = self.coefficient_names[first:]
        return {
            "X": pd.DataFrame(self.design[:, first:], columns=names),
            "y": np.asarray(self.y, dtype=float), "prior_scale": self.prior_scale,
            "intercept": self.intercept, "n_nodes": self.n_nodes, "weights": self.weights,
        }  # fmt: skip

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> VariationalLogistic:
        """Small simulated instance; the bound has one maximum."""
        X, y = simulate(rng, n, coefficients=(0.3, 1.0, -0.5))
        return cls(X, y)

    def results(self, record: Any) -> VariationalLogisticResults:
        """Wrap the record of a fit."""
        return VariationalLogisticResults(self, record)


class VariationalLogisticResults(Results):
    """Results of variational logistic regression; `llf` is the evidence lower bound."""

    model: VariationalLogistic

    @property
    def posterior(self) -> pd.DataFrame:
        """Mean and sd of every coefficient under q, of shape (n_coefficients, 2)."""
        import pandas as pd

        view = self.model.theta_spec.view(self.record.theta)
        return pd.DataFrame(
            {"mean": view["mean"].copy(), "sd": view["sd"].copy()},
            index=self.model.coefficient_names,
        )

    def predict_proba(self, X: Any = None) -> Array:
        """``P(y = 1)`` of rows with the coefficients' uncertainty; the data's by default."""
        return self.model.predict_proba(self.record.theta, X)

    def _covariance(self) -> Array:
        """Not defined: the parameters are those of a posterior, not estimates with an error."""
        return np.full((len(self.param_names),) * 2, np.nan)


def simulate(
    rng: np.random.Generator,
    n: int = 500,
    *,
    coefficients: ArrayLike = (0.5, 1.0, -1.0, 0.0),
) -> tuple[Array, Array]:
    """Simulate a logistic regression on standard normal covariates.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
    coefficients : array_like of shape (1 + n_columns,)
        The intercept first.

    Returns
    -------
    X : ndarray of shape (n, n_columns)
    y : ndarray of shape (n,)
    """
    w = np.asarray(coefficients, dtype=float)
    X = rng.standard_normal((n, w.size - 1))
    y = rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-w[0] - X @ w[1:]))
    return X, y.astype(float)
