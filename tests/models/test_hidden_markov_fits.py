"""Hidden Markov models: standard errors, long and improbable sequences, answers, bad input."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hidden_markov_cases import (
    CHAIN,
    KINDS,
    K,
    free,
    log_emissions,
    make_model,
    make_sequences,
    make_theta,
    options_of,
)
from model_references import (
    plain_errors,
    run_em,
)
from scipy.special import logsumexp

from saem.exceptions import DataError, ModelError
from saem.models.hidden_markov import HiddenMarkov, simulate


@KINDS
def test_standard_errors_equal_those_of_the_plain_curvature(kind):
    """In the directions that probabilities can move."""
    sequences = make_sequences(kind, n=60, length=(20, 25), holes=False)
    model = HiddenMarkov(sequences, K, reg_covar=0.0, **options_of(kind))
    fit = run_em(model, make_theta(model), tolerance=1e-10)
    x, back = free(model)(fit.theta)

    class Plain:
        loglik = staticmethod(model.loglik)
        theta_of = staticmethod(back)

    errors = plain_errors(Plain, x)
    means = [j for j, name in enumerate(fit.param_names) if name.startswith("means")]
    start = fit.params["startprob[0]"]
    assert fit.bse["startprob[0]"] == pytest.approx(errors[0] * start * (1 - start), rel=1e-3)
    stay = fit.params["transmat[1,0]"]
    assert fit.bse["transmat[1,0]"] == pytest.approx(errors[2] * stay * (1 - stay), rel=1e-3)
    if means:
        np.testing.assert_allclose(fit.bse.iloc[means], errors[3:7], rtol=1e-3)
    assert np.all(np.isfinite(fit.bse))


@pytest.mark.parametrize("algorithm", ["iem", "saem", "mcem"])
def test_other_algorithms_reach_the_maximum(algorithm):
    """Within a share of a standard error: some 5 Monte Carlo errors of the stochastic ones."""
    model = HiddenMarkov.example(np.random.default_rng(0), 40)
    fit = run_em(model, tolerance=1e-10)
    other = model.fit(algorithm, seed=3, progress=False)
    bound = 0.02 if algorithm == "iem" else 0.3
    assert np.abs((other.params - fit.params) / fit.bse).max() < bound


def test_long_and_improbable_sequences_do_not_underflow():
    """Rows 60 standard deviations off, 2000 of them; forbidden transitions."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 2)) * 60.0
    model = HiddenMarkov(X, 2)
    parts = {
        "startprob": np.array([1.0, 0.0]),
        "transmat": np.array([[0.5, 0.5], [0.0, 1.0]]),
        "means": np.array([[0.0, 0.0], [50.0, -50.0]]),
        "covariances": np.ones((2, 2)),
    }
    probabilities, log_lik = model.posterior(model.pack_params(**parts))
    emitted = log_emissions("diag", parts, X)
    with np.errstate(divide="ignore"):
        first, chain = np.log(parts["startprob"]), np.log(parts["transmat"])
    ahead = first + emitted[0]
    for t in range(1, len(X)):
        ahead = np.logaddexp.reduce(ahead[:, None] + chain, axis=0) + emitted[t]
    assert log_lik[0] == pytest.approx(logsumexp(ahead), rel=1e-12)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-9)


def test_impossible_symbols_have_no_likelihood():
    model = HiddenMarkov([[0, 1, 2, 0]], 2, emission="categorical")
    theta = model.pack_params(**CHAIN, emissionprob=[[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]])
    assert model.score_samples(theta)[0] == -np.inf
    assert np.isfinite(model.predict_proba(theta)).all()
    assert model.score_samples(theta, [[0, 1, 1]])[0] > -10.0


def test_em_runs_through_probabilities_of_zero():
    """Symbols that a state never emits leave the fit alone."""
    sequences = [np.tile([0.0, 1.0], 10), np.tile([1.0, 0.0], 10)]
    init = CHAIN | {"emissionprob": [[0.99, 0.01], [0.01, 0.99]]}
    model = HiddenMarkov(sequences, 2, emission="categorical", init=init)
    fit = run_em(model)
    assert fit.converged
    assert fit.llf == pytest.approx(2 * np.log(0.5), abs=1e-6)
    np.testing.assert_allclose(fit.transmat, [[0.0, 1.0], [1.0, 0.0]], atol=1e-6)
    assert "transmat[0,0]" in fit.boundary


def test_answers():
    rng = np.random.default_rng(2)
    sequences, paths = simulate(rng, 30, means=[[-3.0], [3.0]])
    model = HiddenMarkov(sequences, 2)
    fit = run_em(model)
    truth = np.concatenate(paths)
    if fit.means.iloc[0, 0] > 0.0:
        truth = 1 - truth
    assert np.mean(fit.predict() == truth) > 0.98
    stacked, lengths = np.concatenate(sequences), [len(s) for s in sequences]
    np.testing.assert_array_equal(fit.predict(stacked, lengths), fit.predict())
    np.testing.assert_array_equal(fit.predict(sequences[:2]), fit.predict()[:60])
    assert fit.score_samples().sum() == pytest.approx(fit.llf)
    np.testing.assert_allclose(fit.stationary @ fit.transmat, fit.stationary, atol=1e-9)
    np.testing.assert_allclose(fit.durations, 1.0 / (1.0 - np.diag(fit.transmat)))
    assert fit.bic == pytest.approx(-2.0 * fit.llf + 7 * np.log(900))
    again, _ = fit.sample(3, 20, seed=0)
    assert [s.shape for s in again] == [(20, 1)] * 3
    assert "No. of states" in fit.summary().as_text()
    with pytest.raises(ModelError, match="emissionprob"):
        _ = fit.emissionprob
    frame = pd.DataFrame(stacked, columns=["x"])
    named = HiddenMarkov(frame, 2, lengths=lengths)
    assert named.feature_names == ["x"]
    with pytest.raises(DataError, match="column 'x' is missing"):
        named.with_data(frame.rename(columns={"x": "y"}))


@KINDS
def test_default_start_leads_to_a_sensible_fit(kind):
    sequences = make_sequences(kind, n=30, length=(10, 20))
    model = HiddenMarkov(sequences, K, **options_of(kind))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = run_em(model, tolerance=1e-7)
    assert fit.llf > model.loglik(make_theta(model))
    one = HiddenMarkov(sequences, 1, **options_of(kind)).fit("em", seed=0, progress=False)
    assert one.llf < fit.llf


def test_malformed_input():
    good = make_sequences("diag")
    with pytest.raises(ModelError) as caught:
        HiddenMarkov(good, 0, emission="gausian", covariance_type="tied", reg_covar=-1)
    for part in ("n_states=0", "did you mean 'gaussian'", "'tied' is not one", "reg_covar=-1"):
        assert part in str(caught.value)
    with pytest.raises(DataError) as caught:
        HiddenMarkov([good[0], np.array([[np.inf, 0.0]])], 2, weights=[1.0, -1.0])
    for part in ("sequence 1: row 0, column 'x0'", "infinite"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=r"weights\[1\] is -1"):
        HiddenMarkov(good[:2], 2, weights=[1.0, -1.0])
    with pytest.raises(DataError, match="covariance_type='diag'"):
        HiddenMarkov(good, 2, covariance_type="full")
    with pytest.raises(DataError, match=r"sequence 1, row 0: the symbol 1\.5"):
        HiddenMarkov([[0.0, 1.0], [1.5, 0.0]], 2, emission="categorical")
    with pytest.raises(DataError, match="below n_categories=2"):
        HiddenMarkov([[0.0, 1.0], [2.0, 0.0]], 2, emission="categorical", n_categories=2)
    with pytest.raises(DataError, match="columns"):
        HiddenMarkov([np.zeros((3, 1)), np.zeros((3, 2))], 2)
    with pytest.raises(DataError, match="constant"):
        HiddenMarkov(np.zeros((3, 1)), 2)
    with pytest.raises(DataError, match="lengths sum to 5"):
        HiddenMarkov(np.arange(4.0), 2, lengths=[2, 3])
    with pytest.raises(DataError, match=r"lengths\[0\] is 0"):
        HiddenMarkov(np.arange(4.0), 2, lengths=[0, 4])
    with pytest.raises(DataError, match="leave it out"):
        HiddenMarkov(good, 2, lengths=[1])
    with pytest.raises(DataError, match="no value is observed"):
        HiddenMarkov([[np.nan, np.nan]], 2)
    model = make_model("diag")
    with pytest.raises(ModelError) as caught:
        model.pack_params(
            startprob=[0.5, 0.6], transmat=np.eye(3), means=[[0, 0], [0, np.nan]], covarianses=1
        )
    for part in ("startprob must", "transmat has shape", "means holds", "covariances is missing",
                 "'covarianses' is not one"):  # fmt: skip
        assert part in str(caught.value)
    with pytest.raises(ModelError, match="not positive definite"):
        make_model("full", holes=False).pack_params(
            **CHAIN, means=np.zeros((2, 2)), covariances=[np.eye(2), -np.eye(2)]
        )
    with pytest.raises(ModelError, match="must be a dict"):
        HiddenMarkov(good, 2, init="kmeans")
