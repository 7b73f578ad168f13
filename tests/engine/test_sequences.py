"""Phases in sequence, the default algorithm, and stopping by accuracy."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import saem
from saem.algorithms import default_algorithm
from saem.algorithms.default import _levels
from saem.exceptions import ConvergenceWarning, OptionError

FINISH = saem.EM(saem.Quadrature(5), acceleration="newton", tolerance=1e-6)
SHORT = saem.SAEM(n_exploration=10, n_smoothing=20)


@pytest.fixture(scope="module")
def theophylline():
    return saem.NLME(
        saem.datasets.load("theophylline"),
        structural="pk.oral_1cpt",
        parameters={
            "ka": saem.LogNormal(1.0), "V": saem.LogNormal(20.0), "CL": saem.LogNormal(2.0)
        },
        error=saem.ConstantError(1.0),
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def both(theophylline):
    return theophylline.fit(saem.Sequence((SHORT, FINISH)), seed=1, progress=False)


def test_the_trace_holds_all_phases(theophylline, both):
    record, n = both.record, theophylline.n_individuals
    first, second = record.phases
    assert [first["algorithm"], second["algorithm"]] == ["saem", "em"]
    assert (first["first"], first["last"]) == (1, 35)
    assert (second["first"], second["last"]) == (36, record.n_iter)
    assert list(record.trace["iteration"]) == list(range(record.n_iter + 1))
    assert np.all(np.diff(record.trace["epochs"]) > 0)
    assert np.all(np.diff(record.trace["seconds"]) >= 0)
    assert record.n_evals == 35 * 5 * n + (record.n_iter - 35) * n
    assert (first["stopped_by"], second["stopped_by"]) == ("iterations", "tolerance")
    assert both.converged
    assert record.stopped_by == "tolerance"
    assert record.settings["parts"][1]["acceleration"] == "newton"


def test_phases_are_the_fits_one_after_the_other(theophylline, both):
    alone = theophylline.fit(SHORT, seed=1, progress=False)
    after = theophylline.fit(FINISH, start=alone.theta, seed=99, progress=False)
    np.testing.assert_array_equal(after.theta, both.theta)
    np.testing.assert_array_equal(alone.trace["ka"], both.trace["ka"][:36])


def test_same_seed_same_bits(theophylline, both):
    again = theophylline.fit(
        saem.Sequence((SHORT, FINISH)), seed=1, progress=False, n_threads=2, block_size=5
    )
    np.testing.assert_array_equal(again.theta, both.theta)
    assert again.seed == both.seed == 1


def test_saved_and_loaded(both, tmp_path):
    both.save(tmp_path / "fit.saem")
    again = saem.load(tmp_path / "fit.saem")
    assert again.record.phases == both.record.phases
    np.testing.assert_array_equal(again.theta, both.theta)
    np.testing.assert_array_equal(again.mc_error, both.mc_error)
    pd.testing.assert_frame_equal(again.trace, both.trace)


def test_another_seed_ends_within_the_reported_error(theophylline, both):
    other = theophylline.fit(saem.Sequence((SHORT, FINISH)), seed=2, progress=False)
    assert (both.mc_error > 0).all()
    # Both are within their bound of the maximum.
    assert ((other.params - both.params).abs() <= both.mc_error + other.mc_error).all()
    assert (both.mc_error / both.bse).max() < 2e-3


def test_callbacks_and_interruption_end_all_phases(theophylline):
    calls = []

    class Watch(saem.Callback):
        def step(self, step):
            calls.append(step.snapshot.k)
            return "enough" if len(calls) == 4 else None

    fit = theophylline.fit(
        saem.Sequence((SHORT, FINISH)), seed=1, progress=False, callbacks=[Watch()]
    )
    assert calls == [1, 2, 3, 4]
    assert fit.reason == "enough"
    assert fit.record.stopped_by == "callback"
    assert len(fit.record.phases) == 1

    class Break(saem.Callback):
        def step(self, step):
            if step.snapshot.k == 5:
                raise KeyboardInterrupt

    with pytest.warns(ConvergenceWarning, match="interrupted"):
        fit = theophylline.fit(
            saem.Sequence((SHORT, FINISH)), seed=1, progress=False, callbacks=[Break()]
        )
    assert fit.record.stopped_by == "interruption"
    assert fit.record.n_iter == 5


def test_budgets_of_iterations(theophylline):
    cut = theophylline.fit(
        saem.Sequence((SHORT, FINISH)), seed=1, progress=False, budget=saem.Iterations(12)
    )
    assert cut.record.n_iter == 12
    assert cut.record.algorithm == "saem"
    assert cut.record.stopped_by == "iterations"
    longer = theophylline.fit(
        saem.Sequence((SHORT, FINISH)), seed=1, progress=False, budget=saem.Iterations(60)
    )
    assert longer.record.stopped_by == "tolerance"
    assert longer.record.n_iter <= 60


@pytest.mark.parametrize("parts", [(), (saem.SAEM,), (saem.Sequence((SHORT,)),)])
def test_parts_are_algorithms(parts):
    with pytest.raises(OptionError, match="parts"):
        saem.Sequence(parts)


# -- the default -----------------------------------------------------------------------------


def test_the_default_by_dimension_and_size(theophylline):
    found = default_algorithm(theophylline)
    assert isinstance(found, saem.Sequence)
    kinds = [type(part).__name__ for part in found.parts]
    assert kinds == ["SAEM", "EM", "EM"]
    nodes = [part.estep.n_nodes for part in found.parts[1:]]
    assert nodes == [7, 11]
    mixture = saem.models.GaussianMixture.example(np.random.default_rng(1), 40)
    assert default_algorithm(mixture) == saem.EM()
    logistic = saem.models.MixedLogistic.example(np.random.default_rng(1), 40)
    assert default_algorithm(logistic) == saem.SAEM()


@pytest.mark.parametrize(
    ("d", "n", "expected"),
    [(0, 50, (1,)), (1, 50, (9, 15)), (3, 50, (7, 11)), (4, 50, (5, 7)), (5, 50, None),
     (3, 10_000, (5, 7)), (4, 10_000, None), (3, 100_000, None)],
)  # fmt: skip
def test_levels_of_quadrature(d, n, expected):
    assert _levels(SimpleNamespace(n_coords=d, n_individuals=n, latent_size=d + 1)) == expected


def test_the_default_reaches_the_maximum_from_any_seed(theophylline):
    """Bar: within 0.02 standard errors. All twenty seeds are in tests/statistical."""
    exact = theophylline.fit(
        saem.EM(saem.Quadrature(13), tolerance=1e-10, acceleration="newton"),
        seed=0, progress=False,
    )  # fmt: skip
    for seed in range(3):
        fit = theophylline.fit(seed=seed, progress=False)
        assert fit.converged
        assert ((fit.params - exact.params) / exact.bse).abs().max() < 0.02


# -- accuracy --------------------------------------------------------------------------------


def test_saem_goes_on_until_it_is_accurate(theophylline):
    fit = theophylline.fit("saem", accuracy=0.015, seed=1, progress=False)
    assert fit.record.stopped_by == "accuracy"
    assert fit.record.n_iter > 400
    assert (fit.mc_error / fit.bse).max() <= 0.015
    assert len(fit.record.noise) == fit.record.n_iter - fit.record.average_from
    # The first iterations are those of the fit without the rule.
    plain = theophylline.fit("saem", seed=1, progress=False)
    assert plain.record.stopped_by == "iterations"
    np.testing.assert_array_equal(plain.trace["ka"], fit.trace["ka"][:401])


def test_what_cannot_be_reached_is_said(theophylline):
    with pytest.warns(ConvergenceWarning, match="was asked"):
        fit = theophylline.fit(saem.SAEM(accuracy=1e-4, max_iter=450), seed=1, progress=False)
    assert fit.record.stopped_by == "limit"
    assert fit.record.n_iter == 450
    assert not fit.converged


def test_accuracy_of_deterministic_em_is_a_tolerance(theophylline):
    fit = theophylline.fit(saem.EM(acceleration="newton"), accuracy=0.01, progress=False)
    assert fit.record.settings["tolerance"] == pytest.approx(5e-5)
    assert fit.record.left < 5e-5


def test_accuracy_is_refused_where_it_is_not_known(theophylline):
    template = saem.models.DeformableTemplate.example(np.random.default_rng(1), 40)
    with pytest.raises(OptionError, match=r"Monte Carlo errors|standard errors"):
        template.fit("saem", accuracy=0.02, progress=False)
    with pytest.raises(OptionError, match="does not know how accurate"):
        theophylline.fit("mini-batch-saem", accuracy=0.02, progress=False)
    with pytest.raises(OptionError, match="above 0"):
        theophylline.fit("saem", accuracy=0.0, progress=False)
