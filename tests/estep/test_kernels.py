"""What the moves promise beyond invariance: exact acceptance, schedules, fallback, options."""

import numpy as np
import pytest
from counts import BINARY, POISSON, Counts, simulate
from scipy import stats
from targets import Chain, target_of

import saem
from saem.algorithms import SAEM
from saem.engine import Run, iterate
from saem.estep import (
    AnisotropicLangevin,
    BlockWalk,
    CoordinateWalk,
    Hamiltonian,
    IndependentLaplace,
    Langevin,
    MonteCarlo,
    PriorProposal,
)
from saem.estep.montecarlo import default_moves, memory_views
from saem.exceptions import OptionError

GAUSSIAN = IndependentLaplace(1, df=None)


def linear_models():
    """A linear mixed model, and the same kind of model by way of NLME with correlated effects."""
    rng = np.random.default_rng(5)
    return {
        "LinearMixed": saem.models.LinearMixed.example(rng, 12),
        "NLME": straight_lines(rng),
    }


def straight_lines(rng, n=12):
    """Straight lines with correlated random effects; linear and Gaussian."""
    import pandas as pd

    time = np.arange(5.0)
    z = np.array([150.0, 6.0]) + rng.standard_normal((n, 2)) @ np.array([[8.0, 1.0], [0.0, 1.5]])
    dv = z[:, :1] + z[:, 1:] * time + 0.7 * rng.standard_normal((n, 5))
    frame = pd.DataFrame(
        {"id": np.repeat(np.arange(n), 5), "time": np.tile(time, n), "dv": dv.ravel()}
    )
    return saem.NLME(
        frame, structural="growth.linear",
        parameters={"base": saem.Normal(140.0, omega=9.0), "slope": saem.Normal(5.0, omega=2.0)},
        error=saem.ConstantError(1.0), omega="full",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["LinearMixed", "NLME"])
def test_gaussian_proposals_of_a_linear_model_are_always_accepted(name):
    """The acceptance probability of 400 pairs of states is 1 to 1e-10."""
    model = linear_models()[name]
    rng = np.random.default_rng(0)
    for i in (0, 7):
        chain = Chain(model, (GAUSSIAN,), i=i, n_adapt=0)
        states = chain.run(2000)
        assert chain.counts["tried"][i].sum() == chain.counts["accepted"][i].sum() == 2000
        weights = [log_weight(chain, z) for z in states[rng.integers(0, 2000, 400)]]
        alpha = np.minimum(1.0, np.exp(np.diff(weights)))
        assert 1.0 - alpha.min() < 1e-10
        assert np.unique(states, axis=0).shape == states.shape  # they do move


def log_weight(chain, z):
    """Exact log posterior over the Gaussian proposal of a chain's individual, up to a constant."""
    model, i = chain.model, chain.i
    mean, covariance = exact_posterior(model, chain.theta, i)
    exact = np.linalg.solve(np.linalg.cholesky(covariance), z - mean)
    own = np.linalg.solve(chain.counts["factor"][i], z - chain.counts["mode"][i])
    return 0.5 * (own @ own - exact @ exact)


def exact_posterior(model, theta, i):
    """Mean and covariance of a linear Gaussian model's posterior, in closed form."""
    if not isinstance(model, saem.NLME):
        mean, covariance, _ = model.posterior(theta)
        return mean[i], covariance[i]
    y = model.record_of(i)[2:7]  # after the design's 1 and the constant
    x = np.column_stack([np.ones(5), np.arange(5.0)])
    prior = np.diag([9.0**-2, 2.0**-2])
    covariance = np.linalg.inv(x.T @ x + prior)
    return covariance @ (x.T @ y + prior @ np.array([140.0, 5.0])), covariance


def test_covariance_of_a_linear_model_is_exact():
    model = linear_models()["LinearMixed"]
    chain = Chain(model, (GAUSSIAN,), i=3, n_adapt=0)
    mean, covariance, _ = model.posterior(chain.theta)
    views = memory_views(chain.bound)
    np.testing.assert_allclose(views["mode"][3], mean[3], rtol=0, atol=1e-11)
    factor = views["factor"][3]
    np.testing.assert_allclose(factor @ factor.T, covariance[3], rtol=1e-10)


@pytest.mark.parametrize(
    ("df", "inflation"), [(None, 1.0), (None, 1.4), (1, 1.0), (4, 1.0), (7, 0.8)]
)
def test_the_density_that_is_evaluated_is_the_one_that_is_drawn(df, inflation):
    """Proposals from N(0, I) as posterior: the acceptance rate, by independent simulation.

    Between the two densities mixed up the rates differ by more than the 5 standard errors
    allowed here (a false alarm in 1e-6).
    """
    model = linear_models()["LinearMixed"]
    chain = Chain(model, (IndependentLaplace(1, df=df, inflation=inflation),), i=2, n_adapt=0)
    n = 40_000
    batches = []
    for _ in range(40):
        before = chain.counts["accepted"][2, 3]
        chain.run(n // 40)
        batches.append((chain.counts["accepted"][2, 3] - before) / (n // 40))
    d, m = model.n_coords, 400_000
    rng = np.random.default_rng(0)
    stretch = 1.0 if df is None else np.sqrt(df / rng.chisquare(df, m))[:, None]
    draws = np.sqrt(inflation) * stretch * rng.standard_normal((m, d))
    target = rng.standard_normal((m, d))

    def log_weight(x):
        square = np.square(x).sum(axis=1)
        scaled = square / inflation
        own = -0.5 * scaled if df is None else -0.5 * (df + d) * np.log1p(scaled / df)
        return -0.5 * square - own

    alpha = np.minimum(1.0, np.exp(log_weight(draws) - log_weight(target)))
    error = np.hypot(np.std(batches, ddof=1) / np.sqrt(40), alpha.std() / np.sqrt(m))
    assert abs(np.mean(batches) - alpha.mean()) <= 5.0 * error + 1e-12


@pytest.mark.parametrize("kind", [POISSON, BINARY])
def test_simulation_based_calibration(kind):
    """Ranks of the true latent values among the draws of the E-step are uniform.

    3000 individuals from the model itself; 31 draws of each, ten cycles apart. A correct E-step
    fails one of the three chi-squared tests of a kind with probability 1e-3 (level
    1e-3 / 3 each; Cook, Gelman and Rubin 2006, Talts et al. 2018).
    """
    rng = np.random.default_rng(11)
    x = np.array([-1.0, -0.4, 0.1, 0.5, 1.0])
    n, n_draws, apart = 3000, 31, 10
    z, y = simulate(kind, x, n, rng)
    model = Counts(kind, x, y)
    estep = MonteCarlo(moves=saem.algorithms.SAEM_MOVES, n_chains=1, n_draws=n_draws * apart)
    combination = SAEM(estep, n_burn_in=100, n_exploration=0, n_smoothing=0).combine(model)
    run = Run(model, combination, model.start(rng), seed=3)
    bound, records = run.bound, None
    for k in range(6):
        bound.before(k, 0.0, run._visit_all)
        records = np.zeros((n, bound.record_size))
        run._sweep(bound.visitor, bound.settings, records, k)
    run.close()
    draws = records.reshape(n, n_draws, apart, 3)[:, :, -1, 1:]
    for values, truth in (
        (draws[:, :, 0], z[:, 0]),
        (draws[:, :, 1], z[:, 1]),
        (draws.sum(axis=2), z.sum(axis=1)),
    ):
        ranks = (values < truth[:, None]).sum(axis=1)
        counts = np.bincount(ranks // 4, minlength=8)
        assert counts.sum() == n
        assert stats.chisquare(counts).pvalue > 1e-3 / 3


def path_of(model, estep, n_iter=14):
    """Parameters of every iteration and what the sampler reports."""
    algorithm = SAEM(estep, n_burn_in=2, n_exploration=n_iter - 2, n_smoothing=0)
    run = Run(model, algorithm.combine(model), model.start(np.random.default_rng(0)), seed=4)
    thetas = np.array([s.theta for s in iterate(run)])
    return thetas, run


def test_after_its_last_iteration_a_move_leaves_no_trace():
    """From a saved state on, walks with a move that has ended are the walks, bit for bit."""
    model = target_of("log-normal").model
    both = MonteCarlo(moves=(GAUSSIAN_UNTIL_8, *default_moves()), n_chains=2, refresh=())
    alone = MonteCarlo(moves=default_moves(), n_chains=2, refresh=())
    _, first = path_of(model, both, 8)
    state = first.state_dict()
    ends = []
    for estep in (both, alone):
        _, run = path_of(model, estep, 2)
        run.algorithm = SAEM(estep, n_burn_in=2, n_exploration=18, n_smoothing=0).combine(model)
        settings = run.bound.settings.copy()
        run.load_state_dict(state | {"settings": settings})
        ends.append(np.array([s.theta for s in iterate(run)]))
    np.testing.assert_array_equal(*ends)
    assert len(ends[0]) == 12
    assert first.bound.info()["acceptance"]["laplace"] > 0.0


GAUSSIAN_UNTIL_8 = IndependentLaplace(2, df=None, until=8)


def test_a_move_begins_and_ends_when_it_should():
    model = target_of("log-normal").model
    moves = (PriorProposal(1, until=4), BlockWalk(1, from_=3), Langevin(1, from_=5, until=7))
    estep = MonteCarlo(moves=moves, n_chains=3)
    algorithm = SAEM(estep, n_burn_in=0, n_exploration=10, n_smoothing=0)
    run = Run(model, algorithm.combine(model), model.start(np.random.default_rng(0)), seed=4)
    views, before, made = memory_views(run.bound), np.zeros(7), []
    for _ in iterate(run):
        tried = views["tried"].sum(axis=0)
        made.append(tuple(np.flatnonzero(tried - before)))
        before = tried
    prior, block, langevin = 0, 2, 4
    assert (
        made
        == [(prior,)] * 3 + [(prior, block), (block,)] + [(block, langevin)] * 2 + [(block,)] * 3
    )


@pytest.mark.parametrize("name", ["log-normal", "binary"])
def test_evaluations_are_counted(name):
    """One per chain and visit, one per proposal; for every slope 3 if it is exact, 2 d if not."""
    model = target_of(name).model
    d = model.n_coords
    slope = 3 if name == "log-normal" else 2 * d
    for moves, per_cycle in (
        ((BlockWalk(2), CoordinateWalk(1)), 2 + d),
        ((Langevin(2),), slope + 2 * (slope + 1)),
        ((Hamiltonian(1, n_steps=4),), slope + 4 * slope + 1),
    ):
        chain = Chain(model, moves, n_adapt=0)
        chain.run(1000)
        tried = chain.counts["tried"][0]
        total = chain.counts["evaluations"][0] + tried[:4].sum()
        assert total == 2 + 1000 * per_cycle


def test_gradient_steps_adapt_and_then_stay():
    model = saem.models.MixedLogistic.example(np.random.default_rng(1), 30)
    moves = (Langevin(1), AnisotropicLangevin(1, target=0.4), Hamiltonian(1, target=0.95))
    estep = MonteCarlo(moves=moves, n_chains=4, refresh=())
    algorithm = SAEM(estep, n_burn_in=200, n_exploration=0, n_smoothing=10)
    run = Run(model, algorithm.combine(model), model.start(np.random.default_rng(0)), seed=4)
    for k in range(200):
        run.full_pass(k)
    views = memory_views(run.bound)
    steps, tried, accepted = (views[n].copy() for n in ("gradient_steps", "tried", "accepted"))
    for k in range(202, 402):
        run.full_pass(k)
    np.testing.assert_array_equal(views["gradient_steps"], steps)
    rates = (views["accepted"] - accepted).sum(axis=0) / np.maximum(
        (views["tried"] - tried).sum(axis=0), 1.0
    )
    # 24,000 proposals of each kind; what is left is the adaptation's own noise.
    np.testing.assert_allclose(rates[4:6], [0.574, 0.4], atol=0.03)
    assert rates[6] > 0.9


def test_individuals_whose_proposals_fail_get_the_walks():
    """Stale modes far from the posterior are found out, and new modes are a new chance."""
    model = target_of("log-normal").model
    estep = MonteCarlo(
        moves=(GAUSSIAN,), fallback=(CoordinateWalk(2), BlockWalk(1)), n_chains=10, path=2,
        refresh=(15,),
    )  # fmt: skip
    algorithm = SAEM(estep, n_burn_in=30, n_exploration=0, n_smoothing=0)
    run = Run(model, algorithm.combine(model), model.start(np.random.default_rng(0)), seed=4)
    bound = run.bound
    flags = []
    for k in range(25):
        if k == 5:  # spoil the first individual's approximation
            memory_views(bound)["mode"][0] += 4.0
        run.full_pass(k)
        flags.append(memory_views(bound)["fallback"].copy())
    flags = np.array(flags)
    assert not flags[:5].any()
    assert flags[14].tolist() == [1.0, 0.0]
    assert not flags[15:].any()
    tried = memory_views(bound)["tried"]
    assert tried[0, 1] > 0
    assert tried[1, 1] == 0
    assert bound.info()["on_fallback"] == []
    spoilt = flags[:, 0].argmax()
    assert 5 < spoilt < 13


def test_fallback_is_the_same_for_any_threads():
    model = saem.models.MixedLogistic.example(np.random.default_rng(1), 60)
    estep = MonteCarlo(
        moves=(GAUSSIAN,),
        fallback=(CoordinateWalk(1),),
        fallback_below=0.7,
        n_chains=2,
        path=5,
        refresh=(),
    )
    algorithm = SAEM(estep, n_burn_in=2, n_exploration=20, n_smoothing=5)
    found = []
    for threads in (1, 2):
        fit = model.fit(algorithm, seed=3, n_threads=threads, progress=False)
        found.append((fit.theta, fit.record.sampler["on_fallback"]))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert 0 < len(found[0][1]) < 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"moves": (IndependentLaplace(df=2.5),)}, "df=2.5"),
        ({"moves": (IndependentLaplace(df=0),)}, "df=0"),
        ({"moves": (IndependentLaplace(inflation=0.0),)}, "inflation=0.0"),
        ({"moves": (Langevin(0),)}, "sweeps=0"),
        ({"moves": (Langevin(target=1.0),)}, "target=1.0"),
        ({"moves": (AnisotropicLangevin(bound=-1.0),)}, "bound=-1.0"),
        ({"moves": (Hamiltonian(n_steps=0),)}, "n_steps=0"),
        ({"moves": (BlockWalk(shape="round"),)}, "shape='round'"),
        ({"moves": (BlockWalk(size=0),)}, "size=0"),
        ({"moves": (BlockWalk(), BlockWalk(shape="prior"))}, "different sizes"),
        ({"moves": (BlockWalk(from_=5, until=5),)}, "until=5"),
        ({"moves": (BlockWalk(until=5),)}, "none is active in iteration 5"),
        ({"moves": (GAUSSIAN,), "fallback": (Langevin(0),)}, "fallback: Langevin: sweeps=0"),
        ({"moves": (BlockWalk(),), "fallback": (BlockWalk(),)}, "moves has none of those"),
        ({"moves": (GAUSSIAN,), "fallback": (BlockWalk(),), "fallback_below": 2.0}, "below=2.0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        MonteCarlo(exact=False, **options).bind(target_of("log-normal").model)


def test_all_problems_are_told_at_once():
    with pytest.raises(OptionError, match="3 problems") as caught:
        MonteCarlo(moves=(Langevin(0), IndependentLaplace(df=-1)), path=0).bind(
            target_of("log-normal").model
        )
    assert "path=0" in str(caught.value)


@pytest.mark.nojit
@pytest.mark.parametrize(
    "moves",
    [
        (IndependentLaplace(1, df=None),),
        (IndependentLaplace(1, df=3, inflation=1.2),),
        (BlockWalk(1, shape="prior"), PriorProposal(1, until=3)),
        (Langevin(2), AnisotropicLangevin(1), Hamiltonian(1)),
    ],
)
def test_moves_in_a_few_iterations(moves):
    thetas, run = path_of(target_of("flip-flop").model, MonteCarlo(moves=moves, n_chains=2), 6)
    assert np.all(np.isfinite(thetas))
    assert all(0.0 <= rate <= 1.0 for rate in run.bound.info()["acceptance"].values())
