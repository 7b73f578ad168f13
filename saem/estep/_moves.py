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

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel
from saem._laplace import COARSE, FINE, color, laplace, whiten
from saem._linalg import assign
from saem._math import exp, log
from saem._types import VISIT
from saem.random import fill_log_uniform, fill_normal, stream, substream

#: Codes of the moves.
PRIOR, COORDINATE, BLOCK, LAPLACE = 0, 1, 2, 3
N_KINDS = 4
#: Numbers in `settings` before the list of moves, and per move.
HEADER, PER_MOVE = 9, 3
#: Cycles whose random numbers are drawn at once: long loops vectorise, short ones do not.
GROUP = 4
#: Degrees of freedom of the Student proposal around the Laplace mode: with an even
#: number the chi-square variate is a sum of logarithms of uniform numbers.
STUDENT_DF = 4
#: Tolerance of modes around which is only proposed (nats, see `laplace`).
_MODE_OF_PROPOSALS = 1e-5
#: Squared distance, in posterior standard deviations, of searches that end in the same mode.
_SAME_MODE = 0.25


def memory_size(n_chains: int, d: int, latent_size: int) -> int:
    """Length of an individual's memory."""
    return n_chains * latent_size + 2 * d + d + d * d + 2 * N_KINDS


def work_size(n_normal: int, n_uniform: int, d: int, latent_size: int) -> int:
    """Scratch numbers of the visitor, without the model's and Laplace's."""
    return GROUP * (n_normal + n_uniform) + 5 * d + 3 * d * d + 2 * latent_size


@helper
def distance(z, centre, inverse):
    """Squared length of ``inverse (z - centre)``, inverse lower triangular."""
    total = 0.0
    for a in range(centre.size):
        x = 0.0
        for b in range(a + 1):
            x += inverse[a, b] * (z[b] - centre[b])
        total += x * x
    return total


@helper
def student_base(z, mode, inverse):
    """``1 + |x|**2 / df``, whose power ``-(df + d) / 2`` is the density of the Student proposal."""
    return 1.0 + distance(z, mode, inverse) / STUDENT_DF


@helper
def invert_lower(factor, inverse):
    """Inverse of a lower triangular matrix."""
    d = factor.shape[0]
    for a in range(d):
        for b in range(d):
            inverse[a, b] = 0.0
        inverse[a, a] = 1.0 / factor[a, a]
        for b in range(a):
            x = 0.0
            for c in range(b, a):
                x -= factor[a, c] * inverse[c, b]
            inverse[a, b] = x / factor[a, a]


@helper
def shift_by(factor, step, eps, proposal):
    """Add ``step * factor eps`` to a proposal, factor lower triangular."""
    for a in range(factor.shape[0]):
        shift = 0.0
        for b in range(a + 1):
            shift += factor[a, b] * eps[b]
        proposal[a] += step * shift


@helper
def student_stretch(log_uniforms, at):
    """Factor ``sqrt(df / chi2)`` of a Student variate, from df / 2 log uniforms."""
    chi2 = 0.0
    for c in range(STUDENT_DF // 2):
        chi2 -= 2.0 * log_uniforms[at + c]
    return np.sqrt(STUDENT_DF / chi2)


@helper
def run_moves(
    kernels, theta, y, z, proposal, mean, chol, inverse, mode, factor, factor_inverse,
    scales, blocks, tried, accepted, coordinate_rate, block_rate, block_tries,
    moves, normals, log_uniforms, log_lik, scratch,
):  # fmt: skip
    """One cycle of moves of one chain; z is updated in place.

    Takes and returns ``log p(y | z)`` of the state.
    """
    d = mean.size
    structural, log_lik_of = kernels.structural, kernels.log_lik
    prior = -0.5 * distance(z, mean, inverse)
    at_normal = 0
    at_uniform = 0
    for move in range(moves.size // PER_MOVE):
        code = int(moves[move * PER_MOVE])
        sweeps = int(moves[move * PER_MOVE + 1])
        size = int(moves[move * PER_MOVE + 2])
        parts = d if code == COORDINATE else 1
        used = 1 if code == COORDINATE else d  # normal numbers per proposal
        step = exp(blocks[size - 1]) if code == BLOCK else 1.0
        # q(z) of the independent proposal, but for its power, kept while z stays.
        base = student_base(z, mode, factor_inverse) if code == LAPLACE else 1.0
        for _ in range(sweeps):
            for a in range(parts):
                eps = segment(normals, at_normal, used)
                at_normal += used
                if code == PRIOR:
                    color(eps, mean, chol, proposal)
                elif code == COORDINATE:
                    assign(proposal, z)
                    proposal[a] += exp(scales[a]) * eps[0]
                elif code == BLOCK:
                    block_tries[size - 1] += 1.0
                    if size < d:
                        # Only `size` of the whitened coordinates move: a run from a random one.
                        first = min(d - 1, int(d * exp(log_uniforms[at_uniform])))
                        for drop in range(d - size):
                            eps[(first + drop) % d] = 0.0
                        at_uniform += 1
                    assign(proposal, z)
                    shift_by(factor, step, eps, proposal)
                else:
                    assign(segment(proposal, 0, d), mode)
                    stretch = student_stretch(log_uniforms, at_uniform)
                    at_uniform += STUDENT_DF // 2
                    shift_by(factor, stretch, eps, proposal)
                new_lik = log_lik_of(structural, theta, y, proposal, scratch)
                new_prior = -0.5 * distance(proposal, mean, inverse)
                ratio = new_lik - log_lik
                new_base = 1.0
                if code != PRIOR:
                    ratio += new_prior - prior
                if code == LAPLACE:
                    new_base = student_base(proposal, mode, factor_inverse)
                    ratio += 0.5 * (STUDENT_DF + d) * log(new_base / base)
                tried[code] += 1.0
                # A comparison with NaN is False: such a proposal is never accepted, and a
                # chain that starts where the likelihood is 0 takes the first finite point.
                if log_uniforms[at_uniform] < ratio or (
                    not np.isfinite(log_lik) and np.isfinite(new_lik)
                ):
                    assign(z, proposal)
                    log_lik = new_lik
                    prior = new_prior
                    base = new_base
                    accepted[code] += 1.0
                    if code == COORDINATE:
                        coordinate_rate[a] += 1.0 / sweeps
                    elif code == BLOCK:
                        block_rate[size - 1] += 1.0
                at_uniform += 1
    return log_lik


@kernel(VISIT, deferred=True)
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
    moves = segment(settings, HEADER, settings.size - HEADER)

    at = n_chains * latent_size
    scales = segment(memory, at, d)
    blocks = segment(memory, at + d, d)
    mode = segment(memory, at + 2 * d, d)
    factor = as_matrix(segment(memory, at + 3 * d, d * d), d, d)
    at += 3 * d + d * d
    tried = segment(memory, at, N_KINDS)
    accepted = segment(memory, at + N_KINDS, N_KINDS)

    group = min(GROUP, cycles)
    normals = segment(work, 0, group * n_normal)
    log_uniforms = segment(work, GROUP * n_normal, group * n_uniform)
    at = GROUP * (n_normal + n_uniform)
    mean = segment(work, at, d)
    coordinate_rate = segment(work, at + d, d)
    block_rate = segment(work, at + 2 * d, d)
    block_tries = segment(work, at + 3 * d, d)
    at += 4 * d
    chol = as_matrix(segment(work, at, d * d), d, d)
    inverse = as_matrix(segment(work, at + d * d, d * d), d, d)
    factor_inverse = as_matrix(segment(work, at + 2 * d * d, d * d), d, d)
    at += 3 * d * d
    proposal = segment(work, at, latent_size)
    at += latent_size
    scratch = segment(work, at, work.size - at)

    kernels.prior(theta, y, mean, chol)
    invert_lower(chol, inverse)
    invert_lower(factor, factor_inverse)
    for a in range(d):
        coordinate_rate[a] = 0.0
        block_rate[a] = 0.0
        block_tries[a] = 0.0
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
                factor_inverse, scales, blocks, tried, accepted, coordinate_rate, block_rate,
                block_tries, moves, segment(normals, at * n_normal, n_normal),
                segment(log_uniforms, at * n_uniform, n_uniform), log_lik, scratch,
            )  # fmt: skip
            complete += weight * log_lik
            record[m * width] = weight
            assign(segment(record, m * width + 1, latent_size), z)
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

    The best of several searches is taken: from the prior mean, from the mode
    of before, and from settings[1] draws of the prior, so that an inferior
    mode (flip-flop of absorption and elimination) is not followed for ever.
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
    value = -np.inf
    for search in range(2 + n_random):
        if search == 0:
            if place:
                continue
            whiten(mode, mean, chol, u)
        elif search == 1:
            for a in range(d):
                u[a] = 0.0
        else:
            fill_normal(stream(key, search, 0), 0, u)
        first = search == (1 if place else 0)
        if not first and value > -np.inf:
            # Most searches end where another did; that shows long before they converge.
            found = laplace(kernels, theta, y, mean, chol, u, spread, z, COARSE, scratch)
            if found < value - COARSE or whiten(u, best, best_spread, shift) < _SAME_MODE:
                continue
        found = laplace(kernels, theta, y, mean, chol, u, spread, z, tolerance, scratch)
        if first or found > value + 1e-6:
            value = found
            assign(best, u)
            for a in range(d):
                for b in range(d):
                    best_spread[a, b] = spread[a, b]
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
    return value
