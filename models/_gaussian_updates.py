"""Compiled M-steps of Gaussian mixtures, and what they derive from the parameters.

Layouts are those of `saem.models._gaussian_kernels`.
"""

from __future__ import annotations

import numpy as np
from numba import boolean

from saem._jit import helper, kernel
from saem._math import HALF_LOG_2PI
from saem._types import MAXIMIZE, VECTOR

from ._gaussian_kernels import HEAD

__all__ = [
    "EMPTY_COMPONENT",
    "SINGULAR_COVARIANCE",
    "derive_diag",
    "derive_full",
    "derive_spherical",
    "derive_tied",
    "maximize_diag",
    "maximize_full",
    "maximize_spherical",
    "maximize_tied",
]

#: Codes of `maximize`.
EMPTY_COMPONENT = 1
SINGULAR_COVARIANCE = 2


# Derived quantities of theta; False where a covariance is not positive definite.


@helper
def _invert_factor(theta, cov, out, d):
    """Packed inverse of the Cholesky factor of a packed matrix; its log determinant or NaN.

    The factor is written at `out` and inverted in place, row after row.
    """
    log_det = 0.0
    for j in range(d):
        row_j = out + j * (j + 1) // 2
        for m in range(j + 1):
            row_m = out + m * (m + 1) // 2
            total = theta[cov + j * (j + 1) // 2 + m]
            for p in range(m):
                total -= theta[row_j + p] * theta[row_m + p]
            if m < j:
                theta[row_j + m] = total / theta[row_m + m]
            elif total > 0.0:
                theta[row_j + j] = np.sqrt(total)
                log_det += np.log(theta[row_j + j])
            else:
                return np.nan
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


@kernel(boolean(VECTOR))
def derive_full(theta):
    """Write log constants and factors from weights and covariances."""
    k, d = int(theta[0]), int(theta[1])
    tri = d * (d + 1) // 2
    covariances = HEAD + k + k * d
    constants = covariances + k * tri
    for c in range(k):
        log_det = _invert_factor(theta, covariances + c * tri, constants + k + c * tri, d)
        theta[constants + c] = _log_constant(theta, c, d) - log_det
        if not np.isfinite(log_det):
            return False
    return True


@kernel(boolean(VECTOR))
def derive_tied(theta):
    """Write log constants and factors from weights and covariances."""
    k, d = int(theta[0]), int(theta[1])
    covariances = HEAD + k + k * d
    constants = covariances + d * (d + 1) // 2
    log_det = _invert_factor(theta, covariances, constants + k, d)
    for c in range(k):
        theta[constants + c] = _log_constant(theta, c, d) - log_det
    return np.isfinite(log_det)


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


@kernel(boolean(VECTOR))
def derive_diag(theta):
    """Write log constants and factors from weights and covariances."""
    return _derive_variances(theta, int(theta[1]))


@kernel(boolean(VECTOR))
def derive_spherical(theta):
    """Write log constants and factors from weights and covariances."""
    return _derive_variances(theta, 1)


# M-step.


@helper
def _maximize_first(s, theta):
    """Weights and means; False where a component is empty."""
    k, d = int(theta[0]), int(theta[1])
    total = 0.0
    for c in range(k):
        total += s[c]
    for c in range(k):
        if not s[c] > 1e-300:
            return False
        theta[HEAD + c] = s[c] / total
        for j in range(d):
            theta[HEAD + k + c * d + j] = s[k + c * d + j] / s[c]
    return True


@kernel(MAXIMIZE)
def maximize_full(s, theta):
    """Weights, means, and ``C_c = S_c / N_c - m_c m_c' + floor I``."""
    if not _maximize_first(s, theta):
        return EMPTY_COMPONENT
    k, d, floor = int(theta[0]), int(theta[1]), theta[2]
    means = HEAD + k
    i = k + k * d
    out = means + k * d
    for c in range(k):
        centre = means + c * d
        for j in range(d):
            for m in range(j + 1):
                theta[out] = s[i] / s[c] - theta[centre + j] * theta[centre + m]
                i += 1
                out += 1
            theta[out - 1] += floor
    return 0 if derive_full(theta) else SINGULAR_COVARIANCE


@kernel(MAXIMIZE)
def maximize_tied(s, theta):
    """Weights, means, and ``C = (S - sum_c N_c m_c m_c') / N + floor I``."""
    if not _maximize_first(s, theta):
        return EMPTY_COMPONENT
    k, d, floor = int(theta[0]), int(theta[1]), theta[2]
    means = HEAD + k
    i = k + k * d
    out = means + k * d
    total = 0.0
    for c in range(k):
        total += s[c]
    for j in range(d):
        for m in range(j + 1):
            between = 0.0
            for c in range(k):
                between += s[c] * theta[means + c * d + j] * theta[means + c * d + m]
            theta[out] = (s[i] - between) / total
            i += 1
            out += 1
        theta[out - 1] += floor
    return 0 if derive_tied(theta) else SINGULAR_COVARIANCE


@kernel(MAXIMIZE)
def maximize_diag(s, theta):
    """Weights, means, and ``v_cj = S_cj / N_c - m_cj^2 + floor``."""
    if not _maximize_first(s, theta):
        return EMPTY_COMPONENT
    k, d, floor = int(theta[0]), int(theta[1]), theta[2]
    means = HEAD + k
    for c in range(k):
        for j in range(c * d, (c + 1) * d):
            centre = theta[means + j]
            theta[means + k * d + j] = s[k + k * d + j] / s[c] - centre * centre + floor
    return 0 if derive_diag(theta) else SINGULAR_COVARIANCE


@kernel(MAXIMIZE)
def maximize_spherical(s, theta):
    """Weights, means, and ``v_c = (S_c / N_c - |m_c|^2) / d + floor``."""
    if not _maximize_first(s, theta):
        return EMPTY_COMPONENT
    k, d, floor = int(theta[0]), int(theta[1]), theta[2]
    means = HEAD + k
    for c in range(k):
        length = 0.0
        for j in range(c * d, (c + 1) * d):
            length += theta[means + j] * theta[means + j]
        theta[means + k * d + c] = (s[k + k * d + c] / s[c] - length) / d + floor
    return 0 if derive_spherical(theta) else SINGULAR_COVARIANCE
