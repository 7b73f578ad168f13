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

from saem import _advance
from saem.exceptions import OptionError

if TYPE_CHECKING:
    from saem.engine import Run

__all__ = [
    "Anchor",
    "AnchorAnew",
    "Full",
    "Incremental",
    "MemoryPair",
    "MiniBatch",
    "Proxy",
    "Recursive",
]

_ORDERS = ("shuffle", "iid", "sequential")


class Proxy(ABC):
    """Estimate of the full mean statistic from some individuals."""

    name: ClassVar[str]
    #: Whether the latent records of all individuals are remembered.
    remembers: ClassVar[bool]

    def check(self, run: Run) -> None:  # noqa: B027 (a default, not a gap)
        """Raise `OptionError` where the model or the other parts do not fit."""

    def start(self, run: Run) -> None:  # noqa: B027 (a default, not a gap)
        """Prepare before the first iteration; an initial pass goes here."""

    @abstractmethod
    def step(self, run: Run) -> int:
        """Run one or several iterations of `run`; returns how many."""

    def left(self, run: Run) -> float:
        """Bound on the log-likelihood still to gain, in nats, where the proxy knows one."""
        return np.nan


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
    """What the proxies that visit batches share.

    Parameters
    ----------
    batch_size : int
        Individuals per iteration.
    order : {"shuffle", "iid", "sequential"}
        A fresh permutation each pass, draws with replacement, or as they come.
    """

    batch_size: int = 1
    order: str = "shuffle"
    code: ClassVar[int]

    def __post_init__(self) -> None:
        """Check the arguments."""
        if self.batch_size < 1:
            raise OptionError(f"batch_size={self.batch_size!r} must be at least 1.")
        if self.order not in _ORDERS:
            raise OptionError(
                f"order={self.order!r} must be 'shuffle', 'iid' or 'sequential' (for debugging)."
            )

    def indices(self, run: Run) -> NDArray[np.int64]:
        """Individuals of the next pass, whole batches of them."""
        n, batch = run.model.n_individuals, self.batch_size
        per_pass = max(1, n // batch)
        if self.order == "sequential":
            start = run.k * batch
            return (np.arange(start, start + per_pass * batch) % n).astype(np.int64)
        if self.order == "shuffle":
            return run.rng.permutation(n)[: per_pass * batch].astype(np.int64)
        if run.bound.memories.size and batch > 1:
            # A chain cannot take two steps with the same random numbers.
            drawn = [run.rng.choice(n, batch, replace=False) for _ in range(per_pass)]
            return np.concatenate(drawn).astype(np.int64)
        return run.rng.integers(0, n, per_pass * batch)

    def second(self, run: Run) -> NDArray[np.int64] | None:
        """Individuals whose memory is refreshed, where they are others than those of `indices`."""
        return None

    def everybody(self, run: Run) -> int:
        """Iterate with a batch of everybody: a full pass."""
        run.mean[:] = run.full_pass(run.k)
        run.move(run.mean.copy())
        return 1

    def begin_pass(self, run: Run) -> int:
        """Do what comes before a pass of batches; returns the iterations done, here none."""
        run.proxy_state["order"] = self.indices(run)
        run.proxy_state["second"] = self.second(run)
        return 0

    def end_pass(self, run: Run) -> None:
        """Do what comes after a pass of batches."""

    def step(self, run: Run) -> int:
        """Run a pass of batches, or as many of its iterations as make up a snapshot."""
        n = run.model.n_individuals
        if self.batch_size >= n:
            return self.everybody(run)
        state, batch = run.proxy_state, self.batch_size
        if state.get("order") is None:
            done = self.begin_pass(run)
            if done:
                return done
        order, second = state["order"], state["second"]
        size = batch * min(order.size // batch, run.algorithm.n_iter - run.k)
        if run.resolution is not None:
            size = min(size, batch * run.resolution)
        done = run.batch_pass(
            order[:size], batch, self.code, None if second is None else second[:size]
        )
        if size == order.size:
            state["order"] = state["second"] = None
            self.end_pass(run)
        else:
            state["order"] = order[size:]
            state["second"] = None if second is None else second[size:]
        return done


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
    code: ClassVar[int] = _advance.MINI_BATCH

    def start(self, run: Run) -> None:
        """Take the first step from everybody."""
        run.move(run.full_pass(run.k))
        run.k += 1


@dataclass(frozen=True)
class _Remembering(_Batched):
    """What proxies with a memory of all individuals share.

    The running mean of the memory is formed anew from the records after every
    pass, so that rounding does not drift.
    """

    remembers: ClassVar[bool] = True

    def start(self, run: Run) -> None:
        """Fill the memory by a full pass and take the first step from it."""
        run.mean[:] = run.full_pass(run.k)
        run.weigh()
        run.move(run.mean.copy())
        run.k += 1

    def end_pass(self, run: Run) -> None:
        """Form the mean of the memory anew, and adapt the step."""
        run.mean[:] = run.collect()
        run.adapt()


@dataclass(frozen=True)
class Incremental(_Remembering):
    """Mean of the memory, a batch of which is refreshed (Neal and Hinton 1998).

    ``mbar <- mbar + (1 / n) sum_I (new_i - m_i)``; started by one full pass.

    Parameters
    ----------
    batch_size : int
        Individuals per iteration.
    order : {"shuffle", "iid", "sequential"}
        A fresh permutation each pass, draws with replacement, or as they come.
    """

    name: ClassVar[str] = "incremental"
    code: ClassVar[int] = _advance.INCREMENTAL


@dataclass(frozen=True)
class MemoryPair(_Remembering):
    """Memory mean with a batch correction, another batch refreshing the memory (SAGA, fiEM).

    ``target = mbar + mean_I (new_i - m_i)``, then ``mbar <- mbar + sum_J (new_j - m_j) / n``,
    both at the same theta (Defazio, Bach and Lacoste-Julien 2014, NIPS 27; for EM: Karimi, Wai,
    Moulines and Lavielle 2019, NeurIPS 32, algorithm 2). Two visits per individual of a
    batch; one where I and J are the same.

    Parameters
    ----------
    batch_size : int
        Individuals per iteration, in each of the two batches.
    order : {"shuffle", "iid", "sequential"}
        Two independent permutations each pass refresh all of the memory in one pass; draws with
        replacement are what the theory covers, and leave a part of the memory stale.
    same : bool
        Whether J is I (SAGA); for ``order="iid"`` only. With a shared permutation no
        individual drawn has been refreshed within the pass, the correction is not centred given
        the past, and the method diverges.
    """

    same: bool = False
    name: ClassVar[str] = "memory pair"
    code: ClassVar[int] = _advance.MEMORY_PAIR

    def __post_init__(self) -> None:
        """Check the arguments."""
        super().__post_init__()
        if self.same and self.order != "iid":
            raise OptionError(
                f"same=True with order={self.order!r}: correction and refreshment from one shared "
                "permutation diverge. Remedy: order='iid', or same=False."
            )
        if self.order == "sequential":
            raise OptionError(
                "order='sequential' would give correction and refreshment the same indices, which "
                "diverges. Remedy: 'shuffle' or 'iid'."
            )

    def second(self, run: Run) -> NDArray[np.int64]:
        """Draw J, independent of I unless asked otherwise."""
        return run.proxy_state["order"].copy() if self.same else self.indices(run)


@dataclass(frozen=True)
class _Epochwise(_Batched):
    """What proxies share that make a full pass before every so many batches.

    The full pass is an iteration of its own, for right after it the correction is zero
    for any batch.

    Parameters
    ----------
    inner : int, optional
        Iterations from one full pass to the next, itself included; n / batch_size by default.
    """

    inner: int | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        super().__post_init__()
        if self.inner is not None and self.inner < 1:
            raise OptionError(f"inner={self.inner!r} must be at least 1 iteration.")

    def length(self, run: Run) -> int:
        """Iterations of the epoch that begins."""
        return self.inner or max(1, run.model.n_individuals // self.batch_size)

    def start(self, run: Run) -> None:
        """Take the first epoch's full pass, and the scale of the statistic from it."""
        self.begin_pass(run)
        run.k += 1

    def begin_pass(self, run: Run) -> int:
        """Make the full pass and draw the batches that follow it."""
        run.mean[:] = run.full_pass(run.k)
        run.reference[:] = run.theta
        if run.k == 0:
            run.weigh()
        else:
            run.adapt()
        run.move(run.mean.copy())
        size = (self.length(run) - 1) * self.batch_size
        parts: list[NDArray[np.int64]] = []
        while sum(part.size for part in parts) < size:
            parts.append(self.indices(run))
        order = np.concatenate(parts)[:size] if parts else np.zeros(0, dtype=np.int64)
        run.proxy_state["order"] = order if order.size else None
        run.proxy_state["second"] = None
        return 1


@dataclass(frozen=True)
class Anchor(_Epochwise):
    """Statistic of a full pass (the anchor) with a batch correction (SVRG, sEM-VR).

    ``target = abar + mean_I (new_i - a_i)`` (Johnson and Zhang 2013, NIPS 26; for EM: Chen, Zhu,
    Teh and Zhang 2018, NeurIPS 31, algorithm 1).

    Parameters
    ----------
    batch_size, order
        As for `Incremental`.
    inner : int, optional
        Iterations from one anchor to the next, itself included; n / batch_size by default.
    """

    name: ClassVar[str] = "anchor"
    remembers: ClassVar[bool] = True
    code: ClassVar[int] = _advance.ANCHOR


@dataclass(frozen=True)
class AnchorAnew(_Epochwise):
    """As `Anchor`, but a_i is computed again at the anchor's theta: two visits, no memory."""

    name: ClassVar[str] = "anchor, computed anew"
    remembers: ClassVar[bool] = False
    code: ClassVar[int] = _advance.ANCHOR_ANEW


@dataclass(frozen=True)
class Recursive(_Epochwise):
    """Last target corrected by the change over a batch (SPIDER).

    ``target <- target + mean_I (sbar_i(theta_k) - sbar_i(theta_{k-1}))``, started anew from a full
    pass every `inner` iterations (Fort, Moulines and Wai 2020, NeurIPS 33, algorithm 1).

    Parameters
    ----------
    batch_size, order, inner
        As for `Anchor`.
    geometric : bool
        Lengths between full passes are geometric with mean `inner` (Fort, Moulines and Wai
        2021, ICASSP, "Geom-SPIDER-EM").
    """

    geometric: bool = False
    name: ClassVar[str] = "recursive"
    remembers: ClassVar[bool] = False
    code: ClassVar[int] = _advance.RECURSIVE

    def length(self, run: Run) -> int:
        """Iterations of the epoch that begins."""
        mean = super().length(run)
        return int(run.rng.geometric(1.0 / mean)) if self.geometric else mean
