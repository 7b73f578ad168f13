"""What results of an NLME say of their convergence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saem.results import Results

if TYPE_CHECKING:
    import pandas as pd

    from saem.convergence.agreement import Agreement
    from saem.convergence.why import Why

__all__ = ["ConvergenceFace"]


class ConvergenceFace(Results):
    """Drift, other starts and causes; the logic is in `saem.convergence`."""

    def drift(self) -> pd.DataFrame:
        """Tests of drift of the averaged iterations; see `saem.convergence.drift.drift_tests`.

        Returns
        -------
        DataFrame
            One row per estimate.
        """
        from saem.convergence.drift import drift_tests

        return drift_tests(self.model, self.record)  # type: ignore[arg-type]

    def agreement(self, n_starts: int = 8, **options: Any) -> Agreement:
        """Fit again from perturbed starts; the first is this fit's own start.

        Parameters
        ----------
        n_starts : int
        **options
            Of `saem.convergence.agreement.multistart`.

        Returns
        -------
        Agreement
        """
        from saem.convergence.agreement import multistart

        first = {"first": self.record.theta_start, "seed": self.record.seed}
        found = multistart(self.model, n_starts, **(first | options))  # type: ignore[arg-type]
        self.__dict__["_agreement"] = found  # for `why`
        return found

    def why(self, n_starts: int | None = None) -> Why:
        """Ranked causes of what may be wrong with this fit; see `saem.convergence.why.why`.

        Parameters
        ----------
        n_starts : int, optional
            Starts of a search for a higher maximum; by default 12 where they cost little.

        Returns
        -------
        Why
            Prints as text; its ``frame`` is a DataFrame. Empty where nothing was found.
        """
        from saem.convergence.why import why

        return why(self, n_starts)  # type: ignore[arg-type]
