"""Tables as plain arrays and JSON, for files that open without pickle.

A table becomes JSON that describes its columns, and one array for each. Kinds of
columns: ``plain`` (numbers, booleans), ``time`` (dates and spans, as int64),
``text``, ``category`` (codes, and its categories as a column of their own) and
``mixed`` (scalars of several types, in the JSON).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saem.exceptions import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["pack_table", "plain", "unpack_table", "unplain"]

Arrays = dict[str, NDArray[Any]]


def plain(value: Any) -> Any:
    """JSON for numbers, text, lists, mappings; floats that JSON lacks become ``{"float": ...}``.

    Tuples become lists; numpy scalars their Python value; anything else its `repr`.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    return repr(value)


def unplain(value: Any) -> Any:
    """Inverse of `plain`."""
    if isinstance(value, dict):
        if set(value) == {"float"} and isinstance(value["float"], str):
            return float(value["float"])
        return {key: unplain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unplain(item) for item in value]
    return value


def pack_table(frame: pd.DataFrame, prefix: str, arrays: Arrays) -> dict[str, Any]:
    """Describe a table; its arrays are added to `arrays` under names that begin with `prefix`.

    Raises
    ------
    saem.exceptions.DataError
        For a column whose values are neither numbers nor text nor dates.
    """
    columns = []
    for j, label in enumerate(frame.columns):
        packed = _pack_column(frame[label], f"{prefix}/{j}", arrays)
        columns.append({"label": _pack_label(label)} | packed)
    index = frame.index
    levels = [
        _pack_column(index.get_level_values(j).to_series(), f"{prefix}/index{j}", arrays)
        for j in range(index.nlevels)
    ]
    names = [None if name is None else _pack_label(name) for name in index.names]
    return {
        "columns": columns,
        "index": {"names": names, "levels": levels},
        "attrs": plain(frame.attrs),
    }


def unpack_table(
    description: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> pd.DataFrame:
    """Inverse of `pack_table`."""
    import pandas as pd

    index = description["index"]
    levels = [_unpack_column(level, arrays) for level in index["levels"]]
    names = [None if name is None else _unpack_label(name) for name in index["names"]]
    rows = (
        pd.Index(levels[0], name=names[0])
        if len(levels) == 1
        else pd.MultiIndex.from_arrays(levels, names=names)
    )
    columns = [_unpack_column(column, arrays) for column in description["columns"]]
    labels = [_unpack_label(column["label"]) for column in description["columns"]]
    frame = pd.DataFrame(dict(enumerate(columns)))
    frame.index = rows
    frame.columns = pd.Index(labels)
    frame.attrs = unplain(description["attrs"])
    return frame


def _pack_label(label: Hashable) -> Any:
    if isinstance(label, tuple):
        return {"tuple": [_pack_label(part) for part in label]}
    value = plain(label)
    if isinstance(value, str) and not isinstance(label, str | np.str_):
        raise DataError(
            f"column label {label!r} is a {type(label).__name__}, which a fit file cannot hold. "
            "Remedy: name columns by text or numbers."
        )
    return value


def _unpack_label(label: Any) -> Hashable:
    if isinstance(label, dict) and "tuple" in label:
        return tuple(_unpack_label(part) for part in label["tuple"])
    return unplain(label)


def _pack_column(series: pd.Series, name: str, arrays: Arrays) -> dict[str, Any]:
    import pandas as pd

    dtype = series.dtype
    found: dict[str, Any] = {"dtype": str(dtype), "array": name}
    if isinstance(dtype, pd.CategoricalDtype):
        arrays[name] = series.cat.codes.to_numpy()
        categories = _pack_column(dtype.categories.to_series(), f"{name}/categories", arrays)
        return found | {
            "kind": "category", "categories": categories, "ordered": bool(dtype.ordered),
        }  # fmt: skip
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        arrays[name] = series.to_numpy()
        return found | {"kind": "plain"}
    if isinstance(dtype, np.dtype) and dtype.kind in "mM":
        arrays[name] = series.to_numpy().view(np.int64)
        return found | {"kind": "time"}
    values = series.tolist()
    if all(isinstance(value, str) for value in values):
        arrays[name] = np.array(values, dtype=np.str_)
        return found | {"kind": "text"}
    for value in values:
        if not isinstance(value, bool | int | float | str | np.generic | None):
            raise DataError(
                f"column {series.name!r} holds {value!r} (a {type(value).__name__}), which a fit "
                "file cannot hold. Remedy: use numbers, text or categories."
            )
    return {"dtype": str(dtype), "kind": "mixed", "values": plain(values)}


def _unpack_column(column: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Any:
    import pandas as pd

    kind = column["kind"]
    if kind == "mixed":
        return pd.Series(unplain(column["values"]), dtype=column["dtype"])
    array = arrays[column["array"]]
    if kind == "category":
        categories = pd.Index(_unpack_column(column["categories"], arrays))
        return pd.Categorical.from_codes(array, categories=categories, ordered=column["ordered"])
    if kind == "time":
        return array.view(column["dtype"])
    if kind == "text":
        return pd.Series(array.tolist(), dtype=column["dtype"])
    return array
