"""Fisher information and standard errors.

`linearised_information` is the expected information of the model linearised at
the posterior modes; `exact_information` the observed information, by
differences of a log-likelihood computed by quadrature. Both are over the
estimated numbers on the Gaussian scale, in the order of ``model.param_names``;
standard errors on the natural scale follow by the delta method.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array, Model
from saem.exceptions import BoundaryWarning, OptionError, SaemWarning
from saem.nlme import _kernels as nlme

if TYPE_CHECKING:
    from saem.inference._visits import Modes
    from saem.inference.linearisation import Linearisation
    from saem.nlme.model import NLME

__all__ = [
    "Information",
    "exact_information",
    "information",
    "linearised_information",
    "louis_information",
]

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
        ``"linearised"``, ``"Louis"`` or ``"exact"``.
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
        return _conclude(model, np.asarray(model.information(theta)), ones, none, "exact")
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
    boundary = _boundary(model, theta, matrix)
    found = _conclude(model, matrix, model.natural_derivative(theta), boundary, "linearised")
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
        Nodes per random effect; 13 for up to two, 9 for three, else 7.
    n_threads : int, optional

    Returns
    -------
    Information
    """
    from saem.inference.likelihood import QuadratureRule
    from saem.inference.linearisation import linearise

    d = model.n_coords
    rule = QuadratureRule(model, n_nodes or (13 if d < 3 else 9 if d == 3 else 7), n_threads)
    rule(theta)  # leaves the modes behind, from which every evaluation starts
    centre = model.estimation_vector(theta)
    first = marginal_information(model, theta, linearise(model, theta, n_threads=n_threads))
    boundary = _boundary(model, theta, first)
    free = np.flatnonzero(~boundary)
    values, vectors = np.linalg.eigh(first[np.ix_(free, free)])
    axes = np.zeros((centre.size, free.size))
    axes[free] = vectors / np.sqrt(np.maximum(values, 1e-10 * values[-1]))

    def loglik(shift: Array) -> float:
        return rule(model.with_estimates(theta, centre + axes @ shift))

    whitened = (4.0 * _hessian(loglik, free.size, 0.1) - _hessian(loglik, free.size, 0.2)) / 3.0
    inverse = np.linalg.inv(axes[free])
    matrix = np.full(first.shape, np.nan)
    matrix[np.ix_(free, free)] = -inverse.T @ whitened @ inverse
    return _conclude(model, matrix, model.natural_derivative(theta), boundary, "exact")


def louis_information(
    model: NLME, theta: Array, *, modes: Modes | None = None, n_threads: int | None = None
) -> Information:
    """Observed information at the maximum, as complete less missing information.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters, at the maximum of the likelihood.
    modes : Modes, optional
        Modes at theta, if they are known already.
    n_threads : int, optional

    Returns
    -------
    Information

    Notes
    -----
    ``I = E[-d2 log f | y] - sum_i Var(d log f_i | y_i)`` (Louis 1982, JRSS B 44,
    226-233), the posterior variances of the scores by quadrature, for up to
    four random effects. The first term is the expected information where the model
    is an exponential family, second differences elsewhere.
    """
    from saem.inference._visits import find_modes
    from saem.inference.linearisation import linearise
    from saem.inference.posterior import Curvature, nodes_for, quadrature_records, scores, split

    n_nodes = nodes_for(model.n_coords, model.n_individuals)
    if n_nodes is None:
        raise OptionError(
            f"the missing information is computed by quadrature, which {model.n_coords} random "
            "effects do not allow. Remedy: linearised_information."
        )
    if modes is None:
        modes = find_modes(model, theta, n_threads=n_threads)
    lin = linearise(model, theta, modes=modes, n_threads=n_threads)
    boundary = _boundary(model, theta, marginal_information(model, theta, lin))
    complete = complete_information(model, theta, lin)
    missing = np.zeros_like(complete)
    curvature = Curvature(model, theta, complete)
    for rows, records in quadrature_records(model, theta, n_nodes, n_threads, modes):
        weights, _ = split(model, records)
        score = scores(model, theta, records, rows)
        score -= np.einsum("im,imp->ip", weights, score)[:, None]
        flat = score.reshape(-1, score.shape[-1])
        missing += (weights.reshape(-1, 1) * flat).T @ flat
        curvature.add(rows, records)
    curvature.replace(complete)
    found = _conclude(model, complete - missing, model.natural_derivative(theta), boundary, "Louis")
    return replace(found, complete=complete)


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


# -- blocks of the linearised information ------------------------------------------


def entries_of(model: NLME) -> tuple[list[tuple[int, int, int]], ...]:
    """Estimated entries (position in the vector, row, column) of beta, Omega, sigma."""
    found: dict[str, list[tuple[int, int, int]]] = {"beta": [], "omega": [], "sigma": []}
    for k, at in enumerate(model.param_index):
        for name, entries in found.items():
            block = model.theta_spec.slices[name]
            if block.start <= at < block.stop:
                shape = model.theta_spec.shapes[name]
                row, column = divmod(at - block.start, shape[-1])
                entries.append((k, row, column))
    return found["beta"], found["omega"], found["sigma"]


def variance_slopes(model: NLME, theta: Array, lin: Linearisation) -> Array:
    """Derivatives of the residual variances by a and b, shape (2, n_rows)."""
    a, b = model.theta_spec.view(theta)["sigma"]
    size, code = np.abs(lin.f), model.error.code
    none = np.zeros_like(size)
    if code == nlme.COMBINED_SUM:
        return np.stack([2.0 * (a + b * size), 2.0 * (a + b * size) * size])
    if code == nlme.COMBINED_VARIANCE:
        return np.stack([np.full_like(size, 2.0 * a), 2.0 * b * size * size])
    if code == nlme.PROPORTIONAL:
        return np.stack([none, 2.0 * lin.variance / b])
    return np.stack([np.full_like(size, 2.0 * a), none])


def _symmetric_units(entries: list[tuple[int, int, int]], d: int) -> Array:
    """Derivatives of Omega by its estimated entries, shape (n_entries, d, d)."""
    units = np.zeros((len(entries), d, d))
    for unit, (_, row, column) in zip(units, entries, strict=True):
        unit[row, column] = unit[column, row] = 1.0
    return units


def marginal_information(model: NLME, theta: Array, lin: Linearisation) -> Array:
    """Expected information of the linearised model, shape (n_params, n_params).

    With ``z = J' S^-1 J`` and ``G = (Omega^-1 + z)^-1`` one has ``V^-1 = S^-1 - S^-1
    J G J' S^-1`` (Woodbury), so that only sums over rows of products of a few
    numbers are needed, never an n_i x n_i matrix.
    """
    beta, omega, sigma = entries_of(model)
    view = model.theta_spec.view(theta)
    random = view["parameter"].astype(int)
    starts, n = lin.rows[:-1], lin.rows.size - 1
    scaled = lin.jacobian / lin.variance[:, None]
    z = np.add.reduceat(scaled[:, :, None] * lin.jacobian[:, None, :], starts)
    precision = z[:, random[:, None], random] + np.linalg.inv(view["omega"])
    inner = np.linalg.inv(precision)
    by_random = z[:, :, random]
    jvj = z - by_random @ inner @ by_random.transpose(0, 2, 1)
    matrix = np.zeros((len(model.param_index),) * 2)

    from saem.inference.linearisation import design_of

    x = design_of(model)
    at = [k for k, _, _ in beta]
    rows, columns = ([e[j] for e in beta] for j in (1, 2))
    weights = x[:, rows]
    block = jvj[:, np.array(columns)[:, None], columns]
    matrix[np.ix_(at, at)] = np.einsum("ia,iab,ib->ab", weights, block, weights)

    units = _symmetric_units(omega, random.size)
    m = jvj[:, random[:, None], random]
    products = m[None] @ units[:, None]
    at = [k for k, _, _ in omega]
    matrix[np.ix_(at, at)] = 0.5 * np.einsum("aijk,bikj->ab", products, products)

    slopes = variance_slopes(model, theta, lin)
    lean = scaled[:, random]
    # Rows of V^-1 J, and of S^-1 J R with R R' = G.
    owner = np.repeat(np.arange(n), np.diff(lin.rows))
    vj = lean - np.einsum("jc,jca->ja", lean, (inner @ z[:, random[:, None], random])[owner])
    rotated = np.einsum("jc,jca->ja", lean, np.linalg.cholesky(inner)[owner])
    leverage = np.square(rotated).sum(axis=1)
    inverse = 1.0 / lin.variance
    pairs = {
        c: np.add.reduceat(
            slopes[c][:, None, None] * rotated[:, :, None] * rotated[:, None, :], starts
        )
        for _, _, c in sigma
    }
    for k, _, c in sigma:
        outer = (slopes[c][:, None] * vj).T @ vj
        for j, (h, _, _) in enumerate(omega):
            matrix[k, h] = matrix[h, k] = 0.5 * np.sum(outer * units[j])
        for h, _, e in sigma:
            full = np.sum(slopes[c] * slopes[e] * inverse * (inverse - 2.0 * leverage))
            matrix[k, h] = 0.5 * (full + np.sum(pairs[c] * pairs[e]))
    return matrix


def complete_information(model: NLME, theta: Array, lin: Linearisation) -> Array:
    """Expected information of the complete data, shape (n_params, n_params).

    Closed form for the distribution of the random effects; for parameters without
    random effect and residual parameters from the linearised predictions.
    """
    from saem.inference.linearisation import design_of

    beta, omega, sigma = entries_of(model)
    view = model.theta_spec.view(theta)
    n, x = model.n_individuals, design_of(model)
    inverse = np.linalg.inv(view["omega"])
    position = view["position"].astype(int)
    matrix = np.zeros((len(model.param_index),) * 2)
    owner = np.repeat(np.arange(n), np.diff(lin.rows))
    for k, j, a in beta:
        for h, i, b in beta:
            if position[a] >= 0 and position[b] >= 0:
                weight = inverse[position[a], position[b]]
                matrix[k, h] = weight * np.sum(x[:, j] * x[:, i])
            elif position[a] < 0 and position[b] < 0:
                slopes = lin.jacobian[:, a] * lin.jacobian[:, b] / lin.variance
                matrix[k, h] = np.sum(slopes * x[owner, j] * x[owner, i])
    products = inverse @ _symmetric_units(omega, model.n_coords)
    at = [k for k, _, _ in omega]
    matrix[np.ix_(at, at)] = 0.5 * n * np.einsum("aij,bji->ab", products, products)
    slopes = variance_slopes(model, theta, lin)
    for k, _, c in sigma:
        for h, _, e in sigma:
            matrix[k, h] = 0.5 * np.sum(slopes[c] * slopes[e] / lin.variance**2)
    return matrix


# -- from information to standard errors -------------------------------------------


def _boundary(model: NLME, theta: Array, matrix: Array) -> Any:
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
    from saem.inference.likelihood import QuadratureRule, importance_sampling

    d = model.n_coords

    def loglik(share: float) -> float:
        changed = theta.copy()
        view = model.theta_spec.view(changed)
        omega = view["omega"]
        omega[row, :] *= np.sqrt(share)
        omega[:, row] *= np.sqrt(share)
        omega[row, row] = max(omega[row, row], nlme.VARIANCE_FLOOR)
        nlme.factorise(omega, view["chol"])
        if d > _MAX_QUADRATURE:
            return importance_sampling(model, changed).value  # the same draws every time
        return QuadratureRule(model, _NODES[d])(changed)

    at_zero = loglik(0.0)
    return at_zero >= loglik(1.0) and at_zero >= loglik(0.25)


def _conclude(
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
