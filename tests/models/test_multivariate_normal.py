"""Multivariate normal with missing entries, against SciPy and closed forms."""

import numpy as np
import pandas as pd
import pytest
from model_references import (
    check_affine,
    check_draws,
    check_maximum,
    check_refused,
    check_scale_free,
    check_weights,
    drawn,
    expected,
    normal_loglik,
    plain_errors,
    run_em,
)
from scipy.optimize import minimize

from saem.exceptions import DataError, ModelError, SaemWarning
from saem.models.multivariate_normal import MultivariateNormal, simulate

LOW = np.tril_indices(3)


def make_model(n=40, seed=1, **options):
    X, _ = simulate(np.random.default_rng(seed), n, missing=0.3, **options)
    X[3] = np.nan  # nothing seen
    X[4, :2] = np.nan
    return MultivariateNormal(X)


def make_theta(model):
    return model.pack_params(
        mean=[0.8, -1.5, 0.2], covariance=[[1.2, 0.5, 0.2], [0.5, 1.7, -0.3], [0.2, -0.3, 1.1]]
    )


def free(model):
    """Mean and log-Cholesky factor as unconstrained coordinates."""

    def coordinates(theta):
        parts = model.components(theta)
        factor = np.linalg.cholesky(parts["covariance"])
        factor[np.diag_indices(3)] = np.log(np.diag(factor))

        def back(x):
            out = np.zeros((3, 3))
            out[LOW] = x[3:]
            out[np.diag_indices(3)] = np.exp(np.diag(out))
            return model.pack_params(mean=x[:3], covariance=out @ out.T)

        return np.concatenate([parts["mean"], factor[LOW]]), back

    return coordinates


@pytest.mark.nojit
def test_expectation_equals_conditional_moments():
    model = make_model()
    theta = make_theta(model)
    parts = model.components(theta)
    mean, cov = parts["mean"], parts["covariance"]
    total = np.zeros((4, 4))
    for row in model.data:
        seen = ~np.isnan(row)
        lost = ~seen
        full, spread = row.copy(), np.zeros((3, 3))
        if lost.any():
            gain = cov[np.ix_(lost, seen)] @ np.linalg.inv(cov[np.ix_(seen, seen)])
            full[lost] = mean[lost] + gain @ (row[seen] - mean[seen])
            spread[np.ix_(lost, lost)] = cov[np.ix_(lost, lost)] - gain @ cov[np.ix_(seen, lost)]
        extended = np.append(1.0, full - model.shift)
        total += np.outer(extended, extended)
        total[1:, 1:] += spread
    s, loglik = expected(model, theta)
    view = model.stat_spec.view(s * model.n_individuals)
    np.testing.assert_allclose(view["weight"], total[0, 0])
    np.testing.assert_allclose(view["sums"], total[0, 1:], atol=1e-11)
    np.testing.assert_allclose(view["squares"], total[1:, 1:][LOW], atol=1e-11)
    np.testing.assert_allclose(loglik, normal_loglik(model.data, mean, cov), rtol=1e-12)
    np.testing.assert_allclose(model.loglik(theta), loglik, rtol=1e-12)


def test_m_step_is_the_maximum_of_the_surrogate():
    model = make_model()
    theta = make_theta(model)
    s, _ = expected(model, theta)
    check_maximum(model, s, theta, free(model))
    check_scale_free(model, s, theta)
    check_affine(model, theta)


def test_em_reaches_the_direct_maximum():
    model = make_model()
    fit = run_em(model)
    x, back = free(model)(model.start(np.random.default_rng(0)))

    def loss(u):
        parts = model.components(back(u))
        return -normal_loglik(model.data, parts["mean"], parts["covariance"])

    found = minimize(loss, x, method="BFGS", options={"gtol": 1e-6})
    assert fit.llf == pytest.approx(-found.fun, abs=1e-6)
    np.testing.assert_allclose(fit.params, model.params_of(back(found.x)), atol=2e-5)
    np.testing.assert_allclose(fit.bse, plain_errors(model, fit.params), rtol=1e-3)


def test_monotone_missing_data_have_a_closed_form():
    """Drop-out: regressions of each column on those before it (Anderson 1957)."""
    X, _ = simulate(np.random.default_rng(5), 120, missing=0.25, monotone=True)
    fit = run_em(MultivariateNormal(X))
    mean, cov = np.empty(3), np.empty((3, 3))
    for j in range(3):
        rows = X[~np.isnan(X[:, j])]
        design = np.column_stack([np.ones(len(rows)), rows[:, :j]])
        beta = np.linalg.lstsq(design, rows[:, j], rcond=None)[0]
        left = np.mean((rows[:, j] - design @ beta) ** 2)
        slope = beta[1:]
        mean[j] = beta[0] + slope @ mean[:j]
        cov[j, :j] = cov[:j, j] = cov[:j, :j] @ slope
        cov[j, j] = left + slope @ cov[:j, :j] @ slope
    np.testing.assert_allclose(fit.mean, mean, atol=1e-5)
    np.testing.assert_allclose(fit.covariance, cov, atol=1e-5)
    assert fit.llf == pytest.approx(normal_loglik(X, mean, cov), abs=1e-7)


def test_complete_data_take_one_step():
    X = simulate(np.random.default_rng(2), 50)[1]
    model = MultivariateNormal(X)
    theta = model.start(np.random.default_rng(0))
    s, _ = expected(model, theta)
    assert model._functions.maximize(s, theta) == 0
    parts = model.components(theta)
    np.testing.assert_allclose(parts["mean"], X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(parts["covariance"], np.cov(X.T, bias=True), rtol=1e-11)


@pytest.mark.nojit
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_draws_follow_the_conditional_distribution():
    model = make_model()
    theta = make_theta(model)
    check_draws(model, theta, 3, n=1000)
    check_draws(model, theta, 4, n=1000)
    whole = int(np.flatnonzero(~np.isnan(model.data).any(axis=1))[0])
    np.testing.assert_array_equal(drawn(model, theta, whole, 2), 0.0)


def test_weights_are_repetitions():
    model = make_model(n=20)
    weights = np.random.default_rng(0).integers(0, 4, 20).astype(float)
    weights[:3] = [0.0, 1.0, 2.0]
    frame = pd.DataFrame(model.data, columns=model.feature_names)
    repeated = model.with_data(np.repeat(model.data, weights.astype(int), axis=0))
    check_weights(model.reweighted(weights), repeated, make_theta(model))
    direct = MultivariateNormal(frame, weights=weights)
    again = MultivariateNormal(np.repeat(model.data, weights.astype(int), axis=0))
    np.testing.assert_allclose(run_em(direct).llf, run_em(again).llf, rtol=1e-10)
    np.testing.assert_array_equal(direct.weights, weights)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda v: v["weight"].__setitem__((), -0.1),
        lambda v: v["weight"].__setitem__((), 0.0),
        lambda v: v["squares"].__setitem__(0, -1.0),
        lambda v: v["squares"].__setitem__(1, 9.0),
        lambda v: v["squares"].__setitem__(2, np.nan),
        lambda v: v["sums"].__setitem__(2, np.inf),
        lambda v: v["sums"].__setitem__(1, 1e9),
    ],
)
def test_inadmissible_statistics_are_refused_and_repaired(spoil):
    model = make_model()
    theta = make_theta(model)
    s, _ = expected(model, theta)
    fine = s.copy()
    model._functions.project(fine, theta)
    np.testing.assert_array_equal(fine, s)
    spoil(model.stat_spec.view(s))
    check_refused(model, s, theta)


def test_repair_is_small():
    """A covariance that is barely indefinite changes by a few millionths."""
    model = make_model()
    theta = make_theta(model)
    s, _ = expected(model, theta)
    view = model.stat_spec.view(s)
    cov = np.empty((3, 3))
    cov[LOW] = cov.T[LOW] = view["squares"] - np.outer(view["sums"], view["sums"])[LOW]
    values, vectors = np.linalg.eigh(cov)
    view["squares"][:] -= (values[0] + 1e-6) * np.outer(vectors[:, 0], vectors[:, 0])[LOW]
    repaired = check_refused(model, s, theta)
    assert 0.0 < np.abs(repaired - s).max() < 2e-5
    assert repaired[0] == s[0]


@pytest.mark.parametrize("algorithm", ["iem", "saem", "mcem"])
def test_other_algorithms_reach_the_maximum(algorithm):
    """Within a share of a standard error: some 5 Monte Carlo errors of the stochastic ones."""
    model = MultivariateNormal.example(np.random.default_rng(0), 80)
    fit = run_em(model)
    other = model.fit(algorithm, seed=2, progress=False)
    bound = 1e-3 if algorithm == "iem" else 0.25
    assert np.abs((other.params - fit.params) / fit.bse).max() < bound


def test_answers():
    model = make_model()
    fit = run_em(model)
    filled = fit.impute()
    seen = ~np.isnan(model.data)
    np.testing.assert_allclose(filled[seen], model.data[seen], rtol=1e-12)
    np.testing.assert_allclose(filled[3], fit.mean, rtol=1e-9)
    draws = fit.impute(n_draws=4000, seed=0)
    assert draws.shape == (4000, 40, 3)
    # 4.9 standard errors: false alarm 1e-6 for each of the 40 * 3 entries
    error = draws.std(axis=0) / np.sqrt(4000)
    assert np.all(np.abs(draws.mean(axis=0) - filled) <= 4.9 * error + 1e-12)
    new = fit.impute([[np.nan, 0.0, 1.0]])
    assert new.shape == (1, 3)
    np.testing.assert_allclose(np.diag(fit.correlation), 1.0)
    np.testing.assert_allclose(fit.score_samples().sum(), fit.llf)
    assert fit.sample(5, seed=1).shape == (5, 3)
    assert "Missing entries" in fit.summary().as_text()
    np.testing.assert_allclose(model.params_of(model.theta_of(fit.params.to_numpy())), fit.params)


def test_far_origin_costs_no_accuracy():
    X, _ = simulate(np.random.default_rng(3), 60)
    near, far = run_em(MultivariateNormal(X)), run_em(MultivariateNormal(X + 1e7))
    np.testing.assert_allclose(far.covariance, near.covariance, rtol=1e-6)
    assert far.llf == pytest.approx(near.llf, abs=1e-5)


def test_malformed_input():
    X = np.arange(12.0).reshape(4, 3) ** 1.5
    X[:, 1] = np.nan
    X[:, 2] = 7.0
    X[0, 0] = np.inf
    with pytest.raises(DataError) as caught:
        MultivariateNormal(X, weights=[1.0, -1.0, 1.0, np.nan])
    text = str(caught.value)
    for part in ("'x1' has no observed", "'x2' is constant", "row 0, column 'x0'", "weights[1]"):
        assert part in text
    with pytest.raises(DataError, match="too few"):
        MultivariateNormal(np.random.default_rng(0).normal(size=(3, 3)))
    with pytest.raises(DataError, match="collinear"):
        MultivariateNormal(np.random.default_rng(0).normal(size=(9, 1)) * [1.0, 2.0])
    with pytest.raises(DataError, match="dtype"):
        MultivariateNormal(pd.DataFrame({"a": ["x", "y"], "b": [1.0, 2.0]}))
    with pytest.raises(DataError, match="two dimensions"):
        MultivariateNormal([1.0, 2.0])
    with pytest.raises(DataError, match="weights has shape"):
        make_model().reweighted([1.0])
    with pytest.raises(ModelError, match="positive definite"):
        make_model().pack_params(mean=np.zeros(3), covariance=-np.eye(3))
    with pytest.raises(ModelError, match="shape"):
        make_model().pack_params(mean=np.zeros(2), covariance=np.eye(3))


def test_pairs_never_seen_together_are_named():
    X = np.random.default_rng(0).normal(size=(20, 3))
    X[:10, 0] = np.nan
    X[10:, 2] = np.nan
    with pytest.warns(SaemWarning, match="'x2' and 'x0'"):
        MultivariateNormal(X)
