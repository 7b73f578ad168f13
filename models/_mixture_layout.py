"""Shapes and names of a Gaussian mixture's parameters, by covariance type."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array

from ._gaussian_kernels import COVARIANCES, MEANS, WEIGHTS

__all__ = [
    "ROWS",
    "Functions",
    "component_shapes",
    "free_names",
    "full_covariances",
    "functions_of",
    "has_triangles",
    "kept_code",
    "packed_shape",
    "param_names",
    "param_scales",
    "scratch",
    "statistic_shapes",
    "theta_shapes",
    "unpack_triangles",
]


#: How rows are recorded: as they are, with weights, or with weights and missing values.
ROWS = ("plain", "weighted", "missing")


class Functions(NamedTuple):
    """Compiled functions of one covariance type, for one kind of rows."""

    expect: Any
    draw: Any
    classify: Any
    accumulate: Any
    maximize: Any
    surrogate: Any
    project: Any
    derive: Any
    expect_batch: Any = None
    accumulate_batch: Any = None


def functions_of(covariance_type: str, rows: str = "plain") -> Functions:
    """Compiled functions of a covariance type.

    Parameters
    ----------
    covariance_type : {"full", "tied", "diag", "spherical"}
    rows : {"plain", "weighted", "missing"}
        Of rows with missing values, those of covariance matrices share the M-step of
        others; those of variances have a statistic of their own.
    """
    suffix = "" if rows == "plain" else f"_{rows}"
    own_m_step = rows == "missing" and not has_triangles(covariance_type)
    step = "_missing" if own_m_step else ""

    def module(name: str) -> Any:
        return import_module(f"._gaussian_{name}", __package__)

    home = module({"plain": "kernels"}.get(rows, rows))
    updates, objectives = module("updates"), module("surrogates")
    names = {
        "expect": (home, suffix),
        "draw": (home, suffix),
        "classify": (home, suffix),
        "accumulate": (home, suffix),
        "maximize": (updates, step),
        "surrogate": (objectives, step),
        "project": (objectives, step),
        "derive": (updates, ""),
    }
    if rows != "missing":
        batches = module("batches")
        names |= {"expect_batch": (batches, ""), "accumulate_batch": (batches, suffix)}
    return Functions(
        **{n: getattr(file, f"{n}_{covariance_type}{end}") for n, (file, end) in names.items()}
    )


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


def theta_shapes(covariance_type: str, k: int, d: int) -> dict[str, tuple[int, ...]]:
    """Blocks of packed parameters."""
    second = packed_shape(covariance_type, k, d)
    return {
        "sizes": (2,),
        "floor": (),
        "kept": (),
        "weights": (k,),
        "means": (k, d),
        "covariances": second,
        "log_constants": (k,),
        "factors": second,
    }


def statistic_shapes(covariance_type: str, rows: str, k: int, d: int) -> dict[str, tuple[int, ...]]:
    """Blocks of the statistic for a kind of rows."""
    shapes = {"counts": (k,), "sums": (k, d), "squares": packed_shape(covariance_type, k, d)}
    if rows == "missing" and not has_triangles(covariance_type):
        shapes["observed"] = (k, d)
    return shapes


def scratch(covariance_type: str, rows: str, k: int, d: int, most_missing: int) -> tuple[int, int]:
    """Sizes of a latent record and of the scratch of the compiled functions."""
    if rows == "missing":
        from . import _gaussian_missing as missing

        latent = missing.latent_size(covariance_type, k, most_missing)
        return latent, missing.work_size(d, latent)
    from . import _gaussian_blocks as blocks

    return k, blocks.work_size(k, d)


def kept_code(fixed: Collection[str]) -> int:
    """Code in theta of the parts that the M-step keeps."""
    codes = {"weights": WEIGHTS, "means": MEANS, "covariances": COVARIANCES}
    return sum(codes[name] for name in fixed)


def free_names(covariance_type: str, k: int, d: int, fixed: Collection[str]) -> NDArray[np.bool_]:
    """Which of all named parameters are estimated."""
    second = int(np.prod(packed_shape(covariance_type, k, d)))
    kept = [name in fixed for name in ("weights", "means", "covariances")]
    return ~np.repeat(kept, [k, k * d, second])


def full_covariances(covariances: Array, covariance_type: str, k: int, d: int) -> Array:
    """Covariances of all components as (k, d, d)."""
    if has_triangles(covariance_type):
        return np.broadcast_to(covariances, (k, d, d))
    return np.broadcast_to(covariances.reshape(k, -1), (k, d))[:, :, None] * np.eye(d)


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
