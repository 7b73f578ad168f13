"""Residual error of stacked rows, each by the error model of its endpoint.

What stands between the one definition of the error models (`saem.nlme._residual`) and everything
that looks at rows: residuals, linearisation, simulation, forecasts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array
from saem.nlme._residual import EXPONENTIAL, residual_sds, variance_slopes

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = [
    "endpoint_labels",
    "normal_scale",
    "residual_sd_of",
    "respond_at",
    "sigma_of",
    "variance_slopes_of",
]

Rows = NDArray[np.int64]


def _by_endpoint(model: NLME, endpoint: Rows | None) -> Iterator[tuple[int, Any]]:
    """Endpoints and which rows are theirs."""
    number = model.endpoints.number
    if number == 1:
        yield 0, slice(None)
        return
    endpoint = model.individuals.endpoint if endpoint is None else endpoint
    for e in range(number):
        yield e, np.flatnonzero(endpoint == e)


def endpoint_labels(model: NLME) -> Array | None:
    """Label of every stacked row's endpoint (objects), or None for one response without labels."""
    if not model.endpoints.labels:
        return None
    labels = np.empty(model.endpoints.number, dtype=object)
    labels[:] = model.endpoints.labels
    return np.asarray(labels[model.individuals.endpoint])


def sigma_of(model: NLME, theta: Array, e: int) -> Array:
    """Residual parameters (a, b, c) of an endpoint, shape (3,)."""
    places = model.endpoints.places[3 * e : 3 * e + 3]
    return np.asarray(model.theta_spec.view(theta)["sigma"][places])


def residual_sd_of(model: NLME, theta: Array, f: Array, endpoint: Rows | None = None) -> Array:
    """Residual standard deviations g(f), by the one function that densities use.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    f : ndarray of shape (..., n_rows)
        Predictions.
    endpoint : ndarray of int64, shape (n_rows,), optional
        Endpoint of each row; those of the model's data by default.

    Returns
    -------
    ndarray of the shape of f
    """
    out = np.empty(f.shape)
    for e, rows in _by_endpoint(model, endpoint):
        part = np.ascontiguousarray(f[..., rows])
        found = np.empty(part.size)
        residual_sds(model.endpoints.codes[e], sigma_of(model, theta, e), part.ravel(), found)
        out[..., rows] = found.reshape(part.shape)
    return out


def variance_slopes_of(model: NLME, theta: Array, f: Array) -> Array:
    """Derivatives of the residual variances by the numbers in the block sigma.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    f : ndarray of shape (n_rows,)

    Returns
    -------
    ndarray of shape (3 n_endpoints, n_rows)
        0 where an endpoint does not have a number; one that is shared has rows of all its users.
    """
    places = model.endpoints.places
    out = np.zeros((len(places), f.size))
    for e, rows in _by_endpoint(model, None):
        slopes = variance_slopes(model.endpoints.codes[e], sigma_of(model, theta, e), f[rows])
        for c in range(3):
            out[places[3 * e + c], rows] = slopes[c]
    return out


def normal_scale(model: NLME, values: Array, endpoint: Rows | None = None) -> Array:
    """Responses or predictions on the scale on which residuals are normal.

    Logarithms where the error model of the endpoint is exponential.

    Parameters
    ----------
    model : NLME
    values : ndarray of shape (..., n_rows)
    endpoint : ndarray of int64, shape (n_rows,), optional
        As for `residual_sd_of`.

    Returns
    -------
    ndarray of the shape of `values`
    """
    out = np.array(values, dtype=float)
    for e, rows in _by_endpoint(model, endpoint):
        if model.endpoints.codes[e] == EXPONENTIAL:
            out[..., rows] = np.log(out[..., rows])
    return out


def respond_at(
    model: NLME, theta: Array, f: Array, eps: Array, endpoint: Rows | None = None
) -> Array:
    """Responses ``f + g(f) eps``, and ``f exp(a eps)`` with an exponential error.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    f : ndarray of shape (..., n_rows)
        Predictions, in the units of the response.
    eps : ndarray of the shape of f
        Standardised residuals.
    endpoint : ndarray of int64, shape (n_rows,), optional
        As for `residual_sd_of`.

    Returns
    -------
    ndarray of the shape of f
    """
    scaled = residual_sd_of(model, theta, f, endpoint) * eps
    out = f + scaled
    for e, rows in _by_endpoint(model, endpoint):
        if model.endpoints.codes[e] == EXPONENTIAL:
            out[..., rows] = f[..., rows] * np.exp(scaled[..., rows])
    return np.asarray(out)
