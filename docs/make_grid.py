"""Write docs/grid.md: every model under every algorithm, as `saem.checks` finds it.

Run from anywhere: ``python docs/make_grid.py``. It takes some minutes.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from saem import checks

_HEAD = """# The grid: models by algorithms

Written by `python docs/make_grid.py` from `saem.checks`, which `tests/checks/test_grid.py` runs
on every change. `ok`: all checks of the pair pass (it runs and stays finite, counts its
E-evaluations as the definition says, gives the same bits for any threads and after a resumption,
and ends at the maximum-likelihood estimate, up to its Monte Carlo error if it draws; not asked of
those that maximise something else: classification-em, focei, laplace). A number
refers to the reason below why the algorithm is not defined on the model.
"""


def _number(reasons: dict[str, int], reason: str) -> str:
    """Return the number of a reason, a new one if it is new."""
    return f"({reasons.setdefault(reason, len(reasons) + 1)})"


def main() -> None:
    """Run the grid and write the page."""
    warnings.simplefilter("ignore")
    outcomes = checks.grid().attrs["outcomes"]
    reasons: dict[str, int] = {}
    cells: dict[str, dict[str, str]] = {}
    for row in outcomes[outcomes["algorithm"] != ""].itertuples():
        line = cells.setdefault(row.model, {})
        if row.state == "not defined":
            line[row.algorithm] = _number(reasons, row.message)
        elif row.state == "failed":
            known = checks.EXPECTED.get((row.model, row.algorithm, row.check), "FAILS")
            line[row.algorithm] = (
                f"({reasons.setdefault(f'{row.check}: {known}', len(reasons) + 1)})"
            )
        else:
            line.setdefault(row.algorithm, "ok")
    names = list(dict.fromkeys(name for line in cells.values() for name in line))
    text = [_HEAD, "| model | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    text += [
        f"| {m} | " + " | ".join(line.get(a, "") for a in names) + " |" for m, line in cells.items()
    ]
    text += ["", "## Reasons", ""] + [f"{number}. {reason}" for reason, number in reasons.items()]
    alone = outcomes[outcomes["algorithm"] == ""]
    text += ["", "## Checks of the models and of the proxies on them", ""]
    for label, rows in alone.groupby("model", sort=False):
        failed = rows.loc[rows["state"] == "failed", "check"]
        state = "all pass" if failed.empty else "fails: " + "; ".join(failed)
        text.append(f"* {label}: {len(rows)} checks, {state}")
    path = Path(__file__).resolve().parent / "grid.md"
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
