"""Reading the shipped CSV files."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from ..exceptions import OptionError, nearest
from ._catalogue import CATALOGUE

if TYPE_CHECKING:
    import pandas as pd


def load(name: str) -> pd.DataFrame:
    """Load a data set as a frame that knows where it comes from.

    Parameters
    ----------
    name : str
        One of the names that :func:`saem.datasets.list` shows.

    Returns
    -------
    pandas.DataFrame
        A fresh copy. Its ``attrs`` hold ``name``, ``title``, ``description``, ``source``,
        ``licence``, ``units`` (column to unit) and ``columns`` (column to meaning); for
        simulated sets also ``truth`` (parameter to value).

    Raises
    ------
    saem.exceptions.OptionError
        If there is no data set of that name.

    Examples
    --------
    >>> import saem
    >>> saem.datasets.load("orange").columns.tolist()
    ['Tree', 'age', 'circumference']
    """
    if not isinstance(name, str) or name not in CATALOGUE:
        raise OptionError(_unknown(name))
    import pandas as pd

    entry = CATALOGUE[name]
    with files(__package__).joinpath(f"{name}.csv").open(encoding="utf-8") as file:
        frame = pd.read_csv(file)
    frame.attrs.update(
        name=name,
        title=entry.title,
        description=entry.description,
        source=entry.source,
        licence=entry.licence,
        units={column: unit for column, (unit, _) in entry.columns.items()},
        columns={column: meaning for column, (_, meaning) in entry.columns.items()},
    )
    if entry.truth is not None:
        frame.attrs["truth"] = dict(entry.truth)
    return frame


def list_datasets() -> pd.DataFrame:
    """List the data sets.

    Returns
    -------
    pandas.DataFrame
        One row a data set: ``name``, ``rows``, ``individuals`` (each row is one where there is
        no grouping) and ``title``.

    Examples
    --------
    >>> import saem
    >>> saem.datasets.list()["name"].tolist()[:2]
    ['theophylline', 'orange']
    """
    import pandas as pd

    rows = []
    for name, entry in CATALOGUE.items():
        frame = load(name)
        n_individuals = len(frame) if entry.id is None else frame[entry.id].nunique()
        rows.append((name, len(frame), n_individuals, entry.title))
    return pd.DataFrame(rows, columns=["name", "rows", "individuals", "title"])


def _unknown(name: object) -> str:
    near = nearest(str(name), CATALOGUE)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return f"load: there is no data set {name!r}; {hint}available: {', '.join(CATALOGUE)}"
