"""E-steps: exact, deterministic numerical, Monte Carlo; interchangeable in every algorithm."""

from saem.estep._base import BoundEStep, EStep
from saem.estep.exact import Classification, Exact
from saem.estep.importance import ImportanceSampling
from saem.estep.montecarlo import (
    BlockWalk,
    CoordinateWalk,
    IndependentLaplace,
    MonteCarlo,
    PriorProposal,
)
from saem.estep.quadrature import Quadrature

__all__ = [
    "BlockWalk",
    "BoundEStep",
    "Classification",
    "CoordinateWalk",
    "EStep",
    "Exact",
    "ImportanceSampling",
    "IndependentLaplace",
    "MonteCarlo",
    "PriorProposal",
    "Quadrature",
]
