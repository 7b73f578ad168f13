"""Counts and binary responses with random intercept and slope, as small as the contract allows.

``eta_j = z_0 + z_1 x_j``, z normal with fixed mean and covariance; y_j is Poisson with mean
exp(eta_j), or 1 with probability expit(eta_j). A record is x, then y.
"""

import numpy as np

from saem._jit import kernel
from saem._types import ACCUMULATE, LOG_LIK, MAXIMIZE, PRIOR, make_kernels
from saem.contract import Model
from saem.statistics import Packed

POISSON, BINARY = 0.0, 1.0
MEAN = {POISSON: np.array([0.3, 0.5]), BINARY: np.array([0.5, 1.0])}
CHOL = np.array([[0.8, 0.0], [-0.3, 0.7]])


@kernel(LOG_LIK)
def log_lik(structural, theta, y, latent, work):
    n = y.size // 2
    value = 0.0
    for j in range(n):
        t = latent[0] + latent[1] * y[j]
        if theta[0] == 0.0:
            value += y[n + j] * t - np.exp(t)
        else:
            value += y[n + j] * t - (max(t, 0.0) + np.log1p(np.exp(-abs(t))))
    return value


@kernel(PRIOR)
def prior(theta, y, mean, chol):
    mean[0], mean[1] = theta[1], theta[2]
    chol[0, 0], chol[0, 1] = theta[3], 0.0
    chol[1, 0], chol[1, 1] = theta[4], theta[5]


@kernel(ACCUMULATE)
def accumulate(weight, y, latent, s):
    s[0] += weight * latent[0]
    s[1] += weight * latent[1]


@kernel(MAXIMIZE)
def maximize(s, theta):
    return 0


class Counts(Model):
    """Responses of individuals at the same places; parameters stay where they are."""

    name = "counts"
    capabilities = frozenset({"gaussian"})

    def __init__(self, kind, x, y):
        y = np.atleast_2d(y)
        self.kind = kind
        self.values = np.column_stack([np.broadcast_to(x, y.shape), y]).astype(float).ravel()
        self.offsets = np.array([0, 2 * y.shape[1]])
        self.n_individuals, self.nobs = len(y), y.size
        self.theta_spec, self.stat_spec = Packed(theta=(6,)), Packed(z=(2,))
        self.latent_size = self.n_coords = 2
        self.param_names = ["kind"]
        self.kernels = make_kernels(
            log_lik=log_lik, prior=prior, accumulate=accumulate, maximize=maximize
        )

    def start(self, rng):
        return np.concatenate([[self.kind], MEAN[self.kind], CHOL[[0, 1, 1], [0, 0, 1]]])

    def params_of(self, theta):
        return theta[:1].copy()

    def results(self, record):
        raise NotImplementedError


def log_density(kind, x, y, z):
    """Log-likelihood of one individual at z (m, 2), in plain NumPy and up to a constant."""
    t = z[:, :1] + z[:, 1:] * x
    return (y * t - (np.exp(t) if kind == POISSON else np.logaddexp(0.0, t))).sum(axis=1)


def simulate(kind, x, n, rng):
    """Latent values and responses of n individuals."""
    z = MEAN[kind] + rng.standard_normal((n, 2)) @ CHOL.T
    t = z[:, :1] + z[:, 1:] * x
    y = rng.poisson(np.exp(t)) if kind == POISSON else rng.random(t.shape) < 1 / (1 + np.exp(-t))
    return z, y.astype(float)
