"""Score, sandwich and Monte Carlo information against closed forms and second differences."""

import functools

import numpy as np
import pandas as pd
import pytest
from reference import maximum, model_of, shipped, theta_at
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

import saem
from saem.exceptions import OptionError
from saem.inference.information import (
    exact_information,
    linearised_information,
    louis_information,
    sandwich_information,
    score_information,
)
from saem.inference.likelihood import QuadratureRule


def powers(a, b, c, d, e, *, x):
    return a + b * x + c * x**2 + d * x**3 + e * x**4


@functools.cache
def linear_in_five():
    """A linear model with five random effects, at its maximum, found by the normal density."""
    rng = np.random.default_rng(8)
    n, x = 40, np.linspace(-1.0, 1.0, 9)
    design = x[:, None] ** np.arange(5)
    truth = np.array([3.0, 1.0, -1.0, 0.5, 2.0, 1.0, 0.6, 1.5, 0.8, 1.2, 0.3])
    effects = truth[:5] + rng.normal(size=(n, 5)) * np.sqrt(truth[5:10])
    dv = effects @ design.T + truth[10] * rng.normal(size=(n, 9))
    frame = pd.DataFrame({"id": np.repeat(np.arange(n), 9), "x": np.tile(x, n), "dv": dv.ravel()})
    parameters = {name: saem.Normal(1.0, omega=1.0) for name in "abcde"}
    model = saem.NLME(frame, powers, parameters, error=saem.ConstantError(0.3))
    found = minimize(lambda v: -gaussian_loglik(v, design, dv).sum(), truth, tol=1e-10)
    return model, theta_at(model, found.x), design, dv


def gaussian_loglik(numbers, design, dv):
    """Log-likelihood of every individual of the linear model, in closed form."""
    covariance = design @ np.diag(numbers[5:10]) @ design.T + numbers[10] ** 2 * np.eye(len(design))
    return multivariate_normal.logpdf(dv, design @ numbers[:5], covariance)


def derivatives(function, at, step):
    """Central first differences of a vector and second differences of its sum."""
    size = at.size
    unit = np.diag(step)
    first = [(function(at + unit[a]) - function(at - unit[a])) / (2 * step[a]) for a in range(size)]
    second = np.empty((size, size))
    for a in range(size):
        for b in range(size):
            corners = sum(
                i * j * function(at + i * unit[a] + j * unit[b]).sum()
                for i in (1, -1)
                for j in (1, -1)
            )
            second[a, b] = corners / (4 * step[a] * step[b])
    return np.array(first).T, second


@functools.cache
def exact_of_five():
    model, theta, design, dv = linear_in_five()
    numbers = model.estimation_vector(theta)
    scores, hessian = derivatives(
        lambda v: gaussian_loglik(v, design, dv), numbers, 1e-3 * np.maximum(0.3, np.abs(numbers))
    )
    return scores, -hessian


def test_the_fixture_is_a_maximum():
    scores, _ = exact_of_five()
    bse = louis_information(*linear_in_five()[:2], n_samples=800).bse
    assert np.all(np.abs(scores.sum(axis=0) * bse) < 1e-3)


def test_monte_carlo_louis_beyond_four_random_effects():
    """Eleven standard errors within 5 reported errors: false alarm below 1e-3 (19 df)."""
    model, theta, *_ = linear_in_five()
    _, observed = exact_of_five()
    exact = np.sqrt(np.diag(np.linalg.inv(observed)))
    found = louis_information(model, theta, seed=3)
    assert found.method == "Louis"
    assert np.all(np.abs(found.bse - exact) < 5.0 * found.bse_error)
    # The variances of five effects are harder; 1 % at the default number of draws.
    assert np.all(found.bse_error < 0.02 * exact)
    assert np.array_equal(found.bse, louis_information(model, theta, seed=3, n_threads=2).bse)


def test_monte_carlo_score_and_sandwich_beyond_four_random_effects():
    """22 standard errors within 5 reported errors: false alarm below 2e-3 (19 df)."""
    model, theta, *_ = linear_in_five()
    scores, observed = exact_of_five()
    product, bread = scores.T @ scores, np.linalg.inv(observed)
    for information, covariance in (
        (score_information, np.linalg.inv(product)),
        (sandwich_information, bread @ product @ bread),
    ):
        exact = np.sqrt(np.diag(covariance))
        found = information(model, theta, seed=4)
        assert np.all(np.abs(found.bse - exact) < 5.0 * found.bse_error)
        assert np.all(found.bse_error < 0.02 * exact)


def test_chains_agree_with_quadrature():
    """Seven standard errors of theophylline within 5 reported errors: false alarm 6e-4."""
    model, theta = model_of("theophylline"), maximum("theophylline")
    for information in (louis_information, score_information, sandwich_information):
        exact = information(model, theta)
        found = information(model, theta, n_samples=4000, seed=1)
        assert exact.bse_error is None
        assert np.all(np.abs(found.bse - exact.bse) < 5.0 * found.bse_error + 1e-3 * exact.bse)


@functools.cache
def individual_scores(name):
    """Scores of the individuals by differences of their quadrature likelihoods."""
    model, theta = model_of(name), maximum(name)
    rule = QuadratureRule(model, 13)
    rule(theta)
    numbers = model.estimation_vector(theta)
    steps = 0.01 * louis_information(model, theta).bse_estimation

    def contributions(v):
        return rule.contributions(model.with_estimates(theta, v), rule.centred.copy())

    unit = np.diag(steps)
    columns = [
        (contributions(numbers + row) - contributions(numbers - row)) / (2 * step)
        for row, step in zip(unit, steps, strict=True)
    ]
    return np.array(columns).T


@pytest.mark.parametrize("name", ["theophylline", "theophylline-weight", "pd1", "oxboys"])
def test_score_information_is_the_cross_product(name):
    model, theta = model_of(name), maximum(name)
    scores = individual_scores(name)
    exact = scores.T @ scores
    scale = np.sqrt(np.diag(exact))
    found = score_information(model, theta).matrix
    assert np.all(np.abs(found - exact) < 2e-3 * np.outer(scale, scale))


@pytest.mark.parametrize("name", ["theophylline", "theophylline-weight"])
def test_sandwich_from_its_parts(name):
    """Covariance within 1 %."""
    model, theta = model_of(name), maximum(name)
    scores = individual_scores(name)
    bread = exact_information(model, theta).cov_estimation
    expected = bread @ scores.T @ scores @ bread
    found = sandwich_information(model, theta)
    sd = np.sqrt(np.diag(expected))
    assert np.all(np.abs(found.cov_estimation - expected) < 0.01 * np.outer(sd, sd))
    natural = model.natural_derivative(theta)
    np.testing.assert_allclose(found.bse, found.bse_estimation * natural, rtol=1e-12)


def test_observed_information_within_a_percent_on_theophylline():
    """Bar 4: standard errors and information, against second differences at the maximum."""
    model, theta = model_of("theophylline"), maximum("theophylline")
    exact, found = exact_information(model, theta), louis_information(model, theta)
    np.testing.assert_allclose(found.bse, exact.bse, rtol=0.005)
    scale = np.sqrt(np.diag(exact.matrix))
    assert np.all(np.abs(found.matrix - exact.matrix) < 0.01 * np.outer(scale, scale))


@pytest.mark.parametrize("fixed", ["ka", "V", "CL"])
def test_errors_of_parameters_without_random_effect_carry_their_names(fixed):
    """Whichever parameter lacks a random effect, each error is that of its own parameter.

    The scale of an estimate tells whose it is: an error attached to another name would be
    off by a factor of its information, far more than linearisation's 35 %.
    """
    frame = saem.datasets.load("theophylline")
    starts = {"ka": 1.5, "V": 30.0, "CL": 2.7}
    model = saem.NLME(
        frame[frame["Time"] > 0],
        "pk.oral_1cpt",
        {name: saem.LogNormal(v, random=name != fixed) for name, v in starts.items()},
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )
    theta = model.fit("em", progress=False).record.theta
    exact = exact_information(model, theta)
    assert list(exact.param_names) == model.param_names
    for information, tolerance in ((louis_information, 0.03), (linearised_information, 0.35)):
        np.testing.assert_allclose(information(model, theta).bse, exact.bse, rtol=tolerance)
    # One parameter moved along: only the likelihood in its own name has its curvature.
    rule = QuadratureRule(model, 11)
    top = rule(theta)
    centre = model.estimation_vector(theta)
    for j, name in enumerate(model.param_names):
        step = 0.05 / np.sqrt(exact.matrix[j, j])
        values = []
        for sign in (1.0, -1.0):
            moved = centre.copy()
            moved[j] += sign * step
            values.append(rule(model.with_estimates(theta, moved)))
        curvature = -(values[0] - 2.0 * top + values[1]) / step**2
        louis = louis_information(model, theta).matrix[j, j]
        assert louis == pytest.approx(curvature, rel=0.05), name


def test_correlation_and_condition():
    model = shipped()
    fit = model.fit("em", progress=False)
    covariance = fit.information().cov_estimation
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(fit.correlation.to_numpy(), covariance / np.outer(sd, sd))
    assert list(fit.correlation.index) == model.param_names
    assert 1.0 < fit.condition_number < 100.0
    for method in ("score", "sandwich", "exact"):
        assert fit.information(method).method == method
    with pytest.raises(OptionError, match="method='fisher'"):
        fit.information("fisher")
    with pytest.raises(OptionError, match="n_samples=5 must be"):
        fit.information("louis", n_samples=5)
