"""M-steps of Gaussian mixtures: their objective, kept parts, repairs; the classifier."""

import numpy as np
import pytest
from model_references import full_pass
from scipy.optimize import minimize

from saem.algorithms import EM
from saem.exceptions import ModelError
from saem.models.gaussian_mixture import GaussianMixture, simulate
from saem.random import stream

TYPES = ("full", "tied", "diag", "spherical")
KEPT = ((), ("weights",), ("means",), ("covariances",), ("weights", "covariances"))


def example(covariance_type, n=80, seed=0, **options):
    return GaussianMixture.example(
        np.random.default_rng(seed), n, covariance_type=covariance_type, **options
    )


def keeping(model, fixed):
    """The same rows and start in a model that keeps some parts at their starting values."""
    parts = model.components(model.start(None))
    fixed = {name: parts[name] for name in fixed}
    weights = model.row_weights
    return GaussianMixture(
        model.rows + model.shift, 2, covariance_type=model.covariance_type, init=parts,
        reg_covar=model.reg_covar, weights=weights, fixed=fixed,
    )  # fmt: skip


def near(theta, model, rng, scale):
    """Free parameters moved a little, where they stay admissible."""
    while True:
        params = model.params_of(theta)
        move = scale * rng.standard_normal(params.size)
        if "weights" not in model.fixed:
            move[: model.n_components] -= move[: model.n_components].mean()
        try:
            other = model.theta_of(params + move)
        except ModelError:
            continue
        if np.all(model.components(other)["weights"] > 0.0):
            return other


@pytest.mark.nojit
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("fixed", KEPT)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_m_step_maximises_the_surrogate(covariance_type, fixed, missing):
    model = keeping(example(covariance_type, missing=missing), fixed)
    model = GaussianMixture(
        model.rows, 2, covariance_type=covariance_type, reg_covar=0.01, fixed=model.fixed,
        init=model.components(model.start(None)),
    )  # fmt: skip
    f, theta, rng = model._functions, model.start(None), np.random.default_rng(1)
    s, _ = full_pass(model, theta)
    best = theta.copy()
    assert f.maximize(s, best) == 0
    top = f.surrogate(s, best)
    assert top >= f.surrogate(s, theta)
    for scale in (1e-3, 1e-2, 1e-1):
        others = [f.surrogate(s, near(best, model, rng, scale)) for _ in range(20)]
        assert max(others) < top
    # stationary: the central difference is of the order of the step's cube
    params, h = model.params_of(best), 1e-4
    for _ in range(10):
        move = rng.standard_normal(params.size)
        if "weights" not in fixed:
            move[:2] -= move[:2].mean()
        ahead, behind = (f.surrogate(s, model.theta_of(params + e * h * move)) for e in (1, -1))
        assert abs(ahead - behind) / (2 * h) < 1e-5
    for name, kept in model.fixed.items():
        np.testing.assert_array_equal(model.components(best)[name], kept)


@pytest.mark.nojit
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_surrogate_is_linear_and_the_complete_likelihood(covariance_type, missing):
    model = example(covariance_type, missing=missing)
    f, theta = model._functions, model.start(None)
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, model.stat_spec.size))
    left = f.surrogate(2.0 * a - 3.0 * b, theta)
    assert left == pytest.approx(2 * f.surrogate(a, theta) - 3 * f.surrogate(b, theta), rel=1e-10)
    # floor 0: log p(x, z) of complete rows is the surrogate of their statistic
    model = GaussianMixture(
        model.rows, 2, covariance_type=covariance_type, reg_covar=0.0, init=model.components(theta)
    )
    f, theta = model._functions, model.start(None)
    latent, work = np.empty(model.latent_size), np.empty(model.work_size)
    for i in range(20):
        y, s = model.record_of(i), np.zeros(model.stat_spec.size)
        value = f.classify(theta, y, latent, work)
        assert sorted(latent[:2]) == [0.0, 1.0]
        assert latent[:2].argmax() == model.predict(theta)[i]
        joint = np.log(model.predict_proba(theta)[i].max()) + model.score_samples(theta)[i]
        assert value == pytest.approx(joint, rel=1e-12)
        if np.isnan(y).any() and covariance_type in ("full", "tied"):
            continue  # the surrogate has the missing value as a latent variable, too
        f.accumulate(1.0, y, latent, s)
        assert f.surrogate(s, theta) == pytest.approx(value, rel=1e-10)


@pytest.mark.nojit
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_inadmissible_statistics_are_refused_and_repaired(covariance_type, missing):
    model = example(covariance_type, missing=missing, weighted=True)
    f, theta = model._functions, model.start(None)
    s, _ = full_pass(model, theta)
    f.maximize(s, theta)
    unharmed = s.copy()
    f.project(unharmed, theta)
    np.testing.assert_array_equal(unharmed, s)
    rng = np.random.default_rng(3)
    spoilt = []
    for block, values in [
        ("counts", (0.0, -0.2, np.nan, np.inf)),
        ("sums", (np.nan, -np.inf)),
        ("squares", (-5.0, np.nan, np.inf)),
    ]:
        for value in values:
            one = s.copy()
            model.stat_spec.view(one)[block].flat[0] = value
            spoilt.append(one)
    if "observed" in model.stat_spec.shapes:
        one = s.copy()
        model.stat_spec.view(one)["observed"][0, 1] = 0.0
        spoilt.append(one)
    spoilt += [-s, np.zeros_like(s), np.full_like(s, np.nan)]
    spoilt += list(rng.normal(size=(200, s.size)) * rng.choice([1e-3, 1.0, 1e3], (200, 1)))
    refused = 0
    for one in spoilt:
        before, given = theta.copy(), one.copy()
        code = f.maximize(one, theta)
        np.testing.assert_array_equal(one, given)
        if code == 0:
            assert np.all(np.isfinite(theta))
            theta[:] = before
            continue
        refused += 1
        assert code in model.maximize_errors
        np.testing.assert_array_equal(theta, before)
        f.project(one, theta)
        after = theta.copy()
        assert f.maximize(one, after) == 0
        assert np.all(np.isfinite(after))
        again = one.copy()
        f.project(again, theta)
        np.testing.assert_array_equal(again, one)
    assert refused > 150


@pytest.mark.nojit
def test_a_repair_is_near():
    model = example("full")
    f, theta = model._functions, model.start(None)
    s, _ = full_pass(model, theta)
    f.maximize(s, theta)
    least = 1e-6 * np.trace(model.components(theta)["covariances"][0]) / 2
    # a slightly indefinite second moment: only the negative eigenvalue is raised
    covariance = np.array([[1.0, 1.0001], [1.0001, 1.0]])
    parts = model.stat_spec.view(s)
    mean = parts["sums"][0] / parts["counts"][0]
    second = covariance + np.outer(mean, mean)
    parts["squares"][0] = parts["counts"][0] * second[np.tril_indices(2)]
    before = s.copy()
    assert f.maximize(s, theta.copy()) == 2
    f.project(s, theta)
    assert np.abs(s - before).max() < 2e-4
    assert f.maximize(s, theta) == 0
    values = np.linalg.eigvalsh(model.components(theta)["covariances"][0])
    np.testing.assert_allclose(values, [least, 2.0001], rtol=1e-3)


@pytest.mark.parametrize("fixed", [*KEPT[1:], ("weights", "means"), ("means", "covariances")])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_em_with_kept_parts_reaches_the_constrained_maximum(covariance_type, fixed):
    base = GaussianMixture.example(np.random.default_rng(5), 150, covariance_type=covariance_type)
    truth = base.components(base.start(None))
    model = GaussianMixture(
        base.rows, 2, covariance_type=covariance_type, reg_covar=0.0, init=truth,
        fixed={name: truth[name] for name in fixed},
    )  # fmt: skip
    fit = model.fit(EM(n_iter=3000, tolerance=1e-11), seed=0)
    loglik = fit.trace["loglik"].to_numpy()
    assert np.all(np.diff(loglik[1:]) > -1e-9)
    start = model.params_of(model.start(None))
    weights = "weights" not in fixed

    def objective(x):
        params = np.concatenate([[x[0], 1.0 - x[0]], x[1:]]) if weights else x
        try:
            theta = model.theta_of(params)
        except ModelError:
            return 1e10
        if weights and not 0.0 < x[0] < 1.0:
            return 1e10
        return -model.loglik(theta)

    x0 = np.delete(start, 1) if weights else start
    found = minimize(objective, x0, method="Nelder-Mead",
                     options={"maxfev": 20_000, "maxiter": 20_000, "xatol": 1e-9, "fatol": 1e-10,
                              "adaptive": True})  # fmt: skip
    assert fit.llf >= -found.fun - 1e-6
    if len(x0) <= 5:  # the simplex itself gets there only in a few dimensions
        assert fit.llf == pytest.approx(-found.fun, abs=1e-6)
    assert model.n_params == len(x0)
    names = [n for n in model.param_names if n.split("[")[0] in fixed]
    assert names == []
    assert fit.bse.notna().all()
    assert (fit.to_frame()["status"] == "fixed").sum() > 0


def test_names_start_and_scores_of_kept_parts():
    X = simulate(np.random.default_rng(0), 4000)[0]
    fixed = {"weights": [0.2, 0.8], "covariances": [1.0, 1.0]}
    model = GaussianMixture(X, 2, covariance_type="spherical", fixed=fixed)
    assert model.param_names == ["means[0,x0]", "means[1,x0]"]
    assert model.n_params == 2
    fit = model.fit("em", seed=0)
    np.testing.assert_array_equal(fit.weights, [0.2, 0.8])
    # the rarer component is the one with the larger mean: clusters went to their weights
    assert fit.means[0, 0] > fit.means[1, 0]
    assert np.all(np.abs(fit.means.ravel() - [0.5, -0.5]) < 4.5 * fit.bse.to_numpy())
    theta, h = fit.theta, 1e-5
    total = model.scores(theta, slice(None)).sum(axis=0)
    for j in range(2):
        move = h * np.eye(2)[j]
        a, b = (model.loglik(model.theta_of(fit.params + e * move)) for e in (1, -1))
        assert total[j] == pytest.approx((a - b) / (2 * h), abs=1e-4)


def test_a_start_keeps_the_given_covariances_apart():
    rng = np.random.default_rng(4)
    narrow, wide = 0.1 * rng.standard_normal((200, 2)), 5 + rng.standard_normal((200, 2))
    for order in ([0.01, 1.0], [1.0, 0.01]):
        model = GaussianMixture(
            np.vstack([narrow, wide]), 2, covariance_type="spherical", fixed={"covariances": order}
        )
        means = model.components(model.start(np.random.default_rng(0)))["means"]
        assert means[int(np.argmax(order)), 0] > 4.0


@pytest.mark.parametrize(
    ("fixed", "text"),
    [
        ({"mean": [[0.0]]}, "did you mean 'means'"),
        ({"weights": [0.5, 0.6]}, "sum to 1.1"),
        ({"covariances": [0.0, 1.0]}, "above 0"),
        (3, "must be a dict"),
        ({"weights": 1, "means": 1, "covariances": 1}, "nothing is left to estimate"),
    ],
)
def test_bad_kept_parts(fixed, text):
    X = simulate(np.random.default_rng(0), 50)[0]
    with pytest.raises(ModelError, match=text):
        GaussianMixture(X, 2, covariance_type="spherical", fixed=fixed)


def test_theta_of_another_model_is_refused():
    X = simulate(np.random.default_rng(0), 50)[0]
    free = GaussianMixture(X, 2, covariance_type="spherical")
    kept = GaussianMixture(X, 2, covariance_type="spherical", fixed={"weights": [0.5, 0.5]})
    theta = free.start(np.random.default_rng(0))
    with pytest.raises(ModelError, match="keeps other parts"):
        kept.fit("em", start=theta)
    with pytest.raises(ModelError, match="weights is not what the model keeps"):
        kept.pack_components(**(free.components(theta) | {"weights": [0.3, 0.7]}))
    with pytest.raises(ModelError, match="means is missing"):
        kept.pack_components(covariances=[1.0, 1.0])


def test_parameters_and_theta_are_inverse():
    for covariance_type in TYPES:
        for fixed in KEPT:
            model = keeping(example(covariance_type), fixed)
            theta = model.start(None)
            again = model.theta_of(model.params_of(theta))
            np.testing.assert_allclose(again, theta, rtol=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_draws_average_to_the_expected_statistic(covariance_type, missing):
    model = example(covariance_type, n=30, weighted=True, missing=missing)
    f, theta = model._functions, model.start(None)
    latent, work = np.empty(model.latent_size), np.empty(model.work_size)
    expected, _ = full_pass(model, theta)
    n_draws, sums = 2000, np.zeros((2000, expected.size))
    for m in range(n_draws):
        for i in range(model.n_individuals):
            key = stream(np.uint64(7), i, m)
            f.draw(theta, model.record_of(i), key, latent, work)
            f.accumulate(1.0 / model.n_individuals, model.record_of(i), latent, sums[m])
    error = sums.std(axis=0) / np.sqrt(n_draws)
    # false alarm below 1e-5 per number
    assert np.all(np.abs(sums.mean(axis=0) - expected) <= 4.5 * error + 1e-12)
