"""Saved fits of every model, option and algorithm come back with the same bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

import saem
from saem._persist_tables import plain, unplain
from saem.algorithms import algorithms
from saem.contract import Model
from saem.exceptions import ModelError
from saem.models import deformable_template, logistic_missing
from saem.models.linear_mixed import LinearMixed, simulate
from saem.record import FitRecord

# Models are fitted for the sake of saving them, a few iterations long.
pytestmark = pytest.mark.filterwarnings("ignore::saem.exceptions.ConvergenceWarning")


ALGORITHMS = algorithms()
MODELS = sorted(saem.models.__all__)
QUICK = {"budget": saem.Iterations(15), "seed": 3, "progress": False}
#: Answers about the rows of the fit, where a model's results have them.
ANSWERS = ("predict", "predict_proba", "score_samples", "transform", "impute", "posterior")


def same(one, other):
    """Whether two answers (arrays, tables, or tuples of them) are equal, NaN to NaN."""
    if isinstance(one, tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    first, second = np.asarray(one), np.asarray(other)
    return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


def assert_same_fit(again, fit):
    """Everything that a loaded fit says, and what a new fit of its model gives, to the bit."""
    assert type(again) is type(fit)
    assert again.model.param_names == fit.model.param_names
    assert again.model.n_params == fit.model.n_params
    assert again.model.nobs == fit.model.nobs
    assert np.array_equal(again.model.values, fit.model.values, equal_nan=True)
    assert np.array_equal(again.model.offsets, fit.model.offsets)
    pd.testing.assert_series_equal(again.params, fit.params, check_exact=True)
    pd.testing.assert_series_equal(again.bse, fit.bse, check_exact=True)
    assert again.llf == fit.llf or np.isnan(fit.llf)
    asked = [name for name in ANSWERS if callable(getattr(fit, name, None))]
    for name in asked:
        assert same(getattr(again, name)(), getattr(fit, name)()), name
    refitted, first = again.model.fit(**QUICK), fit.model.fit(**QUICK)
    assert np.array_equal(refitted.theta, first.theta)
    assert np.array_equal(refitted.record.theta_start, first.record.theta_start)


@pytest.mark.parametrize("name", MODELS)
def test_every_model(name, path):
    model = getattr(saem.models, name).example(np.random.default_rng(1), 60)
    fit = model.fit(**QUICK)
    fit.save(path)
    again = saem.load(path)
    assert_same_fit(again, fit)
    again.save(path.with_suffix(".again"))
    assert path.read_bytes() == path.with_suffix(".again").read_bytes()


@pytest.mark.parametrize("name", MODELS)
def test_every_model_with_other_weights(name, path):
    model = getattr(saem.models, name).example(np.random.default_rng(1), 60)
    if type(model).reweighted is Model.reweighted:
        with pytest.raises(ModelError, match="takes no weights"):
            model.reweighted(np.ones(60))
        return
    weights = np.tile([1.0, 2.0, 0.0], 20)
    fit = model.reweighted(weights).reweighted(np.ones(model.reweighted(weights).n_individuals))
    fit = fit.fit(**QUICK)
    fit.save(path)
    assert_same_fit(saem.load(path), fit)


def frame_of_rows(n=90):
    """Two clusters, one column of which lies far from the origin."""
    rng = np.random.default_rng(4)
    z = rng.integers(0, 2, n)
    frame = pd.DataFrame(
        {
            "a": 1e6 + 4.0 * z + rng.standard_normal(n),
            "b": 0.1 + 2.0 * z + rng.standard_normal(n),
            "kind": pd.Categorical(
                np.array(["red", "blue", "green"])[z + (rng.random(n) < 0.2)],
                categories=["red", "green", "blue"],
            ),
            "visits": rng.poisson(2 + 4 * z),
            "reported": rng.poisson(3 + 2 * z),
        }
    )
    frame["late"] = rng.random(n) < 0.2 + 0.4 * z
    return frame


def rows_with_holes():
    rows, rng = frame_of_rows()[["a", "b"]], np.random.default_rng(2)
    return rows.mask(rng.random(rows.shape) < 0.1).dropna(how="all")


def gaussian(rows=None, **options):
    rows = frame_of_rows()[["a", "b"]] if rows is None else rows
    return saem.models.GaussianMixture(rows, 2, **options)


def numbers():
    return frame_of_rows()[["a", "b", "visits"]].astype(float)


def mixed():
    families = {("visits", "reported"): "multinomial", "late": "bernoulli"}
    return saem.models.MixedMixture(frame_of_rows(), 2, families=families)


def regression(formula="b ~ center(a) + kind"):
    return saem.models.RegressionMixture.from_formula(formula, frame_of_rows(), 2)


def symbols():
    values = np.random.default_rng(2).integers(0, 3, (50, 1)).astype(float)
    values[7] = np.nan
    return saem.models.HiddenMarkov(values, 2, lengths=[20, 30], emission="categorical")


def known_coefficients():
    X, y = logistic_missing.simulate(np.random.default_rng(2), 80, missing=0.1)
    X = pd.DataFrame(X, columns=[f"c{j}" for j in range(X.shape[1])])
    known = np.linspace(-1, 1, 1 + X.shape[1])
    return saem.models.LogisticMissing(X, pd.Series(y, index=X.index), coefficients=known)


def approximate_posterior():
    rows = numbers()
    X = (rows - rows.mean()) / rows.std()
    late = frame_of_rows()["late"]
    return saem.models.VariationalLogistic(X, late, intercept=False, prior_scale=2)


def template():
    shape = {"landmarks": 2, "deformation_landmarks": 1}
    images = deformable_template.simulate(np.random.default_rng(2), 8, shape=(5, 4), **shape).images
    return saem.models.DeformableTemplate(images, covariance="full", ridge=0.3, **shape)


def topics():
    counts = np.random.default_rng(2).poisson(1.0, (12, 4)) + 1
    frame = pd.DataFrame(counts, columns=["one", "two", "one/two", "../x"])
    return saem.models.PLSA(frame, 2, alpha=0.0, alpha_documents=0.5)


OPTIONS = {
    "gaussian full": gaussian,
    "gaussian tied": lambda: gaussian(covariance_type="tied"),
    "gaussian diag": lambda: gaussian(covariance_type="diag"),
    "gaussian spherical": lambda: gaussian(covariance_type="spherical"),
    "gaussian weights": lambda: gaussian(weights=np.linspace(0.0, 2.0, 90)),
    "gaussian missing": lambda: gaussian(rows_with_holes(), covariance_type="diag", init="random"),
    "gaussian fixed": lambda: gaussian(fixed={"weights": [0.5, 0.5]}),
    "gaussian later": lambda: gaussian(missing=True).with_data(rows_with_holes()[:7]),
    "mixed": mixed,
    "mixed later": lambda: mixed().with_data(frame_of_rows()[5:25]),
    "student": lambda: saem.models.StudentMixture(frame_of_rows()[["a", "b"]], 2),
    "regression": regression,
    "regression later": lambda: regression().with_data(frame_of_rows().query("kind == 'red'")),
    "normal later": lambda: saem.models.MultivariateNormal(numbers()).with_data(numbers()[:9]),
    "factors": lambda: saem.models.FactorAnalysis(numbers(), 1, incomplete=True, noise_floor=0.01),
    "pca": lambda: saem.models.PPCA(numbers(), 1, weights=np.linspace(0.0, 2.0, 90)),
    "symbols": symbols,
    "states later": lambda: saem.models.HiddenMarkov(
        numbers(), 2, covariance_type="full"
    ).with_data(numbers()[:30]),
    "known coefficients": known_coefficients,
    "approximate posterior": approximate_posterior,
    "template": template,
    "topics": topics,
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_models(name, path):
    fit = OPTIONS[name]().fit(**QUICK)
    fit.save(path)
    assert_same_fit(saem.load(path), fit)


def test_new_rows_after_loading(path):
    """Formulas with learnt levels and transforms mean the same for new rows."""
    frame = frame_of_rows()
    fit = regression("b ~ scale(a) + C(visits > 3)").fit(**QUICK)
    fit.save(path)
    again = saem.load(path)
    assert np.array_equal(again.predict_response(frame[:4]), fit.predict_response(frame[:4]))
    assert np.array_equal(again.predict_proba(frame[:9]), fit.predict_proba(frame[:9]))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_record_of_every_algorithm(algorithm, path):
    model = saem.models.LinearMixed.example(np.random.default_rng(1), 60)
    try:
        fit = model.fit(algorithm, **QUICK)
    except saem.SaemError as error:  # an E-step that the model lacks
        pytest.skip(str(error))
    fit.save(path)
    again = saem.load(path)
    for field in dataclasses.fields(FitRecord):
        one, other = (getattr(r.record, field.name) for r in (again, fit))
        if field.name in ("settings", "sampler"):
            assert one == unplain(plain(other)), field.name
        elif field.name == "history":
            pd.testing.assert_frame_equal(again.trace, fit.trace, check_exact=True)
        else:
            assert same(one, other), field.name


def test_mixture_of_data_far_from_the_origin(path):
    rng = np.random.default_rng(1)
    X = np.concatenate([rng.normal(1e6, 1, (50, 1)), rng.normal(1e6 + 8, 1, (50, 1))])
    init = {"weights": [0.5, 0.5], "means": [[1e6], [1e6 + 8]], "covariances": [[[1.0]], [[1.0]]]}
    fit = saem.models.GaussianMixture(X, 2, init=init).fit("em", progress=False)
    fit.save(path)
    again = saem.load(path)
    assert again.llf == fit.llf
    assert np.array_equal(again.means, fit.means)


def test_linear_mixed_models(path):
    frame = simulate(np.random.default_rng(0), n=30)
    frame["unused"] = [object()] * len(frame)
    formula = "y ~ 0 + center(a1) + a2"  # a1 is no required variable to formulaic
    fit = LinearMixed(frame, formula, "id", "~ 0 + b1").fit("em", progress=False)
    fit.save(path)
    again = saem.load(path)
    assert again.llf == fit.llf
    assert again.bse.equals(fit.bse)
    pd.testing.assert_frame_equal(again.random_effects, fit.random_effects, check_exact=True)
