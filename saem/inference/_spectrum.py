"""Spectrum at 0 of what comes one after the other."""

from __future__ import annotations

import numpy as np

from saem.contract import Array

__all__ = ["SLOPE", "long_run_variance"]

#: Largest slope of the autoregression by which the noise of chains is prewhitened.
SLOPE = 0.9


def long_run_variance(noise: Array, most: float = SLOPE) -> Array:
    """Long-run covariance of a stationary sequence with short memory.

    Newey and West's estimate (1987, Econometrica 55, 703-708) of what a first-order
    autoregression of every coordinate leaves over (prewhitening, Andrews and
    Monahan 1992, Econometrica 60, 953-966); positive semi-definite, and nowhere
    on the diagonal below the plain variance.

    Parameters
    ----------
    noise : ndarray of shape (n, p)
    most : float
        Largest slope of the autoregression.

    Returns
    -------
    ndarray of shape (p, p)
    """
    centred = noise - noise.mean(axis=0)
    n = len(centred)
    square = np.maximum(np.square(centred[:-1]).sum(axis=0), np.finfo(float).tiny)
    slope = np.clip((centred[1:] * centred[:-1]).sum(axis=0) / square, -0.5, most)
    rest = centred[1:] - slope * centred[:-1]
    total = rest.T @ rest
    lags = max(1, round(n ** (1.0 / 3.0)))
    for lag in range(1, lags + 1):
        product = rest[lag:].T @ rest[:-lag]
        total += (1.0 - lag / (lags + 1.0)) * (product + product.T)
    recolour = 1.0 / (1.0 - slope)
    variance = total / (n - 1.0) * np.outer(recolour, recolour)
    # Reversible chains are not negatively correlated: less than the variance is chance.
    ratio = np.square(centred).mean(axis=0) / np.maximum(np.diagonal(variance), 1e-300)
    lift = np.sqrt(np.maximum(ratio, 1.0))
    return np.asarray(variance * np.outer(lift, lift))
