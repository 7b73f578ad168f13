"""Replicates of a mixture's fit: samples, refits, and their labels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.exceptions import ConvergenceWarning, FitError, OptionError, SaemWarning
from saem.inference._mixture_labels import Match, component_entries, match, permuted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Bootstrap", "draw_rows", "generator", "refit", "relabelling", "resample"]

#: A match is ambiguous if its lead over the next best is less than this: of cosines, of
#: which two clearly separate components give 2; or of nats of distance.
AMBIGUOUS = {"posterior": 0.1, "parameters": 3.0}


def generator(seed: int, replicate: int) -> np.random.Generator:
    """Random numbers of one replicate, whatever the others."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(replicate,)))


def draw_rows(model: Any, theta: Array, rng: np.random.Generator) -> Any:
    """Rows drawn from a model, as many as its weights sum up to.

    They lack the values that the model's own rows lack.
    """
    total = float(getattr(model, "total_weight", model.n_individuals))
    X = model.sample(theta, round(total), rng)[0]
    if getattr(model, "n_missing", 0):
        if getattr(model, "row_weights", None) is not None:
            raise OptionError(
                "rows with weights and missing values cannot be drawn anew: which row lacks what "
                "is not known. Remedy: kind='nonparametric'."
            )
        X = np.where(np.isnan(model.rows), np.nan, X)
    return X


def resample(model: Any, rng: np.random.Generator) -> Any:
    """Return the model with its rows drawn with replacement, by weights that count them."""
    weights = getattr(model, "row_weights", None)
    n = model.n_individuals
    share = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
    total = n if weights is None else round(float(weights.sum()))
    return model.reweighted(rng.multinomial(total, share).astype(float))


def refit(model: Any, **options: Any) -> Any:
    """Fit without warnings; None where it failed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", SaemWarning)
        try:
            fit = model.fit(progress=False, **options)
        except FitError:
            return None
    return fit if np.all(np.isfinite(fit.params.to_numpy())) else None


def relabelling(
    model: Any, reference: Array, theta: Array, by: str, scale: Array | None
) -> tuple[Match, Array]:
    """Match a fit's components to those of a reference; its parameters in their order.

    Parameters
    ----------
    model : Model
        Whose rows decide where `by` is ``"posterior"``.
    reference, theta : ndarray
        Packed parameters.
    by : {"posterior", "parameters"}
        Cosine between the posterior probabilities of the rows in both components, so that
        small components count as much as large ones; or minus half the squared distance
        of their parameters, in units of `scale`.
    scale : ndarray or None
        Standard errors of the reference, for ``"parameters"``.
    """
    params = np.asarray(model.params_of(theta))
    entries = component_entries(model.param_names, model.n_components)
    if by == "posterior":
        weights = getattr(model, "row_weights", None)
        ours, theirs = (model.posterior(t)[0] for t in (reference, theta))
        w = np.ones(len(ours)) if weights is None else weights
        gain = (w[:, None] * ours).T @ theirs
        gain /= np.sqrt(np.outer(w @ ours**2, w @ theirs**2))
    else:
        assert scale is not None
        known = np.isfinite(scale[entries]).all(axis=0) & (scale[entries] > 0.0).all(axis=0)
        own = entries[:, known]
        target = np.asarray(model.params_of(reference))
        gap = (params[own][None] - target[own][:, None]) / scale[own][:, None]
        gain = -0.5 * np.square(gap).sum(axis=2)
    found = match(gain)
    return found, permuted(params, entries, found.order)


@dataclass(frozen=True)
class Bootstrap:
    """Replicates of a mixture's estimates, with components matched to those of the fit.

    Attributes
    ----------
    estimate : Series
        Of the fit.
    replicates : DataFrame of shape (n_replicates, n_names)
        One row per replicate, relabelled; NaN where the refit failed.
    matches : DataFrame
        Columns ``gain``, ``margin`` (lead of the best assignment over the next best),
        ``switched`` (whether components changed places) and ``ambiguous``.
    kind : str
        ``"parametric"`` or ``"nonparametric"``.
    by : str
        What components were matched by.
    seed : int
        Replicate number b depends on the seed and b only.
    """

    estimate: pd.Series
    replicates: pd.DataFrame
    matches: pd.DataFrame
    kind: str
    by: str
    seed: int

    @property
    def n_failed(self) -> int:
        """Replicates whose fit failed."""
        return int(self.replicates.isna().all(axis=1).sum())

    @property
    def ambiguous_share(self) -> float:
        """Share of the replicates whose labels are in doubt.

        Standard errors hold where this is near 0: elsewhere the components are not
        separate enough to have parameters of their own.
        """
        return float(self.matches["ambiguous"].dropna().astype(float).mean())

    def cov_params(self) -> pd.DataFrame:
        """Covariance of the replicates."""
        return self.replicates.cov()

    @property
    def bse(self) -> pd.Series:
        """Standard errors: standard deviations of the replicates."""
        return self.replicates.std().rename("se")

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Percentile intervals at level 1 - alpha; columns ``lower`` and ``upper``."""
        if not 0.0 < alpha < 1.0:
            raise OptionError(f"alpha={alpha!r} must lie between 0 and 1, such as 0.05.")
        bounds = self.replicates.quantile([alpha / 2.0, 1.0 - alpha / 2.0]).T
        return bounds.set_axis(["lower", "upper"], axis=1)

    def report(self) -> str:
        """How far the labels can be trusted, in words."""
        n = len(self.replicates)
        switched = int(self.matches["switched"].fillna(False).astype(bool).sum())
        unit = "of cosines" if self.by == "posterior" else "nats"
        return (
            f"{n} {self.kind} replicates, {self.n_failed} failed. Components matched by "
            f"{self.by}: {switched} replicates relabelled, smallest margin "
            f"{self.matches['margin'].min():.3g} {unit}, {100 * self.ambiguous_share:.1f} % "
            f"ambiguous (margin below {AMBIGUOUS[self.by]:g})."
        )
