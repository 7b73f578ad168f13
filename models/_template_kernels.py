"""Compiled functions of the deformable template model.

Pixel u at place x_u in [-1, 1]^2: ``y(u) = I(x_u - Phi(x_u)) + e``, with the template
``I(x) = sum_l K_p(x, r_l) beta_l`` on t x t landmarks and the deformation
``Phi(x) = sum_j K_g(x, g_j) z_j`` with z_j in the plane. K_p is a product of Gaussian kernels of
the two coordinates, so that a pixel takes 2 t exponentials and not t^2.

With P pixels, k = t^2, m deformation landmarks, d = 2 m:

=========  =======================================================================
y          P; t; c = 1 / (2 width^2); places of the landmarks on an axis (t); pixels (P)
theta      t, d, P, c, n, ridge, prior weight a, prior variance v, whether Gamma is shared
           (`HEAD` numbers); landmarks (t); places (P, 2); K_g (P, m); beta (k); sigma^2;
           Gamma (d, d); its Cholesky factor (d, d)
latent     z (d): first coordinates, then second ones; deformed places (P, 2)
s          S1 = K'y (k); lower triangle of S2 = K'K; lower triangle of S3 = zz'; S4 = y'y,
           where row u of K (P, k) holds K_p of the deformed place of pixel u
=========  =======================================================================
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, void

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel
from saem._linalg import cholesky, cholesky_inverse, cholesky_solve
from saem._math import HALF_LOG_2PI, exp
from saem._types import ACCUMULATE, LOG_LIK, MATRIX, MAXIMIZE, PRIOR, PROJECT, SURROGATE, VECTOR

from ._definite import all_finite, get_triangle, put_triangle, towards

__all__ = [
    "HEAD",
    "NOT_FINITE",
    "SINGULAR_GAMMA",
    "SINGULAR_TEMPLATE",
    "ZERO_RESIDUAL",
    "accumulate",
    "derive",
    "kernel_rows",
    "log_lik",
    "maximize",
    "prior",
    "project",
    "surrogate",
]

#: Numbers before the landmarks in theta, and in y.
HEAD = 9
_Y_HEAD = 3
#: Codes of `maximize`.
NOT_FINITE = 1
SINGULAR_TEMPLATE = 2
ZERO_RESIDUAL = 3
SINGULAR_GAMMA = 4


@helper
def _axes(x, y, c, landmarks, along_x, along_y):
    """Kernels of the two coordinates of a place at all landmarks of an axis."""
    for a in range(landmarks.size):
        dx, dy = x - landmarks[a], y - landmarks[a]
        along_x[a] = exp(-c * dx * dx)
        along_y[a] = exp(-c * dy * dy)


@helper
def _blocks(theta):
    """Views of landmarks, places, K_g, beta, sigma^2 (one number), Gamma, its factor."""
    t, d, pixels = int(theta[0]), int(theta[1]), int(theta[2])
    m, k = d // 2, t * t
    at = HEAD + t
    places = as_matrix(theta[at:], pixels, 2)
    at += 2 * pixels
    basis = as_matrix(theta[at:], pixels, m)
    at += pixels * m
    beta = segment(theta, at, k)
    sigma2 = segment(theta, at + k, 1)
    at += k + 1
    gamma = as_matrix(theta[at:], d, d)
    factor = as_matrix(theta[at + d * d :], d, d)
    return segment(theta, HEAD, t), places, basis, beta, sigma2, gamma, factor


@kernel(void(VECTOR, float64, MATRIX, MATRIX))
def kernel_rows(landmarks, c, places, out):
    """K_p of many places: `out` has shape (n_places, t * t)."""
    t = landmarks.size
    along_x, along_y = np.empty(t), np.empty(t)
    for u in range(places.shape[0]):
        _axes(places[u, 0], places[u, 1], c, landmarks, along_x, along_y)
        for a in range(t):
            for b in range(t):
                out[u, a * t + b] = along_x[a] * along_y[b]


@kernel(PRIOR)
def prior(theta, y, mean, chol):
    """Prior of z: mean 0, covariance Gamma."""
    _, _, _, _, _, _, factor = _blocks(theta)
    for a in range(mean.size):
        mean[a] = 0.0
        for b in range(mean.size):
            chol[a, b] = factor[a, b]


@kernel(LOG_LIK)
def log_lik(structural, theta, y, latent, work):
    """Log-likelihood of the pixels given z; fills in the deformed places."""
    landmarks, places, basis, beta, sigma2, _, _ = _blocks(theta)
    t, pixels, m = landmarks.size, places.shape[0], basis.shape[1]
    along_x, along_y = segment(work, 0, t), segment(work, t, t)
    deformed = as_matrix(latent[2 * m :], pixels, 2)
    square = 0.0
    for u in range(pixels):
        px, py = places[u, 0], places[u, 1]
        for j in range(m):
            px -= basis[u, j] * latent[j]
            py -= basis[u, j] * latent[m + j]
        deformed[u, 0] = px
        deformed[u, 1] = py
        _axes(px, py, theta[3], landmarks, along_x, along_y)
        left = y[_Y_HEAD + t + u]
        for a in range(t):
            row = 0.0
            for b in range(t):
                row += along_y[b] * beta[a * t + b]
            left -= along_x[a] * row
        square += left * left
    return -pixels * (HALF_LOG_2PI + 0.5 * np.log(sigma2[0])) - 0.5 * square / sigma2[0]


@kernel(ACCUMULATE)
def accumulate(weight, y, latent, s):
    """Add ``K'y, K'K, zz', y'y``."""
    pixels, t = int(y[0]), int(y[1])
    k, d = t * t, latent.size - 2 * pixels
    landmarks = segment(y, _Y_HEAD, t)
    along_x, along_y, own_row = np.empty(t), np.empty(t), np.empty(k)
    row = segment(own_row, 0, k)
    for u in range(pixels):
        x = d + 2 * u
        _axes(latent[x], latent[x + 1], y[2], landmarks, along_x, along_y)
        for a in range(t):
            for b in range(t):
                row[a * t + b] = along_x[a] * along_y[b]
        value = y[_Y_HEAD + t + u]
        for a in range(k):
            share = weight * row[a]
            s[a] += share * value
            products = segment(s, k + a * (a + 1) // 2, a + 1)
            for b in range(products.size):
                products[b] += share * row[b]
        s[s.size - 1] += weight * value * value
    own_row[0] = 0.0  # keeps the borrowed row's memory alive until here
    i = k + k * (k + 1) // 2
    for a in range(d):
        for b in range(a + 1):
            s[i] += weight * latent[a] * latent[b]
            i += 1


@kernel(boolean(VECTOR))
def derive(theta):
    """Write the factor of Gamma; False if it is not positive definite."""
    _, _, _, _, _, gamma, factor = _blocks(theta)
    return cholesky(gamma, factor)


@helper
def _template(s, theta, square, factor, beta):
    """``beta = (S2 + ridge / n I)^-1 S1`` and the mean square left over, negative if singular.

    That is ``S4 - 2 beta'S1 + beta'(S2 + ridge / n I) beta``. S2 comes back without the ridge.
    """
    k = beta.size
    shift = theta[5] / theta[4]
    get_triangle(s, k, square)
    for a in range(k):
        square[a, a] += shift
    definite = cholesky(square, factor)
    left = s[s.size - 1]
    if definite:
        cholesky_solve(factor, segment(s, 0, k), beta)
        for a in range(k):
            left -= 2.0 * beta[a] * s[a]
            for b in range(k):
                left += beta[a] * square[a, b] * beta[b]
    for a in range(k):
        square[a, a] -= shift
    return definite, left


@helper
def _gamma(s, theta, gamma):
    """``(n S3 + a v I) / (n + a)``, with the mean of the two directions' blocks if shared."""
    d, k = gamma.shape[0], int(theta[0]) ** 2
    m = d // 2
    get_triangle(s, k + k * (k + 1) // 2, gamma)
    n, extra = theta[4], theta[6]
    for a in range(d):
        for b in range(d):
            gamma[a, b] *= n / (n + extra)
        gamma[a, a] += extra * theta[7] / (n + extra)
    if theta[8] == 1.0:
        for a in range(m):
            for b in range(m):
                mean = 0.5 * (gamma[a, b] + gamma[m + a, m + b])
                gamma[a, b] = mean
                gamma[m + a, m + b] = mean
                gamma[a, m + b] = 0.0
                gamma[m + a, b] = 0.0


@kernel(MAXIMIZE)
def maximize(s, theta):
    """Template by ridge regression, residual variance, covariance of the deformations."""
    _, _, _, beta, sigma2, gamma, _ = _blocks(theta)
    k, d = beta.size, gamma.shape[0]
    if not all_finite(s):
        return NOT_FINITE
    square, factor, new = np.empty((k, k)), np.empty((k, k)), np.empty(k)
    definite, left = _template(s, theta, square, factor, new)
    if not definite:
        return SINGULAR_TEMPLATE
    if not left > 0.0:
        return ZERO_RESIDUAL
    cov, root = np.empty((d, d)), np.empty((d, d))
    _gamma(s, theta, cov)
    if not cholesky(cov, root):
        return SINGULAR_GAMMA
    for a in range(k):
        beta[a] = new[a]
    sigma2[0] = left / theta[2]
    gamma[:, :] = cov
    derive(theta)
    return 0


@kernel(PROJECT)
def project(s, theta):
    """Make S2 and S3 positive definite, and S4 so large that sigma^2 keeps 1 % of its value.

    S2 is moved towards its diagonal, S3 towards Gamma.
    """
    _, _, _, beta, sigma2, gamma, _ = _blocks(theta)
    k, d = beta.size, gamma.shape[0]
    square, factor, new = np.empty((k, k)), np.empty((k, k)), np.empty(k)
    get_triangle(s, k, square)
    reference = np.zeros((k, k))
    for a in range(k):
        reference[a, a] = max(abs(square[a, a]), 1e-6)
    if theta[5] == 0.0 or not _template(s, theta, square, factor, new)[0]:
        towards(square, reference, factor)
        put_triangle(square, s, k)
    at = k + k * (k + 1) // 2
    cov, root = np.empty((d, d)), np.empty((d, d))
    get_triangle(s, at, cov)
    _gamma(s, theta, root)
    if not cholesky(root, np.empty((d, d))):
        towards(cov, gamma, root)
        put_triangle(cov, s, at)
    _, left = _template(s, theta, square, factor, new)
    least = 0.01 * theta[2] * sigma2[0]
    if left < least:
        s[s.size - 1] += least - left


@kernel(SURROGATE)
def surrogate(s, theta):
    """Penalised complete-data log-likelihood.

    ``-(P log sigma^2 + (S4 - 2 beta'S1 + beta'(S2 + ridge / n I) beta) / sigma^2) / 2
    - ((1 + a / n) log det Gamma + tr Gamma^-1 (S3 + a v / n I)) / 2``
    """
    _, _, _, beta, sigma2, gamma, factor = _blocks(theta)
    k, d = beta.size, gamma.shape[0]
    square = np.empty((k, k))
    get_triangle(s, k, square)
    left = s[s.size - 1]
    for a in range(k):
        left += beta[a] * (theta[5] / theta[4] * beta[a] - 2.0 * s[a])
        for b in range(k):
            left += beta[a] * square[a, b] * beta[b]
    value = -0.5 * (theta[2] * np.log(sigma2[0]) + left / sigma2[0])
    second, inverse = np.empty((d, d)), np.empty((d, d))
    get_triangle(s, k + k * (k + 1) // 2, second)
    cholesky_inverse(factor, inverse)
    extra = theta[6] / theta[4]
    for a in range(d):
        value -= (1.0 + extra) * np.log(factor[a, a])
        value -= 0.5 * inverse[a, a] * extra * theta[7]
        for b in range(d):
            value -= 0.5 * inverse[a, b] * second[a, b]
    return value
