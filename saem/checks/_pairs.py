"""Checks of an algorithm on a model: its limit, counting, reproducibility."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from saem import algorithms as alg
from saem.algorithms import Algorithm
from saem.checks._tools import (
    BATCH,
    Check,
    loglik_of,
    maximum_of,
    path,
    require,
    require_close,
    run_of,
    snapshots,
    start_of,
)
from saem.contract import Model
from saem.engine import _SCALE_SAMPLE
from saem.estep import ImportanceSampling, MonteCarlo
from saem.exceptions import ConvergenceWarning, SaemError
from saem.proxies import (
    Anchor,
    AnchorAnew,
    Incremental,
    MemoryPair,
    Recursive,
)
from saem.schedules import Adaptive

__all__ = ["pair_checks", "refusal"]

#: Passes of methods that count in passes.
_EPOCHS = 200


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


def _short(algorithm: Algorithm) -> Algorithm:
    """Return the algorithm by small batches and few draws, for checks of its mechanics."""
    if isinstance(algorithm, alg.MISSO):
        return replace(algorithm, batch_size=BATCH, n_draws=3)
    if isinstance(algorithm, alg.MCEM) and not isinstance(algorithm, alg.AscentMCEM):
        return replace(algorithm, n_draws=3)
    if isinstance(algorithm, alg.ImportanceEM):
        return replace(algorithm, estep=ImportanceSampling(16))
    if isinstance(algorithm, alg.SAEM):
        return replace(algorithm, n_burn_in=1, n_exploration=3, n_smoothing=8)
    if hasattr(algorithm, "batch_size"):
        return replace(algorithm, batch_size=BATCH)  # type: ignore[type-var]
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

    if isinstance(algorithm, alg.ClassificationEM) or algorithm.objective:
        return  # another objective than the likelihood
    _, top = maximum_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # MISSO's draws grow with the passes: its own length is long enough.
        grows = isinstance(algorithm, alg.MISSO)
        longer = algorithm if grows else algorithm.with_epochs(_EPOCHS)
        fit = model.fit(longer, seed=2, progress=False, start=start_of(model))
    deficit = top - loglik_of(model, fit.record.theta)
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
