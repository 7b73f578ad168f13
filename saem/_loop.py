"""The compiled loops of the engine over all individuals, and the step of the statistic.

These and the iterations over batches (`saem._advance`) are the only loops over
individuals in the library's fitting code. They are compiled once for the function
types of `saem._types` and serve all models and E-steps.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, uint64, void
from numpy.typing import NDArray

from saem._atomic import fetch_add, load, store
from saem._borrow import borrow, segment
from saem._jit import helper, kernel, routine
from saem._linalg import assign
from saem._types import INDEX, KERNELS, MATRIX, VECTOR, VISITOR, unpack
from saem.random import stream

__all__ = [
    "collect",
    "conditional_loglik",
    "move",
    "no_work",
    "stop",
    "sweep",
    "unfinished",
    "visit_at",
    "visit_each",
]

#: What a row of the memory holds: a record of weighted draws, or the statistic of one.
RECORDS, STATISTICS = 0, 1

#: Places of what threads share: the next leaf to take, how many are done, the iteration, and
#: whether to return. A cache line apart, so that a look at one does not wait for another.
_NEXT, _DONE, _ITERATION, _STOP = 0, 8, 16, 24
_CONTROL = 32
#: Looks at the others' last leaves before the thread offers its processor to them.
_LAST_LEAF = 100_000


@helper
def start_of(offsets, i):
    """First position of the record of individual i."""
    return i * offsets[1] if offsets.size == 2 else offsets[i]


@helper
def record_at(values, offsets, i):
    """Data record of individual i."""
    first = start_of(offsets, i)
    return segment(values, first, start_of(offsets, i + 1) - first)


@helper
def add_record(functions, weight, y, record, latent_size, s):
    """Add ``weight * sum_m w_m S(y, latent_m)`` of a record of weighted draws to s."""
    width = 1 + latent_size
    for m in range(record.size // width):
        at = m * width
        latent = segment(record, at + 1, latent_size)
        functions.accumulate(weight * record[at], y, latent, s)


@helper
def add_row(functions, weight, y, row, latent_size, form, s):
    """Add ``weight`` times the statistic that a row of the memory stands for."""
    if form == STATISTICS:
        for m in range(s.size):
            s[m] += weight * row[m]
    else:
        add_record(functions, weight, y, row, latent_size, s)


@helper
def visit_into(functions, visit, theta, y, row, scratch, memory, settings, key, work, size, form):
    """Visit an individual; its record, or the statistic of it, goes into `row`."""
    if form == STATISTICS:
        value = visit(functions, theta, y, scratch, memory, settings, key, work)
        row[:] = 0.0
        add_record(functions, 1.0, y, scratch, size, row)
        return value
    return visit(functions, theta, y, row, memory, settings, key, work)


@helper
def _sweep_leaf(
    functions, visit, values, offsets, theta, records, memories, settings,
    seed, iteration, n, leaf, j, latent_size, form, work, scratch, sums,
):  # fmt: skip
    """Visit the individuals of leaf j; `sums` receives its share of the mean statistic.

    After which stands its log-likelihood.
    """
    keep = records.shape[0] == n
    form = form if keep else RECORDS
    q = sums.size - 1
    statistic = segment(sums, 0, q)
    statistic[:] = 0.0
    total = 0.0
    for i in range(j * leaf, min(n, (j + 1) * leaf)):
        y = record_at(values, offsets, i)
        row = records[i] if keep else scratch
        key = stream(seed, i, iteration)
        total += visit_into(
            functions, visit, theta, y, row, scratch, memories[i], settings, key, work,
            latent_size, form,
        )  # fmt: skip
        add_row(functions, 1.0 / n, y, row, latent_size, form, statistic)
    sums[q] = total


def no_work() -> NDArray[np.int64]:
    """Numbers by which threads share the leaves of a pass: for now, all are taken."""
    control = np.zeros(_CONTROL, dtype=np.int64)
    control[_NEXT] = np.iinfo(np.int32).max
    return control


@kernel(void(INDEX), deferred=True)
def stop(control):
    """Tell the threads that wait for work to return."""
    store(control, _STOP, 1)


@kernel(int64(INDEX, int64), deferred=True)
def unfinished(control, n_leaves):
    """Leaves of this pass that somebody is still at work on."""
    return n_leaves - load(control, _DONE)


@kernel(
    int64(
        KERNELS, VISITOR, VECTOR, INDEX, VECTOR, MATRIX, MATRIX, VECTOR,
        uint64, int64, int64, int64, int64, int64, int64, MATRIX, int64, INDEX, int64,
    ),
    deferred=True,
)  # fmt: skip
def sweep(
    kernels, visitor, values, offsets, theta, records, memories, settings,
    seed, n, leaf, latent_size, record_size, form, work_size, partial,
    iteration, control, patience,
):  # fmt: skip
    """Visit all individuals and sum their statistics, alone or with other threads.

    Row j of `partial` receives the mean statistic's share of leaf j, then its
    log-likelihood. Without a row of `records` for each individual, nothing is kept.

    Parameters
    ----------
    iteration : int
        That of the random numbers; the thread with ``patience = 0`` announces it.
    control : ndarray of int64
        See `no_work`; shared by all threads of the pass.
    patience : int
        0 for the thread that announces the pass and returns when it is over; for the
        others, how often they look for the next pass in vain before they return.

    Returns
    -------
    int
        Leaves that another thread had not finished when this one lost patience.
    """
    functions, visit = unpack(kernels), visitor.visit
    own_work, own_scratch = np.empty(max(1, work_size)), np.empty(record_size)
    # Sums of a thread's own: neighbours in `partial` share cache lines.
    own_sums = np.empty(partial.shape[1])
    work, scratch, sums = borrow(own_work), borrow(own_scratch), borrow(own_sums)
    values, theta, settings = borrow(values), borrow(theta), borrow(settings)
    records, memories, partial = borrow(records), borrow(memories), borrow(partial)
    n_leaves = partial.shape[0]
    if patience == 0:
        control[_ITERATION] = iteration
        store(control, _DONE, 0)
        store(control, _NEXT, 0)
    in_vain = 0
    while in_vain <= patience and load(control, _STOP) == 0:
        # Only a leaf that was there to take is counted up: who waits must not write.
        j = n_leaves
        if load(control, _NEXT) < n_leaves:
            j = fetch_add(control, _NEXT, 1)
        if j < n_leaves:
            # Read after the leaf is taken: until that is done, no other pass begins.
            _sweep_leaf(
                functions, visit, values, offsets, theta, records, memories, settings,
                seed, control[_ITERATION], n, leaf, j, latent_size, form, work, scratch, sums,
            )  # fmt: skip
            assign(partial[j], sums)
            fetch_add(control, _DONE, 1)
            in_vain = 0
        else:
            in_vain += 1
    for _ in range(_LAST_LEAF if patience == 0 else 0):
        if load(control, _DONE) >= n_leaves:
            break
    # The owners live until here, whatever the compiler thinks of them.
    own_work[0] = own_scratch.size + own_sums.size
    return n_leaves - load(control, _DONE)


@kernel(void(KERNELS, VECTOR, INDEX, MATRIX, int64, int64, int64, int64, MATRIX), deferred=True)
def collect(kernels, values, offsets, records, n, leaf, latent_size, form, partial):
    """Sum the statistics of the memory, in the order in which `sweep` does."""
    functions = unpack(kernels)
    values, records, partial = borrow(values), borrow(records), borrow(partial)
    q = partial.shape[1] - 1
    for j in range(partial.shape[0]):
        sums = partial[j, :q]
        sums[:] = 0.0
        for i in range(j * leaf, min(n, (j + 1) * leaf)):
            y = record_at(values, offsets, i)
            add_row(functions, 1.0 / n, y, records[i], latent_size, form, sums)


@kernel(
    float64(
        KERNELS, VISITOR, VECTOR, INDEX, VECTOR, VECTOR, MATRIX, VECTOR,
        uint64, int64, int64, int64,
    ),
    deferred=True,
)  # fmt: skip
def visit_at(
    kernels, visitor, values, offsets, theta, record, memories, settings,
    seed, iteration, i, work_size,
):  # fmt: skip
    """Visit one individual; for tests and for tools that look at one individual."""
    work = np.empty(max(1, work_size))
    y = record_at(values, offsets, i)
    key = stream(seed, i, iteration)
    return visitor.visit(unpack(kernels), theta, y, record, memories[i], settings, key, work)


@kernel(
    void(
        KERNELS, VISITOR, VECTOR, INDEX, VECTOR, MATRIX, MATRIX, VECTOR,
        uint64, int64, INDEX, int64, int64, MATRIX,
    ),
    deferred=True,
)  # fmt: skip
def visit_each(
    kernels, visitor, values, offsets, theta, records, memories, settings,
    seed, iteration, chosen, latent_size, work_size, out,
):  # fmt: skip
    """Visit some individuals and keep their statistics apart: one row of `out` each."""
    functions, work = unpack(kernels), np.empty(max(1, work_size))
    for j in range(chosen.size):
        i = chosen[j]
        y = record_at(values, offsets, i)
        key = stream(seed, i, iteration)
        visitor.visit(functions, theta, y, records[j], memories[i], settings, key, work)
        out[j, :] = 0.0
        add_record(functions, 1.0, y, records[j], latent_size, out[j])


@routine
def step_towards(target, step, s):
    """Move s towards the target; exactly onto it when the step is 1."""
    if step == 1.0:
        assign(s, target)
    else:
        for m in range(s.size):
            s[m] += step * (target[m] - s[m])


@routine
def move_guarded(functions, target, rho, gamma, fast, s, theta, counts, before):
    """One step of both sequences, and the parameters of the new statistic.

    ``S <- S + rho (target - S)``, ``s <- s + gamma (S - s)``,
    ``theta <- T(s)``. A statistic that no parameters belong to is met by
    halving the step up to five times (rho where it is below 1, else gamma),
    then by projection; both are counted. `before` has room for both sequences.
    """
    q = s.size
    fast_before, s_before = segment(before, 0, q), segment(before, q, q)
    assign(fast_before, fast)
    assign(s_before, s)
    attempts = 6 if gamma > 0.0 and np.isfinite(s[0]) else 1
    for attempt in range(attempts):
        if attempt > 0:
            assign(fast, fast_before)
            assign(s, s_before)
            if rho < 1.0:
                rho *= 0.5
            else:
                gamma *= 0.5
        step_towards(target, rho, fast)
        if gamma == 0.0:
            return 0
        step_towards(fast, gamma, s)
        if functions.maximize(s, theta) == 0:
            return 0
        counts[0] += 1
    functions.project(s, theta)
    counts[1] += 1
    if gamma == 1.0:
        assign(fast, s)
    return functions.maximize(s, theta)


@kernel(int64(KERNELS, VECTOR, float64, float64, VECTOR, VECTOR, VECTOR, INDEX))
def move(kernels, target, rho, gamma, fast, s, theta, counts):
    """Compiled entry to `move_guarded`; returns 0 or the code of a failed M-step."""
    before = np.empty(2 * s.size)
    return move_guarded(unpack(kernels), target, rho, gamma, fast, s, theta, counts, before)


@kernel(
    void(KERNELS, VECTOR, INDEX, VECTOR, MATRIX, int64, int64, int64, int64, int64, int64, VECTOR),
    deferred=True,
)
def conditional_loglik(
    kernels, values, offsets, theta, records, n, leaf, first, last, latent_size, work_size, out
):
    """Weighted mean of log p(y | latent; theta) over kept draws, summed leaf by leaf.

    The objective of a numerical M-step; `out` has one entry a leaf.
    """
    functions = unpack(kernels)
    own_work, own_latent = np.empty(max(1, work_size)), np.empty(latent_size)
    work, latent = borrow(own_work), borrow(own_latent)
    values, theta, records = borrow(values), borrow(theta), borrow(records)
    width = 1 + latent_size
    for j in range(first, last):
        total = 0.0
        for i in range(j * leaf, min(n, (j + 1) * leaf)):
            y = record_at(values, offsets, i)
            for m in range(records.shape[1] // width):
                if records[i, m * width] > 0.0:
                    assign(latent, records[i, m * width + 1 : (m + 1) * width])
                    value = functions.log_lik(functions.structural, theta, y, latent, work)
                    total += records[i, m * width] * value
        out[j] = total
    own_work[0] = own_latent.size
