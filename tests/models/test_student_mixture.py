"""Student mixtures against scipy's densities, fits and optimisers."""

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

from saem.algorithms import EM
from saem.exceptions import DataError, ModelError
from saem.models._gamma_functions import digamma, gamma_draw, gap, gap_slope, solve_gap
from saem.models.student_mixture import StudentMixture


def model_of(n=200, seed=4, **options):
    X, _ = StudentMixture.simulate(np.random.default_rng(seed), n)
    return StudentMixture(X, 2, **options)


def log_joint(parts, X):
    return np.stack(
        [
            np.log(parts["weights"][c])
            + stats.multivariate_t(parts["means"][c], parts["scatters"][c], df).logpdf(X)
            for c, df in enumerate(parts["df"])
        ],
        axis=1,
    )


def rows_of(model):
    return model.values.reshape(-1, 1 + model.n_features)[:, 1:] + model.shift


@pytest.mark.parametrize("a", [1e-3, 0.1, 1.0, 3.7, 9.99, 10.0, 55.0, 1e4, 1e9])
def test_digamma_equation(a):
    from scipy import special

    h = 1e-5 * a
    if a < 1e4:
        assert gap(a) == pytest.approx(np.log(a) - special.digamma(a), rel=1e-12)
        assert gap_slope(a) == pytest.approx(1 / a - special.polygamma(1, a), rel=1e-11)
        assert digamma(a) == pytest.approx(special.digamma(a), rel=1e-12, abs=1e-13)
    else:
        assert gap(a) == pytest.approx(0.5 / a + 1 / (12 * a * a), rel=1e-15)
    assert gap_slope(a) == pytest.approx((gap(a + h) - gap(a - h)) / (2 * h), rel=1e-7)
    assert solve_gap(gap(a)) == pytest.approx(a, rel=1e-12)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("shape", [0.3, 1.0, 4.5])
def test_gamma_draws(shape):
    normal = np.empty(2)
    draws = [
        gamma_draw(np.uint64((i + 1) * 0x9E3779B97F4A7C15 % 2**64), 1, shape, normal)
        for i in range(4000)
    ]
    values, logs = np.array(draws).T
    np.testing.assert_allclose(np.log(values), logs, rtol=1e-10, atol=1e-12)
    assert stats.kstest(values, stats.gamma(shape).cdf).pvalue > 1e-4  # the false alarm


@pytest.mark.nojit
def test_posterior_equals_scipy():
    model = model_of(40)
    theta = model.start(np.random.default_rng(0))
    parts, X = model.components(theta), rows_of(model)
    joint = log_joint(parts, X)
    probabilities, log_lik = model.posterior(theta)
    margin = logsumexp(joint, axis=1)
    np.testing.assert_allclose(log_lik, margin, rtol=1e-10)
    np.testing.assert_allclose(probabilities, np.exp(joint - margin[:, None]), atol=1e-10)
    np.testing.assert_array_equal(model.predict(theta, X), joint.argmax(axis=1))
    s, total = classified(model, theta)
    assert total == pytest.approx(joint.max(axis=1).sum(), rel=1e-10)
    np.testing.assert_allclose(s[:2], np.bincount(joint.argmax(axis=1)) / len(X), rtol=1e-12)


def test_mean_precisions_by_integration():
    model = model_of(5)
    theta = model.start(np.random.default_rng(0))
    parts, X = model.components(theta), rows_of(model)
    latent, work = np.empty(6), np.empty(model.work_size)
    u = np.exp(np.linspace(-12, 5, 40_001))
    for i, x in enumerate(X):
        model._functions.expect(theta, model.record_of(i), latent, work)
        for c in range(2):
            e = x - parts["means"][c]
            delta = e @ np.linalg.solve(parts["scatters"][c], e)
            half = 0.5 * parts["df"][c]
            # p(x, u) up to a constant, in log u: d/2 = 1 power of u from the normal density
            density = np.exp((half + 1.0) * np.log(u) - u * (half + 0.5 * delta))
            density /= density.sum()
            assert latent[2 + c] == pytest.approx((density * u).sum(), rel=1e-8)
            assert latent[4 + c] == pytest.approx((density * np.log(u)).sum(), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("df", [None, 3.0])
def test_maximize_maximises_the_surrogate(df):
    model = model_of(60, df=df, reg_covar=1e-2)
    theta = model.start(np.random.default_rng(0))
    s, _ = expected(model, theta)
    check_maximum(model, s, theta, free_along(model))
    check_affine(model, theta)
    check_scale_free(model, s, theta)


def test_em_climbs_to_the_maximum_of_an_optimiser():
    model = model_of(150, reg_covar=1e-12)
    theta = model.start(np.random.default_rng(0))
    fit = run_em(model, theta, 50_000, 1e-10)
    X, low = rows_of(model), np.tril_indices(2)

    def back(x):
        roots = np.zeros((2, 2, 2))
        roots[:, low[0], low[1]] = x[6:12].reshape(2, 3)
        return {
            "weights": softmax(x[:2]), "means": x[2:6].reshape(2, 2),
            "scatters": roots @ roots.transpose(0, 2, 1), "df": np.exp(x[12:]),
        }  # fmt: skip

    def negative(x):
        return -logsumexp(log_joint(back(x), X), axis=1).sum()

    parts = model.components(theta)
    roots = np.linalg.cholesky(parts["scatters"])[:, low[0], low[1]]
    x = np.concatenate(
        [np.log(parts["weights"]), parts["means"].ravel(), roots.ravel(), np.log(parts["df"])]
    )
    assert -negative(x) == pytest.approx(model.loglik(theta), rel=1e-10)
    found = minimize(negative, x, method="BFGS", options={"gtol": 1e-5})
    assert fit.llf == pytest.approx(-found.fun, abs=1e-6)
    np.testing.assert_allclose(fit.df, back(found.x)["df"], rtol=1e-3)


def test_one_component_equals_scipy():
    x = stats.t(4, loc=2.0, scale=3.0).rvs(size=300, random_state=1)
    model = StudentMixture(x[:, None], 1, reg_covar=1e-12)
    fit = model.fit(EM(n_iter=20_000, tolerance=1e-12), progress=False)
    df, loc, scale = stats.t.fit(x)
    assert fit.llf >= stats.t(df, loc, scale).logpdf(x).sum() - 1e-9
    assert fit.llf == pytest.approx(stats.t(df, loc, scale).logpdf(x).sum(), abs=1e-5)
    assert fit.df[0] == pytest.approx(df, rel=1e-3)
    assert fit.means[0, 0] == pytest.approx(loc, rel=1e-3)
    assert np.sqrt(fit.scatters[0, 0, 0]) == pytest.approx(scale, rel=1e-3)


def test_light_tails_reach_the_largest_df():
    X = np.random.default_rng(0).uniform(size=(200, 2))
    fit = StudentMixture(X, 1).fit(EM(n_iter=5000, tolerance=None), progress=False)
    assert fit.df[0] == 200.0
    assert np.isnan(fit.bse["df[0]"])
    assert np.isfinite(fit.bse["means[0,x0]"])
    assert "df[0]" in fit.boundary
    fixed = StudentMixture(X, 1, df=1e12).fit("em", progress=False)
    np.testing.assert_allclose(fixed.scatters[0], np.cov(X.T, bias=True), rtol=1e-4)


@pytest.mark.nojit
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_draws_follow_the_posterior():
    model = model_of(60)
    theta = model.start(np.random.default_rng(0))
    # a row between the components, and one far from both, where u is small
    middle = StudentMixture.with_data(model, [[2.3, 1.4], [20.0, -20.0]])
    for i in range(2):
        check_draws(middle, theta, i, 2000)


def test_weights_are_repeated_rows():
    model = model_of(80, df=4.0)
    counts = np.random.default_rng(0).integers(0, 4, 80)
    repeated = model.with_data(np.repeat(rows_of(model), counts, axis=0))
    theta = model.start(np.random.default_rng(0))
    check_weights(model.reweighted(counts), repeated, theta)
    check_repetitions(model, repeated, counts, theta)


@pytest.mark.nojit
def test_inadmissible_statistics():
    model = model_of(60)
    theta = model.start(np.random.default_rng(0))
    s, _ = expected(model, theta)
    bad = [-s, np.full_like(s, np.nan), np.zeros_like(s)]
    for i, value in [(0, 0.0), (0, -0.1), (2, 0.0), (3, -1.0), (4, 50.0), (s.size - 1, -9.0)]:
        worse = s.copy()
        worse[i] = value
        bad.append(worse)
    check_inadmissible(model, theta, bad)
    fine = s.copy()
    model._functions.project(fine, theta)
    np.testing.assert_array_equal(fine, s)


def test_project_keeps_what_is_right():
    model = model_of(60)
    theta = em(model, model.start(np.random.default_rng(0)), 5)
    s, _ = expected(model, theta)
    view = model.stat_spec.view(s)
    view["squares"][0, 0] = 0.0  # no scatter in the first column
    kept = model.stat_spec.view(s.copy())
    model._functions.project(s, theta)
    for name in ("counts", "precisions", "logs", "sums"):
        np.testing.assert_array_equal(view[name], kept[name])
    np.testing.assert_array_equal(view["squares"][1], kept["squares"][1])


@pytest.mark.parametrize("df", [None, 4.0])
def test_standard_errors_are_those_of_the_likelihood(df):
    model = model_of(300, df=df)
    fit = run_em(model, model.start(np.random.default_rng(0)), 20_000)
    check_errors(model, fit)
    bounds = fit.conf_int()
    assert bounds.loc["scatters[0,x0,x0]", "lower"] > 0.0


@pytest.mark.parametrize("df", [None, 4.0, (3.0, 8.0)])
def test_components_go_back_and_forth(df):
    model = model_of(df=df)
    theta = model.start(np.random.default_rng(0))
    parts = model.components(theta)
    given = {name: value for name, value in parts.items() if df is None or name != "df"}
    np.testing.assert_allclose(model.pack_components(**given), theta, rtol=1e-9, atol=1e-12)
    other = model_of(df=df, init=given).start(np.random.default_rng(5))
    np.testing.assert_allclose(other, theta, rtol=1e-9, atol=1e-12)
    params = model.params_of(theta)
    assert params.shape == (len(model.param_names),)
    np.testing.assert_allclose(model.theta_of(params), theta, rtol=1e-12, atol=1e-14)
    assert model.n_params == 11 + (2 if df is None else 0)


@pytest.mark.parametrize("init", ["kmeans++", "random"])
def test_starts_are_random_and_reproducible(init):
    model = model_of(init=init)
    first, again = (model.start(np.random.default_rng(seed)) for seed in (3, 3))
    np.testing.assert_array_equal(first, again)
    assert model.fit("em", seed=0, n_starts=4, progress=False).converged


def test_samples_have_the_fitted_distribution():
    model = model_of(200)
    theta = model.start(np.random.default_rng(0))
    X, labels = model.sample(theta, 20_000, np.random.default_rng(7))
    parts = model.components(theta)
    share = np.mean(labels == 0)
    assert abs(share - parts["weights"][0]) < 4.5 * np.sqrt(0.25 / 20_000)
    for c in range(2):
        e = X[labels == c] - parts["means"][c]
        delta = np.einsum("ni,ij,nj->n", e, np.linalg.inv(parts["scatters"][c]), e)
        # delta / d is F-distributed; false alarm 1e-4
        assert stats.kstest(delta / 2, stats.f(2, parts["df"][c]).cdf).pvalue > 1e-4


def test_frames_and_far_origins():
    X, _ = StudentMixture.simulate(np.random.default_rng(1), 150)
    near = StudentMixture(pd.DataFrame(X, columns=["a", "b"]), 2, df=5)
    far = StudentMixture(pd.DataFrame(X + 1e7, columns=["a", "b"]), 2, df=5)
    fits = [m.fit("em", seed=0, progress=False) for m in (near, far)]
    np.testing.assert_allclose(fits[1].means - 1e7, fits[0].means, atol=1e-5)
    np.testing.assert_allclose(fits[1].scatters, fits[0].scatters, rtol=1e-5)
    swapped = pd.DataFrame(X[:, ::-1], columns=["b", "a"])
    np.testing.assert_allclose(fits[0].score_samples(swapped), fits[0].score_samples())
    assert "Student mixture" in str(fits[0].summary())


def test_all_problems_are_told_at_once():
    X, _ = StudentMixture.simulate(np.random.default_rng(1), 30)
    with pytest.raises(ModelError) as caught:
        StudentMixture(X, -1, df_bounds=(5, 2), init="kmeans", reg_covar=-1)
    for text in ("n_components=-1", "df_bounds=(5, 2)", "'kmeans++'", "reg_covar=-1"):
        assert text in str(caught.value)
    with pytest.raises(ModelError, match="df=-2 must be above 0"):
        StudentMixture(X, 2, df=-2)
    with pytest.raises(ModelError, match="one number for each of 2"):
        StudentMixture(X, 2, df=[1, 2, 3])
    holed = X.copy()
    holed[3, 1] = np.nan
    with pytest.raises(DataError) as caught:
        StudentMixture(holed, 2)
    assert "row 3, column 'x1'" in str(caught.value)
    assert "takes no missing values" in str(caught.value)
    with pytest.raises(DataError, match="collinear"):
        StudentMixture(np.column_stack([X[:, 0], 2 * X[:, 0]]), 2)
    with pytest.raises(DataError, match="is constant"):
        StudentMixture(np.column_stack([X[:, 0], np.ones(30)]), 2)
    with pytest.raises(DataError, match="exceeds the number of rows"):
        StudentMixture(X[:2], 3)
    good = StudentMixture(X, 2)
    parts = good.components(good.start(np.random.default_rng(0)))
    with pytest.raises(ModelError) as caught:
        StudentMixture(
            X,
            2,
            init=parts | {"weights": [0.5, 0.6], "df": [0.1, 5], "scatters": -parts["scatters"]},
        )
    for text in ("sum to 1.1", "within df_bounds", "scatters[0] is not positive definite"):
        assert text in str(caught.value)
    with pytest.raises(ModelError, match="the keys"):
        StudentMixture(X, 2, init={"weights": [0.5, 0.5]})


def test_examples_start_near_the_truth():
    model = StudentMixture.example(np.random.default_rng(11))
    assert model.n_individuals == 60
    fit = model.fit("em", progress=False)
    assert fit.converged
    assert np.all(fit.weights > 0.15)
