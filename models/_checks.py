"""Checks that models share of what a user gives: numbers, arrays, matrices, probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem.contract import Array
from saem.exceptions import ModelError, Problems, nearest

__all__ = [
    "add_bad_flags",
    "add_bad_matrices",
    "add_bad_weights",
    "add_missing_column",
    "add_unknown",
    "check_size_of_theta",
    "collinear",
    "dependent_columns",
    "did_you_mean",
    "first_line",
    "is_number",
    "is_symmetric",
    "is_whole",
    "read_arrays",
]

#: Smallest eigenvalue of a correlation matrix that counts as positive.
_SMALLEST_EIGENVALUE = 1e-12
#: Part of a column's norm that others leave over, below which it counts as their combination.
_LEAST_REST = 1e-9


def is_whole(value: Any) -> bool:
    """Whether an option is a whole number."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether an option is a real number, not-a-number included."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool | complex)


def add_bad_flags(problems: Problems, **flags: Any) -> None:
    """Name options that are not True or False."""
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            problems.add(f"{name}={value!r} must be True or False")


def did_you_mean(name: Any, known: Iterable[Any], n: int = 1) -> str | None:
    """Remedy with at most n of the names known that are spelled alike; None without such."""
    close = nearest(str(name), known)[:n]
    return f"did you mean {' or '.join(map(repr, close))}?" if close else None


def add_unknown(name: str, value: Any, known: tuple[str, ...], problems: Problems) -> None:
    """Name an option that is not one of those known, with the nearest of them."""
    problems.add(
        f"{name}={value!r} is not one of {', '.join(map(repr, known))}",
        remedy=did_you_mean(value, known),
    )


def add_missing_column(column: str, known: list[str], problems: Problems) -> None:
    """Name a column that a table of the columns known lacks."""
    problems.add(
        f"column {column!r} is missing",
        remedy=did_you_mean(column, known, 3)
        or f"the columns there are: {', '.join(map(repr, known[:10]))}",
    )


def is_symmetric(matrix: ArrayLike) -> bool:
    """Whether a square matrix equals its transpose, up to rounding."""
    array = np.asarray(matrix, dtype=float)
    return np.allclose(array, array.T, rtol=1e-8, atol=0.0)


def add_bad_matrices(name: str, matrices: Array, problems: Problems) -> None:
    """Name matrices of a stack (k, d, d) that are not symmetric and positive definite.

    A single matrix of shape (d, d) is named without an index.
    """
    several = matrices.ndim == 3
    for c, matrix in enumerate(matrices if several else matrices[None]):
        label = f"{name}[{c}]" if several else name
        if not is_symmetric(matrix):
            problems.add(f"{label} is not symmetric")
        elif (smallest := np.linalg.eigvalsh(matrix)[0]) <= 0.0:
            problems.add(f"{label} is not positive definite: smallest eigenvalue {smallest:.3g}")


def add_bad_weights(weights: Array, problems: Problems) -> None:
    """Name weights of components that are not above 0, or do not sum to 1."""
    if np.any(weights <= 0.0):
        problems.add(f"weights {weights} must all be above 0")
    elif abs(weights.sum() - 1.0) > 1e-6:
        problems.add(f"weights {weights} sum to {weights.sum():g}, not to 1")


def collinear(correlation: ArrayLike) -> NDArray[np.intp]:
    """Columns that others determine, from the matrix of all correlations; none if it is regular."""
    values, vectors = np.linalg.eigh(np.atleast_2d(correlation))
    if values[0] >= _SMALLEST_EIGENVALUE:
        return np.zeros(0, dtype=np.intp)
    return np.flatnonzero(np.abs(vectors[:, 0]) > 0.1)


def dependent_columns(matrix: Array) -> list[int]:
    """Columns that are zero, or a linear combination of those before them."""
    basis: list[Array] = []
    found = []
    for j, column in enumerate(matrix.T):
        norm = np.linalg.norm(column)
        rest = column / norm if norm > 0.0 else column
        for _ in range(2):  # twice is enough for full accuracy
            for direction in basis:
                rest = rest - (direction @ rest) * direction
        left = np.linalg.norm(rest)
        if left < _LEAST_REST:
            found.append(j)
        else:
            basis.append(rest / left)
    return found


def first_line(error: Exception) -> str:
    """What another library's error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_arrays(
    given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], problems: Problems
) -> dict[str, Array]:
    """Copies of given parameters as arrays of finite numbers of the right shapes.

    Parameters
    ----------
    given : mapping of str to array_like
        Names without a shape are left out, and so are shapes without a value.
    shapes : mapping of str to tuple
    problems : Problems
        Gathers what is wrong; such parameters are not in what is returned.
    """
    arrays = {}
    for name in (n for n in shapes if n in given):
        shape = shapes[name]
        try:
            value = None if np.iscomplexobj(given[name]) else np.array(given[name], dtype=float)
        except (TypeError, ValueError):
            value = None
        if value is None:
            problems.add(f"{name} must be an array of numbers of shape {shape}")
        elif value.shape != shape:
            problems.add(f"{name} has shape {value.shape}; it must have shape {shape}")
        elif not np.all(np.isfinite(value)):
            problems.add(f"{name} holds values that are missing or infinite")
        else:
            arrays[name] = value
    return arrays


def check_size_of_theta(theta: Array, size: int, maker: str = "pack_params") -> None:
    """Raise `ModelError` if theta is not so many finite numbers; `maker` makes such."""
    if theta.shape != (size,) or not np.all(np.isfinite(theta)):
        raise ModelError(f"theta must be {size} finite numbers; use `{maker}`.")
