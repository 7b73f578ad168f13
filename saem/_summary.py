"""The printed summary of a fit, built with statsmodels' table classes."""

from __future__ import annotations

import math
import textwrap
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.exceptions import SaemWarning

if TYPE_CHECKING:
    from statsmodels.iolib.summary import Summary

    from saem.results import Results

__all__ = ["build", "warnings_of"]

_HEADINGS = {
    "estimate": "estimate",
    "se": "s.e.",
    "rse_percent": "RSE %",
    "mc_error": "MC error",
    "shrinkage_percent": "shrink. %",
}


def number(value: float, digits: int = 4) -> str:
    """Significant digits, without an exponent where a reader can do without."""
    if not math.isfinite(value):
        return "" if math.isnan(value) else f"{value:g}"
    if value == 0.0:
        return "0"
    if 1e-4 <= abs(value) < 1e6:
        decimals = digits - 1 - math.floor(math.log10(abs(value)))
        return f"{value:.{max(decimals, 0)}f}"
    return f"{value:.{digits - 1}e}"


def build(results: Results, alpha: float) -> Summary:
    """Build the summary of a fit; what would be warned of on the way stands at its foot.

    Parameters
    ----------
    results : Results
    alpha : float
        Confidence intervals have level 1 - alpha.

    Returns
    -------
    statsmodels.iolib.summary.Summary
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaemWarning)
        return _build(results, alpha)


def _build(results: Results, alpha: float) -> Summary:
    from statsmodels.iolib.table import SimpleTable
    from statsmodels.iolib.tableformatting import fmt_2cols, fmt_params

    rows, stubs, headings = _parameter_rows(results, alpha)
    formats = {"data_fmts": ["%s"] * len(headings), "data_aligns": "r" * len(headings)}

    def parameter_table(spare: int = 0) -> Any:
        names = [stubs[0].ljust(max(map(len, stubs)) + spare), *stubs[1:]]
        return SimpleTable(rows, headers=headings, stubs=names, txt_fmt=fmt_params | formats)

    table = parameter_table()
    width = _width(table)
    left, right = _left(results), _right(results)
    length = max(len(left), len(right))
    left += [("", "")] * (length - len(left))
    right += [("", "")] * (length - len(right))
    head = SimpleTable(
        [[v, f"  {key}", other] for (_, v), (key, other) in zip(left, right, strict=True)],
        stubs=[key for key, _ in left],
        title=_title(results),
        txt_fmt=fmt_2cols | _head_format(left, right, width),
    )
    spare = max(0, _width(head) - width)
    if spare:
        table = parameter_table(spare)
    width += spare
    summary = _summary_class()()
    summary.tables = [head, _ended(results, width), table]
    found = results.warnings()
    if found:
        summary.add_extra_txt(_foot(found, width))
    return summary


@cache
def _summary_class() -> type[Summary]:
    from statsmodels.iolib.summary import Summary

    class FitSummary(Summary):  # type: ignore[misc]
        """Summary whose LaTeX keeps the tables apart: statsmodels joins only equal widths."""

        def as_latex(self) -> str:
            """LaTeX of the tables, one tabular each, and the warnings."""
            tables = [table.as_latex_tabular() for table in self.tables]
            notes = [*(self.extra_txt or "").splitlines()]
            return "\n\n".join([*tables, *([" \\newline \n".join(notes)] if notes else [])])

    return FitSummary


def _width(table: Any) -> int:
    return max(map(len, table.as_text().splitlines()))


def _ended(results: Results, width: int) -> Any:
    """One line over the whole width: what stopped the fit."""
    from statsmodels.iolib.table import SimpleTable
    from statsmodels.iolib.tableformatting import fmt_2cols

    lines = textwrap.wrap(results.reason, width - len("Ended by: ")) or [""]
    formats: dict[str, Any] = {"data_fmts": ["%s"], "data_aligns": "l"}
    formats |= {"stub_fmt": "%s", "stubs_align": "l", "colwidths": None, "table_dec_above": None}
    return SimpleTable(
        [[line.ljust(width - len("Ended by: "))] for line in lines],
        stubs=["Ended by:", *[""] * (len(lines) - 1)],
        txt_fmt=fmt_2cols | formats,
    )


def _title(results: Results) -> str:
    loud = "" if results.converged else "   *** NOT CONVERGED ***"
    name = results.model.name
    return f"{name[0].upper()}{name[1:]} fitted by {results.record.algorithm.upper()}{loud}"


def _left(results: Results) -> list[tuple[str, str]]:
    record = results.record
    status = "ended as planned" if results.converged else "NOT CONVERGED"
    return [
        *[(key.rstrip(":") + ":", value) for key, value in results._sizes()],
        ("No. of observations:", f"{results.nobs}"),
        ("No. of parameters:", f"{results.n_params}"),
        ("Status:", status),
        ("Iterations:", f"{record.n_iter}"),
        ("Epochs:", f"{results.epochs:.6g}"),
        ("Seconds:", f"{record.seconds:.3g}"),
    ]


def _right(results: Results) -> list[tuple[str, str]]:
    seed = str(results.seed)
    lines = []
    if results._finite:
        lines = [
            ("-2 log-likelihood:", f"{-2.0 * results.llf:.3f}"),
            ("  its MC error:", f"{2.0 * results.llf_error:.2g}" if results.llf_error else "none"),
            ("  method:", results.llf_method),
            ("AIC:", f"{results.aic:.3f}"),
            (f"{results._bic_name}:", f"{results.bic:.3f}"),
        ]
    lines += [
        ("Seed:", seed if len(seed) <= 14 else f"{seed[:6]}...{seed[-5:]}"),
        ("saem version:", results.record.version),
    ]
    return lines


def _head_format(
    left: list[tuple[str, str]], right: list[tuple[str, str]], width: int
) -> dict[str, Any]:
    """Column widths of the head: the two value columns take what the table leaves."""
    widths = [max(len(k) for k, _ in left), max(len(v) for _, v in left)]
    widths += [2 + max(len(k) for k, _ in right), max(len(v) for _, v in right)]
    spare = max(0, width - sum(widths) - 3)
    widths[1] += spare // 2
    widths[3] += spare - spare // 2
    return {
        "data_fmts": ["%s"] * 3,
        "data_aligns": "rlr",
        "stubs_align": "l",
        "colwidths": widths,
        "colsep": " ",
        "stub_fmt": "%s",
    }


def _parameter_rows(results: Results, alpha: float) -> tuple[list[list[str]], list[str], list[str]]:
    frame = results.to_frame(alpha)
    hidden = {"lower", "upper", "status"}
    if not (frame["mc_error"] > 0.0).any():
        hidden.add("mc_error")  # nothing was drawn, or nothing is known
    columns = [c for c in frame.columns if c not in hidden]
    low, high = f"[{alpha / 2:.3g}", f"{1 - alpha / 2:.3g}]"
    at = columns.index("rse_percent") + 1
    headings = [_HEADINGS.get(c, c) for c in columns]
    headings[at:at] = [low, high]
    flagged = bool((frame["status"] != "").any())
    if flagged:
        headings.append("")
    rows = []
    for _, row in frame.iterrows():
        cells = [
            f"{row[c]:.1f}"
            if c.endswith("percent") and math.isfinite(row[c])
            else number(row[c], 2 if c == "mc_error" else 4)
            for c in columns
        ]
        cells[at:at] = [number(row["lower"]), number(row["upper"])]
        if flagged:
            cells.append(row["status"])
        rows.append(cells)
    return rows, [str(name) for name in frame.index], headings


def _foot(found: list[str], width: int) -> list[str]:
    """Warnings, numbered by `Summary` itself, broken to the width of the tables."""
    return [textwrap.fill(text, max(width - 4, 60), subsequent_indent="    ") for text in found]


def warnings_of(results: Results) -> list[str]:
    """What a reader must know before trusting the numbers."""
    from saem.inference._sampling import ACCURATE

    record, found = results.record, []
    if not results._finite:
        bad = [str(n) for n, v in results.params.items() if not np.isfinite(v)]
        found.append(
            f"THE FIT FAILED: the estimates of {', '.join(bad)} are not finite ({record.reason}). "
            "Try other starting values, or look at the trace."
        )
    elif not results.converged:
        found.append(
            f"NOT CONVERGED: {record.reason}. The numbers are those reached so far; standard "
            "errors and criteria hold at a maximum only."
        )
    if record.objective:
        found.append(
            f"The estimates maximise {record.objective.upper()}'s approximation, not the "
            "likelihood: with few or imprecise observations of an individual those of variances "
            "are biased, whatever the number of individuals. Remedy: saem's default algorithm, "
            "which may start from here (start=results.theta)."
        )
    found += [f"{name} is on a boundary: {why}." for name, why in results.boundary.items()]
    if results._finite:
        if results._unidentified:
            found.append(
                f"The data do not tell {' and '.join(results._unidentified)} apart: the "
                "information has no inverse, so there are no standard errors. Fix one of these "
                "parameters, or leave out a random effect or covariate among them."
            )
        elif len(lost := results.bse.index[results.bse.isna()].difference(list(results.boundary))):
            found.append(
                f"No standard error for {', '.join(map(str, lost))}: the information matrix is "
                "singular there."
            )
        if results.llf_error > ACCURATE:
            found.append(
                f"-2 log-likelihood has a Monte Carlo error of {2.0 * results.llf_error:.2g}, "
                f"above {2.0 * ACCURATE:g}; use more draws, results.loglik('importance', "
                "n_samples=...), before comparing models."
            )
    if record.projections or record.halvings:
        found.append(
            f"The M-step left its range {record.halvings + record.projections} times and was "
            f"brought back ({record.halvings} steps halved, {record.projections} projected)."
        )
    return found
