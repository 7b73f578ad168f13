"""Figure of a visual predictive check; see `saem.plots.NLMEPlots.vpc`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saem import _draw
from saem._plots_nlme import _DATA, _labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from saem.diagnostics.vpc import PredictiveCheck
    from saem.nlme.results import NLMEResults

__all__ = ["vpc"]


def vpc(results: NLMEResults, check: PredictiveCheck, log: bool, points: bool) -> Figure:
    """Draw a check, one panel per stratum."""
    strata = list(dict.fromkeys(check.observed["stratum"]))
    n_columns = min(3, len(strata))
    figure, axes = _draw.panels(
        len(strata), n_columns=n_columns, width=3.2, height=2.8,
        sharey=results.model.endpoints.number == 1,
    )  # fmt: skip
    for axis, stratum in zip(axes, strata, strict=True):
        _stratum(axis, check, stratum, points)
        if len(strata) > 1:
            _draw.title(axis, f"{stratum}  ({_n_of(check, stratum)} observations)")
        if log:
            axis.set_yscale("log")
    xlabel, response = _labels(results, check.column)
    _draw.outer_labels(
        axes, xlabel, response if check.correction is None else f"prediction-corrected {response}"
    )
    _draw.legend_below(figure, axes)
    return figure


def _n_of(check: PredictiveCheck, stratum: object) -> int:
    return int((check.points["stratum"] == stratum).sum())


def _stratum(axis: Axes, check: PredictiveCheck, stratum: object, points: bool) -> None:
    """Points, observed percentiles and bands of one stratum."""
    frame = check.to_frame()
    frame = frame[frame["stratum"] == stratum]
    own = check.points[check.points["stratum"] == stratum]
    if points:
        style = _DATA | {"ms": 2.2, "alpha": 0.45, "mew": 0.6}
        axis.plot(own["x"], own["y"], label="observations", zorder=1, **style)
    percentiles = sorted(frame["percentile"].unique())
    middle = min(percentiles, key=lambda p: abs(p - 50.0))
    for percentile in percentiles:
        part = frame[frame["percentile"] == percentile].sort_values("x")
        colour = _draw.COLOURS[1] if percentile == middle else _draw.COLOURS[0]
        kind = "median" if percentile == middle == 50.0 else "percentile"
        axis.fill_between(
            part["x"], part["lower"], part["upper"], color=colour, alpha=0.22, lw=0, zorder=2,
            label=f"{100 * check.level:g} % band of simulated {kind}s",
        )  # fmt: skip
        axis.plot(part["x"], part["median"], color=colour, lw=0.9, ls="--", zorder=3)
        axis.plot(
            part["x"], part["value"], color="black", lw=1.1, marker=".", ms=4, zorder=4,
            label="observed percentiles",
        )  # fmt: skip
        outside = part[~part["inside"]]
        axis.plot(
            outside["x"], outside["value"], ls="none", marker="o", ms=6, mfc="none", mec="black",
            zorder=5, label="outside" if len(outside) else "",
        )  # fmt: skip
