"""Weighted draws from every individual's posterior, and the complete-data scores there.

By quadrature where the random effects are few: then nothing here is random.
By Markov chains that start at the modes elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from saem.contract import Array, Model
from saem.estep import Quadrature
from saem.inference import _kernels
from saem.inference._visits import visit_blocks
from saem.inference.information import entries_of
from saem.inference.linearisation import design_of

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = ["nodes_for", "quadrature_records", "scores"]

#: Nodes per random effect, by their number.
_NODES = {0: 1, 1: 15, 2: 11, 3: 9, 4: 5}


def nodes_for(d: int) -> int | None:
    """Nodes per random effect for posterior moments, None where they are too many."""
    return _NODES.get(d)


def quadrature_records(
    model: Model, theta: Array, n_nodes: int, n_threads: int | None = None
) -> Iterator[tuple[slice, Array]]:
    """Records of weighted nodes, some individuals at a time.

    A first pass finds the posterior moments, a second is centred there.

    Yields
    ------
    rows : slice
        Individuals.
    records : ndarray of shape (n, n_nodes ** d * (1 + latent_size))
    """
    bound = Quadrature(n_nodes).bind(model)
    options = {
        "settings": bound.settings, "work_size": bound.work_size - model.work_size,
        "record_size": bound.record_size, "n_threads": n_threads,
    }  # fmt: skip
    for _ in visit_blocks(model, bound.visitor, theta, memories=bound.memories, **options):
        pass
    for rows, records, _ in visit_blocks(
        model, bound.visitor, theta, memories=bound.memories, **options
    ):
        yield rows, records


def split(model: Model, records: Array) -> tuple[Array, Array]:
    """Weights (n, m) and latent draws (n, m, latent_size) of records."""
    parts = records.reshape(len(records), -1, 1 + model.latent_size)
    return parts[:, :, 0], parts[:, :, 1:]


def scores(model: NLME, theta: Array, records: Array, rows: slice) -> Array:
    """Scores of the complete data of each individual at each of its draws.

    Closed form for the distribution of the random effects and the residual scale;
    central differences of ``log p(y | z)`` for the other parameters.

    Returns
    -------
    ndarray of shape (n, m, n_params)
    """
    beta, omega, sigma = entries_of(model)
    view = model.theta_spec.view(theta)
    d = model.n_coords
    _, latent = split(model, records)
    x = design_of(model)[rows]
    random = view["parameter"].astype(int)
    places = {int(p): a for a, p in enumerate(random)}
    residual = latent[:, :, :d] - (x @ view["beta"][:, random])[:, None]
    inverse = np.linalg.inv(view["omega"])
    lean = residual @ inverse
    n_obs = model.individuals.n_obs[rows]
    score = np.zeros((*latent.shape[:2], len(model.param_names)))
    for k, row, column in beta:
        if column in places:
            score[:, :, k] = x[:, row, None] * lean[:, :, places[column]]
    for k, row, column in omega:
        value = lean[:, :, row] * lean[:, :, column] - inverse[row, column]
        score[:, :, k] = value * (0.5 if row == column else 1.0)
    for k, _, c in sigma:
        scale = view["sigma"][c]
        score[:, :, k] = latent[:, :, d] / scale**3 - n_obs[:, None] / scale
    for entry in model.numerical_entries:
        k = model.param_index.index(entry)
        step = 1e-5 * max(abs(theta[entry]), 1e-3)
        sides = []
        for sign in (1.0, -1.0):
            shifted = theta.copy()
            shifted[entry] += sign * step
            out = np.empty(latent.shape[:2])
            _kernels.log_lik_of_records(
                model.kernels, model.values, model.offsets, shifted, records, rows.start,
                model.latent_size, model.work_size, out,
            )  # fmt: skip
            sides.append(out)
        score[:, :, k] = (sides[0] - sides[1]) / (2.0 * step)
    return score
