"""Shapes, names and free directions of a hidden Markov model's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from saem.contract import Array
from saem.exceptions import ModelError, Problems
from saem.statistics import Packed

from ._checks import add_bad_matrices, did_you_mean, read_arrays
from ._hidden_markov_kernels import HEAD

__all__ = [
    "check_parts",
    "component_shapes",
    "directions",
    "param_names",
    "param_scales",
    "spec_of",
    "statistic_of",
]

#: Probabilities below this stand at their boundary.
_AT_ZERO = 1e-6


def component_shapes(kind: str, k: int, d: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters as a user sees them."""
    shapes: dict[str, tuple[int, ...]] = {"startprob": (k,), "transmat": (k, k)}
    if kind == "categorical":
        return shapes | {"emissionprob": (k, d)}
    return shapes | {"means": (k, d), "covariances": (k, d) if kind == "diag" else (k, d, d)}


def spec_of(kind: str, k: int, d: int) -> Packed:
    """Blocks of theta."""
    derived: dict[str, dict[str, tuple[int, ...]]] = {
        "diag": {"log_sds": (k, d)},
        "full": {"log_constants": (k,), "factors": (k, d, d)},
        "categorical": {},
    }
    return Packed(sizes=(HEAD,), **component_shapes(kind, k, d), **derived[kind])


def statistic_of(kind: str, k: int, d: int) -> Packed:
    """Blocks of the statistic."""
    emissions: dict[str, dict[str, tuple[int, ...]]] = {
        "diag": {"counts": (k, d), "sums": (k, d), "squares": (k, d)},
        "full": {"counts": (k,), "sums": (k, d), "squares": (k, d * (d + 1) // 2)},
        "categorical": {"counts": (k, d)},
    }
    return Packed(start=(k,), transitions=(k, k), **emissions[kind])


def param_names(kind: str, k: int, d: int, columns: list[str]) -> list[str]:
    """Names such as ``startprob[0]``, ``transmat[0,1]``, ``means[0,x]``."""
    states = range(k)
    names = [f"startprob[{c}]" for c in states]
    names += [f"transmat[{b},{c}]" for b in states for c in states]
    if kind == "categorical":
        return names + [f"emissionprob[{c},{v}]" for c in states for v in range(d)]
    names += [f"means[{c},{a}]" for c in states for a in columns]
    if kind == "diag":
        return names + [f"covariances[{c},{a}]" for c in states for a in columns]
    pairs = [f"{a},{b}" for j, a in enumerate(columns) for b in columns[: j + 1]]
    return names + [f"covariances[{c},{p}]" for c in states for p in pairs]


def param_scales(kind: str, k: int, d: int) -> list[str]:
    """Scale on which each parameter's confidence interval is formed."""
    # a single state, or symbol, has probability 1 and no interval
    scales = ["logit" if k > 1 else "identity"] * (k + k * k)
    if kind == "categorical":
        return scales + ["logit" if d > 1 else "identity"] * (k * d)
    scales += ["identity"] * (k * d)
    if kind == "diag":
        return scales + ["log"] * (k * d)
    a, b = np.tril_indices(d)
    return scales + ["log" if same else "identity" for same in a == b] * k


def _simplex(shares: Array) -> Array:
    """Directions of shape (size, free) in which shares move and still sum to 1."""
    inner = np.flatnonzero(shares > _AT_ZERO)
    out = np.zeros((shares.size, max(0, inner.size - 1)))
    for column, c in enumerate(inner[:-1]):
        out[inner, column] = -shares[c] * shares[inner]
        out[c, column] += shares[c]
    return out


def directions(parts: Mapping[str, Array], d: int) -> Array:
    """Free directions of shape (n_names, n_free), scaled by the size of each parameter."""
    blocks = [_simplex(parts["startprob"]), *map(_simplex, parts["transmat"])]
    if "emissionprob" in parts:
        blocks += map(_simplex, parts["emissionprob"])
    else:
        covariances = parts["covariances"]
        if covariances.ndim == 2:
            blocks += [np.diag(np.sqrt(covariances).ravel()), np.diag(covariances.ravel())]
        else:
            spread = 1.0 / np.sqrt(np.linalg.inv(covariances).diagonal(axis1=1, axis2=2))
            a, b = np.tril_indices(d)
            blocks += [np.diag(spread.ravel()), np.diag((spread[:, a] * spread[:, b]).ravel())]
    rows, columns = (sum(block.shape[i] for block in blocks) for i in (0, 1))
    out = np.zeros((rows, columns))
    row = column = 0
    for block in blocks:
        out[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    return out


def check_parts(parts: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """Check parameters that a user gives: names, shapes, probabilities, covariances.

    Raises
    ------
    ModelError
        With all problems found.
    """
    if not isinstance(parts, Mapping):
        raise ModelError(
            f"init={parts!r} must be a dict of starting values, as `components` gives."
        )
    problems = Problems("the parameters")
    for name in map(str, parts):
        if name not in shapes:
            problems.add(
                f"{name!r} is not one of {', '.join(shapes)}", remedy=did_you_mean(name, shapes)
            )
    for name in (n for n in shapes if n not in parts):
        problems.add(f"{name} is missing; it must have shape {shapes[name]}")
    checked = read_arrays(parts, shapes, problems)
    for name, value in checked.items():
        _check_range(name, value, problems)
    problems.raise_if_any(ModelError)
    for name in ("startprob", "transmat", "emissionprob"):
        if name in checked:
            checked[name] /= checked[name].sum(axis=-1, keepdims=True)
    return checked


def _check_range(name: str, value: Array, problems: Problems) -> None:
    """Check probabilities and covariances."""
    if name == "means":
        return
    if name != "covariances":
        if np.any(value < 0.0) or np.any(np.abs(value.sum(axis=-1) - 1.0) > 1e-6):
            problems.add(f"{name} must be at least 0 and sum to 1 (each row of a matrix)")
        return
    if value.ndim == 2:
        if np.any(value <= 0.0):
            problems.add("covariances must all be above 0")
        return
    add_bad_matrices(name, value, problems)
