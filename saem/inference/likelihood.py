"""Log-likelihood of the observed data."""
from __future__ import annotations

import numpy as np

from saem._types import make_visitor
from saem.contract import Array, Model
from saem.estep import Quadrature
from saem.estep.quadrature import visit_quadrature
from saem.inference._visits import visit_blocks


class QuadratureRule:
    """Log-likelihood as a function of theta, by adaptive quadrature with fixed nodes.

    The modes of the first evaluation are the starts of all later ones, so that
    the value does not depend on what was evaluated in between.
    """

    def __init__(self, model: Model, n_nodes: int, n_threads: int | None = None) -> None:
        self.model, self.n_threads = model, n_threads
        self.bound = Quadrature(n_nodes).bind(model)
        self.start: Array | None = None

    def contributions(self, theta: Array) -> Array:
        """Log-likelihood of every individual."""
        bound = self.bound
        memories = bound.memories if self.start is None else self.start.copy()
        values = np.empty(self.model.n_individuals)
        for rows, _, part in visit_blocks(
            self.model, bound.visitor, theta, settings=bound.settings, memories=memories,
            record_size=bound.record_size, work_size=bound.work_size - self.model.work_size,
            n_threads=self.n_threads,
        ):  # fmt: skip
            values[rows] = part
        if self.start is None:
            self.start = memories
        return values

    def __call__(self, theta: Array) -> float:
        """Log-likelihood."""
        return float(self.contributions(theta).sum())
