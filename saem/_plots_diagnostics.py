"""Figures that check a mixed-effects fit: methods of `saem.plots.NLMEPlots`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
