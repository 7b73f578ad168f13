"""Variational logistic regression: against a direct maximisation of its bound by scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from saem.algorithms import EM
from saem.exceptions import DataError, ModelError
from saem.models import _variational_logistic_kernels as kernels
from saem.models.variational_logistic import VariationalLogistic, simulate


def make_model(n=80, seed=1, **options):
    X, y = simulate(np.random.default_rng(seed), n, coefficients=(0.4, 1.2, -0.8))
    return VariationalLogistic(X, y, **({"prior_scale": 1.5} | options))


def bound(model, mean, sd, n_nodes=180):
    """Evidence lower bound, written out with many nodes."""
    x, w = np.polynomial.hermite.hermgauss(n_nodes)
    t = (model.design @ mean)[:, None]
    t = t + np.sqrt(2.0 * model.design**2 @ sd**2)[:, None] * x
    sign = 2.0 * np.asarray(model.y)[:, None] - 1.0
    fit = model.weights @ (log_expit(sign * t) @ w) / np.sqrt(np.pi)
    scale = model.prior_scale
    return fit - np.sum(np.log(scale / sd) + (sd**2 + mean**2) / (2 * scale**2) - 0.5)


def any_theta(model, seed=0):
    rng = np.random.default_rng(seed)
    p = len(model.coefficient_names)
    return model.pack_params(mean=rng.normal(size=p), sd=rng.uniform(0.1, 1.0, p))


def mean_statistic(model, theta):
    s = np.zeros(model.stat_spec.size)
    latent, work = np.empty(model.latent_size), np.empty(model.work_size)
    total = 0.0
    for i in range(model.n_individuals):
        y = model.record_of(i)
        total += kernels.expect(theta, y, latent, work)
        kernels.accumulate(1.0 / model.n_individuals, y, latent, s)
    return s, total


@pytest.mark.nojit
def test_bound_and_gradient():
    model = make_model(n_nodes=80)  # enough for the wide q of `any_theta`
    theta = any_theta(model)
    params = model.params_of(theta)
    s, total = mean_statistic(model, theta)
    assert total == pytest.approx(bound(model, params[:3], params[3:]), rel=1e-8)
    assert model.loglik(theta) == pytest.approx(total, rel=1e-13)

    # the surrogate touches the bound: same slope at theta
    def both(shifted):
        new = model.pack_params(mean=shifted[:3], sd=shifted[3:])
        value = model.n_individuals * kernels.surrogate(s, new)
        return np.array([bound(model, shifted[:3], shifted[3:]), value])

    for e in 1e-5 * np.eye(6):
        slope = (both(params + e) - both(params - e)) / 2e-5
        assert slope[0] == pytest.approx(slope[1], rel=1e-5, abs=1e-5)


def test_surrogate_minorises_the_bound():
    """Individual by individual, at random points near and far."""
    model = make_model(n=12)
    theta = any_theta(model)
    rng = np.random.default_rng(3)
    latent, work = np.empty(6), np.empty(3)
    for i in range(12):
        y = model.record_of(i)
        value = kernels.expect(theta, y, latent, work)
        s = np.zeros(model.stat_spec.size)
        kernels.accumulate(1.0, y, latent, s)
        at = kernels.surrogate(s, theta)
        for scale in (0.1, 1.0, 10.0):
            new = model.pack_params(
                mean=rng.normal(size=3) * scale, sd=rng.uniform(0.01, 1.0, 3) * scale
            )
            gain = kernels.expect(new, y, np.empty(6), work) - value
            assert kernels.surrogate(s, new) - at <= gain + 1e-10


@pytest.mark.nojit
def test_maximize_is_the_maximum_of_the_surrogate():
    model = make_model()
    theta = any_theta(model)
    s, _ = mean_statistic(model, theta)
    s[3] = -abs(s[3])  # both branches of the root
    assert kernels.maximize(s, theta) == 0
    best = kernels.surrogate(s, theta)
    params = model.params_of(theta)
    for e in 1e-4 * np.eye(6):
        values = [
            kernels.surrogate(s, model.pack_params(mean=v[:3], sd=v[3:]))
            for v in (params + e * params, params - e * params)
        ]
        assert max(values) < best
        assert (values[0] - values[1]) / 2e-4 == pytest.approx(0.0, abs=1e-7)
    total = kernels.surrogate(0.5 * s, theta) + kernels.surrogate(1.5 * s, theta)
    assert total == pytest.approx(2 * best, rel=1e-12)


def test_em_reaches_the_maximum_of_the_bound():
    model = make_model()
    fit = model.fit(EM(n_iter=2000, tolerance=1e-10), progress=False)
    path = fit.trace["loglik"].to_numpy()[1:]
    assert fit.converged
    assert np.all(np.diff(path) > -1e-11 * abs(path[-1]))
    peer = minimize(
        lambda v: -bound(model, v[:3], np.exp(v[3:])), np.r_[np.zeros(3), -np.ones(3)],
        method="BFGS", options={"gtol": 1e-7},
    )  # fmt: skip
    assert fit.llf == pytest.approx(-peer.fun, abs=1e-6)
    np.testing.assert_allclose(fit.posterior["mean"], peer.x[:3], atol=1e-4)
    np.testing.assert_allclose(fit.posterior["sd"], np.exp(peer.x[3:]), atol=1e-4)


def test_misso_reaches_the_same_maximum():
    """Incremental, exact (MISO) and by draws averaged with decreasing steps."""
    model = make_model()
    best = model.fit("em", progress=False)
    miso = model.fit("iem", progress=False)
    np.testing.assert_allclose(miso.params, best.params, atol=1e-4)
    # the noise of the stochastic fit is a small share of the posterior's own spread
    draws = model.fit("saem", seed=3, progress=False)
    shift = draws.posterior["mean"] - best.posterior["mean"]
    assert np.all(np.abs(shift) < 0.1 * best.posterior["sd"])
    np.testing.assert_allclose(draws.posterior["sd"], best.posterior["sd"], rtol=0.1)


@pytest.mark.nojit
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_draws_have_the_expectation():
    model = make_model()
    theta = any_theta(model)
    y, work = model.record_of(2), np.empty(3)
    expected, n = np.empty(6), 20_000
    kernels.expect(theta, y, expected, work)
    draws = np.empty((n, 6))
    for j in range(n):
        key = np.uint64((j + 1) * 0x9E3779B97F4A7C15 % 2**64)
        kernels.draw(theta, y, key, draws[j], work)
    # false alarm below 1e-5 for all six together
    error = draws.std(axis=0) / np.sqrt(n)
    assert np.all(np.abs(draws.mean(axis=0) - expected) < 5 * error)


@pytest.mark.nojit
def test_weights_are_repeated_rows():
    model = make_model(n=20)
    weights = np.ones(20)
    weights[[0, 3]] = 2.0, 0.0
    rows = [0, *[i for i in range(20) if i != 3]]
    weighted = model.reweighted(weights)
    repeated = VariationalLogistic(model.X[rows], model.y[rows], prior_scale=1.5)
    theta, peer = any_theta(weighted), any_theta(repeated)
    for m, at in ((weighted, theta), (repeated, peer)):
        s, total = mean_statistic(m, at)
        assert total == pytest.approx(repeated.loglik(any_theta(repeated)), rel=1e-12)
        assert kernels.maximize(s, at) == 0
    np.testing.assert_allclose(weighted.params_of(theta), repeated.params_of(peer), rtol=1e-12)


@pytest.mark.nojit
def test_inadmissible_statistics():
    model = make_model()
    theta = any_theta(model)
    s, _ = mean_statistic(model, theta)
    before = theta.copy()
    for at, code in ((0, kernels.NOT_FINITE), (6, kernels.NOT_FINITE)):
        bad = s.copy()
        bad[at] = np.nan
        assert kernels.maximize(bad, theta) == code
    for at in (6, 8):
        bad = s.copy()
        bad[at] = -0.3
        assert kernels.maximize(bad, theta) == kernels.FLAT
        np.testing.assert_array_equal(theta, before)
        kernels.project(bad, theta)
        assert kernels.maximize(bad, before.copy()) == 0
    assert set(model.maximize_errors) == {1, 2}


def test_results():
    rng = np.random.default_rng(2)
    X, y = simulate(rng, 400)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    fit = VariationalLogistic(frame, y, prior_scale=3.0).fit("em", progress=False)
    assert list(fit.posterior.index) == ["intercept", "a", "b", "c"]
    assert np.isnan(fit.bse).all()
    # posterior spread of a mean-field Gaussian; 5 of them off has probability below 1e-5
    truth = np.array([0.5, 1.0, -1.0, 0.0])
    assert np.all(np.abs(fit.posterior["mean"] - truth) < 5 * fit.posterior["sd"])
    proba = fit.predict_proba(frame[["c", "b", "a"]].head(4))
    np.testing.assert_array_equal(proba, fit.predict_proba()[:4])
    draws = fit.posterior["mean"].to_numpy() + fit.posterior["sd"].to_numpy() * rng.normal(
        size=(20_000, 4)
    )
    simulated = expit(draws @ np.r_[1.0, X[0]])
    assert abs(proba[0] - simulated.mean()) < 5 * simulated.std() / np.sqrt(20_000)
    example = VariationalLogistic.example(rng)
    np.testing.assert_array_equal(example.start(rng), example.start(rng))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"X": [[1.0], [np.nan], [2.0]]}, DataError, "row 1, column 'x0': .* missing"),
        ({"y": [0, 1, 2]}, DataError, "row 2: y is 2"),
        ({"y": [1, 1, 1]}, DataError, "both 0 and 1"),
        ({"y": [1, 0]}, DataError, "y has shape"),
        ({"y": ["a", "b", "c"]}, DataError, "y has dtype"),
        ({"weights": [1.0, -1.0, 1.0]}, DataError, "weight"),
        ({"prior_scale": 0.0, "n_nodes": 1}, ModelError, "(?s)2 problems.*prior_scale.*n_nodes"),
    ],
)
def test_bad_input(change, error, text):
    arguments = {"X": [[1.0], [0.5], [2.0]], "y": [0, 1, 0]} | change
    with pytest.raises(error, match=text):
        VariationalLogistic(arguments.pop("X"), arguments.pop("y"), **arguments)


def test_bad_parameters():
    model = make_model()
    with pytest.raises(ModelError, match="above 0"):
        model.pack_params(mean=np.zeros(3), sd=[1.0, -1.0, 1.0])
    with pytest.raises(ModelError, match="3 finite numbers"):
        model.check_theta(np.full(model.theta_spec.size, np.nan))
