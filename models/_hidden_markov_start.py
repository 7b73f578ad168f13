"""Starting values of hidden Markov models."""

from __future__ import annotations

import numpy as np

from saem.contract import Array

from ._mixture_start import distinct_rows, kmeans_plus_plus, lloyd, subsample

__all__ = ["start_parts"]

#: Probability to stay in a state, besides an equal share of the rest.
_STAY = 0.5
#: How concentrated random probabilities of symbols are around their shares.
_CONCENTRATION = 20.0


def start_parts(
    kind: str, k: int, d: int, values: Array, rng: np.random.Generator
) -> dict[str, Array]:
    """Parameters to start from.

    Parameters
    ----------
    kind : {"diag", "full", "categorical"}
    k, d : int
        States, and columns or symbols.
    values : ndarray of shape (n_rows, n_columns)
        Rows of all sequences, not-a-number where missing.
    rng : numpy.random.Generator

    Returns
    -------
    dict
        As `HiddenMarkov.components`.
    """
    chain = {
        "startprob": np.full(k, 1.0 / k),
        "transmat": np.full((k, k), (1.0 - _STAY) / k) + _STAY * np.eye(k),
    }
    if kind == "categorical":
        return chain | {"emissionprob": _symbols(k, d, values, rng)}
    return chain | _moments(kind, k, values, rng)


def _symbols(k: int, d: int, values: Array, rng: np.random.Generator) -> Array:
    """Random probabilities around the shares of the symbols, each above 0."""
    seen = values[~np.isnan(values)].astype(np.int64)
    shares = np.bincount(seen, minlength=d) + 0.5
    drawn = rng.dirichlet(_CONCENTRATION * shares / shares.sum(), size=k) + 1e-3 / d
    return np.asarray(drawn / drawn.sum(axis=1, keepdims=True), dtype=np.float64)


def _moments(kind: str, k: int, values: Array, rng: np.random.Generator) -> dict[str, Array]:
    """Means of k-means on standardised rows; half of the variances of all rows."""
    rows = values[~np.isnan(values).all(axis=1)]
    centre, scale = np.nanmean(rows, axis=0), np.nanstd(rows, axis=0)
    scaled = np.nan_to_num((rows - centre) / scale, nan=0.0)
    means = np.tile(centre, (k, 1))
    if k > 1 and len(distinct_rows(scaled, k)) >= k:
        part = subsample(scaled, k, rng)
        labels = lloyd(part, kmeans_plus_plus(part, k, rng))
        means = centre + scale * np.stack([part[labels == c].mean(axis=0) for c in range(k)])
    covariance = np.diag(0.5 * scale**2)
    if kind == "full":
        covariance = 0.5 * np.atleast_2d(np.cov(rows, rowvar=False, bias=True))
        covariance[np.diag_indices(len(scale))] += 1e-6 * scale**2
        return {"means": means, "covariances": np.tile(covariance, (k, 1, 1))}
    return {"means": means, "covariances": np.tile(np.diag(covariance), (k, 1))}
