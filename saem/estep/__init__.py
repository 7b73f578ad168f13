"""E-steps: exact, deterministic numerical, Monte Carlo; interchangeable in every algorithm."""

from saem.estep._base import BoundEStep, EStep
from saem.estep.exact import Classification, Exact
from saem.estep.importance import ImportanceSampling
from saem.estep.montecarlo import MonteCarlo
from saem.estep.moves import (
    AnisotropicLangevin,
    BlockWalk,
    CoordinateWalk,
    Hamiltonian,
    IndependentLaplace,
    Langevin,
    PriorProposal,
)
from saem.estep.quadrature import Quadrature

__all__ = [
    "AnisotropicLangevin",
    "BlockWalk",
    "BoundEStep",
    "Classification",
    "CoordinateWalk",
    "EStep",
    "Exact",
    "Hamiltonian",
    "ImportanceSampling",
    "IndependentLaplace",
    "Langevin",
    "MonteCarlo",
    "PriorProposal",
    "Quadrature",
]
