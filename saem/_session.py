"""A run being watched: its course, its averages, its rules, and what stopped it."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from saem import _loop
from saem.callbacks import Callback, Step
from saem.contract import Array
from saem.engine import Run, Snapshot, iterate
from saem.exceptions import FitError
from saem.record import FitRecord, Trace

__all__ = ["Session"]


#: Raw statistics that are kept where none are averaged, for Monte Carlo errors.
_REMEMBERED = 100


class Averages:
    """Sums over the averaged iterations, and the raw statistics behind them."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.first = run.algorithm.average_from
        self.count = 0
        self.s = np.zeros_like(run.s)
        self.entries: Any = getattr(run.model, "numerical_entries", [])
        self.numerical, self.steps = np.zeros(len(self.entries)), 0
        self.targets: list[Array] = []
        self.maximisers: list[Array] = []

    def add(self, snapshot: Snapshot) -> None:
        """Take in an iteration if it is one of the averaged."""
        if self.first is None:
            self._remember(snapshot)
            return
        if snapshot.k <= self.first:
            return
        if self.run.average[0] > 0:  # batches are averaged where they are made
            self.count, self.s = int(self.run.average[0]), self.run.average[1:]
            self._average_numerical(snapshot)
            return
        self.count += 1
        self.s += (snapshot.s - self.s) / self.count
        if snapshot.target is not None:
            self.targets.append(snapshot.target)
        self._average_numerical(snapshot)
        if len(self.entries):
            self.maximisers.append(self.run.numerical["free"].copy())

    def _average_numerical(self, snapshot: Snapshot) -> None:
        """Take in the parameters that no statistic determines."""
        self.steps += 1
        if len(self.entries):
            self.numerical += (snapshot.theta[self.entries] - self.numerical) / self.steps

    def _remember(self, snapshot: Snapshot) -> None:
        """Keep the last statistics of a random E-step, of at most half of the iterations."""
        if snapshot.target is None or self.run.algorithm.estep.gives_loglik:
            return
        self.targets.append(snapshot.target)
        del self.targets[: len(self.targets) - min(_REMEMBERED, max(1, snapshot.k // 2))]

    def finish(self, last: Snapshot) -> tuple[Array, Array]:
        """Final statistic and parameters, given the last iteration."""
        if self.count == 0:
            return last.s, last.theta
        theta = last.theta.copy()
        s, ignored = self.s.copy(), np.zeros(2, dtype=np.int64)
        kernels = self.run.model.kernels
        # T is applied to the averaged statistic twice: the covariance it uses for the
        # coefficients is then the averaged one.
        for _ in range(2):
            _loop.move(kernels, s, 1.0, 1.0, s.copy(), s.copy(), theta, ignored)
        if len(self.entries):
            theta[self.entries] = self.numerical
        return (s, theta) if np.all(np.isfinite(theta)) else (last.s, last.theta)


class AitkenRule:
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


class Interruption:
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


class Session:
    """One run under watch; `go` runs it to its end, and after `extend` further.

    Parameters
    ----------
    run : Run
    watchers : list of Callback
    epochs : float
        Most passes' worth of E-evaluations.
    """

    def __init__(self, run: Run, watchers: list[Callback], epochs: float = math.inf) -> None:
        self.run, self.watchers, self.epochs = run, watchers, epochs
        self.theta_start = run.theta.copy()
        self.history, self.averages = Trace(), Averages(run)
        history_start(self.history, run)
        self.rule = AitkenRule(run.algorithm.tolerance)
        self.reason, self.stopped_by = "", ""
        self.last: Snapshot | None = None
        self._begun = False

    def extend(self, n_iter: int) -> None:
        """Let the run go on to so many iterations."""
        self.run.algorithm = replace(self.run.algorithm, n_iter=n_iter)

    def go(self) -> FitRecord:
        """Run to the end, a rule, an interruption or a failure; keep what is there."""
        run, algorithm = self.run, self.run.algorithm
        if not self._begun:
            for watcher in self.watchers:
                watcher.begin(algorithm.name, algorithm.n_iter)
        self._begun = True
        interruption = Interruption()
        before = self.last.seconds if self.last is not None else 0.0
        try:
            for raw in interruption.watch(iterate(run)):
                if not np.all(np.isfinite(raw.theta)) or run.status != 0:
                    self._stop("failure", _failure(run, raw.k))
                    break
                self.last = replace(raw, seconds=raw.seconds + before)
                if self._take(self.last):
                    break
                interruption.check()
            else:
                self._stop(*_reason_at_end(run))
        except KeyboardInterrupt:
            if self.last is None:
                raise
            self._stop("interruption", f"interrupted by the user after iteration {self.last.k}")
        finally:
            if self.stopped_by != "iterations":
                run.close()
        if self.last is None:
            self.close()
            raise FitError(
                f"the {algorithm.name} fit of {run.model.name} could not start: {self.reason}."
            )
        return self.record()

    def close(self) -> None:
        """Release the threads, and tell the watchers that it is over."""
        self.run.close()
        for watcher in self.watchers:
            watcher.end(self.reason)

    def _stop(self, by: str, reason: str) -> bool:
        self.stopped_by, self.reason = by, reason
        return True

    def _take(self, snapshot: Snapshot) -> bool:
        """Take in an iteration; tell whether something stops the run."""
        run = self.run
        model, algorithm = run.model, run.algorithm
        self.averages.add(snapshot)
        params = model.params_of(snapshot.theta)
        _append(self.history, snapshot, params)
        step = Step(snapshot, params, model.param_names, algorithm.n_iter, model.n_individuals)
        asked = [text for w in self.watchers if (text := w.step(step))]
        if asked:
            return self._stop("callback", asked[0])
        if self.rule.met(snapshot.loglik, algorithm.proxy.left(run)):
            return self._stop("tolerance", self.rule.reason)
        if snapshot.n_evals >= self.epochs * model.n_individuals:
            return self._stop("budget", f"the budget of {self.epochs:g} epochs is used up")
        return False

    def record(self) -> FitRecord:
        """Everything the run leaves behind so far."""
        run, last = self.run, self.last
        assert last is not None
        s, theta = self.averages.finish(last)
        targets, maximisers = self.averages.targets, self.averages.maximisers
        return FitRecord(
            algorithm=run.algorithm.name,
            settings={},
            seed=run.seed,
            theta_start=self.theta_start,
            theta=theta,
            s=s,
            converged=self.stopped_by in _AS_PLANNED,
            reason=self.reason,
            stopped_by=self.stopped_by,
            left=run.algorithm.proxy.left(run),
            n_iter=last.k,
            n_evals=last.n_evals,
            seconds=last.seconds,
            n_individuals=run.model.n_individuals,
            param_names=list(run.model.param_names),
            history=self.history,
            halvings=int(run.counts[0]),
            projections=int(run.counts[1]),
            sampler=run.bound.info(),
            noise=np.array(targets) if targets else None,
            numerical_noise=np.array(maximisers) if maximisers else None,
            memories=run.bound.memories if run.bound.memories.size else None,
            average_from=run.algorithm.average_from,
            version=_version(),
        )


#: What may stop a fit that has done what it should.
_AS_PLANNED = ("callback", "tolerance", "budget", "iterations", "accuracy")


def _failure(run: Run, k: int) -> str:
    """Why a run had to stop at iteration k."""
    if run.status == 0:
        return f"the parameters were no longer finite after iteration {k}"
    meaning = run.model.maximize_errors.get(run.status, f"code {run.status}")
    return f"the M-step failed at iteration {k}: {meaning}"


def _reason_at_end(run: Run) -> tuple[str, str]:
    """What ended a run that no rule stopped, in a word and in words."""
    algorithm = run.algorithm
    if algorithm.tolerance is not None:
        return (
            "limit",
            f"{algorithm.n_iter} iterations without meeting the tolerance {algorithm.tolerance:g}",
        )
    return "iterations", f"all {algorithm.n_iter} iterations done"


def history_start(history: Trace, run: Run) -> None:
    """Enter the starting values as iteration 0."""
    history.k.append(0)
    history.n_evals.append(0)
    history.seconds.append(0.0)
    history.gamma.append(np.nan)
    history.loglik.append(np.nan)
    history.params.append(run.model.params_of(run.theta))


def _append(history: Trace, snapshot: Snapshot, params: Array) -> None:
    history.k.append(snapshot.k)
    history.n_evals.append(snapshot.n_evals)
    history.seconds.append(snapshot.seconds)
    history.gamma.append(snapshot.gamma)
    history.loglik.append(snapshot.loglik)
    history.params.append(params)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("saem")
    except PackageNotFoundError:
        return "unknown"
