"""Options, parameters and data of models as JSON and plain arrays.

What JSON has no form for is an object with one key: ``{"$array": name}`` (an array of the
archive), ``{"$tuple": [...]}``, ``{"$items": [[key, value], ...]}`` (a mapping whose keys are
not all text), ``{"$table": ...}`` (see `saem._persist_tables`), ``{"float": "nan"}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from saem._persist_tables import Arrays, pack_table, plain, unpack_table, unplain
from saem.exceptions import DataError

__all__ = ["pack_value", "unpack_value"]

_SCALARS = (bool, int, float, str, np.generic, type(None))
#: Kinds of arrays that open without pickle: booleans, numbers, text.
_KINDS = "biufU"


def pack_value(value: Any, name: str, arrays: Arrays) -> Any:
    """Describe a value by JSON; its arrays are added to `arrays`.

    Parameters
    ----------
    value : scalar, array, DataFrame, or list, tuple or mapping of such
    name : str
        Where it stands; names of its arrays begin with it.
    arrays : dict

    Raises
    ------
    saem.exceptions.DataError
        For a value of another type.
    """
    if isinstance(value, _SCALARS):
        return plain(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in _KINDS:
        arrays[name] = np.ascontiguousarray(value).reshape(value.shape)
        return {"$array": name}
    if isinstance(value, list):
        return _pack_all(value, name, arrays)
    if isinstance(value, tuple):
        return {"$tuple": _pack_all(value, name, arrays)}
    if isinstance(value, Mapping):
        items = [
            (key, pack_value(item, f"{name}/{_part(key, i)}", arrays))
            for i, (key, item) in enumerate(value.items())
        ]
        if all(isinstance(key, str) and key != "float" and key[:1] != "$" for key, _ in items):
            return dict(items)
        return {"$items": [[pack_value(key, f"{name}/key", arrays), item] for key, item in items]}
    if hasattr(value, "columns") and hasattr(value, "dtypes"):
        return {"$table": pack_table(value, name, arrays)}
    raise DataError(
        f"{name} holds {value!r} (a {type(value).__name__}), which a fit file cannot hold. "
        "Remedy: use numbers, text or categories."
    )


def _part(key: Any, position: int) -> str:
    """Part of a member's name for a key: the key where it is safe as a file name."""
    safe = isinstance(key, str) and key.isascii() and key.isidentifier()
    return key if safe else str(position)


def _pack_all(values: Any, name: str, arrays: Arrays) -> list[Any]:
    return [pack_value(value, f"{name}/{i}", arrays) for i, value in enumerate(values)]


def unpack_value(description: Any, arrays: Mapping[str, Any]) -> Any:
    """Inverse of `pack_value`."""
    if isinstance(description, list):
        return [unpack_value(item, arrays) for item in description]
    if not isinstance(description, dict):
        return description
    if len(description) == 1:
        tag, content = next(iter(description.items()))
        if tag in _TAGS:
            return _TAGS[tag](content, arrays)
    return {key: unpack_value(item, arrays) for key, item in description.items()}


_TAGS: dict[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "float": lambda content, _: unplain({"float": content}),
    "$array": lambda content, arrays: arrays[content],
    "$table": unpack_table,
    "$tuple": lambda content, arrays: tuple(unpack_value(content, arrays)),
    "$items": lambda content, arrays: {
        unpack_value(key, arrays): unpack_value(item, arrays) for key, item in content
    },
}
