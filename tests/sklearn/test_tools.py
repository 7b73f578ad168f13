"""Estimators of the scikit-learn face in scikit-learn's tools; their options and messages."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning as TheirConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn_cases import clusters, data_of, estimator, same_start

import saem
import saem.sklearn as face
from saem import models

#: Threads that wait for each other on a busy machine take more time than these problems.
pytestmark = pytest.mark.usefixtures("one_thread")


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
