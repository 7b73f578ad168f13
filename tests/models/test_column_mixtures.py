"""Mixtures with independent columns: against scipy's densities and optimisers."""

import itertools

import numpy as np
import pandas as pd
import pytest
from column_mixture_cases import CLASSES, data_of, log_densities, model_of, options_of
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
    free_along,
)
from scipy import stats
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from saem.models.discrete_mixtures import (
    BernoulliMixture,
    CategoricalMixture,
    MultinomialMixture,
    PoissonMixture,
)
from saem.models.mixed_mixture import MixedMixture
from saem.models.positive_mixtures import ExponentialMixture, GammaMixture


@pytest.mark.nojit
@pytest.mark.parametrize("cls", CLASSES)
def test_posterior_equals_scipy(cls):
    X = data_of(cls, 40)
    model = cls(X, 2, **options_of(cls))
    theta = model.start(np.random.default_rng(1))
    joint = log_densities(model, model.components(theta), X)
    probabilities, log_lik = model.posterior(theta)
    margin = logsumexp(joint, axis=1)
    np.testing.assert_allclose(log_lik, margin, rtol=1e-10)
    np.testing.assert_allclose(probabilities, np.exp(joint - margin[:, None]), atol=1e-10)
    np.testing.assert_array_equal(model.predict(theta, X), joint.argmax(axis=1))
    np.testing.assert_array_equal(model.score_samples(theta, X), log_lik)
    s, total = classified(model, theta)
    assert total == pytest.approx(joint.max(axis=1).sum(), rel=1e-10)
    best = np.bincount(joint.argmax(axis=1), minlength=2) / len(joint)
    np.testing.assert_allclose(s[:2], best, rtol=1e-12)


@pytest.mark.parametrize("cls", CLASSES)
def test_maximize_maximises_the_surrogate(cls):
    model = model_of(cls, 60, alpha=1e-3)  # large enough to be seen
    theta = model.start(np.random.default_rng(1))
    s, _ = expected(model, theta)
    check_maximum(model, s, theta, free_along(model))
    check_affine(model, theta)
    check_scale_free(model, s, theta)


def unconstrained(model):
    """Map from free numbers to what `components` gives, and one way to get the numbers."""
    k = model.n_components

    def shapes(parts):
        flat, slots = [np.log(parts["weights"])], [("weights",)]

        def add(path, value):
            if isinstance(value, dict):
                for key, inner in value.items():
                    add((*path, key), inner)
                return
            whole = path[-1] not in ("means", "rates", "scales", "shapes", "variances")
            kind = path[-1] if not whole else "probabilities"
            binary = kind == "probabilities" and (
                isinstance(model, BernoulliMixture) or value.ndim == 1
            )
            if binary:
                flat.append(np.log(value / (1 - value)).ravel())
            else:
                flat.append((value if kind == "means" else np.log(value)).ravel())
            slots.append((path, value.shape, kind, binary))

        for key, value in parts.items():
            if key != "weights":
                add((key,), value)
        return np.concatenate(flat), slots[1:]

    def back(x, slots):
        parts, at = {"weights": softmax(x[:k])}, k
        for path, shape, kind, binary in slots:
            size = int(np.prod(shape))
            value = x[at : at + size].reshape(shape)
            at += size
            if binary:
                value = 1 / (1 + np.exp(-value))
            elif kind == "probabilities":
                value = softmax(value, axis=-1)
            elif kind != "means":
                value = np.exp(value)
            place = parts
            for key in path[:-1]:
                place = place.setdefault(key, {})
            place[path[-1]] = value
        return parts

    return shapes, back


@pytest.mark.parametrize("cls", CLASSES)
def test_em_climbs_to_the_maximum_of_an_optimiser(cls):
    model = model_of(cls, 150)
    theta = model.start(np.random.default_rng(1))
    fit = run_em(model, theta, 20_000)
    shapes, back = unconstrained(model)
    x, slots = shapes(model.components(theta))
    X = data_of(cls, 150)

    def negative(x):
        return -logsumexp(log_densities(model, back(x, slots), X), axis=1).sum()

    assert -negative(x) == pytest.approx(model.loglik(theta), abs=1e-8)
    found = minimize(negative, x, method="BFGS", options={"gtol": 1e-5, "maxiter": 400})
    assert fit.llf == pytest.approx(-found.fun, abs=1e-6)


@pytest.mark.nojit
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("cls", CLASSES)
def test_draws_follow_the_posterior(cls):
    model = model_of(cls, 60)
    theta = model.start(np.random.default_rng(1))
    p = model.predict_proba(theta)[:, 0]
    check_draws(model, theta, int(np.abs(p - 0.5).argmin()), 1000)


@pytest.mark.parametrize("cls", CLASSES)
def test_weights_are_repeated_rows(cls):
    X = data_of(cls, 80)
    model = cls(X, 2, **options_of(cls))
    counts = np.random.default_rng(0).integers(0, 4, len(X))
    repeated = model.with_data(
        X.loc[np.repeat(X.index, counts)]
        if isinstance(X, pd.DataFrame)
        else np.repeat(X, counts, 0)
    )
    theta = model.start(np.random.default_rng(1))
    check_weights(model.reweighted(counts), repeated, theta)
    fit = check_repetitions(model, repeated, counts, theta)
    same = cls(X, 2, weights=counts, **options_of(cls))
    assert same.fit("em", start=theta, progress=False).llf == pytest.approx(fit.llf, abs=1e-4)


@pytest.mark.nojit
@pytest.mark.parametrize("cls", CLASSES)
def test_inadmissible_statistics(cls):
    model = model_of(cls, 60)
    theta = model.start(np.random.default_rng(1))
    s, _ = expected(model, theta)
    k = model.n_components
    empty, negative, lost, nan = s.copy(), s.copy(), -s, np.full_like(s, np.nan)
    empty[::k] = 0.0
    negative[0] = -0.01
    one_nan = s.copy()
    one_nan[-1] = np.nan
    bad = [empty, negative, lost, nan, one_nan, np.zeros_like(s)]
    for column, first in zip(model.columns, model._firsts, strict=True):
        for i in range(first, first + column.size):
            if column.family == "gaussian" and i == first + 1:
                continue  # any mean is admissible
            worse = s.copy()
            # beyond every value a log-mean can have, for gamma's second statistic
            worse[i * k] = 100.0 if column.family == "gamma" and i == first + 2 else -0.05
            bad.append(worse)
    check_inadmissible(model, theta, bad)
    fine = s.copy()
    model._functions.project(fine, theta)
    np.testing.assert_array_equal(fine, s)


def test_one_component_is_maximum_likelihood():
    X = data_of(PoissonMixture)
    fit = PoissonMixture(X, 1).fit("em", progress=False)
    np.testing.assert_allclose(fit.rates[0], np.nanmean(X, axis=0), rtol=1e-7)
    X = data_of(BernoulliMixture)
    fit = BernoulliMixture(X, 1).fit("em", progress=False)
    np.testing.assert_allclose(fit.probabilities[0], np.nanmean(X, axis=0), rtol=1e-7)
    X = data_of(CategoricalMixture)
    fit = CategoricalMixture(X, 1).fit("em", progress=False)
    shares = pd.Series(X[:, 2]).value_counts(normalize=True).sort_index()
    np.testing.assert_allclose(fit.probabilities["x2"][0], shares, rtol=1e-7)
    X = data_of(MultinomialMixture)
    fit = MultinomialMixture(X, 1).fit("em", progress=False)
    np.testing.assert_allclose(fit.probabilities[0], np.nansum(X, axis=0) / np.nansum(X), rtol=1e-7)
    X = data_of(ExponentialMixture)
    fit = ExponentialMixture(X, 1).fit("em", progress=False)
    np.testing.assert_allclose(fit.scales[0], np.nanmean(X, axis=0), rtol=1e-7)


@pytest.mark.parametrize("shape", [1e-2, 0.3, 2.0, 40.0, 1e4, 1e7])
def test_gamma_fit_equals_scipy(shape):
    x = np.random.default_rng(2).gamma(shape, 3.0, size=200)
    model = GammaMixture(x[:, None], 1, alpha=1e-15)
    fit = model.fit("em", progress=False)
    a, scale = fit.shapes[0, 0], fit.scales[0, 0]
    assert a * scale == pytest.approx(x.mean(), rel=1e-12)
    if shape < 1e3:  # where scipy is exact enough
        expected_shape, _, expected_scale = stats.gamma.fit(x, floc=0)
        assert a == pytest.approx(expected_shape, rel=1e-8)
        assert scale == pytest.approx(expected_scale, rel=1e-8)
    else:  # log(a) - digamma(a) = 1/(2 a) + 1/(12 a^2) + ...
        gap = -np.log1p((x - x.mean()) / x.mean()).mean()
        lost = 1e-15 * np.log(x.mean()) / gap  # a difference of logarithms
        assert 0.5 / a + 1 / (12 * a * a) == pytest.approx(gap, rel=1e-12 + 4 * lost)


def test_latent_class_probabilities_of_all_patterns_sum_to_one():
    model = model_of(CategoricalMixture)
    theta = model.start(np.random.default_rng(0))
    patterns = np.array(list(itertools.product(range(3), range(2), range(4))), dtype=float)
    assert np.exp(model.score_samples(theta, patterns)).sum() == pytest.approx(1.0, rel=1e-12)
    margins = np.exp(model.score_samples(theta, [[1, np.nan, np.nan], [np.nan] * 3]))
    of_one = np.exp(model.score_samples(theta, patterns))[patterns[:, 0] == 1].sum()
    np.testing.assert_allclose(margins, [of_one, 1.0], rtol=1e-12)


def test_latent_classes_by_brute_force():
    X = CategoricalMixture.simulate(np.random.default_rng(5), 7)[0]
    X[:4, 2] = np.arange(4)
    X[:3, 0] = np.arange(3)
    X[:2, 1] = np.arange(2)
    model = CategoricalMixture(X, 2)
    theta = model.start(np.random.default_rng(0))
    parts = model.components(theta)
    total, counts = 0.0, np.zeros(2)
    for z in itertools.product(range(2), repeat=len(X)):
        p = 1.0
        for row, c in zip(X.astype(int), z, strict=True):
            p *= parts["weights"][c]
            for j, value in enumerate(row):
                p *= parts["probabilities"][f"x{j}"][c, value]
        total += p
        counts += p * np.bincount(z, minlength=2)
    s, loglik = expected(model, theta)
    assert loglik == pytest.approx(np.log(total), rel=1e-12)
    np.testing.assert_allclose(s[:2] * len(X), counts / total, rtol=1e-12)


@pytest.mark.parametrize(
    "cls", [PoissonMixture, BernoulliMixture, ExponentialMixture, GammaMixture]
)
def test_standard_errors_are_those_of_the_likelihood(cls):
    model = model_of(cls, 150, holes=False)
    fit = run_em(model, model.start(np.random.default_rng(1)))
    check_errors(model, fit)


def test_standard_errors_of_one_component_are_textbook():
    X = data_of(CategoricalMixture)
    fit = CategoricalMixture(X, 1).fit("em", progress=False)
    p, n = fit.probabilities["x2"][0], np.sum(~np.isnan(X[:, 2]))
    found = [fit.bse[f"probabilities[0,x2={i}]"] for i in range(4)]
    np.testing.assert_allclose(found, np.sqrt(p * (1 - p) / n), rtol=1e-6)
    frame = data_of(MixedMixture)
    fit = MixedMixture(frame, 1, **options_of(MixedMixture)).fit("em", progress=False)
    x = frame["size"].dropna()
    assert fit.bse["means[0,size]"] == pytest.approx(x.std(ddof=0) / np.sqrt(len(x)), rel=1e-6)
    assert fit.bse["variances[0,size]"] == pytest.approx(
        x.var(ddof=0) * np.sqrt(2 / len(x)), rel=1e-6
    )


@pytest.mark.parametrize("cls", CLASSES)
def test_components_go_back_and_forth(cls):
    model = model_of(cls)
    theta = model.start(np.random.default_rng(1))
    parts = model.components(theta)
    np.testing.assert_allclose(model.pack_components(**parts), theta, rtol=1e-12, atol=1e-15)
    given = model_of(cls, init=parts)
    np.testing.assert_allclose(given.start(np.random.default_rng(9)), theta, rtol=1e-12, atol=1e-15)
    assert model.params_of(theta).shape == (len(model.param_names),)
    fit = model.fit("em", seed=0, progress=False)
    for name, value in fit.components.items():
        if name.isidentifier():
            np.testing.assert_equal(getattr(fit, name), value)
    assert model.name.lower() in str(fit.summary()).lower()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = fit.nonsense
