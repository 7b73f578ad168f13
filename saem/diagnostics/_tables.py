"""Tables of residuals, in the order and with the index of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saem.diagnostics.residuals import (
    SIMULATED,
    check_residual_options,
    conditional_residuals,
    prediction_discrepancies,
    residual_tests,
)
from saem.inference.linearisation import linearise
from saem.nlme._rows import endpoint_labels, normal_scale
from saem.nlme.endpoints import DVID

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from saem.nlme.results import NLMEResults

__all__ = ["by_endpoint", "residual_table", "residual_tests_table", "row_frame"]


def row_frame(results: NLMEResults, columns: dict[str, Any]) -> pd.DataFrame:
    """Stacked columns as a frame in the order of the data; ``id``, ``time``, ``dvid`` first."""
    import pandas as pd

    data = results.model.individuals
    first: dict[str, Any] = {"id": np.repeat(np.array(data.ids, dtype=object), data.n_obs)}
    if "time" in data.columns:
        first["time"] = data.columns["time"]
    labels = endpoint_labels(results.model)
    if labels is not None:
        first[DVID] = labels
    frame = pd.DataFrame(first | columns, index=data.row_labels)
    for name in frame.columns.intersection(["id", DVID]):
        frame[name] = frame[name].infer_objects()
    return frame.iloc[data.file_order]


def residual_table(
    results: NLMEResults,
    kinds: str | Sequence[str],
    n_simulations: int,
    decorrelation: str,
    seed: int | None,
) -> pd.DataFrame:
    """Residuals row by row; see `NLMEResults.residuals`."""
    model, theta = results.model, results.record.theta
    names = check_residual_options(kinds, decorrelation, model, n_simulations)
    columns: dict[str, Any] = {
        "dv": model.individuals.dv,
        "population": results._stacked_predictions("population"),
        "individual": results._stacked_predictions("individual"),
    }
    if {"iwres", "cwres"} & set(names):
        lin = linearise(model, theta, modes=results._modes)
        if "iwres" in names:
            response = normal_scale(model, model.individuals.dv)
            columns["iwres"] = (response - lin.f) / np.sqrt(lin.variance)
        if "cwres" in names:
            columns["cwres"] = conditional_residuals(model, theta, lin)
    wanted = [name for name in names if name in SIMULATED]
    if wanted:
        simulated = results._replicates(n_simulations, seed)
        found = prediction_discrepancies(model, simulated, decorrelation)
        columns |= {name: getattr(found, name) for name in wanted}
    return row_frame(results, columns)


def residual_tests_table(
    results: NLMEResults,
    kinds: str | Sequence[str],
    n_simulations: int,
    decorrelation: str,
    seed: int | None,
) -> pd.DataFrame:
    """Moments and tests of residuals; see `NLMEResults.residual_tests`."""
    import pandas as pd

    names = check_residual_options(kinds, decorrelation, results.model, n_simulations)
    frame = residual_table(results, names, n_simulations, decorrelation, seed)
    parts = by_endpoint(results, frame)
    rows = {}
    for label, part in parts.items():
        for name in names:
            values = part[name].dropna().to_numpy(dtype=float)
            rows[(name, label)] = {
                "n": values.size,
                "sample_mean": float(values.mean()) if values.size else np.nan,
                "sample_variance": float(values.var(ddof=1)) if values.size > 1 else np.nan,
            } | {f"p_{key}": p for key, p in residual_tests(values).items()}
    table = pd.DataFrame(list(rows.values()))
    if len(parts) == 1:
        table.index = pd.Index([name for name, _ in rows], name="residual")
    else:
        table.index = pd.MultiIndex.from_tuples(list(rows), names=["residual", DVID])
    return table


def by_endpoint(results: NLMEResults, frame: pd.DataFrame) -> dict[Any, pd.DataFrame]:
    """Rows of each endpoint of a table of `row_frame`; all rows where there is one only."""
    endpoints = results.model.endpoints
    if endpoints.number == 1:
        return {"all": frame}
    codes = results.model.individuals.endpoint[results.model.individuals.file_order]
    return {label: frame[codes == e] for e, label in enumerate(endpoints.labels)}
