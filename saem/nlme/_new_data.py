"""Predictions for rows that were not in the fit."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from saem.contract import Array
from saem.exceptions import DataError, Problems
from saem.nlme._columns import Report, numeric
from saem.nlme._endpoint_column import endpoint_codes
from saem.nlme._explain import did_you_mean
from saem.nlme._occasion_tables import on_new_rows
from saem.nlme.covariates import formula_columns
from saem.nlme.endpoints import DVID
from saem.nlme.occasions import COLUMN

if TYPE_CHECKING:
    from saem.nlme.results import NLMEResults

__all__ = ["check_labels", "endpoints_of", "predict_new"]


def predict_new(results: NLMEResults, kind: str, frame: object) -> pd.Series:
    """Predictions for new rows; see `NLMEResults.predict`."""
    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            f"the new data are a {type(frame).__name__}, not a pandas DataFrame. Remedy: give a "
            "frame with the columns of the fit."
        )
    report = Report(frame.index)
    columns = _columns(results, frame, report, endpoints_of(results, frame, report))
    needed = _covariates(results) if kind == "population" else []
    ids = results.model.individuals.names["id"]
    occasions = results.model.occasions
    keys = [ids] if occasions is None else [ids, occasions.label]
    for label in needed if kind == "population" else keys:
        _require(frame, label, report)
    report.finish(stacklevel=3)
    if kind == "individual":
        known = _known(results, frame[ids], report)
        psi = results._psi_modes[known]
        if occasions is not None:
            check_labels(frame, occasions.label, report)
            report.finish(stacklevel=3)
            labels = frame[occasions.label].tolist()
            psi = on_new_rows(results.model, results._psi_modes, known, labels, columns)
    else:
        design = results.model.individuals.design
        subjects = frame[needed].reset_index(drop=True)
        matrix = design.apply(subjects) if len(needed) else np.ones((len(frame), 1))
        psi = results._psi(matrix @ results._blocks["beta"])
    report.finish(stacklevel=3)
    out = np.empty(len(frame))
    # Rows with the same parameters are predicted together.
    _, first, group = np.unique(psi, axis=0, return_index=True, return_inverse=True)
    group = group.ravel()
    for g, row in enumerate(first):
        at = np.flatnonzero(group == g)
        out[at] = results.model.structural.predict(psi[row], columns[:, at])
    return pd.Series(out, index=frame.index, name="prediction")


def endpoints_of(results: NLMEResults, frame: pd.DataFrame, report: Report) -> NDArray[np.int64]:
    """Endpoint of each new row, checked; 0 where the model has one response."""
    endpoints, names = results.model.endpoints, results.model.individuals.names
    codes = None
    if endpoints.labels and _require(frame, names[DVID], report):
        codes = endpoint_codes(frame, names[DVID], endpoints, report, complete=False)
    return np.zeros(len(frame), dtype=np.int64) if codes is None else codes


def _columns(
    results: NLMEResults, frame: pd.DataFrame, report: Report, codes: NDArray[np.int64]
) -> Array:
    """Columns of the structural model, shape (n_columns, n_rows); `codes` are the endpoints."""
    structural, names = results.model.structural, results.model.individuals.names
    endpoints = results.model.endpoints
    rows = []
    for name in structural.columns:
        if name == COLUMN and results.model.occasions is not None:
            rows.append(np.zeros(len(frame)))  # numbered by those who need it
        elif name == DVID and endpoints.labels:
            rows.append(endpoints.column_values[codes])
        elif name not in names:  # a constant stood for it in the fit
            rows.append(np.full(len(frame), structural.defaults[name]))
        elif _require(frame, names[name], report):
            values = numeric(frame, names[name], report)
            if values is None:
                continue
            bad = ~np.isfinite(values)
            if bad.any():
                report.data.add(
                    f"column {names[name]!r} ({name}) is missing or infinite: "
                    f"{report.rows(bad, values)}",
                    remedy="fill in these cells or drop the rows",
                )
            rows.append(values)
    return np.array(rows) if rows else np.empty((0, len(frame)))


def check_labels(frame: pd.DataFrame, label: Hashable, report: Report) -> None:
    """Refuse rows without an occasion.

    Parameters
    ----------
    frame : DataFrame
    label : hashable
        Column of the occasions.
    report : Report
        Receives what is missing.
    """
    missing = frame[label].isna().to_numpy()
    if missing.any():
        where = report.rows(missing, frame[label].to_numpy())
        report.data.add(
            f"occasion column {label!r} is missing: {where}",
            remedy="give every row an occasion; any label that is new stands for a new one",
        )


def _require(frame: pd.DataFrame, label: Hashable, report: Report) -> bool:
    if label in frame.columns:
        return True
    report.data.add(
        f"column {label!r} is missing from the new data"
        f"{did_you_mean(str(label), list(frame.columns))}",
        remedy="give new data the column names of the fit",
    )
    return False


def _covariates(results: NLMEResults) -> list[Hashable]:
    """Columns that the formulas need."""
    needed: dict[Hashable, None] = {}
    for parameter in results.model.parameters.values():
        if parameter.covariates and parameter.covariates.strip():
            needed |= dict.fromkeys(sorted(formula_columns(parameter.covariates)[0]))
    return list(needed)


def _known(results: NLMEResults, series: pd.Series, report: Report) -> NDArray[np.int64]:
    """Place of each row's id among the individuals of the fit."""
    place = {value: i for i, value in enumerate(results.model.individuals.ids)}
    found = np.array([place.get(value, -1) for value in series.tolist()], dtype=np.int64)
    unknown = list(dict.fromkeys(series[found < 0].tolist()))
    if unknown:
        problems: Problems = report.data
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        problems.add(
            f"id {', '.join(map(repr, unknown[:3]))}{more} was not in the fit, so that there are "
            "no individual parameters",
            remedy="use kind='population'",
        )
    return found
