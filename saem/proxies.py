"""Which statistic an iteration aims at, and from which individuals.

A proxy estimates the full mean statistic sbar(theta) from the individuals it
visits. It has no loop and no step size: those are the engine's. Index order is
``"shuffle"`` (a fresh permutation each pass) or ``"iid"`` (with replacement).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from saem._loop import INCREMENTAL, MINI_BATCH
from saem.exceptions import OptionError

if TYPE_CHECKING:
    from saem.engine import Run

__all__ = ["Full", "Incremental", "MiniBatch", "Proxy"]


class Proxy(ABC):
    """Estimate of the full mean statistic from some individuals."""

    name: ClassVar[str]
    #: Whether the latent records of all individuals are remembered.
    remembers: ClassVar[bool]

    def start(self, run: Run) -> None:  # noqa: B027 (a default, not a gap)
        """Prepare before the first iteration; an initial pass goes here."""

    @abstractmethod
    def step(self, run: Run) -> int:
        """Run one or several iterations of `run`; returns how many."""


@dataclass(frozen=True)
class Full(Proxy):
    """All individuals at every iteration: target = sbar(theta)."""

    name: ClassVar[str] = "full"
    remembers: ClassVar[bool] = False

    def step(self, run: Run) -> int:
        """Visit everybody, then move."""
        target = run.full_pass(run.k)
        run.move(target)
        return 1


@dataclass(frozen=True)
class _Batched(Proxy):
    """What mini-batch and incremental proxies share: batches and their order."""

    batch_size: int = 1
    order: str = "shuffle"
    code: ClassVar[int]

    def __post_init__(self) -> None:
        """Check the arguments."""
        if self.batch_size < 1:
            raise OptionError(f"batch_size={self.batch_size!r} must be at least 1.")
        if self.order not in ("shuffle", "iid", "sequential"):
            raise OptionError(
                f"order={self.order!r} must be 'shuffle', 'iid' or 'sequential' (for debugging)."
            )

    def batches(self, run: Run) -> tuple[NDArray[np.int64], int]:
        """Individuals of the next pass, whole batches, and the batch size used."""
        n = run.model.n_individuals
        batch = min(self.batch_size, n)
        per_pass = max(1, n // batch)
        if self.order == "sequential":
            start = run.k * batch
            return (np.arange(start, start + per_pass * batch) % n).astype(np.int64), batch
        if self.order == "iid":
            return run.rng.integers(0, n, per_pass * batch), batch
        return run.rng.permutation(n)[: per_pass * batch].astype(np.int64), batch


@dataclass(frozen=True)
class MiniBatch(_Batched):
    """Mean statistic of a batch: online EM (Cappe and Moulines 2009, JRSS B 71, 593-613).

    Started from the statistic of a full pass: that of one individual need not
    belong to any parameters.

    Parameters
    ----------
    batch_size : int
        Individuals per iteration.
    order : {"shuffle", "iid", "sequential"}
        A fresh permutation each pass, draws with replacement, or as they come.
    """

    name: ClassVar[str] = "mini-batch"
    remembers: ClassVar[bool] = False
    code: ClassVar[int] = MINI_BATCH

    def start(self, run: Run) -> None:
        """Take the first step from everybody."""
        run.move(run.full_pass(run.k))
        run.k += 1

    def step(self, run: Run) -> int:
        """Run one pass of batches."""
        return run.batch_pass(*self.batches(run), self.code)


@dataclass(frozen=True)
class Incremental(_Batched):
    """Mean of remembered statistics, a batch of them refreshed (Neal and Hinton 1998).

    ``mbar <- mbar + (1 / n) sum_I (new_i - m_i)``; started by one full pass.
    The running mean is formed anew from the records after every pass, so that
    rounding does not drift.

    Parameters
    ----------
    batch_size : int
        Individuals per iteration.
    order : {"shuffle", "iid", "sequential"}
        A fresh permutation each pass, draws with replacement, or as they come.
    """

    name: ClassVar[str] = "incremental"
    remembers: ClassVar[bool] = True
    code: ClassVar[int] = INCREMENTAL

    def start(self, run: Run) -> None:
        """Fill the memory by a full pass and take the first step from it."""
        run.mean[:] = run.full_pass(run.k)
        run.move(run.mean.copy())
        run.k += 1

    def step(self, run: Run) -> int:
        """Run one pass of batches; a batch of everybody is a full pass."""
        if self.batch_size >= run.model.n_individuals:
            run.mean[:] = run.full_pass(run.k)
            run.move(run.mean.copy())
            return 1
        done = run.batch_pass(*self.batches(run), self.code)
        run.mean[:] = run.collect()
        return done
