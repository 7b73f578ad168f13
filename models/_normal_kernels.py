"""Compiled functions of the multivariate normal distribution with missing entries.

With d columns, t = d (d + 1) / 2, and M the largest number of missing entries in a row:

=========  =======================================================================
y          weight; values less the shift (d), not-a-number where missing
theta      d (`HEAD` numbers); mean (d); covariance (d, d); its Cholesky factor (d, d);
           log constant
latent     conditional means, or draws, of the missing entries (M, unused ones 0); lower
           triangle of their conditional covariance (M (M + 1) / 2), 0 for a draw
s          total weight; sum E y (d); lower triangle of sum E yy' (t)
=========  =======================================================================

A record of the latent values holds only what is missing: the rest stands in y.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, int64, void

from saem._jit import kernel
from saem._linalg import cholesky, cholesky_inverse
from saem._math import HALF_LOG_2PI
from saem._types import (
    ACCUMULATE,
    DRAW,
    EXPECT,
    MATRIX,
    MAXIMIZE,
    PROJECT,
    SURROGATE,
    VECTOR,
)
from saem.random import fill_normal

__all__ = [
    "HEAD",
    "NO_ROWS",
    "SINGULAR_COVARIANCE",
    "accumulate",
    "derive",
    "draw",
    "expect",
    "latent_size",
    "maximize",
    "project",
    "surrogate",
    "work_size",
]

#: Numbers before the mean in theta.
HEAD = 1
#: Codes of `maximize`.
NO_ROWS = 1
SINGULAR_COVARIANCE = 2


def work_size(d: int) -> int:
    """Scratch numbers the functions need."""
    return 2 * d * d + 3 * d


def latent_size(most: int) -> int:
    """Numbers of a latent record, for at most so many missing entries in a row."""
    return max(1, most + most * (most + 1) // 2)


@kernel(int64(int64))
def _capacity(size):
    """Missing entries that a latent record of this size has room for."""
    return int((np.sqrt(9.0 + 8.0 * size) - 3.0) / 2.0 + 1e-6)


@kernel(boolean(VECTOR))
def derive(theta):
    """Write the factor and the log constant; False if the covariance is not positive definite."""
    d = int(theta[0])
    at = HEAD + d
    factor = theta[at + d * d : at + 2 * d * d].reshape((d, d))
    if not cholesky(theta[at : at + d * d].reshape((d, d)), factor):
        return False
    constant = -d * HALF_LOG_2PI
    for a in range(d):
        constant -= np.log(factor[a, a])
    theta[at + 2 * d * d] = constant
    return np.isfinite(constant)


@kernel(int64(VECTOR, VECTOR, MATRIX, VECTOR, VECTOR, VECTOR))
def _condition(theta, y, factor, u, order, work):
    """Factor L of the covariance with observed entries first; ``u = L_oo^-1 (y_o - mu_o)``.

    Given the observed entries, the missing ones have mean ``mu_m + L_mo u`` and
    covariance ``L_mm L_mm'``. Returns the number of observed entries; `order` lists them,
    then the missing ones.
    """
    d = int(theta[0])
    at = HEAD + d
    seen = 0
    for j in range(d):
        if not np.isnan(y[1 + j]):
            order[seen] = j
            seen += 1
    last = seen
    for j in range(d):
        if np.isnan(y[1 + j]):
            order[last] = j
            last += 1
    if seen == d:
        for a in range(d):
            for b in range(a + 1):
                factor[a, b] = theta[at + d * d + a * d + b]
    else:
        cov = work[: d * d].reshape((d, d))
        for a in range(d):
            for b in range(a + 1):
                cov[a, b] = theta[at + int(order[a]) * d + int(order[b])]
        cholesky(cov, factor)
    for a in range(seen):
        j = int(order[a])
        u[a] = y[1 + j] - theta[HEAD + j]
        for b in range(a):
            u[a] -= factor[a, b] * u[b]
        u[a] /= factor[a, a]
    return seen


@kernel(EXPECT)
def expect(theta, y, latent, work):
    """Conditional mean and covariance of missing entries; weight times log p(y observed)."""
    d = int(theta[0])
    factor = work[: d * d].reshape((d, d))
    u, order = work[d * d : d * d + d], work[d * d + d : d * d + 2 * d]
    seen = _condition(theta, y, factor, u, order, work[d * d + 3 * d :])
    latent[:] = 0.0
    value = -seen * HALF_LOG_2PI
    for a in range(seen):
        value -= np.log(factor[a, a]) + 0.5 * u[a] * u[a]
    i = _capacity(latent.size)
    for a in range(seen, d):
        mean = theta[HEAD + int(order[a])]
        for b in range(seen):
            mean += factor[a, b] * u[b]
        latent[a - seen] = mean
        for b in range(seen, a + 1):
            for c in range(seen, b + 1):
                latent[i] += factor[a, c] * factor[b, c]
            i += 1
    return y[0] * value


@kernel(DRAW)
def draw(theta, y, key, latent, work):
    """Exact draw of the missing entries given the observed ones."""
    d = int(theta[0])
    factor = work[: d * d].reshape((d, d))
    u, order = work[d * d : d * d + d], work[d * d + d : d * d + 2 * d]
    seen = _condition(theta, y, factor, u, order, work[d * d + 3 * d :])
    latent[:] = 0.0
    if seen == d:
        return
    fill_normal(key, 0, u[seen:])
    for a in range(seen, d):
        value = theta[HEAD + int(order[a])]
        for b in range(a + 1):
            value += factor[a, b] * u[b]
        latent[a - seen] = value


@kernel(ACCUMULATE)
def accumulate(weight, y, latent, s):
    """Add ``weight * (1, E y, E yy')`` of a row completed by its latent record."""
    weight *= y[0]
    d = y.size - 1
    triangle = _capacity(latent.size)
    s[0] += weight
    i = 1 + d
    hole = -1  # missing entries up to a, the row of the triangle
    for a in range(d):
        lost = np.isnan(y[1 + a])
        if lost:
            hole += 1
        left = latent[hole] if lost else y[1 + a]
        s[1 + a] += weight * left
        other = -1
        for b in range(a + 1):
            if np.isnan(y[1 + b]):
                other += 1
                product = left * latent[other]
                if lost:
                    product += latent[triangle + hole * (hole + 1) // 2 + other]
            else:
                product = left * y[1 + b]
            s[i] += weight * product
            i += 1


@kernel(boolean(VECTOR, VECTOR, float64, MATRIX, MATRIX))
def _central(s, theta, weight, cov, factor):
    """Covariance of s, moved by a weight towards that of theta, and its factor."""
    d = int(theta[0])
    i = 1 + d
    for a in range(d):
        for b in range(a + 1):
            own = s[i] / s[0] - (s[1 + a] / s[0]) * (s[1 + b] / s[0])
            if weight > 0.0:  # not for 0, where theta need not be finite
                own = (1.0 - weight) * own + weight * theta[HEAD + d + a * d + b]
            cov[a, b] = own
            cov[b, a] = own
            i += 1
    return cholesky(cov, factor)


@kernel(MAXIMIZE)
def maximize(s, theta):
    """``mu = s_1 / s_0``, ``Sigma = S / s_0 - mu mu'``."""
    d = int(theta[0])
    if not (0.0 < s[0] < np.inf):
        return NO_ROWS
    cov, factor = np.empty((d, d)), np.zeros((d, d))
    if not _central(s, theta, 0.0, cov, factor):
        return SINGULAR_COVARIANCE
    for a in range(d):  # infinite means make a not-a-number on the diagonal: seen above
        if not np.isfinite(cov[a, a]):
            return SINGULAR_COVARIANCE
    for a in range(d):
        theta[HEAD + a] = s[1 + a] / s[0]
        for b in range(d):
            theta[HEAD + d + a * d + b] = cov[a, b]
    derive(theta)
    return 0


@kernel(SURROGATE)
def surrogate(s, theta):
    """``-1/2 (s_0 log det Sigma + tr Sigma^-1 (S - mu s_1' - s_1 mu' + s_0 mu mu'))``."""
    d = int(theta[0])
    at = HEAD + d
    factor = theta[at + d * d : at + 2 * d * d].reshape((d, d))
    inverse = np.empty((d, d))
    cholesky_inverse(factor, inverse)
    value, i = 0.0, 1 + d
    for a in range(d):
        value -= s[0] * np.log(factor[a, a])
        for b in range(a + 1):
            left, right = theta[HEAD + a], theta[HEAD + b]
            second = s[i] - left * s[1 + b] - right * s[1 + a] + s[0] * left * right
            value -= (0.5 if a == b else 1.0) * inverse[a, b] * second
            i += 1
    return value


@kernel(void(VECTOR, VECTOR))
def _expected(s, theta):
    """Overwrite s by what theta expects, for the total weight that stands in s."""
    d = int(theta[0])
    if not (0.0 < s[0] < np.inf):
        s[0] = 1.0
    i = 1 + d
    for a in range(d):
        s[1 + a] = s[0] * theta[HEAD + a]
        for b in range(a + 1):
            s[i] = s[0] * (theta[HEAD + d + a * d + b] + theta[HEAD + a] * theta[HEAD + b])
            i += 1


@kernel(PROJECT)
def project(s, theta):
    """Move the covariance of s towards that of theta until it is positive definite.

    The mean stays. Steps are powers of 2 from 2^-20 on, the first sufficient one taken
    twice, so that the result lies inside. A statistic without weight, with numbers that are
    not finite, or with a mean so far off that its square swamps the covariance, is
    replaced by what theta expects.
    """
    d = int(theta[0])
    fine = s[0] > 0.0
    for i in range(s.size):
        fine = fine and np.isfinite(s[i])
    if not fine:
        _expected(s, theta)
    cov, factor = np.empty((d, d)), np.zeros((d, d))
    step = 0.0
    while not _central(s, theta, min(1.0, 2.0 * step), cov, factor) and step < 1.0:
        step = 2.0**-20 if step == 0.0 else 2.0 * step
    if step == 0.0:
        return
    i = 1 + d
    for a in range(d):
        for b in range(a + 1):
            s[i] = s[0] * (cov[a, b] + (s[1 + a] / s[0]) * (s[1 + b] / s[0]))
            i += 1
    if not _central(s, theta, 0.0, cov, factor):
        _expected(s, theta)
