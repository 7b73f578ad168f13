"""Compiled M-step of the nonlinear mixed-effects model, and what it maximises.

Whatever it divides by or subtracts stands in the statistic (`saem.nlme._kernels.accumulate`), so
that this may be that of any part of the individuals.
"""

from __future__ import annotations

import numpy as np
from numba import float64, void

from saem._borrow import as_matrix
from saem._jit import helper, kernel, routine
from saem._linalg import cholesky, cholesky_inverse, cholesky_solve
from saem._types import MATRIX, MAXIMIZE, PROJECT, SURROGATE, VECTOR
from saem.nlme._layout import (
    ABSENT,
    FREE,
    blocks,
    code_of,
    endpoint_count,
    place_of,
    prior_blocks,
    scale_slot,
)

__all__ = [
    "SIGMA_FLOOR",
    "SWEEPS",
    "VARIANCE_FLOOR",
    "factorise",
    "maximize",
    "mean_log_prior",
    "project",
    "surrogate",
]

#: Variances are kept above this on the Gaussian scale; an estimate there is a boundary.
VARIANCE_FLOOR = 1e-8
#: Residual scales are kept above this.
SIGMA_FLOOR = 1e-8
#: Sweeps of the M-step over coefficients and Omega where one is not exact, and when to stop.
SWEEPS, _STILL = 50, 1e-12


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
