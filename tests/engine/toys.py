"""Small models with known answers, and one whose M-step fails on demand.

`Toy`: ``y_i | z_i ~ N(z_i, 1)``, ``z_i ~ N(mu, 1)``, so that the marginal of y_i is
``N(mu, 2)``, ``E(z_i | y_i) = (mu + y_i) / 2`` and the maximum is the mean of y.
"""

import numpy as np

from saem._jit import kernel
from saem._types import (
    ACCUMULATE,
    DRAW,
    EXPECT,
    LOG_LIK,
    MAXIMIZE,
    PRIOR,
    PROJECT,
    make_kernels,
)
from saem.contract import Model
from saem.random import fill_normal
from saem.results import Results
from saem.statistics import Packed

#: theta = (mu, limit, mode): statistics beyond the limit fail (mode 1) or give NaN (mode 2);
#: mode 3 keeps mu where it is.
LIMIT, FAIL, NOT_FINITE, FROZEN = 1, 1.0, 2.0, 3.0


@kernel(EXPECT)
def expect(theta, y, latent, work):
    latent[0] = 0.5 * (theta[0] + y[0])
    return -0.25 * (y[0] - theta[0]) ** 2 - 0.5 * np.log(4.0 * np.pi)


@kernel(LOG_LIK)
def log_lik(structural, theta, y, latent, work):
    return -0.5 * (y[0] - latent[0]) ** 2 - 0.5 * np.log(2.0 * np.pi)


@kernel(PRIOR)
def prior(theta, y, mean, chol):
    mean[0] = theta[0]
    chol[0, 0] = 1.0


@kernel(DRAW)
def draw(theta, y, key, latent, work):
    fill_normal(key, 0, work[:1])
    latent[0] = 0.5 * (theta[0] + y[0]) + np.sqrt(0.5) * work[0]


@kernel(ACCUMULATE)
def accumulate(weight, y, latent, s):
    s[0] += weight * latent[0]


@kernel(MAXIMIZE)
def maximize(s, theta):
    beyond = abs(s[0]) > theta[1]
    if theta[2] == 3.0:
        return 0
    if theta[2] == 1.0 and beyond:
        return 1
    theta[0] = np.nan if theta[2] == 2.0 and beyond else s[0]
    return 0


@kernel(PROJECT)
def project(s, theta):
    s[0] = min(max(s[0], -theta[1]), theta[1])


class Toy(Model):
    """Normal means; a random start far away if asked."""

    name = "toy"
    capabilities = frozenset({"expect", "draw", "gaussian"})

    def __init__(self, y, mu=0.0, limit=1e300, mode=0.0, spread=0.0, repairs=True):
        self.values = np.array(y, dtype=float)
        self.offsets = np.array([0, 1])
        self.n_individuals = self.nobs = self.values.size
        self.theta_spec = Packed(mu=(), limit=(), mode=())
        self.stat_spec = Packed(z=())
        self.latent_size = self.n_coords = 1
        self.work_size = 1
        self.param_names = ["mu"]
        self._start, self._spread = np.array([mu, limit, mode]), spread
        mending = {"project": project} if repairs else {}
        self.kernels = make_kernels(
            expect=expect, log_lik=log_lik, prior=prior, draw=draw,
            accumulate=accumulate, maximize=maximize, **mending,
        )  # fmt: skip

    def start(self, rng):
        theta = self._start.copy()
        theta[0] += self._spread * rng.standard_normal()
        return theta

    def params_of(self, theta):
        return theta[:1].copy()

    def loglik(self, theta):
        y = self.values
        return float(np.sum(-0.25 * (y - theta[0]) ** 2 - 0.5 * np.log(4.0 * np.pi)))

    def cov_params(self, theta):
        return np.array([[2.0 / self.nobs]])

    def results(self, record):
        return Results(self, record)


def toy_data(n=40, seed=0):
    """Data around 3."""
    return 3.0 + np.sqrt(2.0) * np.random.default_rng(seed).standard_normal(n)
