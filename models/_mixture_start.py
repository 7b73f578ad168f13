"""Starting partitions and centres of mixtures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array

__all__ = ["distinct_rows", "group_means", "kmeans_plus_plus", "lloyd", "subsample"]

#: Starts are made from at most this many rows.
MAX_ROWS = 10_000
_LLOYD_STEPS = 10


def distinct_rows(X: Array, wanted: int) -> Array:
    """At least `wanted` distinct rows where there are as many, else all distinct rows."""
    size = max(1000, 10 * wanted)
    while size < len(X):  # a few rows nearly always suffice: sorting all is dear
        rows = np.unique(X[:size], axis=0)
        if len(rows) >= wanted:
            return rows
        size *= 16
    return np.unique(X, axis=0)


def subsample(X: Array, n_components: int, rng: np.random.Generator) -> Array:
    """Random rows for a start: at most `MAX_ROWS`, with as many distinct ones as components."""
    size = max(MAX_ROWS, 50 * n_components)
    if len(X) <= size:
        return X
    rows = X[np.sort(rng.choice(len(X), size, replace=False, shuffle=False))]
    if len(distinct_rows(rows, n_components)) < n_components:
        rows = np.vstack([distinct_rows(X, n_components), rows])
    return rows


def _squared_distances(X: Array, centre: Array) -> Array:
    return np.square(X - centre).sum(axis=1)


def kmeans_plus_plus(
    X: Array, n_components: int, rng: np.random.Generator, weights: Array | None = None
) -> Array:
    """Choose centres among the rows, far from each other.

    Each has probability proportional to the squared distance from the nearest
    centre chosen before, times the row's weight.

    Returns
    -------
    ndarray of shape (n_components, n_features)

    References
    ----------
    Arthur, D. and Vassilvitskii, S. (2007). k-means++: the advantages of careful
    seeding. SODA '07, section 2.2.
    """
    centres = np.empty((n_components, X.shape[1]))
    if weights is None:
        centres[0] = X[rng.integers(len(X))]
    else:
        centres[0] = X[rng.choice(len(X), p=weights / weights.sum())]
    nearest = _squared_distances(X, centres[0])
    for c in range(1, n_components):
        total = np.cumsum(nearest if weights is None else weights * nearest)
        # `side="right"` never picks a row at distance zero
        chosen = np.searchsorted(total, rng.random() * total[-1], side="right")
        centres[c] = X[min(chosen, len(X) - 1)]
        nearest = np.minimum(nearest, _squared_distances(X, centres[c]))
    return centres


def group_means(
    X: Array, labels: NDArray[np.intp], n_groups: int, weights: Array | None = None
) -> Array:
    """Means of the rows of each group, weighted if weights are given; no group is empty."""
    groups = [labels == c for c in range(n_groups)]
    if weights is None:
        return np.stack([X[mine].mean(axis=0) for mine in groups])
    return np.stack([np.average(X[mine], axis=0, weights=weights[mine]) for mine in groups])


def lloyd(X: Array, centres: Array, weights: Array | None = None) -> NDArray[np.intp]:
    """Labels after a few steps of k-means, of rows with weights above 0 if given.

    A centre that loses all its rows takes the row farthest from its own centre.
    """
    labels = np.zeros(len(X), dtype=np.intp)
    for _ in range(_LLOYD_STEPS):
        distances = np.stack([_squared_distances(X, c) for c in centres])
        previous, labels = labels, distances.argmin(axis=0)
        own = distances.min(axis=0)
        for c in np.flatnonzero(np.bincount(labels, minlength=len(centres)) == 0):
            alone = np.bincount(labels, minlength=len(centres))[labels] == 1
            row = np.where(alone, -1.0, own).argmax()
            labels[row] = c
            own[row] = 0.0
        centres = group_means(X, labels, len(centres), weights)
        if np.array_equal(labels, previous):
            break
    return labels
