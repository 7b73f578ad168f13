"""From an estimator's options to the best of several runs of an algorithm."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning as SklearnConvergenceWarning
from sklearn.utils import check_random_state

from saem import exceptions
from saem.algorithms import Algorithm, resolve
from saem.callbacks import Callback, Step
from saem.contract import Array, Model
from saem.exceptions import FitError, OptionError, Problems
from saem.fitting import fit
from saem.models._checks import is_number, is_whole

__all__ = ["ConvergenceWarning", "SmallGain", "best_run", "check_run_options", "seeds_of"]


class ConvergenceWarning(exceptions.ConvergenceWarning, SklearnConvergenceWarning):
    """A fit ended without evidence that it converged: saem's warning and scikit-learn's in one."""


class SmallGain(Callback):
    """Scikit-learn's rule of stopping: the mean log-likelihood changes by less than `tol`.

    Parameters
    ----------
    tol : float
        Nats per row.
    total : float
        Sum of the weights of the rows.
    """

    def __init__(self, tol: float, total: float) -> None:
        self.tol, self.total = tol, total
        self._last = -np.inf

    def step(self, step: Step) -> str | None:
        """Compare with the iteration before."""
        mean = step.snapshot.loglik / self.total
        change, self._last = abs(mean - self._last), mean
        if change < self.tol:
            return f"converged: the mean log-likelihood changed by less than tol={self.tol:g}"
        return None


def check_run_options(estimator: Any, problems: Problems) -> None:
    """Check the options of an estimator that say how to run."""
    for name in ("n_init", "max_iter", "batch_size"):
        value = getattr(estimator, name, 1)
        if not is_whole(value) or value < 1:
            problems.add(f"{name}={value!r} must be a whole number, at least 1")
    if not is_number(estimator.tol) or not 0.0 <= estimator.tol < np.inf:
        problems.add(f"tol={estimator.tol!r} must be a number, at least 0")


def seeds_of(random_state: Any, n: int) -> list[int]:
    """Seeds of runs from what scikit-learn takes as `random_state`."""
    drawn = check_random_state(random_state).randint(np.iinfo(np.int32).max, size=n)
    return [int(seed) for seed in drawn]


def _bounded(
    algorithm: Any, model: Model, max_iter: int, tol: float, total: float
) -> tuple[Algorithm, list[Callback]]:
    """Algorithm with the estimator's length and rule; an object keeps its own."""
    chosen: Any = resolve(algorithm, model)
    if isinstance(algorithm, Algorithm):
        return algorithm, []
    combination = chosen.combine(model)
    if hasattr(chosen, "n_epochs"):
        return chosen.with_epochs(min(chosen.n_epochs, max_iter)), []
    exact = combination.tolerance is not None and combination.estep.gives_loglik
    if not exact:
        return chosen.with_iterations(min(combination.n_iter, max_iter)), []
    if combination.proxy.name == "full":
        # Tolerance 0: what stops is the callback, or a gain below rounding.
        return replace(chosen, n_iter=max_iter, tolerance=0.0), [SmallGain(tol, total)]
    return replace(chosen, n_iter=max_iter, tolerance=tol * total), []


def _objective(model: Any, theta: Array) -> float:
    penalised = getattr(model, "penalised_loglik", model.loglik)
    return float(penalised(theta))


def best_run(
    estimator: Any, model: Model, total: float, start: Callable[[Model, np.random.Generator], Array]
) -> Any:
    """Run the estimator's algorithm from `n_init` starts, and return the best results.

    Parameters
    ----------
    estimator : estimator
        With `algorithm`, `tol`, `max_iter`, `n_init` and `random_state`.
    model : Model
    total : float
        Sum of the weights of the rows.
    start : callable
        Takes the model and a generator, returns a packed start.

    Raises
    ------
    FitError
        If all runs failed.

    Warns
    -----
    ConvergenceWarning
        If the best run ended without evidence that it converged.
    """
    algorithm, callbacks = _bounded(
        estimator.algorithm, model, estimator.max_iter, estimator.tol, total
    )
    best: Any = None
    best_value, failure = -np.inf, None
    for seed in seeds_of(estimator.random_state, estimator.n_init):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
                results = fit(
                    model, algorithm, seed=seed, start=start(model, np.random.default_rng(seed)),
                    callbacks=callbacks, progress=False,
                )  # fmt: skip
        except OptionError:
            raise
        except FitError as error:
            failure = error
            continue
        value = _objective(model, results.record.theta) if estimator.n_init > 1 else 0.0
        if best is None or value > best_value:
            best, best_value = results, value
    if best is None:
        assert failure is not None
        raise failure
    if not best.record.converged:
        warnings.warn(
            f"{type(estimator).__name__} did not converge: {best.record.reason}. Remedy: raise "
            "max_iter or tol, try another start (n_init, init_params), or check the data.",
            ConvergenceWarning,
            stacklevel=4,
        )
    return best
