"""Gaussian mixtures of weighted rows, rows with missing values, and other rows."""

import numpy as np
import pandas as pd
import pytest
from model_references import expected, full_pass
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from saem.algorithms import EM, IncrementalEM
from saem.exceptions import DataError, ModelError
from saem.models._mixture_layout import full_covariances
from saem.models.gaussian_mixture import GaussianMixture, simulate

TYPES = ("full", "tied", "diag", "spherical")


def rows_of(n=120, d=3, seed=1, share=0.0):
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(2, d, d)) * 0.4 + np.eye(d)
    X = simulate(
        rng, n, weights=[0.4, 0.6], means=2.0 * rng.normal(size=(2, d)),
        covariances=roots @ roots.transpose(0, 2, 1), covariance_type="full",
    )[0]  # fmt: skip
    lost = rng.random(X.shape) < share
    lost[np.arange(n), rng.integers(d, size=n)] = False  # no row without any value
    return np.where(lost, np.nan, X)


def loglik_by_rows(model, theta, X):
    """Log-likelihood of each row from the marginal normal densities of what it holds."""
    parts = model.components(theta)
    covariances = full_covariances(
        parts["covariances"], model.covariance_type, model.n_components, model.n_features
    )
    each = np.empty((len(X), model.n_components))
    for i, x in enumerate(X):
        seen = np.flatnonzero(~np.isnan(x))
        for c in range(model.n_components):
            density = multivariate_normal(
                parts["means"][c, seen], covariances[c][np.ix_(seen, seen)]
            )
            each[i, c] = np.log(parts["weights"][c]) + density.logpdf(x[seen])
    return each


def statistic(model, theta, *, by_row=False):
    """Sum of expected statistics, and log-likelihood."""
    s, loglik = (expected if by_row else full_pass)(model, theta)
    return model.n_individuals * s, loglik


# Weights.


@pytest.mark.nojit
@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_weight_is_the_row_that_many_times(covariance_type, share):
    X = rows_of(share=share)
    w = np.random.default_rng(0).integers(0, 4, len(X)).astype(float)
    weighted = GaussianMixture(X, 2, covariance_type=covariance_type, weights=w)
    repeated = GaussianMixture(
        np.repeat(X, w.astype(int), axis=0), 2, covariance_type=covariance_type
    )
    theta = repeated.start(np.random.default_rng(0))
    s, loglik = statistic(repeated, theta)
    for by_row in (False, True):
        t, other = statistic(weighted, theta, by_row=by_row)
        np.testing.assert_allclose(t, s, rtol=1e-11, atol=1e-11)
        assert other == pytest.approx(loglik, rel=1e-12)
    again = GaussianMixture(X, 2, covariance_type=covariance_type).reweighted(w)
    np.testing.assert_array_equal(again.values, weighted.values)
    for model in (weighted, again):
        assert model.total_weight == repeated.n_individuals == model.nobs
        assert model.loglik(theta) == pytest.approx(repeated.loglik(theta), rel=1e-12)
        assert model.icl(theta) == pytest.approx(repeated.icl(theta), rel=1e-12)
        np.testing.assert_allclose(
            model.cov_params(theta), repeated.cov_params(theta), rtol=1e-6, atol=1e-10
        )
    np.testing.assert_allclose(
        weighted._moments_of_rows().cov, repeated._moments_of_rows().cov, rtol=1e-10
    )


@pytest.mark.parametrize("covariance_type", TYPES)
def test_weighted_fits_equal_repeated_rows(covariance_type):
    X = rows_of()
    w = np.random.default_rng(0).integers(0, 4, len(X)).astype(float)
    repeated = GaussianMixture(
        np.repeat(X, w.astype(int), axis=0), 2, covariance_type=covariance_type
    )
    start = repeated.start(np.random.default_rng(0))
    weighted = GaussianMixture(X, 2, covariance_type=covariance_type, weights=w)
    algorithm = EM(n_iter=30, tolerance=None)
    one, two = (m.fit(algorithm, start=start, seed=0) for m in (weighted, repeated))
    np.testing.assert_allclose(one.params, two.params, rtol=1e-7, atol=1e-9)
    assert one.bic == pytest.approx(two.bic, rel=1e-10)
    assert one.nobs == two.nobs
    assert "Sum of weights" in str(one.summary())
    # rows of weight 0 are absent from incremental EM, too
    iem = weighted.fit(IncrementalEM(n_epochs=3), start=one.theta, seed=1)
    assert np.all(np.isfinite(iem.params))


def test_weighted_starts():
    X = np.concatenate([np.zeros(50), np.full(50, 3.0), np.full(50, 50.0)])[:, None]
    X += 0.1 * np.random.default_rng(0).standard_normal(X.shape)
    w = np.repeat([1.0, 1.0, 0.0], 50)
    for init in ("kmeans++", "random"):
        model = GaussianMixture(X, 2, weights=w, init=init)
        means = model.components(model.start(np.random.default_rng(0)))["means"]
        assert means.max() < 4.0  # rows without weight start nothing
    heavy = np.repeat([1.0, 1e-9, 1.0], 50)
    means = [
        np.sort(m.components(m.start(np.random.default_rng(s)))["means"].ravel())
        for s in range(5)
        for m in [GaussianMixture(X, 2, weights=heavy)]
    ]
    np.testing.assert_allclose(means, [[0.0, 50.0]] * 5, atol=0.1)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ([1.0, 2.0], "shape"),
        (np.full(50, -1.0), "at least 0"),
        (np.full(50, np.nan), "finite"),
        (np.zeros(50), "all weights are 0"),
        (np.eye(50)[0], "exceeds the number of rows, 1"),
        (["x"] * 50, "numbers"),
    ],
)
def test_bad_weights(weights, text):
    X = rows_of(50)
    with pytest.raises(DataError, match=text):
        GaussianMixture(X, 2, weights=weights)
    if "exceeds" not in text:
        with pytest.raises(DataError, match=text):
            GaussianMixture(X, 2).reweighted(weights)


# Missing values.


@pytest.mark.nojit
@pytest.mark.parametrize("covariance_type", TYPES)
def test_posteriors_of_incomplete_rows_are_those_of_marginals(covariance_type):
    X = rows_of(share=0.4)
    model = GaussianMixture(X, 2, covariance_type=covariance_type)
    theta = model.start(np.random.default_rng(0))
    each = loglik_by_rows(model, theta, X)
    expected = logsumexp(each, axis=1)
    probabilities, log_lik = model.posterior(theta)
    np.testing.assert_allclose(log_lik, expected, rtol=1e-10)
    np.testing.assert_allclose(probabilities, np.exp(each - expected[:, None]), rtol=1e-9)
    np.testing.assert_array_equal(model.predict(theta), each.argmax(axis=1))
    assert model.loglik(theta) == pytest.approx(expected.sum(), rel=1e-12)
    s, loglik = statistic(model, theta)
    t, other = statistic(model, theta, by_row=True)
    assert loglik == pytest.approx(expected.sum(), rel=1e-11)
    assert other == pytest.approx(loglik, rel=1e-12)
    np.testing.assert_allclose(t, s, rtol=1e-11, atol=1e-11)


@pytest.mark.nojit
@pytest.mark.parametrize("covariance_type", TYPES)
def test_complete_rows_in_the_layout_for_missing_values(covariance_type):
    X = rows_of()
    plain = GaussianMixture(X, 2, covariance_type=covariance_type)
    ready = GaussianMixture(X, 2, covariance_type=covariance_type, missing=True)
    theta = plain.start(np.random.default_rng(0))
    np.testing.assert_array_equal(ready.start(np.random.default_rng(0)), theta)
    s, loglik = statistic(plain, theta)
    t, other = statistic(ready, theta)
    np.testing.assert_allclose(t[: s.size], s, rtol=1e-11)
    assert other == pytest.approx(loglik, rel=1e-12)
    a, b = theta.copy(), theta.copy()
    assert plain._functions.maximize(s, a) == ready._functions.maximize(t, b) == 0
    np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_em_reaches_the_maximum_of_the_observed_likelihood(covariance_type):
    X = rows_of(60, 2, share=0.25)
    model = GaussianMixture(X, 2, covariance_type=covariance_type, reg_covar=0.0)
    fit = model.fit(EM(n_iter=5000, tolerance=1e-11), seed=0)
    loglik = fit.trace["loglik"].to_numpy()
    assert np.all(np.diff(loglik[1:]) > -1e-9)

    def objective(x):
        params = np.concatenate([[x[0], 1.0 - x[0]], x[1:]])
        try:
            theta = model.theta_of(params)
        except ModelError:
            return 1e6
        if not 0.0 < x[0] < 1.0:
            return 1e6
        return -logsumexp(loglik_by_rows(model, theta, X), axis=1).sum()

    x0 = np.delete(fit.params.to_numpy(), 1)
    x0 = x0 + 0.02 * np.random.default_rng(0).standard_normal(x0.size)
    found = minimize(objective, x0, method="BFGS", options={"gtol": 1e-5, "maxiter": 60})
    assert fit.llf == pytest.approx(-found.fun, abs=1e-6)
    np.testing.assert_allclose(np.delete(fit.params.to_numpy(), 1), found.x, atol=1e-3)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_scores_of_incomplete_rows_equal_differences(covariance_type):
    model = GaussianMixture(rows_of(40, share=0.3), 2, covariance_type=covariance_type)
    theta = model.start(np.random.default_rng(0))
    exact, params, jacobian = (
        model.scores(theta, slice(None)), model.params_of(theta), model._jacobian()
    )  # fmt: skip
    h = 1e-5
    for j in range(model.n_params):
        ahead, behind = (
            model.score_samples(model.theta_of(params + e * h * jacobian[:, j])) for e in (1, -1)
        )
        np.testing.assert_allclose(exact[:, j], (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-6)


def test_missing_values_need_room():
    X = rows_of(share=0.2)
    with pytest.raises(DataError, match="is missing"):
        GaussianMixture(X, 2, missing=False)
    empty = X.copy()
    empty[7] = np.nan
    with pytest.raises(DataError, match="row 7 holds no value at all"):
        GaussianMixture(empty, 2)
    column = X.copy()
    column[:, 1] = np.nan
    with pytest.raises(DataError, match="column 'x1' holds no value"):
        GaussianMixture(column, 2)
    complete = GaussianMixture(rows_of(), 2, covariance_type="diag")
    with pytest.raises(DataError, match="make it with missing=True"):
        complete.with_data(X)
    with pytest.raises(ModelError, match="missing='yes'"):
        GaussianMixture(X, 2, missing="yes")


def test_prediction_of_rows_with_little_or_nothing():
    model = GaussianMixture(rows_of(), 2)
    theta = model.start(np.random.default_rng(0))
    X = rows_of(10, seed=3, share=0.5)
    X[4] = np.nan
    probabilities, log_lik = model.posterior(theta, X)
    np.testing.assert_allclose(probabilities[4], model.components(theta)["weights"])
    assert log_lik[4] == pytest.approx(0.0, abs=1e-14)
    keep = np.arange(10) != 4
    expected = logsumexp(loglik_by_rows(model, theta, X[keep]), axis=1)
    np.testing.assert_allclose(log_lik[keep], expected, rtol=1e-10)
    with pytest.raises(DataError, match="is missing"):
        GaussianMixture(rows_of(), 2, missing=False).predict(theta, X)


def test_results_of_incomplete_rows():
    frame = pd.DataFrame(rows_of(200, share=0.2), columns=["a", "b", "c"])
    fit = GaussianMixture(frame, 2).fit("em", seed=1)
    assert fit.converged
    assert fit.model.n_missing == int(frame.isna().to_numpy().sum())
    assert "Missing values" in str(fit.summary())
    assert fit.bse.notna().all()
    assert fit.predict(frame.head(3)[["c", "b", "a"]]).shape == (3,)


def test_a_far_origin_costs_no_accuracy_with_missing_values():
    X = rows_of(share=0.2)
    near, far = GaussianMixture(X, 2), GaussianMixture(X + 1e7, 2)
    starts = [m.start(np.random.default_rng(0)) for m in (near, far)]
    assert far.loglik(starts[1]) == pytest.approx(near.loglik(starts[0]), rel=1e-6)
    again = far.with_data(X[:20] + 1e7)
    np.testing.assert_array_equal(again.rows, far.rows[:20])


# Other rows.


@pytest.mark.parametrize("covariance_type", TYPES)
def test_with_data_keeps_everything_but_the_rows(covariance_type):
    frame = pd.DataFrame(rows_of(), columns=["a", "b", "c"])
    whole = GaussianMixture(frame, 2, covariance_type=covariance_type, missing=True)
    theta = whole.start(np.random.default_rng(0))
    total, loglik = statistic(whole, theta)
    sums, logliks = np.zeros_like(total), 0.0
    for first in range(0, len(frame), 50):
        chunk = whole.with_data(frame[["b", "c", "a"]].iloc[first : first + 50])
        assert chunk.param_names == whole.param_names
        s, one = statistic(chunk, theta)
        sums += s
        logliks += one
    np.testing.assert_allclose(sums, total, rtol=1e-12, atol=1e-12)
    assert logliks == pytest.approx(loglik, rel=1e-12)
    lone = whole.with_data(frame.head(1))
    assert lone.n_individuals == 1
    assert lone.loglik(theta) == pytest.approx(whole.score_samples(theta)[0])
    holes = whole.with_data(rows_of(share=0.5), weights=np.full(120, 2.0))
    assert holes.stat_spec.shapes == whole.stat_spec.shapes
    fit = holes.fit("em", start=theta, seed=0)
    assert fit.converged
    assert holes.start(np.random.default_rng(1)).shape == theta.shape
    with pytest.raises(DataError, match="column 'c' is missing"):
        whole.with_data(frame[["a", "b"]])


def test_other_rows_are_used_without_a_copy():
    model, X = GaussianMixture(rows_of(), 2), rows_of(seed=9)
    assert np.shares_memory(model.with_data(X).values, X)
    assert model.with_data(X).row_weights is None


def test_examples():
    for covariance_type in TYPES:
        model = GaussianMixture.example(
            np.random.default_rng(0), covariance_type=covariance_type, weighted=True, missing=0.2
        )
        assert model.n_individuals == 60
        assert 0 < model.n_missing < 30
        start = model.start(np.random.default_rng(1))
        np.testing.assert_array_equal(start, model.start(np.random.default_rng(2)))
        truth = GaussianMixture.example(np.random.default_rng(0), covariance_type=covariance_type)
        fit = truth.fit("em")
        assert np.abs(fit.means - truth.components(start)["means"]).max() < 1.0
