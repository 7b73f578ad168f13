"""Newton's method on the observed log-likelihood, made of E-steps: Louis' acceleration of EM.

By Fisher's identity the score of the observed data is the posterior mean of the complete
data's, and by Louis' the observed information is the complete one less the posterior
variances of the scores; one E-step with weighted draws gives both. Newton's step

    theta <- theta + I_o^-1 score

is what EM's step ``I_c^-1 score`` becomes when the missing information is put back
(Louis 1982, JRSS B 44, 226-233, section 5). Near the maximum two or three passes leave
nothing to gain, however much information is missing.

A step is given up for the plain EM step from the point before when the log-likelihood says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from saem.contract import Array
from saem.exceptions import OptionError
from saem.proxies import Proxy

if TYPE_CHECKING:
    from saem.engine import Run

__all__ = ["Newton"]

#: Longest step, in standard errors (the root of the Newton decrement).
_LONGEST = 2.0
#: A variance or residual scale changes by no more than this factor in a step.
_FACTOR = 8.0
#: A variance below the first part of its standard error goes to its floor, and so does one
#: below the second that wants to fall.
_NOTHING, _NEGLIGIBLE = 0.01, 0.05
#: The information is computed anew while the decrement falls by less than this factor.
_SLOW = 0.1


@dataclass(frozen=True)
class Newton(Proxy):
    """Full passes, each followed by a Newton step on the observed log-likelihood.

    Parameters
    ----------
    epsilon : float
        Nats by which the log-likelihood may fall in a step before it is given up.

    Notes
    -----
    What is left to gain is half the Newton decrement, ``score' I_o^-1 score / 2``; below
    ``f^2 / 2`` nats no parameter is farther than f of its standard errors from the maximum, for
    ``(theta_j - theta^_j)^2 / se_j^2 <= score' I_o^-1 score``. For `saem.NLME`, with an E-step
    that is not random.
    """

    epsilon: float = 0.05
    name: ClassVar[str] = "newton"
    remembers: ClassVar[bool] = True

    def check(self, run: Run) -> None:
        """Refuse random E-steps, and models whose scores are not known."""
        if not run.algorithm.estep.gives_loglik:
            raise OptionError(
                f"Newton steps need an E-step that is not random; {run.algorithm.estep.name} is. "
                "Remedy: saem.Quadrature() or saem.ImportanceSampling()."
            )
        if not hasattr(run.model, "param_kind"):
            raise OptionError(
                f"Newton steps need the scores of the complete data, which {run.model.name} does "
                "not offer. Remedy: acceleration='anderson'."
            )

    def left(self, run: Run) -> float:
        """Nats still to gain before the last step; NaN where plain EM steps are taken."""
        return float(run.proxy_state.get("left", np.nan))

    def step(self, run: Run) -> int:
        """One pass and one step."""
        state = run.proxy_state
        theta = run.theta.copy()
        target = run.full_pass(run.k)
        # What is climbed: with a prior that is the penalised log-likelihood.
        height = run.loglik + run.model.log_prior(theta)  # type: ignore[attr-defined]
        known = state.get("height", -np.inf)
        if "fallback" in state and not height >= known - self.epsilon:
            run.theta[:], run.loglik = state.pop("fallback"), state["loglik"]
            state["left"] = np.nan
            state.pop("information", None)
            return 1
        state["loglik"], state["height"] = run.loglik, height
        run.move(target)
        if run.status != 0:
            return 1
        state["fallback"] = run.theta.copy()
        step = self._step(run, theta)
        if step is None:
            state.pop("fallback")
            state["left"] = np.nan
            return 1
        model = run.model
        run.theta[:] = model.with_estimates(theta, model.estimation_vector(theta) + step)  # type: ignore[attr-defined]
        return 1

    def _step(self, run: Run, theta: Array) -> Array | None:
        """Change of the estimates, None where there is no Newton step; notes what is left."""
        from saem.inference.scoring import score_and_information

        model, state = run.model, run.proxy_state
        anew = "information" not in state
        found = score_and_information(model, theta, run.records, anew)  # type: ignore[arg-type]
        if anew:
            state["information"], state["expected"] = found.information, found.expected
        score, information = found.score, state["information"]
        values = model.estimation_vector(theta)  # type: ignore[attr-defined]
        kinds = np.array(model.param_kind)  # type: ignore[attr-defined]
        frozen = state.get("frozen", np.zeros(score.size, dtype=bool))
        frozen = frozen | at_floor(kinds, values, score, state["expected"])
        frozen = frozen | idle_covariances(model, frozen)
        state["frozen"] = frozen
        step = np.where(frozen, to_floor(kinds, values), 0.0)
        free = np.flatnonzero(~frozen)
        part = information[np.ix_(free, free)]
        try:
            factor = np.linalg.cholesky(part)
        except np.linalg.LinAlgError:
            state.pop("information")
            return None
        whitened = np.linalg.solve(factor, score[free])
        decrement = float(whitened @ whitened)
        if not np.isfinite(decrement):
            state.pop("information")
            return None
        before = 2.0 * state.get("left", np.inf)
        state["left"] = 0.5 * decrement
        if not decrement < _SLOW * before:
            state.pop("information")  # anew at the next point
        move = np.linalg.solve(factor.T, whitened)
        move *= min(1.0, _LONGEST / max(np.sqrt(decrement), 1e-300))
        step[free] = move
        return _within(kinds, values, step, information, frozen)


def at_floor(kinds: Array, values: Array, score: Array, expected: Array) -> Array:
    """Variances next to nothing, in units of their errors, that may as well be 0."""
    size = values * np.sqrt(np.maximum(np.diagonal(expected), 0.0))
    small = (size < _NOTHING) | ((size < _NEGLIGIBLE) & (score < 0.0))
    return np.asarray((kinds == "variance") & small)


def to_floor(kinds: Array, values: Array) -> Array:
    """Change that takes variances to their floor and covariances to 0."""
    from saem.nlme._kernels import VARIANCE_FLOOR

    return np.where(kinds == "variance", VARIANCE_FLOOR - values, -values)


def idle_covariances(model: object, frozen: Any) -> Any:
    """Covariances with a random effect whose variance is at its floor."""
    from saem.inference._blocks import entries_of

    _, omega, _ = entries_of(model)  # type: ignore[arg-type]
    gone = {row for k, row, column in omega if row == column and frozen[k]}
    idle = np.zeros(frozen.size, dtype=bool)
    for k, row, column in omega:
        idle[k] = row != column and bool({row, column} & gone)
    return idle


def _within(kinds: Array, values: Array, step: Array, information: Array, frozen: Any) -> Array:
    """Keep scales within a factor of their values; the others answer to those that are cut."""
    scale = np.isin(kinds, ("variance", "residual")) & ~frozen
    low, high = values * (1.0 / _FACTOR - 1.0), values * (_FACTOR - 1.0)
    cut = scale & ((step < low) | (step > high))
    if not cut.any():
        return step
    wanted = np.where(cut, np.clip(step, low, high), step)
    rest = np.flatnonzero(~cut & ~frozen)
    held = np.flatnonzero(cut)
    # The quadratic's maximum over the others, given the steps of those that are cut.
    change = (wanted - step)[held]
    part = information[np.ix_(rest, rest)]
    wanted[rest] -= np.linalg.solve(part, information[np.ix_(rest, held)] @ change)
    return wanted
