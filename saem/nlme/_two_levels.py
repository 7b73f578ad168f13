"""What a model knows of its two levels of random effects: of subjects, and of their occasions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.nlme._records import omega_pattern_of

if TYPE_CHECKING:
    from saem.estep import BoundEStep
    from saem.nlme.occasions import Occasions

__all__ = ["TwoLevels"]


class TwoLevels:
    """The part of `saem.nlme.model.NLME` that looks after inter-occasion variability.

    Random coordinates are those of a subject, then those of its occasions, one after the other.
    """

    occasions: Occasions | None
    random_names: list[str]
    n_coords: int

    def _pattern(self, omega: Any, gamma: Any) -> Array:
        """Entries of the covariance that are estimated: Omega, then Gamma for every occasion."""
        if self.occasions is None:
            return omega_pattern_of(omega, self.random_names)
        d, k = len(self.random_names), len(self.occasions.sds)
        first = d - k * self.occasions.number
        pattern = np.zeros((d, d))
        pattern[:first, :first] = omega_pattern_of(omega, self.random_names[:first])
        block = omega_pattern_of(gamma, list(self.occasions.sds), "gamma")
        for a in range(first, d, max(k, 1)):
            pattern[a : a + k, a : a + k] = block
        return pattern

    @property
    def n_subject_coords(self) -> int:
        """Random coordinates of a subject, which come before those of its occasions."""
        occasions = self.occasions
        return self.n_coords - (len(occasions.sds) * occasions.number if occasions else 0)

    @property
    def quadrature_coords(self) -> int:
        """Random effects of a subject and of one occasion: what quadrature integrates at a time."""
        return self.n_subject_coords + (len(self.occasions.sds) if self.occasions else 0)

    @property
    def quadrature_parts(self) -> int:
        """How often it does so."""
        return self.occasions.number if self.occasions else 1

    def nested_quadrature(self, n_nodes: int) -> BoundEStep:
        """Bind the quadrature that integrates occasion by occasion; see `saem.nlme._nested`."""
        from saem.nlme._nested import bind_nested

        return bind_nested(self, n_nodes)  # type: ignore[arg-type]

    def tied(self, a: int) -> list[int]:
        """Random coordinates that share the variance of coordinate a, itself included."""
        return [row for row, _ in self.tied_entries(a, a)]

    def tied_entries(self, a: int, b: int) -> list[tuple[int, int]]:
        """Entries of the covariance that are the same number as entry (a, b), itself included."""
        if self.occasions is None:
            return [(a, b)]
        k, number, first = len(self.occasions.sds), self.occasions.number, self.n_subject_coords
        if a < first:
            return [(a, b)]
        i, j = (a - first) % k, (b - first) % k
        return [(first + o * k + i, first + o * k + j) for o in range(number)]
