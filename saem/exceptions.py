"""Errors and warnings of the library, and the form of their messages.

Every problem says what was given, where it stands (row, id, column), the rule
it breaks and the remedy. Checks gather all problems in a `Problems` list and
raise once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = [
    "BoundaryWarning",
    "ConvergenceWarning",
    "DataError",
    "FitError",
    "ModelError",
    "OptionError",
    "Problems",
    "SaemError",
    "SaemWarning",
    "nearest",
]


class SaemError(Exception):
    """Base of every error the library raises on purpose."""


class DataError(SaemError, ValueError):
    """The data break a rule: a column, a value, a row."""


class ModelError(SaemError, ValueError):
    """The model is not well defined: a parameter, a formula, a structural function."""


class OptionError(SaemError, ValueError):
    """An option or a name is not one of those allowed."""


class FitError(SaemError, RuntimeError):
    """A computation failed on the way; what was reached is kept where possible."""


class SaemWarning(UserWarning):
    """Base of every warning of the library."""


class ConvergenceWarning(SaemWarning, RuntimeWarning):
    """A fit ended without evidence that it converged."""


class BoundaryWarning(SaemWarning, RuntimeWarning):
    """An estimate lies on the boundary of its range, where standard errors do not hold."""


def nearest(name: str, candidates: Iterable[Any], n: int = 3) -> list[str]:
    """Names closest in spelling, for "did you mean"; case is ignored.

    Parameters
    ----------
    name : str
    candidates : iterable
        Known names.
    n : int
        At most so many.

    Returns
    -------
    list of str
    """
    known = [str(c) for c in candidates]
    folded = {k.casefold(): k for k in reversed(known)}
    close = difflib.get_close_matches(str(name).casefold(), list(folded), n=n, cutoff=0.5)
    return [folded[c] for c in close]


class Problems:
    """Problems found by a check, raised together.

    Parameters
    ----------
    owner : str
        What is checked, such as ``"the data"``.

    Examples
    --------
    >>> problems = Problems("the data")
    >>> problems.add("column 'dv' is missing", remedy="name it in columns={'dv': ...}")
    >>> problems.raise_if_any(DataError)
    Traceback (most recent call last):
    saem.exceptions.DataError: 1 problem with the data:
      1. column 'dv' is missing. Remedy: name it in columns={'dv': ...}.
    """

    #: How many problems are spelt out before the rest is only counted.
    LIMIT = 20

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.items: list[str] = []

    def add(self, text: str, *, remedy: str | None = None) -> None:
        """Add one problem: what, where, the rule; and what to do about it."""
        message = text.rstrip(".") + "."
        if remedy:
            message += f" Remedy: {remedy.rstrip('.')}."
        if message not in self.items:
            self.items.append(message)

    def __bool__(self) -> bool:
        return bool(self.items)

    def message(self) -> str:
        """All problems, numbered."""
        count = len(self.items)
        lines = [f"{count} problem{'s' if count > 1 else ''} with {self.owner}:"]
        lines += [f"  {n}. {item}" for n, item in enumerate(self.items[: self.LIMIT], 1)]
        if count > self.LIMIT:
            lines.append(f"  ... and {count - self.LIMIT} more of the same kinds.")
        return "\n".join(lines)

    def raise_if_any(self, error: type[SaemError]) -> None:
        """Raise `error` with all problems, if there are any."""
        if self.items:
            raise error(self.message())
