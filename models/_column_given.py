"""Parameters of columns by name: from the flat layout to arrays and back, with checks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array
from saem.exceptions import Problems

from ._mixture_base import simplex_directions
from ._mixture_columns import Column, level_text

__all__ = ["KINDS", "Block", "blocks_of", "directions_of", "names_of", "set_blocks"]

#: Parameters of one column: kind to array of shape (k,) or (k, n_levels).
Block = dict[str, Array]

#: Kinds of parameters of each family, in the order of their coordinates.
KINDS = {
    "bernoulli": ("probabilities",),
    "categorical": ("probabilities",),
    "multinomial": ("probabilities",),
    "poisson": ("rates",),
    "exponential": ("scales",),
    "gaussian": ("means", "variances"),
    "gamma": ("shapes", "scales"),
}


def blocks_of(columns: list[Column], firsts: list[int], parameters: Array) -> list[Block]:
    """Parameters of each column from the block of theta of shape (q, k)."""
    blocks = []
    for column, first in zip(columns, firsts, strict=True):
        raw = parameters[first - 1 : first - 1 + column.size]
        if column.family == "bernoulli":
            blocks.append({"probabilities": raw[1].copy()})
        elif column.levels:
            blocks.append({"probabilities": raw.T.copy()})
        else:
            kinds = KINDS[column.family]
            blocks.append({kind: raw[1 + m].copy() for m, kind in enumerate(kinds)})
            if column.family == "gaussian":
                blocks[-1]["means"] += column.shift
    return blocks


def set_blocks(
    columns: list[Column],
    firsts: list[int],
    parameters: Array,
    blocks: list[Block],
    problems: Problems,
) -> None:
    """Write parameters of each column into the block of theta, checked."""
    k = parameters.shape[1]
    for column, first, block in zip(columns, firsts, blocks, strict=True):
        raw = parameters[first - 1 : first - 1 + column.size]
        for m, kind in enumerate(KINDS[column.family]):
            what = f"{kind} of column {column.name!r}"
            whole = bool(column.levels) and column.family != "bernoulli"
            shape = (k, len(column.levels)) if whole else (k,)
            value = np.array(block[kind], dtype=float)
            if value.shape != shape:
                problems.add(f"{what} have shape {value.shape}; they must have shape {shape}")
            elif not np.all(np.isfinite(value)):
                problems.add(f"{what} hold values that are missing or infinite")
            elif kind != "means" and not np.all(value > 0.0):
                problems.add(f"{what} must all be above 0")
            elif column.family == "bernoulli":
                if not np.all(value < 1.0):
                    problems.add(f"{what} must all be below 1")
                raw[0], raw[1] = 1.0 - value, value
            elif whole:
                if np.any(np.abs(value.sum(axis=1) - 1.0) > 1e-6):
                    problems.add(f"{what} must sum to 1 in each component")
                raw[:] = (value / value.sum(axis=1, keepdims=True)).T
            else:
                raw[1 + m] = value - (column.shift if kind == "means" else 0.0)


def names_of(columns: list[Column], k: int) -> tuple[list[str], NDArray[np.intp], Array]:
    """Names of the parameters, their places in the block of shape (q, k), what is added.

    Ordered by kind, then component, then column.
    """
    kinds = list(dict.fromkeys(kind for column in columns for kind in KINDS[column.family]))
    names, places, added = [], [], []
    for kind in kinds:
        for c in range(k):
            first = 0
            for column in columns:
                for text, i in _coordinates(column, kind):
                    names.append(f"{kind}[{c},{text}]")
                    places.append((first + i) * k + c)
                    added.append(column.shift if kind == "means" else 0.0)
                first += column.size
    return names, np.array(places, dtype=np.intp), np.array(added)


def _coordinates(column: Column, kind: str) -> list[tuple[str, int]]:
    """Name and coordinate of each parameter of a kind in a column."""
    kinds = KINDS[column.family]
    if kind not in kinds:
        return []
    if column.family == "bernoulli":
        return [(column.name, 1)]
    if column.family == "multinomial":
        return [(member, i) for i, member in enumerate(column.members)]
    if column.levels:
        return [(f"{column.name}={level_text(v)}", i) for i, v in enumerate(column.levels)]
    return [(column.name, 1 + kinds.index(kind))]


def directions_of(
    columns: list[Column],
    firsts: list[int],
    named: NDArray[np.intp],
    weights: Array,
    parameters: Array,
) -> Array:
    """Free directions of the weights and named parameters, of shape (n_names, n_free).

    Parameters
    ----------
    columns, firsts
        Columns and their first coordinates.
    named : ndarray of shape (n_names - k,)
        Places of the named parameters in the block of theta, from `names_of`.
    weights : ndarray of shape (k,)
    parameters : ndarray of shape (q, k)
    """
    k = len(weights)
    place = {int(raw): k + m for m, raw in enumerate(named)}
    found = []

    def add(places: list[int], parts: list[Array]) -> None:
        for part in parts:
            direction = np.zeros(k + len(named))
            direction[places] = part
            found.append(direction)

    add(list(range(k)), simplex_directions(weights))
    for column, first in zip(columns, firsts, strict=True):
        for c in range(k):
            raw = parameters[first - 1 : first - 1 + column.size, c]
            at = [place.get((first - 1 + i) * k + c, -1) for i in range(column.size)]
            if column.family == "bernoulli":
                add(at[1:], [np.abs(part[1:]) for part in simplex_directions(raw)])
            elif column.levels:
                add(at, simplex_directions(raw))
            else:
                sizes = np.abs(raw[1:])
                if column.family == "gaussian":
                    sizes[0] = np.sqrt(raw[2])
                add(at[1:], list(np.diag(sizes)))
    return np.array(found).reshape(-1, k + len(named)).T
