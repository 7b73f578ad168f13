"""The two faces of an E-step: what a user chooses, and what is bound to one model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from saem.contract import Array, Model
from saem.exceptions import OptionError

__all__ = ["BoundEStep", "EStep", "VisitAll"]

#: ``visit_all(visitor, settings)`` visits every individual, on threads where that pays.
VisitAll = Callable[[Any, Array], None]


class BoundEStep:
    """An E-step bound to a model: one compiled visitor and the arrays it needs.

    A visit writes a record: ``n_draws`` weighted draws of ``1 + latent_size``
    numbers each, the weights summing to one. ``memories[i]`` is what the
    E-step itself remembers of individual i (chains, scales, modes).

    Parameters
    ----------
    model : Model
    visitor
        Compiled function that visits one individual.
    n_draws : int
        Draws of a record.
    settings : ndarray
        Numbers the visitor needs.
    memory_size, work_size : int
        Numbers it remembers of an individual, and scratch numbers.
    """

    def __init__(
        self,
        model: Model,
        visitor: Any,
        *,
        n_draws: int,
        settings: Array,
        memory_size: int = 0,
        work_size: int = 0,
    ) -> None:
        self.model = model
        self.visitor = visitor
        self.n_draws = n_draws
        self.settings = settings
        self.memories = np.zeros((model.n_individuals, memory_size))
        self.work_size = work_size + model.work_size

    @property
    def evals(self) -> int:
        """E-evaluations of one visit: simulated statistics, or 1 where none are simulated."""
        return 1

    #: Whether records keep their length over the iterations.
    constant_size: bool = True

    @property
    def record_size(self) -> int:
        """Length of one record."""
        return self.n_draws * (1 + self.model.latent_size)

    def before(self, k: int, gamma: float, visit_all: VisitAll) -> None:
        """Prepare iteration k, whose step is gamma; called once before its visits."""

    def after(self, k: int) -> None:
        """Finish iteration k; called once after its visits."""

    def info(self) -> dict[str, Any]:
        """What there is to report of the sampler, for the record of the fit."""
        return {}


class EStep(ABC):
    """An E-step as a user names it."""

    name: ClassVar[str]
    #: What the model must be capable of.
    needs: ClassVar[str]
    #: Whether a full pass yields the exact log-likelihood as well.
    gives_loglik: ClassVar[bool] = True

    @abstractmethod
    def bind(self, model: Model) -> BoundEStep:
        """Bind to a model."""

    def check(self, model: Model) -> None:
        """Raise `OptionError` if the model lacks what this E-step needs."""
        if self.needs not in model.capabilities:
            raise OptionError(
                f"the {self.name} E-step needs a model with {self.needs!r}; "
                f"{model.name} offers {sorted(model.capabilities)}. Remedy: choose another E-step "
                "or an algorithm that uses one."
            )
