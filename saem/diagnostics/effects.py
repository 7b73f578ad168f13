"""Random effects of the individuals: draws, correlations, and what covariates say about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.diagnostics.shrinkage import random_effects_of
from saem.exceptions import DataError, OptionError
from saem.inference import individuals
from saem.nlme._occasion_tables import covariance, effect_names, effects, occasion_index

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.results import NLMEResults

__all__ = ["SOURCES", "correlations", "covariate_table", "eta_table", "subject_covariates"]

#: Where random effects are taken from.
SOURCES = ("samples", "mode")


def eta_draws(results: NLMEResults, source: str, n_samples: int, seed: int | None) -> Array:
    """Random effects, shape (n_individuals, n_draws, n_random); one draw for the modes."""
    if source not in SOURCES:
        raise OptionError(f"source={source!r} must be 'samples' or 'mode'.")
    if not results.model.random_names:
        raise OptionError("the model has no random effects.")
    if source == "mode":
        return np.asarray(results._eta_modes[:, None])
    seed = results.record.seed if seed is None else seed
    psi = individuals.samples(results.model, results.record.theta, n_samples, seed=seed)
    return random_effects_of(results.model, results.record.theta, psi)


def eta_table(
    results: NLMEResults, source: str = "samples", n_samples: int = 20, seed: int | None = None
) -> pd.DataFrame:
    """Random effects on the Gaussian scale, one row per individual and draw.

    Parameters
    ----------
    results : NLMEResults
    source : {"samples", "mode"}
        Draws from the posteriors, which are spread as the random effects are, or the modes,
        which are shrunk.
    n_samples : int
        Draws per individual.
    seed : int, optional
        That of the fit by default.

    Returns
    -------
    DataFrame
        Indexed by id and ``sample``; a column for each random effect. With inter-occasion
        variability indexed by id, occasion and ``sample``, with a column ``kappa_`` for each
        parameter that varies; the effects of the subject stand on all of its occasions.
    """
    import pandas as pd

    eta, names = eta_draws(results, source, n_samples, seed), effect_names(results.model)
    n_draws, values = eta.shape[1], effects(results.model, eta)
    if results.model.occasions is None:
        label = results._index().name
        index = pd.MultiIndex.from_product(
            [results._index(), range(n_draws)], names=[label, "sample"]
        )
    else:
        found, subjects, _ = occasion_index(results)
        first = results.model.n_subject_coords
        values = [v[subjects] for v in values[:first]] + values[first:]
        rows = [(*row, s) for row in found for s in range(n_draws)]
        index = pd.MultiIndex.from_tuples(rows, names=[*found.names, "sample"])
    columns = {name: v.ravel() for name, v in zip(names, values, strict=True)}
    return pd.DataFrame(columns, index=index)


def mean_correlation(x: Array, eta: Array) -> tuple[Array, Array]:
    """Correlation of a column with each random effect, averaged over draws, and its p-value.

    Parameters
    ----------
    x : ndarray of shape (n,) or (n, n_draws)
    eta : ndarray of shape (n, n_draws, d)

    Returns
    -------
    correlation, p_value : ndarray of shape (d,)
        The p-value of the averaged correlation is that of one draw: draws from the
        posteriors are distributed as the random effects if the model is right, so it
        errs on the safe side.
    """
    from scipy.stats import t

    x = np.broadcast_to(x.reshape(len(x), -1, 1), (*eta.shape[:2], 1))
    one, two = x - x.mean(axis=0), eta - eta.mean(axis=0)
    size = np.sqrt((one**2).sum(axis=0) * (two**2).sum(axis=0))
    r = np.divide((one * two).sum(axis=0), size, out=np.zeros_like(size), where=size > 0)
    mean = r.mean(axis=0)
    free = len(x) - 2
    with np.errstate(divide="ignore"):
        statistic = np.abs(mean) * np.sqrt(free / np.maximum(1.0 - mean**2, 1e-300))
    return mean, np.asarray(2.0 * t.sf(statistic, free))


def correlations(
    results: NLMEResults, source: str = "samples", n_samples: int = 20, seed: int | None = None
) -> pd.DataFrame:
    """Correlations between random effects; for what omega leaves out.

    Parameters
    ----------
    results, source, n_samples, seed
        As for `eta_table`.

    Returns
    -------
    DataFrame
        One row per pair: ``first``, ``second``, ``correlation`` (mean over draws), ``p_value``
        and ``model`` (the correlation in omega). With inter-occasion variability pairs of the
        deviations ``kappa_`` on an occasion follow, all occasions together (correlation in gamma).
    """
    import pandas as pd

    eta, names = eta_draws(results, source, n_samples, seed), effect_names(results.model)
    values, first = effects(results.model, eta), results.model.n_subject_coords
    omega, gamma = covariance(results)
    rows = []
    # Effects of subjects among themselves, then deviations on the same occasion.
    for start, stop, matrix in ((0, first, omega), (first, len(names), gamma)):
        for b in range(start + 1, stop):
            mean, p = mean_correlation(values[b], np.stack(values[start:b], axis=-1))
            for a in range(start, b):
                i, j = a - start, b - start
                model = matrix[i, j] / np.sqrt(matrix[i, i] * matrix[j, j])
                rows.append((names[a], names[b], mean[i], p[i], model))
    return pd.DataFrame(rows, columns=["first", "second", "correlation", "p_value", "model"])


def subject_covariates(
    results: NLMEResults, covariates: pd.DataFrame | Sequence[str] | str | None
) -> pd.DataFrame:
    """Covariates with one row per individual of the fit, in its order.

    Parameters
    ----------
    results : NLMEResults
    covariates : DataFrame or sequence of str, optional
        A frame with the fit's id column (constant within ids), or indexed by id; or names of
        covariates that the model's formulas use; all of these by default.

    Returns
    -------
    DataFrame
        Indexed by id.

    Raises
    ------
    saem.exceptions.DataError
        If a covariate is missing for an individual, or varies within one.
    """
    import pandas as pd

    data, index = results.model.individuals, results._index()
    if not isinstance(covariates, pd.DataFrame):
        names = [covariates] if isinstance(covariates, str) else covariates
        names = list(data.subjects.columns) if names is None else list(names)
        unknown = [name for name in names if name not in data.subjects.columns]
        if unknown or not names:
            what = f"{unknown[0]!r} is in no formula" if unknown else "the model has no covariates"
            raise OptionError(f"{what}. Remedy: give a frame with the ids and covariates.")
        return data.subjects[names].set_axis(index)
    label = data.names["id"]
    frame = covariates
    if label in frame.columns:
        own = {label, *(data.names[n] for n in ("dv", "time") if n in data.names)}
        frame = frame.drop(columns=[c for c in own if c != label and c in frame.columns])
        grouped = frame.groupby(label, sort=False, observed=True)
        varying = grouped.nunique(dropna=False).gt(1).any()
        if varying.any():
            raise DataError(
                f"covariate {varying.idxmax()!r} varies within individuals. Remedy: leave it out, "
                "or give one value per id."
            )
        frame = grouped.first()
    missing = [value for value in data.ids if value not in frame.index]
    if missing:
        raise DataError(f"the covariates have no row for id {missing[0]!r}.")
    frame = frame.loc[data.ids].set_axis(index)
    holes = frame.isna().any()
    if holes.any():
        raise DataError(
            f"covariate {holes.idxmax()!r} is missing for some individuals. Remedy: fill it in, or "
            "leave it out."
        )
    return frame


def is_categorical(series: pd.Series) -> bool:
    """Whether a covariate is a category (text, boolean, categorical) and not a number."""
    import pandas as pd

    numeric = pd.api.types.is_numeric_dtype(series.dtype)
    return not numeric or pd.api.types.is_bool_dtype(series.dtype)


def covariate_table(
    results: NLMEResults,
    covariates: pd.DataFrame | Sequence[str] | str | None = None,
    source: str = "samples",
    n_samples: int = 20,
    seed: int | None = None,
) -> pd.DataFrame:
    """Tests of every covariate against every random effect.

    Parameters
    ----------
    results, source, n_samples, seed
        As for `eta_table`.
    covariates : DataFrame or sequence of str, optional
        As for `subject_covariates`.

    Returns
    -------
    DataFrame
        One row per random effect and covariate: ``parameter``, ``covariate``, ``kind``
        (``"number"`` or ``"category"``), ``statistic`` (correlation, or F of an analysis of
        variance, averaged over draws) and ``p_value`` (of the averaged statistic). A
        covariate that the model has already is expected to show nothing.
    """
    import pandas as pd

    frame = subject_covariates(results, covariates)
    # A covariate of the subject says nothing about differences between its occasions.
    own = results.model.random_names[: results.model.n_subject_coords]
    eta = eta_draws(results, source, n_samples, seed)[:, :, : len(own)]
    rows: list[dict[str, Any]] = []
    for name in frame.columns:
        category = is_categorical(frame[name])
        if category:
            statistic, p = _analysis_of_variance(pd.factorize(frame[name])[0], eta)
        else:
            statistic, p = mean_correlation(frame[name].to_numpy(dtype=float), eta)
        for d, parameter in enumerate(own):
            rows.append(
                {
                    "parameter": parameter, "covariate": name,
                    "kind": "category" if category else "number",
                    "statistic": statistic[d], "p_value": p[d],
                }
            )  # fmt: skip
    return pd.DataFrame(rows).sort_values(["parameter", "p_value"], ignore_index=True)


def _analysis_of_variance(codes: Array, eta: Array) -> tuple[Array, Array]:
    """F statistics between groups, averaged over draws, and p-values; both of shape (d,)."""
    from scipy.stats import f

    n, levels = len(codes), int(codes.max()) + 1
    between_free, within_free = levels - 1, n - levels
    if between_free < 1 or within_free < 1:
        return np.full(eta.shape[2], np.nan), np.full(eta.shape[2], np.nan)
    means = np.stack([eta[codes == level].mean(axis=0) for level in range(levels)])
    within = ((eta - means[codes]) ** 2).sum(axis=0) / within_free
    between = ((means[codes] - eta.mean(axis=0)) ** 2).sum(axis=0) / between_free
    statistic = (between / within).mean(axis=0)
    return statistic, np.asarray(f.sf(statistic, between_free, within_free))
