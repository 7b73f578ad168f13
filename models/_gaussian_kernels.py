"""Compiled functions of Gaussian mixtures, row by row.

For k components in d dimensions, with t = d (d + 1) / 2, the vectors are

=========  =====================================================================
theta      k, d, floor, kept (`HEAD` numbers); weights (k); means (k, d);
           covariances; log constants (k); factors
s          N_c (k); sums (k, d); second moments
latent     responsibilities (k), or the indicator of the drawn component
=========  =====================================================================

where covariances, factors and second moments have the size

==========  ========  =====================  =================  ====================
type        size      covariances            factors            second moments
==========  ========  =====================  =================  ====================
full        k t       lower triangles        of L^-1, C = L L'  sum r x x'
tied        t         lower triangle         of L^-1            sum x x'
diag        k d       variances              1 / sd             sum r x^2
spherical   k         variance               1 / sd             sum r |x|^2
==========  ========  =====================  =================  ====================

Triangles are packed row by row. The log constant of component c is
``log w_c - d/2 log 2 pi - 1/2 log det C_c``, so that the E-step needs no
factorisation. The floor is added to the diagonal of covariances in the M-step, which
leaves the blocks named by `kept` (a sum of the codes `WEIGHTS`, `MEANS`,
`COVARIANCES`) as they are. Rows with weights: `saem.models._gaussian_weighted`; with
missing values: `saem.models._gaussian_missing`.
"""

from __future__ import annotations

import numpy as np

from saem._jit import helper, kernel
from saem._types import ACCUMULATE, CLASSIFY, DRAW, EXPECT
from saem.random import uniform

__all__ = [
    "COVARIANCES",
    "HEAD",
    "MEANS",
    "WEIGHTS",
    "accumulate_diag",
    "accumulate_full",
    "accumulate_spherical",
    "accumulate_tied",
    "classify_diag",
    "classify_full",
    "classify_spherical",
    "classify_tied",
    "draw_diag",
    "draw_full",
    "draw_spherical",
    "draw_tied",
    "expect_diag",
    "expect_full",
    "expect_spherical",
    "expect_tied",
]

#: Numbers before the weights in theta.
HEAD = 4
#: Blocks that the M-step may have to keep; theta[3] is the sum of those it keeps.
WEIGHTS, MEANS, COVARIANCES = 1, 2, 4


# E-step: log joint densities into `latent`, then responsibilities.


@helper
def _normalise(latent):
    """Turn log joint densities into responsibilities; return their log-sum-exp."""
    top = latent[0]
    for c in range(1, latent.size):
        top = max(top, latent[c])
    total = 0.0
    for c in range(latent.size):
        latent[c] = np.exp(latent[c] - top)
        total += latent[c]
    for c in range(latent.size):
        latent[c] /= total
    return top + np.log(total)


@helper
def _log_joint_triangular(theta, y, latent, n_factors):
    k, d = latent.size, y.size
    tri = d * (d + 1) // 2
    means = HEAD + k
    constants = means + k * d + n_factors * tri
    for c in range(k):
        i = constants + k + (c * tri if n_factors > 1 else 0)
        norm = 0.0
        for j in range(d):
            z = 0.0
            for m in range(j + 1):
                z += theta[i] * (y[m] - theta[means + c * d + m])
                i += 1
            norm += z * z
        latent[c] = theta[constants + c] - 0.5 * norm


@helper
def _log_joint_full(theta, y, latent):
    _log_joint_triangular(theta, y, latent, latent.size)


@helper
def _log_joint_tied(theta, y, latent):
    _log_joint_triangular(theta, y, latent, 1)


@helper
def _log_joint_diag(theta, y, latent):
    k, d = latent.size, y.size
    means = HEAD + k
    constants = means + 2 * k * d
    factors = constants + k
    for c in range(k):
        norm = 0.0
        for j in range(d):
            z = (y[j] - theta[means + c * d + j]) * theta[factors + c * d + j]
            norm += z * z
        latent[c] = theta[constants + c] - 0.5 * norm


@helper
def _log_joint_spherical(theta, y, latent):
    k, d = latent.size, y.size
    means = HEAD + k
    constants = means + k * d + k
    for c in range(k):
        norm = 0.0
        for j in range(d):
            z = y[j] - theta[means + c * d + j]
            norm += z * z
        scale = theta[constants + k + c]
        latent[c] = theta[constants + c] - 0.5 * norm * scale * scale


@kernel(EXPECT, deferred=True)
def expect_full(theta, y, latent, work):
    """Responsibilities of one row; returns its log-likelihood."""
    _log_joint_full(theta, y, latent)
    return _normalise(latent)


@kernel(EXPECT, deferred=True)
def expect_tied(theta, y, latent, work):
    """Responsibilities of one row; returns its log-likelihood."""
    _log_joint_tied(theta, y, latent)
    return _normalise(latent)


@kernel(EXPECT, deferred=True)
def expect_diag(theta, y, latent, work):
    """Responsibilities of one row; returns its log-likelihood."""
    _log_joint_diag(theta, y, latent)
    return _normalise(latent)


@kernel(EXPECT, deferred=True)
def expect_spherical(theta, y, latent, work):
    """Responsibilities of one row; returns its log-likelihood."""
    _log_joint_spherical(theta, y, latent)
    return _normalise(latent)


# Draws: the component of a row, from its posterior.


@helper
def _choose(key, latent):
    """Replace responsibilities by the indicator of a drawn component."""
    u = uniform(key, 0)
    chosen = latent.size - 1
    total = 0.0
    for c in range(latent.size - 1):
        total += latent[c]
        if u < total:
            chosen = c
            break
    latent[:] = 0.0
    latent[chosen] = 1.0


@kernel(DRAW, deferred=True)
def draw_full(theta, y, key, latent, work):
    """Indicator of a component drawn from its posterior."""
    _log_joint_full(theta, y, latent)
    _normalise(latent)
    _choose(key, latent)


@kernel(DRAW, deferred=True)
def draw_tied(theta, y, key, latent, work):
    """Indicator of a component drawn from its posterior."""
    _log_joint_tied(theta, y, latent)
    _normalise(latent)
    _choose(key, latent)


@kernel(DRAW, deferred=True)
def draw_diag(theta, y, key, latent, work):
    """Indicator of a component drawn from its posterior."""
    _log_joint_diag(theta, y, latent)
    _normalise(latent)
    _choose(key, latent)


@kernel(DRAW, deferred=True)
def draw_spherical(theta, y, key, latent, work):
    """Indicator of a component drawn from its posterior."""
    _log_joint_spherical(theta, y, latent)
    _normalise(latent)
    _choose(key, latent)


# The most probable component.


@helper
def _most_probable(latent):
    """Replace log joint densities by the indicator of the largest; return it."""
    best = 0
    for c in range(1, latent.size):
        if latent[c] > latent[best]:
            best = c
    value = latent[best]
    latent[:] = 0.0
    latent[best] = 1.0
    return value


@kernel(CLASSIFY, deferred=True)
def classify_full(theta, y, latent, work):
    """Indicator of the most probable component; returns log p(x, z)."""
    _log_joint_full(theta, y, latent)
    return _most_probable(latent)


@kernel(CLASSIFY, deferred=True)
def classify_tied(theta, y, latent, work):
    """Indicator of the most probable component; returns log p(x, z)."""
    _log_joint_tied(theta, y, latent)
    return _most_probable(latent)


@kernel(CLASSIFY, deferred=True)
def classify_diag(theta, y, latent, work):
    """Indicator of the most probable component; returns log p(x, z)."""
    _log_joint_diag(theta, y, latent)
    return _most_probable(latent)


@kernel(CLASSIFY, deferred=True)
def classify_spherical(theta, y, latent, work):
    """Indicator of the most probable component; returns log p(x, z)."""
    _log_joint_spherical(theta, y, latent)
    return _most_probable(latent)


# Statistics.


@helper
def _accumulate_first(weight, y, latent, s):
    """Add counts and sums."""
    k, d = latent.size, y.size
    for c in range(k):
        r = weight * latent[c]
        s[c] += r
        for j in range(d):
            s[k + c * d + j] += r * y[j]


@helper
def _add_outer(weight, y, s, start):
    """Add the lower triangle of ``weight y y'`` to s from `start` on."""
    i = start
    for j in range(y.size):
        for m in range(j + 1):
            s[i] += weight * y[j] * y[m]
            i += 1


@helper
def _add_full(weight, y, latent, s):
    """Add ``weight * (r, r x, r x x')``."""
    _accumulate_first(weight, y, latent, s)
    k, d = latent.size, y.size
    tri = d * (d + 1) // 2
    for c in range(k):
        if latent[c] != 0.0:
            _add_outer(weight * latent[c], y, s, k + k * d + c * tri)


@helper
def _add_tied(weight, y, latent, s):
    """Add ``weight * (r, r x, x x')``."""
    _accumulate_first(weight, y, latent, s)
    _add_outer(weight, y, s, latent.size * (1 + y.size))


@helper
def _add_diag(weight, y, latent, s):
    """Add ``weight * (r, r x, r x^2)``."""
    _accumulate_first(weight, y, latent, s)
    k, d = latent.size, y.size
    for c in range(k):
        for j in range(d):
            s[k + (k + c) * d + j] += weight * latent[c] * y[j] * y[j]


@helper
def _add_spherical(weight, y, latent, s):
    """Add ``weight * (r, r x, r |x|^2)``."""
    _accumulate_first(weight, y, latent, s)
    k, d = latent.size, y.size
    length = 0.0
    for j in range(d):
        length += y[j] * y[j]
    for c in range(k):
        s[k + k * d + c] += weight * latent[c] * length


@kernel(ACCUMULATE, deferred=True)
def accumulate_full(weight, y, latent, s):
    """Add ``weight * (r, r x, r x x')``."""
    _add_full(weight, y, latent, s)


@kernel(ACCUMULATE, deferred=True)
def accumulate_tied(weight, y, latent, s):
    """Add ``weight * (r, r x, x x')``."""
    _add_tied(weight, y, latent, s)


@kernel(ACCUMULATE, deferred=True)
def accumulate_diag(weight, y, latent, s):
    """Add ``weight * (r, r x, r x^2)``."""
    _add_diag(weight, y, latent, s)


@kernel(ACCUMULATE, deferred=True)
def accumulate_spherical(weight, y, latent, s):
    """Add ``weight * (r, r x, r |x|^2)``."""
    _add_spherical(weight, y, latent, s)
