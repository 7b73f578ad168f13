"""What a command line gives, turned into a table and a model; one clear error if it cannot be."""

from __future__ import annotations

import csv
import importlib.util
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saem.exceptions import DataError, ModelError, nearest

if TYPE_CHECKING:
    import argparse

    import pandas as pd

    from saem.nlme.model import NLME
    from saem.nlme.parameters import Parameter
    from saem.nlme.structural import Structural

__all__ = ["UsageError", "build_model", "read_table"]

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_DECIMAL_COMMA = re.compile(r"(?:^|;)\s*-?\d+,\d+\s*(?:;|$)", re.MULTILINE)
_DISTRIBUTIONS = "lognormal, normal, logit:LOW:HIGH, probit:LOW:HIGH"


class UsageError(Exception):
    """The command line itself is wrong: the shell gets exit code 2."""


def read_table(path: str) -> tuple[pd.DataFrame, str]:
    """Read a text table whose first line names the columns.

    Commas, semicolons, tabs, bars and blanks are recognised as separators, decimal
    commas in files with semicolons, and ``.`` as a missing value.

    Parameters
    ----------
    path : str
        The file.

    Returns
    -------
    frame : pandas.DataFrame
    expression : str
        Python expression that reads the same frame.

    Raises
    ------
    saem.exceptions.DataError
        If there is no such file, it is no text, has no lines, or its rows do not
        fit its first line.
    """
    import pandas as pd

    text, encoding = _text_of(Path(path))
    separator = _separator(text)
    settings: dict[str, Any] = {"sep": separator, "encoding": encoding, "na_values": ["."]}
    if separator == ";" and _DECIMAL_COMMA.search(text):
        settings["decimal"] = ","
    usual = {"sep": ",", "encoding": "utf-8"}
    shown = "".join(f", {k}={v!r}" for k, v in settings.items() if usual.get(k) != v)
    try:
        with warnings.catch_warnings():
            # Rows longer than the first line would lose their end, with a warning only.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(path, index_col=False, skipinitialspace=True, **settings)
        return frame, f"pd.read_csv({path!r}{shown}, index_col=False, skipinitialspace=True)"
    except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError) as error:
        kind = _SEPARATORS.get(separator, "blank")
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{path} cannot be read as a table separated by {kind}s: {reason}. Remedy: every row "
            "needs as many fields as the first line, which names the columns."
        ) from error


def _text_of(path: Path) -> tuple[str, str]:
    """Text of a file and its encoding, or the reason why there is none."""
    if not path.exists():
        folder = path.parent
        names = [p.name for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
        near = nearest(path.name, names)
        hint = f" Did you mean {' or '.join(str(folder / n) for n in near)}?" if near else ""
        raise DataError(f"there is no file {path}.{hint}")
    if path.is_dir():
        raise DataError(f"{path} is a folder. Remedy: name the file with the table.")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if raw[:4] == b"PK\x03\x04" or raw[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        raise DataError(
            f"{path} is a workbook or an archive, not a text table. Remedy: save it as CSV."
        )
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    encoding = "utf-8-sig" if raw[:3] == b"\xef\xbb\xbf" else encoding
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        encoding = "latin-1"  # any byte is a character there
        text = raw.decode(encoding)
    strange = sum(c < " " and c not in "\t\r\n\f" for c in text[:4096])
    if "\0" in text or strange > 4:
        raise DataError(f"{path} is a binary file, not a text table. Remedy: save it as CSV.")
    if not text.strip():
        raise DataError(f"{path} is empty. Remedy: check how it was written.")
    return text, encoding


def _separator(text: str) -> str:
    """Separator that the first line uses most, outside quotes."""
    first = next(line for line in text.splitlines() if line.strip())
    bare = re.sub(r'"[^"]*"', "", first)
    counts = {sep: bare.count(sep) for sep in _SEPARATORS}
    best = max(counts, key=lambda sep: counts[sep])
    if counts[best]:
        return best
    return r"\s+" if len(bare.split()) > 1 else ","


def build_model(options: argparse.Namespace) -> tuple[NLME, str]:
    """Read the file of ``saem fit`` and build its model.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed options of the command.

    Returns
    -------
    model : NLME
    expression : str
        Python expression that reads its data.

    Raises
    ------
    UsageError
        For options that contradict themselves or miss a value.
    saem.exceptions.SaemError
        For problems of the file, the data or the model.
    """
    from saem.nlme.structural import resolve_structural

    frame, expression = read_table(options.file)
    structural = resolve_structural(_structural(options.model))
    parameters = _parameters(options, structural)
    columns = _columns(options, structural)

    from saem.nlme.model import NLME

    model = NLME(
        frame,
        structural=structural,
        parameters=parameters,
        error=_errors(options.error or ["constant"], frame, columns.get("dvid")),
        omega=_omega(options.omega),
        columns=columns,
        **_occasions(options),
    )
    return model, expression


def _occasions(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of inter-occasion variability."""
    if options.occasion is None and options.iov is None:
        if options.gamma != "diagonal":
            raise UsageError("--gamma: needs --occasion and --iov")
        return {}
    iov: Any = options.iov
    if iov is not None and any("=" in item for item in iov):
        given = pairs(iov, "--iov")
        iov = {name: _number(value, f"--iov {name}") for name, value in given.items()}
    return {"occasion": options.occasion, "iov": iov, "gamma": _omega(options.gamma)}


def _structural(text: str) -> Any:
    """A library name, or the function of ``FILE.py:function``."""
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py"):
        if text.endswith(".py"):
            raise UsageError(f"--model {text}: name the function too, {text}:function")
        return text
    path = Path(file)
    if not path.is_file():
        raise ModelError(f"--model {text}: there is no file {path}.")
    module_name = re.sub(r"\W", "_", path.stem)
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Under its own name only if that is free: the file may be called math.py.
    sys.modules.setdefault(module_name, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ModelError(
            f"--model {text}: {path} could not be run: {type(error).__name__}: {error}."
        ) from error
    function = getattr(module, name, None)
    if function is None:
        functions = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        near = nearest(name, functions) or functions[:5]
        hint = f" It has {', '.join(near)}." if near else ""
        raise ModelError(f"--model {text}: {path} has no function {name!r}.{hint}")
    return function


def pairs(items: Sequence[str] | None, option: str) -> dict[str, str]:
    """Read ``NAME=VALUE`` items of an option.

    Parameters
    ----------
    items : sequence of str or None
    option : str
        Its name, for the message.

    Returns
    -------
    dict of str to str

    Raises
    ------
    UsageError
        For an item without ``=``, or a name given twice.
    """
    found: dict[str, str] = {}
    for item in items or ():
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not name or not value:
            raise UsageError(f"{option} {item!r}: write NAME=VALUE")
        if name in found:
            raise UsageError(f"{option}: {name!r} is given twice")
        found[name] = value
    return found


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{where}: {text!r} is not a number") from None


def _parameters(options: argparse.Namespace, structural: Structural) -> dict[str, Parameter]:
    """Parameters of the model, in its own order."""
    known = structural.param_names
    starts = pairs(options.start, "--start")
    kinds = pairs(options.distribution, "--distribution")
    formulas = pairs(options.covariate, "--covariate")
    named = {
        "--start": starts,
        "--distribution": kinds,
        "--covariate": formulas,
        "--no-random": options.no_random or (),
        "--fixed": options.fixed or (),
    }
    for option, names in named.items():
        for name in names:
            if name not in known:
                near = nearest(name, known)
                hint = f"; did you mean {' or '.join(near)}?" if near else ""
                raise UsageError(
                    f"{option}: {name!r} is not a parameter of {structural.name}{hint} "
                    f"Its parameters are {', '.join(known)}."
                )
    missing = [name for name in known if name not in starts]
    if missing:
        example = " ".join(f"{name}={starts.get(name, '...')}" for name in known)
        raise UsageError(
            f"--start: no starting value for {', '.join(missing)}. The parameters of "
            f"{structural.name} are {', '.join(known)}; give a typical value of each, in the "
            f"units of the data: --start {example}"
        )
    return {
        name: _parameter(
            name,
            _number(starts[name], f"--start {name}"),
            kinds.get(name, "lognormal"),
            covariates=formulas.get(name),
            random=name not in (options.no_random or ()),
            fixed=name in (options.fixed or ()),
        )
        for name in known
    }


def _parameter(name: str, start: float, kind: str, **settings: Any) -> Parameter:
    """One parameter with the distribution that was asked for."""
    from saem.nlme.parameters import LogitNormal, LogNormal, Normal, ProbitNormal

    word, *bounds = kind.casefold().split(":")
    where = f"--distribution {name}={kind}"
    if word in ("lognormal", "normal") and not bounds:
        return (LogNormal if word == "lognormal" else Normal)(start, **settings)
    bounded = {"logit": LogitNormal, "probit": ProbitNormal}.get(word)
    if bounded is None or len(bounds) not in (0, 2):
        raise UsageError(f"{where}: write one of {_DISTRIBUTIONS}")
    low, high = (_number(b, where) for b in bounds) if bounds else (0.0, 1.0)
    return bounded(start, lower=low, upper=high, **settings)


def _errors(items: Sequence[str], frame: pd.DataFrame, label: str | None) -> Any:
    """One error model for all, or that of each endpoint; numbers where their column has numbers."""
    if len(items) == 1 and "=" not in items[0]:
        return _error(items[0])
    kinds = pairs(items, "--error")
    numbers = label in frame.columns and frame[label].dtype.kind in "iuf"
    return {
        _number(name, f"--error {name}={kind}") if numbers else name: _error(kind, name)
        for name, kind in kinds.items()
    }


def _error(kind: str, endpoint: str = "") -> Any:
    from saem.nlme.error_models import NAMES

    if kind not in NAMES:
        near = nearest(kind, NAMES)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        where = f"--error {endpoint}={kind}" if endpoint else f"--error {kind}"
        raise UsageError(f"{where}: invalid choice{hint} Error models are {', '.join(NAMES)}.")
    return NAMES[kind]


def _columns(options: argparse.Namespace, structural: Structural) -> dict[str, str]:
    """Which column is what; the front door finds those that are not named."""
    columns = pairs(options.column, "--column")
    given = {
        "id": options.id, "time": options.time, "dv": options.dv, "dvid": options.dvid,
    }  # fmt: skip
    if options.dose is not None:
        # Pharmacokinetic models call it amt, dose-response models dose.
        places = [c for c in ("amt", "dose") if c in structural.columns]
        if not places:
            raise UsageError(
                f"--dose: {structural.name} uses no dose; its columns are "
                f"{', '.join(structural.columns) or 'none'} (use --column NAME=COLUMN)"
            )
        given[places[0]] = options.dose
    for name, column in given.items():
        if column is None:
            continue
        if columns.get(name, column) != column:
            raise UsageError(f"--column {name}={columns[name]} contradicts {column!r}")
        columns[name] = column
    return columns


def _omega(text: str) -> str | list[list[str]]:
    """``diagonal``, ``full``, or blocks such as ``ka,V;CL``."""
    if text in ("diagonal", "full"):
        return text
    rows = csv.reader(text.split(";"), skipinitialspace=True)
    return [[name.strip() for name in row if name.strip()] for row in rows if row]
