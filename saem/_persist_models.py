"""Models as declarations from which they are built again; see `saem.persist`."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from saem._persist_tables import Arrays, pack_table, plain, unpack_table, unplain
from saem._persist_values import pack_value, unpack_value
from saem.contract import Model
from saem.exceptions import DataError, ModelError, SaemWarning

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.model import NLME
    from saem.nlme.structural import Structural

__all__ = ["pack_model", "unpack_model"]

Declaration = dict[str, Any]


def _class_of(kind: str) -> Any:
    """Class of the library's models with this name, or None."""
    if kind == "NLME":
        from saem.nlme.model import NLME

        return NLME
    import saem.models

    return getattr(saem.models, kind) if kind in saem.models.__all__ else None


def pack_model(model: Model, arrays: Arrays) -> Declaration:
    """Declare a model; its data are added to `arrays`."""
    kind = type(model).__name__
    own = type(model) is not _class_of(kind)
    if own and not hasattr(model, "persist"):
        raise ModelError(
            f"a model of type {kind} cannot be saved: it has no method `persist` (see "
            "saem.contract.Model). Remedy: write one, or keep results.theta, results.record and "
            "the data in a format of your own."
        )
    if not own and kind == "NLME":
        return {"kind": kind} | _pack_nlme(cast("NLME", model), arrays)
    state = pack_value(cast(Any, model).persist(), "model", arrays)
    return {"kind": kind, "state": state} | ({"own": True} if own else {})


def _known_class(declaration: Declaration, given: type | None) -> Any:
    """Class of a declaration: the library's, or the one given for a user's own."""
    kind = declaration["kind"]
    if declaration.get("own", False):
        if given is None:
            raise ModelError(
                f"the fit is of a model of a user's own, {kind!r}, and a file holds no code. "
                f"Remedy: load(path, model={kind})."
            )
        if not isinstance(given, type) or given.__name__ != kind:
            raise ModelError(f"model={given!r} was given, but the fit is of a {kind}.")
        return given
    if given is not None:
        raise ModelError(
            f"model={given!r} was given, but the file holds a {kind} of the library. Remedy: "
            "leave it out."
        )
    cls = _class_of(kind)
    if cls is None:
        raise DataError(f"the fit file holds a model of the unknown kind {kind!r}.")
    return cls


def unpack_model(
    declaration: Declaration, arrays: Arrays, structural: Any, own: type | None = None
) -> Any:
    """Build the model of a declaration; `own` is the class of a user's own."""
    kind, cls = declaration["kind"], _known_class(declaration, own)
    if structural is not None and kind != "NLME":
        raise ModelError(f"structural={structural!r} was given, but the file holds a {kind}.")
    with warnings.catch_warnings():
        # Said when the model was first made.
        warnings.simplefilter("ignore", SaemWarning)
        if kind == "NLME":
            return _unpack_nlme(declaration, arrays, structural)
        if "state" not in declaration:
            raise DataError(
                f"the fit file holds a {kind} in a form that no release of saem has written. "
                "Remedy: fit again and save."
            )
        state = unpack_value(declaration["state"], arrays)
        model = cls.rebuild(state) if hasattr(cls, "rebuild") else cls(**state)
        missing = sorted(set(model.persist()) - set(state))
        if missing:  # or a default would stand in for them
            raise KeyError(f"the state of the {kind} lacks {', '.join(missing)}")
        return model


# -- NLME --------------------------------------------------------------------------


def _pack_nlme(model: NLME, arrays: Arrays) -> Declaration:
    data = model.individuals
    structural, parameters = model.declared
    occasions = model.occasions
    return {
        "structural": _pack_structural(structural),
        "parameters": {name: _options(p) for name, p in parameters.items()},
        "occasions": None
        if occasions is None
        else {
            "occasion": plain(occasions.label),
            "iov": dict(occasions.sds),
            "gamma": plain(model.gamma),
        },
        "error": _pack_error(model),
        "omega": plain(model.omega),
        "priors": {name: _options(prior) for name, prior in model.priors.items()},
        "columns": [[name, plain(label)] for name, label in data.names.items()],
        "data": pack_table(_frame_of(model), "data", arrays),
    }


def _pack_structural(structural: Structural) -> Declaration:
    """Declare a structural model, and those of the endpoints it was merged of."""
    return {
        "name": structural.name,
        "library": not structural.scalar,
        "qualified_name": structural.qualified_name,
        "source": structural.source,
        "parameters": list(structural.param_names),
        "columns": list(structural.columns),
    } | ({"parts": [_pack_structural(p) for p in structural.parts]} if structural.parts else {})


def _pack_error(model: NLME) -> Declaration:
    """Declare the error model, or those of the endpoints by their labels."""
    endpoints = model.endpoints
    if not endpoints.labels:
        return _options(endpoints.errors[0])
    return {
        "class": "endpoints",
        "labels": [plain(label) for label in endpoints.labels],
        "errors": [_options(error) for error in endpoints.errors],
    }


def _unpack_error(declared: Mapping[str, Any]) -> Any:
    if declared["class"] != "endpoints":
        return _rebuilt("error_models", declared)
    errors = [_rebuilt("error_models", one) for one in declared["errors"]]
    return dict(zip(map(unplain, declared["labels"]), errors, strict=True))


def _options(value: Any) -> Declaration:
    """Class and fields of a parameter or error model."""
    return {"class": type(value).__name__} | {
        f.name: _plain_option(getattr(value, f.name)) for f in fields(value)
    }


def _plain_option(value: Any) -> Any:
    from saem.nlme.error_models import Shared

    return (
        {"shared": value.name, "start": value.start} if isinstance(value, Shared) else plain(value)
    )


def _frame_of(model: NLME) -> pd.DataFrame:
    """Rows as the constructor read them: in the user's order, with what it used."""
    import pandas as pd

    from saem.nlme._occasion_tables import row_labels
    from saem.nlme._rows import endpoint_labels
    from saem.nlme.occasions import COLUMN

    data, endpoints = model.individuals, endpoint_labels(model)
    owner = np.repeat(np.arange(data.n_individuals), data.n_obs)
    columns: dict[Hashable, Any] = {}
    for name, label in data.names.items():
        if name == "id":
            columns[label] = pd.Series(data.ids)[owner].to_numpy()
        elif name == COLUMN and model.occasions is not None:
            columns.setdefault(model.occasions.label, row_labels(model))
        elif name == "dvid" and endpoints is not None:
            columns[label] = pd.Series(endpoints).infer_objects().to_numpy()
        elif name == "dvid" and name not in data.columns:
            columns[label] = np.zeros(data.dv.size)  # one value, which nothing reads
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
    occasions = declaration.get("occasions") or {}
    return NLME(
        unpack_table(declaration["data"], arrays),
        structural=_structurals(declared, structural, declaration["error"]),
        parameters={n: _rebuilt("parameters", p) for n, p in declaration["parameters"].items()},
        error=_unpack_error(declaration["error"]),
        omega=declaration["omega"],
        columns={
            name: unplain(label)
            for name, label in declaration["columns"]
            if not (name == "occasion" and occasions)
        },
        **{name: unplain(value) for name, value in occasions.items()},
        priors={n: _rebuilt("priors", p) for n, p in declaration.get("priors", {}).items()},
    )


def _rebuilt(module: str, options: Mapping[str, Any]) -> Any:
    """Build a parameter or error model from its class and options."""
    from saem.nlme import error_models, parameters, priors

    home: Any = {"parameters": parameters, "error_models": error_models, "priors": priors}[module]
    values = {
        name: error_models.Shared(value["shared"], value["start"])
        if isinstance(value, Mapping) and "shared" in value
        else unplain(value)
        for name, value in options.items()
        if name not in ("class", "_")
    }
    if options["class"] not in home.__all__:
        raise DataError(f"the fit file holds a {options['class']!r}, which this saem lacks.")
    return getattr(home, options["class"])(**values)


def _structurals(declared: Mapping[str, Any], given: Any, error: Mapping[str, Any]) -> Any:
    """The structural model, or those of the endpoints; `given` are functions of the user."""
    if "parts" not in declared:
        return _structural(declared, given)
    labels = [unplain(label) for label in error["labels"]]
    if given is not None and not isinstance(given, Mapping):
        raise ModelError(
            f"structural={given!r} was given, but the fit has a structural model for each "
            f"endpoint. Remedy: a mapping with the keys {', '.join(map(repr, labels))}."
        )
    own = dict(given or {})
    return {
        label: _structural(part, own.get(label))
        for label, part in zip(labels, declared["parts"], strict=True)
    }


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
