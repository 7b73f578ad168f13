"""Compiled functions that all mixtures with weighted records share.

The first number of every record is the weight of its row.
"""

from __future__ import annotations

import numpy as np
from numba import void
from numba.core.types import FunctionType

from saem._jit import kernel
from saem._types import ACCUMULATE, EXPECT, INDEX, MATRIX, VECTOR

__all__ = ["add_statistics", "posteriors"]


@kernel(
    void(FunctionType(EXPECT), VECTOR, VECTOR, INDEX, VECTOR, VECTOR, VECTOR, MATRIX, VECTOR),
    deferred=True,
)
def posteriors(expect, theta, values, offsets, record, latent, work, probabilities, log_lik):
    """Responsibilities and log-likelihood of each row, as if its weight were 1.

    `record` and `latent` are scratch for the longest record and for one latent record.
    """
    k = probabilities.shape[1]
    for i in range(log_lik.size):
        y = record[: offsets[i + 1] - offsets[i]]
        y[:] = values[offsets[i] : offsets[i + 1]]
        y[0] = 1.0
        log_lik[i] = expect(theta, y, latent, work)
        for c in range(k):
            probabilities[i, c] = latent[c]


@kernel(void(FunctionType(ACCUMULATE), VECTOR, INDEX, MATRIX, VECTOR), deferred=True)
def add_statistics(accumulate, values, offsets, latents, s):
    """Mean statistic of given latent records, as if all weights were 1."""
    n = latents.shape[0]
    longest = 0
    for i in range(n):
        longest = max(longest, offsets[i + 1] - offsets[i])
    record = np.empty(longest)
    for i in range(n):
        y = record[: offsets[i + 1] - offsets[i]]
        y[:] = values[offsets[i] : offsets[i + 1]]
        y[0] = 1.0
        accumulate(1.0 / n, y, latents[i], s)
