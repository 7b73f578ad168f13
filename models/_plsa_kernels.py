"""Compiled functions of probabilistic latent semantic analysis.

With K topics, a vocabulary of V words and a document of m different words:

=========  =======================================================================
y          weight; V; words (m); counts (m)
theta      K, V, n, alpha, a, ``alpha sum log topics`` (`HEAD` numbers); topics (K, V)
latent     p(topic | word j of the document), one row of K for each word, padded with
           zeros to the longest document
s          N (K, V): mean over documents of the counts that fall to topic and word
=========  =======================================================================

The statistic is rebuilt from latent and y alone, which is why the responsibilities are
kept and not the K proportions of the document, from which they follow only with theta.
"""

from __future__ import annotations

import numpy as np
from numba import int64, void

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel, routine
from saem._linalg import cholesky, cholesky_solve
from saem._types import (
    ACCUMULATE,
    DRAW,
    EXPECT,
    INDEX,
    MATRIX,
    MAXIMIZE,
    PROJECT,
    SURROGATE,
    VECTOR,
)
from saem.random import uniform

__all__ = [
    "EMPTY_TOPIC",
    "HEAD",
    "NEGATIVE_COUNT",
    "accumulate",
    "draw",
    "expect",
    "maximize",
    "project",
    "proportions_of",
    "surrogate",
    "work_size",
]

#: Numbers before the topics in theta.
HEAD = 6
#: Codes of `maximize`.
NEGATIVE_COUNT = 1
EMPTY_TOPIC = 2

#: Interior-point iterations at most, and where they end: complementarity in units of the
#: document's length, so that its log-likelihood is exact to that many nats a token.
_MAX_STEPS = 100
_TOLERANCE = 1e-13
#: Probabilities below this are 0: arithmetic on numbers near 1e-308 is ten times slower.
_LEAST = 1e-250


def work_size(k: int, longest: int) -> int:
    """Scratch numbers the functions need for documents of up to `longest` different words."""
    return longest * k + 2 * k * k + 5 * k


@routine
def _slopes(b, counts, proportions, q, hess):
    """``q_k = sum_j c_j b_jk / m_j`` and ``H = sum_j c_j b_j b_j' / m_j^2``, ``m = b lambda``."""
    k = q.size
    for a in range(k):
        q[a] = 0.0
        for c in range(a + 1):
            hess[a, c] = 0.0
    for j in range(counts.size):
        mixed = 0.0
        for a in range(k):
            mixed += b[j, a] * proportions[a]
        if not mixed > 0.0:
            continue  # a word that no topic knows
        first = counts[j] / mixed
        second = first / mixed
        for a in range(k):
            q[a] += first * b[j, a]
            scaled = second * b[j, a]
            for c in range(a + 1):
                hess[a, c] += scaled * b[j, c]


@routine
def _proportions(b, counts, prior, work, proportions):
    """Topic proportions of one document: the maximum of a concave function.

        sum_j c_j log (b lambda)_j + prior sum_k log lambda_k   on the simplex

    Primal-dual interior point: with ``N = sum c + K prior`` and slacks t the maximum has
    ``t = N - q(lambda)``, ``lambda_k t_k = prior``; for prior = 0 that target goes to 0
    (Koenker and Mizera 2014, JASA 109, 674-685, for prior = 0). It starts from equal
    proportions, hence is a function of its arguments alone.
    """
    k = proportions.size
    hess = as_matrix(work, k, k)
    factor = as_matrix(work[k * k :], k, k)
    q = segment(work, 2 * k * k, k)
    slack = segment(work, 2 * k * k + k, k)
    right = segment(work, 2 * k * k + 2 * k, k)
    move = segment(work, 2 * k * k + 3 * k, k)
    total = k * prior
    for j in range(counts.size):
        total += counts[j]
    for a in range(k):
        proportions[a] = 1.0 / k
        slack[a] = total
    for _ in range(_MAX_STEPS):
        _slopes(b, counts, proportions, q, hess)
        product, off = 0.0, 0.0
        for a in range(k):
            product += proportions[a] * slack[a] / k
            off = max(off, abs(proportions[a] * (total - q[a]) - prior))
            off = max(off, proportions[a] * slack[a] - prior)
            if prior == 0.0:  # a topic left out must not be worth adding
                off = max(off, q[a] - total)
        if off <= _TOLERANCE * total:
            break
        target = max(prior, 0.05 * product)
        ridge = 0.0
        for _ in range(3):
            for a in range(k):
                right[a] = target / proportions[a] - (total - q[a])
                hess[a, a] += slack[a] / proportions[a] + ridge
            if cholesky(hess, factor):
                break
            ridge = max(1e-12 * hess[0, 0], 1e3 * ridge)
        cholesky_solve(factor, right, move)
        longest, longest_slack = 1.0, 1.0
        for a in range(k):
            right[a] = target / proportions[a] - slack[a] - slack[a] / proportions[a] * move[a]
            if move[a] < 0.0:
                longest = min(longest, -0.99 * proportions[a] / move[a])
            if right[a] < 0.0:
                longest_slack = min(longest_slack, -0.99 * slack[a] / right[a])
        for a in range(k):
            proportions[a] += longest * move[a]
            slack[a] += longest_slack * right[a]
    total = 0.0
    for a in range(k):
        total += proportions[a]
    for a in range(k):
        proportions[a] /= total


@helper
def _words(theta, y, work):
    """Counts of a document and the matrix (m, K) of its words' probabilities, in work."""
    k, v = int(theta[0]), int(theta[1])
    m = (y.size - 2) // 2
    b = as_matrix(work, m, k)
    for j in range(m):
        word = int(y[2 + j])
        for a in range(k):
            b[j, a] = theta[HEAD + a * v + word]
    return segment(y, 2 + m, m), b


@routine
def _posterior(theta, y, latent, work):
    """Responsibilities of all words; returns the document's weighted, penalised log-likelihood."""
    k = int(theta[0])
    counts, b = _words(theta, y, work)
    m = counts.size
    rest = segment(work, m * k, 2 * k * k + 4 * k)
    proportions = segment(work, m * k + 2 * k * k + 4 * k, k)
    _proportions(b, counts, theta[4], rest, proportions)
    value = 0.0
    for j in range(m):
        mixed = 0.0
        for a in range(k):
            latent[j * k + a] = b[j, a] * proportions[a]
            mixed += latent[j * k + a]
        value += counts[j] * np.log(mixed)
        for a in range(k):
            latent[j * k + a] = latent[j * k + a] / mixed if mixed > 0.0 else 0.0
    latent[m * k :] = 0.0
    if theta[4] > 0.0:
        for a in range(k):
            value += theta[4] * np.log(proportions[a])
    return y[0] * value + theta[5] / theta[2]


@kernel(EXPECT)
def expect(theta, y, latent, work):
    """Responsibilities at the document's best proportions; log-likelihood with penalties."""
    return _posterior(theta, y, latent, work)


@kernel(DRAW)
def draw(theta, y, key, latent, work):
    """Draw a topic for every token, given the document's best proportions: shares per word."""
    k = int(theta[0])
    _posterior(theta, y, latent, work)
    m = (y.size - 2) // 2
    position = 0
    for j in range(m):
        count = int(y[2 + m + j])
        row = segment(latent, j * k, k)
        for a in range(k):
            work[a] = row[a]
            row[a] = 0.0
        for _ in range(count):
            left = uniform(key, position)
            position += 1
            chosen = 0
            while chosen < k - 1 and left >= work[chosen]:
                left -= work[chosen]
                chosen += 1
            row[chosen] += 1.0 / count


@kernel(ACCUMULATE)
def accumulate(weight, y, latent, s):
    """Add ``weight * count * p(topic | word)`` of the document's words."""
    v = int(y[1])
    k = s.size // v
    m = (y.size - 2) // 2
    for j in range(m):
        word = int(y[2 + j])
        share = weight * y[0] * y[2 + m + j]
        for a in range(k):
            s[a * v + word] += share * latent[j * k + a]


@kernel(MAXIMIZE)
def maximize(s, theta):
    """``topics_kw = (n N_kw + alpha) / sum_w (n N_kw + alpha)``."""
    k, v, n, alpha = int(theta[0]), int(theta[1]), theta[2], theta[3]
    for m in range(k * v):
        if not (s[m] >= 0.0 and s[m] < np.inf):
            return NEGATIVE_COUNT
    for a in range(k):
        if not alpha > 0.0 and not segment(s, a * v, v).max() > 0.0:
            return EMPTY_TOPIC
    penalty = 0.0
    for a in range(k):
        total = 0.0
        for w in range(v):
            total += n * s[a * v + w] + alpha
        for w in range(v):
            share = (n * s[a * v + w] + alpha) / total
            theta[HEAD + a * v + w] = share if share > _LEAST else 0.0
            if alpha > 0.0:
                penalty += alpha * np.log(theta[HEAD + a * v + w])
    theta[5] = penalty
    return 0


@kernel(PROJECT)
def project(s, theta):
    """Clip negative counts; a topic without any gets back a little of what it was."""
    k, v = int(theta[0]), int(theta[1])
    mass = 0.0
    for m in range(k * v):
        s[m] = max(s[m], 0.0)
        mass += s[m]
    for a in range(k):
        row = segment(s, a * v, v)
        if not row.max() > 0.0:
            for w in range(v):
                row[w] = 1e-6 * max(mass, 1.0) / k * theta[HEAD + a * v + w]


@kernel(SURROGATE)
def surrogate(s, theta):
    """``sum_kw (N_kw + alpha / n) log topics_kw``."""
    value = 0.0
    for m in range(s.size):
        count = s[m] + theta[3] / theta[2]
        if count != 0.0:
            value += count * np.log(theta[HEAD + m])
    return value


@kernel(void(VECTOR, VECTOR, INDEX, int64, MATRIX, VECTOR), deferred=True)
def proportions_of(theta, values, offsets, size, out, log_lik):
    """Topic proportions (n_documents, K) of many documents and their log-likelihoods.

    The log-likelihood is ``sum_j c_j log p(word j)`` alone: no weight, no penalty. `size` is
    the work size of the longest document.
    """
    k = int(theta[0])
    work = np.empty(size)
    for d in range(log_lik.size):
        y = values[offsets[d] : offsets[d + 1]]
        counts, b = _words(theta, y, work)
        _proportions(b, counts, theta[4], work[counts.size * k :], out[d])
        value = 0.0
        for j in range(counts.size):
            mixed = 0.0
            for a in range(k):
                mixed += b[j, a] * out[d, a]
            value += counts[j] * np.log(mixed)
        log_lik[d] = value
