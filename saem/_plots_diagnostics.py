"""Figures that check a mixed-effects fit: methods of `saem.plots.NLMEPlots`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.figure import Figure

    from saem.nlme.results import NLMEResults

__all__ = ["DiagnosticPlots"]


class DiagnosticPlots:
    """The part of `saem.plots.NLMEPlots` that checks a fit."""

    _results: NLMEResults

    def vpc(
        self, column: str | None = None, *, log: bool = False, points: bool = True, **options: Any
    ) -> Figure:
        """Draw a visual predictive check; ``fit.vpc(...)`` has its numbers.

        Parameters
        ----------
        column : str, optional
            Column of the structural model over which bins lie; time by default.
        log : bool
            Logarithmic response axis.
        points : bool
            Whether to draw the observations too.
        **options
            Of `saem.diagnostics.vpc.predictive_check`: ``bins``, ``strata``,
            ``correction``, ``n_simulations``, ...

        Returns
        -------
        matplotlib.figure.Figure
            Percentiles of the data (black), of simulated data sets (dashed medians, bands);
            rings where the data lie outside. One panel per stratum.
        """
        from saem._plots_vpc import vpc

        return vpc(self._results, self._results.vpc(column, **options), log, points)

    def qq(self, kinds: str | Sequence[str] = ("iwres", "npde"), **options: Any) -> Figure:
        """Draw residuals against normal quantiles; see ``fit.residual_quantiles``.

        Parameters
        ----------
        kinds : str or sequence of str
            Residuals, as for ``fit.residuals``.
        **options
            Of ``fit.residual_quantiles``.

        Returns
        -------
        matplotlib.figure.Figure
            With the band of each order statistic of independent normal numbers.
        """
        from saem._plots_residuals import qq

        return qq(self._results.residual_quantiles(kinds, **options))

    def autocorrelation(
        self, kinds: str | Sequence[str] = ("iwres", "npde"), **options: Any
    ) -> Figure:
        """Draw autocorrelations of residuals; see ``fit.residual_autocorrelation``.

        Parameters
        ----------
        kinds : str or sequence of str
            Residuals, as for ``fit.residuals``.
        **options
            Of ``fit.residual_autocorrelation``.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from saem._plots_residuals import autocorrelation

        return autocorrelation(self._results.residual_autocorrelation(kinds, **options))

    def random_effects(self, source: str = "samples", **options: Any) -> Figure:
        """Draw distributions of the random effects with that of the model.

        Parameters
        ----------
        source : {"samples", "mode"}
            Draws from the individuals' posteriors, or modes.
        **options
            Of ``fit.random_effects_table``.

        Returns
        -------
        matplotlib.figure.Figure
            The title of each panel tells the shrinkage of the modes.
        """
        from saem._plots_effects import random_effects

        table = self._results.random_effects_table(source, **options)
        return random_effects(self._results, table, source)

    def random_effect_correlations(self, source: str = "samples", **options: Any) -> Figure:
        """Draw every pair of random effects; see ``fit.random_effect_correlations``.

        Parameters
        ----------
        source : {"samples", "mode"}
            Draws from the individuals' posteriors, or modes.
        **options
            Of ``fit.random_effects_table``.

        Returns
        -------
        matplotlib.figure.Figure
            One draw of each individual, with ellipses that hold 50 and 95 % of the model's
            random effects.
        """
        from saem._plots_effects import pairs

        return pairs(
            self._results,
            self._results.random_effects_table(source, **options),
            self._results.random_effect_correlations(source, **options),
        )

    def covariates(
        self, covariates: pd.DataFrame | Sequence[str] | str | None = None, **options: Any
    ) -> Figure:
        """Draw random effects over covariates; see ``fit.covariate_tests``.

        Parameters
        ----------
        covariates : DataFrame or sequence of str, optional
            As for ``fit.covariate_tests``.
        **options
            Of ``fit.covariate_tests``.

        Returns
        -------
        matplotlib.figure.Figure
            A row per random effect, a column per covariate; lines of least squares for numbers,
            boxes for categories.
        """
        from saem._plots_effects import covariates as draw

        return draw(self._results, covariates, options)

    def monte_carlo(self, params: Sequence[str] | None = None) -> Figure:
        """Draw the course of the parameters with bands of Monte Carlo error.

        Parameters
        ----------
        params : sequence of str, optional
            Which; all by default.

        Returns
        -------
        matplotlib.figure.Figure
            ``fit.trace``, the estimate, its Monte Carlo band (two errors, ``fit.mc_error``) and the
            much wider band of one standard error (``fit.bse``) against which it is judged.
        """
        from saem._plots_course import monte_carlo

        return monte_carlo(self._results, params)

    def loglik_convergence(self, **options: Any) -> Figure:
        """Draw the importance-sampled log-likelihood as draws are added.

        Parameters
        ----------
        **options
            Of ``fit.loglik_convergence``, which has the numbers.

        Returns
        -------
        matplotlib.figure.Figure
            With a band of two Monte Carlo errors.
        """
        from saem._plots_course import loglik_convergence

        return loglik_convergence(self._results.loglik_convergence(**options))

    def individual_loglik(self, method: str | None = None, **options: Any) -> Figure:
        """Draw the individuals' contributions to the log-likelihood, sorted.

        Parameters
        ----------
        method, **options
            Of ``fit.individual_loglik``, which has the numbers.

        Returns
        -------
        matplotlib.figure.Figure
            Contributions per observation; the lowest five are named by id.
        """
        from saem._plots_course import individual_loglik

        return individual_loglik(self._results, self._results.individual_loglik(method, **options))
