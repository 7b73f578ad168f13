"""The loop: every algorithm is an E-step, a proxy and two schedules run by this file.

target = proxy(E-step of some individuals)
S <- S + rho (target - S);   s <- s + gamma (S - s);   theta <- T(s)
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saem import _advance, _loop, _together
from saem._crew import Crew
from saem.combination import Combination, Snapshot
from saem.contract import Array, Model
from saem.exceptions import OptionError
from saem.random import SeedLike, resolve_seed
from saem.schedules import Adaptive, values
from saem.statistics import leaf_size

__all__ = ["Combination", "Run", "Snapshot", "iterate"]

#: A pass shorter than this (seconds) is not worth handing to threads.
_WORTH_THREADS = 4e-4
#: Batches smaller than this are visited one individual at a time.
_WORTH_GATHERING = 8


#: Individuals whose statistics tell the scale of each coordinate; see `Run.weigh`.
_SCALE_SAMPLE = 64


class Run:
    """State of an algorithm at work on a model.

    `state_dict` and `load_state_dict` carry it over an interruption bit for bit.

    Parameters
    ----------
    model : Model
    algorithm : Combination
    theta : ndarray
        Packed parameters to start from.
    seed : int, SeedSequence, Generator or None
    n_threads, block_size : int, optional
        Of no influence on the numbers.
    resolution : int, optional
        Iterations per snapshot of algorithms that visit batches; a pass by default.
    """

    def __init__(
        self,
        model: Model,
        algorithm: Combination,
        theta: Array,
        *,
        seed: SeedLike = None,
        n_threads: int | None = None,
        block_size: int | None = None,
        resolution: int | None = None,
    ) -> None:
        if resolution is not None and resolution < 1:
            raise OptionError(f"resolution={resolution!r} must be at least 1 iteration.")
        self.model = model
        self.algorithm = algorithm
        self.seed, self.rng = resolve_seed(seed)
        self.bound = algorithm.estep.bind(model)
        self.theta = np.array(theta, dtype=float)
        q = model.stat_spec.size
        self.s = np.full(q, np.nan)
        self.fast = np.full(q, np.nan)
        self.mean = np.zeros(q)
        #: Halved steps, projections, and visits inside of batches.
        self.counts = np.zeros(3, dtype=np.int64)
        #: An earlier theta, at which a proxy evaluates old statistics.
        self.reference = self.theta.copy()
        #: State of an adaptive step; weights are empty for scheduled steps.
        self.step, self.cuts = 1.0, 0
        self.weights, self.residual = np.zeros(0), np.zeros(0)
        #: What a proxy remembers between its steps, arrays and numbers by name.
        self.proxy_state: dict[str, Any] = {}
        #: How many statistics were averaged inside of batches, and their average.
        self.average = np.zeros(1 + q)
        self.resolution = resolution
        self._slots = np.zeros(0, dtype=np.int64)
        self.k = 0
        self.n_evals = 0
        self.loglik = np.nan
        self.status = 0
        self.target: Array | None = None
        #: What a numerical M-step remembers between iterations.
        self.numerical: dict[str, Array] = {}
        self._has_numerical = "numerical" in model.capabilities
        self.remembers = algorithm.proxy.remembers or self._has_numerical
        self.form = self._choose_form()
        #: Whether individuals are visited together rather than one by one.
        self.together = (
            model.batched
            and algorithm.estep.name == "exact"
            and self.form == _loop.RECORDS
            and not self._has_numerical
        )
        rows = model.n_individuals if self.remembers else 0
        self.records = np.zeros((rows, self._row_size))
        self.n_threads = check_threads(n_threads)
        self.leaf = leaf_size(model.n_individuals)
        self.n_leaves = -(-model.n_individuals // self.leaf)
        self.partial = np.zeros((self.n_leaves, q + 1))
        self.block = self._leaves_per_block(block_size)
        self._pool: ThreadPoolExecutor | None = None
        self._crew = Crew(self.n_threads)
        self._nothing_kept = np.empty((0, 0))
        self._last_pass = 0.0
        algorithm.proxy.check(self)

    def _choose_form(self) -> int:
        """Decide what the memory holds of an individual: its record, or its statistic.

        The record, which is short for most models and what a numerical M-step needs; the
        statistic where records change their length, as with growing numbers of draws.
        """
        if self._has_numerical or not self.algorithm.proxy.remembers or self.bound.constant_size:
            return _loop.RECORDS
        return _loop.STATISTICS

    @property
    def _row_size(self) -> int:
        """Numbers in a row of the memory."""
        statistics = self.form == _loop.STATISTICS
        return self.model.stat_spec.size if statistics else self.bound.record_size

    @property
    def _linear(self) -> bool:
        """Whether the change of a statistic is the statistic of the records' change."""
        one_draw = self.bound.constant_size and self.bound.n_draws == 1
        return self.model.linear_statistic and one_draw and self.form == _loop.RECORDS

    def _leaves_per_block(self, block_size: int | None) -> int:
        if block_size is None:
            return -(-self.n_leaves // (8 * self.n_threads))
        if block_size < 1:
            raise OptionError(f"block_size={block_size!r} must be at least 1 individual.")
        return -(-block_size // self.leaf)

    @property
    def _worth_threads(self) -> bool:
        """Whether a pass is long enough to be shared among threads."""
        return self.n_threads > 1 and self.n_leaves > 1 and self._last_pass >= _WORTH_THREADS

    def _parallel(self, work: Callable[[int, int], None]) -> None:
        """Run ``work(first, last)`` over the leaves, on threads where that pays."""
        if not self._worth_threads:
            work(0, self.n_leaves)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.n_threads)
        # The threads take blocks from one iterator until none is left: each is handed work
        # once, which costs as much as some hundred individuals.
        starts = iter(range(0, self.n_leaves, self.block))

        def drain() -> None:
            for first in starts:
                work(first, min(first + self.block, self.n_leaves))

        jobs = [self._pool.submit(drain) for _ in range(self.n_threads)]
        for job in jobs:
            job.result()

    def _sweep(self, visitor: Any, settings: Array, records: Array, iteration: int) -> None:
        model, bound = self.model, self.bound
        arguments = (
            model.kernels, visitor, model.values, model.offsets, self.theta, records,
            bound.memories, settings, self.seed, model.n_individuals, self.leaf,
            model.latent_size, bound.record_size, self.form, bound.work_size, self.partial,
        )  # fmt: skip
        self._crew.sweep(arguments, iteration, self._worth_threads)

    def _sweep_together(self, records: Array) -> None:
        model = self.model

        def work(first: int, last: int) -> None:
            _together.sweep_together(
                model.kernels, model.values, model.offsets, self.theta, records,
                model.n_individuals, self.leaf, first, last, model.latent_size,
                self.bound.work_size, self.partial,
            )  # fmt: skip

        self._parallel(work)

    def _visit_all(self, visitor: Any, settings: Array) -> None:
        """Visit everybody for the E-step's own purposes; no statistics."""
        self._sweep(visitor, settings, self._nothing_kept, self.k)

    def full_pass(self, k: int) -> Array:
        """E-step of all individuals; returns the mean statistic at theta."""
        start = time.perf_counter()
        bound = self.bound
        bound.before(k, self.algorithm.gamma(k), self._visit_all)
        if self.remembers and self.records.shape[1] != self._row_size:
            self.records = np.zeros((self.model.n_individuals, self._row_size))
        records = self.records if self.remembers else self._nothing_kept
        if self.together:
            self._sweep_together(records)
        else:
            self._sweep(bound.visitor, bound.settings, records, k)
        bound.after(k)
        self.n_evals += self.model.n_individuals * bound.evals
        sums = self.partial.sum(axis=0)
        self.loglik = float(sums[-1]) if self.algorithm.estep.gives_loglik else np.nan
        self._last_pass = time.perf_counter() - start
        return np.asarray(sums[:-1])

    def collect(self) -> Array:
        """Mean statistic of the remembered records, in the order of a full pass."""
        model = self.model
        if self.together:
            _together.collect_together(
                model.kernels, model.values, model.offsets, self.records, model.n_individuals,
                self.leaf, model.latent_size, self.bound.work_size, self.partial,
            )  # fmt: skip
        else:
            _loop.collect(
                model.kernels, model.values, model.offsets, self.records, model.n_individuals,
                self.leaf, model.latent_size, self.form, self.partial,
            )  # fmt: skip
        return np.asarray(self.partial.sum(axis=0)[:-1])

    def conditional_loglik(self, theta: Array, records: Array) -> float:
        """Sum over individuals of the mean of log p(y | z; theta) over the kept draws z."""
        model, out = self.model, np.zeros(self.n_leaves)

        def work(first: int, last: int) -> None:
            _loop.conditional_loglik(
                model.kernels, model.values, model.offsets, theta, records, model.n_individuals,
                self.leaf, first, last, model.latent_size, self.bound.work_size, out,
            )  # fmt: skip

        self._parallel(work)
        return float(out.sum())

    def move(self, target: Array) -> None:
        """Move both sequences towards the target and read off the parameters."""
        k, algorithm, model = self.k, self.algorithm, self.model
        gamma = algorithm.gamma(k)
        before = self.theta.copy()
        self.target = target
        rho = algorithm.rho(k) if np.isfinite(self.fast[0]) else 1.0
        if gamma > 0.0 and not np.isfinite(self.s[0]):
            gamma = 1.0
        self.status = _loop.move(
            model.kernels, target, rho, gamma, self.fast, self.s, self.theta, self.counts
        )
        if gamma == 0.0:
            return
        self._finish_parameters(before, gamma)
        if algorithm.annealing is not None and k < algorithm.annealing_until:
            model.anneal(before, self.theta, algorithm.annealing)  # type: ignore[attr-defined]

    def weigh(self) -> None:
        """Set up the adaptive step: weights that make the statistic's coordinates comparable.

        The weight of a coordinate is one over its variance among individuals, taken from
        at most `_SCALE_SAMPLE` of them at the current theta.
        """
        if not isinstance(self.algorithm.rho, Adaptive):
            return
        model, bound, n = self.model, self.bound, self.model.n_individuals
        chosen = np.unique(np.linspace(0, n - 1, min(n, _SCALE_SAMPLE)).astype(np.int64))
        statistics = np.zeros((chosen.size, self.s.size))
        # On copies: looking at an individual must not move its chain.
        _loop.visit_each(
            model.kernels, bound.visitor, model.values, model.offsets, self.theta,
            np.zeros((chosen.size, bound.record_size)), bound.memories.copy(), bound.settings,
            self.seed, self.k, chosen, model.latent_size, bound.work_size, statistics,
        )  # fmt: skip
        self.n_evals += chosen.size * bound.evals
        variance = statistics.var(axis=0)
        floor = 1e-20 * np.maximum(1.0, np.abs(statistics).max(axis=0)) ** 2
        self.weights = np.where(variance > floor, 1.0 / np.maximum(variance, floor), 0.0)
        self.step = self.algorithm.rho.first

    def adapt(self) -> None:
        """Adapt the step to the residual that the pass just done has left (`Adaptive`)."""
        if self.weights.size == 0:
            return
        residual = np.sqrt(self.weights) * (self.mean - self.s)
        cuts = int(self.counts[0])
        if self.residual.size:
            size, before = np.linalg.norm(residual), np.linalg.norm(self.residual)
            if size > 0.0 and before > 0.0:
                cosine = float(residual @ self.residual) / (size * before)
                cut = cuts > self.cuts
                self.step = self.algorithm.rho.after(self.step, cosine, size / before, cut)  # type: ignore[attr-defined]
        self.residual, self.cuts = residual, cuts

    def batch_pass(
        self,
        order: NDArray[np.int64],
        batch: int,
        code: int,
        second: NDArray[np.int64] | None = None,
    ) -> int:
        """Run the iterations that visit `order` (and `second`), batch by batch, compiled."""
        model, bound, algorithm = self.model, self.bound, self.algorithm
        n_iter = order.size // batch
        gamma = values(algorithm.gamma, self.k, n_iter)
        adaptive = self.weights.size > 0
        rho = np.full(n_iter, self.step) if adaptive else values(algorithm.rho, self.k, n_iter)
        if not np.isfinite(self.s[0]):
            gamma[0] = rho[0] = 1.0
        gathered = self.together and batch >= _WORTH_GATHERING
        marked = second is not None or (gathered and code == _advance.INCREMENTAL)
        if marked and self._slots.size == 0:
            self._slots = np.zeros(model.n_individuals, dtype=np.int64)
        bound.before(self.k, gamma[0], self._visit_all)
        records = self.records if self.remembers else np.empty((0, self._row_size))
        before, visits = self.theta.copy(), self.counts[2]
        first = algorithm.average_from
        averages = first is not None and self.k + n_iter > first
        self.status = _advance.advance(
            model.kernels, bound.visitor, model.values, model.offsets, self.theta, records,
            bound.memories, bound.settings, self.seed, self.k, model.n_individuals, code, batch,
            model.latent_size, bound.record_size, self.form, self._linear, gathered,
            bound.work_size, order, order if second is None else second, self._slots, rho, gamma,
            self.average if averages else np.zeros(0), max(0, (first or 0) - self.k), self.mean,
            self.reference, self.fast, self.s, self.counts,
        )  # fmt: skip
        bound.after(self.k)
        self.n_evals += int(self.counts[2] - visits) * bound.evals
        self.loglik = np.nan
        self.target = None
        if self.status == 0:
            self._finish_parameters(before, float(gamma.max()))
        return n_iter

    def _finish_parameters(self, before: Array, gamma: float) -> None:
        """Move what T(s) does not give: a numerical M-step on the kept records."""
        if self._has_numerical:
            self.model.numerical_step(before, self.theta, self.records, gamma, self)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Release the threads."""
        self._crew.close()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    _STATE = (
        "theta",
        "s",
        "fast",
        "mean",
        "counts",
        "records",
        "reference",
        "average",
        "weights",
        "residual",
    )
    _NUMBERS = ("k", "n_evals", "seed", "cuts")

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on as if never interrupted, as arrays and numbers."""
        state: dict[str, Any] = {name: getattr(self, name).copy() for name in self._STATE}
        state |= {name: getattr(self, name) for name in self._NUMBERS}
        state["memories"] = self.bound.memories.copy()
        state["settings"] = self.bound.settings.copy()
        state["rng"] = self.rng.bit_generator.state
        state["numerical"] = {name: value.copy() for name, value in self.numerical.items()}
        state["step"] = self.step
        state["proxy_state"] = copy.deepcopy(self.proxy_state)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state from `state_dict` of the same model and algorithm."""
        for name in self._STATE:
            setattr(self, name, np.array(state[name]))
        for name in self._NUMBERS:
            setattr(self, name, int(state[name]))
        self.bound.memories[...] = state["memories"]
        self.bound.settings[...] = state["settings"]
        self.rng.bit_generator.state = state["rng"]
        self.numerical = {name: np.array(value) for name, value in state["numerical"].items()}
        self.step = float(state["step"])
        self.proxy_state = copy.deepcopy(state["proxy_state"])


def check_threads(n_threads: int | None) -> int:
    """Number of threads to use: all cores this process may use, or as asked."""
    if n_threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if n_threads < 1:
        raise OptionError(f"n_threads={n_threads!r} must be at least 1.")
    return int(n_threads)


def iterate(run: Run) -> Iterator[Snapshot]:
    """Run an algorithm, yielding a snapshot after every iteration (or pass of batches).

    The caller decides when to stop; nothing is stopped here but by a failed
    M-step or numbers that are not finite, after which the iterator ends.

    Parameters
    ----------
    run : Run

    Yields
    ------
    Snapshot
    """
    seconds = 0.0
    clock = time.perf_counter()
    if run.k == 0:
        run.algorithm.proxy.start(run)
    while run.k < run.algorithm.n_iter:
        gamma = run.algorithm.gamma(run.k)
        run.k += run.algorithm.proxy.step(run)
        now = time.perf_counter()
        seconds += now - clock
        yield Snapshot(
            k=run.k,
            n_evals=run.n_evals,
            seconds=seconds,
            theta=run.theta.copy(),
            s=run.s.copy(),
            target=None if run.target is None else run.target.copy(),
            loglik=run.loglik,
            gamma=gamma,
        )
        clock = time.perf_counter()
        if run.status != 0 or not np.all(np.isfinite(run.theta)):
            return
