"""Conditional samples against quadrature, shrinkage, forecasts of new subjects."""

import numpy as np
import pandas as pd
import pytest
from known import at, linear_model, marginal, oral_model

import saem
from saem.diagnostics._replicates import replicates
from saem.diagnostics.shrinkage import random_effects_of, weighted_residuals
from saem.exceptions import DataError, OptionError
from saem.inference.conditional_samples import conditional_samples, relative_error
from saem.inference.individuals import conditional
from saem.nlme._replicates import with_responses


def bolus_model(n=6):
    """Two random effects, sparse and noisy data: posteriors that are far from normal."""
    rng = np.random.default_rng(4)
    times = np.array([0.5, 12.0])
    volume, clearance = (
        20.0 * np.exp(0.5 * rng.normal(size=n)),
        3 * np.exp(0.6 * rng.normal(size=n)),
    )
    mean = 100.0 / volume[:, None] * np.exp(-(clearance / volume)[:, None] * times)
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), 2),
            "time": np.tile(times, n),
            "dv": (mean * np.exp(0.4 * rng.normal(size=mean.shape))).ravel(),
            "amt": 100.0,
        }
    )
    model = saem.NLME(
        frame,
        "pk.iv_bolus_1cpt",
        {"V": saem.LogNormal(20.0, omega=0.5), "CL": saem.LogNormal(3.0, omega=0.6)},
        error=saem.ProportionalError(0.4),
    )
    return model, model.start(rng)


def grid_posterior(model, theta, i, size=400):
    """Weights of a dense grid over both random effects of individual i; natural parameters."""
    view, data = model.theta_spec.view(theta), model.individuals
    rows = slice(data.offsets[i], data.offsets[i + 1])
    spread = np.sqrt(np.diag(view["omega"]))
    axes = [m + s * np.linspace(-6, 6, size) for m, s in zip(view["beta"][0], spread, strict=True)]
    phi = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    volume, clearance = np.exp(phi).T
    f = data.columns["amt"][rows] / volume[:, None]
    f = f * np.exp(-(clearance / volume)[:, None] * data.columns["time"][rows])
    sd = view["sigma"][1] * np.maximum(f, 1e-10)
    log = -0.5 * (((phi - view["beta"][0]) / spread) ** 2).sum(axis=1)
    log += (-np.log(sd) - 0.5 * ((data.dv[rows] - f) / sd) ** 2).sum(axis=1)
    weight = np.exp(log - log.max())
    return weight / weight.sum(), np.exp(phi)


def test_conditional_distributions_are_as_wide_as_they_are():
    """Means, sds and quantiles of draws against a grid of 400 x 400 points.

    With accuracy 2 % the effective number of draws is about 2500, so that the empirical
    probability below an exact quantile has a standard error of sqrt(p (1 - p) / 2500), at most
    0.01; an sd one of 2 to 3 % (heavy tails more). Largest of 6 x 2 x 5 probabilities below 4.5
    standard errors: false alarm 5e-4; sds within 12 %: four standard errors or more.
    """
    model, theta = bolus_model()
    found = conditional_samples(model, theta, accuracy=0.02, max_draws=120_000, seed=3)
    assert found.reached.all()
    shares = np.array([0.025, 0.25, 0.5, 0.75, 0.975])
    for i in range(model.n_individuals):
        weight, psi = grid_posterior(model, theta, i)
        for m in range(2):
            mean = weight @ psi[:, m]
            sd = np.sqrt(weight @ (psi[:, m] - mean) ** 2)
            assert abs(found.mean[i, m] - mean) < 4.5 * 0.02 * sd
            assert found.sd[i, m] == pytest.approx(sd, rel=0.12)
            order = np.argsort(psi[:, m])
            cumulative = np.cumsum(weight[order])
            quantiles = psi[order[np.searchsorted(cumulative, shares)], m]
            below = (found.psi[i, :, m, None] <= quantiles).mean(axis=0)
            error = np.sqrt(shares * (1 - shares) / 2500)
            assert np.all(np.abs(below - shares) < 4.5 * error), (i, m, below)


def test_reported_accuracy_is_that_of_the_mean():
    """Mean square of (mean - exact) / reported error over 12 values near 1: between 0.2 and 3.2.

    Chi-square with 12 degrees of freedom, and errors known to 10 %: false alarm 1e-3.
    """
    model, theta = bolus_model()
    found = conditional_samples(model, theta, accuracy=0.05, seed=8)
    assert found.reached.all()
    assert found.n_draws % found.n_chains == 0
    z = []
    for i in range(model.n_individuals):
        weight, psi = grid_posterior(model, theta, i)
        mean = weight @ psi
        own = found.psi[i].reshape(found.n_chains, -1, 2)
        for m in range(2):
            error = relative_error(own[None, :, :, m : m + 1])[0] * found.sd[i, m]
            z.append((found.mean[i, m] - mean[m]) / error)
    assert 0.2 < np.mean(np.square(z)) < 3.2
    short = conditional_samples(model, theta, accuracy=1e-3, max_draws=700, seed=8)
    assert short.n_draws == 640
    assert not short.reached.any()
    assert np.array_equal(short.psi, conditional_samples(
        model, theta, accuracy=1e-3, max_draws=700, seed=8, n_threads=2).psi)  # fmt: skip


def test_options_of_conditional_samples():
    model, theta = bolus_model()
    with pytest.raises(OptionError, match=r"2 problems(?s:.)*accuracy(?s:.)*max_draws"):
        conditional_samples(model, theta, accuracy=0.0, max_draws=10)


def test_shrinkage_from_modes_means_and_draws():
    """Simulated under the model: draws have no shrinkage, modes have that of the linear theory.

    Standard error of an sd from 300 individuals is 4 %; draws of an individual add little.
    Tolerances are four standard errors.
    """
    model, theta = linear_model(n=300, seed=11)
    fit = at(model, theta)
    table = fit.shrinkages(n_samples=20)
    assert list(table.index) == ["base", "slope", "epsilon"]
    assert np.abs(table.loc[["base", "slope"], "samples"]).max() < 0.16
    assert abs(table.loc["epsilon", "samples"]) < 0.08
    np.testing.assert_allclose(table["modes"][:2], fit.shrinkage, atol=1e-12)
    np.testing.assert_allclose(table["modes"], table["means"], atol=1e-4)
    view = model.theta_spec.view(theta)
    expected, leverage = [], []
    for rows, _, covariance in list(marginal(model, theta))[:1]:
        design = np.column_stack([np.ones(5), model.individuals.columns["age"][rows]])
        gain = view["omega"] @ design.T @ np.linalg.inv(covariance)
        shrunk = gain @ covariance @ gain.T
        expected = 1.0 - np.sqrt(np.diag(shrunk) / np.diag(view["omega"]))
        residual = np.eye(5) - design @ gain
        leverage = np.trace(residual @ covariance @ residual.T) / (5 * view["sigma"][0] ** 2)
    np.testing.assert_allclose(table["modes"][:2], expected, atol=0.16)
    assert table.loc["epsilon", "modes"] == pytest.approx(1.0 - np.sqrt(leverage), abs=0.08)
    squared = fit.shrinkages(scale="variance", n_samples=20)
    np.testing.assert_allclose(1 - squared["modes"], (1 - table["modes"]) ** 2)
    with pytest.raises(OptionError, match="scale='var'"):
        fit.shrinkages(scale="var")


def test_residuals_at_modes_are_iwres():
    model, theta = oral_model(n=8)
    model = with_responses(model, replicates(model, theta, 1, 1)[0])
    fit = at(model, theta)
    residual = weighted_residuals(model, theta, fit._psi_modes[:, None])[0]
    np.testing.assert_allclose(residual, fit.residuals()["iwres"], rtol=1e-9)
    eta = random_effects_of(model, theta, fit._psi_modes)
    np.testing.assert_allclose(eta, fit.random_effects, atol=1e-12)


@pytest.fixture(scope="module")
def line_fit():
    return at(*linear_model(n=40, seed=5))


def test_forecast_of_a_linear_model_is_exact(line_fit):
    """Prediction is the exact conditional mean; the interval that of the exact normal.

    4000 draws: a quantile at 5 % has a standard error of 0.033 sd; four of them are allowed.
    """
    model, theta = line_fit.model, line_fit.record.theta
    view = model.theta_spec.view(theta)
    age = np.array([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0])
    dv = np.array([9.0, np.nan, 14.0, np.nan, np.nan, 20.0])
    frame = pd.DataFrame({"id": "new", "age": age, "dv": dv}, index=list("abcdef"))
    found = line_fit.forecast(frame, n_samples=4000, seed=2)
    design = np.column_stack([np.ones(6), age])
    noise = view["sigma"][0] ** 2
    own = np.isfinite(dv)
    gain = (
        view["omega"]
        @ design[own].T
        @ np.linalg.inv(design[own] @ view["omega"] @ design[own].T + noise * np.eye(3))
    )
    effects = view["beta"][0] + gain @ (dv - design @ view["beta"][0])[own]
    covariance = view["omega"] - gain @ design[own] @ view["omega"]
    np.testing.assert_allclose(found["prediction"], design @ effects, atol=1e-4)
    sd = np.sqrt(np.einsum("ij,jk,ik->i", design, covariance, design) + noise)
    np.testing.assert_allclose((found["upper"] - design @ effects) / sd, 1.645, atol=0.14)
    np.testing.assert_allclose((found["lower"] - design @ effects) / sd, -1.645, atol=0.14)
    assert list(found.index) == list("abcdef")
    assert (found["n_observed"] == 3).all()
    curve = line_fit.forecast(frame, interval="confidence", n_samples=4000, seed=2)
    sd = np.sqrt(np.einsum("ij,jk,ik->i", design, covariance, design))
    np.testing.assert_allclose((curve["upper"] - design @ effects) / sd, 1.645, atol=0.14)


def test_forecast_without_observations_is_that_of_the_population(line_fit):
    frame = pd.DataFrame({"id": [1, 2, 1, 2], "age": [0.0, 1.0, 2.0, 0.0]})
    found = line_fit.forecast(frame, n_samples=4000, seed=1)
    np.testing.assert_allclose(found["prediction"], 10.0 + 3.0 * frame["age"])
    age = frame["age"].to_numpy()
    sd = np.sqrt(4.0 + 2.0 * age + 2.25 * age**2 + 0.64)
    np.testing.assert_allclose((found["upper"] - found["prediction"]) / sd, 1.645, atol=0.14)
    assert (found["n_observed"] == 0).all()


def test_forecast_of_fitted_subjects_repeats_their_modes(line_fit):
    """The same data in another order of rows, half of the subjects without observations."""
    data = line_fit.model.individuals
    ids = np.repeat(data.ids, data.n_obs)
    frame = pd.DataFrame({"id": ids, "age": data.columns["age"], "dv": data.dv})
    frame.loc[frame["id"] % 2 == 1, "dv"] = np.nan
    shuffled = frame.sample(frac=1.0, random_state=1)
    found = line_fit.forecast(shuffled, n_samples=20).sort_index()
    fitted = line_fit.predict().to_numpy()
    population = line_fit.predict("population").to_numpy()
    even = (frame["id"] % 2 == 0).to_numpy()
    np.testing.assert_allclose(found["prediction"][even], fitted[even], atol=1e-5)
    np.testing.assert_allclose(found["prediction"][~even], population[~even])


def test_forecast_intervals_hold_new_observations():
    """90 % intervals after four of six observations of 60 new subjects; the last two are new.

    Binomial with 120 trials in pairs that may depend: 0.9 +- 4 * 0.9 * sqrt(2 * 0.1 / 120).
    """
    model, theta = oral_model(n=60)
    dv = replicates(model, theta, 1, 6)[0]
    fit = at(model, theta)
    data = model.individuals
    frame = pd.DataFrame({"id": np.repeat(data.ids, 6), "dv": dv} | data.columns)
    last = frame["time"] > 4.0
    found = fit.forecast(frame.assign(dv=frame["dv"].where(~last)), n_samples=200)
    inside = frame["dv"].between(found["lower"], found["upper"])[last]
    assert abs(inside.mean() - 0.9) < 0.15
    better = (found["prediction"] - frame["dv"])[last].abs().mean()
    assert (
        better
        < (fit.forecast(frame.drop(columns="dv"))["prediction"] - frame["dv"])[last].abs().mean()
    )


def test_forecast_with_covariates():
    rng = np.random.default_rng(0)
    model, _ = linear_model(n=20)
    data = model.individuals
    frame = pd.DataFrame(
        {"id": np.repeat(data.ids, 5), "age": data.columns["age"], "dv": data.dv}
    ).assign(sex=lambda d: np.where(d["id"] % 2, "m", "f"))
    model = saem.NLME(
        frame,
        model.structural.function,
        {"base": saem.Normal(10.0, covariates="sex"), "slope": saem.Normal(3.0)},
    )
    theta = model.start(rng)
    estimates = model.estimation_vector(theta)
    estimates[model.param_names.index("beta_base_sex[T.m]")] = 5.0
    fit = at(model, model.with_estimates(theta, estimates))
    new = pd.DataFrame({"id": [7, 8], "age": 0.0, "sex": ["m", "f"]})
    np.testing.assert_allclose(fit.forecast(new)["prediction"], [15.0, 10.0])
    with pytest.raises(DataError, match="level 'x'"):
        fit.forecast(new.assign(sex="x"))
    with pytest.raises(DataError, match="'sex' is missing"):
        fit.forecast(new.drop(columns="sex"))


def test_forecast_checks_its_input(line_fit):
    with pytest.raises(OptionError, match=r"3 problems(?s:.)*level(?s:.)*interval(?s:.)*n_samples"):
        line_fit.forecast(pd.DataFrame(), level=2, interval="both", n_samples=1)
    with pytest.raises(DataError, match="no rows"):
        line_fit.forecast(pd.DataFrame())
    with pytest.raises(DataError, match=r"2 problems(?s:.)*'age'(?s:.)*'id'"):
        line_fit.forecast(pd.DataFrame({"x": [1.0]}))
    with pytest.raises(DataError, match="is infinite"):
        line_fit.forecast(pd.DataFrame({"id": [1], "age": [0.0], "dv": [np.inf]}))
    with pytest.raises(DataError, match="not a pandas DataFrame"):
        line_fit.forecast([1.0])


def test_means_by_quadrature_are_those_of_the_higher_mode():
    """A subject whose absorption and elimination may change roles, against a dense grid.

    A search from the prior mean alone ends in the lesser mode, five posterior standard
    deviations away.
    """
    theo = saem.datasets.load("theophylline")
    starts = {"ka": 1.5, "V": 30.0, "CL": 2.7}
    model = saem.NLME(
        theo[theo["Time"] > 0],
        "pk.oral_1cpt",
        {name: saem.LogNormal(start) for name, start in starts.items()},
        error=saem.ExponentialError(0.2),
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )
    theta = model.start(np.random.default_rng(0))
    found = conditional(model, theta)
    data = model.individuals
    rows = slice(data.offsets[5], data.offsets[6])
    axis = np.linspace(-4, 4, 101)
    eta = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    ka, volume, clearance = np.array(list(starts.values()))[:, None] * np.exp(eta).T
    k = clearance / volume
    log = -0.5 * (eta**2).sum(axis=1)
    amt = data.columns["amt"][rows][0]
    for time, dv in zip(data.columns["time"][rows], data.dv[rows], strict=True):
        with np.errstate(all="ignore"):
            f = amt / volume * ka / (ka - k) * (np.exp(-k * time) - np.exp(-ka * time))
            log -= 0.5 * (np.log(dv / f) / 0.2) ** 2
    log = np.where(np.isfinite(log), log, -np.inf)
    weight = np.exp(log - log.max())
    mean = weight @ eta / weight.sum()
    np.testing.assert_allclose(found.eta_mean[5], mean, atol=0.05)
