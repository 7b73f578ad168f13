"""Mode and curvature of one individual's posterior, for any model with a Gaussian prior.

Newton's method on the whitened scale ``z = mean + chol u``, where the prior is
standard normal, so that ``log p(y, z) = log p(y | z(u)) - |u|**2 / 2 + const``.
Derivatives are central differences in units of the posterior's own standard
deviations, which keeps their error near 1e-7 whatever the scale of the model.
"""

from __future__ import annotations

import numpy as np
from numba import float64

from saem._borrow import as_matrix
from saem._jit import helper, kernel, routine
from saem._linalg import assign, cholesky, cholesky_solve
from saem._math import HALF_LOG_2PI, log
from saem._types import FUNCTIONS, MATRIX, VECTOR

__all__ = ["laplace", "laplace_work", "log_joint", "whiten"]

_MAX_NEWTON = 60
_STEP = 1e-3


def laplace_work(n_coords: int) -> int:
    """Scratch numbers `laplace` needs, besides the model's own."""
    return 2 * n_coords * n_coords + 4 * n_coords


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
def log_joint(kernels, theta, y, u, mean, chol, z, work):
    """Log density of data and whitened draw, without the constants of the prior in u."""
    color(u, mean, chol, z)
    value = kernels.log_lik(kernels.structural, theta, y, z, work)
    for a in range(u.size):
        value -= 0.5 * u[a] * u[a]
    return value if np.isfinite(value) else -np.inf


@routine
def _negative_hessian(kernels, theta, y, u, value, step, mean, chol, z, work, grad, hess, shifted):
    """Gradient and negative Hessian of `log_joint` at u by central differences."""
    d = u.size
    finite = True
    for a in range(d):
        assign(shifted, u)
        shifted[a] = u[a] + step[a]
        up = log_joint(kernels, theta, y, shifted, mean, chol, z, work)
        shifted[a] = u[a] - step[a]
        down = log_joint(kernels, theta, y, shifted, mean, chol, z, work)
        grad[a] = (up - down) / (2.0 * step[a])
        hess[a, a] = -(up - 2.0 * value + down) / (step[a] * step[a])
        finite = finite and np.isfinite(grad[a]) and np.isfinite(hess[a, a])
    for a in range(d):
        for b in range(a):
            total = 0.0
            for sign in (1.0, -1.0):
                assign(shifted, u)
                shifted[a] = u[a] + step[a]
                shifted[b] = u[b] + sign * step[b]
                total += sign * log_joint(kernels, theta, y, shifted, mean, chol, z, work)
                shifted[a] = u[a] - step[a]
                total -= sign * log_joint(kernels, theta, y, shifted, mean, chol, z, work)
            hess[a, b] = -total / (4.0 * step[a] * step[b])
            hess[b, a] = hess[a, b]
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


@kernel(float64(FUNCTIONS, VECTOR, VECTOR, VECTOR, MATRIX, VECTOR, MATRIX, VECTOR, VECTOR))
def laplace(kernels, theta, y, mean, chol, u, spread, z, work):
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
    work : ndarray
        Scratch, of `laplace_work` plus the model's size.

    Returns
    -------
    float
        ``log p(y, z)`` at the mode with the prior's density taken in z, or
        -inf where no finite value was found.
    """
    d = u.size
    at = 0
    hess = as_matrix(work[at:], d, d)
    at += d * d
    trial = as_matrix(work[at:], d, d)
    at += d * d
    grad = work[at : at + d]
    at += d
    shifted = work[at : at + d]
    at += d
    step = work[at : at + d]
    at += d
    move = work[at : at + d]
    at += d
    scratch = work[at:]
    step[:] = 0.1 * _STEP
    value = log_joint(kernels, theta, y, u, mean, chol, z, scratch)
    definite = False
    for _ in range(_MAX_NEWTON):
        if not np.isfinite(value):
            break
        if not _negative_hessian(
            kernels, theta, y, u, value, step, mean, chol, z, scratch, grad, hess, shifted
        ):
            break
        definite = _damped_factor(hess, spread, trial)
        cholesky_solve(spread, grad, move)
        slope = 0.0
        for a in range(d):
            slope += grad[a] * move[a]
            sd = 1.0 / np.sqrt(max(hess[a, a], 1.0))
            step[a] = _STEP * sd
        if slope < 1e-10:
            break
        # A step of many prior standard deviations is never trusted at once.
        length = 0.0
        for a in range(d):
            length += move[a] * move[a]
        t = min(1.0, 3.0 / np.sqrt(length))
        improved = False
        for _ in range(40):
            for a in range(d):
                shifted[a] = u[a] + t * move[a]
            candidate = log_joint(kernels, theta, y, shifted, mean, chol, z, scratch)
            if candidate >= value + 1e-4 * t * slope:
                improved = True
                break
            t *= 0.5
        if not improved:
            break
        assign(u, shifted)
        value = candidate
    _invert_factor(spread, trial, definite)
    return value - log_det(chol) - d * HALF_LOG_2PI
