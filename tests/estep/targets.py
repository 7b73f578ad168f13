"""Posteriors of single individuals, with exact moments and quantiles by quadrature.

The log densities here are written in plain NumPy, apart from the library's. The rule is a tensor
grid in coordinates that whiten the posterior: sums over equal steps converge exponentially
for smooth densities with Gaussian tails (Trefethen and Weideman 2014, SIAM Rev. 56, 385-458).
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from counts import BINARY, CHOL, MEAN, POISSON, Counts, log_density
from scipy.interpolate import CubicSpline

import saem
from saem import _loop
from saem.estep import MonteCarlo
from saem.estep.montecarlo import memory_views

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Target:
    """The posterior of the first individual of a model at its start.

    Attributes
    ----------
    model : Model
    log_lik : callable
        Log-likelihood at points of shape (m, d), up to a constant.
    mean, chol : ndarray
        Prior.
    n_nodes, reach : int, float
        Nodes of the grid per coordinate, and how far it reaches in standard deviations.
    """

    model: Any
    log_lik: Any
    mean: np.ndarray
    chol: np.ndarray
    n_nodes: int
    reach: float

    @property
    def d(self):
        return self.mean.size

    def log_density(self, z):
        whitened = np.linalg.solve(self.chol, (z - self.mean).T)
        return self.log_lik(z) - 0.5 * np.square(whitened).sum(axis=0)


def pk(psi, time, amt):
    """One compartment, oral; psi is (ka, V, CL), each (m, 1)."""
    ka, v, cl = psi
    k = cl / v
    return amt * ka / (v * (ka - k)) * (np.exp(-k * time) - np.exp(-ka * time))


def two_compartments(psi, time, amt):
    """Bolus into the first of two compartments, by the roots of its characteristic equation."""
    v1, q, v2, cl = psi
    k10, k12, k21 = cl / v1, q / v1, q / v2
    total = k10 + k12 + k21
    root = np.sqrt(total * total - 4.0 * k10 * k21)
    fast, slow = 0.5 * (total + root), 0.5 * (total - root)
    first = (fast - k21) / (fast - slow) * np.exp(-fast * time)
    return amt / v1 * (first + (k21 - slow) / (fast - slow) * np.exp(-slow * time))


def normal(y, prediction, sigma):
    return -0.5 * np.square((y - prediction) / sigma).sum(axis=1)


def nlme(structural, parameters, columns, sigma):
    """Model of two individuals with the same data, of which the first is looked at."""
    one = pd.DataFrame(columns)
    frame = pd.concat([one.assign(id=1), one.assign(id=2)])
    return saem.NLME(
        frame, structural=structural, parameters=parameters, error=saem.ConstantError(sigma)
    )


def log_normal_target():
    time = np.array([0.3, 0.6, 1.0, 2.0, 4.0, 7.0, 12.0, 24.0])
    y = np.array([2.6, 4.9, 6.1, 7.4, 6.6, 5.2, 3.3, 1.4])
    names = ("ka", "V", "CL")
    typical, omega = np.array([1.6, 32.0, 2.7]), np.array([0.6, 0.2, 0.25])
    model = nlme(
        "pk.oral_1cpt",
        {n: saem.LogNormal(v, omega=w) for n, v, w in zip(names, typical, omega, strict=True)},
        {"time": time, "amt": 320.0, "dv": y}, 0.75,
    )  # fmt: skip

    def log_lik(z):
        return normal(y, pk(np.exp(z).T[:, :, None], time, 320.0), 0.75)

    return Target(model, log_lik, np.log(typical), np.diag(omega), 41, 8.0)


def decay(F, k, *, time):
    """A bounded fraction, decaying."""
    return 10.0 * F * np.exp(-k * time)


def logit_normal_target():
    time = np.array([0.5, 1.5, 3.0])
    y = np.array([8.9, 7.1, 5.2])
    model = nlme(
        decay,
        {"F": saem.LogitNormal(0.8, omega=1.2), "k": saem.LogNormal(0.25, omega=0.5)},
        {"time": time, "dv": y}, 1.0,
    )  # fmt: skip

    def log_lik(z):
        fraction = 1.0 / (1.0 + np.exp(-z[:, :1]))
        return normal(y, 10.0 * fraction * np.exp(-np.exp(z[:, 1:]) * time), 1.0)

    mean = np.array([np.log(0.8 / 0.2), np.log(0.25)])
    return Target(model, log_lik, mean, np.diag([1.2, 0.5]), 161, 10.0)


def collinear_target():
    """Two compartments seen at six late times: V1, Q and V2 are hardly told apart."""
    time = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 12.0])
    typical, omega = np.array([10.0, 3.0, 20.0]), np.array([0.2, 0.5, 0.5])
    y = np.array([8.1, 6.9, 5.7, 3.9, 2.9, 2.4])
    names = ("V1", "Q", "V2")
    random = {n: saem.LogNormal(v, omega=w) for n, v, w in zip(names, typical, omega, strict=True)}
    model = nlme(
        "pk.iv_bolus_2cpt", random | {"CL": saem.LogNormal(2.0, random=False, fixed=True)},
        {"time": time, "amt": 100.0, "dv": y}, 0.3,
    )  # fmt: skip

    def log_lik(z):
        psi = (*np.exp(z).T[:, :, None], 2.0)
        return normal(y, two_compartments(psi, time, 100.0), 0.3)

    return Target(model, log_lik, np.log(typical), np.diag(omega), 71, 10.0)


def flip_flop_target():
    """Absorption and elimination may change places: two modes, with a low pass between them."""
    time = np.array([1.0, 3.0, 6.0, 12.0])
    y = np.array([8.3, 6.9, 3.3, 0.7])
    typical, omega = np.array([0.6, 3.3]), np.array([0.8, 0.8])
    model = nlme(
        "pk.oral_1cpt",
        {
            "ka": saem.LogNormal(typical[0], omega=omega[0]),
            "V": saem.LogNormal(typical[1], omega=omega[1]),
            "CL": saem.LogNormal(2.0, random=False, fixed=True),
        },
        {"time": time, "amt": 100.0, "dv": y}, 1.6,
    )  # fmt: skip

    def log_lik(z):
        ka, v = np.exp(z).T[:, :, None]
        return normal(y, pk((ka, v, np.full_like(ka, 2.0)), time, 100.0), 1.6)

    return Target(model, log_lik, np.log(typical), np.diag(omega), 241, 12.0)


def counts_target(kind):
    x = np.array([-1.0, -0.4, 0.1, 0.5, 1.0])
    y = np.array([0.0, 1.0, 3.0, 2.0, 5.0]) if kind == POISSON else np.array([0.0, 1, 1, 0, 1])
    model = Counts(kind, x, y)
    return Target(model, lambda z: log_density(kind, x, y, z), MEAN[kind], CHOL, 121, 9.0)


MAKERS = {
    "log-normal": log_normal_target,
    "logit-normal": logit_normal_target,
    "collinear": collinear_target,
    "flip-flop": flip_flop_target,
    "Poisson": lambda: counts_target(POISSON),
    "binary": lambda: counts_target(BINARY),
}


@cache
def target_of(name):
    return MAKERS[name]()


class Chain:
    """One chain of the individual, placed at the mode and adapted."""

    def __init__(self, model, moves, seed=1, n_adapt=60, i=0, **options):
        self.model, self.i, self.seed = model, i, seed
        self.theta = model.start(np.random.default_rng(0))
        estep = MonteCarlo(moves=moves, n_chains=1, n_draws=500, exact=False, **options)
        self.bound = estep.bind(model)
        self.visited = 0
        self.bound.before(0, 1.0, lambda visitor, settings: self.visit(visitor))
        for k in range(n_adapt):
            self.bound.settings[4] = (k + 1.0) ** -0.6
            self.visit(self.bound.visitor)
        self.bound.settings[4] = 0.0
        self.counts = memory_views(self.bound)

    def visit(self, visitor):
        """Record of one visit."""
        bound, model = self.bound, self.model
        record = np.empty(bound.record_size)
        _loop.visit_at(
            model.kernels, visitor, model.values, model.offsets, self.theta, record,
            bound.memories, bound.settings, self.seed, self.visited, self.i, bound.work_size,
        )  # fmt: skip
        self.visited += 1
        return record

    def run(self, n_states):
        """Next states, shape (n_states, d)."""
        width, d = 1 + self.model.latent_size, self.model.n_coords
        parts = [
            self.visit(self.bound.visitor).reshape(-1, width)[:, 1 : 1 + d]
            for _ in range(n_states // 500)
        ]
        return np.concatenate(parts)


def grid_moments(target, centre, covariance):
    """Nodes, their probabilities and the distribution function of the first whitened axis."""
    factor = np.linalg.cholesky(covariance)
    axis = np.linspace(-target.reach, target.reach, target.n_nodes)
    x = np.stack([g.ravel() for g in np.meshgrid(*[axis] * target.d, indexing="ij")], axis=1)
    z = centre + x @ factor.T
    logp = target.log_density(z)
    p = np.exp(logp - logp.max())
    p /= p.sum()
    return z, p, axis * factor[0, 0] + centre[0]


@dataclass(frozen=True)
class Exact:
    """Mean, second moments (lower triangle) and quantiles (d, len(LEVELS)) of a target."""

    mean: np.ndarray
    second: np.ndarray
    quantiles: np.ndarray
    edge: float


@cache
def exact_of(name):
    """Exact answers; the grid is centred and scaled by a first coarse pass."""
    target = target_of(name)
    from saem.inference._visits import find_modes

    theta = target.model.start(np.random.default_rng(0))
    modes = find_modes(target.model, theta)
    centre, covariance = modes.phi[0], modes.covariance[0]
    for _ in range(2):
        z, p, _ = grid_moments(target, centre, covariance)
        centre = p @ z
        covariance = (z - centre).T @ (p[:, None] * (z - centre))
    d = target.d
    low = np.tril_indices(d)
    quantiles = np.empty((d, len(LEVELS)))
    edge = 0.0
    for a in range(d):
        # With coordinate a first, its marginal density stands on the first axis of the grid.
        order = [a, *(b for b in range(d) if b != a)]
        back = np.argsort(order)

        def permuted(points, back=back):
            return target.log_density(points[:, back])

        turned = Turned(permuted, d, target.n_nodes, target.reach)
        z, p, axis = grid_moments(turned, centre[order], covariance[np.ix_(order, order)])
        marginal = p.reshape(target.n_nodes, -1).sum(axis=1)
        edge = max(edge, marginal[0], marginal[-1])
        density = CubicSpline(np.linspace(0.0, 1.0, axis.size), marginal * (axis.size - 1))
        fine = np.linspace(0.0, 1.0, 20_001)
        cdf = density.antiderivative()(fine)
        points = np.interp(fine, np.linspace(0.0, 1.0, axis.size), axis)
        quantiles[a] = np.interp(LEVELS, cdf / cdf[-1], points)
        if a == 0:
            mean, second = p @ z, p @ (z[:, low[0]] * z[:, low[1]])
    return Exact(mean, second, quantiles, edge)


@dataclass(frozen=True)
class Turned:
    """A target with its coordinates in another order."""

    log_density: Any
    d: int
    n_nodes: int
    reach: float


def statistics(exact, z):
    """Coordinates, their products, and whether they lie below the exact quantiles."""
    low = np.tril_indices(z.shape[1])
    below = (z[:, :, None] <= exact.quantiles).reshape(len(z), -1)
    return np.column_stack([z, z[:, low[0]] * z[:, low[1]], below])


def expected(exact):
    """Exact means of `statistics`."""
    return np.concatenate([exact.mean, exact.second, np.tile(LEVELS, exact.mean.size)])
