"""Compiled functions of factor analysis and probabilistic PCA.

    y_i = mu + Lambda z_i + e_i,    z_i ~ N(0, I_q),    e_i ~ N(0, Psi),  Psi diagonal.

Given z the entries of y are independent, so that a missing entry drops out of the
complete-data likelihood: entry j is regressed on (1, z) over the rows that observe it.
With d columns, q factors, t = q (q + 1) / 2 and r = (q + 1) (q + 2) / 2:

=========  =======================================================================
y          weight; y less the shift (d), not-a-number where missing
theta      d, q, isotropic (`HEAD` numbers); floors (d); mu (d); Lambda (d, q); Psi (d);
           of a complete row: gain G Lambda' Psi^-1 (q, d), W (q, q) and lower triangle
           of G = W W' = (I + Lambda' Psi^-1 Lambda)^-1 (t), log constant
latent     posterior mean of z (q); lower triangle of its covariance (t), 0 for a draw
s          lower triangle of E (1, z)(1, z)' (r), once, or for each column over the rows
           that observe it (d r); y E (1, z)' (d, q + 1); y^2 (d)
=========  =======================================================================

The posterior covariance of z is the same for all complete rows, but `accumulate` does not
know theta, and records of an incremental method come from different ones: so it stands in
every record.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, int64, void

from saem._jit import kernel
from saem._linalg import cholesky, cholesky_solve
from saem._math import HALF_LOG_2PI
from saem._types import (
    ACCUMULATE,
    DRAW,
    EXPECT,
    LOG_LIK,
    MATRIX,
    MAXIMIZE,
    PRIOR,
    PROJECT,
    SURROGATE,
    VECTOR,
)
from saem.random import fill_normal

__all__ = [
    "HEAD",
    "INADMISSIBLE",
    "NO_ROWS",
    "accumulate",
    "derive",
    "draw",
    "expect",
    "log_lik",
    "maximize",
    "prior",
    "project",
    "surrogate",
    "work_size",
]

#: Numbers before the floors in theta.
HEAD = 3
#: Codes of `maximize`.
NO_ROWS = 1
INADMISSIBLE = 2


def work_size(q: int) -> int:
    """Scratch numbers the functions need."""
    return 3 * q * q + 3 * q


@kernel(boolean(MATRIX, MATRIX, MATRIX))
def _root(precision, factor, root):
    """W = C'^-1 with C C' = precision; False if the precision is not positive definite."""
    q = precision.shape[0]
    if not cholesky(precision, factor):
        return False
    for b in range(q):
        for a in range(q):
            root[a, b] = 0.0
        root[b, b] = 1.0 / factor[b, b]
        for a in range(b - 1, -1, -1):  # column b of the inverse of C', an upper triangle
            total = 0.0
            for c in range(a + 1, b + 1):
                total += factor[c, a] * root[c, b]
            root[a, b] = -total / factor[a, a]
    return True


@kernel(void(MATRIX, VECTOR))
def _pack_square(root, out):
    """Lower triangle of W W'."""
    q, i = root.shape[0], 0
    for a in range(q):
        for b in range(a + 1):
            total = 0.0
            for c in range(q):
                total += root[a, c] * root[b, c]
            out[i] = total
            i += 1


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
    if not _root(precision, factor, root):
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
    _pack_square(root, theta[at : at + q * (q + 1) // 2])
    theta[at + q * (q + 1) // 2] = constant
    return np.isfinite(constant)


@kernel(float64(VECTOR, VECTOR, VECTOR, MATRIX, VECTOR))
def _posterior(theta, y, mean, root, work):
    """Posterior of z: its mean, and W with covariance ``W W'``; returns log p(y observed).

    With Sigma the covariance of the observed entries o and m the mean,

        (y - mu)' Sigma^-1 (y - mu) = (y - mu - Lambda m)' Psi^-1 (...) + m'm,
        log det Sigma = log det Psi_oo + log det (I + Lambda_o' Psi_oo^-1 Lambda_o)

    (Woodbury), a sum of squares, where the usual difference cancels.
    """
    d, q = int(theta[0]), int(theta[1])
    centre = theta[HEAD + d : HEAD + 2 * d]
    loadings = theta[HEAD + 2 * d : HEAD + 2 * d + d * q].reshape((d, q))
    noise = theta[HEAD + (2 + q) * d : HEAD + (3 + q) * d]
    at = HEAD + (3 + q) * d
    complete = True
    for j in range(d):
        if np.isnan(y[1 + j]):
            complete = False
    if complete:
        gain = theta[at : at + q * d].reshape((q, d))
        for a in range(q):
            total = 0.0
            for j in range(d):
                total += gain[a, j] * (y[1 + j] - centre[j])
            mean[a] = total
            for b in range(q):
                root[a, b] = theta[at + q * d + a * q + b]
        value = theta[at + q * d + q * q + q * (q + 1) // 2]
    else:
        precision = work[: q * q].reshape((q, q))
        factor = work[q * q : 2 * q * q].reshape((q, q))
        u = work[2 * q * q : 2 * q * q + q]
        value = 0.0
        for a in range(q):
            u[a] = 0.0
            for b in range(q):
                precision[a, b] = 1.0 if a == b else 0.0
        for j in range(d):
            if not np.isnan(y[1 + j]):
                value -= HALF_LOG_2PI + 0.5 * np.log(noise[j])
                for a in range(q):
                    share = loadings[j, a] / noise[j]
                    u[a] += share * (y[1 + j] - centre[j])
                    for b in range(q):
                        precision[a, b] += share * loadings[j, b]
        _root(precision, factor, root)
        cholesky_solve(factor, u, mean)
        for a in range(q):
            value -= np.log(factor[a, a])
    for a in range(q):
        value -= 0.5 * mean[a] * mean[a]
    for j in range(d):
        if not np.isnan(y[1 + j]):
            left = y[1 + j] - centre[j]
            for a in range(q):
                left -= loadings[j, a] * mean[a]
            value -= 0.5 * left * left / noise[j]
    return value


@kernel(EXPECT)
def expect(theta, y, latent, work):
    """Posterior mean and covariance of z; returns weight times log p(y)."""
    q = int(theta[1])
    root = work[2 * q * q + q : 3 * q * q + q].reshape((q, q))
    value = _posterior(theta, y, latent[:q], root, work)
    _pack_square(root, latent[q:])
    return y[0] * value


@kernel(DRAW)
def draw(theta, y, key, latent, work):
    """Exact draw of z from its posterior."""
    q = int(theta[1])
    root = work[2 * q * q + q : 3 * q * q + q].reshape((q, q))
    _posterior(theta, y, latent[:q], root, work)
    normal = work[:q]
    fill_normal(key, 0, normal)
    for a in range(q):
        for b in range(a, q):
            latent[a] += root[a, b] * normal[b]
    latent[q:] = 0.0


@kernel(LOG_LIK)
def log_lik(structural, theta, y, latent, work):
    """Log p(y observed | z), with z the leading entries of latent."""
    d, q = int(theta[0]), int(theta[1])
    value = 0.0
    for j in range(d):
        if not np.isnan(y[1 + j]):
            left = y[1 + j] - theta[HEAD + d + j]
            for a in range(q):
                left -= theta[HEAD + 2 * d + j * q + a] * latent[a]
            noise = theta[HEAD + (2 + q) * d + j]
            value -= HALF_LOG_2PI + 0.5 * np.log(noise) + 0.5 * left * left / noise
    latent[q:] = 0.0
    return value


@kernel(PRIOR)
def prior(theta, y, mean, chol):
    """Prior of z: standard normal."""
    for a in range(mean.size):
        mean[a] = 0.0
        for b in range(mean.size):
            chol[a, b] = 1.0 if a == b else 0.0


@kernel(ACCUMULATE)
def accumulate(weight, y, latent, s):
    """Add the statistic of one row; whether second moments are per column follows from sizes."""
    weight *= y[0]
    d = y.size - 1
    q = int((np.sqrt(9.0 + 8.0 * latent.size) - 3.0) / 2.0 + 0.5)
    r = (q + 1) * (q + 2) // 2
    shared = s.size == r + d * (q + 2)
    products = r if shared else d * r
    for j in range(d):
        value = y[1 + j]
        if np.isnan(value):
            continue
        if j == 0 or not shared:
            i, g = j * r, q
            s[i] += weight
            for a in range(q):
                i += 1
                s[i] += weight * latent[a]
                for b in range(a + 1):
                    i += 1
                    s[i] += weight * (latent[a] * latent[b] + latent[g])
                    g += 1
        at = products + j * (q + 1)
        s[at] += weight * value
        for a in range(q):
            s[at + 1 + a] += weight * value * latent[a]
        s[products + d * (q + 1) + j] += weight * value * value


# M-step: a regression of each column on (1, z).


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
