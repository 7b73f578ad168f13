"""A nonlinear mixed-effects model linearised in its individual parameters.

Around an expansion point phi_i^ of each individual (its posterior mode),

    y_i ~ N(f_i + J_i (mu_i - phi_i^), V_i),    V_i = J_i Omega J_i' + S_i,

with J_i the derivatives of the predictions by phi and S_i the residual
variances at the predictions f_i (Lindstrom and Bates 1990, Biometrics 46,
673-687). With exponential error, y and f are logarithms.

With a user's log-likelihood (`saem.LogLikelihood`) f_i are the log-likelihoods of the rows, J_i
their scores and S_i = I. Rows are independent given phi, so that J_i' J_i, the sum of products of
scores, stands for their information, and V_i, made of it and Omega, serves as a measure of
directions, steps and boundaries: nowhere as the information that is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array
from saem.inference import _kernels
from saem.inference._visits import Modes, find_modes
from saem.nlme import _kernels as nlme
from saem.nlme._rows import residual_sd_of

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = ["Linearisation", "all_phi", "linearise", "to_psi"]

#: Steps of the differences, in posterior standard deviations; and relative to
#: phi, where there is no random effect: the optimum of central differences.
_STEP_SD = 1e-3
_STEP = float(np.cbrt(np.finfo(float).eps))


@dataclass(frozen=True)
class Linearisation:
    """Predictions and derivatives at expansion points, rows stacked by individual.

    Attributes
    ----------
    phi : ndarray of shape (n_individuals, n_params)
        Expansion points, of parameters without random effect too.
    mu : ndarray of shape (n_individuals, n_params)
        Population values ``B' x_i``.
    rows : ndarray of int64, shape (n_individuals + 1,)
        Individual i has the stacked rows ``rows[i]:rows[i + 1]``.
    f : ndarray of shape (n_rows,)
        Predictions, on the scale on which residuals are normal.
    jacobian : ndarray of shape (n_rows, n_params)
        Derivatives of f by phi.
    variance : ndarray of shape (n_rows,)
        Residual variances ``g(f)**2``.
    """

    phi: Array
    mu: Array
    rows: NDArray[np.int64]
    f: Array
    jacobian: Array
    variance: Array


def design_of(model: NLME) -> Array:
    """Rows x_i of the design, shape (n_individuals, p_x)."""
    return np.asarray(model.individuals.design.matrix, dtype=float)


def all_phi(model: NLME, theta: Array, random: Array | None = None) -> Array:
    """Phi of every parameter: random ones as given, or everything at ``B' x_i``.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    random : ndarray of shape (n_individuals, n_random), optional

    Returns
    -------
    ndarray of shape (n_individuals, n_params)
    """
    view = model.theta_spec.view(theta)
    phi = design_of(model) @ view["beta"]
    if random is not None and model.n_coords:
        phi[:, view["parameter"].astype(int)] = random
    return np.ascontiguousarray(phi)


def to_psi(model: NLME, phi: Array) -> Array:
    """Natural-scale parameters from phi, parameters along the last axis.

    Parameters
    ----------
    model : NLME
    phi : ndarray of shape (..., n_params)

    Returns
    -------
    ndarray of the same shape
    """
    columns = [p.to_psi(phi[..., m]) for m, p in enumerate(model.parameters.values())]
    return np.ascontiguousarray(np.stack(columns, axis=-1))


def responses_of(model: NLME) -> tuple[Array, Array]:
    """Responses on the scale on which residuals are normal, and constants of the density.

    Returns
    -------
    responses : ndarray of shape (n_rows,)
    constants : ndarray of shape (n_individuals,)
        What ``log p(y_i | phi)`` holds besides terms in predictions and residual parameters:
        the ``2 pi``, and the Jacobian of transformed responses.
    """
    data = model.individuals
    at = np.asarray(model.offsets[:-1]) + data.design.matrix.shape[1]
    place = np.arange(data.dv.size) + np.repeat(at + 1 - data.offsets[:-1], data.n_obs)
    return np.asarray(model.values[place]), np.asarray(model.values[at])


def residual_variance(model: NLME, theta: Array, f: Array) -> Array:
    """Residual variances ``g(f)**2``, by the one function that densities use."""
    sd = residual_sd_of(model, theta, f)
    return sd * sd


def linearise(
    model: NLME,
    theta: Array,
    *,
    at: Array | None = None,
    modes: Modes | None = None,
    n_threads: int | None = None,
) -> Linearisation:
    """Linearise at the posterior modes, or at other random coordinates.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    at : ndarray of shape (n_individuals, d), optional
        Expansion points; the modes by default.
    modes : Modes, optional
        Modes at theta if they are known already; found otherwise.
    n_threads : int, optional

    Notes
    -----
    Central differences with steps of 1e-3 posterior standard deviations, which
    is relative to what the data can tell apart, whatever the units.
    """
    modes = find_modes(model, theta, n_threads=n_threads) if modes is None else modes
    phi = all_phi(model, theta, modes.phi if at is None else at)
    view = model.theta_spec.view(theta)
    logged = view["transform"] != nlme.NORMAL
    steps = _STEP * np.where(logged, np.maximum(np.abs(phi), 1.0), np.abs(phi))
    steps[steps == 0.0] = _STEP
    if model.n_coords:
        sd = np.sqrt(np.square(modes.factor).sum(axis=2))
        index = view["parameter"].astype(int)
        # Not below what rounding of phi itself allows.
        steps[:, index] = np.maximum(_STEP_SD * sd, 1e-7 * np.abs(phi[:, index]))
    rows = model.individuals.offsets
    f = np.empty(model.nobs)
    jacobian = np.empty((model.nobs, phi.shape[1]))
    _kernels.linearise_rows(
        model.kernels, model.values, model.offsets, theta, phi, steps, rows, f, jacobian
    )
    variance = residual_variance(model, theta, f)
    return Linearisation(phi, all_phi(model, theta), rows, f, jacobian, variance)
