"""The digamma equation of gamma likelihoods, and gamma random numbers, compiled."""

from __future__ import annotations

import math

import numpy as np

from saem._jit import helper, routine
from saem._math import log
from saem.random import fill_normal, uniform

__all__ = ["digamma", "gamma_draw", "gap", "gap_slope", "solve_gap"]

#: The asymptotic series below are exact to rounding from here on.
_LARGE = 10.0
_MOST_STEPS = 60


@helper
def gap(a):
    """``log(a) - digamma(a)``, above 0 and without cancellation for large a.

    Recurrence up to 10, then the asymptotic series (Abramowitz and Stegun 6.3.5, 6.3.18).
    """
    total = 0.0
    x = a
    while x < _LARGE:
        total += 1.0 / x
        x += 1.0
    if x > a:
        total += np.log(a / x)
    r = 1.0 / (x * x)
    series = r * (
        1.0 / 12.0
        - r
        * (
            1.0 / 120.0
            - r * (1.0 / 252.0 - r * (1.0 / 240.0 - r * (1.0 / 132.0 - r * 691.0 / 32760.0)))
        )
    )
    return total + 0.5 / x + series


@helper
def gap_slope(a):
    """Derivative of `gap`, ``1 / a - trigamma(a)``, below 0 (A. and S. 6.4.6, 6.4.12)."""
    total = 0.0
    x = a
    while x < _LARGE:
        total -= 1.0 / (x * x)
        x += 1.0
    if x > a:
        total += 1.0 / a - 1.0 / x
    r = 1.0 / (x * x)
    series = (r / x) * (
        1.0 / 6.0
        - r * (1.0 / 30.0 - r * (1.0 / 42.0 - r * (1.0 / 30.0 - r * (5.0 / 66.0 - r * 691 / 2730))))
    )
    return total - 0.5 * r - series


@helper
def digamma(a):
    """Derivative of the logarithm of the gamma function, for a > 0."""
    return np.log(a) - gap(a)


@routine
def solve_gap(target):
    """The a > 0 with ``log(a) - digamma(a) = target``, for target > 0.

    Newton's method in 1/a, in which the equation is nearly a straight line (Minka 2002,
    Estimating a gamma distribution, equations 9 to 11).
    """
    a = (3.0 - target + np.sqrt((target - 3.0) ** 2 + 24.0 * target)) / (12.0 * target)
    for _ in range(_MOST_STEPS):
        inverse = 1.0 / a + (gap(a) - target) / (a * a * gap_slope(a))
        new = 1.0 / inverse if inverse > 0.0 else 2.0 * a
        if abs(new - a) <= 1e-15 * a:
            return new
        a = new
    return a


@routine
def gamma_draw(key, position, shape, normal):
    """Gamma random number of unit scale; returns it and its logarithm.

    Marsaglia and Tsang (2000), ACM Trans. Math. Softw. 26, 363-372; for shapes below 1 a
    draw of shape + 1 times ``U^(1/shape)``. `normal` is scratch of length 2.
    """
    boost = 0.0
    if shape < 1.0:
        boost = log(uniform(key, position)) / shape
        position += 1
        shape += 1.0
    d = shape - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        position = fill_normal(key, position, normal)
        for m in range(2):
            v = 1.0 + c * normal[m]
            if v > 0.0:
                v = v * v * v
                u = uniform(key, position + m)
                if log(u) < 0.5 * normal[m] * normal[m] + d * (1.0 - v + np.log(v)):
                    log_value = np.log(d * v) + boost
                    return np.exp(log_value), log_value
        position += 2
