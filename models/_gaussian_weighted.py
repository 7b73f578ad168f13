"""Compiled functions of Gaussian mixtures whose rows have weights.

The record of a row is ``(x, w)``: its weight multiplies its statistic and its
log-likelihood, so that a row of weight 2 counts as two rows and one of weight 0 as
none. Everything else as in `saem.models._gaussian_kernels`.
"""

from __future__ import annotations

from saem._borrow import segment
from saem._jit import kernel
from saem._types import ACCUMULATE, CLASSIFY, DRAW, EXPECT

from ._gaussian_kernels import (
    _add_diag,
    _add_full,
    _add_spherical,
    _add_tied,
    _choose,
    _log_joint_diag,
    _log_joint_full,
    _log_joint_spherical,
    _log_joint_tied,
    _most_probable,
    _normalise,
)

__all__ = [
    "accumulate_diag_weighted",
    "accumulate_full_weighted",
    "accumulate_spherical_weighted",
    "accumulate_tied_weighted",
    "classify_diag_weighted",
    "classify_full_weighted",
    "classify_spherical_weighted",
    "classify_tied_weighted",
    "draw_diag_weighted",
    "draw_full_weighted",
    "draw_spherical_weighted",
    "draw_tied_weighted",
    "expect_diag_weighted",
    "expect_full_weighted",
    "expect_spherical_weighted",
    "expect_tied_weighted",
]


@kernel(EXPECT, deferred=True)
def expect_full_weighted(theta, y, latent, work):
    """Responsibilities of one row; returns its weighted log-likelihood."""
    _log_joint_full(theta, segment(y, 0, y.size - 1), latent)
    return y[y.size - 1] * _normalise(latent)


@kernel(EXPECT, deferred=True)
def expect_tied_weighted(theta, y, latent, work):
    """Responsibilities of one row; returns its weighted log-likelihood."""
    _log_joint_tied(theta, segment(y, 0, y.size - 1), latent)
    return y[y.size - 1] * _normalise(latent)


@kernel(EXPECT, deferred=True)
def expect_diag_weighted(theta, y, latent, work):
    """Responsibilities of one row; returns its weighted log-likelihood."""
    _log_joint_diag(theta, segment(y, 0, y.size - 1), latent)
    return y[y.size - 1] * _normalise(latent)


@kernel(EXPECT, deferred=True)
def expect_spherical_weighted(theta, y, latent, work):
    """Responsibilities of one row; returns its weighted log-likelihood."""
    _log_joint_spherical(theta, segment(y, 0, y.size - 1), latent)
    return y[y.size - 1] * _normalise(latent)


@kernel(DRAW, deferred=True)
def draw_full_weighted(theta, y, key, latent, work):
    """Indicator of a component drawn from its posterior."""
    _log_joint_full(theta, segment(y, 0, y.size - 1), latent)
    _normalise(latent)
    _choose(key, latent)


@kernel(DRAW, deferred=True)
def draw_tied_weighted(theta, y, key, latent, work):
    """Indicator of a component drawn from its posterior."""
    _log_joint_tied(theta, segment(y, 0, y.size - 1), latent)
    _normalise(latent)
    _choose(key, latent)


@kernel(DRAW, deferred=True)
def draw_diag_weighted(theta, y, key, latent, work):
    """Indicator of a component drawn from its posterior."""
    _log_joint_diag(theta, segment(y, 0, y.size - 1), latent)
    _normalise(latent)
    _choose(key, latent)


@kernel(DRAW, deferred=True)
def draw_spherical_weighted(theta, y, key, latent, work):
    """Indicator of a component drawn from its posterior."""
    _log_joint_spherical(theta, segment(y, 0, y.size - 1), latent)
    _normalise(latent)
    _choose(key, latent)


@kernel(CLASSIFY, deferred=True)
def classify_full_weighted(theta, y, latent, work):
    """Indicator of the most probable component; returns the weighted log p(x, z)."""
    _log_joint_full(theta, segment(y, 0, y.size - 1), latent)
    return y[y.size - 1] * _most_probable(latent)


@kernel(CLASSIFY, deferred=True)
def classify_tied_weighted(theta, y, latent, work):
    """Indicator of the most probable component; returns the weighted log p(x, z)."""
    _log_joint_tied(theta, segment(y, 0, y.size - 1), latent)
    return y[y.size - 1] * _most_probable(latent)


@kernel(CLASSIFY, deferred=True)
def classify_diag_weighted(theta, y, latent, work):
    """Indicator of the most probable component; returns the weighted log p(x, z)."""
    _log_joint_diag(theta, segment(y, 0, y.size - 1), latent)
    return y[y.size - 1] * _most_probable(latent)


@kernel(CLASSIFY, deferred=True)
def classify_spherical_weighted(theta, y, latent, work):
    """Indicator of the most probable component; returns the weighted log p(x, z)."""
    _log_joint_spherical(theta, segment(y, 0, y.size - 1), latent)
    return y[y.size - 1] * _most_probable(latent)


@kernel(ACCUMULATE, deferred=True)
def accumulate_full_weighted(weight, y, latent, s):
    """Add ``weight * w * (r, r x, r x x')``, w the row's own weight."""
    _add_full(weight * y[y.size - 1], segment(y, 0, y.size - 1), latent, s)


@kernel(ACCUMULATE, deferred=True)
def accumulate_tied_weighted(weight, y, latent, s):
    """Add ``weight * w * (r, r x, x x')``, w the row's own weight."""
    _add_tied(weight * y[y.size - 1], segment(y, 0, y.size - 1), latent, s)


@kernel(ACCUMULATE, deferred=True)
def accumulate_diag_weighted(weight, y, latent, s):
    """Add ``weight * w * (r, r x, r x^2)``, w the row's own weight."""
    _add_diag(weight * y[y.size - 1], segment(y, 0, y.size - 1), latent, s)


@kernel(ACCUMULATE, deferred=True)
def accumulate_spherical_weighted(weight, y, latent, s):
    """Add ``weight * w * (r, r x, r |x|^2)``, w the row's own weight."""
    _add_spherical(weight * y[y.size - 1], segment(y, 0, y.size - 1), latent, s)
