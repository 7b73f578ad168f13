"""Binary responses: reading with checks, and the logistic likelihood in compiled code.

Majorisation of the logistic loss: at a linear predictor t' = x'd', for every d,

    log p(y | x'd) >= log p(y | t') + (y - expit(t')) (x'd - t') - (x'd - t')^2 / 8

(Boehning and Lindsay 1988, Ann. Inst. Statist. Math. 40, 641-663). With the working response
``r = t' + 4 (y - expit(t'))`` the right-hand side is ``x'd r / 4 - (x'd)^2 / 8`` plus terms free
of d: linear in the statistics ``x r`` and ``x x'``, which puts coefficients that have no
sufficient statistic of their own within the reach of every algorithm.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from saem._jit import helper
from saem._math import exp, log
from saem.contract import Array
from saem.exceptions import Problems

from ._table import as_array

__all__ = ["log_expit", "mean_expit", "minoriser", "read_binary", "working_response"]


@helper
def log_expit(t):
    """Logarithm of ``1 / (1 + exp(-t))``, for t of any size."""
    return min(t, 0.0) - log(1.0 + exp(-abs(t)))


@helper
def working_response(y, t):
    """``t + 4 (y - expit(t))``; see the head of the module."""
    return t + 4.0 * (y - 1.0 / (1.0 + exp(-t)))


@helper
def minoriser(linear, square, coefficients):
    """``(d'g - d'A d / 2) / 4`` at coefficients d, with g a mean of x r and A one of x x'."""
    value = 0.0
    for a in range(coefficients.size):
        value += 0.25 * coefficients[a] * linear[a]
        for b in range(coefficients.size):
            value -= 0.125 * coefficients[a] * square[a, b] * coefficients[b]
    return value


def mean_expit(mean: Array, variance: Array, n_nodes: int = 100) -> Array:
    """``E expit(t)`` for t normal with given means and variances, by Gauss-Hermite quadrature."""
    from scipy.special import expit

    x, w = np.polynomial.hermite_e.hermegauss(n_nodes)
    t = np.asarray(mean)[..., None] + np.sqrt(variance)[..., None] * x
    return np.asarray(expit(t) @ (w / w.sum()), dtype=np.float64)


def read_binary(y: Any, n: int, problems: Problems) -> Array:
    """Responses of n rows as zeros and ones, both of which must occur.

    Parameters
    ----------
    y : array_like of shape (n,)
        0 and 1, or False and True.
    n : int
    problems : Problems
        Gathers what is wrong.
    """
    array = as_array(y, "y", problems)
    if array is None:
        return np.zeros(n)
    if array.dtype.kind not in "iufb":
        problems.add(f"y has dtype {array.dtype}; it must be 0 and 1, or False and True")
        return np.zeros(n)
    array = array.astype(float)
    if array.shape != (n,):
        problems.add(f"y has shape {array.shape}; X has {n} rows")
        return np.zeros(n)
    labels = y.index if hasattr(y, "iloc") else range(n)
    for i in np.flatnonzero((array != 0.0) & (array != 1.0)):
        problems.add(f"row {labels[i]}: y is {array[i]:g}; it must be 0 or 1")
        if len(problems.items) > problems.LIMIT:
            return np.zeros(n)
    if np.ptp(array) == 0.0:
        problems.add(
            f"y is {array[0]:g} in every row; both 0 and 1 must occur",
            remedy="the likelihood has no maximum otherwise",
        )
    return array
