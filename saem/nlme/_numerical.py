"""M-step of the parameters for which the complete data have no finite statistic.

These are parameters without a random effect, with their covariates, and the parameters of an
error model without a closed form (combined, or with a power to estimate). With z the current
draws the objective is ``Q(nu) = mean log p(y | z; nu)``, plus the log prior; one damped Newton
step on it per iteration,
smoothed in parameter space, has the root of the expected score as its limit
(algorithms of Kuhn and Lavielle 2005, Comput. Statist. Data Anal. 49,
1020-1038, section 4, with a Newton step in place of the full maximisation).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array

if TYPE_CHECKING:
    from saem.engine import Run

__all__ = ["newton_step"]

_FIRST_STEP = 1e-4
_RELATIVE_STEP = 1e-3
#: Largest change of a coordinate in one iteration: a factor e on a log scale.
_TRUST = 1.0


def newton_step(
    model: Any, before: Array, theta: Array, records: Array, gamma: float, run: Run
) -> None:
    """Move the numerical entries of theta by gamma times a damped Newton step, in place."""
    entries = np.array(model.numerical_entries)
    positive = model.numerical_logged
    nu = _to_free(before[entries], positive)

    def objective(candidate: Array) -> float:
        trial = theta.copy()
        trial[entries] = _from_free(candidate, positive)
        return run.conditional_loglik(trial, records) + model.log_prior(trial)

    step = run.numerical.get("step")
    if step is None:
        step = np.full(nu.size, _FIRST_STEP) * np.maximum(1.0, np.abs(nu))
    value, gradient, hessian = _derivatives(objective, nu, step)
    direction = _ascent(gradient, hessian)
    run.numerical["step"] = _RELATIVE_STEP / np.sqrt(np.maximum(-np.diag(hessian), 1e-12))
    run.numerical["step"] = np.clip(run.numerical["step"], 1e-7, 1e-2)
    direction *= min(1.0, _TRUST / max(float(np.max(np.abs(direction))), 1e-300))
    for _ in range(20):
        if objective(nu + direction) >= value - 1e-9 * abs(value):
            break
        direction *= 0.5
    else:
        direction[:] = 0.0
    run.numerical["free"] = nu + direction
    theta[entries] = _from_free(nu + gamma * direction, positive)


def _to_free(values: Array, positive: Array) -> Array:
    free = values.copy()
    free[positive] = np.log(values[positive])
    return free


def _from_free(free: Array, positive: Array) -> Array:
    values = free.copy()
    values[positive] = np.exp(np.clip(free[positive], -18.0, 50.0))
    return values


def _derivatives(objective: Any, at: Array, step: Array) -> tuple[float, Array, Array]:
    """Value, gradient and Hessian by central differences."""
    p = at.size
    value = objective(at)
    gradient, hessian = np.zeros(p), np.zeros((p, p))
    for a in range(p):
        shift = np.zeros(p)
        shift[a] = step[a]
        up, down = objective(at + shift), objective(at - shift)
        gradient[a] = (up - down) / (2 * step[a])
        hessian[a, a] = (up - 2 * value + down) / step[a] ** 2
        for b in range(a):
            other = np.zeros(p)
            other[b] = step[b]
            mixed = objective(at + shift + other) - objective(at + shift - other)
            mixed -= objective(at - shift + other) - objective(at - shift - other)
            hessian[a, b] = hessian[b, a] = mixed / (4 * step[a] * step[b])
    return value, gradient, hessian


def _ascent(gradient: Array, hessian: Array) -> Array:
    """Newton direction, with the Hessian's eigenvalues made negative."""
    if not (np.all(np.isfinite(gradient)) and np.all(np.isfinite(hessian))):
        return np.zeros_like(gradient)
    values, vectors = np.linalg.eigh(hessian)
    floor = 1e-6 * max(float(np.max(np.abs(values))), 1e-12)
    curvature = np.maximum(np.abs(values), floor)
    return np.asarray(vectors @ ((vectors.T @ gradient) / curvature))
