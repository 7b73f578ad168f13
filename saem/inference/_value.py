"""What a log-likelihood is returned as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from saem.contract import Array

__all__ = ["Likelihood"]


@dataclass(frozen=True)
class Likelihood:
    """A log-likelihood and what is known of its error.

    Attributes
    ----------
    value : float
        Log-likelihood of all individuals.
    error : float
        Monte Carlo standard error; for quadrature, the change by the last
        refinement; 0 where the value is exact; NaN where it is not known.
    contributions : ndarray of shape (n_individuals,)
        Log-likelihood of each individual.
    errors : ndarray of shape (n_individuals,)
        Error of each.
    method : str
        ``"importance sampling"``, ``"quadrature"``, ``"Laplace"``, ``"linearisation"`` or
        ``"exact"``.
    ess : ndarray of shape (n_individuals,) or None
        Effective sample size of the weights.
    n_points : ndarray of int64, shape (n_individuals,)
        Draws, or nodes, of each individual.
    pareto_k : ndarray of shape (n_individuals,) or None
        Shape of the upper tail of each individual's importance weights. Above 0.7 neither
        the estimate nor its error can be relied on.
    """

    value: float
    error: float
    contributions: Array
    errors: Array
    method: str
    ess: Array | None
    n_points: Any
    pareto_k: Array | None = None
