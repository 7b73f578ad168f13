"""Exact E-steps: the model's own conditional expectation, or its most probable value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from saem._jit import kernel
from saem._types import VISIT, make_visitor
from saem.contract import Model
from saem.estep._base import BoundEStep, EStep

__all__ = ["Classification", "Exact"]


@kernel(VISIT, inner=True)
def visit_exact(kernels, theta, y, record, memory, settings, key, work):
    """Write the exact posterior record with weight one."""
    record[0] = 1.0
    return kernels.expect(theta, y, record[1:], work)


@dataclass(frozen=True)
class Exact(EStep):
    """Exact conditional expectation, for models that know it in closed form."""

    name: ClassVar[str] = "exact"
    needs: ClassVar[str] = "expect"

    def bind(self, model: Model) -> BoundEStep:
        """Bind to a model."""
        self.check(model)
        return BoundEStep(model, make_visitor(visit_exact), n_draws=1, settings=np.zeros(1))


@kernel(VISIT, inner=True)
def visit_classify(kernels, theta, y, record, memory, settings, key, work):
    """Write the most probable latent value with weight one."""
    record[0] = 1.0
    return kernels.classify(theta, y, record[1:], work)


@dataclass(frozen=True)
class Classification(EStep):
    """Most probable latent value, for models whose latent variable is discrete.

    What a full pass gives as log-likelihood is the classification one, ``log p(y, z)``.
    """

    name: ClassVar[str] = "classification"
    needs: ClassVar[str] = "classify"

    def bind(self, model: Model) -> BoundEStep:
        """Bind to a model."""
        self.check(model)
        return BoundEStep(model, make_visitor(visit_classify), n_draws=1, settings=np.zeros(1))
