"""Exact posteriors of many individuals outside a fit: for predictions and results."""

from __future__ import annotations

from numba import int64, void
from numba.core.types import FunctionType

from saem._jit import kernel
from saem._types import EXPECT, MATRIX, VECTOR

__all__ = ["expect_records"]


@kernel(void(FunctionType(EXPECT), VECTOR, VECTOR, int64, MATRIX, VECTOR, VECTOR))
def expect_records(expect, theta, values, length, latents, log_lik, work):
    """Posterior record and log-likelihood of each individual; all records have one length."""
    for i in range(log_lik.size):
        y = values[i * length : (i + 1) * length]
        log_lik[i] = expect(theta, y, latents[i], work)
