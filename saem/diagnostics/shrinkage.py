"""Shrinkage of random effects and residuals, from modes, means and draws of the individuals."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.exceptions import OptionError
from saem.inference import individuals
from saem.inference.linearisation import all_phi
from saem.nlme._occasion_tables import effect_names, shrinkage
from saem.nlme._rows import normal_scale, residual_sd_of

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.model import NLME
    from saem.nlme.results import NLMEResults

__all__ = ["random_effects_of", "shrinkages", "weighted_residuals"]


def random_effects_of(model: NLME, theta: Array, psi: Array) -> Array:
    """Random effects, on the Gaussian scale, of natural parameters.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    psi : ndarray of shape (n_individuals, ..., n_params)

    Returns
    -------
    ndarray of shape (n_individuals, ..., n_random)
    """
    index = model.theta_spec.view(theta)["parameter"].astype(int)
    parameters = list(model.parameters.values())
    phi = np.empty((*psi.shape[:-1], index.size))
    for place, m in enumerate(index):
        phi[..., place] = parameters[m].to_phi(psi[..., m])
    mean = all_phi(model, theta)[:, index]
    return np.asarray(phi - mean.reshape(len(mean), *(1,) * (psi.ndim - 2), -1))


def weighted_residuals(model: NLME, theta: Array, psi: Array) -> Array:
    """Individual weighted residuals at given natural parameters.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    psi : ndarray of shape (n_individuals, n_sets, n_params)
        So many sets of parameters for each individual.

    Returns
    -------
    ndarray of shape (n_sets, n_rows)
        ``(y - f) / g(f)``, of logarithms with an exponential error; rows stacked.
    """
    data, structural = model.individuals, model.structural
    columns = data.matrix(structural.columns)
    f = np.empty((psi.shape[1], data.dv.size))
    for i, (a, b) in enumerate(itertools.pairwise(data.offsets)):
        own = np.ascontiguousarray(columns[:, a:b])
        for k in range(psi.shape[1]):
            f[k, a:b] = structural.predict(psi[i, k], own)
    sd = residual_sd_of(model, theta, f)
    return np.asarray((normal_scale(model, data.dv) - normal_scale(model, f)) / sd)


def shrinkages(
    results: NLMEResults, *, scale: str = "sd", n_samples: int = 100, seed: int | None = None
) -> pd.DataFrame:
    """Shrinkage of every random effect and of the residuals; also `NLMEResults.shrinkages`.

    ``1 - sd(eta) / omega`` and ``1 - sd(iwres)`` (Savic and Karlsson 2009, AAPS J. 11,
    558-569), or of variances.

    Parameters
    ----------
    results : NLMEResults
    scale : {"sd", "variance"}
    n_samples : int
        Draws per individual.
    seed : int, optional
        That of the fit by default.

    Returns
    -------
    DataFrame
        One row per random effect and, with a residual error, ``epsilon`` (of several endpoints
        ``epsilon_cp`` and so on); columns ``modes``, ``means``, ``samples``. Deviations of a
        parameter on all occasions make one row.

    Raises
    ------
    saem.exceptions.OptionError
        For another scale.
    """
    import pandas as pd

    if scale not in ("sd", "variance"):
        raise OptionError(f"scale={scale!r} must be 'sd' or 'variance'.")
    model, theta = results.model, results.record.theta
    seed = results.record.seed if seed is None else seed
    draws = individuals.samples(model, theta, n_samples, seed=seed)
    found = individuals.conditional(model, theta, seed=seed, modes=results._modes)
    index = model.theta_spec.view(theta)["parameter"].astype(int)
    at_means = all_phi(model, theta)
    at_means[:, index] += found.eta_mean
    sources = {
        "modes": (results._eta_modes[:, None], results._psi_modes[:, None]),
        "means": (found.eta_mean[:, None], results._psi(at_means)[:, None]),
        "samples": (random_effects_of(model, theta, draws), draws),
    }
    columns, epsilons = {}, _residuals_of(model)
    for name, (eta, psi) in sources.items():
        ratio = 1.0 - shrinkage(results, eta)
        if epsilons:
            weighted = weighted_residuals(model, theta, psi)
            residual = [np.std(weighted[:, rows], ddof=1) for rows in epsilons.values()]
            ratio = np.append(ratio, residual)
        columns[name] = 1.0 - (ratio if scale == "sd" else ratio**2)
    frame = pd.DataFrame(columns, index=[*effect_names(model), *epsilons])
    return frame.rename_axis("effect")


def _residuals_of(model: NLME) -> dict[str, Any]:
    """Names of the residuals of each endpoint, and their rows; none without residual error."""
    endpoints = model.endpoints
    if not endpoints.continuous:
        return {}
    if endpoints.number == 1:
        return {"epsilon": slice(None)}
    codes = model.individuals.endpoint
    return {f"epsilon_{endpoints.label_of(e)}": codes == e for e in range(endpoints.number)}
