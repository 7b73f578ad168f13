"""How a fit ends: interrupted, failed, stopped, out of budget, or started again."""

import numpy as np
import pytest
from loop_models import SHORT, decay_model, path_of
from toys import FAIL, NOT_FINITE, Toy, toy_data

from saem.algorithms import (
    EM,
    SAEM,
    IncrementalEM,
)
from saem.callbacks import Callback, EarlyStop
from saem.engine import Run
from saem.exceptions import ConvergenceWarning, FitError
from saem.fitting import Epochs, Iterations
from saem.models.gaussian_mixture import GaussianMixture


class Interrupt(Callback):
    """Press Ctrl-C after some iterations."""

    def __init__(self, after):
        self.after, self.ended = after, None

    def step(self, step):
        if step.snapshot.k >= self.after:
            raise KeyboardInterrupt

    def end(self, reason):
        self.ended = reason


@pytest.mark.nojit
def test_interruption_keeps_what_is_there():
    watcher = Interrupt(3)
    with pytest.warns(ConvergenceWarning, match="interrupted by the user after iteration 3"):
        result = Toy(toy_data()).fit(EM(), seed=0, callbacks=[watcher])
    assert not result.converged
    assert result.record.n_iter == 3
    assert "interrupted" in watcher.ended
    expected = path_of(Toy(toy_data()), EM(n_iter=3))[-1]
    np.testing.assert_array_equal(result.theta, expected)
    assert len(result.trace) == 4


def test_interruption_before_the_first_iteration(monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    model = Toy(toy_data())
    monkeypatch.setattr(Run, "full_pass", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit("em", seed=0)


@pytest.mark.nojit
def test_early_stop():
    stop = EarlyStop(lambda step: step.params[0] > 2.0, "far enough")
    result = Toy(toy_data()).fit(EM(), seed=0, callbacks=[stop])
    assert result.reason == "far enough"
    assert result.trace["mu"].iloc[-1] > 2.0 >= result.trace["mu"].iloc[-2]


@pytest.mark.nojit
@pytest.mark.parametrize("algorithm", ["em", "saem"])
def test_parameters_that_are_not_finite_stop_the_fit(algorithm):
    model = Toy(toy_data(), limit=2.0, mode=NOT_FINITE)
    with pytest.warns(ConvergenceWarning, match="no longer finite"):
        result = model.fit(SHORT[algorithm], seed=0)
    assert not result.converged
    assert np.all(np.isfinite(result.theta))
    assert 0.0 < result.params["mu"] <= 2.0
    assert np.all(np.isfinite(result.trace["mu"]))


def test_parameters_that_are_not_finite_in_a_later_pass():
    y = toy_data()
    path = Toy(y).fit(IncrementalEM(batch_size=4, n_epochs=4), seed=0).trace["mu"].to_numpy()
    assert path[1] < path[2]
    model = Toy(y, limit=0.5 * (path[1] + path[2]), mode=NOT_FINITE)
    with pytest.warns(ConvergenceWarning, match="no longer finite"):
        result = model.fit(IncrementalEM(batch_size=4, n_epochs=4), seed=0)
    assert not result.converged
    assert result.params["mu"] == path[1]


def test_parameters_that_are_never_finite():
    model = Toy(toy_data(), limit=0.1, mode=NOT_FINITE)
    with pytest.raises(FitError, match="no longer finite after iteration 1"):
        model.fit("em", seed=0)


@pytest.mark.nojit
def test_statistics_without_parameters_are_projected_and_counted():
    # mu goes 0 -> 1.5 -> 2.2: the second full step and all its halvings are beyond the limit.
    y = np.full(20, 3.0)
    model = Toy(y, limit=1.2, mode=FAIL)
    result = model.fit(EM(n_iter=6, tolerance=None), seed=0)
    assert result.params["mu"] == pytest.approx(1.2, abs=1e-12)
    assert result.record.projections == 6
    assert result.record.halvings >= 5 * 5


def test_a_step_that_is_too_long_is_halved():
    y = np.full(20, 3.0)
    model = Toy(y, limit=2.0, mode=FAIL)
    result = model.fit(EM(n_iter=2, tolerance=None), seed=0)
    # 0 -> 1.5; then 2.25 is refused and 1.5 + 0.375 taken.
    np.testing.assert_allclose(result.trace["mu"], [0.0, 1.5, 1.875])
    assert (result.record.halvings, result.record.projections) == (1, 0)


@pytest.mark.nojit
def test_a_failed_m_step_ends_the_fit():
    model = Toy(toy_data(), limit=2.0, mode=FAIL, repairs=False)
    with pytest.warns(ConvergenceWarning, match="the M-step failed at iteration"):
        result = model.fit(EM(n_iter=30, tolerance=None), seed=0)
    assert not result.converged
    assert np.isfinite(result.params["mu"])


def test_a_failed_m_step_in_a_batch_ends_the_fit():
    model = Toy(toy_data(), limit=2.0, mode=FAIL, repairs=False)
    with pytest.raises(FitError, match="the M-step failed at iteration"):
        model.fit(IncrementalEM(batch_size=4, n_epochs=20), seed=0)


def test_em_that_does_not_converge_says_so():
    with pytest.warns(ConvergenceWarning, match="3 iterations without meeting the tolerance"):
        result = Toy(toy_data()).fit(EM(n_iter=3), seed=0)
    assert not result.converged


def test_budgets():
    model = decay_model()
    result = model.fit("saem", seed=0, budget=Epochs(35))
    assert result.epochs == 35
    assert "budget" in result.reason
    result = model.fit("saem", seed=0, budget=Iterations(80))
    assert result.record.n_iter == 80
    short = model.fit("saem", seed=0, budget=Iterations(20))
    assert short.record.n_iter == 20
    assert SAEM().with_iterations(3).n_exploration == 0
    assert EM().with_iterations(7).n_iter == 7


def test_the_best_of_several_starts():
    rng = np.random.default_rng(2)
    centres = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0], [6.0, 6.0], [30.0, 30.0]])
    rows = np.concatenate([c + rng.standard_normal((40, 2)) for c in centres])
    model = GaussianMixture(rows, 5, init="random")
    em = EM(tolerance=1e-4)
    one = [model.fit(em, seed=s).llf for s in range(12)]
    ten = [model.fit(em, seed=s, n_starts=10).llf for s in range(12)]
    best = max(ten)
    assert np.mean(np.array(ten) > best - 1.0) > np.mean(np.array(one) > best - 1.0)
    assert np.mean(ten) > np.mean(one)


def test_a_start_resumes():
    y = toy_data()
    first = Toy(y).fit(EM(n_iter=4, tolerance=None), seed=0)
    second = Toy(y).fit(EM(n_iter=3, tolerance=None), seed=0, start=first.theta)
    whole = Toy(y).fit(EM(n_iter=7, tolerance=None), seed=0)
    np.testing.assert_array_equal(second.theta, whole.theta)
