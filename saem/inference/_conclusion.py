"""From an information matrix to standard errors: boundaries, inverse, what is not identified."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array, Model
from saem.exceptions import BoundaryWarning, SaemWarning
from saem.inference._blocks import entries_of
from saem.nlme import _kernels as nlme

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.model import NLME

__all__ = ["Information", "boundary_of", "conclude"]

#: A variance below this part of its own standard error is taken for 0.
_NEGLIGIBLE = 0.05
#: A variance below so many standard errors is compared with 0 by the likelihood.
_DOUBTFUL = 2.0
#: Random effects up to which that likelihood is computed by quadrature, and its nodes.
_MAX_QUADRATURE, _NODES = 4, {1: 11, 2: 9, 3: 7, 4: 5}
#: Smallest eigenvalue of the scaled information, relative to the largest, that is not 0.
_SINGULAR = 1e-12


@dataclass(frozen=True)
class Information:
    """Fisher information of the estimated numbers, and what follows from it.

    Attributes
    ----------
    param_names : tuple of str
    matrix : ndarray of shape (n_params, n_params)
        Information on the estimation (Gaussian) scale.
    cov_estimation : ndarray of shape (n_params, n_params)
        Its inverse; NaN in the rows and columns of parameters on a boundary,
        and everywhere if the information is singular.
    cov : ndarray of shape (n_params, n_params)
        Covariance on the natural scale (delta method).
    condition : float
        Condition number of the information scaled to unit diagonal, without
        parameters on a boundary.
    boundary : tuple of str
        Parameters at the edge of their range, without a standard error.
    unidentified : tuple of str
        Parameters that take part in a direction without information.
    complete : ndarray of shape (n_params, n_params) or None
        Information of the complete data on the estimation scale, where known.
    method : str
        ``"linearised"``, ``"Louis"``, ``"exact"``, ``"score"``, ``"sandwich"``, ``"FOCEI"`` or
        ``"Laplace"``.
    bse_error : ndarray of shape (n_params,) or None
        Monte Carlo standard errors of `bse`, where it was computed from draws.
    """

    param_names: tuple[str, ...]
    matrix: Array
    cov_estimation: Array
    cov: Array
    condition: float
    boundary: tuple[str, ...]
    unidentified: tuple[str, ...]
    method: str
    complete: Array | None = None
    bse_error: Array | None = None

    @property
    def correlation(self) -> pd.DataFrame:
        """Correlations of the estimates on the estimation scale; NaN where there is no error."""
        import pandas as pd

        sd = self.bse_estimation
        names = list(self.param_names)
        return pd.DataFrame(self.cov_estimation / np.outer(sd, sd), index=names, columns=names)

    @property
    def bse(self) -> Array:
        """Standard errors on the natural scale, shape (n_params,)."""
        return _root_diagonal(self.cov)

    @property
    def bse_estimation(self) -> Array:
        """Standard errors on the estimation (Gaussian) scale, shape (n_params,)."""
        return _root_diagonal(self.cov_estimation)


def _root_diagonal(matrix: Array) -> Array:
    with np.errstate(invalid="ignore"):  # NaN where there is no standard error
        return np.asarray(np.sqrt(np.diagonal(matrix)))


def boundary_of(model: NLME, theta: Array, matrix: Array) -> Any:
    """Which estimated numbers lie at the edge of their range."""
    _, omega, sigma = entries_of(model)
    view = model.theta_spec.view(theta)
    at_edge = np.zeros(len(model.param_names), dtype=bool)
    zero = set()
    for k, row, column in omega:
        if row == column:
            value = view["omega"][row, row]
            errors = value * np.sqrt(matrix[k, k])
            at_zero = value <= 2.0 * nlme.VARIANCE_FLOOR or errors < _NEGLIGIBLE
            if at_zero or (errors < _DOUBTFUL and _greatest_at_zero(model, theta, row)):
                at_edge[k] = True
                zero.add(row)
    for k, row, column in omega:
        if row != column:
            scale = np.sqrt(view["omega"][row, row] * view["omega"][column, column])
            alike = abs(view["omega"][row, column]) > (1.0 - 1e-6) * scale
            at_edge[k] = alike or row in zero or column in zero
    for k, _, c in sigma:
        if model.param_kind[k] == "exponent":
            continue  # any number
        value = view["sigma"][c]
        small = value * np.sqrt(matrix[k, k]) < _NEGLIGIBLE
        at_edge[k] = value <= 2.0 * nlme.SIGMA_FLOOR or small
    return at_edge


def _greatest_at_zero(model: NLME, theta: Array, row: int) -> bool:
    """Whether the likelihood falls from the start as the variance of a coordinate leaves 0.

    Stochastic approximation nears a maximum at 0 like 1 / k: the estimate is then small, but
    its size says nothing. Compared are the floor, the estimate and a quarter of it, the other
    parameters as they are.
    """
    from saem.estep.quadrature import quadrature_dimension
    from saem.inference.likelihood import QuadratureRule, importance_sampling

    d = quadrature_dimension(model)

    def loglik(share: float) -> float:
        changed = theta.copy()
        view = model.theta_spec.view(changed)
        omega = view["omega"]
        for a in model.tied(row):
            omega[a, :] *= np.sqrt(share)
            omega[:, a] *= np.sqrt(share)
            omega[a, a] = max(omega[a, a], nlme.VARIANCE_FLOOR)
        nlme.factorise(omega, view["chol"])
        if d > _MAX_QUADRATURE:
            return importance_sampling(model, changed).value  # the same draws every time
        return QuadratureRule(model, _NODES[d])(changed)

    at_zero = loglik(0.0)
    return at_zero >= loglik(1.0) and at_zero >= loglik(0.25)


def conclude(
    model: Model, matrix: Array, derivative: Array, boundary: Any, method: str
) -> Information:
    """Invert what can be inverted, and say what cannot."""
    names = list(model.param_names)
    size = len(names)
    edge = tuple(name for name, at in zip(names, boundary, strict=True) if at)
    if edge:
        warnings.warn(
            f"{', '.join(edge)}: the estimate lies on the boundary of its range (variance 0, or "
            "correlation 1), where standard errors do not hold. None is given; those of the other "
            "parameters are for the model without it. Remedy: leave out this random effect "
            "(random=False), or the correlation.",
            BoundaryWarning,
            stacklevel=4,
        )
    free = np.flatnonzero(~np.asarray(boundary))
    covariance = np.full((size, size), np.nan)
    part = matrix[np.ix_(free, free)]
    scale = np.sqrt(np.maximum(np.diagonal(part), 0.0))
    condition, unidentified = np.inf, _without_information([names[k] for k in free], scale)
    if free.size and not unidentified:
        scaled = part / np.outer(scale, scale)
        values, vectors = np.linalg.eigh(scaled)
        condition = float(values[-1] / values[0]) if values[0] > 0 else np.inf
        if values[0] > _SINGULAR * values[-1]:
            inverse = (vectors / values) @ vectors.T
            covariance[np.ix_(free, free)] = inverse / np.outer(scale, scale)
        else:
            unidentified = tuple(
                names[k] for k, v in zip(free, vectors[:, 0], strict=True) if abs(v) > 0.1
            )
    if unidentified:
        warnings.warn(
            f"the data do not tell {' and '.join(unidentified)} apart: the information has no "
            "positive definite inverse here, so there are no standard errors. Remedy: see whether "
            "the fit has reached a maximum (its trace, other starts); if so, fix one of these "
            "parameters (fixed=True), or leave out a random effect or covariate among them.",
            SaemWarning,
            stacklevel=4,
        )
    return Information(
        tuple(names), matrix, covariance, covariance * np.outer(derivative, derivative),
        condition, edge, unidentified, method,
    )  # fmt: skip


def _without_information(names: list[str], scale: Array) -> tuple[str, ...]:
    """Parameters whose own information is 0 or no number."""
    return tuple(name for name, s in zip(names, scale, strict=True) if not (s > 0 and s < np.inf))
