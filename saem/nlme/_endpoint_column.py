"""The column that tells endpoints apart: read, checked, and told where it is missing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from saem.nlme._columns import Report
from saem.nlme._explain import count, did_you_mean
from saem.nlme.endpoints import DVID, Endpoints

if TYPE_CHECKING:
    from saem.nlme.structural import Structural

__all__ = ["check_one_endpoint", "endpoint_codes", "sorted_by_endpoint"]

Rows = NDArray[np.int64]


def endpoint_codes(
    frame: pd.DataFrame,
    label: Hashable,
    endpoints: Endpoints,
    report: Report,
    complete: bool = True,
) -> Rows | None:
    """Number of each row's endpoint, or None with what is wrong in the report.

    Parameters
    ----------
    frame : DataFrame
    label : hashable
        Column of the endpoints.
    endpoints : Endpoints
        With labels.
    report : Report
    complete : bool
        Whether every endpoint must have a row.

    Returns
    -------
    ndarray of int64, shape (n_rows,), or None
    """
    series = frame[label]
    if not isinstance(series, pd.Series):
        return None  # a repeated column name, reported elsewhere
    cells = series.to_numpy(dtype=object)
    missing = series.isna().to_numpy(dtype=bool)
    if missing.any():
        report.data.add(
            f"column {label!r} ({DVID}) is missing: {report.rows(missing, cells)}",
            remedy="give the endpoint of every row, or drop these rows",
        )
    number = {name: e for e, name in enumerate(endpoints.labels)}
    codes = np.array([_code(cell, number) for cell in cells], dtype=np.int64)
    unknown = (codes < 0) & ~missing
    if unknown.any():
        first = cells[np.flatnonzero(unknown)[0]]
        text = isinstance(first, str) != any(isinstance(name, str) for name in number)
        report.data.add(
            f"column {label!r} ({DVID}) has endpoints without an error model"
            f"{did_you_mean(first, endpoints.labels)}: {report.rows(unknown, cells)}",
            remedy=f"add them to error, whose keys are {_listed(endpoints)}, or drop these rows"
            + ("; text is never taken for a number, nor a number for text" if text else ""),
        )
    for e, name in enumerate(endpoints.labels):
        if complete and not (codes == e).any():
            report.data.add(
                f"endpoint {name!r} has an error model, but no row in column {label!r} ({DVID})",
                remedy="leave it out of error, or correct its name",
            )
    return None if (codes < 0).any() else codes


def _code(cell: object, number: Mapping[Hashable, int]) -> int:
    known = isinstance(cell, Hashable) and not isinstance(cell, bool | np.bool_)
    return number.get(cell, -1) if known else -1


def _listed(endpoints: Endpoints) -> str:
    return ", ".join(map(repr, endpoints.labels))


def check_one_endpoint(
    frame: pd.DataFrame, names: Mapping[str, Hashable], structural: Structural, report: Report
) -> None:
    """Refuse several endpoints where there is one error model and one prediction for all of them.

    A structural function that takes the column tells them apart itself: then one residual
    error for all may be meant, and is only noted.
    """
    labels = [names[DVID]] if DVID in names else [
        c for c in frame.columns if isinstance(c, str) and c.casefold() == DVID
    ]  # fmt: skip
    for label in labels:
        if label in names.values() and DVID not in names:
            continue  # the user has another use for it
        series = frame[label]
        if not isinstance(series, pd.Series):
            continue
        values = pd.unique(series.dropna())
        if len(values) < 2:
            continue
        shown = ", ".join(repr(_plain(v)) for v in values[:3])
        text = f"column {label!r} tells {count(len(values), 'endpoint')} apart ({shown})"
        remedy = (
            f"give each its own: error={{{_plain(values[0])!r}: ..., {_plain(values[1])!r}: ...}}"
        )
        if DVID in structural.columns:
            report.note(
                f"{text}, but there is one error model, whose parameters they share",
                f"{remedy}, with saem.Shared for what they really share",
            )
        else:
            report.data.add(
                f"{text}, but the model has one prediction and one error model for all rows",
                remedy=f"{remedy}, and a structural function that takes {DVID}; or keep the rows "
                "of one endpoint, or drop the column",
            )


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def sorted_by_endpoint(order: Rows, offsets: Rows, codes: Rows) -> Rows:
    """File positions stacked by individual, sorted by endpoint within each; else as they are."""
    owner = np.repeat(np.arange(offsets.size - 1), np.diff(offsets))
    return order[np.lexsort((codes[order], owner))]
