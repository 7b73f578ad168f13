"""Figures: how a fit went, and what it says about the data.

Functions and accessors return a matplotlib `Figure` that belongs to no session:
there is nothing to close, ``figure.savefig(path)`` writes it, and a notebook shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saem._plots_diagnostics import DiagnosticPlots
from saem.exceptions import OptionError, Problems
from saem.results import Results

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from saem.nlme.results import NLMEResults

__all__ = ["MixturePlots", "NLMEPlots", "ResultPlots", "convergence", "convergence_table"]

#: The runs of a call: a fit, or fits by name, each alone or a list of several seeds.
Runs = Results | Mapping[str, Results | Sequence[Results]]


def convergence(
    results: Runs,
    x: str = "iteration",
    y: str | Sequence[str] | None = None,
    reference: Any = None,
    *,
    params: Sequence[str] | None = None,
    band: tuple[float, float] = (0.25, 0.75),
    log: str | None = None,
    ax: Any = None,
) -> Figure:
    """Draw the course of one fit, or of several over one another.

    Parameters
    ----------
    results : Results or mapping of str to Results or to lists of Results
        A fit, or named fits to compare; the names stand in the legend. A list holds runs
        that differ in seed or data: their median is drawn, with a band.
    x : {"iteration", "epochs", "seconds"}
        Horizontal axis; ``"iterations"`` is taken too. Comparisons of algorithms want epochs
        or seconds.
    y : str or sequence of str, optional
        What to draw, one panel each: parameters, ``"loglik"``, ``"loglik gap"`` (what is
        missing to the reference, or to the best of the runs without one) or ``"distance"``
        (squared distance of the parameters to the reference); all parameters by default (at
        most 30).
    reference : Results, mapping of str to float, Series, array or float, optional
        What to compare with, such as the exact estimates: marked in the panels of
        parameters, the goal of ``"distance"`` and ``"loglik gap"``. An array holds the values
        of `params`, in their order, or else of all parameters. With ``y="loglik"`` and a
        number, what is missing to that number is drawn.
    params : sequence of str, optional
        Parameters that the distance is made of; all by default.
    band : (float, float)
        Quantiles between which the band of several runs lies. Runs are interpolated on the
        union of their places (at most 400 of them); one that has ended stays at its last value.
    log : str, optional
        Logarithmic axes: ``"x"``, ``"y"``, ``"xy"`` or ``""`` for none. By default that of y
        for gaps, distances and variances that fall over powers of ten.
    ax : matplotlib Axes or sequence of Axes, optional
        Axes to draw on, one a panel, in place of a new figure.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per quantity. For a single fit the phases of a stochastic
        approximation are shaded and the estimate is drawn as a line.

    Raises
    ------
    saem.exceptions.OptionError
        For an unknown axis, quantity or parameter, a reference that is missing or does not
        fit, or no fit at all; the message lists what there is.

    Notes
    -----
    The distance is ``sum_j (params_j - reference_j)^2`` on the user's scale; parameters in
    different units are better compared one by one. Components of mixtures are not
    relabelled.
    """
    from saem._plots_convergence import draw
    from saem._plots_curves import read

    _check_drawing(band, log)
    return draw(read(results, x, y, reference, params), band, log, ax)


def convergence_table(
    results: Runs,
    x: str = "iteration",
    y: str | Sequence[str] | None = None,
    reference: Any = None,
    *,
    params: Sequence[str] | None = None,
    band: tuple[float, float] | None = None,
) -> pd.DataFrame:
    """Return what `convergence` draws as a table.

    Parameters
    ----------
    results, x, y, reference, params
        As for `convergence`.
    band : (float, float), optional
        Return the median and these quantiles of the runs of a name on their common grid,
        instead of the runs.

    Returns
    -------
    DataFrame
        One row a point. Without `band` columns ``name``, ``run`` (number within the
        name, from 0), ``quantity``, ``x``, ``y``; with it ``name``, ``quantity``, ``x``, ``y``
        (the median), ``lower``, ``upper``. ``attrs["x"]`` says what x is.

    Raises
    ------
    saem.exceptions.OptionError
        As for `convergence`.
    """
    from saem._plots_convergence import table
    from saem._plots_curves import read

    _check_drawing(band, None)
    return table(read(results, x, y, reference, params), band)


def _check_drawing(band: tuple[float, float] | None, log: str | None) -> None:
    problems = Problems("the figure")
    if band is not None and not (len(band) == 2 and 0.0 <= band[0] <= band[1] <= 1.0):
        problems.add(f"band={band!r} must be two quantiles in order, such as (0.25, 0.75)")
    if log is not None and log not in ("", "x", "y", "xy", "yx"):
        problems.add(f"log={log!r} must be 'x', 'y', 'xy' or '' for none")
    problems.raise_if_any(OptionError)


class ResultPlots:
    """Figures of one fit, reached through ``results.plot``.

    Parameters
    ----------
    results : Results
        The fit that is drawn.
    """

    def __init__(self, results: Results) -> None:
        self._results: Any = results

    def convergence(
        self,
        x: str = "iteration",
        y: str | Sequence[str] | None = None,
        reference: Any = None,
        **options: Any,
    ) -> Figure:
        """Draw the course of the fit; see `saem.plots.convergence`, also for the options."""
        return convergence(self._results, x, y, reference, **options)

    def __repr__(self) -> str:
        names = [name for name in dir(self) if not name.startswith("_")]
        return f"<figures of {self._results!r}: {', '.join(f'.{n}()' for n in names)}>"


class NLMEPlots(DiagnosticPlots, ResultPlots):
    """Figures of a nonlinear mixed-effects fit, reached through ``results.plot``.

    Parameters
    ----------
    results : Results
        The fit that is drawn.
    """

    _results: NLMEResults

    def individual_fits(
        self, n: int = 12, ids: Sequence[Any] | None = None, log: bool = False
    ) -> Figure:
        """Draw data and predictions of individuals, one panel each.

        Parameters
        ----------
        n : int
            How many individuals, the first of the data.
        ids : sequence, optional
            Which individuals instead.
        log : bool
            Logarithmic response axis.

        Returns
        -------
        matplotlib.figure.Figure
            Over time, or the first column of the structural model.
        """
        from saem._plots_nlme import individual_fits

        return individual_fits(self._results, n, ids, log)

    def observed_vs_predicted(self, log: bool = False) -> Figure:
        """Draw responses against population and individual predictions.

        Parameters
        ----------
        log : bool
            Logarithmic axes.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from saem._plots_nlme import observed_vs_predicted

        return observed_vs_predicted(self._results, log)

    def residuals(self) -> Figure:
        """Draw weighted residuals over predictions, over time, and against the normal.

        Returns
        -------
        matplotlib.figure.Figure
            Individual (IWRES) above, conditional population residuals (CWRES) below.
        """
        from saem._plots_nlme import residuals

        return residuals(self._results)


class MixturePlots(ResultPlots):
    """Figures of a mixture, reached through ``results.plot``.

    Parameters
    ----------
    results : Results
        The fit that is drawn.
    """

    def components(self, features: Sequence[Any] | None = None) -> Figure:
        """Draw the data and the fitted components.

        Parameters
        ----------
        features : sequence of str, optional
            One column (histogram with densities) or two (scatter with ellipses that hold
            50 and 95 % of a component); the first two by default.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from saem._plots_mixture import components

        return components(self._results, features)


def units_of(frame: pd.DataFrame) -> dict[str, str]:
    """Units of columns, where the data set's ``attrs`` state them."""
    units = frame.attrs.get("units", {})
    return {str(k): str(v) for k, v in units.items()} if isinstance(units, Mapping) else {}
