"""Find the columns of a data frame, and turn them into numbers or say why not."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Mapping
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from saem.contract import Array
from saem.exceptions import DataError, ModelError, Problems, SaemWarning
from saem.nlme._explain import count, did_you_mean

__all__ = ["Report", "find_columns", "numeric"]

#: Other names under which a canonical column is found, whatever their case.
ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("usubjid", "subject", "subj", "#id"),
    "time": ("t", "tafd", "tsfd"),
    "dv": ("y", "obs", "conc"),
    "amt": ("amount", "dose"),
    "dose": ("amt", "amount"),
    "duration": ("dur", "tinf", "infusion_duration"),
    "dvid": ("ytype", "observation_id"),
}
#: Columns of event tables, which are not read here.
EVENT_COLUMNS = ("evid", "mdv", "rate", "addl", "ii", "ss", "cmt", "adm", "cens", "limit", "dvid")


class Report:
    """What a check has found: problems of the data, of the model, and warnings."""

    #: How many examples a problem spells out.
    EXAMPLES = 3

    def __init__(self, labels: pd.Index) -> None:
        self.data = Problems("the data")
        self.model = Problems("the model")
        self.notes: list[str] = []
        self.labels = labels
        self.ids: pd.Series | None = None  # in file order, once they are known

    def row(self, row: int) -> str:
        """Words for a row: 1-based data row and index label."""
        return f"row {row + 1} (index {_plain(self.labels[row])!r})"

    def where(self, row: int) -> str:
        """Words for a row with its id, where that is known."""
        if self.ids is None:
            return self.row(row)
        return f"id {_plain(self.ids.iloc[row])!r}, {self.row(row)}"

    def rows(self, bad: NDArray[np.bool_], values: Any) -> str:
        """List the first of the marked rows with their values, and count the rest."""
        at = np.flatnonzero(bad)
        listed = [f"{_plain(values[r])!r} at {self.where(int(r))}" for r in at[: self.EXAMPLES]]
        more = at.size - len(listed)
        return "; ".join(listed) + (f"; and in {count(more, 'more row')}" if more else "")

    def note(self, text: str, remedy: str) -> None:
        """Keep a warning until it is known that there is no error."""
        self.notes.append(f"{text}. Remedy: {remedy}.")

    def finish(self, stacklevel: int) -> None:
        """Raise all problems together, or else warn."""
        if self.data:
            both = Problems("the data and the model" if self.model else "the data")
            both.items = self.data.items + self.model.items
            both.raise_if_any(DataError)
        self.model.raise_if_any(ModelError)
        for note in self.notes:
            warnings.warn(note, SaemWarning, stacklevel=stacklevel + 1)


def _plain(value: Any) -> Any:
    """Python value of a numpy scalar, which prints without its type."""
    return value.item() if isinstance(value, np.generic) else value


def find_columns(
    frame: pd.DataFrame,
    mapping: Mapping[str, Hashable],
    required: Iterable[str],
    optional: Iterable[str],
    report: Report,
) -> dict[str, Hashable]:
    """Find the frame's column for each canonical name.

    A name is looked up in `mapping`; if it is not there, in the frame under
    the same name, then whatever the case, then under its aliases.

    Parameters
    ----------
    frame : DataFrame
    mapping : mapping of str to hashable
        The user's choice of columns.
    required, optional : iterable of str
        Canonical names that must, or may, be found.
    report : Report
        Receives what is missing, ambiguous or unknown.

    Returns
    -------
    dict of str to hashable
        Column label of each name that was found.
    """
    required, optional = tuple(required), tuple(optional)
    _check_mapping(frame, mapping, (*required, *optional), report)
    labels = list(frame.columns)
    found: dict[str, Hashable] = {}
    for name in (*required, *optional):
        if name in mapping:
            if mapping[name] in labels:
                found[name] = mapping[name]
            continue
        candidates = _candidates(name, labels)
        if len(candidates) == 1:
            found[name] = candidates[0]
        elif len(candidates) > 1:
            report.data.add(
                f"column {name!r} may be any of {', '.join(map(repr, candidates))}",
                remedy=f"say which: columns={{{name!r}: {candidates[0]!r}}}",
            )
        elif name in required:
            report.data.add(
                f"column {name!r} is missing{did_you_mean(name, labels)}",
                remedy=f"name it: columns={{{name!r}: ...}}, one of "
                f"{', '.join(map(repr, labels)) or 'no columns'}",
            )
    _check_shared(found, report)
    return found


def _candidates(name: str, labels: list[Hashable]) -> list[Hashable]:
    """Labels that can stand for a name: the best kind of match that there is."""
    if name in labels:
        return [name]
    texts = [label for label in labels if isinstance(label, str)]
    same: list[Hashable] = [t for t in texts if t.casefold() == name.casefold()]
    return same or [t for t in texts if t.casefold() in ALIASES.get(name, ())]


def _check_mapping(
    frame: pd.DataFrame, mapping: Mapping[str, Hashable], known: tuple[str, ...], report: Report
) -> None:
    labels = list(frame.columns)
    for name, label in mapping.items():
        if isinstance(name, str) and name.casefold() in EVENT_COLUMNS and name not in known:
            report.data.add(
                f"columns names {name!r}, but event tables are not yet read",
                remedy="give observation rows only, with the dose on every row",
            )
        elif name not in known:
            report.data.add(
                f"columns names {name!r}, which this model does not use{did_you_mean(name, known)}",
                remedy=f"the names are {', '.join(map(repr, known))}; covariates need no mapping",
            )
        if not isinstance(label, Hashable) or label not in labels:
            report.data.add(
                f"column {label!r}, named for {name!r}, is not in the data"
                f"{did_you_mean(label, labels)}",
                remedy=f"use one of {', '.join(map(repr, labels)) or 'no columns'}",
            )


def _check_shared(found: dict[str, Hashable], report: Report) -> None:
    """Refuse one column as both of id, response and anything else."""
    for name in ("id", "dv"):
        others = [n for n, label in found.items() if n != name and label == found.get(name)]
        if name in found and others and (name == "id" or others != ["id"]):
            report.data.add(
                f"column {found[name]!r} stands for {name!r} and for "
                f"{' and '.join(map(repr, others))}",
                remedy="give each its own column in columns={...}",
            )


def numeric(frame: pd.DataFrame, label: Hashable, report: Report) -> Array | None:
    """Turn a column into new float64 numbers, or report why it cannot be.

    Missing cells become NaN. Text is never read as numbers: that would hide
    decimal commas and stray marks.
    """
    series = frame[label]
    if not isinstance(series, pd.Series):
        return None  # a repeated column name, reported elsewhere
    dtype = series.dtype
    if pd.api.types.is_bool_dtype(dtype):
        kind, remedy = "true/false values", f"frame[{label!r}].astype(float), if 0 and 1 are meant"
    elif pd.api.types.is_complex_dtype(dtype):
        kind, remedy = "complex numbers", "give real numbers"
    elif pd.api.types.is_numeric_dtype(dtype):
        return np.array(series.to_numpy(dtype=float, na_value=np.nan), dtype=float)
    elif pd.api.types.is_datetime64_any_dtype(dtype) or isinstance(dtype, pd.PeriodDtype):
        kind = "dates"
        remedy = f"give hours or days since the first: (d - d.min()) with d = frame[{label!r}]"
    elif pd.api.types.is_timedelta64_dtype(dtype):
        kind = "time differences"
        remedy = f"choose a unit: frame[{label!r}] / pandas.Timedelta(hours=1)"
    else:
        _report_cells(series, label, report)
        return None
    report.data.add(f"column {label!r} has {kind} (dtype {dtype}), not numbers", remedy=remedy)
    return None


def _report_cells(series: pd.Series, label: Hashable, report: Report) -> None:
    """Report the cells of a column of text or objects that are not numbers."""
    cells = series.to_numpy(dtype=object)
    strange = np.array(
        [
            (not isinstance(cell, Number) or isinstance(cell, (bool, complex)))
            and not _missing(cell)
            for cell in cells
        ],
        dtype=bool,
    )
    if strange.any():
        report.data.add(
            f"column {label!r} (dtype {series.dtype}) must be numbers, but has "
            f"{report.rows(strange, cells)}",
            remedy=f"correct these cells, or make them missing with pandas.to_numeric("
            f"frame[{label!r}], errors='coerce') and drop those rows",
        )
    else:
        report.data.add(
            f"column {label!r} has dtype {series.dtype}, though its cells are numbers or missing",
            remedy=f"frame[{label!r}].astype(float)",
        )


def _missing(cell: Any) -> bool:
    return bool(pd.api.types.is_scalar(cell) and pd.isna(cell))
