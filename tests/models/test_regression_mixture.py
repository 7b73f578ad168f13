"""Mixtures of regressions against plain NumPy, an optimiser and ordinary least squares."""

import numpy as np
import pandas as pd
import pytest
from model_references import (
    check_affine,
    check_draws,
    check_maximum,
    check_scale_free,
    check_weights,
    expected,
    run_em,
)
from record_mixtures import (
    check_errors,
    check_inadmissible,
    check_repetitions,
    classified,
    em,
    free_along,
)
from scipy import stats
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from saem.algorithms import IncrementalEM
from saem.exceptions import DataError, ModelError
from saem.models.regression_mixture import RegressionMixture


def data_of(n=150, seed=2, holes=True):
    rng = np.random.default_rng(seed)
    X, y, _ = RegressionMixture.simulate(rng, n)
    X = np.column_stack([X, rng.uniform(5, 7, n)])
    if holes:
        y[rng.random(n) < 0.1] = np.nan
    return X, y


def model_of(n=150, seed=2, holes=True, **options):
    return RegressionMixture(*data_of(n, seed, holes), 2, **options)


def with_ones(X):
    return np.column_stack([np.ones(len(X)), X])


def log_joint(parts, x, y):
    mean, sd = x @ parts["coefficients"].T, np.sqrt(parts["variances"])
    density = np.where(np.isnan(y)[:, None], 0.0, stats.norm(mean, sd).logpdf(y[:, None]))
    return np.log(parts["weights"]) + density


@pytest.mark.nojit
def test_posterior_equals_scipy():
    X, y = data_of(60)
    model = RegressionMixture(X, y, 2)
    theta = model.start(np.random.default_rng(0))
    joint = log_joint(model.components(theta), with_ones(X), y)
    margin = logsumexp(joint, axis=1)
    probabilities, log_lik = model.posterior(theta)
    np.testing.assert_allclose(log_lik, margin, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(probabilities, np.exp(joint - margin[:, None]), atol=1e-10)
    np.testing.assert_array_equal(model.predict(theta, (X, y)), joint.argmax(axis=1))
    seen = ~np.isnan(y)
    s, total = classified(model, theta)
    assert total == pytest.approx(joint[seen].max(axis=1).sum(), rel=1e-9)
    np.testing.assert_allclose(s[:2] * 60, np.bincount(joint[seen].argmax(axis=1)), rtol=1e-12)
    assert model.nobs == model.total_weight == seen.sum()


@pytest.mark.parametrize("common", [False, True])
def test_em_equals_plain_numpy_step_by_step(common):
    X, y = data_of(holes=False)
    model = RegressionMixture(X, y, 2, common_variance=common, alpha=1e-14)
    theta, x = model.start(np.random.default_rng(0)), with_ones(X)
    parts = model.components(theta)
    for _ in range(20):
        joint = log_joint(parts, x, y)
        margin = logsumexp(joint, axis=1)
        r = np.exp(joint - margin[:, None])
        assert model.loglik(theta) == pytest.approx(margin.sum(), rel=1e-10)
        theta = em(model, theta, 1)
        beta = [np.linalg.lstsq(x * np.sqrt(w)[:, None], y * np.sqrt(w))[0] for w in r.T]
        left = np.array([w @ (y - x @ b) ** 2 for w, b in zip(r.T, beta, strict=True)])
        variances = left / r.sum(axis=0)
        if common:
            variances[:] = left.sum() / len(y)
        parts = {
            "weights": r.mean(axis=0), "coefficients": np.array(beta), "variances": variances,
        }  # fmt: skip
        for name, value in model.components(theta).items():
            np.testing.assert_allclose(value, parts[name], rtol=1e-8, atol=1e-9)


def test_em_climbs_to_the_maximum_of_an_optimiser():
    X, y = data_of()
    model = RegressionMixture(X, y, 2, alpha=1e-12)
    theta, x = model.start(np.random.default_rng(0)), with_ones(X)
    fit = run_em(model, theta)

    def back(u):
        return {
            "weights": softmax(u[:2]), "coefficients": u[2:8].reshape(2, 3),
            "variances": np.exp(u[8:]),
        }  # fmt: skip

    def negative(u):
        return -logsumexp(log_joint(back(u), x, y), axis=1).sum()

    parts = model.components(theta)
    u = np.concatenate(
        [np.log(parts["weights"]), parts["coefficients"].ravel(), np.log(parts["variances"])]
    )
    found = minimize(negative, u, method="BFGS", options={"gtol": 1e-5})
    assert fit.llf == pytest.approx(-found.fun, abs=1e-6)
    other = model.fit(IncrementalEM(n_epochs=5), start=fit.theta, seed=0, progress=False)
    np.testing.assert_allclose(other.params, fit.params, rtol=1e-4, atol=1e-5)


def test_one_component_is_ordinary_least_squares():
    import statsmodels.api as sm

    X, y = data_of()
    seen = ~np.isnan(y)
    weights = np.random.default_rng(0).uniform(0.5, 2.0, len(y))
    fit = RegressionMixture(X, y, 1, weights=weights).fit("em", progress=False)
    peer = sm.WLS(y[seen], with_ones(X[seen]), weights=weights[seen]).fit()
    np.testing.assert_allclose(fit.coefficients[0], peer.params, rtol=1e-8)
    left = weights[seen] @ peer.resid**2 / weights[seen].sum()
    assert fit.variances[0] == pytest.approx(left, rel=1e-8)
    np.testing.assert_allclose(fit.predict_response(X[:5]), peer.predict(with_ones(X[:5])))
    plain = RegressionMixture(X, y, 1).fit("em", progress=False)
    ols = sm.OLS(y[seen], with_ones(X[seen])).fit()
    assert plain.llf == pytest.approx(ols.llf, abs=1e-8)
    scale = np.sqrt((seen.sum() - 3) / seen.sum())  # least squares divides by n - p
    np.testing.assert_allclose(plain.bse.iloc[1:4], ols.bse * scale, rtol=1e-5)


@pytest.mark.parametrize("common", [False, True])
def test_maximize_maximises_the_surrogate(common):
    model = model_of(60, common_variance=common, alpha=1e-2)
    theta = model.start(np.random.default_rng(0))
    s, _ = expected(model, theta)
    check_maximum(model, s, theta, free_along(model))
    check_affine(model, theta)
    check_scale_free(model, s, theta)


@pytest.mark.nojit
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_draws_follow_the_posterior():
    model = model_of(60)
    theta = model.start(np.random.default_rng(0))
    p = model.predict_proba(theta)[:, 0]
    y = model.values.reshape(60, -1)[:, 1]
    check_draws(model, theta, int(np.where(np.isnan(y), 1.0, abs(p - 0.5)).argmin()), 1000)


def test_weights_are_repeated_rows():
    X, y = data_of(80)
    model = RegressionMixture(X, y, 2)
    counts = np.random.default_rng(0).integers(0, 4, 80)
    rows = np.repeat(np.arange(80), counts)
    repeated = model.with_data((X[rows], y[rows]))
    theta = model.start(np.random.default_rng(0))
    check_weights(model.reweighted(counts), repeated, theta)
    full = model_of(80, holes=False)
    X, y = data_of(80, holes=False)
    check_repetitions(full, full.with_data((X[rows], y[rows])), counts, theta)


def test_rows_without_response_say_nothing():
    X, y = data_of()
    seen = ~np.isnan(y)
    whole, part = RegressionMixture(X, y, 2), RegressionMixture(X[seen], y[seen], 2)
    start = part.components(part.start(np.random.default_rng(0)))
    fits = [
        RegressionMixture(X, y, 2, init=start).fit("em", progress=False),
        RegressionMixture(X[seen], y[seen], 2, init=start).fit("em", progress=False),
    ]
    np.testing.assert_allclose(fits[0].params, fits[1].params, rtol=1e-8)
    for answer in ("llf", "aic", "bic", "icl", "nobs"):
        assert getattr(fits[0], answer) == pytest.approx(getattr(fits[1], answer), rel=1e-10)
    prior = np.tile(fits[0].weights, (int((~seen).sum()), 1))
    np.testing.assert_allclose(fits[0].predict_proba()[~seen], prior, rtol=1e-12)
    np.testing.assert_allclose(fits[0].predict_proba((X[~seen], y[~seen])), prior, rtol=1e-12)
    assert whole.n_individuals == len(y)


@pytest.mark.nojit
def test_inadmissible_statistics():
    model = model_of(60)
    theta = model.start(np.random.default_rng(0))
    s, _ = expected(model, theta)
    bad = [-s, np.full_like(s, np.nan), np.zeros_like(s)]
    spots = [(0, 0.0), (0, -0.1), (2, -1.0), (4, 50.0), (10, -0.3), (s.size - 1, -9.0)]
    for i, value in spots:
        worse = s.copy()
        worse[i] = value
        bad.append(worse)
    check_inadmissible(model, theta, bad)
    fine = s.copy()
    model._functions.project(fine, theta)
    np.testing.assert_array_equal(fine, s)


@pytest.mark.parametrize("common", [False, True])
def test_standard_errors_are_those_of_the_likelihood(common):
    model = model_of(300, common_variance=common)
    fit = run_em(model, model.start(np.random.default_rng(0)))
    check_errors(model, fit)


@pytest.mark.parametrize("init", ["clusterwise", "random"])
def test_starts_are_random_and_reproducible(init):
    model = model_of(init=init)
    first, again = (model.start(np.random.default_rng(seed)) for seed in (3, 3))
    np.testing.assert_array_equal(first, again)
    fit = model.fit("em", seed=0, n_starts=4, progress=False)
    assert fit.converged
    slopes = np.sort(fit.coefficients[:, 1])
    np.testing.assert_allclose(slopes, [-1.5, 2.0], atol=0.4)


def test_components_go_back_and_forth():
    model = model_of()
    theta = model.start(np.random.default_rng(0))
    parts = model.components(theta)
    np.testing.assert_allclose(model.pack_components(**parts), theta, rtol=1e-9, atol=1e-11)
    given = model_of(init=parts)
    np.testing.assert_allclose(given.start(np.random.default_rng(5)), theta, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(model.theta_of(model.params_of(theta)), theta, rtol=1e-9, atol=1e-11)


def test_formulas_with_categories():
    rng = np.random.default_rng(0)
    X, y, _ = RegressionMixture.simulate(rng, 200)
    frame = pd.DataFrame({"y": y, "x": X[:, 0], "group": rng.choice(["a", "b", "c"], 200)})
    frame.loc[3, "y"] = np.nan
    model = RegressionMixture.from_formula("y ~ x + group", frame, 2)
    assert model.terms == ["Intercept", "x", "group[T.b]", "group[T.c]"]
    dummies = np.column_stack([X, frame["group"] == "b", frame["group"] == "c"]).astype(float)
    same = RegressionMixture(dummies, frame["y"].to_numpy(), 2)
    theta = model.start(np.random.default_rng(1))
    assert model.loglik(theta) == pytest.approx(same.loglik(theta), rel=1e-12)
    fit = model.fit("em", seed=0, progress=False)
    # new rows are coded as the fit's, though they lack levels
    part = frame[frame["group"] == "c"]
    whole = fit.score_samples()[(frame["group"] == "c").to_numpy()]
    np.testing.assert_allclose(fit.score_samples(part), whole, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        fit.predict_response(frame[["x", "group"]]), fit.predict_response(), rtol=1e-9
    )
    drawn, labels = fit.sample(frame, seed=1)
    assert drawn.shape == labels.shape == (200,)
    scaled = RegressionMixture.from_formula("np.exp(y) ~ x", frame.assign(y=frame.y / 9), 2)
    assert scaled.nobs == 199


def test_samples_have_the_fitted_distribution():
    model = model_of()
    theta = model.start(np.random.default_rng(0))
    X = np.tile(data_of()[0], (100, 1))
    y, labels = model.sample(theta, X, np.random.default_rng(3))
    parts = model.components(theta)
    for c in range(2):
        own = labels == c
        z = (y - with_ones(X) @ parts["coefficients"][c])[own] / np.sqrt(parts["variances"][c])
        assert stats.kstest(z, stats.norm.cdf).pvalue > 1e-4  # the false alarm
        share = own.mean() - parts["weights"][c]
        assert abs(share) < 4.5 * np.sqrt(0.25 / len(y))


def test_all_problems_are_told_at_once():
    X, y = data_of(40)
    with pytest.raises(ModelError) as caught:
        RegressionMixture(X, y, 0, init="clusterwis", alpha=2)
    for text in ("n_components=0", "did you mean 'clusterwise'", "alpha=2"):
        assert text in str(caught.value)
    holed = X.copy()
    holed[2, 1] = np.nan
    with pytest.raises(DataError, match=r"row 2, 'x1': the value nan is missing.*only responses"):
        RegressionMixture(holed, y, 2)
    with pytest.raises(DataError, match="y has shape"):
        RegressionMixture(X, y[:5], 2)
    with pytest.raises(DataError, match="'x2' is a linear combination of the terms before it"):
        RegressionMixture(np.column_stack([X, X[:, 0] + 1.0]), y, 2)
    with pytest.raises(DataError, match="too few for 12 components"):
        RegressionMixture(X, y, 12)
    with pytest.raises(DataError, match="fits the response exactly"):
        RegressionMixture(X, X[:, 0], 2)
    with pytest.raises(DataError, match=r"a pair \(X, y\)"):
        RegressionMixture(X, y, 2).with_data(X)
    with pytest.raises(DataError, match="X has 1 columns; the model has 2"):
        RegressionMixture(X, y, 2).with_data((X[:, :1], y))
    wrong = {"weights": [0.5, 0.6], "coefficients": np.zeros((2, 3)), "variances": [1.0, -1.0]}
    with pytest.raises(ModelError) as caught:
        RegressionMixture(X, y, 2, init=wrong)
    assert "sum to 1.1" in str(caught.value)
    assert "variances must all be above 0" in str(caught.value)


def test_problems_of_formulas():
    frame = pd.DataFrame({"y": [1.0, 2.0, 4.0], "age": [1.0, np.nan, 2.0], "g": ["a", "b", None]})
    with pytest.raises(DataError) as caught:
        RegressionMixture.from_formula("y ~ age + g", frame, 2)
    assert "row 1, column 'age'" in str(caught.value)
    assert "row 2, column 'g'" in str(caught.value)
    with pytest.raises(DataError, match=r"column 'agee' is missing.*did you mean 'age'"):
        RegressionMixture.from_formula("y ~ agee", frame, 2)
    with pytest.raises(ModelError, match="names no response"):
        RegressionMixture.from_formula("~ age", frame, 2)
    with pytest.raises(ModelError, match="must be text"):
        RegressionMixture.from_formula(3, frame, 2)
    with pytest.raises(DataError, match="must be a DataFrame"):
        RegressionMixture.from_formula("y ~ age", [[1, 2]], 2)
    with pytest.raises(DataError, match="one numeric column"):
        RegressionMixture.from_formula("g ~ y", frame, 2)


def test_examples_start_near_the_truth():
    model = RegressionMixture.example(np.random.default_rng(11))
    assert model.n_individuals == 60
    fit = model.fit("em", progress=False)
    assert fit.converged
    assert np.all(fit.weights > 0.15)
    assert "ixture of regressions" in str(fit.summary())
