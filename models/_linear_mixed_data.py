"""From a DataFrame and formulas to the matrices of a linear mixed model, with checks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array
from saem.exceptions import DataError, ModelError, Problems

from ._checks import add_missing_column, dependent_columns, first_line

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Design", "read_design", "used_columns"]

#: Squares of larger numbers lose all accuracy or overflow.
_LARGEST = 1e100


@dataclass(frozen=True)
class Design:
    """Matrices of all rows, sorted by group; groups in the order of their first row.

    Attributes
    ----------
    y, x, z : ndarray of shape (n_obs,), (n_obs, p) and (n_obs, q)
    starts : ndarray of int64
        Rows of group i are ``starts[i]:starts[i + 1]``.
    groups : Index of shape (n_groups,)
    x_names, z_names : list of str
    """

    y: Array
    x: Array
    z: Array
    starts: NDArray[np.int64]
    groups: pd.Index
    x_names: list[str]
    z_names: list[str]


def _parse(formula: Any, what: str, problems: Problems) -> Any:
    from formulaic import Formula

    if not isinstance(formula, str):
        problems.add(f"{what}={formula!r} must be text such as 'y ~ age'")
        return None
    try:
        parsed = Formula(formula)
    except Exception as error:  # formulaic lets many kinds of exceptions through
        problems.add(f"{what} {formula!r} cannot be read: {first_line(error)}")
        return None
    two_sided = hasattr(parsed, "lhs")
    if what == "formula" and not two_sided:
        problems.add(
            f"formula {formula!r} names no response", remedy="write it as 'response ~ terms'"
        )
        return None
    if what == "re_formula" and two_sided:
        problems.add(f"re_formula {formula!r} has a response", remedy="write it as '~ terms'")
        return None
    return parsed


def _check_columns(
    frame: pd.DataFrame, groups: str, formulas: list[Any], problems: Problems
) -> None:
    """Check that the columns exist, are unique and complete."""
    variables = sorted({str(v) for f in formulas for v in f.required_variables} - {groups})
    known = [str(c) for c in frame.columns]
    for column in [groups, *variables]:
        if known.count(column) == 0:
            add_missing_column(column, known, problems)
        elif known.count(column) > 1:
            problems.add(f"column name {column!r} stands for more than one column")
    if problems:
        return
    for column in [groups, *variables]:
        series = frame[column]
        bad = series.isna().to_numpy()
        if column != groups and series.dtype.kind in "fc":
            bad = bad | ~np.isfinite(series.to_numpy())
        for row in np.flatnonzero(bad):
            problems.add(
                f"row {frame.index[row]} ({groups} {frame[groups].iloc[row]}), column "
                f"{column!r}: the value {series.iloc[row]} is missing or infinite",
                remedy="drop the row",
            )
            if len(problems.items) > problems.LIMIT:
                return


def _evaluate(
    formula: Any, frame: pd.DataFrame, groups: str, what: str, problems: Problems
) -> tuple[Array, list[str]] | None:
    """Matrix of a one-sided formula, and the names of its columns."""
    from formulaic import model_matrix

    try:
        with np.errstate(all="ignore"):
            matrix = model_matrix(formula, frame, na_action="ignore", context={})
    except Exception as error:  # any exception of the user's own formula
        problems.add(f"{what} cannot be evaluated: {first_line(error)}")
        return None
    names = [str(c) for c in matrix.columns]
    for name, kind in zip(names, matrix.dtypes, strict=True):
        if kind.kind not in "iufb":
            problems.add(f"{what} term {name!r} has dtype {kind}; it must be real numbers")
            return None
    values = np.ascontiguousarray(matrix, dtype=float)
    for row, j in np.argwhere(~(np.abs(values) < _LARGEST))[:5]:
        problems.add(
            f"row {frame.index[row]} ({groups} {frame[groups].iloc[row]}): {what} term "
            f"{names[j]!r} is {values[row, j]}",
            remedy="terms must be finite and below 1e100: rescale the column, or keep it inside "
            "the range of the function",
        )
    return values, names


def _add_collinear(matrix: Array, names: list[str], what: str, problems: Problems) -> None:
    """Name columns that are zero or a combination of earlier ones."""
    for j in dependent_columns(matrix):
        if not matrix[:, j].any():
            problems.add(f"{what} term {names[j]!r} is zero in every row", remedy="drop the term")
            continue
        problems.add(
            f"{what} term {names[j]!r} is a linear combination of the terms before it "
            f"({', '.join(names[:j])})",
            remedy="drop it",
        )


def _check_design(design: Design, groups: str, problems: Problems) -> None:
    """Check that the parameters can be told apart."""
    n_obs, p = design.x.shape
    n_groups, q = len(design.groups), design.z.shape[1]
    if n_groups < 2:
        problems.add(
            f"column {groups!r} holds one group ({design.groups[0]}); the covariance of random "
            "effects needs at least 2",
            remedy="use ordinary least squares",
        )
    elif np.diff(design.starts).max() == 1:
        problems.add(
            f"every group of column {groups!r} has one row, so random effects and residuals "
            "cannot be told apart"
        )
    if n_obs <= p + q:
        problems.add(f"{n_obs} rows are too few for {p} fixed and {q} random effects")
    _add_collinear(design.x, design.x_names, "fixed-effect", problems)
    _add_collinear(design.z, design.z_names, "random-effect", problems)
    if np.ptp(design.y) == 0.0:
        problems.add(f"the response is constant (value {design.y[0]:g})")
    elif not problems:
        fit = np.linalg.lstsq(design.x, design.y, rcond=None)[0]
        left = np.linalg.norm(design.y - design.x @ fit)
        if left <= 1e-12 * np.linalg.norm(design.y):
            problems.add("the fixed effects fit the response exactly; nothing is left to model")


def read_design(
    frame: Any, formula: Any, groups: Any, re_formula: Any, *, owner: str = "the linear mixed model"
) -> Design:
    """Check the input and build the matrices; all problems are raised together."""
    import pandas as pd

    problems = Problems(owner)
    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"{owner}: frame must be a pandas DataFrame; got {type(frame).__name__}.")
    if not isinstance(groups, str):
        problems.add(f"groups={groups!r} must be the name of a column")
    fixed = _parse(formula, "formula", problems)
    random = _parse("~ 1" if re_formula is None else re_formula, "re_formula", problems)
    problems.raise_if_any(ModelError)
    if frame.empty:
        raise DataError(f"{owner}: the frame is empty: it has no rows.")
    _check_columns(frame, groups, [fixed, random], problems)
    problems.raise_if_any(DataError)

    codes, labels = pd.factorize(frame[groups])
    order = np.argsort(codes, kind="stable")
    parts = {
        "response": _evaluate(fixed.lhs, frame, groups, "response", problems),
        "fixed": _evaluate(fixed.rhs, frame, groups, "fixed-effect", problems),
        "random": _evaluate(random, frame, groups, "random-effect", problems),
    }
    matrices = {name: part for name, part in parts.items() if part is not None}
    for name, (matrix, columns) in matrices.items():
        if matrix.shape[1] == 0:
            problems.add(f"the {name} part of the formulas has no terms")
        if name == "response" and matrix.shape[1] > 1:
            problems.add(
                f"the response has {matrix.shape[1]} columns ({', '.join(columns)}); it must be "
                "one numeric column"
            )
    problems.raise_if_any(DataError)
    design = Design(
        y=np.ascontiguousarray(matrices["response"][0][order, 0]),
        x=np.ascontiguousarray(matrices["fixed"][0][order]),
        z=np.ascontiguousarray(matrices["random"][0][order]),
        starts=np.concatenate([[0], np.cumsum(np.bincount(codes))]).astype(np.int64),
        groups=pd.Index(labels),
        x_names=matrices["fixed"][1],
        z_names=matrices["random"][1],
    )
    _check_design(design, groups, problems)
    problems.raise_if_any(DataError)
    return design


def used_columns(
    frame: pd.DataFrame, formulas: Sequence[str | None], groups: str | None = None
) -> pd.DataFrame:
    """Columns of a frame that formulas and grouping may need, for saving.

    All whose name stands in a formula: formulaic's own list of variables leaves out those
    inside stateful transforms such as ``center(x)``.
    """
    text = " ".join(formula for formula in formulas if formula is not None)

    def stands_there(column: Any) -> bool:
        return re.search(rf"(?<!\w){re.escape(str(column))}(?!\w)", text) is not None

    return frame.loc[:, [c == groups or stands_there(c) for c in frame.columns]]
