"""Monte Carlo E-step: exact draws where a model has a sampler, Markov chains elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from saem._laplace import laplace_work
from saem._types import make_visitor
from saem.contract import Array, Model
from saem.estep import _moves
from saem.estep._base import BoundEStep, EStep, VisitAll
from saem.exceptions import OptionError
from saem.schedules import Constant, Schedule, as_schedule

__all__ = ["BlockWalk", "CoordinateWalk", "IndependentLaplace", "MonteCarlo", "PriorProposal"]

#: Searches for a mode from draws of the prior, besides that from its mean: before the
#: first iteration, when the prior is wide and chains are placed, and at a refresh.
_FIRST_SEARCHES, _LATER_SEARCHES = 4, 1

_KINDS = ("prior", "coordinate", "block", "laplace")


@dataclass(frozen=True)
class PriorProposal:
    """Independent proposals from the prior N(mean_i, Omega); nothing to tune.

    Accepted with probability ``min(1, p(y | z') / p(y | z))``.

    Parameters
    ----------
    sweeps : int
        Moves per cycle.
    """

    sweeps: int = 2
    code: ClassVar[int] = _moves.PRIOR


@dataclass(frozen=True)
class CoordinateWalk:
    """Random walk of one coordinate after the other, with adapted scales.

    Parameters
    ----------
    sweeps : int
        Moves per cycle.
    target : float
        Acceptance rate the scales are adapted to.
    """

    sweeps: int = 2
    target: float = 0.44
    code: ClassVar[int] = _moves.COORDINATE


@dataclass(frozen=True)
class BlockWalk:
    """Random walk of several coordinates at once, in the shape of the Laplace covariance.

    Parameters
    ----------
    sweeps : int
        Moves per cycle.
    target : float
        Acceptance rate the scales are adapted to.
    size : int, optional
        Whitened coordinates that move at once; all by default.
    """

    sweeps: int = 2
    target: float = 0.3
    size: int | None = None
    code: ClassVar[int] = _moves.BLOCK


@dataclass(frozen=True)
class IndependentLaplace:
    """Independent Student proposals around each individual's posterior mode.

    Mode and covariance are those of a Laplace approximation; the tails of a
    Student distribution with 4 degrees of freedom let a chain leave an
    inferior mode (Karimi, Lavielle and Moulines 2020, Comput. Statist. Data
    Anal. 141, 123-138, with a Gaussian in place of the Student).

    Parameters
    ----------
    sweeps : int
        Moves per cycle.
    """

    sweeps: int = 1
    code: ClassVar[int] = _moves.LAPLACE


Move = PriorProposal | CoordinateWalk | BlockWalk | IndependentLaplace


def default_moves() -> tuple[Move, ...]:
    """Moves of one cycle; see the design notes for the reasons."""
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
        moves, n_normal, n_uniform = _encode(spec.moves, d)
        targets = [
            next((m.target for m in spec.moves if isinstance(m, kind)), 0.4)
            for kind in (CoordinateWalk, BlockWalk)
        ]
        header = [self.n_chains, 1, d, latent_size, 0.0, n_normal, n_uniform, *targets]
        self.laplace = make_visitor(_moves.visit_laplace)
        super().__init__(
            model,
            make_visitor(_moves.visit_chains),
            n_draws=self.n_chains,
            settings=np.array([*header, *moves]),
            memory_size=_moves.memory_size(self.n_chains, d, latent_size),
            work_size=_moves.work_size(n_normal, n_uniform, d, latent_size) + laplace_work(d),
        )
        self.constant_size = isinstance(n_draws, Constant)
        self._set_cycles(0)

    def _set_cycles(self, k: int) -> None:
        per_chain = max(1, -(-round(self.schedule(k)) // self.n_chains))
        self.settings[1] = per_chain * self.spec.path
        self.n_draws = per_chain * self.spec.path * self.n_chains

    @property
    def evals(self) -> int:
        """Simulated statistics: the states of a path are averaged into one."""
        return self.n_draws // self.spec.path

    def _scales(self) -> slice:
        start = self.n_chains * self.model.latent_size
        return slice(start, start + 2 * self.model.n_coords)

    def before(self, k: int, gamma: float, visit_all: VisitAll) -> None:
        """Refresh the Laplace approximations when due; set draws and adaptation."""
        exploring = gamma in (0.0, 1.0)
        if k == 0 or (exploring and k in self.spec.refresh):
            self.settings[1] = _FIRST_SEARCHES if k == 0 else _LATER_SEARCHES
            self.settings[4] = 1.0 if k == 0 else 0.0
            visit_all(self.laplace, self.settings)
        self._set_cycles(k)
        # Diminishing adaptation, none once the steps decrease: the chain of the
        # smoothing phase is then a fixed kernel, as the convergence theory wants.
        self.settings[4] = (k + 1.0) ** -0.6 if exploring else 0.0

    def after(self, k: int) -> None:
        """Share the scales among individuals if adaptation is pooled."""
        if self.spec.adaptation == "pooled" and self.settings[4] > 0.0:
            scales = self.memories[:, self._scales()]
            scales[:] = scales.mean(axis=0)

    def info(self) -> dict[str, Any]:
        """Acceptance rate of each kind of move, over individuals and iterations."""
        counts = self.memories[:, -2 * _moves.N_KINDS :].sum(axis=0)
        tried, accepted = np.split(counts, 2)
        return {
            "acceptance": {
                kind: float(a / t) for kind, t, a in zip(_KINDS, tried, accepted, strict=True) if t
            },
            "n_chains": self.n_chains,
        }


def _encode(moves: Sequence[Move], d: int) -> tuple[list[float], int, int]:
    """Moves as numbers, with the normal and uniform numbers that one cycle uses."""
    encoded: list[float] = []
    n_normal = n_uniform = 0
    for move in moves:
        size = min(d, getattr(move, "size", None) or d)
        encoded += [move.code, move.sweeps, size]
        if move.code == _moves.COORDINATE:
            normals, uniforms = d, d
        elif move.code == _moves.BLOCK:
            normals, uniforms = d, 2 if size < d else 1
        elif move.code == _moves.LAPLACE:
            normals, uniforms = d, 1 + _moves.STUDENT_DF // 2
        else:
            normals, uniforms = d, 1
        n_normal += move.sweeps * normals
        n_uniform += move.sweeps * uniforms
    return encoded, n_normal, n_uniform


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
        only). Methods that visit batches look at the first iteration of each pass.
    """

    moves: tuple[Move, ...] = field(default_factory=default_moves)
    n_chains: int | None = None
    n_draws: float | Schedule | None = None
    path: int = 1
    adaptation: str = "individual"
    exact: bool = True
    refresh: tuple[int, ...] = (5, 20, 50)
    name: ClassVar[str] = "Monte Carlo"
    needs: ClassVar[str] = "gaussian"
    gives_loglik: ClassVar[bool] = False

    def bind(self, model: Model) -> BoundEStep:
        """Bind to a model: exact draws if it has them, else Markov chains."""
        if self.adaptation not in ("individual", "pooled"):
            raise OptionError(f"adaptation={self.adaptation!r} must be 'individual' or 'pooled'.")
        if self.path < 1:
            raise OptionError(f"path={self.path!r} must be at least 1.")
        n_draws = as_schedule(1.0 if self.n_draws is None else self.n_draws, "n_draws")
        if self.exact and "draw" in model.capabilities:
            return _BoundDraws(model, n_draws)
        self.check(model)
        if not self.moves:
            raise OptionError("moves is empty: a Markov chain needs at least one kind of move.")
        return _BoundChains(model, self, n_draws)


def memory_views(bound: BoundEStep) -> dict[str, Array]:
    """Named parts of the memories of chains: for diagnostics and for inference."""
    model = bound.model
    d, latent_size = model.n_coords, model.latent_size
    n_chains = int(bound.settings[0])
    start = n_chains * latent_size
    n = bound.memories.shape[0]
    return {
        "chains": bound.memories[:, :start].reshape(n, n_chains, latent_size),
        "coordinate_scales": bound.memories[:, start : start + d],
        "block_scales": bound.memories[:, start + d : start + 2 * d],
        "mode": bound.memories[:, start + 2 * d : start + 3 * d],
        "factor": bound.memories[:, start + 3 * d : start + 3 * d + d * d].reshape(n, d, d),
    }
