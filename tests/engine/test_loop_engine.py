"""The loop and its parts: what every combination of E-step, proxy and schedule must keep."""

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import FAIL, FROZEN, NOT_FINITE, Toy, toy_data

import saem
from saem import engine
from saem.algorithms import (
    EM,
    FIEM,
    MCEM,
    SAEM,
    SVRGEM,
    IncrementalEM,
    OnlineEM,
    algorithms,
)
from saem.callbacks import Callback, EarlyStop, Progress
from saem.engine import Combination, Run, iterate
from saem.estep import Exact, IndependentLaplace, MonteCarlo, PriorProposal, Quadrature
from saem.exceptions import ConvergenceWarning, FitError, OptionError
from saem.fitting import Epochs, Iterations, describe, fit
from saem.models.gaussian_mixture import GaussianMixture
from saem.models.linear_mixed import LinearMixed, simulate
from saem.proxies import Full, Incremental, MiniBatch
from saem.random import stream
from saem.schedules import Constant, Geometric, Polynomial, TwoPhase


def decay(amount, rate, *, time):
    """Exponential decay: quick to compute, nonlinear in one parameter."""
    return amount * np.exp(-rate * time)


def decay_data(n=8, seed=1, times=(0.5, 1.0, 2.0, 4.0)):
    rng = np.random.default_rng(seed)
    amount, rate = 10.0 * np.exp(0.3 * rng.normal(size=n)), 0.5 * np.exp(0.3 * rng.normal(size=n))
    t = np.tile(times, n)
    who = np.repeat(np.arange(n), len(times))
    y = amount[who] * np.exp(-rate[who] * t) + 0.3 * rng.normal(size=t.size)
    return pd.DataFrame({"id": who, "time": t, "dv": y})


def decay_model(n=8, error=None, frame=None):
    return saem.NLME(
        decay_data(n) if frame is None else frame,
        structural=decay,
        parameters={
            "amount": saem.LogNormal(8.0, omega=0.5),
            "rate": saem.LogNormal(0.4, omega=0.5),
        },
        error=error or saem.ConstantError(0.5),
    )


def mixture(n=60, seed=0, d=2, k=2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(k, size=n)
    rows = rng.standard_normal((n, d)) + 3.0 * labels[:, None]
    means = np.linspace(-1.0, 3.0, k)[:, None] * np.ones(d)
    start = {
        "weights": np.full(k, 1 / k),
        "means": means,
        "covariances": np.tile(np.eye(d), (k, 1, 1)),
    }
    return GaussianMixture(rows, k, init=start)


def mixed(n=30, seed=0):
    frame = simulate(np.random.default_rng(seed), n=n)
    return LinearMixed(frame, "y ~ 0 + a1 + a2", "id", "~ 0 + b1 + b2 + b3")


MODELS = {"toy": lambda: Toy(toy_data()), "mixture": mixture, "mixed": mixed, "nlme": decay_model}


def make_run(model, algorithm, seed=1, **options):
    combination = algorithm if isinstance(algorithm, Combination) else algorithm.combine(model)
    return Run(model, combination, model.start(np.random.default_rng(0)), seed=seed, **options)


def path_of(model, algorithm, n_iter=None, **options):
    """Theta after every iteration."""
    run = make_run(model, algorithm, **options)
    path = [
        snapshot.theta for snapshot, _ in zip(iterate(run), range(n_iter or 10**9), strict=False)
    ]
    run.close()
    return np.array(path)


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
    if "block" in model.capabilities:  # another order of summation
        np.testing.assert_allclose(iem, em[1:], rtol=1e-12)
    else:
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


def final_bits(name, algorithm, **options):
    """Hexadecimal parameters of a fit, for comparison across processes."""
    model = {
        "mixture": lambda: mixture(3000), "mixed": lambda: mixed(200), "nlme": decay_model,
    }[name]()  # fmt: skip
    theta = path_of(model, algorithm, seed=5, **options)[-1]
    return [float(v).hex() for v in theta]


SHORT = {
    "em": EM(n_iter=4),
    "iem": IncrementalEM(batch_size=7, n_epochs=2),
    "online-em": OnlineEM(batch_size=7, n_epochs=2),
    "saem": SAEM(n_burn_in=1, n_exploration=3, n_smoothing=4),
    "mcem": MCEM(n_draws=3, n_iter=4),
}


@pytest.mark.parametrize("algorithm", ["em", "saem", "mcem", "iem"])
@pytest.mark.parametrize("name", ["mixture", "mixed", "nlme"])
def test_same_bits_for_any_threads_and_blocks(name, algorithm, monkeypatch):
    monkeypatch.setattr(engine, "_WORTH_THREADS", 0.0)
    expected = final_bits(name, SHORT[algorithm], n_threads=1)
    for n_threads, block_size in ((2, None), (4, 1), (3, 100), (2, 10**6)):
        got = final_bits(name, SHORT[algorithm], n_threads=n_threads, block_size=block_size)
        assert got == expected


def test_same_bits_in_a_fresh_process(tmp_path):
    here = Path(__file__)
    code = (
        "import importlib.util, json, sys\n"
        f"sys.path.insert(0, {str(here.parent)!r})\n"
        f"spec = importlib.util.spec_from_file_location('again', {str(here)!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print(json.dumps([module.final_bits(n, module.SHORT[a], n_threads=2)\n"
        "                  for n in ('mixture', 'mixed', 'nlme') for a in ('em', 'saem')]))\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    import json

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


# -- ends ----------------------------------------------------------------------------------


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


# -- options -------------------------------------------------------------------------------


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
    assert decay_model().default_algorithm == "saem"
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


def test_keys_belong_to_individuals_and_iterations():
    run = make_run(decay_model(), SHORT["saem"])
    assert stream(run.seed, 1, 2) != stream(run.seed, 2, 1)
