"""A scale for the estimated numbers on which all but covariances are unbounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from saem.contract import Array

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = ["WorkingScale"]


class WorkingScale:
    """Logarithms of variances and residual scales; everything else on the Gaussian scale.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters that hold what is not estimated.
    """

    def __init__(self, model: NLME, theta: Array) -> None:
        self.model, self.base = model, theta
        self.logged = np.array([kind in ("variance", "residual") for kind in model.param_kind])

    def to_working(self, numbers: Array) -> Array:
        """From the estimation scale."""
        safe = np.where(self.logged, np.maximum(numbers, 1e-300), 1.0)
        return np.where(self.logged, np.log(safe), numbers)

    def to_numbers(self, working: Array) -> Array:
        """Back to the estimation scale."""
        bounded = np.where(self.logged, np.clip(working, -700.0, 700.0), 0.0)
        return np.where(self.logged, np.exp(bounded), working)

    def theta(self, working: Array) -> Array | None:
        """Packed parameters; None where Omega is not positive definite or not finite."""
        numbers = self.to_numbers(working)
        new = self.base.copy()
        new[self.model.param_index] = numbers
        omega = self.model.theta_spec.view(new)["omega"]
        lower = np.tril(omega)
        full = lower + np.tril(lower, -1).T
        if not np.isfinite(numbers).all():
            return None
        if len(full) and not np.linalg.eigvalsh(full)[0] > 0.0:
            return None
        return self.model.with_estimates(self.base, numbers)

    def slope(self, working: Array) -> Array:
        """Derivative of the estimation scale by the working scale, elementwise.

        Vectors may be stacked along the first axis.
        """
        return np.where(self.logged, self.to_numbers(working), 1.0)
