"""What all figures share: canvas, colours, labels."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "label", "legend_below", "outer_labels", "panels", "title"]

#: Told apart with any colour vision (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

_STYLE: Any = {
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


@cache
def _figure_class() -> type[Figure]:
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        """A figure without pyplot that a notebook shows all the same."""

        def _repr_html_(self) -> str:
            import base64
            import io

            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=100)
            picture = base64.b64encode(buffer.getvalue()).decode()
            return f'<img src="data:image/png;base64,{picture}"/>'

    return NotebookFigure


def panels(
    n: int,
    *,
    n_columns: int,
    width: float,
    height: float,
    sharex: bool = True,
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Small multiples, row by row.

    Parameters
    ----------
    n : int
        Panels.
    n_columns : int
        Panels side by side.
    width, height : float
        Inches per panel; a figure of one or two panels gets larger ones.
    sharex, sharey : bool
        Whether all panels have one scale.
    """
    from matplotlib import rc_context

    n_rows = math.ceil(n / n_columns)
    size = max(width * n_columns, 4.8), max(height * n_rows, 3.0 if n_rows == 1 else 0.0) + 0.5
    with rc_context(_STYLE):
        figure = _figure_class()(figsize=size, layout="constrained")
        axes: list[Axes] = []
        for j in range(n):
            first = axes[0] if axes else None
            axes.append(
                figure.add_subplot(
                    n_rows,
                    n_columns,
                    j + 1,
                    sharex=first if sharex else None,
                    sharey=first if sharey else None,
                )
            )
    for j, axis in enumerate(axes):
        # Ticks of shared axes are written once, at the edge.
        axis.tick_params(
            labelbottom=not sharex or j + n_columns >= n,
            labelleft=not sharey or j % n_columns == 0,
        )
    return figure, axes


def title(axis: Axes, text: str) -> None:
    """Title of a panel, in smaller type where it is long."""
    figure: Any = axis.figure
    columns = axis.get_subplotspec().get_gridspec().ncols  # type: ignore[union-attr]
    points = 72.0 * figure.get_size_inches()[0] / columns
    # A letter is about 0.6 of its size wide.
    axis.set_title(text, fontsize=max(5.0, min(8.5, points / (0.6 * max(len(text), 1)))))


def outer_labels(axes: Sequence[Axes], xlabel: str = "", ylabel: str = "") -> None:
    """Label common axes at the edge only."""
    figure: Any = axes[0].figure
    size = _STYLE["axes.labelsize"]
    columns = axes[0].get_subplotspec().get_gridspec().ncols  # type: ignore[union-attr]
    for axis in axes[-columns:] if xlabel else []:
        axis.set_xlabel(xlabel, fontsize=size)
    if ylabel:
        figure.supylabel(ylabel, fontsize=size)


def legend_below(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels, under them; none for a single unnamed line."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    found = {name: handle for name, handle in found.items() if name}
    if not found:
        return
    # Handle and gaps take half an inch, a letter a sixteenth.
    widest = 0.5 + max(map(len, found)) / 16.0
    figure.legend(
        list(found.values()),
        list(found),
        loc="outside lower center",
        ncols=max(1, min(len(found), int(figure.get_size_inches()[0] / widest))),
        frameon=False,
        fontsize=_STYLE["legend.fontsize"],
    )


def label(name: Any, units: dict[str, str]) -> str:
    """Name of a column with its unit, if it has one."""
    unit = units.get(str(name), "")
    return f"{name} ({unit})" if unit and unit not in ("label", "1", "-") else str(name)
