"""Calls of a model's compiled functions from Python: for single values, not for loops."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float64, int64, void

from saem._jit import kernel
from saem._types import KERNELS, VECTOR
from saem.contract import Array

__all__ = ["accumulate", "maximize", "project", "surrogate"]


@kernel(int64(KERNELS, VECTOR, VECTOR), deferred=True)
def _maximize(kernels, s, theta):
    return kernels.maximize(s, theta)


@kernel(void(KERNELS, VECTOR, VECTOR), deferred=True)
def _project(kernels, s, theta):
    kernels.project(s, theta)


@kernel(void(KERNELS, float64, VECTOR, VECTOR, VECTOR), deferred=True)
def _accumulate(kernels, weight, y, latent, s):
    kernels.accumulate(weight, y, latent, s)


@kernel(float64(KERNELS, VECTOR, VECTOR), deferred=True)
def _surrogate(kernels, s, theta):
    return kernels.surrogate(s, theta)


def accumulate(kernels: Any, weight: float, y: Array, latent: Array, s: Array) -> None:
    """Add ``weight S(y, latent)`` to s."""
    _accumulate(kernels, weight, np.ascontiguousarray(y), latent, s)


def maximize(kernels: Any, s: Array, theta: Array) -> tuple[int, Array]:
    """Code of the M-step and the parameters it gives, beginning from a copy of theta."""
    new = theta.copy()
    return int(_maximize(kernels, s, new)), new


def project(kernels: Any, s: Array, theta: Array) -> Array:
    """Statistic made admissible."""
    new = s.copy()
    _project(kernels, new, theta)
    return new


def surrogate(kernels: Any, s: Array, theta: Array) -> float:
    """Value of ``<s, phi(theta)> - psi(theta)``."""
    return float(_surrogate(kernels, s, theta))
