"""Likelihoods, uncertainty and tests of a fit, as methods of its results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saem.results import LogLik

if TYPE_CHECKING:
    import pandas as pd

    from saem.inference.likelihood import Likelihood
    from saem.nlme.model import NLME
    from saem.record import FitRecord

__all__ = ["InferenceFace"]

#: Methods that start from the individuals' modes, and may be given those already found.
_FROM_MODES = ("importance", "is", "laplace", "linearised")


class InferenceFace:
    """What `saem.nlme.results.NLMEResults` answers by `saem.inference`."""

    model: NLME
    record: FitRecord
    _modes: Any
    _default_method: str
    _likelihoods: dict[Any, Likelihood]

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

    def individual_loglik(self, method: str | None = None, **options: Any) -> pd.DataFrame:
        """Contributions of the individuals to the log-likelihood.

        Parameters
        ----------
        method : {"importance", "quadrature", "laplace", "linearised"}, optional
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

    if TYPE_CHECKING:

        def _index(self) -> pd.Index: ...
