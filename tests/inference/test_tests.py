"""Hypothesis tests against closed forms of the linear mixed model, and their level there."""

import functools

import numpy as np
import pandas as pd
import pytest
from reference import shipped
from scipy import stats

import saem
from saem.exceptions import OptionError, SaemWarning
from saem.inference._chi_bar import chi_bar_sf, weights_of
from saem.inference.tests import TestResult, likelihood_ratio, score, wald
from saem.nlme._replicates import replicate, with_responses

AGES = np.linspace(-1.0, 1.0, 5)
EM = saem.EM(acceleration="anderson", estep=saem.Quadrature(3))


def line(base, slope, *, age):
    return base + slope * age


def frame_of(rng, n=50, effect=0.0, slope_sd=0.8):
    weight = rng.normal(size=n)
    b = rng.normal(size=(n, 2)) * [1.5, slope_sd] + [10.0, 3.0]
    b[:, 0] += effect * weight
    dv = b[:, :1] + b[:, 1:] * AGES + 0.5 * rng.normal(size=(n, 5))
    frame = pd.DataFrame({"id": np.repeat(np.arange(n), 5), "age": np.tile(AGES, n)})
    frame["dv"], frame["w"] = dv.ravel(), np.repeat(weight, 5)
    return frame


def model_of(frame, covariate=True, random_slope=True, omega="diagonal", priors=None):
    return saem.NLME(
        frame,
        line,
        {
            "base": saem.Normal(10.0, omega=1.5, covariates="w" if covariate else None),
            "slope": saem.Normal(3.0, omega=0.8 if random_slope else None, random=random_slope),
        },
        error=saem.ConstantError(0.5),
        omega=omega,
        priors=priors,
    )


def fit_of(model):
    return model.fit(EM, progress=False, seed=0)


@functools.cache
def fits(effect=0.3):
    frame = frame_of(np.random.default_rng(12), effect=effect)
    full, without = model_of(frame), model_of(frame, covariate=False)
    return fit_of(full), fit_of(without), frame


# -- Wald ---------------------------------------------------------------------------


def test_wald_p_values_are_two_sided():
    """Closed form: z = estimate / se, p = 2 (1 - Phi(|z|)); not half, not twice that."""
    fit, *_ = fits()
    found = fit.wald_test("beta_base_w")
    z = fit.params["beta_base_w"] / fit.bse["beta_base_w"]
    assert found.table.loc["beta_base_w", "z"] == pytest.approx(z)
    assert found.table.loc["beta_base_w", "p_value"] == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert found.statistic == pytest.approx(z**2)
    assert fit.wald_test().names == ("beta_base_w",)  # all coefficients
    # An interval that just touches the value has the p-value of its level.
    lower = fit.conf_int(0.1).loc["beta_base_w", "lower"]
    assert fit.wald_test({"beta_base_w": lower}).p_value == pytest.approx(0.1)


def test_wald_standard_errors_are_those_of_generalised_least_squares():
    fit, _, frame = fits()
    view = fit.model.theta_spec.view(fit.theta)
    z = np.column_stack([np.ones(5), AGES])
    inverse = np.linalg.inv(z @ view["omega"] @ z.T + view["sigma"][0] ** 2 * np.eye(5))
    total, right = np.zeros((3, 3)), np.zeros(3)
    for _, rows in frame.groupby("id"):
        x = np.column_stack([np.ones(5), rows["w"], AGES])
        total += x.T @ inverse @ x
        right += x.T @ inverse @ rows["dv"].to_numpy()
    beta, covariance = np.linalg.solve(total, right), np.linalg.inv(total)
    joint = wald(fit, {"base": 10.0, "beta_base_w": 0.0, "slope": 3.0})
    gap = beta - [10.0, 0.0, 3.0]
    assert joint.df == 3
    # The observed information differs from the block diagonal one by little.
    assert joint.statistic == pytest.approx(gap @ np.linalg.solve(covariance, gap), rel=0.02)
    contrast = np.array([[0.0, 1.0, -1.0, 0.0, 0.0, 0.0]])
    found = wald(fit, contrast, value=-2.0)
    z = (beta[1] - beta[2] + 2.0) / np.sqrt([0, 1, -1] @ covariance @ [0, 1, -1])
    assert found.table["z"].iloc[0] == pytest.approx(z, rel=0.02)
    assert found.names == ("beta_base_w - slope",)


def test_wald_on_the_scale_of_estimation():
    """A log-normal parameter is tested by its logarithm."""
    fit = shipped().fit("anderson-em", progress=False, seed=1)
    found = fit.wald_test({"ka": 1.0})
    se = fit.information().bse_estimation[0]
    assert found.table.loc["ka", "z"] == pytest.approx(np.log(fit.params["ka"]) / se)
    with pytest.raises(OptionError) as caught:
        fit.wald_test({"kb": 1.0, "omega2_ka": 0.0, "V": -3.0})
    for part in ("'kb' is not one of", "omega2_ka = 0 is the edge", "V = -3 is out of its range"):
        assert part in str(caught.value)
    with pytest.raises(OptionError, match="no covariate coefficient"):
        fit.wald_test()
    with pytest.raises(OptionError, match="not linearly independent"):
        wald(fit, np.ones((2, 7)))


# -- likelihood ratio ------------------------------------------------------------------


def normal_loglik(fit, frame, covariate):
    view = fit.model.theta_spec.view(fit.theta)
    d = view["omega"].shape[0]
    z = np.column_stack([np.ones(5), AGES])[:, :d]
    covariance = z @ view["omega"] @ z.T + view["sigma"][0] ** 2 * np.eye(5)
    total = 0.0
    for _, rows in frame.groupby("id"):
        mean = fit.params["base"] + fit.params["slope"] * AGES
        if covariate:
            mean = mean + fit.params["beta_base_w"] * rows["w"].iloc[0]
        total += stats.multivariate_normal.logpdf(rows["dv"], mean, covariance)
    return total


def test_likelihood_ratio_is_that_of_the_normal_densities():
    full, without, frame = fits()
    found = likelihood_ratio(full, without)
    exact = 2.0 * (normal_loglik(full, frame, True) - normal_loglik(without, frame, False))
    assert found.statistic == pytest.approx(exact, abs=1e-6)
    assert (found.df, found.names, found.weights) == (1, ("beta_base_w",), (1.0,))
    assert found.p_value == pytest.approx(stats.chi2.sf(exact, 1))
    # Importance sampling agrees within 4 of its errors: false alarm 6e-5.
    sampled = likelihood_ratio(full, without, method="importance")
    assert abs(sampled.statistic - exact) < 4.0 * sampled.error


def test_one_variance_is_half_and_half():
    frame = frame_of(np.random.default_rng(3))
    plain, full = model_of(frame, random_slope=False), model_of(frame)
    found = likelihood_ratio(fit_of(full), fit_of(plain))
    assert found.names == ("omega2_slope",)
    assert found.weights == (0.5, 0.5)
    assert found.p_value == pytest.approx(0.5 * stats.chi2.sf(found.statistic, 1))
    block = likelihood_ratio(fit_of(model_of(frame, omega="full")), fit_of(plain))
    assert set(block.names) == {"omega2_slope", "cov_base_slope"}
    s = block.statistic
    assert block.p_value == pytest.approx(0.5 * (stats.chi2.sf(s, 1) + stats.chi2.sf(s, 2)))
    assert "0.5 chi-square(1) + 0.5 chi-square(2)" in block.distribution


def test_a_residual_scale_is_at_its_edge_too():
    fit = shipped("combined").fit("em", progress=False, seed=0)
    plain = shipped("proportional").fit("em", progress=False, seed=0)
    found = likelihood_ratio(fit, plain)
    assert found.names == ("a",)
    assert found.weights == (0.5, 0.5)


def test_an_exponent_is_tested_in_the_interior():
    frame = frame_of(np.random.default_rng(12), effect=0.3)
    models = [
        saem.NLME(
            frame,
            line,
            {"base": saem.Normal(10.0, omega=1.5), "slope": saem.Normal(3.0, random=False)},
            error=error,
        )
        for error in (saem.PowerError(0.1, 1.0), saem.ProportionalError(0.1))
    ]
    full, plain = (m.fit(saem.EM(estep=saem.Quadrature(5)), progress=False) for m in models)
    found = likelihood_ratio(full, plain)
    assert (found.names, found.weights) == (("c",), (1.0,))
    assert found.statistic > 0.0


def test_what_is_not_nested_is_refused():
    full, without, _ = fits()
    with pytest.raises(OptionError, match="lacks beta_base_w"):
        likelihood_ratio(without, full)
    with pytest.raises(OptionError, match="the same parameters"):
        likelihood_ratio(full, full)
    other = model_of(frame_of(np.random.default_rng(4)), covariate=False)
    with pytest.raises(OptionError, match="different data"):
        likelihood_ratio(full, fit_of(other))
    constant, exponential = (shipped(e) for e in ("constant", "exponential"))
    with pytest.raises(OptionError, match="not a special case"):
        score(constant.fit("em", progress=False, seed=0), exponential)


def test_a_full_fit_that_is_not_at_its_maximum_is_told():
    full, without, _ = fits()
    numbers = full.model.estimation_vector(full.theta)
    numbers[0] += 2.0
    from dataclasses import replace

    bad = full.model.results(
        replace(full.record, theta=full.model.with_estimates(full.theta, numbers))
    )
    with pytest.warns(SaemWarning, match="not at its maximum"):
        found = likelihood_ratio(bad, without)
    assert found.p_value == 1.0


def test_priors_are_refused_where_likelihoods_are_compared():
    """Their estimates do not maximise the likelihood; a tested parameter has no own score."""
    full, without, frame = fits()
    model = model_of(frame, priors={"beta_base_w": saem.NormalPrior(0.0, 0.1)})
    with pytest.raises(OptionError, match="beta_base_w, which is tested, has a prior"):
        score(without, model)
    fit = model.results(full.record)
    with pytest.raises(OptionError, match="the test of nested models compares likelihoods"):
        likelihood_ratio(fit, without)


# -- score -----------------------------------------------------------------------------


def test_score_of_a_coefficient_in_closed_form():
    full, without, frame = fits()
    view = without.model.theta_spec.view(without.theta)
    z = np.column_stack([np.ones(5), AGES])
    inverse = np.linalg.inv(z @ view["omega"] @ z.T + view["sigma"][0] ** 2 * np.eye(5))
    slope, matrix = 0.0, np.zeros((3, 3))
    for _, rows in frame.groupby("id"):
        x = np.column_stack([rows["w"], np.ones(5), AGES])
        mean = without.params["base"] + without.params["slope"] * AGES
        slope += x[:, 0] @ inverse @ (rows["dv"].to_numpy() - mean)
        matrix += x.T @ inverse @ x
    efficient = 1.0 / np.linalg.inv(matrix)[0, 0]
    found = score(without, full.model)
    assert found.statistic == pytest.approx(slope**2 / efficient, rel=1e-4)
    assert found.p_value == pytest.approx(stats.chi2.sf(found.statistic, 1))
    # All three are close to each other near the hypothesis.
    for other in (full.wald_test("beta_base_w"), likelihood_ratio(full, without)):
        assert found.statistic == pytest.approx(other.statistic, rel=0.2)


def test_score_of_a_variance_in_closed_form():
    """Score of the variance of the slope at 0, from matrices; one-sided."""
    for sd, seed in ((0.25, 5), (0.0, 6)):
        frame = frame_of(np.random.default_rng(seed), slope_sd=sd)
        plain = fit_of(model_of(frame, random_slope=False))
        full = model_of(frame)
        view = plain.model.theta_spec.view(plain.theta)
        one = np.ones((5, 5))
        a, b = np.outer(AGES, AGES), 2.0 * view["sigma"][0] * np.eye(5)
        inverse = np.linalg.inv(one * view["omega"][0, 0] + view["sigma"][0] ** 2 * np.eye(5))
        slope = 0.0
        for _, rows in frame.groupby("id"):
            mean = plain.params["base"] + plain.params["slope"] * AGES
            r = inverse @ (rows["dv"].to_numpy() - mean - plain.params["beta_base_w"] * rows["w"])
            slope += 0.5 * (r @ a @ r - np.trace(inverse @ a))
        parts = [a, one, b]
        matrix = 50 * np.array(
            [[0.5 * np.trace(inverse @ p @ inverse @ q) for p in parts] for q in parts]
        )
        efficient = 1.0 / np.linalg.inv(matrix)[0, 0]
        z = slope / np.sqrt(efficient)
        found = score(plain, full)
        assert found.names == ("omega2_slope",)
        assert np.sqrt(found.statistic) == pytest.approx(max(z, 0.0), abs=0.01)
        expected = stats.norm.sf(z) if z > 0 else 1.0
        assert found.p_value == pytest.approx(expected, abs=0.005)


def test_score_of_several_with_a_variance_is_refused():
    frame = frame_of(np.random.default_rng(3))
    plain = fit_of(model_of(frame, random_slope=False, covariate=False))
    with pytest.raises(OptionError, match="one variance by itself"):
        score(plain, model_of(frame))


# -- mixtures of chi-squares ---------------------------------------------------------


def test_weights_of_two_and_three():
    independent = weights_of(np.diag([2.0, 5.0]))
    np.testing.assert_allclose(independent, [0.25, 0.5, 0.25])
    correlated = weights_of(np.array([[1.0, 0.6], [0.6, 1.0]]))
    draws = np.random.default_rng(1).multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 200_000)
    # Both are positive in the projection where they are so themselves.
    assert correlated[2] == pytest.approx(np.mean((draws > 0).all(axis=1)), abs=0.005)
    three = weights_of(np.eye(3))
    np.testing.assert_allclose(three, [0.125, 0.375, 0.375, 0.125], atol=4 * 0.0035)


def test_tail_of_a_mixture():
    assert chi_bar_sf(2.7055, np.array([0.5, 0.5]), 0) == pytest.approx(0.05, abs=1e-5)
    assert chi_bar_sf(0.0, np.array([0.5, 0.5]), 0) == 1.0
    assert chi_bar_sf(3.8415, np.ones(1), 1) == pytest.approx(0.05, abs=1e-5)


# -- levels ----------------------------------------------------------------------------


def rejections(n_sets, covariate, seed):
    """Rejections at 10 % of Wald, likelihood-ratio and score tests under the hypothesis."""
    frame = frame_of(np.random.default_rng(seed))
    full = model_of(frame)
    plain = model_of(frame, covariate=False) if covariate else model_of(frame, random_slope=False)
    truth = plain.start(np.random.default_rng(0))  # coefficients and what is left out are 0
    count = np.zeros(3)
    for b in range(n_sets):
        dv = replicate(plain, truth, np.random.default_rng([seed, b]))
        one, other = (with_responses(model, dv) for model in (full, plain))
        fits = fit_of(one), fit_of(other)
        count[1] += likelihood_ratio(*fits).p_value < 0.1
        count[2] += score(fits[1], one).p_value < 0.1
        if covariate:
            count[0] += fits[0].wald_test().p_value < 0.1
    return count / n_sets


@pytest.mark.slow
# EM nears a variance of 0 like 1/k: there the statistic is 0, or a little below it.
@pytest.mark.filterwarnings("ignore::saem.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:the restricted fit has the greater")
@pytest.mark.parametrize("covariate", [True, False])
def test_level_of_the_tests(covariate):
    """300 data sets of 50: level 0.1 +- 0.0173; within 3.5 errors and 0.01 for finite n.

    False alarm 5e-4 each. A variance tested by chi-square(1) would reject half as often.
    """
    found = rejections(300, covariate, 21 if covariate else 22)
    print(f"covariate={covariate}: Wald, likelihood ratio, score reject {found}")
    used = slice(0 if covariate else 1, 3)
    assert np.all(np.abs(found[used] - 0.1) < 3.5 * 0.0173 + 0.01)


def test_outcomes_are_told_in_words():
    result = TestResult(3.84, 1, 0.05, ("beta_CL_w",), "score", "chi-square(1)")
    assert str(result) == ("score test of beta_CL_w: statistic 3.84, chi-square(1), p = 0.05")


def test_score_with_a_prior_on_another_parameter():
    """Neyman's C(alpha): estimates pulled off the maximum give nearly the same statistic."""
    full, without, frame = fits()
    priors = {"slope": saem.NormalPrior(2.6, 0.12)}
    plain = score(without, full.model)
    pulled = fit_of(model_of(frame, covariate=False, priors=priors))
    assert abs(pulled.params["slope"] - without.params["slope"]) > 0.5 * without.bse["slope"]
    found = score(pulled, model_of(frame, priors=priors))
    assert found.names == plain.names
    assert found.statistic == pytest.approx(plain.statistic, rel=0.05)


def test_score_by_importance_sampling(monkeypatch):
    """The same as by quadrature, within four of its errors, and errors small."""
    full, without, _ = fits()
    exact = score(without, full.model)
    monkeypatch.setattr("saem.inference.posterior.nodes_for", lambda *_: None)
    found = score(without, full.model, seed=3)
    assert 0.0 < found.error < 0.05 * max(1.0, exact.statistic)
    assert abs(found.statistic - exact.statistic) < 4.0 * found.error + 1e-3


def quartic(b0, b1, b2, b3, b4, *, x):
    return b0 + x * (b1 + x * (b2 + x * (b3 + x * b4)))


def test_score_with_five_random_effects():
    """Against the closed form at the same estimates, within four reported errors."""
    rng = np.random.default_rng(2)
    n, x = 40, np.linspace(-1.0, 1.0, 8)
    weight = rng.normal(size=n)
    b = rng.normal(size=(n, 5)) * [1.0, 0.8, 0.7, 0.6, 0.6] + [10.0, 3.0, 1.0, 0.5, 0.2]
    b[:, 1] += 0.4 * weight
    powers = np.array([x**k for k in range(5)])
    dv = b @ powers + 0.3 * rng.normal(size=(n, x.size))
    frame = pd.DataFrame({"id": np.repeat(np.arange(n), x.size), "x": np.tile(x, n)})
    frame["dv"], frame["w"] = dv.ravel(), np.repeat(weight, x.size)

    def model(covariate):
        parameters = {
            f"b{k}": saem.Normal(start, omega=0.8, covariates=covariate if k == 1 else None)
            for k, start in enumerate((10.0, 3.0, 1.0, 0.5, 0.2))
        }
        return saem.NLME(frame, quartic, parameters, error=saem.ConstantError(0.3))

    plain = model(None).fit(saem.SAEM(n_smoothing=150), seed=1, progress=False)
    found = score(plain, model("w"))
    view = plain.model.theta_spec.view(plain.theta)
    inverse = np.linalg.inv(powers.T @ view["omega"] @ powers + view["sigma"][0] ** 2 * np.eye(8))
    slope, matrix = np.zeros(6), np.zeros((6, 6))
    for row, w in zip(dv, weight, strict=True):
        design = np.vstack([powers, w * powers[1]])
        slope += design @ inverse @ (row - powers.T @ plain.params.to_numpy()[:5])
        matrix += design @ inverse @ design.T
    # The others' scores taken out, as at the maximum.
    inner = np.linalg.solve(matrix[:5, :5], np.c_[slope[:5], matrix[:5, 5]])
    effective = slope[5] - matrix[5, :5] @ inner[:, 0]
    exact = effective**2 / (matrix[5, 5] - matrix[5, :5] @ inner[:, 1])
    assert found.error < 0.1 * exact
    assert abs(found.statistic - exact) < 4.0 * found.error + 1e-6 * exact
