"""Random values of columns, given components and parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array

from ._mixture_columns import Column

__all__ = ["sample_column"]


def _levels(probabilities: Array, labels: NDArray[np.intp], rng: np.random.Generator) -> Any:
    """Level of each row; probabilities of shape (n_levels, k)."""
    cumulated = np.cumsum(probabilities, axis=0)
    u = rng.random(len(labels)) * cumulated[-1, labels]
    return (u >= cumulated[:-1, labels]).sum(axis=0)


def sample_column(
    column: Column,
    raw: Array,
    labels: NDArray[np.intp],
    totals: NDArray[np.int64],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Values of the column's members, by name.

    Parameters
    ----------
    column : Column
    raw : ndarray of shape (column.size, k)
        Parameters by coordinate.
    labels, totals : ndarray of shape (n,)
        Components, and the totals of multinomial counts.
    rng : numpy.random.Generator
    """
    if column.family == "multinomial":
        probabilities = raw / raw.sum(axis=0)
        counts = rng.multinomial(totals, probabilities.T[labels]).astype(float)
        return dict(zip(column.members, counts.T, strict=True))
    if column.family == "bernoulli":
        return {column.name: _levels(raw, labels, rng).astype(float)}
    if column.family == "categorical":
        return {column.name: np.array(column.levels, dtype=object)[_levels(raw, labels, rng)]}
    first = raw[1, labels]
    if column.family == "poisson":
        return {column.name: rng.poisson(first).astype(float)}
    if column.family == "exponential":
        return {column.name: rng.exponential(first)}
    second = raw[2, labels]
    if column.family == "gamma":
        return {column.name: rng.gamma(first, second)}
    return {column.name: column.shift + first + np.sqrt(second) * rng.standard_normal(len(labels))}
