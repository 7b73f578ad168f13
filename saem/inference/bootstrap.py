"""Bootstrap of nonlinear mixed-effects models: replicate data sets, refits, intervals."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from saem.algorithms import EM
from saem.contract import Array
from saem.engine import check_threads
from saem.estep.quadrature import quadrature_dimension
from saem.exceptions import OptionError, Problems, SaemError, SaemWarning
from saem.inference._replicate_store import Store
from saem.inference._resampling import Maker, groups_of
from saem.nlme._continuous import require_predictions
from saem.random import SeedLike, resolve_seed

if TYPE_CHECKING:
    import os

    import pandas as pd

    from saem.nlme.model import NLME

__all__ = ["Bootstrap", "bootstrap"]

Kind = Literal["case", "parametric", "conditional"]
_KINDS = ("case", "parametric", "conditional")
#: Random effects up to which replicates are refitted by EM with quadrature.
_QUADRATURE = 3


@dataclass(frozen=True)
class Bootstrap:
    """Replicates of the estimates, and what follows from them.

    Attributes
    ----------
    estimate : Series
        Of the fit.
    replicates : DataFrame of shape (n_replicates, n_params)
        Estimates on the user's scale, one row per replicate; NaN where the refit failed.
    status : DataFrame
        Per replicate ``converged``, the ``message`` of what stopped or failed, ``seconds``.
    kind : str
        ``"case"``, ``"parametric"`` or ``"conditional"``.
    seed : int
        Replicate number b depends on the seed and b only.
    acceleration : Series or None
        Acceleration constants of BCa intervals, where the individuals' scores are known.
    """

    estimate: pd.Series
    replicates: pd.DataFrame
    status: pd.DataFrame
    kind: str
    seed: int
    acceleration: pd.Series | None = None

    @property
    def n_failed(self) -> int:
        """Replicates whose fit failed."""
        return int(self.replicates.isna().all(axis=1).sum())

    @property
    def bse(self) -> pd.Series:
        """Standard errors: standard deviations of the replicates."""
        return self.replicates.std(ddof=1).rename("se")

    @property
    def bias(self) -> pd.Series:
        """Mean of the replicates less the estimate."""
        return (self.replicates.mean() - self.estimate).rename("bias")

    def cov_params(self) -> pd.DataFrame:
        """Covariance of the replicates."""
        return self.replicates.cov()

    def conf_int(
        self, alpha: float = 0.05, method: Literal["percentile", "basic", "bca"] = "percentile"
    ) -> pd.DataFrame:
        """Confidence intervals at level 1 - alpha.

        Parameters
        ----------
        alpha : float
            Probability outside; 0.05 gives 95 % intervals.
        method : {"percentile", "basic", "bca"}
            Quantiles of the replicates; those reflected at the estimate, ``2 estimate -
            quantile``; or quantiles corrected for bias and acceleration (Efron 1987,
            J. Amer. Statist. Assoc. 82, 171-185).

        Returns
        -------
        DataFrame of shape (n_params, 2)
            Columns ``lower`` and ``upper``.
        """
        import pandas as pd

        if not 0.0 < alpha < 1.0:
            raise OptionError(f"alpha={alpha!r} must lie between 0 and 1, such as 0.05.")
        if method not in ("percentile", "basic", "bca"):
            raise OptionError(f"method={method!r} must be 'percentile', 'basic' or 'bca'.")
        levels = np.tile([alpha / 2.0, 1.0 - alpha / 2.0], (len(self.estimate), 1))
        if method == "bca":
            levels = self._corrected(levels)
        rows = []
        for name, pair in zip(self.estimate.index, levels, strict=True):
            values = self.replicates[name].dropna()
            known = len(values) > 1 and np.isfinite(pair).all()
            rows.append(np.quantile(values, pair) if known else np.full(2, np.nan))
        bounds = pd.DataFrame(rows, index=self.estimate.index, columns=["lower", "upper"])
        if method == "basic":
            reflected = [2.0 * self.estimate - bounds[end] for end in ("upper", "lower")]
            return pd.concat(reflected, axis=1, keys=["lower", "upper"])
        return bounds

    def _corrected(self, levels: Array) -> Array:
        """Levels of the BCa interval, one row per parameter."""
        from scipy.special import ndtr, ndtri

        if self.acceleration is None:
            raise OptionError(
                "the acceleration of BCa intervals needs the individuals' scores, which are "
                "computed for up to four random effects. Remedy: method='percentile' or 'basic'."
            )
        valid = self.replicates.dropna()
        below = (valid < self.estimate).sum() + 0.5 * (valid == self.estimate).sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            z0 = ndtri((below / max(1, len(valid))).to_numpy())[:, None]
            z = z0 + ndtri(levels)
            a = self.acceleration.to_numpy()[:, None]
            return np.asarray(ndtr(z0 + z / (1.0 - a * z)))

    def summary(self, alpha: float = 0.05) -> pd.DataFrame:
        """Table of estimates, bias, standard errors and percentile intervals.

        Parameters
        ----------
        alpha : float
            Intervals have level 1 - alpha.

        Returns
        -------
        DataFrame
            One row per parameter; ``attrs`` hold kind, seed and numbers of replicates.
        """
        import pandas as pd

        frame = pd.concat([self.estimate, self.bias, self.bse], axis=1)
        frame = frame.join(self.conf_int(alpha))
        done = len(self.replicates) - self.n_failed
        frame["se_mc_error"] = frame["se"] / np.sqrt(2.0 * max(1, done - 1))
        frame.attrs |= {
            "kind": self.kind, "seed": self.seed, "n_replicates": len(self.replicates),
            "n_failed": self.n_failed,
            "n_not_converged": int((~self.status["converged"].astype(bool)).sum()),
        }  # fmt: skip
        return frame


def bootstrap(
    model: NLME,
    theta: Array,
    n_replicates: int = 200,
    kind: Kind = "case",
    *,
    algorithm: Any = None,
    strata: str | Sequence[Any] | None = None,
    folder: str | os.PathLike[str] | None = None,
    seed: SeedLike = None,
    n_workers: int | None = None,
    **options: Any,
) -> Bootstrap:
    """Refit a model to replicates of its data.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed estimates; replicates are simulated from them, and every refit starts there.
    n_replicates : int
    kind : {"case", "parametric", "conditional"}
        ``"case"``: individuals drawn with replacement. ``"parametric"``: new random effects and
        residuals from the model. ``"conditional"``: random effects and residuals drawn
        with replacement from those of the fit, centred and scaled to the estimated variances.
    algorithm : str or Algorithm, optional
        Of the refits; by default accelerated EM with quadrature up to three random effects (exact
        and without Monte Carlo noise), else the model's own.
    strata : str or sequence, optional
        For ``"case"``: individuals are drawn within groups; a covariate, a data column, or one
        value per individual.
    folder : path, optional
        Finished replicates are written here as they come, and those found here are not done
        again: an interrupted bootstrap goes on where it was.
    seed : int, SeedSequence, Generator or None
        Replicate number b depends on the seed and b only, whatever the workers.
    n_workers : int, optional
        Replicates fitted at a time; all processors by default.
    **options
        Of ``model.fit``, such as ``budget``.

    Returns
    -------
    Bootstrap

    Raises
    ------
    OptionError
        For options that are not allowed, or a folder of another bootstrap.

    Notes
    -----
    Thai, Mentre, Holford, Veyrat-Follet and Comets (2013), Pharm. Statist. 12, 129-140, compare
    the kinds. The conditional one corrects for shrinkage: with S the covariance of the modes of the
    centred random effects, ``eta* = L_Omega L_S^-1 eta`` has covariance Omega (Carpenter,
    Goldstein and Rasbash 2003, Appl. Statist. 52, 431-443); residuals, standardised by the error
    model at the modes, are centred and scaled to variance 1.
    """
    import pandas as pd

    groups = _check(model, n_replicates, kind, strata)
    if kind != "case":
        require_predictions(model, "simulated responses", "kind='case'")
    algorithm = _algorithm(model) if algorithm is None else algorithm
    entropy = resolve_seed(seed)[0]
    make = Maker(model, theta, kind, groups, entropy)
    workers = check_threads(n_workers)
    settings = {
        "kind": kind, "seed": entropy, "algorithm": repr(algorithm), "options": repr(options),
        "strata": None if groups is None else groups.tolist(), "theta": [float(t) for t in theta],
        "data": float(np.sum(model.values)), "names": list(model.param_names),
    }  # fmt: skip
    store = Store(folder, settings)
    done = store.read()
    todo = [b for b in range(n_replicates) if b not in done]

    def fit(b: int) -> tuple[Any, ...]:
        row = _refit(make, b, algorithm, options)
        store.write(row)
        return row

    with warnings.catch_warnings():
        # Every refit would repeat them; what became of it stands in the status.
        warnings.simplefilter("ignore", SaemWarning)
        if workers == 1:
            found = [fit(b) for b in todo]
        else:
            with ThreadPoolExecutor(workers) as pool:
                found = list(pool.map(fit, todo))
    done |= {row[0]: row for row in found}
    rows = [done[b] for b in range(n_replicates)]
    index = pd.RangeIndex(n_replicates, name="replicate")
    estimates = pd.DataFrame([r[4] for r in rows], index=index, columns=model.param_names)
    status = pd.DataFrame(
        [r[1:4] for r in rows], index=index, columns=["converged", "message", "seconds"]
    )
    own = pd.Series(model.params_of(theta), index=model.param_names, name="estimate")
    return Bootstrap(own, estimates, status, kind, entropy, _acceleration(model, theta))


def _check(model: NLME, n_replicates: int, kind: str, strata: Any) -> Any:
    """Check the options; groups of the individuals as numbers, or None."""
    problems = Problems("the bootstrap")
    if isinstance(n_replicates, bool) or not isinstance(n_replicates, int) or n_replicates < 1:
        problems.add(f"n_replicates={n_replicates!r} is not a positive whole number")
    if kind not in _KINDS:
        problems.add(f"kind={kind!r} is not one of {', '.join(map(repr, _KINDS))}")
    groups = None
    if strata is not None:
        if kind != "case":
            problems.add("strata= is for kind='case' only", remedy="leave it out")
        groups = groups_of(model, strata, problems)
    problems.raise_if_any(OptionError)
    return groups


def _algorithm(model: NLME) -> Any:
    """Algorithm of the refits: exact where that is cheap."""
    if 0 < quadrature_dimension(model) <= _QUADRATURE:
        # What is left to gain of the log-likelihood is far below what the draws move.
        return EM(tolerance=1e-6, acceleration=None if model.is_numerical else "anderson")
    return model.default_algorithm


def _refit(make: Maker, b: int, algorithm: Any, options: dict[str, Any]) -> tuple[Any, ...]:
    """Fit one replicate: number, converged, message, seconds, estimates."""
    began = perf_counter()
    nothing = np.full(len(make.model.param_names), np.nan)
    try:
        model, start, rng = make(b)
        fit = model.fit(
            algorithm,
            **({"start": start, "seed": rng, "progress": False, "n_threads": 1} | options),
        )
    except (SaemError, ArithmeticError, np.linalg.LinAlgError) as error:
        return b, False, f"{type(error).__name__}: {error}", perf_counter() - began, nothing
    values = fit.params.to_numpy()
    message = fit.reason
    if not np.all(np.isfinite(values)):
        values, message = nothing, f"estimates are not finite: {message}"
    return b, bool(fit.converged), message, perf_counter() - began, values


def _acceleration(model: NLME, theta: Array) -> Any:
    """Acceleration constants ``sum u^3 / (6 (sum u^2)^(3/2))``, u the individuals' influences.

    Influences ``I^-1 s_i``, the infinitesimal jackknife of an M-estimate (Efron 1987, section 7).
    """
    import pandas as pd

    from saem.inference.information import louis_information
    from saem.inference.posterior import individual_scores, nodes_for

    if model.n_coords == 0 or nodes_for(quadrature_dimension(model)) is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaemWarning)
        information = louis_information(model, theta)
    influence = individual_scores(model, theta) @ information.cov_estimation
    with np.errstate(invalid="ignore", divide="ignore"):
        cubes, squares = (influence**3).sum(axis=0), (influence**2).sum(axis=0)
        return pd.Series(cubes / (6.0 * squares**1.5), index=model.param_names)
