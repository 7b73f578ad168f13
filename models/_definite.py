"""Moments packed in statistics, and the repair of symmetric matrices, in compiled code."""

from __future__ import annotations

import numpy as np

from saem._jit import helper, routine
from saem._linalg import cholesky

__all__ = [
    "all_finite",
    "expected_square",
    "get_covariance",
    "get_triangle",
    "put_covariance",
    "put_triangle",
    "towards",
]


@helper
def all_finite(s):
    """Whether every number of a vector is finite."""
    for m in range(s.size):
        if not np.isfinite(s[m]):
            return False
    return True


@helper
def get_triangle(s, at, matrix):
    """Fill a symmetric matrix from its lower triangle, packed row by row from `at` on."""
    for a in range(matrix.shape[0]):
        for b in range(a + 1):
            matrix[a, b] = s[at]
            matrix[b, a] = s[at]
            at += 1


@helper
def put_triangle(matrix, s, at):
    """Pack the lower triangle of a matrix, row by row from `at` on."""
    for a in range(matrix.shape[0]):
        for b in range(a + 1):
            s[at] = matrix[a, b]
            at += 1


@helper
def get_covariance(s, cov):
    """Fill ``E bb' - E b E b'``; E b stands at the head of s, then the lower triangle of E bb'."""
    q = cov.shape[0]
    get_triangle(s, q, cov)
    for a in range(q):
        for b in range(q):
            cov[a, b] -= s[a] * s[b]


@helper
def put_covariance(cov, s):
    """Pack the second moments of a covariance about the mean E b in s; cov becomes they."""
    q = cov.shape[0]
    for a in range(q):
        for b in range(q):
            cov[a, b] += s[a] * s[b]
    put_triangle(cov, s, q)


@helper
def expected_square(s, second, mean, precision):
    """``tr(precision E (b - mean)(b - mean)')`` from E b at the head of s, and second = E bb'."""
    value = 0.0
    for a in range(mean.size):
        for b in range(mean.size):
            about = second[a, b] - s[a] * mean[b] - mean[a] * s[b] + mean[a] * mean[b]
            value += precision[a, b] * about
    return value


@routine
def towards(matrix, reference, factor):
    """Move a symmetric matrix towards a positive definite one until it is so itself.

    ``(1 - t) matrix + t reference`` with t the first of 2^-20, 2^-19, ..., 1 that gives a
    Cholesky factor, taken twice so that the result lies inside; nothing where t = 0 does.
    """
    if cholesky(matrix, factor):
        return
    step = 2.0**-20
    mixed = np.empty_like(matrix)
    while step < 1.0:
        mixed[:, :] = (1.0 - step) * matrix + step * reference
        if cholesky(mixed, factor):
            break
        step *= 2.0
    step = min(1.0, 2.0 * step)
    matrix[:, :] = (1.0 - step) * matrix + step * reference
    cholesky(matrix, factor)
