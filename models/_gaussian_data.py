"""Rows of a Gaussian mixture: reading, weights, missing values, and their records."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saem.contract import Array
from saem.exceptions import Problems

from ._incomplete import read_weights
from ._mixture_start import distinct_rows, subsample
from ._table import Moments, Table, chunks, moments, read_table

__all__ = ["Rows", "moments_of", "read_rows", "records_of", "solid_rows", "start_rows"]


class Rows(NamedTuple):
    """Rows as read.

    Attributes
    ----------
    table : Table
        Missing values are NaN.
    weights : ndarray of shape (n,) or None
        None where all weigh 1.
    most_missing : int
        Largest number of missing values in a row; 0 where none is missing.
    n_missing : int
        Missing values in all.
    """

    table: Table
    weights: Array | None
    most_missing: int
    n_missing: int

    @property
    def present(self) -> Array:
        """Values of the rows that weigh more than 0."""
        return self.table.values if self.weights is None else self.table.values[self.weights > 0.0]


def read_rows(
    X: Any,
    weights: Any,
    problems: Problems,
    names: list[str] | None = None,
    *,
    missing: bool | None = None,
) -> Rows | None:
    """Check rows and their weights.

    Parameters
    ----------
    X : array_like or DataFrame of shape (n, d)
    weights : array_like of shape (n,) or None
    problems : Problems
        Gathers what is wrong, such as rows and columns without any value.
    names : list of str, optional
        Columns that X must have.
    missing : bool, optional
        Whether missing values are allowed; they are unless False.

    Returns
    -------
    Rows or None
        None where X cannot be read.
    """
    table = read_table(X, problems, names, missing=missing is not False)
    if table is None:
        return None
    checked = None if weights is None else read_weights(weights, len(table.values), problems)
    most, total, empty = 0, 0, []
    seen = np.zeros(table.values.shape[1], dtype=bool)
    for part in chunks(len(table.values)):
        block = table.values[part]
        if not np.isnan(block.sum()):  # sums of numbers below 1e100: only NaN gives NaN
            seen[:] = True
            continue
        lost = np.isnan(block)
        count = lost.sum(axis=1)
        most, total = max(most, int(count.max())), total + int(count.sum())
        empty += list(part.start + np.flatnonzero(count == block.shape[1]))
        mine = True if checked is None else checked[part, None] > 0.0
        seen |= (~lost & mine).any(axis=0)
    if missing is not False:
        for i in empty[: problems.LIMIT]:
            problems.add(
                f"row {table.rows[i]} holds no value at all: it says nothing of the mixture",
                remedy="drop such rows, X[~numpy.isnan(X).all(axis=1)]",
            )
        for j in np.flatnonzero(~seen):
            problems.add(
                f"column {table.names[j]!r} holds no value in any row that counts",
                remedy="drop the column",
            )
    return Rows(table, checked, most, total)


def moments_of(rows: Rows) -> Moments:
    """Weighted mean and covariance; of the observed values where some are missing.

    Missing values count as means, and rows and columns of the covariance are scaled so
    that variances are those of the observed values: it stays positive semi-definite.
    """
    values, weights = rows.table.values, rows.weights
    if weights is None and not rows.most_missing:
        return moments(values)
    w = np.ones(len(values)) if weights is None else weights
    d = values.shape[1]
    count, total, cov = np.zeros(d), np.zeros(d), np.zeros((d, d))
    origin = np.array([column[np.flatnonzero(~np.isnan(column))[0]] for column in values.T])
    for part in chunks(len(values)):
        block, share = values[part] - origin, w[part, None]
        count += (share * ~np.isnan(block)).sum(axis=0)
        total += (share * np.nan_to_num(block)).sum(axis=0)
    mean = origin + total / count
    for part in chunks(len(values)):
        centred = np.nan_to_num(values[part] - mean)
        cov += (w[part, None] * centred).T @ centred
    scale = np.sqrt(count)
    return Moments(mean, cov / np.outer(scale, scale))


def solid_rows(values: Array, mean: Array) -> Array:
    """Rows with missing values replaced by the means of their columns; as they are if none is."""
    lost = np.isnan(values)
    return np.where(lost, mean, values) if lost.any() else values


def start_rows(
    values: Array, weights: Array | None, mean: Array, n_components: int, rng: np.random.Generator
) -> tuple[Array, Array | None]:
    """Random solid rows for a start, and their weights.

    Rows without weight are never taken.
    """
    if weights is None:
        return solid_rows(subsample(values, n_components, rng), mean), None
    both = np.column_stack([values, weights])[weights > 0.0]
    chosen = subsample(both, n_components, rng)
    rows = solid_rows(chosen[:, :-1], mean)
    if len(distinct_rows(rows, n_components)) < n_components:  # equal rows with other weights
        more = distinct_rows(solid_rows(both[:, :-1], mean), n_components)
        rows = np.vstack([rows, more])
        chosen = np.pad(chosen, ((0, len(more)), (0, 0)), constant_values=weights.mean())
    return np.ascontiguousarray(rows), chosen[:, -1].copy()


def records_of(values: Array, weights: Array | None, *, plain: bool) -> Array:
    """Records of rows: their values as they are, without a copy, or followed by a weight."""
    if plain:
        return values.ravel()
    records = np.empty((len(values), values.shape[1] + 1))
    records[:, :-1] = values
    records[:, -1] = 1.0 if weights is None else weights
    return records.ravel()
