"""Two-timescale stochastic EM: a fast step for batches, a slow one for simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from saem.algorithms._base import (
    Algorithm,
    Step,
    batch_of,
    iterations,
    on_passes,
    simulated,
    step_of,
)
from saem.contract import Model
from saem.engine import Combination
from saem.estep import MonteCarlo
from saem.proxies import Anchor, Incremental, MemoryPair, Proxy
from saem.schedules import Constant, Schedule, TwoPhase

__all__ = ["FITTEM", "ITTEM", "VRTTEM", "IncrementalSAEM"]


#: Draws of all individuals together below which each gets several. With few individuals a
#: batch's noise is large, and a component that happens to be drawn by nobody never comes back.
_DRAWS = 500


def _slow_steps() -> TwoPhase:
    """Steps of the slow sequence, in passes: 1 for five, then decreasing."""
    return TwoPhase(burn_in=0, exploration=5, power=0.7, delay=2.0)


@dataclass(frozen=True)
class ITTEM(Algorithm):
    """Incremental two-timescale EM (mini-batch SAEM): refresh a batch of simulated statistics.

    Parameters
    ----------
    batch_size : int, optional
        Individuals per iteration; by default a twentieth of them, at most 64.
    gamma : Schedule
        Steps of the slow sequence, as a function of the passes done, not of iterations: a
        step that decreases with each batch would vanish before the first pass is over.
    order : {"shuffle", "iid"}
        A fresh permutation each pass, or draws with replacement.
    estep : MonteCarlo, optional
        Draws; by default those of `SAEM`, exact ones 500 in all at least.
    n_epochs : float
        Passes over the data, besides the initial one.
    n_iter : int, optional
        Iterations in place of `n_epochs`.
    averaged : float
        Last fraction of the iterations whose statistics are averaged for the estimate.

    Notes
    -----
    ``mbar <- mbar + sum_I (T_i - m_i) / n``, ``s <- s + gamma (mbar - s)``, ``theta <- T(s)`` with
    T_i the simulated statistic of individual i (Karimi and Li 2022, "Two-timescale stochastic
    EM algorithms", table 1, with rho = 1; mini-batch SAEM of Kuhn, Matias and Rebafka 2020, Stat.
    Comput. 30, 1725-1739). With everybody in the batch it is `SAEM`.
    """

    batch_size: int | None = None
    gamma: Schedule = field(default_factory=_slow_steps)
    order: str = "shuffle"
    estep: MonteCarlo | None = None
    n_epochs: float = 50
    n_iter: int | None = None
    averaged: float = 0.5
    name: ClassVar[str] = "ittem"

    def _proxy(self, batch: int) -> Proxy:
        return Incremental(batch, self.order)

    def _rho(self, model: Model, batch: int) -> Schedule:
        return Constant(1.0)

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        batch = batch_of(model, self.batch_size)
        n_iter = self.n_iter or iterations(model, batch, self.n_epochs) + 1
        start = n_iter - round(self.averaged * n_iter)
        return Combination(
            self.name, simulated(model, self.estep, _DRAWS), self._proxy(batch),
            self._rho(model, batch), on_passes(self.gamma, model, batch), n_iter,
            average_from=start if start < n_iter else None,
        )  # fmt: skip


@dataclass(frozen=True)
class IncrementalSAEM(ITTEM):
    """Mini-batch SAEM; another name of `ITTEM`.

    Parameters
    ----------
    batch_size, gamma, order, estep, n_epochs, n_iter, averaged
        As for `ITTEM`.

    Notes
    -----
    The update is that of `ITTEM` (Kuhn, Matias and Rebafka 2020, Stat. Comput. 30, 1725-1739).
    """

    name: ClassVar[str] = "mini-batch-saem"


@dataclass(frozen=True)
class VRTTEM(ITTEM):
    """Variance-reduced two-timescale EM: SVRG against the batches' noise.

    Parameters
    ----------
    batch_size, gamma, order, estep, n_epochs, n_iter, averaged
        As for `ITTEM`.
    step : "auto", float, Schedule or TheoryStep
        Step rho of the fast sequence; ``"auto"`` is ``TheoryStep(1)``, the rule of the paper.
    inner : int, optional
        Iterations from one anchor to the next; n / batch_size by default.

    Notes
    -----
    ``r <- r + rho (Abar + mean_I (T_i - a_i) - r)``, ``s <- s + gamma (r - s)``, with Abar
    the mean of the statistics a_i simulated at the last anchor (Karimi and Li 2022, table 1;
    the full statistic at the anchor as in their appendix).
    """

    step: Step = "auto"
    inner: int | None = None
    name: ClassVar[str] = "vrttem"

    def _proxy(self, batch: int) -> Proxy:
        return Anchor(batch, self.order, self.inner)

    def _rho(self, model: Model, batch: int) -> Schedule:
        return step_of(self.step, model, batch, adaptive=False)


@dataclass(frozen=True)
class FITTEM(ITTEM):
    """Fast incremental two-timescale EM: SAGA against the batches' noise.

    Parameters
    ----------
    batch_size, gamma, order, estep, n_epochs, n_iter, averaged
        As for `ITTEM`.
    step : "auto", float, Schedule or TheoryStep
        Step rho of the fast sequence; ``"auto"`` is ``TheoryStep(1)``, the rule of the paper.

    Notes
    -----
    ``r <- r + rho (mbar + mean_I (T_i - m_i) - r)``, ``s <- s + gamma (r - s)``, then the memory of
    an independent batch J is refreshed (Karimi and Li 2022, table 1). Remembered are the
    simulated statistics; a member of both batches is simulated once.
    """

    step: Step = "auto"
    name: ClassVar[str] = "fittem"

    def _proxy(self, batch: int) -> Proxy:
        return MemoryPair(batch, self.order)

    def _rho(self, model: Model, batch: int) -> Schedule:
        return step_of(self.step, model, batch, adaptive=False)
