"""Blocks of the information of a nonlinear mixed-effects model, linearised at the modes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from saem.contract import Array
from saem.nlme._rows import variance_slopes_of
from saem.nlme.priors import prior_information

if TYPE_CHECKING:
    from saem.inference.linearisation import Linearisation
    from saem.nlme.model import NLME

__all__ = ["complete_information", "entries_of", "marginal_information"]


def entries_of(model: NLME) -> tuple[list[tuple[int, int, int]], ...]:
    """Estimated entries (position in the vector, row, column) of beta, Omega, sigma."""
    found: dict[str, list[tuple[int, int, int]]] = {"beta": [], "omega": [], "sigma": []}
    for k, at in enumerate(model.param_index):
        for name, entries in found.items():
            block = model.theta_spec.slices[name]
            if block.start <= at < block.stop:
                shape = model.theta_spec.shapes[name]
                row, column = divmod(at - block.start, shape[-1])
                entries.append((k, row, column))
    return found["beta"], found["omega"], found["sigma"]


def _symmetric_units(model: NLME, entries: list[tuple[int, int, int]]) -> Array:
    """Derivatives of Omega by its estimated entries, shape (n_entries, d, d)."""
    units = np.zeros((len(entries), model.n_coords, model.n_coords))
    for unit, (_, row, column) in zip(units, entries, strict=True):
        for a, b in model.tied_entries(row, column):
            unit[a, b] = unit[b, a] = 1.0
    return units


def marginal_information(model: NLME, theta: Array, lin: Linearisation) -> Array:
    """Expected information of the linearised model, shape (n_params, n_params).

    With ``z = J' S^-1 J`` and ``G = (Omega^-1 + z)^-1`` one has ``V^-1 = S^-1 - S^-1
    J G J' S^-1`` (Woodbury), so that only sums over rows of products of a few
    numbers are needed, never an n_i x n_i matrix.
    """
    beta, omega, sigma = entries_of(model)
    view = model.theta_spec.view(theta)
    random = view["parameter"].astype(int)
    starts, n = lin.rows[:-1], lin.rows.size - 1
    scaled = lin.jacobian / lin.variance[:, None]
    z = np.add.reduceat(scaled[:, :, None] * lin.jacobian[:, None, :], starts)
    precision = z[:, random[:, None], random] + np.linalg.inv(view["omega"])
    inner = np.linalg.inv(precision)
    by_random = z[:, :, random]
    jvj = z - by_random @ inner @ by_random.transpose(0, 2, 1)
    matrix = np.zeros((len(model.param_index),) * 2)

    from saem.inference.linearisation import design_of

    x = design_of(model)
    at = [k for k, _, _ in beta]
    rows, columns = ([e[j] for e in beta] for j in (1, 2))
    weights = x[:, rows]
    block = jvj[:, np.array(columns)[:, None], columns]
    matrix[np.ix_(at, at)] = np.einsum("ia,iab,ib->ab", weights, block, weights)

    units = _symmetric_units(model, omega)
    m = jvj[:, random[:, None], random]
    products = m[None] @ units[:, None]
    at = [k for k, _, _ in omega]
    matrix[np.ix_(at, at)] = 0.5 * np.einsum("aijk,bikj->ab", products, products)

    slopes = variance_slopes_of(model, theta, lin.f)
    lean = scaled[:, random]
    # Rows of V^-1 J, and of S^-1 J R with R R' = G.
    owner = np.repeat(np.arange(n), np.diff(lin.rows))
    vj = lean - np.einsum("jc,jca->ja", lean, (inner @ z[:, random[:, None], random])[owner])
    rotated = np.einsum("jc,jca->ja", lean, np.linalg.cholesky(inner)[owner])
    leverage = np.square(rotated).sum(axis=1)
    inverse = 1.0 / lin.variance
    pairs = {
        c: np.add.reduceat(
            slopes[c][:, None, None] * rotated[:, :, None] * rotated[:, None, :], starts
        )
        for _, _, c in sigma
    }
    for k, _, c in sigma:
        outer = (slopes[c][:, None] * vj).T @ vj
        for j, (h, _, _) in enumerate(omega):
            matrix[k, h] = matrix[h, k] = 0.5 * np.sum(outer * units[j])
        for h, _, e in sigma:
            full = np.sum(slopes[c] * slopes[e] * inverse * (inverse - 2.0 * leverage))
            matrix[k, h] = 0.5 * (full + np.sum(pairs[c] * pairs[e]))
    return matrix + prior_information(model, theta)


def complete_information(model: NLME, theta: Array, lin: Linearisation) -> Array:
    """Expected information of the complete data, shape (n_params, n_params).

    Closed form for the distribution of the random effects; for parameters without
    random effect and residual parameters from the linearised predictions.
    """
    from saem.inference.linearisation import design_of

    beta, omega, sigma = entries_of(model)
    view = model.theta_spec.view(theta)
    n, x = model.n_individuals, design_of(model)
    inverse = np.linalg.inv(view["omega"])
    position = view["position"].astype(int)
    matrix = np.zeros((len(model.param_index),) * 2)
    owner = np.repeat(np.arange(n), np.diff(lin.rows))
    for k, j, a in beta:
        for h, i, b in beta:
            if position[a] >= 0 and position[b] >= 0:
                weight = inverse[position[a], position[b]]
                matrix[k, h] = weight * np.sum(x[:, j] * x[:, i])
            elif position[a] < 0 and position[b] < 0:
                slopes = lin.jacobian[:, a] * lin.jacobian[:, b] / lin.variance
                matrix[k, h] = np.sum(slopes * x[owner, j] * x[owner, i])
    products = inverse @ _symmetric_units(model, omega)
    at = [k for k, _, _ in omega]
    matrix[np.ix_(at, at)] = 0.5 * n * np.einsum("aij,bji->ab", products, products)
    slopes = variance_slopes_of(model, theta, lin.f)
    for k, _, c in sigma:
        for h, _, e in sigma:
            matrix[k, h] = 0.5 * np.sum(slopes[c] * slopes[e] / lin.variance**2)
    return matrix + prior_information(model, theta)
