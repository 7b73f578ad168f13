"""Compiled importance sampling of one individual's likelihood."""

from __future__ import annotations

import math

import numpy as np

from saem._borrow import as_matrix
from saem._jit import helper, kernel
from saem._laplace import log_det, whiten
from saem._math import HALF_LOG_2PI
from saem._types import VISIT
from saem.random import fill_normal, stream

__all__ = ["HEADER", "record_size", "visit_importance", "work_size"]

#: Numbers in a record before mean and covariance: log-likelihood, its error, effective
#: sample size, standard deviation of one pair.
HEADER = 4


def record_size(d: int) -> int:
    """Length of a record of `visit_importance`."""
    return HEADER + d + d * d


def work_size(d: int, df: int, latent_size: int) -> int:
    """Scratch numbers of the visitor, without the model's."""
    return 2 * d + d * d + 2 * d + df + latent_size


@helper
def _log_weight(kernels, theta, y, z, mean, chol, constant, u, scratch):
    """Log of p(y, z), with the prior's constant given; -inf where it is not a number."""
    value = kernels.log_lik(kernels.structural, theta, y, z, scratch)
    value += constant - 0.5 * whiten(z, mean, chol, u)
    return value if value == value else -np.inf


@kernel(VISIT)
def visit_importance(kernels, theta, y, record, memory, settings, key, work):
    """Estimate p(y) from antithetic pairs of Student draws around a centre.

    With proposals ``z = c +- s F t``, t Student with df degrees of freedom,
    weights ``w = p(y, z) / q(z)`` and the control variate ``v = N(z; c, F F') /
    q(z)``, whose mean is 1 and which follows w closely where the posterior is
    near that Gaussian, the estimate is ``mean(w) - b (mean(v) - 1)``, b the
    regression coefficient over pairs.

    Parameters
    ----------
    memory
        c (d), F (d * d), number of pairs.
    settings
        d, latent_size, df, s, number of the stage (its draws are its own).
    record
        Log estimate, its standard error, effective sample size, relative
        standard deviation of a pair; weighted mean and covariance of z.
    """
    d, latent_size = int(settings[0]), int(settings[1])
    df, inflation = int(settings[2]), settings[3]
    centre = memory[:d]
    factor = as_matrix(memory[d:], d, d)
    pairs = int(memory[d + d * d])
    mean, u = work[:d], work[d : 2 * d]
    chol = as_matrix(work[2 * d :], d, d)
    at = 2 * d + d * d
    normals = work[at : at + d + df]
    shift = work[at + d + df : at + 2 * d + df]
    at += 2 * d + df
    z = work[at : at + latent_size]
    scratch = work[at + latent_size :]
    out_mean = record[HEADER : HEADER + d]
    out_cov = as_matrix(record[HEADER + d :], d, d)
    record[:] = 0.0

    kernels.prior(theta, y, mean, chol)
    log_prior = -log_det(chol) - d * HALF_LOG_2PI
    # Of the Student density of t and of the map from t to z.
    log_q = math.lgamma(0.5 * (df + d)) - math.lgamma(0.5 * df) - 0.5 * d * np.log(df * np.pi)
    log_scale = d * np.log(inflation)
    log_map = log_det(factor) + log_scale
    key = stream(key, int(settings[4]), 0)

    level = -np.inf
    sum_w = sum_w2 = sum_p = sum_p2 = sum_v = sum_v2 = sum_pv = 0.0
    position = 0
    for _ in range(pairs):
        position = fill_normal(key, position, normals)
        chi2 = 0.0
        for a in range(df):
            chi2 += normals[d + a] * normals[d + a]
        stretch = np.sqrt(df / chi2)
        r2 = 0.0
        for a in range(d):
            normals[a] *= stretch
            r2 += normals[a] * normals[a]
        for a in range(d):
            shift[a] = 0.0
            for b in range(a + 1):
                shift[a] += factor[a, b] * normals[b]
            shift[a] *= inflation
        log_density = log_q - 0.5 * (df + d) * np.log1p(r2 / df)
        control = np.exp(
            log_scale - d * HALF_LOG_2PI - 0.5 * inflation * inflation * r2 - log_density
        )
        both = 0.0
        square = 0.0
        for sign in (1.0, -1.0):
            for a in range(d):
                z[a] = centre[a] + sign * shift[a]
            log_w = _log_weight(kernels, theta, y, z, mean, chol, log_prior, u, scratch)
            log_w += log_map - log_density
            if log_w > level:
                # Everything so far is put on the level of the largest weight.
                change = np.exp(level - log_w)
                level = log_w
                sum_w *= change
                sum_p *= change
                sum_pv *= change
                both *= change
                sum_w2 *= change * change
                sum_p2 *= change * change
                square *= change * change
                for a in range(d):
                    out_mean[a] *= change
                    for b in range(a + 1):
                        out_cov[a, b] *= change
            w = np.exp(log_w - level) if np.isfinite(log_w) else 0.0
            both += 0.5 * w
            square += w * w
            for a in range(d):
                out_mean[a] += w * sign * shift[a]
                for b in range(a + 1):
                    out_cov[a, b] += w * shift[a] * shift[b]
        sum_w += 2.0 * both
        sum_w2 += square
        sum_p += both
        sum_p2 += both * both
        sum_v += control
        sum_v2 += control * control
        sum_pv += both * control
    if not sum_w > 0.0:
        record[0] = -np.inf
        record[1] = np.inf
        return -np.inf

    mean_p, mean_v = sum_p / pairs, sum_v / pairs
    var_p = max(sum_p2 / pairs - mean_p * mean_p, 0.0)
    var_v = sum_v2 / pairs - mean_v * mean_v
    slope = (sum_pv / pairs - mean_p * mean_v) / var_v if var_v > 0.0 else 0.0
    estimate = mean_p - slope * (mean_v - 1.0)
    residual = max(var_p - slope * slope * var_v, 0.0)
    if not estimate > 0.0:
        estimate, residual = mean_p, var_p
    sd = np.sqrt(residual * pairs / max(1, pairs - 2)) / estimate
    record[0] = level + np.log(estimate)
    record[1] = sd / np.sqrt(pairs)
    record[2] = sum_w * sum_w / sum_w2
    record[3] = sd
    for a in range(d):
        out_mean[a] /= sum_w
    for a in range(d):
        for b in range(a + 1):
            out_cov[a, b] = out_cov[a, b] / sum_w - out_mean[a] * out_mean[b]
            out_cov[b, a] = out_cov[a, b]
    for a in range(d):
        out_mean[a] += centre[a]
    return record[0]
