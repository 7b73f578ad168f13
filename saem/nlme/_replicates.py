"""New responses and new individuals for a nonlinear mixed-effects model.

`replicate` is the one way from parameters to simulated responses: random effects and
predictions by the compiled functions that the densities use. Bootstraps, predictive
checks and `saem.nlme.simulate` all call it.
"""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import void
from numpy.typing import NDArray

from saem._borrow import borrow
from saem._jit import kernel
from saem._loop import start_of
from saem._types import INDEX, KERNELS, MATRIX, VECTOR, unpack
from saem.contract import Array
from saem.nlme import _kernels
from saem.nlme._continuous import require_predictions
from saem.nlme._rows import respond_at

if TYPE_CHECKING:
    from saem.nlme.data import Individuals
    from saem.nlme.model import NLME

__all__ = ["predictions", "replicate", "resampled", "respond", "with_responses"]

_BY_HAND = (
    "draw parameters with individual('samples') and responses from them by hand; "
    "bootstrap(kind='case') draws individuals instead"
)


@kernel(void(KERNELS, VECTOR, INDEX, VECTOR, MATRIX, INDEX, VECTOR, MATRIX), deferred=True)
def _predict_rows(kernels, values, offsets, theta, normals, rows, f, psi):
    """Predictions and natural parameters at ``phi = mean + chol u``, u a row of `normals`."""
    d, p = normals.shape[1], psi.shape[1]
    own_mean, own_z, own_psi = np.empty(d), np.empty(d), np.empty(p)
    own_chol = np.empty((d, d))
    mean, z, one = borrow(own_mean), borrow(own_z), borrow(own_psi)
    chol = borrow(own_chol)
    values, theta, f = borrow(values), borrow(theta), borrow(f)
    functions = unpack(kernels)
    for i in range(normals.shape[0]):
        y = values[start_of(offsets, i) : start_of(offsets, i + 1)]
        functions.prior(theta, y, mean, chol)
        for a in range(d):
            z[a] = mean[a]
            for b in range(a + 1):
                z[a] += chol[a, b] * normals[i, b]
        _kernels.natural(theta, y, z, one)
        for m in range(p):
            psi[i, m] = one[m]
        columns = _kernels.columns_of(y, int(theta[2]), int(theta[4]))
        functions.structural(one, columns, f[rows[i] : rows[i + 1]])
    own_mean[:] = 0.0  # the owners live until here
    own_z[:] = 0.0
    own_psi[:] = 0.0
    own_chol[:] = 0.0


def predictions(model: NLME, theta: Array, normals: Array) -> tuple[Array, Array]:
    """Predictions and natural parameters at standardised random effects.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    normals : ndarray of shape (n_individuals, n_coords)
        ``phi_i = mu_i + L u_i`` with ``L L' = Omega``; zeros are the population's predictions.

    Returns
    -------
    f : ndarray of shape (n_rows,)
        In the units of the response, rows stacked by individual.
    psi : ndarray of shape (n_individuals, n_params)
    """
    rows = model.individuals.offsets
    f = np.empty(int(rows[-1]))
    psi = np.empty((model.n_individuals, len(model.parameters)))
    normals = np.ascontiguousarray(normals, dtype=float)
    _predict_rows(model.kernels, model.values, model.offsets, theta, normals, rows, f, psi)
    return f, psi


def respond(model: NLME, theta: Array, normals: Array, eps: Array) -> Array:
    """Responses for given standardised random effects and residuals.

    ``y = f + g(f) eps``, and ``log y = log f + a eps`` with an exponential error.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    normals : ndarray of shape (n_individuals, n_coords)
        See `predictions`.
    eps : ndarray of shape (n_rows,)

    Returns
    -------
    ndarray of shape (n_rows,)
        Rows stacked by individual.
    """
    require_predictions(model, "simulated responses", _BY_HAND)
    return respond_at(model, theta, predictions(model, theta, normals)[0], eps)


def replicate(model: NLME, theta: Array, rng: np.random.Generator) -> Array:
    """Draw responses for the design of the data from the model at theta.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    rng : numpy.random.Generator
        Random effects are drawn first, then residuals.

    Returns
    -------
    ndarray of shape (n_rows,)
        Rows stacked by individual, as ``model.individuals.dv``.
    """
    normals = rng.standard_normal((model.n_individuals, model.n_coords))
    return respond(model, theta, normals, rng.standard_normal(model.individuals.dv.size))


def with_responses(model: NLME, dv: Array) -> NLME:
    """Return the same model and design with other responses.

    Parameters
    ----------
    model : NLME
    dv : ndarray of shape (n_rows,)
        Rows stacked by individual.

    Returns
    -------
    NLME
    """
    require_predictions(model, "other responses")
    return _with(model, replace(model.individuals, dv=np.asarray(dv, dtype=float)))


def resampled(model: NLME, chosen: NDArray[np.int64]) -> NLME:
    """Return the model with some of its individuals, each as often as it is named.

    The covariates keep their coding, also where a level no longer occurs.

    Parameters
    ----------
    model : NLME
    chosen : ndarray of int64
        Numbers of individuals.

    Returns
    -------
    NLME
        Its ids are ``0, 1, ...`` in the order of `chosen`.
    """
    data = model.individuals
    starts = np.concatenate([[0], np.cumsum(data.n_obs[chosen])]).astype(np.int64)
    rows = np.concatenate([np.arange(data.offsets[i], data.offsets[i + 1]) for i in chosen])
    changes: dict[str, Any] = {
        "ids": list(range(len(chosen))),
        "offsets": starts,
        "columns": {name: column[rows] for name, column in data.columns.items()},
        "row_labels": data.row_labels[rows],
        "source_row": np.arange(rows.size),
        "design": replace(data.design, matrix=data.design.matrix[chosen]),
        "subjects": data.subjects.iloc[chosen].reset_index(drop=True),
    }
    for item in fields(data):
        value = getattr(data, item.name)
        if item.name in changes or not isinstance(value, np.ndarray):
            continue
        # With one row each the two orders are the same.
        changes[item.name] = value[rows] if len(value) == data.dv.size else value[chosen]
    new = _with(model, replace(data, **changes))
    if model.occasions is not None:
        labels = tuple(model.occasions.labels[i] for i in chosen)
        new.occasions = replace(model.occasions, labels=labels)
    return new


def _with(model: NLME, individuals: Individuals) -> NLME:
    """Return the model with other checked data."""
    new = copy.copy(model)
    new.individuals = individuals
    new._pack()
    return new
