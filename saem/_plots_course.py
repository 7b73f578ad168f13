"""Figures of convergence and of contributions to the log-likelihood; see `saem.plots.NLMEPlots`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from saem import _draw
from saem._plots_nlme import _POINTS
from saem.exceptions import OptionError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from saem.nlme.results import NLMEResults

__all__ = ["individual_loglik", "loglik_convergence", "monte_carlo"]

#: Individuals that are named.
_NAMED = 5


def monte_carlo(results: NLMEResults, params: Sequence[str] | None) -> Figure:
    """Draw courses with Monte Carlo bands; see `DiagnosticPlots.monte_carlo`."""
    names = list(results.param_names) if params is None else list(params)
    unknown = [name for name in names if name not in results.param_names]
    if unknown or not names:
        raise OptionError(f"params={params!r} must be of {', '.join(results.param_names)}.")
    figure, axes = _draw.panels(len(names), n_columns=min(3, len(names)), width=2.9, height=2.0)
    trace = results.trace
    for axis, name in zip(axes, names, strict=True):
        centre, error, se = (s[name] for s in (results.params, results.mc_error, results.bse))
        if np.isfinite(se):
            axis.axhspan(
                centre - se, centre + se, color="0.93", lw=0, label="estimate ± standard error"
            )
        if np.isfinite(error):
            axis.axhspan(
                centre - 2 * error, centre + 2 * error, color=_draw.COLOURS[1], alpha=0.3, lw=0,
                label="± 2 Monte Carlo errors",
            )  # fmt: skip
        axis.plot(trace.index, trace[name], color=_draw.COLOURS[0], lw=1.0, label="course")
        axis.axhline(centre, color=_draw.COLOURS[1], lw=0.9)
        share = f"  (error {100 * error / se:.1f} % of se)" if se > 0 else ""
        _draw.title(axis, name + share)
        # The way from the start would dwarf what is left at the end.
        late = trace[name].iloc[len(trace) // 10 :]
        width = 1.4 * max(se if np.isfinite(se) else 0.0, float(np.abs(late - centre).max()))
        if width > 0.0:
            axis.set_ylim(centre - width, centre + width)
    _draw.outer_labels(axes, "iteration")
    _draw.legend_below(figure, axes)
    return figure


def loglik_convergence(table: pd.DataFrame) -> Figure:
    """Draw a running log-likelihood; see `DiagnosticPlots.loglik_convergence`."""
    figure, (axis,) = _draw.panels(1, n_columns=1, width=4.8, height=3.0)
    x, y, error = (table[name].to_numpy() for name in ("draws", "loglik", "error"))
    axis.fill_between(
        x, y - 2 * error, y + 2 * error, color=_draw.COLOURS[0], alpha=0.2, lw=0,
        label="± 2 Monte Carlo errors",
    )  # fmt: skip
    axis.plot(x, y, color=_draw.COLOURS[0], lw=1.2, marker=".", label="log-likelihood")
    axis.axhline(y[-1], color="0.4", lw=0.9, ls=":")
    _draw.outer_labels([axis], "draws per individual", "log-likelihood")
    _draw.legend_below(figure, [axis])
    return figure


def individual_loglik(results: NLMEResults, table: pd.DataFrame) -> Figure:
    """Draw contributions per observation; see `DiagnosticPlots.individual_loglik`."""
    figure, (axis,) = _draw.panels(1, n_columns=1, width=5.4, height=3.0)
    values = table["loglik"].to_numpy() / results.model.individuals.n_obs
    order = np.argsort(values, kind="stable")
    place = np.arange(1, order.size + 1)
    axis.plot(place, values[order], **_POINTS)
    for j in range(min(_NAMED, order.size)):
        axis.annotate(
            str(table.index[order[j]]), (place[j], values[order[j]]), textcoords="offset points",
            xytext=(4, -2), fontsize=7.5, va="top",
        )  # fmt: skip
    _draw.outer_labels([axis], "individuals, sorted", "log-likelihood per observation")
    return figure
