"""Compiled functions of mixed-effects logistic regression.

P(y_ij = 1 | b_i) = expit(x_ij'alpha + z_ij'b_i), b_i ~ N(beta, Omega): x holds the terms
without a random effect (p of them), z those with one (q).

=========  =======================================================================
y          n_i; p; q; X'X (p, p); responses (n_i); X (n_i, p); Z (n_i, q)
theta      p, q, whether Omega is diagonal (`HEAD` numbers); alpha (p); beta (q);
           Omega (q, q); L (q, q) with Omega = L L'
latent     b (q); ``g = X'r - X'Zb`` (p), r the working responses (see `_binary`)
s          E b (q); lower triangle of E bb'; E g (p); mean X'X (p, p)
=========  =======================================================================

The minoriser of the logistic log-likelihood as a function of alpha is
``(alpha'g - alpha'X'X alpha / 2) / 4``, for ``x'r - x'(x'alpha + z'b)`` is its slope.
"""

from __future__ import annotations

import numpy as np
from numba import boolean

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel
from saem._linalg import cholesky, cholesky_inverse, cholesky_solve
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
    "FLAT",
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
]

#: Numbers before alpha in theta, and before X'X in y.
HEAD = 3
#: Codes of `maximize`.
NOT_FINITE = 1
SINGULAR = 2
FLAT = 3


@helper
def _blocks(theta):
    """Views of alpha, beta, Omega and its factor."""
    p, q = int(theta[0]), int(theta[1])
    at = HEAD + p + q
    return (
        segment(theta, HEAD, p),
        segment(theta, HEAD + p, q),
        as_matrix(theta[at:], q, q),
        as_matrix(theta[at + q * q :], q, q),
    )


@kernel(PRIOR)
def prior(theta, y, mean, chol):
    """Prior of b: mean beta, covariance Omega."""
    _, beta, _, factor = _blocks(theta)
    for a in range(mean.size):
        mean[a] = beta[a]
        for b in range(mean.size):
            chol[a, b] = factor[a, b]


@kernel(LOG_LIK)
def log_lik(structural, theta, y, latent, work):
    """Log-likelihood of the responses given b; fills in g."""
    n, p, q = int(y[0]), int(y[1]), int(y[2])
    at = HEAD + p * p
    value = 0.0
    latent[q:] = 0.0
    for j in range(n):
        x = at + n + j * p
        z = at + n * (1 + p) + j * q
        effect = 0.0
        for a in range(q):
            effect += y[z + a] * latent[a]
        t = effect
        for a in range(p):
            t += y[x + a] * theta[HEAD + a]
        left = working_response(y[at + j], t) - effect
        for a in range(p):
            latent[q + a] += y[x + a] * left
        value += log_expit(t if y[at + j] == 1.0 else -t)
    return value


@kernel(ACCUMULATE)
def accumulate(weight, y, latent, s):
    """Add ``b, bb', g, X'X``."""
    p, q = int(y[1]), int(y[2])
    i = q
    for a in range(q):
        s[a] += weight * latent[a]
        for b in range(a + 1):
            s[i] += weight * latent[a] * latent[b]
            i += 1
    for a in range(p):
        s[i + a] += weight * latent[q + a]
    for m in range(p * p):
        s[i + p + m] += weight * y[HEAD + m]


@kernel(boolean(VECTOR))
def derive(theta):
    """Write the factor of Omega; False if it is not positive definite."""
    _, _, omega, factor = _blocks(theta)
    return cholesky(omega, factor)


@kernel(MAXIMIZE)
def maximize(s, theta):
    """``beta = E b``, ``Omega = E bb' - beta beta'``, ``alpha = (mean X'X)^-1 E g``."""
    alpha, beta, omega, _ = _blocks(theta)
    p, q = alpha.size, beta.size
    if not all_finite(s):
        return NOT_FINITE
    cov, factor = np.empty((q, q)), np.empty((q, q))
    get_covariance(s, cov)
    if theta[2] == 1.0:  # Omega is diagonal
        for a in range(q):
            for b in range(q):
                if a != b:
                    cov[a, b] = 0.0
    if not cholesky(cov, factor):
        return SINGULAR
    at = q + q * (q + 1) // 2
    root = np.empty((p, p))
    if not cholesky(as_matrix(s[at + p :], p, p), root):
        return FLAT
    cholesky_solve(root, segment(s, at, p), alpha)
    for a in range(q):
        beta[a] = s[a]
    omega[:, :] = cov
    derive(theta)
    return 0


@kernel(PROJECT)
def project(s, theta):
    """Move the covariance towards Omega, and X'X towards its diagonal, until they are definite."""
    _, _, omega, _ = _blocks(theta)
    p, q = int(theta[0]), int(theta[1])
    cov, factor = np.empty((q, q)), np.empty((q, q))
    get_covariance(s, cov)
    towards(cov, omega, factor)
    put_covariance(cov, s)
    square, root = as_matrix(s[s.size - p * p :], p, p), np.empty((p, p))
    reference = np.zeros((p, p))
    for a in range(p):
        reference[a, a] = max(abs(square[a, a]), 1e-6)
    towards(square, reference, root)


@kernel(SURROGATE)
def surrogate(s, theta):
    """Gaussian log-likelihood of b and the minoriser of that of alpha.

    ``-(log det Omega + tr Omega^-1 E (b - beta)(b - beta)') / 2
    + (alpha'g - alpha'X'X alpha / 2) / 4``
    """
    alpha, beta, _, factor = _blocks(theta)
    p, q = alpha.size, beta.size
    second, inverse = np.empty((q, q)), np.empty((q, q))
    get_triangle(s, q, second)
    cholesky_inverse(factor, inverse)
    value = -0.5 * expected_square(s, second, beta, inverse)
    for a in range(q):
        value -= np.log(factor[a, a])
    at = q + q * (q + 1) // 2
    return value + minoriser(segment(s, at, p), as_matrix(s[at + p :], p, p), alpha)
