"""Save and load fits: one portable file, readable without this library.

A fit file is a zip archive (any tool opens it) of

* ``fit.json``: UTF-8 JSON, described below;
* ``arrays/NAME.npy``: the arrays, in NumPy's own format, never pickled.

The JSON object has

==================  ==========================================================
``format``          ``"saem-fit"``
``format_version``  2; raised when an older reader could misread a newer file
``versions``        of ``saem``, ``numpy``, ``pandas``, ``python`` that wrote it
``model``           declaration from which the model is built again
``record``          the fields of `saem.record.FitRecord`
``arrays``          names of all arrays in the archive
==================  ==========================================================

``model["kind"]`` is ``"NLME"``, the name of a class of `saem.models`, or, where ``model["own"]``
is true, that of a user's own class.

* NLME: ``structural`` (library name, or name, module and source text of a user's
  function), ``parameters`` and ``error`` (class and options), ``omega``,
  ``columns`` and the data as a table.
* All others: ``state``, what the model's method ``persist()`` returns: its options, data and
  whatever else its functions and its start depend on. The classmethod ``rebuild(state)`` makes
  the model of it; a class without one is built by its constructor, ``cls(**state)``.

States and the record are written as `saem._persist_values` says, tables as
`saem._persist_tables` does. Numbers that JSON lacks are written ``{"float": "nan"}``, with
``inf`` and ``-inf`` likewise. Arrays of the record have the names of its fields, such as
``theta``; the course of the fit has ``history/k``, ``n_evals``, ``seconds``, ``gamma``,
``loglik``, ``params``.

Version 1, which no release has written, named the options of two models otherwise; of it only
NLME is read.

A user's function is not stored as code: its text is, and the function itself is
given again to `load`; so is the class of a user's own model. Loading never runs code from a file.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saem._persist_models import pack_model, unpack_model
from saem._persist_tables import Arrays, plain, unplain
from saem.exceptions import DataError, SaemError
from saem.record import FitRecord, Trace

if TYPE_CHECKING:
    from saem.contract import Model
    from saem.results import Results

__all__ = ["FORMAT_VERSION", "load", "save"]

FORMAT = "saem-fit"
FORMAT_VERSION = 2

#: Date of all members, so that the same fit gives the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def save(results: Results, path: str | os.PathLike[str]) -> None:
    """Write a fit with its model and data to one file.

    Parameters
    ----------
    results : Results
    path : str or path-like
        Such as ``"theophylline.saem"``. An existing file is replaced, once the new one is
        complete.

    Raises
    ------
    saem.exceptions.ModelError, saem.exceptions.DataError
        If the model has no method `persist` (`saem.contract.Model`), or what it returns holds
        what is neither number nor text nor date.
    """
    import pandas as pd

    arrays: Arrays = {}
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {
            "saem": results.record.version,
            "numpy": np.__version__,
            "pandas": pd.__version__,
            "python": platform.python_version(),
        },
        "model": pack_model(results.model, arrays),
        "record": _pack_record(results.record, arrays),
        "arrays": sorted(arrays),
    }
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1)
            _write(archive, "fit.json", text.encode())
            for name in sorted(arrays):
                stream = io.BytesIO()
                np.lib.format.write_array(stream, np.asarray(arrays[name]), allow_pickle=False)
                _write(archive, f"arrays/{name}.npy", stream.getvalue())
        os.replace(partial, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, date_time=_DATE)
    member.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(member, content, compresslevel=1)


def load(
    path: str | os.PathLike[str], structural: Any = None, *, model: type[Model] | None = None
) -> Any:
    """Read a fit that `save` wrote.

    Parameters
    ----------
    path : str or path-like
    structural : callable, optional
        The structural model's function, for an NLME fitted with a user's own.
    model : type, optional
        The class of the model, for a model of a user's own.

    Returns
    -------
    Results
        They answer everything that the results saved did, with the same numbers.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    saem.exceptions.DataError
        If the file is not a fit, is damaged, or was written by a newer format.
    saem.exceptions.ModelError
        If a function or a class is needed and not given, or is not that of the fit.

    Warns
    -----
    SaemWarning
        If the function given has another text than the one fitted.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = _read_content(archive, path)
            arrays = _Arrays(archive, content["arrays"])
            rebuilt = unpack_model(content["model"], arrays, structural, model)
            record = _unpack_record(content["record"], arrays)
    except (FileNotFoundError, IsADirectoryError, PermissionError, SaemError):
        raise
    except zipfile.BadZipFile as error:
        raise DataError(_not_a_fit(path, "it is no zip archive, or cut short")) from error
    except (KeyError, ValueError, TypeError, EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"the fit file {os.fspath(path)!r} is damaged: {error}. Remedy: save the fit again."
        ) from error
    if record.theta.shape != (rebuilt.theta_spec.size,):
        raise DataError(
            f"the fit file {os.fspath(path)!r} is damaged: its model has {rebuilt.theta_spec.size} "
            f"packed parameters, and the record {record.theta.size}."
        )
    return rebuilt.results(record)


def _not_a_fit(path: str | os.PathLike[str], why: str) -> str:
    return f"{os.fspath(path)!r} is not a fit file: {why}. Remedy: use a file that save() wrote."


def _read_content(archive: zipfile.ZipFile, path: str | os.PathLike[str]) -> dict[str, Any]:
    if "fit.json" not in archive.namelist():
        raise DataError(_not_a_fit(path, "it has no member fit.json"))
    try:
        content = json.loads(archive.read("fit.json"))
    except ValueError as error:
        raise DataError(_not_a_fit(path, f"fit.json cannot be read ({error})")) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(_not_a_fit(path, f"its fit.json does not say format {FORMAT!r}"))
    version = content.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        by = content.get("versions", {}).get("saem", "unknown")
        raise DataError(
            f"{os.fspath(path)!r} has format version {version!r} (written by saem {by}), but this "
            f"saem reads versions 1 to {FORMAT_VERSION}. Remedy: upgrade saem."
        )
    return content


class _Arrays(dict[str, Any]):
    """Arrays of an archive, read when asked for."""

    def __init__(self, archive: zipfile.ZipFile, names: list[str]) -> None:
        super().__init__()
        self.archive, self.names = archive, set(names)

    def __missing__(self, name: str) -> Any:
        if name not in self.names:
            raise KeyError(f"array {name!r} is missing")
        # Through BytesIO, since numpy reads a zip member in many small pieces.
        stream = io.BytesIO(self.archive.read(f"arrays/{name}.npy"))
        array = np.lib.format.read_array(stream, allow_pickle=False)
        self[name] = array
        return array


def _pack_record(record: FitRecord, arrays: Arrays) -> dict[str, Any]:
    packed: dict[str, Any] = {}
    for field in fields(FitRecord):
        value = getattr(record, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = value
        elif value is not None and field.name != "history":
            packed[field.name] = plain(value)
    for field in fields(Trace):
        arrays[f"history/{field.name}"] = np.array(getattr(record.history, field.name), dtype=float)
    params = arrays["history/params"]
    arrays["history/params"] = params.reshape(-1, len(record.param_names))
    return packed


def _unpack_record(values: dict[str, Any], arrays: _Arrays) -> FitRecord:
    # Fields that neither stand in the JSON nor among the arrays have their defaults.
    found = {name: unplain(value) for name, value in values.items()}
    found |= {f.name: arrays[f.name] for f in fields(FitRecord) if f.name in arrays.names}
    course = {f.name: arrays[f"history/{f.name}"] for f in fields(Trace)}
    params = list(course.pop("params"))
    history = Trace(**{name: array.tolist() for name, array in course.items()}, params=params)
    return FitRecord(**found, history=history)
