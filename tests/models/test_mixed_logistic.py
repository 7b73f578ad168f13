"""Mixed-effects logistic regression: against scipy's quadrature and optimiser, and the truth."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from saem._types import no_structural
from saem.algorithms import EM, MCEM
from saem.engine import Run
from saem.estep import Quadrature
from saem.exceptions import DataError, ModelError
from saem.models import _mixed_logistic_kernels as kernels
from saem.models.mixed_logistic import MixedLogistic, simulate


def make_frame(n=80, seed=2):
    return simulate(
        np.random.default_rng(seed), n, beta=(0.5, -0.5, 0.3), omega=(1.2, 0.4, 0.0), scale=0.05
    )


def make_model(random="~ 1", n=80, **options):
    return MixedLogistic(make_frame(n), "y ~ time + dose", "id", random, **options)


def make_theta(model):
    q = model.n_coords
    return model.pack_params(beta=[0.4, -0.3, 0.2], omega=np.eye(q) + 0.3 * (1 - np.eye(q)))


def design(frame, label):
    """Responses, all fixed effects and time of one group."""
    rows = frame[frame["id"] == label]
    return rows["y"].to_numpy(), np.column_stack([np.ones(len(rows)), rows["time"], rows["dose"]])


def marginal(frame, beta, sd, n_nodes=120):
    """Log-likelihood with a random intercept, by plain Gauss-Hermite quadrature."""
    x, w = np.polynomial.hermite.hermgauss(n_nodes)
    total = 0.0
    for label in frame["id"].unique():
        y, X = design(frame, label)
        t = (X @ beta)[:, None] + np.sqrt(2.0) * sd * x
        joint = log_expit(np.where(y[:, None] == 1, t, -t)).sum(axis=0)
        total += np.log(np.exp(joint) @ w / np.sqrt(np.pi))
    return total


def statistic(model, theta, n_nodes=15):
    """Mean statistic and log-likelihood by the quadrature E-step."""
    run = Run(model, EM(estep=Quadrature(n_nodes)).combine(model), theta, seed=0)
    return run.full_pass(0), run.loglik


@pytest.mark.nojit
def test_log_lik_and_prior():
    frame, model = make_frame(), make_model("~ time")
    theta = make_theta(model)
    latent = np.empty(model.latent_size)
    for i, label in enumerate(model.group_labels[:10]):
        latent[:2] = np.array([0.6, -0.4]) * (i - 4)
        y, X = design(frame, label)
        t = X[:, :2] @ latent[:2] + 0.2 * X[:, 2]
        value = kernels.log_lik(no_structural, theta, model.record_of(i), latent, np.empty(1))
        assert value == pytest.approx(log_expit(np.where(y == 1, t, -t)).sum(), rel=1e-12)
        slope = X[:, 2] @ (4 * (y - expit(t)) + 0.2 * X[:, 2])
        assert latent[2] == pytest.approx(slope, rel=1e-11)
    mean, chol = np.empty(2), np.empty((2, 2))
    kernels.prior(theta, model.record_of(0), mean, chol)
    np.testing.assert_array_equal(mean, [0.4, -0.3])
    np.testing.assert_allclose(chol @ chol.T, [[1.0, 0.3], [0.3, 1.0]], rtol=1e-14)


def test_quadrature_and_tangent_surrogate():
    frame, model = make_frame(), make_model()
    theta = make_theta(model)
    s, loglik = statistic(model, theta)
    assert loglik == pytest.approx(marginal(frame, [0.4, -0.3, 0.2], 1.0), rel=1e-8)
    params = model.params_of(theta)
    np.testing.assert_allclose(model.theta_of(params), theta)
    for e in 1e-4 * np.eye(4):
        up, down = params + e, params - e
        slope = marginal(frame, up[:3], np.sqrt(up[3])) - marginal(
            frame, down[:3], np.sqrt(down[3])
        )
        mine = kernels.surrogate(s, model.theta_of(up)) - kernels.surrogate(s, model.theta_of(down))
        assert model.n_individuals * mine / 2e-4 == pytest.approx(slope / 2e-4, rel=1e-4, abs=1e-3)


@pytest.mark.nojit
@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_maximize_is_the_maximum_of_the_surrogate(covariance):
    frame, model = make_frame(), make_model("~ time", covariance=covariance)
    theta = model.pack_params(beta=[0.4, -0.3, 0.2], omega=np.eye(2))
    rng = np.random.default_rng(0)
    n = model.n_individuals
    draws = rng.normal(size=(n, 3))
    s, cross = np.zeros(model.stat_spec.size), 0.0
    for i, label in enumerate(model.group_labels):
        kernels.accumulate(1.0 / n, model.record_of(i), draws[i], s)
        cross += np.square(design(frame, label)[1][:, 2]).sum() / n
    assert kernels.maximize(s, theta) == 0
    parts = model.components(theta)
    np.testing.assert_allclose(parts["beta"][:2], draws[:, :2].mean(axis=0), rtol=1e-12)
    assert parts["beta"][2] == pytest.approx(draws[:, 2].mean() / cross, rel=1e-12)
    moments = np.cov(draws[:, :2].T, bias=True)
    expected = moments if covariance == "full" else np.diag(np.diag(moments))
    np.testing.assert_allclose(parts["omega"], expected, rtol=1e-12)
    best, params = kernels.surrogate(s, theta), model.params_of(theta)
    for e in 1e-3 * np.eye(params.size):
        values = [kernels.surrogate(s, model.theta_of(params + sign * e)) for sign in (-1, 1)]
        assert max(values) < best
    double = kernels.surrogate(0.5 * s, theta) + kernels.surrogate(1.5 * s, theta)
    assert double == pytest.approx(2 * best, rel=1e-12)


def test_em_reaches_the_maximum_of_the_quadrature_likelihood():
    frame, model = make_frame(), make_model()
    fit = model.fit(EM(tolerance=1e-9), progress=False)
    path = fit.trace["loglik"].to_numpy()[1:]
    assert np.all(np.diff(path) > -1e-9 * abs(path[-1]))
    peer = minimize(
        lambda v: -marginal(frame, v[:3], np.exp(v[3]), 60), np.zeros(4), method="BFGS",
        options={"gtol": 1e-4},
    )  # fmt: skip
    assert fit.llf == pytest.approx(-peer.fun, abs=1e-4)
    expected = np.append(peer.x[:3], np.exp(2 * peer.x[3]))
    np.testing.assert_allclose(fit.params, expected, atol=2e-3)
    # the inverse Hessian of BFGS is good to some percent
    np.testing.assert_allclose(fit.bse[:3], np.sqrt(np.diag(peer.hess_inv))[:3], rtol=0.15)


@pytest.mark.parametrize("algorithm", ["saem", MCEM(n_iter=60), "iem"])
def test_other_algorithms_reach_the_same_maximum(algorithm):
    """Stochastic ones within a fifth of a standard error."""
    model = make_model()
    best = model.fit("em", progress=False)
    fit = model.fit(algorithm, seed=5, progress=False)
    slack = 1e-2 if algorithm == "iem" else 0.2
    assert np.all(np.abs(fit.params - best.params) < slack * best.bse)


def test_weights_are_repeated_groups():
    frame, model = make_frame(20), make_model(n=20)
    weights = np.ones(20)
    weights[[0, 3]] = 2.0, 0.0
    again = frame[frame["id"] == 0].assign(id=100)
    repeated = MixedLogistic(
        pd.concat([frame[frame["id"] != 3], again]), "y ~ time + dose", "id"
    )  # fmt: skip
    weighted, theta = model.reweighted(weights), make_theta(model)
    s, loglik = statistic(weighted, theta)
    peer, expected = statistic(repeated, theta)
    np.testing.assert_allclose(s, peer, rtol=1e-11)
    assert loglik == pytest.approx(expected, rel=1e-12)
    assert weighted.nobs == repeated.nobs
    with pytest.raises(ModelError, match="whole numbers"):
        model.reweighted(np.full(20, 0.5))


@pytest.mark.nojit
def test_inadmissible_statistics():
    model = make_model("~ time")
    theta = make_theta(model)
    before = theta.copy()
    s = np.array([0.1, 0.2, 1.0, 0.3, 1.1, 0.5, 2.0])
    assert kernels.maximize(s.copy(), theta.copy()) == 0
    bad_values = ((0, np.nan, 1), (6, np.inf, 1), (2, -0.5, 2), (3, 5.0, 2), (6, -1.0, 3))
    for at, value, code in bad_values:
        bad = s.copy()
        bad[at] = value
        assert kernels.maximize(bad, theta) == code
        np.testing.assert_array_equal(theta, before)
        if code > 1:
            kernels.project(bad, theta)
            assert kernels.maximize(bad, theta.copy()) == 0
    kept = s.copy()
    kernels.project(kept, theta)
    np.testing.assert_allclose(kept, s, rtol=1e-14)
    assert set(model.maximize_errors) == {1, 2, 3}


def test_results():
    model = make_model("~ time", covariance="diagonal")
    fit = model.fit("saem", seed=1, progress=False)
    assert list(fit.fe_params.index) == ["Intercept", "time", "dose"]
    assert list(fit.params.index[3:]) == ["var[Intercept]", "var[time]"]
    assert fit.cov_re.loc["time", "Intercept"] == 0.0
    truth = np.array([0.5, -0.5, 0.3, 1.44, 0.16])
    assert np.all(np.abs(fit.params - truth) < 4.5 * fit.bse)  # false alarm below 1e-4
    effects = fit.random_effects
    assert effects.shape == (80, 2)
    # shrunken: they spread less than the random effects themselves
    assert np.all(effects.var() < np.diag(fit.cov_re))
    assert fit.loglik("importance", seed=0).value == pytest.approx(
        fit.loglik("quadrature").value, abs=5 * fit.loglik("importance", seed=0).error
    )
    example = MixedLogistic.example(np.random.default_rng(0))
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(example.start(rng), example.start(rng))


def test_simulate_has_the_frequencies_it_claims():
    frame = simulate(np.random.default_rng(3), 4000, omega=(0.0, 0.0, 0.0))
    assert set(frame["dose"]) == {0.0, 10.0, 20.0, 30.0}
    chance = expit(-4.0 - 0.5 * frame["time"] + frame["dose"])
    error = np.sqrt((chance * (1 - chance)).groupby(frame["time"]).sum())
    gap = (frame["y"] - chance).groupby(frame["time"]).sum()
    assert np.all(np.abs(gap) < 5 * error)  # false alarm below 1e-5


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"covariance": "block"}, ModelError, "covariance='block'"),
        ({"re_formula": "~ time"}, ModelError, "'time' is not a term of formula"),
        ({"formula": "time ~ dose"}, DataError, "response of id .* must be 0 or 1"),
        ({"formula": "y ~ doze"}, DataError, "did you mean 'dose'"),
        ({"groups": "subject"}, DataError, "'subject' is missing"),
    ],
)
def test_bad_input(options, error, text):
    arguments = {"formula": "y ~ dose", "groups": "id"} | options
    with pytest.raises(error, match=text):
        MixedLogistic(make_frame(), **arguments)


@pytest.mark.parametrize(
    ("beta", "omega", "text"),
    [
        ([1.0], np.eye(2), "beta has shape"),
        (np.zeros(3), -np.eye(2), "positive definite"),
        (np.zeros(3), np.ones((2, 2)), "must be diagonal"),
        (np.full(3, np.nan), np.eye(3), "(?s)2 problems"),
    ],
)
def test_bad_parameters(beta, omega, text):
    model = make_model("~ time", covariance="diagonal")
    with pytest.raises(ModelError, match=text):
        model.pack_params(beta=beta, omega=omega)
    with pytest.raises(ModelError, match="pack_params"):
        model.check_theta(np.zeros(2))
