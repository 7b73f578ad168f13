"""Acceleration of EM around its map in statistic space: SQUAREM and Anderson.

With an E-step that is not random, EM is the iteration ``s <- G(s) = sbar(T(s))`` of a
fixed map on mean statistics. The proxies here extrapolate its iterates. They need no
coordinates in which parameters are unconstrained: what is extrapolated is a statistic, and
T maps every admissible one to admissible parameters.

The metric. The Jacobian of G at a fixed point is ``J = V_obs V^-1``, with V the
complete-data covariance of the statistic and V_obs its conditional part, so that J is
self-adjoint in the inner product ``<a, b> = a' V^-1 b`` (Dempster, Laird and Rubin 1977,
section 3), and ``I - J`` is there the fraction of information that is observed. Lengths and
projections are taken in this metric, which makes the iterates independent of the units
and the origin of the data. V itself is never formed: along a step ds the natural parameters
phi change by ``V^-1 ds``, and phi is read off the model's `surrogate`, which is affine in s
with slope phi(theta). Models without `surrogate` get a diagonal metric, one over the
squared largest change of each coordinate.

Guard. A point is accepted only after a pass has told its log-likelihood: one that falls
more than `epsilon` below the best so far is given up for the plain EM step from the
point before. Where a plain EM step itself has gone down, as with a penalty or an approximate
E-step, "the best" starts anew from there, and a point whose residual is smaller is accepted
as well. An extrapolation that is not admissible is first
halved towards the plain step by the engine's guard, which counts it.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from saem._extrapolation import LEAST_FRACTION, damped, has_slope, natural, projected, weights
from saem.contract import Array
from saem.exceptions import OptionError
from saem.proxies import Proxy

if TYPE_CHECKING:
    from saem.engine import Run

__all__ = ["Anderson", "Squarem", "left_to_gain"]

#: An EM step is never lengthened more than this many times.
_LARGEST_LIMIT = 1.0 / LEAST_FRACTION
#: Largest order chosen for a user.
_LARGEST_ORDER = 10
#: SQUAREM takes the least curvature of twice as many cycles for that of all directions.
_CYCLES = 6
#: Damping of DAAREM: ``delta = 1 / (1 + _BASE ** (_DELAY - accepted))``.
_BASE, _DELAY = 1.2, 25
#: Falls of the log-likelihood of this relative size are rounding of its sum.
_ROUNDING = 1e-14


def left_to_gain(run: Run) -> float:
    """Bound on the log-likelihood that an accelerated run has still to gain, in nats.

    Parameters
    ----------
    run : Run
        Between two steps of `Anderson` or `Squarem`.

    Returns
    -------
    float
        NaN before there is anything to judge by.

    Notes
    -----
    With f = G(s) - s and a quadratic log-likelihood, Newton's step gains
    ``n/2 <f, (I - J)^-1 f>``, which is at most ``n/2 <f, f> / h`` with h the
    least observed fraction of information. ``<f, f>`` is computed exactly, as
    ``f' (phi(T(G(s))) - phi(T(s)))``, far below the rounding of the log-likelihood; h is
    the least curvature that the last cycles have met (an estimate for SQUAREM, which sees one
    direction a cycle). Unlike the gains of the
    log-likelihood, which accelerated sequences make by fits and starts, this goes to zero
    with the residual and nowhere else. Without `surrogate` it is the largest change of the
    log-likelihood over the last steps.
    """
    return float(run.proxy_state.get("left", np.nan))


class _View(NamedTuple):
    """What is seen from an accepted point.

    Attributes
    ----------
    f : ndarray
        Residual G(s) - s.
    place : ndarray
        The point in dual coordinates: phi(theta), or s itself without `surrogate`.
    s, theta, fast : ndarray
        State after the plain EM step.
    numerical : dict
        What a numerical M-step remembers after it.
    """

    f: Array
    place: Array
    s: Array
    theta: Array
    fast: Array
    numerical: dict[str, Array]


@dataclass(frozen=True)
class _Accelerated(Proxy):
    """What the accelerators share: verified points, the metric, the guard.

    Between steps `run.proxy_state` holds the current statistic ``s`` with ``theta = T(s)``,
    the ``target`` G(s), the ``loglik`` there and the ``best`` one so far.
    """

    epsilon: float = 0.01
    remembers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not self.epsilon >= 0.0:
            raise OptionError(f"epsilon={self.epsilon!r} must be a number of nats, at least 0.")

    def left(self, run: Run) -> float:
        """Bound on what is still to gain; see `left_to_gain`."""
        return left_to_gain(run)

    def check(self, run: Run) -> None:
        """Refuse what is not a fixed map of the statistic with a known log-likelihood."""
        algorithm = run.algorithm
        if not algorithm.estep.gives_loglik:
            raise OptionError(
                f"{self.name} accelerates a map that is not random and watches its log-likelihood; "
                f"the {algorithm.estep.name} E-step gives none. Remedy: use saem.Exact() or "
                "saem.Quadrature(), or an algorithm made for draws, such as 'saem'."
            )
        if algorithm.rho(0) != 1.0 or algorithm.gamma(0) != 1.0:
            raise OptionError(f"{self.name} needs rho = gamma = 1: it chooses its own steps.")

    def step(self, run: Run) -> int:
        """Go to the next accepted point; returns the passes it took, counted as iterations."""
        state = run.proxy_state
        if state:
            before = state["loglik"]
            passes = self._advance(run)
        else:
            run.move(run.full_pass(run.k))
            before, passes = run.loglik, 1
            if run.status == 0:
                state["best"] = before
                state["metric"] = float(has_slope(run.model, run.theta, run.s))
                passes += self._arrive(run, passes)
        # As everywhere: the log-likelihood before the step.
        run.loglik = before
        return passes

    @abstractmethod
    def _advance(self, run: Run) -> int:
        """Move from one accepted point to the next; returns the passes."""

    def _arrive(self, run: Run, passes: int) -> int:
        """Evaluate the map at the current theta, after so many passes; one more."""
        state = run.proxy_state
        state["target"] = run.full_pass(run.k + passes)
        state["s"], state["loglik"] = run.s.copy(), run.loglik
        state["best"] = max(state["best"], run.loglik)
        return 1

    def _settle(self, run: Run, before: float, passes: int) -> int:
        """Evaluate the map after a plain EM step from a point of log-likelihood `before`."""
        self._arrive(run, passes)
        if run.loglik < before:
            # EM itself goes down: it climbs a penalised likelihood, or approximates one.
            run.proxy_state["best"] = run.loglik
            if before - run.loglik > 100.0 * _ROUNDING * abs(before):
                run.proxy_state["downhill"] = 1.0
        return 1

    def _look(self, run: Run) -> _View | None:
        """Take the plain EM step, not yet evaluated; None where its M-step fails."""
        state = run.proxy_state
        f = state["target"] - state["s"]
        state["scale"] = np.maximum(state.get("scale", 0.0), np.abs(f))
        metric = bool(state["metric"])
        place = natural(run.model, run.theta, run.s) if metric else state["s"].copy()
        run.move(state["target"])
        if run.status != 0:
            return None
        if metric:
            state["length"] = abs(float(f @ (natural(run.model, run.theta, run.s) - place)))
        numerical = {name: value.copy() for name, value in run.numerical.items()}
        return _View(f, place, run.s.copy(), run.theta.copy(), run.fast.copy(), numerical)

    def _attempt(self, run: Run, view: _View, proposal: Array) -> tuple[int, bool]:
        """Go to the proposal, or else to the plain step; returns passes and whether it held."""
        state, passes = run.proxy_state, 0
        before = state["loglik"]
        if np.all(np.isfinite(proposal)):
            lowest = state["best"] - max(self.epsilon, _ROUNDING * abs(state["best"]))
            target = run.target
            # The engine's guard halves from here towards the plain step, where the run stands.
            run.move(proposal)
            if run.status == 0 and np.all(np.isfinite(run.theta)):
                passes = self._arrive(run, 0)
                if state["loglik"] >= lowest or self._nearer(run, view.f):
                    return passes, True
            run.s[:], run.theta[:], run.fast[:] = view.s, view.theta, view.fast
            run.numerical, run.status, run.target = view.numerical, 0, target
        state["rejected"] = state.get("rejected", 0.0) + 1.0
        return passes + self._settle(run, before, passes), False

    def _nearer(self, run: Run, f: Array) -> bool:
        """Whether, where the log-likelihood is no measure, the residual is below a former one."""
        state = run.proxy_state
        if "downhill" not in state or not np.isfinite(state["loglik"]):
            return False
        w = weights(state["scale"], state["s"])
        return bool(np.sum(w * (state["target"] - state["s"]) ** 2) < np.sum(w * f**2))

    def _dual(self, run: Run, change: Array) -> Array:
        """``V^-1 ds`` of steps ds, from their changes in dual coordinates."""
        state = run.proxy_state
        return change if state["metric"] else change * weights(state["scale"], state["s"])

    def _judge(self, run: Run, fraction: float, window: int) -> None:
        """Keep what is left to gain; `fraction` is the least observed information just met."""
        state = run.proxy_state
        if state["metric"]:
            met = np.append(state.get("fractions", np.ones(0)), fraction)[-2 * window :]
            state["fractions"] = met
            # Judged at the point the step started from: what is left now is less.
            state["left"] = 0.5 * run.model.n_individuals * state["length"] / float(met.min())
        else:
            values = np.append(state.get("values", np.ones(0)), state["loglik"])[-window - 1 :]
            state["values"] = values
            if values.size > window:
                state["left"] = float(np.abs(np.diff(values)).max())


@dataclass(frozen=True)
class Squarem(_Accelerated):
    """SQUAREM, scheme S3, on the mean statistic.

    Parameters
    ----------
    epsilon : float
        Nats by which the log-likelihood may fall below the best so far.

    Notes
    -----
    A cycle of three passes: with ``s1 = G(s0)``, ``s2 = G(s1)``, ``r = s1 - s0``,
    ``v = (s2 - s1) - r`` and ``alpha = -|r| / |v|``, within [-amax, -1],

        s' = s0 - 2 alpha r + alpha^2 v,      s0 <- G(s')

    (Varadhan and Roland 2008, Scand. J. Statist. 35, 335-353, section 4). amax starts at 1,
    grows by 4 when it is met and the point holds, and shrinks by 4 when it does not (Varadhan
    and Du 2020, J. Statist. Softw. 92(7), section 2). Lengths are those of the module's
    metric; a rejected s' is replaced by s2, from which the next cycle starts.
    """

    name: ClassVar[str] = "squarem"

    def _advance(self, run: Run) -> int:
        """Take the next of the three steps of a cycle."""
        state = run.proxy_state
        phase = int(state.get("phase", 0))
        view = self._look(run)
        if view is None:
            return 1
        if phase != 1:
            # The first step of a cycle, and the one that settles after an extrapolation.
            if phase == 0:
                state["first"], state["first_place"] = state["s"], view.place
            state["phase"] = float((phase + 1) % 3)
            return self._settle(run, state["loglik"], 0)
        limit = state.get("limit", 1.0)
        r = state["s"] - state["first"]
        v = view.f - r
        start = view.place - state["first_place"]
        ahead = (natural(run.model, view.theta, view.s) if state["metric"] else view.s) - view.place
        length = float(r @ self._dual(run, start))
        curvature = float(v @ self._dual(run, ahead - start))
        wanted = np.sqrt(length / curvature) if length > 0.0 and curvature > 0.0 else 1.0
        # Rayleigh's quotient of I - J: at most what S3 takes for the observed fraction.
        fraction = -float(v @ self._dual(run, start)) / length if length > 0.0 else 1.0
        size = min(max(1.0, wanted), limit)
        proposal = state["first"] + 2.0 * size * r + size**2 * v
        passes, held = self._attempt(run, view, proposal)
        state["phase"] = 2.0 if held else 0.0
        if not held:
            state["limit"] = max(4.0, size / 4.0)
        elif size == limit:
            state["limit"] = 4.0 * limit
        self._judge(run, min(max(fraction, LEAST_FRACTION), 1.0), _CYCLES)
        return passes


@dataclass(frozen=True)
class Anderson(_Accelerated):
    """Anderson acceleration of EM with restarts and epsilon-monotonicity, on the mean statistic.

    Parameters
    ----------
    epsilon : float
        Nats by which the log-likelihood may fall below the best so far.
    order : int, optional
        Steps remembered before a restart; by default half the size of the statistic, at
        most 10.

    Notes
    -----
    With f = G(s) - s and the last steps DS, DF of s and f,

        s <- s + f - (DS + DF) g.

    Where the model offers `surrogate`, g solves the projected equations
    ``DS' V^-1 (f - DF g) = 0`` in the information metric. ``-DS' V^-1 DF`` is the observed
    and ``DS' V^-1 DS`` the complete information of the remembered steps, so that
    ``s - DS g`` is the maximiser of the quadratic log-likelihood over their span, as in
    conjugate gradients. In combinations of steps along which the observed information
    is not positive, where the log-likelihood is not concave, a second EM step is taken
    instead. An EM step is lengthened at most `limit` times in any direction; limit
    falls to a quarter of what was used when a point is rejected and grows by 4 when one holds.
    Without `surrogate` g minimises ``|f - DF g|`` with the damping of DAAREM: a ridge
    that shrinks ``|g|^2`` by ``1 / (1 + 1.2^(25 - accepted))``.

    Restarts, order and epsilon-monotonicity are those of DAAREM (Henderson and Varadhan
    2019, J. Comput. Graph. Statist. 28, 834-846); Anderson (1965, J. ACM 12, 547-560);
    for the projected form: Fang and Saad (2009, Numer. Linear Algebra Appl. 16, 197-221).
    """

    order: int | None = None
    name: ClassVar[str] = "anderson"

    def __post_init__(self) -> None:
        """Check the arguments."""
        super().__post_init__()
        if self.order is not None and self.order < 1:
            raise OptionError(f"order={self.order!r} must be at least 1.")

    def _advance(self, run: Run) -> int:
        """Extrapolate from the remembered steps, or take a plain one where there are none."""
        state = run.proxy_state
        view = self._look(run)
        if view is None:
            return 1
        order = self.order or min(_LARGEST_ORDER, -(-run.s.size // 2))
        steps, changes, places = self._remember(run, view)
        if len(steps) == 0:
            return self._settle(run, state["loglik"], 0)
        limit, accepted = state.get("limit", _LARGEST_LIMIT), state.get("accepted", 0.0)
        least = used = 1.0
        if state["metric"]:
            duals = self._dual(run, places)
            g, least, used = projected(steps, changes, duals, view.f, limit)
        else:
            w = np.sqrt(weights(state["scale"], state["s"]))
            g = damped(changes * w, view.f * w, 1.0 / (1.0 + _BASE ** (_DELAY - accepted)))
        proposal = view.f + state["s"] - g @ (steps + changes)
        passes, held = self._attempt(run, view, proposal)
        state["limit"] = min(_LARGEST_LIMIT, 4.0 * limit) if held else max(2.0, used / 4.0)
        state["accepted"] = accepted + float(held)
        self._judge(run, least, order)
        if len(steps) >= order:
            self._restart(run, len(steps))
        return passes

    def _remember(self, run: Run, view: _View) -> tuple[Array, Array, Array]:
        """Add the last step to those remembered; rows are steps of s, of f, and dual."""
        state = run.proxy_state
        new = {"steps": state["s"], "changes": view.f, "places": view.place}
        for name, value in new.items():
            known = state.get(name, np.empty((0, value.size)))
            if f"last_{name}" in state:
                known = np.vstack([known, value - state[f"last_{name}"]])
            state[name], state[f"last_{name}"] = known, value.copy()
        return state["steps"], state["changes"], state["places"]

    def _restart(self, run: Run, count: int) -> None:
        """Forget the steps; damp more if the cycle has lost log-likelihood."""
        state = run.proxy_state
        for name in ("steps", "changes", "places"):
            state[name] = state[name][:0]
        if state["loglik"] < state.get("cycle", -np.inf):
            state["accepted"] = max(state["accepted"] - count, -2.0 * _DELAY)
        state["cycle"] = state["loglik"]
