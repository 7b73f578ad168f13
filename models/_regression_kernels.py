"""Compiled functions of mixtures of linear regressions.

    y_i | x_i, c  ~  N(x_i' b_c, v_c)

The model changes the basis of the covariates, so that their mean square is the unit
matrix, and takes the ordinary regression of all rows off the response; here x and y are
what is left, and b are coefficients in that basis. For k components, p coefficients and
t = p (p + 1) / 2, the vectors are

=========  ===========================================================================
record     weight, y (not-a-number where missing: a row without information), x (p)
theta      k, p, alpha, common variance (0 or 1), v_0 (`HEAD` numbers); weights (k);
           coefficients (k, p); variances (k); log constants (k)
s          counts N = sum r (k); squares sum r y^2 (k); cross sum r x y (k, p);
           gram sum r x x', lower triangles (k, t)
latent     responsibilities (k), or the indicator of a component
=========  ===========================================================================

The prior is alpha pseudo-rows per row (of weight), in each component, around the ordinary
regression: with W = sum N, alpha W is added to N and to the diagonal of the gram matrix, and
alpha W v_0 to the squares, v_0 being the variance that the ordinary regression leaves.
"""

from __future__ import annotations

import numpy as np
from numba import boolean

from saem._jit import helper, kernel
from saem._linalg import assign, cholesky, cholesky_solve
from saem._math import HALF_LOG_2PI
from saem._types import (
    ACCUMULATE,
    CLASSIFY,
    DRAW,
    EXPECT,
    MAXIMIZE,
    PROJECT,
    SURROGATE,
    VECTOR,
)

from ._definite import all_finite, get_triangle, put_triangle, towards
from ._gaussian_kernels import _choose, _most_probable, _normalise

__all__ = [
    "EMPTY_COMPONENT",
    "HEAD",
    "SINGULAR_DESIGN",
    "ZERO_VARIANCE",
    "accumulate",
    "classify",
    "derive",
    "draw",
    "expect",
    "maximize",
    "project",
    "surrogate",
]

#: Numbers before the weights in theta.
HEAD = 5
#: Codes of `maximize`.
EMPTY_COMPONENT, SINGULAR_DESIGN, ZERO_VARIANCE = 1, 2, 3
#: Share of all rows that `project` gives to a component that has none.
_LEAST = 1e-8


# E-step.


@helper
def _log_joint(theta, y, latent):
    """Log joint densities of the row and each component."""
    k, p = int(theta[0]), int(theta[1])
    variances = HEAD + k + k * p
    missing = np.isnan(y[1])
    for c in range(k):
        if missing:
            latent[c] = np.log(theta[HEAD + c])
            continue
        left = y[1]
        for j in range(p):
            left -= y[2 + j] * theta[HEAD + k + c * p + j]
        latent[c] = theta[variances + k + c] - 0.5 * left * left / theta[variances + c]


@kernel(EXPECT, deferred=True)
def expect(theta, y, latent, work):
    """Responsibilities of one row; returns its log-likelihood times its weight."""
    _log_joint(theta, y, latent)
    value = _normalise(latent)
    return 0.0 if np.isnan(y[1]) else y[0] * value


@kernel(DRAW, deferred=True)
def draw(theta, y, key, latent, work):
    """Indicator of a component drawn from its posterior."""
    _log_joint(theta, y, latent)
    _normalise(latent)
    _choose(key, latent)


@kernel(CLASSIFY, deferred=True)
def classify(theta, y, latent, work):
    """Indicator of the most probable component; returns log p(y, z) times the weight."""
    _log_joint(theta, y, latent)
    value = _most_probable(latent)
    return 0.0 if np.isnan(y[1]) else y[0] * value


@kernel(ACCUMULATE, deferred=True)
def accumulate(weight, y, latent, s):
    """Add ``weight * (r, r y^2, r x y, r x x')``; nothing where y is missing."""
    if np.isnan(y[1]):
        return
    k, p = latent.size, y.size - 2
    tri = p * (p + 1) // 2
    for c in range(k):
        r = weight * y[0] * latent[c]
        if r == 0.0:
            continue
        s[c] += r
        s[k + c] += r * y[1] * y[1]
        i = k * (2 + p) + c * tri
        for j in range(p):
            s[2 * k + c * p + j] += r * y[2 + j] * y[1]
            for m in range(j + 1):
                s[i] += r * y[2 + j] * y[2 + m]
                i += 1


# M-step.


@helper
def _pseudo_rows(s, theta):
    """Pseudo-rows of the prior in each component, ``alpha W``."""
    total = 0.0
    for c in range(int(theta[0])):
        total += s[c]
    return theta[2] * total


@helper
def _derive(theta):
    k, p = int(theta[0]), int(theta[1])
    variances = HEAD + k + k * p
    for c in range(k):
        constant = np.log(theta[HEAD + c]) - HALF_LOG_2PI - 0.5 * np.log(theta[variances + c])
        theta[variances + k + c] = constant
        if not np.isfinite(constant):
            return False
    return True


@kernel(boolean(VECTOR), deferred=True)
def derive(theta):
    """Write the log constants from weights and variances."""
    return _derive(theta)


@helper
def _least_squares(s, c, k, pseudo, prior_variance, gram, factor, b):
    """Coefficients of component c; the sum of squares left, or NaN for a singular gram matrix."""
    p = b.size
    tri = p * (p + 1) // 2
    get_triangle(s, k * (2 + p) + c * tri, gram)
    for j in range(p):
        gram[j, j] += pseudo
    if not cholesky(gram, factor):
        return np.nan
    cross = s[2 * k + c * p : 2 * k + (c + 1) * p]
    cholesky_solve(factor, cross, b)
    left = s[k + c] + pseudo * prior_variance
    for j in range(p):
        left -= cross[j] * b[j]
    return left


@kernel(MAXIMIZE, deferred=True)
def maximize(s, theta):
    """``w = N / W`` and weighted least squares in each component (DeSarbo and Cron 1988).

    With the prior, ``b = (G + alpha W I)^-1 sum r x y`` and
    ``v = (sum r y^2 + alpha W v_0 - b' sum r x y) / (N + alpha W)``, pooled if common.
    """
    k, p = int(theta[0]), int(theta[1])
    if not all_finite(s):
        return EMPTY_COMPONENT
    for c in range(k):
        if not s[c] > 0.0:
            return EMPTY_COMPONENT
    pseudo = _pseudo_rows(s, theta)
    trial, gram, factor, b = theta.copy(), np.empty((p, p)), np.empty((p, p)), np.empty(p)
    variances = HEAD + k + k * p
    all_left, all_rows = 0.0, 0.0
    for c in range(k):
        left = _least_squares(s, c, k, pseudo, theta[4], gram, factor, b)
        if np.isnan(left):
            return SINGULAR_DESIGN
        if not left > 0.0:
            return ZERO_VARIANCE
        trial[HEAD + c] = s[c] / (pseudo / theta[2])
        for j in range(p):
            trial[HEAD + k + c * p + j] = b[j]
        trial[variances + c] = left / (s[c] + pseudo)
        all_left += left
        all_rows += s[c] + pseudo
    if theta[3] == 1.0:
        for c in range(k):
            trial[variances + c] = all_left / all_rows
    if not _derive(trial):
        return ZERO_VARIANCE
    assign(theta, trial)
    return 0


@kernel(SURROGATE, deferred=True)
def surrogate(s, theta):
    """Complete-data log-likelihood with the pseudo-rows of the prior."""
    k, p = int(theta[0]), int(theta[1])
    tri = p * (p + 1) // 2
    variances = HEAD + k + k * p
    pseudo = _pseudo_rows(s, theta)
    value = 0.0
    for c in range(k):
        b = HEAD + k + c * p
        left = s[k + c] + pseudo * theta[4]
        i = k * (2 + p) + c * tri
        for j in range(p):
            left -= 2.0 * theta[b + j] * s[2 * k + c * p + j]
            left += pseudo * theta[b + j] * theta[b + j]
            for m in range(j + 1):
                times = 1.0 if m == j else 2.0
                left += times * theta[b + j] * theta[b + m] * s[i]
                i += 1
        variance = theta[variances + c]
        value += s[c] * np.log(theta[HEAD + c])
        value -= (s[c] + pseudo) * (HALF_LOG_2PI + 0.5 * np.log(variance)) + 0.5 * left / variance
    return value


# Admissible statistics.


@helper
def _expect_component(s, theta, c, count):
    """Sums of a component that theta and a count lead one to expect."""
    k, p = int(theta[0]), int(theta[1])
    tri = p * (p + 1) // 2
    b = HEAD + k + c * p
    s[c] = count
    square = theta[HEAD + k + k * p + c]
    i = k * (2 + p) + c * tri
    for j in range(p):
        square += theta[b + j] * theta[b + j]
        s[2 * k + c * p + j] = count * theta[b + j]
        for m in range(j + 1):
            s[i] = count if m == j else 0.0
            i += 1
    s[k + c] = count * square


@kernel(PROJECT, deferred=True)
def project(s, theta):
    """Components without rows get a few, as theta expects; gram matrices and squares are repaired.

    A gram matrix that is not positive definite moves towards that of all rows; squares
    that the coefficients exceed become what they and the variance of theta give.
    """
    k, p = int(theta[0]), int(theta[1])
    tri = p * (p + 1) // 2
    variances = HEAD + k + k * p
    total = 0.0
    for c in range(k):
        total += max(s[c], 0.0)
    if not all_finite(s) or not total > 0.0:
        for c in range(k):
            _expect_component(s, theta, c, theta[HEAD + c])
        return
    for c in range(k):
        if s[c] <= 0.0:
            _expect_component(s, theta, c, _LEAST * total)
    pseudo = _pseudo_rows(s, theta)
    gram, factor, b = np.empty((p, p)), np.empty((p, p)), np.empty(p)
    for c in range(k):
        left = _least_squares(s, c, k, pseudo, theta[4], gram, factor, b)
        if np.isnan(left):
            get_triangle(s, k * (2 + p) + c * tri, gram)
            towards(gram, s[c] * np.eye(p), factor)
            put_triangle(gram, s, k * (2 + p) + c * tri)
            left = _least_squares(s, c, k, pseudo, theta[4], gram, factor, b)
        if not left > 0.0:
            s[k + c] += s[c] * theta[variances + c] - left
