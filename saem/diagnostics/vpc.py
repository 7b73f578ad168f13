"""Visual predictive checks: percentiles of the data against those of simulated data sets.

Holford (2005), PAGE 14, abstract 738; with prediction correction Bergstrand, Hooker,
Wallin and Karlsson (2011), AAPS J. 13, 143-151.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array
from saem.diagnostics._replicates import check_replicates
from saem.exceptions import OptionError, Problems
from saem.nlme._continuous import require_predictions
from saem.nlme._explain import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.results import NLMEResults

__all__ = ["BINNINGS", "CORRECTIONS", "PredictiveCheck", "predictive_check"]

#: Ways to choose the edges of bins, besides edges that are given.
BINNINGS = ("quantile", "equal")
#: Prediction corrections.
CORRECTIONS = ("proportional", "additive")
#: Fewest simulated data sets for a band.
_FEWEST = 40


@dataclass(frozen=True)
class PredictiveCheck:
    """A visual predictive check; ``fit.plot.vpc`` draws it.

    Attributes
    ----------
    observed : DataFrame
        One row per stratum, bin and percentile: ``stratum``, ``bin`` (from 0), ``left`` and
        ``right`` edge, ``x`` (median place of the observations), ``n`` (observations),
        ``percentile`` (of 100) and ``value`` of the data.
    simulated : DataFrame
        The same rows, with ``lower``, ``median`` and ``upper`` of the percentile over the
        simulated data sets in place of ``value``.
    points : DataFrame
        The observations: ``stratum``, ``bin``, ``x`` and ``y`` (corrected, if the check is).
    column : str
        What x is.
    level : float
        Probability of the bands.
    correction : str or None
        Prediction correction.
    """

    observed: pd.DataFrame
    simulated: pd.DataFrame
    points: pd.DataFrame
    column: str
    level: float
    correction: str | None

    def to_frame(self) -> pd.DataFrame:
        """Observed and simulated percentiles in one table, with ``inside``."""
        frame = self.observed.assign(
            **{name: self.simulated[name] for name in ("lower", "median", "upper")}
        )
        frame["inside"] = frame["value"].between(frame["lower"], frame["upper"])
        return frame

    @property
    def inside(self) -> float:
        """Share of observed percentiles inside their bands; `level` is expected."""
        return float(self.to_frame()["inside"].mean())


def predictive_check(
    results: NLMEResults,
    column: str | None = None,
    *,
    bins: int | Sequence[float] = 8,
    binning: str = "quantile",
    percentiles: Sequence[float] = (5.0, 50.0, 95.0),
    strata: str | Mapping[Any, Any] | None = None,
    correction: str | None = None,
    lower_bound: float = 0.0,
    level: float = 0.95,
    n_simulations: int = 500,
    seed: int | None = None,
) -> PredictiveCheck:
    """Compare percentiles of the data, bin by bin, with those of simulated data sets.

    Parameters
    ----------
    results : NLMEResults
    column : str, optional
        Column of the structural model over which bins lie; time by default.
    bins : int or sequence of float
        Number of bins, or their edges in rising order; the last bin is closed.
    binning : {"quantile", "equal"}
        Edges halfway between places so that bins hold equally many observations, or edges
        at equal distances.
    percentiles : sequence of float
        Between 0 and 100.
    strata : str or mapping of id to label, optional
        A subject-level covariate of the model or a column of the structural model that is
        constant within individuals, or a label for each id. Several endpoints are always strata
        of their own.
    correction : {"proportional", "additive"}, optional
        Prediction correction: for responses above `lower_bound`, or for responses that
        are logarithms already.
    lower_bound : float
        Of the responses, for the proportional correction.
    level : float
        Probability of the bands.
    n_simulations : int
        Simulated data sets.
    seed : int, optional
        That of the fit by default.

    Returns
    -------
    PredictiveCheck

    Raises
    ------
    saem.exceptions.OptionError
        With everything that is wrong with the options.

    Notes
    -----
    A corrected response is ``l + (y - l) (m - l) / (f - l)``, f the prediction without
    random effects, m its median in the bin (and stratum), l the lower bound; ``y + m - f``
    with the additive correction (Bergstrand et al. 2011, equations 1 and 2). Rows with
    ``f = l`` stay as they are. The edges of a band are the quantiles
    ``(1 -+ level) / 2`` of the percentile over n data sets, at the places ``p (n + 1)`` of
    the order statistics: under the true model an observed percentile lies inside with
    that probability, whatever its distribution.
    """
    model = results.model
    require_predictions(model, "predictive checks")
    column = default_column(results) if column is None else column
    _check(results, column, binning, percentiles, correction, level, strata)
    check_replicates(model, n_simulations, _FEWEST)
    x, dv = model.individuals.columns[column], model.individuals.dv
    edges = bin_edges(x, bins, binning)
    place = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, edges.size - 2)
    labels, group = by_endpoint(results, *stratify(results, strata))
    simulated = results._replicates(n_simulations, seed)
    both = np.vstack([dv[None], simulated])
    if correction is not None:
        f = results._stacked_predictions("population")
        cell = group * (edges.size - 1) + place
        both = corrected(both, f, cell, correction, lower_bound)
    return _assemble(both, x, edges, place, labels, group, percentiles, column, level, correction)


def default_column(results: NLMEResults) -> str:
    """Time, or the first column of the structural model that varies."""
    from saem._plots_nlme import _axis_column

    column = _axis_column(results)
    if not column:
        raise OptionError("the structural model has no column over which bins could lie.")
    return column


def _check(
    results: NLMEResults,
    column: str,
    binning: str,
    percentiles: Sequence[float],
    correction: str | None,
    level: float,
    strata: object,
) -> None:
    data = results.model.individuals
    problems = Problems("the predictive check")
    if column not in data.columns:
        problems.add(
            f"column={column!r} is not a column of the structural model"
            f"{did_you_mean(column, list(data.columns))}",
            remedy=f"use one of {', '.join(data.columns)}",
        )
    if binning not in BINNINGS:
        problems.add(f"binning={binning!r} must be 'quantile' or 'equal'")
    if not len(percentiles) or not all(0.0 < p < 100.0 for p in percentiles):
        problems.add(f"percentiles={percentiles!r} must lie between 0 and 100")
    if correction is not None and correction not in CORRECTIONS:
        problems.add(f"correction={correction!r} must be 'proportional', 'additive' or None")
    if not 0.0 < level < 1.0:
        problems.add(f"level={level!r} must lie between 0 and 1, such as 0.95")
    if isinstance(strata, str):
        known = [*map(str, data.subjects.columns), *data.columns]
        if strata not in known:
            problems.add(
                f"strata={strata!r} is neither a covariate of the model nor a column of the "
                f"structural model{did_you_mean(strata, known)}",
                remedy="give a label for each id, such as frame.groupby('id')['sex'].first()",
            )
    problems.raise_if_any(OptionError)


def bin_edges(x: Array, bins: int | Sequence[float], binning: str = "quantile") -> Array:
    """Edges of bins that hold all places.

    Parameters
    ----------
    x : ndarray of shape (n_rows,)
    bins : int or sequence of float
        Number or edges.
    binning : {"quantile", "equal"}

    Returns
    -------
    ndarray of shape (n_bins + 1,)
        Rising. With quantiles there may be fewer bins than asked for: equal places are
        never parted, and edges lie halfway between places.
    """
    low, high = float(x.min()), float(x.max())
    if isinstance(bins, int | np.integer) and not isinstance(bins, bool):
        if bins < 1:
            raise OptionError(f"bins={bins!r} must be at least 1, or a sequence of edges.")
        if low == high:
            return np.array([low - 0.5, high + 0.5])
        if binning == "equal":
            return np.linspace(low, high, int(bins) + 1)
        places, counts = np.unique(x, return_counts=True)
        share = np.cumsum(counts)[:-1] / x.size
        # For each inner quantile the gap between places that comes nearest to it.
        wanted = np.arange(1, int(bins)) / int(bins)
        gaps = np.unique([int(np.argmin(np.abs(share - q))) for q in wanted])
        inner = 0.5 * (places[:-1] + places[1:])[gaps.astype(int)]
        return np.concatenate([[low], inner, [high]])
    edges = np.asarray(bins, dtype=float)
    if edges.ndim != 1 or edges.size < 2 or not np.all(np.diff(edges) > 0.0):
        raise OptionError(f"bins={bins!r}: edges must rise, and there must be at least two.")
    if low < edges[0] or high > edges[-1]:
        raise OptionError(
            f"bins={bins!r} leave out places from {low:g} to {high:g}. Remedy: edges that hold "
            "all of them."
        )
    return edges


def stratify(results: NLMEResults, strata: Any) -> tuple[list[Hashable], NDArray[np.int64]]:
    """Labels of the strata and the number of each row's stratum."""
    import pandas as pd

    data = results.model.individuals
    if strata is None:
        return ["all"], np.zeros(data.dv.size, dtype=np.int64)
    if isinstance(strata, str) and strata in data.subjects.columns:
        values = data.subjects[strata].tolist()
    elif isinstance(strata, str):
        own = [data.columns[strata][a:b] for a, b in data_slices(data.offsets)]
        if any(np.ptp(v) > 0.0 for v in own):
            raise OptionError(f"strata={strata!r} varies within individuals.")
        values = [float(v[0]) for v in own]
    else:
        missing = [i for i in data.ids if i not in strata]
        if missing:
            raise OptionError(f"strata has no label for id {missing[0]!r}.")
        values = [strata[i] for i in data.ids]
    codes, labels = pd.factorize(pd.Series(values), sort=True)
    if (codes < 0).any():
        raise OptionError("strata has missing labels.")
    return list(labels), np.repeat(codes.astype(np.int64), data.n_obs)


def by_endpoint(
    results: NLMEResults, labels: list[Hashable], group: NDArray[np.int64]
) -> tuple[list[Hashable], NDArray[np.int64]]:
    """Part strata by endpoint, whose responses have nothing in common."""
    endpoints = results.model.endpoints
    if endpoints.number == 1:
        return labels, group
    parted: list[Hashable] = [
        label if len(labels) == 1 else f"{endpoints.label_of(e)}, {own}"
        for own in labels
        for e, label in enumerate(endpoints.labels)
    ]
    return parted, group * endpoints.number + results.model.individuals.endpoint


def data_slices(offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First and last row of each individual."""
    return list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))


def corrected(
    responses: Array, f: Array, cell: NDArray[np.int64], correction: str, lower_bound: float
) -> Array:
    """Prediction-corrected responses.

    Parameters
    ----------
    responses : ndarray of shape (n_sets, n_rows)
    f : ndarray of shape (n_rows,)
        Predictions without random effects.
    cell : ndarray of int64, shape (n_rows,)
        Number of each row's bin.
    correction : {"proportional", "additive"}
    lower_bound : float

    Returns
    -------
    ndarray of shape (n_sets, n_rows)

    Raises
    ------
    saem.exceptions.OptionError
        If a prediction lies below the bound.
    """
    middle = np.empty_like(f)
    for number in np.unique(cell):
        rows = cell == number
        middle[rows] = np.median(f[rows])
    if correction == "additive":
        return np.asarray(responses + (middle - f))
    if (f < lower_bound).any():
        raise OptionError(
            f"predictions lie below lower_bound={lower_bound:g} (the lowest is {f.min():g}), where "
            "a proportional correction has no meaning. Remedy: a lower lower_bound, or "
            "correction='additive'."
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(f > lower_bound, (middle - lower_bound) / (f - lower_bound), 1.0)
    return np.asarray(lower_bound + (responses - lower_bound) * factor)


def _assemble(
    both: Array,
    x: Array,
    edges: Array,
    place: NDArray[np.int64],
    labels: list[Hashable],
    group: NDArray[np.int64],
    percentiles: Sequence[float],
    column: str,
    level: float,
    correction: str | None,
) -> PredictiveCheck:
    """Percentiles of data (row 0) and simulated data sets in every stratum and bin."""
    import pandas as pd

    shares = np.asarray(percentiles, dtype=float) / 100.0
    tails = [(1.0 - level) / 2.0, 0.5, (1.0 + level) / 2.0]
    observed, simulated = [], []
    for g, label in enumerate(labels):
        for b in range(edges.size - 1):
            rows = (group == g) & (place == b)
            if not rows.any():
                continue
            found = np.quantile(both[:, rows], shares, axis=1)
            bands = np.quantile(found[:, 1:], tails, axis=1, method="weibull")
            for j, percentile in enumerate(percentiles):
                cell = {
                    "stratum": label, "bin": b, "left": edges[b], "right": edges[b + 1],
                    "x": float(np.median(x[rows])), "n": int(rows.sum()),
                    "percentile": float(percentile),
                }  # fmt: skip
                observed.append(cell | {"value": found[j, 0]})
                simulated.append(
                    cell | dict(zip(("lower", "median", "upper"), bands[:, j], strict=True))
                )
    points = pd.DataFrame(
        {"stratum": np.array(labels, dtype=object)[group], "bin": place, "x": x, "y": both[0]}
    )
    points["stratum"] = points["stratum"].infer_objects()
    frames = pd.DataFrame(observed), pd.DataFrame(simulated)
    return PredictiveCheck(*frames, points, column, level, correction)
