"""The algorithm that `fit` takes when none is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from saem.algorithms._base import Algorithm
from saem.algorithms.em import EM
from saem.algorithms.sequence import Sequence
from saem.algorithms.stochastic import SAEM
from saem.contract import Model
from saem.estep import ImportanceSampling, Quadrature
from saem.estep.quadrature import quadrature_dimension, rule_size

if TYPE_CHECKING:
    from saem.record import FitRecord

__all__ = ["SAEMWherePointsFail", "default_algorithm"]

#: Distance from the maximum, in standard errors, that estimates must be within.
ACCURACY = 0.02
#: Nodes per random effect of the two finishing phases, by the number of random effects.
_NODES = {0: (1,), 1: (9, 15), 2: (9, 13), 3: (7, 11), 4: (5, 7)}
#: Fewer nodes for very many individuals: those of all of them hold at most so many numbers.
_MOST_NUMBERS, _FEWEST = 30_000_000, 5
#: Smoothing iterations of the phase that explores, where another one finishes.
_SMOOTHING = 95
#: Passes of a finishing phase, at most; two or three are usual.
_PASSES = 100
#: Points of a finishing phase by importance sampling, and random effects up to which it is tried.
_POINTS, _MOST_BY_POINTS = 2048, 8
#: Least share of its points that must count for every individual (Kong's effective number).
_LEAST_SHARE = 0.05


@dataclass(frozen=True)
class SAEMWherePointsFail(SAEM):
    """SAEM as a last phase, left out where importance sampling before it was good enough.

    Parameters
    ----------
    n_burn_in, n_exploration, n_smoothing, accuracy, max_iter
        And the other options of `saem.SAEM`.

    Notes
    -----
    It is run if the effective points of some individual are fewer than 5 % of all, or if more
    is asked than 2048 points give: an accuracy below 0.02.
    """

    def needed(self, before: FitRecord) -> bool:
        """Whether points failed for some individual, or another accuracy is asked."""
        points = before.sampler.get("effective_points", {"least": 0.0})
        share = points["least"] / before.sampler.get("n_points", 1)
        return bool(share < _LEAST_SHARE or (self.accuracy or ACCURACY) < ACCURACY)


def default_algorithm(model: Model) -> Algorithm:
    """Choose an algorithm by what the model offers, its dimension and its size.

    Parameters
    ----------
    model : Model

    Returns
    -------
    Algorithm

    Notes
    -----
    ==============================  =================================================
    model                           algorithm
    ==============================  =================================================
    exact E-step                    EM
    Gaussian random effects, not    SAEM
    of `saem.NLME`
    NLME, up to 4 random effects    SAEM of 150 iterations, then Newton steps by
                                    adaptive quadrature, coarse and fine
    NLME, 5 to 8 random effects,    SAEM of 150 iterations, then Newton steps by
    up to some 1000 individuals     importance sampling with 2048 points; if those fail
                                    for an individual, SAEM as in the next line
    NLME, more random effects or    SAEM, extended until the Monte Carlo error of each
    individuals                     estimate is below 2 % of its standard error
    NLME without random effects     Newton steps
    ==============================  =================================================

    SAEM explores: its chains leave inferior modes, which a quadrature rule around one mode cannot.
    The Newton steps (`saem.newton.Newton`) remove its noise; the finer rule confirms the
    coarser one. Both stop when estimates are within 0.02 standard errors of the maximum; that of
    points is of their approximation, and adds an error of about 0.01, which results report.
    """
    if "expect" in model.capabilities:
        return EM()
    if not hasattr(model, "param_kind"):
        return SAEM()
    levels = _levels(model)
    if levels is None and not _by_points(model):
        return SAEM(accuracy=ACCURACY)
    if levels is None:
        points = EM(ImportanceSampling(_POINTS), n_iter=_PASSES, acceleration="newton")
        rest = SAEMWherePointsFail(accuracy=ACCURACY)
        return Sequence((SAEM(n_smoothing=_SMOOTHING), points.with_accuracy(ACCURACY), rest))
    finish = [
        EM(Quadrature(q), n_iter=_PASSES, acceleration="newton").with_accuracy(ACCURACY)
        for q in levels
    ]
    if model.n_coords == 0:
        return finish[0]
    return Sequence((SAEM(n_smoothing=_SMOOTHING), *finish))


def _by_points(model: Model) -> bool:
    """Whether importance sampling is affordable, and its dimension not too high."""
    each = 1.125 * _POINTS * (1 + model.latent_size)
    few = 4 < model.n_coords <= _MOST_BY_POINTS
    return bool(few and model.n_individuals * each <= _MOST_NUMBERS)


def _levels(model: Model) -> tuple[int, ...] | None:
    """Nodes per random effect, coarse and fine; None where quadrature would be too much."""
    d = quadrature_dimension(model)
    nodes = _NODES.get(d)
    if nodes is None or d == 0:
        return nodes
    coarse, fine = nodes
    most = _MOST_NUMBERS / (model.n_individuals * (1 + model.latent_size))
    while rule_size(model, fine) > most and fine > _FEWEST + 2:
        fine -= 2
    return (min(coarse, fine - 2), fine) if rule_size(model, fine) <= most else None
