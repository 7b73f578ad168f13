"""Priors of the population parameters: penalised likelihood, maximum a posteriori estimates.

A model with priors maximises ``log p(y; theta) + log p(theta)``. Priors are given by the names of
the estimated numbers:

| name | prior | density of |
| --- | --- | --- |
| a parameter, a coefficient | `NormalPrior` | it on the Gaussian scale (log of a `LogNormal`) |
| ``omega2_...``, ``a``, ``b_cp``, ... | `InverseGammaPrior` | the variance: omega2, a^2, b^2 |
| ``"omega"`` | `InverseWishartPrior` | the whole covariance matrix of the random effects |

All keep the M-step in closed form where it has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.exceptions import Problems
from saem.nlme import _kernels
from saem.nlme._explain import did_you_mean
from saem.nlme.parameters import is_number

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = ["InverseGammaPrior", "InverseWishartPrior", "NormalPrior", "Prior"]

#: Name under which the prior of the whole covariance matrix is given.
WHOLE = "omega"


class Prior:
    """Base of the priors; use one of those."""


@dataclass(frozen=True)
class NormalPrior(Prior):
    """Normal prior of a typical value or a coefficient, on the Gaussian scale.

    Parameters
    ----------
    mean : float
        For a `LogNormal` parameter the logarithm of the value expected.
    sd : float

    Examples
    --------
    >>> import numpy as np
    >>> NormalPrior(float(np.log(20.0)), 0.2)  # a volume of about 20, give or take 20 %
    NormalPrior(mean=2.995732273553991, sd=0.2)
    """

    mean: float
    sd: float


@dataclass(frozen=True)
class InverseGammaPrior(Prior):
    """Inverse-gamma prior of a variance v, with density ``v^(-shape - 1) exp(-scale / v)``.

    Its mode is ``scale / (shape + 1)``; it is worth some ``2 shape`` observations.

    Parameters
    ----------
    shape, scale : float
    """

    shape: float
    scale: float


@dataclass(frozen=True)
class InverseWishartPrior(Prior):
    """Inverse-Wishart prior of the covariance matrix of the random effects.

    Density ``|Omega|^(-(df + d + 1) / 2) exp(-tr(scale Omega^-1) / 2)``, mode
    ``scale / (df + d + 1)``.

    Parameters
    ----------
    df : float
    scale : sequence of sequence of float, shape (d, d)
        Random effects in the order of the model's parameters.
    """

    df: float
    scale: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        """Take any nested sequence."""
        rows = tuple(tuple(float(x) for x in row) for row in self.scale)
        object.__setattr__(self, "scale", rows)


def check_priors(model: NLME, priors: object, problems: Problems) -> dict[str, Prior]:
    """Check priors against the parameters of a model.

    Parameters
    ----------
    model : NLME
        With its names.
    priors : object
        What the user gave.
    problems : Problems
        Receives what is wrong.

    Returns
    -------
    dict of str to Prior
    """
    if priors is None:
        return {}
    if not isinstance(priors, Mapping):
        problems.add(
            f"priors is {priors!r}, not a mapping",
            remedy='write priors={"CL": saem.NormalPrior(1.0, 0.2)}',
        )
        return {}
    kinds = dict(zip(model.param_names, model.param_kind, strict=True))
    for name, prior in priors.items():
        if name == WHOLE:
            _check_wishart(model, prior, priors, problems)
        elif name not in kinds:
            problems.add(
                f"priors names {name!r}, which is not estimated{did_you_mean(name, kinds)}",
                remedy=f"the names are {', '.join(kinds)} and '{WHOLE}'",
            )
        else:
            _check_one(model, name, kinds[name], prior, problems)
    return dict(priors)


#: Class of prior for each kind of parameter, and its numbers that must be positive.
_CLASS_OF: dict[str, type[Prior]] = {
    "typical": NormalPrior,
    "coefficient": NormalPrior,
    "variance": InverseGammaPrior,
    "residual": InverseGammaPrior,
}


def _check_one(model: NLME, name: str, kind: str, prior: object, problems: Problems) -> None:
    wanted = _CLASS_OF.get(kind)
    if wanted is None:
        problems.add(
            f"the prior of {name!r}: a {kind} takes none of its own",
            remedy=f"use priors={{'{WHOLE}': saem.InverseWishartPrior(df, scale)}}"
            if kind == "covariance"
            else "fix the power instead (fixed_c=True)",
        )
        return
    if not isinstance(prior, wanted):
        problems.add(
            f"the prior of {name!r} is {prior!r}, but a {kind} takes a {wanted.__name__}",
            remedy=f"write saem.{wanted.__name__}(...)",
        )
        return
    values = vars(prior)
    for label, value in values.items():
        positive = label != "mean"
        if not is_number(value) or (positive and not value > 0):
            rule = "positive and finite" if positive else "a finite number"
            problems.add(
                f"the prior of {name!r}: {label} is {value!r}, but must be {rule}",
                remedy="correct it",
            )
    if kind == "variance":
        a = divmod(model.param_index[model.param_names.index(name)]
                   - model.theta_spec.slices["omega"].start, model.n_coords)[0]  # fmt: skip
        if np.count_nonzero(model.omega_pattern[a]) > 1:
            problems.add(
                f"the prior of {name!r}: this random effect is correlated with others",
                remedy=f"give one of the whole matrix, priors={{'{WHOLE}': "
                "saem.InverseWishartPrior(df, scale)}",
            )


def _check_wishart(
    model: NLME, prior: object, priors: Mapping[Any, Any], problems: Problems
) -> None:
    d = model.n_coords
    if not isinstance(prior, InverseWishartPrior):
        problems.add(
            f"the prior of {WHOLE!r} is {prior!r}, not an InverseWishartPrior",
            remedy="write saem.InverseWishartPrior(df, scale)",
        )
        return
    if np.any(model.omega_pattern == 0.0):
        problems.add(
            f"the prior of {WHOLE!r} needs a full covariance matrix",
            remedy='use omega="full", or InverseGammaPrior for each variance',
        )
    if any(str(name).startswith("omega2_") for name in priors):
        problems.add(f"there is a prior of {WHOLE!r} and of single variances", remedy="keep one")
    ragged = {len(row) for row in prior.scale} != {d} or len(prior.scale) != d
    matrix = None if ragged else np.array(prior.scale)
    definite = (
        matrix is not None
        and np.isfinite(matrix).all()
        and np.array_equal(matrix, matrix.T)
        and np.linalg.eigvalsh(matrix)[0] > 0.0
    )
    if not definite or not is_number(prior.df) or not prior.df > 0:
        problems.add(
            f"the prior of {WHOLE!r} is {prior!r}, but needs df > 0 and a symmetric positive "
            f"definite scale of {d} rows and columns",
            remedy="correct it",
        )


def fill_priors(model: NLME, view: dict[str, Array]) -> None:
    """Write priors into the blocks of theta, as parts of one individual.

    Parameters
    ----------
    model : NLME
        With its names and `priors`.
    view : dict of str to ndarray
        Blocks of theta; changed in place.
    """
    n = model.n_individuals
    for name, prior in model.priors.items():
        if isinstance(prior, InverseWishartPrior):
            view["omega_scale"][:] = np.array(prior.scale) / n
            view["omega_count"][:] = (prior.df + model.n_coords + 1.0) / n
            continue
        at = model.param_index[model.param_names.index(name)]
        if isinstance(prior, NormalPrior):
            j, m = divmod(at - model.theta_spec.slices["beta"].start, len(model.parameters))
            view["beta_mean"][j, m] = prior.mean
            view["beta_weight"][j, m] = 1.0 / (n * prior.sd**2)
        elif isinstance(prior, InverseGammaPrior):
            scale, count = 2.0 * prior.scale / n, 2.0 * (prior.shape + 1.0) / n
            sigma = model.theta_spec.slices["sigma"]
            if sigma.start <= at < sigma.stop:
                c = at - sigma.start
                view["sigma_scale"][c], view["sigma_count"][c] = scale, count
            else:
                start = model.theta_spec.slices["omega"].start
                for a in model.tied(divmod(at - start, model.n_coords)[0]):
                    # One prior of a variance that several coordinates share.
                    view["omega_scale"][a, a] = scale / len(model.tied(a))
                    view["omega_count"][a] = count / len(model.tied(a))
    random = view["parameter"].astype(int)
    if np.any(view["beta_weight"][:, random]):
        view["dims"][6] = _kernels.SWEEPS


def log_prior(model: NLME, theta: Array) -> float:
    """Log prior density at theta, up to a constant; 0 without priors.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.

    Returns
    -------
    float
    """
    if not model.priors:
        return 0.0
    return float(model.n_individuals * _kernels.mean_log_prior(theta))


def prior_information(model: NLME, theta: Array) -> Array:
    """Negative Hessian of `log_prior` on the estimation scale, by central differences.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.

    Returns
    -------
    ndarray of shape (n_params, n_params)
    """
    size = len(model.param_names)
    matrix = np.zeros((size, size))
    if not model.priors:
        return matrix
    centre = model.estimation_vector(theta)
    steps = 1e-3 * np.array([_scale(model, theta, k) for k in range(size)])

    def value(*moves: tuple[int, float]) -> float:
        shifted = centre.copy()
        for k, sign in moves:
            shifted[k] += sign * steps[k]
        return log_prior(model, model.with_estimates(theta, shifted))

    middle = value()
    for k in range(size):
        matrix[k, k] = (2.0 * middle - value((k, 1.0)) - value((k, -1.0))) / steps[k] ** 2
        for h in range(k):
            mixed = sum(i * j * value((k, i), (h, j)) for i in (1.0, -1.0) for j in (1.0, -1.0))
            matrix[k, h] = matrix[h, k] = -mixed / (4.0 * steps[k] * steps[h])
    return matrix


def _scale(model: NLME, theta: Array, k: int) -> float:
    """Size of an estimated number over which its prior density changes."""
    kind, name = model.param_kind[k], model.param_names[k]
    value = float(abs(model.estimation_vector(theta)[k]))
    prior = model.priors.get(name)
    if isinstance(prior, NormalPrior):
        return prior.sd
    if kind == "covariance":
        omega = model.theta_spec.view(theta)["omega"]
        return float(np.sqrt(omega.diagonal().min() * omega.diagonal().max()))
    return value or 1.0
