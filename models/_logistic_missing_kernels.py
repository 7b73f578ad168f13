"""Compiled functions of logistic regression with missing Gaussian covariates.

z ~ N(beta, Omega) in p dimensions, some entries missing; P(y = 1 | z) = expit(delta' (1, z)).
The d latent coordinates of an individual with m <= d missing entries are these entries, then
d - m inert ones with a standard normal prior, which nothing else depends on.

=========  =======================================================================
y          response; m; for each covariate its coordinate, or -1 if it is observed (p);
           covariates, 0 where missing (p)
theta      p, d, whether delta is fixed (`HEAD` numbers); beta (p); Omega (p, p); delta (p + 1);
           Omega^-1 (p, p); half log det Omega
latent     coordinates (d); working response r of the logistic likelihood (see `_binary`)
s          E z (p); lower triangle of E zz'; E r; E z r (p)
=========  =======================================================================
"""

from __future__ import annotations

import numpy as np
from numba import boolean

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel
from saem._linalg import cholesky, cholesky_inverse, cholesky_solve
from saem._math import HALF_LOG_2PI
from saem._types import ACCUMULATE, LOG_LIK, MAXIMIZE, PRIOR, PROJECT, SURROGATE, VECTOR

from ._binary import log_expit, minoriser, working_response
from ._definite import (
    all_finite,
    expected_square,
    get_covariance,
    get_triangle,
    put_covariance,
    towards,
)

__all__ = [
    "HEAD",
    "NOT_FINITE",
    "SINGULAR",
    "accumulate",
    "derive",
    "log_lik",
    "maximize",
    "prior",
    "project",
    "surrogate",
    "work_size",
]

#: Numbers before beta in theta.
HEAD = 3
#: Codes of `maximize`.
NOT_FINITE = 1
SINGULAR = 2


def work_size(p: int) -> int:
    """Scratch numbers the functions need."""
    return 2 * p * p + 2 * p


@helper
def _blocks(theta):
    """Views of beta, Omega, delta and the precision."""
    p = int(theta[0])
    at = HEAD + p + p * p
    return (
        segment(theta, HEAD, p),
        as_matrix(theta[HEAD + p :], p, p),
        segment(theta, at, p + 1),
        as_matrix(theta[at + p + 1 :], p, p),
    )


@helper
def _missing_block(precision, beta, y, block, right):
    """Precision of the missing entries given the observed ones and its product with the mean.

    With P the precision and e the deviation of the observed entries from beta (0 for missing
    ones), the conditional mean is ``beta_m - P_mm^-1 (P e)_m``. Returns ``e'P e``.
    """
    p = beta.size
    square = 0.0
    for i in range(p):
        row = int(y[2 + i])
        if row >= 0:
            right[row] = 0.0
        for j in range(p):
            column = int(y[2 + j])
            if column >= 0:
                if row >= 0:
                    block[row, column] = precision[i, j]
                continue
            term = precision[i, j] * (y[2 + p + j] - beta[j])
            if row >= 0:
                right[row] -= term
            else:
                square += term * (y[2 + p + i] - beta[i])
    return square


@kernel(PRIOR)
def prior(theta, y, mean, chol):
    """Conditional normal of the missing entries given the observed ones; N(0, 1) for the rest."""
    beta, _, _, precision = _blocks(theta)
    p, d, m = beta.size, mean.size, int(y[1])
    for a in range(d):
        mean[a] = 0.0
        for b in range(d):
            chol[a, b] = 1.0 if a == b else 0.0
    if m == 0:
        return
    block, factor, right = np.empty((m, m)), np.empty((m, m)), np.empty(m)
    shift = np.empty(m)
    _missing_block(precision, beta, y, block, right)
    cholesky(block, factor)
    cholesky_solve(factor, right, shift)
    for j in range(p):
        if y[2 + j] >= 0.0:
            mean[int(y[2 + j])] = beta[j] + shift[int(y[2 + j])]
    cholesky_inverse(factor, block)
    cholesky(block, factor)
    for a in range(m):
        for b in range(a + 1):
            chol[a, b] = factor[a, b]


@helper
def _covariate(y, latent, j, p):
    """Covariate j: observed, or the latent coordinate that stands for it."""
    slot = int(y[2 + j])
    return latent[slot] if slot >= 0 else y[2 + p + j]


@kernel(LOG_LIK)
def log_lik(structural, theta, y, latent, work):
    """``log p(observed covariates) + log p(response | z)``; fills in the working response.

    With e and P as in `_missing_block` and w = (P e)_m,
    ``log p(z_o) = -(p - m) log(2 pi) / 2 - (log det Omega + log det P_mm + e'P e
    - w' P_mm^-1 w) / 2``.
    """
    beta, _, delta, precision = _blocks(theta)
    p, m = beta.size, int(y[1])
    block, factor = as_matrix(work, m, m), as_matrix(work[m * m :], m, m)
    right, shift = segment(work, 2 * m * m, m), segment(work, 2 * m * m + m, m)
    square = _missing_block(precision, beta, y, block, right)
    value = -(p - m) * HALF_LOG_2PI - theta[theta.size - 1]
    cholesky(block, factor)
    cholesky_solve(factor, right, shift)
    for a in range(m):
        square -= right[a] * shift[a]
        value -= np.log(factor[a, a])
    t = delta[0]
    for j in range(p):
        t += delta[1 + j] * _covariate(y, latent, j, p)
    latent[latent.size - 1] = working_response(y[0], t)
    return value - 0.5 * square + log_expit(t if y[0] == 1.0 else -t)


@kernel(ACCUMULATE)
def accumulate(weight, y, latent, s):
    """Add ``z, zz', r, z r``."""
    p = (y.size - 2) // 2
    r = weight * latent[latent.size - 1]
    i = p
    at = p + p * (p + 1) // 2
    s[at] += r
    for a in range(p):
        z = _covariate(y, latent, a, p)
        s[a] += weight * z
        s[at + 1 + a] += r * z
        for b in range(a + 1):
            s[i] += weight * z * _covariate(y, latent, b, p)
            i += 1


@kernel(boolean(VECTOR))
def derive(theta):
    """Write the precision and the log determinant; False if Omega is not positive definite."""
    _, omega, _, precision = _blocks(theta)
    factor = np.zeros_like(omega)
    if not cholesky(omega, factor):
        return False
    cholesky_inverse(factor, precision)
    theta[theta.size - 1] = np.log(np.diag(factor)).sum()
    return True


@helper
def _moments(s, p, moments):
    """``E (1, z)(1, z)'``."""
    moments[0, 0] = 1.0
    i = p
    for a in range(p):
        moments[1 + a, 0] = s[a]
        moments[0, 1 + a] = s[a]
        for b in range(a + 1):
            moments[1 + a, 1 + b] = s[i]
            moments[1 + b, 1 + a] = s[i]
            i += 1


@kernel(MAXIMIZE)
def maximize(s, theta):
    """``beta = E z``, ``Omega = E zz' - beta beta'``, ``delta = (E (1,z)(1,z)')^-1 E (1,z) r``."""
    beta, omega, delta, _ = _blocks(theta)
    p = beta.size
    if not all_finite(s):
        return NOT_FINITE
    cov, factor = np.empty((p, p)), np.empty((p, p))
    get_covariance(s, cov)
    moments, root = np.empty((p + 1, p + 1)), np.empty((p + 1, p + 1))
    _moments(s, p, moments)
    if not cholesky(cov, factor) or not cholesky(moments, root):
        return SINGULAR
    for a in range(p):
        beta[a] = s[a]
    omega[:, :] = cov
    derive(theta)
    if theta[2] == 0.0:
        cholesky_solve(root, s[p + p * (p + 1) // 2 :], delta)
    return 0


@kernel(PROJECT)
def project(s, theta):
    """Move the covariance towards that of theta until it is positive definite."""
    p = int(theta[0])
    _, omega, _, _ = _blocks(theta)
    cov, factor = np.empty((p, p)), np.empty((p, p))
    get_covariance(s, cov)
    towards(cov, omega, factor)
    put_covariance(cov, s)


@kernel(SURROGATE)
def surrogate(s, theta):
    """Gaussian log-likelihood of z, and the minoriser of the logistic one where delta is free.

    ``-(log det Omega + tr Omega^-1 E (z - beta)(z - beta)') / 2
    + delta' E (1,z) r / 4 - delta' E (1,z)(1,z)' delta / 8``
    """
    beta, _, delta, precision = _blocks(theta)
    p = beta.size
    moments = np.empty((p + 1, p + 1))
    _moments(s, p, moments)
    second = np.empty((p, p))
    get_triangle(s, p, second)
    value = -theta[theta.size - 1] - 0.5 * expected_square(s, second, beta, precision)
    if theta[2] == 0.0:
        value += minoriser(segment(s, p + p * (p + 1) // 2, p + 1), moments, delta)
    return value
