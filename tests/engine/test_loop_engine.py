"""The loop and its parts: what every combination of E-step, proxy and schedule must keep."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from loop_models import (
    MODELS,
    SHORT,
    decay_data,
    decay_model,
    final_bits,
    make_run,
    mixture,
    path_of,
)
from toys import FROZEN, Toy, toy_data

import saem
from saem import engine
from saem.algorithms import (
    EM,
    MCEM,
    SAEM,
    IncrementalEM,
    OnlineEM,
)
from saem.engine import iterate
from saem.estep import IndependentLaplace, MonteCarlo, PriorProposal, Quadrature
from saem.fitting import Iterations, describe
from saem.models.gaussian_mixture import GaussianMixture
from saem.models.linear_mixed import LinearMixed, simulate
from saem.random import stream
from saem.schedules import Constant, Geometric

# -- EM and incremental EM ---------------------------------------------------------------


@pytest.mark.nojit
@pytest.mark.parametrize("name", MODELS)
def test_em_never_lowers_the_likelihood(name):
    result = MODELS[name]().fit(EM(n_iter=6, tolerance=None), seed=0)
    path = result.trace["loglik"].to_numpy()[1:]
    assert len(path) == 6
    assert np.all(np.diff(path) > -1e-9 * abs(path[-1]))
    assert path[-1] > path[0] + 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_the_limit_of_em_is_its_fixed_point(name):
    model = MODELS[name]()
    found = model.fit("em", seed=0, budget=Iterations(20_000))
    assert found.converged
    again = model.fit(EM(n_iter=1, tolerance=None), start=found.theta, seed=0)
    # What is left is bounded by the tolerance of the rule, 1e-9 nats.
    sd = found.bse.to_numpy()
    assert np.all(np.abs(again.params - found.params) < 1e-3 * sd)


@pytest.mark.nojit
def test_em_reaches_the_known_maximum():
    y = toy_data()
    found = Toy(y).fit(EM(n_iter=60, tolerance=None), seed=0)
    assert found.params["mu"] == pytest.approx(y.mean(), abs=1e-12)
    # theta <- (theta + mean) / 2, exactly.
    errors = found.trace["mu"].to_numpy() - y.mean()
    np.testing.assert_allclose(errors[1:10], 0.5 * errors[:9], rtol=1e-9)


@pytest.mark.nojit
@pytest.mark.parametrize("name", MODELS)
def test_incremental_em_with_everybody_in_the_batch_is_em(name):
    model = MODELS[name]()
    n = model.n_individuals
    em = path_of(model, EM(n_iter=5))
    iem = path_of(model, IncrementalEM(batch_size=n, n_iter=5))
    np.testing.assert_array_equal(iem, em[1:])


@pytest.mark.nojit
@pytest.mark.parametrize("order", ["shuffle", "iid", "sequential"])
@pytest.mark.parametrize("name", MODELS)
def test_memory_mean_is_the_mean_of_the_memory(name, order):
    model = MODELS[name]()
    run = make_run(model, IncrementalEM(batch_size=3, order=order, n_epochs=2))
    run.algorithm.proxy.start(run)
    for _ in range(2):  # without the fresh sum after a pass
        proxy = run.algorithm.proxy
        run.k += run.batch_pass(proxy.indices(run), proxy.batch_size, proxy.code)
        expected = run.collect()
        np.testing.assert_allclose(run.mean, expected, rtol=1e-12, atol=1e-12)
    run.close()


def test_incremental_em_has_the_limit_of_em():
    y = toy_data()
    found = Toy(y).fit(IncrementalEM(batch_size=1, n_epochs=80), seed=3)
    assert found.params["mu"] == pytest.approx(y.mean(), abs=1e-10)


@pytest.mark.nojit
def test_online_em_with_everybody_and_step_one_is_em():
    model = Toy(toy_data())
    online = OnlineEM(
        batch_size=40, order="sequential", gamma=Constant(1.0), average=False, n_iter=5
    )
    em = path_of(model, EM(n_iter=5))
    np.testing.assert_allclose(path_of(model, online), em[1:], rtol=1e-13)


def test_online_em_comes_near_the_maximum():
    y = toy_data(400)
    found = Toy(y).fit(OnlineEM(n_epochs=60), seed=1)
    # Polyak and Ruppert: the error is a small part of the standard error, 0.07.
    assert abs(found.params["mu"] - y.mean()) < 0.01


# -- stochastic algorithms ----------------------------------------------------------------


@pytest.mark.nojit
@pytest.mark.parametrize("name", ["toy", "nlme"])
def test_mcem_with_constant_draws_is_saem_with_step_one(name):
    model = MODELS[name]()
    estep = MonteCarlo(moves=(PriorProposal(1), IndependentLaplace(1)), n_chains=2)
    mcem = MCEM(estep=estep, n_draws=4, n_iter=5)
    saem_ = SAEM(estep=replace(estep, n_draws=4), n_burn_in=0, n_exploration=5, n_smoothing=0)
    np.testing.assert_array_equal(path_of(model, mcem), path_of(model, saem_))


@pytest.mark.nojit
def test_saem_at_frozen_parameters_is_the_running_mean():
    model = Toy(toy_data(), mode=FROZEN)
    algorithm = SAEM(
        n_burn_in=0, n_exploration=1, n_smoothing=9, power=1.0, delay=1.0, averaged=0.0
    )
    run = make_run(model, algorithm)
    targets, means = [], []
    for snapshot in iterate(run):
        targets.append(snapshot.target[0])
        means.append(snapshot.s[0])
    # The first two steps are 1: exploration ends with one, smoothing starts with (1 + 0)**-1.
    expected = np.concatenate([targets[:1], np.cumsum(targets[1:]) / np.arange(1, 10)])
    np.testing.assert_allclose(means, expected, rtol=1e-13)


def test_mean_of_simulated_statistics_is_the_em_map():
    model = Toy(toy_data(), mode=FROZEN, mu=1.0)
    run = make_run(model, SAEM())
    draws = np.array([run.full_pass(k)[0] for k in range(4000)])
    expected = np.mean(0.5 * (1.0 + model.values))
    # Variance of a draw 1/2; false alarm 6e-5.
    assert abs(draws.mean() - expected) < 4.0 * np.sqrt(0.5 / draws.size / model.nobs)
    assert abs(draws.var() * model.nobs / 0.5 - 1.0) < 4.0 * np.sqrt(2.0 / draws.size)


def test_burn_in_moves_chains_only():
    model = decay_model()
    run = make_run(model, SAEM(n_burn_in=3, n_exploration=2, n_smoothing=0))
    start = run.theta.copy()
    chains = []
    for snapshot in iterate(run):
        chains.append(run.bound.memories.copy())
        assert np.array_equal(snapshot.theta, start) == (snapshot.k <= 3)
    assert not np.array_equal(chains[0], chains[1])


def test_variances_fall_no_faster_than_annealing_allows():
    model = decay_model()
    algorithm = SAEM(n_burn_in=0, n_exploration=20, n_smoothing=0, annealing=0.9,
                     annealing_iterations=12)  # fmt: skip
    path = path_of(model, algorithm)
    omega = np.array([np.diag(model.theta_spec.view(theta)["omega"]) for theta in path])
    ratio = omega[1:12] / omega[:11]
    assert np.min(ratio) >= 0.9 - 1e-12
    assert np.min(ratio) < 0.9 + 1e-12  # it did bind


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("proxy", ["full", "incremental"])
def test_the_order_of_individuals_does_not_matter(name, proxy):
    if name == "toy":
        models = [Toy(toy_data()), Toy(toy_data()[::-1])]
    elif name == "mixture":
        one = mixture()
        rows = one.values.reshape(-1, 2)
        init = {k: v for k, v in one.components(one.start(np.random.default_rng(0))).items()}
        models = [one, GaussianMixture(rows[::-1].copy(), 2, init=init)]
    elif name == "mixed":
        frame = simulate(np.random.default_rng(0), n=30)
        backwards = frame.iloc[::-1].reset_index(drop=True)
        models = [
            LinearMixed(f, "y ~ 0 + a1 + a2", "id", "~ 0 + b1 + b2 + b3")
            for f in (frame, backwards)
        ]
    else:
        frame = decay_data()
        again = frame.assign(id=7 - frame["id"]).sort_values(["id", "time"], ignore_index=True)
        models = [decay_model(frame=frame), decay_model(frame=again)]
    algorithm = EM(n_iter=6, tolerance=None)
    if proxy == "incremental":
        algorithm = IncrementalEM(batch_size=models[0].n_individuals, n_iter=6)
    first, second = (m.fit(algorithm, seed=0).params.to_numpy() for m in models)
    np.testing.assert_allclose(second, first, rtol=1e-9)


# -- bits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["em", "saem", "mcem", "iem"])
@pytest.mark.parametrize("name", ["mixture", "mixed", "nlme"])
def test_same_bits_for_any_threads_and_blocks(name, algorithm, monkeypatch):
    monkeypatch.setattr(engine, "_WORTH_THREADS", 0.0)
    expected = final_bits(name, SHORT[algorithm], n_threads=1)
    for n_threads, block_size in ((2, None), (4, 1), (3, 100), (2, 10**6)):
        got = final_bits(name, SHORT[algorithm], n_threads=n_threads, block_size=block_size)
        assert got == expected


def test_same_bits_in_a_fresh_process(tmp_path):
    here = Path(__file__).parent
    code = (
        "import json, sys\n"
        f"sys.path.insert(0, {str(here)!r})\n"
        "import loop_models as module\n"
        "print(json.dumps([module.final_bits(n, module.SHORT[a], n_threads=2)\n"
        "                  for n in ('mixture', 'mixed', 'nlme') for a in ('em', 'saem')]))\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = [
        final_bits(n, SHORT[a], n_threads=1) for n in ("mixture", "mixed", "nlme")
        for a in ("em", "saem")
    ]  # fmt: skip
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize("algorithm", [*SHORT, "numerical"])
@pytest.mark.parametrize("name", ["mixture", "nlme"])
def test_a_resumed_run_goes_on_bit_for_bit(name, algorithm):
    if algorithm == "numerical":
        model, chosen = decay_model(error=saem.CombinedError(0.3, 0.1)), SHORT["saem"]
    else:
        model, chosen = MODELS[name](), SHORT[algorithm]
    whole = [(s.k, s.n_evals, s.theta, s.s) for s in iterate(make_run(model, chosen))]
    first = make_run(model, chosen)
    steps = iterate(first)
    for _ in range(len(whole) // 2):
        next(steps)
    state = first.state_dict()
    for _ in steps:  # the state must not follow the run it was taken from
        pass
    second = make_run(model, chosen, seed=99)
    second.load_state_dict(state)
    rest = [(s.k, s.n_evals, s.theta, s.s) for s in iterate(second)]
    assert len(rest) == len(whole) - len(whole) // 2
    for got, expected in zip(rest, whole[-len(rest) :], strict=True):
        assert got[:2] == expected[:2]
        np.testing.assert_array_equal(got[2], expected[2])
        np.testing.assert_array_equal(got[3], expected[3])


def test_other_seeds_give_other_fits():
    model = decay_model()
    one, two = (path_of(model, SHORT["saem"], seed=s)[-1] for s in (1, 2))
    assert not np.array_equal(one, two)


# -- accounting ----------------------------------------------------------------------------


@pytest.mark.nojit
def test_e_evaluations_are_counted():
    model = Toy(toy_data(10))
    n = 10
    chains = {"moves": (PriorProposal(1),), "exact": False, "n_chains": 3}
    cases = [
        (EM(n_iter=4), [n, 2 * n, 3 * n, 4 * n]),
        # An initial pass, then whole batches of 3: nine of ten a pass.
        (IncrementalEM(batch_size=3, n_iter=7), [n + 9, n + 18]),
        (OnlineEM(batch_size=4, n_iter=5), [n + 8, n + 16]),
        (MCEM(n_draws=5, n_iter=2), [5 * n, 10 * n]),
        (MCEM(n_draws=Geometric(2, 2.0), n_iter=3), [2 * n, 6 * n, 14 * n]),
        (SAEM(n_burn_in=1, n_exploration=1, n_smoothing=0), [n, 2 * n]),
        (SAEM(MonteCarlo(**chains), 1, 1, 0), [3 * n, 6 * n]),
        # Four states of a chain make one simulated statistic.
        (SAEM(MonteCarlo(**chains, path=4), 1, 1, 0), [3 * n, 6 * n]),
        (SAEM(MonteCarlo(**chains, n_draws=7), 0, 1, 0), [9 * n]),
        (EM(estep=Quadrature(5), n_iter=1), [n]),
    ]
    for algorithm, expected in cases:
        assert [s.n_evals for s in iterate(make_run(model, algorithm))] == expected


def test_chains_are_about_fifty_in_all():
    for n, chains in ((8, 7), (50, 1), (60, 1), (49, 2)):
        bound = MonteCarlo(exact=False).bind(Toy(np.zeros(n)))
        assert bound.n_chains == chains


def test_trace_has_every_iteration():
    result = decay_model().fit(SHORT["saem"], seed=0)
    trace = result.trace
    np.testing.assert_array_equal(trace["iteration"], np.arange(9))
    np.testing.assert_allclose(trace["epochs"], 7.0 * np.arange(9))  # 7 chains of 8 subjects
    assert np.all(np.diff(trace["seconds"]) > 0.0)
    np.testing.assert_allclose(trace["gamma"][1:6], [0, 1, 1, 1, 1])
    assert result.record.n_evals == 8 * 7 * 8


def test_input_is_left_alone():
    frame = decay_data()
    before = frame.copy(deep=True)
    model = decay_model(frame=frame)
    values = model.values.copy()
    start = model.start(np.random.default_rng(0))
    given = start.copy()
    model.fit(SHORT["saem"], seed=0, start=start)
    pd.testing.assert_frame_equal(frame, before)
    np.testing.assert_array_equal(model.values, values)
    np.testing.assert_array_equal(start, given)
    rows = np.random.default_rng(0).standard_normal((50, 2))
    kept = rows.copy()
    GaussianMixture(rows, 2).fit(EM(n_iter=4, tolerance=None), seed=0)
    np.testing.assert_array_equal(rows, kept)


def test_settings_are_described():
    record = decay_model().fit(SHORT["saem"], seed=0).record
    assert record.settings["kind"] == "SAEM"
    assert record.settings["n_exploration"] == 3
    assert describe(SAEM(estep=MonteCarlo()))["estep"]["moves"][0]["kind"] == "PriorProposal"
    assert describe(len) == repr(len)
    assert record.sampler["n_chains"] == 7
    assert all(0.0 < rate < 1.0 for rate in record.sampler["acceptance"].values())


def test_keys_belong_to_individuals_and_iterations():
    run = make_run(decay_model(), SHORT["saem"])
    assert stream(run.seed, 1, 2) != stream(run.seed, 2, 1)
