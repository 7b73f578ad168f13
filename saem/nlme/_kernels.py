"""Compiled functions of the nonlinear mixed-effects model.

Individual i has phi_i = B' x_i + eta_i, eta_i ~ N(0, Omega) on the Gaussian
scale, psi_i = u^-1(phi_i) componentwise, and observations
``y_ij = f(columns_ij; psi_i) + g(f) eps_ij``.

`log_density` is the one function that computes the density of observations:
sampler, quadrature, importance sampling, M-step and likelihoods all use it.

Layout of theta: blocks of `theta_blocks`, the dimensions first.
Layout of a data record: x_i, a constant, responses (n_i), columns (n_columns * n_i).
A latent draw holds the d random coordinates of phi and the residual statistic.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, void

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel, routine
from saem._linalg import cholesky, cholesky_inverse, cholesky_solve
from saem._math import exp, expit, log, norm_cdf
from saem._types import ACCUMULATE, LOG_LIK, MATRIX, MAXIMIZE, PRIOR, PROJECT, VECTOR
from saem.statistics import Packed

__all__ = ["accumulate", "log_lik", "maximize", "natural", "prior", "project", "theta_blocks"]

NORMAL, LOG_NORMAL, LOGIT_NORMAL, PROBIT_NORMAL = 0, 1, 2, 3
CONSTANT, PROPORTIONAL, COMBINED_SUM, COMBINED_VARIANCE, EXPONENTIAL = 0, 1, 2, 3, 4

#: Status of an entry of B, Omega or the residual parameters.
ABSENT, FREE, FIXED = 0.0, 1.0, 2.0

#: Variances are kept above this on the Gaussian scale; an estimate there is a boundary.
VARIANCE_FLOOR = 1e-8
#: Residual scales are kept above this.
SIGMA_FLOOR = 1e-8
#: Predictions enter a proportional error by at least this size.
PREDICTION_FLOOR = 1e-10

_HEADER = 8


def theta_blocks(n_params: int, d: int, p_x: int) -> Packed:
    """Blocks of theta for n_params parameters, d of them random, p_x design columns."""
    return Packed(
        dims=(_HEADER,),
        transform=(n_params,),
        lower=(n_params,),
        upper=(n_params,),
        position=(n_params,),  # of a parameter among the random ones, or -1
        parameter=(d,),  # of a random coordinate among the parameters
        beta=(p_x, n_params),
        beta_status=(p_x, n_params),
        omega=(d, d),
        omega_status=(d, d),
        chol=(d, d),
        sigma=(2,),
        sigma_status=(2,),
        xtx=(p_x, p_x),
    )


@helper
def blocks(theta):
    """Views of the blocks of theta, in the order of `theta_blocks` after the dimensions."""
    p = int(theta[0])
    d = int(theta[1])
    p_x = int(theta[2])
    at = _HEADER
    transform = theta[at : at + p]
    lower = theta[at + p : at + 2 * p]
    upper = theta[at + 2 * p : at + 3 * p]
    position = theta[at + 3 * p : at + 4 * p]
    at += 4 * p
    parameter = theta[at : at + d]
    at += d
    beta = as_matrix(theta[at:], p_x, p)
    at += p_x * p
    beta_status = as_matrix(theta[at:], p_x, p)
    at += p_x * p
    omega = as_matrix(theta[at:], d, d)
    at += d * d
    omega_status = as_matrix(theta[at:], d, d)
    at += d * d
    chol = as_matrix(theta[at:], d, d)
    at += d * d
    sigma = theta[at : at + 2]
    sigma_status = theta[at + 2 : at + 4]
    at += 4
    xtx = as_matrix(theta[at:], p_x, p_x)
    return (
        transform, lower, upper, position, parameter, beta, beta_status,
        omega, omega_status, chol, sigma, sigma_status, xtx,
    )  # fmt: skip


@helper
def to_natural(code, lower, upper, phi):
    """Inverse transform u^-1: from the Gaussian to the natural scale."""
    if code == LOG_NORMAL:
        return exp(phi)
    if code == LOGIT_NORMAL:
        return lower + (upper - lower) * expit(phi)
    if code == PROBIT_NORMAL:
        return lower + (upper - lower) * norm_cdf(phi)
    return phi


@helper
def residual_sd(code, a, b, f):
    """Residual standard deviation g(f) of every error model."""
    if code == PROPORTIONAL:
        return b * max(abs(f), PREDICTION_FLOOR)
    if code == COMBINED_SUM:
        return a + b * abs(f)
    if code == COMBINED_VARIANCE:
        return np.sqrt(a * a + b * b * f * f)
    return a


@kernel(void(int64, float64, float64, VECTOR, VECTOR))
def residual_sds(code, a, b, f, out):
    """Residual standard deviations of all rows."""
    for j in range(f.size):
        out[j] = residual_sd(code, a, b, f[j])


@helper
def fitted(code, f):
    """Prediction on the scale on which residuals are normal (log for exponential error)."""
    if code == EXPONENTIAL:
        return np.log(f) if f > 0.0 else np.nan
    return f


@helper(fastmath={"reassoc", "contract"})
def proportional_sums(b, dv, f):
    """Sum of the logarithms of the standard deviations ``b |f_j|``, and ``sum_j r_j**2``.

    One logarithm for every sixteen factors. Where their product leaves the range of
    floating point (predictions around 1e19) the logarithms are taken one by one.
    """
    n = f.size
    total = 0.0
    square = 0.0
    start = 0
    while start < n:
        length = min(n - start, 16)
        part, response = segment(f, start, length), segment(dv, start, length)
        product = 1.0
        for j in range(length):
            size = max(abs(part[j]), PREDICTION_FLOOR)
            r = (response[j] - part[j]) / size
            square += r * r
            product *= b * size
        if 1e-300 < product < 1e300:
            total += log(product)
        else:
            for j in range(length):
                total += np.log(b * max(abs(part[j]), PREDICTION_FLOOR))
        start += length
    return total, square


@helper(fastmath={"reassoc", "contract"})
def log_density(code, a, b, dv, predicted):
    """Log density of the responses given predictions, and the residual statistic.

    Without the constant ``-n log(2 pi) / 2`` and the Jacobian of transformed
    responses, which stand in the data record. Sums may be reordered.
    """
    n = dv.size
    square = 0.0
    total = 0.0
    if code == CONSTANT:
        for j in range(n):
            r = dv[j] - predicted[j]
            square += r * r
        total = -n * log(a) - 0.5 * square / (a * a)
    elif code == PROPORTIONAL:
        logs, square = proportional_sums(b, dv, predicted)
        total = -logs - 0.5 * square / (b * b)
    elif code == EXPONENTIAL:
        for j in range(n):
            r = dv[j] - fitted(code, predicted[j])
            square += r * r
        total = -n * log(a) - 0.5 * square / (a * a)
    else:
        for j in range(n):
            g = residual_sd(code, a, b, predicted[j])
            r = (dv[j] - predicted[j]) / g
            total -= log(g) + 0.5 * r * r
    return total, square


@helper
def natural(theta, y, z, psi):
    """Natural-scale parameters of an individual from its random coordinates."""
    p = int(theta[0])
    d = int(theta[1])
    p_x = int(theta[2])
    transform = segment(theta, _HEADER, p)
    lower = segment(theta, _HEADER + p, p)
    upper = segment(theta, _HEADER + 2 * p, p)
    position = segment(theta, _HEADER + 3 * p, p)
    beta = segment(theta, _HEADER + 4 * p + d, p_x * p)
    for m in range(p):
        place = position[m]
        if place >= 0.0:
            phi = segment(z, int(place), 1)[0]
        else:
            phi = 0.0
            for j in range(p_x):
                phi += y[j] * segment(beta, j * p + m, 1)[0]
        psi[m] = to_natural(transform[m], lower[m], upper[m], phi)


@helper
def columns_of(y, p_x, n_columns):
    """Data columns of the structural model in a record."""
    n = (y.size - p_x - 1) // (1 + n_columns)
    return as_matrix(segment(y, p_x + 1 + n, n_columns * n), n_columns, n)


@kernel(LOG_LIK)
def log_lik(structural, theta, y, latent, work):
    """Log density of an individual's responses given its draw; fills the residual statistic."""
    p = int(theta[0])
    d = int(theta[1])
    p_x = int(theta[2])
    code = int(theta[3])
    n_columns = int(theta[4])
    sigma_at = int(theta[5])
    n = (y.size - p_x - 1) // (1 + n_columns)
    dv = segment(y, p_x + 1, n)
    columns = as_matrix(segment(y, p_x + 1 + n, n_columns * n), n_columns, n)
    psi = segment(work, 0, p)
    predicted = segment(work, p, n)
    natural(theta, y, latent, psi)
    structural(psi, columns, predicted)
    a, b = theta[sigma_at], theta[sigma_at + 1]
    value, latent[d] = log_density(code, a, b, dv, predicted)
    return y[p_x] + value


@kernel(PRIOR)
def prior(theta, y, mean, chol):
    """Mean B' x_i of the random coordinates and the Cholesky factor of Omega."""
    # Addressed by hand: this runs once per visit, and needs three of the blocks.
    p, d, p_x = int(theta[0]), mean.size, int(theta[2])
    parameter_at = _HEADER + 4 * p
    beta_at = parameter_at + d
    chol_at = beta_at + 2 * p_x * p + 2 * d * d
    for a in range(d):
        m = int(theta[parameter_at + a])
        total = 0.0
        for j in range(p_x):
            total += y[j] * theta[beta_at + j * p + m]
        mean[a] = total
        for b in range(d):
            chol[a, b] = theta[chol_at + a * d + b]


@kernel(ACCUMULATE)
def accumulate(weight, y, latent, s):
    """Add ``x (x) phi``, ``phi phi'`` and the residual statistic.

    The sizes follow from those of `latent` (d + 1) and s (p_x d + d d + 1).
    """
    d = latent.size - 1
    p_x = (s.size - 1 - d * d) // d if d > 0 else 0
    for j in range(p_x):
        for a in range(d):
            s[j * d + a] += weight * y[j] * latent[a]
    at = p_x * d
    for a in range(d):
        for b in range(d):
            s[at + a * d + b] += weight * latent[a] * latent[b]
    s[at + d * d] += weight * latent[d]


@routine
def _generalised_least_squares(s1, omega_inverse, beta, beta_status, parameter, xtx):
    """Coefficients of random parameters given Omega (all free entries of B at once)."""
    p_x, d = s1.shape
    size = p_x * d
    system = np.zeros((size, size))
    right = np.zeros(size)
    for j in range(p_x):
        for a in range(d):
            row = j * d + a
            if beta_status[j, int(parameter[a])] != FREE:
                system[row, row] = 1.0
                right[row] = beta[j, int(parameter[a])]
                continue
            for b in range(d):
                right[row] += omega_inverse[a, b] * s1[j, b]
                for i in range(p_x):
                    value = omega_inverse[a, b] * xtx[j, i]
                    if beta_status[i, int(parameter[b])] == FREE:
                        system[row, i * d + b] += value
                    else:
                        right[row] -= value * beta[i, int(parameter[b])]
    # Fixed entries stand in the system as unit rows and columns: it stays positive definite.
    factor = np.zeros((size, size))
    solution = np.zeros(size)
    if not cholesky(system, factor):
        return False
    cholesky_solve(factor, right, solution)
    for j in range(p_x):
        for a in range(d):
            beta[j, int(parameter[a])] = solution[j * d + a]
    return True


@routine
def _update_omega(s1, s2, mu, xtx, omega, omega_status):
    """Second moment of phi - B' x in the pattern of Omega, above the floor."""
    p_x, d = s1.shape
    for a in range(d):
        for b in range(d):
            if omega_status[a, b] == FREE:
                value = 0.5 * (s2[a, b] + s2[b, a])
                for j in range(p_x):
                    value -= mu[j, a] * s1[j, b] + s1[j, a] * mu[j, b]
                    for i in range(p_x):
                        value += mu[j, a] * xtx[j, i] * mu[i, b]
                omega[a, b] = max(value, VARIANCE_FLOOR) if a == b else value
            elif omega_status[a, b] == ABSENT:
                omega[a, b] = 0.0


@kernel(void(MATRIX, MATRIX))
def factorise(omega, chol):
    """Cholesky factor of Omega; shrinks correlations where it is not positive definite."""
    d = omega.shape[0]
    for _ in range(60):
        if cholesky(omega, chol):
            return
        for a in range(d):
            for b in range(d):
                if a != b:
                    omega[a, b] *= 0.9
    for a in range(d):
        for b in range(d):
            chol[a, b] = np.sqrt(max(omega[a, a], VARIANCE_FLOOR)) if a == b else 0.0


@kernel(MAXIMIZE)
def maximize(s, theta):
    """T(s): GLS for the coefficients, then Omega, then the residual scale.

    One sweep over (coefficients, Omega) raises the complete-data likelihood
    (a generalised EM step) and has the joint maximum as its fixed point.
    """
    (_, _, _, _, parameter, beta, beta_status, omega, omega_status, chol,
     sigma, sigma_status, xtx) = blocks(theta)  # fmt: skip
    d = omega.shape[0]
    p_x = xtx.shape[0]
    for m in range(s.size):
        if not np.isfinite(s[m]):
            return 1
    if d > 0:
        s1 = as_matrix(s, p_x, d)
        s2 = as_matrix(s[p_x * d :], d, d)
        inverse = np.zeros((d, d))
        cholesky_inverse(chol, inverse)
        if not _generalised_least_squares(s1, inverse, beta, beta_status, parameter, xtx):
            return 3
        mu = np.zeros((p_x, d))
        for j in range(p_x):
            for a in range(d):
                mu[j, a] = beta[j, int(parameter[a])]
        _update_omega(s1, s2, mu, xtx, omega, omega_status)
        factorise(omega, chol)
    code = int(theta[3])
    square = s[s.size - 1]
    if square < 0.0:
        return 2
    scale = max(np.sqrt(square / theta[6]), SIGMA_FLOOR)
    if (code == CONSTANT or code == EXPONENTIAL) and sigma_status[0] == FREE:
        sigma[0] = scale
    elif code == PROPORTIONAL and sigma_status[1] == FREE:
        sigma[1] = scale
    return 0


@kernel(PROJECT)
def project(s, theta):
    """Make the residual statistic non-negative; Omega has its own floor."""
    s[s.size - 1] = max(s[s.size - 1], 0.0)
