"""Compiled E-steps of hidden Markov models: one individual is one sequence.

    P(z_1 = k) = pi_k,    P(z_{t+1} = l | z_t = k) = A_kl,    y_t | z_t = k ~ emission k.

With K states, d columns (or symbols), T time points of the sequence and T_max of the
longest, t = d (d + 1) / 2:

=========  =======================================================================
y          weight, K, d, kind (`RECORD_HEAD` numbers); values less the shift (T, d), or
           symbols (T); not-a-number where missing
theta      K, d, kind, floor (`HEAD` numbers); pi (K); A (K, K); emissions
latent     expected numbers of transitions (K, K); probabilities of states (T_max, K), of
           which the first T rows are used; indicators and counts for a drawn path
s          start (K); transitions (K, K); emissions
=========  =======================================================================

==============  ==========================================  ===========================
kind            emissions in theta                          emissions in s
==============  ==========================================  ===========================
`DIAG`          means (K, d); variances (K, d); 1/2 log     counts (K, d); sums (K, d);
                2 pi variance (K, d)                        squares (K, d)
`FULL`          means (K, d); covariances (K, d, d); log    counts (K); sums (K, d);
                constants (K); Cholesky factors (K, d, d)   lower triangles (K, t)
`CATEGORICAL`   probabilities (K, d)                        counts (K, d)
==============  ==========================================  ===========================

A record of the latent values has one size for all individuals: that of the longest
sequence. Cut very unequal sequences if memory matters to an incremental method.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, int64, void

from saem._jit import kernel
from saem._types import ACCUMULATE, CLASSIFY, DRAW, EXPECT, MATRIX, VECTOR
from saem.random import uniform

__all__ = [
    "CATEGORICAL",
    "DIAG",
    "FULL",
    "HEAD",
    "RECORD_HEAD",
    "accumulate",
    "classify",
    "draw",
    "expect",
    "work_size",
]

#: Numbers before pi in theta, and before the values in a record.
HEAD = 4
RECORD_HEAD = 4
DIAG, FULL, CATEGORICAL = 0, 1, 2
#: Sums of probabilities above this have lost nothing to underflow that would matter.
_SAFE = 1e-250


def work_size(k: int, d: int, longest: int) -> int:
    """Scratch numbers the functions need."""
    return longest * k + 4 * k + d


@kernel(int64(VECTOR))
def _length(y):
    """Time points of a sequence."""
    width = 1 if y[3] == CATEGORICAL else int(y[2])
    return (y.size - RECORD_HEAD) // width


@kernel(void(VECTOR, VECTOR, int64, VECTOR, VECTOR))
def _log_emission(theta, y, t, out, scratch):
    """Log densities of time point t in all states; what is missing of it is left out."""
    k, d, kind = int(theta[0]), int(theta[1]), int(theta[2])
    at = HEAD + k + k * k
    out[:] = 0.0
    if kind == CATEGORICAL:
        symbol = y[RECORD_HEAD + t]
        if not np.isnan(symbol):
            for c in range(k):
                out[c] = np.log(theta[at + c * d + int(symbol)])
        return
    row = y[RECORD_HEAD + t * d : RECORD_HEAD + (t + 1) * d]
    if kind == DIAG:
        for j in range(d):
            if not np.isnan(row[j]):
                for c in range(k):
                    i = at + c * d + j
                    left = row[j] - theta[i]
                    out[c] -= theta[i + 2 * k * d] + 0.5 * left * left / theta[i + k * d]
        return
    if np.isnan(row[0]):
        return
    constants = at + k * d + k * d * d
    for c in range(k):
        factor = constants + k + c * d * d
        out[c] = theta[constants + c]
        for a in range(d):
            left = row[a] - theta[at + c * d + a]
            for b in range(a):
                left -= theta[factor + a * d + b] * scratch[b]
            scratch[a] = left / theta[factor + a * d + a]
            out[c] -= 0.5 * scratch[a] * scratch[a]


@kernel(float64(VECTOR))
def _normalise(logs):
    """Subtract the largest, and return it; zeros and minus infinity where there is none."""
    top = -np.inf
    for c in range(logs.size):
        top = max(top, logs[c])
    for c in range(logs.size):
        logs[c] = logs[c] - top if top > -np.inf else 0.0
    return top


@kernel(void(VECTOR, MATRIX, boolean, VECTOR, VECTOR))
def _log_product(logs, chain, forward, shares, out):
    """``out_c = log sum_b exp(logs_b) A_bc``, or with A' if not forward; logs are at most 0.

    Shares that underflow are lost in a sum that is not tiny. Where it is, as after a
    forbidden transition, it is formed again from logarithms.
    """
    k = logs.size
    for b in range(k):
        shares[b] = np.exp(logs[b])
    for c in range(k):
        total = 0.0
        for b in range(k):
            total += shares[b] * (chain[b, c] if forward else chain[c, b])
        if total > _SAFE:
            out[c] = np.log(total)
            continue
        top = -np.inf
        for b in range(k):
            top = max(top, logs[b] + np.log(chain[b, c] if forward else chain[c, b]))
        total = 0.0
        if top > -np.inf:
            for b in range(k):
                way = chain[b, c] if forward else chain[c, b]
                total += np.exp(logs[b] + np.log(way) - top)
            out[c] = top + np.log(total)
        else:
            out[c] = -np.inf


@kernel(float64(VECTOR, VECTOR, MATRIX, MATRIX, VECTOR))
def _forward(theta, y, filtered, emissions, work):
    """Log probabilities of states given the past, the largest 0; returns log p(y).

    Rabiner (1989), Proc. IEEE 77, 257-286, equation (20), in logarithms: scaled
    probabilities would lose for good a state that underflows and cannot be entered again.
    A row that no path explains makes the log-likelihood minus infinity, and is passed over.
    """
    n, k = filtered.shape
    chain = theta[HEAD + k : HEAD + k + k * k].reshape((k, k))
    value = 0.0
    for t in range(n):
        _log_emission(theta, y, t, emissions[t], work)
        if t == 0:
            for c in range(k):
                filtered[0, c] = np.log(theta[HEAD + c])
        else:
            _log_product(filtered[t - 1], chain, True, work[:k], filtered[t])
        possible = False
        for c in range(k):
            if filtered[t, c] + emissions[t, c] > -np.inf:
                possible = True
        if not possible:
            value = -np.inf
            emissions[t] = 0.0
        for c in range(k):
            filtered[t, c] += emissions[t, c]
        value += _normalise(filtered[t])
    total = 0.0
    for c in range(k):
        total += np.exp(filtered[n - 1, c])
    return value + np.log(total)


@kernel(float64(float64, float64))
def _weighted(weight, value):
    """Weight times value; 0 for a sequence that is absent, whatever its value."""
    return weight * value if weight > 0.0 else 0.0


@kernel(void(VECTOR, VECTOR, MATRIX, VECTOR, VECTOR, MATRIX))
def _add_jumps(before, after, chain, left, right, jumps):
    """Add the transition probabilities, in proportion to ``exp(before_b) A_bc exp(after_c)``."""
    k = before.size
    total = 0.0
    for b in range(k):
        left[b], right[b] = np.exp(before[b]), np.exp(after[b])
    for b in range(k):
        for c in range(k):
            total += left[b] * chain[b, c] * right[c]
    if total > _SAFE:
        for b in range(k):
            for c in range(k):
                jumps[b, c] += left[b] * chain[b, c] * right[c] / total
        return
    top, total = -np.inf, 0.0
    for b in range(k):
        for c in range(k):
            top = max(top, before[b] + after[c] + np.log(chain[b, c]))
    for b in range(k):
        for c in range(k):
            total += np.exp(before[b] + after[c] + np.log(chain[b, c]) - top)
    for b in range(k):
        for c in range(k):
            jumps[b, c] += np.exp(before[b] + after[c] + np.log(chain[b, c]) - top) / total


@kernel(EXPECT)
def expect(theta, y, latent, work):
    """Smoothed probabilities and expected transitions; weight times log p(y)."""
    k, n = int(theta[0]), _length(y)
    chain = theta[HEAD + k : HEAD + k + k * k].reshape((k, k))
    jumps = latent[: k * k].reshape((k, k))
    states = latent[k * k : k * k + n * k].reshape((n, k))
    emissions = work[: n * k].reshape((n, k))
    behind, ahead = work[n * k : n * k + k], work[n * k + k : n * k + 2 * k]
    scratch = work[n * k + 2 * k :]
    latent[: k * k] = 0.0
    latent[k * k + n * k :] = 0.0
    value = _forward(theta, y, states, emissions, scratch)
    behind[:] = 0.0
    for t in range(n - 1, -1, -1):
        if t < n - 1:
            for c in range(k):
                ahead[c] = emissions[t + 1, c] + behind[c]
            _normalise(ahead)
            _add_jumps(states[t], ahead, chain, scratch[:k], scratch[k : 2 * k], jumps)
            _log_product(ahead, chain, False, scratch[:k], behind)
        for c in range(k):
            states[t, c] += behind[c]
        _normalise(states[t])
        total = 0.0
        for c in range(k):
            states[t, c] = np.exp(states[t, c])
            total += states[t, c]
        for c in range(k):
            states[t, c] /= total
    return _weighted(y[0], value)


@kernel(int64(VECTOR, float64))
def _pick(logs, u):
    """Index drawn with given log probabilities, up to a constant, from a uniform number."""
    _normalise(logs)
    total = 0.0
    for c in range(logs.size):
        total += np.exp(logs[c])
    last, left = 0, u * total
    for c in range(logs.size):
        if logs[c] > -np.inf:
            last = c
            left -= np.exp(logs[c])
            if left < 0.0:
                break
    return last


@kernel(DRAW)
def draw(theta, y, key, latent, work):
    """Path of states from its posterior: filter forward, sample backward.

    Chib (1996), J. Econometrics 75, 79-97.
    """
    k, n = int(theta[0]), _length(y)
    states = latent[k * k : k * k + n * k].reshape((n, k))
    _forward(theta, y, states, work[: n * k].reshape((n, k)), work[n * k :])
    latent[: k * k] = 0.0
    latent[k * k + n * k :] = 0.0
    after = -1
    for t in range(n - 1, -1, -1):
        if after >= 0:
            for c in range(k):
                states[t, c] += np.log(theta[HEAD + k + c * k + after])
        chosen = _pick(states[t], uniform(key, t))
        states[t] = 0.0
        states[t, chosen] = 1.0
        if after >= 0:
            latent[chosen * k + after] += 1.0
        after = chosen


@kernel(CLASSIFY)
def classify(theta, y, latent, work):
    """Most probable path (Viterbi), written as a draw; weight times log p(y, path).

    Viterbi (1967), IEEE Trans. Inf. Theory 13, 260-269; of equal paths that of the lowest
    states.
    """
    k, n = int(theta[0]), _length(y)
    states = latent[k * k : k * k + n * k].reshape((n, k))
    best, new = work[:k], work[k : 2 * k]
    emission, scratch = work[2 * k : 3 * k], work[3 * k :]
    for t in range(n):
        _log_emission(theta, y, t, emission, scratch)
        for c in range(k):
            if t == 0:
                new[c] = np.log(theta[HEAD + c]) + emission[c]
                continue
            came = 0
            top = -np.inf
            for b in range(k):
                reached = best[b] + np.log(theta[HEAD + k + b * k + c])
                if reached > top:
                    top = reached
                    came = b
            states[t, c] = came
            new[c] = top + emission[c]
        best[:] = new
    last = 0
    for c in range(1, k):
        if best[c] > best[last]:
            last = c
    value = best[last]
    latent[: k * k] = 0.0
    latent[k * k + n * k :] = 0.0
    for t in range(n - 1, -1, -1):
        came = int(states[t, last]) if t > 0 else 0
        states[t] = 0.0
        states[t, last] = 1.0
        if t > 0:
            latent[came * k + last] += 1.0
            last = came
    return _weighted(y[0], value)


@kernel(ACCUMULATE)
def accumulate(weight, y, latent, s):
    """Add starts, transitions and moments of the emissions, or counts of symbols."""
    weight *= y[0]
    k, d, kind, n = int(y[1]), int(y[2]), int(y[3]), _length(y)
    states = latent[k * k : k * k + n * k].reshape((n, k))
    for c in range(k):
        s[c] += weight * states[0, c]
    for i in range(k * k):
        s[k + i] += weight * latent[i]
    at = k + k * k
    triangle = d * (d + 1) // 2
    for t in range(n):
        for c in range(k):
            share = weight * states[t, c]
            if share == 0.0:
                continue
            if kind == CATEGORICAL:
                symbol = y[RECORD_HEAD + t]
                if not np.isnan(symbol):
                    s[at + c * d + int(symbol)] += share
                continue
            row = y[RECORD_HEAD + t * d : RECORD_HEAD + (t + 1) * d]
            if kind == DIAG:
                for j in range(d):
                    if not np.isnan(row[j]):
                        i = at + c * d + j
                        s[i] += share
                        s[i + k * d] += share * row[j]
                        s[i + 2 * k * d] += share * row[j] * row[j]
            elif not np.isnan(row[0]):
                s[at + c] += share
                i = at + k + k * d + c * triangle
                for a in range(d):
                    s[at + k + c * d + a] += share * row[a]
                    for b in range(a + 1):
                        s[i] += share * row[a] * row[b]
                        i += 1
