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
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array, Model
from saem.exceptions import SaemWarning
from saem.inference._blocks import complete_information, entries_of
from saem.inference.information import Information, linearised_information, louis_information
from saem.inference.posterior import nodes_for
from saem.nlme.priors import prior_information
from saem.record import FitRecord

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = [
    "Recursion",
    "best_information",
    "complete_score",
    "long_run_variance",
    "monte_carlo_covariance",
    "monte_carlo_errors",
    "recursion_of",
]

#: Averaged iterations below which no error is given.
_FEWEST = 30
#: Shifts of the points from which the error of importance sampling is estimated.
_SHIFTS = 8


def monte_carlo_errors(
    model: Model, record: FitRecord, information: Information | None = None
) -> Array:
    """Monte Carlo standard errors of the estimates, on the natural scale.

    Parameters
    ----------
    model : Model
    record : FitRecord
        Of a fit of this model.
    information : Information, optional
        Observed information at the estimates, if it is known already.

    Returns
    -------
    ndarray of shape (n_params,)
        0 for a fit without draws; NaN where it is not known: algorithms that do
        not average, models other than NLME, parameters on a boundary.
    """
    kind = record.settings.get("estep")
    deterministic = record.algorithm in ("em", "iem", "online-em")
    if deterministic and not (isinstance(kind, dict) and kind.get("kind") == "MonteCarlo"):
        return np.zeros(len(model.param_names))
    if not hasattr(model, "param_kind"):
        return np.full(len(model.param_names), np.nan)
    covariance = monte_carlo_covariance(model, record, information)  # type: ignore[arg-type]
    sd = np.sqrt(np.diagonal(covariance))
    return np.asarray(sd * np.abs(model.natural_derivative(record.theta)))  # type: ignore[attr-defined]


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
    kind = _last_estep(record)
    if kind == "ImportanceSampling" or (record.phases and kind != "MonteCarlo"):
        if information is None:
            information = best_information(model, record.theta)
        if kind == "ImportanceSampling":
            return _points_covariance(model, record, information)
        return np.asarray(2.0 * record.left * information.cov_estimation)
    unknown = np.full((size, size), np.nan)
    found = recursion_of(model, record, information)
    if found is None:
        return unknown
    n = len(found.noise)
    unknown[np.ix_(found.free, found.free)] = found.covariance(np.full(n, 1.0 / n))
    return unknown


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


def _last_estep(record: FitRecord) -> str:
    """Kind of the E-step that gave the estimate, empty for the default of its algorithm."""
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
    from saem.estep import ImportanceSampling
    from saem.inference._visits import visit_all
    from saem.inference.scoring import score_and_information

    estep = _last_settings(record).get("estep")
    given = {k: v for k, v in estep.items() if k != "kind"} if isinstance(estep, dict) else {}
    scores = []
    for number in range(_SHIFTS):
        bound = ImportanceSampling(**given).bind(model)
        seed = np.random.SeedSequence([record.seed, 1, number]).generate_state(1, np.uint64)[0]
        records, _ = visit_all(
            model, bound.visitor, record.theta, settings=bound.settings, memories=bound.memories,
            work_size=bound.work_size - model.work_size, record_size=bound.record_size,
            seed=int(seed),
        )  # fmt: skip
        found = score_and_information(model, record.theta, records, with_information=False)
        scores.append(found.score)
    spread = np.atleast_2d(np.cov(np.array(scores), rowvar=False))
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
        if nodes_for(model.n_coords) is None:
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


def complete_score(
    model: NLME,
    theta: Array,
    statistics: Array,
    maximisers: Array | None = None,
    complete: Array | None = None,
) -> Array:
    """Score of the complete data at theta, for given mean statistics.

    With ``R = sum (phi_i - B' x_i)(phi_i - B' x_i)'`` and r2 the residual sum of squares,

        coefficients   Omega^-1 sum x_i (phi_i - B' x_i)'
        Omega          (Omega^-1 R Omega^-1 - n Omega^-1) / 2,  twice off the diagonal
        a (or b)       r2 / a^3 - N / a

    Parameters
    ----------
    model : NLME
    theta : ndarray
    statistics : ndarray of shape (m, n_statistics)
        Raw mean statistics of m iterations.
    maximisers : ndarray of shape (m, n_numerical), optional
        Maximisers of the parameters without closed form, on their working scale
        (the logarithm, for residual parameters): their score is the distance
        to the maximum times the complete information.
    complete : ndarray of shape (n_params, n_params), optional
        Complete information, needed with `maximisers`.

    Returns
    -------
    ndarray of shape (m, n_params)
    """
    view = model.theta_spec.view(theta)
    beta, omega, sigma = entries_of(model)
    n, d, m = model.n_individuals, model.n_coords, len(statistics)
    blocks = {k: statistics[:, at] for k, at in model.stat_spec.slices.items()}
    s1, s2 = blocks["s1"].reshape(m, -1, d), blocks["s2"].reshape(m, d, d)
    random = view["parameter"].astype(int)
    mean = view["beta"][:, random]
    inverse = np.linalg.inv(view["omega"])
    score = np.zeros((m, len(model.param_names)))
    xx = blocks["xx"].reshape(m, len(mean), len(mean))
    by_beta = n * (s1 - xx @ mean) @ inverse
    cross = np.einsum("ja,mjb->mab", mean, s1)
    second = s2 - cross - cross.transpose(0, 2, 1) + mean.T @ xx @ mean
    by_omega = 0.5 * n * (inverse @ second @ inverse - xx[:, :1, :1] * inverse)
    places = {int(p): a for a, p in enumerate(random)}
    for k, row, column in beta:
        if column in places:
            score[:, k] = by_beta[:, row, places[column]]
    for k, row, column in omega:
        for a, b in model.tied_entries(row, column):
            score[:, k] += by_omega[:, a, b] * (1.0 if row == column else 2.0)
    for k, _, c in sigma:
        scale = view["sigma"][c]
        score[:, k] = n * (blocks["s3"][:, 0] / scale**3 - blocks["n_obs"][:, 0] / scale)
    if maximisers is not None and complete is not None:
        _numerical_score(model, theta, maximisers, complete, score)
    return score


def complete_curvature(model: NLME, theta: Array, statistic: Array, expected: Array) -> Array:
    """Observed information of the complete data, and of the prior, for a mean statistic.

    At a maximum of the likelihood its posterior mean is the expected information; elsewhere, as at
    that of a penalised likelihood, it is not. Central differences of `complete_score`.

    Parameters
    ----------
    model : NLME
    theta : ndarray
    statistic : ndarray of shape (n_statistics,)
    expected : ndarray of shape (n_params, n_params)
        Expected information, for the steps and for what has no closed form.

    Returns
    -------
    ndarray of shape (n_params, n_params)
    """
    centre = model.estimation_vector(theta)
    closed = [k for k, at in enumerate(model.param_index) if at not in model.numerical_entries]
    found = expected.copy()
    prior = prior_information(model, theta)
    for k in closed:
        step = np.zeros(centre.size)
        step[k] = 1e-3 / np.sqrt(expected[k, k])
        up, down = (
            complete_score(
                model, model.with_estimates(theta, centre + sign * step), statistic[None]
            )
            for sign in (1.0, -1.0)
        )
        found[closed, k] = ((down - up)[0, closed]) / (2.0 * step[k]) + prior[closed, k]
    return 0.5 * (found + found.T)


def _numerical_score(
    model: NLME, theta: Array, maximisers: Array, complete: Array, score: Array
) -> None:
    """Fill in the scores of parameters without closed form."""
    at = [model.param_index.index(entry) for entry in model.numerical_entries]
    values = theta[model.numerical_entries]
    logged = model.numerical_logged
    scale = np.where(logged, values, 1.0)
    centre = np.where(logged, np.log(np.where(logged, values, 1.0)), values)
    score[:, at] = (maximisers - centre) * scale @ complete[np.ix_(at, at)]


def long_run_variance(noise: Array) -> Array:
    """Long-run covariance of a stationary sequence with short memory.

    Newey and West's estimate (1987, Econometrica 55, 703-708) of what a first-order
    autoregression of every coordinate leaves over (prewhitening, Andrews and
    Monahan 1992, Econometrica 60, 953-966); positive semi-definite, and nowhere
    on the diagonal below the plain variance.

    Parameters
    ----------
    noise : ndarray of shape (n, p)

    Returns
    -------
    ndarray of shape (p, p)
    """
    centred = noise - noise.mean(axis=0)
    n = len(centred)
    square = np.maximum(np.square(centred[:-1]).sum(axis=0), np.finfo(float).tiny)
    slope = np.clip((centred[1:] * centred[:-1]).sum(axis=0) / square, -0.5, 0.9)
    rest = centred[1:] - slope * centred[:-1]
    total = rest.T @ rest
    lags = max(1, round(n ** (1.0 / 3.0)))
    for lag in range(1, lags + 1):
        product = rest[lag:].T @ rest[:-lag]
        total += (1.0 - lag / (lags + 1.0)) * (product + product.T)
    recolour = 1.0 / (1.0 - slope)
    variance = total / (n - 1.0) * np.outer(recolour, recolour)
    # Reversible chains are not negatively correlated: less than the variance is chance.
    ratio = np.square(centred).mean(axis=0) / np.maximum(np.diagonal(variance), 1e-300)
    lift = np.sqrt(np.maximum(ratio, 1.0))
    return np.asarray(variance * np.outer(lift, lift))
