"""saem: stochastic EM and latent-variable fitting.

Importing the package is light; every name loads its part when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "EM": "saem.algorithms",
    "VRTTEM": "saem.algorithms",
    "StochasticEM": "saem.algorithms",
    "SquaremEM": "saem.algorithms",
    "SVRGEM": "saem.algorithms",
    "SPIDEREM": "saem.algorithms",
    "MiniBatchEM": "saem.algorithms",
    "MISSO": "saem.algorithms",
    "IncrementalSAEM": "saem.algorithms",
    "ITTEM": "saem.algorithms",
    "GeomSPIDEREM": "saem.algorithms",
    "FITTEM": "saem.algorithms",
    "FIEM": "saem.algorithms",
    "ClassificationEM": "saem.algorithms",
    "AscentMCEM": "saem.algorithms",
    "AndersonEM": "saem.algorithms",
    "ImportanceEM": "saem.algorithms",
    "IncrementalEM": "saem.algorithms",
    "MCEM": "saem.algorithms",
    "OnlineEM": "saem.algorithms",
    "QuadratureEM": "saem.algorithms",
    "SAEM": "saem.algorithms",
    "FSAEM": "saem.algorithms",
    "FOCEI": "saem.algorithms",
    "Laplace": "saem.algorithms",
    "RandomWalkSAEM": "saem.algorithms",
    "Sequence": "saem.algorithms",
    "AscentBased": "saem.automatic",
    "BoothHobert": "saem.automatic",
    "Callback": "saem.callbacks",
    "compare": "saem.diagnostics.comparison",
    "EarlyStop": "saem.callbacks",
    "Progress": "saem.callbacks",
    "AnisotropicLangevin": "saem.estep",
    "BlockWalk": "saem.estep",
    "Classification": "saem.estep",
    "CoordinateWalk": "saem.estep",
    "Exact": "saem.estep",
    "Hamiltonian": "saem.estep",
    "ImportanceSampling": "saem.estep",
    "IndependentLaplace": "saem.estep",
    "Langevin": "saem.estep",
    "MonteCarlo": "saem.estep",
    "PriorProposal": "saem.estep",
    "Quadrature": "saem.estep",
    "ConvergenceWarning": "saem.exceptions",
    "DataError": "saem.exceptions",
    "FitError": "saem.exceptions",
    "ModelError": "saem.exceptions",
    "OptionError": "saem.exceptions",
    "SaemError": "saem.exceptions",
    "SaemWarning": "saem.exceptions",
    "Stream": "saem.streaming",
    "Epochs": "saem.fitting",
    "Iterations": "saem.fitting",
    "fit": "saem.fitting",
    "CombinedError": "saem.nlme.error_models",
    "ConstantError": "saem.nlme.error_models",
    "ExponentialError": "saem.nlme.error_models",
    "InverseGammaPrior": "saem.nlme.priors",
    "InverseWishartPrior": "saem.nlme.priors",
    "LogLikelihood": "saem.nlme.error_models",
    "NormalPrior": "saem.nlme.priors",
    "PowerError": "saem.nlme.error_models",
    "ProportionalError": "saem.nlme.error_models",
    "Shared": "saem.nlme.error_models",
    "NLME": "saem.nlme.model",
    "LogNormal": "saem.nlme.parameters",
    "LogitNormal": "saem.nlme.parameters",
    "Normal": "saem.nlme.parameters",
    "ProbitNormal": "saem.nlme.parameters",
    "load": "saem.persist",
    "multistart": "saem.convergence.agreement",
}
_MODULES = ("authoring", "checks", "datasets", "models", "plots", "schedules")

__all__ = sorted([*_EXPORTS, *_MODULES, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("saem")
    if name in _EXPORTS:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"saem.{name}")
    else:
        raise AttributeError(f"module 'saem' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
