"""What the checks are made of: runs on small models, individual statistics, permutations."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saem import _loop
from saem.algorithms import EM, Algorithm
from saem.contract import Array, Model
from saem.engine import Combination, Run, Snapshot, iterate
from saem.estep import EStep

__all__ = [
    "BATCH",
    "Check",
    "best_estep",
    "individual_statistics",
    "loglik_of",
    "maximum_of",
    "path",
    "permuted",
    "require",
    "require_close",
    "run_of",
    "snapshots",
    "start_of",
]

#: Individuals per batch in the checks.
BATCH = 4


@dataclass(frozen=True)
class Check:
    """One property and the function that verifies it.

    Attributes
    ----------
    name : str
    verify : callable
        Raises AssertionError where the property does not hold.
    """

    name: str
    verify: Callable[[], None]


def require(condition: bool, message: str) -> None:
    """Raise AssertionError with a message; unlike `assert`, also under ``python -O``."""
    if not condition:
        raise AssertionError(message)


def require_close(found: Array, expected: Array, tolerance: float, what: str) -> None:
    """Require equality relative to the size of the expected numbers, NaN nowhere."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    scale = np.maximum(1.0, np.abs(expected))
    gap = float(np.max(np.abs(found - expected) / scale, initial=0.0))
    require(gap <= tolerance, f"{what}: differs by {gap:.3g}, allowed {tolerance:.3g}")


def start_of(model: Model) -> Array:
    """Starting parameters, the same each time."""
    return model.start(np.random.default_rng(0))


def best_estep(model: Model) -> EStep:
    """Return the most exact E-step that is not random."""
    from saem.algorithms._base import deterministic

    return deterministic(model, None)


def run_of(
    model: Model, algorithm: Algorithm | Combination, theta: Array | None = None, **options: Any
) -> Run:
    """Make a run of an algorithm on a model."""
    parts = algorithm if isinstance(algorithm, Combination) else algorithm.combine(model)
    options = {"seed": 1, "n_threads": 1} | options
    return Run(model, parts, start_of(model) if theta is None else theta, **options)


def snapshots(run: Run, steps: int) -> Iterator[Snapshot]:
    """Do some steps of a run."""
    for _, snapshot in zip(range(steps), iterate(run), strict=False):  # in this order: no step more
        yield snapshot


def path(model: Model, algorithm: Algorithm | Combination, steps: int, **options: Any) -> Array:
    """Theta after each of some steps."""
    run = run_of(model, algorithm, **options)
    found = np.array([snapshot.theta for snapshot in snapshots(run, steps)])
    run.close()
    return found


def individual_statistics(run: Run, chosen: NDArray[np.int64] | None = None) -> Array:
    """Statistics of single individuals at the run's theta; nothing in the run moves."""
    model, bound = run.model, run.bound
    if chosen is None:
        chosen = np.arange(model.n_individuals)
    out = np.zeros((chosen.size, model.stat_spec.size))
    _loop.visit_each(
        model.kernels, bound.visitor, model.values, model.offsets, run.theta,
        np.zeros((chosen.size, bound.record_size)), bound.memories.copy(), bound.settings,
        run.seed, run.k, chosen.astype(np.int64), model.latent_size, bound.work_size, out,
    )  # fmt: skip
    return out


def permuted(model: Model, order: NDArray[np.int64]) -> Model:
    """Return the same model with its individuals in another order."""
    other = copy.copy(model)
    records = [model.record_of(int(i)) for i in order]
    other.values = np.concatenate(records) if records else model.values.copy()
    if model.offsets.size != 2 or model.n_individuals == 1:
        lengths = [r.size for r in records]
        other.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(model.offsets.dtype)
    return other


#: Maxima found, by model: each is needed by every algorithm.
_MAXIMA: weakref.WeakKeyDictionary[Model, tuple[Array, float]] = weakref.WeakKeyDictionary()


def maximum_of(model: Model) -> tuple[Array, float]:
    """Theta after many iterations of EM, and the log-likelihood there."""
    if model not in _MAXIMA:
        _MAXIMA[model] = _find_maximum(model)
    theta, top = _MAXIMA[model]
    return theta.copy(), top


def _find_maximum(model: Model) -> tuple[Array, float]:
    run = run_of(model, EM(best_estep(model), n_iter=3000, tolerance=None))
    last = -np.inf
    for snapshot in snapshots(run, 3000):
        if snapshot.k % 100 == 0:
            if abs(snapshot.loglik - last) < 1e-11 * abs(last):
                break
            last = snapshot.loglik
    run.close()
    return run.theta, loglik_of(model, run.theta)


def loglik_of(model: Model, theta: Array) -> float:
    """Log-likelihood at theta, by the most exact E-step that is not random."""
    run = run_of(model, EM(best_estep(model), n_iter=1), theta)
    run.full_pass(0)
    return run.loglik
