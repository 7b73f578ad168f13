"""Rows of numbers with missing entries and weights: reading, checks, and the models' base.

The record of a row is its weight followed by its values, less the means of the columns;
missing values are not-a-number.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array, Model
from saem.exceptions import DataError, Problems

from ._checks import check_size_of_theta
from ._information import covariance_of, observed_information
from ._persisted import Persisted
from ._records import expect_records
from ._sums import mean_statistic
from ._table import Table, chunks, read_table

__all__ = [
    "IncompleteRows",
    "observed_moments",
    "read_weights",
]


def read_weights(weights: Any, n: int, problems: Problems, what: str = "rows") -> Array:
    """Weights of shape (n,), all 1 for None; at least 0, and not all 0.

    Parameters
    ----------
    weights : array_like of shape (n,) or None
    n : int
    problems : Problems
        Gathers what is wrong.
    what : str
        What the weights belong to, for messages.
    """
    if weights is None:
        return np.ones(n)
    try:
        array = None if np.iscomplexobj(weights) else np.array(weights, dtype=np.float64)
    except (TypeError, ValueError):
        array = None
    if array is None:
        problems.add("weights must be real numbers")
        return np.ones(n)
    if array.shape != (n,):
        problems.add(f"weights has shape {array.shape}; there are {n} {what}")
        return np.ones(n)
    bad = np.flatnonzero(~((array >= 0.0) & (array < np.inf)))
    for i in bad[:5]:
        problems.add(f"weights[{i}] is {array[i]}; a weight must be finite and at least 0")
    if not array.any():
        problems.add("all weights are 0")
    return np.ones(n) if bad.size else array


def observed_moments(values: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted mean and variance (divisor: total weight) of each column's observed values."""
    seen = ~np.isnan(values)
    share = weights[:, None] * seen
    total = share.sum(axis=0)
    with np.errstate(all="ignore"):
        mean = (share * np.where(seen, values, 0.0)).sum(axis=0) / total
        centred = np.where(seen, values - mean, 0.0)
        return mean, (share * centred * centred).sum(axis=0) / total


def add_empty_columns(names: list[str], mean: Array, variance: Array, problems: Problems) -> None:
    """Name columns without observed values (of positive weight), or with one value only."""
    for j, name in enumerate(names):
        if not np.isfinite(mean[j]):
            problems.add(
                f"column {name!r} has no observed value of positive weight",
                remedy="drop the column",
            )
        elif not np.sqrt(variance[j]) > 1e-13 * abs(mean[j]):
            problems.add(
                f"column {name!r} is constant (value {mean[j]:g})", remedy="drop the column"
            )


class IncompleteRows(Persisted, Model):
    """Base of models whose individuals are rows of a table with missing entries.

    Attributes
    ----------
    feature_names : list of str
    n_features : int
    shift : ndarray of shape (n_features,)
        Means of the observed values, taken off in the records: second moments about the
        origin would lose accuracy far from it. Data of `with_data` keep it, so that theta
        means the same.
    """

    _persisted: ClassVar[tuple[str, ...]] = (
        "feature_names", "n_features", "shift", "values", "n_individuals"
    )  # fmt: skip
    feature_names: list[str]
    n_features: int
    n_params: int
    shift: Array
    _functions: SimpleNamespace

    # Data.

    def _set_rows(self, values: Array, weights: Array) -> None:
        """Make the records of checked rows."""
        self.n_individuals, d = values.shape
        self.nobs = self.n_individuals
        self.has_missing = bool(np.isnan(values).any())
        self.values = self._records_of(values, weights).ravel()
        self.offsets = np.array([0, 1 + d])

    def _restored(self) -> None:
        self.nobs = self.n_individuals
        self.offsets = np.array([0, 1 + self.n_features])
        self.has_missing = bool(np.isnan(self.values).any())

    def _records_of(self, values: Array, weights: Array) -> Array:
        return np.column_stack([weights, values - self.shift])

    @property
    def weights(self) -> Array:
        """Weights of the rows, of shape (n,)."""
        return self._own_records()[:, 0].copy()

    @property
    def data(self) -> Array:
        """Rows of shape (n, n_features), not-a-number where missing."""
        return self._own_records()[:, 1:] + self.shift

    def _own_records(self) -> Array:
        return self.values.reshape(self.n_individuals, -1)

    def with_data(self, X: Any, weights: Any = None) -> Self:
        """Return the same model on other rows: same columns, same meaning of theta.

        Parameters
        ----------
        X : array_like or DataFrame of shape (n_rows, n_features)
            A DataFrame is matched by column names.
        weights : array_like of shape (n_rows,), optional

        Raises
        ------
        DataError
            With all that is wrong with X.
        """
        problems = Problems("X")
        table = read_table(X, problems, self.feature_names, missing=True)
        checked = read_weights(weights, len(table.values), problems) if table else None
        if table is not None:
            self._check_more(table, problems)
        problems.raise_if_any(DataError)
        assert table is not None
        assert checked is not None
        other = copy.copy(self)
        other._set_rows(table.values, checked)
        return other

    def _check_more(self, table: Table, problems: Problems) -> None:
        """Rules of the model that data of `with_data` must obey."""

    def reweighted(self, weights: Any) -> Self:
        """Return the same model and data with other weights of the rows.

        Parameters
        ----------
        weights : array_like of shape (n,)
            2 is the same as the row twice, 0 as its absence.
        """
        problems = Problems("the weights")
        checked = read_weights(weights, self.n_individuals, problems)
        problems.raise_if_any(DataError)
        other = copy.copy(self)
        records = self._own_records().copy()
        records[:, 0] = checked
        other.values = records.ravel()
        return other

    # Functions of theta and rows.

    def _records(self, X: Any) -> Array:
        """Records of new rows with weight 1, or the model's own for None."""
        if X is None:
            return self._own_records()
        problems = Problems("X")
        table = read_table(X, problems, self.feature_names, missing=True)
        problems.raise_if_any(DataError)
        assert table is not None
        return self._records_of(table.values, np.ones(len(table.values)))

    def _latents(self, theta: Array, records: Array) -> tuple[Array, Array]:
        """Posterior records and weighted log-likelihoods of records."""
        n, length = records.shape
        size = self._latent_size_of(records)
        latents, log_lik = np.empty((n, size)), np.empty(n)
        expect_records(
            self._functions.expect, theta, np.ascontiguousarray(records).ravel(), length,
            latents, log_lik, np.empty(max(1, self.work_size)),
        )  # fmt: skip
        return latents, log_lik

    def _latent_size_of(self, records: Array) -> int:
        return self.latent_size

    def score_samples(self, theta: Array, X: Any = None) -> Array:
        """Log-likelihood of the observed entries of each row (weights left out).

        Parameters
        ----------
        theta : ndarray of shape (theta_spec.size,)
        X : array_like or DataFrame of shape (n_rows, n_features), optional
            The model's own data by default.

        Returns
        -------
        ndarray of shape (n_rows,)
        """
        records = self._records(X).copy()
        records[:, 0] = 1.0
        return np.concatenate([self._latents(theta, records[p])[1] for p in chunks(len(records))])

    def loglik(self, theta: Array) -> float:
        """Weighted log-likelihood of the data."""
        return float(self.weights @ self.score_samples(theta))

    def check_theta(self, theta: Array) -> None:
        """Raise `ModelError` if a starting theta is not admissible."""
        check_size_of_theta(theta, self.theta_spec.size)

    # Uncertainty.

    @abstractmethod
    def theta_of(self, params: Array) -> Array:
        """Theta from the parameters of `params_of`."""

    @abstractmethod
    def _directions(self, theta: Array) -> Array:
        """Directions of shape (n_names, n_free), scaled by the spread of each parameter."""

    def information(self, theta: Array) -> Array:
        """Observed information of the data along `_directions`, per row."""
        directions = self._directions(theta)
        return observed_information(
            lambda t: mean_statistic(self, self._functions, t)[0],
            self._functions.surrogate,
            self.theta_of,
            self.params_of(theta),
            directions,
        )

    def cov_params(self, theta: Array) -> Array:
        """Covariance of the estimates: inverse observed information (Louis 1982).

        Returns
        -------
        ndarray of shape (len(param_names), len(param_names))
        """
        return covariance_of(self.information(theta), self._directions(theta), self.n_individuals)


def missing_pairs(seen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pairs of columns that no row observes together."""
    together = seen.T.astype(float) @ seen.astype(float)
    return [(int(a), int(b)) for a, b in np.argwhere(np.tril(together == 0.0, -1))]
