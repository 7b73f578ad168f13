"""Sizes, starting values and simulation of factor models."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from saem.contract import Array
from saem.exceptions import Problems

from ._table import Table

__all__ = ["check_size", "principal_loadings", "simulate"]


def check_size(
    table: Table, n_factors: Any, incomplete: Any, options_fine: bool, problems: Problems
) -> None:
    """Check that there are fewer factors than columns, and rows enough."""
    n, d = table.values.shape
    if options_fine and n_factors >= d:
        problems.add(f"n_factors={n_factors} must be below the number of columns, {d}")
    if n < 3:
        problems.add(f"{n} rows are too few")
    if incomplete is False and np.isnan(table.values).any():
        problems.add("X misses entries", remedy="leave incomplete=False out")


def principal_loadings(covariance: Array, n_factors: int) -> tuple[Array, float]:
    """Loadings (d, q) and noise variance of probabilistic PCA for a covariance (d, d).

    Tipping and Bishop (1999), equations 14 and 15. A column of loadings has its largest
    entry above 0.
    """
    values, vectors = np.linalg.eigh(covariance)
    noise = float(values[:-n_factors].mean())
    top = slice(None, -n_factors - 1, -1)
    vectors = vectors[:, top]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(n_factors)]
    lengths = np.sqrt(np.maximum(values[top] - noise, 1e-6 * values[-1]))
    return vectors * np.sign(largest) * lengths, noise


def simulate(
    rng: np.random.Generator,
    n: int = 200,
    *,
    loadings: ArrayLike = (
        (1.0, 0.0),
        (0.8, 0.2),
        (0.9, -0.3),
        (0.0, 1.0),
        (0.3, 0.7),
        (-0.2, 0.9),
    ),
    mean: ArrayLike = 0.0,
    noise_variance: ArrayLike = 0.5,
) -> tuple[Array, Array]:
    """Simulate rows of a factor model.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
        Number of rows.
    loadings : array_like of shape (d, q)
    mean, noise_variance : array_like of shape (d,), or a number

    Returns
    -------
    X : ndarray of shape (n, d)
    scores : ndarray of shape (n, q)
        The factors.
    """  # fmt: skip
    loadings = np.asarray(loadings, dtype=float)
    d, q = loadings.shape
    scores = rng.standard_normal((n, q))
    noise = np.sqrt(np.asarray(noise_variance, dtype=float)) * rng.standard_normal((n, d))
    return np.asarray(mean, dtype=float) + scores @ loadings.T + noise, scores
