"""Compiled importance sampling of one individual's likelihood."""

from __future__ import annotations

import math

import numpy as np

from saem._borrow import as_matrix
from saem._jit import kernel
from saem._laplace import log_det, whiten
from saem._math import HALF_LOG_2PI, exp, log
from saem._types import VISIT
from saem.random import fill_normal, stream

__all__ = ["HEADER", "record_size", "visit_importance", "work_size"]

#: Numbers in a record before mean and covariance: log-likelihood, its error, effective
#: sample size, standard deviation of one pair.
HEADER = 4
#: One pair in so many is drawn from the prior.
PER_DEFENSIVE = 10


def record_size(d: int) -> int:
    """Length of a record of `visit_importance`."""
    return HEADER + d + d * d


def work_size(d: int, df: int, latent_size: int) -> int:
    """Scratch numbers of the visitor, without the model's."""
    return 2 * d + d * d + 2 * d + df + latent_size


@kernel(VISIT)
def visit_importance(kernels, theta, y, record, memory, settings, key, work):
    """Estimate p(y) from antithetic pairs of draws around a centre.

    Nine pairs of ten are ``z = c +- s F t``, t Student with df degrees of
    freedom; the tenth is from the prior, so that weights ``w = p(y, z) / q(z)``, q the
    mixture, are bounded and a second mode far from c is found (defensive
    mixture, Hesterberg 1995, Technometrics 37, 185-194). With the control variate
    ``v = N(z; c, F F') / q(z)``, whose mean is 1 and which follows w closely where
    the posterior is near that Gaussian, the estimate is ``mean(w) - b (mean(v) -
    1)``, b the regression coefficient over pairs.

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
    log_normal = -log_det(factor) - d * HALF_LOG_2PI
    log_student = math.lgamma(0.5 * (df + d)) - math.lgamma(0.5 * df) - 0.5 * d * log(df * np.pi)
    log_student -= log_det(factor) + d * log(inflation)
    defensive = pairs // PER_DEFENSIVE
    share = defensive / pairs
    key = stream(key, int(settings[4]), 0)

    level = -np.inf
    sum_w = sum_w2 = sum_p = sum_p2 = sum_v = sum_v2 = sum_pv = 0.0
    position = 0
    for pair in range(pairs):
        position = fill_normal(key, position, normals)
        from_prior = pair < defensive
        chi2 = 0.0
        for a in range(df):
            chi2 += normals[d + a] * normals[d + a]
        stretch = 1.0 if from_prior else inflation * np.sqrt(df / chi2)
        for a in range(d):
            shift[a] = 0.0
            for b in range(a + 1):
                entry = chol[a, b] if from_prior else factor[a, b]
                shift[a] += stretch * entry * normals[b]
        both = 0.0
        square = 0.0
        control = 0.0
        for sign in (1.0, -1.0):
            for a in range(d):
                z[a] = (mean[a] if from_prior else centre[a]) + sign * shift[a]
            r2 = whiten(z, centre, factor, u)
            prior = log_prior - 0.5 * whiten(z, mean, chol, u)
            student = log_student - 0.5 * (df + d) * log(1.0 + r2 / (inflation * inflation * df))
            # log q, without overflow; the share of the prior may be 0.
            top = max(student, prior)
            log_q = top + log((1.0 - share) * exp(student - top) + share * exp(prior - top))
            control += 0.5 * exp(log_normal - 0.5 * r2 - log_q)
            log_w = kernels.log_lik(kernels.structural, theta, y, z, scratch) + prior - log_q
            if log_w > level:
                # Everything so far is put on the level of the largest weight.
                change = np.exp(level - log_w)  # 0 at the first
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
            # A comparison with NaN is False: such a draw has no weight.
            w = exp(log_w - level) if log_w > level - 700.0 else 0.0
            both += 0.5 * w
            square += w * w
            for a in range(d):
                out_mean[a] += w * (z[a] - centre[a])
                for b in range(a + 1):
                    out_cov[a, b] += w * (z[a] - centre[a]) * (z[b] - centre[b])
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
