"""Posterior of the individuals: quadrature, chains, closed form."""

import numpy as np
import pytest
from reference import exact_theta, model_of, shipped, theta_at

from saem.exceptions import OptionError
from saem.inference._visits import find_modes
from saem.inference.individuals import conditional, moments, samples
from saem.inference.posterior import quadrature_records, scores, split


@pytest.fixture(scope="module")
def fitted():
    model = shipped()
    return model, theta_at(model, [1.58, 31.6, 2.75, 0.39, 0.018, 0.071, 0.74])


def test_linear_model_has_the_normal_posterior():
    """Mean and covariance in closed form; modes equal means."""
    model, theta = model_of("oxboys"), exact_theta("oxboys")
    view, data = model.theta_spec.view(theta), model.individuals
    found, modes = conditional(model, theta), find_modes(model, theta)
    for i, (a, b) in enumerate(zip(data.offsets[:-1], data.offsets[1:], strict=True)):
        design = np.column_stack([np.ones(b - a), data.columns["age"][a:b]])
        precision = design.T @ design / view["sigma"][0] ** 2 + np.linalg.inv(view["omega"])
        covariance = np.linalg.inv(precision)
        residual = data.dv[a:b] - design @ view["beta"][0]
        eta = covariance @ design.T @ residual / view["sigma"][0] ** 2
        np.testing.assert_allclose(found.eta_mean[i], eta, atol=1e-7)
        np.testing.assert_allclose(found.eta_sd[i], np.sqrt(np.diag(covariance)), rtol=1e-7)
        np.testing.assert_allclose(modes.phi[i], view["beta"][0] + eta, atol=1e-5)
        np.testing.assert_allclose(modes.covariance[i], covariance, rtol=1e-4)


def test_modes_are_stationary(fitted):
    """A search from the modes stays there, and no prior draw is better."""
    model, theta = fitted
    modes = find_modes(model, theta)
    again = find_modes(model, theta, start=modes.phi + 0.3)
    np.testing.assert_allclose(again.log_joint, modes.log_joint, atol=1e-8)
    assert np.array_equal(find_modes(model, theta, n_threads=2).phi, modes.phi)


def test_chains_agree_with_quadrature(fitted):
    """z over 36 means below 5 with about 15 degrees of freedom: false alarm 6e-3."""
    model, theta = fitted
    exact = conditional(model, theta)
    assert exact.method == "quadrature"
    assert not exact.mc_error.any()
    found = conditional(model, theta, method="chains", seed=2)
    assert found.method == "chains"
    assert np.all(np.abs(found.psi_mean - exact.psi_mean) < 5.0 * found.mc_error)
    assert np.sqrt(np.mean((found.mc_error / found.psi_sd) ** 2)) < 0.05
    np.testing.assert_allclose(found.psi_sd, exact.psi_sd, rtol=0.15)
    mean, sd = moments(model, theta)
    assert np.array_equal(mean, exact.psi_mean)
    assert np.array_equal(sd, exact.psi_sd)


def test_samples(fitted):
    """Means of 400 draws of 12 subjects: mean square of z below 3, false alarm under 1e-3."""
    model, theta = fitted
    exact = conditional(model, theta)
    draws = samples(model, theta, 400, seed=1)
    assert draws.shape == (12, 400, 3)
    z = (draws.mean(axis=1) - exact.psi_mean) / (exact.psi_sd / 20.0)
    assert np.mean(z**2) < 3.0
    np.testing.assert_allclose(draws.std(axis=1), exact.psi_sd, rtol=0.35)
    assert np.array_equal(draws, samples(model, theta, 400, seed=1, n_threads=2))
    assert samples(model, theta, 3, seed=1).shape == (12, 3, 3)


def test_parameters_without_random_effect():
    model = shipped(random_volume=False)
    theta = model.start(np.random.default_rng(0))
    found = conditional(model, theta)
    np.testing.assert_allclose(found.psi_mean[:, 1], 30.0)
    np.testing.assert_allclose(found.psi_sd[:, 1], 0.0, atol=1e-6)
    assert found.eta_mean.shape == (12, 2)
    assert np.all(samples(model, theta, 5)[:, :, 1] == pytest.approx(30.0))


@pytest.mark.parametrize("error", ["constant", "combined"])
@pytest.mark.parametrize("random_volume", [True, False])
def test_mean_score_is_the_gradient(error, random_volume):
    """Fisher's identity: posterior means of the scores add up to the gradient."""
    from saem.inference.likelihood import QuadratureRule

    model = shipped(error, random_volume)
    typical, variances = [1.5, 31.0, 2.8], [0.4, 0.02, 0.07]
    if not random_volume:
        variances = [0.4, 0.07]
    residual = [0.7] if error == "constant" else [0.4, 0.06]
    theta = theta_at(model, [*typical, *variances, *residual])
    total = np.zeros(len(model.param_names))
    for rows, records in quadrature_records(model, theta, 11):
        weights, _ = split(model, records)
        total += np.einsum("im,imp->p", weights, scores(model, theta, records, rows))
    rule = QuadratureRule(model, 11)
    rule(theta)
    centre = model.estimation_vector(theta)
    for j, score in enumerate(total):
        step = 1e-4 * max(1e-2, abs(centre[j]))
        sides = []
        for sign in (1.0, -1.0):
            shifted = centre.copy()
            shifted[j] += sign * step
            sides.append(rule(model.with_estimates(theta, shifted)))
        slope = (sides[0] - sides[1]) / (2.0 * step)
        assert score == pytest.approx(slope, rel=2e-3, abs=2e-3)


def test_options(fitted):
    model, theta = fitted
    with pytest.raises(OptionError, match="method='laplace'"):
        conditional(model, theta, method="laplace")
    with pytest.raises(OptionError, match="n_samples=0"):
        samples(model, theta, 0)
