"""Refusals of what presupposes a continuous response that the structural model predicts."""

from __future__ import annotations

from typing import Any

from saem.exceptions import OptionError

__all__ = ["require_predictions"]

_INSTEAD = (
    "individual(), random_effects, shrinkage, individual_loglik(), chains() and why() serve these "
    "models too"
)


def require_predictions(model: Any, what: str, instead: str = _INSTEAD) -> None:
    """Refuse what needs predictions of the response, where there are log-likelihoods only.

    Parameters
    ----------
    model : NLME
    what : str
        What was asked for, as in "gives no residuals".
    instead : str
        What to use.

    Raises
    ------
    saem.exceptions.OptionError
        If an error model is `saem.LogLikelihood`.
    """
    endpoints = getattr(model, "endpoints", None)
    if endpoints is None or endpoints.continuous:
        return
    raise OptionError(
        f"error=LogLikelihood() gives no {what}: the structural function "
        f"{model.structural.name!r} returns log-likelihoods of rows, not predictions of a "
        f"continuous response. Remedy: {instead}."
    )
