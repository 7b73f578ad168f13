"""Compiled loops of inference: visits of individuals, predictions, linearisation.

`visit_range` serves every model; the others know the layout of a nonlinear
mixed-effects model (`saem.nlme._kernels`). Rows are
stacked individual by individual; individual i has ``rows[i]:rows[i + 1]``.
"""

from __future__ import annotations

import numpy as np
from numba import int64, uint64, void

from saem._borrow import as_matrix, borrow
from saem._jit import kernel
from saem._linalg import assign
from saem._loop import start_of
from saem._types import INDEX, KERNELS, MATRIX, VECTOR, VISITOR, unpack
from saem.nlme._kernels import EXPONENTIAL, columns_of, fitted, natural_slope, to_natural
from saem.nlme._layout import blocks, code_of, endpoints_of, rows_of
from saem.random import stream

__all__ = ["linearise_rows", "log_lik_of_records", "visit_range"]


@kernel(
    void(
        KERNELS, VISITOR, VECTOR, INDEX, VECTOR, MATRIX, MATRIX, VECTOR,
        uint64, int64, int64, int64, VECTOR,
    ),
    deferred=True,
)  # fmt: skip
def visit_range(
    kernels, visitor, values, offsets, theta, records, memories, settings,
    seed, iteration, first, work_size, out,
):  # fmt: skip
    """Visit the individuals first, first + 1, ... one for each entry of `out`.

    Records, memories and `out` have a row for each of these, in that order;
    `out` receives what the visits return.
    """
    functions, visit = unpack(kernels), visitor.visit
    own_work = np.empty(max(1, work_size))
    values, theta, settings = borrow(values), borrow(theta), borrow(settings)
    work, records, memories = borrow(own_work), borrow(records), borrow(memories)
    for r in range(out.size):
        i = first + r
        y = values[start_of(offsets, i) : start_of(offsets, i + 1)]
        key = stream(seed, i, iteration)
        out[r] = visit(functions, theta, y, records[r], memories[r], settings, key, work)
    own_work[0] = out.size  # the owner lives until here


@kernel(void(KERNELS, VECTOR, INDEX, VECTOR, MATRIX, MATRIX, INDEX, VECTOR, MATRIX), deferred=True)
def linearise_rows(kernels, values, offsets, theta, phi, steps, rows, f, jacobian):
    """Predictions at phi and their derivatives by phi, exact ones where the model has them.

    Central differences elsewhere, with the given steps. Log predictions where the error model of
    the endpoint is exponential. phi and steps have a row for each individual and a column for each
    parameter, random or not.
    """
    longest = 0
    for i in range(phi.shape[0]):
        longest = max(longest, rows[i + 1] - rows[i])
    own_psi, own_shifted = np.empty(phi.shape[1]), np.empty(longest)
    own_slopes = np.empty(phi.shape[1] * longest)
    psi, shifted, stored = borrow(own_psi), borrow(own_shifted), borrow(own_slopes)
    values, theta, phi, steps = borrow(values), borrow(theta), borrow(phi), borrow(steps)
    f, jacobian = borrow(f), borrow(jacobian)
    functions = unpack(kernels)
    structural = functions.structural
    transform, lower, upper = blocks(theta)[:3]
    p = phi.shape[1]
    for i in range(phi.shape[0]):
        y = values[start_of(offsets, i) : start_of(offsets, i + 1)]
        start, n = rows[i], rows[i + 1] - rows[i]
        columns = columns_of(y, int(theta[2]), int(theta[4]))
        for m in range(p):
            psi[m] = to_natural(transform[m], lower[m], upper[m], phi[i, m])
        structural(psi, columns, f[start : start + n])
        slopes = as_matrix(stored, p, n)
        functions.jacobian(psi, columns, shifted[:n], slopes)
        exact = np.isfinite(slopes[0, 0])
        for m in range(p if exact else 0):
            by_phi = natural_slope(transform[m], lower[m], upper[m], phi[i, m], psi[m])
            for j in range(n):
                jacobian[start + j, m] = slopes[m, j] * by_phi
        at_row = start
        for e in range(endpoints_of(y)):
            code = code_of(theta, e)
            for j in range(at_row, at_row + rows_of(y, e)):
                for m in range(p if exact and code == EXPONENTIAL else 0):
                    jacobian[j, m] /= f[j]
                f[j] = fitted(code, f[j])
            at_row += rows_of(y, e)
        for m in range(0 if exact else p):
            at = psi[m]
            # The numbers that are really taken, not those that were asked for.
            up, down = phi[i, m] + steps[i, m], phi[i, m] - steps[i, m]
            for sign in (1.0, -1.0):
                psi[m] = to_natural(transform[m], lower[m], upper[m], up if sign > 0.0 else down)
                structural(psi, columns, shifted[:n])
                at_row = 0
                for e in range(endpoints_of(y)):
                    code = code_of(theta, e)
                    for j in range(at_row, at_row + rows_of(y, e)):
                        value = sign * fitted(code, shifted[j]) / (up - down)
                        if sign > 0.0:
                            jacobian[start + j, m] = value
                        else:
                            jacobian[start + j, m] += value
                    at_row += rows_of(y, e)
            psi[m] = at
    own_psi[0] = own_shifted[0] = own_slopes[0] = 0.0  # the owners live until here


@kernel(void(KERNELS, VECTOR, INDEX, VECTOR, MATRIX, int64, int64, int64, MATRIX), deferred=True)
def log_lik_of_records(
    kernels, values, offsets, theta, records, first, latent_size, work_size, out
):
    """Log p(y | draw) of all draws of the records of individuals first, first + 1, ..."""
    functions = unpack(kernels)
    own_work, own_latent = np.empty(max(1, work_size)), np.empty(latent_size)
    work, latent = borrow(own_work), borrow(own_latent)
    values, theta, records = borrow(values), borrow(theta), borrow(records)
    width = 1 + latent_size
    for r in range(out.shape[0]):
        y = values[start_of(offsets, first + r) : start_of(offsets, first + r + 1)]
        for m in range(out.shape[1]):
            assign(latent, records[r, m * width + 1 : (m + 1) * width])
            out[r, m] = functions.log_lik(functions.structural, theta, y, latent, work)
    own_work[0] = own_latent.size  # the owners live until here
