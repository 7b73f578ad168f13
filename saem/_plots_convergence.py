"""The course of fits as a table and as a figure; see `saem.plots.convergence`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from saem import _draw
from saem._plots_curves import Course, Panel
from saem.contract import Array
from saem.exceptions import OptionError
from saem.results import Results

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["band_of", "draw", "table"]

_X_LABELS = {
    "iteration": "iteration",
    "epochs": "passes over the data",
    "seconds": "wall time (seconds)",
}
#: Points of the common grid of several runs, where their own places are more.
_GRID = 400
_LINES = ("-", "--", ":", "-.")


def band_of(
    curves: Sequence[tuple[Array, Array]], band: tuple[float, float], *, log_y: bool = False
) -> tuple[Array, Array, Array, Array]:
    """Grid, median and quantiles of several runs at the same place.

    A run that has ended stays at its last value; the grid starts where all runs have begun.
    With `log_y`, positive values are interpolated on the logarithmic scale.
    """
    finite = [(p[np.isfinite(v)], v[np.isfinite(v)]) for p, v in curves]
    finite = [(p, v) for p, v in finite if p.size]
    if not finite:
        return np.empty(0), np.empty(0), np.empty(0), np.empty(0)
    grid = np.unique(np.concatenate([p for p, _ in finite]))
    grid = grid[grid >= max(p[0] for p, _ in finite)]
    if grid.size > _GRID:
        # By rank rather than by distance, so that a logarithmic axis is served as well.
        grid = grid[np.unique(np.linspace(0, grid.size - 1, _GRID).round().astype(int))]
    logs = log_y and all(np.all(v > 0.0) for _, v in finite)
    rows = [np.interp(grid, p, np.log(v) if logs else v) for p, v in finite]
    low, middle, high = np.quantile(np.array(rows), (band[0], 0.5, band[1]), axis=0)
    if logs:
        low, middle, high = np.exp(low), np.exp(middle), np.exp(high)
    return grid, middle, low, high


def table(course: Course, band: tuple[float, float] | None) -> pd.DataFrame:
    """Long table of the curves, or of medians and quantiles where a band is given."""
    import pandas as pd

    parts: list[dict[str, Any]] = []
    for panel in course.panels:
        for name, curves in panel.curves.items():
            head = {"name": name, "quantity": panel.quantity}
            if band is not None:
                grid, middle, low, high = band_of(curves, band, log_y=panel.log_y)
                parts.append({**head, "x": grid, "y": middle, "lower": low, "upper": high})
                continue
            for j, (places, values) in enumerate(curves):
                good = np.isfinite(values)
                parts.append({**head, "run": j, "x": places[good], "y": values[good]})
    columns = ["name", "quantity", "x", "y", "lower", "upper"]
    if band is None:
        columns = ["name", "run", "quantity", "x", "y"]
    frames = [pd.DataFrame(part) for part in parts if part["x"].size]
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
    frame = frame[columns]
    frame.attrs["x"] = course.x
    return frame


def draw(course: Course, band: tuple[float, float], log: str | None, ax: Any) -> Figure:
    """Draw all panels, on axes of one's own or on given ones."""
    n = len(course.panels)
    figure: Any
    if ax is None:
        figure, axes = _draw.panels(n, n_columns=min(4, n), width=2.6, height=1.9)
    else:
        axes = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(axes) != n:
            raise OptionError(f"ax holds {len(axes)} axes, but {n} quantities are drawn.")
        figure = axes[0].figure
    for axis, panel in zip(axes, course.panels, strict=True):
        log_y = panel.log_y if log is None else "y" in log
        _draw_panel(axis, panel, course, band, log_y, "x" in (log or ""))
        if ax is None:
            _draw.title(axis, panel.label)
        else:
            axis.set_ylabel(panel.label)
            axis.set_xlabel(_X_LABELS[course.x])
            if any(axis.get_legend_handles_labels()[1]):
                axis.legend(frameon=False)
    if ax is None:
        _draw.outer_labels(axes, xlabel=_X_LABELS[course.x])
        _draw.legend_below(figure, axes)
        if course.left_out:
            total = n + course.left_out
            text = f"the first {n} of {total} parameters; see y="
            figure.suptitle(text, fontsize=8.5)
    return figure


def _draw_panel(
    axis: Axes, panel: Panel, course: Course, band: tuple[float, float], log_y: bool, log_x: bool
) -> None:
    """Draw one quantity: a line a fit, median and band for several runs."""
    for j, (name, curves) in enumerate(panel.curves.items()):
        style: dict[str, Any] = {
            "color": _draw.COLOURS[j % len(_draw.COLOURS)],
            "ls": _LINES[j // len(_draw.COLOURS) % len(_LINES)],
        }
        if len(curves) == 1:
            places, values = curves[0]
        else:
            places, values, low, high = band_of(curves, band, log_y=log_y)
            low, high = (_shown(v, log_y) for v in (low, high))
            axis.fill_between(places, low, high, color=style["color"], alpha=0.18, lw=0)
        axis.plot(places, _shown(values, log_y), lw=1.1, label=name, **style)
    if panel.reference is not None:
        axis.axhline(panel.reference, color="black", lw=0.9, ls=":", label="reference")
    single = list(course.runs.values())
    if len(single) == 1 and len(single[0]) == 1:
        run = single[0][0]
        _mark_phases(axis, run, course.x)
        if panel.quantity in run.params.index:
            value = run.params[panel.quantity]
            axis.axhline(value, color=_draw.COLOURS[1], lw=0.9, label="estimate")
    if log_y:
        axis.set_yscale("log")
    if log_x:
        axis.set_xscale("log")
    axis.margins(x=0.02)


def _shown(values: Array, log: bool) -> Array:
    """Values with those hidden that a logarithmic axis cannot show."""
    return np.where(values > 0.0, values, np.nan) if log else values


def _mark_phases(axis: Axes, run: Results, x: str) -> None:
    """Shade where the step falls, and where estimates are averaged."""
    trace, first = run.trace, run.record.average_from
    gamma, places = trace["gamma"].to_numpy(), trace[x].to_numpy(dtype=float)
    full = np.flatnonzero(gamma >= 1.0)
    if not full.size or full[-1] + 1 >= gamma.size:
        return
    start, end = places[full[-1]], places[-1]
    averaged = end if first is None else np.interp(first, trace["iteration"], places)
    axis.axvspan(start, averaged, color="0.94", lw=0, label="falling steps", zorder=0)
    if averaged < end:
        axis.axvspan(averaged, end, color="0.87", lw=0, label="averaged", zorder=0)
