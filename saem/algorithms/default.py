"""The algorithm that `fit` takes when none is named."""

from __future__ import annotations

from saem.algorithms._base import Algorithm
from saem.algorithms.em import EM
from saem.algorithms.sequence import Sequence
from saem.algorithms.stochastic import SAEM
from saem.contract import Model
from saem.estep import Quadrature

__all__ = ["default_algorithm"]

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
    NLME, more random effects, or   SAEM, extended until the Monte Carlo error of each
    more than some 10 000           estimate is below 2 % of its standard error
    individuals with 3 or 4
    NLME without random effects     Newton steps
    ==============================  =================================================

    SAEM explores: its chains leave inferior modes, which a quadrature rule around one mode cannot.
    The Newton steps (`saem.newton.Newton`) remove its noise; the finer rule confirms the
    coarser one. Both stop when estimates are within 0.02 standard errors of the maximum.
    """
    if "expect" in model.capabilities:
        return EM()
    if not hasattr(model, "param_kind"):
        return SAEM()
    levels = _levels(model)
    if levels is None:
        return SAEM(accuracy=ACCURACY)
    finish = [
        EM(Quadrature(q), n_iter=_PASSES, acceleration="newton").with_accuracy(ACCURACY)
        for q in levels
    ]
    if model.n_coords == 0:
        return finish[0]
    return Sequence((SAEM(n_smoothing=_SMOOTHING), *finish))


def _levels(model: Model) -> tuple[int, ...] | None:
    """Nodes per random effect, coarse and fine; None where quadrature would be too much."""
    d = model.n_coords
    nodes = _NODES.get(d)
    if nodes is None or d == 0:
        return nodes
    coarse, fine = nodes
    most = _MOST_NUMBERS / (model.n_individuals * (1 + model.latent_size))
    while fine**d > most and fine > _FEWEST + 2:
        fine -= 2
    return (min(coarse, fine - 2), fine) if fine**d <= most else None
