"""Monte Carlo EM that chooses its numbers of draws: ascent-based, and Booth and Hobert's.

Both are full passes whose draws are kept, so that the Monte Carlo error of the step can
be computed before it is taken. One step of the engine is one pass; further draws at the
same theta are further passes, pooled with the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from saem import _draw_noise
from saem._calls import maximize, surrogate
from saem.contract import Array
from saem.exceptions import OptionError
from saem.proxies import Proxy
from saem.schedules import Constant

if TYPE_CHECKING:
    from saem.engine import Run

__all__ = ["AscentBased", "BoothHobert"]

#: Largest statistic whose covariance is formed.
_LARGEST_STATISTIC = 200
#: Step of the delta method, relative to the standard deviation of the statistic.
_DELTA_STEP = 1e-3


def _quantile(alpha: float) -> float:
    return NormalDist().inv_cdf(1.0 - alpha)


@dataclass(frozen=True)
class _Automatic(Proxy):
    """What both rules share: passes with a chosen number of draws, pooled while theta stays.

    Parameters
    ----------
    n_draws : int
        Draws per individual to begin with, at least 4.
    limit : int
        Draws per individual and pass are never more.
    """

    n_draws: int = 10
    limit: int = 20_000
    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the arguments."""
        if self.n_draws < 4:
            raise OptionError(
                f"n_draws={self.n_draws!r} must be at least 4, to see their variance."
            )
        if self.limit < self.n_draws:
            raise OptionError(f"limit={self.limit!r} must be at least n_draws={self.n_draws}.")

    def check(self, run: Run) -> None:
        """Refuse an E-step without draws."""
        estep = run.algorithm.estep
        if estep.gives_loglik:
            raise OptionError(
                f"{self.name} chooses numbers of draws; the {estep.name} E-step makes none. "
                "Remedy: use saem.MonteCarlo()."
            )

    def start(self, run: Run) -> None:
        """Set the first number of draws."""
        run.proxy_state |= {"draws": float(self.n_draws), "pooled": 0.0, "left": np.nan}

    def draw(self, run: Run) -> Array:
        """One pass; returns the statistic pooled over the passes at this theta."""
        state = run.proxy_state
        run.bound.schedule = Constant(state["draws"])  # type: ignore[attr-defined]
        target = run.full_pass(run.k)
        if state["pooled"] > 0.0:
            share = run.bound.n_draws / (state["pooled"] + run.bound.n_draws)
            target = state["target"] + share * (target - state["target"])
        state["pooled"] += run.bound.n_draws
        state["target"] = target
        return target.copy()

    def batch_length(self, run: Run) -> int:
        """Draws per batch: one where they are independent, else their number's square root."""
        independent = run.bound.memories.size == 0
        return 1 if independent else max(1, math.isqrt(run.bound.n_draws))

    def accept(self, run: Run, target: Array) -> None:
        """Take the step and begin anew at its end."""
        run.move(target)
        run.proxy_state["pooled"] = 0.0

    def left(self, run: Run) -> float:
        """Bound on what is still to gain, in nats; NaN before there is one."""
        return float(run.proxy_state["left"])


@dataclass(frozen=True)
class AscentBased(_Automatic):
    """Draw until the step is sure to go up (Caffo, Jank and Jones 2005, JRSS B 67, 235-251).

    With ``dQ = Q(theta' | theta) - Q(theta | theta)`` and its Monte Carlo standard error
    ASE: a step is taken when ``dQ - z_alpha ASE > 0``; until then `fraction` of the draws
    are added. The next iteration starts with ``ASE^2 M (z_alpha + z_beta)^2 / dQ^2`` draws, never
    fewer than before. Over is when ``dQ + z_gamma ASE`` is below the tolerance.

    Parameters
    ----------
    n_draws, limit : int
        Draws to begin with, and most draws, per individual.
    alpha, beta, gamma : float
        Tail probabilities of the three tests.
    fraction : float
        Draws are added by this fraction of theirs.
    """

    alpha: float = 0.25
    beta: float = 0.25
    gamma: float = 0.1
    fraction: float = 1.0 / 3.0
    name: ClassVar[str] = "ascent-based"

    def check(self, run: Run) -> None:
        """Require the surrogate."""
        super().check(run)
        if "surrogate" not in run.model.capabilities:
            raise OptionError(
                "ascent-based numbers of draws need a model that tells what its M-step maximises "
                f"('surrogate'); {run.model.name} does not. Remedy: MCEM(n_draws=...) with a "
                "number, a schedule or BoothHobert()."
            )

    def step(self, run: Run) -> int:
        """One pass, and the step if it is sure enough or draws are at their limit."""
        model, state = run.model, run.proxy_state
        target = self.draw(run)
        code, new = maximize(model.kernels, target, run.theta)
        if code != 0:
            self.accept(run, target)
            return 1
        n = model.n_individuals
        gain = surrogate(model.kernels, target, new) - surrogate(model.kernels, target, run.theta)
        variance = _draw_noise.gain_variance(
            model.kernels, model.values, model.offsets, run.records, n, model.latent_size,
            self.batch_length(run), new, run.theta, run.s.size,
        )  # fmt: skip
        pooled = state["pooled"]
        error = math.sqrt(variance * run.bound.n_draws / pooled)
        gain *= n
        state["left"] = gain + _quantile(self.gamma) * error
        if gain - _quantile(self.alpha) * error > 0.0 or pooled >= self.limit:
            z = _quantile(self.alpha) + _quantile(self.beta)
            wanted = error**2 * pooled * z * z / gain**2 if gain > 0.0 else 0.0
            first = max(state.get("first", float(self.n_draws)), min(wanted, float(self.limit)))
            state["first"] = state["draws"] = float(math.ceil(first))
            self.accept(run, target)
        else:
            state["draws"] = float(max(4, math.ceil(self.fraction * pooled)))
        return 1


@dataclass(frozen=True)
class BoothHobert(_Automatic):
    """More draws when the step drowns in its noise (Booth and Hobert 1999, JRSS B 61, 265-285).

    After each step the Monte Carlo covariance of the new parameters is found by the delta
    method, ``J cov(sbar) J'``. If the previous parameters lie in the confidence ellipsoid
    around the new ones, the step says nothing, and draws are added by a fraction of theirs.

    Parameters
    ----------
    n_draws, limit : int
        Draws to begin with, and most draws, per individual.
    alpha : float
        One minus the confidence of the ellipsoid.
    fraction : float
        Draws are added by this fraction of theirs.
    """

    alpha: float = 0.25
    fraction: float = 1.0 / 3.0
    name: ClassVar[str] = "Booth-Hobert"

    def check(self, run: Run) -> None:
        """Refuse statistics whose covariance would be too large."""
        super().check(run)
        if run.s.size > _LARGEST_STATISTIC:
            raise OptionError(
                f"Booth and Hobert's rule forms the covariance of the statistic, whose size is "
                f"{run.s.size} here and may be {_LARGEST_STATISTIC}. Remedy: AscentBased(), or a "
                "schedule."
            )

    def step(self, run: Run) -> int:
        """One pass, one step, and the number of draws of the next."""
        from scipy.stats import chi2

        model, state = run.model, run.proxy_state
        before = model.params_of(run.theta)
        target = self.draw(run)
        self.accept(run, target)
        if run.status != 0:
            return 1
        covariance = np.empty((run.s.size, run.s.size))
        _draw_noise.statistic_covariance(
            model.kernels, model.values, model.offsets, run.records, model.n_individuals,
            model.latent_size, self.batch_length(run), covariance,
        )  # fmt: skip
        noise = self._delta(run, target, covariance)
        change = model.params_of(run.theta) - before
        values, vectors = np.linalg.eigh(noise)
        kept = values > 1e-10 * max(float(values.max()), 1e-300)
        along = (vectors.T @ change)[kept]
        distance = float(np.sum(along**2 / values[kept]))
        if distance <= chi2.ppf(1.0 - self.alpha, int(kept.sum())):
            more = math.ceil((1.0 + self.fraction) * state["draws"])
            state["draws"] = float(min(self.limit, more))
        return 1

    def _delta(self, run: Run, target: Array, covariance: Array) -> Array:
        """Covariance of the parameters from that of the statistic."""
        model = run.model
        sd = np.sqrt(np.diag(covariance))
        columns = []
        for m in range(target.size):
            step = _DELTA_STEP * sd[m]
            ends = []
            for sign in (1.0, -1.0):
                s = target.copy()
                s[m] += sign * step
                ends.append(model.params_of(maximize(model.kernels, s, run.theta)[1]))
            columns.append((ends[0] - ends[1]) / (2.0 * step) if step > 0.0 else 0.0 * ends[0])
        jacobian = np.array(columns).T
        return np.asarray(jacobian @ covariance @ jacobian.T)
