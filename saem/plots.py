"""Figures: how a fit went, and what it says about the data.

Functions and accessors return a matplotlib `Figure` that belongs to no session:
there is nothing to close, ``figure.savefig(path)`` writes it, and a notebook shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from saem import _draw
from saem.contract import Array
from saem.exceptions import OptionError, nearest
from saem.results import Results

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from saem.nlme.results import NLMEResults

__all__ = ["MixturePlots", "NLMEPlots", "ResultPlots", "convergence"]

_X_LABELS = {"iteration": "iteration", "epochs": "passes over the data", "seconds": "seconds"}
#: Panels beyond which a figure becomes unreadable.
_MOST_PANELS = 30
#: Individual log-likelihoods spent on a curve that the trace does not hold.
_MOST_WORK = 20_000_000


def convergence(
    results: Results | Mapping[str, Results],
    x: str = "iteration",
    y: str | Sequence[str] | None = None,
    reference: Any = None,
) -> Figure:
    """Draw the course of one fit, or of several over one another.

    Parameters
    ----------
    results : Results or mapping of str to Results
        A fit, or named fits to compare; the names stand in the legend.
    x : {"iteration", "epochs", "seconds"}
        Horizontal axis. Comparisons of algorithms want epochs or seconds.
    y : str or sequence of str, optional
        Parameters to draw, or ``"loglik"``; all parameters by default (at most 30).
    reference : mapping of str to float, Series or float, optional
        Values to mark, such as the exact estimates. With ``y="loglik"`` and a
        number, what is missing to that number is drawn on a logarithmic scale.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per parameter. For a single fit the phases of a stochastic
        approximation are shaded and the estimate is drawn as a line.

    Raises
    ------
    saem.exceptions.OptionError
        For an unknown axis or parameter, or no fit at all.
    """
    if x not in _X_LABELS:
        raise OptionError(f"x={x!r} must be one of {', '.join(map(repr, _X_LABELS))}.")
    runs = dict(results) if isinstance(results, Mapping) else {"": results}
    if not runs:
        raise OptionError("there is no fit to draw: the mapping of results is empty.")
    names, left_out = _chosen(runs, y)
    wanted = _references(reference, names)
    figure, axes = _draw.panels(len(names), n_columns=min(4, len(names)), width=2.6, height=1.9)
    single = next(iter(runs.values())) if len(runs) == 1 else None
    for axis, name in zip(axes, names, strict=True):
        gap = name == "loglik" and name in wanted
        for j, (label, run) in enumerate(runs.items()):
            places, values = _curve(run, x, name)
            if gap:
                values = wanted[name] - values
                values[values <= 0.0] = np.nan
            axis.plot(
                places, values, lw=1.1, color=_draw.COLOURS[j % len(_draw.COLOURS)], label=label
            )
        if gap:
            axis.set_yscale("log")
            _draw.title(axis, "log-likelihood still to gain")
        else:
            _draw.title(axis, "log-likelihood" if name == "loglik" else name)
            if name in wanted:
                axis.axhline(wanted[name], color="black", lw=0.9, ls=":", label="reference")
        if single is not None:
            _mark_phases(axis, single, x)
            if name in single.params.index:
                axis.axhline(single.params[name], color=_draw.COLOURS[1], lw=0.9, label="estimate")
        if _falls_far(runs, name):
            axis.set_yscale("log")
        axis.margins(x=0.02)
    _draw.outer_labels(axes, xlabel=_X_LABELS[x])
    _draw.legend_below(figure, axes)
    if left_out:
        figure.suptitle(
            f"the first {len(names)} of {len(names) + left_out} parameters; see y=", fontsize=8.5
        )
    return figure


def _chosen(runs: Mapping[str, Results], y: str | Sequence[str] | None) -> tuple[list[str], int]:
    """Names to draw, and how many are left out for want of room."""
    for label, run in runs.items():
        if not isinstance(run, Results):
            raise OptionError(f"{label!r} is a {type(run).__name__}, not the results of a fit.")
    known = list(dict.fromkeys(n for run in runs.values() for n in run.param_names))
    if y is None:
        return known[:_MOST_PANELS], max(0, len(known) - _MOST_PANELS)
    names = [y] if isinstance(y, str) else list(y)
    for name in names:
        if name not in [*known, "loglik"]:
            close = nearest(name, [*known, "loglik"])
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise OptionError(f"y={name!r} is not a parameter of the fit, nor 'loglik'.{hint}")
    return names, 0


def _references(reference: Any, names: list[str]) -> dict[str, float]:
    if reference is None:
        return {}
    if isinstance(reference, int | float | np.number):
        if len(names) != 1:
            raise OptionError("reference is one number, but several parameters are drawn.")
        return {names[0]: float(reference)}
    return {name: float(reference[name]) for name in names if name in reference}


def _curve(run: Results, x: str, name: str) -> tuple[Array, Array]:
    trace = run.trace
    places = trace[x].to_numpy(dtype=float)
    if name not in trace.columns:
        return np.empty(0), np.empty(0)
    values = trace[name].to_numpy(dtype=float).copy()
    if name != "loglik":
        return places, values
    if np.isfinite(values).any():
        # The log-likelihood of a row is that of the parameters before its step.
        shown = np.append(values[1:], np.nan)
        return places, shown
    return _loglik_curve(run, places)


def _loglik_curve(run: Results, places: Array) -> tuple[Array, Array]:
    """Log-likelihood at parameters along the trace, for models that know it exactly."""
    model: Any = run.model
    if not hasattr(model, "loglik"):
        raise OptionError(
            f"the {run.record.algorithm} fit of {model.name} keeps no log-likelihood along the "
            "way, and computing it would take long. Remedy: draw parameters instead (y=None)."
        )
    n_points = int(np.clip(_MOST_WORK // model.n_individuals, 20, 200))
    at = np.unique(np.linspace(0, places.size - 1, n_points).round().astype(int))
    params = run.record.history.params
    return places[at], np.array([model.loglik(_theta_of(model, params[i])) for i in at])


def _theta_of(model: Any, params: Array) -> Array:
    """Theta from a row of the trace."""
    if hasattr(model, "theta_of"):
        return np.asarray(model.theta_of(params))
    from saem.models._mixture_layout import has_triangles, unpack_triangles

    k, d = model.n_components, model.n_features
    covariances = params[k + k * d :].reshape(model.theta_spec.shapes["covariances"])
    if has_triangles(model.covariance_type):
        covariances = unpack_triangles(covariances, d)
    means = params[k : k + k * d].reshape(k, d)
    return np.asarray(
        model.pack_components(weights=params[:k], means=means, covariances=covariances)
    )


def _falls_far(runs: Mapping[str, Results], name: str) -> bool:
    """Whether a variance or scale crosses powers of ten, so that its end would look like 0."""
    for run in runs.values():
        if name in run.param_names and name in run.trace.columns:
            scale = run._interval_scales[run.param_names.index(name)]
            values = run.trace[name].to_numpy()
            values = values[np.isfinite(values)]
            if scale == "log" and values.size and 0.0 < 10.0 * values.min() < values.max():
                return True
    return False


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


class ResultPlots:
    """Figures of one fit, reached through ``results.plot``.

    Parameters
    ----------
    results : Results
        The fit that is drawn.
    """

    def __init__(self, results: Results) -> None:
        self._results: Any = results

    def convergence(
        self, x: str = "iteration", y: str | Sequence[str] | None = None, reference: Any = None
    ) -> Figure:
        """Draw the course of the fit; see `saem.plots.convergence`."""
        return convergence(self._results, x, y, reference)

    def __repr__(self) -> str:
        names = [name for name in dir(self) if not name.startswith("_")]
        return f"<figures of {self._results!r}: {', '.join(f'.{n}()' for n in names)}>"


class NLMEPlots(ResultPlots):
    """Figures of a nonlinear mixed-effects fit, reached through ``results.plot``.

    Parameters
    ----------
    results : Results
        The fit that is drawn.
    """

    _results: NLMEResults

    def individual_fits(
        self, n: int = 12, ids: Sequence[Any] | None = None, log: bool = False
    ) -> Figure:
        """Draw data and predictions of individuals, one panel each.

        Parameters
        ----------
        n : int
            How many individuals, the first of the data.
        ids : sequence, optional
            Which individuals instead.
        log : bool
            Logarithmic response axis.

        Returns
        -------
        matplotlib.figure.Figure
            Over time, or the first column of the structural model.
        """
        from saem._plots_nlme import individual_fits

        return individual_fits(self._results, n, ids, log)

    def observed_vs_predicted(self, log: bool = False) -> Figure:
        """Draw responses against population and individual predictions.

        Parameters
        ----------
        log : bool
            Logarithmic axes.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from saem._plots_nlme import observed_vs_predicted

        return observed_vs_predicted(self._results, log)

    def residuals(self) -> Figure:
        """Draw weighted residuals over predictions, over time, and against the normal.

        Returns
        -------
        matplotlib.figure.Figure
            Individual (IWRES) above, conditional population residuals (CWRES) below.
        """
        from saem._plots_nlme import residuals

        return residuals(self._results)


class MixturePlots(ResultPlots):
    """Figures of a mixture, reached through ``results.plot``.

    Parameters
    ----------
    results : Results
        The fit that is drawn.
    """

    def components(self, features: Sequence[Any] | None = None) -> Figure:
        """Draw the data and the fitted components.

        Parameters
        ----------
        features : sequence of str, optional
            One column (histogram with densities) or two (scatter with ellipses that hold
            50 and 95 % of a component); the first two by default.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from saem._plots_mixture import components

        return components(self._results, features)


def units_of(frame: pd.DataFrame) -> dict[str, str]:
    """Units of columns, where the data set's ``attrs`` state them."""
    units = frame.attrs.get("units", {})
    return {str(k): str(v) for k, v in units.items()} if isinstance(units, Mapping) else {}
