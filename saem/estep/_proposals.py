"""Moves that need no gradient: one cycle of a chain.

Chains live on the Gaussian scale: target ``log p(y | z) + log N(z; mean, chol chol')``.
"""

from __future__ import annotations

import numpy as np

from saem._borrow import segment
from saem._jit import helper
from saem._linalg import assign
from saem._math import exp, log
from saem._whitened import color
from saem.estep._layout import BLOCK, COORDINATE, FIRST_GRADIENT, LAPLACE, PER_MOVE, PRIOR

__all__ = ["accepts", "distance", "run_moves", "shift_by"]


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
def shift_by(factor, step, eps, proposal):
    """Add ``step * factor eps`` to a proposal, factor lower triangular."""
    for a in range(factor.shape[0]):
        shift = 0.0
        for b in range(a + 1):
            shift += factor[a, b] * eps[b]
        proposal[a] += step * shift


@helper
def accepts(log_uniform, ratio, log_lik, new_lik):
    """Whether a proposal is taken.

    A comparison with NaN is False: such a proposal is never accepted, and a
    chain that starts where the likelihood is 0 takes the first finite point.
    """
    return log_uniform < ratio or (not np.isfinite(log_lik) and np.isfinite(new_lik))


@helper
def student_stretch(df, half, eps, log_uniforms, at):
    """Factor ``sqrt(df / chi2)`` of a Student variate; 1 for df = 0, the Gaussian.

    The chi-square variate is minus twice the sum of `half` = df / 2 log uniforms, and a squared
    normal number, the last of `eps`, where df is odd.
    """
    if df == 0.0:
        return 1.0
    chi2 = 0.0
    for c in range(half):
        chi2 -= 2.0 * log_uniforms[at + c]
    if df > 2 * half:
        chi2 += eps[eps.size - 1] * eps[eps.size - 1]
    return np.sqrt(df / chi2)


@helper
def log_proposal_ratio(df, d, square, new_square):
    """``log q(z) - log q(z')`` of independent proposals, from squared distances to the centre."""
    if df == 0.0:
        return 0.5 * (new_square - square)
    return 0.5 * (df + d) * log((df + new_square) / (df + square))


@helper
def run_moves(
    kernels, theta, y, z, proposal, mean, chol, inverse, mode, factor, factor_inverse,
    scales, blocks, steps, tried, accepted, coordinate_rate, coordinate_tries, block_rate,
    block_tries, evaluations, moves, normals, log_uniforms, log_lik, gradient_moves, buffers,
    scratch,
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
        option = moves[move * PER_MOVE + 3]
        if code >= FIRST_GRADIENT:
            n_normal = sweeps * d
            log_lik, at_uniform = gradient_moves(
                kernels, theta, y, z, proposal, mean, inverse, factor, code, sweeps, size, option,
                steps[code - FIRST_GRADIENT], segment(normals, at_normal, n_normal),
                log_uniforms, at_uniform, log_lik, tried, accepted, evaluations, buffers, scratch,
            )  # fmt: skip
            at_normal += n_normal
            prior = -0.5 * distance(z, mean, inverse)
            continue
        parts = d if code == COORDINATE else 1
        used = 1 if code == COORDINATE else d  # normal numbers per proposal
        step = exp(blocks[size - 1]) if code == BLOCK else 1.0
        shape = chol if code == BLOCK and option != 0.0 else factor
        df, half = 0.0, 0
        shrink = 1.0
        square = 0.0
        if code == LAPLACE:
            df, half = option, int(option) // 2
            used += int(option) - 2 * half
            step = moves[move * PER_MOVE + 4]
            shrink = 1.0 / (step * step)
            # The place of the state in the proposals' density, kept while z stays.
            square = shrink * distance(z, mode, factor_inverse)
        for _ in range(sweeps):
            for a in range(parts):
                eps = segment(normals, at_normal, used)
                at_normal += used
                if code == PRIOR:
                    color(eps, mean, chol, proposal)
                elif code == COORDINATE:
                    assign(proposal, z)
                    proposal[a] += exp(scales[a]) * eps[0]
                    coordinate_tries[a] += 1.0
                elif code == BLOCK:
                    block_tries[size - 1] += 1.0
                    if size < d:
                        # Only `size` of the whitened coordinates move: a run from a random one.
                        first = min(d - 1, int(d * exp(log_uniforms[at_uniform])))
                        for drop in range(d - size):
                            eps[(first + drop) % d] = 0.0
                        at_uniform += 1
                    assign(proposal, z)
                    shift_by(shape, step, eps, proposal)
                else:
                    assign(segment(proposal, 0, d), mode)
                    stretch = student_stretch(df, half, eps, log_uniforms, at_uniform)
                    at_uniform += half
                    shift_by(factor, step * stretch, eps, proposal)
                new_lik = log_lik_of(structural, theta, y, proposal, scratch)
                new_prior = -0.5 * distance(proposal, mean, inverse)
                ratio = new_lik - log_lik
                new_square = 0.0
                if code != PRIOR:
                    ratio += new_prior - prior
                if code == LAPLACE:
                    new_square = shrink * distance(proposal, mode, factor_inverse)
                    ratio += log_proposal_ratio(df, d, square, new_square)
                tried[code] += 1.0
                if accepts(log_uniforms[at_uniform], ratio, log_lik, new_lik):
                    assign(z, proposal)
                    log_lik = new_lik
                    prior = new_prior
                    square = new_square
                    accepted[code] += 1.0
                    if code == COORDINATE:
                        coordinate_rate[a] += 1.0
                    elif code == BLOCK:
                        block_rate[size - 1] += 1.0
                at_uniform += 1
    return log_lik
