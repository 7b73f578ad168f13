"""`fit`: start, run, watch, stop; the one way from a model to its results."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from saem._session import Session
from saem.algorithms import EM, Algorithm, resolve
from saem.algorithms.first_order import begin_by
from saem.callbacks import Callback, Progress
from saem.contract import Array, Model
from saem.engine import Combination, Run, iterate
from saem.exceptions import ConvergenceWarning, OptionError
from saem.random import SeedLike, resolve_seed
from saem.record import FitRecord, join

__all__ = ["Epochs", "Iterations", "fit"]

#: Iterations of the first short runs when several starts are tried.
_SHORT_RUN = 10
#: What may end a phase for the next one to begin.
_GOES_ON = ("tolerance", "iterations", "accuracy", "limit")


@dataclass(frozen=True)
class Epochs:
    """Budget: stop after this many passes' worth of E-evaluations.

    Parameters
    ----------
    value : float
        Passes; one is as many E-evaluations as there are individuals.
    """

    value: float


@dataclass(frozen=True)
class Iterations:
    """Budget: this many iterations; phases of the algorithm adapt where they can.

    Parameters
    ----------
    value : int
    """

    value: int


def fit(
    model: Model,
    algorithm: Any = None,
    *,
    seed: SeedLike = None,
    start: Array | str | None = None,
    n_starts: int = 1,
    budget: Epochs | Iterations | None = None,
    accuracy: float | None = None,
    callbacks: Iterable[Callback] = (),
    progress: bool = True,
    n_threads: int | None = None,
    block_size: int | None = None,
    resolution: int | None = None,
) -> Any:
    """Fit a model.

    Parameters
    ----------
    model : Model
    algorithm : str or Algorithm, optional
        Name (`saem.algorithms.algorithms`) or object; the model's default if None, which
        `saem.algorithms.default_algorithm` tells for `saem.NLME`.
    seed : int, SeedSequence, Generator or None
        The same seed gives the same bits, whatever the threads and blocks.
    start : ndarray or {"focei", "laplace"}, optional
        Packed parameters to start from, such as ``results.theta`` of another fit; or the
        algorithm by whose first steps, from the model's own start, the fit begins
        (`saem.algorithms.first_order.begin_by`).
    n_starts : int
        Starts to try by short runs (of EM, where the algorithm itself does not tell the
        log-likelihood): all for a few iterations, the better half
        for twice as many, and so on; the last one goes on. Of use for models
        whose start is random (mixtures).
    budget : Epochs or Iterations, optional
        Overrides the algorithm's own length.
    accuracy : float, optional
        Stop when estimates are within this fraction of a standard error of the maximum:
        by the log-likelihood still to gain without draws, by the Monte Carlo errors of
        estimates and standard errors with SAEM,
        which goes on as long as it takes (ten times the iterations planned at most, or
        the budget). ``record.stopped_by`` says which rule stopped.
    callbacks : iterable of Callback
        Called after every iteration; see `saem.callbacks`.
    progress : bool
        Show a progress line on a terminal.
    n_threads : int, optional
        Threads; all available by default.
    block_size : int, optional
        Individuals a thread takes at a time.
    resolution : int, optional
        Iterations per row of the trace for algorithms that visit batches; by default a pass.

    Returns
    -------
    Results
        The model's results. After Ctrl-C, those reached so far, and they say so.

    Raises
    ------
    saem.exceptions.OptionError
        For options that are not allowed.
    saem.exceptions.FitError
        When not even one iteration could be done.

    Warns
    -----
    ConvergenceWarning
        When the fit ended without reaching its own end or rule.
    """
    chosen = resolve(algorithm, model)
    if isinstance(start, str):
        chosen, start = begin_by(start, chosen), None
    if accuracy is not None:
        if not accuracy > 0:
            raise OptionError(f"accuracy={accuracy!r} must be above 0, such as 0.02.")
        chosen = chosen.with_accuracy(accuracy)
    if isinstance(budget, Iterations):
        chosen = chosen.with_iterations(int(budget.value))
    elif isinstance(budget, Epochs):
        chosen = chosen.with_epochs(budget.value)  # a pass of batches costs an epoch at least
    entropy, rng = resolve_seed(seed)
    options: dict[str, Any] = {"n_threads": n_threads, "block_size": block_size}
    theta = _start(model, chosen.combine(model), start, n_starts, entropy, rng, options)
    watchers = [*callbacks, Progress()] if progress else list(callbacks)
    epochs = budget.value if isinstance(budget, Epochs) else math.inf
    records: list[FitRecord] = []
    for number, phase in enumerate(chosen.phases()):
        if records and not phase.needed(records[-1]):
            continue
        run = Run(
            model, phase.combine(model), theta, seed=_phase_seed(entropy, number),
            resolution=resolution, **options,
        )  # fmt: skip
        record = _follow(Session(run, watchers, epochs), phase)
        record.settings, record.objective = describe(phase), phase.objective
        records.append(record)
        theta, epochs = record.theta, epochs - record.n_evals / model.n_individuals
        if record.stopped_by not in _GOES_ON or epochs <= 0:
            break
    record = records[0] if len(chosen.phases()) == 1 else join(records)
    record.seed = entropy
    if record.phases:
        record.settings = describe(chosen)
    if not record.converged:
        warnings.warn(
            f"the {record.algorithm} fit of {model.name} ended without evidence of convergence: "
            f"{record.reason}",
            ConvergenceWarning,
            stacklevel=3,
        )
    return model.results(record)


def _phase_seed(entropy: int, number: int) -> int:
    """Seed of a phase: that of the fit for the first, one derived from it for the others."""
    if number == 0:
        return entropy
    return int(np.random.SeedSequence([entropy, number]).generate_state(1, np.uint64)[0])


def _follow(session: Session, phase: Algorithm) -> FitRecord:
    """Run a phase to its end, and on where an accuracy is asked that draws have not reached."""
    record = session.go()
    accuracy = getattr(phase, "accuracy", None)
    if accuracy is not None:
        from saem.convergence.accuracy import extend_to_accuracy

        record = extend_to_accuracy(session, record, accuracy, getattr(phase, "max_iter", None))
    session.close()
    return record


def _start(
    model: Model,
    combination: Combination,
    start: Array | None,
    n_starts: int,
    entropy: int,
    rng: np.random.Generator,
    options: dict[str, Any],
) -> Array:
    """Packed parameters to start from: the user's, or the best of several short runs."""
    if start is not None:
        theta = np.array(start, dtype=float)
        if theta.shape != (model.theta_spec.size,):
            raise OptionError(
                f"start has shape {theta.shape}, but this model's packed parameters have "
                f"({model.theta_spec.size},)."
            )
        model.check_theta(theta)
        return theta
    if n_starts < 1:
        raise OptionError(f"n_starts={n_starts!r} must be at least 1.")
    candidates = [model.start(rng) for _ in range(n_starts)]
    for theta in candidates:
        model.check_theta(theta)
    if n_starts == 1:
        return candidates[0]
    if not combination.estep.gives_loglik or combination.proxy.name != "full":
        if "expect" not in model.capabilities:
            raise OptionError(
                f"n_starts={n_starts} needs the log-likelihood after short runs, which neither "
                f"{combination.name} nor an exact E-step of {model.name} gives. Remedy: fit with "
                "'em' first and pass start=results.theta."
            )
        combination = EM().combine(model)
    # Short runs of all, longer ones of the better half, and so on: the order after a
    # few iterations says little about the order at the end.
    length = _SHORT_RUN
    while len(candidates) > 1:
        runs = [_short_run(model, combination, c, length, entropy, options) for c in candidates]
        runs.sort(key=lambda pair: pair[0], reverse=True)
        candidates = [theta for _, theta in runs[: len(runs) // 2]]
        length *= 2
    return candidates[0]


def _short_run(
    model: Model,
    combination: Combination,
    theta: Array,
    length: int,
    entropy: int,
    options: dict[str, Any],
) -> tuple[float, Array]:
    """Log-likelihood and parameters after some iterations; -inf for a run that failed."""
    run = Run(model, combination, theta, seed=entropy, **options)
    for snapshot in iterate(run):
        if snapshot.k >= length:
            break
    run.close()
    good = run.status == 0 and np.isfinite(run.loglik) and np.all(np.isfinite(run.theta))
    return (run.loglik if good else -np.inf), run.theta


def describe(value: Any) -> Any:
    """Settings of an algorithm and its parts as plain, printable data."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: describe(getattr(value, f.name)) for f in fields(value)}
        return {"kind": type(value).__name__} | parts
    if isinstance(value, tuple | list):
        return [describe(v) for v in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return repr(value)
