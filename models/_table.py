"""Reading a table of numbers: an array or a DataFrame, checked, without a copy if possible."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saem.contract import Array
from saem.exceptions import Problems

from ._checks import add_missing_column

__all__ = ["Moments", "Table", "as_array", "chunks", "moments", "read_table", "shape_of"]

#: Rows read together by passes in Python, so that temporaries stay small.
_CHUNK = 65_536
#: Squares of larger numbers lose all accuracy or overflow.
_LARGEST = 1e100


class Table(NamedTuple):
    """Numbers with the names of their columns; `rows` labels rows in messages."""

    values: Array
    names: list[str]
    rows: Any


class Moments(NamedTuple):
    """Mean of shape (n_columns,) and covariance (divisor n) of shape (n_columns, n_columns)."""

    mean: Array
    cov: Array


class _Writable:
    """Array interface of a read-only array, declared writable.

    Compiled functions are declared for writable arrays, although none writes to
    data; pandas and memory maps hand out read-only ones. This avoids the copy.
    """

    def __init__(self, array: Array) -> None:
        self._array = array  # keeps the memory alive
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def _contiguous(array: Any) -> Array:
    result = np.ascontiguousarray(array, dtype=np.float64)
    return result if result.flags.writeable else np.asarray(_Writable(result))


def as_array(values: Any, what: str, problems: Problems) -> Any:
    """Array of what a user gave; None where its rows have several lengths."""
    try:
        return np.asarray(values)
    except ValueError:
        problems.add(f"{what} is no array: its rows have several lengths")
        return None


def shape_of(values: Any) -> tuple[int, ...]:
    """Shape of what a user gave, (0, 0) where its rows have several lengths."""
    try:
        return np.shape(values)
    except ValueError:
        return 0, 0


def chunks(n_rows: int) -> list[slice]:
    """Slices that cover the rows, a few ten thousand at a time."""
    return [slice(a, min(a + _CHUNK, n_rows)) for a in range(0, n_rows, _CHUNK)]


def _numbers(X: Any, problems: Problems) -> tuple[Any, list[str] | None, Any]:
    """Raw numeric array, names of columns and labels of rows; problems with types."""
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        names = [str(c) for c in X.columns]
        bad = [c for c, t in zip(names, X.dtypes, strict=True) if t.kind not in "iufb"]
        for column in bad:
            problems.add(
                f"column {column!r} has dtype {X.dtypes.iloc[names.index(column)]}; "
                "all columns must be numbers",
                remedy="drop the column, or convert it with pandas.to_numeric",
            )
        for column in sorted({c for c in names if names.count(c) > 1}):
            problems.add(f"column name {column!r} stands for more than one column")
        if bad:
            return None, names, X.index
        return X.to_numpy(dtype=np.float64, na_value=np.nan), names, X.index
    array = as_array(X, "X", problems)
    if array is None:
        return None, None, None
    if array.dtype.kind not in "iufb":
        problems.add(
            f"X has dtype {array.dtype}; it must hold real numbers",
            remedy="convert it with X.astype(float)",
        )
        return None, None, None
    return array, None, range(len(array) if array.ndim else 0)


def _add_bad_values(table: Table, problems: Problems, missing: bool) -> None:
    """Name the rows and columns of values not allowed: missing, infinite or too large."""
    for part in chunks(len(table.values)):
        block = table.values[part]
        with np.errstate(all="ignore"):
            if np.abs(block).max() < _LARGEST:  # false for not-a-number, too
                continue
        bad = np.abs(block) >= _LARGEST if missing else ~(np.abs(block) < _LARGEST)
        for i, j in np.argwhere(bad):
            rule = "is missing" if np.isnan(block[i, j]) else "is infinite or beyond 1e100"
            problems.add(
                f"row {table.rows[part.start + i]}, column {table.names[j]!r}: "
                f"the value {block[i, j]} {rule}",
                remedy="drop the row or impute the value before the fit",
            )
            if len(problems.items) > problems.LIMIT:
                return


def read_table(
    X: Any, problems: Problems, names: list[str] | None = None, *, missing: bool = False
) -> Table | None:
    """Check a table and make it contiguous float64, without a copy where it is already.

    Parameters
    ----------
    X : array_like or DataFrame of shape (n_rows, n_columns)
    problems : Problems
        Gathers what is wrong.
    names : list of str, optional
        Columns that X must have. A DataFrame is brought into this order.
    missing : bool
        Whether missing values (NaN) are allowed.

    Returns
    -------
    Table or None
        None where X cannot be read at all.
    """
    if names is not None and hasattr(X, "columns"):
        known = [str(c) for c in X.columns]
        absent = [c for c in names if c not in known]
        for column in absent:
            add_missing_column(column, known, problems)
        if absent:
            return None
        X = X.set_axis(known, axis=1)[names]
    array, own, rows = _numbers(X, problems)
    if array is None:
        return None
    if array.ndim != 2 or 0 in array.shape:
        rule = "is empty" if array.ndim == 2 else "must have two dimensions (rows, columns)"
        problems.add(
            f"X of shape {array.shape} {rule}",
            remedy="for one variable, X.reshape(-1, 1)" if array.ndim == 1 and array.size else None,
        )
        return None
    if names is not None and array.shape[1] != len(names):
        problems.add(f"X has {array.shape[1]} columns; the model has {len(names)}")
        return None
    columns = own or names or [f"x{j}" for j in range(array.shape[1])]
    table = Table(_contiguous(array), columns, rows)
    _add_bad_values(table, problems, missing)
    return table


def moments(values: Array) -> Moments:
    """Mean and covariance of the rows, in two passes over chunks."""
    n = len(values)
    parts = chunks(n)
    mean = values[0] + sum((values[p] - values[0]).sum(axis=0) for p in parts) / n
    cov = np.zeros((values.shape[1],) * 2)
    for part in parts:
        centred = values[part] - mean
        cov += centred.T @ centred
    return Moments(mean, cov / n)
