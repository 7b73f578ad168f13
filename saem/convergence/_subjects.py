"""Subjects at the estimates: do their chains move, and is their posterior one hump."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from saem._borrow import as_matrix, segment
from saem._jit import kernel
from saem._laplace import FINE, laplace, laplace_work
from saem._types import VISIT, make_visitor
from saem._whitened import color
from saem.contract import Array
from saem.estep import _layout as layout
from saem.inference._visits import visit_all
from saem.inference.chains import diagnose
from saem.inference.monte_carlo import last_estep

if TYPE_CHECKING:
    from saem.nlme.results import NLMEResults

__all__ = ["OtherHump", "accepted_in_fit", "mixing", "second_modes"]

#: States of every chain.
_STATES = 200
#: Searches for another mode, and the squared distance (in the curvature of the first)
#: beyond which it is another one.
_STARTS, _FAR = 16, 36.0
#: Standard deviation of the points from which is searched, in the prior's.
_WIDE = 2.0


class OtherHump(NamedTuple):
    """Second mode of every subject's posterior.

    Attributes
    ----------
    mass : ndarray of shape (n_individuals,)
        Share of the two modes' mass that is not at the higher one, by Laplace's approximation.
    here, there : ndarray of shape (n_individuals, n_params)
        Natural parameters at the two.
    """

    mass: Array
    here: Array
    there: Array


@kernel(VISIT, inner=True)
def visit_mode(kernels, theta, y, record, memory, settings, key, work):
    """Climb from the whitened point in the memory; leaves mode and factor, on the z scale."""
    d, latent_size = int(settings[0]), int(settings[1])
    mean, u = segment(work, 0, d), segment(memory, 0, d)
    chol = as_matrix(segment(work, d, d * d), d, d)
    at = d + d * d
    z = segment(work, at, latent_size)
    scratch = segment(work, at + latent_size, work.size - at - latent_size)
    spread = as_matrix(segment(memory, d, d * d), d, d)
    kernels.prior(theta, y, mean, chol)
    value = laplace(kernels, theta, y, mean, chol, u, spread, z, FINE, scratch)
    color(u, mean, chol, segment(memory, d + d * d, d))
    return value


def second_modes(results: NLMEResults) -> OtherHump:
    """Look for a second mode of every subject's posterior, from points of the prior."""
    from scipy.stats import norm, qmc

    model, theta, modes = results.model, results.record.theta, results._modes
    n, d = model.n_individuals, model.n_coords
    here = np.asarray(results._psi_modes)
    if d == 0:
        return OtherHump(np.zeros(n), here, here)
    starts = _WIDE * norm.ppf(qmc.Sobol(d, seed=1).random(_STARTS))
    settings = np.array([float(d), float(model.latent_size)])
    inverse = np.linalg.inv(modes.factor)
    chol = model.theta_spec.view(theta)["chol"]
    first = modes.log_joint + np.linalg.slogdet(modes.factor)[1]
    log_mass, there = np.full(n, -np.inf), modes.phi.copy()
    for start in starts:
        memories = np.zeros((n, 2 * d + d * d))
        memories[:, :d] = start
        _, values = visit_all(
            model, make_visitor(visit_mode), theta, settings=settings, memories=memories,
            work_size=d + d * d + model.latent_size + laplace_work(d),
        )  # fmt: skip
        spread = memories[:, d : d + d * d].reshape(n, d, d)
        phi = memories[:, d + d * d :]
        # The identity stands for a point that is no maximum.
        proper = np.isfinite(values) & ~np.all(spread == np.eye(d), axis=(1, 2))
        shift = np.einsum("iab,ib->ia", inverse, phi - modes.phi)
        with np.errstate(invalid="ignore"):  # subjects without any mode: nothing to compare
            mass = values + np.linalg.slogdet(chol @ spread)[1] - first
        better = proper & (np.square(shift).sum(axis=1) > _FAR) & (mass > log_mass)
        log_mass[better], there[better] = mass[better], phi[better]
    share = np.exp(-np.abs(log_mass)) / (1.0 + np.exp(-np.abs(log_mass)))
    return OtherHump(share, here, results._psi(results._phi(there)))


def mixing(results: NLMEResults) -> tuple[Array, Array]:
    """Acceptance and R-hat of short chains of every subject, at the estimates.

    Returns
    -------
    accepted : ndarray of shape (n_individuals,)
        Rate of the kind of move that is accepted most.
    rhat : ndarray of shape (n_individuals,)
        Split R-hat, largest over the random effects; 1 where chains agree.
    """
    model = results.model
    if model.n_coords == 0:
        return np.ones(model.n_individuals), np.ones(model.n_individuals)
    table = diagnose(model, results.record.theta, n_states=_STATES, seed=results.record.seed)
    return table.filter(like="acceptance_").max(axis=1).to_numpy(), table["rhat"].to_numpy()


def accepted_in_fit(results: NLMEResults) -> Array:
    """Acceptance of every subject's own chains in the fit, of the kind accepted most.

    Returns
    -------
    ndarray of shape (n_individuals,)
        1 where the fit ended without chains.
    """
    model, record = results.model, results.record
    memories = record.memories
    if memories is None or "acceptance" not in record.sampler or last_estep(record) != "MonteCarlo":
        return np.ones(model.n_individuals)
    at = layout.memory_parts(int(record.sampler["n_chains"]), model.n_coords, model.latent_size)
    tried = memories[:, at.tried : at.accepted]
    accepted = memories[:, at.accepted : at.evaluations]
    return np.asarray(np.max(accepted / np.maximum(tried, 1.0), axis=1))
