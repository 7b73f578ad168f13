"""Monte Carlo E-step: exact draws where a model has a sampler, Markov chains elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from saem._laplace import laplace_work
from saem._types import make_visitor
from saem.contract import Array, Model
from saem.estep import _layout as layout
from saem.estep import _moves
from saem.estep._base import BoundEStep, EStep, VisitAll
from saem.estep._cycle import active_moves, check_moves, encode
from saem.estep.moves import BlockWalk, CoordinateWalk, IndependentLaplace, Move, PriorProposal
from saem.exceptions import OptionError, Problems
from saem.schedules import Constant, Schedule, as_schedule

__all__ = ["MonteCarlo", "default_moves", "memory_views"]

#: Searches for modes of all individuals together, up to which there may be four times as many.
_ALL_SEARCHES = 800
#: Independent proposals by which an individual is judged, at least.
_JUDGED = 50


def default_moves() -> tuple[Move, ...]:
    """Walks alone: two sweeps each of the prior, coordinate and block kinds."""
    return (PriorProposal(2), CoordinateWalk(2), BlockWalk(2))


class _BoundDraws(BoundEStep):
    """Exact independent draws; their number may grow."""

    def __init__(self, model: Model, n_draws: Schedule) -> None:
        self.schedule = n_draws
        first = max(1, round(n_draws(0)))
        super().__init__(
            model,
            make_visitor(_moves.visit_draws),
            n_draws=first,
            settings=np.array([float(first)]),
        )
        self.constant_size = isinstance(n_draws, Constant)

    @property
    def evals(self) -> int:
        """Each draw is a simulated statistic."""
        return self.n_draws

    def before(self, k: int, gamma: float, visit_all: VisitAll) -> None:
        """Set the number of draws of iteration k."""
        self.n_draws = max(1, round(self.schedule(k)))
        self.settings[0] = self.n_draws


class _BoundChains(BoundEStep):
    """Chains of every individual, their scales and their Laplace approximations."""

    def __init__(self, model: Model, spec: MonteCarlo, n_draws: Schedule) -> None:
        self.spec = spec
        self.schedule = n_draws
        d, latent_size = model.n_coords, model.latent_size
        self.n_chains = spec.n_chains or max(1, -(-50 // model.n_individuals))
        every = (*spec.moves, *spec.fallback)
        # Random numbers of a cycle, at most: schedules and the fallback only take fewer.
        uses = [encode(moves, d)[1:] for moves in (spec.moves, spec.fallback)]
        most = (max(uses[0][0], uses[1][0]), max(uses[0][1], uses[1][1]))
        settings = np.zeros(layout.HEADER + layout.PER_MOVE * len(every))
        settings[[0, 1, 2, 3]] = self.n_chains, 1, d, latent_size
        for kind in range(layout.N_KINDS):
            targets = [getattr(m, "target", 0.4) for m in every if m.code == kind]
            settings[layout.TARGETS + kind] = targets[0] if targets else 0.4
        gradients = any(move.code >= layout.FIRST_GRADIENT for move in every)
        visitor = _moves.visit_gradient_chains if gradients else _moves.visit_chains
        self.laplace = make_visitor(_moves.visit_laplace)
        self.from_prior = spec.start == "prior"
        self.needs_laplace = not self.from_prior or any(move.needs_laplace for move in every)
        super().__init__(
            model,
            make_visitor(visitor),
            n_draws=self.n_chains,
            settings=settings,
            memory_size=layout.memory_size(self.n_chains, d, latent_size),
            work_size=layout.work_size(*most, d, latent_size) + laplace_work(d),
        )
        self.parts = layout.memory_parts(self.n_chains, d, latent_size)
        self.constant_size = isinstance(n_draws, Constant)
        self._every = every
        #: Which moves the settings are made for; none yet, and unknown to a run that is resumed.
        self._active: list[bool] = []
        self._set_moves(0)
        self._set_cycles(0)

    def _set_moves(self, k: int) -> None:
        """Write the moves that are active in iteration k into the settings."""
        d, start = self.model.n_coords, layout.HEADER
        for choice, moves in ((5, self.spec.moves), (8, self.spec.fallback)):
            active = active_moves(moves, k)
            numbers, n_normal, n_uniform = encode(active, d)
            self.settings[choice : choice + 3] = len(active), n_normal, n_uniform
            self.settings[start : start + len(numbers)] = numbers
            if choice == 8:
                self.settings[11] = start
            start += layout.PER_MOVE * len(moves)

    def _set_cycles(self, k: int) -> None:
        per_chain = max(1, -(-round(self.schedule(k)) // self.n_chains))
        self.settings[1] = per_chain * self.spec.path
        self.n_draws = per_chain * self.spec.path * self.n_chains

    @property
    def evals(self) -> int:
        """Simulated statistics: the states of a path are averaged into one."""
        return self.n_draws // self.spec.path

    def before(self, k: int, gamma: float, visit_all: VisitAll) -> None:
        """Refresh the Laplace approximations when due; set moves, draws and adaptation."""
        exploring = gamma in (0.0, 1.0)
        anew = k == 0 or k in self.spec.refresh
        due = k == 0 or (exploring and (anew or k in self.spec.follow))
        if due and self.needs_laplace:
            first, later = self.spec.searches, min(self.spec.searches, 1)
            self.settings[1] = first if k == 0 else later if anew else -1.0
            self.settings[4] = 1.0 if k == 0 else 0.0
            visit_all(self.laplace, self.settings)
            more = min(4 * first, _ALL_SEARCHES // self.model.n_individuals)
            if k == 0 and more > first and self.memories[:, self.parts.several].any():
                self.settings[1] = more
                visit_all(self.laplace, self.settings)
        if k == 0 and self.from_prior:
            self.settings[4] = float(self.needs_laplace)
            visit_all(make_visitor(_moves.visit_prior), self.settings)
        if due:
            self._judge(renew=True)
        elif exploring:
            self._judge(renew=False)
        active = [move.active(k) for move in self._every]
        if active != self._active:
            self._set_moves(k)
            self._active = active
        self._set_cycles(k)
        # Diminishing adaptation, none once the steps decrease: the chain of the
        # smoothing phase is then a fixed kernel, as the convergence theory wants.
        self.settings[4] = (k + 1.0) ** -0.6 if exploring else 0.0

    def _judge(self, renew: bool) -> None:
        """Put individuals on the fallback moves whose independent proposals are not accepted.

        Each stretch of at least `_JUDGED` proposals is judged by itself; new modes are a new
        chance.
        """
        if not self.spec.fallback:
            return
        at = self.parts
        counts = self.memories[:, [at.tried + layout.LAPLACE, at.accepted + layout.LAPLACE]]
        renewed = self.memories[:, at.renewed : at.renewed + 2]
        if renew:
            renewed[:] = counts
            self.memories[:, at.fallback] = 0.0
            return
        tried, accepted = (counts - renewed).T
        due = tried >= _JUDGED
        poor = due & (accepted < self.spec.fallback_below * tried)
        self.memories[poor, at.fallback] = 1.0
        renewed[due] = counts[due]

    def after(self, k: int) -> None:
        """Share the scales among individuals if adaptation is pooled."""
        if self.spec.adaptation == "pooled" and self.settings[4] > 0.0:
            at = self.parts
            for part in (slice(at.scales, at.mode), slice(at.steps, at.tried)):
                self.memories[:, part] = self.memories[:, part].mean(axis=0)

    def info(self) -> dict[str, Any]:
        """Acceptance rate of each kind of move, and which individuals are on the fallback.

        Rates are over individuals and iterations; individuals are counted from 0.
        """
        at = self.parts
        tried = self.memories[:, at.tried : at.accepted].sum(axis=0)
        accepted = self.memories[:, at.accepted : at.evaluations].sum(axis=0)
        found: dict[str, Any] = {
            "acceptance": {
                kind: float(a / t)
                for kind, t, a in zip(layout.KINDS, tried, accepted, strict=True)
                if t
            },
            "n_chains": self.n_chains,
        }
        if self.spec.fallback:
            found["on_fallback"] = np.flatnonzero(self.memories[:, at.fallback]).tolist()
        return found


@dataclass(frozen=True)
class MonteCarlo(EStep):
    """Draws from each individual's posterior.

    Parameters
    ----------
    moves : sequence of moves, optional
        Kinds of Markov chain moves of one cycle, run in order; each leaves the
        posterior invariant, hence so does the cycle.
    n_chains : int, optional
        Chains per individual; by default so many that there are 50 in all.
    n_draws : float or Schedule, optional
        Draws per individual and iteration, a function of the iteration if they
        are to grow (MCEM); at least one per chain. Default: one per chain, or
        one where the model has an exact sampler.
    path : int
        Successive states of a chain that are averaged into one simulated
        statistic: cheaper than a draw, since each takes one cycle of moves
        only, and less noisy, as far as the states differ.
    adaptation : {"individual", "pooled"}
        Whether scales of the walks are adapted per individual or shared.
    exact : bool, optional
        Draw exactly where the model can; False insists on Markov chains.
    refresh : tuple of int
        Iterations at which modes and Laplace covariances are found anew (during exploration
        only). Methods that visit batches look at the first iteration of each pass. Proposals
        around older modes remain exact; they are accepted less often as theta moves.
    follow : tuple of int
        Iterations at which the modes of before are only followed as theta moves, which takes a
        third of the time.
    searches : int
        Searches from draws of the prior, besides that from its mean, before the first iteration,
        when the prior is wide; up to four times as many for less than 200 individuals if some of
        these have several modes, since chains may never leave the lesser of two (flip-flop
        kinetics). One at most when modes are found anew.
    start : {"mode", "prior"}
        Where chains begin: at the mode of each posterior, or at draws of the prior. Modes are
        searched for only where the start or a move needs them.
    fallback : sequence of moves, optional
        Moves in place of `moves` for individuals whose `IndependentLaplace` proposals are
        accepted too rarely, decided from the counts during exploration, until modes are
        found anew. Empty: no such decision.
    fallback_below : float
        Acceptance rate below which that happens.
    """

    moves: tuple[Move, ...] = field(default_factory=default_moves)
    n_chains: int | None = None
    n_draws: float | Schedule | None = None
    path: int = 1
    adaptation: str = "individual"
    exact: bool = True
    refresh: tuple[int, ...] = (5, 20, 50)
    follow: tuple[int, ...] = ()
    searches: int = 4
    start: str = "mode"
    fallback: tuple[Move, ...] = ()
    fallback_below: float = 0.1
    name: ClassVar[str] = "Monte Carlo"
    needs: ClassVar[str] = "gaussian"
    gives_loglik: ClassVar[bool] = False

    def bind(self, model: Model) -> BoundEStep:
        """Bind to a model: exact draws if it has them, else Markov chains."""
        problems = Problems("the Monte Carlo E-step")
        if self.adaptation not in ("individual", "pooled"):
            problems.add(f"adaptation={self.adaptation!r} must be 'individual' or 'pooled'")
        if self.start not in ("mode", "prior"):
            problems.add(f"start={self.start!r} must be 'mode' or 'prior'")
        if self.searches < 0:
            problems.add(f"searches={self.searches!r} must not be negative")
        if self.path < 1:
            problems.add(f"path={self.path!r} must be at least 1")
        for text in check_moves(self.moves) if self.moves else ():
            problems.add(text)
        if self.fallback:
            for text in check_moves(self.fallback, "fallback"):
                problems.add(text)
            if not 0.0 < self.fallback_below < 1.0:
                problems.add(f"fallback_below={self.fallback_below!r} must lie between 0 and 1")
            if not any(isinstance(move, IndependentLaplace) for move in self.moves):
                problems.add(
                    "fallback is for individuals whose IndependentLaplace proposals fail, but "
                    "moves has none of those"
                )
        problems.raise_if_any(OptionError)
        n_draws = as_schedule(1.0 if self.n_draws is None else self.n_draws, "n_draws")
        if self.exact and "draw" in model.capabilities:
            return _BoundDraws(model, n_draws)
        self.check(model)
        if not self.moves:
            raise OptionError("moves is empty: a Markov chain needs at least one kind of move.")
        return _BoundChains(model, self, n_draws)


def memory_views(bound: BoundEStep) -> dict[str, Array]:
    """Named parts of the memories of chains: for diagnostics and for inference.

    Parameters
    ----------
    bound : BoundEStep
        Chains bound to a model.

    Returns
    -------
    dict of str to ndarray
        Views, one row an individual.
    """
    model, memories = bound.model, bound.memories
    n, d, latent_size = len(memories), model.n_coords, model.latent_size
    n_chains = int(bound.settings[0])
    at = layout.memory_parts(n_chains, d, latent_size)
    return {
        "chains": memories[:, : at.scales].reshape(n, n_chains, latent_size),
        "coordinate_scales": memories[:, at.scales : at.blocks],
        "block_scales": memories[:, at.blocks : at.mode],
        "mode": memories[:, at.mode : at.factor],
        "factor": memories[:, at.factor : at.steps].reshape(n, d, d),
        "gradient_steps": memories[:, at.steps : at.tried],
        "tried": memories[:, at.tried : at.accepted],
        "accepted": memories[:, at.accepted : at.evaluations],
        "evaluations": memories[:, at.evaluations],
        "fallback": memories[:, at.fallback],
    }
