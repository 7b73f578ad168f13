"""Compiled Markov chain moves of one individual, and the visitor that runs them.

Chains live on the Gaussian scale: target ``log p(y | z) + log N(z; mean, chol chol')``.
The random numbers of a visit are functions of (seed, individual, iteration),
drawn in bulk before the moves so that their generation vectorises.

Memory of an individual, in this order: the state of every chain (latent_size
numbers each), log scales of the coordinate walk (d), of the block walk by
block size (d), the Laplace mode (d) and covariance factor (d * d) on the
natural z scale, then counts of tried and accepted moves per kind.
"""

from __future__ import annotations

import numpy as np

from saem._borrow import as_matrix
from saem._jit import helper, kernel
from saem._laplace import color, laplace, log_det, whiten
from saem._math import exp
from saem._types import VISIT
from saem.random import fill_log_uniform, fill_normal, stream

#: Codes of the moves.
PRIOR, COORDINATE, BLOCK, LAPLACE = 0, 1, 2, 3
N_KINDS = 4
#: Numbers in `settings` before the list of moves, and per move.
HEADER, PER_MOVE = 9, 3
#: Degrees of freedom of the Student proposal around the Laplace mode.
STUDENT_DF = 5


def memory_size(n_chains: int, d: int, latent_size: int) -> int:
    """Length of an individual's memory."""
    return n_chains * latent_size + 2 * d + d + d * d + 2 * N_KINDS


def work_size(n_normal: int, n_uniform: int, d: int, latent_size: int) -> int:
    """Scratch numbers of the visitor, without the model's and Laplace's."""
    return n_normal + n_uniform + 5 * d + 2 * d * d + 2 * latent_size


@helper
def log_prior(z, mean, chol, u):
    """Log density of the Gaussian prior up to its constant; u is scratch."""
    return -0.5 * whiten(z, mean, chol, u)


@helper
def student_log_density(z, mode, factor, u):
    """Log density of the Student proposal up to a constant."""
    d = mode.size
    return -0.5 * (STUDENT_DF + d) * np.log1p(whiten(z, mode, factor, u) / STUDENT_DF)


@helper
def propose(code, size, a, z, mean, chol, mode, factor, scales, blocks, eps, u, proposal):
    """Fill the coordinates of a proposal for the move `code`."""
    d = mean.size
    proposal[:] = z
    if code == PRIOR:
        color(eps[:d], mean, chol, proposal)
    elif code == COORDINATE:
        proposal[a] = z[a] + exp(scales[a]) * eps[0]
    elif code == BLOCK:
        step = exp(blocks[size - 1])
        u[:] = eps[:d]
        for drop in range(d - size):
            # Only `size` of the whitened coordinates move, a run that starts at random.
            u[(a + drop) % d] = 0.0
        for b in range(d):
            shift = 0.0
            for c in range(b + 1):
                shift += factor[b, c] * u[c]
            proposal[b] = z[b] + step * shift
    else:
        chi2 = 0.0
        for c in range(STUDENT_DF):
            chi2 += eps[d + c] * eps[d + c]
        stretch = np.sqrt(STUDENT_DF / chi2)
        for b in range(d):
            shift = 0.0
            for c in range(b + 1):
                shift += factor[b, c] * eps[c]
            proposal[b] = mode[b] + stretch * shift


@helper
def run_moves(
    kernels, theta, y, z, proposal, mean, chol, mode, factor, scales, blocks,
    tried, accepted, coordinate_rate, block_rate, block_tries,
    moves, normals, log_uniforms, u, log_lik, scratch,
):  # fmt: skip
    """One cycle of moves of one chain; z is updated in place.

    Takes and returns ``log p(y | z)`` of the state.
    """
    d = mean.size
    structural = kernels.structural
    prior = log_prior(z, mean, chol, u)
    at_normal = 0
    at_uniform = 0
    for move in range(moves.size // PER_MOVE):
        code = int(moves[move * PER_MOVE])
        sweeps = int(moves[move * PER_MOVE + 1])
        size = int(moves[move * PER_MOVE + 2])
        parts = d if code == COORDINATE else 1
        if code == COORDINATE:
            used = 1
        elif code == LAPLACE:
            used = d + STUDENT_DF
        else:
            used = d
        for sweep in range(sweeps):
            for a in range(parts):
                eps = normals[at_normal : at_normal + used]
                at_normal += used
                first = a
                if code == BLOCK:
                    first = min(d - 1, int(d * exp(log_uniforms[at_uniform])))
                    at_uniform += 1
                propose(
                    code, size, first, z, mean, chol, mode, factor,
                    scales, blocks, eps, u, proposal,
                )  # fmt: skip
                new_lik = kernels.log_lik(structural, theta, y, proposal, scratch)
                new_prior = log_prior(proposal, mean, chol, u)
                if code == PRIOR:
                    ratio = new_lik - log_lik
                else:
                    ratio = new_lik - log_lik + new_prior - prior
                if code == LAPLACE:
                    ratio += student_log_density(z, mode, factor, u)
                    ratio -= student_log_density(proposal, mode, factor, u)
                tried[code] += 1.0
                if code == BLOCK:
                    block_tries[size - 1] += 1.0
                # A comparison with NaN is False: such a proposal is never accepted, and a
                # chain that starts where the likelihood is 0 takes the first finite point.
                if log_uniforms[at_uniform] < ratio or (
                    not np.isfinite(log_lik) and np.isfinite(new_lik)
                ):
                    z[:] = proposal
                    log_lik = new_lik
                    prior = new_prior
                    accepted[code] += 1.0
                    if code == COORDINATE:
                        coordinate_rate[a] += 1.0 / sweeps
                    elif code == BLOCK:
                        block_rate[size - 1] += 1.0
                at_uniform += 1
    return log_lik


@kernel(VISIT)
def visit_draws(kernels, theta, y, record, memory, settings, key, work):
    """Record independent draws from the exact posterior."""
    n_draws = int(settings[0])
    width = record.size // n_draws
    for m in range(n_draws):
        record[m * width] = 1.0 / n_draws
        latent = record[m * width + 1 : (m + 1) * width]
        kernels.draw(theta, y, stream(key, m, 0), latent, work)
    return np.nan


@kernel(VISIT)
def visit_chains(kernels, theta, y, record, memory, settings, key, work):
    """Advance the chains of one individual and record their states."""
    n_chains = int(settings[0])
    cycles = int(settings[1])
    d = int(settings[2])
    latent_size = int(settings[3])
    gain = settings[4]
    n_normal = int(settings[5])
    n_uniform = int(settings[6])
    target_coordinate = settings[7]
    target_block = settings[8]
    moves = settings[HEADER:]

    at = n_chains * latent_size
    scales = memory[at : at + d]
    blocks = memory[at + d : at + 2 * d]
    mode = memory[at + 2 * d : at + 3 * d]
    factor = as_matrix(memory[at + 3 * d:], d, d)
    at += 3 * d + d * d
    tried = memory[at : at + N_KINDS]
    accepted = memory[at + N_KINDS : at + 2 * N_KINDS]

    normals = work[:n_normal]
    log_uniforms = work[n_normal : n_normal + n_uniform]
    at = n_normal + n_uniform
    mean = work[at : at + d]
    u = work[at + d : at + 2 * d]
    coordinate_rate = work[at + 2 * d : at + 3 * d]
    block_rate = work[at + 3 * d : at + 4 * d]
    block_tries = work[at + 4 * d : at + 5 * d]
    at += 5 * d
    chol = as_matrix(work[at:], d, d)
    at += d * d
    proposal = work[at : at + latent_size]
    at += latent_size
    scratch = work[at:]

    kernels.prior(theta, y, mean, chol)
    coordinate_rate[:] = 0.0
    block_rate[:] = 0.0
    block_tries[:] = 0.0
    weight = 1.0 / (n_chains * cycles)
    width = 1 + latent_size
    m = 0
    complete = 0.0
    for chain in range(n_chains):
        z = memory[chain * latent_size : (chain + 1) * latent_size]
        log_lik = kernels.log_lik(kernels.structural, theta, y, z, scratch)
        for cycle in range(cycles):
            sub = stream(key, chain, cycle)
            position = fill_normal(sub, 0, normals)
            fill_log_uniform(sub, position, log_uniforms)
            log_lik = run_moves(
                kernels, theta, y, z, proposal, mean, chol, mode, factor, scales, blocks,
                tried, accepted, coordinate_rate, block_rate, block_tries,
                moves, normals, log_uniforms, u, log_lik, scratch,
            )  # fmt: skip
            complete += weight * log_lik
            record[m * width] = weight
            record[m * width + 1 : (m + 1) * width] = z
            m += 1
    if gain > 0.0:
        total = n_chains * cycles
        for a in range(d):
            scales[a] += gain * (coordinate_rate[a] / total - target_coordinate)
            if block_tries[a] > 0.0:
                blocks[a] += gain * (block_rate[a] / block_tries[a] - target_block)
    return complete


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


@kernel(VISIT)
def visit_laplace(kernels, theta, y, record, memory, settings, key, work):
    """Find the Laplace mode and covariance and keep them in the memory.

    With settings[4] = 1 the chains are also placed at the mode and the
    scales set to theirs from theory: the start of a run. The best of two
    starts is taken, the prior mean and the mode of before, so that a chain
    in an inferior mode (flip-flop) is not followed for ever.
    """
    n_chains = int(settings[0])
    d = int(settings[2])
    latent_size = int(settings[3])
    place = settings[4]
    at = n_chains * latent_size
    scales = memory[at : at + d]
    blocks = memory[at + d : at + 2 * d]
    mode = memory[at + 2 * d : at + 3 * d]
    factor = as_matrix(memory[at + 3 * d:], d, d)

    mean = work[:d]
    u = work[d : 2 * d]
    best = work[2 * d : 3 * d]
    at = 3 * d
    chol = as_matrix(work[at:], d, d)
    at += d * d
    spread = as_matrix(work[at:], d, d)
    at += d * d
    z = work[at : at + latent_size]
    at += latent_size
    scratch = work[at:]

    kernels.prior(theta, y, mean, chol)
    u[:] = 0.0
    value = laplace(kernels, theta, y, mean, chol, u, spread, z, scratch)
    if place == 0.0:
        whiten(mode, mean, chol, best)
        factor_before = spread.copy()
        other = laplace(kernels, theta, y, mean, chol, best, spread, z, scratch)
        if other > value + 1e-6:
            u[:] = best
            value = other
        else:
            spread[:, :] = factor_before
    _store_laplace(mean, chol, u, spread, mode, factor)
    if place != 0.0:
        z[:d] = mode
        kernels.log_lik(kernels.structural, theta, y, z, scratch)
        for chain in range(n_chains):
            memory[chain * latent_size : (chain + 1) * latent_size] = z
        for a in range(d):
            total = 0.0
            for b in range(a + 1):
                total += factor[a, b] * factor[a, b]
            # 2.4 posterior standard deviations: optimal for a Gaussian in one dimension
            # (Gelman, Roberts and Gilks 1996); 2.4 / sqrt(r) for a block of r.
            scales[a] = np.log(2.4 * np.sqrt(total))
            blocks[a] = np.log(2.4 / np.sqrt(a + 1.0))
    return value
