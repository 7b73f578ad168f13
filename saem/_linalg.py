"""Small dense linear algebra for compiled functions; no call leaves compiled code.

For matrices of the size of a random-effects covariance, where LAPACK's call
costs more than the arithmetic.
"""

from __future__ import annotations

import numpy as np

from saem._jit import helper

__all__ = ["assign", "cholesky", "cholesky_inverse", "cholesky_solve", "invert_lower"]


@helper
def assign(target, source):
    """Copy numbers; a plain loop compiles and runs faster than a slice assignment."""
    for a in range(target.size):
        target[a] = source[a]


@helper
def cholesky(matrix, out):
    """Lower Cholesky factor in place of `out`; False if not positive definite."""
    d = matrix.shape[0]
    for a in range(d):
        for b in range(a + 1):
            x = matrix[a, b]
            for c in range(b):
                x -= out[a, c] * out[b, c]
            if a == b:
                if not x > 0.0:
                    return False
                out[a, a] = np.sqrt(x)
            else:
                out[a, b] = x / out[b, b]
        for b in range(a + 1, d):
            out[a, b] = 0.0
    return True


@helper
def cholesky_solve(factor, b, x):
    """Solve ``factor factor' x = b``."""
    d = b.size
    for a in range(d):
        value = b[a]
        for c in range(a):
            value -= factor[a, c] * x[c]
        x[a] = value / factor[a, a]
    for r in range(d):
        a = d - 1 - r
        value = x[a]
        for c in range(a + 1, d):
            value -= factor[c, a] * x[c]
        x[a] = value / factor[a, a]


@helper
def cholesky_inverse(factor, out):
    """Inverse of ``factor factor'`` into `out`."""
    d = factor.shape[0]
    unit = np.zeros(d)
    column = np.zeros(d)
    for b in range(d):
        unit[:] = 0.0
        unit[b] = 1.0
        cholesky_solve(factor, unit, column)
        for a in range(d):
            out[a, b] = column[a]


@helper
def invert_lower(factor, inverse):
    """Inverse of a lower triangular matrix."""
    d = factor.shape[0]
    for a in range(d):
        for b in range(d):
            inverse[a, b] = 0.0
        inverse[a, a] = 1.0 / factor[a, a]
        for b in range(a):
            x = 0.0
            for c in range(b, a):
                x -= factor[a, c] * inverse[c, b]
            inverse[a, b] = x / factor[a, a]
