"""Checks of the proxies on a model: invariants, and reductions to each other and to EM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from saem import algorithms as alg
from saem.algorithms import Algorithm
from saem.checks._tools import (
    BATCH,
    Check,
    best_estep,
    individual_statistics,
    maximum_of,
    path,
    require,
    require_close,
    run_of,
    snapshots,
)
from saem.contract import Array, Model
from saem.engine import Combination, Run
from saem.estep import EStep, MonteCarlo, Quadrature
from saem.exceptions import SaemError
from saem.proxies import (
    Anchor,
    AnchorAnew,
    Full,
    Incremental,
    MemoryPair,
    Proxy,
    Recursive,
)
from saem.schedules import Constant, Polynomial

__all__ = ["proxy_checks"]

#: Nodes per coordinate where the rule must hardly matter.
_NODES = 25


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
    for proxy in _proxies(BATCH)[1:]:
        yield Check(f"{proxy.name}: stays at the maximum", partial(_stays, model, estep, proxy))
    for proxy in _proxies(1)[1:]:
        yield Check(
            f"{proxy.name}: its mean over the index is the full statistic",
            partial(_unbiased, model, estep, proxy),
        )
    for proxy in (Anchor(BATCH), AnchorAnew(BATCH), Recursive(BATCH)):
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


def _parts(estep: EStep, proxy: Proxy, rho: float = 1.0) -> Combination:
    return Combination("checked", estep, proxy, Constant(rho), Constant(1.0), 10**6)


def _everybody(model: Model, estep: EStep, proxy: Proxy) -> None:
    """Require damped EM, bit for bit, whatever the proxy."""
    for rho in (1.0, 0.4):
        reference = _parts(estep, Incremental(model.n_individuals), rho)
        found = path(model, _parts(estep, proxy, rho), 4)
        expected = path(model, reference, 4)
        require(np.array_equal(found, expected), "another path than (damped) EM")


def _stays(model: Model, estep: EStep, proxy: Proxy) -> None:
    theta, _ = maximum_of(model)
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
    target = _target(run, proxy, np.arange(BATCH))
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
