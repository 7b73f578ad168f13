"""Monte Carlo error of a full pass, from the draws that the records keep.

With S_im the statistic of draw m of individual i, the mean statistic is
``sbar = mean_i mean_m S_im``. Draws of one individual may depend on each other (they
come from chains), so variances are taken from the means of batches of successive draws.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, void

from saem._jit import kernel
from saem._loop import start_of
from saem._types import INDEX, KERNELS, MATRIX, VECTOR, unpack

__all__ = ["gain_variance", "statistic_covariance"]


@kernel(
    float64(KERNELS, VECTOR, INDEX, MATRIX, int64, int64, int64, VECTOR, VECTOR, int64),
    deferred=True,
)
def gain_variance(kernels, values, offsets, records, n, latent_size, length, new, old, q):
    """Variance of the sum over individuals of ``Q(new) - Q(old)`` as its draws estimate it.

    `length` draws make a batch; there must be two batches at least.
    """
    functions, s = unpack(kernels), np.empty(q)
    width = 1 + latent_size
    batches = records.shape[1] // width // length
    total = 0.0
    for i in range(n):
        y = values[start_of(offsets, i) : start_of(offsets, i + 1)]
        mean = square = 0.0
        for b in range(batches):
            s[:] = 0.0
            for m in range(b * length, (b + 1) * length):
                at = m * width
                functions.accumulate(1.0 / length, y, records[i, at + 1 : at + width], s)
            gain = functions.surrogate(s, new) - functions.surrogate(s, old)
            change = gain - mean
            mean += change / (b + 1)
            square += change * (gain - mean)
        total += square / (batches - 1) / batches
    return total


@kernel(void(KERNELS, VECTOR, INDEX, MATRIX, int64, int64, int64, MATRIX), deferred=True)
def statistic_covariance(kernels, values, offsets, records, n, latent_size, length, out):
    """Covariance of the mean statistic as its draws estimate it, into `out` of shape (q, q)."""
    functions, q = unpack(kernels), out.shape[0]
    width = 1 + latent_size
    batches = records.shape[1] // width // length
    rows, mean = np.empty((batches, q)), np.empty(q)
    out[:] = 0.0
    for i in range(n):
        y = values[start_of(offsets, i) : start_of(offsets, i + 1)]
        rows[:] = 0.0
        mean[:] = 0.0
        for b in range(batches):
            for m in range(b * length, (b + 1) * length):
                at = m * width
                functions.accumulate(1.0 / length, y, records[i, at + 1 : at + width], rows[b])
            for a in range(q):
                mean[a] += rows[b, a] / batches
        scale = 1.0 / (batches * (batches - 1.0) * n * n)
        for b in range(batches):
            for a in range(q):
                for c in range(q):
                    out[a, c] += scale * (rows[b, a] - mean[a]) * (rows[b, c] - mean[c])
