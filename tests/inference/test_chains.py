"""Diagnostics of chains: effective sizes and R-hat with known answers, and what fits report."""

import numpy as np
import pytest

import saem
from saem.algorithms import SAEM_MOVES
from saem.estep import BlockWalk, IndependentLaplace, Langevin, MonteCarlo
from saem.exceptions import OptionError
from saem.inference.chains import diagnose, effective_size, split_rhat


def autoregression(rho, shape, seed=0):
    """Stationary autoregressions, (chains, states, 1), of effective size n (1-rho) / (1+rho)."""
    rng = np.random.default_rng(seed)
    out = np.empty(shape)
    out[:, 0] = rng.standard_normal(shape[0])
    noise = np.sqrt(1.0 - rho * rho) * rng.standard_normal(shape)
    for t in range(1, shape[1]):
        out[:, t] = rho * out[:, t - 1] + noise[:, t]
    return out[:, :, None]


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
def test_effective_size_of_autoregressions(rho):
    """Within 15 %: some 4 standard deviations of the estimator over 200 such sets."""
    states = autoregression(rho, (4, 20_000))
    assert effective_size(states)[0] == pytest.approx(80_000 * (1 - rho) / (1 + rho), rel=0.15)
    assert split_rhat(states)[0] < 1.01


def test_chains_that_disagree_are_found_out():
    states = autoregression(0.0, (4, 1000))
    states[0] += 2.0
    assert split_rhat(states)[0] > 1.2
    assert effective_size(states)[0] < 40
    trend = autoregression(0.0, (4, 1000)) + np.linspace(0.0, 3.0, 1000)[:, None]
    assert split_rhat(trend)[0] > 1.2
    assert np.isnan(effective_size(np.zeros((2, 100, 1)))[0])


def test_many_individuals_at_once_are_each_alone():
    states = np.stack([autoregression(r, (3, 501), seed=i) for i, r in enumerate((0.1, 0.8))])
    for i in range(2):
        np.testing.assert_allclose(effective_size(states)[i], effective_size(states[i]))
        np.testing.assert_allclose(split_rhat(states)[i], split_rhat(states[i]))


@pytest.fixture(scope="module")
def fit():
    model = saem.NLME.example(np.random.default_rng(1), 20)
    return model.fit("f-saem", seed=1, progress=False, budget=saem.Iterations(60))


def test_table_of_a_fit(fit):
    table = fit.chains(n_states=400)
    assert list(table.index) == list(fit.model.individuals.ids)
    assert {"acceptance_block", "acceptance_laplace"} <= set(table.columns)
    assert table["acceptance_laplace"].between(0.3, 1.0).all()
    assert (table["rhat"] < 1.05).all()
    # One evaluation at the beginning of each of 4 chains, two per cycle.
    assert (table["evaluations"] == 4 + 4 * 400 * 2).all()
    np.testing.assert_allclose(table["ess_per_evaluation"], table["ess"] / table["evaluations"])
    assert not table["on_fallback"].any()
    again = fit.chains(n_states=400, n_threads=2)
    assert again.equals(table)
    assert fit.on_fallback == []


def test_better_moves_have_better_figures(fit):
    slow = fit.chains((BlockWalk(1, target=0.9),), n_states=400)
    fast = fit.chains((IndependentLaplace(1, df=None),), n_states=400)
    assert (fast["ess"] > 3.0 * slow["ess"]).all()
    assert (fast["jump"] > 3.0 * slow["jump"]).all()
    assert fast["jump"].between(1.0, 2.4).all()


def test_independent_draws_jump_by_two():
    """A linear Gaussian model: proposals are always accepted, states are independent."""
    model = saem.models.LinearMixed.example(np.random.default_rng(0), 30)
    table = diagnose(
        model, model.start(np.random.default_rng(0)), (IndependentLaplace(1, df=None),),
        n_states=2000,
    )  # fmt: skip
    assert (table["acceptance_laplace"] == 1.0).all()
    np.testing.assert_allclose(table["jump"].mean(), 2.0, atol=0.02)
    # The least of several coordinates lies a little below the number of states.
    assert table["ess"].median() == pytest.approx(8000, rel=0.1)


def test_individuals_on_the_fallback_are_named():
    model = saem.NLME.example(np.random.default_rng(1), 12)
    estep = MonteCarlo(
        moves=(IndependentLaplace(1, df=None, inflation=60.0),),
        fallback=(BlockWalk(1), Langevin(1)),
    )
    fit = model.fit(
        saem.FSAEM(estep, n_burn_in=20, n_exploration=20, n_smoothing=5), seed=1, progress=False
    )
    assert fit.on_fallback == list(model.individuals.ids)
    table = fit.chains(estep, n_states=50)
    assert table["on_fallback"].all()
    assert "acceptance_laplace" not in table
    assert table["acceptance_langevin"].between(0.2, 1.0).all()


def test_wrong_options():
    model = saem.NLME.example(np.random.default_rng(1), 8)
    theta = model.start(np.random.default_rng(0))
    with pytest.raises(OptionError, match="n_states=3"):
        diagnose(model, theta, SAEM_MOVES, n_states=3)
    mixture = saem.models.GaussianMixture.example(np.random.default_rng(1), 30)
    with pytest.raises(OptionError, match="diagnosis of chains"):
        diagnose(mixture, theta)
