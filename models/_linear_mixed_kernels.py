"""Compiled functions of the linear mixed model.

    y_i = X_i beta + Z_i b_i + e_i,    b_i ~ N(0, Psi),    e_i ~ N(0, sigma^2 I).

The data enter through cross products alone, in a basis of the fixed effects in
which ``sum X'X = I`` and ``sum X'y = 0`` (y is what least squares leaves over), so
that neither badly scaled covariates nor a large mean cost accuracy and the M-step
of beta needs no solve. With p fixed and q random effects, t = q (q + 1) / 2:

=========  =======================================================================
y          n_i; y'y; X'y (p); Z'y (q); X'X (p, p); Z'X (q, p); Z'Z (q, q)
theta      p, q, n, N, sum y'y (`HEAD` numbers); beta (p); sigma^2; Psi (q, q);
           L (q, q) with Psi = L L'
latent     posterior mean of b (q); lower triangle of its posterior covariance (t),
           which is 0 for a draw
s          1; n_i; y'y; X'y (p); lower triangle of X'X; X'Z b (p); y'Z b; tr(Z'Z E bb');
           lower triangle of E bb' (t)
=========  =======================================================================

What does not depend on b stands in s all the same, so that the statistic of a batch
is consistent in itself: totals beside a batch's Z'b would leave differences of large
numbers in sigma^2.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, void

from saem._jit import helper, kernel
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

from ._definite import get_triangle

__all__ = [
    "HEAD",
    "NO_WEIGHT",
    "SINGULAR_DESIGN",
    "SINGULAR_PSI",
    "ZERO_RESIDUAL",
    "accumulate",
    "cross_products",
    "derive",
    "draw",
    "expect",
    "log_lik",
    "maximize",
    "prior",
    "project",
    "record_size",
    "surrogate",
    "work_size",
]

#: Numbers before beta in theta.
HEAD = 5
#: Variances of projected statistics are at least this fraction of the present ones.
FLOOR = 1e-6
#: Codes of `maximize`.
ZERO_RESIDUAL = 1
SINGULAR_PSI = 2
SINGULAR_DESIGN = 3
NO_WEIGHT = 4


def record_size(p: int, q: int) -> int:
    """Numbers in the data record of an individual."""
    return 2 + p + q + p * p + q * p + q * q


def work_size(q: int) -> int:
    """Scratch numbers the functions need."""
    return 3 * q * q + 3 * q


@kernel(void(VECTOR, MATRIX, MATRIX, VECTOR))
def cross_products(y, x, z, record):
    """Write the data record of one individual: x is (n_i, p), z is (n_i, q)."""
    n, p = x.shape
    q = z.shape[1]
    record[0] = n
    record[1:] = 0.0
    at_y, at_xx = 2, 2 + p + q
    at_zx = at_xx + p * p
    at_zz = at_zx + q * p
    for i in range(n):
        record[1] += y[i] * y[i]
        for a in range(p):
            record[at_y + a] += x[i, a] * y[i]
            for b in range(p):
                record[at_xx + a * p + b] += x[i, a] * x[i, b]
        for a in range(q):
            record[at_y + p + a] += z[i, a] * y[i]
            for b in range(p):
                record[at_zx + a * p + b] += z[i, a] * x[i, b]
            for b in range(q):
                record[at_zz + a * q + b] += z[i, a] * z[i, b]


@helper
def _residual(theta, y, zr):
    """Write ``Z'r`` for ``r = y - X beta``; return ``r'r``."""
    p, q = int(theta[0]), int(theta[1])
    at_xx = 2 + p + q
    at_zx = at_xx + p * p
    rr = y[1]
    for a in range(p):
        fitted = 0.0
        for b in range(p):
            fitted += y[at_xx + a * p + b] * theta[HEAD + b]
        rr += theta[HEAD + a] * (fitted - 2.0 * y[2 + a])
    for a in range(q):
        zr[a] = y[2 + p + a]
        for b in range(p):
            zr[a] -= y[at_zx + a * p + b] * theta[HEAD + b]
    return rr


@helper
def _posterior(theta, y, mean, root, work):
    """Posterior of b: its mean, and W with covariance ``W W'``; returns log p(y).

    With b = L v and v ~ N(0, I), the precision of v is ``M = I + L'Z'Z L / sigma^2``
    = C C', so that a singular Psi does no harm. Then ``W = L C'^-1``,

        log p(y) = -1/2 (n log 2 pi sigma^2 + log det M + (r'r - |u|^2 / sigma^2) / sigma^2),

    where ``u = C^-1 L'Z'r``, and the mean of b is ``W u / sigma^2``.
    """
    p, q = int(theta[0]), int(theta[1])
    sigma2 = theta[HEAD + p]
    at = HEAD + p + 1 + q * q
    factor = theta[at : at + q * q].reshape((q, q))
    zz = y[y.size - q * q :].reshape((q, q))
    zl = work[: q * q].reshape((q, q))
    precision = work[q * q : 2 * q * q].reshape((q, q))
    zr = work[2 * q * q : 2 * q * q + q]
    u = work[2 * q * q + q : 2 * q * q + 2 * q]
    rr = _residual(theta, y, zr)
    for a in range(q):
        for b in range(q):
            zl[a, b] = 0.0
            for c in range(b, q):
                zl[a, b] += zz[a, c] * factor[c, b]
    for a in range(q):
        for b in range(q):
            total = 0.0
            for c in range(a, q):
                total += factor[c, a] * zl[c, b]
            precision[a, b] = total / sigma2 + (1.0 if a == b else 0.0)
    c_factor = zl
    cholesky(precision, c_factor)
    log_det, explained = 0.0, 0.0
    for a in range(q):
        u[a] = 0.0
        for c in range(a, q):
            u[a] += factor[c, a] * zr[c]
        for b in range(a):
            u[a] -= c_factor[a, b] * u[b]
        u[a] /= c_factor[a, a]
        explained += u[a] * u[a]
        log_det += np.log(c_factor[a, a])
    for a in range(q):
        mean[a] = 0.0
        for b in range(q):
            root[a, b] = factor[a, b]
            for c in range(b):
                root[a, b] -= root[a, c] * c_factor[b, c]
            root[a, b] /= c_factor[b, b]
            mean[a] += root[a, b] * u[b] / sigma2
    distance = (rr - explained / sigma2) / sigma2
    return -y[0] * (HALF_LOG_2PI + 0.5 * np.log(sigma2)) - log_det - 0.5 * distance


@kernel(EXPECT)
def expect(theta, y, latent, work):
    """Posterior mean and covariance of b; returns log p(y)."""
    q = int(theta[1])
    root = work[2 * q * q + 2 * q : 3 * q * q + 2 * q].reshape((q, q))
    value = _posterior(theta, y, latent, root, work)
    i = q
    for a in range(q):
        for b in range(a + 1):
            latent[i] = 0.0
            for c in range(q):
                latent[i] += root[a, c] * root[b, c]
            i += 1
    return value


@kernel(DRAW)
def draw(theta, y, key, latent, work):
    """Exact draw of b from its posterior."""
    q = int(theta[1])
    root = work[2 * q * q + 2 * q : 3 * q * q + 2 * q].reshape((q, q))
    _posterior(theta, y, latent, root, work)
    normal = work[:q]
    fill_normal(key, 0, normal)
    for a in range(q):
        for b in range(q):
            latent[a] += root[a, b] * normal[b]
    latent[q:] = 0.0


@kernel(LOG_LIK)
def log_lik(structural, theta, y, latent, work):
    """Log p(y | b), with b the leading entries of latent."""
    p, q = int(theta[0]), int(theta[1])
    sigma2 = theta[HEAD + p]
    zr = work[:q]
    square = _residual(theta, y, zr)
    at_zz = y.size - q * q
    for a in range(q):
        fitted = 0.0
        for b in range(q):
            fitted += y[at_zz + a * q + b] * latent[b]
        square += latent[a] * (fitted - 2.0 * zr[a])
    latent[q:] = 0.0
    return -y[0] * (HALF_LOG_2PI + 0.5 * np.log(sigma2)) - 0.5 * square / sigma2


@kernel(PRIOR)
def prior(theta, y, mean, chol):
    """Prior of b: mean 0, covariance Psi."""
    p, q = int(theta[0]), int(theta[1])
    at = HEAD + p + 1 + q * q
    mean[:] = 0.0
    for a in range(q):
        for b in range(q):
            chol[a, b] = theta[at + a * q + b]


@helper
def _n_fixed(y, q):
    """Return p, from the sizes of a record and of b."""
    rest = y.size - 2 - q - q * q
    return int(0.5 * (np.sqrt((1.0 + q) ** 2 + 4.0 * rest) - 1.0 - q) + 0.5)


@kernel(ACCUMULATE)
def accumulate(weight, y, latent, s):
    """Add the statistic of one individual; q follows from the size of latent."""
    q = int((np.sqrt(9.0 + 8.0 * latent.size) - 3.0) / 2.0 + 0.5)
    p = _n_fixed(y, q)
    at_xx, at_zx = 2 + p + q, 2 + p + q + p * p
    at_zz = at_zx + q * p
    s[0] += weight
    s[1] += weight * y[0]
    s[2] += weight * y[1]
    i = 3 + p
    for a in range(p):
        s[3 + a] += weight * y[2 + a]
        for b in range(a + 1):
            s[i] += weight * y[at_xx + a * p + b]
            i += 1
    at = i
    i = at + p + 2
    for a in range(q):
        s[at + p] += weight * y[2 + p + a] * latent[a]
        for b in range(p):
            s[at + b] += weight * y[at_zx + a * p + b] * latent[a]
        for b in range(a + 1):
            second = weight * (latent[a] * latent[b] + latent[q + i - at - p - 2])
            s[i] += second
            s[at + p + 1] += (1.0 if a == b else 2.0) * y[at_zz + a * q + b] * second
            i += 1


@kernel(boolean(VECTOR))
def derive(theta):
    """Write the Cholesky factor of Psi; False if Psi is not positive definite."""
    p, q = int(theta[0]), int(theta[1])
    at = HEAD + p + 1
    psi = theta[at : at + q * q].reshape((q, q))
    return cholesky(psi, theta[at + q * q : at + 2 * q * q].reshape((q, q)))


@helper
def _square(s, p, beta):
    """Sum of squares of ``y - X beta - Z b`` per individual, posterior variance included."""
    at_xx = 3 + p
    at = at_xx + p * (p + 1) // 2
    square = s[2] + s[at + p + 1] - 2.0 * s[at + p]
    i = at_xx
    for a in range(p):
        square -= 2.0 * beta[a] * (s[3 + a] - s[at + a])
        for b in range(a + 1):
            square += (1.0 if a == b else 2.0) * beta[a] * beta[b] * s[i]
            i += 1
    return square


@helper
def _fixed_effects(s, p, beta):
    """Least squares of y - Z b on X; False if X'X is singular."""
    at = 3 + p + p * (p + 1) // 2
    gram, root, right = np.empty((p, p)), np.empty((p, p)), np.empty(p)
    get_triangle(s, 3 + p, gram)
    if not cholesky(gram, root):
        return False
    for a in range(p):
        right[a] = s[3 + a] - s[at + a]
    cholesky_solve(root, right, beta)
    return True


@kernel(SURROGATE)
def surrogate(s, theta):
    """Complete-data log-likelihood per individual, as a function of (beta, sigma^2, Psi).

        -1/2 (s_n log sigma^2 + square / sigma^2 + s_1 log det Psi + tr(Psi^-1 s_bb))

    Laird and Ware (1982), section 4, up to a constant.
    """
    p, q = int(theta[0]), int(theta[1])
    sigma2 = theta[HEAD + p]
    square = _square(s, p, theta[HEAD : HEAD + p])
    value = -0.5 * (s[1] * np.log(sigma2) + square / sigma2)
    at = HEAD + p + 1 + q * q
    factor = theta[at : at + q * q].reshape((q, q))
    second = np.empty((q, q))
    get_triangle(s, s.size - q * (q + 1) // 2, second)
    inverse = np.linalg.inv(factor)
    for a in range(q):
        value -= s[0] * np.log(factor[a, a])
        for b in range(q):
            for c in range(q):
                value -= 0.5 * inverse[a, b] * second[b, c] * inverse[a, c]
    return value


@kernel(PROJECT)
def project(s, theta):
    """Raise the eigenvalues of s_bb, and the trace, to a small fraction of those of theta.

    The entries that are data alone become those of theta's design where X'X is not
    positive definite.
    """
    p, q = int(theta[0]), int(theta[1])
    at = HEAD + p + 1
    if not (s[0] > 0.0 and s[1] > 0.0):
        s[0], s[1] = 1.0, theta[3] / theta[2]
    beta = np.empty(p)
    if not _fixed_effects(s, p, beta):
        i = 3 + p
        for a in range(p):
            s[3 + a] = 0.0
            beta[a] = 0.0
            for b in range(a + 1):
                s[i] = 1.0 / theta[2] if a == b else 0.0
                i += 1
        s[2] = theta[4] / theta[2]
        _fixed_effects(s, p, beta)
    size = 0.0
    for a in range(q):
        size += theta[at + a * q + a] / q
    second, t = np.empty((q, q)), q * (q + 1) // 2
    get_triangle(s, s.size - t, second)
    values, vectors = np.linalg.eigh(second)
    for a in range(q):
        values[a] = max(values[a], FLOOR * size * s[0])
    i = s.size - t
    for a in range(q):
        for b in range(a + 1):
            s[i] = 0.0
            for c in range(q):
                s[i] += vectors[a, c] * values[c] * vectors[b, c]
            i += 1
    lacking = FLOOR * theta[HEAD + p] * s[1] - _square(s, p, beta)
    if lacking > 0.0:
        s[s.size - t - 1] += 2.0 * lacking


@kernel(MAXIMIZE)
def maximize(s, theta):
    """Joint maximum over beta, sigma^2 and Psi.

        beta = s_XX^-1 (s_Xy - s_XZb),   Psi = s_bb / s_1,   sigma^2 = square / s_n

    These are the least-squares fit of ``y - Z E b`` and its mean square, to which the
    posterior covariance of b adds its trace.
    """
    p, q = int(theta[0]), int(theta[1])
    if not (s[0] > 0.0 and s[1] > 0.0):
        return NO_WEIGHT
    beta = np.empty(p)
    if not _fixed_effects(s, p, beta):
        return SINGULAR_DESIGN
    square = _square(s, p, beta)
    if not 0.0 < square < np.inf:
        return ZERO_RESIDUAL
    psi, factor = np.empty((q, q)), np.empty((q, q))
    get_triangle(s, s.size - q * (q + 1) // 2, psi)
    psi /= s[0]
    if not cholesky(psi, factor):
        return SINGULAR_PSI
    theta[HEAD : HEAD + p] = beta
    theta[HEAD + p] = square / s[1]
    at = HEAD + p + 1
    theta[at : at + q * q] = psi.ravel()
    theta[at + q * q : at + 2 * q * q] = factor.ravel()
    return 0
