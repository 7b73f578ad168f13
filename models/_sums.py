"""Exact statistic of all individuals outside a fit: for scores, information and checks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float64, int64
from numba.core.types import FunctionType

from saem._jit import kernel
from saem._types import ACCUMULATE, EXPECT, INDEX, VECTOR
from saem.contract import Array, Model

__all__ = ["mean_statistic"]


@kernel(
    float64(
        FunctionType(EXPECT), FunctionType(ACCUMULATE), VECTOR, VECTOR, INDEX, int64,
        VECTOR, VECTOR, VECTOR,
    ),
    deferred=True,
)  # fmt: skip
def _add_up(expect, accumulate, theta, values, offsets, n, latent, work, s):
    """Add the mean expected statistic to s; returns the log-likelihood."""
    total = 0.0
    for i in range(n):
        if offsets.size == 2:
            y = values[i * offsets[1] : (i + 1) * offsets[1]]
        else:
            y = values[offsets[i] : offsets[i + 1]]
        total += expect(theta, y, latent, work)
        accumulate(1.0 / n, y, latent, s)
    return total


def mean_statistic(model: Model, functions: Any, theta: Array) -> tuple[Array, float]:
    """Mean expected statistic ``sbar(theta)`` of shape (n_stats,), and the log-likelihood.

    Parameters
    ----------
    model : Model
    functions
        With the model's compiled functions `expect` and `accumulate` as attributes.
    theta : ndarray of shape (theta_spec.size,)
    """
    s = np.zeros(model.stat_spec.size)
    loglik = _add_up(
        functions.expect, functions.accumulate, theta, model.values, model.offsets,
        model.n_individuals, np.empty(model.latent_size), np.empty(max(1, model.work_size)), s,
    )  # fmt: skip
    return s, float(loglik)
