"""Checks of what a user gives to mixtures of columns, and what is taken from all data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from saem.contract import Array
from saem.exceptions import Problems

from ._column_start import distinct_count
from ._mixture_columns import Column

__all__ = ["check_groups", "check_table", "prior_of", "shifted"]


def check_table(columns: list[Column], table: Array, n_components: int, problems: Problems) -> None:
    """Check that the rows can carry the mixture."""
    if n_components > len(table):
        problems.add(f"n_components={n_components} exceeds the number of rows, {len(table)}")
        return
    found = distinct_count(table, n_components)
    if found < n_components:
        problems.add(f"X has only {found} distinct rows, fewer than n_components={n_components}")
    at = 0
    for column in columns:
        x = table[:, at : at + len(column.members)]
        at += len(column.members)
        known = x[~np.isnan(x).any(axis=1)]
        if not known.size:
            problems.add(f"column {column.name!r} has no value", remedy="drop the column")
        elif column.family in ("gaussian", "gamma") and np.ptp(known) <= 1e-13 * abs(known).max():
            problems.add(
                f"column {column.name!r} is constant (value {known[0, 0]:g})",
                remedy="drop the column",
            )
        elif column.family in ("exponential", "multinomial") and not known.any():
            problems.add(f"column {column.name!r} is 0 in every row", remedy="drop the column")


def check_groups(columns: list[Column], table: Array, rows: Any, problems: Problems) -> None:
    """Check that the counts of a multinomial are missing all together or not at all."""
    at = 0
    for column in columns:
        missing = np.isnan(table[:, at : at + len(column.members)])
        at += len(column.members)
        for i in np.flatnonzero(missing.any(axis=1) & ~missing.all(axis=1))[:5]:
            problems.add(
                f"row {rows[i]}: some counts of {column.name!r} are missing, others not; without "
                "the total nothing can be said",
                remedy="set all counts of the row to NaN",
            )


def shifted(columns: list[Column], table: Array) -> list[Column]:
    """Gaussian columns with their means as shifts."""
    at, shifted = 0, []
    for column in columns:
        x = table[:, at]
        at += len(column.members)
        if column.family == "gaussian" and not np.isnan(x).all():
            column = replace(column, shift=float(np.nanmean(x)))
        shifted.append(column)
    return shifted


def prior_of(column: Column, sums: Array, n: int) -> Array:
    """Mean statistics of a column over rows without a missing value; its first entry else -1.

    Levels and counts get one observation more, so that none has mean 0.
    """
    if column.levels:
        return (sums + 1.0) / (sums + 1.0).sum()
    seen = n - sums[0]
    means = sums / max(seen, 1.0)
    if column.family == "poisson":
        means[1] = (sums[1] + 1.0) / (seen + 1.0)
    means[0] = -1.0
    return means
