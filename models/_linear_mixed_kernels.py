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
s          X'Z b (p); y'Z b; tr(Z'Z E bb'); lower triangle of E bb' (t)
=========  =======================================================================
"""

from __future__ import annotations

import numpy as np
from numba import boolean, void

from saem._jit import helper, kernel
from saem._linalg import cholesky
from saem._math import HALF_LOG_2PI
from saem._types import ACCUMULATE, DRAW, EXPECT, LOG_LIK, MATRIX, MAXIMIZE, PRIOR, VECTOR
from saem.random import fill_normal

__all__ = [
    "HEAD",
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
    "record_size",
    "work_size",
]

#: Numbers before beta in theta.
HEAD = 5
#: Codes of `maximize`.
ZERO_RESIDUAL = 1
SINGULAR_PSI = 2


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


@kernel(ACCUMULATE)
def accumulate(weight, y, latent, s):
    """Add the statistic of one individual; q follows from the size of latent."""
    q = int((np.sqrt(9.0 + 8.0 * latent.size) - 3.0) / 2.0 + 0.5)
    p = s.size - 2 - (latent.size - q)
    at_zx = 2 + p + q + p * p
    at_zz = at_zx + q * p
    i = 0
    for a in range(q):
        s[p] += weight * y[2 + p + a] * latent[a]
        for b in range(p):
            s[b] += weight * y[at_zx + a * p + b] * latent[a]
        for b in range(a + 1):
            second = weight * (latent[a] * latent[b] + latent[q + i])
            s[p + 2 + i] += second
            s[p + 1] += (1.0 if a == b else 2.0) * y[at_zz + a * q + b] * second
            i += 1


@kernel(boolean(VECTOR))
def derive(theta):
    """Write the Cholesky factor of Psi; False if Psi is not positive definite."""
    p, q = int(theta[0]), int(theta[1])
    at = HEAD + p + 1
    psi = theta[at : at + q * q].reshape((q, q))
    return cholesky(psi, theta[at + q * q : at + 2 * q * q].reshape((q, q)))


@kernel(MAXIMIZE)
def maximize(s, theta):
    """Joint maximum over beta, sigma^2 and Psi.

        beta = -n s_XZb,   Psi = s_bb,
        sigma^2 = (sum y'y - beta'beta + n (s_tr - 2 s_yZb)) / N

    In the basis of the module, these are the least-squares fit of ``y - Z E b``
    and its mean square, to which the posterior covariance of b adds its trace.
    """
    p, q = int(theta[0]), int(theta[1])
    n, n_obs, yy = theta[2], theta[3], theta[4]
    square = yy + n * (s[p + 1] - 2.0 * s[p])
    for a in range(p):
        theta[HEAD + a] = -n * s[a]
        square -= theta[HEAD + a] * theta[HEAD + a]
    if not square > 0.0:
        return ZERO_RESIDUAL
    theta[HEAD + p] = square / n_obs
    at, i = HEAD + p + 1, p + 2
    for a in range(q):
        for b in range(a + 1):
            theta[at + a * q + b] = s[i]
            theta[at + b * q + a] = s[i]
            i += 1
    return 0 if derive(theta) else SINGULAR_PSI
