"""Every move of a Markov chain leaves the posterior of an individual invariant.

Long runs on two subjects, one of theophylline and one with little information and a
skewed posterior, are compared with moments by integration; Monte Carlo errors come
from batch means. Seeds are fixed; the probability that a correct sampler fails any of
the tests of this file with another seed is below 1e-3 (Bonferroni).
"""

import numpy as np
import pandas as pd
import pytest
from loop_models import decay_model, make_run, mixed
from scipy import stats

import saem
from saem import _loop
from saem.algorithms import SAEM
from saem.estep import (
    BlockWalk,
    CoordinateWalk,
    IndependentLaplace,
    MonteCarlo,
    PriorProposal,
    Quadrature,
)
from saem.estep.montecarlo import memory_views

FALSE_ALARM = 1e-3
N_STATES = 60_000
N_BATCHES = 60

MOVES = {
    "prior": (PriorProposal(4),),
    "coordinate": (CoordinateWalk(2),),
    "block": (BlockWalk(4),),
    "block of one": (BlockWalk(6, size=1),),
    "laplace": (IndependentLaplace(2),),
    "mixed": (PriorProposal(1), CoordinateWalk(1), BlockWalk(1), BlockWalk(1, size=1),
              IndependentLaplace(1)),
}  # fmt: skip


def emax(Emax, EC50, *, dose):
    """Saturating effect."""
    return Emax * dose / (EC50 + dose)


def weak_model():
    """Doses far below EC50 for the first subject: only the ratio Emax / EC50 is seen."""
    frame = pd.DataFrame(
        {
            "id": np.repeat([1, 2], 3),
            "dose": [1.0, 3.0, 8.0, 5.0, 20.0, 90.0],
            "dv": [4.1, 6.2, 21.0, 21.0, 55.0, 85.0],
        }
    )
    return saem.NLME(
        frame,
        structural=emax,
        parameters={
            "Emax": saem.LogNormal(100.0, omega=0.5),
            "EC50": saem.LogNormal(20.0, omega=1.0),
        },
        error=saem.ConstantError(6.0),
    )


def theophylline():
    """Typical values near the estimates, so that the posterior is an ordinary one."""
    return saem.NLME(
        saem.datasets.load("theophylline"),
        structural="pk.oral_1cpt",
        parameters={
            "ka": saem.LogNormal(1.6, omega=0.6),
            "V": saem.LogNormal(32.0, omega=0.15),
            "CL": saem.LogNormal(2.7, omega=0.25),
        },
        error=saem.ConstantError(0.75),
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )


class Chain:
    """One chain of one individual."""

    def __init__(self, model, moves, i=0, seed=1):
        self.model, self.i, self.seed = model, i, seed
        self.theta = model.start(np.random.default_rng(0))
        estep = MonteCarlo(moves=moves, n_chains=1, n_draws=100, exact=False)
        self.bound = estep.bind(model)
        self.bound.settings[4] = 1.0
        self.visit(self.bound.laplace, 0)  # places the chain at the mode
        for k in range(40):
            self.bound.settings[4] = (k + 1.0) ** -0.6
            self.visit(self.bound.visitor, k)
        self.bound.settings[4] = 0.0

    def visit(self, visitor, iteration):
        """Record of one visit."""
        bound, model = self.bound, self.model
        record = np.empty(bound.record_size)
        _loop.visit_at(
            model.kernels, visitor, model.values, model.offsets, self.theta, record,
            bound.memories, bound.settings, self.seed, iteration, self.i, bound.work_size,
        )  # fmt: skip
        return record

    def run(self, n_states):
        """States after adaptation, shape (n_states, d)."""
        width, d = 1 + self.model.latent_size, self.model.n_coords
        parts = [
            self.visit(self.bound.visitor, 100 + k).reshape(-1, width)[:, 1 : 1 + d]
            for k in range(n_states // 100)
        ]
        return np.concatenate(parts)


def functions(z):
    """First and second moments of every coordinate and pair, and two probabilities each."""
    d = z.shape[1]
    low = np.tril_indices(d)
    products = z[:, low[0]] * z[:, low[1]]
    return np.column_stack([z, products, np.tanh(z)])


def by_quadrature(model, i, n_nodes):
    """Posterior means of `functions` from saem's own rule with many nodes."""
    run = make_run(model, SAEM())
    bound = Quadrature(n_nodes).bind(model)
    record = np.empty(bound.record_size)
    for _ in range(2):
        _loop.visit_at(
            model.kernels, bound.visitor, model.values, model.offsets, run.theta, record,
            bound.memories, bound.settings, 0, 0, i, bound.work_size,
        )  # fmt: skip
    weighted = record.reshape(-1, 1 + model.latent_size)
    return weighted[:, 0] @ functions(weighted[:, 1 : 1 + model.n_coords])


def weak_by_grid():
    """Posterior means of the weak subject by a dense grid in plain NumPy."""
    u = np.linspace(-7.0, 7.0, 1401)
    first, second = np.meshgrid(u, u, indexing="ij")
    z = np.column_stack([np.log(100.0) + 0.5 * first.ravel(), np.log(20.0) + second.ravel()])
    logp = stats.norm.logpdf(first).ravel() + stats.norm.logpdf(second).ravel()
    for dose, y in ((1.0, 4.1), (3.0, 6.2), (8.0, 21.0)):
        f = np.exp(z[:, 0]) * dose / (np.exp(z[:, 1]) + dose)
        logp += stats.norm.logpdf(y, f, 6.0)
    weight = np.exp(logp - logp.max())
    return (weight / weight.sum()) @ functions(z), weight / weight.sum(), z


def check(states, expected, n_tests):
    """Compare means with their exact values, by Student's t over batches."""
    values = functions(states)
    batches = values.reshape(N_BATCHES, -1, values.shape[1]).mean(axis=1)
    error = batches.std(axis=0, ddof=1) / np.sqrt(N_BATCHES)
    limit = stats.t.isf(0.5 * FALSE_ALARM / n_tests / expected.size, N_BATCHES - 1)
    np.testing.assert_array_less(np.abs(batches.mean(axis=0) - expected) / error, limit)
    # The error itself must be small, or nothing is shown.
    spread = values.std(axis=0)
    assert np.max(error / spread) < 0.05


def test_the_weak_subject_is_skewed():
    _, weight, z = weak_by_grid()
    centred = z[:, 0] - weight @ z[:, 0]
    skewness = (weight @ centred**3) / (weight @ centred**2) ** 1.5
    low, high = (weight @ z[:, a] - zz for a, zz in ((0, np.log(100.0)), (1, np.log(20.0))))
    assert abs(skewness) > 0.02 or abs(low) + abs(high) > 0.1
    # Its posterior is nearly as wide as the prior in one direction.
    assert weight @ centred**2 > 0.5 * 0.25


def test_quadrature_agrees_with_the_grid():
    expected, _, _ = weak_by_grid()
    np.testing.assert_allclose(by_quadrature(weak_model(), 0, 41), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", MOVES)
def test_moves_leave_a_skewed_posterior_invariant(kind):
    expected, _, _ = weak_by_grid()
    states = Chain(weak_model(), MOVES[kind]).run(N_STATES)
    check(states, expected, 2 * len(MOVES))


@pytest.mark.parametrize("kind", MOVES)
def test_moves_leave_the_posterior_of_a_subject_invariant(kind):
    model = theophylline()
    expected = by_quadrature(model, 4, 21)
    states = Chain(model, MOVES[kind], i=4).run(N_STATES)
    check(states, expected, 2 * len(MOVES))


@pytest.mark.parametrize("kind", ["laplace", "mixed"])
def test_posterior_of_a_linear_model(kind):
    model = mixed()
    chain = Chain(model, MOVES[kind], i=3)
    mean, cov, _ = model.posterior(chain.theta)
    z = chain.run(N_STATES)
    u = np.linalg.solve(np.linalg.cholesky(cov[3]), (z - mean[3]).T).T
    low = np.tril_indices(3)
    expected = np.concatenate([np.zeros(3), np.eye(3)[low], np.zeros(3)])
    check(u, expected, 2)


def test_acceptance_of_student_proposals_for_a_normal_posterior():
    """The expected acceptance, 1 - E|w - w'| / 2 in essence, by independent simulation."""
    model = mixed()
    chain = Chain(model, (IndependentLaplace(1),), i=3)
    counts = memory_views(chain.bound)
    before = counts["tried"][3, 3], counts["accepted"][3, 3]
    n = 20_000
    chain.run(n)
    tried, accepted = counts["tried"][3, 3] - before[0], counts["accepted"][3, 3] - before[1]
    assert tried == n
    rng = np.random.default_rng(0)
    m, d, df = 400_000, 3, 4
    draws = rng.standard_normal((m, d)) * np.sqrt(df / rng.chisquare(df, m))[:, None]
    target = rng.standard_normal((m, d))

    def log_weight(x):
        square = np.square(x).sum(axis=1)
        return -0.5 * square + 0.5 * (df + d) * np.log1p(square / df)

    expected = np.minimum(1.0, np.exp(log_weight(draws) - log_weight(target))).mean()
    # Successive acceptances are correlated; 0.02 is 6 standard errors at n = 20,000.
    assert accepted / n == pytest.approx(expected, abs=0.02)
    assert expected > 0.7


@pytest.mark.parametrize("adaptation", ["individual", "pooled"])
def test_scales_adapt_to_their_targets_and_then_stay(adaptation):
    model = decay_model(40)
    estep = MonteCarlo(
        moves=(CoordinateWalk(2, target=0.44), BlockWalk(2, target=0.3)), n_chains=4,
        adaptation=adaptation,
    )  # fmt: skip
    run = make_run(model, SAEM(estep, n_burn_in=400, n_exploration=0, n_smoothing=10))
    bound = run.bound
    for k in range(400):
        run.full_pass(k)
    views = memory_views(bound)
    scales = views["coordinate_scales"].copy()
    assert np.allclose(scales, scales[0]) == (adaptation == "pooled")
    if adaptation == "individual":
        assert scales.std(axis=0).min() > 0.01
    blocks = views["block_scales"].copy()
    before = views["tried"].copy(), views["accepted"].copy()
    for k in range(402, 702):  # steps below 1: smoothing
        run.full_pass(k)
    np.testing.assert_array_equal(views["coordinate_scales"], scales)
    np.testing.assert_array_equal(views["block_scales"], blocks)
    tried, accepted = views["tried"] - before[0], views["accepted"] - before[1]
    rate = accepted[:, 1:3].sum(axis=0) / tried[:, 1:3].sum(axis=0)
    np.testing.assert_allclose(rate, [0.44, 0.3], atol=0.04)
    if adaptation == "individual":  # everyone's, not only the mean
        own = accepted[:, 1:3] / tried[:, 1:3]
        np.testing.assert_allclose(own, np.tile([0.44, 0.3], (40, 1)), atol=0.12)


def test_chains_start_at_the_modes_and_modes_are_refreshed():
    model = decay_model()
    run = make_run(model, SAEM(n_burn_in=2, n_exploration=10, n_smoothing=0))
    run.bound.before(0, 0.0, run._visit_all)
    views = memory_views(run.bound)
    for chain in range(run.bound.n_chains):
        np.testing.assert_array_equal(views["chains"][:, chain, :2], views["mode"])
    before = views["mode"].copy()
    for k in range(5):
        run.full_pass(k)
    run.theta[:] = make_run(model, SAEM()).theta
    np.testing.assert_array_equal(views["mode"], before)
    model.theta_spec.view(run.theta)["beta"][0] += 0.3
    run.full_pass(5)
    assert not np.array_equal(views["mode"], before)


@pytest.mark.nojit
@pytest.mark.parametrize("kind", MOVES)
def test_moves_in_a_few_iterations(kind):
    model = decay_model(3)
    estep = MonteCarlo(moves=MOVES[kind], n_chains=2, path=2)
    algorithm = SAEM(estep, n_burn_in=1, n_exploration=6, n_smoothing=2)
    run = make_run(model, algorithm)
    from saem.engine import iterate

    last = [s for s in iterate(run)][-1]
    assert np.all(np.isfinite(last.theta))
    rates = run.bound.info()["acceptance"]
    assert rates
    assert all(0.0 <= rate <= 1.0 for rate in rates.values())
