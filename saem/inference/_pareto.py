"""Whether importance weights have a variance: the shape of their upper tail."""

from __future__ import annotations

import math

import numpy as np
from numba import float64
from numpy.typing import NDArray

from saem._jit import helper, kernel
from saem._types import VECTOR
from saem.contract import Array

__all__ = ["generalised_pareto_shape", "pareto_k", "tail_size"]

#: Fewer weights than this are no tail.
_FEWEST = 5
#: The shape is drawn towards 1/2 as by so many observations (Vehtari et al. 2024, appendix C).
_PRIOR_SIZE = 10.0


@helper
def _mean_log(x, b):
    """``mean log(1 - b x)``."""
    total = 0.0
    for i in range(x.size):
        total += math.log1p(-b * x[i])
    return total / x.size


def tail_size(n_draws: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Weights that belong to the tail, ``ceil(min(S / 5, 3 sqrt(S)))``.

    Vehtari, Simpson, Gelman, Yao and Gabry (2024), J. Mach. Learn. Res. 25 (72), 1-58.
    """
    size = np.asarray(n_draws, dtype=float)
    return np.ceil(np.minimum(size / 5.0, 3.0 * np.sqrt(size))).astype(np.int64)


@kernel(float64(VECTOR), deferred=True)
def generalised_pareto_shape(excesses):
    """Shape of a generalised Pareto distribution, positive for a heavy tail.

    Parameters
    ----------
    excesses : ndarray of shape (n,)
        Positive, ascending.

    Returns
    -------
    float

    Notes
    -----
    Zhang and Stephens (2009), Technometrics 51, 316-325: with ``k(b) = mean log(1 - b x)``,
    the profile likelihood of b, ``n (log(-b / k) - k - 1)``, is averaged over a grid that follows
    a data-based prior.
    """
    n = excesses.size
    m = 30 + int(math.sqrt(n))
    quartile = excesses[int(n / 4.0 + 0.5) - 1]
    level, total, weighted = -np.inf, 0.0, 0.0
    for j in range(m):
        b = (1.0 - math.sqrt(m / (j + 0.5))) / (3.0 * quartile) + 1.0 / excesses[n - 1]
        if b == 0.0:  # an exponential distribution: the limit of the profile
            profile = -n * (math.log(excesses.mean()) + 1.0)
        else:
            shape = _mean_log(excesses, b)
            profile = n * (math.log(-b / shape) - shape - 1.0)
        # The weights are kept in units of the largest.
        if profile > level:
            change = math.exp(level - profile)
            total, weighted, level = total * change, weighted * change, profile
        weight = math.exp(profile - level)
        total += weight
        weighted += weight * b
    return _mean_log(excesses, weighted / total)


def pareto_k(log_weights: Array, n_draws: int) -> float:
    """Pareto shape k of importance weights, from the largest of them.

    Below 0.5 the weights have a finite variance; above 0.7 neither the estimate nor its error
    can be relied on.

    Parameters
    ----------
    log_weights : ndarray
        At least the ``tail_size(n_draws) + 1`` largest logarithms, in any order.
    n_draws : int

    Returns
    -------
    float
        Infinite if the tail has too few finite weights, -inf if its weights are all the same.

    Notes
    -----
    Vehtari et al. (2024), section 3; with their prior of weight 10 around 0.5.
    """
    size = int(tail_size(n_draws))
    largest = np.sort(log_weights)[-(size + 1) :]
    if largest.size <= size or size < _FEWEST or not np.isfinite(largest[0]):
        return math.inf
    # Differences from the threshold, in units of the largest: no overflow, no cancellation.
    excesses = np.exp(largest[1:] - largest[-1]) * -np.expm1(largest[0] - largest[1:])
    excesses = excesses[excesses > 0.0]
    if excesses.size < _FEWEST:
        return -math.inf
    n = excesses.size
    raw = float(generalised_pareto_shape(excesses))
    return (n * raw + _PRIOR_SIZE * 0.5) / (n + _PRIOR_SIZE)
