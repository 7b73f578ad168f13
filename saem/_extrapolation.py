"""Linear algebra of extrapolation: the metric of statistics, and the coefficients of steps.

Symbols are those of `saem.acceleration`.
"""

from __future__ import annotations

import numpy as np
from numba import float64

from saem._jit import kernel
from saem._types import KERNELS, VECTOR, unpack
from saem.contract import Array, Model

__all__ = ["LEAST_FRACTION", "damped", "has_slope", "natural", "projected", "weights"]

#: Observed fractions of information below this are taken for noise: no extrapolation there.
LEAST_FRACTION = 1e-6
#: How far, relatively, a surrogate may be from affine in s.
_AFFINE = 1e-8
#: Steps count as dependent where the eigenvalues of their products fall below this.
_INDEPENDENT = 1e-13


@kernel(float64(KERNELS, VECTOR, VECTOR, VECTOR), deferred=True)
def _slope(kernels, theta, s, out):
    """Slope of the surrogate in s, coordinate by coordinate; returns its value at s = 0."""
    functions = unpack(kernels)
    probe = np.zeros(s.size)
    base = functions.surrogate(probe, theta)
    for j in range(s.size):
        # Probed at the size of the coordinate, so that rounding is relative to its share.
        size = abs(s[j]) if s[j] != 0.0 else 1.0
        probe[j] = size
        out[j] = (functions.surrogate(probe, theta) - base) / size
        probe[j] = 0.0
    return base


@kernel(float64(KERNELS, VECTOR, VECTOR), deferred=True)
def _surrogate(kernels, s, theta):
    """Value of the model's surrogate."""
    return unpack(kernels).surrogate(s, theta)


def natural(model: Model, theta: Array, s: Array) -> Array:
    """Natural parameters phi(theta), in the order of the statistic; s tells the sizes."""
    phi = np.empty(s.size)
    _slope(model.kernels, theta, s, phi)
    return phi


def has_slope(model: Model, theta: Array, s: Array) -> bool:
    """Whether the model's surrogate can be asked for phi: it is there, finite and affine."""
    if "surrogate" not in model.capabilities:
        return False
    phi = np.empty(s.size)
    base = _slope(model.kernels, theta, s, phi)
    value = _surrogate(model.kernels, s, theta)
    size = abs(base) + float(np.abs(phi * s).sum())
    return bool(abs(base + phi @ s - value) <= _AFFINE * size)


def weights(scale: Array, s: Array) -> Array:
    """Diagonal metric: one over the squared largest change; 0 for what only rounding moves."""
    moves = scale > 1e-12 * np.abs(s)
    return np.where(moves, 1.0, 0.0) / np.where(moves, scale, 1.0) ** 2


def projected(
    steps: Array, changes: Array, duals: Array, f: Array, limit: float
) -> tuple[Array, float, float]:
    """Coefficients g of the projected equations ``DS' V^-1 (f - DF g) = 0``.

    Parameters
    ----------
    steps, changes, duals : ndarray of shape (m, q)
        Steps ds, the changes of f along them, and ``V^-1 ds``.
    f : ndarray of shape (q,)
    limit : float
        An EM step is lengthened at most so many times in any direction.

    Returns
    -------
    g : ndarray of shape (m,)
    least : float
        Least observed fraction of information among the directions, in (0, 1].
    used : float
        How many times an EM step is lengthened at most.
    """
    complete, observed = duals @ steps.T, -(duals @ changes.T)
    complete, observed = 0.5 * (complete + complete.T), 0.5 * (observed + observed.T)
    # Steps of one length: those of a cycle differ by orders of magnitude.
    lengths = np.sqrt(np.maximum(np.diag(complete), np.finfo(float).tiny))
    complete /= np.outer(lengths, lengths)
    if not (np.all(np.isfinite(complete)) and np.all(np.isfinite(observed))):
        return np.zeros(len(steps)), 1.0, 1.0
    values, vectors = np.linalg.eigh(complete)
    good = values > _INDEPENDENT * max(values[-1], 0.0)
    basis = (vectors[:, good] / np.sqrt(values[good])) / lengths[:, None]
    fraction, rotation = np.linalg.eigh(basis.T @ observed @ basis)
    basis = basis @ rotation
    concave = fraction > LEAST_FRACTION
    divisor = np.where(concave, np.maximum(fraction, 1.0 / limit), 1.0)
    least, used = np.min(fraction[concave], initial=1.0), 1.0 / np.min(divisor, initial=1.0)
    return -basis @ ((basis.T @ (duals @ f)) / divisor), float(least), float(used)


def damped(changes: Array, f: Array, shrink: float) -> Array:
    """Least squares by singular values, with the ridge that shrinks ``|g|^2`` as asked.

    Parameters
    ----------
    changes : ndarray of shape (m, q)
        Changes of f, weighted; `f` of shape (q,) likewise.
    shrink : float
        In (0, 1): ``|g(ridge)|^2 = shrink |g(0)|^2`` (Henderson and Varadhan 2019, section 3.2).
    """
    u, d, vt = np.linalg.svd(changes.T, full_matrices=False)
    good = d > 1e-14 * d[0]
    if not good.any():
        return np.zeros(len(changes))
    d, uf, vt = d[good], u.T[good] @ f, vt[good]
    wanted = shrink * float(np.sum((uf / d) ** 2))
    # The length falls in the ridge: bisection on its logarithm, relative to the largest value.
    low, high = -75.0, 75.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        ridge = d[0] ** 2 * np.exp(middle)
        if np.sum((d * uf / (d**2 + ridge)) ** 2) > wanted:
            low = middle
        else:
            high = middle
    return np.asarray(vt.T @ (d * uf / (d**2 + d[0] ** 2 * np.exp(high))))
