"""Compiled objectives of the M-steps of Gaussian mixtures, and repairs of statistics.

`maximize` maximises, over the parameters that it does not keep,

    sum_c N_c log w_c - 1/2 sum_c (N_c (d log 2 pi + log det C_c) + tr C_c^-1 A_c),
    A_c = S_c - M_c m_c' - m_c M_c' + N_c m_c m_c' + N_c floor I:

the mean complete-data log-likelihood of a row, with the penalty ``-1/2 floor N_c tr
C_c^-1`` that makes adding the floor to a covariance the exact maximum.

Layouts are those of `saem.models._gaussian_kernels`.
"""

from __future__ import annotations

import numpy as np

from saem._jit import helper, kernel
from saem._math import HALF_LOG_2PI
from saem._types import PROJECT, SURROGATE

from ._gaussian_kernels import COVARIANCES, HEAD
from ._gaussian_updates import (
    count_of,
    factorise,
    scatter_full,
    scatter_tied,
    scatter_variance,
)

__all__ = [
    "project_diag",
    "project_diag_missing",
    "project_full",
    "project_spherical",
    "project_spherical_missing",
    "project_tied",
    "surrogate_diag",
    "surrogate_diag_missing",
    "surrogate_full",
    "surrogate_spherical",
    "surrogate_spherical_missing",
    "surrogate_tied",
]

#: Share of the total weight that a component without rows is given, and what counts as none.
_SMALL_COUNT, _NO_COUNT = 1e-8, 1e-10
#: A repair is repeated: one of a statistic of another order of magnitude leaves rounding.
_REPAIRS = 3
#: Repaired variances are at least this part of the present ones, of the largest
#: eigenvalue, and of the squared mean (below which the difference cannot be represented).
_OF_PRESENT, _OF_LARGEST, _OF_MEAN = 1e-6, 1e-9, 1e-11
_SWEEPS = 30


# Objectives.


@helper
def _row_forms(s, theta, c, row, j, squares):
    """For row r of a factor: ``r' S r``, ``r' M_c``, ``r' m_c`` and ``r' r``."""
    k, d = int(theta[0]), int(theta[1])
    quadratic = total = mean = norm = 0.0
    for a in range(j + 1):
        r = theta[row + a]
        inner = 0.0
        for b in range(a):
            inner += theta[row + b] * s[squares + a * (a + 1) // 2 + b]
        quadratic += r * (2.0 * inner + r * s[squares + a * (a + 1) // 2 + a])
        total += r * s[k + c * d + a]
        mean += r * theta[HEAD + k + c * d + a]
        norm += r * r
    return quadratic, total, mean, norm


@kernel(SURROGATE, deferred=True)
def surrogate_full(s, theta):
    """Objective of `maximize_full`."""
    k, d, floor = int(theta[0]), int(theta[1]), theta[2]
    tri = d * (d + 1) // 2
    constants = HEAD + k + k * d + k * tri
    value = 0.0
    for c in range(k):
        n, trace = s[c], 0.0
        for j in range(d):
            row = constants + k + c * tri + j * (j + 1) // 2
            quadratic, total, m, norm = _row_forms(s, theta, c, row, j, k + k * d + c * tri)
            trace += quadratic - 2.0 * total * m + n * (m * m + floor * norm)
        value += n * theta[constants + c] - 0.5 * trace
    return value


@kernel(SURROGATE, deferred=True)
def surrogate_tied(s, theta):
    """Objective of `maximize_tied`."""
    k, d, floor = int(theta[0]), int(theta[1]), theta[2]
    constants = HEAD + k + k * d + d * (d + 1) // 2
    value = 0.0
    for c in range(k):
        n, trace = s[c], 0.0
        for j in range(d):
            row = constants + k + j * (j + 1) // 2
            quadratic, total, m, norm = _row_forms(s, theta, c, row, j, k + k * d)
            trace += n * (m * m + floor * norm) - 2.0 * total * m
            if c == 0:  # second moments are those of all components together
                trace += quadratic
        value += n * theta[constants + c] - 0.5 * trace
    return value


@helper
def _surrogate_variances(s, theta, per_component, observed):
    k, d, floor = int(theta[0]), int(theta[1]), theta[2]
    factors = HEAD + k + k * d + k * per_component + k
    value = 0.0
    for c in range(k):
        value += s[c] * np.log(theta[HEAD + c])
        for g in range(c * per_component, (c + 1) * per_component):
            value -= 0.5 * theta[factors + g] ** 2 * s[k + k * d + g]
        for j in range(d):
            n, at = count_of(s, observed, c, j, d), k + c * d + j
            m = theta[HEAD + at]
            factor = theta[factors + c * per_component + (j if per_component == d else 0)]
            value += n * (np.log(factor) - HALF_LOG_2PI)
            value -= 0.5 * factor * factor * (m * (n * m - 2.0 * s[at]) + n * floor)
    return value


@kernel(SURROGATE, deferred=True)
def surrogate_diag(s, theta):
    """Objective of `maximize_diag`."""
    return _surrogate_variances(s, theta, int(theta[1]), 0)


@kernel(SURROGATE, deferred=True)
def surrogate_spherical(s, theta):
    """Objective of `maximize_spherical`."""
    return _surrogate_variances(s, theta, 1, 0)


@kernel(SURROGATE, deferred=True)
def surrogate_diag_missing(s, theta):
    """Objective of `maximize_diag_missing`."""
    k, d = int(theta[0]), int(theta[1])
    return _surrogate_variances(s, theta, d, k + 2 * k * d)


@kernel(SURROGATE, deferred=True)
def surrogate_spherical_missing(s, theta):
    """Objective of `maximize_spherical_missing`."""
    k, d = int(theta[0]), int(theta[1])
    return _surrogate_variances(s, theta, 1, k + k * d + k)


# Repairs. What is lost or not finite is taken from the present parameters.


@helper
def _finite(s, start, size):
    for i in range(start, start + size):
        if not np.abs(s[i]) < 1e150:
            return False
    return True


@helper
def _total_count(s, k):
    """Sum of the positive counts; 1 where there are none."""
    total = 0.0
    for c in range(k):
        if 0.0 < s[c] < 1e150:
            total += s[c]
    return total if total > 1e-150 else 1.0


@helper
def _present_triangle(s, theta, c, cov, squares, weight):
    """Add ``weight (C + m m')`` at the present parameters to packed second moments."""
    k, d = int(theta[0]), int(theta[1])
    means = HEAD + k + c * d
    i = 0
    for j in range(d):
        for p in range(j + 1):
            s[squares + i] += weight * (theta[cov + i] + theta[means + j] * theta[means + p])
            i += 1


@helper
def _present_count(s, theta, c, total):
    """Give component c a count and the sums of its present mean; the count."""
    k, d = int(theta[0]), int(theta[1])
    weight = s[c] if _NO_COUNT * total < s[c] < 1e150 else _SMALL_COUNT * total
    s[c] = weight
    for j in range(d):
        s[k + c * d + j] = weight * theta[HEAD + k + c * d + j]
    return weight


@helper
def _rotate(a, v, p, q):
    """Zero entry (p, q) of a symmetric matrix by a rotation, gathered in v."""
    d = a.shape[0]
    cot = 0.5 * (a[q, q] - a[p, p]) / a[p, q]
    t = 1.0 / (np.abs(cot) + np.hypot(cot, 1.0))
    if cot < 0.0:
        t = -t
    cosine = 1.0 / np.sqrt(t * t + 1.0)
    sine = t * cosine
    for m in range(d):
        x, y = a[m, p], a[m, q]
        a[m, p], a[m, q] = cosine * x - sine * y, sine * x + cosine * y
    for m in range(d):
        x, y = a[p, m], a[q, m]
        a[p, m], a[q, m] = cosine * x - sine * y, sine * x + cosine * y
        x, y = v[m, p], v[m, q]
        v[m, p], v[m, q] = cosine * x - sine * y, sine * x + cosine * y


@helper
def _raise_eigenvalues(packed, d, least):
    """Change a packed matrix so that no eigenvalue lies below `least` (Jacobi's method)."""
    a, v = np.empty((d, d)), np.eye(d)
    for j in range(d):
        for p in range(j + 1):
            a[j, p] = a[p, j] = packed[j * (j + 1) // 2 + p]
    for _ in range(_SWEEPS):
        off = scale = 0.0
        for j in range(d):
            scale += a[j, j] * a[j, j]
            for p in range(j):
                off += a[j, p] * a[j, p]
        if not off > 1e-32 * scale:
            break
        for j in range(d):
            for p in range(j):
                if np.abs(a[p, j]) > 1e-20 * (np.abs(a[p, p]) + np.abs(a[j, j])):
                    _rotate(a, v, p, j)
    top = 0.0
    for m in range(d):
        top = max(top, a[m, m])
    least = max(least, _OF_LARGEST * top)
    for m in range(d):
        add = least - a[m, m]
        if add > 0.0:
            for j in range(d):
                for p in range(j + 1):
                    packed[j * (j + 1) // 2 + p] += add * v[j, m] * v[p, m]


@helper
def _least_variance(theta, first_mean, n_means, cov, d):
    """Smallest eigenvalue that a repaired covariance may have."""
    trace = length = 0.0
    for j in range(d):
        trace += theta[cov + j * (j + 1) // 2 + j]
    for i in range(first_mean, first_mean + n_means):
        length = max(length, theta[i] * theta[i])
    return max(_OF_PRESENT * trace / d, _OF_MEAN * d * length)


@helper
def _repair(packed, trial, s, squares, weight, least, d):
    """Make a packed covariance positive definite; add the change to the second moments.

    False where there was nothing to do.
    """
    tri = d * (d + 1) // 2
    for i in range(tri):
        trial[i] = packed[i]
    if factorise(trial, 0, d):
        return False
    for i in range(tri):
        trial[i] = packed[i]
    _raise_eigenvalues(packed, d, least)
    for i in range(tri):
        s[squares + i] += weight * (packed[i] - trial[i])
    return True


@kernel(PROJECT, deferred=True)
def project_full(s, theta):
    """Small positive counts for empty components, floored eigenvalues of scatter matrices."""
    k, d, kept = int(theta[0]), int(theta[1]), int(theta[3])
    tri = d * (d + 1) // 2
    packed, trial = np.empty(tri), np.empty(tri)
    total = _total_count(s, k)
    for c in range(k):
        squares, cov = k + k * d + c * tri, HEAD + k + k * d + c * tri
        fine = _finite(s, k + c * d, d) and _finite(s, squares, tri)
        if not (fine and _NO_COUNT * total < s[c] < 1e150):
            weight = _present_count(s, theta, c, total)
            s[squares : squares + tri] = 0.0
            _present_triangle(s, theta, c, cov, squares, weight)
        if not kept & COVARIANCES:
            least = _least_variance(theta, HEAD + k + c * d, d, cov, d)
            for j in range(d):
                least = max(least, _OF_MEAN * d * (s[k + c * d + j] / s[c]) ** 2)
            for _ in range(_REPAIRS):
                scatter_full(s, theta, c, packed, 0)
                if not _repair(packed, trial, s, squares, s[c], least, d):
                    break


@kernel(PROJECT, deferred=True)
def project_tied(s, theta):
    """As `project_full`, with one scatter matrix for all components."""
    k, d, kept = int(theta[0]), int(theta[1]), int(theta[3])
    tri = d * (d + 1) // 2
    squares, cov = k + k * d, HEAD + k + k * d
    packed, trial = np.empty(tri), np.empty(tri)
    total = _total_count(s, k)
    lost = not _finite(s, squares, tri)
    for c in range(k):
        if not (_finite(s, k + c * d, d) and _NO_COUNT * total < s[c] < 1e150):
            weight = _present_count(s, theta, c, total)
            if not lost:
                _present_triangle(s, theta, c, cov, squares, weight)
    if lost:
        s[squares : squares + tri] = 0.0
        for c in range(k):
            _present_triangle(s, theta, c, cov, squares, s[c])
    if not kept & COVARIANCES:
        least = _least_variance(theta, HEAD + k, k * d, cov, d)
        total = 0.0
        for c in range(k):
            total += s[c]
            for j in range(d):
                least = max(least, _OF_MEAN * d * (s[k + c * d + j] / s[c]) ** 2)
        for _ in range(_REPAIRS):
            scatter_tied(s, theta, packed, 0)
            if not _repair(packed, trial, s, squares, total, least, d):
                break


@helper
def _project_variances(s, theta, per_component, observed):
    k, d, kept = int(theta[0]), int(theta[1]), int(theta[3])
    squares, variances = k + k * d, HEAD + k + k * d
    total = _total_count(s, k)
    for c in range(k):
        fine = _finite(s, k + c * d, d) and _finite(s, squares + c * per_component, per_component)
        if observed > 0:
            fine = fine and _finite(s, observed + c * d, d)
        if not (fine and _NO_COUNT * total < s[c] < 1e150):
            weight = _present_count(s, theta, c, total)
            for g in range(c * per_component, (c + 1) * per_component):
                s[squares + g] = 0.0
            for j in range(d):
                g = c * per_component + (j if per_component == d else 0)
                m = theta[HEAD + k + c * d + j]
                s[squares + g] += weight * (theta[variances + g] + m * m)
                if observed > 0:
                    s[observed + c * d + j] = weight
        for j in range(d if observed > 0 else 0):
            _project_column(s, theta, c, j, per_component, observed, total)
    if kept & COVARIANCES:
        return
    for g in range(k * per_component):
        c = g // per_component
        least = _OF_PRESENT * theta[variances + g]
        for j in range(d):
            mean = s[k + c * d + j] / count_of(s, observed, c, j, d)
            least = max(least, _OF_MEAN * d * mean * mean)
        for _ in range(_REPAIRS):
            variance, count = scatter_variance(s, theta, g, per_component, observed)
            if 0.0 < variance:
                break
            s[squares + g] += count * (least - variance)


@helper
def _project_column(s, theta, c, j, per_component, observed, total):
    """A little weight at the present mean for a column without observed values."""
    k, d = int(theta[0]), int(theta[1])
    at, small = observed + c * d + j, _SMALL_COUNT * total
    if not s[at] > _NO_COUNT * small:
        g = c * per_component + (j if per_component == d else 0)
        m = theta[HEAD + k + c * d + j]
        if per_component == d:
            s[k + k * d + g] = small * (theta[HEAD + k + k * d + g] + m * m)
        else:  # the length of the other columns is kept
            old = s[k + c * d + j]
            before = old * (old / s[at]) if np.abs(s[at]) > _NO_COUNT * small else 0.0
            s[k + k * d + g] += small * (theta[HEAD + k + k * d + g] + m * m) - before
        s[k + c * d + j] = small * m
        s[at] = small


@kernel(PROJECT, deferred=True)
def project_diag(s, theta):
    """Small positive counts for empty components, floored variances."""
    _project_variances(s, theta, int(theta[1]), 0)


@kernel(PROJECT, deferred=True)
def project_spherical(s, theta):
    """Small positive counts for empty components, floored variances."""
    _project_variances(s, theta, 1, 0)


@kernel(PROJECT, deferred=True)
def project_diag_missing(s, theta):
    """As `project_diag`; columns without observed values keep their mean and variance."""
    k, d = int(theta[0]), int(theta[1])
    _project_variances(s, theta, d, k + 2 * k * d)


@kernel(PROJECT, deferred=True)
def project_spherical_missing(s, theta):
    """As `project_spherical`; columns without observed values keep their mean."""
    k, d = int(theta[0]), int(theta[1])
    _project_variances(s, theta, 1, k + k * d + k)
