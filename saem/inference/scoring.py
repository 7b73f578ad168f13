"""Score and observed information from the weighted draws of one E-step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from saem.contract import Array
from saem.inference._blocks import complete_information, marginal_information
from saem.inference.linearisation import linearise
from saem.inference.posterior import Curvature, scores, second_moments, split

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = ["Scoring", "prior_score", "score_and_information", "scores_of_shifts"]

#: Numbers that the scores of a block of individuals may take (32 MB).
_BLOCK = 4_000_000


class Scoring(NamedTuple):
    """Derivatives of the observed log-likelihood, and of the log prior where there is one.

    On the estimation (Gaussian) scale.

    Attributes
    ----------
    score : ndarray of shape (n_params,)
        ``sum_i E[d log f_i | y_i]`` (Fisher's identity).
    information : ndarray of shape (n_params, n_params) or None
        Complete information less ``sum_i Var(d log f_i | y_i)`` (Louis 1982, JRSS B 44,
        226-233). Away from the maximum the complete information is the expected one.
    expected : ndarray of shape (n_params, n_params) or None
        Expected information of the linearised model: positive definite everywhere, and
        not subject to cancellation where a variance is next to 0.
    """

    score: Array
    information: Array | None
    expected: Array | None


def score_and_information(
    model: NLME, theta: Array, records: Array, with_information: bool = True
) -> Scoring:
    """Score of the observed data and, if wanted, their information, at theta.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters at which the records were made.
    records : ndarray of shape (n_individuals, record_size)
        Weighted draws of every individual's posterior.
    with_information : bool
        Whether the information is wanted as well.

    Returns
    -------
    Scoring
        The two matrices are None unless wanted.
    """
    size = len(model.param_names)
    total, missing = np.zeros(size), np.zeros((size, size))
    complete, expected, curvature = np.zeros((size, size)), None, None
    if with_information:
        lin = linearise(model, theta)
        complete = complete_information(model, theta, lin)
        expected = marginal_information(model, theta, lin)
        curvature = Curvature(model, theta, complete)
    width = records.shape[1] // (1 + model.latent_size) * size
    step = max(1, _BLOCK // width)
    for start in range(0, model.n_individuals, step):
        rows = slice(start, min(start + step, model.n_individuals))
        part = records[rows]
        weights, _ = split(model, part)
        score = scores(model, theta, part, rows)
        mean = np.einsum("im,imp->ip", weights, score)
        total += mean.sum(axis=0)
        if curvature is not None:
            score -= mean[:, None]
            missing += second_moments(model, part, score)
            curvature.add(rows, part)
    if model.penalised:
        total += prior_score(model, theta)
    if curvature is None:
        return Scoring(total, None, None)
    curvature.replace(complete)
    return Scoring(total, complete - missing, expected)


def scores_of_shifts(
    model: NLME, theta: Array, n_shifts: int, *, seed: int, **options: Any
) -> Array:
    """Scores of the observed data by importance sampling, one for each shift of its points.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    n_shifts : int
    seed : int
    **options
        Of `saem.ImportanceSampling`.

    Returns
    -------
    ndarray of shape (n_shifts, n_params)
        On the estimation scale, those of log priors included.
    """
    from saem.estep import ImportanceSampling
    from saem.inference._visits import visit_all

    scores = []
    for number in range(n_shifts):
        bound = ImportanceSampling(**options).bind(model)
        state = np.random.SeedSequence([seed, 1, number]).generate_state(1, np.uint64)[0]
        records, _ = visit_all(
            model, bound.visitor, theta, settings=bound.settings, memories=bound.memories,
            work_size=bound.work_size - model.work_size, record_size=bound.record_size,
            seed=int(state),
        )  # fmt: skip
        scores.append(score_and_information(model, theta, records, with_information=False).score)
    return np.array(scores)


def prior_score(model: NLME, theta: Array) -> Array:
    """Slope of the log prior, by central differences.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.

    Returns
    -------
    ndarray of shape (n_params,)
        On the estimation scale.
    """
    centre = model.estimation_vector(theta)
    slope = np.zeros(centre.size)
    for k, value in enumerate(centre):
        step = 1e-5 * max(abs(value), 1e-3)
        ends = []
        for sign in (1.0, -1.0):
            shifted = centre.copy()
            shifted[k] += sign * step
            ends.append(model.log_prior(model.with_estimates(theta, shifted)))
        slope[k] = (ends[0] - ends[1]) / (2.0 * step)
    return slope
