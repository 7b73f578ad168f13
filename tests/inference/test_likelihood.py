"""Log-likelihoods against published values, closed forms and each other."""

import numpy as np
import pytest
from reference import EXACT, exact_theta, model_of, shipped, theta_at
from scipy.stats import multivariate_normal

import saem
from saem.exceptions import OptionError
from saem.inference.likelihood import importance_sampling, log_likelihood, quadrature

NAMES = list(EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_quadrature_is_within_5_hundredths_of_published(name):
    found = quadrature(model_of(name), exact_theta(name))
    assert abs(found.value - EXACT[name][2]) < 0.05
    assert found.error < 2e-4


@pytest.mark.parametrize("name", NAMES)
def test_importance_sampling_error_is_small_and_honest(name):
    """20 seeds: all within 4 errors (false alarm 20 * 6e-5), mean square of z in range (1e-4)."""
    model, theta = model_of(name), exact_theta(name)
    exact = quadrature(model, theta).value
    runs = [importance_sampling(model, theta, n_samples=2000, seed=s) for s in range(20)]
    z = np.array([(run.value - exact) / run.error for run in runs])
    assert np.all(np.abs(z) < 4.0)
    assert 0.25 < np.mean(z**2) < 2.6
    default = importance_sampling(model, theta)
    assert default.error < (0.04 if name == "pd1" else 0.015)
    assert default.ess.min() > 200.0


@pytest.mark.parametrize(
    ("error", "residual"),
    [
        ("constant", [0.7]),
        ("proportional", [0.16]),
        ("combined", [0.4, 0.06]),
        ("exponential", [0.17]),
    ],
)
def test_importance_sampling_of_the_shipped_data(error, residual):
    """z of the sum below 4, of 12 individuals below 5: false alarm 7e-5."""
    model = shipped(error)
    theta = theta_at(model, [1.5, 31.5, 2.75, 0.4, 0.017, 0.07, *residual])
    exact = quadrature(model, theta)
    found = importance_sampling(model, theta, seed=5)
    assert abs(found.value - exact.value) < 4.0 * found.error + exact.error
    z = (found.contributions - exact.contributions) / found.errors
    assert np.all(np.abs(z) < 5.0)


def test_importance_sampling_finds_a_second_mode():
    """An individual with two modes: -14.273 +- 0.012 by 4 million draws from the prior.

    Two runs within 5 errors: false alarm 1e-6.
    """
    model = shipped("exponential")
    theta = model.start(np.random.default_rng(0))
    for seed in (5, 6):
        found = importance_sampling(model, theta, seed=seed)
        error = np.hypot(found.errors[5], 0.012)
        assert error < 0.25
        assert abs(found.contributions[5] + 14.273) < 5.0 * error


def test_linear_model_equals_the_normal_density():
    model, theta = model_of("oxboys"), exact_theta("oxboys")
    view, data = model.theta_spec.view(theta), model.individuals
    total = 0.0
    for a, b in zip(data.offsets[:-1], data.offsets[1:], strict=True):
        design = np.column_stack([np.ones(b - a), data.columns["age"][a:b]])
        covariance = design @ view["omega"] @ design.T + view["sigma"][0] ** 2 * np.eye(b - a)
        total += multivariate_normal.logpdf(data.dv[a:b], design @ view["beta"][0], covariance)
    assert quadrature(model, theta).value == pytest.approx(total, abs=1e-9)
    found = importance_sampling(model, theta, seed=1)
    assert abs(found.value - total) < 4.0 * found.error  # false alarm 6e-5


@pytest.mark.parametrize("n_threads", [2, 3])
def test_threads_do_not_change_a_bit(n_threads):
    model = shipped()
    theta = model.start(np.random.default_rng(0))
    one = importance_sampling(model, theta, seed=3, n_threads=1)
    many = importance_sampling(model, theta, seed=3, n_threads=n_threads)
    assert np.array_equal(one.contributions, many.contributions)
    assert one.error == many.error
    other = importance_sampling(model, theta, seed=4, n_threads=1)
    assert other.value != one.value


def test_exact_of_linear_mixed_model_equals_quadrature():
    from saem.models.linear_mixed import simulate

    frame = simulate(np.random.default_rng(1), n=30)
    model = saem.models.LinearMixed(frame, "y ~ 0 + a1 + a2", "id", "~ 0 + b1 + b2")
    theta = model.start(np.random.default_rng(0))
    exact = log_likelihood(model, theta)
    assert exact.method == "exact"
    assert exact.error == 0.0
    assert quadrature(model, theta, n_nodes=5).value == pytest.approx(exact.value, abs=1e-8)


def test_methods_and_their_names():
    model = shipped()
    theta = model.start(np.random.default_rng(0))
    assert log_likelihood(model, theta).method == "quadrature"
    assert log_likelihood(model, theta, "is").method == "importance sampling"
    with pytest.raises(OptionError, match="Did you mean 'quadrature'"):
        log_likelihood(model, theta, "quadratur")
    with pytest.raises(OptionError, match="no log-likelihood in closed form"):
        log_likelihood(model, theta, "exact")
    with pytest.raises(OptionError, match="df=0"):
        importance_sampling(model, theta, df=0)
    with pytest.raises(OptionError, match="n_samples=1"):
        importance_sampling(model, theta, n_samples=1)


def test_many_random_effects_are_refused_by_quadrature_only():
    def sines(a, b, c, d, e, f, *, Time):
        return a + b * Time + c * Time**2 + d * Time**3 + e * Time**4 + f * Time**5

    frame = saem.datasets.load("theophylline")
    frame = frame.assign(Time=frame["Time"] / 25.0)
    model = saem.NLME(
        frame,
        sines,
        {name: saem.Normal(1.0, omega=1.0) for name in "abcdef"},
        columns={"id": "Subject", "dv": "conc", "Time": "Time"},
    )
    theta = model.start(np.random.default_rng(0))
    with pytest.raises(OptionError, match=r"6 random effects.*importance"):
        quadrature(model, theta)
    found = log_likelihood(model, theta)
    assert found.method == "importance sampling"
    # A linear model: one node is exact.
    exact = quadrature(model, theta, n_nodes=1).value
    assert abs(found.value - exact) < 4.0 * found.error  # false alarm 6e-5


def test_no_random_effects():
    frame = saem.datasets.load("theophylline")
    model = saem.NLME(
        frame[frame["Time"] > 0],
        "pk.oral_1cpt",
        {
            "ka": saem.LogNormal(1.5, random=False),
            "V": saem.LogNormal(30.0, random=False),
            "CL": saem.LogNormal(2.7, random=False),
        },
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )
    theta = model.start(np.random.default_rng(0))
    assert importance_sampling(model, theta).value == quadrature(model, theta).value


def test_quadrature_finds_the_greater_of_two_modes():
    """Flip-flop kinetics: from the prior mean, one subject's search ends in the lesser mode."""
    rows = saem.datasets.load("theophylline")
    typical = {"ka": 1.5, "V": 30.0, "CL": 2.7}
    model = saem.NLME(
        rows[rows["Time"] > 0],
        structural="pk.oral_1cpt",
        parameters={name: saem.LogNormal(value) for name, value in typical.items()},
        error=saem.ExponentialError(0.2),
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )
    theta = model.start(np.random.default_rng(0))
    exact = log_likelihood(model, theta, method="quadrature")
    drawn = log_likelihood(model, theta, method="importance", seed=1)
    # False alarm 1e-5 (4.4 sigma), and what quadrature says of its own error.
    assert abs(exact.value - drawn.value) < 4.4 * drawn.error + exact.error
