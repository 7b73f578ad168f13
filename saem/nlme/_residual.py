"""Residual error: the standard deviation g(f) and the density of observations.

The one definition of every error model; sampler, M-step, likelihoods, information,
residuals and simulation take it from here.

    code                 g(f)
    CONSTANT             a
    PROPORTIONAL         b |f|
    COMBINED_SUM         a + b |f|^c
    COMBINED_VARIANCE    sqrt(a^2 + b^2 |f|^(2 c))
    EXPONENTIAL          a, of the logarithm
    POWER                b |f|^c
    LOG_LIKELIHOOD       1: f is the log-likelihood of the row itself

Residual parameters stand in a block sigma = (a, b, c), with c = 1 where a model has none.
"""

from __future__ import annotations

import numpy as np
from numba import int64, void

from saem._borrow import segment
from saem._jit import helper, kernel
from saem._math import log
from saem._types import VECTOR
from saem.contract import Array

__all__ = [
    "COMBINED_SUM",
    "COMBINED_VARIANCE",
    "CONSTANT",
    "EXPONENTIAL",
    "LOG_LIKELIHOOD",
    "POWER",
    "PREDICTION_FLOOR",
    "PROPORTIONAL",
    "fitted",
    "log_density",
    "prediction_slope",
    "proportional_sums",
    "residual_sd",
    "residual_sds",
    "variance_slopes",
]

CONSTANT, PROPORTIONAL, COMBINED_SUM, COMBINED_VARIANCE, EXPONENTIAL, POWER = 0, 1, 2, 3, 4, 5
LOG_LIKELIHOOD = 6

#: Predictions enter a proportional or power error by at least this size.
PREDICTION_FLOOR = 1e-10


@helper
def powered(f, c):
    """``|f|^c``; a power of 1 costs nothing."""
    return abs(f) if c == 1.0 else abs(f) ** c


@helper
def residual_sd(code, a, b, c, f):
    """Residual standard deviation g(f) of every error model; 1 for a log-likelihood."""
    if code == LOG_LIKELIHOOD:
        return 1.0
    if code == PROPORTIONAL:
        return b * max(abs(f), PREDICTION_FLOOR)
    if code == POWER:
        return b * powered(max(abs(f), PREDICTION_FLOOR), c)
    if code == COMBINED_SUM:
        return a + b * powered(f, c)
    if code == COMBINED_VARIANCE:
        size = b * powered(f, c)
        return np.sqrt(a * a + size * size)
    return a


@kernel(void(int64, VECTOR, VECTOR, VECTOR))
def residual_sds(code, sigma, f, out):
    """Residual standard deviations of all rows; sigma holds a, b and c."""
    for j in range(f.size):
        out[j] = residual_sd(code, sigma[0], sigma[1], sigma[2], f[j])


@helper
def fitted(code, f):
    """Prediction on the scale on which residuals are normal (log for exponential error)."""
    if code == EXPONENTIAL:
        return np.log(f) if f > 0.0 else np.nan
    return f


@helper(fastmath={"reassoc", "contract"})
def proportional_sums(b, dv, f):
    """Sum of the logarithms of the standard deviations ``b |f_j|``, and ``sum_j r_j**2``.

    One logarithm for every sixteen factors. Where their product leaves the range of
    floating point (predictions around 1e19) the logarithms are taken one by one.
    """
    n = f.size
    total = 0.0
    square = 0.0
    start = 0
    while start < n:
        length = min(n - start, 16)
        part, response = segment(f, start, length), segment(dv, start, length)
        product = 1.0
        for j in range(length):
            size = max(abs(part[j]), PREDICTION_FLOOR)
            r = (response[j] - part[j]) / size
            square += r * r
            product *= b * size
        if 1e-300 < product < 1e300:
            total += log(product)
        else:
            for j in range(length):
                total += np.log(b * max(abs(part[j]), PREDICTION_FLOOR))
        start += length
    return total, square


@helper(fastmath={"reassoc", "contract"})
def log_density(code, a, b, c, dv, predicted):
    """Log density of the responses given predictions, and the residual statistic.

    Without the constant ``-n log(2 pi) / 2`` and the Jacobian of transformed
    responses, which stand in the data record. The statistic is ``sum_j r_j**2`` with
    residuals in units of the scale that has a closed form, 0 where none has. Sums may be
    reordered. A user's log-likelihood is that of the rows, summed.
    """
    n = dv.size
    square = 0.0
    total = 0.0
    if code == CONSTANT:
        for j in range(n):
            r = dv[j] - predicted[j]
            square += r * r
        total = -n * log(a) - 0.5 * square / (a * a)
    elif code == PROPORTIONAL:
        logs, square = proportional_sums(b, dv, predicted)
        total = -logs - 0.5 * square / (b * b)
    elif code == EXPONENTIAL:
        for j in range(n):
            r = dv[j] - fitted(code, predicted[j])
            square += r * r
        total = -n * log(a) - 0.5 * square / (a * a)
    elif code == POWER:
        for j in range(n):
            size = powered(max(abs(predicted[j]), PREDICTION_FLOOR), c)
            r = (dv[j] - predicted[j]) / size
            square += r * r
            total -= np.log(b * size)
        total -= 0.5 * square / (b * b)
    elif code == LOG_LIKELIHOOD:
        for j in range(n):
            total += predicted[j]
    else:
        for j in range(n):
            g = residual_sd(code, a, b, c, predicted[j])
            r = (dv[j] - predicted[j]) / g
            total -= log(g) + 0.5 * r * r
    return total, square


@helper
def prediction_slope(code, a, b, c, dv, f):
    """Derivative of one response's log density by its prediction, and the expected information.

    For ``y ~ N(f, g(f)^2)`` they are ``r / g^2 + g' (r^2 / g^3 - 1 / g)``, r = y - f, and
    ``(1 + 2 g'^2) / g^2``; where f is a log-likelihood itself the information is not known, and 0.
    """
    if code == LOG_LIKELIHOOD:
        return 1.0, 0.0
    if code == EXPONENTIAL:
        inverse = 1.0 / (a * f)
        return (dv - fitted(code, f)) * inverse / a, inverse * inverse
    g = residual_sd(code, a, b, c, f)
    steep = 0.0
    size = abs(f)
    if code != CONSTANT and size > PREDICTION_FLOOR:
        steep = b * c * powered(size, c) / size
        if code == COMBINED_VARIANCE:
            steep *= b * powered(size, c) / g
        steep = steep if f > 0.0 else -steep
    z = (dv - f) / g
    return (z + steep * (z * z - 1.0)) / g, (1.0 + 2.0 * steep * steep) / (g * g)


def variance_slopes(code: int, sigma: Array, f: Array) -> Array:
    """Derivatives of the residual variances ``g(f)**2`` by a, b and c.

    Parameters
    ----------
    code : int
        Of the error model.
    sigma : ndarray of shape (3,)
    f : ndarray of shape (n_rows,)
        Predictions.

    Returns
    -------
    ndarray of shape (3, n_rows)
    """
    a, b, c = sigma
    floored = np.maximum(np.abs(f), PREDICTION_FLOOR)
    size = floored if code in (PROPORTIONAL, POWER) else np.abs(f)
    size, logs = size**c, np.log(floored)
    none = np.zeros_like(size)
    if code == LOG_LIKELIHOOD:
        return np.stack([none, none, none])
    if code == COMBINED_SUM:
        g = a + b * size
        return np.stack([2.0 * g, 2.0 * g * size, 2.0 * g * b * size * logs])
    if code == COMBINED_VARIANCE:
        square = b * size * size
        return np.stack([np.full_like(size, 2.0 * a), 2.0 * square, 2.0 * b * square * logs])
    if code in (PROPORTIONAL, POWER):
        square = b * size * size
        return np.stack([none, 2.0 * square, 2.0 * b * square * logs])
    return np.stack([np.full_like(size, 2.0 * a), none, none])
