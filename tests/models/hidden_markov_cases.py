"""Small hidden Markov models, and references by enumeration and plain Baum-Welch."""

import itertools

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from saem.models.hidden_markov import HiddenMarkov, simulate

KINDS = pytest.mark.parametrize("kind", ["diag", "full", "categorical"])
K = 2
CHAIN = {"startprob": [0.6, 0.4], "transmat": [[0.7, 0.3], [0.2, 0.8]]}
EMISSIONS = {
    "diag": {"means": [[-1.0, 0.5], [1.2, -0.4]], "covariances": [[1.0, 0.7], [0.5, 1.5]]},
    "full": {
        "means": [[-1.0, 0.5], [1.2, -0.4]],
        "covariances": [[[1.0, 0.4], [0.4, 0.7]], [[0.6, -0.3], [-0.3, 1.5]]],
    },
    "categorical": {"emissionprob": [[0.8, 0.15, 0.05], [0.1, 0.2, 0.7]]},
}


def options_of(kind):
    return {"emission": "categorical"} if kind == "categorical" else {"covariance_type": kind}


def make_sequences(kind, n=8, length=(2, 7), holes=True, seed=0):
    sequences, _ = simulate(
        np.random.default_rng(seed), n, length=length, **CHAIN, **EMISSIONS[kind]
    )
    if holes:
        sequences[0][1] = np.nan
        sequences[1][0] = np.nan
        if kind == "diag":
            sequences[2][1, 0] = np.nan
    return sequences


def make_model(kind, reg_covar=0.0, **options):
    return HiddenMarkov(make_sequences(kind, **options), K, reg_covar=reg_covar, **options_of(kind))


def make_theta(model):
    return model.pack_params(**CHAIN, **EMISSIONS[model.kind])


def log_emissions(kind, parts, rows):
    """Log densities of shape (T, K); what is missing counts 0."""
    out = np.zeros((len(rows), len(parts["startprob"])))
    patterns = ~np.isnan(rows)
    for seen in np.unique(patterns, axis=0):
        mine = np.flatnonzero((patterns == seen).all(axis=1))
        for c in range(out.shape[1] if seen.any() else 0):
            if kind == "categorical":
                out[mine, c] = np.log(parts["emissionprob"][c][rows[mine, 0].astype(int)])
            else:
                cov = np.asarray(parts["covariances"][c])
                cov = np.diag(cov) if kind == "diag" else cov
                given = multivariate_normal(parts["means"][c][seen], cov[np.ix_(seen, seen)])
                out[mine, c] = given.logpdf(rows[np.ix_(mine, seen)])
    return out


def enumerate_paths(kind, parts, rows):
    """Log-likelihood, probabilities of states, expected transitions, best path and its value."""
    emitted = log_emissions(kind, parts, rows)
    first, chain = np.log(parts["startprob"]), np.log(parts["transmat"])
    paths = list(itertools.product(range(len(first)), repeat=len(rows)))
    values = np.array(
        [
            first[p[0]]
            + sum(chain[a, b] for a, b in itertools.pairwise(p))
            + sum(emitted[t, c] for t, c in enumerate(p))
            for p in paths
        ]
    )
    total = logsumexp(values)
    states, jumps = np.zeros(emitted.shape), np.zeros(chain.shape)
    for p, weight in zip(paths, np.exp(values - total), strict=True):
        for t, c in enumerate(p):
            states[t, c] += weight
        for a, b in itertools.pairwise(p):
            jumps[a, b] += weight
    return total, states, jumps, paths[int(values.argmax())], values.max()


def baum_welch(kind, parts, sequences, n_iter):
    """EM in plain NumPy, in logarithms; log-likelihood at the last but one parameters."""
    parts = {name: np.array(value, dtype=float) for name, value in parts.items()}
    rows = np.concatenate(sequences)
    for _ in range(n_iter):
        with np.errstate(divide="ignore"):
            first, chain = np.log(parts["startprob"]), np.log(parts["transmat"])
        loglik, starts, jumps, shares = 0.0, 0.0, 0.0, []
        for sequence in sequences:
            emitted = log_emissions(kind, parts, sequence)
            ahead, behind = np.empty(emitted.shape), np.zeros(emitted.shape)
            ahead[0] = first + emitted[0]
            for t in range(1, len(emitted)):
                ahead[t] = np.logaddexp.reduce(ahead[t - 1][:, None] + chain, axis=0) + emitted[t]
            for t in range(len(emitted) - 2, -1, -1):
                behind[t] = np.logaddexp.reduce(chain + emitted[t + 1] + behind[t + 1], axis=1)
            value = logsumexp(ahead[-1])
            loglik += value
            weights = np.exp(ahead + behind - value)
            starts = starts + weights[0]
            shares.append(weights)
            for t in range(1, len(emitted)):
                step = ahead[t - 1][:, None] + chain + emitted[t] + behind[t]
                jumps = jumps + np.exp(step - value)
        weights = np.concatenate(shares)
        parts["startprob"] = starts / starts.sum()
        parts["transmat"] = jumps / jumps.sum(axis=1, keepdims=True)
        if kind == "categorical":
            counts = np.stack([weights[rows[:, 0] == v].sum(axis=0) for v in range(3)], axis=1)
            parts["emissionprob"] = counts / counts.sum(axis=1, keepdims=True)
            continue
        for c in range(K):
            mean = np.average(rows, axis=0, weights=weights[:, c])
            left = rows - mean
            cov = (weights[:, c] * left.T) @ left / weights[:, c].sum()
            parts["means"][c] = mean
            parts["covariances"][c] = np.diag(cov) if kind == "diag" else cov
    return loglik, parts


def free(model):
    """Logits of probabilities, means, and log variances or log-Cholesky factors."""

    def softmax(u):
        u = np.concatenate([u, np.zeros((*u.shape[:-1], 1))], axis=-1)
        e = np.exp(u - u.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    def logits(p):
        return np.log(p[..., :-1] / p[..., -1:])

    def coordinates(theta):
        parts = model.components(theta)
        low = np.tril_indices(model.n_features)
        diagonal = (slice(None), *np.diag_indices(model.n_features))
        pieces = {}
        for name, value in parts.items():
            if name == "means":
                pieces[name] = value
            elif name != "covariances":
                pieces[name] = logits(value)
            elif value.ndim == 2:
                pieces[name] = np.log(value)
            else:
                factor = np.linalg.cholesky(value)
                factor[diagonal] = np.log(factor[diagonal])
                pieces[name] = factor[:, low[0], low[1]]

        def back(x):
            out, at = {}, 0
            for name, piece in pieces.items():
                value = x[at : at + piece.size].reshape(piece.shape)
                at += piece.size
                if name == "means":
                    out[name] = value
                elif name != "covariances":
                    out[name] = softmax(value)
                elif model.kind == "diag":
                    out[name] = np.exp(value)
                else:
                    factor = np.zeros((K, model.n_features, model.n_features))
                    factor[:, low[0], low[1]] = value
                    factor[diagonal] = np.exp(factor[diagonal])
                    out[name] = factor @ factor.transpose(0, 2, 1)
            return model.pack_params(**out)

        return np.concatenate([piece.ravel() for piece in pieces.values()]), back

    return coordinates
