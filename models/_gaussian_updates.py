"""Compiled M-steps of Gaussian mixtures, and what they derive from the parameters.

An M-step writes to theta only once the statistic is known to be admissible: all counts
positive, all numbers finite, all covariances positive definite.

Layouts are those of `saem.models._gaussian_kernels`.
"""

from __future__ import annotations

import numpy as np
from numba import boolean

from saem._jit import helper, kernel
from saem._math import HALF_LOG_2PI
from saem._types import MAXIMIZE, VECTOR

from ._gaussian_kernels import COVARIANCES, HEAD, MEANS, WEIGHTS

__all__ = [
    "EMPTY_COMPONENT",
    "NOT_FINITE",
    "SINGULAR_COVARIANCE",
    "derive_diag",
    "derive_full",
    "derive_spherical",
    "derive_tied",
    "maximize_diag",
    "maximize_diag_missing",
    "maximize_full",
    "maximize_spherical",
    "maximize_spherical_missing",
    "maximize_tied",
]

#: Codes of `maximize`.
EMPTY_COMPONENT = 1
SINGULAR_COVARIANCE = 2
NOT_FINITE = 3
#: Counts at or below this are those of an empty component.
_TINY = 1e-300


# Derived quantities of theta; False where a covariance is not positive definite.


@helper
def factorise(x, at, d):
    """Replace a packed matrix by its lower Cholesky factor; False if not positive definite."""
    for j in range(d):
        row_j = at + j * (j + 1) // 2
        for m in range(j + 1):
            row_m = at + m * (m + 1) // 2
            total = x[row_j + m]
            for p in range(m):
                total -= x[row_j + p] * x[row_m + p]
            if m < j:
                x[row_j + m] = total / x[row_m + m]
            elif 0.0 < total < np.inf:
                x[row_j + j] = np.sqrt(total)
            else:
                return False
    return True


@helper
def _invert_factor(theta, out, d):
    """Invert a packed Cholesky factor in place; half the log determinant of its matrix."""
    log_det = 0.0
    for j in range(d):
        log_det += np.log(theta[out + j * (j + 1) // 2 + j])
    for j in range(d):
        row_j = out + j * (j + 1) // 2
        pivot = 1.0 / theta[row_j + j]
        for m in range(j):  # rows above j are inverted already; entry m uses L[j, m:j] only
            total = 0.0
            for p in range(m, j):
                total += theta[row_j + p] * theta[out + p * (p + 1) // 2 + m]
            theta[row_j + m] = -pivot * total
        theta[row_j + j] = pivot
    return log_det


@helper
def _log_constant(theta, c, d):
    return np.log(theta[HEAD + c]) - d * HALF_LOG_2PI


@helper
def _derive_full(theta):
    """Write log constants and factors from weights and covariances."""
    k, d = int(theta[0]), int(theta[1])
    tri = d * (d + 1) // 2
    covariances = HEAD + k + k * d
    constants = covariances + k * tri
    good = True
    for i in range(k * tri):
        theta[constants + k + i] = theta[covariances + i]
    for c in range(k):
        factor = constants + k + c * tri
        good = factorise(theta, factor, d) and good
        theta[constants + c] = _log_constant(theta, c, d) - _invert_factor(theta, factor, d)
    return good


@helper
def _derive_tied(theta):
    """Write log constants and factors from weights and covariances."""
    k, d = int(theta[0]), int(theta[1])
    covariances = HEAD + k + k * d
    constants = covariances + d * (d + 1) // 2
    for i in range(d * (d + 1) // 2):
        theta[constants + k + i] = theta[covariances + i]
    good = factorise(theta, constants + k, d)
    log_det = _invert_factor(theta, constants + k, d)
    for c in range(k):
        theta[constants + c] = _log_constant(theta, c, d) - log_det
    return good


@helper
def _derive_variances(theta, per_component):
    """Log constants and 1 / sd; a spherical variance counts d times."""
    k, d = int(theta[0]), int(theta[1])
    covariances = HEAD + k + k * d
    constants = covariances + k * per_component
    times = d // per_component
    for c in range(k):
        log_det = 0.0
        for j in range(c * per_component, (c + 1) * per_component):
            variance = theta[covariances + j]
            if not variance > 0.0:
                return False
            theta[constants + k + j] = 1.0 / np.sqrt(variance)
            log_det += 0.5 * times * np.log(variance)
        theta[constants + c] = _log_constant(theta, c, d) - log_det
    return True


@kernel(boolean(VECTOR), deferred=True)
def derive_full(theta):
    """Write log constants and factors from weights and covariances."""
    return _derive_full(theta)


@kernel(boolean(VECTOR), deferred=True)
def derive_tied(theta):
    """Write log constants and factors from weights and covariances."""
    return _derive_tied(theta)


@kernel(boolean(VECTOR), deferred=True)
def derive_diag(theta):
    """Write log constants and factors from weights and covariances."""
    return _derive_variances(theta, int(theta[1]))


@kernel(boolean(VECTOR), deferred=True)
def derive_spherical(theta):
    """Write log constants and factors from weights and covariances."""
    return _derive_variances(theta, 1)


# M-step: counts, weights and means.


@helper
def check_counts(s, k):
    """0 where all counts are positive and all numbers finite, else the code."""
    for i in range(s.size):
        if not np.isfinite(s[i]):
            return NOT_FINITE
    for c in range(k):
        if not s[c] > _TINY:
            return EMPTY_COMPONENT
    return 0


@helper
def count_of(s, observed, c, j, d):
    """Weight of the values of column j in component c.

    That of the component, or, where values are missing, what stands from `observed` on.
    """
    return s[c] if observed == 0 else s[observed + c * d + j]


@helper
def _write_first(s, theta, observed):
    """Write weights and means, where they are not kept."""
    k, d, kept = int(theta[0]), int(theta[1]), int(theta[3])
    if not kept & WEIGHTS:
        total = 0.0
        for c in range(k):
            total += s[c]
        for c in range(k):
            theta[HEAD + c] = s[c] / total
    if not kept & MEANS:
        for c in range(k):
            for j in range(d):
                at = k + c * d + j
                theta[HEAD + at] = s[at] / count_of(s, observed, c, j, d)


# M-step: matrices.


@helper
def _add_between(s, theta, c, scale, out, at):
    """Take the part of the mean of component c off packed second moments, times scale.

    ``-M M' / N``, or ``N m m' - M m' - m M'`` where the mean m is kept.
    """
    k, d, kept = int(theta[0]), int(theta[1]), int(theta[3])
    sums, means = k + c * d, HEAD + k + c * d
    inverse = scale / s[c]
    i = at
    for j in range(d):
        if kept & MEANS:
            m = scale * theta[means + j]
            centred = scale * (s[c] * theta[means + j] - s[sums + j])
            for p in range(j + 1):
                out[i] += centred * theta[means + p] - m * s[sums + p]
                i += 1
        else:
            mean = s[sums + j] * inverse
            for p in range(j + 1):
                out[i] -= mean * s[sums + p]
                i += 1


@helper
def _add_floor(theta, out, at, d):
    for j in range(d):
        out[at + j * (j + 1) // 2 + j] += theta[2]


@helper
def scatter_full(s, theta, c, out, at):
    """Write the packed ``S_c / N_c - m_c m_c' + floor I``, the covariance of the M-step."""
    k, d = int(theta[0]), int(theta[1])
    tri = d * (d + 1) // 2
    squares, inverse = k + k * d + c * tri, 1.0 / s[c]
    for i in range(tri):
        out[at + i] = s[squares + i] * inverse
    _add_between(s, theta, c, inverse, out, at)
    _add_floor(theta, out, at, d)


@helper
def scatter_tied(s, theta, out, at):
    """As `scatter_full`, pooled over components."""
    k, d = int(theta[0]), int(theta[1])
    total = 0.0
    for c in range(k):
        total += s[c]
    inverse = 1.0 / total
    for i in range(d * (d + 1) // 2):
        out[at + i] = s[k + k * d + i] * inverse
    for c in range(k):
        _add_between(s, theta, c, inverse, out, at)
    _add_floor(theta, out, at, d)


@kernel(MAXIMIZE, deferred=True)
def maximize_full(s, theta):
    """Weights, means, and ``C_c = S_c / N_c - m_c m_c' + floor I``.

    The factors are computed where they belong; if one fails, those of theta are
    derived again.
    """
    k, d, kept = int(theta[0]), int(theta[1]), int(theta[3])
    code = check_counts(s, k)
    if code != 0:
        return code
    if kept & COVARIANCES:
        _write_first(s, theta, 0)
        if not kept & WEIGHTS:
            _derive_full(theta)
        return 0
    tri = d * (d + 1) // 2
    covariances = HEAD + k + k * d
    constants = covariances + k * tri
    for c in range(k):
        factor = constants + k + c * tri
        scatter_full(s, theta, c, theta, factor)
        if not factorise(theta, factor, d):
            _derive_full(theta)
            return SINGULAR_COVARIANCE
    for c in range(k):
        scatter_full(s, theta, c, theta, covariances + c * tri)
    _write_first(s, theta, 0)
    for c in range(k):
        log_det = _invert_factor(theta, constants + k + c * tri, d)
        theta[constants + c] = _log_constant(theta, c, d) - log_det
    return 0


@kernel(MAXIMIZE, deferred=True)
def maximize_tied(s, theta):
    """Weights, means, and ``C = (S - sum_c N_c m_c m_c') / N + floor I``."""
    k, d, kept = int(theta[0]), int(theta[1]), int(theta[3])
    code = check_counts(s, k)
    if code != 0:
        return code
    if kept & COVARIANCES:
        _write_first(s, theta, 0)
        if not kept & WEIGHTS:
            _derive_tied(theta)
        return 0
    covariances = HEAD + k + k * d
    factor = covariances + d * (d + 1) // 2 + k
    scatter_tied(s, theta, theta, factor)
    if not factorise(theta, factor, d):
        _derive_tied(theta)
        return SINGULAR_COVARIANCE
    scatter_tied(s, theta, theta, covariances)
    _write_first(s, theta, 0)
    log_det = _invert_factor(theta, factor, d)
    for c in range(k):
        theta[factor - k + c] = _log_constant(theta, c, d) - log_det
    return 0


# M-step: variances.


@helper
def scatter_variance(s, theta, g, per_component, observed):
    """Variance g of the M-step, and the weight of the values that it is taken of.

    ``v = sum_j (S_cj - 2 m M_cj + N_cj m^2) / sum_j N_cj + floor`` over the columns j
    that share it, N_cj the weight of the observed values (Ghahramani and Jordan 1994,
    NIPS 6, with the missing values integrated out).
    """
    k, d, kept = int(theta[0]), int(theta[1]), int(theta[3])
    c = g // per_component
    first = g - c * per_component
    stop = first + 1 if per_component == d else d
    square, count = s[k + k * d + g], 0.0
    for j in range(first, stop):
        n, total = count_of(s, observed, c, j, d), s[k + c * d + j]
        if kept & MEANS:
            m = theta[HEAD + k + c * d + j]
            square += m * (n * m - 2.0 * total)
        else:
            square -= total * (total / n)
        count += n
    return square / count + theta[2], count


@helper
def _maximize_variances(s, theta, per_component, observed):
    k, d, kept = int(theta[0]), int(theta[1]), int(theta[3])
    code = check_counts(s, k)
    if code != 0:
        return code
    for i in range(observed, s.size if observed > 0 else 0):
        if not s[i] > _TINY:
            return EMPTY_COMPONENT
    if kept & COVARIANCES:
        _write_first(s, theta, observed)
        if not kept & WEIGHTS:
            _derive_variances(theta, per_component)
        return 0
    for g in range(k * per_component):
        variance, _ = scatter_variance(s, theta, g, per_component, observed)
        if not 0.0 < variance < np.inf:
            return SINGULAR_COVARIANCE
    for g in range(k * per_component):
        variance, _ = scatter_variance(s, theta, g, per_component, observed)
        theta[HEAD + k + k * d + g] = variance
    _write_first(s, theta, observed)
    _derive_variances(theta, per_component)
    return 0


@kernel(MAXIMIZE, deferred=True)
def maximize_diag(s, theta):
    """Weights, means, and ``v_cj = S_cj / N_c - m_cj^2 + floor``."""
    return _maximize_variances(s, theta, int(theta[1]), 0)


@kernel(MAXIMIZE, deferred=True)
def maximize_spherical(s, theta):
    """Weights, means, and ``v_c = (S_c / N_c - |m_c|^2) / d + floor``."""
    return _maximize_variances(s, theta, 1, 0)


@kernel(MAXIMIZE, deferred=True)
def maximize_diag_missing(s, theta):
    """As `maximize_diag`, each column by the weight of its observed values."""
    k, d = int(theta[0]), int(theta[1])
    return _maximize_variances(s, theta, d, k + 2 * k * d)


@kernel(MAXIMIZE, deferred=True)
def maximize_spherical_missing(s, theta):
    """As `maximize_spherical`, each column by the weight of its observed values."""
    k, d = int(theta[0]), int(theta[1])
    return _maximize_variances(s, theta, 1, k + k * d + k)
