"""Columns of a table, each with its family: reading, checking, and the records of rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array
from saem.exceptions import Problems

from . import _mixture_families as families
from ._checks import add_missing_column
from ._table import as_array, chunks

__all__ = [
    "FAMILIES",
    "Column",
    "Source",
    "infer_family",
    "level_text",
    "levels_of",
    "pairs_of",
    "read_column",
    "read_source",
]

#: Squares of larger numbers lose all accuracy or overflow.
_LARGEST = 1e100
_BERNOULLI_LEVELS = (0, 1)


@dataclass(frozen=True)
class Source:
    """Columns as a user gave them; `rows` labels rows in messages."""

    names: list[str]
    columns: list[Any]
    rows: Any


@dataclass(frozen=True)
class Column:
    """One column, or the group of columns of a multinomial.

    Attributes
    ----------
    name : str
    family : str
        One of `FAMILIES`.
    members : tuple of str
        Columns of the table it is made of.
    levels : tuple
        Of a Bernoulli or categorical column; the members of a multinomial.
    shift : float
        Subtracted from a Gaussian column: moments about the origin lose accuracy.
    """

    name: str
    family: str
    members: tuple[str, ...]
    levels: tuple[Hashable, ...] = ()
    shift: float = 0.0

    @property
    def code(self) -> int:
        """Code of the family in compiled functions."""
        return _CODES[self.family]

    @property
    def size(self) -> int:
        """Number of coordinates."""
        if self.code == families.SIMPLEX:
            return len(self.levels)
        return 3 if self.code >= families.GAUSSIAN else 2


_CODES = {
    "bernoulli": families.SIMPLEX,
    "categorical": families.SIMPLEX,
    "multinomial": families.SIMPLEX,
    "poisson": families.POISSON,
    "exponential": families.EXPONENTIAL,
    "gaussian": families.GAUSSIAN,
    "gamma": families.GAMMA,
}
FAMILIES = tuple(_CODES)


# Reading.


def read_source(X: Any, problems: Problems, names: Iterable[str] | None = None) -> Source | None:
    """Split a table into columns; those of a model, in its order, where `names` are given."""
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        own = [str(c) for c in X.columns]
        for column in sorted({c for c in own if own.count(c) > 1}):
            problems.add(f"column name {column!r} stands for more than one column")
        if 0 in X.shape:
            problems.add(f"X of shape {X.shape} is empty")
        wanted = own if names is None else list(names)
        for column in (c for c in wanted if c not in own):
            add_missing_column(column, own, problems)
        if problems:
            return None
        return Source(wanted, [X.iloc[:, own.index(c)] for c in wanted], X.index)
    array = as_array(X, "X", problems)
    if array is None:
        return None
    if array.ndim != 2 or 0 in array.shape:
        rule = "is empty" if array.ndim == 2 else "must have two dimensions (rows, columns)"
        hint = "for one variable, X.reshape(-1, 1)" if array.ndim == 1 and array.size else None
        problems.add(f"X of shape {array.shape} {rule}", remedy=hint)
        return None
    wanted = [f"x{j}" for j in range(array.shape[1])] if names is None else list(names)
    if len(wanted) != array.shape[1]:
        problems.add(f"X has {array.shape[1]} columns; the model has {len(wanted)}")
        return None
    return Source(wanted, list(array.T), range(len(array)))


def infer_family(values: Any) -> str:
    """Family of a column from its type.

    Booleans are Bernoulli, whole numbers (by type, not by value) at least 0 Poisson,
    other numbers Gaussian, all else categorical.
    """
    import pandas as pd

    types = pd.api.types
    kind = pd.Series(values).dtype
    if isinstance(kind, pd.CategoricalDtype):
        return "categorical"
    if types.is_bool_dtype(kind):
        return "bernoulli"
    if types.is_integer_dtype(kind):
        return "poisson" if not (pd.Series(values) < 0).any() else "gaussian"
    return "gaussian" if types.is_float_dtype(kind) else "categorical"


def _numbers(values: Any, name: str, problems: Problems) -> Array | None:
    import pandas as pd

    series = pd.Series(values)
    if series.dtype.kind in "SUMmc" or isinstance(series.dtype, pd.CategoricalDtype):
        problems.add(f"column {name!r} has dtype {series.dtype}; it must hold numbers")
        return None
    try:
        return series.to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError):
        problems.add(
            f"column {name!r} holds values that are no numbers",
            remedy="convert it with pandas.to_numeric, or make it categorical",
        )
        return None


def level_text(level: Any) -> str:
    return f"{level:g}" if isinstance(level, float) else str(level)


def levels_of(values: Any) -> tuple[Hashable, ...]:
    """Levels of a categorical column: as declared by pandas, else the values in order."""
    import pandas as pd

    series = pd.Series(values)
    if isinstance(series.dtype, pd.CategoricalDtype):
        return tuple(series.cat.categories.tolist())
    found = series.dropna().unique().tolist()
    try:
        return tuple(sorted(found))
    except TypeError:  # of several types
        return tuple(sorted(found, key=str))


def _codes(
    values: Any, name: str, levels: tuple[Hashable, ...], rows: Any, problems: Problems
) -> Array:
    """Positions among the levels, NaN where missing."""
    import pandas as pd

    series = pd.Series(values).astype(object)
    codes = pd.Index(list(levels), dtype=object).get_indexer(series).astype(float)
    missing = series.isna().to_numpy()
    unknown = (codes < 0) & ~missing
    shown = ", ".join(repr(level) for level in levels[:10]) + (", ..." if len(levels) > 10 else "")
    for i in np.flatnonzero(unknown)[: problems.LIMIT + 1]:
        problems.add(
            f"row {rows[i]}, column {name!r}: {series.iloc[i]!r} is not one of the levels {shown}"
        )
    codes[missing] = np.nan
    return codes


_RULES: dict[str, tuple[Callable[[Array], NDArray[np.bool_]], str]] = {
    "poisson": (lambda x: (x >= 0) & (x == np.floor(x)), "a count (a whole number, at least 0)"),
    "multinomial": (
        lambda x: (x >= 0) & (x == np.floor(x)),
        "a count (a whole number, at least 0)",
    ),
    "exponential": (lambda x: x >= 0, "at least 0"),
    "gamma": (lambda x: x > 0, "above 0"),
    "gaussian": (lambda x: x == x, "a finite number"),
}


def read_column(values: Any, column: Column, name: str, rows: Any, problems: Problems) -> Array:
    """Numbers of one member column: values or codes of levels, NaN where missing."""
    if column.family in ("bernoulli", "categorical"):
        return _codes(values, name, column.levels, rows, problems)
    numbers = _numbers(values, name, problems)
    if numbers is None:
        return np.zeros(0)
    rule, text = _RULES[column.family]
    with np.errstate(invalid="ignore"):
        bad = ~np.isnan(numbers) & ~(rule(numbers) & (np.abs(numbers) < _LARGEST))
    for i in np.flatnonzero(bad)[: problems.LIMIT + 1]:
        problems.add(
            f"row {rows[i]}, column {name!r}: the value {numbers[i]:g} of a {column.family} "
            f"column must be {text}"
        )
    return numbers


# Records.


def _pairs_of_column(column: Column, x: Array) -> tuple[Array, Array, Array]:
    """Coordinates within the column, values of t, and h; a pair whose value is 0 is none.

    x has shape (n, members); coordinates and values (n, most pairs of a row).
    """
    n = len(x)
    missing = np.isnan(x[:, 0])
    known = np.where(missing, 1.0, x[:, 0])
    if column.family in ("bernoulli", "categorical"):
        return (
            np.where(missing, 0.0, known)[:, None],
            (~missing).astype(float)[:, None],
            np.zeros(n),
        )
    if column.family == "multinomial":
        counts = np.where(missing[:, None], 0.0, x)
        return np.tile(np.arange(x.shape[1], dtype=float), (n, 1)), counts, _log_coefficient(counts)
    first = missing.astype(float)
    second, h = np.zeros(n), np.zeros(n)
    if column.family == "gaussian":
        known = known - column.shift
        second = known**2
    elif column.family == "gamma":
        second = np.log(known)
        h = np.where(missing, 0.0, -second)
    elif column.family == "poisson":
        h = np.where(missing, 0.0, _log_coefficient(known[:, None], total=False))
    t = np.stack([first, np.where(missing, 0.0, known), np.where(missing, 0.0, second)], axis=1)
    t = t[:, : column.size]
    return np.tile(np.arange(column.size, dtype=float), (n, 1)), t, h


def _log_coefficient(counts: Array, total: bool = True) -> Array:
    """Log of ``n! / prod x!``, or of ``1 / prod x!``."""
    from scipy.special import gammaln

    below = gammaln(counts + 1.0).sum(axis=1)
    return gammaln(counts.sum(axis=1) + 1.0) - below if total else -below


def pairs_of(columns: list[Column], firsts: list[int], X: Array) -> tuple[Array, NDArray[np.int64]]:
    """Records of rows, with weights 1, and where they begin.

    Parameters
    ----------
    columns : list of Column
    firsts : list of int
        First coordinate of each column.
    X : ndarray of shape (n, n_members)
        From `read_column`, side by side.

    Returns
    -------
    values : ndarray
    offsets : ndarray of shape (n + 1,)
    """
    blocks, lengths = [], []
    for part in chunks(len(X)):
        places, values, h, at = [], [], np.zeros(part.stop - part.start), 0
        for column, first in zip(columns, firsts, strict=True):
            width = len(column.members)
            place, t, own = _pairs_of_column(column, X[part, at : at + width])
            places.append(first + place)
            values.append(t)
            h += own
            at += width
        pairs = np.stack([np.concatenate(places, axis=1), np.concatenate(values, axis=1)], axis=2)
        heads = np.stack([np.ones_like(h), h], axis=1)[:, None, :]
        pairs = np.concatenate([heads, pairs], axis=1)
        keep = pairs[:, :, 1] != 0.0
        keep[:, 0] = True
        blocks.append(pairs[keep].ravel())
        lengths.append(2 * keep.sum(axis=1))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return np.concatenate(blocks), offsets
