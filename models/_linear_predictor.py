"""Linear predictors of rows with missing normal entries."""

from __future__ import annotations

import numpy as np

from saem.contract import Array

__all__ = ["predictors"]


def predictors(x: Array, beta: Array, omega: Array, delta: Array) -> tuple[Array, Array, Array]:
    """Distribution of ``t = delta'(1, z)`` given the observed entries of z ~ N(beta, omega).

    Parameters
    ----------
    x : ndarray of shape (n, p)
        Not-a-number where missing.
    beta, omega, delta : ndarray of shape (p,), (p, p), (1 + p,)

    Returns
    -------
    mean, variance : ndarray of shape (n,)
        Of t, which is normal.
    log_density : ndarray of shape (n,)
        Of the observed entries.
    """
    n = len(x)
    mean, variance, log_density = np.empty(n), np.zeros(n), np.zeros(n)
    patterns, group = np.unique(np.isnan(x), axis=0, return_inverse=True)
    for g, holes in enumerate(patterns):
        rows = group.ravel() == g
        seen = ~holes
        away = x[np.ix_(rows, seen)] - beta[seen]
        factor = np.linalg.cholesky(omega[np.ix_(seen, seen)])
        white = np.linalg.solve(factor, away.T)
        # covariance of t with the observed entries, whitened
        with_t = np.linalg.solve(factor, omega[seen] @ delta[1:])
        mean[rows] = delta[0] + delta[1:] @ beta + with_t @ white
        variance[rows] = max(0.0, delta[1:] @ omega @ delta[1:] - with_t @ with_t)
        log_density[rows] = -0.5 * np.square(white).sum(axis=0) - np.log(np.diag(factor)).sum()
        log_density[rows] -= 0.5 * seen.sum() * np.log(2.0 * np.pi)
    return mean, variance, log_density
