"""Forecasts for subjects that were not in the fit, with or without observations of theirs."""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from saem.contract import Array
from saem.diagnostics._replicates import generator
from saem.exceptions import DataError, OptionError, Problems
from saem.inference import individuals
from saem.inference._visits import find_modes
from saem.inference.linearisation import to_psi
from saem.nlme._columns import Report, numeric
from saem.nlme._continuous import require_predictions
from saem.nlme._endpoint_column import sorted_by_endpoint
from saem.nlme._new_data import _columns, _covariates, _require, check_labels, endpoints_of
from saem.nlme._occasion_tables import recounted
from saem.nlme._replicates import _with
from saem.nlme._rows import respond_at
from saem.nlme._values import subject_frame
from saem.nlme.endpoints import DVID
from saem.nlme.occasions import COLUMN

if TYPE_CHECKING:
    from saem.nlme.model import NLME
    from saem.nlme.results import NLMEResults

__all__ = ["INTERVALS", "forecast"]

#: What an interval is for.
INTERVALS = ("prediction", "confidence")


@dataclass(frozen=True)
class _NewSubjects:
    """Checked rows of new subjects, stacked by subject."""

    ids: list[Hashable]
    order: NDArray[np.int64]  # file positions of the stacked rows
    offsets: NDArray[np.int64]
    columns: Array
    dv: Array  # NaN where there is none
    endpoint: NDArray[np.int64]
    design: Array


def forecast(
    results: NLMEResults,
    data: pd.DataFrame,
    *,
    level: float = 0.9,
    interval: str = "prediction",
    n_samples: int = 500,
    seed: int | None = None,
) -> pd.DataFrame:
    """Predict new subjects from what is known of them; also `NLMEResults.forecast`.

    Parameters
    ----------
    results : NLMEResults
        Gives model and population parameters, which are taken as known.
    data : DataFrame
        Rows with the columns of the fit; where the response is given it is an observation.
    level : float
        Probability of the interval.
    interval : {"prediction", "confidence"}
        With or without residual error.
    n_samples : int
        Draws of each subject's parameters: from the posterior given its observations by
        Markov chains, from the population without any.
    seed : int, optional
        That of the fit by default.

    Returns
    -------
    DataFrame
        See `NLMEResults.forecast`.

    Raises
    ------
    saem.exceptions.DataError
        If a column is missing or not numeric, or covariates vary within a subject.
    saem.exceptions.OptionError
        If an option is out of range.
    """
    require_predictions(results.model, "forecasts")
    problems = Problems("the forecast")
    if not 0.0 < level < 1.0:
        problems.add(f"level={level!r} must lie between 0 and 1, such as 0.9")
    if interval not in INTERVALS:
        problems.add(f"interval={interval!r} must be 'prediction' or 'confidence'")
    if not n_samples >= 20:
        problems.add(f"n_samples={n_samples!r} must be at least 20")
    problems.raise_if_any(OptionError)
    model, theta = results.model, results.record.theta
    seed = results.record.seed if seed is None else seed
    subjects = _read(results, data)
    if model.occasions is not None:
        at = model.structural.columns.index(COLUMN)
        model, theta = recounted(model, theta, int(subjects.columns[at].max()) + 1)
    rng = generator(seed, 2)
    best, draws = _population(model, theta, subjects.design, n_samples, rng)
    known = np.isfinite(subjects.dv)
    counts = np.add.reduceat(known.astype(np.int64), subjects.offsets[:-1])
    seen = np.flatnonzero(counts)
    if seen.size:
        observed = _observed_model(model, subjects, known, seen)
        random = find_modes(observed, theta).phi
        phi = subjects.design[seen] @ model.theta_spec.view(theta)["beta"]
        phi[:, model.theta_spec.view(theta)["parameter"].astype(int)] = random
        best[seen] = to_psi(model, phi)
        draws[seen] = individuals.samples(observed, theta, n_samples, seed=seed)
    prediction = np.empty(subjects.dv.size)
    f = np.empty((n_samples, subjects.dv.size))
    for i, (a, b) in enumerate(itertools.pairwise(subjects.offsets)):
        own = np.ascontiguousarray(subjects.columns[:, a:b])
        prediction[a:b] = model.structural.predict(best[i], own)
        for k in range(n_samples):
            f[k, a:b] = model.structural.predict(draws[i, k], own)
    if interval == "prediction":
        f = respond_at(model, theta, f, rng.standard_normal(f.shape), subjects.endpoint)
    lower, median, upper = np.quantile(f, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)
    return _table(results, data, subjects, counts, prediction, median, lower, upper)


def _read(results: NLMEResults, frame: object) -> _NewSubjects:
    """Check the frame and stack its rows by subject; all problems in one message."""
    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            f"the new data are a {type(frame).__name__}, not a pandas DataFrame. Remedy: give a "
            "frame with the columns of the fit."
        )
    if not len(frame):
        raise DataError("the new data have no rows. Remedy: give the times to predict at.")
    report, names = Report(frame.index), results.model.individuals.names
    codes_of_rows = endpoints_of(results, frame, report)
    columns = _columns(results, frame, report, codes_of_rows)
    needed = [str(label) for label in _covariates(results)]
    occasions = results.model.occasions
    keys = [names["id"], *needed] + ([] if occasions is None else [occasions.label])
    present = [_require(frame, label, report) for label in keys]
    dv = _responses(results, frame, report, codes_of_rows)
    if not all(present):
        report.finish(stacklevel=3)
    codes, uniques = pd.factorize(frame[names["id"]])
    if (codes < 0).any():
        report.data.add(
            f"id column {names['id']!r} is missing in {int((codes < 0).sum())} rows",
            remedy="give every row an id",
        )
        report.finish(stacklevel=3)
    if occasions is not None:
        check_labels(frame, occasions.label, report)
        report.finish(stacklevel=3)
        at = results.model.structural.columns.index(COLUMN)
        columns[at] = _occasions_of(codes, frame[occasions.label])
    order = np.argsort(codes, kind="stable").astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(codes))]).astype(np.int64)
    order = sorted_by_endpoint(order, offsets, codes_of_rows)
    design = np.ones((len(uniques), 1))
    if needed:
        own = subject_frame(frame, needed, order, offsets, report)
        report.finish(stacklevel=3)
        assert own is not None
        design = results.model.individuals.design.apply(own)
    report.finish(stacklevel=3)
    return _NewSubjects(
        uniques.tolist(), order, offsets, columns[:, order], dv[order], codes_of_rows[order], design
    )


def _occasions_of(subjects: NDArray[np.int64], labels: pd.Series) -> Array:
    """Number of each row's occasion within its subject, by first appearance."""
    numbers = np.zeros(len(subjects))
    for i in range(subjects.max() + 1):
        own = np.flatnonzero(subjects == i)
        numbers[own] = pd.factorize(labels.iloc[own])[0]
    return numbers


def _responses(
    results: NLMEResults, frame: pd.DataFrame, report: Report, endpoint: NDArray[np.int64]
) -> Array:
    """Responses of the frame, NaN in rows without one; checked."""
    label = results.model.individuals.names["dv"]
    if label not in frame.columns:
        return np.full(len(frame), np.nan)
    if frame[label].isna().all():
        return np.full(len(frame), np.nan)
    values = numeric(frame, label, report)
    if values is None:
        return np.full(len(frame), np.nan)
    bad = np.isinf(values)
    rule = "is infinite"
    positive = results.model.endpoints.positive[endpoint]
    if (positive & (values <= 0.0)).any():
        bad |= positive & (values <= 0.0)
        rule = "is not positive, as the exponential error needs, or infinite"
    if bad.any():
        report.data.add(
            f"response {label!r} {rule}: {report.rows(bad, values)}",
            remedy="leave it empty where there is no observation",
        )
    return np.where(bad, np.nan, values)


def _population(
    model: NLME, theta: Array, design: Array, n_samples: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Natural parameters without random effects, and draws with them."""
    view = model.theta_spec.view(theta)
    phi = design @ view["beta"]
    eta = rng.standard_normal((len(phi), n_samples, model.n_coords)) @ view["chol"].T
    drawn = np.repeat(phi[:, None], n_samples, axis=1)
    drawn[:, :, view["parameter"].astype(int)] += eta
    return to_psi(model, phi), to_psi(model, drawn)


def _observed_model(
    model: NLME, subjects: _NewSubjects, known: NDArray[np.bool_], seen: NDArray[np.int64]
) -> NLME:
    """The model of the fit on the observed rows of the new subjects."""
    data = model.individuals
    counts = np.add.reduceat(known.astype(np.int64), subjects.offsets[:-1])[seen]
    chosen = replace(
        data,
        ids=[subjects.ids[i] for i in seen],
        n_obs=counts,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        dv=subjects.dv[known],
        endpoint=subjects.endpoint[known],
        columns=dict(zip(model.structural.columns, subjects.columns[:, known], strict=True)),
        source_row=np.arange(int(counts.sum())),
        row_labels=pd.RangeIndex(int(counts.sum())),
        design=replace(data.design, matrix=subjects.design[seen]),
        subjects=pd.DataFrame(index=range(seen.size)),
    )
    return _with(model, chosen)


def _table(
    results: NLMEResults,
    frame: pd.DataFrame,
    subjects: _NewSubjects,
    counts: NDArray[np.int64],
    *columns: Array,
) -> pd.DataFrame:
    """Forecasts in the order and with the index of the frame."""
    names = results.model.individuals.names
    back = np.argsort(subjects.order, kind="stable")
    out = pd.DataFrame(index=frame.index)
    for name in ("id", "time", DVID):
        if names.get(name) in frame.columns:
            out[name] = frame[names[name]]
    out["dv"] = subjects.dv[back]
    out["n_observed"] = np.repeat(counts, np.diff(subjects.offsets))[back]
    for name, values in zip(("prediction", "median", "lower", "upper"), columns, strict=True):
        out[name] = values[back]
    return out
