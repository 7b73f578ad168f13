"""Scores of Gaussian mixtures: the gradient of each row's log-likelihood.

By Fisher's identity the score is the posterior mean of the complete-data score:
with responsibilities r_c, deviations e_c = x - m_c and precisions P_c = C_c^-1,

    d / d w_c = r_c / w_c - r_k / w_k   (c < k; the last weight is 1 minus the others),
    d / d m_c = r_c P_c e_c,
    d / d C_c = 1/2 r_c (P_c e_c e_c' P_c - P_c)   (twice that off the diagonal).

Of a row with missing values, P_c is the inverse of the observed part of C_c, with zeros
for the missing columns, and deviations are 0 there: the gradient of the density of
what was observed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array

__all__ = ["free_to_named", "scores"]


def scores(X: Array, probabilities: Array, parts: dict[str, Array], covariance_type: str) -> Array:
    """Gradient of the log-likelihood of each row over the free parameters.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    probabilities : ndarray of shape (n, k)
        Responsibilities at the parameters.
    parts : dict
        Weights, means and covariances, in scikit-learn's shapes.
    covariance_type : {"full", "tied", "diag", "spherical"}

    Returns
    -------
    ndarray of shape (n, n_params)
        The first k - 1 weights, the means, then the covariances (lower triangles).
    """
    if not np.isnan(X.sum()):
        return _scores_of_pattern(
            X, np.ones(X.shape[1], bool), probabilities, parts, covariance_type
        )
    patterns, which = np.unique(~np.isnan(X), axis=0, return_inverse=True)
    pieces = [np.flatnonzero(which.ravel() == p) for p in range(len(patterns))]
    found = [
        _scores_of_pattern(X[rows], seen, probabilities[rows], parts, covariance_type)
        for seen, rows in zip(patterns, pieces, strict=True)
    ]
    return np.concatenate(found)[np.argsort(np.concatenate(pieces))]


def _scores_of_pattern(
    X: Array,
    seen: NDArray[np.bool_],
    probabilities: Array,
    parts: dict[str, Array],
    covariance_type: str,
) -> Array:
    """Scores of rows that all have the same columns observed."""
    weights, means, covariances = parts["weights"], parts["means"], parts["covariances"]
    k, d = means.shape
    X = np.where(seen, X, means[0])  # deviations there meet zeros in the precisions
    ratio = probabilities / weights
    by_mean, by_covariance = [], []
    for c in range(k):
        r = probabilities[:, c, None]
        e = X - means[c]
        if covariance_type in ("full", "tied"):
            covariance = covariances if covariance_type == "tied" else covariances[c]
            precision = np.zeros((d, d))
            precision[np.ix_(seen, seen)] = np.linalg.inv(covariance[np.ix_(seen, seen)])
            scaled = e @ precision
            a, b = np.tril_indices(d)
            second = scaled[:, a] * scaled[:, b] - precision[a, b]
            second *= np.where(a == b, 0.5, 1.0)
        else:
            precision = seen / np.broadcast_to(covariances[c], d)
            scaled = e * precision
            second = 0.5 * (scaled**2 - precision)
            if covariance_type == "spherical":
                second = second.sum(axis=1, keepdims=True)
        by_mean.append(r * scaled)
        by_covariance.append(r * second)
    if covariance_type == "tied":
        by_covariance = [sum(by_covariance[1:], by_covariance[0])]
    return np.concatenate([ratio[:, :-1] - ratio[:, -1:], *by_mean, *by_covariance], axis=1)


def free_to_named(n_components: int, n_params: int) -> Array:
    """Jacobian of all named parameters (with the last weight) over the free ones."""
    k = n_components
    jacobian = np.zeros((n_params + 1, n_params))
    jacobian[: k - 1, : k - 1] = np.eye(k - 1)
    jacobian[k - 1, : k - 1] = -1.0
    jacobian[k:, k - 1 :] = np.eye(n_params - k + 1)
    return jacobian
