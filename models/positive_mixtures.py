"""Mixtures of positive variables, exponential or gamma, independent given the component."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem.contract import Array

from .column_mixture import StackedMixture

__all__ = ["ExponentialMixture", "GammaMixture"]


class ExponentialMixture(StackedMixture):
    """Mixture of independent exponential variables.

    `components` has ``weights`` (k,) and ``scales`` (k, n_features), the means.

    ``p(x) = sum_c w_c prod_j exp(-x_j / m_cj) / m_cj``; with responsibilities r the M-step is
    ``m_cj = sum_i r_ic x_ij / sum_i r_ic``.

    [common parameters]

    References
    ----------
    McLachlan, G. J. and Peel, D. (2000). Finite Mixture Models. Wiley.

    Examples
    --------
    >>> model = ExponentialMixture([[0.1], [0.2], [0.1], [7.0], [9.0], [4.0]], 2)
    >>> model.n_params
    3
    """

    name: ClassVar[str] = "exponential mixture"
    family: ClassVar[str] = "exponential"

    @staticmethod
    def simulate(
        rng: np.random.Generator,
        n: int = 1000,
        *,
        weights: ArrayLike = (0.4, 0.6),
        scales: ArrayLike = ((1.0, 8.0), (10.0, 1.0)),
    ) -> tuple[Array, NDArray[np.intp]]:
        """Simulate rows of shape (n, n_features), and their components."""
        scales = np.asarray(scales, dtype=float)
        labels = rng.choice(len(scales), size=n, p=np.asarray(weights, dtype=float))
        return rng.exponential(scales[labels]), labels

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> Self:
        """Small simulated instance that starts near the truth."""
        start = {"weights": (0.45, 0.55), "scales": ((1.2, 7.0), (9.0, 1.2))}
        return cls(cls.simulate(rng, n)[0], 2, init=start)


class GammaMixture(StackedMixture):
    """Mixture of independent gamma variables.

    `components` has ``weights`` (k,), ``shapes`` and ``scales`` (k, n_features); the mean
    is shape times scale. The shape of the M-step solves ``log a - digamma(a) = log mean(x) -
    mean(log x)`` by Newton's method.

    ``p(x) = sum_c w_c prod_j Gamma(x_j; shape a_cj, scale b_cj)``; means are weighted by
    responsibilities, and ``b = mean(x) / a``.

    [common parameters]

    References
    ----------
    Choi, S. C. and Wette, R. (1969). Maximum likelihood estimation of the parameters of the
    gamma distribution and their bias. Technometrics 11, 683-690.

    Examples
    --------
    >>> model = GammaMixture([[0.1], [0.2], [0.15], [7.0], [9.0], [8.0]], 2)
    >>> model.n_params
    5
    """

    name: ClassVar[str] = "gamma mixture"
    family: ClassVar[str] = "gamma"

    @staticmethod
    def simulate(
        rng: np.random.Generator,
        n: int = 1000,
        *,
        weights: ArrayLike = (0.4, 0.6),
        shapes: ArrayLike = ((2.0, 6.0), (5.0, 1.5)),
        scales: ArrayLike = ((1.0, 2.0), (2.0, 1.0)),
    ) -> tuple[Array, NDArray[np.intp]]:
        """Simulate rows of shape (n, n_features), and their components."""
        shapes, scales = np.asarray(shapes, dtype=float), np.asarray(scales, dtype=float)
        labels = rng.choice(len(shapes), size=n, p=np.asarray(weights, dtype=float))
        return rng.gamma(shapes[labels], scales[labels]), labels

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> Self:
        """Small simulated instance that starts near the truth."""
        start = {
            "weights": (0.45, 0.55),
            "shapes": ((2.2, 5.0), (4.5, 1.6)),
            "scales": ((1.0, 2.2), (2.2, 1.0)),
        }
        return cls(cls.simulate(rng, n)[0], 2, init=start)
