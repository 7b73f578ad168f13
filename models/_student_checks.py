"""Checks of what a user gives to a Student mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from saem.contract import Array
from saem.exceptions import ModelError, Problems

from ._checks import add_bad_matrices, add_bad_weights, collinear
from ._mixture_options import check_floor, given_arrays
from ._mixture_start import distinct_rows
from ._table import Table, moments

__all__ = ["check_given", "check_spread", "check_student", "fixed_df"]


def check_student(df_bounds: Any, reg_covar: Any, problems: Problems) -> None:
    """Check the options that can be judged without the data."""
    check_floor(reg_covar, problems)
    try:
        low, high = map(float, df_bounds)
        fine = 0.0 < low < high < np.inf
    except (TypeError, ValueError):
        fine = False
    if not fine:
        problems.add(f"df_bounds={df_bounds!r} must be two numbers with 0 < low < high < infinity")


def fixed_df(df: ArrayLike | None, k: int, problems: Problems) -> Array | None:
    """Fixed degrees of freedom of shape (k,), or None."""
    if df is None:
        return None
    try:
        array = np.broadcast_to(np.array(df, dtype=float), (k,)).copy()
    except (TypeError, ValueError):
        problems.add(f"df={df!r} must be None, a number, or one number for each of {k} components")
        return None
    if not np.all((array > 0.0) & (array < np.inf)):
        problems.add(f"df={df!r} must be above 0 and finite")
    return array


def check_given(
    given: Mapping[str, ArrayLike],
    shapes: Mapping[str, tuple[int, ...]],
    df_bounds: tuple[float, float],
) -> dict[str, Array]:
    """Check given parameters: shapes, numbers, weights, scatters, degrees of freedom.

    Raises
    ------
    ModelError
        With all problems found.
    """
    arrays, problems = given_arrays(given, shapes), Problems("the starting values")
    add_bad_weights(arrays["weights"], problems)
    add_bad_matrices("scatters", arrays["scatters"], problems)
    low, high = df_bounds
    if "df" in arrays and not np.all((arrays["df"] >= low) & (arrays["df"] <= high)):
        problems.add(f"df {arrays['df']} must lie within df_bounds, {low:g} to {high:g}")
    problems.raise_if_any(ModelError)
    return arrays


def check_spread(table: Table, k: int, problems: Problems) -> None:
    """Check that the rows can carry k scatter matrices."""
    n = len(table.values)
    if k > n:
        problems.add(f"n_components={k} exceeds the number of rows, {n}")
        return
    found = len(distinct_rows(table.values, k))
    if found < k:
        problems.add(f"X has only {found} distinct rows, fewer than n_components={k}")
    mean, cov = moments(table.values)
    sd = np.sqrt(np.diag(cov))
    constant = sd <= 1e-13 * np.abs(mean)
    for j in np.flatnonzero(constant):
        problems.add(
            f"column {table.names[j]!r} is constant (value {table.values[0, j]:g})",
            remedy="drop the column",
        )
    involved = [] if constant.any() else collinear(cov / np.outer(sd, sd)).tolist()
    if involved:
        problems.add(
            f"columns {', '.join(repr(table.names[j]) for j in involved)} are collinear: scatter "
            "matrices are singular",
            remedy="drop one of them",
        )
