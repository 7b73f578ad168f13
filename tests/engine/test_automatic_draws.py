"""Monte Carlo EM that chooses its numbers of draws."""

import itertools

import numpy as np
import pytest

from saem import _draw_noise
from saem.algorithms import EM, MCEM, SAEM_MOVES, AscentMCEM
from saem.automatic import AscentBased, BoothHobert
from saem.engine import Combination, Run, iterate
from saem.estep import Exact, MonteCarlo
from saem.exceptions import OptionError
from saem.models import LinearMixed, PoissonMixture
from saem.schedules import Constant


@pytest.fixture(scope="module")
def model():
    return LinearMixed.example(np.random.default_rng(1), 40)


def kept_pass(model, draws, seed):
    """Run with the draws of one pass in its records."""
    estep = MonteCarlo(n_draws=draws)
    parts = Combination("m", estep, AscentBased(draws), Constant(1.0), Constant(1.0), 5)
    run = Run(model, parts, model.start(np.random.default_rng(0)), seed=seed)
    run.proxy_state = {}
    return run, run.full_pass(0)


def test_covariance_of_the_statistic_is_that_among_passes(model):
    # 300 passes of 20 draws: a variance has relative standard error sqrt(2 / 300) = 0.08; over
    # some 13 coordinates 4.5 errors are a false alarm in 1e-4 of cases.
    passes = [kept_pass(model, 20, seed)[1] for seed in range(300)]
    among = np.var(passes, axis=0, ddof=1)
    run, _ = kept_pass(model, 4000, 1)
    q = run.s.size
    within = np.empty((q, q))
    _draw_noise.statistic_covariance(
        model.kernels, model.values, model.offsets, run.records, model.n_individuals,
        model.latent_size, 1, within,
    )  # fmt: skip
    random = among > 1e-14
    ratio = among[random] / (200.0 * np.diag(within)[random])  # 4000 draws to 20
    assert random.sum() >= 8
    assert np.all(np.abs(ratio - 1.0) < 4.5 * np.sqrt(2.0 / 300.0) + 0.05)


def test_variance_of_the_gain_follows_from_that_of_the_statistic(model):
    # Q is affine in s: its variance along the gradient of Q(new) - Q(old) over s.
    from saem import _calls

    run, s = kept_pass(model, 50, 2)
    old = run.theta
    _, new = _calls.maximize(model.kernels, s, old)
    n, q = model.n_individuals, s.size

    def gain(at):
        first = _calls.surrogate(model.kernels, at, new)
        return first - _calls.surrogate(model.kernels, at, old)

    slope = np.array([gain(np.eye(q)[m]) - gain(np.zeros(q)) for m in range(q)])
    covariance = np.empty((q, q))
    common = (model.kernels, model.values, model.offsets, run.records, n, model.latent_size, 1)
    _draw_noise.statistic_covariance(*common, covariance)
    expected = n * n * slope @ covariance @ slope
    found = _draw_noise.gain_variance(*common, new, old, q)
    assert found == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    "make", [lambda: AscentMCEM(), lambda: MCEM(n_draws=BoothHobert(), n_iter=60)]
)
def test_automatic_draws_grow_and_reach_the_maximum(model, make):
    top = model.fit(EM(), seed=0)
    found = model.fit(make(), seed=1)
    assert found.converged
    assert found.record.n_evals > 40 * found.record.n_iter * 10  # more than the first 10 draws
    # chi-squared with 10 degrees of freedom: Monte Carlo variance a tenth of the variance.
    assert 0.0 <= top.llf - found.llf + 1e-9 < 0.05 * 46.9


def test_ascent_based_steps_go_up(model):
    parts = AscentMCEM().combine(model)
    run = Run(model, parts, model.start(np.random.default_rng(0)), seed=4)
    thetas = [s.theta for s, _ in zip(iterate(run), range(25), strict=False)]
    moved = [t for a, t in itertools.pairwise(thetas) if not np.array_equal(a, t)]
    values = [model.loglik(t) for t in moved]
    falls = np.sum(np.diff(values) < 0)
    # Each accepted step goes down with probability at most alpha = 0.25.
    assert len(values) > 5
    assert falls <= 0.25 * len(values) + 3 * np.sqrt(len(values) * 0.25 * 0.75)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AscentBased(n_draws=2), "n_draws=2"),
        (lambda: BoothHobert(n_draws=10, limit=5), "limit=5"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_an_e_step_without_draws_is_refused(model):
    parts = Combination("x", Exact(), AscentBased(), Constant(1.0), Constant(1.0), 5)
    with pytest.raises(OptionError, match="makes none"):
        Run(model, parts, model.start(np.random.default_rng(0)), seed=0)


def test_chains_are_allowed():
    model = LinearMixed.example(np.random.default_rng(3), 20)
    found = model.fit(
        AscentMCEM(MonteCarlo(moves=SAEM_MOVES, exact=False), tolerance=0.2, n_iter=200), seed=0
    )
    assert np.all(np.isfinite(found.params))


def test_discrete_latent_variables():
    model = PoissonMixture.example(np.random.default_rng(3), 100)
    top = model.fit(EM(), seed=0)
    found = model.fit(
        AscentMCEM(tolerance=0.05), seed=0, start=model.start(np.random.default_rng(0))
    )
    assert top.llf - found.llf < 0.05 * 40.0
