"""Checks of the values in the data: responses, times, doses, covariates.

Each check looks at whole columns first and writes words only about what is
wrong. Arrays are in the order of the frame; ``order`` holds the file positions
of the rows stacked by individual, and individual i has ``offsets[i]:offsets[i + 1]``.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from saem.contract import Array
from saem.nlme._columns import Report
from saem.nlme._explain import count
from saem.nlme.structural import Structural

__all__ = [
    "check_doses",
    "check_event_columns",
    "check_responses",
    "check_times",
    "check_values",
    "subject_frame",
]

Rows = NDArray[np.int64]

_EVERY_ROW = (
    "event tables are not yet read: keep observation rows only and let the dose stand on every "
    "one of them"
)
#: Columns that cannot be negative.
_NOT_NEGATIVE = ("amt", "duration")


def check_event_columns(frame: pd.DataFrame, names: Mapping[str, Hashable], report: Report) -> None:
    """Refuse rows that an event column marks as something else than an observation."""
    for label in frame.columns:
        if not isinstance(label, str) or label.casefold() not in ("evid", "mdv"):
            continue
        cells = frame[label]
        if label in names.values() or not isinstance(cells, pd.Series):
            continue
        if pd.api.types.is_numeric_dtype(cells.dtype):
            marked = (cells.fillna(0) != 0).to_numpy(dtype=bool)
            if marked.any():
                report.data.add(
                    f"column {label!r} marks {count(int(marked.sum()), 'row')} as doses or other "
                    f"events: {report.rows(marked, cells.to_numpy())}",
                    remedy=_EVERY_ROW,
                )


def check_values(
    names: Mapping[str, Hashable],
    values: Mapping[str, Array],
    positive: NDArray[np.bool_],
    report: Report,
) -> None:
    """Check columns cell by cell: missing, infinite, negative; `positive` marks rows of dv."""
    for name, array in values.items():
        missing = np.isnan(array)
        owner = f"column {names[name]!r} ({name})"
        if missing.any():
            text = f"{owner} is missing: {report.rows(missing, array)}"
            report.data.add(text, remedy=_remedy_missing(name, names[name], missing, values))
        infinite = np.isinf(array)
        if infinite.any():
            report.data.add(
                f"{owner} must be finite, but is {report.rows(infinite, array)}",
                remedy="correct these cells or drop the rows",
            )
        negative = (array < 0) & ~infinite
        if name in _NOT_NEGATIVE and negative.any():
            report.data.add(
                f"{owner} must not be negative, but is {report.rows(negative, array)}",
                remedy="correct the sign",
            )
    dv = values.get("dv")
    if dv is not None:
        low = (dv <= 0) & np.isfinite(dv) & positive
        if low.any():
            report.data.add(
                f"column {names['dv']!r} (dv) must be positive, since the exponential error model "
                f"takes its logarithm, but is {report.rows(low, dv)}",
                remedy="drop these rows or choose another error model",
            )


def _remedy_missing(
    name: str, label: Hashable, missing: NDArray[np.bool_], values: Mapping[str, Array]
) -> str:
    if name == "dv":
        remedy = f"drop the rows without a response: frame.dropna(subset=[{label!r}])"
        amt = values.get("amt")
        if amt is not None and (amt[missing] > 0).all() and not (amt > 0).all():
            remedy += f"; if they are dose rows, {_EVERY_ROW}"
        return remedy
    if name == "amt":
        return f"write the dose on every row; {_EVERY_ROW}"
    return "fill in these cells or drop the rows"


def check_responses(
    ids: Sequence[Hashable],
    offsets: Rows,
    order: Rows,
    values: Mapping[str, Array],
    error: object,
    report: Report,
) -> None:
    """Check that every subject has a response, and that continuous responses differ."""
    dv = values.get("dv")
    if dv is None:
        return
    present = np.add.reduceat(np.isfinite(dv[order]).astype(np.int64), offsets[:-1])
    empty = np.flatnonzero(present == 0)
    if empty.size:
        listed = ", ".join(repr(ids[i]) for i in empty[: report.EXAMPLES])
        more = f" and {empty.size - report.EXAMPLES} more" if empty.size > report.EXAMPLES else ""
        report.data.add(
            f"subjects without observations: id {listed}{more} (no finite dv in any row)",
            remedy="drop these subjects",
        )
    finite = dv[np.isfinite(dv)]
    # Alike may be times to events none of which is censored, their times another column.
    continuous = getattr(error, "continuous", True)
    if continuous and finite.size > 1 and finite.min() == finite.max():
        report.data.add(
            f"all {finite.size} responses (dv) are {finite[0]:g}: data without variance determine "
            "no model",
            remedy="check that dv is the measured column",
        )


def check_times(
    offsets: Rows,
    order: Rows,
    names: Mapping[str, Hashable],
    values: Mapping[str, Array],
    structural: Structural,
    endpoint: Rows,
    report: Report,
) -> None:
    """Check that times do not decrease within a subject and endpoint; note replicates."""
    if "time" not in values:
        return
    time = values["time"][order]
    with np.errstate(invalid="ignore"):  # infinite times are reported with their cells
        step = np.diff(time)
    inside = np.ones(step.size, dtype=bool)
    inside[offsets[1:-1] - 1] = False
    inside &= np.diff(endpoint[order]) == 0
    if "occasion" in structural.columns and "occasion" in values:  # each has a clock of its own
        inside &= np.diff(values["occasion"][order]) == 0
    back = np.flatnonzero((step < 0) & inside)
    label = names["time"]
    if back.size:
        at = int(back[0])
        more = f", and {count(back.size - 1, 'more time')}" if back.size > 1 else ""
        report.data.add(
            f"column {label!r} (time) decreases within a subject: {time[at + 1]:g} after "
            f"{time[at]:g} at {report.where(int(order[at + 1]))}{more}",
            remedy=f"frame.sort_values([{names['id']!r}, {label!r}], kind='stable'), or give each "
            "occasion its own id",
        )
        return
    same = (step == 0) & inside
    for name in structural.columns:
        if name != "time" and name in values:
            column = values[name][order]
            same &= column[1:] == column[:-1]
    if same.any() and "time" in structural.columns:
        at = int(np.flatnonzero(same)[0])
        dv = values.get("dv")
        copies = 0 if dv is None else int((same & (dv[order][1:] == dv[order][:-1])).sum())
        also = f", {copies} of them with the same dv too" if copies else ""
        report.note(
            f"{count(int(same.sum()), 'row')} with the id and time of the row before{also}; first: "
            f"time {time[at]:g} at {report.where(int(order[at + 1]))}. They are taken as "
            "replicate measurements",
            "drop them if they are copies: frame.drop_duplicates()",
        )


def check_doses(
    ids: Sequence[Hashable],
    offsets: Rows,
    order: Rows,
    names: Mapping[str, Hashable],
    values: Mapping[str, Array],
    report: Report,
) -> None:
    """Refuse a dose on some rows of a subject only, as event tables have it."""
    amt = values.get("amt")
    if amt is None:
        return
    given = (amt[order] > 0).astype(np.int64)
    dosed = np.add.reduceat(given, offsets[:-1])
    partly = np.flatnonzero((dosed > 0) & (dosed < np.diff(offsets)))
    if partly.size and not np.isnan(amt).any():
        i = int(partly[0])
        rows = order[offsets[i] : offsets[i + 1]]
        row = int(rows[amt[rows] <= 0][0])
        more = f", and for {count(partly.size - 1, 'more subject')}" if partly.size > 1 else ""
        report.data.add(
            f"column {names['amt']!r} (amt) is {amt[row]:g} at {report.where(row)}, though id "
            f"{ids[i]!r} has a dose on other rows{more}",
            remedy=f"write the dose on every row; {_EVERY_ROW}",
        )


def subject_frame(
    frame: pd.DataFrame, needed: Sequence[str], order: Rows, offsets: Rows, report: Report
) -> pd.DataFrame | None:
    """Covariates with one row per individual, or None if one cannot be used."""
    usable = True
    for label in needed:
        series = frame[label]
        if isinstance(series, pd.Series):
            usable &= _constant_within(series, order, offsets, report)
        else:
            usable = False  # a repeated column name, reported elsewhere
    if not usable:
        return None
    first = order[offsets[:-1]]
    subjects = frame[list(needed)].iloc[first].reset_index(drop=True)
    for label in needed:
        if isinstance(subjects[label].dtype, pd.CategoricalDtype):
            subjects[label] = subjects[label].cat.remove_unused_categories()
    return subjects


def _constant_within(series: pd.Series, order: Rows, offsets: Rows, report: Report) -> bool:
    """Check the kind of a covariate, that it is complete and constant within subjects."""
    label = series.name
    try:
        codes = pd.factorize(series)[0]
    except TypeError:
        report.data.add(
            f"covariate {label!r} has values that cannot be compared, such as {series.iloc[0]!r} "
            f"at {report.where(0)}",
            remedy="use numbers or text",
        )
        return False
    wrong = _wrong_kind(series)
    if wrong:
        report.data.add(f"covariate {label!r} {wrong[0]}", remedy=wrong[1])
        return False
    missing = codes < 0
    if missing.any():
        report.data.add(
            f"covariate {label!r} is missing: {report.rows(missing, series.to_numpy(object))}",
            remedy="fill it in, or drop these subjects",
        )
        return False
    stacked = codes[order]
    first = np.repeat(stacked[offsets[:-1]], np.diff(offsets))
    changes = np.flatnonzero(stacked != first)
    if changes.size:
        at = int(changes[0])
        start = int(offsets[np.searchsorted(offsets, at, side="right") - 1])
        one, other = int(order[start]), int(order[at])
        cells = series.to_numpy(dtype=object)
        more = (
            f" (in all, {count(changes.size, 'row')} unlike the first of the subject)"
            if changes.size > 1
            else ""
        )
        report.data.add(
            f"covariate {label!r} must be constant within a subject, but is {cells[one]!r} at "
            f"{report.where(one)} and {cells[other]!r} at {report.row(other)}{more}",
            remedy="use its value at the start of the study for every row",
        )
        return False
    return True


def _wrong_kind(series: pd.Series) -> tuple[str, str] | None:
    dtype = series.dtype
    if pd.api.types.is_complex_dtype(dtype) or dtype.kind in "mM":
        return f"has dtype {dtype}", "use numbers or categories"
    if pd.api.types.is_object_dtype(dtype) or isinstance(dtype, pd.StringDtype):
        levels = series.dropna().unique()
        numbers = pd.to_numeric(pd.Series(levels, dtype=object), errors="coerce").notna()
        if len(levels) > 10 and numbers.mean() > 0.5:
            text = next((v for v, ok in zip(levels, numbers, strict=True) if not ok), levels[0])
            return (
                f"is text (dtype {dtype}), though most of its {len(levels)} values are numbers; "
                f"not {text!r}",
                f"correct the cells and use pandas.to_numeric(frame[{series.name!r}])",
            )
    return None
