"""Estimators of the scikit-learn face: weights, missing values, pickles, streams."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn_cases import (
    EVERY,
    MIXTURES,
    WITH_MISSING,
    clusters,
    data_of,
    estimator,
    fitted_pair,
    rows,
    start_of,
)

import saem.sklearn as face
from saem import models

#: Threads that wait for each other on a busy machine take more time than these problems.
pytestmark = pytest.mark.usefixtures("one_thread")


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
