"""The compiled iterations over batches of individuals, one branch a proxy.

With I the batch, e_i the statistic of individual i at the current theta, m_i the
remembered one, mbar the mean of those and theta' an earlier theta:

    MINI_BATCH    target = mean_I e_i
    INCREMENTAL   target = mbar,   after mbar += sum_I (e_i - m_i) / n,  m_i = e_i
    ANCHOR        target = mbar + mean_I (e_i - m_i),   m_i of the last full pass
    ANCHOR_ANEW   target = mbar + mean_I (e_i - e_i(theta')),   theta' of the last full pass
    MEMORY_PAIR   target = mbar + mean_I (e_i - m_i),   then for j in J:
                  mbar += (e_j - m_j) / n,  m_j = e_j
    RECURSIVE     target = target + mean_I (e_i - e_i(theta')),   theta' of the last iteration

(`saem.proxies` has the references.)
"""

from __future__ import annotations

import numpy as np
from numba import boolean, int64, uint64

from saem._borrow import borrow
from saem._jit import helper, kernel
from saem._linalg import assign
from saem._loop import add_row, move_guarded, record_at, visit_into
from saem._together import ANEW, CHANGE, FRESH, REFRESH, add_gathered, gathered_work
from saem._types import INDEX, KERNELS, MATRIX, VECTOR, VISITOR, unpack
from saem.random import stream

__all__ = [
    "ANCHOR",
    "ANCHOR_ANEW",
    "INCREMENTAL",
    "MEMORY_PAIR",
    "MINI_BATCH",
    "RECURSIVE",
    "advance",
]

#: Codes of the proxies.
MINI_BATCH, INCREMENTAL, ANCHOR, ANCHOR_ANEW, MEMORY_PAIR, RECURSIVE = 1, 2, 3, 4, 5, 6


@helper
def _add_change(functions, weight, y, old, new, change, latent_size, form, linear, s):
    """Add ``weight (S(new) - S(old))`` of two rows of the memory.

    Where S is linear in the latent record and both are single draws of weight one, that is
    the statistic of their difference: one call instead of two.
    """
    if linear:
        for m in range(latent_size):
            change[m] = new[1 + m] - old[1 + m]
        functions.accumulate(weight, y, change, s)
    else:
        add_row(functions, weight, y, new, latent_size, form, s)
        add_row(functions, -weight, y, old, latent_size, form, s)


@kernel(
    int64(
        KERNELS, VISITOR, VECTOR, INDEX, VECTOR, MATRIX, MATRIX, VECTOR,
        uint64, int64, int64, int64, int64, int64, int64, int64, boolean, boolean, int64,
        INDEX, INDEX, INDEX, VECTOR, VECTOR, VECTOR, int64,
        VECTOR, VECTOR, VECTOR, VECTOR, INDEX,
    ),
    deferred=True,
)  # fmt: skip
def advance(
    kernels, visitor, values, offsets, theta, records, memories, settings,
    seed, iteration, n, proxy, batch, latent_size, record_size, form, linear, gathered, work_size,
    order, second, slots, rho, gamma, average, average_after,
    mean, reference, fast, s, counts,
):  # fmt: skip
    """Run iterations that visit a batch each, without leaving compiled code.

    Parameters
    ----------
    linear : bool
        Whether S is linear in the latent record and records are one draw of weight one.
    gathered : bool
        Whether the individuals of a batch are visited together, by `expect_batch`.
    order, second : ndarray of int64
        Individuals of I and of J, batch by batch.
    slots : ndarray of int64, shape (n,) for MEMORY_PAIR, and INCREMENTAL if gathered
        Zeros; used to find the members of J that are in I, and those that stand twice.
    rho, gamma : ndarray of shape (n_iter,)
    average : ndarray
        How many statistics were averaged and their average; empty for none.
    average_after : int
        Iterations before the first that is averaged.
    mean : ndarray of shape (q,)
        Mean of the memory, of the anchor, or the last target (RECURSIVE).
    reference : ndarray
        The earlier theta.
    counts : ndarray of int64
        Halvings, projections, visits.

    Returns
    -------
    int
        0, or the code of a failed M-step.
    """
    functions, visit = unpack(kernels), visitor.visit
    own_work, own_fresh = np.empty(max(1, work_size)), np.empty((batch, records.shape[1]))
    own_again, own_draws = np.empty((1, records.shape[1])), np.empty(record_size)
    work, fresh, again = borrow(own_work), borrow(own_fresh), borrow(own_again)[0]
    draws = borrow(own_draws)
    values, theta, settings = borrow(values), borrow(theta), borrow(settings)
    records, memories = borrow(records), borrow(memories)
    own_target, own_before = np.zeros(s.size), np.empty(2 * s.size)
    own_change = np.empty(latent_size)
    change = borrow(own_change)
    target, before, mean = borrow(own_target), borrow(own_before), borrow(mean)
    reference, fast, s = borrow(reference), borrow(fast), borrow(s)
    twice = proxy == ANCHOR_ANEW or proxy == RECURSIVE
    remembers = proxy == INCREMENTAL or proxy == ANCHOR or proxy == MEMORY_PAIR
    keeps = not remembers and records.shape[0] == n
    width = offsets[1]
    own_room = np.empty(gathered_work(width, latent_size, s.size) if gathered else 0)
    room = borrow(own_room)
    status = 0
    for t in range(rho.size):
        if proxy == MINI_BATCH:
            target[:] = 0.0
        elif proxy != INCREMENTAL:
            assign(target, mean)
        if gathered:
            what = REFRESH if proxy == INCREMENTAL else CHANGE if remembers else FRESH
            add_gathered(
                functions, ANEW if twice else what, 1.0 / (n if proxy == INCREMENTAL else batch),
                values, width, order[t * batch : (t + 1) * batch], theta, reference, records,
                slots, linear, latent_size, room, work, mean if proxy == INCREMENTAL else target,
            )  # fmt: skip
        # Everybody is visited before the memory changes: an individual may stand in I twice.
        for b in range(0 if gathered else batch):
            i = order[t * batch + b]
            y = record_at(values, offsets, i)
            key = stream(seed, i, iteration + t)
            visit_into(
                functions, visit, theta, y, fresh[b], draws, memories[i], settings, key, work,
                latent_size, form,
            )  # fmt: skip
            if twice:
                visit_into(
                    functions, visit, reference, y, again, draws, memories[i], settings, key,
                    work, latent_size, form,
                )  # fmt: skip
                add_row(functions, -1.0 / batch, y, again, latent_size, form, target)
        counts[2] += 2 * batch if twice else batch
        for b in range(0 if gathered else batch):
            i = order[t * batch + b]
            y = record_at(values, offsets, i)
            if proxy == INCREMENTAL:
                _add_change(
                    functions, 1.0 / n, y, records[i], fresh[b], change, latent_size, form,
                    linear, mean,
                )  # fmt: skip
                assign(records[i], fresh[b])
            elif remembers:
                _add_change(
                    functions, 1.0 / batch, y, records[i], fresh[b], change, latent_size, form,
                    linear, target,
                )  # fmt: skip
            else:
                add_row(functions, 1.0 / batch, y, fresh[b], latent_size, form, target)
                if keeps:
                    assign(records[i], fresh[b])
        if proxy == INCREMENTAL:
            assign(target, mean)
        elif proxy == RECURSIVE:
            assign(mean, target)
            assign(reference, theta)
        elif proxy == MEMORY_PAIR:
            # A member of both batches is simulated once.
            for b in range(batch):
                slots[order[t * batch + b]] = b + 1
            for b in range(batch):
                j = second[t * batch + b]
                y = record_at(values, offsets, j)
                if gathered:
                    counts[2] += slots[j] == 0
                    continue
                if slots[j] > 0:
                    assign(again, fresh[slots[j] - 1])
                else:
                    key = stream(seed, j, iteration + t)
                    visit_into(
                        functions, visit, theta, y, again, draws, memories[j], settings, key,
                        work, latent_size, form,
                    )  # fmt: skip
                    counts[2] += 1
                _add_change(
                    functions, 1.0 / n, y, records[j], again, change, latent_size, form,
                    linear, mean,
                )  # fmt: skip
                assign(records[j], again)
            for b in range(batch):
                slots[order[t * batch + b]] = 0
            if gathered:
                add_gathered(
                    functions, REFRESH, 1.0 / n, values, width,
                    second[t * batch : (t + 1) * batch], theta, reference, records, slots,
                    linear, latent_size, room, work, mean,
                )  # fmt: skip
        status = move_guarded(functions, target, rho[t], gamma[t], fast, s, theta, counts, before)
        if status != 0:
            break
        if average.size > 0 and t >= average_after:
            average[0] += 1.0
            for m in range(s.size):
                average[1 + m] += (s[m] - average[1 + m]) / average[0]
    # The owners live until here, whatever the compiler thinks of them.
    own_work[0] = own_fresh.size + own_again.size + own_draws.size
    own_work[0] += own_target.size + own_before.size + own_change.size + own_room.size
    return status
