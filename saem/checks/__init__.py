"""Checks that every model, every algorithm, and each pair of them must pass.

A user runs them on an own model with one call::

    saem.checks.check_model(model)

and the library's own tests on all of its models. Each check is a small function
that raises AssertionError with what was found; `grid` collects the outcomes into a table of models
by algorithms. A pair on which an algorithm is not defined has its reason in the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.checks._model import model_checks
from saem.checks._pairs import pair_checks, refusal
from saem.checks._proxies import proxy_checks
from saem.checks._tools import Check
from saem.contract import Model

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "EXPECTED",
    "Check",
    "Outcome",
    "check_model",
    "check_pair",
    "examples",
    "grid",
    "model_checks",
    "pair_checks",
    "proxy_checks",
    "refusal",
]

#: Checks that are known to fail, with the reason: (model, algorithm, check) -> reason.
EXPECTED: dict[tuple[str, str, str], str] = {}


@dataclass(frozen=True)
class Outcome:
    """What a check has found.

    Attributes
    ----------
    model, algorithm, check : str
        `algorithm` is empty for checks of the model alone.
    state : {"passed", "failed", "not defined"}
    message : str
        What was found, or why the pair is not defined.
    """

    model: str
    algorithm: str
    check: str
    state: str
    message: str = ""


def examples(n: int = 60) -> dict[str, Model]:
    """Return a small instance of every model of the library, by class name.

    Parameters
    ----------
    n : int
        Individuals of each.

    Returns
    -------
    dict of str to Model
    """
    import saem.models
    from saem.nlme.model import NLME

    classes = [getattr(saem.models, name) for name in saem.models.__all__] + [NLME]
    return {c.__name__: c.example(np.random.default_rng(1), n) for c in classes}


def check_pair(model: Model, algorithm: Any) -> list[Outcome]:
    """Check an algorithm on a model.

    Parameters
    ----------
    model : Model
        Small: some tens of individuals.
    algorithm : str or Algorithm

    Returns
    -------
    list of Outcome
    """
    from saem.algorithms import resolve

    chosen = resolve(algorithm, model)
    reason = refusal(model, chosen)
    if reason:
        return [Outcome(model.name, chosen.name, "is defined", "not defined", reason)]
    return list(_outcomes(model, chosen.name, pair_checks(model, chosen)))


def check_model(
    model: Model, algorithms: Iterable[Any] | None = None, *, raise_errors: bool = True
) -> pd.DataFrame:
    """Check a model by itself and under algorithms.

    Parameters
    ----------
    model : Model
        Small (some tens of individuals), with a start near its maximum.
    algorithms : iterable of str or Algorithm, optional
        All algorithms of the library by default.
    raise_errors : bool
        Raise AssertionError that lists all failures.

    Returns
    -------
    DataFrame
        One row a check: model, algorithm, check, state, message.

    Raises
    ------
    AssertionError
    """
    import pandas as pd

    from saem.algorithms import algorithms as names

    found = list(_outcomes(model, "", [*model_checks(model), *proxy_checks(model)]))
    for algorithm in names() if algorithms is None else algorithms:
        found += check_pair(model, algorithm)
    failures = [o for o in found if o.state == "failed"]
    if raise_errors and failures:
        lines = [f"{o.algorithm or 'the model'}: {o.check}: {o.message}" for o in failures]
        raise AssertionError(f"{model.name}: {len(failures)} checks fail\n" + "\n".join(lines))
    return pd.DataFrame([vars(o) for o in found])


def grid(models: dict[str, Model] | None = None, algorithms: Any = None) -> pd.DataFrame:
    """Check every model under every algorithm.

    Parameters
    ----------
    models : dict of str to Model, optional
        Those of `examples` by default.
    algorithms : iterable of str or Algorithm, optional
        All algorithms of the library by default.

    Returns
    -------
    DataFrame
        Models in rows, algorithms in columns; each cell "ok", "n/a" (not defined) or the checks
        that fail. The reasons are in ``.attrs["outcomes"]``, a table as of `check_model`.
    """
    import pandas as pd

    found = []
    for label, model in (models or examples()).items():
        table = check_model(model, algorithms, raise_errors=False)
        found.append(table.assign(model=label))
    outcomes = pd.concat(found, ignore_index=True)
    pairs = outcomes[outcomes["algorithm"] != ""]
    cells = [
        {"model": model, "algorithm": algorithm, "cell": _cell(rows)}
        for (model, algorithm), rows in pairs.groupby(["model", "algorithm"], sort=False)
    ]
    table = pd.DataFrame(cells).pivot_table(
        index="model", columns="algorithm", values="cell", aggfunc="first", sort=False
    )
    table.attrs["outcomes"] = outcomes
    return table


def _cell(rows: pd.DataFrame) -> str:
    if (rows["state"] == "not defined").any():
        return "n/a"
    failed = rows.loc[rows["state"] == "failed", "check"]
    return "fails: " + "; ".join(failed) if len(failed) else "ok"


def _outcomes(model: Model, algorithm: str, checks: Iterable[Check]) -> Iterator[Outcome]:
    for check in checks:
        try:
            check.verify()
        except AssertionError as error:
            yield Outcome(model.name, algorithm, check.name, "failed", str(error))
        except Exception as error:  # a crash is a finding like any other
            text = f"{type(error).__name__}: {error}"
            yield Outcome(model.name, algorithm, check.name, "failed", text)
        else:
            yield Outcome(model.name, algorithm, check.name, "passed")
