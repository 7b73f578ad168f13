"""Stopping by accuracy: draws go on until Monte Carlo errors are small enough."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from saem.contract import Array, Model
from saem.inference._mean_map import maximum, parameter_recursion
from saem.inference._sampling import ACCURATE
from saem.inference.monte_carlo import (
    best_information,
    coordinate_covariance,
    course_covariance,
    is_deterministic,
    monte_carlo_covariance,
    monte_carlo_errors,
)

if TYPE_CHECKING:
    import pandas as pd

    from saem._session import Session
    from saem.record import FitRecord
    from saem.results import Results

__all__ = ["Noise", "accuracy_table", "extend_to_accuracy", "noise_of"]

#: Accuracy that a table is judged by where the fit was asked for none.
_DEFAULT = 0.02
#: Iterations are never more than so many times those planned, unless the user says.
_MOST_TIMES = 10
#: The averaged iterations grow by no less and no more than these factors at a time.
_LEAST_GROWTH, _MOST_GROWTH = 1.3, 4.0
#: Iterations are asked for with this reserve over what the errors promise.
_RESERVE = 1.2
#: Nodes that are left out to see what they matter.
_FEWER_NODES = 2


class Noise(NamedTuple):
    """What the draws of a fit leave in its estimates.

    Attributes
    ----------
    relative : ndarray of shape (n_params,)
        Monte Carlo errors of the estimates in units of their standard errors; NaN for
        parameters on a boundary and where not known.
    ends : list of (ndarray, ndarray)
        Packed parameters one Monte Carlo error to both sides of the estimate, along every
        principal direction of the noise.
    expected_loss : float
        Nats of log-likelihood by which the noise leaves the estimates below the maximum, in
        expectation: ``tr(I C) / 2``, C the Monte Carlo covariance.
    """

    relative: Array
    ends: list[tuple[Array, Array]]
    expected_loss: float

    def of_se(self, model: Model, theta: Array) -> Array:
        """Monte Carlo errors of the standard errors, by the delta method along `ends`.

        Parameters
        ----------
        model : Model
        theta : ndarray
            Packed estimates.

        Returns
        -------
        ndarray of shape (n_params,)
            In units of the standard errors; NaN where the estimates' are not known.
        """
        total = np.zeros(len(self.relative))
        for ends in self.ends:
            one, other = (standard_errors(model, end) for end in ends)
            total += np.square(0.5 * (one - other))
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.sqrt(total) / standard_errors(model, theta)
        return np.asarray(np.where(np.isfinite(self.relative), ratio, np.nan))


def standard_errors(model: Model, theta: Array) -> Array:
    """Standard errors on the user's scale, as the rule looks at them.

    Parameters
    ----------
    model : Model
    theta : ndarray
        Packed parameters.

    Returns
    -------
    ndarray of shape (n_params,)
    """
    if hasattr(model, "param_kind"):
        return best_information(model, theta).bse  # type: ignore[arg-type]
    variance = np.diagonal(model.cov_params(theta))  # type: ignore[attr-defined]
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(variance))


def noise_of(model: Model, record: FitRecord) -> Noise:
    """What the draws of a fit leave in its estimates.

    Parameters
    ----------
    model : Model
        Of `saem.NLME`, or with ``cov_params``.
    record : FitRecord

    Returns
    -------
    Noise
    """
    size, theta = len(model.param_names), record.theta
    if is_deterministic(record) and not record.phases:
        return Noise(np.zeros(size), [], 0.0)
    if hasattr(model, "param_kind"):
        information = best_information(model, theta)  # type: ignore[arg-type]
        covariance = monte_carlo_covariance(model, record, information)  # type: ignore[arg-type]
        with np.errstate(invalid="ignore", divide="ignore"):
            relative = np.sqrt(np.diagonal(covariance)) / information.bse_estimation
        free = np.flatnonzero(np.isfinite(relative))
        part = covariance[np.ix_(free, free)]
        loss = 0.5 * float(np.sum(information.matrix[np.ix_(free, free)] * part))
        return Noise(np.asarray(relative), _ends_by_estimates(model, theta, free, part), loss)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = monte_carlo_errors(model, record) / standard_errors(model, theta)
    found = parameter_recursion(model, record)
    if found is None:
        unknown = np.full(size, np.nan)
        return Noise(relative, [(unknown, unknown)], np.nan)
    covariance = course_covariance(model, record)
    inverse = np.linalg.pinv(model.cov_params(theta), hermitian=True)  # type: ignore[attr-defined]
    ends = [
        (maximum(model, theta, record.s + shift), maximum(model, theta, record.s - shift))
        for shift in _root(coordinate_covariance(found, record)) @ found.shifts
    ]
    return Noise(relative, ends, 0.5 * float(np.sum(inverse * covariance)))


def _root(covariance: Array) -> Array:
    """Rows whose outer products add up to a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))).T)


def _ends_by_estimates(
    model: Any, theta: Array, free: Any, part: Array
) -> list[tuple[Array, Array]]:
    """Ends of the noise of an NLME, whose estimates are numbers by themselves."""
    centre, ends = model.estimation_vector(theta), []
    for root in _root(part) if free.size else []:
        if not np.any(root):
            continue
        shift = np.zeros(centre.size)
        shift[free] = root
        ends.append(
            (
                model.with_estimates(theta, centre + shift),
                model.with_estimates(theta, centre - shift),
            )
        )
    return ends


def extend_to_accuracy(
    session: Session, record: FitRecord, accuracy: float, max_iter: int | None = None
) -> FitRecord:
    """Let a run go on until Monte Carlo errors are below a part of the standard errors.

    Parameters
    ----------
    session : Session
        Of SAEM, at the end of the iterations planned.
    record : FitRecord
        What it has given so far.
    accuracy : float
        Largest Monte Carlo error allowed of an estimate and of a standard error, in standard
        errors.
    max_iter : int, optional
        Iterations at which it ends in any case; ten times those planned by default.

    Returns
    -------
    FitRecord
        With ``stopped_by`` ``"accuracy"``, or ``"limit"`` and not converged; its ``reason`` says
        of which parameter the errors are the largest.

    Notes
    -----
    Errors fall with the root of the number of averaged iterations n: from a worst ratio r
    the next look is after ``1.2 n (r / accuracy)^2`` of them. The rule looks a few times
    only, so that stopping at a lucky moment matters little (fixed-width stopping, Flegal, Haran
    and Jones 2008, Statist. Sci. 23, 250-260). Standard errors are looked at once the
    estimates have met the rule.
    """
    model = session.run.model
    names = model.param_names
    limit = max_iter or _MOST_TIMES * record.n_iter
    while record.stopped_by == "iterations":
        noise = noise_of(model, record)
        if not np.isfinite(noise.relative).any():
            return replace(
                record, converged=False, stopped_by="limit",
                reason=f"{record.n_iter} iterations; their Monte Carlo errors are not known, for "
                "too few were averaged or the information is singular",
            )  # fmt: skip
        worst, of = int(np.nanargmax(noise.relative)), ""
        ratio = first_ratio = float(noise.relative[worst])
        first_name = names[worst]
        if ratio <= accuracy:
            of_se = noise.of_se(model, record.theta)
            if np.isfinite(of_se).any():
                worst, of = int(np.nanargmax(of_se)), "the standard error of "
                ratio = float(of_se[worst])
            if ratio <= accuracy:
                return replace(
                    record, stopped_by="accuracy",
                    reason=f"converged: Monte Carlo errors of the estimates are at most "
                    f"{first_ratio:.1%} of the standard errors ({first_name}), those of the "
                    f"standard errors {ratio:.1%} ({names[worst]}) after {record.n_iter} "
                    "iterations",
                )  # fmt: skip
        if record.n_iter >= limit:
            return replace(
                record, converged=False, stopped_by="limit",
                reason=f"{record.n_iter} iterations; the Monte Carlo error of {of}{names[worst]} "
                f"is still {ratio:.1%} of its standard error, {accuracy:.1%} was asked",
            )  # fmt: skip
        first = record.average_from or 0
        growth = min(max(_RESERVE * (ratio / accuracy) ** 2, _LEAST_GROWTH), _MOST_GROWTH)
        session.extend(min(limit, first + round(growth * (record.n_iter - first))))
        record = session.go()
    return record


def accuracy_table(results: Results, accuracy: float | None = None) -> pd.DataFrame:
    """Monte Carlo errors of estimates, of standard errors and of -2 log-likelihood.

    Parameters
    ----------
    results : Results
        Of `saem.NLME`, or of a model with standard errors.
    accuracy : float, optional
        Part of a standard error that errors are to be below; what the fit was asked for by
        default, or 0.02.

    Returns
    -------
    DataFrame
        One row per parameter: ``estimate``, ``se``, ``mc_error`` of the estimate,
        ``mc_error_of_se``, and both in units of the standard error, ``relative`` and
        ``relative_of_se``. A last row, ``-2LL``, has the error of -2 log-likelihood.
        ``within`` tells whether a row's errors are below the accuracy, that of -2
        log-likelihood below 0.1, so that differences of AIC hold. NaN where not known. In
        ``.attrs``: ``accuracy``; ``expected_loss``, the nats of log-likelihood by which noise of
        the estimates is expected to leave them below the maximum; ``llf_error``.

    Notes
    -----
    The error of a standard error has three parts: the noise of the estimates at which it is
    taken, by the delta method, half the difference of the standard errors between the two
    ends of each principal direction of the noise; the draws by which the information is
    computed, where it is; the change when each random effect gets two quadrature nodes
    fewer, where it is by quadrature.
    """
    import pandas as pd

    model, record = results.model, results.record
    if accuracy is None:
        accuracy = _asked(record)
    noise = noise_of(model, record)
    with np.errstate(invalid="ignore"):
        of_se = np.hypot(
            noise.of_se(model, record.theta) * results.bse, _error_of_information(results)
        )
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
    worst = table[["relative", "relative_of_se"]].max(axis=1, skipna=False)
    table["within"] = (worst <= accuracy).astype("boolean").mask(worst.isna())
    error = 2.0 * results.llf_error
    table.loc["-2LL", ["estimate", "mc_error"]] = [-2.0 * results.llf, error]
    table.loc["-2LL", "within"] = pd.NA if np.isnan(error) else error <= 2.0 * ACCURATE
    table.attrs = {
        "accuracy": accuracy,
        "expected_loss": noise.expected_loss,
        "llf_error": results.llf_error,
    }
    return table.rename_axis("parameter")


def _asked(record: FitRecord) -> float:
    """Accuracy that a fit by draws was asked for, or the default."""
    settings = record.phases[-1]["settings"] if record.phases else record.settings
    asked = settings.get("accuracy") if isinstance(settings, dict) else None
    return float(asked) if asked else _DEFAULT


def _error_of_information(results: Any) -> Array:
    """Error of the standard errors from the draws or nodes by which they were computed."""
    from saem.inference.information import louis_information
    from saem.inference.posterior import model_nodes

    nothing = np.zeros(len(results.param_names))
    information = getattr(results, "_information", None)
    if information is None:
        return nothing
    if information.bse_error is not None:
        return np.asarray(information.bse_error)
    model = results.model
    n_nodes = model_nodes(model)
    if information.method != "Louis" or n_nodes is None or n_nodes <= _FEWER_NODES:
        return nothing
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fewer = louis_information(model, results.record.theta, n_nodes=n_nodes - _FEWER_NODES)
    return np.asarray(np.abs(fewer.bse - information.bse))
