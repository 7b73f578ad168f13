"""Residuals and prediction discrepancies of a mixed-effects model.

========  ==============================================================================
name      what it is
========  ==============================================================================
iwres     ``(y - f(psi_i)) / g(f(psi_i))`` at the individual's mode
cwres     ``V_i^(-1/2) (y_i - E_i)``, moments of the model linearised at the modes (Hooker,
          Staatz and Karlsson 2007, Pharm. Res. 24, 2187-2197)
pwres     the same with the marginal moments of the model itself, by simulation
npd       normalised prediction discrepancies: each observation's place in its predictive
          distribution, as a normal quantile (Mentre and Escolar 2006, J. Pharmacokinet.
          Pharmacodyn. 33, 345-367)
npde      the same after the observations of an individual are decorrelated (Brendel,
          Comets, Laffont, Laveille and Mentre 2006, Pharm. Res. 23, 2036-2049)
========  ==============================================================================

All are near standard normal if the model is right; of them npd are correlated
within individuals. All are computed on the scale on which residual errors are
normal: logarithms with an exponential error. `pwres`, `npd` and `npde` come from
one set of simulated data sets.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.diagnostics._replicates import check_replicates
from saem.exceptions import OptionError, Problems, SaemWarning, nearest
from saem.nlme._continuous import require_predictions
from saem.nlme._rows import normal_scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from saem.inference.linearisation import Linearisation
    from saem.nlme.model import NLME

__all__ = [
    "DECORRELATIONS",
    "KINDS",
    "Discrepancies",
    "conditional_residuals",
    "prediction_discrepancies",
    "residual_tests",
]

#: Residuals that `NLMEResults.residuals` can compute.
KINDS = ("iwres", "cwres", "pwres", "npd", "npde")
#: Those of them that need simulated data sets.
SIMULATED = ("pwres", "npd", "npde")
#: Square roots of a covariance by which observations are decorrelated.
DECORRELATIONS = ("cholesky", "eigen")
#: Largest sample for which the test of Shapiro and Wilk is exact enough.
_SHAPIRO = 5000


@dataclass(frozen=True)
class Discrepancies:
    """Simulation-based residuals, rows stacked by individual.

    Attributes
    ----------
    pwres : ndarray of shape (n_rows,)
        Decorrelated differences to the simulated means.
    npd, npde : ndarray of shape (n_rows,)
        Normalised prediction discrepancies, without and with decorrelation.
    """

    pwres: Array
    npd: Array
    npde: Array


def check_residual_options(
    kinds: str | Sequence[str], decorrelation: str, model: NLME, n_simulations: object
) -> list[str]:
    """Names of the residuals that are asked for; raises `OptionError` with all problems."""
    require_predictions(model, "residuals")
    problems = Problems("the residuals")
    names = list(KINDS) if kinds == "all" else [kinds] if isinstance(kinds, str) else list(kinds)
    for name in names:
        if name not in KINDS:
            close = nearest(str(name), KINDS, 1)
            problems.add(
                f"{name!r} is not a kind of residual"
                + (f" (did you mean {close[0]!r}?)" * bool(close)),
                remedy=f"choose from {', '.join(KINDS)}, or 'all'",
            )
    if decorrelation not in DECORRELATIONS:
        problems.add(f"decorrelation={decorrelation!r} must be 'cholesky' or 'eigen'")
    problems.raise_if_any(OptionError)
    if set(names) & set(SIMULATED):
        # Below this the simulated covariance of the longest individual is near singular.
        check_replicates(model, n_simulations, max(100, 3 * int(model.individuals.n_obs.max())))
    return [name for name in KINDS if name in names]


def whiten(covariance: Array, values: Array, decorrelation: str = "cholesky") -> Array:
    """Values times the inverse square root of a covariance.

    Parameters
    ----------
    covariance : ndarray of shape (n, n)
    values : ndarray of shape (..., n)
    decorrelation : {"cholesky", "eigen"}
        Lower Cholesky factor, or the symmetric root.

    Returns
    -------
    ndarray of shape (..., n)

    Raises
    ------
    numpy.linalg.LinAlgError
        If the covariance is not positive definite.
    """
    if decorrelation == "cholesky":
        from scipy.linalg import solve_triangular

        factor = np.linalg.cholesky(covariance)
        flat = values.reshape(-1, values.shape[-1])
        return np.asarray(solve_triangular(factor, flat.T, lower=True).T.reshape(values.shape))
    roots, vectors = np.linalg.eigh(covariance)
    if not roots[0] > 1e-12 * roots[-1]:
        raise np.linalg.LinAlgError("the covariance is not positive definite")
    return np.asarray(values @ (vectors / np.sqrt(roots)) @ vectors.T)


def conditional_residuals(model: NLME, theta: Array, lin: Linearisation) -> Array:
    """Conditional weighted residuals, rows stacked; see the module.

    ``y_i - f_i - J_i (mu_i - phi_i^)`` whitened by ``J_i Omega J_i' + S_i``.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    lin : Linearisation
        The model linearised at the modes.

    Returns
    -------
    ndarray of shape (n_rows,)
    """
    data, view = model.individuals, model.theta_spec.view(theta)
    response = normal_scale(model, data.dv)
    index = view["parameter"].astype(int)
    out = np.empty(data.dv.size)
    for i, (a, b) in enumerate(itertools.pairwise(data.offsets)):
        slopes = lin.jacobian[a:b]
        mean = lin.f[a:b] + slopes @ (lin.mu[i] - lin.phi[i])
        spread = slopes[:, index] @ view["omega"] @ slopes[:, index].T
        out[a:b] = whiten(spread + np.diag(lin.variance[a:b]), response[a:b] - mean)
    return out


def prediction_discrepancies(
    model: NLME, simulated: Array, decorrelation: str = "cholesky", dv: Array | None = None
) -> Discrepancies:
    """PWRES, NPD and NPDE from simulated data sets.

    Parameters
    ----------
    model : NLME
        Gives the observations.
    simulated : ndarray of shape (n_simulations, n_rows)
        Responses of replicate data sets, rows stacked as in the model.
    decorrelation : {"cholesky", "eigen"}
    dv : ndarray of shape (n_rows,), optional
        Other observations on the same design; those of the model by default.

    Returns
    -------
    Discrepancies
        NaN for an individual whose simulated covariance is singular.

    Notes
    -----
    With K data sets, mean E_i and covariance V_i of the simulated responses of
    individual i are their empirical moments; observed and simulated responses become
    ``y* = V_i^(-1/2) (y - E_i)``. The discrepancy is the share of simulated y*
    below the observed one, equal ones counted half; shares of 0 and 1 become
    ``1 / (2 K)`` and ``1 - 1 / (2 K)``; `npde` is its normal quantile. Brendel et al.
    (2006), equations 5 to 8; Comets, Brendel and Mentre (2008), Comput. Methods
    Programs Biomed. 90, 154-166.
    """
    data = model.individuals
    observed = normal_scale(model, data.dv if dv is None else dv)
    pwres, npd, npde = (np.full(observed.size, np.nan) for _ in range(3))
    singular = []
    for i, (a, b) in enumerate(itertools.pairwise(data.offsets)):
        own = normal_scale(model, simulated[:, a:b], data.endpoint[a:b])
        npd[a:b] = normal_scores(observed[a:b], own)
        mean = own.mean(axis=0)
        covariance = np.atleast_2d(np.cov(own, rowvar=False))
        try:
            white = whiten(covariance, np.vstack([observed[None, a:b], own]) - mean, decorrelation)
        except np.linalg.LinAlgError:
            singular.append(data.ids[i])
            continue
        pwres[a:b] = white[0]
        npde[a:b] = normal_scores(white[0], white[1:])
    if singular:
        warnings.warn(
            f"the simulated responses of {len(singular)} individuals (first id {singular[0]!r}) "
            "have a singular covariance, so that pwres and npde are missing there. Remedy: an "
            "error model that leaves no row without variance, or more simulations.",
            SaemWarning,
            stacklevel=2,
        )
    return Discrepancies(pwres, npd, npde)


def normal_scores(observed: Array, simulated: Array) -> Array:
    """Normal quantiles of the places of observations among simulated ones, column by column.

    Parameters
    ----------
    observed : ndarray of shape (n,)
    simulated : ndarray of shape (n_simulations, n)

    Returns
    -------
    ndarray of shape (n,)
        NaN where an observation is.
    """
    from scipy.special import ndtri

    count = len(simulated)
    below = np.count_nonzero(simulated < observed, axis=0)
    ties = np.count_nonzero(simulated == observed, axis=0)
    share = np.clip((below + 0.5 * ties) / count, 0.5 / count, 1.0 - 0.5 / count)
    return np.asarray(np.where(np.isnan(observed), np.nan, ndtri(share)))


def residual_tests(values: Array) -> dict[str, float]:
    """P-values of tests that residuals are independent standard normal.

    Parameters
    ----------
    values : ndarray
        Such as NPDE; missing ones are left out.

    Returns
    -------
    dict of str to float
        ``mean`` (signed ranks of Wilcoxon), ``variance`` (Fisher's chi-square test of a
        variance of 1), ``normality`` (Shapiro and Wilk, of at most 5000 values evenly taken),
        ``kolmogorov_smirnov``, and ``combined``: three times the smallest of the first
        three, at most 1 (Brendel, Comets, Laffont and Mentre 2010, J. Pharmacokinet.
        Pharmacodyn. 37, 49-65). NaN for fewer than three values.
    """
    from scipy import stats

    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    names = ("mean", "variance", "normality", "kolmogorov_smirnov", "combined")
    if values.size < 3:
        return dict.fromkeys(names, np.nan)
    lower = stats.chi2.cdf((values.size - 1) * values.var(ddof=1), values.size - 1)
    chosen = np.linspace(0, values.size - 1, min(values.size, _SHAPIRO)).astype(int)
    found: dict[str, Any] = {
        "mean": stats.wilcoxon(values).pvalue,
        "variance": 2.0 * min(lower, 1.0 - lower),
        "normality": stats.shapiro(values[chosen]).pvalue,
    }
    combined = min(1.0, 3.0 * min(found.values()))
    found["kolmogorov_smirnov"] = stats.kstest(values, "norm").pvalue
    return {name: float(found.get(name, combined)) for name in names}
