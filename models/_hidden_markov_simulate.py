"""Simulation of hidden Markov models."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem.contract import Array

__all__ = ["simulate"]


def simulate(
    rng: np.random.Generator,
    n: int = 50,
    *,
    length: int | tuple[int, int] = 30,
    startprob: ArrayLike = (0.6, 0.4),
    transmat: ArrayLike = ((0.85, 0.15), (0.25, 0.75)),
    means: ArrayLike = ((-1.5,), (1.5,)),
    covariances: ArrayLike = ((1.0,), (1.0,)),
    emissionprob: ArrayLike | None = None,
) -> tuple[list[Array], list[NDArray[np.intp]]]:
    """Simulate sequences of a hidden Markov model.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
        Number of sequences.
    length : int or tuple of int
        Rows of each sequence, or the smallest and largest of a uniform choice.
    startprob, transmat, means, covariances : array_like
        Shapes as in `HiddenMarkov.components`.
    emissionprob : array_like of shape (K, n_categories), optional
        Makes the emissions categorical; means and covariances are then not used.

    Returns
    -------
    sequences : list of ndarray of shape (length, d), or (length, 1)
    paths : list of ndarray of shape (length,)
        The states.
    """
    first, chain = np.asarray(startprob, dtype=float), np.asarray(transmat, dtype=float)
    low, high = (length, length) if isinstance(length, int) else length
    sequences, paths = [], []
    for _ in range(n):
        path = np.empty(int(rng.integers(low, high + 1)), dtype=np.intp)
        for t in range(path.size):
            path[t] = rng.choice(first.size, p=first if t == 0 else chain[path[t - 1]])
        paths.append(path)
        sequences.append(_emit(rng, path, means, covariances, emissionprob))
    return sequences, paths


def _emit(
    rng: np.random.Generator,
    path: NDArray[np.intp],
    means: ArrayLike,
    covariances: ArrayLike,
    emissionprob: ArrayLike | None,
) -> Array:
    """Rows emitted along a path."""
    if emissionprob is not None:
        table = np.cumsum(np.asarray(emissionprob, dtype=float), axis=1)[:, :-1]
        return np.asarray((rng.random((path.size, 1)) > table[path]).sum(axis=1), float)[:, None]
    centres, spread = np.asarray(means, dtype=float), np.asarray(covariances, dtype=float)
    noise = rng.standard_normal((path.size, centres.shape[1]))
    if spread.ndim == 2:
        return centres[path] + np.sqrt(spread[path]) * noise
    return centres[path] + np.einsum("tab,tb->ta", np.linalg.cholesky(spread)[path], noise)
