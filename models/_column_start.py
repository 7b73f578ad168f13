"""Starting partitions of rows with columns of any family."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array

from ._mixture_columns import Column
from ._mixture_start import distinct_rows, kmeans_plus_plus, lloyd

__all__ = ["coordinates", "distinct_count", "random_labels", "responsibilities"]

#: Share of a row that a starting partition leaves to all components alike: no level starts at 0.
_SHARED = 0.1


def distinct_count(table: Array, wanted: int) -> int:
    """Number of distinct rows, exact up to `wanted`; missing values are equal."""
    return len(distinct_rows(np.nan_to_num(table, nan=-1.5), wanted))


def coordinates(columns: list[Column], table: Array) -> Array:
    """Coordinates in which differences of rows are comparable, of shape (n, n_coordinates).

    Square roots of counts and shares (their variance is then stable), logarithms of
    positive values, indicators of levels; a column has total variance 1, missing values
    are its mean.
    """
    parts, at = [], 0
    for column in columns:
        x = table[:, at : at + len(column.members)]
        at += len(column.members)
        if column.family in ("bernoulli", "categorical"):
            part = (x == np.arange(len(column.levels))).astype(float)
            part[np.isnan(x[:, 0])] = np.nan
        elif column.family == "multinomial":
            part = np.sqrt(x / np.maximum(x.sum(axis=1, keepdims=True), 1.0))
        elif column.family == "poisson":
            part = np.sqrt(x)
        elif column.family == "gaussian":
            part = x
        else:
            positive = x[x > 0.0]
            least = positive.min() if positive.size else 1.0
            part = np.log(np.where(x > 0.0, x, 0.5 * least) + 0.0 * x)
        seen = ~np.isnan(part[:, 0])
        centred = np.where(
            seen[:, None], part - part[seen].mean(axis=0) if seen.any() else 0.0, 0.0
        )
        spread = np.sqrt(np.square(centred).sum() / max(1, seen.sum()))
        parts.append(centred / spread if spread > 0.0 else centred)
    return np.concatenate(parts, axis=1)


def random_labels(X: Array, k: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Labels by k-means++ and a few steps of k-means."""
    return lloyd(X, kmeans_plus_plus(X, k, rng))


def responsibilities(labels: NDArray[np.intp], k: int) -> Array:
    """Responsibilities that favour the labels."""
    return (1.0 - _SHARED) * np.eye(k)[labels] + _SHARED / k
