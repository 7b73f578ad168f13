"""Checks of a model's declaration: parameters, error models, what the structural model returns."""

from __future__ import annotations

from collections.abc import Mapping

from saem.nlme._columns import Report
from saem.nlme._explain import did_you_mean
from saem.nlme.endpoints import Endpoints
from saem.nlme.error_models import ErrorModel
from saem.nlme.parameters import Parameter
from saem.nlme.structural import Structural

__all__ = ["check_model"]


def check_model(
    structural: Structural, parameters: object, endpoints: Endpoints, report: Report
) -> None:
    """Check parameters against the structural model, each parameter, and the error models."""
    strange = [error for error in endpoints.errors if not isinstance(error, ErrorModel)]
    for error in strange:
        report.model.add(
            f"error is {error!r}, not an error model",
            remedy="use ConstantError, ProportionalError, CombinedError, PowerError, "
            "ExponentialError or LogLikelihood",
        )
    if not strange:
        _check_kind(structural, endpoints, report)
        for text, remedy in endpoints.problems():
            report.model.add(text, remedy=remedy)
    if not isinstance(parameters, Mapping):
        report.model.add(
            f"parameters is {parameters!r}, not a mapping",
            remedy='write parameters={"ka": LogNormal(1.0), ...}',
        )
        return
    expected = structural.param_names
    for name in expected:
        if name not in parameters:
            others = [p for p in parameters if p not in expected]
            report.model.add(
                f"parameter {name!r} of structural model {structural.name!r} is not given"
                f"{did_you_mean(name, others)}",
                remedy=f"add {name!r} to parameters",
            )
    for name, parameter in parameters.items():
        if name not in expected:
            report.model.add(
                f"parameter {name!r} is not one of structural model {structural.name!r}"
                f"{did_you_mean(name, expected)}",
                remedy=f"its parameters are {', '.join(expected)}",
            )
        if not isinstance(parameter, Parameter):
            report.model.add(
                f"parameter {name!r} is {parameter!r}, not a parameter",
                remedy=f"write {name!r}: LogNormal(start), or Normal, LogitNormal, ProbitNormal",
            )
        else:
            for text, remedy in parameter.problems(str(name)):
                report.model.add(text, remedy=remedy)


def _check_kind(structural: Structural, endpoints: Endpoints, report: Report) -> None:
    """Check that what a structural model returns is what its error model takes it for."""
    if structural.parts:
        for part, error in zip(structural.parts, endpoints.errors, strict=True):
            _check_kind(part, Endpoints((), (error,)), report)
        return
    reads, error = "dv" in structural.columns, endpoints.errors[0]
    if reads and all(error.continuous for error in endpoints.errors):
        report.model.add(
            f"structural model {structural.name!r} takes the response (column 'dv'), which cannot "
            f"go into a prediction of it with {type(error).__name__}",
            remedy="error=saem.LogLikelihood() if it returns the log-likelihood of its row; a copy "
            "of the column under another name if not",
        )
    elif not endpoints.continuous and not reads and not structural.scalar:
        report.model.add(
            f"structural model {structural.name!r} predicts a continuous response, not the "
            "log-likelihood of a row, as LogLikelihood takes it",
            remedy="use an error model such as ConstantError()",
        )
