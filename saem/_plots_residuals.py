"""Figures of quantiles and autocorrelations of residuals; see `saem.plots.NLMEPlots`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saem import _draw
from saem._plots_nlme import _POINTS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["autocorrelation", "qq"]


def qq(table: pd.DataFrame) -> Figure:
    """Draw quantiles; see `DiagnosticPlots.qq`."""
    kinds = list(dict.fromkeys(table["residual"]))
    figure, axes = _draw.panels(
        len(kinds), n_columns=min(3, len(kinds)), width=3.0, height=3.0, sharey=True
    )
    for axis, kind in zip(axes, kinds, strict=True):
        own = table[table["residual"] == kind]
        axis.fill_between(own["expected"], own["lower"], own["upper"], color="0.88", lw=0)
        axis.axline((0.0, 0.0), slope=1.0, color="0.4", lw=0.9)
        axis.plot(own["expected"], own["value"], **_POINTS)
        _draw.title(axis, kind.upper())
    _draw.outer_labels(axes, "quantiles of the standard normal", "residuals")
    return figure


def autocorrelation(table: pd.DataFrame) -> Figure:
    """Draw autocorrelations; see `DiagnosticPlots.autocorrelation`."""
    kinds = list(dict.fromkeys(table["residual"]))
    figure, axes = _draw.panels(
        len(kinds), n_columns=min(3, len(kinds)), width=3.0, height=2.5, sharey=True
    )
    for axis, kind in zip(axes, kinds, strict=True):
        own = table[table["residual"] == kind]
        axis.fill_between(
            own["lag"], own["lower"], own["upper"], color="0.88", lw=0, label="95 % if independent"
        )
        axis.axhline(0.0, color="0.4", lw=0.9)
        axis.vlines(own["lag"], 0.0, own["autocorrelation"], color=_draw.COLOURS[0], lw=1.6)
        axis.plot(own["lag"], own["autocorrelation"], **(_POINTS | {"ms": 5.0, "alpha": 1.0}))
        axis.set_xticks(own["lag"].tolist())
        _draw.title(axis, kind.upper())
    _draw.outer_labels(axes, "observations apart", "autocorrelation")
    _draw.legend_below(figure, axes)
    return figure
