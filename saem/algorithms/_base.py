"""What the algorithms share: the base class and the choices that depend on the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields, replace
from typing import TYPE_CHECKING, ClassVar

from saem.contract import Model
from saem.engine import Combination
from saem.estep import BlockWalk, EStep, Exact, IndependentLaplace, MonteCarlo, Quadrature
from saem.estep.quadrature import quadrature_dimension
from saem.exceptions import OptionError
from saem.schedules import Adaptive, Constant, OnPasses, Schedule, TheoryStep, as_schedule

if TYPE_CHECKING:
    from saem.record import FitRecord

__all__ = ["SAEM_MOVES", "Algorithm", "Step"]

#: What a `step=` argument may be.
Step = float | str | Schedule | TheoryStep

#: Moves of one cycle of SAEM; the reasons stand in `SAEM`.
SAEM_MOVES = (BlockWalk(1), IndependentLaplace(1))
#: From this number of individuals on, short paths give Monte Carlo error enough below
#: the standard errors.
_MANY = 400
#: Largest batch chosen for a user: beyond it a batch saves little more of the M-step's cost.
_LARGEST_BATCH = 64
#: Batches in a pass that are chosen for a user, where individuals are few.
_BATCHES = 20
#: Scale of the theory's step where it is chosen for a user: over mixtures of 1e3 to 1e5 rows and
#: batches of 1 to 256, within a factor 1.5 of the best constant (vignette on steps).
_SCALE = 2.0
#: Adaptive steps never fall below this fraction of it: the theory's order is safe.
_LEAST = 0.25


class Algorithm(ABC):
    """Base of the algorithms."""

    #: Name by which `fit` knows it.
    name: ClassVar[str]
    #: What its estimates maximise, where that is another thing than the likelihood.
    objective: ClassVar[str] = ""

    @abstractmethod
    def combine(self, model: Model) -> Combination:
        """Return the three parts and the length of a run on this model."""

    def phases(self) -> tuple[Algorithm, ...]:
        """Return the algorithms that run one after the other; one, but for a sequence."""
        return (self,)

    def needed(self, before: FitRecord) -> bool:
        """Whether the phase is to be run after another one; for a sequence's later phases."""
        return True

    @property
    def length(self) -> int | None:
        """Iterations that are planned, where that does not depend on the model."""
        return getattr(self, "n_iter", None)

    def with_accuracy(self, accuracy: float) -> Algorithm:
        """Return the algorithm that goes on until its estimates are that accurate.

        Parameters
        ----------
        accuracy : float
            Distance from the maximum, in standard errors.
        """
        raise OptionError(
            f"{self.name} does not know how accurate its estimates are, so that accuracy="
            f"{accuracy!r} cannot be asked of it. Remedy: an algorithm of the EM family with full "
            "passes, 'saem', or a saem.Sequence that ends with one."
        )

    def with_iterations(self, n_iter: int) -> Algorithm:
        """Return the same algorithm with another number of iterations."""
        return replace(self, n_iter=n_iter)  # type: ignore[type-var]

    def with_epochs(self, n_epochs: float) -> Algorithm:
        """Return the same algorithm for so many passes, where it counts in passes."""
        if any(f.name == "n_epochs" for f in fields(self)):  # type: ignore[arg-type]
            return replace(self, n_epochs=n_epochs, n_iter=None)  # type: ignore[type-var]
        return self


def deterministic(model: Model, estep: EStep | None) -> EStep:
    """Return the E-step given, or the most exact one that the model has."""
    if estep is not None:
        return estep
    if "expect" in model.capabilities:
        return Exact()
    return Quadrature(9 if quadrature_dimension(model) < 4 else 5)


def saem_path(n_individuals: int) -> int:
    """States of a chain that SAEM averages into one simulated statistic; see `SAEM`.

    Parameters
    ----------
    n_individuals : int

    Returns
    -------
    int
    """
    if n_individuals >= _MANY:
        return 4
    return 16 if n_individuals >= 50 else 3


def simulated(model: Model, estep: MonteCarlo | None, in_all: int = 1) -> MonteCarlo:
    """Return the Monte Carlo E-step given, or the one SAEM uses on this model.

    Where a model draws exactly, `in_all` is the number of draws of all individuals together
    below which each gets several.
    """
    n = model.n_individuals
    draws = -(-in_all // n) if "draw" in model.capabilities else None
    return estep or MonteCarlo(moves=SAEM_MOVES, path=saem_path(n), n_draws=draws)


def batch_of(model: Model, batch_size: int | None) -> int:
    """Return the batch size given, or a twentieth of the individuals, at most 64."""
    n = model.n_individuals
    if batch_size is None:
        return max(1, min(_LARGEST_BATCH, n // _BATCHES))
    if batch_size < 1:
        raise OptionError(f"batch_size={batch_size!r} must be at least 1.")
    return min(batch_size, n)


def iterations(model: Model, batch_size: int, n_epochs: float) -> int:
    """Iterations of whole batches in a number of passes."""
    n = model.n_individuals
    return max(1, round(n_epochs * max(1, n // min(batch_size, n))))


def step_of(
    step: Step,
    model: Model,
    batch_size: int,
    *,
    adaptive: bool = True,
    first: float | None = None,
) -> Schedule:
    """Schedule of a step: adaptive for ``"auto"``, a rule bound to the model, or as given.

    Where residuals are noisy themselves nothing can be adapted to them, and ``"auto"`` is
    the rule of the theory. The first adaptive step is twice that, unless `first` is given.
    """
    if isinstance(step, str):
        if step != "auto":
            raise OptionError(f"step={step!r} must be 'auto', a number or a schedule.")
        if batch_size >= model.n_individuals:
            return Constant(1.0)
        if not adaptive:
            return TheoryStep(1.0).bind(model.n_individuals, batch_size)
        rule = TheoryStep(_SCALE).bind(model.n_individuals, batch_size)
        return Adaptive(first or rule.value, least=_LEAST * rule.value)
    if isinstance(step, TheoryStep):
        return step.bind(model.n_individuals, batch_size)
    schedule = as_schedule(step, "step")
    if not 0.0 < schedule(0) <= 1.0:
        raise OptionError(f"step={step!r} must lie in (0, 1].")
    return schedule


def on_passes(schedule: Schedule, model: Model, batch_size: int) -> Schedule:
    """Put a schedule on the clock of passes."""
    return OnPasses(schedule, max(1, model.n_individuals // batch_size))
