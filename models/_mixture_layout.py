"""Shapes and names of a Gaussian mixture's parameters, by covariance type."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from saem.contract import Array

from . import _gaussian_blocks as blocks
from . import _gaussian_kernels as kernels
from . import _gaussian_updates as updates

__all__ = [
    "Functions",
    "component_shapes",
    "functions_of",
    "has_triangles",
    "packed_shape",
    "param_names",
    "param_scales",
    "unpack_triangles",
]


class Functions(NamedTuple):
    """Compiled functions of one covariance type."""

    expect: Any
    draw: Any
    accumulate: Any
    maximize: Any
    derive: Any
    block: Any


def functions_of(covariance_type: str) -> Functions:
    """Compiled functions of a covariance type."""
    homes = {
        "expect": kernels,
        "draw": kernels,
        "accumulate": kernels,
        "maximize": updates,
        "derive": updates,
        "block": blocks,
    }
    return Functions(**{n: getattr(home, f"{n}_{covariance_type}") for n, home in homes.items()})


def has_triangles(covariance_type: str) -> bool:
    """Whether covariances are matrices, packed as lower triangles."""
    return covariance_type in ("full", "tied")


def packed_shape(covariance_type: str, k: int, d: int) -> tuple[int, ...]:
    """Shape of packed covariances, factors and second moments."""
    triangle = d * (d + 1) // 2
    shapes: dict[str, tuple[int, ...]] = {
        "full": (k, triangle),
        "tied": (triangle,),
        "diag": (k, d),
        "spherical": (k,),
    }
    return shapes[covariance_type]


def component_shapes(covariance_type: str, k: int, d: int) -> dict[str, tuple[int, ...]]:
    """Shapes of weights, means and covariances as a user sees them (scikit-learn's)."""
    covariances: dict[str, tuple[int, ...]] = {
        "full": (k, d, d),
        "tied": (d, d),
        "diag": (k, d),
        "spherical": (k,),
    }
    return {"weights": (k,), "means": (k, d), "covariances": covariances[covariance_type]}


def param_names(covariance_type: str, k: int, columns: list[str]) -> list[str]:
    """Names such as ``weights[0]``, ``means[0,x]`` and ``covariances[0,y,x]``."""
    components = range(k)
    pairs = [f"{a},{b}" for j, a in enumerate(columns) for b in columns[: j + 1]]
    inner = {
        "full": [f"{c},{p}" for c in components for p in pairs],
        "tied": pairs,
        "diag": [f"{c},{a}" for c in components for a in columns],
        "spherical": [str(c) for c in components],
    }[covariance_type]
    return (
        [f"weights[{c}]" for c in components]
        + [f"means[{c},{a}]" for c in components for a in columns]
        + [f"covariances[{e}]" for e in inner]
    )


def param_scales(covariance_type: str, k: int, d: int) -> list[str]:
    """Scale on which each parameter's confidence interval is formed."""
    a, b = np.tril_indices(d)
    triangle = ["log" if diagonal else "identity" for diagonal in a == b]
    second = {
        "full": triangle * k,
        "tied": triangle,
        "diag": ["log"] * (k * d),
        "spherical": ["log"] * k,
    }[covariance_type]
    return ["logit" if k > 1 else "identity"] * k + ["identity"] * (k * d) + second


def unpack_triangles(packed: Array, d: int) -> Array:
    """Symmetric matrices of shape (..., d, d) from packed lower triangles (..., t)."""
    a, b = np.tril_indices(d)
    full = np.empty((*packed.shape[:-1], d, d))
    full[..., a, b] = packed
    full[..., b, a] = packed
    return full
