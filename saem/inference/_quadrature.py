"""Log-likelihood by adaptive Gauss-Hermite quadrature."""

from __future__ import annotations

import numpy as np

from saem.contract import Array, Model
from saem.estep import Quadrature
from saem.estep.quadrature import rule_size
from saem.exceptions import OptionError
from saem.inference._value import Likelihood
from saem.inference._visits import require_gaussian, visit_all, visit_blocks

__all__ = ["QuadratureRule", "quadrature"]

#: Nodes per random effect that are tried in turn.
_NODES = (5, 7, 9, 13, 17, 21, 25)
#: Largest total of nodes per individual; more than this is refused.
_MAX_TOTAL = 20_000


class QuadratureRule:
    """Log-likelihood as a function of theta, by adaptive quadrature with fixed nodes.

    The rule is centred by its first evaluation, near which it is to be used; a
    value does not depend on what else was evaluated.

    Parameters
    ----------
    model : Model
    n_nodes : int
        Per random effect.
    n_threads : int, optional
    """

    def __init__(self, model: Model, n_nodes: int, n_threads: int | None = None) -> None:
        self.model, self.n_threads = model, n_threads
        self.bound = Quadrature(n_nodes).bind(model)
        self.centred: Array | None = None

    def contributions(self, theta: Array, memories: Array) -> Array:
        """Log-likelihood of every individual; `memories` are those of the E-step."""
        bound = self.bound
        values = np.empty(self.model.n_individuals)
        for rows, _, part in visit_blocks(
            self.model, bound.visitor, theta, settings=bound.settings, memories=memories,
            record_size=bound.record_size, work_size=bound.work_size - self.model.work_size,
            n_threads=self.n_threads,
        ):  # fmt: skip
            values[rows] = part
        return values

    def one(self, theta: Array, i: int, memories: Array) -> float:
        """Log-likelihood of individual i."""
        bound = self.bound
        _, value = visit_all(
            self.model, bound.visitor, theta, settings=bound.settings,
            memories=memories[i : i + 1], record_size=bound.record_size,
            work_size=bound.work_size - self.model.work_size, first=i, n_threads=1,
        )  # fmt: skip
        return float(value[0])

    def __call__(self, theta: Array) -> float:
        """Log-likelihood of all individuals."""
        if self.centred is None:
            self.centred = np.zeros_like(self.bound.memories)
            self.contributions(theta, self.centred)
        return float(self.contributions(theta, self.centred.copy()).sum())


def quadrature(
    model: Model,
    theta: Array,
    *,
    n_nodes: int | None = None,
    tolerance: float = 1e-4,
    n_threads: int | None = None,
) -> Likelihood:
    """Log-likelihood by adaptive Gauss-Hermite quadrature, for few random effects.

    Parameters
    ----------
    model : Model
        With Gaussian random effects.
    theta : ndarray
        Packed parameters.
    n_nodes : int, optional
        Nodes per random effect. By default they are increased, individual by
        individual, until the last increase changed the sum by less than
        `tolerance`, or 20,000 nodes per individual are reached.
    tolerance : float
        In nats, for the whole data set.
    n_threads : int, optional

    Returns
    -------
    Likelihood
        Its error is the sum of the absolute last changes; NaN for a given `n_nodes`.

    Raises
    ------
    OptionError
        If there are too many random effects.

    Notes
    -----
    ``log p(y_i) = log sum_m w_m exp(|x_m|^2) p(y_i, c_i + 2^(1/2) F_i x_m) + log |2^(1/2)
    F_i|``, c_i and F_i first the mode and the factor of the Laplace covariance, then
    the moments of the posterior (Naylor and Smith 1982, Appl. Statist. 31, 214-225;
    Pinheiro and Bates 1995, J. Comput. Graph. Statist. 4, 12-35). The error is that of
    one mode: a second one far away, as variances much wider than the estimates can
    give an individual, is missed, where importance sampling finds it.
    """
    require_gaussian(model, "quadrature")
    n, d = model.n_individuals, model.n_coords
    nodes = [q for q in _NODES if rule_size(model, q) <= _MAX_TOTAL]
    if n_nodes is None and len(nodes) < 2:
        raise OptionError(
            f"quadrature is not possible with {d} random effects: {_NODES[1]} nodes for each "
            f"make {rule_size(model, _NODES[1])} per individual, more than {_MAX_TOTAL}. Remedy: "
            "method='importance' (importance sampling)."
        )
    if n_nodes is not None or d == 0:
        used = 1 if d == 0 else int(n_nodes or 1)
        rule = QuadratureRule(model, used, n_threads)
        memories = np.zeros_like(rule.bound.memories)
        values = rule.contributions(theta, memories)
        if used > 2:  # once more, at the posterior moments that the first pass found
            values = rule.contributions(theta, memories)
        errors = np.full(n, 0.0 if d == 0 else np.nan)
        return Likelihood(
            float(values.sum()), float(errors.sum()), values, errors, "quadrature", None,
            np.full(n, rule_size(model, used), dtype=np.int64),
        )  # fmt: skip
    memories = np.zeros_like(QuadratureRule(model, nodes[0]).bound.memories)
    values, errors = np.zeros(n), np.full(n, np.inf)
    points = np.zeros(n, dtype=np.int64)
    for k, q in enumerate(nodes):
        # A single change may be small by chance: the first three rules are for all.
        left = np.arange(n) if k < 3 else np.flatnonzero(errors > tolerance / n)
        if not left.size or errors.sum() < tolerance:
            break
        rule = QuadratureRule(model, q, n_threads)
        if left.size > n // 2:
            new = rule.contributions(theta, memories)[left]
        else:
            new = np.array([rule.one(theta, int(i), memories) for i in left])
        errors[left] = np.abs(new - values[left]) if k > 0 else np.inf
        values[left], points[left] = new, rule_size(model, q)
    return Likelihood(
        float(values.sum()), float(errors.sum()), values, errors, "quadrature", None, points
    )
