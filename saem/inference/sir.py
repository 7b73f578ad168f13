"""Sampling importance resampling: the uncertainty of the estimates from the likelihood itself."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp

from saem.contract import Array
from saem.engine import check_threads
from saem.exceptions import OptionError, Problems, SaemWarning
from saem.inference._pareto import pareto_k, tail_size
from saem.inference._sampling import HEAVY
from saem.inference._working import WorkingScale
from saem.random import SeedLike, resolve_seed

if TYPE_CHECKING:
    import pandas as pd

    from saem.inference.information import Information
    from saem.nlme.model import NLME

__all__ = ["SIR", "sir"]

#: Random effects up to which the likelihood is by quadrature, with so many nodes each.
_NODES = {0: 1, 1: 9, 2: 7, 3: 5}
#: Draws per individual of importance sampling beyond; the same for all vectors.
_SAMPLES = 1000
#: Degrees of freedom of the proposal, and its inflation, in standard deviations.
_DF, _INFLATION = 8.0, 1.15


@dataclass(frozen=True)
class SIR:
    """Weighted and resampled parameter vectors.

    Attributes
    ----------
    estimate : Series
        Of the fit, on the user's scale.
    samples : DataFrame of shape (n_resamples, n_params)
        Resampled vectors, on the user's scale.
    proposals : DataFrame of shape (n_samples, n_params + 2)
        All vectors of the last round with their ``loglik`` (log prior included, where there is
        one) and ``weight``.
    ess : float
        Effective sample size of the weights.
    pareto_k : float
        Shape of the weights' tail; above 0.7 neither samples nor intervals can be relied on.
    seed : int
    """

    estimate: pd.Series
    samples: pd.DataFrame
    proposals: pd.DataFrame
    ess: float
    pareto_k: float
    seed: int

    @property
    def bse(self) -> pd.Series:
        """Standard deviations of the samples."""
        return self.samples.std(ddof=1).rename("se")

    def cov_params(self) -> pd.DataFrame:
        """Covariance of the samples."""
        return self.samples.cov()

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Intervals between quantiles of the samples; columns ``lower`` and ``upper``.

        Parameters
        ----------
        alpha : float
            Probability outside.

        Returns
        -------
        DataFrame of shape (n_params, 2)
        """
        if not 0.0 < alpha < 1.0:
            raise OptionError(f"alpha={alpha!r} must lie between 0 and 1, such as 0.05.")
        bounds = self.samples.quantile([alpha / 2.0, 1.0 - alpha / 2.0]).T
        return bounds.set_axis(["lower", "upper"], axis=1)

    def summary(self, alpha: float = 0.05) -> pd.DataFrame:
        """Table of estimates, standard deviations and intervals.

        Parameters
        ----------
        alpha : float
            Intervals have level 1 - alpha.

        Returns
        -------
        DataFrame
        """
        import pandas as pd

        frame = pd.concat([self.estimate, self.bse], axis=1).join(self.conf_int(alpha))
        frame.attrs |= {"ess": self.ess, "pareto_k": self.pareto_k, "seed": self.seed}
        return frame


def sir(
    model: NLME,
    theta: Array,
    *,
    information: Information | None = None,
    n_samples: int = 2000,
    n_resamples: int = 1000,
    n_rounds: int = 2,
    seed: SeedLike = None,
    n_threads: int | None = None,
) -> SIR:
    """Sampling importance resampling around the estimates.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed estimates.
    information : Information, optional
        For the first proposal; the linearised one by default.
    n_samples : int
        Vectors proposed in the last round; earlier ones take a quarter.
    n_resamples : int
        Vectors kept, drawn without replacement.
    n_rounds : int
        Rounds; after each the proposal takes mean and covariance of the weighted vectors.
    seed : int, SeedSequence, Generator or None
        The same seed gives the same bits for any number of threads.
    n_threads : int, optional

    Returns
    -------
    SIR

    Raises
    ------
    OptionError
        For options that are not allowed, or estimates without a covariance.

    Warns
    -----
    SaemWarning
        If the weights have a heavy tail.

    Notes
    -----
    Dosne, Bergstrand, Harling and Karlsson (2016), J. Pharmacokinet. Pharmacodyn. 43, 583-596,
    and (2017) 44, 509-520 for the rounds. The target is the likelihood as a density of typical
    values and coefficients on the Gaussian scale, of variances, covariances and residual scales as
    they are (a flat prior there); of a model with priors the posterior density, of a residual scale
    with a prior that of its square. Vectors are proposed with logarithms of variances and
    scales, by a Student distribution a little wider than the asymptotic normal;
    likelihoods are by quadrature with few fixed nodes up to three random effects, by importance
    sampling with common random numbers beyond. Resampling without replacement is
    by Gumbel keys, ``log w + Gumbel`` (Efraimidis and Spirakis 2006, Inf. Process. Lett. 97,
    181-185).
    """
    import pandas as pd

    _check(n_samples, n_resamples, n_rounds)
    entropy, rng = resolve_seed(seed)
    scale = WorkingScale(model, theta)
    centre = scale.to_working(model.estimation_vector(theta))
    covariance = _first_covariance(model, theta, scale, centre, information)
    loglik = _with_prior(model, _loglik_of(model, theta, entropy, check_threads(n_threads)))
    top = loglik(theta)
    vectors, values, logs = np.empty((0, 0)), np.empty(0), np.empty(0)
    for k in range(n_rounds):
        count = n_samples if k == n_rounds - 1 else max(100, n_samples // 4)
        vectors, log_q = _propose(centre, covariance, count, rng)
        values = np.array([_value(loglik, scale.theta(v)) for v in vectors])
        logs = values - top + np.log(scale.slope(vectors)).sum(axis=1) - log_q
        if k < n_rounds - 1:
            weights = np.exp(logs - logsumexp(logs))
            if 1.0 / np.sum(weights**2) > 5.0 * len(centre):
                centre = weights @ vectors
                gap = vectors - centre
                covariance = (weights[:, None] * gap).T @ gap
    weights = np.exp(logs - logsumexp(logs))
    k_hat = pareto_k(logs[np.argsort(logs)[-int(tail_size(len(logs))) - 1 :]], len(logs))
    if k_hat > HEAVY:
        warnings.warn(
            f"the weights of the sampling importance resampling have a heavy tail (Pareto k = "
            f"{k_hat:.2f}): its samples do not cover the uncertainty. Remedy: more rounds or "
            "samples (n_rounds=, n_samples=), or bootstrap(...).",
            SaemWarning,
            stacklevel=3,
        )
    with np.errstate(divide="ignore"):
        keys = np.log(weights) + rng.gumbel(size=len(weights))
    chosen = np.sort(np.argsort(-keys)[:n_resamples])
    if not np.isfinite(keys[chosen]).all():
        raise OptionError(
            f"fewer than n_resamples={n_resamples} of the {len(weights)} vectors have a "
            "likelihood. Remedy: more samples, or fewer resamples."
        )
    users = np.array([_params(model, scale, v) for v in vectors])
    proposals = pd.DataFrame(users, columns=model.param_names)
    proposals["loglik"], proposals["weight"] = values, weights
    return SIR(
        pd.Series(model.params_of(theta), index=model.param_names, name="estimate"),
        proposals.loc[chosen, model.param_names].reset_index(drop=True), proposals,
        float(1.0 / np.sum(weights**2)), k_hat, entropy,
    )  # fmt: skip


def _check(n_samples: int, n_resamples: int, n_rounds: int) -> None:
    problems = Problems("sampling importance resampling")
    for name, value, least in (
        ("n_samples", n_samples, 100), ("n_resamples", n_resamples, 1), ("n_rounds", n_rounds, 1),
    ):  # fmt: skip
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            problems.add(f"{name}={value!r} is not a whole number of at least {least}")
    if not problems.items and n_resamples > n_samples // 2:
        problems.add(
            f"n_resamples={n_resamples} is more than half of n_samples={n_samples}",
            remedy="without replacement that would keep nearly all, whatever their weights",
        )
    problems.raise_if_any(OptionError)


def _first_covariance(
    model: NLME, theta: Array, scale: WorkingScale, centre: Array, information: Any
) -> Array:
    """Asymptotic covariance on the working scale."""
    from saem.inference.information import linearised_information

    if information is None:
        information = linearised_information(model, theta)
    slope = scale.slope(centre)
    covariance = np.asarray(information.cov_estimation / np.outer(slope, slope))
    if not np.isfinite(covariance).all():
        bad = [n for n, v in zip(model.param_names, np.diag(covariance), strict=True) if not v >= 0]
        raise OptionError(
            f"{', '.join(bad)} has no standard error (boundary, or not identified), so that there "
            "is nothing to propose from. Remedy: leave out the random effect, or bootstrap(...)."
        )
    return covariance


def _loglik_of(model: NLME, theta: Array, seed: int, n_threads: int) -> Any:
    """Log-likelihood as a function of theta, without noise between nearby values."""
    from saem.estep.quadrature import quadrature_dimension
    from saem.inference.likelihood import QuadratureRule, importance_sampling

    d = quadrature_dimension(model)
    if d in _NODES:
        rule = QuadratureRule(model, _NODES[d], n_threads)
        rule(theta)
        return rule

    def value(at: Array) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SaemWarning)
            found = importance_sampling(
                model, at, n_samples=_SAMPLES, seed=seed, n_threads=n_threads
            )
        return float(found.value)

    return value


def _with_prior(model: NLME, loglik: Any) -> Any:
    """Log posterior of the numbers as they are; priors of residual scales are of their squares."""
    if not model.penalised:
        return loglik
    squares = [
        at
        for name, kind, at in zip(
            model.param_names, model.param_kind, model.param_index, strict=True
        )
        if kind == "residual" and name in model.priors
    ]

    def value(theta: Array) -> float:
        return float(loglik(theta)) + model.log_prior(theta) + float(np.log(theta[squares]).sum())

    return value


def _value(loglik: Any, theta: Array | None) -> float:
    """Log-likelihood; -inf for vectors that are out of range."""
    if theta is None:
        return -np.inf
    value = loglik(theta)
    return float(value) if np.isfinite(value) else -np.inf


def _propose(
    centre: Array, covariance: Array, count: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Student vectors and their log densities, up to a constant."""
    p = centre.size
    factor = _INFLATION * np.linalg.cholesky(covariance)
    normals = rng.standard_normal((count, p))
    radii = rng.chisquare(_DF, count) / _DF
    standard = normals / np.sqrt(radii)[:, None]
    log_q = -0.5 * (_DF + p) * np.log1p(np.square(standard).sum(axis=1) / _DF)
    return centre + standard @ factor.T, log_q


def _params(model: NLME, scale: WorkingScale, vector: Array) -> Array:
    theta = scale.theta(vector)
    return np.full(vector.size, np.nan) if theta is None else model.params_of(theta)
