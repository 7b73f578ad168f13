"""Observed information of a model that offers `surrogate`, by Fisher's identity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from saem.contract import Array

__all__ = ["covariance_of", "observed_information"]

#: Step of the central differences, in units of each direction's scale; the error is of the
#: order of its square, that of rounding of the order of 1e-16 over its square.
_STEP = 1e-4


def observed_information(
    statistic: Callable[[Array], Array],
    surrogate: Callable[[Array, Array], float],
    theta_of: Callable[[Array], Array],
    params: Array,
    directions: Array,
) -> Array:
    """Observed information of one individual on average, along given directions.

    The gradient of the log-likelihood at theta is that of ``Q(theta') = surrogate(sbar(theta),
    theta')`` at ``theta' = theta`` (Fisher's identity), and the information is minus the
    Jacobian of this gradient (Oakes 1999, JRSS B 61, 479-482), here by central differences.

    Parameters
    ----------
    statistic : callable
        ``statistic(theta)`` is the mean expected statistic of shape (n_stats,).
    surrogate : callable
        ``surrogate(s, theta)``.
    theta_of : callable
        Packed theta of parameters.
    params : ndarray of shape (n_names,)
        Where the information is wanted.
    directions : ndarray of shape (n_names, n_free)
        Each column moves the parameters by about their own size or spread.

    Returns
    -------
    ndarray of shape (n_free, n_free)
        In units of the directions.
    """
    steps = _STEP * directions.T
    slopes = np.empty((2, len(steps), len(steps)))
    for side, sign in enumerate((1.0, -1.0)):
        for j, step in enumerate(steps):
            centre = params + sign * step
            s = statistic(theta_of(centre))
            slopes[side, j] = [
                surrogate(s, theta_of(centre + other)) - surrogate(s, theta_of(centre - other))
                for other in steps
            ]
    information = -(slopes[0] - slopes[1]) / (2.0 * _STEP) ** 2
    return np.asarray(0.5 * (information + information.T), dtype=np.float64)


def covariance_of(information: Array, directions: Array, n: int) -> Array:
    """Covariance of the estimates from the mean information along directions.

    Directions without information, such as rotations of factors, are left out (Moore and
    Penrose): what does not depend on them keeps its exact variance.

    Returns
    -------
    ndarray of shape (n_names, n_names)
        NaN where the information is not finite.
    """
    if not np.all(np.isfinite(information)):
        return np.full((len(directions),) * 2, np.nan)
    inverse = np.linalg.pinv(information, rcond=1e-5, hermitian=True)
    return np.asarray(directions @ inverse @ directions.T / n, dtype=np.float64)
