"""Results of a fit: what statsmodels' users know, for every model.

A results object is the model, the record of the fit, and answers computed from
them when they are first asked for. Nothing here changes the model or the record.

The models' own results derive from `Results` and say how their answers are found:
`_covariance`, `_loglik`, `_interval_scales`. What a user calls stands in the base.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array, Model
from saem.exceptions import OptionError
from saem.record import FitRecord

if TYPE_CHECKING:
    import os

    import pandas as pd
    from statsmodels.iolib.summary import Summary

    from saem.plots import ResultPlots

__all__ = ["LogLik", "Results"]


@dataclass(frozen=True)
class LogLik:
    """A log-likelihood with what there is to judge it by.

    Attributes
    ----------
    value : float
        In nats, of all data.
    error : float
        Monte Carlo standard error; 0 where the value is computed without draws.
    method : str
        Such as ``"exact"``, ``"importance sampling"``, ``"quadrature"``.
    """

    value: float
    error: float
    method: str


class Results:
    """Results of a fit; base of the models' own.

    Parameters
    ----------
    model : Model
    record : FitRecord

    Attributes
    ----------
    model, record
        As given.

    Notes
    -----
    Everything beyond `params` is computed when first asked for and then kept.
    """

    #: Method of `llf`.
    _default_method = "exact"
    #: Name of the information criterion shown beside AIC.
    _bic_name = "BIC"

    def __init__(self, model: Model, record: FitRecord) -> None:
        self.model = model
        self.record = record
        self._logliks: dict[Any, LogLik] = {}

    # -- estimates ---------------------------------------------------------------

    @property
    def theta(self) -> Array:
        """Packed parameters; ``model.fit(start=results.theta)`` goes on from them."""
        return self.record.theta.copy()

    @property
    def param_names(self) -> list[str]:
        """Names of the estimated parameters."""
        return list(self.model.param_names)

    @cached_property
    def params(self) -> pd.Series:
        """Estimates on the user's scale."""
        return self._series(self.model.params_of(self.record.theta), "estimate")

    @property
    def n_params(self) -> int:
        """Number of free parameters."""
        return int(getattr(self.model, "n_params", len(self.model.param_names)))

    @property
    def nobs(self) -> int:
        """Number of observations."""
        return int(self.model.nobs)

    @property
    def df_resid(self) -> int:
        """Observations less free parameters."""
        return self.nobs - self.n_params

    # -- uncertainty -------------------------------------------------------------

    def _covariance(self) -> Array:
        """Covariance of the estimates on the user's scale, in the order of the names."""
        return np.asarray(self.model.cov_params(self.record.theta))  # type: ignore[attr-defined]

    @cached_property
    def _cov(self) -> Array:
        if not self._finite:
            return np.full((len(self.param_names),) * 2, np.nan)
        return self._covariance()

    @property
    def _finite(self) -> bool:
        """Whether all estimates are finite, so that anything can be said of them."""
        return bool(np.all(np.isfinite(self.params.to_numpy())))

    @property
    def _unidentified(self) -> tuple[str, ...]:
        """Parameters that the data do not tell apart."""
        return ()

    def cov_params(self) -> pd.DataFrame:
        """Covariance matrix of the estimates, on the user's scale.

        Returns
        -------
        DataFrame of shape (n_names, n_names)
            NaN where the information is singular or the estimate lies on a boundary.
        """
        import pandas as pd

        return pd.DataFrame(self._cov, index=self.param_names, columns=self.param_names)

    @cached_property
    def bse(self) -> pd.Series:
        """Standard errors of `params`; NaN where they do not hold."""
        variance = np.diag(self._cov)
        with np.errstate(invalid="ignore"):
            return self._series(np.where(variance >= 0.0, np.sqrt(variance), np.nan), "se")

    @property
    def _interval_scales(self) -> list[str]:
        """Scale of each parameter's interval: ``"identity"``, ``"log"`` or ``"logit"``."""
        return ["identity"] * len(self.param_names)

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Confidence intervals at level 1 - alpha.

        Parameters
        ----------
        alpha : float
            Probability outside; 0.05 gives 95 % intervals.

        Returns
        -------
        DataFrame of shape (n_names, 2)
            Columns ``lower`` and ``upper``.

        Notes
        -----
        Wald intervals ``g^-1(g(estimate) +- z se g'(estimate))`` on a scale g on which the
        estimate is closer to normal, and which keeps them in range: the Gaussian
        scale of a typical value (log, logit, probit), the logarithm of a variance or
        residual scale, the logit of a mixture's weight; means, coefficients and
        covariances as they are.
        """
        import pandas as pd

        if not 0.0 < alpha < 1.0:
            raise OptionError(f"alpha={alpha!r} must lie between 0 and 1, such as 0.05.")
        bounds = self._intervals(NormalDist().inv_cdf(1.0 - alpha / 2.0))
        return pd.DataFrame(bounds, index=self.param_names, columns=["lower", "upper"])

    def _intervals(self, z: float) -> Array:
        return np.array(
            [
                wald(estimate, z * se, scale)
                for estimate, se, scale in zip(
                    self.params.to_numpy(), self.bse.to_numpy(), self._interval_scales, strict=True
                )
            ]
        ).reshape(-1, 2)

    @cached_property
    def mc_error(self) -> pd.Series:
        """Monte Carlo standard errors of `params`: how far another seed may end.

        0 for an algorithm without draws, NaN where it is not known; see
        `saem.inference.monte_carlo.monte_carlo_errors`.
        """
        unknown = np.full(len(self.param_names), np.nan)
        return self._series(self._monte_carlo() if self._finite else unknown, "mc_error")

    def accuracy(self, accuracy: float | None = None) -> pd.DataFrame:
        """Return the table of `saem.convergence.accuracy.accuracy_table`."""
        from saem.convergence.accuracy import accuracy_table

        return accuracy_table(self, accuracy)

    def _monte_carlo(self) -> Array:
        from saem.inference.monte_carlo import monte_carlo_errors

        return np.asarray(monte_carlo_errors(self.model, self.record))

    @property
    def is_deterministic(self) -> bool:
        """Whether the algorithm drew nothing: no chains, and full passes only."""
        last = self.record.history.loglik[-1:]
        drawn = {"n_chains", "n_points"} & set(self.record.sampler)
        return not drawn and bool(np.isfinite(last).all())

    # -- likelihood --------------------------------------------------------------

    def _loglik(self, method: str, **options: Any) -> LogLik:
        if method != "exact":
            raise OptionError(
                f"method={method!r}: the log-likelihood of a {self.model.name} is known exactly; "
                "use method='exact'."
            )
        value = float(self.model.loglik(self.record.theta))  # type: ignore[attr-defined]
        return LogLik(value, 0.0, "exact")

    def loglik(self, method: str | None = None, **options: Any) -> LogLik:
        """Log-likelihood of the data at the estimates, by a method of choice.

        Parameters
        ----------
        method : str, optional
            The model's default (that of `llf`) if None. Models with a known
            likelihood have ``"exact"``; see the model's results for others.
        **options
            Of the method.

        Returns
        -------
        LogLik
            Its ``value``, Monte Carlo ``error`` and ``method``.
        """
        key = (method or self._default_method, tuple(sorted(options.items())))
        if key not in self._logliks:
            self._logliks[key] = self._loglik(key[0], **options)
        return self._logliks[key]

    @property
    def llf(self) -> float:
        """Log-likelihood at the estimates."""
        return self.loglik().value

    @property
    def llf_error(self) -> float:
        """Monte Carlo standard error of `llf`."""
        return self.loglik().error

    @property
    def llf_method(self) -> str:
        """How `llf` was computed."""
        return self.loglik().method

    @property
    def aic(self) -> float:
        """Akaike's criterion, ``-2 llf + 2 n_params``; smaller is better."""
        return -2.0 * self.llf + 2.0 * self.n_params

    @property
    def bic(self) -> float:
        """Schwarz's criterion, ``-2 llf + n_params log(n_individuals)``; smaller is better."""
        return -2.0 * self.llf + self.n_params * float(np.log(self.model.n_individuals))

    # -- the fit -----------------------------------------------------------------

    @property
    def converged(self) -> bool:
        """Whether the fit ended as planned or by its rule, at finite estimates."""
        return bool(self.record.converged and self._finite)

    @property
    def reason(self) -> str:
        """What stopped the fit."""
        return self.record.reason

    @property
    def stopped_by(self) -> str:
        """The rule that stopped the fit, in a word; see `saem.record.FitRecord`."""
        return self.record.stopped_by

    @property
    def seed(self) -> int:
        """Seed that reproduces the fit."""
        return self.record.seed

    @property
    def epochs(self) -> float:
        """E-evaluations spent, in passes over all individuals."""
        return self.record.n_evals / self.record.n_individuals

    @property
    def trace(self) -> pd.DataFrame:
        """Course of the fit, one row per recorded iteration, on the user's scale."""
        return self.record.trace

    # -- what people look at -----------------------------------------------------

    @property
    def boundary(self) -> dict[str, str]:
        """Parameters estimated on the boundary of their range, each with a word why."""
        return {}

    def _fixed(self) -> dict[str, float]:
        """Parameters that were kept, with their values on the user's scale."""
        return {}

    def _extra_columns(self) -> dict[str, dict[str, float]]:
        """Further columns of the parameter table: heading -> parameter -> value."""
        return {}

    def _sizes(self) -> list[tuple[str, str]]:
        """Data sizes for the head of the summary."""
        return [("No. of individuals:", f"{self.model.n_individuals}")]

    def to_frame(self, alpha: float = 0.05) -> pd.DataFrame:
        """Parameter table of `summary` as data.

        Parameters
        ----------
        alpha : float
            Confidence intervals have level 1 - alpha.

        Returns
        -------
        DataFrame
            One row per parameter; columns ``estimate``, ``se``, ``rse_percent``,
            ``lower``, ``upper``, ``mc_error``, the model's own (such as
            ``shrinkage_percent``) and ``status``: empty, ``"fixed"`` or ``"boundary"``.
        """
        import pandas as pd

        frame = pd.DataFrame({"estimate": self.params, "se": self.bse})
        with np.errstate(all="ignore"):
            frame["rse_percent"] = 100.0 * frame["se"] / frame["estimate"].abs()
        frame = frame.join(self.conf_int(alpha)).join(self.mc_error)
        for heading, values in self._extra_columns().items():
            frame[heading] = pd.Series(values, dtype=float)
        frame["status"] = ["boundary" if n in self.boundary else "" for n in frame.index]
        for name, value in self._fixed().items():
            frame.loc[name, "estimate"] = value
            frame.loc[name, "status"] = "fixed"
        return frame.rename_axis("parameter")

    def warnings(self) -> list[str]:
        """What a reader must know before trusting the numbers; empty when all is well."""
        from saem._summary import warnings_of

        return warnings_of(self)

    def summary(self, alpha: float = 0.05) -> Summary:
        """Printed table of the fit; `to_frame` has its numbers.

        Parameters
        ----------
        alpha : float
            Confidence intervals have level 1 - alpha.

        Returns
        -------
        statsmodels.iolib.summary.Summary
            With ``as_text()``, ``as_html()``, ``as_latex()``, ``as_csv()``.
        """
        from saem._summary import build

        return build(self, alpha)

    @property
    def plot(self) -> ResultPlots:
        """Figures of this fit: ``results.plot.convergence()`` and the model's own."""
        from saem.plots import ResultPlots

        return ResultPlots(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit, its model and data to one file; `saem.load` reads it.

        Parameters
        ----------
        path : str or path-like
            Such as ``"theophylline.saem"``. An existing file is replaced.
        """
        from saem.persist import save

        save(self, path)

    def __repr__(self) -> str:
        state = "" if self.converged else ", NOT CONVERGED"
        return (
            f"<{type(self).__name__}: {self.model.name} by {self.record.algorithm}, "
            f"{self.n_params} parameters, {self.model.n_individuals} individuals{state}; "
            ".summary() shows all>"
        )

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())

    def _series(self, values: Array, name: str) -> pd.Series:
        import pandas as pd

        return pd.Series(np.asarray(values, dtype=float), index=self.param_names, name=name)


def wald(estimate: float, margin: float, scale: str) -> tuple[float, float]:
    """Interval around an estimate, computed on another scale.

    Parameters
    ----------
    estimate : float
    margin : float
        Quantile times standard error, on the scale of the estimate.
    scale : {"identity", "log", "logit"}

    Returns
    -------
    lower, upper : float
        NaN where the scale does not reach the estimate.
    """
    if scale == "log":
        if not estimate > 0.0:
            return np.nan, np.nan
        with np.errstate(over="ignore"):
            factor = float(np.exp(np.float64(margin) / estimate))
        return estimate / factor, estimate * factor
    if scale == "logit":
        if not 0.0 < estimate < 1.0:
            return np.nan, np.nan
        odds = estimate / (1.0 - estimate)
        with np.errstate(over="ignore"):
            factor = float(np.exp(np.float64(margin) / (estimate * (1.0 - estimate))))
        return odds / (odds + factor), 1.0 / (1.0 + 1.0 / (odds * factor))
    return estimate - margin, estimate + margin
