"""Names for combinations: each algorithm is an E-step, a proxy and two schedules.

An algorithm is an immutable description. `combine` binds it to a model by
filling in what depends on the model, such as the E-step; the loop that runs it
is the engine's, the same for all.
"""

from __future__ import annotations

from typing import Any

from saem.algorithms._base import SAEM_MOVES, Algorithm, saem_path
from saem.algorithms.default import default_algorithm
from saem.algorithms.em import (
    EM,
    AndersonEM,
    ClassificationEM,
    ImportanceEM,
    IncrementalEM,
    MiniBatchEM,
    OnlineEM,
    QuadratureEM,
    SquaremEM,
)
from saem.algorithms.first_order import FOCEI, Laplace
from saem.algorithms.sequence import Sequence
from saem.algorithms.stochastic import (
    FSAEM,
    MCEM,
    MISSO,
    SAEM,
    AscentMCEM,
    RandomWalkSAEM,
    StochasticEM,
)
from saem.algorithms.two_timescale import FITTEM, ITTEM, VRTTEM, IncrementalSAEM
from saem.algorithms.variance_reduced import FIEM, SPIDEREM, SVRGEM, GeomSPIDEREM
from saem.contract import Model
from saem.exceptions import OptionError, nearest

__all__ = [
    "EM",
    "FIEM",
    "FITTEM",
    "FOCEI",
    "FSAEM",
    "ITTEM",
    "MCEM",
    "MISSO",
    "SAEM",
    "SAEM_MOVES",
    "SPIDEREM",
    "SVRGEM",
    "VRTTEM",
    "Algorithm",
    "AndersonEM",
    "AscentMCEM",
    "ClassificationEM",
    "GeomSPIDEREM",
    "ImportanceEM",
    "IncrementalEM",
    "IncrementalSAEM",
    "Laplace",
    "MiniBatchEM",
    "OnlineEM",
    "QuadratureEM",
    "RandomWalkSAEM",
    "Sequence",
    "SquaremEM",
    "StochasticEM",
    "algorithms",
    "default_algorithm",
    "resolve",
    "saem_path",
]

_REGISTRY: dict[str, type[Algorithm]] = {
    a.name: a
    for a in (
        EM,
        AndersonEM,
        SquaremEM,
        QuadratureEM,
        ImportanceEM,
        MiniBatchEM,
        IncrementalEM,
        OnlineEM,
        SVRGEM,
        FIEM,
        SPIDEREM,
        GeomSPIDEREM,
        StochasticEM,
        ClassificationEM,
        MCEM,
        AscentMCEM,
        SAEM,
        FSAEM,
        RandomWalkSAEM,
        IncrementalSAEM,
        ITTEM,
        VRTTEM,
        FITTEM,
        MISSO,
        FOCEI,
        Laplace,
    )
}


def algorithms() -> list[str]:
    """Names of the algorithms."""
    return list(_REGISTRY)


def resolve(algorithm: Any, model: Model) -> Algorithm:
    """Turn a name, None or an algorithm object into an algorithm.

    Parameters
    ----------
    algorithm : str, Algorithm or None
        None takes the model's default; ``"auto"`` is `default_algorithm`.
    model : Model

    Returns
    -------
    Algorithm

    Raises
    ------
    saem.exceptions.OptionError
        For an unknown name.
    """
    if algorithm is None:
        algorithm = model.default_algorithm
    if isinstance(algorithm, str) and algorithm.casefold() == "auto":
        return default_algorithm(model)
    if isinstance(algorithm, Algorithm):
        return algorithm
    if isinstance(algorithm, str):
        key = algorithm.casefold().replace("_", "-")
        if key in _REGISTRY:
            return _REGISTRY[key]()
        close = nearest(key, _REGISTRY)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise OptionError(
            f"algorithm {algorithm!r} is not known; there are {', '.join(_REGISTRY)}.{hint}"
        )
    raise OptionError(
        f"algorithm must be a name or an algorithm object such as saem.SAEM(); got {algorithm!r}."
    )
