"""Deterministic E-step: adaptive Gauss-Hermite quadrature, for few random effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from saem._borrow import as_matrix, segment
from saem._jit import helper, kernel
from saem._laplace import FINE, laplace, laplace_work
from saem._linalg import assign, cholesky
from saem._types import VISIT, make_visitor
from saem._whitened import log_det, log_joint, whiten
from saem.contract import Model
from saem.estep._base import BoundEStep, EStep
from saem.estep._modes import better_mode
from saem.exceptions import OptionError
from saem.random import fill_normal, stream

__all__ = ["Quadrature", "quadrature_dimension", "rule_size"]

#: More nodes than this per individual are refused: another E-step is cheaper.
_MAX_NODES = 20_000
#: Posterior variances below this, in units of the prior's, are not adapted to.
MIN_VARIANCE = 1e-14
#: Rules tried for one integral, at most.
_MAX_RULES = 4
#: Searches for a mode besides that from the prior's mean.
_SEARCHES = 3
#: A rule fits where the posterior variances are within this factor of its own, and the
#: posterior mean within this many of its standard deviations of its centre. The error of q
#: nodes at a factor r falls like ``((r - 1) / (r + 1)) ** q``, here 4**-q.
_LARGEST_FACTOR, _LARGEST_SHIFT = 1.67, 0.5


@helper
def node_of(m, q, nodes, log_weights, x):
    """Coordinates of tensor node m into x; returns its log weight with exp(x**2) put back."""
    rest = m
    log_weight = 0.0
    for a in range(x.size):
        index = rest % q
        rest = rest // q
        x[a] = nodes[index]
        log_weight += log_weights[index] + nodes[index] * nodes[index]
    return log_weight


@helper
def normalise(record, width, largest):
    """Turn log weights into weights that sum to one; returns the log of their sum."""
    total = 0.0
    for m in range(record.size // width):
        weight = np.exp(record[m * width] - largest)
        record[m * width] = weight
        total += weight
    for m in range(record.size // width):
        record[m * width] /= total
        if record[m * width] == 0.0:
            # Nodes without weight may carry values that are not finite.
            for b in range(m * width + 1, (m + 1) * width):
                record[b] = 0.0
    return largest + np.log(total)


@helper
def moments(record, width, mean, chol, centre, u, covariance):
    """Posterior mean and covariance (its lower half) under a rule, on the whitened scale.

    Returns False where the weights do not give a proper covariance.
    """
    d = centre.size
    for pass_number in range(2):
        for a in range(d):
            if pass_number == 0:
                centre[a] = 0.0
            for b in range(d):
                covariance[a, b] = 0.0
        for m in range(record.size // width):
            weight = record[m * width]
            if weight == 0.0:
                continue
            whiten(segment(record, m * width + 1, d), mean, chol, u)
            for a in range(d):
                if pass_number == 0:
                    centre[a] += weight * u[a]
                else:
                    for b in range(a + 1):
                        covariance[a, b] += weight * (u[a] - centre[a]) * (u[b] - centre[b])
    for a in range(d):
        if not covariance[a, a] > MIN_VARIANCE:
            return False
    return True


@helper
def adapt(record, width, mean, chol, centre, spread, u, covariance):
    """Centre and spread of the next rule: the posterior moments under this one.

    Returns False where the weights do not give a proper covariance.
    """
    if not moments(record, width, mean, chol, centre, u, covariance):
        return False
    return cholesky(covariance, spread)


@helper
def fits(centre, spread, new_centre, new_spread, x, covariance):
    """Whether a rule's centre and spread are about the posterior's, so that it is accurate.

    Overwrites `x` and `covariance`, which are scratch.
    """
    d = centre.size
    shift = 0.0
    for a in range(d):
        x[a] = new_centre[a] - centre[a]
        for b in range(a):
            x[a] -= spread[a, b] * x[b]
        x[a] /= spread[a, a]
        shift = max(shift, abs(x[a]))
    good = shift < _LARGEST_SHIFT
    # Rows of spread**-1 new_spread: their squared lengths are ratios of variances.
    for a in range(d):
        ratio = 0.0
        for c in range(d):
            value = new_spread[a, c] if c <= a else 0.0
            for b in range(a):
                value -= spread[a, b] * covariance[b, c]
            covariance[a, c] = value / spread[a, a]
            ratio += covariance[a, c] * covariance[a, c]
        good = good and 1.0 / _LARGEST_FACTOR < ratio < _LARGEST_FACTOR
    return good


@helper
def search_modes(
    kernels, theta, y, mean, chol, centre, spread, other, other_spread, shift, z, scratch
):  # fmt: skip
    """Put the best of several modes, and its curvature, into centre and spread.

    Searches start at the prior's mean and at a few fixed draws of the prior: with flip-flop
    kinetics the mode nearest to the mean may hold little of the posterior.
    """
    for a in range(centre.size):
        centre[a] = 0.0
    value = laplace(kernels, theta, y, mean, chol, centre, spread, z, FINE, scratch)
    for search in range(_SEARCHES):
        fill_normal(stream(np.uint64(_SEARCHES), search, 0), 0, other)
        value = better_mode(
            kernels, theta, y, mean, chol, other, other_spread, value, centre, spread, shift, z,
            FINE, scratch,
        )  # fmt: skip


@kernel(VISIT, inner=True)
def visit_quadrature(kernels, theta, y, record, memory, settings, key, work):
    """Fill the record with the nodes and their posterior weights; returns log p(y).

    With centre c, spread C (whitened scale) and Gauss-Hermite nodes x, weights
    w for the weight exp(-x**2), node m is ``c + sqrt(2) C x_m`` and its
    unnormalised posterior weight ``w_m exp(|x_m|**2) p(y, node)`` (Liu and
    Pierce 1994, Biometrika 81, 624-629). The first visit takes mode and
    curvature; later ones the posterior mean and covariance found at the visit
    before (Naylor and Smith 1982, Appl. Statist. 31, 214-225), which costs no
    search and needs fewer nodes where the posterior is skewed. Where the
    parameters have moved so far that the old rule does not fit, it is found anew,
    from the mode.
    """
    q = int(settings[0])
    d = int(settings[1])
    latent_size = int(settings[2])
    nodes = segment(settings, 3, q)
    log_weights = segment(settings, 3 + q, q)
    mean = segment(work, 0, d)
    x = segment(work, d, d)
    u = segment(work, 2 * d, d)
    new_centre = segment(work, 3 * d, d)
    at = 4 * d
    chol = as_matrix(segment(work, at, d * d), d, d)
    covariance = as_matrix(segment(work, at + d * d, d * d), d, d)
    new_spread = as_matrix(segment(work, at + 2 * d * d, d * d), d, d)
    at += 3 * d * d
    z = segment(work, at, latent_size)
    at += latent_size
    scratch = segment(work, at, work.size - at)
    adapted = memory[0] == 1.0
    searched = False
    centre = segment(memory, 1, d)
    spread = as_matrix(segment(memory, 1 + d, d * d), d, d)
    kernels.prior(theta, y, mean, chol)
    width = 1 + latent_size
    value = -np.inf
    proper = False
    for attempt in range(_MAX_RULES):
        if not adapted:
            search_modes(
                kernels, theta, y, mean, chol, centre, spread, u, new_spread, x, z, scratch
            )  # fmt: skip
            adapted = searched = True
        largest = -np.inf
        for m in range(record.size // width):
            log_weight = node_of(m, q, nodes, log_weights, x)
            for a in range(d):
                shift = 0.0
                for b in range(a + 1):
                    shift += spread[a, b] * x[b]
                u[a] = centre[a] + np.sqrt(2.0) * shift
            node = segment(record, m * width + 1, latent_size)
            term = log_weight + log_joint(
                kernels.log_lik, kernels.structural, theta, y, u, mean, chol, node, scratch
            )
            record[m * width] = term
            largest = max(largest, term)
        # |sqrt(2) C| dx, and the prior's constant (2 pi)**(-d/2).
        constant = log_det(spread) - 0.5 * d * np.log(np.pi)
        value = constant + normalise(record, width, largest)
        proper = np.isfinite(largest) and adapt(
            record, width, mean, chol, new_centre, new_spread, u, covariance
        )
        if q <= 2:
            proper = False
            break
        good = proper and fits(centre, spread, new_centre, new_spread, x, covariance)
        if not good and not searched:
            adapted = False
            continue
        if proper and (good or attempt < _MAX_RULES - 1):
            assign(centre, new_centre)
            for a in range(d):
                assign(spread[a], new_spread[a])
        if good or not proper:
            break
    memory[0] = 1.0 if proper else 0.0
    return value


def quadrature_dimension(model: Model) -> int:
    """Random effects whose product rule costs what the model's rule costs.

    Parameters
    ----------
    model : Model

    Returns
    -------
    int
        `n_coords`; fewer where a model integrates in parts (`nested_quadrature`).
    """
    return int(getattr(model, "quadrature_coords", model.n_coords))


def rule_size(model: Model, n_nodes: int) -> int:
    """Nodes of one individual.

    Parameters
    ----------
    model : Model
    n_nodes : int
        Per random effect.

    Returns
    -------
    int
    """
    parts = getattr(model, "quadrature_parts", 1)
    return int(n_nodes ** quadrature_dimension(model) * parts)


@dataclass(frozen=True)
class Quadrature(EStep):
    """Adaptive Gauss-Hermite quadrature around each individual's posterior.

    With inter-occasion variability the occasions are integrated one by one, given the subject's
    own effects: cost and nodes are those of the subject's effects and of one occasion's.

    Parameters
    ----------
    n_nodes : int
        Nodes per random effect; ``n_nodes ** d`` in all.
    """

    n_nodes: int = 5
    name: ClassVar[str] = "quadrature"
    needs: ClassVar[str] = "gaussian"

    def bind(self, model: Model) -> BoundEStep:
        """Bind to a model."""
        self.check(model)
        d = model.n_coords
        if self.n_nodes < 1:
            raise OptionError(f"n_nodes={self.n_nodes!r} must be at least 1.")
        if quadrature_dimension(model) < d:
            return model.nested_quadrature(self.n_nodes)  # type: ignore[attr-defined]
        total = self.n_nodes**d
        if total > _MAX_NODES:
            raise OptionError(
                f"quadrature with {self.n_nodes} nodes for each of {d} random effects takes "
                f"{total} nodes per individual, more than {_MAX_NODES}. "
                "Remedy: fewer nodes, or a Monte Carlo E-step."
            )
        x, w = np.polynomial.hermite.hermgauss(self.n_nodes)
        settings = np.concatenate([[self.n_nodes, d, model.latent_size], x, np.log(w)])
        work = 4 * d + 3 * d * d + model.latent_size + laplace_work(d)
        return BoundEStep(
            model,
            make_visitor(visit_quadrature),
            n_draws=total,
            settings=settings,
            memory_size=1 + d + d * d,
            work_size=work,
        )
