"""Figures of nonlinear mixed-effects fits; see `saem.plots.NLMEPlots`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from saem import _draw
from saem.contract import Array
from saem.exceptions import OptionError, nearest
from saem.nlme._continuous import require_predictions
from saem.plots import units_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from saem.nlme.results import NLMEResults

__all__ = ["individual_fits", "observed_vs_predicted", "residuals"]

_DATA: dict[str, Any] = {
    "marker": "o",
    "ms": 3.2,
    "ls": "none",
    "mfc": "white",
    "color": "0.35",
    "mew": 0.9,
}
_POINTS: dict[str, Any] = {
    "marker": "o",
    "ms": 3.0,
    "ls": "none",
    "color": _draw.COLOURS[0],
    "alpha": 0.6,
}
_GRID = 150


def _axis_column(results: NLMEResults) -> str:
    """Column over which individuals are drawn: time, or the first of the structural model."""
    data, structural = results.model.individuals, results.model.structural
    if "time" in data.columns or not structural.columns:
        return "time" if "time" in data.columns else ""
    varies = [c for c in structural.columns if np.ptp(data.columns[c]) > 0.0]
    return varies[0] if varies else structural.columns[0]


def _endpoints(results: NLMEResults) -> list[tuple[int, str]]:
    """Endpoints with a name for each; no name where there is one only."""
    endpoints = results.model.endpoints
    if endpoints.number == 1:
        return [(0, "")]
    return [(e, endpoints.label_of(e)) for e in range(endpoints.number)]


def _labels(results: NLMEResults, column: str) -> tuple[str, str]:
    """Labels of the column and of the response, with units."""
    data = results.model.individuals
    units = units_of(data.subjects)
    return (
        _draw.label(data.names.get(column, column), units),
        _draw.label(data.names["dv"], units),
    )


def individual_fits(results: NLMEResults, n: int, ids: Sequence[Any] | None, log: bool) -> Figure:
    """Draw data and predictions of individuals; see `NLMEPlots.individual_fits`."""
    require_predictions(results.model, "predictions")
    data = results.model.individuals
    column = _axis_column(results)
    if not column:
        raise OptionError("the structural model has no column to draw predictions over.")
    chosen = list(range(min(n, data.n_individuals))) if ids is None else _places(data.ids, ids)
    if not chosen:
        raise OptionError(f"n={n!r} must be at least 1.")
    several = results.model.endpoints.number > 1
    panels = [
        (i, name, parts)
        for i in chosen
        for e, name in _endpoints(results)
        if (parts := _parts(results, i, e))
    ]
    size = min(4, len(panels))
    # Endpoints have scales of their own.
    figure, axes = _draw.panels(
        len(panels), n_columns=size, width=2.3, height=1.8, sharey=not several
    )
    shades: dict[Any, str] = {}
    for axis, (i, endpoint, parts) in zip(axes, panels, strict=True):
        for rows, occasion in parts:
            name, colour, points = "individual", _draw.COLOURS[0], _DATA
            if occasion is not None:
                # Orange is the population's.
                own = [c for c in _draw.COLOURS if c != _draw.COLOURS[1]]
                colour = shades.setdefault(occasion, own[len(shades) % len(own)])
                name, points = str(occasion), _DATA | {"color": colour}
            places, columns = _grid(results, column, rows)
            for psi, shade, style, label in (
                (results._psi_population[i], _draw.COLOURS[1], "--", "population"),
                (results._psi_modes[i], colour, "-", name),
            ):
                predicted = results.model.structural.predict(psi, columns)
                if log:
                    predicted[predicted <= 0.0] = np.nan
                axis.plot(places, predicted, color=shade, ls=style, lw=1.2, label=label)
            axis.plot(data.columns[column][rows], data.dv[rows], label="observed", **points)
        _draw.title(axis, f"{data.names['id']} {data.ids[i]}" + f", {endpoint}" * several)
        if log:
            axis.set_yscale("log")
    xlabel, ylabel = _labels(results, column)
    _draw.outer_labels(axes, xlabel, ylabel)
    _draw.legend_below(figure, axes)
    return figure


def _parts(results: NLMEResults, i: int, e: int) -> list[tuple[slice, Any]]:
    """Rows of an endpoint of an individual, occasion by occasion with their labels."""
    model, data = results.model, results.model.individuals
    start, stop = int(data.offsets[i]), int(data.offsets[i + 1])
    # Rows of an individual are sorted by endpoint.
    start, stop = (
        start + int(np.searchsorted(data.endpoint[start:stop], edge)) for edge in (e, e + 1)
    )
    if start == stop:
        return []
    if model.occasions is None:
        return [(slice(start, stop), None)]
    codes = data.columns["occasion"][start:stop]
    ends = [start, *(start + 1 + np.flatnonzero(np.diff(codes))).tolist(), stop]
    labels = model.occasions.labels[i]
    return [(slice(a, b), labels[int(codes[a - start])]) for a, b in itertools.pairwise(ends)]


def _places(known: list[Any], ids: Sequence[Any]) -> list[int]:
    index = {value: i for i, value in enumerate(known)}
    for value in ids:
        if value not in index:
            close = nearest(str(value), known)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise OptionError(f"id {value!r} is not in the data.{hint}")
    return [index[value] for value in ids]


def _grid(results: NLMEResults, column: str, rows: slice) -> tuple[Array, Array]:
    """Places of the curve and the columns there: fine where the other columns are constant."""
    data, structural = results.model.individuals, results.model.structural
    own = np.array([data.columns[c][rows] for c in structural.columns])
    places = data.columns[column][rows]
    others = [j for j, c in enumerate(structural.columns) if c != column]
    if column in structural.columns and all(np.ptp(own[j]) == 0.0 for j in others):
        low = min(0.0, places.min()) if column == "time" else places.min()
        fine = np.unique(np.concatenate([np.linspace(low, places.max(), _GRID), places]))
        columns = np.repeat(own[:, :1], fine.size, axis=1)
        columns[structural.columns.index(column)] = fine
        return fine, columns
    order = np.argsort(places, kind="stable")
    return places[order], own[:, order]


def observed_vs_predicted(results: NLMEResults, log: bool) -> Figure:
    """Draw responses against predictions; see `NLMEPlots.observed_vs_predicted`."""
    from saem.diagnostics._tables import by_endpoint

    parts = by_endpoint(results, results.residuals())
    figure, axes = _draw.panels(
        2 * len(parts), n_columns=2, width=3.2, height=3.2,
        sharex=len(parts) == 1, sharey=len(parts) == 1,
    )  # fmt: skip
    for row, (name, frame) in enumerate(parts.items()):
        _identity(axes[2 * row : 2 * row + 2], frame, f"{name}, " if len(parts) > 1 else "", log)
    response = _labels(results, _axis_column(results))[1]
    _draw.outer_labels(axes, f"predicted {response}", f"observed {response}")
    return figure


def _identity(axes: Sequence[Axes], frame: pd.DataFrame, prefix: str, log: bool) -> None:
    """Responses of one endpoint against both kinds of predictions, on one scale."""
    observed = frame["dv"].to_numpy()
    both = {name: frame[name].to_numpy() for name in ("population", "individual")}
    everything = np.concatenate([observed, *both.values()])
    if log:
        everything = everything[everything > 0.0]
    ends = np.array([everything.min(), everything.max()])
    margin = (ends[1] - ends[0]) * 0.04
    limits = (ends[0] / 1.15, ends[1] * 1.15) if log else (ends[0] - margin, ends[1] + margin)
    for axis, (name, predicted) in zip(axes, both.items(), strict=True):
        axis.axline((ends[0], ends[0]), (ends[1], ends[1]), color="0.4", lw=0.9)
        axis.plot(predicted, observed, **_POINTS)
        _draw.title(axis, f"{prefix}{name} predictions")
        if log:
            axis.set_xscale("log")
            axis.set_yscale("log")
        axis.set_xlim(limits)
        axis.set_ylim(limits)


def residuals(results: NLMEResults) -> Figure:
    """Draw weighted residuals; see `NLMEPlots.residuals`."""
    from saem.diagnostics._tables import by_endpoint

    frame = results.residuals()
    data, column = results.model.individuals, _axis_column(results)
    over = results._rows(data.columns[column]) if column else None
    parts = by_endpoint(results, frame.assign(_over=over) if over is not None else frame)
    xlabel, response = _labels(results, column)
    n_columns = 3 if over is not None else 2
    figure, axes = _draw.panels(
        2 * n_columns * len(parts), n_columns=n_columns, width=2.9, height=2.3, sharex=False,
        sharey=True,
    )  # fmt: skip
    rows = [
        (endpoint, part, *pair)
        for endpoint, part in parts.items()
        for pair in (("iwres", "individual"), ("cwres", "population"))
    ]
    for row, (endpoint, part, name, predictor) in enumerate(rows):
        what = response if len(parts) == 1 else f"{response}, {endpoint}"
        values = part[name].to_numpy()
        own = axes[row * n_columns : (row + 1) * n_columns]
        _scatter(own[0], part[predictor].to_numpy(), values)
        own[0].set_xlabel(f"{predictor} prediction of {what}", fontsize=8.5)
        own[0].set_ylabel(name.upper(), fontsize=8.5)
        if over is not None:
            _scatter(own[1], part["_over"].to_numpy(), values)
            own[1].set_xlabel(xlabel, fontsize=8.5)
        _quantiles(own[-1], values)
    return figure


def _scatter(axis: Axes, places: Array, values: Array) -> None:
    for level, style in ((0.0, "-"), (-1.96, ":"), (1.96, ":")):
        axis.axhline(level, color="0.4", lw=0.9, ls=style)
    axis.plot(places, values, **_POINTS)


def _quantiles(axis: Axes, values: Array) -> None:
    """Sorted residuals against the quantiles of the standard normal."""
    normal, n = NormalDist(), values.size
    expected = [normal.inv_cdf((j + 0.5) / n) for j in range(n)]
    axis.axline((0.0, 0.0), slope=1.0, color="0.4", lw=0.9)
    axis.plot(expected, np.sort(values), **_POINTS)
    axis.set_xlabel("quantiles of the standard normal", fontsize=8.5)
