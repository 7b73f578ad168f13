"""A user's log-likelihood as the model of a row: against integrals, and everything around it."""

import math

import numpy as np
import pandas as pd
import pytest
from likelihoods import (
    RNG,
    binary_frame,
    binary_model,
    counts,
    events,
    poisson,
    poisson_model,
    weibull,
    weibull_model,
)
from scipy import integrate, stats

import saem
from saem._types import unpack
from saem.diagnostics.to_arviz import pointwise_log_likelihood
from saem.inference.likelihood import quadrature
from saem.models import MixedLogistic
from saem.nlme import _kernels
from saem.nlme.structural import resolve_structural


def exact_loglik(frame, mu, omega):
    """Poisson log-normal, by scipy's adaptive integration, one subject after the other."""
    total = 0.0
    for _, rows in frame.groupby("id"):
        y = rows["count"].to_numpy()
        constant = -sum(math.lgamma(k + 1.0) for k in y) - 0.5 * math.log(2.0 * math.pi)
        sum_y, n = int(y.sum()), y.size
        centre = (math.log(y.mean() + 0.2) - mu) / omega
        top = sum_y * (mu + omega * centre) - n * math.exp(mu + omega * centre)

        def joint(e, sum_y=sum_y, n=n, top=top):
            phi = mu + omega * e
            return math.exp(sum_y * phi - n * math.exp(phi) - top - 0.5 * e * e)

        value = integrate.quad(
            joint, -9.0, 9.0, points=[centre], epsabs=0.0, epsrel=1e-12, limit=200
        )
        total += math.log(value[0]) + top + constant
    return total


# --- the likelihood -----------------------------------------------------------------------


def test_quadrature_is_the_integral():
    model = poisson_model()
    for mu, omega in ((np.log(2.0), 1.0), (np.log(3.5), 0.4)):
        theta = model.with_estimates(model.start(RNG(0)), np.array([mu, omega**2]))
        exact = exact_loglik(counts(), mu, omega)
        assert quadrature(model, theta, n_nodes=31).value == pytest.approx(exact, abs=2e-7)


def test_rows_of_repeated_events_give_the_product_of_hazards():
    """The product of h at the events times exp(-H(end)), whatever the rows between."""
    frame = events(6)
    structural = resolve_structural("tte.weibull")
    for _, rows in frame.groupby("id"):
        for scale, shape in ((2.0, 2.0), (0.7, 0.9)):
            columns = rows[["event", "time", "previous"]].to_numpy().T.copy()
            found = structural.predict(np.array([scale, shape]), columns)
            own = resolve_structural(weibull).predict(
                np.array([scale, shape]), columns[[1, 2, 0]].copy()
            )
            np.testing.assert_allclose(found, own, rtol=1e-12)
            times = rows["time"][rows["event"] == 1].to_numpy()
            hazards = shape / scale * (times / scale) ** (shape - 1.0)
            wanted = np.log(hazards).sum() - (rows["time"].max() / scale) ** shape
            assert found.sum() == pytest.approx(wanted, rel=1e-12)
            assert found[0] == 0.0  # the row at time 0


@pytest.mark.nojit
def test_library_models_are_densities():
    count, binary = resolve_structural("count.poisson"), resolve_structural("binary.logistic")
    k = np.arange(12.0)
    np.testing.assert_allclose(
        count.predict(np.array([2.5]), k[None]), stats.poisson.logpmf(k, 2.5), rtol=1e-12
    )
    logits = np.array([-800.0, -2.0, 0.0, 3.0, 800.0])
    for y, sign in ((1.0, 1.0), (0.0, -1.0)):
        found = binary.predict(np.array([0.0, 1.0]), np.stack([np.full(5, y), logits]))
        np.testing.assert_allclose(found, -np.logaddexp(0.0, -sign * logits), rtol=1e-12)
    bad = np.array([[1.5, -1.0, 2.0, 0.5]])
    assert list(np.isnan(count.predict(np.array([2.5]), bad))) == [True, True, False, True]
    bad = np.vstack([bad, np.ones((1, 4))])
    assert np.isnan(binary.predict(np.array([0.0, 1.0]), bad)).all()
    event = np.array([[2.0, 1.0, 1.0, 0.0, 1.0], [3.0, 3, 2, 2, 3], [1.0, 4, 2, 2, 1]])
    bad = np.isnan(resolve_structural("tte.weibull").predict(np.array([2.0, 1.5]), event))
    assert list(bad) == [True, True, True, False, False]


def test_pointwise_log_likelihood_is_that_of_the_rows(poisson_exact):
    psi = poisson_exact.individual("mean").to_numpy()
    found = pointwise_log_likelihood(poisson_exact.model, poisson_exact.theta, psi[:, None])
    wanted = stats.poisson.logpmf(counts()["count"], np.repeat(psi[:, 0], 4))
    np.testing.assert_allclose(found[0], wanted, rtol=1e-12)


# --- M-step -------------------------------------------------------------------------------


@pytest.mark.nojit
def test_m_step_is_the_mean_and_the_second_moment():
    model = weibull_model(events(8))
    theta, kernels = model.start(RNG(0)), unpack(model.kernels)
    phi = RNG(5).normal(size=(8, 2))
    s, values = np.zeros(model.stat_spec.size), []
    for i in range(8):
        latent = np.append(phi[i], [0.0, 0.0])
        y, work = model.record_of(i), np.zeros(model.work_size)
        values.append(kernels.log_lik(kernels.structural, theta, y, latent, work))
        assert latent[2] == 0.0  # no residual statistic
        kernels.accumulate(1.0 / 8, y, latent, s)
        rows = model.individuals.matrix(model.structural.columns)
        own = rows[:, model.individuals.offsets[i] : model.individuals.offsets[i + 1]]
        direct = model.structural.predict(np.exp(phi[i]), own).sum()
        assert values[-1] == pytest.approx(direct, rel=1e-10)
    before = theta.copy()
    assert kernels.maximize(s, theta) == 0
    view = model.theta_spec.view(theta)
    np.testing.assert_allclose(view["beta"][0], phi.mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(np.diag(view["omega"]), phi.var(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(view["sigma"], model.theta_spec.view(before)["sigma"])
    # What it maximises: the Gaussian log density of phi, no term in the responses.
    top, low = kernels.surrogate(s, theta), kernels.surrogate(s, before)
    sd = np.sqrt(np.diag(view["omega"]))
    wanted = stats.norm.logpdf(phi, phi.mean(axis=0), sd).sum() / 8 + np.log(2 * np.pi)
    assert top == pytest.approx(wanted, rel=1e-12)
    assert low < top
    assert _kernels.mean_log_prior(theta) == 0.0


def test_annealing_keeps_variances_only():
    model = weibull_model(events(8))
    before = model.start(RNG(0))
    after = model.with_estimates(before, model.estimation_vector(before) * [1, 1, 0.1, 0.1])
    model.anneal(before, after, 0.9)
    view = model.theta_spec.view(after)
    np.testing.assert_allclose(np.diag(view["omega"]), 0.9 * 0.25)
    np.testing.assert_array_equal(view["sigma"], model.theta_spec.view(before)["sigma"])


# --- estimates ----------------------------------------------------------------------------


def test_maximum_of_the_integral(poisson_exact):
    """No step of 0.01 standard errors from the estimate raises scipy's log-likelihood."""
    at = poisson_exact.model.estimation_vector(poisson_exact.theta)
    bse = poisson_exact._information.bse_estimation
    top = exact_loglik(counts(), at[0], np.sqrt(at[1]))
    for j in range(2):
        for sign in (-1.0, 1.0):
            near = at + sign * 0.01 * bse * (np.arange(2) == j)
            assert exact_loglik(counts(), near[0], np.sqrt(near[1])) < top


def test_information_is_that_of_the_integral(poisson_exact):
    """Second differences of scipy's log-likelihood; by Louis and by the library's own."""
    at = poisson_exact.model.estimation_vector(poisson_exact.theta)
    step = 0.1 * poisson_exact._information.bse_estimation

    def value(a, b):
        return exact_loglik(counts(), at[0] + a * step[0], np.sqrt(at[1] + b * step[1]))

    def hessian(h):
        top = value(0, 0)
        first = value(h, 0) - 2 * top + value(-h, 0)
        second = value(0, h) - 2 * top + value(0, -h)
        mixed = (value(h, h) + value(-h, -h) - value(h, -h) - value(-h, h)) / 4
        return -np.array([[first, mixed], [mixed, second]]) / np.outer(step, step) / h**2

    exact = (4 * hessian(0.5) - hessian(1.0)) / 3
    for method in ("louis", "exact"):
        found = poisson_exact.information(method).matrix
        np.testing.assert_allclose(found, exact, rtol=2e-3, atol=2e-3 * np.sqrt(
            np.outer(np.diag(exact), np.diag(exact)).max()))  # fmt: skip


def test_same_answer_as_mixed_logistic_regression():
    """Quadrature EM on two models of one data set, random and plain coefficients."""
    frame = binary_frame()
    own = binary_model(frame)
    other = MixedLogistic(frame, "y ~ t + x", "id", "~ t", covariance="diagonal")
    first = own.fit(saem.EM(saem.Quadrature(9), n_iter=2000, acceleration="anderson"),
                    seed=0, progress=False)  # fmt: skip
    second = other.fit(saem.EM(saem.Quadrature(9), n_iter=5000, acceleration="anderson"),
                       seed=0, progress=False)  # fmt: skip
    names = {"Intercept": "b0", "t": "b1", "x": "alpha",
             "var[Intercept]": "omega2_b0", "var[t]": "omega2_b1"}  # fmt: skip
    wanted = second.params.rename(names)
    np.testing.assert_allclose(first.params, wanted[first.params.index], atol=1e-6)
    assert first.loglik("quadrature").value == pytest.approx(
        second.loglik("quadrature").value, abs=1e-6
    )


@pytest.mark.parametrize("algorithm", ["f-saem", "saem", "imp-em"])
@pytest.mark.parametrize("kind", ["counts", "events"])
def test_within_monte_carlo_error(algorithm, kind, poisson_exact, weibull_exact):
    """|difference| < 4 Monte Carlo errors of every estimate.

    False alarms: 4 errors of 2 or 4 numbers, 6e-5 each were the errors known; batch means
    and the recursion know them to 30 %, so below 1 % for a test.
    """
    exact = {"counts": poisson_exact, "events": weibull_exact}[kind]
    fit = exact.model.fit(algorithm, seed=5, progress=False)
    error = np.maximum(fit.mc_error, 1e-3 * exact.bse)
    assert ((fit.params - exact.params).abs() < 4.0 * error).all()
    assert (error < 0.2 * exact.bse).all()  # it says something


def test_binary_within_monte_carlo_error():
    """As above; the parameter without random effect has no closed form."""
    model = binary_model(binary_frame())
    exact = model.fit(seed=0, progress=False)
    fit = model.fit("f-saem", seed=6, progress=False)
    assert ((fit.params - exact.params).abs() < 4.0 * fit.mc_error.clip(1e-3 * exact.bse)).all()
    np.testing.assert_allclose(exact.information("louis").bse, exact.information("exact").bse,
                               rtol=0.01)  # fmt: skip


def test_standard_errors_of_repeated_events(weibull_exact):
    exact = weibull_exact.information("exact").bse
    np.testing.assert_allclose(weibull_exact.information("louis").bse, exact, rtol=0.01)


def test_parameters_and_criteria(poisson_exact):
    fit = poisson_exact
    assert fit.model.param_names == ["rate", "omega2_rate"]
    assert fit.n_params == 2
    assert fit.sigma.empty
    assert fit.aic == pytest.approx(-2.0 * fit.llf + 4.0)
    assert fit.bic == pytest.approx(-2.0 * fit.llf + 2.0 * np.log(40))
    assert "none: log-likelihood" in str(fit.summary())
    assert len(fit.why()) == 0
    assert list(fit.shrinkages().index) == ["rate"]


def test_more_than_four_random_effects_have_standard_errors_by_chains():
    def five(a, b, c, d, e, *, t, dv):
        return -0.5 * (dv - a - b * t - c * t * t - d * t**3 - e * np.cos(9.0 * t)) ** 2

    rng = RNG(4)
    t = np.tile(np.linspace(-1.0, 1.0, 9), 12)
    frame = pd.DataFrame({"id": np.repeat(range(12), 9), "t": t, "dv": rng.normal(size=t.size)})
    model = saem.NLME(
        frame, structural=five, error=saem.LogLikelihood(),
        parameters={name: saem.Normal(0.0, omega=1.0, fixed_omega=True) for name in "abcde"},
    )  # fmt: skip
    fit = model.fit("f-saem", seed=0, progress=False)
    assert fit._information.method == "Louis"
    # Linear and Gaussian: the information is known.
    z = np.stack([np.ones(9), t[:9], t[:9] ** 2, t[:9] ** 3, np.cos(9.0 * t[:9])], axis=1)
    exact = 12.0 * z.T @ np.linalg.inv(z @ z.T + np.eye(9)) @ z
    found = fit._information
    wanted = np.sqrt(np.diag(np.linalg.inv(exact)))
    assert (np.abs(found.bse - wanted) < 5.0 * found.bse_error + 1e-6).all()


def test_occasions_covariates_and_priors():
    rng = RNG(0)
    frame = pd.DataFrame({"id": np.repeat(np.arange(40), 4), "occ": np.tile([1, 1, 2, 2], 40)})
    frame["w"] = np.repeat(rng.normal(size=40), 4)
    phi = 1.0 + np.repeat(0.4 * rng.normal(size=40), 4) + np.repeat(0.5 * rng.normal(size=80), 2)
    frame["count"] = rng.poisson(np.exp(phi))
    model = saem.NLME(
        frame, structural=poisson, error=saem.LogLikelihood(), columns={"dv": "count"},
        parameters={"rate": saem.LogNormal(2.0, covariates="w")}, occasion="occ",
        iov={"rate": 0.3}, priors={"rate": saem.NormalPrior(3.0, 0.1)},
    )  # fmt: skip
    fit = model.fit(seed=0, progress=False)
    assert set(fit.params.index) == {"rate", "beta_rate_w", "omega2_rate", "gamma2_rate"}
    assert np.isfinite(fit.params).all()
    names = list(fit.params.index)
    up = model.with_estimates(fit.theta, model.estimation_vector(fit.theta) + 1e-3 * (
        np.array(names) == "rate"))  # fmt: skip
    down = model.with_estimates(fit.theta, model.estimation_vector(fit.theta) - 1e-3 * (
        np.array(names) == "rate"))  # fmt: skip
    slope = (
        sum(
            sign * (quadrature(model, theta).value + model.log_prior(theta))
            for sign, theta in ((1, up), (-1, down))
        )
        / 2e-3
    )
    assert abs(slope) * fit.bse["rate"] / fit.params["rate"] < 0.01


# --- files, threads, uncompiled -----------------------------------------------------------


def test_save_and_load(poisson_exact, path):
    poisson_exact.save(path)
    loaded = saem.load(path, structural=poisson)
    assert loaded.model.error == saem.LogLikelihood()
    np.testing.assert_array_equal(loaded.theta, poisson_exact.theta)
    np.testing.assert_array_equal(loaded.model.values, poisson_exact.model.values)
    library = poisson_model(structural="count.poisson").fit("em", seed=0, progress=False)
    library.save(path)
    pd.testing.assert_series_equal(saem.load(path).params, library.params)


def test_same_bits_for_any_number_of_threads():
    model = weibull_model()
    for algorithm in ("f-saem", "em"):
        one, two = (model.fit(algorithm, seed=3, n_threads=k, progress=False).theta for k in (1, 2))
        np.testing.assert_array_equal(one, two)


@pytest.mark.nojit
@pytest.mark.filterwarnings("ignore::saem.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_small_fit_uncompiled_too():
    model = poisson_model(counts(4, 2))
    fit = model.fit(saem.EM(saem.Quadrature(5), n_iter=2), seed=0, progress=False)
    walks = model.fit(saem.SAEM(n_exploration=2, n_smoothing=2), seed=0, progress=False)
    assert np.isfinite(fit.params).all()
    assert np.isfinite(walks.params).all()
