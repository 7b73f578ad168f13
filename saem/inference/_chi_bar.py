"""Chi-bar-square distributions: mixtures of chi-squares, for tests at the edge of a range."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls
from scipy.stats import chi2

from saem.contract import Array

__all__ = ["chi_bar_sf", "weights_of"]

#: Draws for the weights of three and more coordinates: errors below 0.004.
_DRAWS = 20_000


def chi_bar_sf(statistic: float, weights: Array, first: int) -> float:
    """Probability that the mixture exceeds a value.

    Parameters
    ----------
    statistic : float
    weights : ndarray of shape (m,)
    first : int
        Degrees of freedom of the first; 0 is a point at 0.
    """
    total = 0.0
    for j, weight in enumerate(weights):
        df = first + j
        beyond = float(statistic <= 0.0) if df == 0 else float(chi2.sf(statistic, df))
        total += float(weight) * beyond
    return total


def weights_of(covariance: Array) -> Array:
    """Probabilities that 0, 1, ..., m coordinates of a projection on the orthant are positive.

    Parameters
    ----------
    covariance : ndarray of shape (m, m)
        C of ``Z ~ N(0, C)``, which is projected on the non-negative orthant in the metric C^-1.

    Returns
    -------
    ndarray of shape (m + 1,)

    Notes
    -----
    Shapiro 1988, Int. Statist. Rev. 56, 49-62: closed form for two, draws (always the same) for
    more.
    """
    m = len(covariance)
    sd = np.sqrt(np.diagonal(covariance))
    correlation = covariance / np.outer(sd, sd)
    if m == 1:
        return np.array([0.5, 0.5])
    if m == 2:
        angle = float(np.arccos(np.clip(correlation[0, 1], -1.0, 1.0))) / (2.0 * np.pi)
        return np.array([angle, 0.5, 0.5 - angle])
    factor = np.linalg.cholesky(correlation)
    whiten = np.linalg.inv(factor)
    draws = np.random.default_rng(0).standard_normal((_DRAWS, m))
    counts = [np.count_nonzero(nnls(whiten, z)[0] > 0.0) for z in draws]
    return np.asarray(np.bincount(counts, minlength=m + 1) / _DRAWS)
