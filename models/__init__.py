"""Model definitions: one file a model or a close family, loaded when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "saem.models":  # classes of a second copy would fail `isinstance`
    raise ImportError(
        f"this folder is the package saem.models and cannot be imported as {__name__!r}; "
        "install saem and `import saem.models`"
    )

if TYPE_CHECKING:
    from .factor_analysis import PPCA, FactorAnalysis
    from .gaussian_mixture import GaussianMixture
    from .linear_mixed import LinearMixed
    from .multivariate_normal import MultivariateNormal
    from .plsa import PLSA

_HOME = {
    "FactorAnalysis": "factor_analysis",
    "GaussianMixture": "gaussian_mixture",
    "LinearMixed": "linear_mixed",
    "MultivariateNormal": "multivariate_normal",
    "PLSA": "plsa",
    "PPCA": "factor_analysis",
}

__all__ = [
    "PLSA",
    "PPCA",
    "FactorAnalysis",
    "GaussianMixture",
    "LinearMixed",
    "MultivariateNormal",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
