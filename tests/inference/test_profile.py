"""Profile likelihood and sampling importance resampling against closed forms."""

import functools

import numpy as np
import pandas as pd
import pytest
from reference import maximum, model_of, shipped
from scipy.optimize import brentq, minimize
from scipy.stats import chi2, invgamma, multivariate_normal, norm

import saem
from saem.exceptions import OptionError
from saem.inference.posterior import value_and_gradient
from saem.inference.profile import profile
from saem.inference.sir import sir

PRIORS = {"slope": saem.NormalPrior(2.7, 0.15), "a": saem.InverseGammaPrior(40.0, 14.0)}
AGES = np.linspace(-1.0, 1.0, 5)


def line(base, slope, *, age):
    return base + slope * age


@functools.cache
def linear(n=25, fixed=False, priors=False):
    """A linear model, and its log-likelihood by the normal density."""
    rng = np.random.default_rng(7)
    b = rng.normal(size=(n, 2)) * [1.5, 0.8] + [10.0, 3.0]
    dv = b[:, :1] + b[:, 1:] * AGES + 0.5 * rng.normal(size=(n, 5))
    frame = pd.DataFrame({"id": np.repeat(np.arange(n), 5), "age": np.tile(AGES, n)})
    frame["dv"] = dv.ravel()
    model = saem.NLME(
        frame,
        line,
        {
            "base": saem.Normal(10.0, omega=1.5, fixed_omega=fixed),
            "slope": saem.Normal(3.0, omega=0.8, fixed=fixed, fixed_omega=fixed),
        },
        error=saem.ConstantError(0.5),
        priors=PRIORS if priors else None,
    )
    design = np.column_stack([np.ones(5), AGES])

    def loglik(base, slope, first, second, a):
        covariance = design @ np.diag([first, second]) @ design.T + a**2 * np.eye(5)
        value = multivariate_normal.logpdf(dv, design @ [base, slope], covariance).sum()
        if priors:
            value += norm.logpdf(slope, 2.7, 0.15) + invgamma.logpdf(a**2, 40.0, scale=14.0)
        return value

    fit = model.fit(saem.EM(acceleration="anderson", estep=saem.Quadrature(3)), progress=False)
    return fit, loglik


def exact_interval(loglik, best, j):
    """Ends of the profile interval by maximising the normal density."""
    logged = np.array([False, False, True, True, True])

    def natural(working):
        return np.where(logged, np.exp(np.where(logged, working, 0.0)), working)

    centre = np.where(logged, np.log(np.where(logged, best, 1.0)), best)
    options = {"method": "BFGS", "options": {"gtol": 1e-6}}
    top = minimize(lambda v: -loglik(*natural(v)), centre, **options)

    def excess(t):
        others = np.delete(top.x, j)
        found = minimize(lambda v: -loglik(*natural(np.insert(v, j, t))), others, **options)
        return 2.0 * (found.fun - top.fun) - chi2.ppf(0.95, 1)

    at = top.x[j]
    ends = [brentq(excess, at + s, at, xtol=1e-6) for s in (-1.2, 1.2)]
    return np.exp(ends) if logged[j] else np.array(ends)


@pytest.mark.parametrize("name", ["base", "omega2_slope", "a"])
def test_interval_of_a_linear_model(name):
    fit, loglik = linear()
    best = fit.params.to_numpy()
    expected = exact_interval(loglik, best, list(fit.params.index).index(name))
    found = fit.profile(name)
    np.testing.assert_allclose([found.lower, found.upper], expected, rtol=2e-3)
    assert found.estimate == pytest.approx(fit.params[name], rel=1e-4)
    assert found.loglik == pytest.approx(loglik(*best), abs=1e-5)
    # Every value tried: the others at their constrained maximum.
    for _, row in found.table.iterrows():
        exact = loglik(*row[list(fit.params.index)])
        assert row["loglik"] == pytest.approx(exact, abs=1e-6)
    assert np.all(np.diff(found.table["root"]) > 0.0)


@pytest.mark.parametrize("name", ["base", "slope", "a"])
def test_penalised_interval_of_a_linear_model(name):
    """With priors the log posterior is profiled, and said to be."""
    fit, log_posterior = linear(priors=True)
    best = fit.params.to_numpy()
    expected = exact_interval(log_posterior, best, list(fit.params.index).index(name))
    found = fit.profile(name)
    np.testing.assert_allclose([found.lower, found.upper], expected, rtol=2e-3)
    assert found.penalised
    assert "penalised profile interval" in str(found)
    loglik = linear()[1](*best)
    assert found.loglik == pytest.approx(loglik + fit.log_prior, abs=1e-5)
    assert not linear()[0].profile("base").penalised


def test_sir_of_a_posterior():
    """Weights are those of the exact posterior density, by the numbers as they are."""
    fit, log_posterior = linear(priors=True)
    found = fit.sir(n_samples=600, n_resamples=200, seed=1)
    proposals = found.proposals
    exact = np.array([log_posterior(*row) for row in proposals[fit.param_names].to_numpy()])
    exact += np.log(proposals["a"])  # the prior is of a^2
    np.testing.assert_allclose(
        proposals["loglik"] - proposals["loglik"].max(), exact - exact.max(), atol=2e-3
    )
    assert found.ess > 200
    # Priors narrow the posterior: that of the slope below the prior's own 0.15.
    assert found.bse["slope"] < 0.15


def test_profile_of_theophylline_is_skewed_where_it_should_be():
    """A likelihood-ratio interval encloses values whose statistic is below its bound."""
    model, theta = model_of("theophylline"), maximum("theophylline")
    found = profile(model, theta, "omega2_V", n_points=4)
    inside = found.table["value"].between(found.lower * 1.001, found.upper * 0.999)
    assert (found.table.loc[inside, "lr"] < chi2.ppf(0.95, 1)).all()
    assert (found.table.loc[~inside, "lr"] > 0.99 * chi2.ppf(0.95, 1)).all()
    assert found.upper - found.estimate > 2.0 * (found.estimate - found.lower)
    assert len(found.table) >= 7
    assert found.loglik == pytest.approx(-172.7174, abs=2e-3)


def test_profile_goes_to_the_maximum_first():
    """From estimates that are off by half a standard error the answer is the same."""
    fit, _ = linear()
    numbers = fit.model.estimation_vector(fit.theta)
    off = numbers + 0.5 * fit.information().bse_estimation
    theta = fit.model.with_estimates(fit.theta, off)
    one, other = profile(fit.model, theta, "slope"), fit.profile("slope")
    assert one.lower == pytest.approx(other.lower, abs=2e-3)
    assert one.upper == pytest.approx(other.upper, abs=2e-3)


def test_variance_whose_interval_reaches_zero():
    rng = np.random.default_rng(1)
    dv = 10.0 + rng.normal(size=(30, 1)) + 3.0 * AGES + 0.5 * rng.normal(size=(30, 5))
    frame = pd.DataFrame({"id": np.repeat(np.arange(30), 5), "age": np.tile(AGES, 30)})
    frame["dv"] = dv.ravel()
    parameters = {"base": saem.Normal(10.0, omega=1.0), "slope": saem.Normal(3.0, omega=0.2)}
    model = saem.NLME(frame, line, parameters, error=saem.ConstantError(0.5))
    theta = model.start(np.random.default_rng(0))
    found = profile(model, theta, "omega2_slope")
    assert found.lower == 0.0
    assert 0.0 < found.upper < 0.3


def test_gradient_is_the_derivative():
    """Within a thousandth of the score's standard deviation, of one or two of them."""
    model, theta = model_of("theophylline"), maximum("theophylline")
    numbers = model.estimation_vector(theta) * 1.02
    _, gradient = value_and_gradient(model, model.with_estimates(theta, numbers))
    se = fit_errors(model, theta)
    for j, slope in enumerate(gradient):
        step = 0.01 * se[j]
        sides = []
        for sign in (1.0, -1.0):
            moved = numbers.copy()
            moved[j] += sign * step
            sides.append(value_and_gradient(model, model.with_estimates(theta, moved))[0])
        assert slope * se[j] == pytest.approx((sides[0] - sides[1]) / 0.02, abs=1e-3)


def fit_errors(model, theta):
    from saem.inference.information import louis_information

    return louis_information(model, theta).bse_estimation


def test_options_of_profiles():
    fit, _ = linear()
    with pytest.raises(OptionError, match="'bas' is not one of"):
        fit.profile("bas")
    with pytest.raises(OptionError, match="level=95"):
        fit.profile("base", level=95)


# -- sampling importance resampling ----------------------------------------------------


@functools.cache
def exact_moments():
    """Mean and covariance of the normalised likelihood in (base, a), on a fine grid."""
    fit, loglik = linear(fixed=True)
    assert fit.param_names == ["base", "a"]
    centre, sd = fit.params.to_numpy(), fit.bse.to_numpy()
    base = centre[0] + sd[0] * np.linspace(-6, 6, 81)
    a = centre[1] + sd[1] * np.linspace(-5, 9, 81)
    logs = np.array([[loglik(b, 3.0, 1.5**2, 0.8**2, s) for s in a] for b in base])
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    points = np.stack(np.meshgrid(base, a, indexing="ij"), axis=-1).reshape(-1, 2)
    w = weights.ravel()
    mean = w @ points
    return fit, mean, (w[:, None] * (points - mean)).T @ (points - mean)


def test_weighted_moments_are_those_of_the_likelihood():
    """Means within 4.5 Monte Carlo errors of the weights, sds within 4.5: false alarm 3e-5."""
    fit, mean, covariance = exact_moments()
    found = sir(fit.model, fit.theta, n_samples=2000, n_resamples=1000, seed=3)
    w = found.proposals["weight"].to_numpy()
    values = found.proposals[["base", "a"]].to_numpy()
    average = w @ values
    errors = np.sqrt((w**2) @ (values - average) ** 2)
    assert np.all(np.abs(average - mean) < 4.5 * errors)
    sd = np.sqrt(np.diag(covariance))
    squares = w @ (values - mean) ** 2
    errors = np.sqrt((w**2) @ ((values - mean) ** 2 - squares) ** 2)
    assert np.all(np.abs(squares - sd**2) < 4.5 * errors)
    # The samples: 1000 of them, as if drawn from the likelihood.
    z = (found.samples.mean().to_numpy() - mean) / (sd / np.sqrt(1000.0))
    assert np.all(np.abs(z) < 4.5)
    assert found.ess > 1000.0
    assert found.pareto_k < 0.5


def test_samples_are_reproducible_and_distinct():
    fit, *_ = exact_moments()
    options = {"n_samples": 400, "n_resamples": 200, "seed": 5}
    one, two = fit.sir(**options, n_threads=1), fit.sir(**options, n_threads=2)
    assert one.samples.equals(two.samples)
    assert not one.samples.duplicated().any()
    assert list(one.summary().columns) == ["estimate", "se", "lower", "upper"]
    assert not one.samples.equals(fit.sir(**(options | {"seed": 6})).samples)


def test_beyond_three_random_effects_by_importance_sampling():
    def powers(a, b, c, d, *, Time):
        return a + b * Time + c * Time**2 + d * Time**3

    rng = np.random.default_rng(5)
    x = np.linspace(-1.0, 1.0, 7)
    effects = rng.normal(size=(15, 4)) + np.array([3.0, 1.0, -1.0, 0.5])
    dv = effects @ (x ** np.arange(4)[:, None]) + 0.3 * rng.normal(size=(15, 7))
    frame = pd.DataFrame({"id": np.repeat(np.arange(15), 7), "Time": np.tile(x, 15)})
    frame["dv"] = dv.ravel()
    model = saem.NLME(
        frame, powers, {n: saem.Normal(1.0, omega=1.0, fixed_omega=True) for n in "abcd"}
    )
    theta = model.fit(saem.EM(estep=saem.Quadrature(3)), progress=False).theta
    found = sir(model, theta, n_samples=200, n_resamples=40, n_rounds=1, seed=1)
    assert np.isfinite(found.proposals["loglik"]).all()
    assert len(found.samples) == 40


def test_options_of_sir():
    fit = shipped().fit("anderson-em", progress=False, seed=1)
    with pytest.raises(OptionError) as caught:
        fit.sir(n_samples=10, n_rounds=0)
    assert "n_samples=10" in str(caught.value)
    assert "n_rounds=0" in str(caught.value)
    with pytest.raises(OptionError, match="more than half"):
        fit.sir(n_samples=200, n_resamples=150)
