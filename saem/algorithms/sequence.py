"""Algorithms one after the other, as one fit with one record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from saem.algorithms._base import Algorithm
from saem.contract import Model
from saem.engine import Combination
from saem.exceptions import OptionError

__all__ = ["Sequence"]


@dataclass(frozen=True)
class Sequence(Algorithm):
    """Phases: each algorithm starts from the estimate of the one before.

    Parameters
    ----------
    parts : sequence of Algorithm
        Such as ``(saem.SAEM(), saem.EM(acceleration="newton"))``: draws explore, a deterministic
        E-step finishes without noise.

    Notes
    -----
    The record is that of one fit: its trace holds all phases (``record.phases`` tells where each
    begins and what ended it), the estimate is that of the last one. A phase that fails or
    is interrupted ends the fit. Phase j > 0 draws from streams of its own, derived from the seed.
    """

    parts: tuple[Algorithm, ...] = ()
    name: ClassVar[str] = "sequence"

    def __post_init__(self) -> None:
        """Check the parts."""
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts or any(
            not isinstance(part, Algorithm) or isinstance(part, Sequence) for part in self.parts
        ):
            raise OptionError(
                f"parts={self.parts!r} must be one or more algorithm objects, such as saem.SAEM()."
            )

    def combine(self, model: Model) -> Combination:
        """Return the three parts of the first phase."""
        return self.parts[0].combine(model)

    def phases(self) -> tuple[Algorithm, ...]:
        """Return the algorithms, in order."""
        return self.parts

    def with_iterations(self, n_iter: int) -> Sequence:
        """Return the first phase with so many iterations; later ones only if it is done in fewer.

        A budget that the first phase uses up leaves none for the others.
        """
        first = self.parts[0]
        if first.length is None or n_iter <= first.length:
            return Sequence((first.with_iterations(n_iter),))
        rest = n_iter - first.length
        return Sequence((first, *(part.with_iterations(rest) for part in self.parts[1:])))

    def with_epochs(self, n_epochs: float) -> Sequence:
        """Return the phases with so many passes each; the fit stops when they are used up."""
        return replace(self, parts=tuple(part.with_epochs(n_epochs) for part in self.parts))

    def with_accuracy(self, accuracy: float) -> Sequence:
        """Return the sequence with that accuracy asked of its last phase."""
        return Sequence((*self.parts[:-1], self.parts[-1].with_accuracy(accuracy)))
