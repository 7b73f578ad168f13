"""What `saem.plots.convergence` draws: arguments checked, curves computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saem.contract import Array
from saem.exceptions import OptionError, Problems, nearest
from saem.results import Results

__all__ = ["Course", "Panel", "read"]

_X = ("iteration", "epochs", "seconds")
#: Quantities beside the parameters.
_LOGLIK, _GAP, _DISTANCE = "loglik", "loglik gap", "distance"
_QUANTITIES = (_LOGLIK, _GAP, _DISTANCE)
#: Panels beyond which a figure becomes unreadable.
_MOST_PANELS = 30
#: Letters of parameters' names that a title has room for.
_LONGEST = 24
#: Individual log-likelihoods spent on a curve that the trace does not hold.
_MOST_WORK = 20_000_000


@dataclass(frozen=True)
class Panel:
    """One quantity and the curves of all runs.

    Attributes
    ----------
    quantity : str
        Parameter, or one of "loglik", "loglik gap", "distance".
    label : str
        What stands above the panel.
    curves : dict
        Name -> one pair (places, values) per run.
    reference : float or None
        Level to mark.
    log_y : bool
        Whether the quantity wants a logarithmic axis.
    """

    quantity: str
    label: str
    curves: dict[str, list[tuple[Array, Array]]]
    reference: float | None
    log_y: bool


@dataclass(frozen=True)
class Course:
    """What a call of `convergence` asks for, read and checked.

    Attributes
    ----------
    x : str
        Column of the trace.
    runs : dict
        Name -> results of its runs.
    panels : list of Panel
    left_out : int
        Parameters that found no room.
    """

    x: str
    runs: dict[str, list[Results]]
    panels: list[Panel]
    left_out: int


def read(
    results: Any,
    x: str,
    y: str | Sequence[str] | None,
    reference: Any,
    params: Sequence[str] | None,
) -> Course:
    """Check the arguments, all of them, and compute the curves.

    Raises
    ------
    OptionError
        Naming every problem, and what there is to choose from.
    """
    problems = Problems("the figure")
    runs = _runs(results, problems)
    column = "iteration" if x == "iterations" else x
    if column not in _X:
        problems.add(f"x={x!r} must be one of {', '.join(map(repr, _X))}")
    problems.raise_if_any(OptionError)
    known = list(dict.fromkeys(n for group in runs.values() for r in group for n in r.param_names))
    names, left_out = _names(y, known, problems)
    chosen = _chosen(params, known, runs, names, problems)
    problems.raise_if_any(OptionError)
    levels = _levels(reference, names, chosen, problems)
    problems.raise_if_any(OptionError)
    panels = [_panel(name, runs, column, chosen, levels, reference) for name in names]
    return Course(column, runs, panels, left_out)


def _runs(results: Any, problems: Problems) -> dict[str, list[Results]]:
    """Runs by name; a fit alone has the empty name."""
    named = dict(results) if isinstance(results, Mapping) else {"": results}
    if not named:
        problems.add("there is no fit to draw: the mapping of results is empty")
    runs: dict[str, list[Results]] = {}
    for name, value in named.items():
        group = list(value) if isinstance(value, list | tuple) else [value]
        if not group:
            problems.add(f"{name!r} is an empty list: it needs the results of at least one fit")
        for item in group:
            if not isinstance(item, Results):
                kind = type(item).__name__
                problems.add(f"{name!r} is or holds a {kind}, which is not the results of a fit")
        runs[str(name)] = group
    return runs


def _unknown(what: str, name: Any, known: Sequence[str], also: str = "") -> str:
    close = nearest(str(name), known)
    hint = f". Did you mean {' or '.join(map(repr, close))}?" if close else "."
    shown = ", ".join(known[:_MOST_PANELS]) + (", ..." if len(known) > _MOST_PANELS else "")
    return f"{what}={name!r} is not a parameter of the fit{also}{hint} There are {shown}"


def _names(
    y: str | Sequence[str] | None, known: list[str], problems: Problems
) -> tuple[list[str], int]:
    """Quantities to draw, and how many are left out for want of room."""
    if y is None:
        return known[:_MOST_PANELS], max(0, len(known) - _MOST_PANELS)
    names = [y] if isinstance(y, str) else list(y)
    if not names:
        problems.add("y is empty: it needs a parameter, 'loglik', 'loglik gap' or 'distance'")
    for name in names:
        if name not in known and name not in _QUANTITIES:
            also = ", nor 'loglik', 'loglik gap' or 'distance'"
            problems.add(_unknown("y", name, [*known, *_QUANTITIES], also))
    return names, 0


def _chosen(
    params: Sequence[str] | None,
    known: list[str],
    runs: Mapping[str, list[Results]],
    names: list[str],
    problems: Problems,
) -> list[str]:
    """Parameters that the distance is made of."""
    if params is None:
        chosen = known
    else:
        chosen = [params] if isinstance(params, str) else list(params)
        if not chosen:
            problems.add("params is empty: the distance needs at least one parameter")
        if _DISTANCE not in names:
            problems.add("params chooses the parameters of y='distance', which is not drawn")
        for name in chosen:
            if name not in known:
                problems.add(_unknown("params", name, known))
    if _DISTANCE in names:
        for label, group in runs.items():
            lacking = [n for n in chosen if n in known and any(n not in r.trace for r in group)]
            if lacking:
                problems.add(
                    f"{label!r} has no {', '.join(lacking)}, of which the distance is made",
                    remedy="choose parameters that all fits have by params=[...]",
                )
    return chosen


def _levels(
    reference: Any, names: list[str], chosen: list[str], problems: Problems
) -> dict[str, float]:
    """Reference values by name: parameters, and "loglik" where it is known."""
    levels: dict[str, float] = {}
    if isinstance(reference, Results):
        levels = {str(k): float(v) for k, v in reference.params.items()}
        if _LOGLIK in names or _GAP in names:
            levels[_LOGLIK] = reference.llf
    elif isinstance(reference, int | float | np.number) and not isinstance(reference, bool):
        if len(names) != 1:
            problems.add("reference is one number, but several parameters are drawn")
        elif names[0] == _DISTANCE and len(chosen) != 1:
            problems.add(
                "reference is one number, but the distance is made of several parameters",
                remedy="pass results, a mapping or a Series, or choose one by params=[...]",
            )
        else:
            key = _LOGLIK if names[0] == _GAP else names[0]
            levels = {chosen[0] if key == _DISTANCE else key: float(reference)}
    elif hasattr(reference, "keys"):
        levels = {str(k): float(reference[k]) for k in reference.keys()}
    elif reference is not None:
        values = np.asarray(reference, dtype=float).ravel()
        if values.size != len(chosen):
            problems.add(
                f"reference holds {values.size} numbers, but there are {len(chosen)} parameters: "
                f"{', '.join(chosen[:_MOST_PANELS])}"
            )
        else:
            levels = dict(zip(chosen, values.tolist(), strict=True))
    if _DISTANCE in names and not problems:
        lacking = [name for name in chosen if not np.isfinite(levels.get(name, np.nan))]
        if lacking:
            problems.add(
                f"y='distance' needs a reference value of {', '.join(lacking[:_MOST_PANELS])}",
                remedy="pass reference= results, a mapping or Series, or an array of all of them, "
                "or leave parameters out by params=[...]",
            )
    return levels


def _panel(
    name: str,
    runs: Mapping[str, list[Results]],
    x: str,
    chosen: list[str],
    levels: Mapping[str, float],
    reference: Any,
) -> Panel:
    """Compute the curves of one quantity."""
    level = levels.get(_LOGLIK if name == _GAP else name)
    if name == _DISTANCE:
        goal = np.array([levels[n] for n in chosen])
        curves = {k: [_distance(r, x, chosen, goal) for r in g] for k, g in runs.items()}
        which = ", ".join(chosen)
        if len(which) > _LONGEST:
            which = f"{len(chosen)} parameters"
        return Panel(name, f"squared distance of {which}", curves, None, True)
    curves = {k: [_curve(r, x, name) for r in group] for k, group in runs.items()}
    # A number, or a mapping that holds "loglik": what is missing to it is drawn.
    missing = name == _LOGLIK and level is not None and not isinstance(reference, Results)
    if name == _GAP or missing:
        label = "log-likelihood still to gain (nats)"
        if level is None:
            every = [v for group in curves.values() for _, v in group]
            level = float(np.nanmax(np.concatenate(every)))
            label = "log-likelihood below the best of the runs (nats)"
        curves = {k: [(p, level - v) for p, v in group] for k, group in curves.items()}
        return Panel(name, label, curves, None, True)
    if name == _LOGLIK:
        return Panel(name, "log-likelihood (nats)", curves, level, False)
    return Panel(name, name, curves, level, _falls_far(runs, name))


def _distance(run: Results, x: str, chosen: list[str], goal: Array) -> tuple[Array, Array]:
    """Squared distance of parameters to a goal along a run."""
    trace = run.trace
    values = np.square(trace[chosen].to_numpy(dtype=float) - goal).sum(axis=1)
    return trace[x].to_numpy(dtype=float), values


def _curve(run: Results, x: str, name: str) -> tuple[Array, Array]:
    """Places and values of a parameter or the log-likelihood along a run."""
    trace = run.trace
    places = trace[x].to_numpy(dtype=float)
    if name not in (_LOGLIK, _GAP):
        if name not in trace.columns:
            return np.empty(0), np.empty(0)
        return places, trace[name].to_numpy(dtype=float).copy()
    values = trace[_LOGLIK].to_numpy(dtype=float)
    if np.isfinite(values).any():
        # The log-likelihood of a row is that of the parameters before its step.
        return places, np.append(values[1:], np.nan)
    return _loglik_curve(run, places)


def _loglik_curve(run: Results, places: Array) -> tuple[Array, Array]:
    """Log-likelihood at parameters along the trace, for models that know it exactly."""
    model: Any = run.model
    mixture = hasattr(model, "pack_components") and hasattr(model, "covariance_type")
    if not (hasattr(model, "loglik") and (hasattr(model, "theta_of") or mixture)):
        raise OptionError(
            f"the {run.record.algorithm} fit of {model.name} keeps no log-likelihood along the "
            "way, and computing it would take long. Remedy: draw parameters instead (y=None), or "
            "y='distance' to a reference."
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


def _falls_far(runs: Mapping[str, list[Results]], name: str) -> bool:
    """Whether a variance or scale crosses powers of ten, so that its end would look like 0."""
    for run in (r for group in runs.values() for r in group):
        if name in run.param_names and name in run.trace.columns:
            scale = run._interval_scales[run.param_names.index(name)]
            values = run.trace[name].to_numpy()
            values = values[np.isfinite(values)]
            if scale == "log" and values.size and 0.0 < 10.0 * values.min() < values.max():
                return True
    return False
