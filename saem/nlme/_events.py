"""Log-likelihoods of rows that come with the library: counts, yes or no, times to events.

With the signature `saem._types.STRUCTURAL`, as structural models of `saem.LogLikelihood`. A
response that the model cannot have (a count of 1.5) is not a number here, which a model
reports with its row and id before anything is fitted.
"""

from __future__ import annotations

import math

import numpy as np

from saem._jit import kernel
from saem._math import log
from saem._types import STRUCTURAL
from saem.contract import Array
from saem.models._binary import log_expit

__all__ = ["binary_logistic", "count_poisson", "tte_weibull"]


@kernel(STRUCTURAL, deferred=True)
def count_poisson(psi: Array, columns: Array, out: Array) -> None:
    """Log probability of a count with a Poisson distribution."""
    rate = psi[0]
    logged = log(rate)
    for j in range(out.size):
        dv = columns[0, j]
        if dv >= 0.0 and dv == np.floor(dv):
            out[j] = dv * logged - rate - math.lgamma(dv + 1.0)
        else:
            out[j] = np.nan


@kernel(STRUCTURAL, deferred=True)
def binary_logistic(psi: Array, columns: Array, out: Array) -> None:
    """Log probability of 1 or 0, the logit of that of 1 being a straight line in time."""
    for j in range(out.size):
        dv = columns[0, j]
        if dv == 0.0 or dv == 1.0:
            out[j] = log_expit((2.0 * dv - 1.0) * (psi[0] + psi[1] * columns[1, j]))
        else:
            out[j] = np.nan


@kernel(STRUCTURAL, deferred=True)
def tte_weibull(psi: Array, columns: Array, out: Array) -> None:
    """Log-likelihood of a stretch without events from the previous time, and of what ends it.

    ``dv log h(t) - (H(t) - H(previous))`` with ``h(t) = (shape / scale) (t / scale)^(shape - 1)``.
    The row that opens the time at risk has ``t = previous`` and no event, and adds 0.
    """
    scale, shape = psi[0], psi[1]
    for j in range(out.size):
        dv, time, previous = columns[0, j], columns[1, j], columns[2, j]
        if not (0.0 <= previous <= time and (dv == 0.0 or (dv == 1.0 and time > previous))):
            out[j] = np.nan
            continue
        value = (previous / scale) ** shape - (time / scale) ** shape
        if dv == 1.0:
            value += math.log(shape / scale) + (shape - 1.0) * math.log(time / scale)
        out[j] = value
