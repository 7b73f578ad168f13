"""What models with Gaussian latent coordinates and no exact E-step share.

Their individuals carry no weights: the value that a Monte Carlo or quadrature visit returns
is the log-likelihood of one individual. Whole weights are repeated individuals.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np

from saem.contract import Array, Model
from saem.exceptions import ModelError, OptionError
from saem.results import LogLik, Results

from ._checks import check_size_of_theta

__all__ = ["LatentGaussianModel", "LatentGaussianResults", "hessian", "repeated", "whole_weights"]

#: Step of the differences for second derivatives, in units of a parameter's own spread; the
#: error is of the order of its square, that of rounding 1e-16 |value| over its square.
_STEP = 1e-2


def whole_weights(model: Model, weights: Array) -> Any:
    """Weights as numbers of repetitions.

    Raises
    ------
    ModelError
        If a weight is not a whole number of at least 0, or all are 0.
    """
    array = np.asarray(weights, dtype=float)
    good = (array >= 0.0) & (array == np.floor(array))
    if array.shape != (model.n_individuals,) or not good.all() or not array.any():
        raise ModelError(
            f"weights of a {model.name} must be {model.n_individuals} whole numbers of at least "
            "0, not all 0. Remedy: repeat individuals; their E-step has no fractions."
        )
    return array.astype(np.int64)


def repeated(model: Any, weights: Array) -> tuple[Any, Any]:
    """Return a copy of a model in which individuals stand as often as their weights say.

    Returns
    -------
    model : Model
    rows : ndarray of int64
        Which individual of the given model each of its individuals is.
    """
    times = whole_weights(model, weights)
    new = copy(model)
    rows = np.repeat(np.arange(model.n_individuals), times)
    records = [model.record_of(i) for i in rows]
    new.values = np.concatenate(records)
    if model.offsets.size != 2:
        new.offsets = np.concatenate([[0], np.cumsum([r.size for r in records])]).astype(np.int64)
    new.n_individuals = len(rows)
    # How often each individual of the constructor's stands there now, for `rebuild`.
    before = getattr(model, "times", np.ones(len(times), dtype=np.int64))
    new.times = np.bincount(np.repeat(np.arange(len(before)), before)[rows], minlength=len(before))
    return new, rows


def hessian(function: Callable[[Array], float], at: Array, spread: Array) -> Array:
    """Second derivatives by central differences, of shape (p, p).

    Parameters
    ----------
    function : callable
    at : ndarray of shape (p,)
    spread : ndarray of shape (p,)
        Changes of the parameters that the function feels, such as standard errors.
    """
    p = at.size
    steps = np.diag(_STEP * spread)
    value = function(at)
    ahead = np.array([function(at + e) for e in steps])
    behind = np.array([function(at - e) for e in steps])
    out = np.empty((p, p))
    for a in range(p):
        out[a, a] = ahead[a] - 2.0 * value + behind[a]
        for b in range(a):
            both = function(at + steps[a] + steps[b]) + function(at - steps[a] - steps[b])
            both += 2.0 * value - ahead[a] - behind[a] - ahead[b] - behind[b]
            out[a, b] = out[b, a] = 0.5 * both
    return out / np.outer(np.diag(steps), np.diag(steps))


class LatentGaussianModel(Model):
    """Base of such models, whose individuals `repeated` repeats."""

    def check_theta(self, theta: Array) -> None:
        """Raise `ModelError` if a starting theta is not admissible."""
        check_size_of_theta(theta, self.theta_spec.size)

    @classmethod
    def rebuild(cls, state: dict[str, Any]) -> Any:
        """Make the model of what `persist` returned.

        Parameters
        ----------
        state : dict
            Arguments of the constructor, and ``times``, what `repeated` did.
        """
        options = dict(state)
        times = options.pop("times")
        model = cls(**options)
        return model if times is None else model.reweighted(times)


class LatentGaussianResults(Results):
    """Results whose log-likelihood is an integral over Gaussian latent coordinates."""

    _default_method = "auto"

    @property
    def _interval_scales(self) -> list[str]:
        return ["log" if n.startswith("var[") else "identity" for n in self.param_names]

    def _loglik(self, method: str, **options: Any) -> LogLik:
        from saem.inference.likelihood import log_likelihood

        if method == "exact":
            raise OptionError(
                f"method='exact': the log-likelihood of a {self.model.name} is an integral; use "
                "'quadrature' or 'importance'."
            )
        found = log_likelihood(self.model, self.record.theta, method, **options)
        return LogLik(found.value, found.error, found.method)
