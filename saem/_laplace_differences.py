"""Mode searches by central differences, for models without exact derivatives.

Differences are in units of the posterior's own standard deviations, which keeps their error near
1e-7 whatever the scale of the model. Close to the mode the mixed derivatives of the step before
are used again: they are most of the cost. Where the log density turns out to be quadratic
(a linear Gaussian model), mode and covariance are taken from differences over whole standard
deviations, which are exact but for rounding.
"""

from __future__ import annotations

import numpy as np

from saem._borrow import as_matrix, segment
from saem._jit import kernel, routine
from saem._laplace import COARSE
from saem._linalg import assign, cholesky, cholesky_solve
from saem._math import HALF_LOG_2PI
from saem._newton_steps import invert_factor, newton
from saem._types import SEARCH
from saem._whitened import log_det, log_joint, square

__all__ = ["by_differences"]

_MAX_NEWTON = 60
#: Share of a step, and gain (nats), below which a search stalls if no more of the step improves.
_KINK, _NOTHING = 0.05, 1e-2
_STEP = 1e-3
#: Mixed derivatives are kept for the next step after steps shorter than the first (posterior
#: standard deviations), and for the answer after steps shorter than the second.
_KEPT_FOR_STEP, _KEPT_FOR_ANSWER = 0.1, 2e-3
#: Differences between short and long steps of a quadratic function, relative to its value.
_QUADRATIC = 1e-10


@routine
def _slopes(
    log_lik, structural, theta, y, u, value, step, mean, chol, z, work, grad, hess, pairs, shifted
):
    """Gradient and diagonal of the negative Hessian of `log_joint` at u; 2 d evaluations.

    `pairs` receives the sums of the two values, of which `_mixed` makes use.
    """
    finite = True
    assign(shifted, u)
    for a in range(u.size):
        shifted[a] = u[a] + step[a]
        up = log_joint(log_lik, structural, theta, y, shifted, mean, chol, z, work)
        shifted[a] = u[a] - step[a]
        down = log_joint(log_lik, structural, theta, y, shifted, mean, chol, z, work)
        shifted[a] = u[a]
        pairs[a] = up + down
        grad[a] = (up - down) / (2.0 * step[a])
        hess[a, a] = -(up - 2.0 * value + down) / (step[a] * step[a])
        finite = finite and np.isfinite(grad[a]) and np.isfinite(hess[a, a])
    return finite


@routine
def _mixed(
    log_lik, structural, theta, y, u, value, step, mean, chol, z, work, hess, pairs, shifted
):
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
                total += log_joint(log_lik, structural, theta, y, shifted, mean, chol, z, work)
            shifted[a], shifted[b] = u[a], u[b]
            hess[a, b] = hess[b, a] = -total / (2.0 * step[a] * step[b])
            finite = finite and np.isfinite(hess[a, b])
    return finite


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
    invert_factor(factor, hess, True)
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


@kernel(SEARCH, deferred=True, inner=True)
def by_differences(
    log_lik, structural, gradient, jacobian, theta, y, mean, chol, u, spread, z, tolerance, work
):
    """Search for the mode as `saem._laplace.laplace` describes."""
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
    value = log_joint(log_lik, structural, theta, y, u, mean, chol, z, scratch)
    definite = False
    moved = np.inf  # since the mixed derivatives were computed
    stalled = 0
    for _ in range(_MAX_NEWTON):
        if not np.isfinite(value):
            break
        if not _slopes(
            log_lik, structural, theta, y, u, value, step, mean, chol, z, scratch, grad, hess,
            pairs, shifted,
        ):  # fmt: skip
            break
        slope = -np.inf
        for most in (_KEPT_FOR_STEP, _KEPT_FOR_ANSWER):
            # Mixed derivatives that serve for a step may be too old for the answer, and where
            # coordinates are strongly correlated (the effects of a subject and of its occasions)
            # old ones beside new curvatures need not make a definite matrix.
            if moved > most or (moved > 0.0 and most < _KEPT_FOR_STEP and not definite):
                if not _mixed(
                    log_lik, structural, theta, y, u, value, step, mean, chol, z, scratch, hess,
                    pairs, shifted,
                ):  # fmt: skip
                    slope = -np.inf
                    break
                moved = 0.0
            definite, slope = newton(hess, grad, spread, trial, move)
            if moved == 0.0 or (definite and slope >= tolerance):
                break
        if slope < tolerance:
            break
        for a in range(d):
            step[a] = _STEP / np.sqrt(max(hess[a, a], 1.0))
        # A step of many prior standard deviations is never trusted at once.
        t = min(1.0, 3.0 / np.sqrt(square(move)))
        improved = False
        shortest = _KINK * t
        for _ in range(40):
            for a in range(d):
                shifted[a] = u[a] + t * move[a]
            candidate = log_joint(log_lik, structural, theta, y, shifted, mean, chol, z, scratch)
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
        moved += t * np.sqrt(slope)
    invert_factor(spread, trial, definite)
    if definite and np.isfinite(value) and tolerance < COARSE:
        value = _exactly(
            log_lik, structural, theta, y, u, value, spread, mean, chol, z,
            scratch, grad, hess, trial, pairs, shifted,
        )  # fmt: skip
    return value - log_det(chol) - d * HALF_LOG_2PI
