"""Checks of what a user gives to a mixture; all problems are gathered."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from saem.contract import Array
from saem.exceptions import ModelError, Problems, SaemWarning

from ._checks import add_bad_matrices, add_bad_weights, add_unknown, collinear, read_arrays
from ._mixture_options import check_components, check_floor
from ._mixture_start import distinct_rows
from ._table import Moments, Table

__all__ = ["check_data", "check_given", "check_options", "check_size"]

_TYPES = ("full", "tied", "diag", "spherical")
_INITS = ("kmeans++", "random")
_PARTS = ("weights", "means", "covariances")


def check_options(
    n_components: Any,
    covariance_type: Any,
    init: Any,
    reg_covar: Any,
    fixed: Any,
    missing: Any,
    problems: Problems,
) -> None:
    """Check the options that can be judged without the data."""
    kept = _check_fixed(fixed, problems)
    if missing not in (None, True, False):
        problems.add(f"missing={missing!r} must be None, True or False")
    check_components(n_components, problems)
    if covariance_type not in _TYPES:
        add_unknown("covariance_type", covariance_type, _TYPES, problems)
    check_floor(reg_covar, problems)
    if isinstance(init, str):
        if init not in _INITS:
            add_unknown("init", init, _INITS, problems)
    elif isinstance(init, Mapping):
        needed = set(_PARTS) - kept
        if not needed <= set(init) <= set(_PARTS):
            problems.add(f"init has the keys {sorted(map(str, init))}; it needs {sorted(needed)}")
    elif not isinstance(init, tuple) or len(init) != 3:
        problems.add(
            f"init={init!r} must be one of {_INITS}, or a dict or tuple of weights, means and "
            "covariances"
        )


def _check_fixed(fixed: Any, problems: Problems) -> set[str]:
    """Check which parts are kept; their names."""
    if fixed is None:
        return set()
    if not isinstance(fixed, Mapping):
        problems.add(f"fixed={fixed!r} must be a dict of values of {', '.join(_PARTS)}")
        return set()
    for name in fixed:
        if name not in _PARTS:
            add_unknown("a key of fixed", name, _PARTS, problems)
    if set(fixed) == set(_PARTS):
        problems.add(
            "fixed holds all parts, so that nothing is left to estimate",
            remedy="leave one out, or use `posterior` with `pack_components`",
        )
    return set(fixed) & set(_PARTS)


def check_size(n_rows: int, n_components: int, problems: Problems) -> None:
    """Check that there are as many rows (of positive weight) as components."""
    if n_components > n_rows:
        problems.add(f"n_components={n_components} exceeds the number of rows, {n_rows}")


def check_data(
    table: Table,
    solid: Array,
    moments: Moments,
    n_components: int,
    covariance_type: str,
    reg_covar: float,
    problems: Problems,
) -> None:
    """Check that the data can carry the mixture; warn where only the floor saves it.

    `solid` are the rows of positive weight, missing values replaced by means.
    """
    found = len(distinct_rows(solid, n_components))
    if found < n_components:
        problems.add(f"X has only {found} distinct rows, fewer than n_components={n_components}")
        return
    variance = np.diag(moments.cov)
    constant = variance <= (1e-13 * np.abs(moments.mean)) ** 2
    for j in np.flatnonzero(constant):
        _report(
            f"column {table.names[j]!r} is constant (value {solid[0, j]:g})",
            "drop the column",
            reg_covar,
            problems,
        )
    if covariance_type in ("full", "tied") and not constant.any():
        sd = np.sqrt(variance)
        involved = collinear(moments.cov / np.outer(sd, sd))
        if involved.size:
            names = ", ".join(repr(table.names[j]) for j in involved)
            _report(
                f"columns {names} are collinear: covariances are singular",
                "drop one of them or use covariance_type='diag'",
                reg_covar,
                problems,
            )
    swamped = ~constant & (variance < 100.0 * reg_covar)
    for j in np.flatnonzero(swamped):
        warnings.warn(
            f"column {table.names[j]!r} has variance {variance[j]:.3g}, not large against "
            f"reg_covar={reg_covar:g}, which is added to it. Remedy: rescale the column or "
            "lower reg_covar.",
            SaemWarning,
            stacklevel=3,
        )


def _report(text: str, remedy: str, reg_covar: float, problems: Problems) -> None:
    """Singular data: a problem without a floor, a warning with one."""
    if reg_covar == 0.0:
        problems.add(text, remedy=f"{remedy}, or set reg_covar above 0")
        return
    warnings.warn(
        f"{text}; the likelihood then depends on reg_covar={reg_covar:g}. Remedy: {remedy}.",
        SaemWarning,
        stacklevel=4,
    )


def check_given(
    init: Any,
    shapes: dict[str, tuple[int, ...]],
    *,
    matrices: bool,
    owner: str = "the starting values",
) -> dict[str, Array]:
    """Check values given by the user: shapes, numbers, weights, covariances.

    Parameters
    ----------
    init : dict or tuple
        A dict may hold some of the parts only.
    shapes : dict
        Shapes of weights, means and covariances.
    matrices : bool
        Whether covariances are matrices, not variances.
    owner : str
        What the values are, for the message.

    Raises
    ------
    ModelError
        With all problems found.
    """
    parts = dict(init) if isinstance(init, Mapping) else dict(zip(_PARTS, init, strict=True))
    problems = Problems(owner)
    given = read_arrays(parts, shapes, problems)
    if "weights" in given:
        add_bad_weights(given["weights"], problems)
    if "covariances" in given and matrices:
        add_bad_matrices("covariances", given["covariances"], problems)
    elif "covariances" in given and np.any(given["covariances"] <= 0.0):
        problems.add("covariances must all be above 0")
    problems.raise_if_any(ModelError)
    if "weights" in given:
        given["weights"] /= given["weights"].sum()
    return given
