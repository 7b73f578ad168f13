"""Exact derivatives of the library's models other than pharmacokinetic ones.

As in `saem.nlme._pk_slopes`: ``slopes[m, j]`` is the derivative of prediction j by parameter m.
"""

from __future__ import annotations

import numpy as np

from saem._jit import kernel
from saem._math import exp, log
from saem._types import JACOBIAN
from saem.contract import Array


@kernel(JACOBIAN, deferred=True)
def emax(psi: Array, columns: Array, work: Array, slopes: Array) -> None:
    """Effect that saturates with dose."""
    maximum, half = psi[1], psi[2]
    for j in range(slopes.shape[1]):
        dose = columns[0, j]
        share = dose / (half + dose)
        slopes[0, j] = 1.0
        slopes[1, j] = share
        slopes[2, j] = -maximum * share / (half + dose)


@kernel(JACOBIAN, deferred=True)
def sigmoid_emax(psi: Array, columns: Array, work: Array, slopes: Array) -> None:
    """Effect that saturates with dose, with a Hill exponent."""
    maximum, half, gamma = psi[1], psi[2], psi[3]
    log_half = np.log(half)
    for j in range(slopes.shape[1]):
        dose = columns[0, j]
        distance = log_half - log(dose) if dose > 0.0 else 0.0
        share = 1.0 / (1.0 + exp(gamma * distance)) if dose > 0.0 else 0.0
        steep = maximum * share * (1.0 - share)
        slopes[0, j] = 1.0
        slopes[1, j] = share
        slopes[2, j] = -steep * gamma / half
        slopes[3, j] = -steep * distance


@kernel(JACOBIAN, deferred=True)
def linear(psi: Array, columns: Array, work: Array, slopes: Array) -> None:
    """Straight line."""
    for j in range(slopes.shape[1]):
        slopes[0, j] = 1.0
        slopes[1, j] = columns[0, j]


@kernel(JACOBIAN, deferred=True)
def logistic(psi: Array, columns: Array, work: Array, slopes: Array) -> None:
    """S-shaped growth, symmetric about its midpoint."""
    asymptote, midpoint, scale = psi[0], psi[1], psi[2]
    for j in range(slopes.shape[1]):
        x = (midpoint - columns[0, j]) / scale
        share = 1.0 / (1.0 + exp(x))
        steep = asymptote * share * (1.0 - share) / scale
        slopes[0, j] = share
        slopes[1, j] = -steep
        slopes[2, j] = steep * x


@kernel(JACOBIAN, deferred=True)
def gompertz(psi: Array, columns: Array, work: Array, slopes: Array) -> None:
    """S-shaped growth, faster early."""
    asymptote, shift, base = psi[0], psi[1], psi[2]
    log_base = np.log(base)
    for j in range(slopes.shape[1]):
        time = columns[0, j]
        power = exp(log_base * time)
        share = exp(-shift * power)
        slopes[0, j] = share
        slopes[1, j] = -asymptote * share * power
        slopes[2, j] = -asymptote * share * shift * time * power / base


@kernel(JACOBIAN, deferred=True)
def asymptotic(psi: Array, columns: Array, work: Array, slopes: Array) -> None:
    """Exponential approach to an asymptote."""
    asymptote, initial = psi[0], psi[1]
    rate = np.exp(psi[2])
    for j in range(slopes.shape[1]):
        time = columns[0, j]
        left = exp(-rate * time)
        slopes[0, j] = 1.0 - left
        slopes[1, j] = left
        slopes[2, j] = -(initial - asymptote) * rate * time * left
