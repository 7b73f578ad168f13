"""Simulated responses: their moments, resampled individuals, other responses."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import saem
from saem.inference.likelihood import quadrature
from saem.nlme._replicates import predictions, replicate, resampled, respond, with_responses


def line(base, slope, *, age):
    return base + slope * age


def linear(n=40, error=None, sex=False):
    rng = np.random.default_rng(5)
    ages = np.linspace(-1.0, 1.0, 5)
    frame = pd.DataFrame({"id": np.repeat(np.arange(n), ages.size), "age": np.tile(ages, n)})
    frame["dv"] = 10.0 + rng.normal(size=len(frame))
    frame["sex"] = np.where(frame["id"] % 2, "f", "m")
    parameters = {
        "base": saem.Normal(10.0, omega=1.5, covariates="sex" if sex else None),
        "slope": saem.Normal(3.0, omega=0.8),
    }
    return saem.NLME(frame, line, parameters, error=error or saem.ConstantError(0.5), omega="full")


def test_moments_of_a_linear_model():
    """Mean and covariance of 4000 vectors; largest of 20 z values beyond 4.5: chance 1.4e-4."""
    model = linear()
    theta = model.start(np.random.default_rng(0))
    rng = np.random.default_rng(1)
    draws = np.concatenate([replicate(model, theta, rng).reshape(40, 5) for _ in range(100)])
    ages = model.individuals.columns["age"][:5]
    design = np.column_stack([np.ones(5), ages])
    mean = design @ [10.0, 3.0]
    covariance = design @ np.diag([1.5**2, 0.8**2]) @ design.T + 0.25 * np.eye(5)
    m = len(draws)
    z = (draws.mean(axis=0) - mean) / np.sqrt(np.diag(covariance) / m)
    assert np.abs(z).max() < 4.5
    diagonal = np.diag(covariance)
    spread = np.sqrt((np.outer(diagonal, diagonal) + covariance**2) / m)
    z = ((np.cov(draws.T) - covariance) / spread)[np.tril_indices(5)]
    assert np.abs(z).max() < 4.5


@pytest.mark.parametrize(
    ("error", "sd"),
    [
        (saem.ProportionalError(0.2), lambda f: 0.2 * f),
        (saem.CombinedError(0.3, 0.1), lambda f: 0.3 + 0.1 * f),
        (saem.CombinedError(0.3, 0.1, form="variance"), lambda f: np.sqrt(0.09 + 0.01 * f**2)),
    ],
)
def test_residuals_by_the_definition_of_the_error_model(error, sd):
    model = linear(error=error)
    theta = model.start(np.random.default_rng(0))
    rng = np.random.default_rng(2)
    normals, eps = rng.standard_normal((40, 2)), rng.standard_normal(200)
    f, psi = predictions(model, theta, normals)
    np.testing.assert_allclose(psi, [10.0, 3.0] + normals * [1.5, 0.8])
    np.testing.assert_allclose(f, np.repeat(psi[:, 0], 5) + np.repeat(psi[:, 1], 5)
                               * model.individuals.columns["age"])  # fmt: skip
    np.testing.assert_allclose(respond(model, theta, normals, eps), f + sd(f) * eps)


def test_exponential_error_is_normal_on_the_log_scale():
    """Kolmogorov-Smirnov at level 1e-4."""
    model = linear(error=saem.ExponentialError(0.4))
    theta = model.start(np.random.default_rng(0))
    dv = replicate(model, theta, np.random.default_rng(3))
    f, _ = predictions(model, theta, np.random.default_rng(3).standard_normal((40, 2)))
    assert stats.kstest(np.log(dv / f) / 0.4, "norm").pvalue > 1e-4


def test_same_generator_same_responses_as_the_frame():
    model = linear()
    theta = model.start(np.random.default_rng(0))
    frame = model.simulate(theta, seed=4)
    from saem.random import resolve_seed

    assert np.array_equal(frame["dv"], replicate(model, theta, resolve_seed(4)[1]))


def test_resampled_individuals_have_their_own_likelihood():
    """Covariates and rows travel with the individual, also where one comes twice."""
    model = linear(sex=True)
    theta = model.start(np.random.default_rng(0))
    theta = model.with_estimates(theta, model.estimation_vector(theta) + 0.1)
    own = quadrature(model, theta, n_nodes=5).contributions
    chosen = np.array([3, 3, 0, 7, 39])
    new = resampled(model, chosen)
    assert (new.n_individuals, new.nobs) == (5, 25)
    assert new.param_names == model.param_names
    start = new.with_estimates(new.start(np.random.default_rng(0)), model.estimation_vector(theta))
    found = quadrature(new, start, n_nodes=5).contributions
    np.testing.assert_allclose(found, own[chosen], rtol=1e-12)
    assert model.n_individuals == 40  # the model itself is as it was


def test_level_that_no_longer_occurs_keeps_its_coefficient():
    model = linear(sex=True)
    only_men = resampled(model, np.arange(0, 40, 2))
    assert only_men.param_names == model.param_names


def test_other_responses():
    model = linear()
    theta = model.start(np.random.default_rng(0))
    dv = replicate(model, theta, np.random.default_rng(6))
    new = with_responses(model, dv)
    assert np.array_equal(new.individuals.dv, dv)
    assert quadrature(new, theta, n_nodes=5).value != quadrature(model, theta, n_nodes=5).value
    assert not np.array_equal(model.individuals.dv, dv)
