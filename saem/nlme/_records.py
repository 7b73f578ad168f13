"""Data records of the nonlinear mixed-effects model, and the pattern of its covariance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saem._math import HALF_LOG_2PI
from saem.contract import Array
from saem.exceptions import ModelError, Problems
from saem.nlme import _kernels
from saem.nlme.data import Individuals
from saem.nlme.endpoints import Endpoints

__all__ = ["omega_pattern_of", "pack_records"]


def omega_pattern_of(
    omega: str | Sequence[Sequence[str]], names: list[str], title: str = "omega"
) -> Array:
    """Entries of Omega that are estimated, as statuses."""
    d = len(names)
    if isinstance(omega, str):
        if omega == "full":
            return np.ones((d, d))
        if omega in ("diagonal", "diag"):
            return np.eye(d)
        raise ModelError(
            f"{title}={omega!r}: the pattern is 'diagonal', 'full', or blocks of parameter names "
            "such as [['ka', 'V'], ['CL']]."
        )
    problems = Problems(title)
    pattern = np.eye(d)
    seen: list[str] = []
    for block in omega:
        for name in block:
            if name not in names:
                problems.add(
                    f"{name!r} is not a parameter with a random effect ({', '.join(names)})",
                    remedy="name only parameters with random=True",
                )
            elif name in seen:
                problems.add(f"{name!r} stands in two blocks", remedy="name it once")
            seen.append(name)
        index = [names.index(name) for name in block if name in names]
        pattern[np.ix_(index, index)] = 1.0
    problems.raise_if_any(ModelError)
    return pattern


def pack_records(
    data: Individuals,
    x: Array,
    columns: Sequence[str],
    endpoints: Endpoints,
    defaults: Mapping[str, float],
) -> tuple[Array, Any]:
    """One contiguous record per individual, laid out as `saem.nlme._kernels` says.

    The constant holds the ``2 pi`` term, and the Jacobian where residuals
    are normal on the log scale, so that the density is that of the data as given; rows with a
    user's log-likelihood add nothing to it.
    """
    n, n_obs, starts = data.n_individuals, data.n_obs, data.offsets
    p_x, m = x.shape[1], endpoints.number
    logged = (np.array(endpoints.codes) == _kernels.EXPONENTIAL)[data.endpoint]
    continuous = np.array([error.continuous for error in endpoints.errors])[data.endpoint]
    response = data.dv.copy()
    response[logged] = np.log(data.dv[logged])
    lengths = p_x + 2 + m + n_obs * (1 + len(columns))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = np.empty(offsets[-1])
    stacked = np.empty((1 + len(columns), data.dv.size))
    stacked[0] = response
    for c, name in enumerate(columns, 1):
        stacked[c] = data.columns[name] if name in data.columns else defaults[name]
    counts = data.counts(m)
    for i in range(n):
        rows = slice(starts[i], starts[i + 1])
        constant = -float(continuous[rows].sum()) * HALF_LOG_2PI
        if logged[rows].any():
            constant -= float(np.sum(response[rows][logged[rows]]))
        at, end = offsets[i], offsets[i + 1]
        values[at : at + p_x] = x[i]
        values[at + p_x] = constant
        values[at + p_x + 1 : end - m - 1] = stacked[:, rows].ravel()
        values[end - m - 1 : end - 1] = counts[i]
        values[end - 1] = m
    return values, offsets
