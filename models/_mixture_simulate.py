"""Simulation of Gaussian mixtures."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem.contract import Array

__all__ = ["example_parts", "simulate", "with_holes"]


def example_parts(covariance_type: str) -> dict[str, Array]:
    """Two overlapping components in the plane: weights, means and covariances."""
    tied = np.array([[1.0, 0.3], [0.3, 0.8]])
    covariances = {
        "full": np.stack([tied, np.array([[0.6, -0.2], [-0.2, 1.2]])]),
        "tied": tied,
        "diag": np.array([[1.0, 0.8], [0.6, 1.2]]),
        "spherical": np.array([1.0, 0.7]),
    }[covariance_type]
    means = np.array([[-1.5, -1.0], [1.5, 1.0]])
    return {"weights": np.array([0.4, 0.6]), "means": means, "covariances": covariances}


def with_holes(rng: np.random.Generator, X: Array, share: float) -> Array:
    """Rows of which a share lacks one value each, at random."""
    X = X.copy()
    lost = np.flatnonzero(rng.random(len(X)) < share)
    X[lost, rng.integers(X.shape[1], size=len(lost))] = np.nan
    return X


def simulate(
    rng: np.random.Generator,
    n: int = 10_000,
    *,
    weights: ArrayLike = (0.2, 0.8),
    means: ArrayLike = ((0.5,), (-0.5,)),
    covariances: ArrayLike = (1.0, 1.0),
    covariance_type: str = "spherical",
    grouped: bool = False,
) -> tuple[Array, NDArray[np.intp]]:
    """Simulate a Gaussian mixture.

    The defaults are the two-component benchmark of the incremental EM literature:
    means 0.5 and -0.5, unit variances, weights 0.2 and 0.8.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
        Number of rows.
    weights, means, covariances : array_like
        Shapes as in `GaussianMixture.components`.
    covariance_type : {"full", "tied", "diag", "spherical"}
    grouped : bool
        Rows sorted by component, as in the published experiment, which makes the
        order of visits matter for incremental algorithms.

    Returns
    -------
    X : ndarray of shape (n, n_features)
    labels : ndarray of shape (n,)
    """
    means = np.asarray(means, dtype=float)
    k, d = means.shape
    covariances = np.asarray(covariances, dtype=float)
    if covariance_type in ("full", "tied"):
        factors = np.broadcast_to(np.linalg.cholesky(covariances), (k, d, d))
    else:
        sd = np.sqrt(covariances.reshape(k, -1))
        factors = np.broadcast_to(sd, (k, d))[:, :, None] * np.eye(d)
    labels = rng.choice(k, size=n, p=np.asarray(weights, dtype=float))
    if grouped:
        labels = np.sort(labels)
    noise = rng.standard_normal((n, d))
    X = means[labels]
    for c in range(k):  # not factors[labels]: that is d matrices' worth of memory per row
        mine = labels == c
        X[mine] += noise[mine] @ factors[c].T
    return X, labels
