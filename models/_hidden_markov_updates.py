"""Compiled M-steps of hidden Markov models, and what they derive from the parameters.

Layouts are those of `saem.models._hidden_markov_kernels`.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, int64, void

from saem._jit import kernel
from saem._linalg import assign, cholesky, cholesky_inverse
from saem._math import HALF_LOG_2PI
from saem._types import MATRIX, MAXIMIZE, PROJECT, SURROGATE, VECTOR

from ._hidden_markov_kernels import CATEGORICAL, DIAG, HEAD

__all__ = [
    "EMPTY_STATE",
    "NEGATIVE_COUNT",
    "SINGULAR_COVARIANCE",
    "derive",
    "maximize",
    "project",
    "surrogate",
]

#: Codes of `maximize`.
EMPTY_STATE = 1
NEGATIVE_COUNT = 2
SINGULAR_COVARIANCE = 3
#: Counts below 0 by no more than this share of their sum are rounding.
_ROUNDING = 1e-12
#: A repaired covariance is at least this share of the one before it.
_REPAIRED = 0.01


@kernel(boolean(VECTOR))
def derive(theta):
    """Write what the emission densities need; False if a covariance is not positive definite."""
    k, d, kind = int(theta[0]), int(theta[1]), int(theta[2])
    at = HEAD + k + k * k
    if kind == CATEGORICAL:
        return True
    if kind == DIAG:
        for i in range(at + k * d, at + 2 * k * d):
            if not theta[i] > 0.0:
                return False
            theta[i + k * d] = HALF_LOG_2PI + 0.5 * np.log(theta[i])
        return True
    constants = at + k * d + k * d * d
    for c in range(k):
        cov, factor = at + k * d + c * d * d, constants + k + c * d * d
        lower = theta[factor : factor + d * d].reshape((d, d))
        if not cholesky(theta[cov : cov + d * d].reshape((d, d)), lower):
            return False
        theta[constants + c] = -d * HALF_LOG_2PI
        for a in range(d):
            theta[constants + c] -= np.log(lower[a, a])
    return True


@kernel(int64(VECTOR, VECTOR))
def _shares(counts, out):
    """Write ``counts / sum``, and return 0; or 1 if the sum is 0, 2 for a negative count."""
    total, size = 0.0, 0.0
    for c in range(counts.size):
        total += max(counts[c], 0.0)
        size += abs(counts[c])
    if not np.isfinite(size):
        return NEGATIVE_COUNT
    for c in range(counts.size):
        if counts[c] < -_ROUNDING * size:
            return NEGATIVE_COUNT
    if not total > 1e-300:
        return EMPTY_STATE
    for c in range(counts.size):
        out[c] = max(counts[c], 0.0) / total
    return 0


@kernel(boolean(VECTOR, VECTOR, int64, MATRIX))
def _covariance(s, theta, c, cov):
    """Covariance of state c in s, without the floor; False where its count is not above 0."""
    k, d = int(theta[0]), int(theta[1])
    at = k + k * k
    n, i = s[at + c], at + k + k * d + c * (d * (d + 1) // 2)
    if not (1e-300 < n < np.inf):
        return False
    for a in range(d):
        for b in range(a + 1):
            left, right = s[at + k + c * d + a] / n, s[at + k + c * d + b] / n
            cov[a, b] = s[i] / n - left * right
            cov[b, a] = cov[a, b]
            i += 1
    return True


@kernel(int64(VECTOR, VECTOR))
def _maximize_diag(s, theta):
    """``m = sums / counts``, ``v = squares / counts - m^2 + floor``, column by column."""
    k, d, floor = int(theta[0]), int(theta[1]), theta[3]
    source, target = k + k * k, HEAD + k + k * k
    for i in range(k * d):
        n = s[source + i]
        if not (1e-300 < n < np.inf):
            return EMPTY_STATE
        mean = s[source + k * d + i] / n
        variance = s[source + 2 * k * d + i] / n - mean * mean
        if not (-floor < variance < np.inf):
            return SINGULAR_COVARIANCE
        theta[target + i] = mean
        theta[target + k * d + i] = variance + floor
    return 0


@kernel(int64(VECTOR, VECTOR))
def _maximize_full(s, theta):
    """``m = sums / counts``, ``C = S / counts - m m' + floor I``."""
    k, d, floor = int(theta[0]), int(theta[1]), theta[3]
    source, target = k + k * k, HEAD + k + k * k
    for c in range(k):
        at = target + k * d + c * d * d
        cov = theta[at : at + d * d].reshape((d, d))
        if not _covariance(s, theta, c, cov):
            return EMPTY_STATE
        for a in range(d):
            theta[target + c * d + a] = s[source + k + c * d + a] / s[source + c]
            cov[a, a] += floor
            if not np.isfinite(cov[a, a]):
                return SINGULAR_COVARIANCE
    return 0


@kernel(MAXIMIZE)
def maximize(s, theta):
    """Shares of starts, transitions and symbols; means and covariances of each state.

    A state that is never left says nothing of its transitions, which stay as they are.
    (Baum, Petrie, Soules and Weiss 1970, Ann. Math. Statist. 41, 164-171.)
    """
    k, d, kind = int(theta[0]), int(theta[1]), int(theta[2])
    new = theta.copy()
    code = _shares(s[:k], new[HEAD : HEAD + k])
    if code != 0:
        return code
    for c in range(k):
        first = k + c * k
        code = _shares(s[first : first + k], new[HEAD + first : HEAD + first + k])
        if code == NEGATIVE_COUNT:
            return code
    if kind == CATEGORICAL:
        for c in range(k):
            at = k + k * k + c * d
            code = _shares(s[at : at + d], new[HEAD + at : HEAD + at + d])
            if code != 0:
                return code
    else:
        code = _maximize_diag(s, new) if kind == DIAG else _maximize_full(s, new)
        if code != 0:
            return code
    if not derive(new):
        return SINGULAR_COVARIANCE
    assign(theta, new)
    return 0


@kernel(float64(VECTOR, VECTOR))
def _entropy_term(counts, shares):
    """``sum counts log shares``, where 0 log 0 = 0."""
    value = 0.0
    for c in range(counts.size):
        if counts[c] != 0.0:
            value += counts[c] * np.log(shares[c])
    return value


@kernel(SURROGATE)
def surrogate(s, theta):
    """Expected complete-data log-likelihood, with the penalty that the floor amounts to.

    ``-floor / 2 sum_k N_k tr C_k^-1``: its maximum is the M-step exactly.
    """
    k, d, kind, floor = int(theta[0]), int(theta[1]), int(theta[2]), theta[3]
    at = k + k * k
    value = _entropy_term(s[:k], theta[HEAD : HEAD + k])
    value += _entropy_term(s[k:at], theta[HEAD + k : HEAD + at])
    if kind == CATEGORICAL:
        return value + _entropy_term(s[at:], theta[HEAD + at : HEAD + at + k * d])
    if kind == DIAG:
        for i in range(at, at + k * d):
            n, mean, variance = s[i], theta[HEAD + i], theta[HEAD + i + k * d]
            square = s[i + 2 * k * d] - 2.0 * mean * s[i + k * d] + n * (mean * mean + floor)
            value -= 0.5 * (n * np.log(variance) + square / variance)
        return value
    inverse = np.empty((d, d))
    for c in range(k):
        n, means = s[at + c], HEAD + at + c * d
        factor = HEAD + at + k * d + k * d * d + k + c * d * d
        lower = theta[factor : factor + d * d].reshape((d, d))
        cholesky_inverse(lower, inverse)
        i = at + k + k * d + c * (d * (d + 1) // 2)
        for a in range(d):
            value -= n * np.log(lower[a, a])
            left, sum_a = theta[means + a], s[at + k + c * d + a]
            for b in range(a + 1):
                right, sum_b = theta[means + b], s[at + k + c * d + b]
                second = s[i] - left * sum_b - right * sum_a + n * left * right
                if a == b:
                    second = 0.5 * (second + n * floor)
                value -= inverse[a, b] * second
                i += 1
    return value


@kernel(float64(VECTOR, VECTOR, float64))
def _repair_counts(counts, shares, total):
    """Negative counts become 0; where nothing is left, counts as theta expects them."""
    left = 0.0
    for c in range(counts.size):
        counts[c] = max(counts[c], 0.0) if np.isfinite(counts[c]) else np.nan
        left += counts[c]
    if not left > 1e-300:
        for c in range(counts.size):
            counts[c] = total * shares[c]
        left = total
    return left


@kernel(void(VECTOR, VECTOR, float64))
def _repair_diag(s, theta, least):
    """Moments of each state and column; a variance is at least a share of theta's."""
    k, d, floor = int(theta[0]), int(theta[1]), theta[3]
    at = k + k * k
    for i in range(at, at + k * d):
        mean, variance = theta[HEAD + i], theta[HEAD + i + k * d]
        total = s[i] + s[i + k * d] + s[i + 2 * k * d]
        count = s[i]
        if not (count > 1e-300 and np.isfinite(total)):
            s[i] = count = least
            s[i + k * d] = np.inf  # replaced below
        own = s[i + k * d] / count
        if s[i + 2 * k * d] / count - own * own > -floor:
            continue
        s[i + 2 * k * d] = count * (own * own + _REPAIRED * variance)
        if not s[i + 2 * k * d] / count - own * own > -floor:  # the mean swamps the variance
            s[i + k * d] = count * mean
            s[i + 2 * k * d] = count * (mean * mean + variance)


@kernel(void(VECTOR, VECTOR, int64, float64))
def _expect_moments(s, theta, c, count):
    """Moments of state c as theta expects them."""
    k, d = int(theta[0]), int(theta[1])
    at = k + k * k
    means, cov = HEAD + at + c * d, HEAD + at + k * d + c * d * d
    s[at + c] = count
    i = at + k + k * d + c * (d * (d + 1) // 2)
    for a in range(d):
        s[at + k + c * d + a] = count * theta[means + a]
        for b in range(a + 1):
            s[i] = count * (theta[cov + a * d + b] + theta[means + a] * theta[means + b])
            i += 1


@kernel(boolean(VECTOR, VECTOR, int64, MATRIX, MATRIX))
def _is_proper(s, theta, c, cov, lower):
    """Whether the covariance of state c, with the floor, is positive definite."""
    if not _covariance(s, theta, c, cov):
        return False
    for a in range(cov.shape[0]):
        cov[a, a] += theta[3]
        if not np.isfinite(cov[a, a]):
            return False
    return cholesky(cov, lower)


@kernel(void(VECTOR, VECTOR, float64))
def _repair_full(s, theta, least):
    """Move each covariance towards theta's until it is at least a share of it."""
    k, d = int(theta[0]), int(theta[1])
    at = k + k * k
    cov, lower, trial = np.empty((d, d)), np.zeros((d, d)), np.empty((d, d))
    for c in range(k):
        if _is_proper(s, theta, c, cov, lower):
            continue
        first = at + k + k * d + c * (d * (d + 1) // 2)
        total = s[at + c]
        for a in range(d):
            total += s[at + k + c * d + a]
        for i in range(first, first + d * (d + 1) // 2):
            total += s[i]
        if not np.isfinite(total) or not _covariance(s, theta, c, cov):
            _expect_moments(s, theta, c, least)
            continue
        goal = theta[HEAD + at + k * d + c * d * d : HEAD + at + k * d + (c + 1) * d * d]
        step = 2.0**-20
        while step < 1.0:
            for a in range(d):
                for b in range(d):
                    mixed = (1.0 - step) * cov[a, b] + step * goal[a * d + b]
                    trial[a, b] = mixed - _REPAIRED * goal[a * d + b]
            if cholesky(trial, lower):
                break
            step *= 2.0
        step = min(step, 1.0)
        n, i = s[at + c], first
        for a in range(d):
            for b in range(a + 1):
                left, right = s[at + k + c * d + a] / n, s[at + k + c * d + b] / n
                mixed = (1.0 - step) * cov[a, b] + step * goal[a * d + b]
                s[i] = n * (mixed + left * right)
                i += 1
        if not _is_proper(s, theta, c, cov, lower):  # a mean so far off that it swamps all
            _expect_moments(s, theta, c, n)


@kernel(PROJECT)
def project(s, theta):
    """Negative counts become 0; improper covariances move towards those of theta.

    What is empty or not finite is replaced by what theta expects: a state without
    observations keeps its emissions.
    """
    k, d, kind = int(theta[0]), int(theta[1]), int(theta[2])
    total = _repair_counts(s[:k], theta[HEAD : HEAD + k], 1.0)
    for c in range(k):
        first = k + c * k
        row = s[first : first + k]
        left = 0.0
        for b in range(k):
            left += abs(row[b])
        if left != 0.0:  # a state that is never left stays so
            _repair_counts(row, theta[HEAD + first : HEAD + first + k], 1e-3 * total)
    at = k + k * k
    if kind == CATEGORICAL:
        for c in range(k):
            first = at + c * d
            shares = theta[HEAD + first : HEAD + first + d]
            _repair_counts(s[first : first + d], shares, 1e-3 * total)
    elif kind == DIAG:
        _repair_diag(s, theta, 1e-3 * total)
    else:
        _repair_full(s, theta, 1e-3 * total)
