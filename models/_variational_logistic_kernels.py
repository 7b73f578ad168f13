"""Compiled functions of variational Bayesian logistic regression.

The visit of individual i at ``theta' = (mu', sd')`` yields the quadratic surrogate of its loss
``f_i(theta) = -E log p(y_i | x_i'w)``, w ~ N(mu, diag(sd^2)): with gradient g,

    f_i(theta') + g'(theta - theta') + sum_j L_ij (theta_j - theta'_j)^2 / 2,

of which ``L theta' - g`` and L are the statistic. L = |x_i|^2 / 4 for mu and x_ij^2 / 4 for
sd_j is an upper bound of the curvature everywhere (see `VariationalLogistic`).

=========  =======================================================================
y          weight; response; x (p)
theta      p, n, nodes (`HEAD` numbers); precision of the prior (p); Gauss-Hermite nodes and
           weights for the standard normal; mean (p); sd (p)
latent     ``L theta' - g`` for mean (p) and sd (p)
s          the mean of these; the mean of L for the mean (1) and for sd (p)
=========  =======================================================================
"""

from __future__ import annotations

import numpy as np

from saem._borrow import segment
from saem._jit import helper, kernel
from saem._math import exp
from saem._types import ACCUMULATE, DRAW, EXPECT, MAXIMIZE, PROJECT, SURROGATE
from saem.random import fill_normal

from ._binary import log_expit

__all__ = [
    "FLAT",
    "HEAD",
    "NOT_FINITE",
    "accumulate",
    "draw",
    "expect",
    "maximize",
    "project",
    "surrogate",
]

#: Numbers before the prior's precision in theta.
HEAD = 3
#: Codes of `maximize`.
NOT_FINITE = 1
FLAT = 2


@helper
def _blocks(theta):
    """Prior's precision, nodes, their weights, mean and sd."""
    p, q = int(theta[0]), int(theta[2])
    at = HEAD + p + 2 * q
    return (
        segment(theta, HEAD, p),
        segment(theta, HEAD + p, q),
        segment(theta, HEAD + p + q, q),
        segment(theta, at, p),
        segment(theta, at + p, p),
    )


@helper
def _divergence(precision, mean, sd):
    """``KL(N(mean, sd^2) || N(0, 1 / precision))``."""
    value = 0.0
    for j in range(mean.size):
        ratio = precision[j] * sd[j] * sd[j]
        value += 0.5 * (precision[j] * mean[j] * mean[j] + ratio - 1.0 - np.log(ratio))
    return value


@helper
def _curvature(y, p):
    """Bound ``|x|^2 / 4`` of the curvature in the mean."""
    total = 0.0
    for j in range(p):
        total += y[2 + j] * y[2 + j]
    return 0.25 * total


@kernel(EXPECT)
def expect(theta, y, latent, work):
    """Surrogate with the exact gradient; returns the individual's share of the ELBO.

    The share is ``weight * E log p(y | x'w) - KL / n``. The expectation is over the linear
    predictor alone, which is normal with mean x'mu and variance sum x_j^2 sd_j^2.
    """
    precision, nodes, weights, mean, sd = _blocks(theta)
    p = mean.size
    centre, variance = 0.0, 0.0
    for j in range(p):
        centre += y[2 + j] * mean[j]
        variance += (y[2 + j] * sd[j]) ** 2
    spread = np.sqrt(variance)
    sign = 2.0 * y[1] - 1.0
    value, by_centre, by_spread = 0.0, 0.0, 0.0
    for m in range(nodes.size):
        t = sign * (centre + spread * nodes[m])
        slope = -weights[m] * sign / (1.0 + exp(t))
        value += weights[m] * log_expit(t)
        by_centre += slope
        by_spread += slope * nodes[m]
    ratio = by_spread / spread if spread > 0.0 else 0.0
    bound = _curvature(y, p)
    for j in range(p):
        x = y[2 + j]
        latent[j] = bound * mean[j] - by_centre * x
        latent[p + j] = x * x * sd[j] * (0.25 - ratio)
    return y[0] * value - _divergence(precision, mean, sd) / theta[1]


@kernel(DRAW)
def draw(theta, y, key, latent, work):
    """Surrogate with the gradient at one ``w = mean + sd e``, e standard normal."""
    _, _, _, mean, sd = _blocks(theta)
    p = mean.size
    noise = segment(work, 0, p)
    fill_normal(key, 0, noise)
    t = 0.0
    for j in range(p):
        t += y[2 + j] * (mean[j] + sd[j] * noise[j])
    sign = 2.0 * y[1] - 1.0
    slope = -sign / (1.0 + exp(sign * t))
    bound = _curvature(y, p)
    for j in range(p):
        x = y[2 + j]
        latent[j] = bound * mean[j] - slope * x
        latent[p + j] = 0.25 * x * x * sd[j] - slope * x * noise[j]


@kernel(ACCUMULATE)
def accumulate(weight, y, latent, s):
    """Add the surrogate, in proportion to the individual's weight."""
    p = latent.size // 2
    share = weight * y[0]
    for j in range(2 * p):
        s[j] += share * latent[j]
    s[2 * p] += share * _curvature(y, p)
    for j in range(p):
        s[2 * p + 1 + j] += share * 0.25 * y[2 + j] * y[2 + j]


@kernel(MAXIMIZE)
def maximize(s, theta):
    """Minimum of the mean surrogate plus KL / n, in closed form.

    mu_j = s_j / (L + c_j / n); sd_j is the positive root of
    ``(L_j + c_j / n) sd^2 - s_j sd - 1 / n = 0``; c_j is the prior's precision.
    """
    precision, _, _, mean, sd = _blocks(theta)
    p, n = mean.size, theta[1]
    for m in range(s.size):
        if not np.isfinite(s[m]):
            return NOT_FINITE
    for j in range(p):
        if not (s[2 * p] >= 0.0 and s[2 * p + 1 + j] >= 0.0):
            return FLAT
    for j in range(p):
        mean[j] = s[j] / (s[2 * p] + precision[j] / n)
        curvature = s[2 * p + 1 + j] + precision[j] / n
        half = 0.5 * s[p + j]
        root = np.sqrt(half * half + curvature / n)
        # Of two equal forms, that which does not subtract.
        sd[j] = (half + root) / curvature if half > 0.0 else 1.0 / (n * (root - half))
    return 0


@kernel(PROJECT)
def project(s, theta):
    """Clip the curvatures at 0: the prior's own keeps the minimum unique."""
    p = int(theta[0])
    for j in range(2 * p, s.size):
        s[j] = max(s[j], 0.0)


@kernel(SURROGATE)
def surrogate(s, theta):
    """Minus the mean surrogate and KL / n."""
    precision, _, _, mean, sd = _blocks(theta)
    p = mean.size
    value = -_divergence(precision, mean, sd) / theta[1]
    for j in range(p):
        value += s[j] * mean[j] - 0.5 * s[2 * p] * mean[j] * mean[j]
        value += s[p + j] * sd[j] - 0.5 * s[2 * p + 1 + j] * sd[j] * sd[j]
    return value
