"""Starting partitions of rows by clusterwise least squares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array

__all__ = ["clusterwise"]

_TRIES = 10
_STEPS = 10
#: Added to the diagonal of mean squares of orthonormal covariates.
_RIDGE = 1e-6


def _fit(x: Array, y: Array) -> Array:
    gram = x.T @ x + _RIDGE * max(1, len(x)) * np.eye(x.shape[1])
    return np.asarray(np.linalg.solve(gram, x.T @ y))


def _refine(x: Array, y: Array, lines: Array) -> tuple[float, NDArray[np.intp]]:
    """Rows go to the nearest line, lines to the least squares of their rows."""
    labels = np.zeros(len(y), dtype=np.intp)
    for _ in range(_STEPS):
        squares = np.square(y[:, None] - x @ lines.T)
        labels = squares.argmin(axis=1)
        lines = np.stack([_fit(x[labels == c], y[labels == c]) for c in range(len(lines))])
    left = y - np.einsum("np,np->n", x, lines[labels])
    return float(left @ left), labels


def clusterwise(x: Array, y: Array, k: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Labels of the best of several clusterwise regressions from random subsets of rows.

    References
    ----------
    Späth, H. (1979). Algorithm 39: clusterwise linear regression. Computing 22, 367-373.

    Parameters
    ----------
    x : ndarray of shape (n, p)
        Covariates, orthonormal on average.
    y : ndarray of shape (n,)
    k : int
    rng : numpy.random.Generator
    """
    best: tuple[float, NDArray[np.intp]] | None = None
    size = x.shape[1] + 1
    for _ in range(_TRIES):
        rows = rng.permutation(len(y))[: k * size].reshape(k, size)
        found = _refine(x, y, np.stack([_fit(x[r], y[r]) for r in rows]))
        if best is None or found[0] < best[0]:
            best = found
    assert best is not None
    return best[1]
