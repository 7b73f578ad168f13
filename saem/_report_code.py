"""The Python code that repeats a fit, written from the fit itself."""

from __future__ import annotations

import contextlib
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import saem
from saem.algorithms import _REGISTRY, default_algorithm
from saem.exceptions import SaemError
from saem.fitting import describe

if TYPE_CHECKING:
    from saem.results import Results

__all__ = ["python_code"]


def python_code(results: Results, data: str | None = None) -> str:
    """Write the program that repeats a fit.

    Parameters
    ----------
    results : Results
    data : str, optional
        Expression that loads the data, such as ``saem.datasets.load("theophylline")``.

    Returns
    -------
    str
        Where something cannot be written down, such as the data of a session, a
        comment says so.
    """
    model = results.model
    lines = ["import pandas as pd"] if data and "pd." in data else []
    lines += ["import saem", ""]
    lines.append(f"data = {data}" if data else "data = ...  # the table that was fitted")
    if hasattr(model, "structural"):
        lines += _nlme(model)
    else:
        lines.append("model = ...  # as it was built: " + type(model).__name__)
    lines.append(f"fit = model.fit({_algorithm(results)}, seed={results.record.seed})")
    lines.append("print(fit.summary())")
    return "\n".join(lines)


def _nlme(model: Any) -> list[str]:
    """Construction of an NLME model."""
    structural, parameters = model.declared
    lines: list[str] = []
    parts = structural.parts or (structural,)
    for part in parts:
        if part.qualified_name.startswith("saem.nlme.library:"):
            continue
        if part.source:
            lines += ["", "", *part.source.rstrip().splitlines(), "", ""]
        else:
            lines.append(f"# {part.qualified_name} must be defined here")
    names = [repr(part.name) if not part.scalar else part.name for part in parts]
    name = names[0]
    if structural.parts:
        labels = model.endpoints.labels
        pairs = (f"{label!r}: {own}" for label, own in zip(labels, names, strict=True))
        name = f"{{{', '.join(pairs)}}}"
    columns = {key: str(value) for key, value in model.individuals.names.items()}
    if model.occasions is not None:
        columns.pop("occasion")
    lines += ["model = saem.NLME(", "    data,", f"    structural={name},", "    parameters={"]
    lines += [f"        {key!r}: {_call(parameters[key])}," for key in structural.param_names]
    lines += ["    },", f"    error={_error(model.endpoints)},"]
    if model.omega != "diagonal":
        lines.append(f"    omega={model.omega!r},")
    if model.occasions is not None:
        lines.append(f"    occasion={model.occasions.label!r},")
        lines.append(f"    iov={dict(model.occasions.sds)!r},")
        if model.gamma != "diagonal":
            lines.append(f"    gamma={model.gamma!r},")
    return [*lines, f"    columns={columns!r},", ")"]


def _error(endpoints: Any) -> str:
    """Error model, or those of the endpoints."""
    calls = [_call(error) for error in endpoints.errors]
    if not endpoints.labels:
        return calls[0]
    pairs = (f"{label!r}: {call}" for label, call in zip(endpoints.labels, calls, strict=True))
    return f"{{{', '.join(pairs)}}}"


def _call(value: Any) -> str:
    """Constructor call of one of our dataclasses, without what is default."""
    parts = []
    for field in fields(value):
        given = getattr(value, field.name)
        default = field.default
        if default is MISSING and field.default_factory is not MISSING:
            default = field.default_factory()
        if default is MISSING:
            parts.append(repr(given))
        elif given != default:
            text = _call(given) if is_dataclass(given) else repr(given)
            parts.append(f"{field.name}={text}")
    return f"saem.{type(value).__name__}({', '.join(parts)})"


def _algorithm(results: Results) -> str:
    """Name of the algorithm, or its constructor with the settings that differ from default."""
    record = results.record
    if record.settings == describe(default_algorithm(results.model)):
        return repr("auto")
    default = {name: describe(kind()) for name, kind in _REGISTRY.items()}
    if record.settings in ({}, default.get(record.algorithm)):
        return repr(record.algorithm)
    return _expression(record.settings)


def _expression(value: Any) -> str:
    """Python expression for settings as `saem.fitting.describe` writes them."""
    if isinstance(value, list):
        inner = ", ".join(map(_expression, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if not isinstance(value, dict):
        return repr(value)
    kind = value["kind"]
    home = "saem" if hasattr(saem, kind) else "saem.schedules"
    default: dict[str, Any] = {}
    with contextlib.suppress(
        AttributeError, TypeError, SaemError
    ):  # a class of the user, or with no default
        default = describe(getattr(saem if home == "saem" else saem.schedules, kind)())
    settings = (
        f"{k}={_expression(v)}"
        for k, v in value.items()
        if k != "kind" and (k not in default or v != default[k])
    )
    return f"{home}.{kind}({', '.join(settings)})"
