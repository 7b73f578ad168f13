"""Inference for mixtures: standard errors, bootstrap, number of components.

Everything here works for any mixture: what it needs of a model is `posterior`,
`param_names`, `cov_params`, `reweighted`, and for samples `sample` and `with_data`.
Components have no order, so replicates are matched to the fit before they are compared
(`saem.inference._mixture_labels`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.exceptions import ModelError, OptionError, Problems, SaemWarning
from saem.inference._mixture_bootstrap import (
    AMBIGUOUS,
    Bootstrap,
    draw_rows,
    generator,
    refit,
    relabelling,
    resample,
)
from saem.inference._mixture_information import oakes_covariance
from saem.random import SeedLike, resolve_seed

if TYPE_CHECKING:
    import pandas as pd

    from saem.results import Results

__all__ = [
    "Bootstrap",
    "LikelihoodRatioTest",
    "Selection",
    "bootstrap",
    "covariance",
    "likelihood_ratio_test",
    "select",
]

_CRITERIA = ("bic", "icl", "aic")
_TYPES = ("full", "tied", "diag", "spherical")


def covariance(fit: Results, kind: str = "observed") -> pd.DataFrame:
    """Covariance matrix of a mixture's estimates.

    Parameters
    ----------
    fit : Results
        Of a mixture with exact E-step.
    kind : {"observed", "empirical"}
        Inverse of the observed information, minus the second derivative of the
        log-likelihood by Oakes' identity; or of the sum over rows of score times score,
        which is what ``fit.cov_params()`` gives.

    Returns
    -------
    DataFrame of shape (n_names, n_names)
        On the user's scale. Singular: weights sum to one.

    Warns
    -----
    SaemWarning
        If the observed information is not positive definite; the matrix is NaN. The fit
        is then not at a maximum, or components are not identified.

    Notes
    -----
    ``d2 l / d theta d theta' = {d2 Q(theta' | theta) / d theta' d theta' + d2 Q(theta' |
    theta) / d theta' d theta}`` at ``theta' = theta`` (Oakes 1999, JRSS B 61, 479-482), with Q
    the model's `surrogate` of the mean statistic at theta; derivatives by central
    differences along the principal axes of the empirical covariance. Penalties of the
    M-step, such as a variance floor, count as part of Q.
    """
    import pandas as pd

    if kind == "empirical":
        return fit.cov_params()
    if kind != "observed":
        raise OptionError(f"kind={kind!r} must be 'observed' or 'empirical'.")
    model: Any = fit.model
    missing = {"expect", "surrogate"} - set(model.capabilities)
    if missing:
        raise ModelError(
            f"{model.name} lacks {', '.join(sorted(missing))}, which the observed information "
            "needs. Remedy: kind='empirical', or `bootstrap`."
        )
    matrix, definite = oakes_covariance(model, fit.record.theta)
    if not definite:
        warnings.warn(
            "the observed information is not positive definite: the fit is not at a maximum, or "
            "components are not identified. Remedy: a smaller tolerance, more starts, fewer "
            "components.",
            SaemWarning,
            stacklevel=2,
        )
    return pd.DataFrame(matrix, index=model.param_names, columns=model.param_names)


def bootstrap(
    fit: Results,
    n_replicates: int = 200,
    *,
    kind: str = "nonparametric",
    by: str = "posterior",
    algorithm: Any = "em",
    seed: SeedLike = None,
    previous: Bootstrap | None = None,
    **options: Any,
) -> Bootstrap:
    """Bootstrap a mixture's estimates; labels are matched to those of the fit.

    Parameters
    ----------
    fit : Results
    n_replicates : int
        How many there are at the end, those of `previous` included.
    kind : {"nonparametric", "parametric"}
        Rows drawn with replacement (as weights, by `reweighted`), or from the fitted
        mixture (by `sample` and `with_data`).
    by : {"posterior", "parameters"}
        What components are matched by: the cosine between their posterior probabilities
        of the rows, or their distance in standard errors (``fit.bse``).
    algorithm : str or Algorithm
        Of the refits, which start from the fit.
    seed : int, SeedSequence, Generator or None
        Replicate b is a function of the seed and b alone.
    previous : Bootstrap, optional
        Goes on from there, with its seed; the result is the same as in one go.
    **options
        Of `saem.fit`.

    Returns
    -------
    Bootstrap

    References
    ----------
    McLachlan, G. and Peel, D. (2000). Finite Mixture Models, section 2.16. Wiley.
    Stephens, M. (2000). Dealing with label switching in mixture models. JRSS B 62, 795-809.
    """
    import pandas as pd

    problems = Problems("the bootstrap")
    if kind not in ("parametric", "nonparametric"):
        problems.add(f"kind={kind!r} must be 'parametric' or 'nonparametric'")
    if by not in AMBIGUOUS:
        problems.add(f"by={by!r} must be 'posterior' or 'parameters'")
    if n_replicates < 2:
        problems.add(f"n_replicates={n_replicates!r} must be at least 2")
    if previous is not None and (previous.kind, previous.by) != (kind, by):
        problems.add(
            f"previous has kind={previous.kind!r} and by={previous.by!r}", remedy="give the same"
        )
    problems.raise_if_any(OptionError)
    model: Any = fit.model
    theta, names = fit.record.theta, fit.param_names
    entropy = resolve_seed(seed)[0] if previous is None else previous.seed
    scale = fit.bse.to_numpy() if by == "parameters" else None
    done = 0 if previous is None else len(previous.replicates)
    rows: list[Array] = []
    labels: list[tuple[Any, ...]] = []
    for b in range(done, n_replicates):
        rng = generator(entropy, b)
        if kind == "nonparametric":
            other = resample(model, rng)
        else:
            other = model.with_data(draw_rows(model, theta, rng))
        again = refit(other, algorithm=algorithm, start=theta, seed=b, **options)
        if again is None:
            rows.append(np.full(len(names), np.nan))
            labels.append((np.nan, np.nan, None, None))
            continue
        found, params = relabelling(model, theta, again.record.theta, by, scale)
        rows.append(params)
        switched = bool(np.any(found.order != np.arange(len(found.order))))
        labels.append((found.gain, found.margin, switched, found.margin < AMBIGUOUS[by]))
    index = pd.RangeIndex(done, n_replicates, name="replicate")
    replicates = pd.DataFrame(np.array(rows).reshape(-1, len(names)), index=index, columns=names)
    columns = ["gain", "margin", "switched", "ambiguous"]
    matches = pd.DataFrame(labels, index=index, columns=columns)
    matches = matches.astype({"switched": "boolean", "ambiguous": "boolean"})
    if previous is not None:
        replicates = pd.concat([previous.replicates, replicates])
        matches = pd.concat([previous.matches, matches])
    return Bootstrap(fit.params, replicates, matches, kind, by, entropy)


@dataclass(frozen=True)
class Selection:
    """Fits over numbers of components and covariance types.

    Attributes
    ----------
    table : DataFrame
        Best first; columns ``n_components``, ``covariance_type``, ``n_params``, ``llf``,
        ``aic``, ``bic``, ``icl``, ``converged``, ``failure`` and ``difference``, that
        of the criterion from the best.
    best : Results
    criterion : str
    """

    table: pd.DataFrame
    best: Any
    criterion: str


def select(
    X: Any,
    n_components: Iterable[int] = range(1, 7),
    covariance_types: Iterable[str] | None = _TYPES,
    *,
    criterion: str = "bic",
    family: Any = None,
    algorithm: Any = "em",
    n_starts: int = 5,
    seed: SeedLike = None,
    **options: Any,
) -> Selection:
    """Compare mixtures by an information criterion.

    Parameters
    ----------
    X : array_like or DataFrame
        As the family takes it.
    n_components : iterable of int
    covariance_types : iterable of str or None
        None for families without.
    criterion : {"bic", "icl", "aic"}
        Smaller is better. BIC finds the number of Gaussians that fit a density; ICL, which
        also counts overlap, the number of clusters (Biernacki, Celeux and Govaert 2000).
    family : callable, optional
        Called as ``family(X, k, covariance_type=..., **options)``; `GaussianMixture` if None.
    algorithm : str or Algorithm
    n_starts : int
        Starts of each fit; too few make larger mixtures look worse than they are.
    seed : int, SeedSequence, Generator or None
    **options
        Of the family, such as ``reg_covar`` or ``weights``.

    Returns
    -------
    Selection

    Raises
    ------
    FitError
        If no fit succeeded.
    """
    import pandas as pd

    from saem.exceptions import FitError
    from saem.models import GaussianMixture

    if criterion not in _CRITERIA:
        raise OptionError(f"criterion={criterion!r} must be one of {', '.join(_CRITERIA)}.")
    family = family or GaussianMixture
    entropy = resolve_seed(seed)[0]
    types = [None] if covariance_types is None else list(covariance_types)
    rows, fits = [], []
    for kind in types:
        for k in n_components:
            own = options if kind is None else {**options, "covariance_type": kind}
            fit = refit(family(X, k, **own), algorithm=algorithm, n_starts=n_starts, seed=entropy)
            row: dict[str, Any] = {"n_components": k, "covariance_type": kind}
            if fit is None:
                row |= {"converged": False, "failure": "the fit failed"}
            else:
                row |= {name: float(getattr(fit, name)) for name in ("llf", *_CRITERIA)}
                row |= {"n_params": fit.n_params, "converged": fit.converged, "failure": ""}
            rows.append(row)
            fits.append(fit)
    columns = ["n_components", "covariance_type", "n_params", "llf", "aic", "bic", "icl",
               "converged", "failure"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    if table[criterion].isna().all():
        raise FitError("no mixture could be fitted. Remedy: raise reg_covar or check the data.")
    order = table[criterion].sort_values().index
    best = fits[order[0]]
    table = table.loc[order].reset_index(drop=True)
    table["difference"] = table[criterion] - table[criterion].iloc[0]
    return Selection(table, best, criterion)


@dataclass(frozen=True)
class LikelihoodRatioTest:
    """Bootstrap likelihood-ratio test of a smaller against a larger mixture.

    Attributes
    ----------
    statistic : float
        ``2 (llf of the larger - llf of the smaller)``.
    p_value : float
        ``(1 + number of replicates at least as large) / (n_replicates + 1)``.
    p_error : float
        Monte Carlo standard error of the p-value.
    replicates : ndarray of shape (n_replicates,)
        Statistics under the smaller mixture; failed refits are left out.
    n_failed : int
    """

    statistic: float
    p_value: float
    p_error: float
    replicates: Array
    n_failed: int


def likelihood_ratio_test(
    smaller: Results,
    larger: Results,
    n_replicates: int = 99,
    *,
    algorithm: Any = "em",
    n_starts: int = 5,
    seed: SeedLike = None,
) -> LikelihoodRatioTest:
    """Test the number of components by the bootstrap (McLachlan 1987).

    The distribution of the likelihood ratio is not chi-squared here: samples are
    drawn from the smaller mixture, and both are fitted to each.

    Parameters
    ----------
    smaller, larger : Results
        Fits to the same rows, with k and k + 1 (or more) components. The larger should
        come from several starts: a poor maximum makes the test conservative.
    n_replicates : int
        99 give p-values in steps of 0.01.
    algorithm : str or Algorithm
    n_starts : int
        Starts of each fit of the larger mixture. The smaller starts at its estimates.
    seed : int, SeedSequence, Generator or None

    Returns
    -------
    LikelihoodRatioTest

    References
    ----------
    McLachlan, G. J. (1987). On bootstrapping the likelihood ratio test statistic for the
    number of components in a normal mixture. Applied Statistics 36, 318-324.
    """
    small: Any = smaller.model
    large: Any = larger.model
    theta = smaller.record.theta
    problems = Problems("the test")
    if not large.n_components > small.n_components:
        problems.add("the larger mixture must have more components than the smaller")
    if large.n_individuals != small.n_individuals:
        problems.add(
            f"the fits are of {small.n_individuals} and {large.n_individuals} rows",
            remedy="fit both to the same rows",
        )
    if n_replicates < 1:
        problems.add(f"n_replicates={n_replicates!r} must be at least 1")
    problems.raise_if_any(OptionError)
    statistic = 2.0 * (larger.llf - smaller.llf)
    entropy = resolve_seed(seed)[0]
    found = []
    for b in range(n_replicates):
        X = draw_rows(small, theta, generator(entropy, b))
        one = refit(small.with_data(X), algorithm=algorithm, start=theta, seed=b)
        two = refit(large.with_data(X), algorithm=algorithm, n_starts=n_starts, seed=b)
        if one is not None and two is not None:
            found.append(2.0 * (two.llf - one.llf))
    replicates = np.array(found)
    n = len(replicates)
    p = (1.0 + float((replicates >= statistic).sum())) / (n + 1.0)
    error = float(np.sqrt(p * (1.0 - p) / (n + 1.0)))
    return LikelihoodRatioTest(statistic, p, error, replicates, n_replicates - n)
