"""Logistic regression with missing covariates: against scipy, statsmodels and plain formulas."""

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import multivariate_normal, norm

from saem._types import no_structural
from saem.algorithms import EM, MCEM
from saem.engine import Run
from saem.estep import Quadrature
from saem.exceptions import DataError, ModelError, OptionError
from saem.models import _logistic_missing_kernels as kernels
from saem.models.logistic_missing import LogisticMissing, simulate

BETA = np.array([0.3, -0.2])
OMEGA = np.array([[1.2, 0.4], [0.4, 0.8]])
DELTA = np.array([0.2, 1.0, -0.5])


def make_model(n=120, seed=0, missing=0.2, **options):
    X, y = simulate(
        np.random.default_rng(seed), n, coefficients=DELTA, missing=missing, correlation=0.5
    )
    return LogisticMissing(X, y, **options)


def make_theta(model):
    return model.pack_params(beta=BETA, omega=OMEGA, delta=DELTA)


def statistic(model, theta, n_nodes=15):
    """Mean statistic and log-likelihood by the quadrature E-step."""
    run = Run(model, EM(estep=Quadrature(n_nodes)).combine(model), theta, seed=0)
    return run.full_pass(0), run.loglik


def row_loglik(z, y):
    """log p(y, observed entries) of one row with at most one missing entry, by scipy."""
    seen = ~np.isnan(z)
    if seen.all():
        t = DELTA[0] + DELTA[1:] @ z
        return multivariate_normal(BETA, OMEGA).logpdf(z) + np.log(expit(t if y else -t))
    j = int(np.argmin(seen))

    def joint(value):
        full = z.copy()
        full[j] = value
        t = DELTA[0] + DELTA[1:] @ full
        return multivariate_normal(BETA, OMEGA).pdf(full) * expit(t if y else -t)

    return np.log(quad(joint, -12, 12, epsabs=1e-13, epsrel=1e-12)[0])


@pytest.mark.nojit
def test_log_lik_and_prior_make_the_complete_density():
    model = make_model()
    theta = make_theta(model)
    d = model.n_coords
    assert d == 2
    mean, chol, work = np.empty(d), np.empty((d, d)), np.empty(model.work_size)
    rng = np.random.default_rng(1)
    kinds = set()
    for i in range(120):
        y, z = model.record_of(i), model.x[i].copy()
        holes = np.isnan(z)
        kinds.add(tuple(holes))
        latent = np.append(rng.normal(size=d), np.nan)
        kernels.prior(theta, y, mean, chol)
        value = kernels.log_lik(no_structural, theta, y, latent, work)
        value += multivariate_normal(mean, chol @ chol.T).logpdf(latent[:d])
        z[holes] = latent[: holes.sum()]
        t = DELTA[0] + DELTA[1:] @ z
        expected = multivariate_normal(BETA, OMEGA).logpdf(z)
        expected += np.log(expit(t if model.response[i] else -t))
        expected += norm.logpdf(latent[holes.sum() : d]).sum()  # inert coordinates
        assert value == pytest.approx(expected, rel=1e-12)
        assert latent[d] == pytest.approx(t + 4 * (model.response[i] - expit(t)), rel=1e-12)
    assert len(kinds) == 4  # every pattern of missing entries


def test_loglik_equals_integration():
    model = make_model()
    theta = make_theta(model)
    one = [i for i in range(120) if np.isnan(model.x[i]).sum() <= 1]
    kept = np.zeros(120)
    kept[one[:25]] = 1.0
    part = model.reweighted(kept)
    expected = sum(row_loglik(model.x[i], model.response[i]) for i in one[:25])
    assert part.loglik(theta) == pytest.approx(expected, rel=1e-9)
    assert statistic(part, theta)[1] == pytest.approx(expected, rel=1e-9)
    # also with both missing, where the two ways have nothing in common
    assert statistic(model, theta)[1] == pytest.approx(model.loglik(theta), rel=1e-9)


def test_surrogate_is_tangent_to_the_log_likelihood():
    model = make_model()
    theta = make_theta(model)
    s, _ = statistic(model, theta)
    params = model.params_of(theta)
    np.testing.assert_allclose(model.theta_of(params), theta)
    for e in 1e-4 * np.eye(params.size):
        ahead, behind = model.theta_of(params + e), model.theta_of(params - e)
        slope = (model.loglik(ahead) - model.loglik(behind)) / 2e-4
        mine = (kernels.surrogate(s, ahead) - kernels.surrogate(s, behind)) / 2e-4
        assert model.n_individuals * mine == pytest.approx(slope, rel=1e-5, abs=1e-5)


@pytest.mark.nojit
def test_maximize_is_the_maximum_of_the_surrogate():
    """With drawn entries: moments of the completed rows, least squares of working responses."""
    model = make_model()
    theta = make_theta(model)
    rng = np.random.default_rng(0)
    s, rows, responses = np.zeros(model.stat_spec.size), [], []
    for i in range(model.n_individuals):
        latent = rng.normal(size=3)
        z = model.x[i].copy()
        z[np.isnan(z)] = latent[: np.isnan(z).sum()]
        rows.append(z)
        responses.append(latent[2])
        kernels.accumulate(1.0 / model.n_individuals, model.record_of(i), latent, s)
    rows = np.array(rows)
    assert kernels.maximize(s, theta) == 0
    view = model.theta_spec.view(theta)
    np.testing.assert_allclose(view["beta"], rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(view["omega"], np.cov(rows.T, bias=True), rtol=1e-11)
    design = np.column_stack([np.ones(len(rows)), rows])
    fit = np.linalg.lstsq(design, np.array(responses), rcond=None)[0]
    np.testing.assert_allclose(view["delta"], fit, rtol=1e-10)
    best, params = kernels.surrogate(s, theta), model.params_of(theta)
    for e in 1e-3 * np.eye(params.size):
        values = [kernels.surrogate(s, model.theta_of(params + sign * e)) for sign in (-1, 1)]
        assert max(values) < best
    double = kernels.surrogate(0.5 * s, theta) + kernels.surrogate(1.5 * s, theta)
    assert double == pytest.approx(2 * best, rel=1e-12)


def test_em_reaches_the_maximum():
    model = make_model()
    fit = model.fit(EM(tolerance=1e-10), progress=False)
    path = fit.trace["loglik"].to_numpy()[1:]
    assert np.all(np.diff(path) > -1e-9 * abs(path[-1]))

    def objective(v):
        root = np.array([[np.exp(v[2]), 0.0], [v[3], np.exp(v[4])]])
        return -model.loglik(model.pack_params(beta=v[:2], omega=root @ root.T, delta=v[5:]))

    peer = minimize(objective, np.zeros(8), method="BFGS", options={"gtol": 1e-4})
    assert fit.llf == pytest.approx(-peer.fun, abs=1e-5)
    np.testing.assert_allclose(fit.coefficients, peer.x[5:], atol=2e-3)
    # standard errors: the inverse Hessian over the coefficients alone is smaller
    assert np.all(fit.bse > 0.0)


def test_complete_data_is_logistic_regression():
    import statsmodels.api as sm

    model = make_model(missing=0.0)
    fit = model.fit(EM(tolerance=1e-11), progress=False)
    peer = sm.Logit(model.response, sm.add_constant(model.x)).fit(disp=0, tol=1e-12)
    np.testing.assert_allclose(fit.coefficients, peer.params, atol=1e-5)
    np.testing.assert_allclose(fit.covariate_mean, model.x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(fit.covariate_cov, np.cov(model.x.T, bias=True), rtol=1e-12)
    normal = multivariate_normal(fit.covariate_mean, fit.covariate_cov).logpdf(model.x).sum()
    assert fit.llf == pytest.approx(peer.llf + normal, rel=1e-9)
    np.testing.assert_allclose(fit.bse[-3:], peer.bse, rtol=1e-3)


@pytest.mark.parametrize("algorithm", ["saem", MCEM(n_iter=40), "iem"])
def test_other_algorithms_reach_the_same_maximum(algorithm):
    """Stochastic ones within a fifth of a standard error, by the same minoriser."""
    model = make_model()
    best = model.fit("em", progress=False)
    fit = model.fit(algorithm, seed=5, progress=False)
    slack = 1e-3 if algorithm == "iem" else 0.2
    assert np.all(np.abs(fit.params - best.params) < slack * best.bse)


def test_known_coefficients_stay():
    model = make_model(coefficients=DELTA)
    fit = model.fit("em", progress=False)
    np.testing.assert_array_equal(fit.coefficients, DELTA)
    assert fit.n_params == 5
    free = make_model().fit("em", progress=False)
    assert fit.llf < free.llf
    assert np.all(fit.bse > 0.0)


def test_weights_are_repeated_rows():
    model = make_model(n=30)
    weights = np.ones(30)
    weights[[0, 3]] = 2.0, 0.0
    rows = [0, *[i for i in range(30) if i != 3]]
    weighted, theta = model.reweighted(weights), make_theta(model)
    repeated = LogisticMissing(model.X[rows], model.y[rows])
    expected = sum(
        statistic(model.reweighted(np.eye(30)[i]), theta)[0] for i in rows
    ) / len(rows)  # fmt: skip
    np.testing.assert_allclose(statistic(weighted, theta)[0], expected, rtol=1e-11, atol=1e-13)
    assert weighted.loglik(theta) == pytest.approx(repeated.loglik(theta), rel=1e-12)
    for bad in (np.full(30, 0.5), np.zeros(30), np.ones(3)):
        with pytest.raises(ModelError, match="whole numbers"):
            model.reweighted(bad)


@pytest.mark.nojit
def test_inadmissible_statistics():
    model = make_model()
    theta = make_theta(model)
    before = theta.copy()
    s = np.array([0.1, 0.2, 1.0, 0.3, 1.1, 0.05, 0.2, -0.1])
    assert kernels.maximize(s.copy(), theta.copy()) == 0
    for at, value, code in ((0, np.nan, 1), (6, np.inf, 1), (2, -0.5, 2), (3, 5.0, 2)):
        bad = s.copy()
        bad[at] = value
        assert kernels.maximize(bad, theta) == code
        np.testing.assert_array_equal(theta, before)
        if code == 2:
            kernels.project(bad, theta)
            np.testing.assert_array_equal(bad[[0, 1, 5, 6, 7]], s[[0, 1, 5, 6, 7]])
            assert kernels.maximize(bad, theta.copy()) == 0
    kept = s.copy()
    kernels.project(kept, theta)
    np.testing.assert_allclose(kept, s, rtol=1e-14)
    assert set(model.maximize_errors) == {1, 2}


def test_results_and_prediction():
    X, y = simulate(np.random.default_rng(3), 300, coefficients=DELTA, mechanism="mar")
    frame = pd.DataFrame(X, columns=["a", "b"])
    fit = LogisticMissing(frame, y).fit("em", progress=False)
    assert list(fit.params.index) == [
        "mean[a]", "mean[b]", "var[a]", "cov[a,b]", "var[b]", "intercept", "a", "b",
    ]  # fmt: skip
    truth = np.array([0.0, 0.0, 1.0, 0.0, 1.0, *DELTA])
    assert np.all(np.abs(fit.params - truth) < 4.5 * fit.bse)  # false alarm below 1e-4
    assert fit.conf_int().loc["var[a]", "lower"] > 0.0
    proba = fit.predict_proba([[0.5, np.nan]])[0]
    mean, cov, delta = fit.covariate_mean, fit.covariate_cov, fit.coefficients
    slope = cov.loc["a", "b"] / cov.loc["a", "a"]
    at, left = mean["b"] + slope * (0.5 - mean["a"]), cov.loc["b", "b"] - slope * cov.loc["a", "b"]
    t = delta["intercept"] + delta["a"] * 0.5
    expected = quad(
        lambda b: norm.pdf(b, at, np.sqrt(left)) * expit(t + delta["b"] * b), at - 10, at + 10
    )[0]
    assert proba == pytest.approx(expected, rel=1e-8)
    assert fit.loglik("quadrature").value == pytest.approx(fit.llf, abs=1e-4)
    draws = fit.loglik("importance", seed=1)
    assert abs(draws.value - fit.llf) < 5 * draws.error
    with pytest.raises(OptionError, match="is an integral"):
        fit.loglik("exact")
    with pytest.raises(OptionError, match="mechanism"):
        simulate(np.random.default_rng(0), 5, mechanism="mnar")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"y": [0, 1, 2, 0, 1]}, DataError, "row 2: y is 2"),
        ({"y": [0, 0, 0, 0, 0]}, DataError, "both 0 and 1"),
        ({"y": [0, 1, np.nan, 0, 1]}, DataError, "row 2: y is nan"),
        ({"X": [[1.0], [np.nan], [np.inf], [1.0], [0.0]]}, DataError, "row 2, column 'x0'"),
        ({"X": np.full((5, 1), np.nan)}, DataError, "fewer than two different observed"),
        ({"X": np.ones((5, 1)), "y": [1, 2, 0, 0, 1]}, DataError, "(?s)2 problems.*y is 2.*x0"),
        ({"X": np.random.default_rng(0).normal(size=(5, 4))}, DataError, "too few"),
        ({"coefficients": [1.0]}, ModelError, "must be 2 finite numbers"),
    ],
)
def test_bad_input(change, error, text):
    arguments = {"X": [[1.0], [np.nan], [2.0], [1.5], [0.0]], "y": [0, 1, 0, 1, 1]} | change
    with pytest.raises(error, match=text):
        LogisticMissing(arguments.pop("X"), arguments.pop("y"), **arguments)


def test_bad_parameters():
    model = make_model()
    with pytest.raises(ModelError, match="positive definite"):
        model.pack_params(beta=BETA, omega=-OMEGA, delta=DELTA)
    with pytest.raises(ModelError, match=r"(?s)2 problems.*beta.*delta"):
        model.pack_params(beta=[1.0], omega=OMEGA)
    with pytest.raises(ModelError, match="pack_params"):
        model.check_theta(np.zeros(3))
