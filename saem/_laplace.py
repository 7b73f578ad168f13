"""Mode and curvature of one individual's posterior, for any model with a Gaussian prior.

Newton's method on the whitened scale ``z = mean + chol u``, where the prior is
standard normal, so that ``log p(y, z) = log p(y | z(u)) - |u|**2 / 2 + const``.
Derivatives are central differences in units of the posterior's own standard
deviations, which keeps their error near 1e-7 whatever the scale of the model. Close to
the mode the mixed derivatives of the step before are used again: they are most of the cost.

Where the log density turns out to be quadratic (a linear Gaussian model), mode and covariance
are taken from differences over whole standard deviations, which are exact but for rounding.
"""

from __future__ import annotations

import numpy as np
from numba import float64

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel, routine
from saem._linalg import assign, cholesky, cholesky_solve
from saem._math import HALF_LOG_2PI, log
from saem._types import FUNCTIONS, MATRIX, VECTOR

__all__ = ["COARSE", "FINE", "laplace", "laplace_work", "log_joint", "whiten"]

#: Tolerances of `laplace`: twice the log density that may still be missing at the mode.
FINE, COARSE = 1e-10, 0.1

_MAX_NEWTON = 60
_STEP = 1e-3
#: Mixed derivatives are kept for the next step after steps shorter than the first (posterior
#: standard deviations), and for the answer after steps shorter than the second.
_KEPT_FOR_STEP, _KEPT_FOR_ANSWER = 0.1, 2e-3
#: Differences between short and long steps of a quadratic function, relative to its value.
_QUADRATIC = 1e-10


def laplace_work(n_coords: int) -> int:
    """Scratch numbers `laplace` needs, besides the model's own."""
    return 2 * n_coords * n_coords + 5 * n_coords


@helper
def whiten(z, mean, chol, u):
    """Solve ``chol u = z - mean``; returns the squared length of u."""
    d = mean.size
    total = 0.0
    for a in range(d):
        x = z[a] - mean[a]
        for b in range(a):
            x -= chol[a, b] * u[b]
        x = x / chol[a, a]
        u[a] = x
        total += x * x
    return total


@helper
def color(u, mean, chol, z):
    """Set ``z = mean + chol u``."""
    d = mean.size
    for a in range(d):
        x = mean[a]
        for b in range(a + 1):
            x += chol[a, b] * u[b]
        z[a] = x


@helper
def log_det(chol):
    """Logarithm of the determinant of a Cholesky factor."""
    total = 0.0
    for a in range(chol.shape[0]):
        total += log(chol[a, a])
    return total


@routine
def log_joint(log_lik, structural, theta, y, u, mean, chol, z, work):
    """Log density of data and whitened draw, without the constants of the prior in u.

    Takes the two functions rather than all of them, which would be copied at every call.
    """
    color(u, mean, chol, z)
    value = log_lik(structural, theta, y, z, work)
    for a in range(u.size):
        value -= 0.5 * u[a] * u[a]
    return value if np.isfinite(value) else -np.inf


@routine
def _slopes(kernels, theta, y, u, value, step, mean, chol, z, work, grad, hess, pairs, shifted):
    """Gradient and diagonal of the negative Hessian of `log_joint` at u; 2 d evaluations.

    `pairs` receives the sums of the two values, of which `_mixed` makes use.
    """
    finite = True
    assign(shifted, u)
    for a in range(u.size):
        shifted[a] = u[a] + step[a]
        up = log_joint(kernels.log_lik, kernels.structural, theta, y, shifted, mean, chol, z, work)
        shifted[a] = u[a] - step[a]
        down = log_joint(
            kernels.log_lik, kernels.structural, theta, y, shifted, mean, chol, z, work
        )
        shifted[a] = u[a]
        pairs[a] = up + down
        grad[a] = (up - down) / (2.0 * step[a])
        hess[a, a] = -(up - 2.0 * value + down) / (step[a] * step[a])
        finite = finite and np.isfinite(grad[a]) and np.isfinite(hess[a, a])
    return finite


@routine
def _mixed(kernels, theta, y, u, value, step, mean, chol, z, work, hess, pairs, shifted):
    """Mixed second derivatives, negative, after `_slopes`; d (d - 1) evaluations.

    ``f_ab = (f(+a, +b) + f(-a, -b) - f(+a) - f(-a) - f(+b) - f(-b) + 2 f) / (2 h_a h_b)``.
    """
    finite = True
    assign(shifted, u)
    for a in range(u.size):
        for b in range(a):
            total = 2.0 * value - pairs[a] - pairs[b]
            for side in range(2):
                sign = 1.0 - 2.0 * side
                shifted[a] = u[a] + sign * step[a]
                shifted[b] = u[b] + sign * step[b]
                total += log_joint(
                    kernels.log_lik, kernels.structural, theta, y, shifted, mean, chol, z, work
                )
            shifted[a], shifted[b] = u[a], u[b]
            hess[a, b] = hess[b, a] = -total / (2.0 * step[a] * step[b])
            finite = finite and np.isfinite(hess[a, b])
    return finite


@routine
def _damped_factor(hess, factor, trial):
    """Cholesky factor of the negative Hessian, with a ridge where it is not positive definite."""
    d = hess.shape[0]
    scale = 1.0
    for a in range(d):
        scale = max(scale, abs(hess[a, a]))
    ridge = 0.0
    for _ in range(30):
        for a in range(d):
            for b in range(d):
                trial[a, b] = hess[a, b]
            trial[a, a] += ridge
        if cholesky(trial, factor):
            return ridge == 0.0
        ridge = max(4.0 * ridge, 1e-3 * scale)
    for a in range(d):
        for b in range(d):
            factor[a, b] = 1.0 if a == b else 0.0
    return False


@helper
def _newton(hess, grad, factor, trial, move):
    """Damped Newton step; whether the Hessian was definite, and twice the gain it promises."""
    definite = _damped_factor(hess, factor, trial)
    cholesky_solve(factor, grad, move)
    slope = 0.0
    for a in range(grad.size):
        slope += grad[a] * move[a]
    return definite, slope


@routine
def _invert_factor(factor, trial, definite):
    """Replace the factor of a precision by a lower factor of the covariance.

    Where the Hessian was not definite the prior's spread (the identity) stands in.
    """
    d = factor.shape[0]
    if not definite:
        for a in range(d):
            for b in range(d):
                factor[a, b] = 1.0 if a == b else 0.0
        return
    # covariance = factor**-T factor**-1
    for a in range(d):
        for b in range(d):
            trial[a, b] = 0.0
        trial[a, a] = 1.0 / factor[a, a]
        for b in range(a):
            value = 0.0
            for c in range(b, a):
                value -= factor[a, c] * trial[c, b]
            trial[a, b] = value / factor[a, a]
    for a in range(d):
        for b in range(a + 1):
            value = 0.0
            for c in range(a, d):
                value += trial[c, a] * trial[c, b]
            factor[a, b] = value
    for a in range(d):
        for b in range(a):
            factor[b, a] = factor[a, b]
    for a in range(d):
        for b in range(d):
            trial[a, b] = factor[a, b]
    if not cholesky(trial, factor):
        for a in range(d):
            for b in range(d):
                factor[a, b] = 1.0 if a == b else 0.0


@routine
def _exactly(
    log_lik, structural, theta, y, u, value, spread, mean, chol, z, work, grad, hess, factor,
    pairs, shifted,
):  # fmt: skip
    """Mode and covariance of a quadratic log density, up to rounding; others are left alone.

    Differences over one and two posterior standard deviations must agree; for any other density
    the first four evaluations tell that they do not. Returns the value at the mode.
    """
    d = u.size
    allowed = _QUADRATIC * (1.0 + abs(value))
    for a in range(d):
        for length in range(1, 3):
            for b in range(d):
                shifted[b] = u[b] + length * spread[b, a]
            up = log_joint(log_lik, structural, theta, y, shifted, mean, chol, z, work)
            for b in range(d):
                shifted[b] = u[b] - length * spread[b, a]
            down = log_joint(log_lik, structural, theta, y, shifted, mean, chol, z, work)
            slope = (up - down) / (2.0 * length)
            curvature = -(up - 2.0 * value + down) / (length * length)
            if length == 1:
                pairs[a], grad[a], hess[a, a] = up + down, slope, curvature
            elif not (abs(slope - grad[a]) < allowed and abs(curvature - hess[a, a]) < allowed):
                return value
    for a in range(d):
        for b in range(a):
            same = opposite = 0.0
            for side in range(4):
                first = 1.0 - 2.0 * (side % 2)
                second = 1.0 - 2.0 * (side // 2)
                for c in range(d):
                    shifted[c] = u[c] + first * spread[c, a] + second * spread[c, b]
                term = log_joint(log_lik, structural, theta, y, shifted, mean, chol, z, work)
                if first == second:
                    same += term
                else:
                    opposite += term
            if not abs(same + opposite + 4.0 * value - 2.0 * (pairs[a] + pairs[b])) < 8.0 * allowed:
                return value
            hess[a, b] = hess[b, a] = -0.25 * (same - opposite)
    if not cholesky(hess, factor):
        return value
    cholesky_solve(factor, grad, pairs)
    assign(shifted, u)
    for a in range(d):
        for b in range(d):
            shifted[a] += spread[a, b] * pairs[b]
    better = log_joint(log_lik, structural, theta, y, shifted, mean, chol, z, work)
    if not better >= value - allowed:
        return value
    assign(u, shifted)
    _invert_factor(factor, hess, True)
    for a in range(d):
        for b in range(a + 1):
            total = 0.0
            for c in range(b, a + 1):
                total += spread[a, c] * factor[c, b]
            hess[a, b] = total
    for a in range(d):
        for b in range(a + 1):
            spread[a, b] = hess[a, b]
    return better


@kernel(float64(FUNCTIONS, VECTOR, VECTOR, VECTOR, MATRIX, VECTOR, MATRIX, VECTOR, float64, VECTOR))
def laplace(kernels, theta, y, mean, chol, u, spread, z, tolerance, work):
    """Mode of the posterior and the Cholesky factor of its covariance, whitened.

    Parameters
    ----------
    kernels, theta, y
        The model and the data record.
    mean, chol : ndarray of shape (d,), (d, d)
        Prior.
    u : ndarray of shape (d,)
        Start on entry, mode on exit (whitened).
    spread : ndarray of shape (d, d)
        On exit a lower triangular factor with ``spread spread' = (-H)**-1``,
        H the Hessian of the log density at the mode.
    z : ndarray of shape (latent_size,)
        On exit the latent draw at the last point that was tried.
    tolerance : float
        Stop where a Newton step promises to gain less than half of this (nats).
    work : ndarray
        Scratch, of `laplace_work` plus the model's size.

    Returns
    -------
    float
        ``log p(y, z)`` at the mode with the prior's density taken in z, or
        -inf where no finite value was found.
    """
    d = u.size
    hess = as_matrix(work, d, d)
    trial = as_matrix(segment(work, d * d, d * d), d, d)
    at = 2 * d * d
    grad = segment(work, at, d)
    shifted = segment(work, at + d, d)
    step = segment(work, at + 2 * d, d)
    move = segment(work, at + 3 * d, d)
    pairs = segment(work, at + 4 * d, d)
    at += 5 * d
    scratch = segment(work, at, work.size - at)
    for a in range(d):
        step[a] = 0.1 * _STEP
    value = log_joint(kernels.log_lik, kernels.structural, theta, y, u, mean, chol, z, scratch)
    definite = False
    moved = np.inf  # since the mixed derivatives were computed
    for _ in range(_MAX_NEWTON):
        if not np.isfinite(value):
            break
        if not _slopes(
            kernels, theta, y, u, value, step, mean, chol, z, scratch, grad, hess, pairs, shifted
        ):
            break
        slope = -np.inf
        for most in (_KEPT_FOR_STEP, _KEPT_FOR_ANSWER):
            # Mixed derivatives that serve for a step may be too old for the answer.
            if moved > most:
                if not _mixed(
                    kernels, theta, y, u, value, step, mean, chol, z, scratch, hess, pairs, shifted
                ):
                    slope = -np.inf
                    break
                moved = 0.0
            definite, slope = _newton(hess, grad, spread, trial, move)
            if moved == 0.0 or slope >= tolerance:
                break
        if slope < tolerance:
            break
        for a in range(d):
            step[a] = _STEP / np.sqrt(max(hess[a, a], 1.0))
        # A step of many prior standard deviations is never trusted at once.
        length = 0.0
        for a in range(d):
            length += move[a] * move[a]
        t = min(1.0, 3.0 / np.sqrt(length))
        improved = False
        for _ in range(40):
            for a in range(d):
                shifted[a] = u[a] + t * move[a]
            candidate = log_joint(
                kernels.log_lik, kernels.structural, theta, y, shifted, mean, chol, z, scratch
            )
            if candidate >= value + 1e-4 * t * slope:
                improved = True
                break
            t *= 0.5
        if not improved:
            break
        assign(u, shifted)
        value = candidate
        moved += t * np.sqrt(slope)
    _invert_factor(spread, trial, definite)
    if definite and np.isfinite(value) and tolerance < COARSE:
        value = _exactly(
            kernels.log_lik, kernels.structural, theta, y, u, value, spread, mean, chol, z,
            scratch, grad, hess, trial, pairs, shifted,
        )  # fmt: skip
    return value - log_det(chol) - d * HALF_LOG_2PI
