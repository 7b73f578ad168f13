"""The front door: from a data frame to individuals, or one message with all problems.

Everything that can be checked before any computation is checked here, on whole
columns; words are put together only when something is wrong. The frame is
never changed and nothing is corrected silently.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from saem.contract import Array
from saem.exceptions import DataError
from saem.nlme import _values
from saem.nlme._columns import Report, find_columns, numeric
from saem.nlme._endpoint_column import check_one_endpoint, endpoint_codes, sorted_by_endpoint
from saem.nlme._explain import count
from saem.nlme._model_checks import check_model
from saem.nlme.covariates import Design, build_design, check_formula
from saem.nlme.endpoints import DVID, Endpoints
from saem.nlme.error_models import ErrorModel
from saem.nlme.parameters import Parameter
from saem.nlme.structural import Structural

__all__ = ["Individuals", "read_individuals"]


@dataclass(frozen=True)
class Individuals:
    """Checked data, grouped by individual.

    Rows are stacked individual by individual, in the order in which the
    individuals first appear; within one by endpoint, and then in the order of the frame.

    Attributes
    ----------
    ids : list
        Ids in order of first appearance.
    n_obs : ndarray of int64, shape (n_individuals,)
        Observations of each.
    offsets : ndarray of int64, shape (n_individuals + 1,)
        Individual i has the stacked rows ``offsets[i]:offsets[i + 1]``.
    dv : ndarray of shape (n_rows,)
        Responses.
    columns : dict of str to ndarray of shape (n_rows,)
        Data columns of the structural model, and ``time`` where it is known.
    source_row : ndarray of int64, shape (n_rows,)
        Position in the user's frame, from 0, of each stacked row.
    row_labels : pandas.Index
        Index labels of the stacked rows.
    endpoint : ndarray of int64, shape (n_rows,)
        Number of each row's endpoint; 0 where the model has one only.
    design : Design
        Covariates.
    names : dict of str to hashable
        The frame's column for each canonical name.
    subjects : DataFrame
        Covariates as they stand in the frame, one row per individual.
    """

    ids: list[Hashable]
    n_obs: NDArray[np.int64]
    offsets: NDArray[np.int64]
    dv: Array
    columns: dict[str, Array]
    source_row: NDArray[np.int64]
    row_labels: pd.Index
    design: Design
    names: dict[str, Hashable]
    subjects: pd.DataFrame = field(repr=False)
    endpoint: NDArray[np.int64] = field(repr=False)

    @property
    def n_individuals(self) -> int:
        """Number of individuals."""
        return len(self.ids)

    @property
    def file_order(self) -> NDArray[np.int64]:
        """Stacked rows in the order of the frame."""
        return np.argsort(self.source_row, kind="stable")

    def same_responses(self, other: Individuals) -> bool:
        """Whether other data have the same responses in the frame's order, however stacked."""
        return np.array_equal(self.dv[self.file_order], other.dv[other.file_order])

    def counts(self, n_endpoints: int) -> NDArray[np.int64]:
        """Observations of each individual by endpoint, shape (n_individuals, n_endpoints)."""
        owner = np.repeat(np.arange(self.n_individuals), self.n_obs)
        cells = np.bincount(
            owner * n_endpoints + self.endpoint, minlength=self.n_individuals * n_endpoints
        )
        return cells.reshape(self.n_individuals, n_endpoints).astype(np.int64)

    def matrix(self, names: Iterable[str]) -> Array:
        """Columns as the structural model wants them, shape (n_columns, n_rows)."""
        rows = [self.columns[name] for name in names]
        return np.array(rows) if rows else np.empty((0, self.dv.size))

    def row_text(self, row: int) -> str:
        """Words for a stacked row: 1-based data row and index label of the frame."""
        label = self.row_labels[row]
        plain = label.item() if isinstance(label, np.generic) else label
        return f"row {self.source_row[row] + 1} (index {plain!r})"


@dataclass
class _Grouping:
    """How the rows of the frame are stacked."""

    ids: list[Hashable]
    offsets: NDArray[np.int64]
    order: NDArray[np.int64]  # file positions of the stacked rows


def read_individuals(
    frame: pd.DataFrame,
    columns: Mapping[str, Hashable] | None,
    structural: Structural,
    parameters: Mapping[str, Parameter],
    error: ErrorModel | Endpoints,
) -> Individuals:
    """Check data and model together and group the rows by individual.

    Parameters
    ----------
    frame : DataFrame
        One observation per row, with the dose (if any) on every row.
    columns : mapping of str to hashable, optional
        The frame's column for each of ``"id"``, ``"dv"``, ``"time"`` and the
        columns of the structural model. Those left out are found by name,
        whatever the case, or by a usual other name (`Subject` for ``"id"``).
    structural : Structural
    parameters : mapping of str to Parameter
    error : ErrorModel or Endpoints

    Returns
    -------
    Individuals

    Raises
    ------
    DataError
        If the data break a rule; all problems in one message, also the
        model's, each with id, row, column, value, rule and remedy.
    ModelError
        If only the model has problems.

    Warns
    -----
    SaemWarning
        For rows of a subject that are not together, replicates, unused levels
        of a categorical id, and more parameters than observations.
    """
    report = _open_report(frame)
    endpoints = error if isinstance(error, Endpoints) else Endpoints((), (error,))
    check_model(structural, parameters, endpoints, report)
    mapping = _check_columns_argument(columns, report)
    own = [c for c in structural.columns if c != "dv"]  # the response is asked for anyway
    wanted = [c for c in own if c not in structural.defaults]
    spare = [c for c in own if c in structural.defaults]
    # A time column that the model does not use is taken only if the user names it.
    spare += [c for c in ("time", DVID) if c in mapping and c not in structural.columns]
    if endpoints.labels:
        wanted, spare = [*wanted, DVID], [c for c in spare if c != DVID]
    needed_columns = dict.fromkeys(["id", "dv", *wanted])
    names = find_columns(frame, mapping, list(needed_columns), spare, report)
    formulas, needed = _check_formulas(structural, parameters, frame, report)

    grouping = _group(frame, names.get("id"), report) if len(frame) else None
    _values.check_event_columns(frame, names, report)
    codes = _endpoints(frame, names, structural, endpoints, report)
    not_numbers = ("id", DVID) if endpoints.labels or DVID not in structural.columns else ("id",)
    arrays = {
        name: numeric(frame, label, report)
        for name, label in names.items()
        if name not in not_numbers and len(frame)
    }
    values = {name: array for name, array in arrays.items() if array is not None}
    if codes is not None and endpoints.labels and DVID in structural.columns:
        values[DVID] = endpoints.column_values[codes]
    if codes is None:
        codes = np.zeros(len(frame), dtype=np.int64)
    elif grouping is not None:
        grouping.order = sorted_by_endpoint(grouping.order, grouping.offsets, codes)
    _values.check_values(names, values, _positive(endpoints, codes), report)
    if grouping is None:
        report.finish(stacklevel=3)
        raise AssertionError("rows that cannot be grouped are a problem")  # pragma: no cover
    _check_groups(grouping, names, values, structural, parameters, endpoints, codes, report)
    subjects = _values.subject_frame(frame, needed, grouping.order, grouping.offsets, report)
    if subjects is None:
        subjects, formulas = frame.iloc[grouping.order[grouping.offsets[:-1]], :0], {}
    design = build_design(formulas, subjects, grouping.ids, report.data)
    if not report.data and not report.model:
        _note_size(values, parameters, endpoints, design, report)
    report.finish(stacklevel=3)  # at the call of the model that reads the data
    return _assemble(frame, names, values, structural, grouping, design, subjects, codes)


def _endpoints(
    frame: pd.DataFrame,
    names: Mapping[str, Hashable],
    structural: Structural,
    endpoints: Endpoints,
    report: Report,
) -> NDArray[np.int64] | None:
    """Endpoint of each row of the frame, or None where they are not known."""
    if not endpoints.labels:
        check_one_endpoint(frame, names, structural, report)
        return np.zeros(len(frame), dtype=np.int64)
    if DVID not in names or not len(frame):
        return None
    return endpoint_codes(frame, names[DVID], endpoints, report)


def _positive(endpoints: Endpoints, codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Rows whose responses must be positive."""
    flags = [bool(getattr(error, "positive", False)) for error in endpoints.errors]
    return np.array(flags, dtype=bool)[codes]


def identity_column(frame: object, columns: object) -> Hashable | None:
    """Column of the ids, or None if it is not there or not one; without a complaint.

    Parameters
    ----------
    frame, columns : object
        As given to `read_individuals`.

    Returns
    -------
    hashable or None
    """
    if not isinstance(frame, pd.DataFrame):
        return None
    report = Report(frame.index)
    mapping = dict(columns) if isinstance(columns, Mapping) else {}
    mapping = {name: label for name, label in mapping.items() if name == "id"}
    return find_columns(frame, mapping, ["id"], [], report).get("id")


def _open_report(frame: object) -> Report:
    """Start a report; what is no table at all ends here."""
    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            f"the data are a {type(frame).__name__}, not a pandas DataFrame. Remedy: "
            "pandas.DataFrame(...), or .to_pandas() for a table of another library."
        )
    report = Report(frame.index)
    if not len(frame):
        report.data.add(
            f"the data have no rows ({len(frame.columns)} columns)",
            remedy="check the file or the filter that made the frame",
        )
    repeated = frame.columns[frame.columns.duplicated()].unique()
    for label in repeated:
        report.data.add(
            f"column name {label!r} stands {int((frame.columns == label).sum())} times",
            remedy="rename or drop all but one",
        )
    return report


def _check_columns_argument(columns: object, report: Report) -> dict[str, Hashable]:
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        report.data.add(
            f"columns is {columns!r}, not a mapping",
            remedy='write columns={"id": "Subject", "dv": "conc"}',
        )
        return {}
    return dict(columns)


def _check_formulas(
    structural: Structural, parameters: object, frame: pd.DataFrame, report: Report
) -> tuple[dict[str, str | None], list[str]]:
    """Usable formula of each parameter, and the columns that all of them need."""
    formulas: dict[str, str | None] = dict.fromkeys(structural.param_names)
    needed: dict[str, None] = {}
    given = parameters if isinstance(parameters, Mapping) else {}
    for name in structural.param_names:
        formula = getattr(given.get(name), "covariates", None)
        if isinstance(formula, str) and formula.strip():
            found, usable = check_formula(name, formula, frame.columns, report.model)
            needed |= dict.fromkeys(sorted(found))
            if usable:
                formulas[name] = formula
    return formulas, list(needed)


def _group(frame: pd.DataFrame, label: Hashable | None, report: Report) -> _Grouping | None:
    """Stack the rows by individual, in order of first appearance."""
    if label is None or not isinstance(frame[label], pd.Series):
        return None
    series = frame[label]
    try:
        codes, uniques = pd.factorize(series)
    except TypeError:
        report.data.add(
            f"id column {label!r} has values that cannot be compared, such as "
            f"{series.iloc[0]!r} at {report.row(0)}",
            remedy="use numbers or text as ids",
        )
        return None
    report.ids = series
    missing = codes < 0
    if missing.any():
        report.ids = None
        report.data.add(
            f"id column {label!r} is missing: {report.rows(missing, series.to_numpy(object))}",
            remedy="give every row an id, or drop these rows",
        )
        return None
    _note_unused_levels(series, label, uniques, report)
    ids = uniques.tolist()
    order = np.arange(codes.size)
    starts = np.flatnonzero(np.diff(codes)) + 1
    if starts.size + 1 != len(ids):
        back = starts[codes[starts] <= np.maximum.accumulate(codes)[starts - 1]]
        report.note(
            f"the rows of {count(np.unique(codes[back]).size, 'subject')} are not together (first: "
            f"{report.where(int(back[0]))}) and were grouped",
            f"frame.sort_values([{label!r}], kind='stable') if they are the same subjects, new "
            "ids if not",
        )
        order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=len(ids))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return _Grouping(ids, offsets, order.astype(np.int64))


def _note_unused_levels(
    series: pd.Series, label: Hashable, uniques: object, report: Report
) -> None:
    if isinstance(series.dtype, pd.CategoricalDtype):
        unused = [level for level in series.dtype.categories if level not in set(uniques)]  # type: ignore[call-overload]
        if unused:
            report.note(
                f"id column {label!r} has {count(len(unused), 'level')} without a row, such as "
                f"{unused[0]!r}: subjects without observations are not in the fit",
                f"frame[{label!r}].cat.remove_unused_categories()",
            )


def _check_groups(
    grouping: _Grouping,
    names: Mapping[str, Hashable],
    values: Mapping[str, Array],
    structural: Structural,
    parameters: object,
    endpoints: Endpoints,
    codes: NDArray[np.int64],
    report: Report,
) -> None:
    """Check what depends on which rows belong together."""
    given = parameters.values() if isinstance(parameters, Mapping) else ()
    if len(grouping.ids) < 2 and any(getattr(p, "random", False) for p in given):
        report.data.add(
            f"there is one subject only (id {grouping.ids[0]!r} in column {names['id']!r}), and "
            "variances between subjects need at least 2",
            remedy="check the id column, or set random=False for every parameter",
        )
    _values.check_responses(
        grouping.ids, grouping.offsets, grouping.order, values, endpoints, report
    )
    _values.check_times(grouping.offsets, grouping.order, names, values, structural, codes, report)
    _values.check_doses(grouping.ids, grouping.offsets, grouping.order, names, values, report)


def _note_size(
    values: Mapping[str, Array],
    parameters: Mapping[str, Parameter],
    endpoints: Endpoints,
    design: Design,
    report: Report,
) -> None:
    n_params = sum(not number.fixed for number in endpoints.numbers)
    n_params += sum(len(used) - 1 for used in design.used.values())
    n_params += sum(not p.fixed for p in parameters.values())
    n_params += sum(p.random and not p.fixed_omega for p in parameters.values())
    if values["dv"].size < n_params:
        report.note(
            f"there are {values['dv'].size} observations for {n_params} parameters",
            "fix parameters (fixed=True), or leave out random effects (random=False)",
        )


def _assemble(
    frame: pd.DataFrame,
    names: dict[str, Hashable],
    values: Mapping[str, Array],
    structural: Structural,
    grouping: _Grouping,
    design: Design,
    subjects: pd.DataFrame,
    codes: NDArray[np.int64],
) -> Individuals:
    order = grouping.order
    columns = {
        name: np.full(order.size, structural.defaults[name])
        for name in structural.columns
        if name not in values
    }
    columns |= {
        name: array[order]
        for name, array in values.items()
        if name != "dv" or name in structural.columns
    }
    return Individuals(
        ids=grouping.ids,
        n_obs=np.diff(grouping.offsets),
        offsets=grouping.offsets,
        dv=values["dv"][order],
        columns=columns,
        source_row=order,
        row_labels=frame.index[order],
        design=design,
        names=names,
        subjects=subjects,
        endpoint=codes[order],
    )
