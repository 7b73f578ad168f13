"""Deterministic E-step: adaptive Gauss-Hermite quadrature, for few random effects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from saem._borrow import as_matrix
from saem._jit import kernel
from saem._laplace import color, laplace, laplace_work, log_det, log_joint
from saem._types import VISIT, make_visitor
from saem.contract import Model
from saem.estep._base import BoundEStep, EStep
from saem.exceptions import OptionError

__all__ = ["Quadrature"]

#: More nodes than this per individual are refused: another E-step is cheaper.
_MAX_NODES = 20_000


@kernel(VISIT)
def visit_quadrature(kernels, theta, y, record, memory, settings, key, work):
    """Fill the record with the nodes and their posterior weights; returns log p(y).

    With mode u, covariance factor C (whitened scale) and Gauss-Hermite nodes
    x, weights w for the weight exp(-x**2), node m is ``u + sqrt(2) C x_m`` and
    its unnormalised posterior weight ``w_m exp(|x_m|**2) p(y, node)``
    (Liu and Pierce 1994, Biometrika 81, 624-629; Pinheiro and Bates 1995).
    """
    q = int(settings[0])
    d = int(settings[1])
    latent_size = int(settings[2])
    nodes = settings[3 : 3 + q]
    log_weights = settings[3 + q : 3 + 2 * q]
    at = 0
    mean = work[at : at + d]
    at += d
    chol = as_matrix(work[at:], d, d)
    at += d * d
    spread = as_matrix(work[at:], d, d)
    at += d * d
    x = work[at : at + d]
    at += d
    u = work[at : at + d]
    at += d
    z = work[at : at + latent_size]
    at += latent_size
    scratch = work[at:]
    mode = memory[:d]
    kernels.prior(theta, y, mean, chol)
    peak = laplace(kernels, theta, y, mean, chol, mode, spread, z, scratch)
    if not np.isfinite(peak):
        mode[:] = 0.0
        peak = laplace(kernels, theta, y, mean, chol, mode, spread, z, scratch)
    width = 1 + latent_size
    total = record.size // width
    largest = -np.inf
    for m in range(total):
        rest = m
        log_weight = 0.0
        for a in range(d):
            index = rest % q
            rest = rest // q
            x[a] = nodes[index]
            log_weight += log_weights[index] + nodes[index] * nodes[index]
        for a in range(d):
            shift = 0.0
            for b in range(a + 1):
                shift += spread[a, b] * x[b]
            u[a] = mode[a] + np.sqrt(2.0) * shift
        node = record[m * width + 1 : (m + 1) * width]
        value = log_weight + log_joint(kernels, theta, y, u, mean, chol, node, scratch)
        record[m * width] = value
        largest = max(largest, value)
    color(mode, mean, chol, z)
    normaliser = 0.0
    for m in range(total):
        weight = np.exp(record[m * width] - largest)
        record[m * width] = weight
        normaliser += weight
    for m in range(total):
        record[m * width] /= normaliser
        if record[m * width] == 0.0:
            # Nodes without weight may carry values that are not finite.
            record[m * width + 1 : (m + 1) * width] = 0.0
    # |sqrt(2) C| dx, and the prior's constant (2 pi)**(-d/2).
    return largest + np.log(normaliser) + log_det(spread) - 0.5 * d * np.log(np.pi)


@dataclass(frozen=True)
class Quadrature(EStep):
    """Adaptive Gauss-Hermite quadrature around each individual's mode.

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
        total = self.n_nodes**d
        if total > _MAX_NODES:
            raise OptionError(
                f"quadrature with {self.n_nodes} nodes for each of {d} random effects takes "
                f"{total} nodes per individual, more than {_MAX_NODES}. "
                "Remedy: fewer nodes, or a Monte Carlo E-step."
            )
        x, w = np.polynomial.hermite.hermgauss(self.n_nodes)
        settings = np.concatenate([[self.n_nodes, d, model.latent_size], x, np.log(w)])
        work = 3 * d + 2 * d * d + model.latent_size + laplace_work(d)
        return BoundEStep(
            model,
            make_visitor(visit_quadrature),
            n_draws=total,
            settings=settings,
            memory_size=d,
            work_size=work,
        )
