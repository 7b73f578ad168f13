"""Compiled E-steps and statistics of Gaussian mixtures for rows gathered from anywhere.

Data and responsibilities stand column by column, (width, rows) and (k, rows), so that
the loops over rows vectorise; see `saem.models._gaussian_blocks`, whose sums these are.
"""

from __future__ import annotations

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel
from saem._types import ACCUMULATE_BATCH, EXPECT_BATCH

from . import _gaussian_blocks as blocks
from ._gaussian_blocks import posterior, scratch_of, weighted_sum

__all__ = [
    "accumulate_batch_diag",
    "accumulate_batch_diag_weighted",
    "accumulate_batch_full",
    "accumulate_batch_full_weighted",
    "accumulate_batch_spherical",
    "accumulate_batch_spherical_weighted",
    "accumulate_batch_tied",
    "accumulate_batch_tied_weighted",
    "expect_batch_diag",
    "expect_batch_full",
    "expect_batch_spherical",
    "expect_batch_tied",
]

_log_joint_full, _add_full = blocks.log_joint_full, blocks.add_full
_log_joint_tied, _add_tied = blocks.log_joint_tied, blocks.add_tied
_log_joint_diag, _add_diag = blocks.log_joint_diag, blocks.add_diag
_log_joint_spherical, _add_spherical = blocks.log_joint_spherical, blocks.add_spherical


@helper
def _expect(log_joint, theta, columns, latents, work):
    """Responsibilities; returns the sum of log-likelihoods, times the weights of rows if any."""
    d, rows = int(theta[1]), columns.shape[1]
    diff, scratch = scratch_of(work, d, rows)
    log_joint(theta, columns[:d], latents, diff, scratch)
    loglik = posterior(latents, scratch)
    return loglik if columns.shape[0] == d else weighted_sum(columns[d], scratch[0])


@helper
def _accumulate(add, columns, latents, s, work):
    """Sums of statistics."""
    _, scratch = scratch_of(work, columns.shape[0], columns.shape[1])
    scratch[2, :] = 1.0
    add(columns, latents, s, scratch)


@helper
def _accumulate_weighted(add, columns, latents, s, work):
    """Sums of statistics of rows whose weights are the last of the columns."""
    k, rows = latents.shape
    d = columns.shape[0] - 1
    weights = columns[d]
    r = as_matrix(segment(work, 0, k * rows), k, rows)
    for c in range(k):
        for b in range(rows):
            r[c, b] = weights[b] * latents[c, b]
    _, scratch = scratch_of(segment(work, k * rows, work.size - k * rows), d, rows)
    for b in range(rows):
        scratch[2, b] = weights[b]
    add(columns[:d], r, s, scratch)


@kernel(EXPECT_BATCH, deferred=True)
def expect_batch_full(theta, columns, latents, work):
    """Responsibilities of gathered rows; returns the sum of their log-likelihoods."""
    return _expect(_log_joint_full, theta, columns, latents, work)


@kernel(ACCUMULATE_BATCH, deferred=True)
def accumulate_batch_full(columns, latents, s, work):
    """Add the statistics of gathered rows."""
    _accumulate(_add_full, columns, latents, s, work)


@kernel(ACCUMULATE_BATCH, deferred=True)
def accumulate_batch_full_weighted(columns, latents, s, work):
    """Add the statistics of gathered rows that have weights."""
    _accumulate_weighted(_add_full, columns, latents, s, work)


@kernel(EXPECT_BATCH, deferred=True)
def expect_batch_tied(theta, columns, latents, work):
    """Responsibilities of gathered rows; returns the sum of their log-likelihoods."""
    return _expect(_log_joint_tied, theta, columns, latents, work)


@kernel(ACCUMULATE_BATCH, deferred=True)
def accumulate_batch_tied(columns, latents, s, work):
    """Add the statistics of gathered rows."""
    _accumulate(_add_tied, columns, latents, s, work)


@kernel(ACCUMULATE_BATCH, deferred=True)
def accumulate_batch_tied_weighted(columns, latents, s, work):
    """Add the statistics of gathered rows that have weights."""
    _accumulate_weighted(_add_tied, columns, latents, s, work)


@kernel(EXPECT_BATCH, deferred=True)
def expect_batch_diag(theta, columns, latents, work):
    """Responsibilities of gathered rows; returns the sum of their log-likelihoods."""
    return _expect(_log_joint_diag, theta, columns, latents, work)


@kernel(ACCUMULATE_BATCH, deferred=True)
def accumulate_batch_diag(columns, latents, s, work):
    """Add the statistics of gathered rows."""
    _accumulate(_add_diag, columns, latents, s, work)


@kernel(ACCUMULATE_BATCH, deferred=True)
def accumulate_batch_diag_weighted(columns, latents, s, work):
    """Add the statistics of gathered rows that have weights."""
    _accumulate_weighted(_add_diag, columns, latents, s, work)


@kernel(EXPECT_BATCH, deferred=True)
def expect_batch_spherical(theta, columns, latents, work):
    """Responsibilities of gathered rows; returns the sum of their log-likelihoods."""
    return _expect(_log_joint_spherical, theta, columns, latents, work)


@kernel(ACCUMULATE_BATCH, deferred=True)
def accumulate_batch_spherical(columns, latents, s, work):
    """Add the statistics of gathered rows."""
    _accumulate(_add_spherical, columns, latents, s, work)


@kernel(ACCUMULATE_BATCH, deferred=True)
def accumulate_batch_spherical_weighted(columns, latents, s, work):
    """Add the statistics of gathered rows that have weights."""
    _accumulate_weighted(_add_spherical, columns, latents, s, work)
