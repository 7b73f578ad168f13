"""Factor analysis and probabilistic PCA, against scikit-learn, closed forms and SciPy."""

import warnings

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
    expected,
    normal_loglik,
    plain_errors,
    run_em,
)
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.decomposition import FactorAnalysis as Peer

from saem._types import no_structural
from saem.algorithms import EM, SAEM
from saem.estep import MonteCarlo, Quadrature
from saem.exceptions import DataError, ModelError, OptionError
from saem.models.factor_analysis import PPCA, FactorAnalysis, simulate

KINDS = pytest.mark.parametrize("kind", [FactorAnalysis, PPCA])
HOLES = pytest.mark.parametrize("holes", [False, True], ids=["complete", "incomplete"])


def make_data(n=60, holes=True, seed=0):
    X, _ = simulate(np.random.default_rng(seed), n, mean=3.0)
    if holes:
        X[np.random.default_rng(1).random(X.shape) < 0.2] = np.nan
        X[5] = np.nan  # nothing seen
    return X


def make_theta(model):
    noise = 0.6 if isinstance(model, PPCA) else [0.5, 0.7, 0.4, 0.6, 0.9, 0.3]
    loadings = np.array([[1.0, 0.2, 0.7, 0.1, -0.3, 0.4], [0.3, 0.8, -0.2, 0.9, 0.6, 1.1]]).T
    return model.pack_params(mean=np.linspace(2.5, 3.5, 6), loadings=loadings, noise_variance=noise)


def marginal(model, theta):
    parts = model.components(theta)
    cov = parts["loadings"] @ parts["loadings"].T + np.diag(parts["noise_variance"])
    return parts["mean"], cov


def free(model):
    """Mean, loadings and log noise variances as unconstrained coordinates."""

    def coordinates(theta):
        params = model.params_of(theta)
        n_noise = 1 if isinstance(model, PPCA) else 6

        def back(x):
            return model.theta_of(np.concatenate([x[:-n_noise], np.exp(x[-n_noise:])]))

        return np.concatenate([params[:-n_noise], np.log(params[-n_noise:])]), back

    return coordinates


@pytest.mark.nojit
@HOLES
def test_expectation_equals_the_joint_normal(holes):
    """Posterior of z from the joint normal of (y, z); the statistic from its moments."""
    model = FactorAnalysis(make_data(20, holes), 2)
    theta = make_theta(model)
    parts = model.components(theta)
    mean, cov = marginal(model, theta)
    moments, products, squares = np.zeros((6, 3, 3)), np.zeros((6, 3)), np.zeros(6)
    means, covariances, _ = model.posterior(theta)
    for i, row in enumerate(model.data):
        seen = ~np.isnan(row)
        gain = parts["loadings"][seen].T @ np.linalg.inv(cov[np.ix_(seen, seen)])
        z = gain @ (row - mean)[seen]
        spread = np.eye(2) - gain @ parts["loadings"][seen]
        np.testing.assert_allclose(means[i], z, atol=1e-12)
        np.testing.assert_allclose(covariances[i], spread, atol=1e-12)
        second = np.outer(np.append(1.0, z), np.append(1.0, z))
        second[1:, 1:] += spread
        y = row - model.shift
        moments[seen] += second
        products[seen] += np.outer(y, second[0])[seen]
        squares[seen] += y[seen] ** 2
    s, loglik = expected(model, theta)
    view = model.stat_spec.view(s * model.n_individuals)
    low = np.tril_indices(3)
    np.testing.assert_allclose(view["products"], products, atol=1e-11)
    np.testing.assert_allclose(view["squares"], squares, atol=1e-11)
    if holes:
        np.testing.assert_allclose(view["moments"], moments[:, low[0], low[1]], atol=1e-11)
    else:
        np.testing.assert_allclose(view["moments"], moments[0][low], atol=1e-11)
    np.testing.assert_allclose(loglik, normal_loglik(model.data, mean, cov), rtol=1e-12)


def test_both_layouts_agree_on_complete_rows():
    X = make_data(holes=False)
    one, other = FactorAnalysis(X, 2), FactorAnalysis(X, 2, incomplete=True)
    assert one.stat_spec.size < other.stat_spec.size
    thetas = []
    for model in (one, other):
        theta = make_theta(model)
        s, _ = expected(model, theta)
        assert model._functions.maximize(s, theta) == 0
        thetas.append(theta)
    np.testing.assert_allclose(*thetas, rtol=1e-10)


@pytest.mark.nojit
def test_log_lik_and_prior():
    model = FactorAnalysis(make_data(20), 2)
    theta = make_theta(model)
    parts = model.components(theta)
    latent, work = np.full(model.latent_size, 7.0), np.empty(model.work_size)
    for i in range(6):
        z = latent[:2] = np.array([0.3, -0.5]) * i
        y = model.data[i]
        seen = ~np.isnan(y)
        left = (y - parts["mean"] - parts["loadings"] @ z)[seen]
        noise = parts["noise_variance"][seen]
        exact = -0.5 * np.sum(np.log(2 * np.pi * noise) + left**2 / noise)
        value = model._functions.log_lik(no_structural, theta, model.record_of(i), latent, work)
        assert value == pytest.approx(exact, rel=1e-12, abs=1e-12)
        np.testing.assert_array_equal(latent[2:], 0.0)
    mean, chol = np.empty(2), np.empty((2, 2))
    model._functions.prior(theta, model.record_of(0), mean, chol)
    np.testing.assert_array_equal(mean, 0.0)
    np.testing.assert_array_equal(chol, np.eye(2))


@KINDS
@HOLES
def test_m_step_is_the_maximum_of_the_surrogate(kind, holes):
    model = kind(make_data(40, holes), 2)
    theta = make_theta(model)
    s, _ = expected(model, theta)
    check_maximum(model, s, theta, free(model))
    check_scale_free(model, s, theta)
    check_affine(model, theta)


def test_em_equals_scikit_learn_from_the_same_start():
    """Both begin at unit noise variances and the loadings that maximise given those."""
    X, _ = simulate(np.random.default_rng(4), 200)
    values, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
    loadings = vectors[:, :-3:-1] * np.sqrt(np.maximum(values[:-3:-1] - 1.0, 0.0))
    model = FactorAnalysis(X, 2)
    start = model.pack_params(mean=X.mean(axis=0), loadings=loadings, noise_variance=1.0)
    fit = run_em(model, start)
    peer = Peer(2, tol=1e-13, max_iter=100_000, svd_method="lapack").fit(X)
    assert fit.llf == pytest.approx(peer.score(X) * len(X), abs=1e-6)
    np.testing.assert_allclose(fit.covariance, peer.get_covariance(), atol=1e-5)
    np.testing.assert_allclose(fit.noise_variance, peer.noise_variance_, atol=1e-5)
    rotation = np.linalg.lstsq(fit.loadings.to_numpy(), peer.components_.T, rcond=None)[0]
    np.testing.assert_allclose(fit.scores() @ rotation, peer.transform(X), atol=1e-4)
    np.testing.assert_allclose(fit.score_samples(), peer.score_samples(X), atol=1e-5)
    # the own start leads to the same place
    assert run_em(model).llf == pytest.approx(fit.llf, abs=1e-7)


def test_ppca_equals_tipping_and_bishop():
    X = make_data(80, holes=False)
    model = PPCA(X, 2)
    values, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
    noise = values[:-2].mean()
    top = vectors[:, -2:]
    cov = top @ np.diag(values[-2:] - noise) @ top.T + noise * np.eye(6)
    begin = model.start(np.random.default_rng(0))
    np.testing.assert_allclose(marginal(model, begin)[1], cov, rtol=1e-10, atol=1e-12)
    fit = run_em(model, make_theta(model), n_iter=20_000, tolerance=1e-13)
    np.testing.assert_allclose(fit.covariance, cov, atol=1e-5)
    np.testing.assert_allclose(fit.noise_variance, noise, rtol=1e-6)
    exact = multivariate_normal(X.mean(axis=0), cov).logpdf(X).sum()
    assert fit.llf == pytest.approx(exact, abs=1e-7)


@KINDS
def test_em_with_missing_entries_reaches_the_direct_maximum(kind):
    model = kind(make_data(80), 1)
    fit = run_em(model)
    x, back = free(model)(model.start(np.random.default_rng(0)))

    def loss(u):
        return -normal_loglik(model.data, *marginal(model, back(u)))

    found = minimize(loss, x, method="BFGS", options={"gtol": 1e-3})
    assert fit.llf == pytest.approx(-found.fun, abs=1e-5)
    np.testing.assert_allclose(fit.bse, plain_errors(model, fit.params), rtol=2e-3)


def test_standard_errors_do_not_depend_on_the_rotation():
    model = FactorAnalysis(make_data(holes=False), 2)
    fit = run_em(model)
    parts = model.components(fit.theta)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    other = model.pack_params(**(parts | {"loadings": parts["loadings"] @ turn}))
    one, two = (np.sqrt(np.diag(model.cov_params(t))) for t in (fit.theta, other))
    assert np.isnan(one[6:18]).all()
    keep = np.r_[:6, 18:24]
    np.testing.assert_allclose(one[keep], two[keep], rtol=1e-3)
    assert fit.n_params == 6 + 12 + 6 - 1


@pytest.mark.nojit
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_draws_follow_the_posterior():
    model = FactorAnalysis(make_data(20), 2)
    theta = make_theta(model)
    full = int(np.flatnonzero(~np.isnan(model.data).any(axis=1))[0])
    for i in (full, 0, 5):
        check_draws(model, theta, i, n=1000)


@KINDS
def test_weights_are_repetitions(kind):
    model = kind(make_data(20), 2)
    weights = np.random.default_rng(0).integers(0, 4, 20).astype(float)
    weights[:3] = [0.0, 1.0, 2.0]
    repeated = model.with_data(np.repeat(model.data, weights.astype(int), axis=0))
    check_weights(model.reweighted(weights), repeated, make_theta(model))
    one = kind(model.data, 2, weights=weights)
    two = kind(np.repeat(model.data, weights.astype(int), axis=0), 2)
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(one.start(rng), two.start(rng), rtol=1e-8, atol=1e-10)


@KINDS
@HOLES
@pytest.mark.parametrize(
    ("block", "at", "value"),
    [
        ("moments", 0, 0.0),
        ("moments", 0, -1.0),
        ("moments", 2, -0.5),
        ("moments", 4, 30.0),
        ("moments", 5, np.nan),
        ("products", 4, 40.0),
        ("products", 1, np.inf),
        ("squares", 0, 0.0),
        ("squares", 5, -1.0),
        ("squares", 3, np.nan),
    ],
)
def test_inadmissible_statistics_are_refused_and_repaired(kind, holes, block, at, value):
    model = kind(make_data(30, holes), 2)
    theta = make_theta(model)
    s, _ = expected(model, theta)
    fine = s.copy()
    model._functions.project(fine, theta)
    np.testing.assert_array_equal(fine, s)
    model.stat_spec.view(s)[block].reshape(-1)[at] = value
    check_refused(model, s, theta)


def test_repair_is_small():
    """A residual variance barely below 0 moves its column by a few millionths."""
    model = FactorAnalysis(make_data(30, False), 2)
    theta = make_theta(model)
    s, _ = expected(model, theta)
    view = model.stat_spec.view(s)
    second = np.empty((3, 3))
    low = np.tril_indices(3)
    second[low] = second.T[low] = view["moments"]
    b = view["products"][2]
    view["squares"][2] = b @ np.linalg.solve(second, b) - 1e-7
    repaired = check_refused(model, s, theta)
    assert 0.0 < np.abs(repaired - s).max() < 1e-4
    changed = model.stat_spec.view(repaired != s)
    assert not changed["moments"].any()
    assert not np.delete(changed["squares"], 2).any()


@pytest.mark.parametrize(
    ("algorithm", "bound"),
    [
        ("iem", 1e-2),
        (EM(estep=Quadrature(3)), 1e-3),
        ("saem", 0.3),
        ("mcem", 0.3),
        (SAEM(estep=MonteCarlo(exact=False)), 0.3),
    ],
    ids=["iem", "quadrature", "saem", "mcem", "chains"],
)
def test_other_algorithms_reach_the_maximum(algorithm, bound):
    """Within a share of a standard error: some 5 Monte Carlo errors of the stochastic ones."""
    model = FactorAnalysis.example(np.random.default_rng(0), 100)
    fit = run_em(model)
    other = model.fit(algorithm, seed=3, progress=False)
    sign = np.sign(other.loadings.iloc[0, 0] * fit.loadings.iloc[0, 0])
    params = np.concatenate([np.ones(6), np.full(6, sign), np.ones(6)]) * other.params
    assert np.abs((params - fit.params) / fit.bse).max() < bound


def test_noise_does_not_fall_below_its_floor():
    """More factors than the data hold: a Heywood case, refused no, told yes."""
    X, _ = simulate(np.random.default_rng(1), 25)
    fit = FactorAnalysis(X, 3, noise_floor=0.05).fit(
        EM(n_iter=5000, tolerance=1e-8), seed=0, progress=False
    )
    floor = 0.05 * X.var(axis=0)
    assert np.all(fit.noise_variance >= floor * (1 - 1e-12))
    assert fit.boundary
    for name in fit.boundary:
        column = name.removeprefix("noise[").removesuffix("]")
        at = fit.model.feature_names.index(column)
        assert fit.noise_variance.iloc[at] == pytest.approx(floor[at])


def test_answers():
    X = pd.DataFrame(make_data(), columns=list("abcdef"))
    fit = run_em(FactorAnalysis(X, 2))
    np.testing.assert_allclose(fit.communalities + fit.uniquenesses, 1.0)
    cov = fit.loadings @ fit.loadings.T + np.diag(fit.noise_variance)
    np.testing.assert_allclose(fit.covariance, cov)
    for method in ("varimax", "quartimax", "principal"):
        turned = fit.rotated(method).to_numpy()
        np.testing.assert_allclose(turned @ turned.T, fit.loadings @ fit.loadings.T, atol=1e-8)
        share = fit.explained_variance(method)
        assert share["cumulative"].iloc[-1] == pytest.approx(fit.communalities.mean())
    scaled = fit.rotated("principal").to_numpy() / np.sqrt(fit.noise_variance.to_numpy())[:, None]
    off = scaled.T @ scaled
    assert abs(off[0, 1]) < 1e-9 * off[0, 0]
    assert off[0, 0] >= off[1, 1]
    with pytest.raises(OptionError, match="varimax"):
        fit.rotated("oblique")
    assert fit.scores(X.iloc[:3]).shape == (3, 2)
    np.testing.assert_allclose(fit.scores(X[list("fedcba")]), fit.scores())
    np.testing.assert_allclose(fit.score_samples().sum(), fit.llf)
    assert fit.sample(7, seed=0).shape == (7, 6)
    assert "No. of factors" in fit.summary().as_text()


def test_varimax_is_a_stationary_point():
    """No small turn of two factors raises the criterion of the normalised loadings."""
    loadings = run_em(FactorAnalysis(make_data(holes=False), 2)).rotated("varimax").to_numpy()
    scaled = loadings / np.linalg.norm(loadings, axis=1, keepdims=True)

    def criterion(angle):
        c, s = np.cos(angle), np.sin(angle)
        squares = np.square(scaled @ np.array([[c, -s], [s, c]]))
        return np.sum(squares.var(axis=0))

    assert criterion(0.0) >= max(criterion(a) for a in np.linspace(-0.7, 0.7, 29)) - 1e-8


def test_malformed_input():
    X = make_data(20)
    with pytest.raises(ModelError) as caught:
        FactorAnalysis(np.where(np.isnan(X), np.inf, X), 0, noise_floor=2.0, incomplete="no")
    for part in ("n_factors=0", "noise_floor=2.0", "incomplete='no'", "infinite"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="n_factors=6 must be below"):
        FactorAnalysis(X, 6)
    with pytest.raises(DataError, match="misses entries"):
        PPCA(X, 2, incomplete=False)
    with pytest.raises(DataError, match="incomplete=True"):
        FactorAnalysis(make_data(20, False), 2).with_data(X)
    assert FactorAnalysis(X, 2).with_data(make_data(20, False)).incomplete
    with pytest.raises(DataError, match="columns"):
        FactorAnalysis(X, 2).with_data(X[:, :3])
    model = FactorAnalysis(X, 2)
    with pytest.raises(ModelError) as caught:
        model.pack_params(mean=np.zeros(5), loadings=np.full((6, 2), np.nan), noise_variance=-1.0)
    for part in ("mean has shape", "loadings holds", "above 0"):
        assert part in str(caught.value)
    with pytest.raises(ModelError, match="same for all"):
        PPCA(X, 2).pack_params(
            mean=np.zeros(6), loadings=np.zeros((6, 2)), noise_variance=np.arange(1.0, 7.0)
        )
    with pytest.raises(ModelError, match="pack_params"):
        model.check_theta(np.zeros(3))


def test_complete_data_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_em(FactorAnalysis(make_data(holes=False), 2))
