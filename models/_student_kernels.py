"""Compiled functions of mixtures of multivariate Student distributions.

With a Gamma-distributed precision u behind each row,

    x | u, c ~ N(m_c, C_c / u),     u | c ~ Gamma(nu_c / 2, rate nu_c / 2),

the latent variable is (c, u), and given the row u ~ Gamma((nu_c + d) / 2,
rate (nu_c + delta_c) / 2) with delta_c the squared Mahalanobis distance. For k components
in d dimensions, with t = d (d + 1) / 2, the vectors are

=========  ===========================================================================
record y   weight, x (d)
theta      k, d, floor, df fixed (0 or 1), least and largest df (`HEAD` numbers);
           weights (k); means (k, d); scatters C_c, lower triangles (k, t); df (k);
           log constants (k); expected log u plus log rate (k); triangles of the
           inverse Cholesky factors of the scatters (k, t)
s          counts N = sum r (k); U = sum r u (k); V = sum r log u (k);
           sums r u x (k, d); squares r u x x' (k, t)
latent     r (k), u (k), log u (k): posterior means given c; or a drawn component's
           indicator, u and log u, zero for the others
=========  ===========================================================================

References
----------
Peel, D. and McLachlan, G. J. (2000). Robust mixture modelling using the t distribution.
Statistics and Computing 10, 339-348, sections 4 and 5.
"""

from __future__ import annotations

import math

import numpy as np
from numba import boolean

from saem._jit import helper, kernel
from saem._linalg import assign, cholesky
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
from ._gamma_functions import digamma, gamma_draw, gap, solve_gap
from ._gaussian_kernels import _choose, _most_probable, _normalise

__all__ = [
    "BAD_PRECISIONS",
    "EMPTY_COMPONENT",
    "HEAD",
    "SINGULAR_SCATTER",
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
HEAD = 6
#: Codes of `maximize`.
EMPTY_COMPONENT, SINGULAR_SCATTER, BAD_PRECISIONS = 1, 2, 3
#: Share of all rows that `project` gives to a component that has none.
_LEAST = 1e-8
#: Gaps of mean precisions as far below 0 as this are rounding.
_ROUNDING = 1e-12


@helper
def _places(theta):
    """k, d, t and where means, scatters and what follows stand in theta."""
    k, d = int(theta[0]), int(theta[1])
    tri = d * (d + 1) // 2
    means = HEAD + k
    scatters = means + k * d
    df = scatters + k * tri
    return k, d, tri, means, scatters, df


# E-step.


@helper
def _log_joint(theta, y, latent, distances):
    """Log joint densities of the row and each component; squared distances."""
    k, d, tri, means, _, df = _places(theta)
    factors = df + 3 * k
    for c in range(k):
        i = factors + c * tri
        delta = 0.0
        for j in range(d):
            z = 0.0
            for m in range(j + 1):
                z += theta[i] * (y[1 + m] - theta[means + c * d + m])
                i += 1
            delta += z * z
        nu = theta[df + c]
        distances[c] = delta
        latent[c] = theta[df + k + c] - 0.5 * (nu + d) * np.log1p(delta / nu)


@helper
def _precisions(theta, latent, distances):
    """Posterior means of u and log u in each component."""
    k, d, df = int(theta[0]), int(theta[1]), _places(theta)[5]
    for c in range(k):
        nu = theta[df + c]
        latent[k + c] = (nu + d) / (nu + distances[c])
        latent[2 * k + c] = theta[df + 2 * k + c] - np.log(0.5 * (nu + distances[c]))


@kernel(EXPECT, deferred=True)
def expect(theta, y, latent, work):
    """Responsibilities and mean precisions of a row; its log-likelihood times its weight."""
    k = int(theta[0])
    _log_joint(theta, y, latent[:k], work)
    _precisions(theta, latent, work)
    return y[0] * _normalise(latent[:k])


@helper
def _keep_chosen(latent, k):
    for c in range(k):
        if latent[c] == 0.0:
            latent[k + c] = 0.0
            latent[2 * k + c] = 0.0


@kernel(DRAW, deferred=True)
def draw(theta, y, key, latent, work):
    """Component drawn from its posterior, and u from its own given the component."""
    k, d, df = int(theta[0]), int(theta[1]), _places(theta)[5]
    _log_joint(theta, y, latent[:k], work)
    _normalise(latent[:k])
    _choose(key, latent[:k])
    _keep_chosen(latent, k)
    for c in range(k):
        if latent[c] == 1.0:
            nu = theta[df + c]
            u, log_u = gamma_draw(key, 1, 0.5 * (nu + d), work[k : k + 2])
            rate = 0.5 * (nu + work[c])
            latent[k + c] = u / rate
            latent[2 * k + c] = log_u - np.log(rate)


@kernel(CLASSIFY, deferred=True)
def classify(theta, y, latent, work):
    """Most probable component, with the posterior means of u given it; log p(x, c)."""
    k = int(theta[0])
    _log_joint(theta, y, latent[:k], work)
    _precisions(theta, latent, work)
    value = _most_probable(latent[:k])
    _keep_chosen(latent, k)
    return y[0] * value


@kernel(ACCUMULATE, deferred=True)
def accumulate(weight, y, latent, s):
    """Add ``weight * (r, r u, r log u, r u x, r u x x')``."""
    k, d = latent.size // 3, y.size - 1
    tri = d * (d + 1) // 2
    for c in range(k):
        r = weight * y[0] * latent[c]
        if r == 0.0:
            continue
        ru = r * latent[k + c]
        s[c] += r
        s[k + c] += ru
        s[2 * k + c] += r * latent[2 * k + c]
        i = k * (3 + d) + c * tri
        for j in range(d):
            s[3 * k + c * d + j] += ru * y[1 + j]
            for m in range(j + 1):
                s[i] += ru * y[1 + j] * y[1 + m]
                i += 1


# M-step.


@helper
def _derive(theta):
    """Write what follows from weights, scatters and df; False where a scatter is singular."""
    k, d, tri, _, scatters, df = _places(theta)
    factor, matrix = np.empty((d, d)), np.empty((d, d))
    for c in range(k):
        get_triangle(theta, scatters + c * tri, matrix)
        if not cholesky(matrix, factor):
            return False
        log_det = 0.0
        inverse = matrix  # lower triangle of the inverse factor, row after row
        for j in range(d):
            log_det += np.log(factor[j, j])
            for m in range(j + 1):
                x = 1.0 if m == j else 0.0
                for p in range(m, j):
                    x -= factor[j, p] * inverse[p, m]
                inverse[j, m] = x / factor[j, j]
        put_triangle(inverse, theta, df + 3 * k + c * tri)
        nu = theta[df + c]
        theta[df + k + c] = (
            np.log(theta[HEAD + c])
            + math.lgamma(0.5 * (nu + d))
            - math.lgamma(0.5 * nu)
            - 0.5 * d * np.log(nu * np.pi)
            - log_det
        )
        theta[df + 2 * k + c] = digamma(0.5 * (nu + d))
        if not np.isfinite(theta[df + k + c]):
            return False
    return True


@kernel(boolean(VECTOR), deferred=True)
def derive(theta):
    """Write log constants, expected logarithms and factors from the parameters."""
    return _derive(theta)


@helper
def _gap_of_precisions(s, k, c):
    """``E u - E log u - 1``, at least 0: it is ``log(nu / 2) - digamma(nu / 2)`` in the M-step."""
    return (s[k + c] - s[2 * k + c]) / s[c] - 1.0


@helper
def _scatter(s, theta, c, matrix):
    """``(sum r u x x' - sum r u x sum r u x' / U) / N``, without the floor."""
    k, d, tri, _, _, _ = _places(theta)
    get_triangle(s, k * (3 + d) + c * tri, matrix)
    sums = 3 * k + c * d
    for j in range(d):
        for m in range(d):
            matrix[j, m] = (matrix[j, m] - s[sums + j] * s[sums + m] / s[k + c]) / s[c]


@kernel(MAXIMIZE, deferred=True)
def maximize(s, theta):
    """Peel and McLachlan (2000), equations 29 to 32, with the floor on the scatter's diagonal.

    ``w = N / sum N, m = sum r u x / U, C = sum r u (x - m)(x - m)' / N + floor I``; df solves
    ``log(nu / 2) - digamma(nu / 2) = (U - V) / N - 1`` inside its bounds.
    """
    k, d, tri, means, scatters, df = _places(theta)
    total = 0.0
    for c in range(k):
        if not (s[c] > 0.0 and s[k + c] > 0.0 and s[c] < np.inf and s[k + c] < np.inf):
            return EMPTY_COMPONENT
        if not _gap_of_precisions(s, k, c) >= -_ROUNDING:
            return BAD_PRECISIONS
        total += s[c]
    trial, matrix, factor = theta.copy(), np.empty((d, d)), np.empty((d, d))
    for c in range(k):
        trial[HEAD + c] = s[c] / total
        for j in range(d):
            trial[means + c * d + j] = s[3 * k + c * d + j] / s[k + c]
        _scatter(s, theta, c, matrix)
        for j in range(d):
            if not matrix[j, j] >= 0.0:
                return SINGULAR_SCATTER
            matrix[j, j] += theta[2]
        if not cholesky(matrix, factor):
            return SINGULAR_SCATTER
        put_triangle(matrix, trial, scatters + c * tri)
        if theta[3] == 0.0:
            target = _gap_of_precisions(s, k, c)
            nu = 2.0 * solve_gap(target) if target > _ROUNDING else np.inf
            trial[df + c] = min(max(nu, theta[4]), theta[5])
    if not _derive(trial):
        return SINGULAR_SCATTER
    assign(theta, trial)
    return 0


@kernel(SURROGATE, deferred=True)
def surrogate(s, theta):
    """Complete-data log-likelihood of (x, c, u), with the floor as variance of the rows."""
    k, d, tri, means, _, df = _places(theta)
    factors = df + 3 * k
    matrix = np.empty((d, d))
    value = 0.0
    for c in range(k):
        half = 0.5 * theta[df + c]
        log_det, trace = 0.0, 0.0
        get_triangle(s, k * (3 + d) + c * tri, matrix)
        for j in range(d):
            for m in range(d):
                mean_j, mean_m = theta[means + c * d + j], theta[means + c * d + m]
                matrix[j, m] += (
                    s[k + c] * mean_j * mean_m
                    - s[3 * k + c * d + j] * mean_m
                    - mean_j * s[3 * k + c * d + m]
                )
            matrix[j, j] += theta[2] * s[c]
        for j in range(d):  # trace of F A F' with F the inverse factor
            row = factors + c * tri + j * (j + 1) // 2
            log_det -= np.log(theta[row + j])
            for m in range(j + 1):
                for p in range(j + 1):
                    trace += theta[row + m] * matrix[m, p] * theta[row + p]
        value += s[c] * (
            np.log(theta[HEAD + c]) - log_det + half * np.log(half) - math.lgamma(half)
        )
        value += half * (s[2 * k + c] - s[k + c]) - 0.5 * trace
    return value


# Admissible statistics.


@helper
def _expect_component(s, theta, c, count):
    """Sums of a component that theta and a count lead one to expect."""
    k, d, tri, means, scatters, df = _places(theta)
    s[c] = count
    s[k + c] = count
    s[2 * k + c] = -count * gap(0.5 * theta[df + c])
    i = 0
    for j in range(d):
        mean = theta[means + c * d + j]
        s[3 * k + c * d + j] = count * mean
        for m in range(j + 1):
            square = mean * theta[means + c * d + m] + theta[scatters + c * tri + i]
            s[k * (3 + d) + c * tri + i] = count * square
            i += 1


@kernel(PROJECT, deferred=True)
def project(s, theta):
    """Components without rows get a few, as theta expects; scatters and precisions are repaired.

    A scatter that is not positive definite moves towards that of theta, its mean kept.
    """
    k, d, tri, _, scatters, df = _places(theta)
    total = 0.0
    for c in range(k):
        total += max(s[c], 0.0)
    if not all_finite(s) or not total > 0.0:
        for c in range(k):
            _expect_component(s, theta, c, theta[HEAD + c])
        return
    matrix, reference = np.empty((d, d)), np.empty((d, d))
    factor = np.empty((d, d))
    for c in range(k):
        if s[c] <= 0.0:
            _expect_component(s, theta, c, _LEAST * total)
            continue
        if s[k + c] <= 0.0:  # the precisions say nothing: as theta has them
            _expect_component(s, theta, c, s[c])
            continue
        if not _gap_of_precisions(s, k, c) >= 0.0:
            s[2 * k + c] = s[k + c] - s[c] * (1.0 + gap(0.5 * theta[df + c]))
        _scatter(s, theta, c, matrix)
        if cholesky(matrix, factor):
            continue
        get_triangle(theta, scatters + c * tri, reference)
        towards(matrix, reference, factor)
        sums = 3 * k + c * d
        for j in range(d):
            for m in range(d):
                matrix[j, m] = s[c] * matrix[j, m] + s[sums + j] * s[sums + m] / s[k + c]
        put_triangle(matrix, s, k * (3 + d) + c * tri)
