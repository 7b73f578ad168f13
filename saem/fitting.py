"""`fit`: start, run, watch, stop; the one way from a model to its results."""

from __future__ import annotations

import math
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from saem import _loop
from saem.algorithms import EM, resolve
from saem.callbacks import Callback, Progress, Step
from saem.contract import Array, Model
from saem.engine import Combination, Run, Snapshot, iterate
from saem.exceptions import ConvergenceWarning, FitError, OptionError
from saem.random import SeedLike, resolve_seed
from saem.record import FitRecord, Trace

__all__ = ["Epochs", "Iterations", "fit"]

#: Iterations of the first short runs when several starts are tried.
_SHORT_RUN = 10


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
    start: Array | None = None,
    n_starts: int = 1,
    budget: Epochs | Iterations | None = None,
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
        Name (`saem.algorithms.algorithms`) or object; the model's default if None.
    seed : int, SeedSequence, Generator or None
        The same seed gives the same bits, whatever the threads and blocks.
    start : ndarray, optional
        Packed parameters to start from, such as ``results.theta`` of another fit.
    n_starts : int
        Starts to try by short runs (of EM, where the algorithm itself does not tell the
        log-likelihood): all for a few iterations, the better half
        for twice as many, and so on; the last one goes on. Of use for models
        whose start is random (mixtures).
    budget : Epochs or Iterations, optional
        Overrides the algorithm's own length.
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
    if isinstance(budget, Iterations):
        chosen = chosen.with_iterations(int(budget.value))
    elif isinstance(budget, Epochs):
        chosen = chosen.with_epochs(budget.value)  # a pass of batches costs an epoch at least
    combination = chosen.combine(model)
    entropy, rng = resolve_seed(seed)
    options: dict[str, Any] = {"n_threads": n_threads, "block_size": block_size}
    theta = _start(model, combination, start, n_starts, entropy, rng, options)
    run = Run(model, combination, theta, seed=entropy, resolution=resolution, **options)
    watchers = [*callbacks, Progress()] if progress else list(callbacks)
    epochs = budget.value if isinstance(budget, Epochs) else math.inf
    record = _watch(run, watchers, epochs)
    record.settings = describe(chosen)
    if not record.converged:
        warnings.warn(
            f"the {record.algorithm} fit of {model.name} ended without evidence of convergence: "
            f"{record.reason}",
            ConvergenceWarning,
            stacklevel=3,
        )
    return model.results(record)


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


class _Averages:
    """Sums over the averaged iterations, and the raw statistics behind them."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.first = run.algorithm.average_from
        self.count = 0
        self.s = np.zeros_like(run.s)
        self.entries: Any = getattr(run.model, "numerical_entries", [])
        self.numerical = np.zeros(len(self.entries))
        self.targets: list[Array] = []
        self.maximisers: list[Array] = []

    def add(self, snapshot: Snapshot) -> None:
        """Take in an iteration if it is one of the averaged."""
        if self.first is None or snapshot.k <= self.first:
            return
        if self.run.average[0] > 0:  # batches are averaged where they are made
            self.count, self.s = int(self.run.average[0]), self.run.average[1:]
            return
        self.count += 1
        self.s += (snapshot.s - self.s) / self.count
        if snapshot.target is not None:
            self.targets.append(snapshot.target)
        if len(self.entries):
            values = snapshot.theta[self.entries]
            self.numerical += (values - self.numerical) / self.count
            self.maximisers.append(self.run.numerical["free"].copy())

    def finish(self) -> tuple[Array, Array]:
        """Final statistic and parameters."""
        run = self.run
        if self.count == 0:
            return run.s, run.theta
        theta = run.theta.copy()
        s, ignored = self.s.copy(), np.zeros(2, dtype=np.int64)
        # T is applied to the averaged statistic twice: the covariance it uses for the
        # coefficients is then the averaged one.
        for _ in range(2):
            _loop.move(run.model.kernels, s, 1.0, 1.0, s.copy(), s.copy(), theta, ignored)
        if len(self.entries):
            theta[self.entries] = self.numerical
        return (s, theta) if np.all(np.isfinite(theta)) else (run.s, run.theta)


def _watch(run: Run, watchers: list[Callback], epochs: float) -> FitRecord:
    """Run to the end, a rule, an interruption or a failure; keep what is there."""
    model, algorithm = run.model, run.algorithm
    theta_start = run.theta.copy()
    history, averages = Trace(), _Averages(run)
    history_start(history, model, run)
    rule = _AitkenRule(algorithm.tolerance)
    reason, converged = "", False
    last: Snapshot | None = None
    for watcher in watchers:
        watcher.begin(algorithm.name, algorithm.n_iter)
    interruption = _Interruption()
    try:
        for snapshot in interruption.watch(iterate(run)):
            if not np.all(np.isfinite(snapshot.theta)) or run.status != 0:
                reason = _failure(run, snapshot.k)
                break
            last = snapshot
            averages.add(snapshot)
            params = model.params_of(snapshot.theta)
            _append(history, snapshot, params)
            step = Step(snapshot, params, model.param_names, algorithm.n_iter, model.n_individuals)
            asked = [text for w in watchers if (text := w.step(step))]
            if asked:
                reason, converged = asked[0], True
                break
            if rule.met(snapshot.loglik, algorithm.proxy.left(run)):
                reason, converged = rule.reason, True
                break
            if snapshot.n_evals >= epochs * model.n_individuals:
                reason, converged = f"the budget of {epochs:g} epochs is used up", True
                break
            interruption.check()
        else:
            reason, converged = _reason_at_end(algorithm, run)
    except KeyboardInterrupt:
        if last is None:
            raise
        reason = f"interrupted by the user after iteration {last.k}"
    finally:
        run.close()
    for watcher in watchers:
        watcher.end(reason)
    if last is None:
        raise FitError(f"the {algorithm.name} fit of {model.name} could not start: {reason}.")
    run.theta, run.s = last.theta, last.s
    s, theta = averages.finish()
    return FitRecord(
        algorithm=algorithm.name,
        settings={},
        seed=run.seed,
        theta_start=theta_start,
        theta=theta,
        s=s,
        converged=converged,
        reason=reason,
        n_iter=last.k,
        n_evals=last.n_evals,
        seconds=last.seconds,
        n_individuals=model.n_individuals,
        param_names=list(model.param_names),
        history=history,
        halvings=int(run.counts[0]),
        projections=int(run.counts[1]),
        sampler=run.bound.info(),
        noise=np.array(averages.targets) if averages.targets else None,
        numerical_noise=np.array(averages.maximisers) if averages.maximisers else None,
        memories=run.bound.memories if run.bound.memories.size else None,
        average_from=algorithm.average_from,
        version=_version(),
    )


def _failure(run: Run, k: int) -> str:
    """Why a run had to stop at iteration k."""
    if run.status == 0:
        return f"the parameters were no longer finite after iteration {k}"
    meaning = run.model.maximize_errors.get(run.status, f"code {run.status}")
    return f"the M-step failed at iteration {k}: {meaning}"


def history_start(history: Trace, model: Model, run: Run) -> None:
    """Enter the starting values as iteration 0."""
    history.k.append(0)
    history.n_evals.append(0)
    history.seconds.append(0.0)
    history.gamma.append(np.nan)
    history.loglik.append(np.nan)
    history.params.append(model.params_of(run.theta))


def _append(history: Trace, snapshot: Snapshot, params: Array) -> None:
    history.k.append(snapshot.k)
    history.n_evals.append(snapshot.n_evals)
    history.seconds.append(snapshot.seconds)
    history.gamma.append(snapshot.gamma)
    history.loglik.append(snapshot.loglik)
    history.params.append(params)


class _Interruption:
    """Ctrl-C while a fit runs: taken note of, and acted on between two iterations.

    Raised at once, it could strike inside a library's callback, where Python
    prints and drops it. A second Ctrl-C is raised at once all the same.
    """

    def __init__(self) -> None:
        self.asked = False

    def _note(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def watch(self, steps: Iterator[Snapshot]) -> Iterator[Snapshot]:
        """Pass on the steps, with the signal's handler in place meanwhile."""
        default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ours = default and threading.current_thread() is threading.main_thread()
        if ours:
            signal.signal(signal.SIGINT, self._note)
        try:
            yield from steps
        finally:
            if ours:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def check(self) -> None:
        """Raise the interruption if it was asked for."""
        if self.asked:
            raise KeyboardInterrupt


class _AitkenRule:
    """Stop when the log-likelihood still to be gained is below a tolerance.

    With gains d_k of linear rate r = d_k / d_{k-1}, what is left is
    ``d_k r / (1 - r)`` (Boehning et al. 1994, Ann. Inst. Statist. Math. 46, 373-388).
    """

    def __init__(self, tolerance: float | None) -> None:
        self.tolerance = tolerance
        self.values: list[float] = []
        self.reason = ""
        self._times = 0

    def met(self, loglik: float, left: float = np.nan) -> bool:
        """Take in a log-likelihood; tell whether the rule holds (three times in a row).

        Where the proxy knows what is `left` to gain, that is what counts, for the gains of an
        accelerated or random sequence do not fall at one rate.
        """
        if self.tolerance is None:
            return False
        if np.isfinite(left):
            self.reason = f"converged: at most {left:.1g} nats of log-likelihood are left to gain"
            return left < self.tolerance
        if not np.isfinite(loglik):
            return False
        self.values.append(loglik)
        if len(self.values) < 3:
            return False
        first, second = self.values[-2] - self.values[-3], self.values[-1] - self.values[-2]
        # Below this, gains are rounding of the sum itself.
        floor = 4e-15 * abs(loglik)
        rate = min(0.9999, max(0.0, second / first)) if abs(first) > floor else 0.0
        left = abs(second) / (1.0 - rate)
        self._times = self._times + 1 if left < max(self.tolerance, floor) else 0
        self.reason = (
            f"converged: at most {max(self.tolerance, floor):.1g} nats of log-likelihood are left "
            "to gain"
        )
        return self._times >= 3


def _reason_at_end(algorithm: Combination, run: Run) -> tuple[str, bool]:
    """Why a run ended that no rule stopped, and whether that is as planned."""
    if algorithm.tolerance is not None:
        return (
            f"{algorithm.n_iter} iterations without meeting the tolerance {algorithm.tolerance:g}",
            False,
        )
    return f"all {algorithm.n_iter} iterations done", True


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


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("saem")
    except PackageNotFoundError:
        return "unknown"
