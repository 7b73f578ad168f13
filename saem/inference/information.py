"""Fisher information and standard errors.

`linearised_information` is the expected information of the model linearised at
the posterior modes; `louis_information` the observed information from the complete data's,
`exact_information` by differences of a log-likelihood computed by quadrature;
`score_information` the cross-product of the individuals' scores, and `sandwich_information`
what both say together. All are over the estimated numbers on the Gaussian scale, in the order
of ``model.param_names``; standard errors on the natural scale follow by the delta method.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array, Model
from saem.estep.quadrature import quadrature_dimension
from saem.exceptions import OptionError
from saem.inference._blocks import complete_information, marginal_information
from saem.inference._conclusion import Information, boundary_of, conclude
from saem.inference._louis import louis_information, sandwich_information, score_information

if TYPE_CHECKING:
    from saem.inference._visits import Modes
    from saem.nlme.model import NLME

__all__ = [
    "Information",
    "exact_information",
    "first_order_information",
    "information",
    "linearised_information",
    "louis_information",
    "sandwich_information",
    "score_information",
]

#: Individuals beyond which three random effects get fewer nodes.
_MANY = 100


def information(model: Model, theta: Array, **options: Any) -> Information:
    """Return the information of any model that has one.

    That of an NLME is `linearised_information`; a linear mixed model gives its
    own observed information.

    Parameters
    ----------
    model : Model
    theta : ndarray
        Packed parameters.
    **options
        Of `linearised_information`.

    Returns
    -------
    Information
    """
    if hasattr(model, "param_kind"):
        return linearised_information(model, theta, **options)  # type: ignore[arg-type]
    if hasattr(model, "information"):
        ones = np.ones(len(model.param_names))
        none = np.zeros(ones.size, dtype=bool)
        return conclude(model, np.asarray(model.information(theta)), ones, none, "exact")
    raise OptionError(f"standard errors are not available for {model.name}.")


def linearised_information(
    model: NLME,
    theta: Array,
    *,
    modes: Modes | None = None,
    n_threads: int | None = None,
) -> Information:
    """Expected information of the model linearised at the posterior modes.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    modes : Modes, optional
        Modes at theta, if they are known already.
    n_threads : int, optional

    Returns
    -------
    Information

    Warns
    -----
    BoundaryWarning
        If variances are at 0: they have no standard error, and the others' are
        those of the model without them.
    SaemWarning
        If the information is singular.

    Notes
    -----
    With ``y_i ~ N(f_i + J_i (mu_i - phi_i^), V_i)`` and A_i the derivative of
    the mean by the coefficients,

        coefficients  sum_i A_i' V_i^-1 A_i
        variances     sum_i tr(V_i^-1 V_a V_i^-1 V_b) / 2

    and 0 between them (Mentre, Mallet and Baccar 1997, Biometrika 84, 429-442;
    Retout and Mentre 2003, J. Biopharm. Statist. 13, 209-227). The residual
    variance is held at the mode's predictions. For a model that is linear in
    its random effects with constant error this is the exact expected information.
    """
    from saem.inference.linearisation import linearise

    lin = linearise(model, theta, modes=modes, n_threads=n_threads)
    matrix = marginal_information(model, theta, lin)
    boundary = boundary_of(model, theta, matrix)
    found = conclude(model, matrix, model.natural_derivative(theta), boundary, "linearised")
    return replace(found, complete=complete_information(model, theta, lin))


def exact_information(
    model: NLME, theta: Array, *, n_nodes: int | None = None, n_threads: int | None = None
) -> Information:
    """Observed information: second differences of the log-likelihood by quadrature.

    For few random effects. Differences are taken along the principal axes of
    the linearised information, in steps of 0.1 and 0.2 standard errors that are
    combined so that the error is of fourth order (Richardson).

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    n_nodes : int, optional
        Nodes per random effect; by default 13 for up to three (fewer, down to 9, of three
        for more than a hundred individuals), 7 for more.
    n_threads : int, optional

    Returns
    -------
    Information
    """
    from saem.inference.likelihood import QuadratureRule
    from saem.inference.linearisation import linearise

    d = quadrature_dimension(model)
    if n_nodes is None:
        # Skewed posteriors: with 9 nodes a standard error was seen to be 2 % off.
        many = model.n_individuals > _MANY
        n_nodes = 7 if d > 3 else 9 if d == 3 and many else 13
    rule = QuadratureRule(model, n_nodes, n_threads)
    rule(theta)  # leaves the modes behind, from which every evaluation starts
    centre = model.estimation_vector(theta)
    first = marginal_information(model, theta, linearise(model, theta, n_threads=n_threads))
    boundary = boundary_of(model, theta, first)
    free = np.flatnonzero(~boundary)
    values, vectors = np.linalg.eigh(first[np.ix_(free, free)])
    axes = np.zeros((centre.size, free.size))
    axes[free] = vectors / np.sqrt(np.maximum(values, 1e-10 * values[-1]))

    def loglik(shift: Array) -> float:
        moved = model.with_estimates(theta, centre + axes @ shift)
        return rule(moved) + model.log_prior(moved)

    whitened = (4.0 * _hessian(loglik, free.size, 0.1) - _hessian(loglik, free.size, 0.2)) / 3.0
    inverse = np.linalg.inv(axes[free])
    matrix = np.full(first.shape, np.nan)
    matrix[np.ix_(free, free)] = -inverse.T @ whitened @ inverse
    return conclude(model, matrix, model.natural_derivative(theta), boundary, "exact")


def first_order_information(
    model: NLME,
    theta: Array,
    kind: str = "focei",
    *,
    modes: Modes | None = None,
    n_threads: int | None = None,
) -> Information:
    """Observed information of an approximate likelihood: its Hessian at its maximum.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters, which maximise the approximation.
    kind : {"focei", "laplace"}
        See `saem.inference.first_order`.
    modes : Modes, optional
        Modes at theta, if they are known already.
    n_threads : int, optional

    Returns
    -------
    Information
    """
    from saem.inference.first_order import KINDS, ConditionalObjective

    objective = ConditionalObjective(model, kind, n_threads)
    expansion = objective.at(theta, modes, search=modes is None)
    boundary = boundary_of(model, theta, objective.information(expansion))
    matrix = -objective.hessian(expansion)
    return conclude(model, matrix, model.natural_derivative(theta), boundary, KINDS[kind])


def _hessian(function: Any, size: int, step: float) -> Array:
    """Hessian at 0 by central second differences."""
    hessian = np.empty((size, size))
    unit = step * np.eye(size)
    centre = function(np.zeros(size))
    for a in range(size):
        hessian[a, a] = function(unit[a]) - 2.0 * centre + function(-unit[a])
        for b in range(a):
            mixed = function(unit[a] + unit[b]) + function(-unit[a] - unit[b])
            mixed -= function(unit[a] - unit[b]) + function(unit[b] - unit[a])
            hessian[a, b] = hessian[b, a] = 0.25 * mixed
    return hessian / step**2
