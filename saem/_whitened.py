"""The whitened scale ``z = mean + chol u``, on which a Gaussian prior is standard normal."""

from __future__ import annotations

import numpy as np

from saem._jit import helper, routine
from saem._math import log

__all__ = ["color", "log_det", "log_joint", "square", "whiten"]


@helper
def whiten(z, mean, chol, u):
    """Solve ``chol u = z - mean``; returns the squared length of u."""
    d = mean.size
    total = 0.0
    for a in range(d):
        x = z[a] - mean[a]
        for b in range(a):
            x -= chol[a, b] * u[b]
        x = x / chol[a, a]
        u[a] = x
        total += x * x
    return total


@helper
def color(u, mean, chol, z):
    """Set ``z = mean + chol u``."""
    d = mean.size
    for a in range(d):
        x = mean[a]
        for b in range(a + 1):
            x += chol[a, b] * u[b]
        z[a] = x


@helper
def log_det(chol):
    """Logarithm of the determinant of a Cholesky factor."""
    total = 0.0
    for a in range(chol.shape[0]):
        total += log(chol[a, a])
    return total


@routine
def log_joint(log_lik, structural, theta, y, u, mean, chol, z, work):
    """Log density of data and whitened draw, without the constants of the prior in u.

    Takes the two functions rather than all of them, which would be copied at every call.
    """
    color(u, mean, chol, z)
    value = log_lik(structural, theta, y, z, work)
    for a in range(u.size):
        value -= 0.5 * u[a] * u[a]
    return value if np.isfinite(value) else -np.inf


@helper
def square(x):
    """Squared length."""
    total = 0.0
    for a in range(x.size):
        total += x[a] * x[a]
    return total
