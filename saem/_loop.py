"""The compiled loops of the engine: visit individuals, add statistics, move s.

These are the only loops over individuals in the library's fitting code. They
are compiled once for the function types of `saem._types` and serve all models
and E-steps.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, uint64, void

from saem._borrow import borrow
from saem._jit import helper, kernel, routine
from saem._linalg import assign
from saem._types import INDEX, KERNELS, MATRIX, VECTOR, VISITOR, unpack
from saem.random import stream

__all__ = [
    "advance",
    "collect",
    "conditional_loglik",
    "move",
    "sweep",
    "sweep_blocks",
    "visit_at",
]

#: Codes of the proxies that `advance` knows.
MINI_BATCH, INCREMENTAL = 1, 2


@helper
def start_of(offsets, i):
    """First position of the record of individual i."""
    return i * offsets[1] if offsets.size == 2 else offsets[i]


@helper
def add_record(functions, weight, y, record, latent_size, s):
    """Add ``weight * sum_m w_m S(y, latent_m)`` of a record of weighted draws to s."""
    width = 1 + latent_size
    for m in range(record.size // width):
        at = m * width
        functions.accumulate(weight * record[at], y, record[at + 1 : at + width], s)


@kernel(
    void(
        KERNELS, VISITOR, VECTOR, INDEX, VECTOR, MATRIX, MATRIX, VECTOR,
        uint64, int64, int64, int64, int64, int64, int64, int64, MATRIX,
    ),
    deferred=True,
)  # fmt: skip
def sweep(
    kernels, visitor, values, offsets, theta, records, memories, settings,
    seed, iteration, n, leaf, first, last, latent_size, work_size, partial,
):  # fmt: skip
    """Visit all individuals of the leaves first..last-1 and sum their statistics.

    Row j of `partial` receives the mean statistic's share of leaf j, then its
    log-likelihood. Without a row of `records` for each individual, records are not kept.
    """
    functions, visit = unpack(kernels), visitor.visit
    own_work, own_scratch = np.empty(max(1, work_size)), np.empty(records.shape[1])
    work, scratch = borrow(own_work), borrow(own_scratch)
    values, theta, settings = borrow(values), borrow(theta), borrow(settings)
    records, memories, partial = borrow(records), borrow(memories), borrow(partial)
    q = partial.shape[1] - 1
    keep = records.shape[0] == n
    for j in range(first, last):
        sums = partial[j, :q]
        sums[:] = 0.0
        total = 0.0
        for i in range(j * leaf, min(n, (j + 1) * leaf)):
            y = values[start_of(offsets, i) : start_of(offsets, i + 1)]
            record = records[i] if keep else scratch
            key = stream(seed, i, iteration)
            total += visit(functions, theta, y, record, memories[i], settings, key, work)
            add_record(functions, 1.0 / n, y, record, latent_size, sums)
        partial[j, q] = total
    # The owners live until here, whatever the compiler thinks of them.
    own_work[0] = own_scratch.size


@kernel(
    void(KERNELS, VECTOR, INDEX, VECTOR, int64, int64, int64, int64, int64, MATRIX), deferred=True
)
def sweep_blocks(kernels, values, offsets, theta, n, leaf, first, last, work_size, partial):
    """As `sweep`, for models that treat a whole leaf at once and keep no records."""
    functions = unpack(kernels)
    work = np.empty(max(1, work_size))
    q = partial.shape[1] - 1
    for j in range(first, last):
        sums = partial[j, :q]
        sums[:] = 0.0
        stop = min(n, (j + 1) * leaf)
        chunk = values[start_of(offsets, j * leaf) : start_of(offsets, stop)]
        partial[j, q] = functions.block(theta, chunk, sums, work)
        for m in range(q):
            sums[m] /= n


@kernel(void(KERNELS, VECTOR, INDEX, MATRIX, int64, int64, int64, MATRIX), deferred=True)
def collect(kernels, values, offsets, records, n, leaf, latent_size, partial):
    """Sum the statistics of kept records, in the order in which `sweep` does."""
    functions = unpack(kernels)
    q = partial.shape[1] - 1
    for j in range(partial.shape[0]):
        sums = partial[j, :q]
        sums[:] = 0.0
        for i in range(j * leaf, min(n, (j + 1) * leaf)):
            y = values[start_of(offsets, i) : start_of(offsets, i + 1)]
            add_record(functions, 1.0 / n, y, records[i], latent_size, sums)


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
    y = values[start_of(offsets, i) : start_of(offsets, i + 1)]
    key = stream(seed, i, iteration)
    return visitor.visit(unpack(kernels), theta, y, record, memories[i], settings, key, work)


@routine
def step_towards(target, step, s):
    """Move s towards the target; exactly onto it when the step is 1."""
    if step == 1.0:
        assign(s, target)
    else:
        for m in range(s.size):
            s[m] += step * (target[m] - s[m])


@routine
def move_guarded(functions, target, rho, gamma, fast, s, theta, counts):
    """One step of both sequences, and the parameters of the new statistic.

    ``S <- S + rho (target - S)``, ``s <- s + gamma (S - s)``,
    ``theta <- T(s)``. A statistic that no parameters belong to is met by
    halving gamma up to five times, then by projection; both are counted.
    """
    step_towards(target, rho, fast)
    if gamma == 0.0:
        return 0
    before = s.copy()
    step = gamma
    attempts = 6 if np.isfinite(before[0]) else 1
    for _ in range(attempts):
        assign(s, before)
        step_towards(fast, step, s)
        if functions.maximize(s, theta) == 0:
            return 0
        counts[0] += 1
        step *= 0.5
    functions.project(s, theta)
    counts[1] += 1
    return functions.maximize(s, theta)


@kernel(int64(KERNELS, VECTOR, float64, float64, VECTOR, VECTOR, VECTOR, INDEX))
def move(kernels, target, rho, gamma, fast, s, theta, counts):
    """Compiled entry to `move_guarded`; returns 0 or the code of a failed M-step."""
    return move_guarded(unpack(kernels), target, rho, gamma, fast, s, theta, counts)


@kernel(
    int64(
        KERNELS, VISITOR, VECTOR, INDEX, VECTOR, MATRIX, MATRIX, VECTOR,
        uint64, int64, int64, int64, int64, int64, int64,
        INDEX, int64, VECTOR, VECTOR, VECTOR, VECTOR, VECTOR, INDEX,
    ),
    deferred=True,
)  # fmt: skip
def advance(
    kernels, visitor, values, offsets, theta, records, memories, settings,
    seed, iteration, n, proxy, batch, latent_size, work_size,
    order, n_iter, rho, gamma, mean, fast, s, counts,
):  # fmt: skip
    """Run iterations that visit `batch` individuals each, without leaving compiled code.

    `order` lists the individuals, batch by batch; `mean` is the mean statistic
    of the kept records (incremental proxy only). Returns 0, or the code of a
    failed M-step.
    """
    functions, visit = unpack(kernels), visitor.visit
    own_work, own_fresh = np.empty(max(1, work_size)), np.empty((batch, records.shape[1]))
    work, fresh = borrow(own_work), borrow(own_fresh)
    values, theta, settings = borrow(values), borrow(theta), borrow(settings)
    records, memories = borrow(records), borrow(memories)
    target = np.zeros(s.size)
    status = 0
    for t in range(n_iter):
        chosen = order[t * batch : (t + 1) * batch]
        for b in range(batch):
            i = chosen[b]
            y = values[start_of(offsets, i) : start_of(offsets, i + 1)]
            key = stream(seed, i, iteration + t)
            visit(functions, theta, y, fresh[b], memories[i], settings, key, work)
        if proxy == MINI_BATCH:
            target[:] = 0.0
        for b in range(batch):
            i = chosen[b]
            y = values[start_of(offsets, i) : start_of(offsets, i + 1)]
            if proxy == MINI_BATCH:
                add_record(functions, 1.0 / batch, y, fresh[b], latent_size, target)
            else:
                add_record(functions, -1.0 / n, y, records[i], latent_size, mean)
                add_record(functions, 1.0 / n, y, fresh[b], latent_size, mean)
                records[i, :] = fresh[b]
        if proxy == INCREMENTAL:
            assign(target, mean)
        status = move_guarded(functions, target, rho[t], gamma[t], fast, s, theta, counts)
        if status != 0:
            break
    # The owners live until here, whatever the compiler thinks of them.
    own_work[0] = own_fresh.size
    return status


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
            y = values[start_of(offsets, i) : start_of(offsets, i + 1)]
            for m in range(records.shape[1] // width):
                if records[i, m * width] > 0.0:
                    latent[:] = records[i, m * width + 1 : (m + 1) * width]
                    value = functions.log_lik(functions.structural, theta, y, latent, work)
                    total += records[i, m * width] * value
        out[j] = total
    own_work[0] = own_latent.size
