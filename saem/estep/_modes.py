"""The visitors that prepare chains: at Laplace approximations, or at draws of the prior."""

from __future__ import annotations

import numpy as np
from numba import float64

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel
from saem._laplace import COARSE, FINE, laplace
from saem._linalg import assign
from saem._types import FUNCTIONS, MATRIX, VECTOR, VISIT
from saem._whitened import color, whiten
from saem.estep._layout import N_GRADIENT, N_KINDS
from saem.random import fill_normal, stream, substream

__all__ = ["better_mode", "visit_laplace", "visit_prior"]

#: Tolerances of modes around which is only proposed, and of those that are followed while theta
#: moves anyway (nats, see `laplace`).
_MODE_OF_PROPOSALS, _MODE_FOLLOWED = 1e-5, 1e-2
#: Squared distance, in posterior standard deviations, of searches that end in the same mode.
_SAME_MODE = 0.25
#: Squared distance of searches that do not end in the same mode, however roughly they end.
_OTHER_MODE = 4.0
#: Draws of the prior among which a chain looks for one of positive likelihood.
_ATTEMPTS = 20


@helper
def _store_laplace(mean, chol, u, spread, mode, factor):
    """Put a whitened mode and spread on the scale of z."""
    d = u.size
    color(u, mean, chol, mode)
    for a in range(d):
        for b in range(d):
            total = 0.0
            for c in range(b, a + 1):
                total += chol[a, c] * spread[c, b]
            factor[a, b] = total if b <= a else 0.0


@kernel(
    float64(
        FUNCTIONS, VECTOR, VECTOR, VECTOR, MATRIX, VECTOR, MATRIX, float64, VECTOR, MATRIX, VECTOR,
        VECTOR, float64, VECTOR,
    ),
    inner=True,
)  # fmt: skip
def better_mode(
    kernels, theta, y, mean, chol, u, spread, value, best, best_spread, shift, z, tolerance, scratch
):
    """Search for a mode from u too, and keep it in `best` if it is better; returns its value.

    `value` is that of the mode in `best`, -inf if none was found. u, spread and shift are scratch.
    """
    if value > -np.inf:
        # Most searches end where another did; that shows long before they converge.
        found = laplace(kernels, theta, y, mean, chol, u, spread, z, COARSE, scratch)
        if found < value - COARSE or whiten(u, best, best_spread, shift) < _SAME_MODE:
            return value
    found = laplace(kernels, theta, y, mean, chol, u, spread, z, tolerance, scratch)
    if found > value + 1e-6:
        value = found
        assign(best, u)
        for a in range(u.size):
            assign(best_spread[a], spread[a])
    return value


@kernel(VISIT, inner=True)
def visit_laplace(kernels, theta, y, record, memory, settings, key, work):
    """Find the Laplace mode and covariance and keep them in the memory.

    The best of several searches is taken: from the prior mean, from the mode
    of before, and from settings[1] draws of the prior, so that an inferior
    mode (flip-flop of absorption and elimination) is not followed for ever; whether they end in
    several modes is noted in the memory. With
    settings[1] = -1 the mode of before is followed, and nothing else is tried.
    With settings[4] = 1, the start of a run, there is no mode of before; the
    chains are then placed at the mode and the scales set to theirs from theory.
    """
    n_chains = int(settings[0])
    n_random = int(settings[1])
    d = int(settings[2])
    latent_size = int(settings[3])
    place = settings[4] != 0.0
    at = n_chains * latent_size
    scales = segment(memory, at, d)
    blocks = segment(memory, at + d, d)
    mode = segment(memory, at + 2 * d, d)
    factor = as_matrix(segment(memory, at + 3 * d, d * d), d, d)
    steps = segment(memory, at + 3 * d + d * d, N_GRADIENT)
    several = segment(memory, at + 3 * d + d * d + N_GRADIENT + 2 * N_KINDS + 4, 1)

    mean = segment(work, 0, d)
    u = segment(work, d, d)
    best = segment(work, 2 * d, d)
    shift = segment(work, 3 * d, d)
    at = 4 * d
    chol = as_matrix(segment(work, at, d * d), d, d)
    spread = as_matrix(segment(work, at + d * d, d * d), d, d)
    best_spread = as_matrix(segment(work, at + 2 * d * d, d * d), d, d)
    at += 3 * d * d
    z = segment(work, at, latent_size)
    at += latent_size
    scratch = segment(work, at, work.size - at)

    kernels.prior(theta, y, mean, chol)
    # Proposals need no exact mode; that of a search without chains is an answer.
    tolerance = FINE if n_chains == 0 else _MODE_OF_PROPOSALS
    if n_random < 0:
        tolerance = _MODE_FOLLOWED
    if place:
        for a in range(d):
            best[a] = 0.0
    else:
        whiten(mode, mean, chol, best)
    value = laplace(kernels, theta, y, mean, chol, best, best_spread, z, tolerance, scratch)
    several[0] = 0.0
    for search in range(2 if place else 1, 2 + n_random):
        if search == 1:
            for a in range(d):
                u[a] = 0.0
        else:
            fill_normal(stream(key, search, 0), 0, u)
        before = value
        value = better_mode(
            kernels, theta, y, mean, chol, u, spread, value, best, best_spread, shift, z, tolerance,
            scratch,
        )  # fmt: skip
        # Another mode was found, or left for a better one.
        if value > before + COARSE or whiten(u, best, best_spread, shift) > _OTHER_MODE:
            several[0] = 1.0
    _store_laplace(mean, chol, best, best_spread, mode, factor)
    if place:
        assign(segment(z, 0, d), mode)
        kernels.log_lik(kernels.structural, theta, y, z, scratch)
        for chain in range(n_chains):
            assign(segment(memory, chain * latent_size, latent_size), z)
        for a in range(d):
            total = 0.0
            for b in range(a + 1):
                total += factor[a, b] * factor[a, b]
            # 2.4 posterior standard deviations: optimal for a Gaussian in one dimension
            # (Gelman, Roberts and Gilks 1996); 2.4 / sqrt(r) for a block of r.
            scales[a] = np.log(2.4 * np.sqrt(total))
            blocks[a] = np.log(2.4 / np.sqrt(a + 1.0))
        for kind in range(2):  # 1.65**2 d**(-1/3), likewise for Langevin moves
            steps[kind] = np.log(2.7) - np.log(d) / 3.0
        steps[2] = np.log(1.2) - 0.25 * np.log(d)
    return value


@kernel(VISIT, deferred=True, inner=True)
def visit_prior(kernels, theta, y, record, memory, settings, key, work):
    """Place the chains at draws of the prior.

    Unless settings[4] tells that there is a Laplace approximation, the scales of the walks
    are based on the prior's spread as well. A chain for which the likelihood is 0 at
    every draw starts at the last one.
    """
    n_chains = int(settings[0])
    d = int(settings[2])
    latent_size = int(settings[3])
    at = n_chains * latent_size
    scales = segment(memory, at, d)
    blocks = segment(memory, at + d, d)
    factor = as_matrix(segment(memory, at + 3 * d, d * d), d, d)
    u = segment(work, 0, d)
    mean = segment(work, d, d)
    chol = as_matrix(segment(work, 2 * d, d * d), d, d)
    scratch = segment(work, 2 * d + d * d, work.size - 2 * d - d * d)
    kernels.prior(theta, y, mean, chol)
    for chain in range(n_chains):
        z = segment(memory, chain * latent_size, latent_size)
        for attempt in range(_ATTEMPTS):
            fill_normal(substream(key, chain, attempt), 0, u)
            color(u, mean, chol, z)
            if np.isfinite(kernels.log_lik(kernels.structural, theta, y, z, scratch)):
                break
    if settings[4] == 0.0:
        for a in range(d):
            total = 0.0
            for b in range(d):
                factor[a, b] = chol[a, b]
                total += chol[a, b] * chol[a, b]
            # Half of the prior's standard deviations, as is customary; adapted from there.
            scales[a] = np.log(0.5 * np.sqrt(total))
            blocks[a] = np.log(0.5)
    return np.nan
