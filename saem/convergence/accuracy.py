"""Stopping by accuracy: draws go on until Monte Carlo errors are small enough."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from saem.contract import Array
from saem.inference.monte_carlo import best_information, monte_carlo_covariance

if TYPE_CHECKING:
    import pandas as pd

    from saem._session import Session
    from saem.nlme.model import NLME
    from saem.nlme.results import NLMEResults
    from saem.record import FitRecord

__all__ = ["accuracy_table", "extend_to_accuracy", "relative_errors"]

#: Iterations are never more than so many times those planned, unless the user says.
_MOST_TIMES = 10
#: The averaged iterations grow by no less and no more than these factors at a time.
_LEAST_GROWTH, _MOST_GROWTH = 1.3, 4.0
#: Iterations are asked for with this reserve over what the errors promise.
_RESERVE = 1.2


def relative_errors(model: NLME, record: FitRecord) -> Array:
    """Monte Carlo errors of the estimates in units of their standard errors.

    Parameters
    ----------
    model : NLME
    record : FitRecord
        Of a fit by SAEM whose last iterations are averaged.

    Returns
    -------
    ndarray of shape (n_params,)
        On the estimation (Gaussian) scale; NaN for parameters on a boundary, and all
        NaN where the record holds too little.
    """
    information = best_information(model, record.theta)
    covariance = monte_carlo_covariance(model, record, information)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.sqrt(np.diagonal(covariance)) / information.bse_estimation)


def extend_to_accuracy(
    session: Session, record: FitRecord, accuracy: float, max_iter: int | None = None
) -> FitRecord:
    """Let a run go on until every Monte Carlo error is below a part of the standard error.

    Parameters
    ----------
    session : Session
        Of SAEM on an NLME, at the end of the iterations planned.
    record : FitRecord
        What it has given so far.
    accuracy : float
        Largest Monte Carlo error allowed, in standard errors.
    max_iter : int, optional
        Iterations at which it ends in any case; ten times those planned by default.

    Returns
    -------
    FitRecord
        With ``stopped_by`` ``"accuracy"``, or ``"limit"`` and not converged.

    Notes
    -----
    Errors fall with the root of the number of averaged iterations n: from a worst ratio r
    the next look is after ``1.2 n (r / accuracy)^2`` of them. The rule looks a few times
    only, so that stopping at a lucky moment matters little (fixed-width stopping, Flegal, Haran
    and Jones 2008, Statist. Sci. 23, 250-260).
    """
    model = session.run.model
    names = model.param_names
    limit = max_iter or _MOST_TIMES * record.n_iter
    while record.stopped_by == "iterations":
        ratios = relative_errors(model, record)  # type: ignore[arg-type]
        known = np.isfinite(ratios)
        if not known.any():
            return replace(
                record, converged=False, stopped_by="limit",
                reason=f"{record.n_iter} iterations; their Monte Carlo errors are not known, for "
                "too few were averaged or the information is singular",
            )  # fmt: skip
        worst = int(np.nanargmax(ratios))
        if ratios[worst] <= accuracy:
            return replace(
                record, stopped_by="accuracy",
                reason=f"converged: Monte Carlo errors are at most {ratios[worst]:.1%} of the "
                f"standard errors ({names[worst]}) after {record.n_iter} iterations",
            )  # fmt: skip
        if record.n_iter >= limit:
            return replace(
                record, converged=False, stopped_by="limit",
                reason=f"{record.n_iter} iterations; the Monte Carlo error of {names[worst]} is "
                f"still {ratios[worst]:.1%} of its standard error, {accuracy:.1%} was asked",
            )  # fmt: skip
        first = record.average_from or 0
        growth = min(max(_RESERVE * (ratios[worst] / accuracy) ** 2, _LEAST_GROWTH), _MOST_GROWTH)
        session.extend(min(limit, first + round(growth * (record.n_iter - first))))
        record = session.go()
    return record


def accuracy_table(results: NLMEResults) -> pd.DataFrame:
    """Monte Carlo errors of estimates and of standard errors, side by side.

    Parameters
    ----------
    results : NLMEResults

    Returns
    -------
    DataFrame
        One row per parameter: ``estimate``, ``se``, ``mc_error`` of the estimate,
        ``mc_error_of_se``, and both in units of the standard error, ``relative`` and
        ``relative_of_se``. In ``.attrs``: ``expected_loss``, the nats of log-likelihood by which
        noise of the estimates is expected to leave them below the maximum, and ``llf_error``,
        the Monte Carlo error of the log-likelihood at the estimates. NaN where not known.

    Notes
    -----
    With C the Monte Carlo covariance of the estimates (`monte_carlo_covariance`), the error of
    a standard error is by the delta method, the root of the sum of its squared changes along
    the columns of a root of C, each the difference between its two ends; the
    expected loss is ``tr(I C) / 2``. Errors of -2 log-likelihood are twice those given.
    """
    import pandas as pd

    model, record, information = results.model, results.record, results._information
    size = len(model.param_names)
    if results.is_deterministic:
        covariance = np.zeros((size, size))
    else:
        covariance = monte_carlo_covariance(model, record, information)
    free = np.flatnonzero(np.isfinite(np.diagonal(covariance)))
    of_se, loss = np.full(size, np.nan), np.nan
    if free.size:
        part = covariance[np.ix_(free, free)]
        values, vectors = np.linalg.eigh(part)
        centre, total = model.estimation_vector(record.theta), np.zeros(size)
        for root in (vectors * np.sqrt(np.maximum(values, 0.0))).T:
            if not np.any(root):
                continue
            ends = []
            for sign in (1.0, -1.0):
                shifted = centre.copy()
                shifted[free] += sign * root
                ends.append(best_information(model, model.with_estimates(record.theta, shifted)))
            total += np.square(0.5 * (ends[0].bse - ends[1].bse))
        of_se[free] = np.sqrt(total[free])
        loss = 0.5 * float(np.sum(information.matrix[np.ix_(free, free)] * part))
    table = pd.DataFrame(
        {
            "estimate": results.params,
            "se": results.bse,
            "mc_error": results.mc_error,
            "mc_error_of_se": of_se,
        }
    )
    table["relative"] = table["mc_error"] / table["se"]
    table["relative_of_se"] = table["mc_error_of_se"] / table["se"]
    table.attrs = {"expected_loss": loss, "llf_error": results.llf_error}
    return table.rename_axis("parameter")
