"""The estimators obey scikit-learn, agree with its own, and do what pipelines ask."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.decomposition import FactorAnalysis as TheirFactorAnalysis
from sklearn.exceptions import ConvergenceWarning as TheirConvergenceWarning
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.mixture import GaussianMixture as TheirMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

import saem
import saem.sklearn as face
from saem import models
from saem.models.factor_analysis import simulate as simulate_factors
from saem.models.plsa import simulate as simulate_topics

TYPES = ("full", "tied", "diag", "spherical")
FAST = [
    face.GaussianMixture(), face.PoissonMixture(), face.BernoulliMixture(),
    face.CategoricalMixture(),
    face.MultinomialMixture(), face.GammaMixture(), face.ExponentialMixture(),
    face.StudentMixture(), face.MixedMixture(), face.FactorAnalysis(), face.PPCA(),
    face.PLSA(2), face.RegressionMixture(), face.MultivariateNormal(),
]  # fmt: skip
SLOW = [
    face.PLSA(), face.GaussianMixture(2, algorithm="fiem"), face.GaussianMixture(2, n_init=3),
    face.StudentMixture(algorithm="squarem-em"), face.MultivariateNormal(algorithm="saem"),
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread_for_linear_algebra():
    """Threads that wait for each other on a busy machine take more time than these problems."""
    with threadpool_limits(1):
        yield


def reasons(estimator):
    return face.expected_failed_checks(estimator)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(FAST, expected_failed_checks=reasons)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(SLOW, expected_failed_checks=reasons)
def test_checks_of_scikit_learn_with_other_options(estimator, check):
    check(estimator)


# Against scikit-learn.


def clusters(n=300, seed=0, d=2):
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    centres = np.array([[0.0, 0.0, 1.0], [3.0, 1.0, -1.0], [-1.0, 4.0, 0.0]])[:, :d]
    return centres[labels] + rng.normal(size=(n, d)) * np.array([1.0, 0.7, 1.3])[:d], labels


def same_start(covariance_type):
    precisions = {
        "full": np.tile(np.eye(2), (3, 1, 1)), "tied": np.eye(2), "diag": np.ones((3, 2)),
        "spherical": np.ones(3),
    }[covariance_type]  # fmt: skip
    return {
        "n_components": 3, "covariance_type": covariance_type, "weights_init": [0.4, 0.3, 0.3],
        "means_init": [[0.0, 0.5], [2.5, 1.0], [-1.0, 3.0]], "precisions_init": precisions,
        "random_state": 0,
    }  # fmt: skip


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_gaussian_mixture_is_scikit_learns_from_the_same_start(covariance_type, tol):
    X, _ = clusters()
    options = same_start(covariance_type) | {"tol": tol, "max_iter": 500}
    ours, theirs = face.GaussianMixture(**options).fit(X), TheirMixture(**options).fit(X)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.converged_
    assert theirs.converged_
    for name in ("weights_", "means_", "covariances_", "precisions_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-8)
    new, _ = clusters(50, seed=1)
    np.testing.assert_array_equal(ours.predict(new), theirs.predict(new))
    np.testing.assert_allclose(ours.predict_proba(new), theirs.predict_proba(new), atol=1e-7)
    np.testing.assert_allclose(ours.score_samples(new), theirs.score_samples(new), rtol=1e-7)
    for name in ("score", "bic", "aic"):
        assert getattr(ours, name)(new) == pytest.approx(getattr(theirs, name)(new), rel=1e-7)
    np.testing.assert_allclose(ours.lower_bounds_[-1], theirs.lower_bound_, rtol=1e-9)
    assert ours.lower_bound_ == pytest.approx(ours.score(X), rel=1e-10)


def test_means_alone_can_be_given():
    X, _ = clusters()
    means = np.array([[0.0, 0.0], [3.0, 1.0], [-1.0, 4.0]])
    ours = face.GaussianMixture(3, means_init=means, random_state=0).fit(X)
    np.testing.assert_array_equal(ours._results.model.components(
        ours._results.record.theta_start)["means"], means)  # fmt: skip
    assert np.abs(ours.means_ - means).max() < 0.5


@pytest.mark.parametrize("covariance_type", TYPES)
def test_maximum_is_no_lower_than_scikit_learns(covariance_type):
    X, _ = clusters(400, seed=3)
    options = {"covariance_type": covariance_type, "n_init": 3, "random_state": 0}
    ours = face.GaussianMixture(3, **options).fit(X)
    theirs = TheirMixture(3, tol=1e-6, max_iter=1000, init_params="k-means++", **options).fit(X)
    assert ours.score(X) > theirs.score(X) - 1e-4


def test_factor_analysis_has_scikit_learns_likelihood():
    X, _ = simulate_factors(np.random.default_rng(0), 200)
    ours = face.FactorAnalysis(2, tol=1e-12, max_iter=20_000, algorithm="anderson-em").fit(X)
    theirs = TheirFactorAnalysis(2, tol=1e-12, max_iter=20_000, svd_method="lapack").fit(X)
    assert ours.score(X) == pytest.approx(theirs.score(X), abs=1e-6)
    np.testing.assert_allclose(ours.get_covariance(), theirs.get_covariance(), atol=1e-3)
    np.testing.assert_allclose(ours.get_precision() @ ours.get_covariance(), np.eye(6), atol=1e-9)
    scores = theirs.transform(X)
    spin = np.linalg.lstsq(ours.transform(X), scores, rcond=None)[0]
    np.testing.assert_allclose(spin @ spin.T, np.eye(2), atol=1e-2)  # a rotation
    back = ours.inverse_transform(ours.transform(X))
    assert np.square(back - X).mean() < np.square(X.mean(axis=0) - X).mean()


def test_ppca_has_the_likelihood_of_scikit_learns_pca():
    X, _ = simulate_factors(np.random.default_rng(0), 200)
    ours, theirs = face.PPCA(2).fit(X), PCA(2).fit(X)
    n = len(X)  # PCA divides by n - 1
    sigma2 = np.linalg.eigvalsh(np.cov(X.T, bias=True))[:-2].mean()
    assert ours.noise_variance_ == pytest.approx(sigma2, rel=1e-6)
    assert ours.noise_variance_ == pytest.approx(theirs.noise_variance_ * (n - 1) / n, rel=1e-6)


def test_one_regression_is_least_squares():
    X, y, _ = models.RegressionMixture.simulate(np.random.default_rng(0), 200)
    w = np.random.default_rng(1).integers(0, 4, 200)
    ours = face.RegressionMixture(alpha=1e-12).fit(X, y, sample_weight=w)
    theirs = LinearRegression().fit(X, y, sample_weight=w)
    np.testing.assert_allclose(ours.coef_[0], theirs.coef_, rtol=1e-8)
    assert ours.intercept_[0] == pytest.approx(theirs.intercept_, rel=1e-8)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-8)


# Data of each estimator.


def data_of(name, n=120, seed=0):
    """Rows that suit an estimator with two components."""
    rng = np.random.default_rng(seed)
    if name == "PLSA":
        return simulate_topics(rng, n, n_topics=2, n_words=12).counts.toarray()
    if name in ("FactorAnalysis", "PPCA"):
        return simulate_factors(rng, n)[0]
    if name == "GaussianMixture":
        return clusters(n, seed)[0]
    if name == "MultivariateNormal":
        from saem.models.multivariate_normal import simulate

        return simulate(rng, n, missing=0.2)[0]
    return getattr(models, name).simulate(rng, n)[0]


MIXTURES = [
    "GaussianMixture", "PoissonMixture", "BernoulliMixture", "CategoricalMixture",
    "MultinomialMixture", "GammaMixture", "ExponentialMixture", "StudentMixture", "MixedMixture",
]  # fmt: skip
WITH_MISSING = [n for n in MIXTURES if n not in ("MultinomialMixture", "StudentMixture")]


def estimator(name, **options):
    cls = getattr(face, name)
    return cls(**({"n_components": 2} if "n_components" in cls().get_params() else {}), **options)


def rows(X, chosen):
    return X.iloc[chosen] if hasattr(X, "iloc") else X[chosen]


def start_of(name, X):
    """Values to start from, so that the order of rows does not matter."""
    if name == "GaussianMixture":
        return {"means_init": [[0.0, 0.0], [2.0, 2.0]], "weights_init": [0.5, 0.5],
                "precisions_init": np.tile(np.eye(2), (2, 1, 1))}  # fmt: skip
    model = estimator(name, random_state=0).fit(X).results_.model
    return {"init_params": model.components(model.start(np.random.default_rng(0)))}


@pytest.mark.parametrize("name", MIXTURES)
def test_weights_are_repeated_rows(name):
    X = data_of(name)
    start = start_of(name, X)
    w = np.random.default_rng(1).integers(0, 3, len(X))
    w[:10] = 1  # every level occurs
    weighted = estimator(name, **start).fit(X, sample_weight=w)
    repeated = estimator(name, **start).fit(rows(X, np.repeat(np.arange(len(X)), w)))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=2e-5)
    assert weighted.lower_bound_ == pytest.approx(repeated.lower_bound_, rel=1e-5)


@pytest.mark.parametrize("name", ["FactorAnalysis", "PPCA", "MultivariateNormal", "PLSA"])
def test_weights_of_transformers_are_repeated_rows(name):
    X = data_of(name)
    w = np.random.default_rng(1).integers(0, 3, len(X))
    options = {"tol": 1e-10, "random_state": 0}
    weighted = estimator(name, **options).fit(X, sample_weight=w)
    repeated = estimator(name, **options).fit(X.repeat(w, axis=0))
    np.testing.assert_allclose(weighted.transform(X), repeated.transform(X), atol=1e-3)
    assert weighted.score(X) == pytest.approx(repeated.score(X), abs=1e-6)


@pytest.mark.parametrize("name", WITH_MISSING)
def test_missing_values(name):
    X = data_of(name)
    holes = np.random.default_rng(2).random(X.shape) < 0.1
    holes[:5] = holes[:, 0] = False
    gappy = X.mask(holes) if hasattr(X, "mask") else np.where(holes, np.nan, X)
    fitted = estimator(name, random_state=0).fit(gappy)
    assert np.all(np.isfinite(fitted.score_samples(gappy)))
    agree = (fitted.predict(gappy) == estimator(name, random_state=0).fit(X).predict(X)).mean()
    assert max(agree, 1 - agree) > 0.75
    complete = ~holes.any(axis=1)
    np.testing.assert_allclose(
        fitted.predict_proba(gappy)[complete], fitted.predict_proba(rows(X, complete)), atol=1e-12
    )


def test_student_mixture_refuses_missing_values():
    X = data_of("StudentMixture")
    X[3, 0] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        face.StudentMixture().fit(X)


EVERY = [*MIXTURES, "FactorAnalysis", "PPCA", "MultivariateNormal", "PLSA", "RegressionMixture"]


def fitted_pair(name, **options):
    """Fitted estimator and what it says of its data, as one array."""
    if name == "RegressionMixture":
        X, y, _ = models.RegressionMixture.simulate(np.random.default_rng(0), 120)
        return estimator(name, random_state=0, **options).fit(X, y), lambda e: e.predict(X)
    X = data_of(name)
    ask = (lambda e: e.predict_proba(X)) if name in MIXTURES else (lambda e: e.transform(X))
    return estimator(name, random_state=0, **options).fit(X), ask


@pytest.mark.parametrize("name", EVERY)
def test_pickles_and_copies_say_the_same_without_the_data(name):
    fitted, ask = fitted_pair(name)
    for other in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        np.testing.assert_array_equal(ask(other), ask(fitted))
        if hasattr(fitted, "sample"):
            ours, theirs = fitted.sample(5), other.sample(5)
            np.testing.assert_array_equal(np.asarray(ours[0]), np.asarray(theirs[0]))
        with pytest.raises(AttributeError, match="Remedy: fit again"):
            _ = other.results_
    assert fitted.results_.summary() is not None
    if name != "MultinomialMixture":  # samples draw their totals from the data
        assert fitted.__getstate__()["_model"][0] is type(fitted._model)
        assert len(pickle.dumps(fitted)) < 16_000


@pytest.mark.parametrize("name", EVERY)
def test_unfitted_and_cloned(name):
    fitted, _ = fitted_pair(name)
    fresh = clone(fitted)
    assert fresh.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        _ = fresh.results_
    pickle.loads(pickle.dumps(fresh))


# Streams.


def test_partial_fit_follows_a_stream():
    X, _ = clusters(6000, seed=4)
    stream = face.GaussianMixture(3, random_state=0, n_init=3)
    for chunk in np.split(X, 12):
        stream.partial_fit(chunk)
    whole = face.GaussianMixture(3, random_state=0, n_init=3).fit(X)
    first = face.GaussianMixture(3, random_state=0, n_init=3).fit(X[:500])
    assert stream.n_samples_seen_ == 6000
    assert whole.score(X) - stream.score(X) < 0.25 * (whole.score(X) - first.score(X))
    with pytest.raises(AttributeError, match="a stream has none"):
        _ = stream.results_


@pytest.mark.parametrize("name", [n for n in EVERY if n not in ("PLSA", "RegressionMixture")])
def test_partial_fit_of_each(name):
    X = data_of(name, 400)
    parts = [rows(X, np.arange(a, a + 100)) for a in (0, 100, 200, 300)]
    extra = {"handle_unknown": "missing"} if name in ("CategoricalMixture", "MixedMixture") else {}
    stream = estimator(name, random_state=0, **extra)
    for part in parts[:2]:
        stream.partial_fit(part)
    other = pickle.loads(pickle.dumps(stream))
    for one in (stream, other):  # a pickle goes on as if never interrupted
        for part in parts[2:]:
            one.partial_fit(part)
    assert stream.n_samples_seen_ == other.n_samples_seen_ == 400
    np.testing.assert_array_equal(stream.score_samples(X), other.score_samples(X))
    only = estimator(name, random_state=0, **extra).fit(parts[0])
    assert np.mean(stream.score(X)) > np.mean(only.score(X)) - 0.02


def test_partial_fit_takes_missing_values_later_and_regressions():
    X, _ = clusters(400)
    stream = face.GaussianMixture(2, random_state=0).partial_fit(X[:200])
    gappy = X[200:].copy()
    gappy[::7, 0] = np.nan
    stream.partial_fit(gappy)
    X, y, _ = models.RegressionMixture.simulate(np.random.default_rng(0), 600)
    regression = face.RegressionMixture(2, random_state=0)
    for part in np.split(np.arange(600), 3):
        regression.partial_fit(X[part], y[part])
    assert sorted(regression.coef_[:, 0].round(0)) == [-2.0, 2.0] or sorted(
        regression.coef_[:, 0].round(1)
    ) == pytest.approx([-1.5, 2.0], abs=0.2)


# In scikit-learn's tools.


def test_grid_search_finds_the_number_of_components():
    X, _ = clusters(400, d=2)
    search = GridSearchCV(
        face.GaussianMixture(random_state=0, n_init=3), {"n_components": [1, 2, 3]}, cv=3
    ).fit(X)
    assert search.best_params_ == {"n_components": 3}
    assert search.best_estimator_.means_.shape == (3, 2)


def test_pipelines():
    X, labels = clusters(400, d=3)
    X = X * [1.0, 1000.0, 0.01]
    pipe = make_pipeline(StandardScaler(), face.GaussianMixture(3, random_state=0, n_init=3))
    found = pipe.fit(X).predict(X)
    table = pd.crosstab(labels, found).to_numpy()
    assert table.max(axis=1).sum() > 0.9 * len(X)
    gappy = np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X)
    gappy[:, 0] = X[:, 0]
    pipe = make_pipeline(face.MultivariateNormal(), StandardScaler(), face.FactorAnalysis())
    assert pipe.fit_transform(gappy).shape == (400, 1)
    y = X[:, 0] + np.random.default_rng(1).normal(size=400)
    regression = make_pipeline(StandardScaler(), face.RegressionMixture())
    assert cross_val_score(regression, X, y, cv=3).min() > 0.3


def test_output_as_frames_and_names():
    X = pd.DataFrame(data_of("FactorAnalysis"), columns=list("abcdef"))
    factors = face.FactorAnalysis(2).set_output(transform="pandas")
    frame = factors.fit_transform(X)
    assert list(frame.columns) == ["factoranalysis0", "factoranalysis1"]
    assert list(factors.feature_names_in_) == list("abcdef")
    X.iloc[3, 2] = np.nan
    normal = face.MultivariateNormal().set_output(transform="pandas").fit(X)
    assert list(normal.transform(X).columns) == list("abcdef")
    assert "mean[a]" in normal.results_.params.index
    with pytest.raises(ValueError, match="feature names should match"):
        normal.transform(X[list("bacdef")])
    topics = face.PLSA(2, random_state=0).fit(data_of("PLSA"))
    assert list(topics.get_feature_names_out()) == ["plsa0", "plsa1"]


def test_imputation_keeps_what_was_observed():
    X = data_of("MultivariateNormal", 200)
    seen = ~np.isnan(X)
    normal = face.MultivariateNormal().fit(X)
    reference = models.MultivariateNormal(X).fit("em", progress=False)
    np.testing.assert_allclose(normal.location_, reference.mean, atol=1e-3)
    filled = normal.transform(X)
    np.testing.assert_array_equal(filled[seen], X[seen])
    np.testing.assert_allclose(filled, reference.impute(), atol=1e-2)
    drawn = face.MultivariateNormal(sample_posterior=True, random_state=0).fit(X)
    assert np.var(drawn.transform(X)[~seen]) > np.var(filled[~seen])
    np.testing.assert_array_equal(drawn.transform(X), drawn.transform(X))


# Options and messages.


def test_what_is_wrong_is_said_at_once():
    X, _ = clusters(50)
    with pytest.raises(ValueError, match=r"(?s)2 problems.*n_init=0.*tol=-1"):
        face.GaussianMixture(n_init=0, tol=-1).fit(X)
    with pytest.raises(ValueError, match="Did you mean 'kmeans'"):
        face.GaussianMixture(init_params="kmean").fit(X)
    with pytest.raises(ValueError, match="Did you mean 'fiem'"):
        face.GaussianMixture(algorithm="fiemm").fit(X)
    with pytest.raises(ValueError, match="n_components=60 exceeds"):
        face.GaussianMixture(60).fit(X)
    with pytest.raises(ValueError, match="is negative"):
        face.GaussianMixture().fit(X, sample_weight=-np.ones(50))
    with pytest.raises(ValueError, match="cannot be inverted"):
        face.GaussianMixture(precisions_init=np.zeros((1, 2, 2))).fit(X)
    with pytest.raises(ValueError, match="requires y"):
        face.RegressionMixture().fit(X, None)
    with pytest.raises(ValueError, match="whole number"):
        face.PoissonMixture(fractions="error").fit(np.abs(X))
    with pytest.raises(ValueError, match="at least 1"):
        face.GaussianMixture().fit(X).sample(0)


def test_early_ends_warn_as_scikit_learn_and_as_saem():
    X, _ = clusters()
    with pytest.warns(TheirConvergenceWarning, match="raise max_iter"):
        fitted = face.GaussianMixture(3, max_iter=2, random_state=0).fit(X)
    assert not fitted.converged_
    assert fitted.n_iter_ == 2
    with pytest.warns(saem.ConvergenceWarning):
        face.GaussianMixture(3, max_iter=2, random_state=0).fit(X)


@pytest.mark.parametrize("algorithm", ["squarem-em", "fiem", saem.SPIDEREM(n_epochs=30), "saem"])
def test_algorithms_by_name_or_object(algorithm):
    X, _ = clusters(400, seed=5)
    start = same_start("full") | {"means_init": [[0.0, 0.0], [3.0, 1.0], [-1.0, 4.0]]}
    em = face.GaussianMixture(**start).fit(X)
    other = face.GaussianMixture(**start, algorithm=algorithm).fit(X)
    assert other.converged_
    assert em.score(X) - other.score(X) < 5e-4
    name = algorithm if isinstance(algorithm, str) else algorithm.name
    assert other.results_.record.algorithm == name


def test_the_best_of_several_starts_is_kept():
    X, _ = clusters(300, seed=6)
    ones = [
        face.GaussianMixture(4, init_params="random_from_data", random_state=seed).fit(X)
        for seed in range(3)
    ]
    many = face.GaussianMixture(4, init_params="random_from_data", n_init=8, random_state=0).fit(X)
    assert many.lower_bound_ >= ones[0].lower_bound_ - 1e-12
    assert len({round(one.lower_bound_, 6) for one in ones}) > 1  # starts matter here


def test_levels():
    X = pd.DataFrame({"a": ["x", "y", "x", "y", "z"], "b": [1, 2, 1, 2, 2]})
    fitted = face.CategoricalMixture().fit(X)
    assert [list(levels) for levels in fitted.categories_] == [["x", "y", "z"], [1, 2]]
    new = X.replace({"a": {"z": "new"}})
    with pytest.warns(saem.SaemWarning, match="'new', which is not among the 3 levels"):
        assert len(fitted.predict(new)) == 5
    fitted.set_params(handle_unknown="error")
    with pytest.raises(ValueError, match="'new', which is not among the 3 levels"):
        fitted.predict(new)
    lenient = face.CategoricalMixture(handle_unknown="missing").fit(X)
    frequencies = np.array([2.0, 3.0]) / 5
    np.testing.assert_allclose(lenient.score_samples(new)[4], np.log(frequencies[1]), rtol=1e-6)
    declared = face.CategoricalMixture(categories=[["w", "x", "y", "z"], [1, 2]]).fit(X)
    assert declared.probabilities_[0].shape == (1, 4)
    with pytest.raises(ValueError, match="categories has 1 entries"):
        face.CategoricalMixture(categories=[["x"]]).fit(X)


def test_mixed_table_finds_its_components():
    frame, labels = models.MixedMixture.simulate(np.random.default_rng(0), 400)
    mixed = face.MixedMixture(2, families={"wait": "gamma"}, random_state=0, n_init=3)
    agree = (mixed.fit_predict(frame) == labels).mean()
    assert max(agree, 1 - agree) > 0.85
    assert mixed.families_ == {
        "size": "gaussian", "visits": "poisson", "colour": "categorical", "wait": "gamma",
    }  # fmt: skip
    drawn, _ = mixed.sample(10)
    assert list(drawn.columns) == list(frame.columns)
    assert np.isfinite(mixed.score(drawn))


@pytest.mark.parametrize("name", ["PoissonMixture", "MultinomialMixture"])
def test_fractional_counts_are_scaled_counts(name):
    X = data_of(name)
    whole = estimator(name, random_state=0).fit(X)
    start = {k: v for k, v in whole.results_.model.components(whole.results_.record.theta).items()}
    if name == "PoissonMixture":
        start["rates"] = start["rates"] / 4
    with pytest.warns(saem.SaemWarning, match="not whole numbers"):
        quarters = estimator(name, init_params=start).fit(X / 4)
    if name == "PoissonMixture":
        mean = quarters.weights_ @ quarters.rates_  # EM keeps the means of the data
        np.testing.assert_allclose(mean, X.mean(axis=0) / 4, rtol=1e-6)
    other = pickle.loads(pickle.dumps(quarters))
    np.testing.assert_array_equal(other.predict_proba(X / 4), quarters.predict_proba(X / 4))
    with pytest.raises(ValueError, match="whole number"):
        whole.predict(X / 4)


def test_zeros_of_a_gamma_mixture():
    X = data_of("GammaMixture")
    X[4, 0] = 0.0
    with pytest.warns(saem.SaemWarning, match="1 zeros count as half"):
        fitted = face.GammaMixture(2, random_state=0).fit(X)
    assert fitted.zero_values_[0] == 0.5 * X[X[:, 0] > 0, 0].min()
    with pytest.raises(ValueError, match="holds 1 zeros"):
        face.GammaMixture(2, zeros="raise").fit(X)


def test_documents_without_words():
    counts = data_of("PLSA", 30)
    counts[7] = 0
    topics = face.PLSA(2, random_state=0)
    proportions = topics.fit_transform(counts)
    np.testing.assert_array_equal(proportions[7], [0.5, 0.5])
    assert 1.0 < topics.perplexity(counts) < 12.0


def test_regression_components():
    X, y, labels = models.RegressionMixture.simulate(np.random.default_rng(0), 300)
    fitted = face.RegressionMixture(2, random_state=0).fit(X, y)
    agree = (fitted.predict_components(X, y).argmax(axis=1) == labels).mean()
    assert max(agree, 1 - agree) > 0.8
    assert fitted.score_responses(X, y).mean() == pytest.approx(fitted.lower_bound_, rel=1e-6)


def test_scikit_learn_is_optional():
    code = "import sys, saem, saem.models; print('sklearn' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
    code = "import sys; sys.modules['sklearn'] = None; import saem.sklearn"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "needs scikit-learn, which is not installed. Remedy: pip install" in out.stderr
