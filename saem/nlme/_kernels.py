"""Compiled functions of the nonlinear mixed-effects model.

Individual i has phi_i = B' x_i + eta_i, eta_i ~ N(0, Omega) on the Gaussian
scale, psi_i = u^-1(phi_i) componentwise, and observations
``y_ij = f(columns_ij; psi_i) + g(f) eps_ij``.

or, with a user's log-likelihood, independent rows of log density ``f(columns_ij; psi_i)``.

`log_density` is the one function that computes the density of observations:
sampler, quadrature, importance sampling, M-step and likelihoods all use it, once for every
endpoint.

Theta and data records are laid out by `saem.nlme._layout`; the M-step stands in
`saem.nlme._maximize`.
A latent draw holds the d random coordinates of phi, and for every endpoint the residual statistic,
then for every endpoint the number of responses.
Whatever the M-step divides by or subtracts stands in the statistic, so that it may be that
of any part of the individuals.
"""

from __future__ import annotations

import numpy as np

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel
from saem._math import HALF_LOG_2PI, exp, expit, norm_cdf
from saem._types import ACCUMULATE, LOG_LIK, PRIOR
from saem.nlme._layout import (
    ABSENT,
    FIXED,
    FREE,
    HEADER,
    code_of,
    endpoints_of,
    place_of,
    row_count,
    rows_of,
    theta_blocks,
)
from saem.nlme._maximize import (
    SIGMA_FLOOR,
    SWEEPS,
    VARIANCE_FLOOR,
    factorise,
    maximize,
    mean_log_prior,
    project,
    surrogate,
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
    "ABSENT",
    "COMBINED_SUM",
    "COMBINED_VARIANCE",
    "CONSTANT",
    "EXPONENTIAL",
    "FIXED",
    "FREE",
    "LOG_LIKELIHOOD",
    "POWER",
    "PREDICTION_FLOOR",
    "PROPORTIONAL",
    "SIGMA_FLOOR",
    "SWEEPS",
    "VARIANCE_FLOOR",
    "accumulate",
    "factorise",
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
