"""The record of a fit: what was run, what came out, what there is to judge it by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FitRecord", "Trace", "join"]


@dataclass
class Trace:
    """Course of a fit, one entry per recorded iteration.

    Attributes
    ----------
    k, n_evals, seconds, gamma, loglik : list of float
        Iteration, E-evaluations, wall time, step, log-likelihood before the
        step (NaN where the E-step does not give it).
    params : list of ndarray
        Parameters on the user's scale.
    """

    k: list[float] = field(default_factory=list)
    n_evals: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    gamma: list[float] = field(default_factory=list)
    loglik: list[float] = field(default_factory=list)
    params: list[Array] = field(default_factory=list)


@dataclass
class FitRecord:
    """Everything a fit leaves behind besides the model itself.

    Attributes
    ----------
    algorithm : str
        Name; `settings` spells out the parts.
    seed : int
        Reproduces the fit.
    theta : ndarray
        Final packed parameters; `theta_start` those it started from.
    s : ndarray
        Final (averaged) mean statistic.
    converged : bool
        Whether a convergence rule stopped it; False for a fixed number of iterations that
        was cut short, an interruption or a failure.
    reason : str
        What stopped it.
    stopped_by : str
        The rule in a word: ``"tolerance"`` (nothing left to gain), ``"accuracy"`` (Monte Carlo
        errors small enough), ``"iterations"`` (the number planned), ``"limit"`` (the most
        allowed, without meeting the rule), ``"budget"``, ``"callback"``, ``"interruption"``,
        ``"failure"``.
    left : float
        Nats of log-likelihood that were left to gain before the last step; NaN if not known.
    phases : list of dict
        Of a `saem.Sequence`: algorithm, its settings, first and last iteration, what stopped it.
    n_iter, n_evals, seconds
        Cost; E-evaluations count every kind.
    halvings, projections : int
        Interventions of the admissibility guard.
    sampler : dict
        What the E-step reports of itself, such as acceptance rates.
    noise : ndarray of shape (n_averaged, n_statistics) or None
        Raw statistics of the averaged iterations, for Monte Carlo errors; of the last ones
        where none are averaged.
    numerical_noise : ndarray of shape (n_averaged, n_numerical) or None
        Likewise the raw maximisers of a numerical M-step (its working scale).
    chains : ndarray or None
        Memories of the E-step at the end.
    objective : str
        What the estimates maximise, where that is not the likelihood: ``"focei"``, ``"laplace"``.
    """

    algorithm: str
    settings: dict[str, Any]
    seed: int
    theta_start: Array
    theta: Array
    s: Array
    converged: bool
    reason: str
    n_iter: int
    n_evals: int
    seconds: float
    n_individuals: int
    param_names: list[str]
    history: Trace
    halvings: int = 0
    projections: int = 0
    sampler: dict[str, Any] = field(default_factory=dict)
    noise: Array | None = None
    numerical_noise: Array | None = None
    memories: Array | None = None
    average_from: int | None = None
    version: str = ""
    stopped_by: str = ""
    left: float = np.nan
    objective: str = ""
    phases: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def trace(self) -> pd.DataFrame:
        """Course of the fit: iteration, epochs, seconds, gamma, loglik, then parameters."""
        import pandas as pd

        h = self.history
        columns: dict[str, Any] = {
            "iteration": np.array(h.k, dtype=int),
            "epochs": np.array(h.n_evals) / self.n_individuals,
            "seconds": np.array(h.seconds),
            "gamma": np.array(h.gamma),
            "loglik": np.array(h.loglik),
        }
        params = np.array(h.params).reshape(len(h.k), len(self.param_names))
        columns |= {name: params[:, j] for j, name in enumerate(self.param_names)}
        return pd.DataFrame(columns)


def join(records: list[FitRecord]) -> FitRecord:
    """One record of phases that ran one after the other.

    Parameters
    ----------
    records : list of FitRecord
        In their order; the estimate and what stopped the fit are those of the last.

    Returns
    -------
    FitRecord
    """
    first, last = records[0], records[-1]
    history, phases = Trace(), []
    k = n_evals = 0
    seconds = 0.0
    for record in records:
        course = record.history
        # Iteration 0 of a later phase is the estimate of the one before.
        at = slice(1 if history.k else 0, None)
        history.k += [value + k for value in course.k[at]]
        history.n_evals += [value + n_evals for value in course.n_evals[at]]
        history.seconds += [value + seconds for value in course.seconds[at]]
        history.gamma += course.gamma[at]
        history.loglik += course.loglik[at]
        history.params += course.params[at]
        phases.append(
            {
                "algorithm": record.algorithm,
                "settings": record.settings,
                "first": k + 1,
                "last": k + record.n_iter,
                "seconds": record.seconds,
                "stopped_by": record.stopped_by,
                "reason": record.reason,
            }
        )
        k, n_evals = k + record.n_iter, n_evals + record.n_evals
        seconds += record.seconds
    sampler: dict[str, Any] = {}
    for record in records:
        sampler |= record.sampler
    names = list(dict.fromkeys(record.algorithm for record in records))
    return replace(
        last,
        algorithm=" + ".join(names),
        seed=first.seed,
        theta_start=first.theta_start,
        n_iter=k,
        n_evals=n_evals,
        seconds=seconds,
        history=history,
        halvings=sum(record.halvings for record in records),
        projections=sum(record.projections for record in records),
        sampler=sampler,
        phases=phases,
    )
