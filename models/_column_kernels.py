"""Compiled functions of mixtures with columns independent given the component.

Every column is of an exponential family (`saem.models._mixture_families`), so all a row
says stands in its statistics t, and the log joint density of row and component c is

    h + sum_i t_i phi_ic,     t_0 = 1,     phi_0c = log w_c + sum_j b_jc,

a sparse product that knows no families; only the M-step does. With k components, p
columns and q coordinates (statistics) besides t_0:

=========  ==========================================================================
record y   weight, h, then a pair (i, t_i) for every t_i that is not 0
theta      k, p, q, alpha; columns (p, 3): family, first coordinate, their number;
           prior (1 + q); parameters (1 + q, k), the first row the weights of the
           components; phi (1 + q, k)
s          sums (1 + q, k) of r_c t_i; the first row are the counts N_c
latent     responsibilities (k), or the indicator of a component
=========  ==========================================================================

Coordinates of a column are, for a simplex, the counts of its levels; for others, first
the indicator that the value is missing (with phi = -b: what t_0 has said too much), then
the statistics of the family. Missing values cost a pair, others what is not 0.

The prior is alpha pseudo-rows per row (of weight), in each component, that have the
mean statistics of all data; its entry for a missing value is -1, a value more. So
s + alpha W prior, with W = sum N_c, takes the place of s in the M-step, which stays
free of scale; a statistic is admissible when parameters belong to that sum.
"""

from __future__ import annotations

import numpy as np

from saem._jit import helper, kernel
from saem._types import ACCUMULATE, CLASSIFY, DRAW, EXPECT, MAXIMIZE, PROJECT, SURROGATE

from . import _mixture_families as families
from ._gaussian_kernels import _choose, _most_probable, _normalise

__all__ = [
    "BAD_COLUMN",
    "EMPTY_COMPONENT",
    "HEAD",
    "accumulate",
    "classify",
    "draw",
    "expect",
    "maximize",
    "project",
    "refresh",
    "surrogate",
]

#: Numbers before the columns in theta.
HEAD = 4
#: Codes of `maximize`.
EMPTY_COMPONENT, BAD_COLUMN = 1, 2
#: Share of all rows that `project` gives to a component that has none.
_LEAST = 1e-8

SIMPLEX, GAUSSIAN = families.SIMPLEX, families.GAUSSIAN
admissible, moments, natural = families.admissible, families.moments, families.natural
repaired, solve = families.repaired, families.solve


# E-step.


@helper
def _log_joint(theta, y, latent):
    """Log joint densities of the row and each component, without h."""
    k, q = latent.size, int(theta[2])
    phi = theta.size - (1 + q) * k
    for c in range(k):
        latent[c] = theta[phi + c]
    for m in range(2, y.size, 2):
        i = phi + int(y[m]) * k
        for c in range(k):
            latent[c] += y[m + 1] * theta[i + c]


@kernel(EXPECT, deferred=True)
def expect(theta, y, latent, work):
    """Responsibilities of one row; returns its log-likelihood times its weight."""
    _log_joint(theta, y, latent)
    return y[0] * (_normalise(latent) + y[1])


@kernel(DRAW, deferred=True)
def draw(theta, y, key, latent, work):
    """Indicator of a component drawn from its posterior."""
    _log_joint(theta, y, latent)
    _normalise(latent)
    _choose(key, latent)


@kernel(CLASSIFY, deferred=True)
def classify(theta, y, latent, work):
    """Indicator of the most probable component; returns log p(y, z) times the weight."""
    _log_joint(theta, y, latent)
    return y[0] * (_most_probable(latent) + y[1])


@kernel(ACCUMULATE, deferred=True)
def accumulate(weight, y, latent, s):
    """Add ``weight * r_c t_i``."""
    k = latent.size
    for c in range(k):
        s[c] += weight * y[0] * latent[c]
    for m in range(2, y.size, 2):
        i = int(y[m]) * k
        t = weight * y[0] * y[m + 1]
        for c in range(k):
            s[i + c] += t * latent[c]


# M-step.


@helper
def _places(theta):
    """Where prior, parameters and phi stand in theta."""
    k, p, q = int(theta[0]), int(theta[1]), int(theta[2])
    prior = HEAD + 3 * p
    parameters = prior + 1 + q
    return prior, parameters, parameters + (1 + q) * k


@helper
def _pseudo_rows(s, theta):
    """Pseudo-rows of the prior in each component, ``alpha W``."""
    total = 0.0
    for c in range(int(theta[0])):
        total += s[c]
    return theta[3] * total


@helper
def _sums(s, theta, j, c, pseudo):
    """Sums n, a and b of 1, t_1 and t_2 of a column that is no simplex, with the prior."""
    k, p = int(theta[0]), int(theta[1])
    prior = HEAD + 3 * p
    at = int(theta[HEAD + 3 * j + 1])
    two = int(theta[HEAD + 3 * j + 2]) == 3
    n = s[c] - (s[at * k + c] + pseudo * theta[prior + at])
    a = s[(at + 1) * k + c] + pseudo * theta[prior + at + 1]
    b = s[(at + 2) * k + c] + pseudo * theta[prior + at + 2] if two else 0.0
    return n, a, b


@helper
def _column_is_fine(s, theta, j, c, pseudo):
    """Whether parameters belong to the sums of column j in component c."""
    k, p = int(theta[0]), int(theta[1])
    family, at = int(theta[HEAD + 3 * j]), int(theta[HEAD + 3 * j + 1])
    if family == SIMPLEX:
        for i in range(at, at + int(theta[HEAD + 3 * j + 2])):
            x = s[i * k + c] + pseudo * theta[HEAD + 3 * p + i]
            if not (x > 0.0 and x < np.inf):
                return False
        return True
    if not s[at * k + c] >= -pseudo:
        return False
    n, a, b = _sums(s, theta, j, c, pseudo)
    return admissible(family, n, a, b)


@helper
def _set_column(s, theta, j, c, pseudo):
    """Parameters of column j in component c from admissible sums."""
    k = int(theta[0])
    family, at = int(theta[HEAD + 3 * j]), int(theta[HEAD + 3 * j + 1])
    size = int(theta[HEAD + 3 * j + 2])
    prior, parameters, _ = _places(theta)
    if family == SIMPLEX:
        total = 0.0
        for i in range(at, at + size):
            total += s[i * k + c] + pseudo * theta[prior + i]
        for i in range(at, at + size):
            theta[parameters + i * k + c] = (s[i * k + c] + pseudo * theta[prior + i]) / total
        return
    n, a, b = _sums(s, theta, j, c, pseudo)
    first, second = solve(family, n, a, b)
    theta[parameters + (at + 1) * k + c] = first
    if size == 3:
        theta[parameters + (at + 2) * k + c] = second


@helper
def _refresh(theta):
    """Write phi from the parameters."""
    k, p = int(theta[0]), int(theta[1])
    _, parameters, phi = _places(theta)
    for c in range(k):
        theta[phi + c] = np.log(theta[parameters + c])
    for j in range(p):
        family, at = int(theta[HEAD + 3 * j]), int(theta[HEAD + 3 * j + 1])
        size = int(theta[HEAD + 3 * j + 2])
        for c in range(k):
            if family == SIMPLEX:
                for i in range(at * k + c, (at + size) * k + c, k):
                    theta[phi + i] = np.log(theta[parameters + i])
                continue
            first = theta[parameters + (at + 1) * k + c]
            second = theta[parameters + (at + 2) * k + c] if size == 3 else 0.0
            b, one, two = natural(family, first, second)
            theta[phi + c] += b
            theta[phi + at * k + c] = -b
            theta[phi + (at + 1) * k + c] = one
            if size == 3:
                theta[phi + (at + 2) * k + c] = two


@kernel(MAXIMIZE, deferred=True)
def maximize(s, theta):
    """``w_c = N_c / W``, and the parameters of each column from its sums with the prior."""
    k, p = int(theta[0]), int(theta[1])
    pseudo = _pseudo_rows(s, theta)
    for c in range(k):
        if not (s[c] > 0.0 and pseudo < np.inf):
            return EMPTY_COMPONENT
        for j in range(p):
            if not _column_is_fine(s, theta, j, c, pseudo):
                return BAD_COLUMN
    parameters = _places(theta)[1]
    for c in range(k):
        theta[parameters + c] = s[c] / (pseudo / theta[3])
        for j in range(p):
            _set_column(s, theta, j, c, pseudo)
    _refresh(theta)
    return 0


@kernel(MAXIMIZE, deferred=True)
def refresh(s, theta):
    """Write phi from parameters given by a user; s is not looked at."""
    _refresh(theta)
    return 0


@kernel(SURROGATE, deferred=True)
def surrogate(s, theta):
    """``sum_ic (s_ic + alpha W prior_i) phi_ic``."""
    k, q = int(theta[0]), int(theta[2])
    prior, _, phi = _places(theta)
    pseudo = _pseudo_rows(s, theta)
    total = 0.0
    for c in range(k):
        total += s[c] * theta[phi + c]
        for i in range(1, 1 + q):
            total += (s[i * k + c] + pseudo * theta[prior + i]) * theta[phi + i * k + c]
    return total


# Admissible statistics.


@helper
def _expected_column(s, theta, j, c):
    """Sums of column j in component c that its count and theta lead one to expect."""
    k = int(theta[0])
    family, at = int(theta[HEAD + 3 * j]), int(theta[HEAD + 3 * j + 1])
    size = int(theta[HEAD + 3 * j + 2])
    parameters = _places(theta)[1]
    if family == SIMPLEX:
        for i in range(at * k + c, (at + size) * k + c, k):
            s[i] = s[c] * theta[parameters + i]
        return
    first = theta[parameters + (at + 1) * k + c]
    second = theta[parameters + (at + 2) * k + c] if size == 3 else 0.0
    one, two = moments(family, first, second)
    s[at * k + c] = 0.0
    s[(at + 1) * k + c] = s[c] * one
    if size == 3:
        s[(at + 2) * k + c] = s[c] * two


@helper
def _repair_column(s, theta, j, c, pseudo):
    """Move the sums of column j in component c into their range."""
    k = int(theta[0])
    family, at = int(theta[HEAD + 3 * j]), int(theta[HEAD + 3 * j + 1])
    size = int(theta[HEAD + 3 * j + 2])
    if family == SIMPLEX:
        for i in range(at * k + c, (at + size) * k + c, k):
            s[i] = max(s[i], 0.0)
        return
    parameters = _places(theta)[1]
    s[at * k + c] = min(max(s[at * k + c], 0.0), s[c])
    n, a, b = _sums(s, theta, j, c, pseudo)
    if admissible(family, n, a, b):
        return
    first = theta[parameters + (at + 1) * k + c]
    second = theta[parameters + (at + 2) * k + c] if size == 3 else 0.0
    n = s[c] - s[at * k + c]
    if not n > 0.0:  # values that no row has leave the prior alone
        s[(at + 1) * k + c] = 0.0
        if size == 3:
            s[(at + 2) * k + c] = 0.0
        return
    a, b = repaired(family, n, s[(at + 1) * k + c], b, first, second)
    s[(at + 1) * k + c] = a
    if size == 3:
        s[(at + 2) * k + c] = b


@kernel(PROJECT, deferred=True)
def project(s, theta):
    """Give every component rows, and every column sums to which parameters belong.

    A statistic that is not finite, or has no rows at all, becomes what theta expects.
    """
    k, p = int(theta[0]), int(theta[1])
    parameters = _places(theta)[1]
    finite, total = True, 0.0
    for m in range(s.size):
        finite = finite and np.isfinite(s[m])
    for c in range(k):
        total += max(s[c], 0.0)
    lost = not finite or not total > 0.0
    if lost:
        total = 1.0
    for c in range(k):
        if lost or s[c] <= 0.0:
            s[c] = theta[parameters + c] if lost else _LEAST * total
            for j in range(p):
                _expected_column(s, theta, j, c)
    pseudo = _pseudo_rows(s, theta)
    for c in range(k):
        for j in range(p):
            if not _column_is_fine(s, theta, j, c, pseudo):
                _repair_column(s, theta, j, c, pseudo)
