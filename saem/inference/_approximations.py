"""Log-likelihoods by a Gaussian approximation at the posterior modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from saem._math import HALF_LOG_2PI
from saem.contract import Array, Model
from saem.exceptions import OptionError
from saem.inference._value import Likelihood
from saem.inference._visits import Modes, find_modes, require_gaussian
from saem.nlme._continuous import require_predictions

if TYPE_CHECKING:
    from saem.inference.linearisation import Linearisation
    from saem.nlme.model import NLME

__all__ = ["first_order", "focei", "laplace", "linearised"]


def _without_error(values: Array, method: str) -> Likelihood:
    """Return contributions whose error is not known."""
    n = values.size
    return Likelihood(
        float(values.sum()), np.nan, values, np.full(n, np.nan), method, None,
        np.ones(n, dtype=np.int64),
    )  # fmt: skip


def laplace(
    model: Model, theta: Array, *, modes: Modes | None = None, n_threads: int | None = None
) -> Likelihood:
    """Log-likelihood by Laplace's approximation.

    Parameters
    ----------
    model : Model
        With Gaussian random effects.
    theta : ndarray
        Packed parameters.
    modes : Modes, optional
        Modes at theta, if they are known already.
    n_threads : int, optional

    Returns
    -------
    Likelihood
        Its error is NaN: how far the approximation is off is not known.

    Notes
    -----
    ``log p(y_i) = log p(y_i, phi_i^) + d/2 log 2 pi + log det(C_i) / 2``, C_i the inverse of
    the true negative Hessian of ``log p(y_i, phi)`` at the mode (Tierney and Kadane 1986, J. Amer.
    Statist. Assoc. 81, 82-86): adaptive quadrature with one node.
    """
    require_gaussian(model, "Laplace's approximation")
    modes = find_modes(model, theta, n_threads=n_threads) if modes is None else modes
    diagonal = np.diagonal(modes.factor, axis1=1, axis2=2)
    volume = model.n_coords * HALF_LOG_2PI + np.log(diagonal).sum(axis=1)
    return _without_error(modes.log_joint + volume, "Laplace")


def linearised(
    model: NLME, theta: Array, *, modes: Modes | None = None, n_threads: int | None = None
) -> Likelihood:
    """Log-likelihood of the model linearised at the posterior modes.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    modes : Modes, optional
        Modes at theta, if they are known already.
    n_threads : int, optional

    Returns
    -------
    Likelihood
        Its error is NaN: how far the approximation is off is not known.

    Raises
    ------
    OptionError
        For models without structural predictions, or with a user's log-likelihood.

    Notes
    -----
    ``y_i ~ N(f_i + J_i (mu_i - phi_i^), J_i Omega J_i' + S_i)``, see
    `saem.inference.linearisation` (Lindstrom and Bates 1990, Biometrics 46, 673-687). Exact for
    a model that is linear in its random effects with constant error. With any constant error
    it is `focei` but for rounding; where residual variances depend on predictions it is not.
    """
    from saem.inference.linearisation import linearise

    _require_predictions(model)
    lin = linearise(model, theta, modes=modes, n_threads=n_threads)
    return _without_error(_normal_density(model, theta, lin), "linearisation")


def _normal_density(model: NLME, theta: Array, lin: Linearisation) -> Array:
    """Log density of each individual's responses, normal about a linearised model."""
    from saem.inference.linearisation import responses_of

    view, starts = model.theta_spec.view(theta), lin.rows[:-1]
    random = view["parameter"].astype(int)
    owner = np.repeat(np.arange(starts.size), np.diff(lin.rows))
    slopes = lin.jacobian[:, random]
    response, constant = responses_of(model)
    shift = (lin.mu - lin.phi)[owner][:, random]
    residual = response - lin.f - np.einsum("ja,ja->j", slopes, shift)
    scaled = slopes / lin.variance[:, None]
    rows = np.log(lin.variance) + residual**2 / lin.variance
    values = constant - 0.5 * np.add.reduceat(rows, starts)
    if random.size:
        # Woodbury: V^-1 = S^-1 - S^-1 J G J' S^-1, G = (Omega^-1 + J' S^-1 J)^-1.
        z = np.add.reduceat(scaled[:, :, None] * slopes[:, None, :], starts)
        factor = np.linalg.cholesky(np.linalg.inv(view["omega"]) + z)
        lean = np.add.reduceat(scaled * residual[:, None], starts)
        rotated = np.linalg.solve(factor, lean[:, :, None])[:, :, 0]
        log_dets = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
        values += 0.5 * np.square(rotated).sum(axis=1) - log_dets
        values -= np.log(np.diag(view["chol"])).sum()
    return np.asarray(values)


def _require_predictions(model: Model) -> None:
    """Raise `OptionError` for models without structural predictions of a continuous response."""
    if not hasattr(model, "structural"):
        raise OptionError(
            f"{model.name} has no predictions that could be linearised. Remedy: method='laplace'."
        )
    require_predictions(model, "linearised likelihoods", "method='laplace' or 'importance'")


def first_order(
    model: NLME, theta: Array, *, modes: Modes | None = None, n_threads: int | None = None
) -> Likelihood:
    """Log-likelihood of the model linearised at random effects of 0: the FO method.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    modes : Modes, optional
        Of any theta: their spreads set the steps of differences.
    n_threads : int, optional

    Returns
    -------
    Likelihood
        Its error is NaN: how far the approximation is off is not known.

    Raises
    ------
    OptionError
        For models without structural predictions.

    Notes
    -----
    ``y_i ~ N(f_i, J_i Omega J_i' + S_i)`` with predictions, slopes and residual variances at
    ``eta = 0`` (Beal and Sheiner 1982, CRC Crit. Rev. Biomed. Eng. 8, 195-222; Wang 2007,
    J. Pharmacokinet. Pharmacodyn. 34, 575-593).
    """
    from saem.inference.linearisation import all_phi, linearise

    _require_predictions(model)
    random = model.theta_spec.view(theta)["parameter"].astype(int)
    at = all_phi(model, theta)[:, random]
    lin = linearise(model, theta, at=at, modes=modes, n_threads=n_threads)
    return _without_error(_normal_density(model, theta, lin), "FO")


def focei(
    model: NLME, theta: Array, *, modes: Modes | None = None, n_threads: int | None = None
) -> Likelihood:
    """Log-likelihood by first-order conditional estimation with interaction.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    modes : Modes, optional
        Modes at theta, if they are known already.
    n_threads : int, optional

    Returns
    -------
    Likelihood
        Its error is NaN: how far the approximation is off is not known.

    Raises
    ------
    OptionError
        For models without structural predictions.

    Notes
    -----
    NONMEM's FOCEI: Laplace's approximation with the expected instead of the true curvature, see
    `saem.inference.first_order`. NONMEM prints ``-2 log L - n log(2 pi)``, n the number of
    responses, which `saem.nlme.results.NLMEResults.objective` gives.
    """
    from saem.inference.first_order import ConditionalObjective

    found = ConditionalObjective(model, "focei", n_threads).at(theta, modes, search=modes is None)
    return _without_error(found.contributions, "FOCEI")
