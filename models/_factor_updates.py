"""Compiled M-steps of factor analysis and probabilistic PCA: regressions on (1, z).

Layouts are those of `saem.models._factor_kernels`.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, int64, void

from saem._jit import kernel
from saem._linalg import cholesky, cholesky_solve
from saem._math import HALF_LOG_2PI
from saem._types import MATRIX, MAXIMIZE, PROJECT, SURROGATE, VECTOR

from ._factor_kernels import HEAD, pack_square, posterior_root

__all__ = ["INADMISSIBLE", "NO_ROWS", "derive", "maximize", "project", "surrogate"]

#: Codes of `maximize`.
NO_ROWS = 1
INADMISSIBLE = 2


@kernel(boolean(VECTOR))
def derive(theta):
    """Write what complete rows share; False if a noise variance is not above 0."""
    d, q = int(theta[0]), int(theta[1])
    loadings = theta[HEAD + 2 * d : HEAD + 2 * d + d * q].reshape((d, q))
    noise = theta[HEAD + (2 + q) * d : HEAD + (3 + q) * d]
    at = HEAD + (3 + q) * d
    gain = theta[at : at + q * d].reshape((q, d))
    root = theta[at + q * d : at + q * d + q * q].reshape((q, q))
    precision, factor = np.eye(q), np.empty((q, q))
    constant = -d * HALF_LOG_2PI
    for j in range(d):
        if not noise[j] > 0.0:
            return False
        constant -= 0.5 * np.log(noise[j])
        for a in range(q):
            for b in range(q):
                precision[a, b] += loadings[j, a] * loadings[j, b] / noise[j]
    if not posterior_root(precision, factor, root):
        return False
    for a in range(q):
        constant -= np.log(factor[a, a])
    for j in range(d):
        for a in range(q):
            gain[a, j] = 0.0
        for c in range(q):
            u = 0.0
            for b in range(c + 1):
                u += root[b, c] * loadings[j, b]
            for a in range(c + 1):
                gain[a, j] += root[a, c] * u / noise[j]
    at += q * d + q * q
    pack_square(root, theta[at : at + q * (q + 1) // 2])
    theta[at + q * (q + 1) // 2] = constant
    return np.isfinite(constant)


@kernel(void(VECTOR, int64, MATRIX))
def _unpack(s, start, out):
    """Symmetric matrix from a lower triangle that starts at an entry of s."""
    i = start
    for a in range(out.shape[0]):
        for b in range(a + 1):
            out[a, b] = s[i]
            out[b, a] = s[i]
            i += 1


@kernel(MAXIMIZE)
def maximize(s, theta):
    """``(mu_j, lambda_j) = A_j^-1 b_j``, ``psi_j = (c_j - b_j' A_j^-1 b_j) / A_j[0, 0]``.

    Not below the floor, which then is the constrained maximum. The isotropic noise of
    probabilistic PCA is the mean of the psi_j, weighted by their rows. (Rubin and Thayer
    1982, Psychometrika 47, 69-76; with the mean estimated jointly.)
    """
    d, q = int(theta[0]), int(theta[1])
    r = (q + 1) * (q + 2) // 2
    shared = s.size == r + d * (q + 2)
    products = r if shared else d * r
    new = np.empty((d, q + 2))
    matrix, factor = np.empty((q + 1, q + 1)), np.zeros((q + 1, q + 1))
    squares, total = 0.0, 0.0
    for j in range(d):
        if j == 0 or not shared:
            if not s[j * r] > 0.0:
                return NO_ROWS
            _unpack(s, j * r, matrix)
            if not cholesky(matrix, factor):
                return INADMISSIBLE
        b = s[products + j * (q + 1) : products + (j + 1) * (q + 1)]
        cholesky_solve(factor, b, new[j, : q + 1])
        left = s[products + d * (q + 1) + j]
        for a in range(q + 1):
            left -= new[j, a] * b[a]
        if not (0.0 < left < np.inf):
            return INADMISSIBLE
        new[j, q + 1] = max(left / matrix[0, 0], theta[HEAD + j])
        squares += left
        total += matrix[0, 0]
    for j in range(d):
        theta[HEAD + d + j] = new[j, 0]
        for a in range(q):
            theta[HEAD + 2 * d + j * q + a] = new[j, 1 + a]
        noise = max(squares / total, theta[HEAD]) if theta[2] != 0.0 else new[j, q + 1]
        theta[HEAD + (2 + q) * d + j] = noise
    derive(theta)
    return 0


@kernel(SURROGATE)
def surrogate(s, theta):
    """``-1/2 sum_j (A_j[0, 0] log psi_j + (c_j - 2 beta_j' b_j + beta_j' A_j beta_j) / psi_j)``."""
    d, q = int(theta[0]), int(theta[1])
    r = (q + 1) * (q + 2) // 2
    shared = s.size == r + d * (q + 2)
    products = r if shared else d * r
    matrix, beta = np.empty((q + 1, q + 1)), np.empty(q + 1)
    value = 0.0
    for j in range(d):
        if j == 0 or not shared:
            _unpack(s, j * r, matrix)
        beta[0] = theta[HEAD + d + j]
        for a in range(q):
            beta[1 + a] = theta[HEAD + 2 * d + j * q + a]
        left = s[products + d * (q + 1) + j]
        for a in range(q + 1):
            fitted = -2.0 * s[products + j * (q + 1) + a]
            for b in range(q + 1):
                fitted += matrix[a, b] * beta[b]
            left += beta[a] * fitted
        noise = theta[HEAD + (2 + q) * d + j]
        value -= 0.5 * (matrix[0, 0] * np.log(noise) + left / noise)
    return value


@kernel(float64(VECTOR, VECTOR, MATRIX, VECTOR, float64, int64, int64, int64))
def _residual(s, beta, factor, scratch, weight, j, products, d):
    """``c_j - b_j' A^-1 b_j`` after b_j and c_j have moved by a weight towards ``A beta``."""
    q1 = beta.size - 1
    c = s[products + d * q1 + j]
    target = beta[q1]  # the noise variance that theta gives the column, times its rows
    solution = scratch[q1:]
    for a in range(q1):
        fitted = 0.0  # entry a of A beta, with A = factor factor'
        for e in range(q1):
            inner = 0.0
            for f in range(min(a, e) + 1):
                inner += factor[a, f] * factor[e, f]
            fitted += inner * beta[e]
        target += beta[a] * fitted
        b = s[products + j * q1 + a]
        scratch[a] = (1.0 - weight) * b + weight * fitted
    square = (1.0 - weight) * c + weight * target
    left = square
    cholesky_solve(factor, scratch[:q1], solution)
    for a in range(q1):
        left -= scratch[a] * solution[a]
    scratch[q1] = square  # for the caller, with the new b before it
    return left


@kernel(PROJECT)
def project(s, theta):
    """Move what is inadmissible towards what theta expects, as little as is needed.

    The second moments of (1, z) towards those of the prior until they are positive
    definite; then the moments of each column, given those, until its residual variance is
    above 0. Steps are powers of 2 from 2^-20 on, the first sufficient one taken twice.
    """
    d, q = int(theta[0]), int(theta[1])
    r = (q + 1) * (q + 2) // 2
    shared = s.size == r + d * (q + 2)
    products = r if shared else d * r
    matrix, trial = np.empty((q + 1, q + 1)), np.empty((q + 1, q + 1))
    factor = np.zeros((q + 1, q + 1))
    beta, scratch = np.empty(q + 2), np.empty(2 * (q + 1))
    for j in range(d):
        if j == 0 or not shared:
            start = j * r
            for i in range(start, start + r):
                if not np.isfinite(s[i]):
                    s[start : start + r] = np.nan
            if not s[start] > 0.0:
                s[start : start + r] = 0.0
                s[start] = 1.0
            _unpack(s, start, matrix)
            step = 0.0
            while True:
                weight = min(1.0, 2.0 * step)
                for a in range(q + 1):
                    for b in range(q + 1):
                        goal = matrix[0, 0] if a == b else 0.0
                        trial[a, b] = (1.0 - weight) * matrix[a, b] + weight * goal
                if cholesky(trial, factor):
                    break
                step = 2.0**-20 if step == 0.0 else 2.0 * step
            i = start
            for a in range(q + 1):
                for b in range(a + 1):
                    s[i] = trial[a, b]
                    i += 1
        beta[0] = theta[HEAD + d + j]
        for a in range(q):
            beta[1 + a] = theta[HEAD + 2 * d + j * q + a]
        beta[q + 1] = trial[0, 0] * theta[HEAD + (2 + q) * d + j]
        at, square = products + j * (q + 1), products + d * (q + 1) + j
        for i in range(at, at + q + 1):
            if not np.isfinite(s[i]):
                s[at : at + q + 1] = 0.0
        if not np.isfinite(s[square]):
            s[square] = 0.0
        step = 0.0
        while not _residual(s, beta, factor, scratch, min(1.0, 2.0 * step), j, products, d) > 0.0:
            step = 2.0**-20 if step == 0.0 else 2.0 * step
        if step > 0.0:
            for a in range(q + 1):
                s[at + a] = scratch[a]
            s[square] = scratch[q + 1]
