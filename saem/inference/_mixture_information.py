"""Coordinates of a mixture's parameters, and its observed information.

Nothing here knows a family: parameters are what `params_of` returns under `param_names`,
and packed parameters belonging to others are found through the M-step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float64, int64

from saem._jit import kernel
from saem._types import KERNELS, VECTOR
from saem.algorithms import EM
from saem.contract import Array
from saem.engine import Run
from saem.models._information import observed_information

__all__ = ["Coordinates", "oakes_covariance"]

#: Relative step of the differences of the M-step; its error only slows the iteration.
_STEP = 1e-6
_ITERATIONS = 50
#: Eigenvalues of a correlation matrix below this part of the largest are 0.
_RANK = 1e-9
#: Smallest eigenvalue of the information, relative to the largest, that counts as positive.
_DEFINITE = 1e-7


@kernel(float64(KERNELS, VECTOR, VECTOR), deferred=True)
def _surrogate(kernels, s, theta):
    """Objective of the M-step."""
    return kernels.surrogate(s, theta)


@kernel(int64(KERNELS, VECTOR, VECTOR), deferred=True)
def _maximize(kernels, s, theta):
    """M-step."""
    return kernels.maximize(s, theta)


class Coordinates:
    """Packed parameters from named ones, near a point, and mean statistics at them.

    Parameters
    ----------
    model : Model
        With exact E-step and `surrogate`.
    theta : ndarray
        Packed parameters; the map is made around them.

    Notes
    -----
    A model may have `theta_of`, the inverse of `params_of`. For others
    ``params_of(T(s)) = x`` is solved for s by the chord method, with the Jacobian at the
    statistic of `theta` by differences and its pseudo-inverse: it converges as fast as the
    Jacobian is exact, some six digits an iteration.
    """

    def __init__(self, model: Any, theta: Array) -> None:
        self.model = model
        self._run = Run(model, EM().combine(model), theta, seed=0, n_threads=None)
        self.theta = np.array(theta, dtype=float)
        self.params = np.asarray(model.params_of(theta))
        self._inverse: Callable[[Array], Array] = getattr(model, "theta_of", self._by_chords)
        self._base: tuple[Array, Array] | None = None

    def statistic(self, theta: Array) -> Array:
        """Mean statistic of all individuals at theta."""
        self._run.theta[:] = theta
        return self._run.full_pass(0)

    def surrogate(self, s: Array, theta: Array) -> float:
        """Objective of the M-step with statistic s."""
        return float(_surrogate(self.model.kernels, s, theta))

    def theta_of(self, params: Array) -> Array:
        """Packed parameters of named ones.

        Raises
        ------
        ModelError
            By a model's own `theta_of`, where they are not admissible.
        FloatingPointError
            Where the M-step does not reach them.
        """
        return self._inverse(params)

    def close(self) -> None:
        """Release the threads."""
        self._run.close()

    def _params_at(self, s: Array) -> tuple[Array, Array]:
        theta = self.theta.copy()
        if _maximize(self.model.kernels, s, theta) != 0:
            raise FloatingPointError("the M-step failed near the estimates")
        return theta, np.asarray(self.model.params_of(theta))

    def _chord(self) -> tuple[Array, Array]:
        """Statistic at the point, and the pseudo-inverse of the M-step's Jacobian there."""
        s = self.statistic(self.theta)
        scale = np.maximum(np.abs(s), 1e-3 * np.abs(s).max())
        columns = []
        for m in range(s.size):
            h = _STEP * scale[m] * np.eye(s.size)[m]
            columns.append((self._params_at(s + h)[1] - self._params_at(s - h)[1]) / (2.0 * _STEP))
        jacobian = np.stack(columns, axis=1)
        size = np.linalg.norm(jacobian, axis=1)
        size = np.where(size > 0.0, size, 1.0)
        inverse = np.linalg.pinv(jacobian / size[:, None], rcond=_RANK)
        return s, scale[:, None] * inverse / size

    def _by_chords(self, params: Array) -> Array:
        if self._base is None:
            self._base = self._chord()
        s, inverse = self._base[0].copy(), self._base[1]
        size = np.abs(params).max() + 1.0
        for _ in range(_ITERATIONS):
            theta, found = self._params_at(s)
            gap = params - found
            if np.abs(gap).max() <= 1e-13 * size:
                return theta
            s = s + inverse @ gap
        if np.abs(gap).max() > 1e-9 * size:
            raise FloatingPointError("the M-step does not reach the parameters")
        return theta


def oakes_covariance(model: Any, theta: Array) -> tuple[Array, bool]:
    """Covariance of the estimates by the observed information of Oakes (1999).

    Returns
    -------
    covariance : ndarray of shape (n_names, n_names)
        NaN for parameters whose empirical information is not known, and everywhere if
        the observed information is not positive definite.
    definite : bool

    Notes
    -----
    Derivatives are taken along the principal axes of the empirical covariance,
    in units of the spread of one individual; so constraints such as weights that sum to
    one are kept, and all directions have about the same information.
    """
    first = np.asarray(model.cov_params(theta))
    n = model.n_individuals
    covariance = np.full_like(first, np.nan)
    known = np.flatnonzero(np.isfinite(np.diag(first)))
    if known.size == 0:
        return covariance, False
    sd = np.sqrt(np.diag(first)[known])
    sd = np.where(sd > 0.0, sd, 1.0)
    values, vectors = np.linalg.eigh(first[np.ix_(known, known)] / np.outer(sd, sd))
    kept = values > _RANK * values[-1]
    directions = np.zeros((len(first), int(kept.sum())))
    directions[known] = sd[:, None] * vectors[:, kept] * np.sqrt(n * values[kept])
    coordinates = Coordinates(model, theta)
    try:
        information = observed_information(
            coordinates.statistic, coordinates.surrogate, coordinates.theta_of,
            coordinates.params, directions,
        )  # fmt: skip
    finally:
        coordinates.close()
    eigenvalues = np.linalg.eigvalsh(information)
    if not eigenvalues[0] > _DEFINITE * eigenvalues[-1]:
        return covariance, False
    found = directions @ np.linalg.inv(information) @ directions.T / n
    covariance[np.ix_(known, known)] = found[np.ix_(known, known)]
    return covariance, True
