"""Damped Newton steps, and the covariance at their end, for a negative Hessian."""

from __future__ import annotations

from saem._jit import routine
from saem._linalg import cholesky, cholesky_solve, invert_lower

__all__ = ["invert_factor", "newton"]


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
def newton(hess, grad, factor, trial, move):
    """Damped Newton step; whether the Hessian was definite, and twice the gain it promises."""
    definite = _damped_factor(hess, factor, trial)
    cholesky_solve(factor, grad, move)
    slope = 0.0
    for a in range(grad.size):
        slope += grad[a] * move[a]
    return definite, slope


@routine
def invert_factor(factor, trial, definite):
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
    invert_lower(factor, trial)
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
