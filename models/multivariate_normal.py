"""Multivariate normal distribution with missing entries.

    y_i ~ N(mu, Sigma), of which some entries are not seen (missing at random).

The statistic of a row is (1, E y, E yy'), the expectations given what is seen of it;
layouts stand in `saem.models._normal_kernels`.
"""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from saem._types import make_kernels
from saem.contract import Array
from saem.exceptions import DataError, ModelError, Problems, SaemWarning
from saem.statistics import Packed

from . import _normal_kernels as kernels
from ._checks import collinear, is_symmetric, read_arrays
from ._incomplete import (
    IncompleteRows,
    add_empty_columns,
    missing_pairs,
    observed_moments,
    read_weights,
)
from ._table import Table, read_table

if TYPE_CHECKING:
    from ._normal_results import MultivariateNormalResults

__all__ = ["MultivariateNormal", "simulate"]


class MultivariateNormal(IncompleteRows):
    """Mean and covariance of a normal distribution from rows with missing entries.

    Parameters
    ----------
    X : array_like or DataFrame of shape (n, n_features)
        Rows of numbers, not-a-number where an entry is missing. A row of which nothing is
        seen adds nothing to the likelihood.
    weights : array_like of shape (n,), optional
        Weights of the rows, at least 0.

    Notes
    -----
    Missing entries must be missing at random: that they are missing may depend on what is
    seen, not on their own values. The E-step completes a row by the conditional means of
    its missing entries, and adds their conditional covariance to its square; the M-step is

        mu = s_1 / s_0,     Sigma = S / s_0 - mu mu'

    (Dempster, Laird and Rubin 1977, section 4.1; Little and Rubin 2019, Statistical
    Analysis with Missing Data, 3rd ed., section 11.2.1). Without missing entries one step
    is the maximum.

    Examples
    --------
    >>> import numpy as np
    >>> X, _ = simulate(np.random.default_rng(0), n=50)
    >>> model = MultivariateNormal(X)
    >>> model.n_features, model.n_params
    (3, 9)
    """

    name: ClassVar[str] = "multivariate normal"
    capabilities: ClassVar[frozenset[str]] = frozenset({"expect", "draw", "surrogate"})
    #: What the positive codes of `maximize` mean.
    maximize_errors: ClassVar[dict[int, str]] = {
        kernels.NO_ROWS: "the total weight of the rows is not above 0",
        kernels.SINGULAR_COVARIANCE: "the covariance is singular; use more rows, or drop columns "
        "that others determine",
    }
    _persisted: ClassVar[tuple[str, ...]] = (*IncompleteRows._persisted, "_variance")

    def __init__(self, X: Any, *, weights: ArrayLike | None = None) -> None:
        problems = Problems("the data")
        table = read_table(X, problems, missing=True)
        if table is None:
            raise DataError(problems.message())
        checked = read_weights(weights, len(table.values), problems)
        mean, variance = observed_moments(table.values, checked)
        add_empty_columns(table.names, mean, variance, problems)
        if not problems:
            _check_rank(table, checked, problems)
        problems.raise_if_any(DataError)
        _warn_of_pairs(table, checked)
        self.feature_names = table.names
        self.n_features = d = table.values.shape[1]
        self.shift, self._variance = mean, variance
        self._set_rows(table.values, checked)
        self._set_layout(d)

    def _set_layout(self, d: int) -> None:
        self.work_size = kernels.work_size(d)
        triangle = d * (d + 1) // 2
        self.theta_spec = Packed(
            sizes=(kernels.HEAD,), mean=(d,), covariance=(d, d), factor=(d, d), log_constant=()
        )
        self.stat_spec = Packed(weight=(), sums=(d,), squares=(triangle,))
        names = self.feature_names
        self.param_names = [f"mean[{a}]" for a in names] + [
            f"var[{a}]" if a == b else f"cov[{a},{b}]"
            for j, a in enumerate(names)
            for b in names[: j + 1]
        ]
        self.n_params = len(self.param_names)
        self._functions = SimpleNamespace(
            expect=kernels.expect,
            draw=kernels.draw,
            accumulate=kernels.accumulate,
            maximize=kernels.maximize,
            project=kernels.project,
            surrogate=kernels.surrogate,
        )
        self.kernels = make_kernels(**vars(self._functions))

    def _set_rows(self, values: Array, weights: Array) -> None:
        super()._set_rows(values, weights)
        self.latent_size = self._latent_size_of(self._own_records())

    def _restored(self) -> None:
        super()._restored()
        self._set_layout(self.n_features)
        self.latent_size = self._latent_size_of(self._own_records())

    def _latent_size_of(self, records: Array) -> int:
        most = int(np.isnan(records).sum(axis=1).max())
        return kernels.latent_size(most)

    # Parameters.

    def pack_params(self, *, mean: ArrayLike, covariance: ArrayLike) -> Array:
        """Theta from parameters on the user's scale.

        Parameters
        ----------
        mean : array_like of shape (n_features,)
        covariance : array_like of shape (n_features, n_features)

        Raises
        ------
        ModelError
            If a shape is wrong or the covariance is not positive definite.
        """
        d = self.n_features
        problems = Problems("the parameters")
        shapes = {"mean": (d,), "covariance": (d, d)}
        given = read_arrays({"mean": mean, "covariance": covariance}, shapes, problems)
        problems.raise_if_any(ModelError)
        mean, covariance = given["mean"], given["covariance"]
        theta = self.theta_spec.pack(
            {
                "sizes": [d],
                "mean": mean - self.shift,
                "covariance": covariance,
                "factor": np.zeros((d, d)),
                "log_constant": 0.0,
            }
        )
        if not is_symmetric(covariance) or not kernels.derive(theta):
            raise ModelError(
                f"covariance must be symmetric and positive definite; got\n{covariance}"
            )
        return theta

    def components(self, theta: Array) -> dict[str, Array]:
        """Parameters as ``mean`` (n_features,) and ``covariance`` (n_features, n_features)."""
        view = self.theta_spec.view(theta)
        return {"mean": view["mean"] + self.shift, "covariance": view["covariance"].copy()}

    def params_of(self, theta: Array) -> Array:
        """Mean and lower triangle of the covariance."""
        parts = self.components(theta)
        return np.concatenate(
            [parts["mean"], parts["covariance"][np.tril_indices(self.n_features)]]
        )

    def theta_of(self, params: Array) -> Array:
        """Theta from the parameters of `params_of`."""
        d = self.n_features
        low = np.tril_indices(d)
        covariance = np.empty((d, d))
        covariance[low] = covariance.T[low] = params[d:]
        return self.pack_params(mean=params[:d], covariance=covariance)

    def start(self, rng: np.random.Generator) -> Array:
        """Means and variances of the observed values, no correlation."""
        return self.pack_params(mean=self.shift, covariance=np.diag(self._variance))

    def _directions(self, theta: Array) -> Array:
        covariance = self.components(theta)["covariance"]
        # conditional standard deviations: Sigma stays positive definite under such steps
        spread = 1.0 / np.sqrt(np.linalg.inv(covariance).diagonal())
        low = np.tril_indices(self.n_features)
        return np.diag(np.concatenate([spread, np.outer(spread, spread)[low]]))

    # Functions of rows.

    def impute(self, theta: Array, X: Any = None) -> Array:
        """Rows whose missing entries are replaced by their conditional means.

        Parameters
        ----------
        theta : ndarray of shape (theta_spec.size,)
        X : array_like or DataFrame of shape (n_rows, n_features), optional
            The model's own data by default.

        Returns
        -------
        ndarray of shape (n_rows, n_features)
        """
        records = self._records(X)
        return self._fill(records, self._latents(theta, records)[0])

    def _fill(self, records: Array, latents: Array) -> Array:
        """Complete records by the leading entries of their latent records."""
        rows = records[:, 1:].copy()
        holes = np.isnan(rows)
        which, _ = np.nonzero(holes)
        rows[holes] = latents[which, (np.cumsum(holes, axis=1) - 1)[holes]]
        return rows + self.shift

    def draw_missing(self, theta: Array, rng: np.random.Generator, X: Any = None) -> Array:
        """Rows whose missing entries are drawn given the observed ones: one imputation.

        Returns
        -------
        ndarray of shape (n_rows, n_features)
        """
        records = np.ascontiguousarray(self._records(X))
        latents = np.empty((len(records), self._latent_size_of(records)))
        keys = rng.integers(0, 2**64, len(records), dtype=np.uint64)
        work = np.empty(self.work_size)
        for y, key, latent in zip(records, keys, latents, strict=True):
            kernels.draw(theta, y, key, latent, work)
        return self._fill(records, latents)

    def posterior(self, theta: Array) -> tuple[Array, Array]:
        """Completed rows (n, n_features) and log-likelihoods of the rows (n,)."""
        return self.impute(theta), self.score_samples(theta)

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> MultivariateNormal:
        """Three correlated columns, a fifth of whose entries are missing."""
        return cls(simulate(rng, n, missing=0.2)[0])

    def results(self, record: Any) -> MultivariateNormalResults:
        """Wrap the record of a fit."""
        from ._normal_results import MultivariateNormalResults

        return MultivariateNormalResults(self, record)


def _check_rank(table: Table, weights: Array, problems: Problems) -> None:
    """Name columns that others determine, as far as the pairs and complete rows show it."""
    rows = table.values[weights > 0.0]
    d = rows.shape[1]
    if len(rows) <= d:
        problems.add(
            f"{len(rows)} rows are too few for the covariance of {d} columns",
            remedy="a covariance needs more rows than columns",
        )
        return
    if np.isnan(rows).any():
        return
    names = [table.names[j] for j in collinear(np.corrcoef(rows, rowvar=False))]
    if names:
        problems.add(
            f"columns {', '.join(map(repr, names))} are collinear: the covariance is singular",
            remedy="drop one of them",
        )


def _warn_of_pairs(table: Table, weights: Array) -> None:
    """Warn of columns never seen together: the data do not tell their partial correlation."""
    pairs = missing_pairs(~np.isnan(table.values[weights > 0.0]))
    if pairs:
        named = ", ".join(f"{table.names[a]!r} and {table.names[b]!r}" for a, b in pairs[:5])
        warnings.warn(
            f"no row observes together {named}: their partial correlation is not determined, "
            "and the estimate depends on the start. Remedy: drop a column, or read only what "
            "does not involve the pair.",
            SaemWarning,
            stacklevel=3,
        )


def simulate(
    rng: np.random.Generator,
    n: int = 200,
    *,
    mean: ArrayLike = (1.0, -2.0, 0.5),
    covariance: ArrayLike = ((1.0, 0.6, 0.3), (0.6, 2.0, -0.4), (0.3, -0.4, 1.5)),
    missing: float = 0.2,
    monotone: bool = False,
) -> tuple[Array, Array]:
    """Simulate normal rows and hide some of their entries.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
        Number of rows.
    mean, covariance : array_like of shape (d,) and (d, d)
    missing : float
        Probability that an entry of the second or a later column is hidden; the first is
        always seen.
    monotone : bool
        Whether all columns after a hidden one are hidden as well (drop-out).

    Returns
    -------
    X : ndarray of shape (n, d)
        Not-a-number where hidden.
    complete : ndarray of shape (n, d)
    """
    mean, covariance = np.asarray(mean, dtype=float), np.asarray(covariance, dtype=float)
    complete = mean + rng.standard_normal((n, mean.size)) @ np.linalg.cholesky(covariance).T
    holes = rng.random(complete.shape) < missing
    holes[:, 0] = False
    if monotone:
        holes = np.logical_or.accumulate(holes, axis=1)
    return np.where(holes, np.nan, complete), complete
