"""Checks of the options that mixtures share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from saem.contract import Array
from saem.exceptions import ModelError, Problems, nearest

__all__ = ["check_alpha", "check_components", "check_init", "check_weights", "given_arrays"]


def check_components(n_components: Any, problems: Problems) -> None:
    """Check the number of components."""
    whole = isinstance(n_components, int | np.integer) and not isinstance(n_components, bool)
    if not whole or n_components < 1:
        problems.add(f"n_components={n_components!r} must be a whole number, at least 1")


def check_init(
    init: Any, problems: Problems, known: tuple[str, ...] = ("kmeans++", "random")
) -> None:
    """Check the name of a start, or that values are given in a dict."""
    if isinstance(init, str):
        if init not in known:
            close = nearest(init, known)
            problems.add(
                f"init={init!r} is not one of {', '.join(map(repr, known))}",
                remedy=f"did you mean {close[0]!r}?" if close else None,
            )
    elif not isinstance(init, Mapping):
        problems.add(f"init={init!r} must be one of {known}, or a dict of starting values")


def check_weights(weights: Array, problems: Problems) -> None:
    """Check given weights of components."""
    if np.any(weights <= 0.0):
        problems.add(f"weights {weights} must all be above 0")
    elif abs(weights.sum() - 1.0) > 1e-6:
        problems.add(f"weights {weights} sum to {weights.sum():g}, not to 1")


def check_alpha(alpha: Any, problems: Problems) -> None:
    """Check the share of pseudo-rows."""
    number = isinstance(alpha, int | float | np.number) and not isinstance(alpha, bool)
    if not number or not 0.0 < alpha < 1.0:
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
    problems, arrays = Problems("the starting values"), {}
    if set(given) != set(shapes):
        problems.add(f"they have the keys {sorted(map(str, given))}; they need {sorted(shapes)}")
        problems.raise_if_any(ModelError)
    for name, shape in shapes.items():
        arrays[name] = np.array(given[name], dtype=float)
        if arrays[name].shape != shape:
            problems.add(f"{name} has shape {arrays[name].shape}; it must have shape {shape}")
        elif not np.all(np.isfinite(arrays[name])):
            problems.add(f"{name} holds values that are missing or infinite")
    problems.raise_if_any(ModelError)
    return arrays
