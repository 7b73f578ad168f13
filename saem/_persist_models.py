"""Models as declarations that their constructors understand; see `saem.persist`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from saem._persist_tables import Arrays, pack_table, plain, unpack_table, unplain
from saem.contract import Model
from saem.exceptions import DataError, ModelError, SaemWarning

if TYPE_CHECKING:
    import pandas as pd

    from saem.models.gaussian_mixture import GaussianMixture
    from saem.models.linear_mixed import LinearMixed
    from saem.nlme.data import Individuals
    from saem.nlme.model import NLME
    from saem.nlme.structural import Structural

__all__ = ["pack_model", "unpack_model"]

Declaration = dict[str, Any]


def pack_model(model: Model, arrays: Arrays) -> Declaration:
    """Declare a model; its data are added to `arrays`."""
    kind = type(model).__name__
    if kind not in _KINDS or not type(model).__module__.startswith("saem."):
        raise ModelError(
            f"a model of type {kind} cannot be saved, only {', '.join(_KINDS)}. Remedy: keep "
            "results.theta, results.record and the data in a format of your own."
        )
    return {"kind": kind} | _KINDS[kind][0](model, arrays)


def unpack_model(declaration: Declaration, arrays: Arrays, structural: Any) -> Any:
    """Build the model of a declaration."""
    kind = declaration["kind"]
    if kind not in _KINDS:
        raise DataError(f"the fit file holds a model of the unknown kind {kind!r}.")
    if structural is not None and kind != "NLME":
        raise ModelError(f"structural={structural!r} was given, but the file holds a {kind}.")
    with warnings.catch_warnings():
        # Said when the model was first made.
        warnings.simplefilter("ignore", SaemWarning)
        return _KINDS[kind][1](declaration, arrays, structural)


# -- NLME --------------------------------------------------------------------------


def _pack_nlme(model: NLME, arrays: Arrays) -> Declaration:
    data = model.individuals
    structural = model.structural
    return {
        "structural": {
            "name": structural.name,
            "library": not structural.scalar,
            "qualified_name": structural.qualified_name,
            "source": structural.source,
            "parameters": list(structural.param_names),
            "columns": list(structural.columns),
        },
        "parameters": {name: _options(p) for name, p in model.parameters.items()},
        "error": _options(model.error),
        "omega": plain(model.omega),
        "columns": [[name, plain(label)] for name, label in data.names.items()],
        "data": pack_table(_frame_of(data), "data", arrays),
    }


def _options(value: Any) -> Declaration:
    """Class and fields of a parameter or error model."""
    return {"class": type(value).__name__} | {
        f.name: plain(getattr(value, f.name)) for f in fields(value)
    }


def _frame_of(data: Individuals) -> pd.DataFrame:
    """Rows as the constructor read them: in the user's order, with what it used."""
    import pandas as pd

    owner = np.repeat(np.arange(data.n_individuals), data.n_obs)
    columns: dict[Hashable, Any] = {}
    for name, label in data.names.items():
        if name == "id":
            columns[label] = pd.Series(data.ids)[owner].to_numpy()
        else:
            columns[label] = data.dv if name == "dv" else data.columns[name]
    frame = pd.DataFrame(dict(enumerate(columns.values())))
    frame.columns = pd.Index(list(columns), dtype=object)
    # In the type that the formulas saw: a level keeps its name.
    for label in data.subjects.columns:
        frame[label] = data.subjects[label].iloc[owner].reset_index(drop=True)
    frame.index = data.row_labels
    frame = frame.iloc[np.argsort(data.source_row, kind="stable")]
    frame.attrs = dict(data.subjects.attrs)
    return frame


def _unpack_nlme(declaration: Declaration, arrays: Arrays, structural: Any) -> Any:
    from saem.nlme.model import NLME

    declared = declaration["structural"]
    return NLME(
        unpack_table(declaration["data"], arrays),
        structural=_structural(declared, structural),
        parameters={n: _rebuilt("parameters", p) for n, p in declaration["parameters"].items()},
        error=_rebuilt("error_models", declaration["error"]),
        omega=declaration["omega"],
        columns={name: unplain(label) for name, label in declaration["columns"]},
    )


def _rebuilt(module: str, options: Mapping[str, Any]) -> Any:
    """Build a parameter or error model from its class and options."""
    from saem.nlme import error_models, parameters

    home = {"parameters": parameters, "error_models": error_models}[module]
    values = {name: unplain(value) for name, value in options.items() if name not in ("class", "_")}
    if options["class"] not in home.__all__:
        raise DataError(f"the fit file holds a {options['class']!r}, which this saem lacks.")
    return getattr(home, options["class"])(**values)


def _structural(declared: Mapping[str, Any], given: Any) -> str | Structural:
    from saem.nlme.structural import resolve_structural

    if declared["library"] and given is None:
        return str(declared["name"])
    source = declared["source"]
    shown = f" Its text was:\n\n{source}" if source else ""
    if given is None:
        raise ModelError(
            f"the fit used the function {declared['qualified_name']!r} as structural model, and a "
            f"file holds no code. Remedy: load(path, structural={declared['name']}).{shown}"
        )
    found = resolve_structural(given)
    wanted = declared["parameters"], declared["columns"]
    if (list(found.param_names), list(found.columns)) != wanted:
        raise ModelError(
            f"structural={found.name!r} has parameters {', '.join(found.param_names)} and columns "
            f"{', '.join(found.columns)}, but the fit used {', '.join(wanted[0])} and "
            f"{', '.join(wanted[1])}. Remedy: give the function of the fit.{shown}"
        )
    if source and found.source and found.source.strip() != source.strip():
        with warnings.catch_warnings():
            warnings.simplefilter("always", SaemWarning)
            warnings.warn(
                f"structural={found.name!r} has another text than the function of the fit; if it "
                f"predicts otherwise, nothing here holds.{shown}",
                SaemWarning,
                stacklevel=6,
            )
    return found


# -- others ------------------------------------------------------------------------


def _pack_mixture(model: GaussianMixture, arrays: Arrays) -> Declaration:
    arrays["data"] = model.values.reshape(-1, model.n_features)
    arrays["shift"] = model.shift
    given = None if model._given is None else model.components(model._given)
    return {
        "n_components": model.n_components,
        "covariance_type": model.covariance_type,
        "reg_covar": model.reg_covar,
        "init": model.init if given is None else plain(given),
        "feature_names": list(model.feature_names),
    }


def _unpack_mixture(declaration: Declaration, arrays: Arrays, _: Any) -> Any:
    import pandas as pd

    from saem.models.gaussian_mixture import GaussianMixture

    init = unplain(declaration["init"])
    values, shift = arrays["data"], arrays["shift"]
    model = GaussianMixture(
        pd.DataFrame(
            values + shift if shift.any() else values, columns=declaration["feature_names"]
        ),
        declaration["n_components"],
        covariance_type=declaration["covariance_type"],
        init=init if isinstance(init, str) else {k: np.array(v) for k, v in init.items()},
        reg_covar=declaration["reg_covar"],
    )
    # The bits of the fit: centring again would round again.
    model.values, model.shift = np.ascontiguousarray(values).ravel(), shift
    return model


def _pack_linear_mixed(model: LinearMixed, arrays: Arrays) -> Declaration:
    return {
        "formula": model.formula,
        "groups": model.groups,
        "re_formula": model.re_formula,
        "data": pack_table(model.frame[_used(model)], "data", arrays),
    }


def _used(model: LinearMixed) -> list[str]:
    """Columns of the frame that the formulas and the grouping need."""
    from formulaic import Formula

    formulas = [text for text in (model.formula, model.re_formula) if text is not None]
    needed = {str(v) for text in formulas for v in Formula(text).required_variables}
    return [c for c in model.frame.columns if c in needed | {model.groups}]


def _unpack_linear_mixed(declaration: Declaration, arrays: Arrays, _: Any) -> Any:
    from saem.models.linear_mixed import LinearMixed

    return LinearMixed(
        unpack_table(declaration["data"], arrays),
        declaration["formula"],
        declaration["groups"],
        declaration["re_formula"],
    )


_KINDS: dict[str, tuple[Callable[..., Declaration], Callable[..., Any]]] = {
    "NLME": (_pack_nlme, _unpack_nlme),
    "GaussianMixture": (_pack_mixture, _unpack_mixture),
    "LinearMixed": (_pack_linear_mixed, _unpack_linear_mixed),
}
