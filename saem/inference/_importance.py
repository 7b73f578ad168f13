"""Compiled importance sampling of one individual's likelihood."""

from __future__ import annotations

import math

import numpy as np

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel
from saem._linalg import invert_lower
from saem._math import HALF_LOG_2PI, exp, log
from saem._types import VISIT
from saem._whitened import log_det
from saem.estep._moves import distance
from saem.random import fill_normal, stream

__all__ = ["HEADER", "record_size", "visit_importance", "work_size"]

#: Numbers in a record before mean and covariance: log-likelihood, its error, effective
#: sample size, standard deviation of one pair.
HEADER = 4
#: One pair in so many is drawn from the prior.
PER_DEFENSIVE = 10
#: Pairs whose random numbers, densities and weights are computed at once: such loops vectorise.
_BATCH = 8


def record_size(d: int, n_tail: int = 0) -> int:
    """Length of a record of `visit_importance` that keeps so many of the largest weights."""
    return HEADER + d + d * d + n_tail


def work_size(d: int, df: int, latent_size: int) -> int:
    """Scratch numbers of the visitor, without the model's."""
    return 2 * d + 3 * d * d + _BATCH * (d + df) + 2 * _BATCH * (latent_size + 5)


@helper
def _keep_largest(heap, value):
    """Put a value into a heap of the largest ones, whose smallest is at the root."""
    if not (heap.size > 0 and value > heap[0]):
        return
    at = 0
    while True:
        child = 2 * at + 1
        if child >= heap.size:
            break
        if child + 1 < heap.size and heap[child + 1] < heap[child]:
            child += 1
        if not heap[child] < value:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = value


@kernel(VISIT, inner=True)
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
        standard deviation of a pair; weighted mean and covariance of z; then as many of
        the largest log weights as there is room for, in no order (-inf where there are fewer).
    """
    d, latent_size = int(settings[0]), int(settings[1])
    df, inflation = int(settings[2]), settings[3]
    centre = segment(memory, 0, d)
    factor = as_matrix(segment(memory, d, d * d), d, d)
    pairs = int(memory[d + d * d])
    mean, shift = segment(work, 0, d), segment(work, d, d)
    at = 2 * d
    chol = as_matrix(segment(work, at, d * d), d, d)
    chol_inverse = as_matrix(segment(work, at + d * d, d * d), d, d)
    factor_inverse = as_matrix(segment(work, at + 2 * d * d, d * d), d, d)
    at += 3 * d * d
    numbers = segment(work, at, _BATCH * (d + df))
    at += _BATCH * (d + df)
    draws = segment(work, at, 2 * _BATCH * latent_size)
    at += 2 * _BATCH * latent_size
    squares = segment(work, at, 2 * _BATCH)
    log_priors = segment(work, at + 2 * _BATCH, 2 * _BATCH)
    log_weights = segment(work, at + 4 * _BATCH, 2 * _BATCH)
    weights = segment(work, at + 6 * _BATCH, 2 * _BATCH)
    controls = segment(work, at + 8 * _BATCH, 2 * _BATCH)
    at += 10 * _BATCH
    scratch = segment(work, at, work.size - at)
    out_mean = segment(record, HEADER, d)
    out_cov = as_matrix(segment(record, HEADER + d, d * d), d, d)
    tail = segment(record, HEADER + d + d * d, record.size - HEADER - d - d * d)
    for a in range(record.size - tail.size):
        record[a] = 0.0
    for a in range(tail.size):
        tail[a] = -np.inf

    kernels.prior(theta, y, mean, chol)
    invert_lower(chol, chol_inverse)
    invert_lower(factor, factor_inverse)
    log_prior = -log_det(chol) - d * HALF_LOG_2PI
    log_normal = -log_det(factor) - d * HALF_LOG_2PI
    log_student = math.lgamma(0.5 * (df + d)) - math.lgamma(0.5 * df) - 0.5 * d * log(df * np.pi)
    log_student -= log_det(factor) + d * log(inflation)
    spread = 1.0 / (inflation * inflation * df)
    defensive = pairs // PER_DEFENSIVE
    share = defensive / pairs
    key = stream(key, int(settings[4]), 0)

    level = -np.inf
    sum_w = sum_w2 = sum_p = sum_p2 = sum_v = sum_v2 = sum_pv = 0.0
    position = 0
    for start in range(0, pairs, _BATCH):
        size = min(_BATCH, pairs - start)
        position = fill_normal(key, position, segment(numbers, 0, size * (d + df)))
        for pair in range(size):
            normals = segment(numbers, pair * (d + df), d + df)
            from_prior = start + pair < defensive
            chi2 = 0.0
            for a in range(d, d + df):
                chi2 += normals[a] * normals[a]
            stretch = 1.0 if from_prior else inflation * np.sqrt(df / chi2)
            for a in range(d):
                shift[a] = 0.0
                for b in range(a + 1):
                    entry = chol[a, b] if from_prior else factor[a, b]
                    shift[a] += stretch * entry * normals[b]
            for m in range(2 * pair, 2 * pair + 2):
                sign = 1.0 if m == 2 * pair else -1.0
                z = segment(draws, m * latent_size, latent_size)
                for a in range(d):
                    z[a] = (mean[a] if from_prior else centre[a]) + sign * shift[a]
                squares[m] = distance(z, centre, factor_inverse)
                log_priors[m] = log_prior - 0.5 * distance(z, mean, chol_inverse)
                log_weights[m] = kernels.log_lik(kernels.structural, theta, y, z, scratch)
        for m in range(2 * size):
            student = log_student - 0.5 * (df + d) * log(1.0 + squares[m] * spread)
            log_q = student + log((1.0 - share) + share * exp(log_priors[m] - student))
            controls[m] = exp(log_normal - 0.5 * squares[m] - log_q)
            log_weights[m] += log_priors[m] - log_q
            _keep_largest(tail, log_weights[m])
        highest = level
        for m in range(2 * size):
            highest = log_weights[m] if log_weights[m] > highest else highest
        if highest > level:
            # Everything so far is put on the level of the largest weight.
            change = np.exp(level - highest)  # 0 at the first
            level = highest
            sum_w *= change
            sum_p *= change
            sum_pv *= change
            sum_w2 *= change * change
            sum_p2 *= change * change
            for a in range(d):
                out_mean[a] *= change
                for b in range(a + 1):
                    out_cov[a, b] *= change
        for m in range(2 * size):
            # A comparison with NaN is False: such a draw has no weight.
            weights[m] = exp(log_weights[m] - level) if log_weights[m] > level - 700.0 else 0.0
        for pair in range(size):
            one, two = weights[2 * pair], weights[2 * pair + 1]
            both = 0.5 * (one + two)
            control = 0.5 * (controls[2 * pair] + controls[2 * pair + 1])
            sum_w += one + two
            sum_w2 += one * one + two * two
            sum_p += both
            sum_p2 += both * both
            sum_v += control
            sum_v2 += control * control
            sum_pv += both * control
            for m in range(2 * pair, 2 * pair + 2):
                z = segment(draws, m * latent_size, latent_size)
                for a in range(d):
                    weighted = weights[m] * (z[a] - centre[a])
                    out_mean[a] += weighted
                    for b in range(a + 1):
                        out_cov[a, b] += weighted * (z[b] - centre[b])
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
