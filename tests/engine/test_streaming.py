"""Online EM on data that come in chunks."""

import pickle

import numpy as np
import pytest

from saem import Stream
from saem.engine import Run
from saem.exceptions import FitError, ModelError, OptionError, SaemError
from saem.models import GaussianMixture, LinearMixed
from saem.models.gaussian_mixture import simulate
from saem.schedules import Polynomial

INIT = {"weights": [0.5, 0.5], "means": [[-1.0], [1.0]], "covariances": [1.0, 1.0]}


def first_model(n=300, seed=0):
    X, _ = simulate(np.random.default_rng(seed), n, means=((2.0,), (-2.0,)))
    return GaussianMixture(X, 2, covariance_type="spherical", init=INIT)


def chunk(n, seed):
    return simulate(np.random.default_rng(seed), n, means=((2.0,), (-2.0,)))[0]


def test_a_stream_comes_near_the_truth():
    stream = Stream(first_model(), seed=1, batch_size=5)
    for seed in range(1, 31):
        stream.partial_fit(chunk(1000, seed))
    assert stream.n_seen == 30_300
    parts = stream.model.components(stream.averaged)
    # Components 4 sd apart: means have standard errors near 1 / sqrt(w n), here 0.0065 and 0.013;
    # five of them are a false alarm in 1e-6 of cases, and the averaged start adds a bias of 0.01.
    assert abs(parts["means"][0, 0] + 2.0) < 5 * 0.0065 + 0.01
    assert abs(parts["means"][1, 0] - 2.0) < 5 * 0.013 + 0.01


def test_same_chunks_same_bits():
    ends = []
    for _ in range(2):
        stream = Stream(first_model(), seed=7, batch_size=3)
        for seed in (5, 6):
            stream.partial_fit(chunk(101, seed))  # 101 is no multiple of 3: a smaller last batch
        ends.append(stream.theta)
    assert np.array_equal(*ends)


def test_errors_fall_as_one_over_the_root():
    """RMSE over 24 streams at 2 000 and 32 000 rows: a ratio of 4, the root of 16, in theory.

    The log of a ratio of two RMSEs of 24 and two means each has a standard error near
    sqrt(2 / 48) = 0.2; four of them, a false alarm in 6e-5 of cases, is a factor 2.2.
    """
    errors = {2_000: [], 32_000: []}
    for seed in range(24):
        stream = Stream(
            first_model(seed=1000 + seed), seed=seed, batch_size=10, gamma=Polynomial(0.6, 1.0, 5.0)
        )
        rows = chunk(32_000, seed)
        for part in np.split(rows, 16):
            stream.partial_fit(part)
            if stream.n_seen in (2_300, 32_300):
                means = stream.model.components(stream.averaged)["means"]
                errors[stream.n_seen - 300].append(means[:, 0] - [-2.0, 2.0])
    early, late = (np.sqrt(np.mean(np.square(e))) for e in errors.values())
    assert 4.0 / 2.2 < early / late < 4.0 * 2.2


def test_a_chunk_that_does_not_fit_is_refused_and_changes_nothing():
    stream = Stream(first_model(), seed=1)
    before = stream.theta
    with pytest.raises(SaemError):
        stream.partial_fit(np.zeros((10, 3)))
    assert np.array_equal(stream.theta, before)
    assert stream.n_seen == 300


def test_a_chunk_whose_m_step_fails_leaves_no_trace(monkeypatch):
    ends = []
    for bad in (False, True):
        stream = Stream(first_model(), seed=3, batch_size=4).partial_fit(chunk(50, 1))
        if bad:
            with monkeypatch.context() as patch:
                patch.setattr(Run, "batch_pass", failing_pass)
                with pytest.raises(FitError, match="could not be used"):
                    stream.partial_fit(chunk(50, 2))
        stream.partial_fit(chunk(50, 3))
        assert stream.n_seen == 400
        ends.append(np.concatenate([stream.theta, stream.averaged]))
    assert np.array_equal(*ends)


def failing_pass(run, order, batch, code):
    """Stand for a pass that ends in an inadmissible statistic."""
    run.theta[:], run.s[:], run.status = np.nan, np.nan, 1
    return 1


def test_a_state_goes_on_bit_for_bit():
    whole = Stream(first_model(), seed=7, batch_size=3).partial_fit(chunk(101, 5))
    state = pickle.loads(pickle.dumps(whole.state_dict()))
    other = Stream(first_model(), seed=8, batch_size=3)
    other.load_state_dict(state)
    for stream in (whole, other):
        stream.partial_fit(chunk(99, 6))
    assert np.array_equal(whole.theta, other.theta)
    assert np.array_equal(whole.averaged, other.averaged)
    assert whole.n_seen == other.n_seen == 500


def test_a_state_of_another_model_is_refused():
    state = Stream(first_model(), seed=7).state_dict()
    rows = np.random.default_rng(0).normal(size=(20, 2))
    with pytest.raises(ModelError, match="another model: 'theta' has shape"):
        Stream(GaussianMixture(rows, 2), seed=0).load_state_dict(state)


def test_models_that_take_no_other_data_are_refused():
    with pytest.raises(ModelError, match="with_data"):
        Stream(LinearMixed.example(np.random.default_rng(0), 20))
    with pytest.raises(OptionError, match="batch_size=0"):
        Stream(first_model(), batch_size=0)
