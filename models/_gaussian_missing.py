"""Compiled functions of Gaussian mixtures for rows with missing values (NaN).

Values are missing at random: a row's likelihood is that of what was observed. The
record of a row is ``(x, w)`` with its weight w, as in `saem.models._gaussian_weighted`.

* diag, spherical: given the component, columns are independent, so missing values are
  integrated out. The latent record is as without missing values, and the statistic
  ends with the weights of the observed values, (k, d).
* full, tied (Ghahramani and Jordan 1994, NIPS 6, section 4): the latent record of a row
  with q missing values is the k responsibilities; then, full: for each component the q
  conditional means of the missing values and the packed triangle of their conditional
  covariance; tied: this triangle once, then the means of each component. The statistic
  is that without missing values. A drawn or most probable component comes with its
  conditional moments: missing values are integrated out there, too.

Layouts are otherwise those of `saem.models._gaussian_kernels`.
"""

from __future__ import annotations

from saem._borrow import segment
from saem._jit import kernel
from saem._types import ACCUMULATE, CLASSIFY, DRAW, EXPECT

from ._gaussian_conditional import (
    accumulate_full,
    accumulate_observed,
    accumulate_tied,
    joint_full,
    joint_tied,
    log_joint_variances,
)
from ._gaussian_kernels import _choose, _most_probable, _normalise

__all__ = [
    "accumulate_diag_missing",
    "accumulate_full_missing",
    "accumulate_spherical_missing",
    "accumulate_tied_missing",
    "classify_diag_missing",
    "classify_full_missing",
    "classify_spherical_missing",
    "classify_tied_missing",
    "draw_diag_missing",
    "draw_full_missing",
    "draw_spherical_missing",
    "draw_tied_missing",
    "expect_diag_missing",
    "expect_full_missing",
    "expect_spherical_missing",
    "expect_tied_missing",
    "latent_size",
    "work_size",
]


def latent_size(covariance_type: str, n_components: int, most_missing: int) -> int:
    """Numbers in a latent record when a row lacks at most so many values."""
    k, q = n_components, most_missing
    triangle = q * (q + 1) // 2
    if covariance_type == "full":
        return k * (1 + q + triangle)
    if covariance_type == "tied":
        return k * (1 + q) + triangle
    return k


def work_size(n_features: int, latent: int) -> int:
    """Scratch numbers the functions need: order, deviations, a triangle, a latent record."""
    return 2 * n_features + n_features * (n_features + 1) // 2 + latent


# The functions of the model.


@kernel(EXPECT, deferred=True)
def expect_full_missing(theta, y, latent, work):
    """Posterior of one row; returns the weighted log-likelihood of its observed values."""
    joint_full(theta, segment(y, 0, y.size - 1), latent, work)
    return y[y.size - 1] * _normalise(segment(latent, 0, int(theta[0])))


@kernel(DRAW, deferred=True)
def draw_full_missing(theta, y, key, latent, work):
    """Indicator of a component drawn from its posterior."""
    joint_full(theta, segment(y, 0, y.size - 1), latent, work)
    first = segment(latent, 0, int(theta[0]))
    _normalise(first)
    _choose(key, first)


@kernel(CLASSIFY, deferred=True)
def classify_full_missing(theta, y, latent, work):
    """Indicator of the most probable component; returns the weighted log p(x_obs, z)."""
    joint_full(theta, segment(y, 0, y.size - 1), latent, work)
    return y[y.size - 1] * _most_probable(segment(latent, 0, int(theta[0])))


@kernel(ACCUMULATE, deferred=True)
def accumulate_full_missing(weight, y, latent, s):
    """Add the weighted statistic of one row."""
    d = y.size - 1
    tri = d * (d + 1) // 2
    k = s.size // (1 + d + tri)
    accumulate_full(weight * y[d], segment(y, 0, d), latent, s, k)


@kernel(EXPECT, deferred=True)
def expect_tied_missing(theta, y, latent, work):
    """Posterior of one row; returns the weighted log-likelihood of its observed values."""
    joint_tied(theta, segment(y, 0, y.size - 1), latent, work)
    return y[y.size - 1] * _normalise(segment(latent, 0, int(theta[0])))


@kernel(DRAW, deferred=True)
def draw_tied_missing(theta, y, key, latent, work):
    """Indicator of a component drawn from its posterior."""
    joint_tied(theta, segment(y, 0, y.size - 1), latent, work)
    first = segment(latent, 0, int(theta[0]))
    _normalise(first)
    _choose(key, first)


@kernel(CLASSIFY, deferred=True)
def classify_tied_missing(theta, y, latent, work):
    """Indicator of the most probable component; returns the weighted log p(x_obs, z)."""
    joint_tied(theta, segment(y, 0, y.size - 1), latent, work)
    return y[y.size - 1] * _most_probable(segment(latent, 0, int(theta[0])))


@kernel(ACCUMULATE, deferred=True)
def accumulate_tied_missing(weight, y, latent, s):
    """Add the weighted statistic of one row."""
    d = y.size - 1
    tri = d * (d + 1) // 2
    k = (s.size - tri) // (1 + d)
    accumulate_tied(weight * y[d], segment(y, 0, d), latent, s, k)


@kernel(EXPECT, deferred=True)
def expect_diag_missing(theta, y, latent, work):
    """Posterior of one row; returns the weighted log-likelihood of its observed values."""
    log_joint_variances(theta, segment(y, 0, y.size - 1), latent, int(theta[1]))
    return y[y.size - 1] * _normalise(latent)


@kernel(DRAW, deferred=True)
def draw_diag_missing(theta, y, key, latent, work):
    """Indicator of a component drawn from its posterior."""
    log_joint_variances(theta, segment(y, 0, y.size - 1), latent, int(theta[1]))
    first = latent
    _normalise(first)
    _choose(key, first)


@kernel(CLASSIFY, deferred=True)
def classify_diag_missing(theta, y, latent, work):
    """Indicator of the most probable component; returns the weighted log p(x_obs, z)."""
    log_joint_variances(theta, segment(y, 0, y.size - 1), latent, int(theta[1]))
    return y[y.size - 1] * _most_probable(latent)


@kernel(ACCUMULATE, deferred=True)
def accumulate_diag_missing(weight, y, latent, s):
    """Add the weighted statistic of one row."""
    d = y.size - 1
    accumulate_observed(weight * y[d], segment(y, 0, d), latent, s, d)


@kernel(EXPECT, deferred=True)
def expect_spherical_missing(theta, y, latent, work):
    """Posterior of one row; returns the weighted log-likelihood of its observed values."""
    log_joint_variances(theta, segment(y, 0, y.size - 1), latent, 1)
    return y[y.size - 1] * _normalise(latent)


@kernel(DRAW, deferred=True)
def draw_spherical_missing(theta, y, key, latent, work):
    """Indicator of a component drawn from its posterior."""
    log_joint_variances(theta, segment(y, 0, y.size - 1), latent, 1)
    first = latent
    _normalise(first)
    _choose(key, first)


@kernel(CLASSIFY, deferred=True)
def classify_spherical_missing(theta, y, latent, work):
    """Indicator of the most probable component; returns the weighted log p(x_obs, z)."""
    log_joint_variances(theta, segment(y, 0, y.size - 1), latent, 1)
    return y[y.size - 1] * _most_probable(latent)


@kernel(ACCUMULATE, deferred=True)
def accumulate_spherical_missing(weight, y, latent, s):
    """Add the weighted statistic of one row."""
    d = y.size - 1
    accumulate_observed(weight * y[d], segment(y, 0, d), latent, s, 1)
