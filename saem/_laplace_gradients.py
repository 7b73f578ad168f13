"""Mode searches by exact derivatives, for models that have them (`saem._types.GRADIENT`).

Gauss-Newton steps, whose matrix is the expected information: always definite, and exact for linear
models. The curvature at the mode is that of differences of the gradient; where a mode is only
wanted roughly, as one that is followed while theta moves, the expected information stands for it
(the linearisation of Karimi, Lavielle and Moulines 2020, Comput. Stat. Data Anal. 141,
proposition 2).
"""

from __future__ import annotations

import numpy as np

from saem._borrow import as_matrix, segment
from saem._jit import kernel, routine
from saem._linalg import assign, cholesky, cholesky_solve
from saem._math import HALF_LOG_2PI
from saem._newton_steps import invert_factor, newton
from saem._types import SEARCH
from saem._whitened import color, log_det, log_joint, square

__all__ = ["by_gradients"]

_MAX_NEWTON = 60
#: Share of a step, and gain (nats), below which a search stalls if no more of the step improves.
_KINK, _NOTHING = 0.05, 1e-2
#: Step of the differences of the gradient, in standard deviations by the expected information.
_STEP = 1e-3
#: Gauss-Newton steps end where one promises to gain less than half of this: 1e-3 posterior
#: standard deviations, from where one Newton step reaches the mode.
_NEWTON = 1e-6
#: A mode is wanted only roughly from this tolerance on.
_ROUGH = 1e-2
#: Expected and observed information that differ by less than the first are the same but for
#: rounding; by more than the second (in units of the expected), the mode is at a kink, where
#: differences tell nothing.
_SAME, _KINKED = 1e-7, 100.0


@routine
def _scored(
    gradient, structural, jacobian, theta, y, u, mean, chol, z, work, grad, hess, at_z, by_z
):
    """Value, gradient and expected information of `log_joint` at u, by exact derivatives.

    NaN where the model has none, or none that is finite; `at_z` and `by_z` are scratch.
    """
    d = u.size
    color(u, mean, chol, z)
    value = gradient(structural, jacobian, theta, y, z, work, at_z, by_z)
    for a in range(d):
        slope = -u[a]
        for b in range(a, d):
            slope += chol[b, a] * at_z[b]
        grad[a] = slope
        value -= 0.5 * u[a] * u[a]
    # chol' by_z chol + 1; the product from the right first, in place.
    for b in range(d):
        for a in range(d):
            total = 0.0
            for c in range(a, d):
                total += by_z[b, c] * chol[c, a]
            by_z[b, a] = total
    for a in range(d):
        for b in range(a + 1):
            total = 1.0 if a == b else 0.0
            for c in range(a, d):
                total += chol[c, a] * by_z[c, b]
            hess[a, b] = hess[b, a] = total
        if not (np.isfinite(grad[a]) and np.isfinite(hess[a, a])):
            value = np.nan
    return value


@routine
def _observed(
    gradient, structural, jacobian, theta, y, u, mean, chol, z, work, expected, hess, other,
    shifted, grad, at_z, by_z,
):  # fmt: skip
    """Negative Hessian of `log_joint` at u, by central differences of the gradient.

    Returns how much it differs from the expected information, infinity where it is not finite.
    """
    d = u.size
    assign(shifted, u)
    for a in range(d):
        step = _STEP / np.sqrt(expected[a, a])
        for b in range(d):
            hess[a, b] = 0.0
        for side in range(2):
            sign = 1.0 - 2.0 * side
            shifted[a] = u[a] + sign * step
            _scored(
                gradient, structural, jacobian, theta, y, shifted, mean, chol, z, work, grad,
                other, at_z, by_z,
            )  # fmt: skip
            for b in range(d):
                hess[a, b] -= sign * grad[b] / (2.0 * step)
        shifted[a] = u[a]
    change = 0.0
    for a in range(d):
        for b in range(a + 1):
            mixed = 0.5 * (hess[a, b] + hess[b, a])
            hess[a, b] = hess[b, a] = mixed
            scale = np.sqrt(expected[a, a] * expected[b, b])
            change = max(change, abs(mixed - expected[a, b]) / scale)
            if not np.isfinite(mixed):
                change = np.inf
    return change


@kernel(SEARCH, deferred=True, inner=True)
def by_gradients(
    log_lik, structural, gradient, jacobian, theta, y, mean, chol, u, spread, z, tolerance, work
):
    """Search for the mode as `saem._laplace.laplace` describes."""
    d = u.size
    hess = as_matrix(work, d, d)
    trial = as_matrix(segment(work, d * d, d * d), d, d)
    by_z = as_matrix(segment(work, 2 * d * d, d * d), d, d)
    observed = as_matrix(segment(work, 3 * d * d, d * d), d, d)
    at = 4 * d * d
    grad, shifted = segment(work, at, d), segment(work, at + d, d)
    move, at_z = segment(work, at + 2 * d, d), segment(work, at + 3 * d, d)
    own_grad = segment(work, at + 4 * d, d)
    scratch = segment(work, at + 5 * d, work.size - at - 5 * d)
    wanted = tolerance if tolerance >= _ROUGH else max(tolerance, _NEWTON)
    value = _scored(
        gradient, structural, jacobian, theta, y, u, mean, chol, z, scratch, grad, hess, at_z, by_z
    )
    if not np.isfinite(value):
        for a in range(d):
            for b in range(d):
                spread[a, b] = 1.0 if a == b else 0.0
        return -np.inf
    stalled = 0
    for _ in range(_MAX_NEWTON):
        slope = newton(hess, grad, spread, trial, move)[1]
        if slope < wanted:
            break
        # A step of many prior standard deviations is never trusted at once.
        t = min(1.0, 3.0 / np.sqrt(square(move)))
        improved = False
        shortest = _KINK * t
        for _ in range(40):
            for a in range(d):
                shifted[a] = u[a] + t * move[a]
            candidate = _scored(
                gradient, structural, jacobian, theta, y, shifted, mean, chol, z, scratch, grad,
                hess, at_z, by_z,
            )  # fmt: skip
            if candidate >= value + 1e-4 * t * slope:
                improved = True
                break
            t *= 0.5
        if not improved:
            break
        # At a kink, as where an observation is made at the lag, steps get short and gain nothing.
        stalled = stalled + 1 if t < shortest and candidate < value + _NOTHING else 0
        assign(u, shifted)
        value = candidate
        if stalled == 2:
            break
    if tolerance < _ROUGH:
        _scored(
            gradient, structural, jacobian, theta, y, u, mean, chol, z, scratch, own_grad, hess,
            at_z, by_z,
        )  # fmt: skip
        change = _observed(
            gradient, structural, jacobian, theta, y, u, mean, chol, z, scratch, hess, observed,
            trial, shifted, grad, at_z, by_z,
        )  # fmt: skip
        # The factor of the expected information stays where the observed one is not definite.
        if _SAME < change < _KINKED and cholesky(observed, trial):
            for a in range(d):
                assign(spread[a], trial[a])
        cholesky_solve(spread, own_grad, move)
        for a in range(d):
            shifted[a] = u[a] + move[a]
        candidate = log_joint(log_lik, structural, theta, y, shifted, mean, chol, z, scratch)
        if candidate >= value:
            assign(u, shifted)
            value = candidate
    invert_factor(spread, trial, True)
    return value - log_det(chol) - d * HALF_LOG_2PI
