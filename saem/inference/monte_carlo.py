"""Monte Carlo error of a SAEM estimate: how far another seed would have ended.

Near its limit SAEM is a linear recursion. With e_k = theta_k - theta^ on the
estimation scale, I_c and I_o the information of the complete and of the
observed data, and eps_k the noise of the complete-data score,

    e_k = (I - gamma_k I_c^-1 I_o) e_(k-1) + gamma_k I_c^-1 eps_k,

(Delyon, Lavielle and Moulines 1999, Ann. Statist. 27, section 5). The estimate is
the average of the last e_k, a weighted sum of all eps_k whose weights follow
from the steps that were taken. For a long run its covariance tends to
``I_o^-1 V I_o^-1 / n`` (Polyak and Juditsky 1992, SIAM J. Control Optim. 30,
838-855), V the long-run variance of eps; the weights keep what a run of finite
length adds to that in directions where EM is slow.

eps_k itself is known: the complete-data score at theta^ of the raw statistic of
iteration k, less its expectation at theta_(k-1), ``(I_c - I_o) e_(k-1)``.
Subtracting it leaves the noise of the chains, whose memory is short, so that V is
well estimated from a few hundred iterations.

For other models, and algorithms that do not average, I_c^-1 I_o is found by differences of full
passes (`saem.inference._mean_map`); where that is not to be had, as with batches, the course of
the parameters itself has to do.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array, Model
from saem.estep.quadrature import quadrature_dimension
from saem.exceptions import SaemWarning
from saem.inference._blocks import complete_information
from saem.inference._complete import complete_score
from saem.inference._mean_map import ParameterRecursion, parameter_recursion
from saem.inference._spectrum import long_run_variance
from saem.inference.information import Information, linearised_information, louis_information
from saem.inference.posterior import nodes_for
from saem.record import FitRecord

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = [
    "Recursion",
    "best_information",
    "complete_score",
    "coordinate_covariance",
    "course_covariance",
    "is_deterministic",
    "last_estep",
    "long_run_variance",
    "monte_carlo_covariance",
    "monte_carlo_errors",
    "recursion_of",
]

#: Averaged iterations below which no error is given.
_FEWEST = 30
#: Recorded passes of batches below which their course says nothing, averaged or not.
_FEWEST_PASSES, _FEWEST_LAST = 20, 10
#: Shifts of the points from which the error of importance sampling is estimated.
_SHIFTS = 8
#: Largest slope of the autoregression by which a course of parameters is prewhitened.
_SLOPE_OF_COURSE = 0.97


def monte_carlo_errors(
    model: Model, record: FitRecord, information: Information | None = None
) -> Array:
    """Monte Carlo standard errors of the estimates, on the user's scale.

    Parameters
    ----------
    model : Model
    record : FitRecord
        Of a fit of this model.
    information : Information, optional
        Observed information at the estimates of an NLME, if it is known already.

    Returns
    -------
    ndarray of shape (n_params,)
        0 for a fit without draws; NaN where it is not known: too few iterations, or
        parameters on a boundary.

    Notes
    -----
    By the recursion that the algorithm is near its limit: with the information for `saem.NLME`
    (`monte_carlo_covariance`), by differences of full passes for other models and for
    algorithms that do not average. Algorithms that visit batches: from the spectrum at 0 of the
    averaged passes, prewhitened by an autoregression; without an average but with decreasing
    steps (online EM), the scatter of the last third of the passes, which what is left of the way
    to the limit enlarges. Methods whose noise vanishes at the limit (incremental and
    variance-reduced EM) are random on the way there only: not known.
    """
    if is_deterministic(record):
        if not record.phases or not np.isfinite(record.left):
            return np.zeros(len(model.param_names))
        if not hasattr(model, "param_kind"):
            variance = np.diagonal(model.cov_params(record.theta))  # type: ignore[attr-defined]
            return np.asarray(np.sqrt(2.0 * record.left * np.maximum(variance, 0.0)))
    if not hasattr(model, "param_kind"):
        return np.asarray(np.sqrt(np.diagonal(course_covariance(model, record))))
    covariance = monte_carlo_covariance(model, record, information)  # type: ignore[arg-type]
    sd = np.sqrt(np.diagonal(covariance))
    return np.asarray(sd * np.abs(model.natural_derivative(record.theta)))  # type: ignore[attr-defined]


def is_deterministic(record: FitRecord) -> bool:
    """Whether the (last) algorithm drew nothing and visited everybody at each iteration.

    Parameters
    ----------
    record : FitRecord

    Returns
    -------
    bool
    """
    last = record.history.loglik[-1:]
    return bool(np.isfinite(last).all()) and last_estep(record) != "ImportanceSampling"


def monte_carlo_covariance(
    model: NLME, record: FitRecord, information: Information | None = None
) -> Array:
    """Monte Carlo covariance of the estimates, on the estimation (Gaussian) scale.

    Parameters
    ----------
    model : NLME
    record : FitRecord
    information : Information, optional
        Observed information at the estimates, if it is known already; by default
        Louis' up to four random effects (the error goes with its inverse squared, so
        that 8 % too little in a linearised standard error is 16 % in this one), and
        the linearised one beyond.

    Returns
    -------
    ndarray of shape (n_params, n_params)
        NaN in the rows and columns of parameters on a boundary; all NaN if the
        record holds too little.

    Notes
    -----
    A sequence that ends with a deterministic E-step is at most ``sqrt(2 left)`` standard
    errors away from where every seed ends, with ``left`` the nats that its last step had
    still to gain; that is taken for its error. With importance sampling the error is that of the
    points: the covariance of the Newton steps that other shifts of the points would take from
    here.
    """
    size = len(model.param_names)
    kind = last_estep(record)
    if kind == "ImportanceSampling" or (record.phases and kind != "MonteCarlo"):
        if information is None:
            information = best_information(model, record.theta)
        if kind == "ImportanceSampling":
            return _points_covariance(model, record, information)
        return np.asarray(2.0 * record.left * information.cov_estimation)
    unknown = np.full((size, size), np.nan)
    found = recursion_of(model, record, information)
    if found is None:
        slope = model.natural_derivative(record.theta)
        with np.errstate(divide="ignore", invalid="ignore"):
            return course_covariance(model, record) / np.outer(slope, slope)
    n = len(found.noise)
    unknown[np.ix_(found.free, found.free)] = found.covariance(np.full(n, 1.0 / n))
    return unknown


def course_covariance(model: Model, record: FitRecord) -> Array:
    """Monte Carlo covariance of the estimates on the user's scale, of any model and algorithm.

    Parameters
    ----------
    model : Model
    record : FitRecord

    Returns
    -------
    ndarray of shape (n_params, n_params)
        All NaN where the record holds too little.

    Notes
    -----
    As for `monte_carlo_errors`.
    """
    found = parameter_recursion(model, record)
    if found is not None:
        return _recursion_covariance(found, record)
    size, history = len(model.param_names), record.history
    path, steps = np.array(history.params).reshape(-1, size), np.array(history.k)
    if record.average_from is not None:
        path = path[steps > record.average_from]
        if len(path) >= _FEWEST_PASSES:
            return long_run_variance(path, _SLOPE_OF_COURSE) / len(path)
    elif record.history.gamma[-1] < 1.0:
        path = path[-(len(path) // 3) :]
        if len(path) >= _FEWEST_LAST:
            return np.atleast_2d(np.cov(path, rowvar=False))
    return np.full((size, size), np.nan)


def _recursion_covariance(found: ParameterRecursion, record: FitRecord) -> Array:
    """Covariance of the average, or of the last iterate, of a recursion, on the user's scale."""
    inner = coordinate_covariance(found, record)
    return np.asarray(found.basis @ inner @ found.basis.T)


def coordinate_covariance(found: ParameterRecursion, record: FitRecord) -> Array:
    """Covariance of the average, or of the last iterate, of a recursion, in its coordinates.

    Parameters
    ----------
    found : ParameterRecursion
    record : FitRecord

    Returns
    -------
    ndarray of shape (r, r)
    """
    if record.average_from is None:
        coefficients = np.ones(1)
    else:
        coefficients = np.full(len(found.noise), 1.0 / len(found.noise))
    weights = _weights(found.drift, found.gamma, coefficients)
    variance = long_run_variance(found.noise)
    weights = weights / np.sqrt(found.draws)[:, None, None]
    return np.asarray(np.einsum("kab,bc,kdc->ad", weights, variance, weights))


@dataclass(frozen=True)
class Recursion:
    """The linear recursion that SAEM is near its limit, as a fit has run it.

    Attributes
    ----------
    free : ndarray of int
        Parameters that are not on a boundary.
    noise : ndarray of shape (n_averaged, n_free)
        Noise of the complete-data score, iteration by iteration: the chains', short of memory.
    path : ndarray of shape (n_averaged, n_free)
        Distance of the iterates from the estimate.
    inverse, observed : ndarray of shape (n_free, n_free)
        Inverse of the complete information, and the observed information.
    gamma : ndarray of shape (n_iter,)
        Steps of all iterations.
    """

    free: Any
    noise: Array
    path: Array
    inverse: Array
    observed: Array
    gamma: Array

    def covariance(self, coefficients: Array) -> Array:
        """Covariance of ``sum_j coefficients_j e_j`` over the averaged iterations j.

        Parameters
        ----------
        coefficients : ndarray of shape (n_averaged,)

        Returns
        -------
        ndarray of shape (n_free, n_free)
        """
        variance = self.inverse @ long_run_variance(self.noise) @ self.inverse
        weights = _weights(self.inverse @ self.observed, self.gamma, coefficients)
        return np.asarray(np.einsum("kab,bc,kdc->ad", weights, variance, weights))


def recursion_of(
    model: NLME, record: FitRecord, information: Information | None = None
) -> Recursion | None:
    """Read the recursion off the record of a fit; None where it holds too little.

    Parameters
    ----------
    model : NLME
    record : FitRecord
        Of SAEM whose last iterations are averaged.
    information : Information, optional
        Observed information at the estimates, if it is known already.

    Returns
    -------
    Recursion or None
    """
    from saem.inference.linearisation import linearise

    gamma, steps = np.array(record.history.gamma), np.array(record.history.k)
    consecutive = np.array_equal(steps, np.arange(steps.size))
    if record.noise is None or record.average_from is None or not consecutive:
        return None
    first, n, theta = record.average_from, len(record.noise), record.theta
    if n < _FEWEST or n != steps[-1] - first:
        return None
    if information is None:
        information = best_information(model, theta)
    free = np.flatnonzero(np.isfinite(np.diagonal(information.cov_estimation)))
    if not free.size:
        return None
    if information.complete is None:
        lin = linearise(model, theta)
        information = replace(information, complete=complete_information(model, theta, lin))
    all_complete = np.asarray(information.complete)
    complete = all_complete[np.ix_(free, free)]
    observed = information.matrix[np.ix_(free, free)]
    try:
        inverse = np.linalg.inv(complete)
    except np.linalg.LinAlgError:
        return None
    path = (_estimation_path(model, record) - model.estimation_vector(theta))[:, free]
    noise = complete_score(model, theta, record.noise, record.numerical_noise, all_complete)[
        :, free
    ]
    noise = noise - path[first : first + n] @ (complete - observed)
    return Recursion(free, noise, path[first + 1 :], inverse, observed, gamma[1:])


def _last_settings(record: FitRecord) -> dict[str, Any]:
    """Settings of the algorithm that gave the estimate."""
    settings = record.phases[-1]["settings"] if record.phases else record.settings
    return settings if isinstance(settings, dict) else {}


def last_estep(record: FitRecord) -> str:
    """Kind of the E-step that gave the estimate, empty for the default of its algorithm.

    Parameters
    ----------
    record : FitRecord

    Returns
    -------
    str
    """
    settings = _last_settings(record)
    estep = settings.get("estep")
    if isinstance(estep, dict):
        return str(estep.get("kind"))
    kind = str(settings.get("kind"))
    if kind.endswith("SAEM"):
        return "MonteCarlo"
    return "ImportanceSampling" if kind == "ImportanceEM" else ""


def _points_covariance(model: NLME, record: FitRecord, information: Information) -> Array:
    """Covariance ``I^-1 V I^-1`` of Newton steps, V that of the score over shifts of the points."""
    from saem.inference.scoring import scores_of_shifts

    estep = _last_settings(record).get("estep")
    given = {k: v for k, v in estep.items() if k != "kind"} if isinstance(estep, dict) else {}
    scores = scores_of_shifts(model, record.theta, _SHIFTS, seed=record.seed, **given)
    spread = np.atleast_2d(np.cov(scores, rowvar=False))
    free = np.flatnonzero(np.isfinite(np.diagonal(information.cov_estimation)))
    inverse = information.cov_estimation[np.ix_(free, free)]
    covariance = np.full(spread.shape, np.nan)
    covariance[np.ix_(free, free)] = inverse @ spread[np.ix_(free, free)] @ inverse
    return covariance


def best_information(model: NLME, theta: Array) -> Information:
    """Observed information up to four random effects, the linearised one beyond.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.

    Returns
    -------
    Information
        That a parameter is on a boundary is for others to say: nothing is warned of.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaemWarning)
        if nodes_for(quadrature_dimension(model)) is None:
            return linearised_information(model, theta)
        return louis_information(model, theta)


def _weights(drift: Array, gamma: Array, coefficients: Array) -> Array:
    """Weights of the noise of every iteration in a combination of the last iterates.

    Parameters
    ----------
    drift : ndarray of shape (p, p)
        ``I_c^-1 I_o``.
    gamma : ndarray of shape (n_iter,)
    coefficients : ndarray of shape (n_averaged,)
        c_j, of the last iterates.

    Returns
    -------
    ndarray of shape (n_iter, p, p)
        ``gamma_k sum_(j >= k) c_j prod_(k < i <= j) (I - gamma_i drift)`` over averaged j.
    """
    p, average_from = len(drift), gamma.size - coefficients.size
    unit = np.eye(p)
    weights = np.zeros((gamma.size, p, p))
    tail = np.zeros((p, p))
    for k in range(gamma.size - 1, -1, -1):
        if k >= average_from:
            tail = tail + coefficients[k - average_from] * unit
        weights[k] = gamma[k] * tail
        tail = tail @ (unit - gamma[k] * drift)
    return weights


def _estimation_path(model: NLME, record: FitRecord) -> Array:
    """Course of the estimates on the Gaussian scale, shape (n_recorded, n_params)."""
    path = np.array(record.history.params)
    for j, (name, kind) in enumerate(zip(model.param_names, model.param_kind, strict=True)):
        if kind == "typical":
            path[:, j] = model.parameters[name].to_phi(path[:, j])
    return path
