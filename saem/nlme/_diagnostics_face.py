"""Residuals, predictive checks and comparisons of a mixed-effects fit: methods of `NLMEResults`.

What they compute stands in `saem.diagnostics`, which is loaded when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saem.contract import Array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from saem.diagnostics.covariate_search import CovariateSearch
    from saem.diagnostics.vpc import PredictiveCheck
    from saem.nlme.model import NLME
    from saem.nlme.results import NLMEResults
    from saem.record import FitRecord

__all__ = ["DiagnosticsFace"]

_RESIDUALS = ("iwres", "cwres", "pwres", "npd", "npde")


class DiagnosticsFace:
    """The part of `saem.nlme.results.NLMEResults` that checks the fit."""

    if TYPE_CHECKING:
        model: NLME
        record: FitRecord

        @property
        def _whole(self) -> NLMEResults: ...

    # -- residuals ---------------------------------------------------------------

    def residuals(
        self,
        kinds: str | Sequence[str] = ("iwres", "cwres"),
        *,
        n_simulations: int = 1000,
        decorrelation: str = "cholesky",
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Responses, predictions and weighted residuals, row by row of the data.

        Parameters
        ----------
        kinds : str or sequence of str
            Of ``"iwres"``, ``"cwres"``, ``"pwres"``, ``"npd"`` and ``"npde"``, or
            ``"all"``. The last three are computed from simulated data sets.
        n_simulations : int
            Simulated data sets.
        decorrelation : {"cholesky", "eigen"}
            Square root by which the observations of an individual are decorrelated.
        seed : int, optional
            Of the simulations; that of the fit by default.

        Returns
        -------
        DataFrame
            In the order and with the index of the data: ``id``, ``time`` (where it is
            known), ``dvid`` (the endpoint, where there are labels), ``dv``, ``population`` and
            ``individual`` predictions, and

            * ``iwres``: ``(dv - individual) / g(individual)``, g the residual standard
              deviation (logarithms of both with an exponential error);
            * ``cwres``: population residuals whitened by the covariance of the model
              linearised at the modes (Hooker, Staatz and Karlsson 2007, Pharm. Res.
              24, 2187-2197);
            * ``pwres``: population residuals whitened by the marginal mean and covariance
              of the model, both by simulation;
            * ``npd``: normalised prediction discrepancies, the place of a response in its
              simulated distribution as a normal quantile; ``npde``: the same after
              decorrelation (Brendel et al. 2006, Pharm. Res. 23, 2036-2049).

            If the model is right they are near standard normal; npd are correlated
            within individuals.

        Raises
        ------
        saem.exceptions.OptionError
            For an unknown kind or decorrelation, or too few or too many simulations.
        """
        from saem.diagnostics._tables import residual_table

        return residual_table(self._whole, kinds, n_simulations, decorrelation, seed)

    def residual_tests(
        self,
        kinds: str | Sequence[str] = "npde",
        *,
        n_simulations: int = 1000,
        decorrelation: str = "cholesky",
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Tests that residuals are standard normal; meant for NPDE.

        Parameters
        ----------
        kinds, n_simulations, decorrelation, seed
            As for `residuals`.

        Returns
        -------
        DataFrame
            One row a kind (and endpoint, if there are several): ``n``, ``sample_mean``,
            ``sample_variance``, and p-values ``p_mean``, ``p_variance``, ``p_normality``,
            ``p_kolmogorov_smirnov`` and ``p_combined``; see
            `saem.diagnostics.residuals.residual_tests`. That the parameters were estimated from
            the same data makes them somewhat large.
        """
        from saem.diagnostics._tables import residual_tests_table

        return residual_tests_table(self._whole, kinds, n_simulations, decorrelation, seed)

    def _replicates(self, n: int, seed: int | None) -> Array:
        """Simulated responses (n, n_rows); those asked for last are kept."""
        from saem.diagnostics._replicates import replicates

        key = (n, self.record.seed if seed is None else seed)
        kept: dict[tuple[int, int], Array] = self.__dict__.setdefault("_kept_replicates", {})
        if key not in kept:
            kept.clear()
            kept[key] = replicates(self.model, self.record.theta, n, key[1])
        return kept[key]

    def vpc(self, column: str | None = None, **options: Any) -> PredictiveCheck:
        """Visual predictive check, also prediction-corrected; ``plot.vpc`` draws it.

        Parameters
        ----------
        column : str, optional
            Column of the structural model over which bins lie; time by default.
        **options
            Of `saem.diagnostics.vpc.predictive_check`: ``bins``, ``binning``, ``percentiles``,
            ``strata``, ``correction``, ``lower_bound``, ``level``, ``n_simulations``, ``seed``.

        Returns
        -------
        saem.diagnostics.vpc.PredictiveCheck
            With the frames ``observed`` and ``simulated``.
        """
        from saem.diagnostics.vpc import predictive_check

        return predictive_check(self._whole, column, **options)

    def residual_quantiles(
        self, kinds: str | Sequence[str] = ("iwres", "npde"), *, level: float = 0.95, **options: Any
    ) -> pd.DataFrame:
        """Sorted residuals beside normal quantiles; ``plot.qq`` draws them.

        Parameters
        ----------
        kinds : str or sequence of str
            As for `residuals`.
        level : float
            Probability of the band of each order statistic.
        **options
            Of `residuals`.

        Returns
        -------
        DataFrame
            ``residual`` (with the endpoint, where there are several), ``expected``, ``value``,
            ``lower`` and ``upper``.
        """
        from saem.diagnostics.series import columns_by_endpoint, quantile_table

        frame = self.residuals(kinds, **options)
        names = [c for c in frame.columns if c in _RESIDUALS]
        return quantile_table(columns_by_endpoint(self._whole, frame, names), level)

    def residual_autocorrelation(
        self, kinds: str | Sequence[str] = ("iwres", "npde"), *, max_lag: int = 5, **options: Any
    ) -> pd.DataFrame:
        """Correlation of an individual's residuals that are so many observations apart.

        Parameters
        ----------
        kinds : str or sequence of str
            As for `residuals`.
        max_lag : int
            Largest distance.
        **options
            Of `residuals`.

        Returns
        -------
        DataFrame
            ``residual``, ``lag``, ``autocorrelation``, ``n_pairs``, and the band ``lower``,
            ``upper`` of independent residuals. Those of iwres are a little negative, since
            individuals were fitted to them.
        """
        from saem.diagnostics.series import autocorrelation_table

        frame = self.residuals(kinds, **options)
        names = [c for c in frame.columns if c in _RESIDUALS]
        return autocorrelation_table(self._whole, frame, names, max_lag)

    def random_effects_table(self, source: str = "samples", **options: Any) -> pd.DataFrame:
        """Random effects on the Gaussian scale, from draws or modes.

        Parameters
        ----------
        source : {"samples", "mode"}
            Draws from the individuals' posteriors are spread as the random effects are;
            modes are shrunk.
        **options
            ``n_samples`` (draws per individual), ``seed``.

        Returns
        -------
        DataFrame
            Indexed by id and ``sample``; a column for each random effect.
        """
        from saem.diagnostics.effects import eta_table

        return eta_table(self._whole, source, **options)

    def random_effect_correlations(self, source: str = "samples", **options: Any) -> pd.DataFrame:
        """Correlations between random effects, with p-values, and those of omega.

        Parameters
        ----------
        source, **options
            As for `random_effects_table`.

        Returns
        -------
        DataFrame
            ``first``, ``second``, ``correlation``, ``p_value``, ``model``; see
            `saem.diagnostics.effects.correlations`.
        """
        from saem.diagnostics.effects import correlations

        return correlations(self._whole, source, **options)

    def covariate_tests(
        self, covariates: pd.DataFrame | Sequence[str] | str | None = None, **options: Any
    ) -> pd.DataFrame:
        """Tests of covariates against random effects; ``plot.covariates`` draws them.

        Parameters
        ----------
        covariates : DataFrame or sequence of str, optional
            A frame with the ids of the fit (such as the data themselves), or names of
            covariates of the model; all of these by default.
        **options
            ``source`` (``"samples"`` or ``"mode"``), ``n_samples``, ``seed``.

        Returns
        -------
        DataFrame
            ``parameter``, ``covariate``, ``kind``, ``statistic``, ``p_value``; see
            `saem.diagnostics.effects.covariate_table`.
        """
        from saem.diagnostics.effects import covariate_table

        return covariate_table(self._whole, covariates, **options)

    def to_arviz(
        self, *, accuracy: float = 0.05, max_draws: int = 4000, seed: int | None = None
    ) -> Any:
        """Posteriors of the individuals at the estimates, as ArviZ's InferenceData.

        Parameters
        ----------
        accuracy, max_draws, seed
            As for `conditional_samples`.

        Returns
        -------
        arviz.InferenceData
            ``posterior``: the individual parameters by name, with dimensions chain, draw and
            id, and the random effects ``eta``; ``log_likelihood``: of every observation,
            ``dv``; ``observed_data``: ``dv`` in the order of the data; ``constant_data``: the
            columns of the structural model and the ``individual`` of each row. The population
            parameters are fixed at their estimates (attribute ``population_parameters``),
            so that ``arviz.loo`` compares predictions of observations within individuals.

        Raises
        ------
        ImportError
            If ArviZ is not installed (extra ``arviz``).
        """
        from saem.diagnostics.to_arviz import to_arviz

        return to_arviz(self._whole, accuracy=accuracy, max_draws=max_draws, seed=seed)

    def covariate_search(
        self,
        data: pd.DataFrame,
        candidates: Mapping[str, Sequence[str]] | Sequence[str],
        **options: Any,
    ) -> CovariateSearch:
        """Search covariates step by step, starting from this fit.

        Parameters
        ----------
        data : DataFrame
            The data of the fit, with the columns of all candidates.
        candidates : mapping of str to sequence of str, or sequence of str
            Formula terms to try for each parameter, or for every random one.
        **options
            Of `saem.diagnostics.covariate_search.covariate_search`: ``method`` (``"scm"`` or
            ``"cossac"``), ``forward``, ``backward``, ``algorithm``, ...

        Returns
        -------
        saem.diagnostics.covariate_search.CovariateSearch
            With ``fit``, ``terms`` and ``log``.
        """
        from saem.diagnostics.covariate_search import covariate_search

        return covariate_search(self._whole, data, candidates, **options)
