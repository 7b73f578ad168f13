"""The models as scikit-learn estimators, for pipelines, searches and cross-validation.

Needs scikit-learn, which the extra ``sklearn`` brings: ``pip install saem[sklearn]``.

What stands behind an estimator is the model of the same name in `saem.models`; the results of
the fit, with standard errors and summary, are its attribute ``results_``.
"""

from __future__ import annotations

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        "saem.sklearn needs scikit-learn, which is not installed. "
        "Remedy: pip install 'saem[sklearn]'."
    ) from error

from saem.sklearn._columns import (
    BernoulliMixture,
    ExponentialMixture,
    GammaMixture,
    MultinomialMixture,
    PoissonMixture,
)
from saem.sklearn._factors import PPCA, FactorAnalysis
from saem.sklearn._fitting import ConvergenceWarning
from saem.sklearn._gaussian import GaussianMixture
from saem.sklearn._levels import CategoricalMixture, MixedMixture
from saem.sklearn._normal import MultivariateNormal
from saem.sklearn._regression import RegressionMixture
from saem.sklearn._student import StudentMixture
from saem.sklearn._topics import PLSA
from saem.sklearn._unchecked import expected_failed_checks

__all__ = [
    "PLSA",
    "PPCA",
    "BernoulliMixture",
    "CategoricalMixture",
    "ConvergenceWarning",
    "ExponentialMixture",
    "FactorAnalysis",
    "GammaMixture",
    "GaussianMixture",
    "MixedMixture",
    "MultinomialMixture",
    "MultivariateNormal",
    "PoissonMixture",
    "RegressionMixture",
    "StudentMixture",
    "expected_failed_checks",
]
