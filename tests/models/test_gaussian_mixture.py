"""Gaussian mixtures: compiled functions against plain NumPy and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from model_references import expected, full_pass
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from saem.algorithms import EM, IncrementalEM
from saem.exceptions import DataError, ModelError, SaemWarning
from saem.models._mixture_scores import free_to_named, scores
from saem.models._mixture_start import lloyd
from saem.models.gaussian_mixture import GaussianMixture, simulate

TYPES = ("full", "tied", "diag", "spherical")


def make_data(n=700, d=3, k=3, seed=1):
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(k, d, d)) * 0.4 + np.eye(d)
    covariances = roots @ roots.transpose(0, 2, 1)
    means = 2.0 * rng.normal(size=(k, d))
    return simulate(
        rng, n, weights=np.full(k, 1 / k), means=means, covariances=covariances,
        covariance_type="full",
    )[0]  # fmt: skip


def make_model(covariance_type, n=700, d=3, k=3, **options):
    model = GaussianMixture(make_data(n, d, k), k, covariance_type=covariance_type, **options)
    return model, model.start(np.random.default_rng(5))


def full_covariances(model, theta):
    """Covariances of all components as (k, d, d)."""
    covariances = model.components(theta)["covariances"]
    k, d = model.n_components, model.n_features
    if model.covariance_type in ("full", "tied"):
        return np.broadcast_to(covariances, (k, d, d))
    return np.broadcast_to(covariances.reshape(k, -1), (k, d))[:, :, None] * np.eye(d)


@pytest.mark.nojit
@pytest.mark.parametrize("covariance_type", TYPES)
def test_posterior_equals_scipy(covariance_type):
    model, theta = make_model(covariance_type)
    parts = model.components(theta)
    X = model.values.reshape(-1, model.n_features)
    covariances = full_covariances(model, theta)
    log_joint = np.stack(
        [
            np.log(parts["weights"][c])
            + multivariate_normal(parts["means"][c], covariances[c]).logpdf(X)
            for c in range(model.n_components)
        ],
        axis=1,
    )
    probabilities, log_lik = model.posterior(theta)
    expected = logsumexp(log_joint, axis=1)
    np.testing.assert_allclose(log_lik, expected, rtol=1e-11)
    np.testing.assert_allclose(
        probabilities, np.exp(log_joint - expected[:, None]), rtol=1e-9, atol=1e-300
    )
    np.testing.assert_array_equal(model.predict(theta), log_joint.argmax(axis=1))
    np.testing.assert_array_equal(model.predict_proba(theta), probabilities)
    np.testing.assert_array_equal(model.score_samples(theta), log_lik)


@pytest.mark.nojit
@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize(("n", "d", "k"), [(700, 3, 3), (301, 1, 2), (129, 10, 2), (40, 5, 1)])
def test_rows_visited_together_are_those_visited_one_by_one(covariance_type, n, d, k):
    model, theta = make_model(covariance_type, n, d, k)
    s, loglik = expected(model, theta)
    s_together, loglik_together = full_pass(model, theta)
    scale = np.abs(s).max()
    np.testing.assert_allclose(s_together, s, rtol=1e-12, atol=1e-14 * scale)
    assert loglik_together == pytest.approx(loglik, rel=1e-12)


@pytest.mark.nojit
@pytest.mark.parametrize("covariance_type", TYPES)
def test_maximize_inverts_the_mean_map(covariance_type):
    model, theta = make_model(covariance_type, reg_covar=0.0)
    parts, covariances = model.components(theta), full_covariances(model, theta)
    w, m = parts["weights"], parts["means"]
    second = covariances + m[:, :, None] * m[:, None, :]
    low = np.tril_indices(model.n_features)
    squares = {
        "full": lambda: (w[:, None, None] * second)[:, low[0], low[1]],
        "tied": lambda: np.einsum("c,cij->ij", w, second)[low],
        "diag": lambda: w[:, None] * np.einsum("cii->ci", second),
        "spherical": lambda: w * np.einsum("cii->c", second),
    }[covariance_type]()
    s = model.stat_spec.pack({"counts": w, "sums": w[:, None] * m, "squares": squares})
    fitted = model.pack_components(
        weights=np.full_like(w, 1 / w.size), means=m + 1, covariances=parts["covariances"]
    )
    assert model._functions.maximize(s, fitted) == 0
    np.testing.assert_allclose(fitted, theta, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_em_equals_scikit_learn_step_by_step(covariance_type):
    from sklearn.mixture import GaussianMixture as Peer
    from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky

    X = make_data()
    model = GaussianMixture(X, 3, covariance_type=covariance_type)
    theta = model.start(np.random.default_rng(5))
    trace = model.fit(EM(n_iter=50, tolerance=None), start=theta, n_threads=2).trace
    parts = model.components(theta)
    peer = Peer(model.n_components, covariance_type=covariance_type, reg_covar=model.reg_covar)
    peer.weights_, peer.means_ = parts["weights"], parts["means"]
    peer.covariances_ = parts["covariances"]
    peer.precisions_cholesky_ = _compute_precision_cholesky(peer.covariances_, covariance_type)
    low = np.tril_indices(model.n_features)
    for k in range(1, 51):
        mean_loglik, log_resp = peer._e_step(X)
        peer._m_step(X, log_resp)
        assert trace["loglik"][k] / len(X) == pytest.approx(mean_loglik, rel=1e-8)
        second = peer.covariances_
        if covariance_type in ("full", "tied"):
            second = second[..., low[0], low[1]]
        theirs = np.concatenate([peer.weights_, peer.means_.ravel(), second.ravel()])
        ours = trace.loc[k, model.param_names].to_numpy()
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)


def test_several_starts_find_the_better_maximum():
    model = GaussianMixture(make_data(), 3, init="random")
    single = [model.fit("em", seed=seed) for seed in range(6)]
    many = model.fit("em", seed=0, n_starts=6)
    assert many.converged
    best = max(record.trace["loglik"].max() for record in single)
    assert many.trace["loglik"].max() > best - 1.0


@pytest.mark.parametrize("covariance_type", TYPES)
def test_incremental_em_has_the_fixed_point_of_em(covariance_type):
    model = GaussianMixture(make_data(), 3, covariance_type=covariance_type)
    em = model.fit(EM(n_iter=3000, tolerance=None), seed=0)
    iem = model.fit(IncrementalEM(n_epochs=5), seed=1, start=em.theta)
    np.testing.assert_allclose(
        model.params_of(iem.theta), model.params_of(em.theta), rtol=1e-7, atol=1e-8
    )


@pytest.mark.nojit
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("covariance_type", TYPES)
def test_draws_follow_the_posterior(covariance_type):
    model, theta = make_model(covariance_type)
    y, work = np.zeros(model.n_features), np.empty(model.work_size)
    y += model.components(theta)["means"][:2].mean(axis=0)
    latent, p = np.empty(model.latent_size), np.empty(model.latent_size)
    model._functions.expect(theta, y, p, work)
    counts = np.zeros(model.latent_size)
    n = 20_000
    for key in range(n):
        model._functions.draw(theta, y, np.uint64(key * 0x9E3779B97F4A7C15 % 2**64), latent, work)
        assert sorted(latent) == [0.0] * (model.latent_size - 1) + [1.0]
        counts += latent
    # false alarm below 1e-5 per component
    assert np.all(np.abs(counts / n - p) <= 4.5 * np.sqrt(p * (1 - p) / n) + 1e-6)


def test_data_are_used_without_a_copy():
    X = make_data()
    model = GaussianMixture(X, 2)
    assert np.shares_memory(model.values, X)
    X.flags.writeable = False
    model = GaussianMixture(X, 2)
    assert np.shares_memory(model.values, X)
    s, _ = full_pass(model, model.start(np.random.default_rng(0)))
    assert np.all(np.isfinite(s))


def test_a_far_origin_costs_no_accuracy():
    X = make_data()
    near, far = GaussianMixture(X, 3, init="kmeans++"), GaussianMixture(X + 1e7, 3)
    results = []
    for model in (near, far):
        theta = model.start(np.random.default_rng(0))
        for _ in range(20):
            s, loglik = full_pass(model, theta)
            assert model._functions.maximize(s, theta) == 0
        results.append((model.components(theta), loglik))
    (a, loglik_a), (b, loglik_b) = results
    assert loglik_b == pytest.approx(loglik_a, rel=1e-6)
    np.testing.assert_allclose(b["means"] - 1e7, a["means"], atol=1e-4)
    np.testing.assert_allclose(b["covariances"], a["covariances"], atol=1e-4)


@pytest.mark.parametrize("init", ["kmeans++", "random"])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_starts_are_random_and_reproducible(init, covariance_type):
    model, _ = make_model(covariance_type, init=init)
    first, again, other = (model.start(np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.all(np.isfinite(first))
    assert model.components(first)["weights"].sum() == pytest.approx(1.0)


def test_start_with_rare_distinct_rows():
    X = np.zeros((50_000, 1))
    X[::10_000, 0] = np.arange(5.0) + 1.0
    for init in ("kmeans++", "random"):
        model = GaussianMixture(X, 3, init=init)
        theta = model.start(np.random.default_rng(0))
        assert np.unique(model.components(theta)["means"]).size == 3


@pytest.mark.parametrize("covariance_type", TYPES)
def test_given_start_is_returned(covariance_type):
    model, theta = make_model(covariance_type)
    parts = model.components(theta)
    X = model.values.reshape(-1, model.n_features)
    for init in (parts, tuple(parts.values())):
        given = GaussianMixture(X, 3, covariance_type=covariance_type, init=init)
        assert given.start(np.random.default_rng(0)) == pytest.approx(theta, rel=1e-12)


def test_names_and_counts():
    frame = pd.DataFrame(make_data(d=2, k=2), columns=["a", "b"])
    names = {
        "full": ["0,a,a", "0,b,a", "0,b,b", "1,a,a", "1,b,a", "1,b,b"],
        "tied": ["a,a", "b,a", "b,b"],
        "diag": ["0,a", "0,b", "1,a", "1,b"],
        "spherical": ["0", "1"],
    }
    for covariance_type, inner in names.items():
        model = GaussianMixture(frame, 2, covariance_type=covariance_type)
        assert model.param_names == [
            "weights[0]", "weights[1]", "means[0,a]", "means[0,b]", "means[1,a]", "means[1,b]",
            *(f"covariances[{i}]" for i in inner),
        ]  # fmt: skip
        assert model.n_params == 1 + 4 + len(inner)
        theta = model.start(np.random.default_rng(0))
        assert model.params_of(theta).shape == (len(model.param_names),)


def test_frames_are_matched_by_name():
    frame = pd.DataFrame(make_data(d=2, k=2), columns=["a", "b"])
    model = GaussianMixture(frame, 2)
    theta = model.start(np.random.default_rng(0))
    np.testing.assert_array_equal(
        model.score_samples(theta, frame[["b", "a"]]), model.score_samples(theta)
    )
    with pytest.raises(DataError, match="column 'b' is missing"):
        model.predict(theta, frame[["a"]])
    with pytest.raises(DataError, match="3 columns; the model has 2"):
        model.predict(theta, np.zeros((4, 3)))


def test_icl_is_bic_plus_overlap():
    model, theta = make_model("full")
    probabilities, log_lik = model.posterior(theta)
    bic = -2 * log_lik.sum() + model.n_params * np.log(model.n_individuals)
    expected = bic - 2 * np.log(probabilities.max(axis=1)).sum()
    assert model.icl(theta) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_scores_equal_differences(covariance_type):
    model, theta = make_model(covariance_type, n=60, d=2, k=2)
    params = model.params_of(theta)
    jacobian = free_to_named(model.n_components, model.n_params)
    X = model.values.reshape(-1, 2)
    parts = model.components(theta)
    exact = scores(X, model.predict_proba(theta), parts, covariance_type)

    def score_samples(x):
        second = model.theta_spec.shapes["covariances"]
        other = theta.copy()
        view = model.theta_spec.view(other)
        view["weights"][:] = x[:2]
        view["means"][:] = x[2:6].reshape(2, 2)
        view["covariances"][:] = x[6:].reshape(second)
        assert model._functions.derive(other)
        return model.score_samples(other)

    h = 1e-5
    for j in range(model.n_params):
        step = h * jacobian[:, j]
        slope = (score_samples(params + step) - score_samples(params - step)) / (2 * h)
        np.testing.assert_allclose(exact[:, j], slope, rtol=1e-5, atol=1e-6)


def test_standard_errors_of_one_component_are_the_known_ones():
    n = 20_000
    X = make_data(n=n, d=2, k=1)
    model = GaussianMixture(X, 1, reg_covar=0.0)
    s, _ = full_pass(model, theta := model.start(np.random.default_rng(0)))
    assert model._functions.maximize(s, theta) == 0
    cov = model.components(theta)["covariances"][0]
    se = np.sqrt(np.diag(model.cov_params(theta)))
    known = [0.0, *np.sqrt(np.diag(cov) / n)]
    known += [
        np.sqrt((cov[a, a] * cov[b, b] + cov[a, b] ** 2) / n) for a, b in [(0, 0), (1, 0), (1, 1)]
    ]
    np.testing.assert_allclose(se, known, rtol=0.05)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_samples_have_the_moments_of_the_mixture(covariance_type):
    model, theta = make_model(covariance_type)
    n = 40_000
    X, labels = model.sample(theta, n, np.random.default_rng(8))
    parts, covariances = model.components(theta), full_covariances(model, theta)
    share = np.bincount(labels, minlength=3) / n
    w = parts["weights"]
    assert np.all(np.abs(share - w) < 5 * np.sqrt(w * (1 - w) / n))
    for c in range(3):
        rows = X[labels == c]
        sd = np.sqrt(np.diag(covariances[c]))
        assert np.all(np.abs(rows.mean(axis=0) - parts["means"][c]) < 5 * sd / np.sqrt(len(rows)))
        error = np.abs(np.cov(rows.T) - covariances[c]) / np.outer(sd, sd)
        assert np.all(error < 5 * np.sqrt(2 / len(rows)))


def test_simulate_benchmark():
    X, labels = simulate(np.random.default_rng(0), 1000, grouped=True)
    assert X.shape == (1000, 1)
    assert np.all(np.diff(labels) >= 0)
    assert abs(labels.mean() - 0.8) < 5 * np.sqrt(0.16 / 1000)


@pytest.mark.nojit
def test_an_empty_component_and_a_singular_covariance_are_reported():
    model, theta = make_model("full", reg_covar=0.0)
    s, _ = full_pass(model, theta)
    view = model.stat_spec.view(s)
    view["squares"][0] = 0.0
    assert model._functions.maximize(s, theta.copy()) == 2
    view["counts"][1] = 0.0
    assert model._functions.maximize(s, theta.copy()) == 1
    assert set(model.maximize_errors) == {1, 2, 3}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_components": 0}, "n_components=0"),
        ({"n_components": 2.5}, "n_components=2.5"),
        ({"covariance_type": "diagonal"}, "did you mean 'diag'"),
        ({"reg_covar": -1.0}, "reg_covar=-1.0"),
        ({"init": "k-means"}, "did you mean 'kmeans\\+\\+'"),
        ({"init": {"weights": [1]}}, "it needs"),
        ({"init": 3}, "init=3"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(ModelError, match=text):
        GaussianMixture(make_data(50), **({"n_components": 2} | options))


def test_all_problems_at_once():
    X = make_data(10)
    X[3, 1], X[4, 2] = np.nan, np.inf
    with pytest.raises(DataError) as error:
        GaussianMixture(X, 11, missing=False)
    text = str(error.value)
    assert "row 3, column 'x1'" in text
    assert "row 4, column 'x2'" in text
    assert "n_components=11 exceeds the number of rows, 10" in text


@pytest.mark.parametrize(
    ("X", "text"),
    [
        (np.zeros(5), "two dimensions"),
        (np.zeros((0, 2)), "empty"),
        (np.array([["a", "b"]]), "real numbers"),
        (pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}), "column 'b' has dtype"),
        (pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], columns=["a", "a"]), "more than one column"),
        (np.ones((5, 2)), "distinct rows"),
        (pd.DataFrame({"a": [1.0, np.inf, 3.0]}, index=[10, 11, 12]), "row 11, column 'a'"),
        (pd.DataFrame({"a": [1.0, None, 3.0]}, index=[10, 11, 12]), "row 11 holds no value"),
    ],
)
def test_bad_data(X, text):
    with pytest.raises(DataError, match=text):
        GaussianMixture(X, 2)


def test_singular_data():
    X = make_data(60, d=2, k=1)
    constant = np.column_stack([X, np.full(60, 4.0)])
    with pytest.warns(SaemWarning, match="column 'x2' is constant"):
        GaussianMixture(constant, 2)
    with pytest.raises(DataError, match="'x2' is constant"):
        GaussianMixture(constant, 2, reg_covar=0.0)
    collinear = np.column_stack([X, X.sum(axis=1)])
    with pytest.warns(SaemWarning, match="collinear"):
        GaussianMixture(collinear, 2)
    with pytest.raises(DataError, match="collinear"):
        GaussianMixture(collinear, 2, reg_covar=0.0)
    GaussianMixture(collinear, 2, covariance_type="diag", reg_covar=0.0)
    with pytest.warns(SaemWarning, match="not large against"):
        GaussianMixture(1e-4 * X, 2)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"weights": [0.5, 0.2, 0.2]}, "sum to 0.9"),
        ({"weights": [1.5, -0.7, 0.2]}, "above 0"),
        ({"weights": [0.5, 0.5]}, "must have shape \\(3,\\)"),
        ({"means": np.full((3, 3), np.nan)}, "means holds values"),
        ({"means": "x"}, "array of numbers"),
        ({"covariances": np.tile(-np.eye(3), (3, 1, 1))}, "not positive definite"),
        ({"covariances": np.tile(np.triu(np.ones((3, 3))), (3, 1, 1))}, "not symmetric"),
    ],
)
def test_bad_given_starts(change, text):
    model, theta = make_model("full")
    X = model.values.reshape(-1, 3)
    with pytest.raises(ModelError, match=text):
        GaussianMixture(X, 3, init=model.components(theta) | change)


def test_bad_given_variances():
    model, theta = make_model("diag")
    X = model.values.reshape(-1, 3)
    init = model.components(theta) | {"covariances": np.zeros((3, 3))}
    with pytest.raises(ModelError, match="must all be above 0"):
        GaussianMixture(X, 3, covariance_type="diag", init=init)


def test_theta_is_checked():
    model, theta = make_model("full")
    model.check_theta(theta)
    for bad in (theta[:-1], theta * np.nan):
        with pytest.raises(ModelError, match="finite numbers; use `pack_components`"):
            model.check_theta(bad)
    parts = model.components(theta) | {"covariances": np.zeros((3, 3, 3))}
    with pytest.raises(ModelError, match="not positive definite"):
        model.pack_components(**parts)


def test_a_centre_that_loses_its_rows_takes_the_farthest():
    X = np.array([[0.0], [0.1], [0.2], [9.0]])
    labels = lloyd(X, np.array([[0.1], [0.1], [100.0]]))
    assert np.bincount(labels, minlength=3).min() >= 1


def test_only_the_first_bad_values_are_spelt_out():
    with pytest.raises(DataError, match=r"and \d+ more of the same kinds"):
        GaussianMixture(np.full((40, 2), np.inf), 2)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_results(covariance_type):
    frame = pd.DataFrame(make_data(), columns=["a", "b", "c"])
    model = GaussianMixture(frame, 3, covariance_type=covariance_type)
    fit = model.fit("em", seed=2)
    theta = fit.record.theta
    assert fit.converged
    for name, value in model.components(theta).items():
        np.testing.assert_array_equal(getattr(fit, name), value)
    np.testing.assert_array_equal(fit.predict(frame[["c", "a", "b"]]), model.predict(theta))
    np.testing.assert_array_equal(fit.predict_proba().argmax(axis=1), fit.predict())
    assert fit.llf == pytest.approx(fit.score_samples().sum())
    assert fit.llf >= fit.trace["loglik"].max() - 1e-6
    assert fit.bic == pytest.approx(-2 * fit.llf + fit.n_params * np.log(700))
    assert fit.bic < fit.icl == pytest.approx(model.icl(theta))
    X, labels = fit.sample(50, seed=1)
    assert X.shape == (50, 3)
    assert labels.shape == (50,)
    np.testing.assert_array_equal(X, fit.sample(50, seed=1)[0])
    interval = fit.conf_int()
    assert np.all((interval["lower"] < fit.params) & (fit.params < interval["upper"]))
    assert np.all(interval.filter(like="weights", axis=0) > 0)
