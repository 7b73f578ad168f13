"""Arithmetic of Gaussian mixtures over many rows at once.

Rows stand side by side, (n_features, rows), so that the inner loops run over rows and vectorise;
`saem.models._gaussian_batches` has the functions that the engine calls. Sums over the rows may be
rearranged (``reassoc``) into vector lanes; the engine adds chunks and leaves in order, so
the result depends on the rows only.

Layouts are those of `saem.models._gaussian_kernels`.
"""

from __future__ import annotations

from numba import float64, void

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel
from saem._math import exp, log
from saem._types import BATCH_ROWS, MATRIX, VECTOR

from ._gaussian_kernels import HEAD

__all__ = [
    "add_diag",
    "add_full",
    "add_spherical",
    "add_tied",
    "log_joint_diag",
    "log_joint_full",
    "log_joint_spherical",
    "log_joint_tied",
    "posterior",
    "scratch_of",
    "weighted_sum",
    "work_size",
]


def work_size(n_components: int, n_features: int) -> int:
    """Scratch numbers of the functions of batches."""
    return BATCH_ROWS * (n_features + n_components + 3)


# Only sums live in kernels with `reassoc`: a helper called from them would inherit it, and
# exp and log rely on the order of their operations.
@kernel(float64(VECTOR), fastmath={"reassoc"})
def _sum(x):
    total = 0.0
    for b in range(x.size):
        total += x[b]
    return total


@kernel(float64(VECTOR, VECTOR), fastmath={"reassoc"})
def weighted_sum(weights, x):
    """Sum of ``weights_b x_b``."""
    total = 0.0
    for b in range(x.size):
        total += weights[b] * x[b]
    return total


@kernel(void(VECTOR, MATRIX, VECTOR), fastmath={"reassoc", "contract"})
def _add_sums(r, x, s):
    """Add ``sum_b r_b x_b`` to s; x is (n_features, rows)."""
    for j in range(x.shape[0]):
        xj = x[j]
        total = 0.0
        for b in range(r.size):
            total += r[b] * xj[b]
        s[j] += total


@kernel(void(VECTOR, MATRIX, VECTOR), fastmath={"reassoc", "contract"})
def _add_squares(r, x, s):
    """Add ``sum_b r_b x_b ** 2``, elementwise, to s."""
    for j in range(x.shape[0]):
        xj = x[j]
        total = 0.0
        for b in range(r.size):
            total += r[b] * xj[b] * xj[b]
        s[j] += total


@kernel(void(VECTOR, MATRIX, VECTOR, VECTOR), fastmath={"reassoc", "contract"})
def _add_products(r, x, s, rx):
    """Add the lower triangle of ``sum_b r_b x_b x_b'`` to s, row by row."""
    n_rows = r.size
    i = 0
    for j in range(x.shape[0]):
        xj = x[j]
        for b in range(n_rows):
            rx[b] = r[b] * xj[b]
        m = 0
        while m + 4 <= j + 1:  # four columns at a time share the loads of rx
            x0, x1, x2, x3 = x[m], x[m + 1], x[m + 2], x[m + 3]
            t0 = t1 = t2 = t3 = 0.0
            for b in range(n_rows):
                t0 += rx[b] * x0[b]
                t1 += rx[b] * x1[b]
                t2 += rx[b] * x2[b]
                t3 += rx[b] * x3[b]
            s[i] += t0
            s[i + 1] += t1
            s[i + 2] += t2
            s[i + 3] += t3
            i += 4
            m += 4
        while m <= j:
            xm = x[m]
            total = 0.0
            for b in range(n_rows):
                total += rx[b] * xm[b]
            s[i] += total
            i += 1
            m += 1


@kernel(void(VECTOR, MATRIX, VECTOR, VECTOR), fastmath={"contract"})
def _add_triangular_norm(tri, x, z, out):
    """Add ``|L x_b|^2`` to out, with L lower triangular in packed rows."""
    n_rows = out.size
    i = 0
    for j in range(x.shape[0]):
        a, xj = tri[i + j], x[j]
        for b in range(n_rows):
            z[b] = a * xj[b]
        m = 0
        while m + 4 <= j:
            a0, a1, a2, a3 = tri[i + m], tri[i + m + 1], tri[i + m + 2], tri[i + m + 3]
            x0, x1, x2, x3 = x[m], x[m + 1], x[m + 2], x[m + 3]
            for b in range(n_rows):
                z[b] += a0 * x0[b] + a1 * x1[b] + a2 * x2[b] + a3 * x3[b]
            m += 4
        while m < j:
            a, xm = tri[i + m], x[m]
            for b in range(n_rows):
                z[b] += a * xm[b]
            m += 1
        for b in range(n_rows):
            out[b] += z[b] * z[b]
        i += j + 1


@helper
def _subtract(x, mean, out):
    """``out_b = x_b - mean``."""
    for j in range(x.shape[0]):
        xj, outj, centre = x[j], out[j], mean[j]
        for b in range(x.shape[1]):
            outj[b] = xj[b] - centre


@helper
def posterior(logp, scratch):
    """Turn log joint densities (k, rows) into responsibilities; sum of log-likelihoods.

    Those of the rows are left in the first row of the scratch.
    """
    k, n_rows = logp.shape
    top = scratch[0]
    total = scratch[1]
    for b in range(n_rows):
        top[b] = logp[0, b]
        total[b] = 0.0
    for c in range(1, k):
        p = logp[c]
        for b in range(n_rows):
            top[b] = max(top[b], p[b])
    for c in range(k):
        p = logp[c]
        for b in range(n_rows):
            p[b] = exp(p[b] - top[b])
            total[b] += p[b]
    for b in range(n_rows):
        top[b] += log(total[b])
        total[b] = 1.0 / total[b]
    for c in range(k):
        p = logp[c]
        for b in range(n_rows):
            p[b] *= total[b]
    return _sum(top)


@helper
def scratch_of(work, d, rows):
    """Matrices in the rest of the scratch: centred data, and three rows."""
    diff = as_matrix(segment(work, 0, d * rows), d, rows)
    return diff, as_matrix(segment(work, d * rows, 3 * rows), 3, rows)


# Log joint densities of rows x (n_features, rows), into logp (k, rows).


@helper
def log_joint_full(theta, x, logp, diff, scratch):
    """Log joint densities, one covariance matrix per component."""
    k, d = int(theta[0]), int(theta[1])
    tri = d * (d + 1) // 2
    _log_joint_triangular(theta, x, logp, diff, scratch, k, d, tri, k * tri, tri)


@helper
def log_joint_tied(theta, x, logp, diff, scratch):
    """Log joint densities, one covariance matrix for all components."""
    k, d = int(theta[0]), int(theta[1])
    tri = d * (d + 1) // 2
    _log_joint_triangular(theta, x, logp, diff, scratch, k, d, tri, tri, 0)


@helper
def _log_joint_triangular(theta, x, logp, diff, scratch, k, d, tri, size, step):
    """Of factors that begin `step` numbers apart."""
    means = HEAD + k
    constants = means + k * d + size
    factors = constants + k
    for c in range(k):
        p = logp[c]
        norm = scratch[1]
        norm[:] = 0.0
        _subtract(x, theta[means + c * d : means + (c + 1) * d], diff)
        factor = theta[factors + c * step : factors + c * step + tri]
        _add_triangular_norm(factor, diff, scratch[0], norm)
        for b in range(p.size):
            p[b] = theta[constants + c] - 0.5 * norm[b]


@helper
def log_joint_diag(theta, x, logp, diff, scratch):
    """Log joint densities, one diagonal covariance per component."""
    k, d = int(theta[0]), int(theta[1])
    means = HEAD + k
    constants = means + 2 * k * d
    factors = constants + k
    for c in range(k):
        p = logp[c]
        norm = scratch[1]
        norm[:] = 0.0
        for j in range(d):
            xj = x[j]
            centre, scale = theta[means + c * d + j], theta[factors + c * d + j]
            for b in range(p.size):
                z = (xj[b] - centre) * scale
                norm[b] += z * z
        for b in range(p.size):
            p[b] = theta[constants + c] - 0.5 * norm[b]


@helper
def log_joint_spherical(theta, x, logp, diff, scratch):
    """Log joint densities, one variance per component."""
    k, d = int(theta[0]), int(theta[1])
    means = HEAD + k
    constants = means + k * d + k
    factors = constants + k
    for c in range(k):
        p = logp[c]
        norm = scratch[1]
        norm[:] = 0.0
        for j in range(d):
            xj = x[j]
            centre = theta[means + c * d + j]
            for b in range(p.size):
                z = xj[b] - centre
                norm[b] += z * z
        half = 0.5 * theta[factors + c] * theta[factors + c]
        for b in range(p.size):
            p[b] = theta[constants + c] - half * norm[b]


# Sums of statistics over rows, of responsibilities r (k, rows). The third row of the scratch
# holds the weights of the rows, or ones.


@helper
def add_full(x, r, s, scratch):
    """Add the sums of r, r x, r x x'."""
    k, d = r.shape[0], x.shape[0]
    tri, squares = d * (d + 1) // 2, k + k * d
    for c in range(k):
        s[c] += _sum(r[c])
        _add_sums(r[c], x, s[k + c * d : k + (c + 1) * d])
        _add_products(r[c], x, s[squares + c * tri : squares + (c + 1) * tri], scratch[0])


@helper
def add_tied(x, r, s, scratch):
    """Add the sums of r, r x, x x'."""
    k, d = r.shape[0], x.shape[0]
    for c in range(k):
        s[c] += _sum(r[c])
        _add_sums(r[c], x, s[k + c * d : k + (c + 1) * d])
    _add_products(scratch[2], x, s[k + k * d :], scratch[0])


@helper
def add_diag(x, r, s, scratch):
    """Add the sums of r, r x, r x^2."""
    k, d = r.shape[0], x.shape[0]
    squares = k + k * d
    for c in range(k):
        s[c] += _sum(r[c])
        _add_sums(r[c], x, s[k + c * d : k + (c + 1) * d])
        _add_squares(r[c], x, s[squares + c * d : squares + (c + 1) * d])


@helper
def add_spherical(x, r, s, scratch):
    """Add the sums of r, r x, r |x|^2."""
    k, d = r.shape[0], x.shape[0]
    lengths = scratch[:1]
    lengths[:] = 0.0
    for j in range(d):
        xj = x[j]
        for b in range(xj.size):
            lengths[0, b] += xj[b] * xj[b]
    for c in range(k):
        s[c] += _sum(r[c])
        _add_sums(r[c], x, s[k + c * d : k + (c + 1) * d])
        _add_sums(r[c], lengths, s[k + k * d + c : k + k * d + c + 1])
