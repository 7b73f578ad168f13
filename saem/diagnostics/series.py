"""Quantiles and autocorrelations of residuals."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from saem.exceptions import OptionError

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.results import NLMEResults

__all__ = ["autocorrelation_table", "columns_by_endpoint", "quantile_table", "titles_by_endpoint"]


def titles_by_endpoint(results: NLMEResults, kinds: Sequence[str]) -> dict[tuple[str, int], str]:
    """Name of each kind of residual of each endpoint: ``"iwres"``, or ``"iwres cp"`` of several.

    Parameters
    ----------
    results : NLMEResults
    kinds : sequence of str

    Returns
    -------
    dict of (str, int) to str
    """
    endpoints = results.model.endpoints
    return {
        (kind, e): kind if endpoints.number == 1 else f"{kind} {endpoints.label_of(e)}"
        for kind in kinds
        for e in range(endpoints.number)
    }


def columns_by_endpoint(
    results: NLMEResults, frame: pd.DataFrame, kinds: Sequence[str]
) -> pd.DataFrame:
    """Residuals with a column for each kind and endpoint, missing in the rows of the others.

    Parameters
    ----------
    results : NLMEResults
    frame : DataFrame
        Residuals, in the order of the data.
    kinds : sequence of str
        Columns of the frame.

    Returns
    -------
    DataFrame
    """
    import pandas as pd

    code = results.model.individuals.endpoint[results.model.individuals.file_order]
    titles = titles_by_endpoint(results, kinds)
    columns = {name: frame[kind].where(code == e) for (kind, e), name in titles.items()}
    return pd.DataFrame(columns, index=frame.index)


def quantile_table(frame: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Sorted residuals beside the quantiles of the standard normal.

    Parameters
    ----------
    frame : DataFrame
        A column for each kind of residual.
    level : float
        Probability of the band of each order statistic.

    Returns
    -------
    DataFrame
        ``residual``, ``expected`` (quantile at ``(j - 0.5) / n``), ``value``, ``lower`` and
        ``upper``: the band of the j-th of n independent standard normal numbers, whose
        probability is Beta(j, n + 1 - j).
    """
    import pandas as pd
    from scipy.special import ndtri
    from scipy.stats import beta

    if not 0.0 < level < 1.0:
        raise OptionError(f"level={level!r} must lie between 0 and 1, such as 0.95.")
    parts = []
    for name in frame.columns:
        values = np.sort(frame[name].dropna().to_numpy(dtype=float))
        n = values.size
        place = np.arange(1, n + 1)
        ends = [beta.ppf(q, place, n + 1 - place) for q in ((1 - level) / 2, (1 + level) / 2)]
        parts.append(
            pd.DataFrame(
                {
                    "residual": name,
                    "expected": ndtri((place - 0.5) / n),
                    "value": values,
                    "lower": ndtri(ends[0]),
                    "upper": ndtri(ends[1]),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def autocorrelation_table(
    results: NLMEResults, frame: pd.DataFrame, kinds: Sequence[str], max_lag: int
) -> pd.DataFrame:
    """Correlation of residuals of an individual that are so many observations apart.

    Parameters
    ----------
    results : NLMEResults
        Tells which rows belong together; within an individual they are ordered by time if
        there is one.
    frame : DataFrame
        Residuals, in the order of the data.
    kinds : sequence of str
        Columns of the frame.
    max_lag : int

    Returns
    -------
    DataFrame
        ``residual``, ``lag``, ``autocorrelation``, ``n_pairs``, ``lower`` and ``upper``
        (95 % band of independent residuals, ``-+1.96 / sqrt(n_pairs)``). Residuals are compared
        with 0, not with means of individuals.
    """
    import pandas as pd

    if not max_lag >= 1:
        raise OptionError(f"max_lag={max_lag!r} must be at least 1.")
    data = results.model.individuals
    back = np.argsort(data.file_order, kind="stable")
    rows = []
    for (kind, e), name in titles_by_endpoint(results, kinds).items():
        stacked = frame[kind].to_numpy(dtype=float)[back]
        own = []
        for a, b in itertools.pairwise(data.offsets):
            mine = data.endpoint[a:b] == e
            values = stacked[a:b][mine]
            if "time" in data.columns:
                values = values[np.argsort(data.columns["time"][a:b][mine], kind="stable")]
            own.append(values)
        for lag in range(1, max_lag + 1):
            pairs = [(v[:-lag], v[lag:]) for v in own if v.size > lag]
            if not pairs:
                break
            first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
            known = np.isfinite(first) & np.isfinite(second)
            first, second = first[known], second[known]
            size = np.sqrt((first @ first) * (second @ second))
            bound = 1.96 / np.sqrt(max(1, first.size))
            value = float(first @ second / size) if size > 0 else np.nan
            rows.append((name, lag, value, first.size, -bound, bound))
    names = ["residual", "lag", "autocorrelation", "n_pairs", "lower", "upper"]
    return pd.DataFrame(rows, columns=names)
