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
from numba import float64

from saem._jit import helper, kernel
from saem._linalg import cholesky, cholesky_solve
from saem._math import HALF_LOG_2PI
from saem._types import ACCUMULATE, DRAW, EXPECT, LOG_LIK, MATRIX, PRIOR, VECTOR
from saem.random import fill_normal

__all__ = [
    "HEAD",
    "accumulate",
    "draw",
    "expect",
    "log_lik",
    "pack_square",
    "posterior_root",
    "prior",
    "work_size",
]

#: Numbers before the floors in theta.
HEAD = 3


def work_size(q: int) -> int:
    """Scratch numbers the functions need."""
    return 3 * q * q + 3 * q


@helper
def posterior_root(precision, factor, root):
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


@helper
def pack_square(root, out):
    """Lower triangle of W W'."""
    q, i = root.shape[0], 0
    for a in range(q):
        for b in range(a + 1):
            total = 0.0
            for c in range(q):
                total += root[a, c] * root[b, c]
            out[i] = total
            i += 1


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
        posterior_root(precision, factor, root)
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
    pack_square(root, latent[q:])
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
