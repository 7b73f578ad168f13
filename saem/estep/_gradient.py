"""Moves along the gradient of the log posterior: Langevin diffusions and Hamiltonian dynamics.

All work in coordinates x with ``z = z0 + factor x``, factor that of the Laplace covariance: there
the posterior is nearly a standard normal one, and one step size serves all directions.

The slope of the prior is exact, and so is that of the likelihood where the model has exact
derivatives; elsewhere it is a central difference of the one compiled log-likelihood. These
moves leave the posterior invariant whatever the error of the slope: the proposal's density forth
and back is computed with the same function of the state, and leapfrog steps keep volume and can be
reversed in any field of forces. An error costs acceptance, nothing else. For the same reason
slopes may be cut off where the posterior is very steep, and set to 0 where they are not finite.
"""

from __future__ import annotations

import numpy as np

from saem._borrow import as_matrix, segment
from saem._jit import helper, routine
from saem._linalg import assign
from saem._math import exp, log
from saem.estep._layout import HAMILTONIAN
from saem.estep._proposals import accepts, distance, shift_by

__all__ = ["gradient_moves", "no_gradient_moves"]

#: Step of the differences, in posterior standard deviations, and largest slope in their inverse.
_STEP, _STEEPEST = 1e-3, 10.0
#: What an exact gradient counts for in evaluations of the likelihood: what it costs, or more.
_EXACT = 3.0


@routine
def slopes(kernels, theta, y, z, mean, inverse, factor, shifted, back, grad, scratch):
    """Gradient of the log posterior by x, cut off at `_STEEPEST`; returns what it cost.

    ``d/dx_a = F_a' (dl/dz - Omega^-1 (z - mean))``, F_a a column of the factor and l the
    log-likelihood, whose slope is ``(l(z + h F_a) - l(z - h F_a)) / (2 h)`` where the model has no
    exact one. Its cost is in evaluations of l.
    """
    d = mean.size
    assign(shifted, z)
    by_z = segment(scratch, 0, d)
    information = as_matrix(segment(scratch, d, d * d), d, d)
    own = segment(scratch, d + d * d, scratch.size - d - d * d)
    exact = np.isfinite(
        kernels.gradient(
            kernels.structural, kernels.jacobian, theta, y, shifted, own, by_z, information
        )
    )
    for a in range(d):
        x = 0.0
        for b in range(a + 1):
            x += inverse[a, b] * (z[b] - mean[b])
        back[a] = x
    for a in range(d):  # in place: row a uses entries from a on
        x = 0.0
        for b in range(a, d):
            x += inverse[b, a] * back[b]
        back[a] = x
    for a in range(d):
        slope = 0.0
        for b in range(a, d):
            slope -= factor[b, a] * back[b]
            if exact:
                slope += factor[b, a] * by_z[b]
        if not exact:
            for b in range(a, d):
                shifted[b] = z[b] + _STEP * factor[b, a]
            up = kernels.log_lik(kernels.structural, theta, y, shifted, own)
            for b in range(a, d):
                shifted[b] = z[b] - _STEP * factor[b, a]
            down = kernels.log_lik(kernels.structural, theta, y, shifted, own)
            for b in range(a, d):
                shifted[b] = z[b]
            slope += (up - down) / (2.0 * _STEP)
        if not np.isfinite(slope):
            slope = 0.0
        grad[a] = min(max(slope, -_STEEPEST), _STEEPEST)
    return _EXACT if exact else 2.0 * d


@helper
def langevin_move(step, bound, grad, eps, move):
    """Displacement ``h/2 gamma D + sqrt(h gamma) eps`` with ``gamma = b / max(b, |D|)``."""
    for a in range(grad.size):
        scaled = step * bound / max(bound, abs(grad[a]))
        move[a] = 0.5 * scaled * grad[a] + np.sqrt(scaled) * eps[a]


@helper
def langevin_correction(step, bound, grad, new_grad, eps, move):
    """``log q(x | x') - log q(x' | x)``, the determinants of both covariances included."""
    total = 0.0
    for a in range(grad.size):
        scaled = step * bound / max(bound, abs(grad[a]))
        new_scaled = step * bound / max(bound, abs(new_grad[a]))
        back = move[a] + 0.5 * new_scaled * new_grad[a]
        total += 0.5 * (eps[a] * eps[a] - back * back / new_scaled)
        total += 0.5 * log(scaled / new_scaled)
    return total


@routine
def gradient_moves(
    kernels, theta, y, z, proposal, mean, inverse, factor, code, sweeps, size, bound,
    log_step, normals, log_uniforms, at_uniform, log_lik, tried, accepted, evaluations,
    buffers, scratch,
):  # fmt: skip
    """Sweeps of one kind of gradient move of one chain; z is updated in place.

    Takes and returns ``log p(y | z)`` of the state and the next position of `log_uniforms`.
    """
    d = mean.size
    grad, new_grad = segment(buffers, 0, d), segment(buffers, d, d)
    move, back = segment(buffers, 2 * d, d), segment(buffers, 3 * d, d)
    shifted = segment(buffers, 4 * d, z.size)
    prior = -0.5 * distance(z, mean, inverse)
    evaluations[0] += slopes(
        kernels, theta, y, z, mean, inverse, factor, shifted, back, grad, scratch
    )
    for sweep in range(sweeps):
        eps = segment(normals, sweep * d, d)
        assign(proposal, z)
        correction = 0.0
        if code == HAMILTONIAN:
            # Trajectories of at most a quarter turn of a normal posterior; steps of random
            # length have no period.
            step = min(exp(log_step), 0.5 * np.pi / size)
            step *= 0.8 + 0.4 * exp(log_uniforms[at_uniform])
            at_uniform += 1
            for a in range(d):
                move[a] = eps[a] + 0.5 * step * grad[a]
            for leap in range(size):
                shift_by(factor, step, move, proposal)
                evaluations[0] += slopes(
                    kernels, theta, y, proposal, mean, inverse, factor, shifted, back, new_grad,
                    scratch,
                )  # fmt: skip
                kick = step if leap < size - 1 else 0.5 * step
                for a in range(d):
                    move[a] += kick * new_grad[a]
            for a in range(d):
                correction += 0.5 * (eps[a] * eps[a] - move[a] * move[a])
        else:
            step = exp(log_step)
            langevin_move(step, bound, grad, eps, move)
            shift_by(factor, 1.0, move, proposal)
            evaluations[0] += slopes(
                kernels, theta, y, proposal, mean, inverse, factor, shifted, back, new_grad,
                scratch,
            )  # fmt: skip
            correction = langevin_correction(step, bound, grad, new_grad, eps, move)
        new_lik = kernels.log_lik(kernels.structural, theta, y, proposal, scratch)
        new_prior = -0.5 * distance(proposal, mean, inverse)
        tried[code] += 1.0
        evaluations[0] += 1.0
        ratio = new_lik + new_prior - log_lik - prior + correction
        if accepts(log_uniforms[at_uniform], ratio, log_lik, new_lik):
            assign(z, proposal)
            assign(grad, new_grad)
            log_lik = new_lik
            prior = new_prior
            accepted[code] += 1.0
        at_uniform += 1
    return log_lik, at_uniform


@helper
def no_gradient_moves(
    kernels, theta, y, z, proposal, mean, inverse, factor, code, sweeps, size, bound,
    log_step, normals, log_uniforms, at_uniform, log_lik, tried, accepted, evaluations,
    buffers, scratch,
):  # fmt: skip
    """Stand for `gradient_moves` where there are none, which then need not be compiled."""
    return log_lik, at_uniform
