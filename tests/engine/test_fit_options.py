"""Options of a fit, what is said of wrong ones, and its progress."""

import io

import numpy as np
import pytest
from loop_models import (
    decay_model,
    make_run,
    mixture,
)
from toys import FROZEN, Toy, toy_data

from saem.algorithms import (
    EM,
    FIEM,
    MCEM,
    SAEM,
    SVRGEM,
    algorithms,
)
from saem.callbacks import Callback, Progress
from saem.engine import Combination, iterate
from saem.estep import Exact, MonteCarlo, Quadrature
from saem.exceptions import OptionError
from saem.fitting import fit
from saem.proxies import Full, Incremental, MiniBatch
from saem.schedules import Constant, Polynomial, TwoPhase


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "emm"}, "Did you mean 'em'"),
        ({"algorithm": 3}, "must be a name or an algorithm object"),
        ({"n_threads": 0}, "n_threads=0"),
        ({"block_size": 0}, "block_size=0"),
        ({"seed": -1}, "seed must be"),
        ({"seed": "one"}, "seed must be"),
        ({"n_starts": 0}, "n_starts=0"),
        ({"resolution": 0, "algorithm": "iem"}, "resolution=0"),
        ({"algorithm": SVRGEM(storage="disk")}, "storage='disk'"),
        ({"algorithm": SVRGEM(step="fast")}, "step='fast'"),
        ({"algorithm": SVRGEM(step=1.5)}, "step=1.5"),
        ({"algorithm": FIEM(batch_size=0)}, "batch_size=0"),
        ({"algorithm": EM(acceleration="warp")}, "acceleration='warp'"),
        ({"start": np.zeros(9)}, "start has shape"),
        ({"algorithm": SAEM(averaged=2.0)}, "averaged=2.0"),
        ({"algorithm": SAEM(power=0.2)}, "power=0.2"),
        ({"algorithm": MCEM(n_draws="many")}, "n_draws must be"),
        ({"algorithm": SAEM(MonteCarlo(adaptation="none"))}, "adaptation='none'"),
        ({"algorithm": SAEM(MonteCarlo(path=0))}, "path=0"),
        ({"algorithm": SAEM(MonteCarlo(moves=(), exact=False))}, "moves is empty"),
        ({"algorithm": EM(Quadrature(0))}, "n_nodes=0"),
        ({"algorithm": EM(Quadrature(30_000))}, "more than 20000"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(OptionError, match=message):
        Toy(toy_data()).fit(**{"seed": 0, **options})


def test_several_starts_need_a_log_likelihood():
    with pytest.raises(OptionError, match="n_starts=2 needs"):
        decay_model().fit("saem", seed=0, n_starts=2)


def test_resolution_of_the_trace():
    model = mixture(60)
    coarse = model.fit(FIEM(batch_size=5, n_epochs=2, step=0.1), seed=3)
    fine = model.fit(FIEM(batch_size=5, n_epochs=2, step=0.1), seed=3, resolution=3)
    assert len(fine.trace) == 4 * (len(coarse.trace) - 1) + 1
    np.testing.assert_allclose(fine.params, coarse.params, rtol=1e-12)


def test_parts_that_a_model_lacks():
    with pytest.raises(OptionError, match="exact E-step needs a model with 'expect'"):
        decay_model().fit(EM(Exact()), seed=0)
    for estep in (Quadrature(3), MonteCarlo(exact=False)):
        with pytest.raises(OptionError, match="needs a model with 'gaussian'"):
            mixture().fit(EM(estep) if isinstance(estep, Quadrature) else SAEM(estep), seed=0)


@pytest.mark.parametrize("make", [lambda: MiniBatch(0), lambda: Incremental(2, "backwards")])
def test_wrong_batches(make):
    with pytest.raises(OptionError):
        make()


def test_names_and_defaults():
    assert {"em", "iem", "online-em", "svrg-em", "fiem", "mcem", "saem"} <= set(algorithms())
    assert decay_model().default_algorithm == "auto"
    assert Toy(toy_data()).default_algorithm == "em"
    result = fit(Toy(toy_data()), "Online_EM", seed=0)
    assert result.record.algorithm == "online-em"
    assert fit(Toy(toy_data()), seed=0).record.algorithm == "em"


def test_a_combination_of_parts_runs_as_it_is():
    algorithm = Combination(
        "mine", Exact(), Full(), Constant(1.0), Polynomial(0.6), n_iter=3
    )  # fmt: skip
    run = make_run(Toy(toy_data()), algorithm)
    gammas = [s.gamma for s in iterate(run)]
    np.testing.assert_allclose(gammas, [1.0, 2.0**-0.6, 3.0**-0.6])


def test_two_steps_of_the_two_sequences():
    # S <- S + rho (target - S), s <- s + gamma (S - s), from the same first target.
    model = Toy(np.full(16, 2.0), mode=FROZEN, mu=0.0)
    algorithm = Combination("two", Exact(), Full(), Constant(0.5), TwoPhase(0, 1, 1.0), n_iter=3)
    run = make_run(model, algorithm)
    list(iterate(run))
    assert run.fast[0] == run.s[0] == 1.0  # every target is the same
    run.s[:] = run.fast[:] = 0.0
    run.k = 2
    run.move(np.array([1.0]))
    assert run.fast[0] == 0.5
    assert run.s[0] == 0.25


# -- progress ------------------------------------------------------------------------------


def test_progress_is_silent_without_a_terminal(capsys):
    Toy(toy_data()).fit(EM(n_iter=50), seed=0, progress=True)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_progress_writes_one_line_where_it_is_wanted():
    stream_ = io.StringIO()
    Toy(toy_data()).fit(
        EM(n_iter=4, tolerance=None), seed=0, callbacks=[Progress(stream_, force=True)],
        progress=False,
    )  # fmt: skip
    text = stream_.getvalue()
    assert text.endswith("4/4 iterations, 4 epochs, 0.0 s\n")
    assert text.count("\n") == 1
    assert Callback().step(None) is None
