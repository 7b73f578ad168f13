"""The recursion that any stochastic EM algorithm is near its limit, from model and record alone.

Nothing is asked of the model but its contract. With M(theta) the mean expected statistic and T the
M-step, the statistics of full passes obey

    s_k = s_(k-1) + gamma_k (M(T(s_(k-1))) + eps_k - s_(k-1)),

so that with e_k the distance of the parameters from the estimate, ``u = T' eps`` and
``R = T' M'`` (the rate matrix of EM, Dempster, Laird and Rubin 1977, JRSS B 39, 1-38)

    e_k = (I - gamma_k (I - R)) e_(k-1) + gamma_k u_k.

T' is known along the noise by differences of M-steps, R along the directions of noise by
differences of full passes without draws.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from saem import _loop
from saem.algorithms._base import deterministic
from saem.contract import Array, Model
from saem.engine import Combination, Run
from saem.estep.quadrature import quadrature_dimension
from saem.exceptions import OptionError
from saem.proxies import Full
from saem.record import FitRecord
from saem.schedules import Constant

__all__ = ["MeanMap", "ParameterRecursion", "maximum", "parameter_recursion"]

#: Statistics below which nothing is said of their noise.
_FEWEST = 20
#: Directions beyond which the differences would cost a good part of the fit.
_MOST_DIRECTIONS = 50
#: Random effects up to which a pass without draws is by quadrature.
_MOST_COORDS = 4
#: Steps of differences, in standard deviations of the noise of one iteration.
_STEP = 0.05
#: Directions with less than this part of the largest noise are rounding.
_RANK = 1e-6


class ParameterRecursion(NamedTuple):
    """The recursion of the parameters, in coordinates in which noise is of the order of 1.

    Attributes
    ----------
    basis : ndarray of shape (n_params, r)
        Parameters on the user's scale, from those coordinates.
    noise : ndarray of shape (m, r)
        u_k of the last m iterations, scaled to the draws of the last one.
    path : ndarray of shape (m, r)
        e_k of the same.
    drift : ndarray of shape (r, r)
        ``I - R``.
    gamma : ndarray of shape (n_iter,)
    draws : ndarray of shape (n_iter,)
        Draws of each iteration over those of the last.
    shifts : ndarray of shape (r, n_statistics)
        Changes of the statistic that move one coordinate each by 1.
    """

    basis: Array
    noise: Array
    path: Array
    drift: Array
    gamma: Array
    draws: Array
    shifts: Array


class MeanMap:
    """M-step and mean statistic of a model, around an estimate.

    Parameters
    ----------
    model : Model
    theta : ndarray
        Packed parameters.
    s : ndarray
        Mean statistic to which they belong.
    """

    def __init__(self, model: Model, theta: Array, s: Array) -> None:
        self.model, self.theta, self.s = model, theta, s
        one = Constant(1.0)
        estep = deterministic(model, None)
        self.run = Run(model, Combination("em", estep, Full(), one, one, 1), theta, seed=0)

    def maximum(self, s: Array) -> Array:
        """Packed parameters of a statistic."""
        return maximum(self.model, self.theta, s)

    def params_along(self, shift: Array) -> Array:
        """T' times a change of the statistic, on the user's scale."""
        ends = [
            self.model.params_of(self.maximum(self.s + sign * _STEP * shift))
            for sign in (1.0, -1.0)
        ]
        return np.asarray((ends[0] - ends[1]) / (2.0 * _STEP))

    def statistic_along(self, shift: Array) -> Array:
        """(M T)' times a change of the statistic."""
        ends = []
        for sign in (1.0, -1.0):
            self.run.theta[:] = self.maximum(self.s + sign * _STEP * shift)
            self.run.bound.memories[...] = 0.0
            ends.append(self.run.full_pass(0))
        return (ends[0] - ends[1]) / (2.0 * _STEP)


def maximum(model: Model, theta: Array, s: Array) -> Array:
    """Packed parameters of a statistic.

    Parameters
    ----------
    model : Model
    theta : ndarray
        Packed parameters that hold what T does not give.
    s : ndarray

    Returns
    -------
    ndarray
    """
    theta, counts = theta.copy(), np.zeros(2, dtype=np.int64)
    for _ in range(2):  # as the fit does: T may use the covariance it has just found
        _loop.move(model.kernels, s, 1.0, 1.0, s.copy(), s.copy(), theta, counts)
    return theta


def parameter_recursion(model: Model, record: FitRecord) -> ParameterRecursion | None:
    """Read the recursion off the record of a fit by draws and full passes.

    Parameters
    ----------
    model : Model
    record : FitRecord

    Returns
    -------
    ParameterRecursion or None
        None where the record holds too little, the parameters are too many, or the model has
        no full pass without draws.
    """
    history = record.history
    gamma, steps = np.array(history.gamma), np.array(history.k)
    if record.noise is None or len(record.noise) < _FEWEST or not _suits(model):
        return None
    m = len(record.noise)
    if m > steps[-1] or not np.array_equal(
        steps[-m - 1 :], np.arange(steps[-1] - m, steps[-1] + 1)
    ):
        return None
    try:
        map_ = MeanMap(model, record.theta, record.s)
    except OptionError:
        return None
    noise = record.noise - record.s
    along = np.array([map_.params_along(shift) for shift in noise])
    scale = along.std(axis=0)
    known = scale > 0.0
    if not known.any() or not np.isfinite(along).all():
        return None
    root, sizes, vectors = np.linalg.svd((along[:, known] / scale[known]).T / np.sqrt(m))
    rank = int(np.sum(sizes > _RANK * sizes[0]))
    if rank > _MOST_DIRECTIONS or rank == m:
        return None
    root, sizes = root[:, :rank], sizes[:rank]
    shifts = vectors[:rank] @ noise / np.sqrt(m)
    moved = np.array([map_.params_along(map_.statistic_along(shift)) for shift in shifts])
    map_.run.close()
    rate = root.T @ (moved[:, known] / scale[known]).T / sizes
    if not np.isfinite(rate).all():
        return None
    params = np.array(history.params[-m - 1 :]) - model.params_of(record.theta)
    path = (params[:, known] / scale[known]) @ root
    draws = np.diff(np.array(history.n_evals, dtype=float))
    draws = np.maximum(draws, 1.0) / max(draws[-1], 1.0)
    own = (along[:, known] / scale[known]) @ root - path[:-1] @ rate.T
    basis = np.zeros((len(scale), rank))
    basis[known] = scale[known][:, None] * root
    return ParameterRecursion(
        basis, own * np.sqrt(draws[-m:])[:, None], path[1:], np.eye(rank) - rate,
        _of_all_iterations(gamma, steps), _of_all_iterations(np.r_[np.nan, draws], steps),
        shifts / sizes[:, None],
    )  # fmt: skip


def _suits(model: Model) -> bool:
    """Whether a full pass without draws is to be had, and T(s) gives every parameter."""
    if "numerical" in model.capabilities:
        return False
    few = "gaussian" in model.capabilities and quadrature_dimension(model) <= _MOST_COORDS
    return "expect" in model.capabilities or few


def _of_all_iterations(values: Array, steps: Array) -> Array:
    """Of iterations 1, 2, ...; those that the trace skips are like the next one."""
    wanted = np.arange(1, int(steps[-1]) + 1)
    return np.asarray(values[np.searchsorted(steps, wanted)])
