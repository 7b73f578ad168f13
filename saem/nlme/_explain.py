"""Words of messages: nearest names, places in a user's code, why it cannot be compiled."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from saem.exceptions import nearest

__all__ = ["count", "did_you_mean", "explain_compile_error", "failing_line", "place_of"]

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_BOILERPLATE = re.compile(
    r"^(Failed in|During:|File |<source|There are|Enter|This error|To see|-+$|\^|def |\s|$)"
)
#: What the message contains, and what to do then; the first that fits is used.
_HINTS: tuple[tuple[str, str], ...] = (
    (
        r"Untyped global name|Cannot determine Numba type of <class 'function'>",
        "{name} cannot be compiled: write it with functions of math or numpy, decorate an own "
        "helper function with numba.njit, or pass data as a column",
    ),
    (r"NameError|undefined", "define {name} before the model is built, or correct its spelling"),
    (
        r"of type float64|getitem\(float64|setitem\(float64",
        "columns and parameters are single numbers here, one row at a time: leave out array "
        "operations and indexing",
    ),
    (
        r"has no attribute|Unknown attribute",
        "use a function that math or numpy has in compiled code (exp, log, sqrt, where, ...)",
    ),
    (
        r"exception_match|opcode|construct is not supported|with \(context|import",
        "leave out try, with, import, yield and comprehensions over dictionaries; arithmetic, "
        "if/else, loops and functions of math and numpy can be compiled",
    ),
    (
        r"unicode_type|Literal\[str\]|dict|DictType|reflected list|pyobject",
        "leave out strings, dictionaries and lists; use numbers, if/else and functions of math "
        "and numpy",
    ),
)
_GENERAL = "keep to arithmetic, if/else, loops and functions of math and numpy"


def count(n: int, noun: str) -> str:
    """Count with its noun: "1 row", "2 rows"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def did_you_mean(name: Any, candidates: Iterable[Any]) -> str:
    """Bracketed guess at what a misspelt name means; empty if nothing is near."""
    near = nearest(str(name), candidates)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def place_of(function: FunctionType, line: int | None = None) -> str:
    """File and line of a function, or of one of its lines."""
    code = function.__code__
    return f"{Path(code.co_filename).name}, line {line or code.co_firstlineno}"


def failing_line(error: BaseException, function: FunctionType) -> str:
    """Place and text of the user's line at which a plain Python call failed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename == function.__code__.co_filename]
    line = own[-1].lineno if own else None
    return place_of(function, line) + _quote(function.__code__.co_filename, line)


def explain_compile_error(error: BaseException, function: FunctionType) -> str:
    """Explain why numba could not compile a function.

    Parameters
    ----------
    error : Exception
        What numba raised.
    function : function
        The user's function.

    Returns
    -------
    str
        Reason, the user's line, and what to change.
    """
    text = _ANSI.sub("", str(error))
    line = _line_of(text, error, function)
    reason = _reason(text) or type(error).__name__
    remedy = next((hint for pattern, hint in _HINTS if re.search(pattern, text)), _GENERAL)
    name = _culprit(text)
    return (
        f"structural function {function.__name__!r} cannot be compiled: {reason}\n"
        f"  at {place_of(function, line)}{_quote(function.__code__.co_filename, line)}\n"
        f"  Remedy: {remedy.format(name=repr(name) if name else 'what this line calls')}."
    )


def _quote(filename: str, line: int | None) -> str:
    source = linecache.getline(filename, line).strip() if line else ""
    return f": {source}" if source else ""


def _reason(text: str) -> str:
    lines = [line.rstrip() for line in text.splitlines()]
    useful = [line for line in lines if not _BOILERPLATE.match(line)]
    if not useful:
        return ""
    first = useful[0].split(" Raised from")[0].rstrip(". ")
    attempt = next((line.strip(" >") for line in lines if line.strip().startswith(">>>")), "")
    return f"{first} {attempt}".strip() + "."


def _culprit(text: str) -> str | None:
    found = re.search(r"(?:global name|name|attribute|variable) '([^']+)'", text)
    return found.group(1) if found else None


def _lines_of(code: CodeType) -> set[int]:
    own = {line for _, _, line in code.co_lines() if line is not None}
    return own.union(*(_lines_of(c) for c in code.co_consts if isinstance(c, CodeType)))


def _line_of(text: str, error: BaseException, function: FunctionType) -> int:
    """Line of the user's file that a message points to; that of `def` if none."""
    code = function.__code__
    allowed = _lines_of(code)
    base = re.escape(Path(code.co_filename).name)
    pointed = re.findall(rf'{base}", line (\d+)', text) + re.findall(rf"{base} \((\d+)\)", text)
    loc = getattr(error, "loc", None)
    candidates = [int(n) for n in pointed] + ([loc.line] if loc is not None else [])
    inside = [n for n in candidates if n in allowed]
    deeper = [n for n in inside if n != code.co_firstlineno]
    if deeper:
        return deeper[0]
    name = _culprit(text)
    if name:  # a missing name or attribute, of which numba does not give the line
        pattern = re.compile(rf"\b{re.escape(name)}\b")
        for n in sorted(allowed):
            if pattern.search(linecache.getline(code.co_filename, n)):
                return n
    return inside[0] if inside else code.co_firstlineno
