"""Checks of an algorithm on a model: invariants, reductions, counting, reproducibility."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from saem import algorithms as alg
from saem.algorithms import Algorithm
from saem.checks._tools import (
    Check,
    best_estep,
    individual_statistics,
    path,
    require,
    require_close,
    run_of,
    snapshots,
    start_of,
)
from saem.contract import Array, Model
from saem.engine import _SCALE_SAMPLE, Combination, Run
from saem.estep import EStep, ImportanceSampling, MonteCarlo, Quadrature
from saem.exceptions import ConvergenceWarning, SaemError
from saem.proxies import (
    Anchor,
    AnchorAnew,
    Full,
    Incremental,
    MemoryPair,
    Proxy,
    Recursive,
)
from saem.schedules import Adaptive, Constant, Polynomial

__all__ = ["pair_checks", "proxy_checks", "refusal"]

#: Individuals per batch in the checks, and passes of methods that count in passes.
_BATCH = 4
_EPOCHS = 200
#: Nodes per coordinate where the rule must hardly matter.
_NODES = 25


def refusal(model: Model, algorithm: Algorithm) -> str:
    """Why an algorithm is not defined on a model, in its own words; empty if it is.

    Parameters
    ----------
    model : Model
    algorithm : Algorithm

    Returns
    -------
    str
    """
    try:
        run_of(model, algorithm).close()
    except SaemError as error:
        return str(error)
    return ""


def pair_checks(model: Model, algorithm: Algorithm) -> Iterator[Check]:
    """Yield the checks of an algorithm on a model on which it is defined.

    Parameters
    ----------
    model : Model
        Small: some tens of individuals.
    algorithm : Algorithm

    Yields
    ------
    Check
    """
    short = _short(algorithm)
    yield Check("runs, and stays finite", lambda: _runs(model, short))
    yield Check("counts its E-evaluations", lambda: _counts(model, short))
    yield Check("same seed, same bits, for any threads and blocks", lambda: _bits(model, short))
    yield Check("goes on from a saved state bit for bit", lambda: _resumes(model, short))
    yield Check("reaches the maximum", lambda: _limit(model, algorithm))
    if isinstance(algorithm.combine(model).proxy, Incremental | MemoryPair):
        yield Check("memory's mean is the mean of the memory", lambda: _memory(model, short))


def proxy_checks(model: Model) -> Iterator[Check]:
    """Yield the invariants and reductions of the proxies, on a model's best E-step.

    Parameters
    ----------
    model : Model
        Small: some tens of individuals.

    Yields
    ------
    Check
    """
    estep = best_estep(model)
    for proxy in _proxies(model.n_individuals):
        name = proxy.name
        yield Check(
            f"{name}: a batch of everybody is a full pass",
            partial(_everybody, model, estep, proxy),
        )
    for proxy in _proxies(_BATCH)[1:]:
        yield Check(f"{proxy.name}: stays at the maximum", partial(_stays, model, estep, proxy))
    for proxy in _proxies(1)[1:]:
        yield Check(
            f"{proxy.name}: its mean over the index is the full statistic",
            partial(_unbiased, model, estep, proxy),
        )
    for proxy in (Anchor(_BATCH), AnchorAnew(_BATCH), Recursive(_BATCH)):
        yield Check(
            f"{proxy.name}: no correction right after a full pass",
            partial(_no_correction, model, estep, proxy),
        )
    yield Check("a shared permutation for both batches is refused", _shared_permutation)
    if {"draw", "gaussian"} & model.capabilities:
        yield Check("MCEM and stochastic EM are SAEM with step 1", lambda: _one_step(model))
        yield Check(
            "two-timescale methods by batches of everybody are SAEM", lambda: _slow_only(model)
        )


def _proxies(batch: int) -> list[Proxy]:
    """One proxy of each kind; the first has no memory and no anchor."""
    return [
        Incremental(batch),
        Anchor(batch),
        AnchorAnew(batch),
        MemoryPair(batch),
        Recursive(batch),
    ]


def _short(algorithm: Algorithm) -> Algorithm:
    """Return the algorithm by small batches and few draws, for checks of its mechanics."""
    if isinstance(algorithm, alg.MISSO):
        return replace(algorithm, batch_size=_BATCH, n_draws=3)
    if isinstance(algorithm, alg.MCEM) and not isinstance(algorithm, alg.AscentMCEM):
        return replace(algorithm, n_draws=3)
    if isinstance(algorithm, alg.ImportanceEM):
        return replace(algorithm, estep=ImportanceSampling(16))
    if isinstance(algorithm, alg.SAEM):
        return replace(algorithm, n_burn_in=1, n_exploration=3, n_smoothing=8)
    if hasattr(algorithm, "batch_size"):
        return replace(algorithm, batch_size=_BATCH)  # type: ignore[type-var]
    return algorithm


def _runs(model: Model, algorithm: Algorithm) -> None:
    run = run_of(model, algorithm)
    for snapshot in snapshots(run, 6):
        require(run.status == 0, f"the M-step fails with code {run.status}")
        require(bool(np.all(np.isfinite(snapshot.theta))), "theta is not finite")
        require(bool(np.all(np.isfinite(snapshot.s))) or snapshot.gamma == 0, "s is not finite")
    run.close()


def _counts(model: Model, algorithm: Algorithm) -> None:
    """Require the number of E-evaluations that the definition of the method gives."""
    run, n = run_of(model, algorithm), model.n_individuals
    proxy, per_visit = run.algorithm.proxy, run.bound.evals
    batch = getattr(proxy, "batch_size", n)
    anchors = isinstance(proxy, Anchor | AnchorAnew | Recursive)
    twice = isinstance(proxy, AnchorAnew | Recursive | MemoryPair)
    # The pass before the first batch, and the look at some individuals for the adaptive step.
    first = n + (min(n, _SCALE_SAMPLE) if isinstance(run.algorithm.rho, Adaptive) else 0)
    evals = k = 0
    for step, snapshot in enumerate(snapshots(run, 4)):
        done, inner = snapshot.n_evals - evals, snapshot.k - k
        evals, k = snapshot.n_evals, snapshot.k
        if batch >= n:
            require(done % n == 0 and done > 0, f"{done} E-evaluations in a full pass of {n}")
            continue
        if step == 0:
            done, inner = done - first * per_visit, inner - 1
        elif anchors and inner == 1 and done == n * per_visit:  # a full pass at a new anchor
            continue
        most = inner * batch * (2 if twice else 1) * per_visit
        # Batches of fiEM may have individuals in common, which are visited once.
        least = inner * batch * per_visit if isinstance(proxy, MemoryPair) else most
        require(
            least <= done <= most,
            f"step {step}: {done} E-evaluations for {inner} batches of {batch}",
        )
    run.close()


def _bits(model: Model, algorithm: Algorithm) -> None:
    first = path(model, algorithm, 3)
    for options in ({"n_threads": 2, "block_size": 3}, {"n_threads": 4}):
        again = path(model, algorithm, 3, **options)
        require(np.array_equal(first, again), f"other bits with {options}")


def _resumes(model: Model, algorithm: Algorithm) -> None:
    whole = run_of(model, algorithm, resolution=3)
    after = [s.theta for s in snapshots(whole, 6)]
    first = run_of(model, algorithm, resolution=3)
    for _ in snapshots(first, 3):
        pass
    second = run_of(model, algorithm, resolution=3)
    second.load_state_dict(first.state_dict())
    rest = [s.theta for s in snapshots(second, len(after) - 3)]
    require(np.array_equal(np.array(after[3:]), np.array(rest)), "a resumed run takes another path")
    for run in (whole, first, second):
        run.close()


#: Maxima found, by model: each is needed by every algorithm.
_MAXIMA: weakref.WeakKeyDictionary[Model, tuple[Array, float]] = weakref.WeakKeyDictionary()


def _maximum(model: Model) -> tuple[Array, float]:
    """Theta after many iterations of EM, and the log-likelihood there."""
    if model not in _MAXIMA:
        _MAXIMA[model] = _find_maximum(model)
    theta, top = _MAXIMA[model]
    return theta.copy(), top


def _find_maximum(model: Model) -> tuple[Array, float]:
    run = run_of(model, alg.EM(best_estep(model), n_iter=3000, tolerance=None))
    last = -np.inf
    for snapshot in snapshots(run, 3000):
        if snapshot.k % 100 == 0:
            if abs(snapshot.loglik - last) < 1e-11 * abs(last):
                break
            last = snapshot.loglik
    run.close()
    return run.theta, _loglik(model, run.theta)


def _loglik(model: Model, theta: Array) -> float:
    run = run_of(model, alg.EM(best_estep(model), n_iter=1), theta)
    run.full_pass(0)
    return run.loglik


def _limit(model: Model, algorithm: Algorithm) -> None:
    """Require the end of a full run to be the maximum, up to its Monte Carlo error.

    The deficit of an estimate whose Monte Carlo variance is a fraction f of its variance
    is about f / 2 times a chi-squared variable with as many degrees as parameters; its quantile at
    1 - 1e-6, with f = 0.1, is what stochastic methods are allowed.

    So is online EM, whose batches of b leave a fraction ``gamma_K n / (2 b)`` in its statistic,
    0.07 at the last step with n = 60, before it averages. It is allowed 0.05 nats more for what
    is left of its start: by the middle of the averaged passes its steps sum to about 60, and
    a direction with a fraction r of missing information keeps ``exp(-60 (1 - r))`` of its first
    error, 5 % where r = 0.95.
    """
    from scipy.stats import chi2

    if isinstance(algorithm, alg.ClassificationEM):
        return  # another objective
    _, top = _maximum(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # MISSO's draws grow with the passes: its own length is long enough.
        grows = isinstance(algorithm, alg.MISSO)
        longer = algorithm if grows else algorithm.with_epochs(_EPOCHS)
        fit = model.fit(longer, seed=2, progress=False, start=start_of(model))
    deficit = top - _loglik(model, fit.record.theta)
    online = isinstance(algorithm, alg.OnlineEM)
    allowed = 1e-2
    if online or isinstance(algorithm.combine(model).estep, MonteCarlo):
        allowed = 0.5 * 0.1 * float(chi2.ppf(1 - 1e-6, len(model.param_names)))
        allowed += 0.05 if online else 0.0
    require(
        deficit <= allowed,
        f"ends {deficit:.3g} nats below the maximum; allowed {allowed:.3g}",
    )


def _memory(model: Model, algorithm: Algorithm) -> None:
    run = run_of(model, algorithm, resolution=2)
    for _ in snapshots(run, 5):
        require_close(run.mean, run.collect(), 1e-11, "mean of the memory")
    run.close()


def _parts(estep: EStep, proxy: Proxy, rho: float = 1.0) -> Combination:
    return Combination("checked", estep, proxy, Constant(rho), Constant(1.0), 10**6)


def _everybody(model: Model, estep: EStep, proxy: Proxy) -> None:
    """Require damped EM, bit for bit, whatever the proxy."""
    for rho in (1.0, 0.4):
        # Records are kept in both, so that neither goes by blocks.
        reference = _parts(estep, Incremental(model.n_individuals), rho)
        found = path(model, _parts(estep, proxy, rho), 4)
        expected = path(model, reference, 4)
        remembers = proxy.remembers or "block" not in model.capabilities
        if remembers:
            require(np.array_equal(found, expected), "another path than (damped) EM")
        else:
            require_close(found, expected, 1e-10, "path of (damped) EM")


def _stays(model: Model, estep: EStep, proxy: Proxy) -> None:
    theta, _ = _maximum(model)
    run = run_of(model, _parts(estep, proxy, 0.5), theta, resolution=2)
    steps = list(snapshots(run, 1))
    first = steps[0].s.copy()
    target = run.full_pass(run.k) if steps else first
    still = float(np.max(np.abs(target - first) / np.maximum(1.0, np.abs(first))))
    for _ in snapshots(run, 6):
        pass
    require_close(run.s, first, 1e-12 + 20 * still, "statistic started at the maximum")
    run.close()


def _prepare(model: Model, estep: EStep, proxy: Proxy, steps: int) -> Run:
    run = run_of(model, _parts(estep, proxy, 0.3), resolution=1)
    for _ in snapshots(run, steps):
        pass
    return run


def _target(run: Run, proxy: Proxy, chosen: NDArray[np.int64]) -> Array:
    """Target of one iteration on chosen individuals; the run is left changed."""
    # Without an M-step, which might move a target that no parameters belong to.
    run.algorithm = replace(run.algorithm, rho=Constant(1.0), gamma=Constant(0.0))
    second = chosen if isinstance(proxy, MemoryPair) else None
    run.batch_pass(chosen, chosen.size, proxy.code, second)  # type: ignore[attr-defined]
    return run.fast.copy()


def _unbiased(model: Model, estep: EStep, proxy: Proxy) -> None:
    """Enumerate the index: given the past, the target's mean is the full statistic.

    A rule of quadrature moves between two visits, and the statistic with it, by the rule's error:
    hence many nodes, with which it is below 2e-7 in the library's models.
    """
    n, tolerance = model.n_individuals, 1e-10
    if isinstance(estep, Quadrature):
        fine = model.n_coords <= 3  # more nodes than `Quadrature` takes otherwise
        estep, tolerance = (Quadrature(_NODES), 1e-6) if fine else (estep, 1e-4)
    run = _prepare(model, estep, proxy, 3)
    run.algorithm = replace(run.algorithm, n_iter=10**6)
    state = run.state_dict()
    if isinstance(proxy, Recursive):
        here = individual_statistics(run).mean(axis=0)
        other = run_of(model, run.algorithm, run.reference.copy())
        expected = run.mean + here - individual_statistics(other).mean(axis=0)
    else:
        expected = individual_statistics(run).mean(axis=0)
    total = np.zeros_like(expected)
    for i in range(n):
        run.load_state_dict(state)
        total += _target(run, proxy, np.array([i])) / n
    require_close(total, expected, tolerance, "mean over the index")


def _no_correction(model: Model, estep: EStep, proxy: Proxy) -> None:
    run = run_of(model, _parts(estep, proxy))
    for _ in range(3):  # quadrature places its nodes by the visits before
        run.mean[:] = run.full_pass(0)
    run.reference[:] = run.theta
    anchor = run.mean.copy()
    run.s[:] = run.fast[:] = anchor
    target = _target(run, proxy, np.arange(_BATCH))
    exact = "expect" in model.capabilities
    require_close(target, anchor, 1e-12 if exact else 1e-5, "target right after a full pass")


def _shared_permutation() -> None:
    try:
        MemoryPair(1, "shuffle", same=True)
    except SaemError:
        return
    require(False, "one permutation for both batches is accepted, though it diverges")


def _one_step(model: Model) -> None:
    estep = MonteCarlo(moves=alg.SAEM_MOVES)
    one = alg.StochasticEM(estep, n_iter=5)
    same: list[Algorithm | Combination] = [
        alg.MCEM(estep, n_draws=1, n_iter=5),
        Combination("saem", estep, Full(), Constant(1.0), Constant(1.0), 5),
    ]
    expected = path(model, one, 5)
    for other in same:
        require(np.array_equal(path(model, other, 5), expected), f"{other.name}: another path")


def _slow_only(model: Model) -> None:
    """Compare with SAEM that counts as they do: memories are filled before the first iteration."""
    n, estep, gamma = model.n_individuals, MonteCarlo(moves=alg.SAEM_MOVES), Polynomial(0.7)
    reference = Combination("r", estep, Incremental(n), Constant(1.0), gamma, 6)
    expected = path(model, reference, 4)
    pair = Combination("f", estep, MemoryPair(n), Constant(1.0), gamma, 6)
    require(np.array_equal(path(model, pair, 4), expected), "fiTTEM takes another path")
    vr = Combination("v", estep, Anchor(n), Constant(1.0), gamma, 6)
    require(np.array_equal(path(model, vr, 4), expected), "vrTTEM takes another path")
    # Those have made one iteration, the filling of the memory, before their first snapshot.
    full = Combination("s", estep, Full(), Constant(1.0), gamma, 6)
    require(np.array_equal(path(model, full, 5)[1:], expected), "SAEM takes another path")
