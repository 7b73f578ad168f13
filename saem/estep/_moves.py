"""The visitors that draw: exactly, or by the Markov chains of one individual.

The random numbers of a visit are functions of (seed, individual, iteration),
drawn in bulk before the moves so that their generation vectorises.
"""

from __future__ import annotations

import numpy as np

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel
from saem._linalg import assign, invert_lower
from saem._types import VISIT
from saem.estep._gradient import gradient_moves, no_gradient_moves
from saem.estep._layout import (
    BLOCK,
    COORDINATE,
    FIRST_GRADIENT,
    GROUP,
    HEADER,
    N_GRADIENT,
    N_KINDS,
    PER_MOVE,
    TARGETS,
    memory_size,
    work_size,
)
from saem.estep._modes import visit_laplace, visit_prior
from saem.estep._proposals import distance, run_moves
from saem.random import fill_log_uniform, fill_normal, stream, substream

__all__ = [
    "distance",
    "memory_size",
    "visit_chains",
    "visit_draws",
    "visit_gradient_chains",
    "visit_laplace",
    "visit_prior",
    "work_size",
]

#: Log steps of gradient moves do not grow beyond this: a Gaussian's best are below.
_LARGEST_LOG_STEP = 2.5


@kernel(VISIT, deferred=True, inner=True)
def visit_draws(kernels, theta, y, record, memory, settings, key, work):
    """Record independent draws from the exact posterior."""
    n_draws = int(settings[0])
    width = record.size // n_draws
    for m in range(n_draws):
        record[m * width] = 1.0 / n_draws
        latent = record[m * width + 1 : (m + 1) * width]
        kernels.draw(theta, y, stream(key, m, 0), latent, work)
    return np.nan


@helper
def advance_chains(kernels, theta, y, record, memory, settings, key, work, gradient_moves):
    """Advance the chains of one individual and record their states."""
    n_chains = int(settings[0])
    cycles = int(settings[1])
    d = int(settings[2])
    latent_size = int(settings[3])
    gain = settings[4]

    at = n_chains * latent_size
    scales = segment(memory, at, d)
    blocks = segment(memory, at + d, d)
    mode = segment(memory, at + 2 * d, d)
    factor = as_matrix(segment(memory, at + 3 * d, d * d), d, d)
    at += 3 * d + d * d
    steps = segment(memory, at, N_GRADIENT)
    at += N_GRADIENT
    tried = segment(memory, at, N_KINDS)
    accepted = segment(memory, at + N_KINDS, N_KINDS)
    at += 2 * N_KINDS
    evaluations = segment(memory, at, 1)
    # The fallback moves stand in for an individual whose flag is set.
    choice = 8 if memory[at + 1] != 0.0 else 5
    n_moves = int(settings[choice])
    n_normal = int(settings[choice + 1])
    n_uniform = int(settings[choice + 2])
    start = int(settings[11]) if choice == 8 else HEADER
    moves = segment(settings, start, n_moves * PER_MOVE)

    group = min(GROUP, cycles)
    normals = segment(work, 0, group * n_normal)
    log_uniforms = segment(work, GROUP * n_normal, group * n_uniform)
    at = GROUP * (n_normal + n_uniform)
    mean = segment(work, at, d)
    coordinate_rate = segment(work, at + d, d)
    coordinate_tries = segment(work, at + 2 * d, d)
    block_rate = segment(work, at + 3 * d, d)
    block_tries = segment(work, at + 4 * d, d)
    at += 5 * d
    chol = as_matrix(segment(work, at, d * d), d, d)
    inverse = as_matrix(segment(work, at + d * d, d * d), d, d)
    factor_inverse = as_matrix(segment(work, at + 2 * d * d, d * d), d, d)
    at += 3 * d * d
    proposal = segment(work, at, latent_size)
    at += latent_size
    buffers = segment(work, at, 4 * d + latent_size)
    at += 4 * d + latent_size
    before = segment(work, at, 2 * N_GRADIENT)
    at += 2 * N_GRADIENT
    scratch = segment(work, at, work.size - at)

    kernels.prior(theta, y, mean, chol)
    invert_lower(chol, inverse)
    invert_lower(factor, factor_inverse)
    for a in range(d):
        coordinate_rate[a] = 0.0
        coordinate_tries[a] = 0.0
        block_rate[a] = 0.0
        block_tries[a] = 0.0
    for j in range(N_GRADIENT):
        before[j] = tried[FIRST_GRADIENT + j]
        before[N_GRADIENT + j] = accepted[FIRST_GRADIENT + j]
    evaluations[0] += n_chains
    weight = 1.0 / (n_chains * cycles)
    width = 1 + latent_size
    m = 0
    complete = 0.0
    for chain in range(n_chains):
        z = segment(memory, chain * latent_size, latent_size)
        log_lik = kernels.log_lik(kernels.structural, theta, y, z, scratch)
        for cycle in range(cycles):
            at = cycle % group
            if at == 0:
                sub = substream(key, chain, cycle)
                position = fill_normal(sub, 0, normals)
                fill_log_uniform(sub, position, log_uniforms)
            log_lik = run_moves(
                kernels, theta, y, z, proposal, mean, chol, inverse, mode, factor,
                factor_inverse, scales, blocks, steps, tried, accepted, coordinate_rate,
                coordinate_tries, block_rate, block_tries, evaluations, moves,
                segment(normals, at * n_normal, n_normal),
                segment(log_uniforms, at * n_uniform, n_uniform), log_lik, gradient_moves,
                buffers, scratch,
            )  # fmt: skip
            complete += weight * log_lik
            record[m * width] = weight
            assign(segment(record, m * width + 1, latent_size), z)
            m += 1
    if gain > 0.0:
        for a in range(d):
            if coordinate_tries[a] > 0.0:
                rate = coordinate_rate[a] / coordinate_tries[a]
                scales[a] += gain * (rate - settings[TARGETS + COORDINATE])
            if block_tries[a] > 0.0:
                rate = block_rate[a] / block_tries[a]
                blocks[a] += gain * (rate - settings[TARGETS + BLOCK])
        for j in range(N_GRADIENT):
            kind = FIRST_GRADIENT + j
            tries = tried[kind] - before[j]
            if tries > 0.0:
                rate = (accepted[kind] - before[N_GRADIENT + j]) / tries
                step = steps[j] + gain * (rate - settings[TARGETS + kind])
                steps[j] = min(step, _LARGEST_LOG_STEP)
    return complete


@kernel(VISIT, inner=True)
def visit_chains(kernels, theta, y, record, memory, settings, key, work):
    """Advance the chains of one individual by moves without gradients."""
    return advance_chains(kernels, theta, y, record, memory, settings, key, work, no_gradient_moves)


@kernel(VISIT, deferred=True, inner=True)
def visit_gradient_chains(kernels, theta, y, record, memory, settings, key, work):
    """Advance the chains of one individual by moves of any kind.

    Apart from `visit_chains`, so that only those who use gradients compile and load them.
    """
    return advance_chains(kernels, theta, y, record, memory, settings, key, work, gradient_moves)
