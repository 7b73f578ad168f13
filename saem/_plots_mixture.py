"""Figures of mixtures; see `saem.plots.MixturePlots`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from saem import _draw
from saem.contract import Array
from saem.exceptions import OptionError, nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from saem.models._mixture_results import MixtureResults

__all__ = ["components"]

#: Points beyond which a scatter is a blot.
_MOST_POINTS = 5000
#: Shares of a component that its ellipses hold.
_LEVELS = (0.5, 0.95)


def components(results: MixtureResults, features: Sequence[Any] | None) -> Figure:
    """Draw the data and the fitted components; see `MixturePlots.components`."""
    names = list(results.model.feature_names)
    if features is None:
        chosen = list(range(min(2, len(names))))
    else:
        given = [features] if isinstance(features, str) else list(features)
        chosen = [_place(names, name) for name in given]
        if len(set(chosen)) != len(chosen) or len(chosen) not in (1, 2):
            raise OptionError(f"features={features!r} must name one or two different columns.")
    figure, axes = _draw.panels(1, n_columns=1, width=5.2, height=3.8)
    axis = axes[0]
    means = results.means[:, chosen]
    covariances = _matrices(results)[:, chosen][:, :, chosen]
    if len(chosen) == 1:
        _densities(axis, results, chosen[0], means[:, 0], np.sqrt(covariances[:, 0, 0]))
        axis.set_ylabel("density", fontsize=8.5)
    else:
        _ellipses(axis, results, chosen, means, covariances)
        axis.set_ylabel(names[chosen[1]], fontsize=8.5)
    axis.set_xlabel(names[chosen[0]], fontsize=8.5)
    _draw.legend_below(figure, axes)
    return figure


def _place(names: list[str], name: Any) -> int:
    if isinstance(name, int) and 0 <= name < len(names):
        return name
    if str(name) not in names:
        close = nearest(str(name), names)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise OptionError(f"{name!r} is not a column of the data.{hint}")
    return names.index(str(name))


def _matrices(results: MixtureResults) -> Array:
    """Covariance matrices of shape (k, d, d), whatever the covariance type."""
    k, d = results.means.shape
    covariances = results.covariances
    kind = results.model.covariance_type
    if kind == "tied":
        return np.broadcast_to(covariances, (k, d, d))
    if kind in ("diag", "spherical"):
        variances = np.broadcast_to(covariances.reshape(k, -1), (k, d))
        return variances[:, :, None] * np.eye(d)
    return covariances


def _label(results: MixtureResults, c: int) -> str:
    return f"component {c}, weight {results.weights[c]:.2f}"


def _data(results: MixtureResults, chosen: list[int]) -> Array:
    rows = results.model.values.reshape(-1, results.model.n_features)
    return np.asarray(rows[:, chosen] + results.model.shift[chosen])


def _densities(axis: Axes, results: MixtureResults, feature: int, means: Array, sds: Array) -> None:
    values = _data(results, [feature])[:, 0]
    bins = int(np.clip(2.0 * values.size ** (1 / 3), 10, 80))
    axis.hist(values, bins=bins, density=True, color="0.85", edgecolor="white", label="data")
    places = np.linspace(values.min(), values.max(), 400)
    each = [
        w * np.exp(-0.5 * ((places - m) / s) ** 2) / (s * math.sqrt(2.0 * math.pi))
        for w, m, s in zip(results.weights, means, sds, strict=True)
    ]
    for c, density in enumerate(each):
        colour = _draw.COLOURS[c % len(_draw.COLOURS)]
        axis.plot(places, density, color=colour, lw=1.3, label=_label(results, c))
    axis.plot(places, np.sum(each, axis=0), color="black", lw=1.0, ls="--", label="mixture")


def _ellipses(
    axis: Axes, results: MixtureResults, chosen: list[int], means: Array, covariances: Array
) -> None:
    from matplotlib.patches import Ellipse

    n = results.model.n_individuals
    # Evenly spread rows: the same picture every time.
    at = np.unique(np.linspace(0, n - 1, min(n, _MOST_POINTS)).round().astype(int))
    points, labels = _data(results, chosen)[at], results.predict()[at]
    for c, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
        colour = _draw.COLOURS[c % len(_draw.COLOURS)]
        own = points[labels == c]
        axis.plot(own[:, 0], own[:, 1], "o", ms=2.6, color=colour, alpha=0.45, mew=0)
        values, vectors = np.linalg.eigh(covariance)
        angle = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
        for level in _LEVELS:
            # Two dimensions: the squared distance is exponential with mean 2.
            radius = math.sqrt(-2.0 * math.log(1.0 - level))
            axis.add_patch(
                Ellipse(
                    (float(mean[0]), float(mean[1])),
                    2.0 * radius * math.sqrt(values[1]),
                    2.0 * radius * math.sqrt(values[0]),
                    angle=angle,
                    fill=False,
                    color=colour,
                    lw=1.2,
                )
            )
        axis.plot(*mean, "+", color=colour, ms=8, mew=1.6, label=_label(results, c))
    axis.autoscale_view()
