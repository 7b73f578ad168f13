"""Mixtures of columns: starts, samples, boundaries, families, bad input."""

import numpy as np
import pandas as pd
import pytest
from column_mixture_cases import CLASSES, model_of

from saem.algorithms import EM, IncrementalEM
from saem.exceptions import DataError, ModelError
from saem.models.discrete_mixtures import (
    BernoulliMixture,
    MultinomialMixture,
    PoissonMixture,
)
from saem.models.mixed_mixture import MixedMixture
from saem.models.positive_mixtures import GammaMixture


@pytest.mark.parametrize("init", ["kmeans++", "random"])
@pytest.mark.parametrize("cls", CLASSES)
def test_starts_are_random_and_reproducible(cls, init):
    model = model_of(cls, init=init)
    first, again, other = (model.start(np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    if init == "random":
        assert not np.array_equal(first, other)
    assert np.all(np.isfinite(first))
    assert model.fit("em", seed=0, n_starts=4, progress=False).converged


@pytest.mark.parametrize("cls", CLASSES)
def test_samples_have_the_fitted_distribution(cls):
    model = model_of(cls, 400, holes=False)
    theta = model.start(np.random.default_rng(1))
    X, labels = model.sample(theta, 20_000, np.random.default_rng(7))
    weights = model.components(theta)["weights"]
    error = np.sqrt(weights * (1 - weights) / len(labels))
    assert np.all(np.abs(np.bincount(labels) / len(labels) - weights) < 4.5 * error)
    each = scores_of(model, theta, X)
    mean, error = each.mean(axis=0), each.std(axis=0) / np.sqrt(len(X))
    assert np.all(np.abs(mean) < 4.5 * error)  # under the model scores have mean 0


def scores_of(model, theta, X):
    """Gradient of each row's log-likelihood along the free directions, by differences."""
    params, steps = model.params_of(theta), 1e-4 * model._directions(theta).T
    rows = [
        model.score_samples(model.theta_of(params + step), X)
        - model.score_samples(model.theta_of(params - step), X)
        for step in steps
    ]
    return np.array(rows).T / 2e-4


def test_incremental_em_has_the_fixed_point_of_em():
    model = model_of(MixedMixture)
    fit = model.fit(EM(n_iter=3000, tolerance=None), seed=0, progress=False)
    other = model.fit(IncrementalEM(n_epochs=5), seed=1, start=fit.theta, progress=False)
    np.testing.assert_allclose(other.params, fit.params, rtol=1e-7, atol=1e-9)


def test_separated_components_put_probabilities_on_the_boundary():
    X = np.repeat([[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 1, 0]], 20, axis=0)
    fit = BernoulliMixture(X, 2).fit("em", seed=0, progress=False)
    assert len(fit.boundary) >= 4
    assert np.isnan(fit.bse[next(iter(fit.boundary))])
    assert np.isfinite(fit.bse["weights[0]"])


def test_zeros_and_long_rows_are_sparse():
    X = np.zeros((50, 200))
    X[np.arange(50), np.arange(50) % 7] = 3.0
    model = MultinomialMixture(X, 2)
    assert model.values.size == 50 * 4


def test_mixed_families_by_type_and_by_name():
    frame = pd.DataFrame(
        {
            "flag": [True, False, True, True],
            "n": [1, 2, 3, 5],
            "delta": [-1, 2, 3, 5],
            "x": [0.5, 1.5, np.nan, 2.0],
            "word": ["a", None, "b", "a"],
            "grade": pd.Categorical(["lo", "hi", "lo", "hi"], ["lo", "hi", "top"], ordered=True),
            "a": [1, 2, 3, 0],
            "b": [0, 2, 3, 1],
        }
    )
    model = MixedMixture(frame, 2, families={("b", "a"): "multinomial", "x": "gamma"})
    assert [(c.name, c.family) for c in model.columns] == [
        ("flag", "bernoulli"), ("n", "poisson"), ("delta", "gaussian"), ("x", "gamma"),
        ("word", "categorical"), ("grade", "categorical"), ("b+a", "multinomial"),
    ]  # fmt: skip
    assert model.columns[5].levels == ("lo", "hi", "top")
    fit = model.fit("em", seed=0, progress=False)
    sample, _ = fit.sample(5, seed=1)
    assert list(sample.columns) == list(frame.columns)
    np.testing.assert_allclose(
        fit.score_samples(frame[frame.columns[::-1]]), fit.score_samples(), rtol=1e-12
    )


def test_all_problems_are_told_at_once():
    with pytest.raises(ModelError) as caught:
        PoissonMixture([[1.0]], 0, init="kmean++", alpha=0)
    for text in ("n_components=0", "did you mean 'kmeans++'?", "alpha=0 must lie"):
        assert text in str(caught.value)
    with pytest.raises(DataError) as caught:
        PoissonMixture([[1.0, 2.5], [-1.0, 3.0], [4.0, np.inf]], 2)
    for text in ("row 0, column 'x1'", "row 1, column 'x0'", "row 2, column 'x1'", "a count"):
        assert text in str(caught.value)
    with pytest.raises(DataError, match="above 0"):
        GammaMixture([[1.0], [0.0], [2.0]], 1)
    with pytest.raises(DataError, match="is constant"):
        GammaMixture([[1.0], [1.0], [1.0]], 1)
    with pytest.raises(DataError, match="has no value"):
        PoissonMixture([[np.nan, 1], [np.nan, 2]], 1)
    with pytest.raises(DataError, match="2 distinct rows, fewer than n_components=3"):
        BernoulliMixture([[0], [1], [0], [1]], 3)
    with pytest.raises(DataError, match=r"0\.5 is not one of the levels 0, 1"):
        BernoulliMixture([[0], [0.5], [1]], 1)
    with pytest.raises(DataError, match="some counts of 'counts' are missing"):
        MultinomialMixture([[1, np.nan], [2, 3], [4, 5]], 1)
    with pytest.raises(DataError, match=r"weights\[1\] is -1"):
        PoissonMixture([[1], [2]], 1, weights=[1, -1])
    with pytest.raises(DataError, match=r"there are 2 rows"):
        PoissonMixture([[1], [2]], 1, weights=[1, 1, 1])
    with pytest.raises(DataError, match="all weights are 0"):
        PoissonMixture([[1], [2]], 1).reweighted([0, 0])
    with pytest.raises(DataError, match="values that are no numbers"):
        PoissonMixture([["a"], ["b"]], 1)
    with pytest.raises(DataError, match="two dimensions"):
        PoissonMixture([1, 2, 3], 1)
    with pytest.raises(ModelError) as caught:
        PoissonMixture([[1], [2]], 2, init={"weights": [0.5, 0.6], "rates": [[0.0], [1.0]]})
    assert "sum to 1.1" in str(caught.value)
    assert "rates of column 'x0' must all be above 0" in str(caught.value)
    with pytest.raises(ModelError, match="they need"):
        PoissonMixture([[1], [2]], 2, init={"weights": [0.5, 0.5]})


def test_problems_of_mixed_families_and_new_rows():
    frame = MixedMixture.simulate(np.random.default_rng(0), 30)[0]
    with pytest.raises(DataError) as caught:
        MixedMixture(frame, 2, families={"siez": "gaussian", "wait": "gama", "size": "multinomial"})
    for text in ("did you mean 'size'", "did you mean 'gamma'", "takes a tuple of columns"):
        assert text in str(caught.value)
    model = MixedMixture(frame, 2)
    theta = model.start(np.random.default_rng(0))
    with pytest.raises(DataError, match="'mauve' is not one of the levels 'blue'"):
        model.predict(theta, frame.assign(colour="mauve"))
    with pytest.raises(DataError, match="column 'wait' is missing"):
        model.with_data(frame.drop(columns="wait"))


@pytest.mark.parametrize("cls", CLASSES)
def test_examples_start_near_the_truth(cls):
    model = cls.example(np.random.default_rng(11))
    assert model.n_individuals == 60
    a, b = (model.start(np.random.default_rng(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(a, b)
    fit = model.fit("em", seed=0, progress=False)
    assert fit.converged
    assert np.all(fit.weights > 0.15)
