"""Sequences of a hidden Markov model: reading, checks, records."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array
from saem.exceptions import Problems

from . import _hidden_markov_kernels as kernels
from ._checks import add_unknown, is_whole
from ._incomplete import add_empty_columns, observed_moments
from ._mixture_options import check_floor
from ._table import as_array, read_table, shape_of

__all__ = [
    "KINDS",
    "Sequences",
    "check_options",
    "check_sequences",
    "check_values",
    "read_sequences",
    "records_of",
]

#: Kinds of emissions by name.
KINDS = {"diag": kernels.DIAG, "full": kernels.FULL, "categorical": kernels.CATEGORICAL}


class Sequences(NamedTuple):
    """Rows of shape (n_rows, n_columns), one sequence after the other, and their lengths."""

    values: Array
    lengths: NDArray[np.int64]
    names: list[str]


def read_sequences(
    X: Any, lengths: Any, problems: Problems, names: list[str] | None = None
) -> Sequences | None:
    """Check sequences and put them one after the other.

    Parameters
    ----------
    X : list of array_like, or array_like or DataFrame of shape (n_rows, n_columns)
        One array for each sequence, or all rows together.
    lengths : array_like of int, or None
        Rows of each sequence where they stand together; one sequence for None.
    problems : Problems
        Gathers what is wrong.
    names : list of str, optional
        Columns that the sequences must have.

    Returns
    -------
    Sequences or None
        None where X cannot be read.
    """
    several = isinstance(X, list | tuple) and len(X) > 0 and len(shape_of(X[0])) > 0
    if not several:
        return _read_stacked(X, lengths, problems, names)
    if lengths is not None:
        problems.add(
            "lengths was given with a list of sequences, which have their own lengths",
            remedy="leave it out",
        )
    parts = []
    for i, part in enumerate(X):
        found = Problems(problems.owner)
        table = read_table(_column(part), found, names, missing=True)
        problems.items += [f"sequence {i}: {item}" for item in found.items]
        if table is not None:
            parts.append(table)
            names = names or table.names
    if len(parts) < len(X):
        return None
    widths = {part.values.shape[1] for part in parts}
    if len(widths) > 1:
        problems.add(f"sequences have {sorted(widths)} columns; all must have the same")
        return None
    values = np.concatenate([part.values for part in parts])
    return Sequences(values, np.array([len(p.values) for p in parts]), parts[0].names)


def _column(X: Any) -> Any:
    """One column where X has one dimension."""
    return X if hasattr(X, "columns") or len(shape_of(X)) != 1 else np.asarray(X).reshape(-1, 1)


def _read_stacked(
    X: Any, lengths: Any, problems: Problems, names: list[str] | None
) -> Sequences | None:
    table = read_table(_column(X), problems, names, missing=True)
    if table is None:
        return None
    n = len(table.values)
    if lengths is None:
        return Sequences(table.values, np.array([n]), table.names)
    sizes = as_array(lengths, "lengths", problems)
    if sizes is None:
        return None
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or sizes.size == 0:
        problems.add("lengths must be whole numbers, one for each sequence")
        return None
    for i in np.flatnonzero(sizes < 1)[:5]:
        problems.add(f"lengths[{i}] is {sizes[i]}; a sequence has at least one row")
    if sizes.sum() != n:
        problems.add(f"lengths sum to {sizes.sum()}, but X has {n} rows")
    return None if problems else Sequences(table.values, sizes.astype(np.int64), table.names)


def check_values(sequences: Sequences, kind: str, n_categories: Any, problems: Problems) -> None:
    """Check the values against the kind of emissions."""
    values = sequences.values
    holes = np.isnan(values)
    starts = np.concatenate([[0], np.cumsum(sequences.lengths)])

    def place(row: int) -> str:
        i = int(np.searchsorted(starts, row, side="right")) - 1
        return f"sequence {i}, row {row - starts[i]}"

    if holes.all():
        problems.add("no value is observed")
        return
    if kind == "full":
        for row in np.flatnonzero(holes.any(axis=1) & ~holes.all(axis=1))[:5]:
            problems.add(
                f"{place(int(row))}: some entries are missing and some are not",
                remedy="use covariance_type='diag', or remove the whole row",
            )
    if kind != "categorical":
        return
    if values.shape[1] != 1:
        problems.add(f"categorical sequences have one column; X has {values.shape[1]}")
        return
    top = n_categories if is_whole(n_categories) else np.inf
    with np.errstate(invalid="ignore"):
        bad = ~holes[:, 0] & ~((values[:, 0] >= 0) & (values[:, 0] < top))
        bad |= ~holes[:, 0] & (values[:, 0] != np.floor(values[:, 0]))
    for row in np.flatnonzero(bad)[:5]:
        limit = "" if top == np.inf else f" below n_categories={n_categories}"
        problems.add(
            f"{place(int(row))}: the symbol {values[row, 0]:g} must be a whole number, at least "
            f"0{limit}",
            remedy="code symbols as 0, 1, ... (pandas.factorize)",
        )


def records_of(
    values: Array, lengths: NDArray[np.int64], weights: Array, head: tuple[int, int, int]
) -> tuple[Array, NDArray[np.int64]]:
    """Records of the sequences one after the other, and their offsets.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns)
    lengths : ndarray of int64
    weights : ndarray of shape (n_sequences,)
    head : tuple of int
        States, columns or symbols, and kind.
    """
    n, width = len(lengths), values.shape[1]
    offsets = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(kernels.RECORD_HEAD + lengths * width, out=offsets[1:])
    out = np.empty(offsets[-1])
    ends = np.cumsum(lengths)
    for i in range(n):
        record = out[offsets[i] : offsets[i + 1]]
        record[: kernels.RECORD_HEAD] = (weights[i], *head)
        record[kernels.RECORD_HEAD :] = values[ends[i] - lengths[i] : ends[i]].ravel()
    # Two offsets would mean records of equal length, which is the same for one sequence.
    return out, offsets


def check_options(
    n_states: Any,
    emission: Any,
    covariance_type: Any,
    n_categories: Any,
    reg_covar: Any,
    problems: Problems,
) -> None:
    """Check the options that can be judged without the data."""
    if not is_whole(n_states) or n_states < 1:
        problems.add(f"n_states={n_states!r} must be a whole number, at least 1")
    for option, value, known in (
        ("emission", emission, ("gaussian", "categorical")),
        ("covariance_type", covariance_type, ("diag", "full")),
    ):
        if not isinstance(value, str) or value not in known:
            add_unknown(option, value, known, problems)
    if n_categories is not None and (not is_whole(n_categories) or n_categories < 1):
        problems.add(f"n_categories={n_categories!r} must be a whole number, at least 1")
    check_floor(reg_covar, problems)


def check_sequences(
    sequences: Sequences, kind: str, n_categories: Any, weights: Array, problems: Problems
) -> None:
    """Check values and columns, as far as a fit needs."""
    check_values(sequences, kind, n_categories, problems)
    if problems or kind == "categorical":
        return
    each_row = np.repeat(weights, sequences.lengths)
    mean, variance = observed_moments(sequences.values, each_row)
    add_empty_columns(sequences.names, mean, variance, problems)
