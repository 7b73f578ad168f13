"""Compiled E-steps of Gaussian mixtures over many rows at once.

A leaf is visited in chunks of `CHUNK` rows, transposed so that the inner loops
run over rows and vectorise; nothing of size n_rows is ever allocated. Sums over
the rows of a chunk may be rearranged (``reassoc``) into vector lanes; chunks and
leaves are added in order, so the result depends on the rows only.

Layouts are those of `saem.models._gaussian_kernels`.
"""

from __future__ import annotations

from numba import float64, void

from saem._jit import helper, kernel
from saem._math import exp, log
from saem._types import BLOCK, MATRIX, VECTOR

from ._gaussian_kernels import HEAD

__all__ = [
    "CHUNK",
    "block_diag",
    "block_diag_weighted",
    "block_full",
    "block_full_weighted",
    "block_spherical",
    "block_spherical_weighted",
    "block_tied",
    "block_tied_weighted",
    "work_size",
]

#: Rows visited together: two matrices of 10 columns stay in the first-level cache.
CHUNK = 128


def work_size(n_components: int, n_features: int) -> int:
    """Scratch numbers the block functions need."""
    return CHUNK * (2 * n_features + n_components + 3)


# Only sums live in kernels with `reassoc`: a helper called from them would inherit it, and
# exp and log rely on the order of their operations.
@kernel(float64(VECTOR), fastmath={"reassoc"})
def _sum(x):
    total = 0.0
    for b in range(x.size):
        total += x[b]
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
def _transpose(values, start, width, x):
    """Rows of the leaf from `start` on, as columns of x; a record has `width` numbers."""
    d, n_rows = x.shape
    for b in range(n_rows):
        for j in range(d):
            x[j, b] = values[(start + b) * width + j]


@helper
def _row_weights(values, start, width, out):
    """Last numbers of the records from `start` on."""
    for b in range(out.size):
        out[b] = values[(start + b + 1) * width - 1]


@helper
def _subtract(x, mean, out):
    """``out_b = x_b - mean``."""
    for j in range(x.shape[0]):
        xj, outj, centre = x[j], out[j], mean[j]
        for b in range(x.shape[1]):
            outj[b] = xj[b] - centre


@helper
def _posterior(logp, scratch, weighted):
    """Turn log joint densities (k, rows) into responsibilities; sum of log-likelihoods.

    Both times the weights of the rows, in the third row of the scratch, if `weighted`.
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
    if weighted:
        weights = scratch[2]
        for b in range(n_rows):
            top[b] *= weights[b]
            total[b] *= weights[b]
    for c in range(k):
        p = logp[c]
        for b in range(n_rows):
            p[b] *= total[b]
    return _sum(top)


@helper
def _split(work, d, k, rows):
    """Matrices of a chunk in the scratch: data, centred data, log densities, three rows."""
    x = work[: d * rows].reshape((d, rows))
    start = d * rows
    diff = work[start : start + d * rows].reshape((d, rows))
    start += d * rows
    logp = work[start : start + k * rows].reshape((k, rows))
    start += k * rows
    return x, diff, logp, work[start : start + 3 * rows].reshape((3, rows))


@helper
def _block_full(theta, values, s, work, weighted):
    """E-step of a leaf, one covariance matrix per component."""
    k, d = int(theta[0]), int(theta[1])
    tri = d * (d + 1) // 2
    means = HEAD + k
    constants = means + k * d + k * tri
    factors = constants + k
    squares = k + k * d
    loglik = 0.0
    width = d + 1 if weighted else d
    n = values.size // width
    for start in range(0, n, CHUNK):
        rows = min(CHUNK, n - start)
        x, diff, logp, scratch = _split(work, d, k, rows)
        _transpose(values, start, width, x)
        if weighted:
            _row_weights(values, start, width, scratch[2])
        for c in range(k):
            p = logp[c]
            norm = scratch[1]
            norm[:] = 0.0
            _subtract(x, theta[means + c * d : means + (c + 1) * d], diff)
            factor = theta[factors + c * tri : factors + (c + 1) * tri]
            _add_triangular_norm(factor, diff, scratch[0], norm)
            for b in range(rows):
                p[b] = theta[constants + c] - 0.5 * norm[b]
        loglik += _posterior(logp, scratch, weighted)
        for c in range(k):
            r = logp[c]
            s[c] += _sum(r)
            _add_sums(r, x, s[k + c * d : k + (c + 1) * d])
            _add_products(r, x, s[squares + c * tri : squares + (c + 1) * tri], scratch[0])
    return loglik


@helper
def _block_tied(theta, values, s, work, weighted):
    """E-step of a leaf, one covariance matrix for all components."""
    k, d = int(theta[0]), int(theta[1])
    tri = d * (d + 1) // 2
    means = HEAD + k
    constants = means + k * d + tri
    factor = theta[constants + k : constants + k + tri]
    loglik = 0.0
    width = d + 1 if weighted else d
    n = values.size // width
    for start in range(0, n, CHUNK):
        rows = min(CHUNK, n - start)
        x, diff, logp, scratch = _split(work, d, k, rows)
        _transpose(values, start, width, x)
        if weighted:
            _row_weights(values, start, width, scratch[2])
        for c in range(k):
            p = logp[c]
            norm = scratch[1]
            norm[:] = 0.0
            _subtract(x, theta[means + c * d : means + (c + 1) * d], diff)
            _add_triangular_norm(factor, diff, scratch[0], norm)
            for b in range(rows):
                p[b] = theta[constants + c] - 0.5 * norm[b]
        loglik += _posterior(logp, scratch, weighted)
        for c in range(k):
            r = logp[c]
            s[c] += _sum(r)
            _add_sums(r, x, s[k + c * d : k + (c + 1) * d])
        if not weighted:
            scratch[2, :] = 1.0
        _add_products(scratch[2], x, s[k + k * d :], scratch[0])
    return loglik


@helper
def _block_diag(theta, values, s, work, weighted):
    """E-step of a leaf, one diagonal covariance per component."""
    k, d = int(theta[0]), int(theta[1])
    means = HEAD + k
    constants = means + 2 * k * d
    factors = constants + k
    squares = k + k * d
    loglik = 0.0
    width = d + 1 if weighted else d
    n = values.size // width
    for start in range(0, n, CHUNK):
        rows = min(CHUNK, n - start)
        x, _, logp, scratch = _split(work, d, k, rows)
        _transpose(values, start, width, x)
        if weighted:
            _row_weights(values, start, width, scratch[2])
        for c in range(k):
            p = logp[c]
            norm = scratch[1]
            norm[:] = 0.0
            for j in range(d):
                xj = x[j]
                centre, scale = theta[means + c * d + j], theta[factors + c * d + j]
                for b in range(rows):
                    z = (xj[b] - centre) * scale
                    norm[b] += z * z
            for b in range(rows):
                p[b] = theta[constants + c] - 0.5 * norm[b]
        loglik += _posterior(logp, scratch, weighted)
        for c in range(k):
            r = logp[c]
            s[c] += _sum(r)
            _add_sums(r, x, s[k + c * d : k + (c + 1) * d])
            _add_squares(r, x, s[squares + c * d : squares + (c + 1) * d])
    return loglik


@helper
def _block_spherical(theta, values, s, work, weighted):
    """E-step of a leaf, one variance per component."""
    k, d = int(theta[0]), int(theta[1])
    means = HEAD + k
    constants = means + k * d + k
    factors = constants + k
    loglik = 0.0
    width = d + 1 if weighted else d
    n = values.size // width
    for start in range(0, n, CHUNK):
        rows = min(CHUNK, n - start)
        x, _, logp, scratch = _split(work, d, k, rows)
        _transpose(values, start, width, x)
        if weighted:
            _row_weights(values, start, width, scratch[2])
        for c in range(k):
            p = logp[c]
            norm = scratch[1]
            norm[:] = 0.0
            for j in range(d):
                xj = x[j]
                centre = theta[means + c * d + j]
                for b in range(rows):
                    z = xj[b] - centre
                    norm[b] += z * z
            half = 0.5 * theta[factors + c] * theta[factors + c]
            for b in range(rows):
                p[b] = theta[constants + c] - half * norm[b]
        loglik += _posterior(logp, scratch, weighted)
        lengths = scratch[:1]
        lengths[:] = 0.0
        for j in range(d):
            xj = x[j]
            for b in range(rows):
                lengths[0, b] += xj[b] * xj[b]
        for c in range(k):
            r = logp[c]
            s[c] += _sum(r)
            _add_sums(r, x, s[k + c * d : k + (c + 1) * d])
            _add_sums(r, lengths, s[k + k * d + c : k + k * d + c + 1])
    return loglik


@kernel(BLOCK, deferred=True)
def block_full(theta, values, s, work):
    """E-step of a leaf."""
    return _block_full(theta, values, s, work, False)


@kernel(BLOCK, deferred=True)
def block_full_weighted(theta, values, s, work):
    """E-step of a leaf whose rows have weights."""
    return _block_full(theta, values, s, work, True)


@kernel(BLOCK, deferred=True)
def block_tied(theta, values, s, work):
    """E-step of a leaf."""
    return _block_tied(theta, values, s, work, False)


@kernel(BLOCK, deferred=True)
def block_tied_weighted(theta, values, s, work):
    """E-step of a leaf whose rows have weights."""
    return _block_tied(theta, values, s, work, True)


@kernel(BLOCK, deferred=True)
def block_diag(theta, values, s, work):
    """E-step of a leaf."""
    return _block_diag(theta, values, s, work, False)


@kernel(BLOCK, deferred=True)
def block_diag_weighted(theta, values, s, work):
    """E-step of a leaf whose rows have weights."""
    return _block_diag(theta, values, s, work, True)


@kernel(BLOCK, deferred=True)
def block_spherical(theta, values, s, work):
    """E-step of a leaf."""
    return _block_spherical(theta, values, s, work, False)


@kernel(BLOCK, deferred=True)
def block_spherical_weighted(theta, values, s, work):
    """E-step of a leaf whose rows have weights."""
    return _block_spherical(theta, values, s, work, True)
