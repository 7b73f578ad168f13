"""Log-likelihood of the observed data: one function, several methods."""

from __future__ import annotations

from typing import Any

import numpy as np

from saem.contract import Array, Model
from saem.estep import Exact
from saem.estep.quadrature import quadrature_dimension
from saem.exceptions import OptionError, nearest
from saem.inference._approximations import first_order, focei, laplace, linearised
from saem.inference._quadrature import QuadratureRule, quadrature
from saem.inference._sampling import importance_convergence, importance_sampling
from saem.inference._value import Likelihood
from saem.inference._visits import visit_blocks

__all__ = [
    "Likelihood",
    "QuadratureRule",
    "exact",
    "first_order",
    "focei",
    "importance_convergence",
    "importance_sampling",
    "laplace",
    "linearised",
    "log_likelihood",
    "quadrature",
]

#: Random effects up to which "auto" takes quadrature.
_AUTO_DIMENSION = 3


def log_likelihood(model: Model, theta: Array, method: str = "auto", **options: Any) -> Likelihood:
    """Log-likelihood of a model at given parameters.

    Parameters
    ----------
    model : Model
    theta : ndarray
        Packed parameters.
    method : {"auto", "importance", "quadrature", "laplace", "focei", "linearised", "fo", "exact"}
        ``"auto"`` takes the closed form where there is one, quadrature up to
        three random effects, and importance sampling beyond. ``"laplace"``, ``"focei"``,
        ``"linearised"`` and ``"fo"`` are approximations whose error is not known.
    **options
        Those of `importance_sampling`, `quadrature`, `laplace`, `focei`, `linearised` or
        `first_order`.

    Returns
    -------
    Likelihood
    """
    methods: dict[str, Any] = {
        "importance": importance_sampling, "quadrature": quadrature, "laplace": laplace,
        "focei": focei, "linearised": linearised, "fo": first_order, "exact": exact,
    }  # fmt: skip
    if method == "is":
        method = "importance"
    if method == "auto":
        if "expect" in model.capabilities:
            method = "exact"
        else:
            method = (
                "quadrature" if quadrature_dimension(model) <= _AUTO_DIMENSION else "importance"
            )
    if method not in methods:
        close = nearest(method, [*methods, "auto"])
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise OptionError(
            f"method={method!r} must be 'auto', 'importance' (or 'is'), 'quadrature', 'laplace', "
            f"'focei', 'linearised', 'fo' or 'exact'.{hint}"
        )
    return methods[method](model, theta, **options)


def exact(model: Model, theta: Array, *, n_threads: int | None = None) -> Likelihood:
    """Log-likelihood in closed form, for models with an exact E-step.

    Parameters
    ----------
    model : Model
    theta : ndarray
        Packed parameters.
    n_threads : int, optional

    Returns
    -------
    Likelihood
    """
    if "expect" not in model.capabilities:
        raise OptionError(
            f"{model.name} has no log-likelihood in closed form. Remedy: method='quadrature' for "
            "few random effects, method='importance' for any number."
        )
    bound = Exact().bind(model)
    n = model.n_individuals
    values = np.empty(n)
    for rows, _, part in visit_blocks(
        model, bound.visitor, theta, settings=bound.settings, memories=np.zeros((n, 0)),
        record_size=bound.record_size, work_size=0, n_threads=n_threads,
    ):  # fmt: skip
        values[rows] = part
    return Likelihood(
        float(values.sum()), 0.0, values, np.zeros(n), "exact", None, np.ones(n, dtype=np.int64)
    )
