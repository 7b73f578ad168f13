"""Responses and covariates of regressions, from arrays or from a formula, with checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from saem.contract import Array
from saem.exceptions import DataError, ModelError, Problems

from ._checks import add_missing_column, dependent_columns, first_line
from ._linear_mixed_data import used_columns
from ._table import shape_of

__all__ = [
    "ArrayDesign", "Basis", "FormulaDesign", "check_design", "design_of", "least_squares"
]  # fmt: skip

#: Squares of larger numbers lose all accuracy or overflow.
_LARGEST = 1e100


def _check_numbers(
    values: Array, names: list[str], rows: Any, missing_fine: bool, problems: Problems
) -> None:
    """Name values that are infinite or too large, and missing ones where they are not fine."""
    bad = ~(np.abs(values) < _LARGEST)
    if missing_fine:
        bad &= ~np.isnan(values)
    for i, j in np.argwhere(bad)[: problems.LIMIT + 1]:
        value = values[i, j]
        rule = "is missing" if np.isnan(value) else "is infinite or beyond 1e100"
        problems.add(
            f"row {rows[i]}, {names[j]!r}: the value {value} {rule}",
            remedy="drop the row; only responses may be missing" if np.isnan(value) else None,
        )


def _as_matrix(values: Any, what: str, problems: Problems) -> Array | None:
    try:
        matrix = None if np.iscomplexobj(values) else np.array(values, dtype=float)
    except (TypeError, ValueError):
        matrix = None
    if matrix is None:
        problems.add(f"{what} must be an array of real numbers")
    return matrix


@dataclass(frozen=True)
class ArrayDesign:
    """Covariates and responses given as arrays.

    Attributes
    ----------
    names : list of str
        Terms, with ``"Intercept"`` first if there is one.
    intercept : bool
    """

    names: list[str]
    intercept: bool

    @classmethod
    def of(cls, X: Any, intercept: bool) -> ArrayDesign:
        """Names from the columns of X."""
        columns = getattr(X, "columns", None)
        shape = shape_of(X)
        width = shape[1] if len(shape) == 2 else 0
        own = [f"x{j}" for j in range(width)] if columns is None else [str(c) for c in columns]
        return cls((["Intercept"] if intercept else []) + own, intercept)

    def persist(self) -> dict[str, Any]:
        """What `design_of` makes the design of."""
        return {"names": self.names, "intercept": self.intercept}

    def covariates(self, X: Any, problems: Problems) -> tuple[Array, Any]:
        """Matrix of shape (n, p), checked, and labels of the rows."""
        own = self.names[1:] if self.intercept else self.names
        if hasattr(X, "columns"):
            known = [str(c) for c in X.columns]
            for name in (name for name in own if name not in known):
                add_missing_column(name, known, problems)
            problems.raise_if_any(DataError)
            rows, X = X.index, X.set_axis(known, axis=1)[own]
        else:
            rows = range(len(X) if shape_of(X) else 0)
        matrix = _as_matrix(X, "X", problems)
        if matrix is not None and (matrix.ndim != 2 or not len(matrix)):
            problems.add(f"X of shape {matrix.shape} must have rows and columns")
        elif matrix is not None and matrix.shape[1] != len(own):
            problems.add(f"X has {matrix.shape[1]} columns; the model has {len(own)}")
        problems.raise_if_any(DataError)
        assert matrix is not None
        _check_numbers(matrix, own, rows, False, problems)
        if self.intercept:
            matrix = np.column_stack([np.ones(len(matrix)), matrix])
        return matrix, rows

    def read(self, data: Any, problems: Problems) -> tuple[Array, Array]:
        """Covariates (n, p) and responses (n,) of a pair ``(X, y)``."""
        if not isinstance(data, tuple) or len(data) != 2:
            problems.add("new rows must be a pair (X, y)")
            problems.raise_if_any(DataError)
        x, rows = self.covariates(data[0], problems)
        y = _as_matrix(data[1], "y", problems)
        if y is not None and y.shape != (len(x),):
            problems.add(f"y has shape {y.shape}; X has {len(x)} rows")
        elif y is not None:
            _check_numbers(y[:, None], ["y"], rows, True, problems)
        problems.raise_if_any(DataError)
        assert y is not None
        return x, y


@dataclass
class FormulaDesign:
    """Covariates and responses of a formula; categories are coded as when first read."""

    formula: str
    names: list[str] = field(default_factory=list)
    _parsed: Any = None
    _right: Any = None
    _frame: Any = None

    @classmethod
    def of(cls, formula: Any) -> FormulaDesign:
        """Parse a formula ``response ~ terms``."""
        from formulaic import Formula

        if not isinstance(formula, str):
            raise ModelError(f"formula={formula!r} must be text such as 'y ~ age'.")
        try:
            parsed = Formula(formula)
        except Exception as error:  # formulaic lets many kinds of exceptions through
            raise ModelError(f"formula {formula!r} cannot be read: {first_line(error)}") from error
        if not hasattr(parsed, "lhs"):
            raise ModelError(
                f"formula {formula!r} names no response. Remedy: write it as 'response ~ terms'."
            )
        return cls(formula, _parsed=parsed)

    def persist(self) -> dict[str, Any]:
        """What `design_of` makes the design of: the rows that fixed levels and transforms."""
        return {"formula": self.formula, "frame": used_columns(self._frame, [self.formula])}

    def _check_columns(
        self, frame: Any, parsed: Any, missing_fine: bool, problems: Problems
    ) -> None:
        if not hasattr(frame, "columns"):
            problems.add(f"the data must be a DataFrame; got {type(frame).__name__}")
            problems.raise_if_any(DataError)
        if not len(frame):
            problems.add("the frame is empty: it has no rows")
        known = [str(c) for c in frame.columns]
        for name in sorted(map(str, parsed.required_variables)):
            if name not in known:
                add_missing_column(name, known, problems)
            elif not missing_fine:
                for i in np.flatnonzero(frame[name].isna().to_numpy())[:5]:
                    problems.add(
                        f"row {frame.index[i]}, column {name!r}: the value is missing",
                        remedy="drop the row; only responses may be missing",
                    )
        problems.raise_if_any(DataError)

    def covariates(self, frame: Any, problems: Problems) -> tuple[Array, Any]:
        """Matrix of shape (n, p), checked, and labels of the rows."""
        from formulaic import model_matrix

        self._check_columns(frame, self._parsed.rhs, False, problems)
        try:
            with np.errstate(all="ignore"):
                if self._right is None:
                    matrix = model_matrix(self._parsed.rhs, frame, na_action="ignore", context={})
                    self._right, self._frame = matrix.model_spec, frame
                    self.names = [str(c) for c in matrix.columns]
                else:
                    matrix = self._right.get_model_matrix(frame, context={})
        except Exception as error:  # any exception of the user's own formula
            raise DataError(
                f"formula {self.formula!r} cannot be evaluated: {first_line(error)}"
            ) from error
        for name, values in matrix.items():
            if values.dtype.kind == "c":
                problems.add(f"term {name!r} holds complex numbers")
        problems.raise_if_any(DataError)
        x = np.ascontiguousarray(matrix, dtype=float)
        _check_numbers(x, self.names, frame.index, False, problems)
        return x, frame.index

    def read(self, data: Any, problems: Problems) -> tuple[Array, Array]:
        """Covariates (n, p) and responses (n,) of a DataFrame."""
        from formulaic import model_matrix

        x, rows = self.covariates(data, problems)
        self._check_columns(data, self._parsed.lhs, True, problems)
        try:
            with np.errstate(all="ignore"):
                left = model_matrix(self._parsed.lhs, data, na_action="ignore", context={})
        except Exception as error:  # any exception of the user's own formula
            raise DataError(
                f"the response of {self.formula!r} cannot be evaluated: {first_line(error)}"
            ) from error
        if left.shape[1] != 1 or left.dtypes.iloc[0].kind not in "iufb":
            problems.add(
                f"the response has columns {', '.join(map(str, left.columns))}; it must be one "
                "numeric column"
            )
            problems.raise_if_any(DataError)
        y = left.to_numpy(dtype=float)
        _check_numbers(y, [str(left.columns[0])], rows, True, problems)
        problems.raise_if_any(DataError)
        return x, y[:, 0]


def design_of(state: dict[str, Any]) -> ArrayDesign | FormulaDesign:
    """Design of what its `persist` returned."""
    if "formula" not in state:
        return ArrayDesign(**state)
    design = FormulaDesign.of(state["formula"])
    design.read(state["frame"], Problems("the rows"))
    return design


@dataclass(frozen=True)
class Basis:
    """Ordinary regression of all rows, and a basis in which its covariates are orthonormal.

    Attributes
    ----------
    start : ndarray of shape (p,)
        Its coefficients.
    forward, back : ndarray of shape (p, p)
        Coefficients are ``start + forward @ b`` and ``b = back @ (coefficients - start)``.
    variance : float
        What it leaves over of the response.
    """

    start: Array
    forward: Array
    back: Array
    variance: float


def least_squares(x: Array, y: Array, weights: Array) -> Basis:
    """Ordinary regression of rows with a response, by orthonormal covariates."""
    seen = ~np.isnan(y) & (weights > 0.0)
    root = np.sqrt(weights[seen] / weights[seen].sum())[:, None]
    scaled = x[seen] * root
    norms = np.linalg.norm(scaled, axis=0)
    orthonormal, triangle = np.linalg.qr(scaled / norms)
    back = triangle * norms
    forward = np.linalg.inv(triangle) / norms[:, None]
    target = y[seen] * root[:, 0]
    projected = orthonormal.T @ target
    left = target - orthonormal @ projected
    again = orthonormal.T @ left  # once more removes what rounding left
    left = left - orthonormal @ again
    return Basis(forward @ (projected + again), forward, back, float(left @ left))


def check_design(
    x: Array, y: Array, weights: Array, names: list[str], k: int, problems: Problems
) -> None:
    """Check that the rows can carry k regressions."""
    seen = ~np.isnan(y) & (weights > 0.0)
    n, p = int(seen.sum()), x.shape[1]
    if p == 0:
        problems.add("there are no terms: X has no columns and there is no intercept")
        return
    if n < k * (p + 1):
        problems.add(f"{n} rows with a response are too few for {k} components of {p} coefficients")
        return
    for j in dependent_columns(x[seen]):
        there = bool(x[seen, j].any())
        before = f" ({', '.join(names[:j])})" if there and j else ""
        what = "a linear combination of the terms before it" if there else "0 in every row"
        problems.add(f"term {names[j]!r} is {what}{before}", remedy="drop the term")
    if problems:
        return
    response = y[seen]
    fitted = least_squares(x, y, weights)
    if fitted.variance <= 1e-24 * max(float(np.mean(response**2)), np.finfo(float).tiny):
        problems.add("one regression fits the response exactly; nothing is left for components")
