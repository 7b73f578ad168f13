"""Every kind of move leaves the posterior of an individual invariant, on six targets.

Long runs are compared with quadrature: means, second moments, and the probabilities of lying
below the exact 5, 25, 50, 75 and 95 % quantiles. Monte Carlo errors come from the means of
batches. Seeds are fixed; the probability that correct samplers fail any comparison of
this file with other seeds is 1e-3 (Bonferroni over moves, targets and statistics, Student's t).
"""

import numpy as np
import pytest
from scipy import stats
from targets import MAKERS, Chain, exact_of, expected, grid_moments, statistics, target_of

from saem.estep import (
    AnisotropicLangevin,
    BlockWalk,
    CoordinateWalk,
    Hamiltonian,
    IndependentLaplace,
    Langevin,
    PriorProposal,
)

FALSE_ALARM = 1e-3
N_BATCHES = 50

MOVES = {
    "prior": (PriorProposal(6),),
    "coordinate": (CoordinateWalk(4),),
    "block": (BlockWalk(4),),
    "block of one": (BlockWalk(8, size=1),),
    "block like the prior": (BlockWalk(6, shape="prior"),),
    "Student": (IndependentLaplace(4),),
    "Student, odd and inflated": (IndependentLaplace(3, df=5, inflation=1.5),),
    "Gaussian": (IndependentLaplace(3, df=None, inflation=2.0),),
    "Langevin": (Langevin(2),),
    "anisotropic": (AnisotropicLangevin(2, bound=1.0),),
    "Hamiltonian": (Hamiltonian(1),),
    "cycle": (PriorProposal(1), CoordinateWalk(1), BlockWalk(1), IndependentLaplace(1, df=None),
              Langevin(1), AnisotropicLangevin(1), Hamiltonian(1)),
}  # fmt: skip
#: Statistics of all targets together.
N_STATISTICS = 9 + 3 * 5 + 5 + 2 * 5 + 9 + 3 * 5 + 3 * (5 + 2 * 5)
N_COMPARISONS = len(MOVES) * N_STATISTICS


@pytest.mark.parametrize("name", MAKERS)
def test_the_yardstick_itself(name):
    """The grid holds all of the mass; another gives the same moments.

    What they differ by is a hundredth of the Monte Carlo errors below.
    """
    target, exact = target_of(name), exact_of(name)
    assert exact.edge < 1e-7
    low = np.tril_indices(target.d)
    covariance = np.empty((target.d, target.d))
    covariance[low] = exact.second - exact.mean[low[0]] * exact.mean[low[1]]
    covariance.T[low] = covariance[low]
    centre = exact.mean + 0.1 * np.sqrt(np.diag(covariance))
    z, p, _ = grid_moments(target, centre, 1.2 * covariance)
    np.testing.assert_allclose(p @ z, exact.mean, atol=5e-6)
    np.testing.assert_allclose(p @ (z[:, low[0]] * z[:, low[1]]), exact.second, atol=5e-6)


def test_the_targets_are_what_they_are_called():
    # Two modes: the density along the line between them has a pass.
    target = target_of("flip-flop")
    k = np.array([1.5, 0.25])
    ends = np.log(np.column_stack([k, 2.0 / k[::-1]]))
    line = ends[0] + np.linspace(-0.5, 1.5, 401)[:, None] * (ends[1] - ends[0])
    values = target.log_density(line + 1e-9)
    peaks = np.flatnonzero((values[1:-1] > values[:-2]) & (values[1:-1] > values[2:])) + 1
    assert peaks.size == 2
    assert values[peaks].min() - values[peaks[0] : peaks[1]].min() > 0.3
    exact = exact_of("collinear")
    covariance = np.zeros((3, 3))
    low = np.tril_indices(3)
    covariance[low] = exact.second - exact.mean[low[0]] * exact.mean[low[1]]
    covariance.T[low] = covariance[low]
    sd = np.sqrt(np.diag(covariance))
    assert np.abs((covariance / np.outer(sd, sd))[low][[1, 3, 4]]).max() > 0.8
    assert exact_of("logit-normal").quantiles[0, -1] > 3.0  # a fraction of 0.95 and more


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("kind", MOVES)
def test_moves_leave_the_posterior_invariant(kind, name):
    target, exact = target_of(name), exact_of(name)
    answers = expected(exact)
    moves = MOVES[kind]
    if (kind, name) == ("prior", "collinear"):  # one proposal in 1000 is accepted
        moves = (PriorProposal(150),)
    chain = Chain(target.model, moves)
    values = statistics(exact, chain.run(40_000))
    batches = values.reshape(N_BATCHES, -1, answers.size).mean(axis=1)
    error = batches.std(axis=0, ddof=1) / np.sqrt(N_BATCHES)
    limit = stats.t.isf(0.5 * FALSE_ALARM / N_COMPARISONS, N_BATCHES - 1)
    distance = np.abs(batches.mean(axis=0) - answers) / error
    assert distance.max() < limit, np.round(distance, 1)
    # The error itself must be small, or nothing is shown; batches must be long.
    assert np.max(error / values.std(axis=0)) < 0.05
