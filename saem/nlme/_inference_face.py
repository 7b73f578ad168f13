"""Likelihoods, uncertainty and tests of a fit, as methods of its results."""

from __future__ import annotations

import math
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

from saem.exceptions import OptionError
from saem.nlme._continuous import require_predictions
from saem.results import LogLik

if TYPE_CHECKING:
    import pandas as pd

    from saem.inference.bootstrap import Bootstrap
    from saem.inference.information import Information
    from saem.inference.likelihood import Likelihood
    from saem.inference.profile import Profile
    from saem.inference.sir import SIR
    from saem.inference.tests import TestResult
    from saem.nlme.model import NLME
    from saem.record import FitRecord

__all__ = ["InferenceFace"]

#: Random effects up to which the observed information is computed by quadrature.
_MAX_LOUIS = 4
#: Individuals up to which it is computed by chains beyond: some seconds.
_MAX_CHAINS = 100
#: Methods that start from the individuals' modes, and may be given those already found.
_FROM_MODES = ("importance", "is", "laplace", "focei", "linearised", "fo")


class InferenceFace:
    """What `saem.nlme.results.NLMEResults` answers by `saem.inference`."""

    model: NLME
    record: FitRecord
    _modes: Any
    _default_method: str
    _likelihoods: dict[Any, Likelihood]

    # -- information -------------------------------------------------------------

    def information(self, method: str | None = None, **options: Any) -> Information:
        """Information about the parameters, from which standard errors are computed.

        Parameters
        ----------
        method : {"louis", "linearised", "exact", "score", "sandwich", "focei", "laplace"}, optional
            ``"louis"``: observed information, complete less missing; by quadrature up to four
            random effects, and by Markov chains (``n_samples``, ``seed``) with a Monte Carlo
            error beyond; the default but for more than 100 individuals with more effects.
            ``"linearised"``: expected information of the model linearised at
            the individuals' modes; the default otherwise, and not defined
            with a user's log-likelihood (`saem.LogLikelihood`). ``"exact"``: second
            differences of the quadrature log-likelihood. ``"score"``: cross-product of the
            individuals' scores. ``"sandwich"``: ``H J^-1 H`` of Louis' H and that cross-product J,
            which allows for distributions that are not quite right. ``"focei"``,
            ``"laplace"``: Hessian of that approximate likelihood; the default for estimates that
            maximise it.
        **options
            Of the functions of `saem.inference.information`.

        Returns
        -------
        saem.inference.information.Information
            With ``bse``, ``cov``, ``correlation``, ``condition``, ``boundary``, ...

        Raises
        ------
        saem.exceptions.OptionError
            For another method.
        """
        from saem.inference import information

        methods: dict[str, Any] = {
            "louis": information.louis_information,
            "linearised": information.linearised_information,
            "exact": information.exact_information,
            "score": information.score_information,
            "sandwich": information.sandwich_information,
            "focei": partial(information.first_order_information, kind="focei"),
            "laplace": partial(information.first_order_information, kind="laplace"),
        }
        if method is None and self.record.objective:
            method = self.record.objective
        if method is None:
            n, d = self.model.n_individuals, self.model.n_coords
            few = 0 < self.model.quadrature_coords <= _MAX_LOUIS
            exact = few or (d > 0 and n <= _MAX_CHAINS)
            method = "louis" if exact or not self.model.endpoints.continuous else "linearised"
        if method not in methods:
            raise OptionError(f"method={method!r} must be one of {', '.join(map(repr, methods))}.")
        if method == "linearised":
            require_predictions(self.model, "linearised information", "method='louis'")
        if method != "exact":
            options = {"modes": self._modes} | options
        found: Information = methods[method](self.model, self.record.theta, **options)
        return found

    @property
    def correlation(self) -> pd.DataFrame:
        """Correlations of the estimates, on the scale on which they are estimated.

        NaN for parameters on a boundary. Beyond 0.95 in size two parameters are hard to tell apart.
        """
        found: pd.DataFrame = self._information.correlation
        return found

    @property
    def condition_number(self) -> float:
        """Condition number of the information, scaled to unit diagonal.

        The largest by the smallest eigenvalue; beyond 1000 the data hardly determine some
        combination of the parameters.
        """
        return float(self._information.condition)

    # -- likelihood --------------------------------------------------------------

    def _likelihood(self, method: str, **options: Any) -> Likelihood:
        """Log-likelihood with its parts, kept once it is known."""
        from saem.inference.likelihood import log_likelihood

        kept: dict[Any, Likelihood] = self.__dict__.setdefault("_likelihoods", {})
        key = (method, tuple(sorted(options.items())))
        if key not in kept:
            if method in _FROM_MODES:
                options = {"modes": self._modes} | options
            if method in ("importance", "is"):
                options = {"seed": self.record.seed} | options
            kept[key] = log_likelihood(self.model, self.record.theta, method=method, **options)
        return kept[key]

    def _loglik(self, method: str, **options: Any) -> LogLik:
        found = self._likelihood(method, **options)
        return LogLik(float(found.value), float(found.error), found.method)

    def objective(self, method: str = "focei", **options: Any) -> float:
        """Objective as NONMEM prints it: ``-2 log L - nobs log(2 pi)``.

        Parameters
        ----------
        method : str
            As of `loglik`.
        **options
            Of the method.

        Returns
        -------
        float
            The constant ``nobs log(2 pi)`` is left out, nothing else: with exponential error the
            log-likelihood is that of the responses, not of their logarithms.
        """
        n_obs = self.model.nobs
        return -2.0 * self._loglik(method, **options).value - n_obs * math.log(2.0 * math.pi)

    def individual_loglik(self, method: str | None = None, **options: Any) -> pd.DataFrame:
        """Contributions of the individuals to the log-likelihood.

        Parameters
        ----------
        method : {"importance", "quadrature", "laplace", "focei", "linearised", "fo"}, optional
            That of `llf` by default.
        **options
            Of the method; see `saem.inference.likelihood`.

        Returns
        -------
        DataFrame
            One row per individual, indexed by id: ``loglik``, its Monte Carlo standard
            ``error`` (change by the last refinement for quadrature, NaN where unknown), number of
            ``points``; for importance sampling effective sample size ``ess`` and ``pareto_k``.
            Where k is above 0.7 neither the value nor its error can be relied on.
        """
        import pandas as pd

        found = self._likelihood(method or self._default_method, **options)
        columns: dict[str, Any] = {
            "loglik": found.contributions, "error": found.errors, "points": found.n_points,
        }  # fmt: skip
        if found.ess is not None:
            columns |= {"ess": found.ess, "pareto_k": found.pareto_k}
        return pd.DataFrame(columns, index=self._index())

    def loglik_convergence(self, **options: Any) -> pd.DataFrame:
        """Course of the importance-sampled log-likelihood as draws are added.

        Parameters
        ----------
        **options
            Of `saem.inference.likelihood.importance_convergence`: ``n_samples``,
            ``n_blocks``, ``seed``, ...

        Returns
        -------
        DataFrame
            Columns ``draws``, ``loglik`` and ``error``, one row per block of draws.
        """
        from saem.inference.likelihood import importance_convergence

        options = {"seed": self.record.seed, "modes": self._modes} | options
        return importance_convergence(self.model, self.record.theta, **options)

    # -- tests -------------------------------------------------------------------

    def wald_test(self, what: Any = None, value: Any = 0.0) -> TestResult:
        """Wald test that parameters have given values; all covariate coefficients 0 by default.

        Parameters
        ----------
        what : str, sequence of str, mapping of str to float, or ndarray, optional
            Names; names with the values to test; or a matrix R for ``R theta = value``.
        value : float or array-like
            See `saem.inference.tests.wald`.

        Returns
        -------
        saem.inference.tests.TestResult
            The joint ``statistic``, ``df`` and ``p_value``; ``table`` has each by itself.
        """
        from saem.inference.tests import wald

        return wald(self, what, value)  # type: ignore[arg-type]

    # -- replicates --------------------------------------------------------------

    def bootstrap(
        self,
        n_replicates: int = 200,
        kind: Literal["case", "parametric", "conditional"] = "case",
        **options: Any,
    ) -> Bootstrap:
        """Refit the model to replicates of its data.

        Parameters
        ----------
        n_replicates : int
        kind : {"case", "parametric", "conditional"}
            Individuals drawn with replacement; data simulated from the fit; or random effects
            and residuals of the fit drawn with replacement.
        **options
            Of `saem.inference.bootstrap.bootstrap`: ``strata``, ``folder`` (to go on after
            an interruption), ``seed`` (that of the fit by default), ``n_workers``, ``algorithm``.

        Returns
        -------
        saem.inference.bootstrap.Bootstrap
            With ``replicates``, ``bse``, ``conf_int()``, ``summary()``, ...
        """
        from saem.inference.bootstrap import bootstrap

        options = {"seed": self.record.seed} | options
        return bootstrap(self.model, self.record.theta, n_replicates, kind, **options)

    def profile(self, name: str, **options: Any) -> Profile:
        """Profile the likelihood in one parameter.

        Parameters
        ----------
        name : str
            Of a parameter.
        **options
            Of `saem.inference.profile.profile`: ``level``, ``n_points``, ``n_threads``.

        Returns
        -------
        saem.inference.profile.Profile
            Its interval ``lower`` to ``upper`` and the ``table`` of values tried.
        """
        from saem.inference.profile import profile

        return profile(self.model, self.record.theta, name, **options)

    def sir(self, **options: Any) -> SIR:
        """Sample from the uncertainty of the estimates, by importance resampling.

        Parameters
        ----------
        **options
            Of `saem.inference.sir.sir`: ``n_samples``, ``n_resamples``, ``n_rounds``,
            ``seed`` (that of the fit by default).

        Returns
        -------
        saem.inference.sir.SIR
            With ``samples``, ``bse``, ``conf_int()``, ``summary()``.
        """
        from saem.inference.sir import sir

        options = {"seed": self.record.seed, "information": self._information} | options
        return sir(self.model, self.record.theta, **options)

    if TYPE_CHECKING:

        @cached_property
        def _information(self) -> Any: ...

        def _index(self) -> pd.Index: ...
