"""Individuals who are visited together: exact E-steps that vectorise over rows.

For models that offer `expect_batch` and `accumulate_batch`. The rows of a leaf, or of a batch
gathered from anywhere in the data, stand side by side; posterior records are kept where there
is a memory.
"""

from __future__ import annotations

import numpy as np
from numba import int64, void

from saem._borrow import as_matrix, borrow, segment
from saem._jit import helper, kernel, routine
from saem._types import BATCH_ROWS, INDEX, KERNELS, MATRIX, VECTOR, unpack

__all__ = [
    "ANEW",
    "CHANGE",
    "FRESH",
    "REFRESH",
    "add_gathered",
    "collect_together",
    "gathered_work",
    "sweep_together",
]

#: What is added of the chosen individuals: their statistics at theta; how they differ from
#: those at another theta, computed anew; from those remembered; and that, refreshing the memory.
FRESH, ANEW, CHANGE, REFRESH = 0, 1, 2, 3


@helper
def gathered_work(width, latent_size, q):
    """Scratch numbers of `add_gathered`."""
    return BATCH_ROWS * (width + 2 * latent_size) + 2 * q


@helper
def _remembered(chosen, records, old):
    """Latent records in the memory, column by column."""
    for b in range(old.shape[1]):
        row = records[chosen[b]]
        for c in range(old.shape[0]):
            old[c, b] = row[1 + c]


@helper
def _refresh(chosen, records, new, old, seen):
    """Put the new records into the memory; who stands in the batch twice changes once."""
    for b in range(new.shape[1]):
        i = chosen[b]
        row = records[i]
        row[0] = 1.0
        for c in range(new.shape[0]):
            if seen[i] != 0:
                old[c, b] = new[c, b]
            row[1 + c] = new[c, b]
        seen[i] = 1
    for b in range(new.shape[1]):
        seen[chosen[b]] = 0


@routine
def add_gathered(
    functions, what, weight, values, width, chosen, theta, reference, records, seen, linear,
    latent_size, room, work, target,
):  # fmt: skip
    """Add ``weight`` times a sum over the chosen individuals to the target.

    Parameters
    ----------
    what : int
        Of `FRESH`, `ANEW`, `CHANGE` and `REFRESH`.
    width : int
        Numbers in the record of an individual's data.
    chosen : ndarray of int64
        Individuals; who stands twice counts twice, but is refreshed once.
    seen : ndarray of int64, shape (n,) for REFRESH
        Zeros, and left so.
    linear : bool
        Whether S is linear in the latent record.
    room : ndarray of shape (gathered_work,)
    """
    q = target.size
    at = BATCH_ROWS * (width + 2 * latent_size)
    sums, others = segment(room, at, q), segment(room, at + q, q)
    for start in range(0, chosen.size, BATCH_ROWS):
        rows = min(BATCH_ROWS, chosen.size - start)
        part = chosen[start : start + rows]
        columns = as_matrix(segment(room, 0, width * rows), width, rows)
        at = BATCH_ROWS * width
        new = as_matrix(segment(room, at, latent_size * rows), latent_size, rows)
        at += BATCH_ROWS * latent_size
        old = as_matrix(segment(room, at, latent_size * rows), latent_size, rows)
        for b in range(rows):
            first = part[b] * width
            for j in range(width):
                columns[j, b] = values[first + j]
        functions.expect_batch(theta, columns, new, work)
        if what == ANEW:
            functions.expect_batch(reference, columns, old, work)
        elif what != FRESH:
            _remembered(part, records, old)
        if what == REFRESH:
            _refresh(part, records, new, old, seen)
        for m in range(q):
            sums[m] = 0.0
            others[m] = 0.0
        if what != FRESH and linear:
            for c in range(latent_size):
                for b in range(rows):
                    new[c, b] -= old[c, b]
        functions.accumulate_batch(columns, new, sums, work)
        if what != FRESH and not linear:
            functions.accumulate_batch(columns, old, others, work)
        for m in range(q):
            target[m] += weight * (sums[m] - others[m])


@helper
def _columns_of(values, width, start, rows, room):
    """Records of consecutive individuals, column by column."""
    columns = as_matrix(segment(room, 0, width * rows), width, rows)
    for b in range(rows):
        first = (start + b) * width
        for j in range(width):
            columns[j, b] = values[first + j]
    return columns


@kernel(
    void(KERNELS, VECTOR, INDEX, VECTOR, MATRIX, int64, int64, int64, int64, int64, int64, MATRIX),
    deferred=True,
)
def sweep_together(
    kernels, values, offsets, theta, records, n, leaf, first, last, latent_size, work_size, partial
):
    """As `saem._loop.sweep`, for the leaves first..last-1 of models visited together."""
    functions, width, q = unpack(kernels), offsets[1], partial.shape[1] - 1
    own_work = np.empty(max(1, work_size))
    own_room = np.empty(gathered_work(width, latent_size, q))
    work, room = borrow(own_work), borrow(own_room)
    values, theta, partial = borrow(values), borrow(theta), borrow(partial)
    keep = records.shape[0] == n
    for j in range(first, last):
        sums = segment(partial[j], 0, q)
        sums[:] = 0.0
        total = 0.0
        stop = min(n, (j + 1) * leaf)
        for start in range(j * leaf, stop, BATCH_ROWS):
            rows = min(BATCH_ROWS, stop - start)
            columns = _columns_of(values, width, start, rows, room)
            at = BATCH_ROWS * width
            latents = as_matrix(segment(room, at, latent_size * rows), latent_size, rows)
            total += functions.expect_batch(theta, columns, latents, work)
            functions.accumulate_batch(columns, latents, sums, work)
            if keep:
                for b in range(rows):
                    records[start + b, 0] = 1.0
                    for c in range(latent_size):
                        records[start + b, 1 + c] = latents[c, b]
        for m in range(q):
            sums[m] /= n
        partial[j, q] = total
    # The owners live until here, whatever the compiler thinks of them.
    own_work[0] = own_room.size


@kernel(void(KERNELS, VECTOR, INDEX, MATRIX, int64, int64, int64, int64, MATRIX), deferred=True)
def collect_together(kernels, values, offsets, records, n, leaf, latent_size, work_size, partial):
    """Sum the statistics of the memory, in the order in which `sweep_together` does."""
    functions, width, q = unpack(kernels), offsets[1], partial.shape[1] - 1
    own_work = np.empty(max(1, work_size))
    own_room = np.empty(gathered_work(width, latent_size, q))
    work, room = borrow(own_work), borrow(own_room)
    values, partial = borrow(values), borrow(partial)
    for j in range(partial.shape[0]):
        sums = segment(partial[j], 0, q)
        sums[:] = 0.0
        stop = min(n, (j + 1) * leaf)
        for start in range(j * leaf, stop, BATCH_ROWS):
            rows = min(BATCH_ROWS, stop - start)
            columns = _columns_of(values, width, start, rows, room)
            at = BATCH_ROWS * width
            latents = as_matrix(segment(room, at, latent_size * rows), latent_size, rows)
            for b in range(rows):
                for c in range(latent_size):
                    latents[c, b] = records[start + b, 1 + c]
            functions.accumulate_batch(columns, latents, sums, work)
        for m in range(q):
            sums[m] /= n
    own_work[0] = own_room.size
