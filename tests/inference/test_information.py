"""Information against published standard errors, closed forms and second differences."""

import numpy as np
import pytest
from reference import EXACT, emax, exact_theta, model_of, shipped

import saem
from saem.exceptions import BoundaryWarning, OptionError, SaemWarning
from saem.inference.information import (
    exact_information,
    information,
    linearised_information,
    louis_information,
)
from saem.inference.linearisation import linearise

NAMES = list(EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_linearised_standard_errors_within_a_tenth(name):
    found = linearised_information(model_of(name), exact_theta(name))
    exact = np.array(EXACT[name][1])
    assert np.all(np.abs(found.bse[: exact.size] / exact - 1.0) < 0.1)
    assert found.boundary == ()
    assert found.condition < 100.0


@pytest.mark.parametrize("name", NAMES)
def test_louis_standard_errors_within_half_a_percent(name):
    found = louis_information(model_of(name), exact_theta(name))
    exact = np.array(EXACT[name][1])
    assert np.all(np.abs(found.bse[: exact.size] / exact - 1.0) < 0.005)


@pytest.mark.parametrize("name", ["theophylline", "oxboys"])
def test_exact_standard_errors(name):
    found = exact_information(model_of(name), exact_theta(name))
    exact = np.array(EXACT[name][1])
    assert np.all(np.abs(found.bse[: exact.size] / exact - 1.0) < 0.002)


def test_linear_model_all_three_agree():
    """For a linear model with full covariance the linearisation is no approximation."""
    model, theta = model_of("oxboys"), exact_theta("oxboys")
    first = linearised_information(model, theta)
    for other in (louis_information(model, theta), exact_information(model, theta)):
        np.testing.assert_allclose(first.bse, other.bse, rtol=1e-3)


def test_linear_mixed_model_has_its_own_information():
    model = model_of("oxboys")
    frame = model.individuals
    import pandas as pd

    rows = pd.DataFrame(
        {
            "y": frame.dv,
            "age": frame.columns["age"],
            "id": np.repeat(np.arange(frame.n_individuals), frame.n_obs),
        }
    )
    mixed = saem.models.LinearMixed(rows, "y ~ age", "id", "~ age")
    psi = [[62.79026, 8.374898], [8.374898, 2.711702]]
    theta = mixed.pack_params(beta=[149.3718, 6.525467], psi=psi, sigma2=0.6598891**2)
    found = information(mixed, theta)
    nlme = information(model, exact_theta("oxboys"))
    np.testing.assert_allclose(found.bse[:5], nlme.bse[:5], rtol=1e-3)
    np.testing.assert_allclose(found.bse[5], 2 * 0.6598891 * nlme.bse[5], rtol=1e-3)


@pytest.mark.parametrize("error", ["proportional", "combined", "exponential"])
@pytest.mark.parametrize("random_volume", [True, False])
def test_other_errors_and_parameters_without_random_effect(error, random_volume):
    """At the maximum Louis' formula is the observed information; linearised within 30 %."""
    model = shipped(error, random_volume)
    theta = model.fit("em", progress=False).record.theta
    exact = exact_information(model, theta).bse
    np.testing.assert_allclose(louis_information(model, theta).bse, exact, rtol=0.03)
    np.testing.assert_allclose(linearised_information(model, theta).bse, exact, rtol=0.3)


def test_marginal_information_against_dense_matrices():
    """The Woodbury form equals the definition with n_i x n_i matrices."""
    model = shipped("combined")
    theta = model.start(np.random.default_rng(0))
    found = linearised_information(model, theta).matrix
    lin, view = linearise(model, theta), model.theta_spec.view(theta)
    a, b, _ = view["sigma"]
    expected = np.zeros_like(found)
    for i in range(model.n_individuals):
        rows = slice(lin.rows[i], lin.rows[i + 1])
        jacobian, f = lin.jacobian[rows], lin.f[rows]
        inverse = np.linalg.inv(jacobian @ view["omega"] @ jacobian.T + np.diag(lin.variance[rows]))
        expected[:3, :3] += jacobian.T @ inverse @ jacobian
        if model.error.code == 2:
            slopes = [2 * (a + b * abs(f)), 2 * (a + b * abs(f)) * abs(f)]
        else:
            slopes = [np.full(f.size, 2 * a), 2 * b * f**2]
        parts = [np.outer(jacobian[:, k], jacobian[:, k]) for k in range(3)]
        parts += [np.diag(s) for s in slopes]
        for k, one in enumerate(parts):
            for h, other in enumerate(parts):
                expected[3 + k, 3 + h] += 0.5 * np.trace(inverse @ one @ inverse @ other)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10 * expected.max())


def test_jacobian_is_accurate():
    """Differences against the derivative in closed form."""
    model, theta = model_of("pd1"), exact_theta("pd1")
    lin = linearise(model, theta)
    owner = np.repeat(np.arange(model.n_individuals), np.diff(lin.rows))
    e0, top, half = np.exp(lin.phi[owner]).T
    dose = model.individuals.columns["dose"]
    exact = np.stack([e0, top * dose / (half + dose), -top * dose * half / (half + dose) ** 2], 1)
    np.testing.assert_allclose(lin.jacobian, exact, rtol=1e-6)
    np.testing.assert_allclose(lin.f, emax(e0, top, half, dose=dose), rtol=1e-13)


def test_variance_on_the_boundary():
    model = shipped()
    theta = model.start(np.random.default_rng(0))
    at = model.param_names.index("omega2_V")
    estimates = model.estimation_vector(theta)
    estimates[at] = 1e-8
    with pytest.warns(BoundaryWarning, match=r"omega2_V.*random=False"):
        found = linearised_information(model, model.with_estimates(theta, estimates))
    assert found.boundary == ("omega2_V",)
    assert np.flatnonzero(np.isnan(found.bse)).tolist() == [at]
    # The others are as in the model without this random effect.
    without = shipped(random_volume=False)
    numbers = np.delete(estimates, at)
    plain = linearised_information(
        without, without.with_estimates(without.start(np.random.default_rng(0)), numbers)
    )
    np.testing.assert_allclose(np.delete(found.bse, at), plain.bse, rtol=1e-3)


def test_singular_information_names_the_direction():
    def twice(a, b, c, *, Time):
        return a * b + 0.0 * Time + c

    frame = saem.datasets.load("theophylline")
    model = saem.NLME(
        frame[frame["Time"] > 0],
        twice,
        {
            "a": saem.LogNormal(2.0, random=False),
            "b": saem.LogNormal(2.0, random=False),
            "c": saem.Normal(1.0, omega=1.0),
        },
        columns={"id": "Subject", "dv": "conc", "Time": "Time"},
    )
    with pytest.warns(SaemWarning, match="do not tell .*a and b.* apart"):
        found = linearised_information(model, model.start(np.random.default_rng(0)))
    assert np.all(np.isnan(found.bse))
    assert {"a", "b"} <= set(found.unidentified)


def test_model_without_information():
    mixture = saem.models.GaussianMixture(np.random.default_rng(0).normal(size=(20, 2)), 2)
    with pytest.raises(OptionError, match="not available"):
        information(mixture, np.zeros(3))
