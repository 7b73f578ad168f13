"""Score and curvature of the complete data of an NLME, from its mean statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from saem.contract import Array
from saem.inference._blocks import entries_of
from saem.nlme.priors import prior_information

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = ["complete_curvature", "complete_score"]


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
        a (or b)       r2 / a^3 - N / a, summed over the endpoints that share it

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
        for e in model.endpoints.scale_users(c):
            score[:, k] += n * (blocks["s3"][:, e] / scale**3 - blocks["n_obs"][:, e] / scale)
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
