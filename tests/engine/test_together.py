"""Individuals visited together, and threads that share a pass: the same numbers as one by one."""

import numpy as np
import pytest

import saem
from saem import engine
from saem._crew import Crew
from saem.algorithms import FIEM, ITTEM, SPIDEREM, SVRGEM, IncrementalEM, OnlineEM
from saem.engine import Run, iterate
from saem.models import GaussianMixture, LinearMixed
from saem.schedules import Constant, TheoryStep

TYPES = ("full", "tied", "diag", "spherical")
STEP = TheoryStep(0.5)
ALGORITHMS = {
    "iem": IncrementalEM(batch_size=20),
    "iem-iid": IncrementalEM(batch_size=20, order="iid"),
    "fiem": FIEM(batch_size=20, step=STEP),
    "fiem-iid": FIEM(batch_size=20, order="iid", step=STEP),
    "svrg-em": SVRGEM(batch_size=20, step=STEP),
    "spider-em": SPIDEREM(batch_size=20, step=STEP),
    "online-em": OnlineEM(batch_size=20),
}


def after(model, algorithm, passes=4, **options):
    """A run after some passes."""
    run = Run(model, algorithm.combine(model), model.start(None), seed=3, n_threads=1, **options)
    for _, _ in zip(range(passes), iterate(run), strict=False):
        pass
    return run


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_batches_together_are_batches_one_by_one(name, covariance_type, weighted, monkeypatch):
    model = GaussianMixture.example(
        np.random.default_rng(0), 150, covariance_type=covariance_type, weighted=weighted
    )
    together = after(model, ALGORITHMS[name])
    monkeypatch.setattr(engine, "_WORTH_GATHERING", 10**9)
    alone = after(model, ALGORITHMS[name])
    assert together.n_evals == alone.n_evals
    np.testing.assert_allclose(together.s, alone.s, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(together.records, alone.records, rtol=1e-9, atol=1e-12)


def test_who_stands_twice_in_a_batch_changes_the_memory_once():
    model = GaussianMixture.example(np.random.default_rng(1), 40)
    run = after(model, IncrementalEM(batch_size=30, order="iid"), passes=1)
    order = np.repeat(np.arange(15), 2)
    run.batch_pass(order, 30, run.algorithm.proxy.code)
    np.testing.assert_allclose(run.mean, run.collect(), rtol=1e-12, atol=1e-14)


def test_averages_begin_at_their_iteration_in_the_middle_of_a_pass():
    model = GaussianMixture.example(np.random.default_rng(2), 60)
    kept = []
    for resolution in (1, None):
        algorithm = ITTEM(batch_size=10, gamma=Constant(0.3), n_epochs=3, averaged=0.5)
        run = Run(model, algorithm.combine(model), model.start(None), seed=1, resolution=resolution)
        steps = list(iterate(run))
        first = run.algorithm.average_from
        assert first % 6 != 1, "the first averaged iteration begins a pass"
        assert run.average[0] == run.k - first
        kept.append(run.average[1:].copy())
        if resolution == 1:
            path = np.array([step.s for step in steps if step.k > first])
            np.testing.assert_allclose(run.average[1:], path.mean(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(*kept)


def test_a_crew_serves_other_arguments_and_starts_again_after_its_end(monkeypatch):
    monkeypatch.setattr(engine, "_WORTH_THREADS", 0.0)
    model = LinearMixed.example(np.random.default_rng(0), 100)
    found = {}
    for n_threads in (1, 3):
        run = Run(
            model, saem.SAEM(n_burn_in=1).combine(model), model.start(None), seed=2,
            n_threads=n_threads,
        )  # fmt: skip
        sums = [run.full_pass(0)]
        run.theta = run.theta * 1.01  # another array, which those who wait do not know
        sums.append(run.full_pass(1))
        run.close()
        sums.append(run.full_pass(2))
        run.close()
        found[n_threads] = np.array(sums)
    np.testing.assert_array_equal(found[1], found[3])


def test_a_crew_that_is_never_called_has_no_threads():
    crew = Crew(4)
    assert crew._pool is None
    crew.close()
