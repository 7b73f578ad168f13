"""Quasi-Newton ascent of an approximate likelihood: FOCEI's or Laplace's.

Not EM: no statistic is moved. The objective and its gradient are those of
`saem.inference.first_order`; the metric is the expected information of the linearised model,
corrected by the last steps (limited-memory BFGS; Nocedal and Wright 2006, Numerical Optimization,
section 7.2). Steps are taken on the scale without bounds of `saem.inference._working_scale`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from saem.contract import Array
from saem.newton import at_floor, idle_covariances, to_floor
from saem.proxies import Proxy

if TYPE_CHECKING:
    from saem.engine import Run
    from saem.inference._visits import Modes
    from saem.inference._working_scale import WorkingScale
    from saem.inference.first_order import ConditionalObjective, Expansion

__all__ = ["Ascent"]

#: Steps remembered, and steps tried in a direction, at most.
_MEMORY, _TRIES = 10, 30
#: Rise that a step must give, as a part of that promised, and what counts as rounding.
_ARMIJO, _ROUNDING = 1e-4, 1e-12
#: Nats by which the objective may change when modes are searched for anew, before it counts.
_SAME = 1e-6


@dataclass(frozen=True)
class Ascent(Proxy):
    """One step uphill on an approximate likelihood each iteration.

    Parameters
    ----------
    kind : {"focei", "laplace"}
        The objective; with priors of the model, their log density is added.

    Notes
    -----
    What is left to gain is half the decrement ``g' H g / 2``, g the gradient and H the metric's
    inverse. At the end modes are searched for anew, which may lead further up.
    """

    kind: str = "focei"
    name: ClassVar[str] = "ascent"
    remembers: ClassVar[bool] = False

    def check(self, run: Run) -> None:
        """Refuse models without predictions."""
        from saem.inference.first_order import KINDS, check_predictions_of

        check_predictions_of(run.model, KINDS.get(self.kind, self.kind))

    def left(self, run: Run) -> float:
        """Nats still to gain before the last step; NaN where that is not known."""
        return float(run.proxy_state.get("left", np.nan))

    def step(self, run: Run) -> int:
        """One step, along the best direction known."""
        state, objective = run.proxy_state, self._objective(run)
        if "height" not in state:
            self._settle(run, objective.at(run.theta), objective)
            if not np.isfinite(state["height"]):
                raise _no_start(run)
        run.loglik = float(state["value"])
        state["left"] = np.nan
        self._to_boundary(run, objective)
        direction, decrement = self._direction(run, objective.scale)
        state["left"] = 0.5 * decrement
        if not self._search(run, objective, direction, decrement):
            # The remembered steps mislead, or rounding is all that is left.
            forget(state)
            state["stuck"] = state.get("stuck", 0) + 1
            self._confirm(run, objective)
            if state["stuck"] > 1:  # nothing uphill in any direction
                run.algorithm = replace(run.algorithm, n_iter=run.k + 1)
            return 1
        tolerance = run.algorithm.tolerance
        state["stuck"] = 0
        if tolerance is not None and state["left"] < tolerance:
            self._confirm(run, objective)
        return 1

    def _objective(self, run: Run) -> ConditionalObjective:
        from saem.inference.first_order import ConditionalObjective

        return ConditionalObjective(run.model, self.kind, run.n_threads)  # type: ignore[arg-type]

    def _settle(self, run: Run, found: Expansion, objective: ConditionalObjective) -> None:
        """Make an expansion the current one, with its derivatives."""
        state = run.proxy_state
        run.theta[:] = found.theta
        run.n_evals += run.model.n_individuals
        state["value"], state["height"] = found.value, objective.height(found)
        state["phi"], state["factor"] = found.modes.phi, found.modes.factor
        if np.isfinite(found.value):
            state["information"] = objective.information(found)
            state["gradient"] = objective.gradient(found)

    def _modes(self, run: Run) -> Modes:
        from saem.inference._visits import Modes

        state = run.proxy_state
        return Modes(state["phi"], state["factor"], np.zeros(len(state["phi"])))

    def _to_boundary(self, run: Run, objective: ConditionalObjective) -> None:
        """Take variances that may as well be 0 to their floor, and leave them there."""
        state, model = run.proxy_state, run.model
        values = model.estimation_vector(run.theta)  # type: ignore[attr-defined]
        kinds = np.array(model.param_kind)  # type: ignore[attr-defined]
        before = state.get("frozen", np.zeros(values.size, dtype=bool))
        jacobian = objective.scale.jacobian(run.theta)
        gradient = np.linalg.solve(jacobian.T, state["gradient"])
        frozen = before | at_floor(kinds, values, gradient, state["information"])
        frozen = frozen | idle_covariances(model, frozen)
        held = state.get("held", np.zeros(values.size, dtype=bool))
        state["held"] = held | frozen | objective.scale.singular(run.theta)
        if np.any(state["held"] & ~held):
            forget(state)
        if not np.any(frozen & ~before):
            return
        moved = values + np.where(frozen, to_floor(kinds, values), 0.0)
        theta = model.with_estimates(run.theta, moved)  # type: ignore[attr-defined]
        found = objective.at(theta, self._modes(run))
        if np.isfinite(found.value) and objective.height(found) > state["height"] - 0.05:
            forget(state)
            state["frozen"] = frozen
            self._settle(run, found, objective)

    def _direction(self, run: Run, scale: WorkingScale) -> tuple[Array, float]:
        """Direction on the working scale, and the decrement along it."""
        state = run.proxy_state
        free = ~state["held"]
        jacobian = scale.jacobian(run.theta)
        gradient = np.where(free, state["gradient"], 0.0)
        metric = jacobian.T @ state["information"] @ jacobian
        at = np.flatnonzero(free)
        inverse = np.zeros_like(metric)
        inverse[np.ix_(at, at)] = _safe_inverse(metric[np.ix_(at, at)])
        if "before" in state:  # the gradients at both ends of the last step are now known
            move, change = scale.values(run.theta) - state["before"], state["slope"] - gradient
            remember(state, np.where(free, move, 0.0), np.where(free, change, 0.0))
        state["before"], state["slope"] = scale.values(run.theta), gradient
        direction = two_loops(state, gradient, inverse)
        decrement = float(direction @ gradient)
        if not decrement > 0.0:
            forget(state)
            direction = inverse @ gradient
            decrement = float(direction @ gradient)
        return direction, decrement

    def _search(
        self,
        run: Run,
        objective: ConditionalObjective,
        direction: Array,
        decrement: float,
    ) -> bool:
        """Go along a direction by the first step that gives enough; whether there was one."""
        state, scale, modes = run.proxy_state, objective.scale, self._modes(run)
        with np.errstate(divide="ignore"):
            t = min(1.0, float(np.min(scale.longest(run.theta) / np.abs(direction))))
        start, height = scale.values(run.theta), state["height"]
        for _ in range(_TRIES):
            theta = scale.theta(run.theta, start + t * np.where(state["held"], 0.0, direction))
            if theta is not None:
                found = objective.at(theta, modes, search=False)
                run.n_evals += run.model.n_individuals
                gain = objective.height(found) - height
                if gain >= _ARMIJO * t * decrement - _ROUNDING * (1.0 + abs(height)):
                    self._settle(run, found, objective)
                    return True
            t *= 0.5
        return False

    def _confirm(self, run: Run, objective: ConditionalObjective) -> None:
        """Search for modes anew where nothing seems left to gain; go on if there are others."""
        state = run.proxy_state
        found = objective.at(run.theta.copy(), self._modes(run))
        run.n_evals += run.model.n_individuals
        if abs(objective.height(found) - state["height"]) > _SAME:
            forget(state)
            state["left"], state["stuck"] = np.nan, 0
            self._settle(run, found, objective)


def _no_start(run: Run) -> Exception:
    from saem.exceptions import FitError

    return FitError(
        f"the {run.algorithm.name} fit of {run.model.name} could not start: the objective is not "
        "finite at the starting values. Remedy: other starting values, or saem.SAEM()."
    )


def _safe_inverse(metric: Array) -> Array:
    """Inverse of an information matrix; directions without information get little of it."""
    scale = np.sqrt(np.maximum(np.diagonal(metric), 1e-300))
    values, vectors = np.linalg.eigh(metric / np.outer(scale, scale))
    values = np.maximum(values, 1e-8 * values[-1])
    inverse: Array = (vectors / values) @ vectors.T / np.outer(scale, scale)
    return inverse


def remember(state: dict[str, Any], move: Array, change: Array) -> None:
    """Add a step and the fall of the gradient along it, if the objective curves down there.

    Parameters
    ----------
    state : dict
        ``moves`` and ``changes``, arrays with a row for each step.
    move, change : ndarray of shape (n_params,)
    """
    if not move @ change > 1e-10 * np.linalg.norm(move) * np.linalg.norm(change):
        return
    for name, row in (("moves", move), ("changes", change)):
        rows = state.get(name, np.zeros((0, row.size)))
        state[name] = np.vstack([rows, row])[-_MEMORY:]


def forget(state: dict[str, Any]) -> None:
    """Drop the steps remembered."""
    for name in ("moves", "changes", "before", "slope"):
        state.pop(name, None)


def two_loops(state: dict[str, Any], gradient: Array, inverse: Array) -> Array:
    """Quasi-Newton direction from the steps remembered (two-loop recursion).

    Parameters
    ----------
    state : dict
        See `remember`.
    gradient : ndarray of shape (n_params,)
    inverse : ndarray of shape (n_params, n_params)
        Inverse of the metric that the steps correct.

    Returns
    -------
    ndarray of shape (n_params,)
    """
    q, weights = gradient.copy(), []
    pairs = list(zip(state.get("moves", ()), state.get("changes", ()), strict=True))
    for move, change in reversed(pairs):
        weight = (move @ q) / (move @ change)
        q = q - weight * change
        weights.append(weight)
    direction = inverse @ q
    for (move, change), weight in zip(pairs, reversed(weights), strict=True):
        direction = direction + (weight - (change @ direction) / (move @ change)) * move
    return np.asarray(direction)
