"""Checks of the options that mixtures share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from saem.contract import Array
from saem.exceptions import ModelError, Problems

from ._checks import add_unknown, is_number, is_whole, read_arrays

__all__ = ["check_alpha", "check_components", "check_floor", "check_init", "given_arrays"]


def check_components(n_components: Any, problems: Problems) -> None:
    """Check the number of components."""
    if not is_whole(n_components) or n_components < 1:
        problems.add(f"n_components={n_components!r} must be a whole number, at least 1")


def check_floor(reg_covar: Any, problems: Problems) -> None:
    """Check the floor of the variances."""
    if not is_number(reg_covar) or not 0.0 <= reg_covar < np.inf:
        problems.add(f"reg_covar={reg_covar!r} must be a number, at least 0")


def check_init(
    init: Any, problems: Problems, known: tuple[str, ...] = ("kmeans++", "random")
) -> None:
    """Check the name of a start, or that values are given in a dict."""
    if isinstance(init, str):
        if init not in known:
            add_unknown("init", init, known, problems)
    elif not isinstance(init, Mapping):
        problems.add(f"init={init!r} must be one of {known}, or a dict of starting values")


def check_alpha(alpha: Any, problems: Problems) -> None:
    """Check the share of pseudo-rows."""
    if not is_number(alpha) or not 0.0 < alpha < 1.0:
        problems.add(
            f"alpha={alpha!r} must lie between 0 and 1, both excluded",
            remedy="1e-9 changes no estimate that a reader can see",
        )


def given_arrays(
    given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Array]:
    """Given starting values as arrays of finite numbers of the right shapes.

    Raises
    ------
    ModelError
        With all problems found.
    """
    problems = Problems("the starting values")
    if set(given) != set(shapes):
        problems.add(f"they have the keys {sorted(map(str, given))}; they need {sorted(shapes)}")
        problems.raise_if_any(ModelError)
    arrays = read_arrays(given, shapes, problems)
    problems.raise_if_any(ModelError)
    return arrays
