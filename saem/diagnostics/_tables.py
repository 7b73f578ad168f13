"""Tables of residuals, in the order and with the index of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saem.diagnostics._replicates import normal_scale
from saem.diagnostics.residuals import (
    SIMULATED,
    check_residual_options,
    conditional_residuals,
    prediction_discrepancies,
    residual_tests,
)
from saem.inference.linearisation import linearise

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from saem.nlme.results import NLMEResults

__all__ = ["residual_table", "residual_tests_table", "row_frame"]


def row_frame(results: NLMEResults, columns: dict[str, Any]) -> pd.DataFrame:
    """Stacked columns as a frame in the order of the data, ``id`` and ``time`` first."""
    import pandas as pd

    data = results.model.individuals
    first: dict[str, Any] = {"id": np.repeat(np.array(data.ids, dtype=object), data.n_obs)}
    if "time" in data.columns:
        first["time"] = data.columns["time"]
    frame = pd.DataFrame(first | columns, index=data.row_labels)
    frame["id"] = frame["id"].infer_objects()
    return frame.iloc[np.argsort(data.source_row, kind="stable")]


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
    rows = {}
    for name in names:
        values = frame[name].dropna().to_numpy(dtype=float)
        rows[name] = {
            "n": values.size,
            "sample_mean": float(values.mean()) if values.size else np.nan,
            "sample_variance": float(values.var(ddof=1)) if values.size > 1 else np.nan,
        } | {f"p_{key}": p for key, p in residual_tests(values).items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("residual")
