"""Compiled functions of the nonlinear mixed-effects model.

Individual i has phi_i = B' x_i + eta_i, eta_i ~ N(0, Omega) on the Gaussian
scale, psi_i = u^-1(phi_i) componentwise, and observations
``y_ij = f(columns_ij; psi_i) + g(f) eps_ij``.

or, with a user's log-likelihood, independent rows of log density ``f(columns_ij; psi_i)``.

`log_density` is the one function that computes the density of observations:
sampler, quadrature, importance sampling, M-step and likelihoods all use it, once for every
endpoint.

Theta and data records are laid out by `saem.nlme._layout`.
A latent draw holds the d random coordinates of phi, and for every endpoint the residual statistic,
then for every endpoint the number of responses.
Whatever the M-step divides by or subtracts stands in the statistic, so that it may be that
of any part of the individuals.
"""

from __future__ import annotations

import numpy as np
from numba import float64, void

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel, routine
from saem._linalg import cholesky, cholesky_inverse, cholesky_solve
from saem._math import HALF_LOG_2PI, exp, expit, norm_cdf
from saem._types import (
    ACCUMULATE,
    LOG_LIK,
    MATRIX,
    MAXIMIZE,
    PRIOR,
    PROJECT,
    SURROGATE,
    VECTOR,
)
from saem.nlme._layout import (
    HEADER,
    blocks,
    code_of,
    endpoint_count,
    endpoints_of,
    place_of,
    prior_blocks,
    row_count,
    rows_of,
    scale_slot,
    theta_blocks,
)
from saem.nlme._residual import (
    COMBINED_SUM,
    COMBINED_VARIANCE,
    CONSTANT,
    EXPONENTIAL,
    LOG_LIKELIHOOD,
    POWER,
    PREDICTION_FLOOR,
    PROPORTIONAL,
    fitted,
    log_density,
    proportional_sums,
    residual_sds,
)

__all__ = [
    "COMBINED_SUM",
    "COMBINED_VARIANCE",
    "CONSTANT",
    "EXPONENTIAL",
    "LOG_LIKELIHOOD",
    "POWER",
    "PREDICTION_FLOOR",
    "PROPORTIONAL",
    "accumulate",
    "fitted",
    "log_lik",
    "log_lik_of_endpoints",
    "maximize",
    "mean_log_prior",
    "natural",
    "natural_slope",
    "prior",
    "project",
    "proportional_sums",
    "residual_sds",
    "surrogate",
    "theta_blocks",
]

NORMAL, LOG_NORMAL, LOGIT_NORMAL, PROBIT_NORMAL = 0, 1, 2, 3

#: Status of an entry of B, Omega or the residual parameters.
ABSENT, FREE, FIXED = 0.0, 1.0, 2.0

#: Variances are kept above this on the Gaussian scale; an estimate there is a boundary.
VARIANCE_FLOOR = 1e-8
#: Residual scales are kept above this.
SIGMA_FLOOR = 1e-8
#: Sweeps of the M-step over coefficients and Omega where one is not exact, and when to stop.
SWEEPS, _STILL = 50, 1e-12


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
def natural_slope(code, lower, upper, phi, psi):
    """Derivative of the natural-scale parameter psi by phi."""
    if code == LOG_NORMAL:
        return psi
    if code == LOGIT_NORMAL:
        return (psi - lower) * (upper - psi) / (upper - lower)
    if code == PROBIT_NORMAL:
        return (upper - lower) * exp(-0.5 * phi * phi - HALF_LOG_2PI)
    return 1.0


@helper
def natural(theta, y, z, psi):
    """Natural-scale parameters of an individual from its random coordinates."""
    p = int(theta[0])
    d = int(theta[1])
    p_x = int(theta[2])
    transform = segment(theta, HEADER, p)
    lower = segment(theta, HEADER + p, p)
    upper = segment(theta, HEADER + 2 * p, p)
    position = segment(theta, HEADER + 3 * p, p)
    beta = segment(theta, HEADER + 4 * p + d, p_x * p)
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
    n = row_count(y, p_x, n_columns)
    return as_matrix(segment(y, p_x + 1 + n, n_columns * n), n_columns, n)


@helper
def _predict(structural, theta, y, latent, work, n):
    """Responses and predictions of an individual given its draw."""
    p = int(theta[0])
    p_x = int(theta[2])
    n_columns = int(theta[4])
    dv = segment(y, p_x + 1, n)
    columns = as_matrix(segment(y, p_x + 1 + n, n_columns * n), n_columns, n)
    psi = segment(work, 0, p)
    predicted = segment(work, p, n)
    natural(theta, y, latent, psi)
    structural(psi, columns, predicted)
    return dv, predicted


@kernel(LOG_LIK)
def log_lik(structural, theta, y, latent, work):
    """Log density of an individual's responses given its draw; fills the rest of the draw.

    For one endpoint: the hottest function of the library, which looks nothing up and has no loop.
    """
    d = int(theta[1])
    p_x = int(theta[2])
    code = int(theta[3])
    sigma_at = int(theta[5])
    n = (y.size - p_x - 3) // (1 + int(theta[4]))
    dv, predicted = _predict(structural, theta, y, latent, work, n)
    a, b, c = theta[sigma_at], theta[sigma_at + 1], theta[sigma_at + 2]
    value, latent[d] = log_density(code, a, b, c, dv, predicted)
    latent[d + 1] = n
    return y[p_x] + value


@kernel(LOG_LIK, deferred=True)
def log_lik_of_endpoints(structural, theta, y, latent, work):
    """As `log_lik`, for several endpoints: the sum of their log densities."""
    d = int(theta[1])
    p_x = int(theta[2])
    sigma_at = int(theta[5])
    n_endpoints = endpoints_of(y)
    n = row_count(y, p_x, int(theta[4]))
    dv, predicted = _predict(structural, theta, y, latent, work, n)
    total = y[p_x]
    start = 0
    for e in range(n_endpoints):
        rows = rows_of(y, e)
        a = theta[sigma_at + place_of(theta, e, 0)]
        b = theta[sigma_at + place_of(theta, e, 1)]
        c = theta[sigma_at + place_of(theta, e, 2)]
        value, latent[d + e] = log_density(
            code_of(theta, e), a, b, c, segment(dv, start, rows), segment(predicted, start, rows)
        )
        latent[d + n_endpoints + e] = rows
        total += value
        start += rows
    return total


@kernel(PRIOR)
def prior(theta, y, mean, chol):
    """Mean B' x_i of the random coordinates and the Cholesky factor of Omega."""
    # Addressed by hand: this runs once per visit, and needs three of the blocks.
    p, d, p_x = int(theta[0]), mean.size, int(theta[2])
    parameter_at = HEADER + 4 * p
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


@helper
def _design_size(d, size, n_endpoints):
    """Design columns p_x for which the statistic has this size (see `accumulate`)."""
    return int(0.5 * (np.sqrt(d * d + 4.0 * (size - d * d - 2 * n_endpoints)) - d) + 0.5)


@kernel(ACCUMULATE)
def accumulate(weight, y, latent, s):
    """Add ``x phi'``, ``phi phi'``, ``x x'``, and of every endpoint responses and statistic.

    With m endpoints the sizes follow from those of `latent` (d + 2 m) and s
    (p_x d + d d + p_x p_x + 2 m): m numbers of responses, m residual statistics at the end. The
    third is the sum of weights too: x begins with 1.
    """
    n_endpoints = endpoints_of(y)
    d = latent.size - 2 * n_endpoints
    p_x = _design_size(d, s.size, n_endpoints)
    for j in range(p_x):
        for a in range(d):
            s[j * d + a] += weight * y[j] * latent[a]
    at = p_x * d
    for a in range(d):
        for b in range(d):
            s[at + a * d + b] += weight * latent[a] * latent[b]
    at += d * d
    for j in range(p_x):
        for i in range(p_x):
            s[at + j * p_x + i] += weight * y[j] * y[i]
    at = s.size - 2 * n_endpoints
    for e in range(n_endpoints):
        s[at + e] += weight * latent[d + n_endpoints + e]
        s[at + n_endpoints + e] += weight * latent[d + e]


@helper
def _parts(s, d, p_x):
    """Views of the blocks of a statistic: s1, s2, xx."""
    at = p_x * d
    return (
        as_matrix(s, p_x, d),
        as_matrix(s[at:], d, d),
        as_matrix(s[at + d * d :], p_x, p_x),
    )


@helper
def _residual_parts(s, n_endpoints):
    """Views of numbers of responses and of residual statistics, by endpoint."""
    at = s.size - 2 * n_endpoints
    return s[at : at + n_endpoints], s[at + n_endpoints :]


@routine
def _generalised_least_squares(
    s1, omega_inverse, beta, beta_status, parameter, xx, prior_mean, prior_weight
):
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
            weight = prior_weight[j, int(parameter[a])]
            system[row, row] += weight
            right[row] += weight * prior_mean[j, int(parameter[a])]
            for b in range(d):
                right[row] += omega_inverse[a, b] * s1[j, b]
                for i in range(p_x):
                    value = omega_inverse[a, b] * xx[j, i]
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


@helper
def _second_moment(a, b, s1, s2, xx, beta, parameter):
    """Entry of the sum of ``(phi - B' x)(phi - B' x)'``."""
    m, k = int(parameter[a]), int(parameter[b])
    value = 0.5 * (s2[a, b] + s2[b, a])
    for j in range(xx.shape[0]):
        value -= beta[j, m] * s1[j, b] + s1[j, a] * beta[j, k]
        for i in range(xx.shape[0]):
            value += beta[j, m] * xx[j, i] * beta[i, k]
    return value


@routine
def _update_omega(s1, s2, xx, beta, parameter, omega, omega_status, scale, count, k, occasions):
    """Second moment of phi - B' x in the pattern of Omega, above the floor; its largest move.

    The last ``k * occasions`` coordinates are the deviations of k parameters on every occasion:
    they share one covariance, the mean over occasions.
    """
    d = s1.shape[1]
    first = d - k * occasions
    moved = 0.0
    for a in range(d):
        for b in range(d):
            before = omega[a, b]
            if omega_status[a, b] == FREE:
                value, total = 0.0, 0.0
                shift, copies = (k, occasions) if a >= first else (0, 1)
                start = (a - first) // k * k if a >= first else 0
                for o in range(copies):
                    i, j = a - start + o * shift, b - start + o * shift
                    value += _second_moment(i, j, s1, s2, xx, beta, parameter) + scale[i, j]
                    total += xx[0, 0] + count[i]
                value /= total
                omega[a, b] = max(value, VARIANCE_FLOOR) if a == b else value
            elif omega_status[a, b] == ABSENT:
                omega[a, b] = 0.0
            moved = max(moved, abs(omega[a, b] - before) / (omega[a, a] + omega[b, b]))
    return moved


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

    A sweep over (coefficients, Omega) raises the complete-data likelihood. One is the joint
    maximum if the coefficients do not depend on Omega (Omega diagonal, or one design for all
    parameters); else they are repeated, as many times as theta says.
    """
    (_, _, _, _, parameter, beta, beta_status, omega, omega_status, chol,
     sigma, sigma_status) = blocks(theta)  # fmt: skip
    d, p_x = omega.shape[0], beta.shape[0]
    for m in range(s.size):
        if not np.isfinite(s[m]):
            return 1
    mean, weight, omega_scale, omega_count, sigma_scale, sigma_count = prior_blocks(theta)
    s1, s2, xx = _parts(s, d, p_x)
    n_endpoints = endpoint_count(theta)
    n_obs, square = _residual_parts(s, n_endpoints)
    total = 0.0
    for e in range(n_endpoints):
        if square[e] < 0.0:
            return 2
        if n_obs[e] < 0.0:
            return 4
        total += n_obs[e]
    if not (xx[0, 0] > 0.0 and total > 0.0):
        return 4
    if d > 0:
        inverse = np.zeros((d, d))
        for _ in range(int(theta[6])):
            cholesky_inverse(chol, inverse)
            if not _generalised_least_squares(
                s1, inverse, beta, beta_status, parameter, xx, mean, weight
            ):
                return 3
            moved = _update_omega(
                s1, s2, xx, beta, parameter, omega, omega_status, omega_scale, omega_count,
                int(theta[7]), int(theta[8]),
            )  # fmt: skip
            factorise(omega, chol)
            if not moved > _STILL:
                break
    for place in range(3 * n_endpoints):
        if sigma_status[place] != FREE:
            continue
        # Endpoints that share a scale pool their sums. A batch may hold no response of any.
        top, bottom, used = sigma_scale[place], sigma_count[place], 0.0
        for e in range(n_endpoints):
            c = scale_slot(code_of(theta, e))
            if c >= 0 and place_of(theta, e, c) == place:
                top += square[e]
                used += n_obs[e]
        if used > 0.0:
            sigma[place] = max(np.sqrt(top / (used + bottom)), SIGMA_FLOOR)
    return 0


@kernel(float64(VECTOR))
def mean_log_prior(theta):
    """Log prior of the parameters over the number of individuals, up to a constant."""
    (_, _, _, _, _, beta, _, omega, _, chol, sigma, sigma_status) = blocks(theta)
    mean, weight, omega_scale, omega_count, sigma_scale, sigma_count = prior_blocks(theta)
    value, d = 0.0, omega.shape[0]
    for j in range(beta.shape[0]):
        for m in range(beta.shape[1]):
            value -= 0.5 * weight[j, m] * (beta[j, m] - mean[j, m]) ** 2
    inverse = np.zeros((d, d))
    if d > 0:
        cholesky_inverse(chol, inverse)
    for a in range(d):
        value -= omega_count[a] * np.log(chol[a, a])
        for b in range(d):
            value -= 0.5 * omega_scale[a, b] * inverse[a, b]
    for c in range(sigma.size):
        if sigma_status[c] == FREE and sigma_count[c] > 0.0:
            value -= sigma_count[c] * np.log(sigma[c])
            value -= 0.5 * sigma_scale[c] / (sigma[c] * sigma[c])
    return value


@kernel(SURROGATE)
def surrogate(s, theta):
    """Complete-data log-likelihood per individual, for error models with a closed form.

    ``-(w log |Omega| + tr Omega^-1 R + sum_e (2 n_e log a_e + r2_e / a_e^2)) / 2`` with w the sum
    of weights, R the second moment of ``phi - B' x``, n the numbers of responses and r2 the
    residual statistics of the endpoints (neither of the last two with a user's log-likelihood);
    and the log prior.
    """
    (_, _, _, _, parameter, beta, _, omega, _, chol, sigma, _) = blocks(theta)
    d, p_x = omega.shape[0], beta.shape[0]
    s1, s2, xx = _parts(s, d, p_x)
    n_endpoints = endpoint_count(theta)
    n_obs, square = _residual_parts(s, n_endpoints)
    value = 0.0
    for e in range(n_endpoints):
        c = scale_slot(code_of(theta, e))
        if c >= 0:
            scale = sigma[place_of(theta, e, c)]
            value -= n_obs[e] * np.log(scale) + 0.5 * square[e] / (scale * scale)
    inverse = np.zeros((d, d))
    if d > 0:
        cholesky_inverse(chol, inverse)
    for a in range(d):
        value -= xx[0, 0] * np.log(chol[a, a])
        for b in range(d):
            moment = _second_moment(a, b, s1, s2, xx, beta, parameter)
            value -= 0.5 * inverse[a, b] * moment
    return value + mean_log_prior(theta)


@kernel(PROJECT)
def project(s, theta):
    """Make sums of squares and counts those of some data; Omega has its own floor.

    Residual statistics are kept from being negative, the number of responses above one for
    every individual, and the moments of the design definite. Individuals may lack one of several
    endpoints: its number is kept from being negative, and its statistic is 0 where it is.
    """
    d, p_x, n_endpoints = int(theta[1]), int(theta[2]), endpoint_count(theta)
    xx = _parts(s, d, p_x)[2]
    xx[0, 0] = max(xx[0, 0], 1e-8)
    n_obs, square = _residual_parts(s, n_endpoints)
    for e in range(n_endpoints):
        square[e] = max(square[e], 0.0)
        if n_endpoints == 1:
            n_obs[e] = max(n_obs[e], xx[0, 0])
        elif n_obs[e] <= 0.0:
            n_obs[e] = square[e] = 0.0
    factor = np.zeros((p_x, p_x))
    ridge = 1e-8
    while not cholesky(xx, factor) and ridge < 1e12:
        for j in range(p_x):
            xx[j, j] += ridge * max(1.0, abs(xx[j, j]))
        ridge *= 10.0
