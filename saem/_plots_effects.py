"""Figures of random effects and covariates; see `saem.plots.NLMEPlots`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saem import _draw
from saem._plots_nlme import _POINTS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from saem.nlme.results import NLMEResults

__all__ = ["covariates", "pairs", "random_effects"]


def random_effects(results: NLMEResults, table: pd.DataFrame, source: str) -> Figure:
    """Draw distributions; see `DiagnosticPlots.random_effects`."""
    from saem.nlme._occasion_tables import covariance

    names = list(table.columns)
    figure, axes = _draw.panels(
        len(names), n_columns=min(3, len(names)), width=2.9, height=2.4, sharex=False
    )
    shrinkage = results.shrinkage
    omega = np.sqrt(np.concatenate([np.diag(matrix) for matrix in covariance(results)]))
    what = "draws" if source == "samples" else "modes"
    for axis, name, sd in zip(axes, names, omega, strict=True):
        values = table[name].to_numpy()
        if name in results.omega:  # a subject's effects stand on each of its occasions
            values = table[name].groupby(level=[0, -1], sort=False).first().to_numpy()
        axis.hist(
            values, bins=_bins(results.model.n_individuals), density=True, lw=0.5, ec="white",
            color=_draw.COLOURS[5], label=what,
        )  # fmt: skip
        end = max(3.2 * sd, np.abs(values).max())
        grid = np.linspace(-end, end, 200)
        density = np.exp(-0.5 * (grid / sd) ** 2) / (sd * np.sqrt(2.0 * np.pi))
        axis.plot(grid, density, color=_draw.COLOURS[1], lw=1.3, label="model")
        _draw.title(axis, f"{name}  (shrinkage {100 * shrinkage[name]:.0f} %)")
    _draw.outer_labels(axes, "random effect", "density")
    _draw.legend_below(figure, axes)
    return figure


def _bins(n: int) -> int:
    return int(np.clip(2.0 * np.sqrt(n), 6, 30))


def pairs(results: NLMEResults, table: pd.DataFrame, found: pd.DataFrame) -> Figure:
    """Draw pairs; see `DiagnosticPlots.random_effect_correlations`."""
    from saem.exceptions import OptionError

    if not len(found):
        raise OptionError("the model has one random effect only; there are no pairs to draw.")
    n = len(found)
    figure, axes = _draw.panels(n, n_columns=min(3, n), width=2.9, height=2.7, sharex=False)
    one = table.xs(0, level="sample")
    angle = np.linspace(0.0, 2.0 * np.pi, 100)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    for axis, (_, row) in zip(axes, found.iterrows(), strict=True):
        names = [row["first"], row["second"]]
        matrix, own = results.omega, names
        if names[0] not in matrix:  # deviations on one occasion
            matrix, own = results.gamma, [name.removeprefix("kappa_") for name in names]
        root = np.linalg.cholesky(matrix.loc[own, own].to_numpy())
        axis.plot(one[names[0]], one[names[1]], label="individuals", **_POINTS)
        for share, style in ((0.5, "-"), (0.95, "--")):
            ellipse = np.sqrt(-2.0 * np.log(1.0 - share)) * root @ circle
            axis.plot(
                *ellipse, color=_draw.COLOURS[1], ls=style, lw=1.0,
                label=f"{100 * share:.0f} % of the model",
            )  # fmt: skip
        axis.set_xlabel(names[0], fontsize=8.5)
        axis.set_ylabel(names[1], fontsize=8.5)
        _draw.title(axis, f"correlation {row['correlation']:.2f}  (p = {row['p_value']:.2g})")
    _draw.legend_below(figure, axes)
    return figure


def covariates(results: NLMEResults, given: Any, options: dict[str, Any]) -> Figure:
    """Draw random effects over covariates; see `DiagnosticPlots.covariates`."""
    from saem.diagnostics.effects import subject_covariates

    frame = subject_covariates(results, given)
    tests = results.covariate_tests(given, **options).set_index(["parameter", "covariate"])
    table = results.random_effects_table(**options)
    means = table.groupby(level=0, sort=False).mean().loc[frame.index]
    names, columns = list(results.omega), list(frame.columns)
    figure, axes = _draw.panels(
        len(names) * len(columns), n_columns=len(columns), width=2.6, height=2.0, sharex=False
    )
    for j, axis in enumerate(axes):
        name, column = names[j // len(columns)], columns[j % len(columns)]
        test = tests.loc[(name, column)]
        _effect(axis, frame[column], means[name].to_numpy(), test["kind"])
        _draw.title(axis, f"p = {test['p_value']:.2g}")
        if j % len(columns) == 0:
            axis.set_ylabel(f"random effect of {name}", fontsize=8.5)
        if j // len(columns) == len(names) - 1:
            axis.set_xlabel(str(column), fontsize=8.5)
    return figure


def _effect(axis: Axes, series: pd.Series, values: Any, kind: str) -> None:
    axis.axhline(0.0, color="0.4", lw=0.9)
    if kind == "number":
        x = series.to_numpy(dtype=float)
        axis.plot(x, values, **_POINTS)
        if np.ptp(x) > 0.0:
            slope, intercept = np.polyfit(x, values, 1)
            ends = np.array([x.min(), x.max()])
            axis.plot(ends, intercept + slope * ends, color=_draw.COLOURS[1], lw=1.2)
        return
    levels = list(dict.fromkeys(sorted(series.astype(str))))
    groups = [values[(series.astype(str) == level).to_numpy()] for level in levels]
    axis.boxplot(
        groups, widths=0.5, medianprops={"color": _draw.COLOURS[1]}, flierprops={"ms": 3.0}
    )
    axis.set_xticks(range(1, len(levels) + 1), levels)
