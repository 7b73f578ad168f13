"""Families of columns in mixtures: one compiled function per fact.

A family is an exponential family in which the log-density of a value y is

    log f(y) = h(y) + b + phi_1 t_1(y) + phi_2 t_2(y) + ...

===========  ===========================  ======================  ===================
family       parameters                   statistics t            b
===========  ===========================  ======================  ===================
simplex      p_1 .. p_L, summing to 1     counts of the L levels  0
Poisson      rate                         y                       -rate
exponential  scale (the mean)             y                       -log scale
Gaussian     mean, variance               y, y^2                  see `natural`
gamma        shape, scale                 y, log y                see `natural`
===========  ===========================  ======================  ===================

Bernoulli, categorical and multinomial columns are simplices. h stands in the record of
a row, since it is the same for all components: ``-log y!`` (Poisson), the multinomial
coefficient, ``-log y`` (gamma).
"""

from __future__ import annotations

import math

import numpy as np

from saem._jit import helper
from saem._math import HALF_LOG_2PI

from ._gamma_functions import digamma, solve_gap

__all__ = [
    "EXPONENTIAL",
    "GAMMA",
    "GAUSSIAN",
    "POISSON",
    "SIMPLEX",
    "admissible",
    "moments",
    "natural",
    "repaired",
    "solve",
]

#: Codes of families. Those from `GAUSSIAN` on have two statistics, simplices have L, others one.
SIMPLEX, POISSON, EXPONENTIAL, GAUSSIAN, GAMMA = 0, 1, 2, 3, 4


@helper
def natural(family, first, second):
    """b, phi_1 and phi_2 of parameters; phi_2 is 0 where there is none."""
    if family == POISSON:
        return -first, np.log(first), 0.0
    if family == EXPONENTIAL:
        return -np.log(first), -1.0 / first, 0.0
    if family == GAUSSIAN:
        half = 0.5 / second
        return -HALF_LOG_2PI - 0.5 * np.log(second) - half * first * first, first / second, -half
    return -math.lgamma(first) - first * np.log(second), -1.0 / second, first


@helper
def admissible(family, n, a, b):
    """Whether parameters belong to the sums n, a and b of 1, t_1 and t_2.

    Comparisons are written so that not-a-number fails them.
    """
    if not (n > 0.0 and n < np.inf and abs(a) < np.inf and abs(b) < np.inf):
        return False
    if family == GAUSSIAN:
        return b / n - (a / n) * (a / n) > 0.0
    if not a > 0.0:
        return False
    return family != GAMMA or np.log(a / n) - b / n > 0.0


@helper
def solve(family, n, a, b):
    """Parameters of greatest likelihood for admissible sums n, a and b of 1, t_1 and t_2."""
    mean = a / n
    if family == GAUSSIAN:
        return mean, b / n - mean * mean
    if family == GAMMA:
        shape = solve_gap(np.log(mean) - b / n)
        return shape, mean / shape
    return mean, 0.0


@helper
def moments(family, first, second):
    """Expected t_1 and t_2 at parameters."""
    if family == GAUSSIAN:
        return first, second + first * first
    if family == GAMMA:
        return first * second, digamma(first) + np.log(second)
    return first, 0.0


@helper
def repaired(family, n, a, b, first, second):
    """Admissible sums a and b near to others: the mean kept where there is one.

    What is out of range comes from the parameters given: the mean where the sum is not
    above 0, the variance (Gaussian) or shape (gamma) where the second sum has none.
    """
    one, two = moments(family, first, second)
    if family == GAUSSIAN:
        mean = a / n
        if not abs(mean) < np.inf:
            mean = first
        return n * mean, n * (second + mean * mean)
    mean = a / n if a > 0.0 and a < np.inf else one
    return n * mean, n * (two + np.log(mean / one)) if family == GAMMA else 0.0
