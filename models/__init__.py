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
    from .deformable_template import DeformableTemplate
    from .discrete_mixtures import (
        BernoulliMixture,
        CategoricalMixture,
        MultinomialMixture,
        PoissonMixture,
    )
    from .factor_analysis import PPCA, FactorAnalysis
    from .gaussian_mixture import GaussianMixture
    from .hidden_markov import HiddenMarkov
    from .linear_mixed import LinearMixed
    from .logistic_missing import LogisticMissing
    from .mixed_logistic import MixedLogistic
    from .mixed_mixture import MixedMixture
    from .multivariate_normal import MultivariateNormal
    from .plsa import PLSA
    from .positive_mixtures import ExponentialMixture, GammaMixture
    from .regression_mixture import RegressionMixture
    from .student_mixture import StudentMixture
    from .variational_logistic import VariationalLogistic

_HOME = {
    "BernoulliMixture": "discrete_mixtures",
    "CategoricalMixture": "discrete_mixtures",
    "DeformableTemplate": "deformable_template",
    "ExponentialMixture": "positive_mixtures",
    "FactorAnalysis": "factor_analysis",
    "GammaMixture": "positive_mixtures",
    "GaussianMixture": "gaussian_mixture",
    "HiddenMarkov": "hidden_markov",
    "LinearMixed": "linear_mixed",
    "LogisticMissing": "logistic_missing",
    "MixedLogistic": "mixed_logistic",
    "MixedMixture": "mixed_mixture",
    "MultinomialMixture": "discrete_mixtures",
    "MultivariateNormal": "multivariate_normal",
    "PLSA": "plsa",
    "PPCA": "factor_analysis",
    "PoissonMixture": "discrete_mixtures",
    "RegressionMixture": "regression_mixture",
    "StudentMixture": "student_mixture",
    "VariationalLogistic": "variational_logistic",
}

__all__ = [
    "PLSA",
    "PPCA",
    "BernoulliMixture",
    "CategoricalMixture",
    "DeformableTemplate",
    "ExponentialMixture",
    "FactorAnalysis",
    "GammaMixture",
    "GaussianMixture",
    "HiddenMarkov",
    "LinearMixed",
    "LogisticMissing",
    "MixedLogistic",
    "MixedMixture",
    "MultinomialMixture",
    "MultivariateNormal",
    "PoissonMixture",
    "RegressionMixture",
    "StudentMixture",
    "VariationalLogistic",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
