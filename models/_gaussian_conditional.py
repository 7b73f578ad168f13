"""Posteriors of rows with missing values: densities, conditional moments, statistics.

What `saem.models._gaussian_missing` is made of; the layouts stand there.
"""

from __future__ import annotations

import numpy as np

from saem._borrow import segment
from saem._jit import helper, routine
from saem._math import HALF_LOG_2PI

from ._gaussian_kernels import (
    HEAD,
    _accumulate_first,
    _add_outer,
    _log_joint_full,
    _log_joint_tied,
)
from ._gaussian_updates import factorise

__all__ = [
    "accumulate_full",
    "accumulate_observed",
    "accumulate_tied",
    "joint_full",
    "joint_tied",
    "log_joint_variances",
]


# Independent columns: missing ones are skipped.


@helper
def log_joint_variances(theta, x, latent, per_component):
    k, d = latent.size, x.size
    means = HEAD + k
    constants = means + k * d + k * per_component
    factors = constants + k
    for c in range(k):
        value = theta[constants + c]
        for j in range(d):
            factor = theta[factors + c * per_component + (j if per_component == d else 0)]
            if x[j] == x[j]:
                z = (x[j] - theta[means + c * d + j]) * factor
                value -= 0.5 * z * z
            else:
                value += HALF_LOG_2PI - np.log(factor)
        latent[c] = value


@helper
def accumulate_observed(weight, x, latent, s, per_component):
    k, d = latent.size, x.size
    squares = k + k * d
    observed = squares + k * per_component
    for c in range(k):
        r = weight * latent[c]
        s[c] += r
        for j in range(d):
            if x[j] == x[j]:
                s[k + c * d + j] += r * x[j]
                s[squares + c * per_component + (j if per_component == d else 0)] += r * x[j] * x[j]
                s[observed + c * d + j] += r


# Dependent columns: conditional moments of the missing ones.


@helper
def _count_missing(x):
    q = 0
    for j in range(x.size):
        if x[j] != x[j]:
            q += 1
    return q


@helper
def _order(x, q, order):
    """Columns in order, the observed ones first."""
    seen, lost = 0, x.size - q
    for j in range(x.size):
        if x[j] == x[j]:
            order[seen] = j
            seen += 1
        else:
            order[lost] = j
            lost += 1


@helper
def _factor_in_order(theta, cov, order, chol):
    """Cholesky factor of a covariance with its columns in another order."""
    d, i = order.size, 0
    for j in range(d):
        a = int(order[j])
        for m in range(j + 1):
            b = int(order[m])
            high, low = max(a, b), min(a, b)
            chol[i] = theta[cov + high * (high + 1) // 2 + low]
            i += 1
    factorise(chol, 0, d)


@helper
def _condition(theta, mean, x, q, order, z, chol, out):
    """Log density of the observed values less the constant; conditional means into `out`.

    With ``C = L L'`` in the order (observed, missing), ``z = L_oo^-1 (x_o - m_o)`` gives
    the density and the conditional mean ``m_m + L_mo z``.
    """
    seen = x.size - q
    value = -seen * HALF_LOG_2PI
    for j in range(x.size):
        row, a = j * (j + 1) // 2, int(order[j])
        inner = 0.0
        for m in range(min(j, seen)):
            inner += chol[row + m] * z[m]
        if j < seen:
            z[j] = (x[a] - theta[mean + a] - inner) / chol[row + j]
            value -= 0.5 * z[j] * z[j] + np.log(chol[row + j])
        else:
            out[j - seen] = theta[mean + a] + inner
    return value


@helper
def _conditional_covariance(chol, d, q, out):
    """Packed ``L_mm L_mm'``, the conditional covariance of the missing values."""
    seen, i = d - q, 0
    for a in range(q):
        row_a = (seen + a) * (seen + a + 1) // 2
        for b in range(a + 1):
            row_b = (seen + b) * (seen + b + 1) // 2
            total = 0.0
            for m in range(seen, seen + b + 1):
                total += chol[row_a + m] * chol[row_b + m]
            out[i] = total
            i += 1


@helper
def _split(work, d):
    """Scratch: order of the columns, deviations, a packed factor."""
    return segment(work, 0, d), segment(work, d, d), segment(work, 2 * d, d * (d + 1) // 2)


@routine
def joint_full(theta, x, latent, work):
    """Log joint densities of the observed values, and the rest of the latent record."""
    k, d = int(theta[0]), int(theta[1])
    q = _count_missing(x)
    first = segment(latent, 0, k)
    latent[k:] = 0.0
    if q == 0:
        _log_joint_full(theta, x, first)
        return
    order, z, chol = _split(work, d)
    _order(x, q, order)
    tri, own = d * (d + 1) // 2, q * (q + 1) // 2
    for c in range(k):
        at = k + c * (q + own)
        _factor_in_order(theta, HEAD + k + k * d + c * tri, order, chol)
        moments = segment(latent, at, q)
        value = _condition(theta, HEAD + k + c * d, x, q, order, z, chol, moments)
        latent[c] = np.log(theta[HEAD + c]) + value
        _conditional_covariance(chol, d, q, segment(latent, at + q, own))


@routine
def joint_tied(theta, x, latent, work):
    """As `joint_full`, with one covariance matrix."""
    k, d = int(theta[0]), int(theta[1])
    q = _count_missing(x)
    first = segment(latent, 0, k)
    latent[k:] = 0.0
    if q == 0:
        _log_joint_tied(theta, x, first)
        return
    order, z, chol = _split(work, d)
    _order(x, q, order)
    own = q * (q + 1) // 2
    _factor_in_order(theta, HEAD + k + k * d, order, chol)
    _conditional_covariance(chol, d, q, segment(latent, k, own))
    for c in range(k):
        moments = segment(latent, k + own + c * q, q)
        value = _condition(theta, HEAD + k + c * d, x, q, order, z, chol, moments)
        latent[c] = np.log(theta[HEAD + c]) + value


@helper
def _add_filled(weight, x, q, means, covariance, latent, s, sums, squares):
    """Add ``weight (x, x x' + covariance)``, missing values replaced by conditional means.

    `means` and `covariance` are positions in the latent record; sums are not added
    where their position is negative.
    """
    a = 0
    for j in range(x.size):
        lost_j = x[j] != x[j]
        value = latent[means + a] if lost_j else x[j]
        if sums >= 0:
            s[sums + j] += weight * value
        b, row = 0, squares + j * (j + 1) // 2
        for m in range(j + 1):
            lost_m = x[m] != x[m]
            product = value * (latent[means + b] if lost_m else x[m])
            if lost_j and lost_m:
                product += latent[covariance + a * (a + 1) // 2 + b]
            s[row + m] += weight * product
            b += 1 if lost_m else 0
        a += 1 if lost_j else 0


@routine
def accumulate_full(weight, x, latent, s, k):
    d = x.size
    q, tri = _count_missing(x), d * (d + 1) // 2
    own = q * (q + 1) // 2
    if q == 0:
        _accumulate_first(weight, x, segment(latent, 0, k), s)
    for c in range(k):
        r = weight * latent[c]
        squares = k + k * d + c * tri
        if r == 0.0:
            continue
        if q == 0:
            _add_outer(r, x, s, squares)
        else:
            s[c] += r
            at = k + c * (q + own)
            _add_filled(r, x, q, at, at + q, latent, s, k + c * d, squares)


@routine
def accumulate_tied(weight, x, latent, s, k):
    d = x.size
    q = _count_missing(x)
    if q == 0:
        _accumulate_first(weight, x, segment(latent, 0, k), s)
        _add_outer(weight, x, s, k + k * d)
        return
    own = q * (q + 1) // 2
    for c in range(k):
        r = weight * latent[c]
        if r != 0.0:
            s[c] += r
            _add_filled(r, x, q, k + own + c * q, k, latent, s, k + c * d, k + k * d)
