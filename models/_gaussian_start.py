"""Starting labels of Gaussian mixtures, some of whose parts may be kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array

from ._mixture_start import kmeans_plus_plus, lloyd

__all__ = ["start_labels"]

Labels = NDArray[np.intp]


def start_labels(
    rows: Array,
    weights: Array | None,
    n_components: int,
    fixed: dict[str, Array],
    rng: np.random.Generator,
) -> Labels:
    """Components of rows for a start.

    k-means on standardised columns; where weights or covariances are kept, the clusters
    are given to the components they suit best. Where means are kept, the nearest.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    weights : ndarray of shape (n,) or None
    n_components : int
    fixed : dict
        Kept parts: covariances as (k, d, d).
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of shape (n,)
    """
    scale = rows.std(axis=0)
    scale = np.where(scale > 0.0, scale, 1.0)
    scaled = rows / scale
    if "means" in fixed:
        centres = fixed["means"] / scale
        return np.stack([np.square(scaled - m).sum(axis=1) for m in centres]).argmin(axis=0)
    centres = kmeans_plus_plus(scaled, n_components, rng, weights)
    labels = lloyd(scaled, centres, weights)
    return _suited(rows, weights, labels, n_components, fixed) if fixed else labels


def _suited(
    rows: Array, weights: Array | None, labels: Labels, k: int, fixed: dict[str, Any]
) -> Labels:
    """Labels renamed so that the likelihood of the kept weights and covariances is largest."""
    from scipy.optimize import linear_sum_assignment

    gain = np.zeros((k, k))
    for a in range(k):
        mine = labels == a
        w = np.ones(mine.sum()) if weights is None else weights[mine]
        n = w.sum()
        if "weights" in fixed:
            gain[a] += n * np.log(fixed["weights"])
        if "covariances" in fixed:
            centred = rows[mine] - np.average(rows[mine], axis=0, weights=w)
            scatter = (w[:, None] * centred).T @ centred
            for c, covariance in enumerate(fixed["covariances"]):
                gain[a, c] -= 0.5 * n * np.linalg.slogdet(covariance)[1]
                gain[a, c] -= 0.5 * np.trace(np.linalg.solve(covariance, scatter))
    return linear_sum_assignment(gain, maximize=True)[1][labels]
