"""Structural models of several endpoints, merged into one compiled function.

Each endpoint keeps its own model; parameters and columns of the same name are the same. The rows
of an individual come sorted by endpoint, so that the merged function calls each model once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba.core import config

from saem._jit import compiled as as_compiled
from saem._types import STRUCTURAL
from saem.exceptions import ModelError, Problems
from saem.nlme.endpoints import DVID

if TYPE_CHECKING:
    from saem.nlme.endpoints import Endpoints
    from saem.nlme.structural import Structural

__all__ = ["merge_structurals"]


def merge_structurals(spec: Mapping[Any, Any], endpoints: Endpoints | None) -> Structural:
    """One structural model of those of the endpoints.

    Parameters
    ----------
    spec : mapping of label to str, callable or Structural
    endpoints : Endpoints
        With the same labels.

    Returns
    -------
    Structural
        Its columns are those of all models and ``dvid``.

    Raises
    ------
    ModelError
        If the labels differ from those of the error models, or the models contradict each other.
    """
    from saem.nlme.structural import Structural, resolve_structural

    labels = endpoints.labels if endpoints is not None else ()
    problems = Problems("the structural models of the endpoints")
    if not labels:
        problems.add(
            "structural is a mapping, but error is not",
            remedy="give an error model for each endpoint too: error={"
            + ", ".join(f"{label!r}: ..." for label in spec)
            + "}",
        )
    for label in labels:
        if label not in spec:
            problems.add(
                f"endpoint {label!r} has an error model, but no structural model",
                remedy="use the same keys in structural and error",
            )
    for label in spec if labels else ():
        if label not in labels:
            problems.add(
                f"endpoint {label!r} has a structural model, but no error model",
                remedy="use the same keys in structural and error",
            )
    problems.raise_if_any(ModelError)
    assert endpoints is not None
    parts = [resolve_structural(spec[label]) for label in labels]
    params = tuple(dict.fromkeys(name for part in parts for name in part.param_names))
    columns = tuple(dict.fromkeys(name for part in parts for name in part.columns))
    columns = (*(c for c in columns if c != DVID), DVID)
    defaults = _defaults(parts, problems)
    problems.raise_if_any(ModelError)
    compiled = _by_endpoint(parts, params, columns, endpoints.column_values.tolist())
    scalar = all(part.scalar for part in parts)
    titles = [endpoints.label_of(e) for e in range(endpoints.number)]
    return Structural(
        name=", ".join(f"{t}: {part.name}" for t, part in zip(titles, parts, strict=True)),
        param_names=params,
        columns=columns,
        compiled=compiled,
        source=_source(titles, parts),
        qualified_name=", ".join(part.qualified_name for part in parts),
        function=_in_python(parts, params, endpoints.column_values.tolist())
        if scalar
        else compiled,
        defaults=defaults,
        scalar=scalar,
        parts=tuple(parts),
    )


def _defaults(parts: Sequence[Structural], problems: Problems) -> dict[str, float]:
    """Constants for columns that no model needs; one that differs is a problem."""
    found: dict[str, float] = {}
    for part in parts:
        for name, value in part.defaults.items():
            if found.setdefault(name, value) != value:
                problems.add(
                    f"column {name!r} has the defaults {found[name]:g} and {value:g}",
                    remedy="give one default, or another name",
                )
    needed = {c for part in parts for c in part.columns if c not in part.defaults}
    return {name: value for name, value in found.items() if name not in needed}


def _source(titles: Sequence[str], parts: Sequence[Structural]) -> str | None:
    """Texts of all models, each under its endpoint."""
    if any(part.source is None for part in parts):
        return None
    return "\n".join(
        f"# {title}\n{str(part.source).rstrip()}" for title, part in zip(titles, parts, strict=True)
    )


def _in_python(
    parts: Sequence[Structural], params: tuple[str, ...], values: Sequence[float]
) -> Any:
    """Predict one row by the user's own functions; for messages about it."""

    def function(*psi: float, **columns: float) -> Any:
        part = parts[list(values).index(columns[DVID])]
        own = dict(zip(params, psi, strict=False))
        return part.function(
            *(own[name] for name in part.param_names), **{c: columns[c] for c in part.columns}
        )

    return function


def _by_endpoint(
    parts: Sequence[Structural],
    params: tuple[str, ...],
    columns: tuple[str, ...],
    values: Sequence[float],
) -> Any:
    """Write and compile the loop over runs of rows of one endpoint."""
    at = columns.index(DVID)
    lines = [
        "def structural(psi, columns, out):",
        "    start = 0",
        "    while start < out.size:",
        f"        label = columns[{at}, start]",
        "        stop = start + 1",
        f"        while stop < out.size and columns[{at}, stop] == label:",
        "            stop += 1",
        "        out[start:stop] = np.nan",
    ]
    for e, (part, value) in enumerate(zip(parts, values, strict=True)):
        lines += [
            f"        if label == {value!r}:",
            f"            own = np.empty({len(part.param_names)})",
            f"            rows = np.empty(({len(part.columns)}, stop - start))",
        ]
        for i, name in enumerate(part.param_names):
            lines.append(f"            own[{i}] = psi[{params.index(name)}]")
        for i, name in enumerate(part.columns):
            lines.append("            for j in range(stop - start):")
            lines.append(
                f"                rows[{i}, j] = columns[{columns.index(name)}, start + j]"
            )
        lines.append(f"            f{e}(own, rows, out[start:stop])")
    lines.append("        start = stop")
    scope: dict[str, Any] = {"np": np}
    scope |= {f"f{e}": as_compiled(part.compiled) for e, part in enumerate(parts)}
    exec("\n".join(lines), scope)
    if config.DISABLE_JIT:
        return scope["structural"]
    loop = numba.njit(nogil=True, error_model="numpy")(scope["structural"])
    loop.compile(STRUCTURAL)
    loop.disable_compile()
    return loop
