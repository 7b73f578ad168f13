"""What the results of models with random effects by group share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from saem.results import Results

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RandomEffectsResults"]


class RandomEffectsResults(Results):
    """Base of such results; names follow statsmodels' `MixedLMResults`."""

    model: Any
    #: Name of the random effects' covariance in `components` of the model.
    _covariance_name: ClassVar[str]

    @property
    def fe_params(self) -> pd.Series:
        """Fixed effects."""
        return self.params.iloc[: len(self.model.fixed_names)]

    @property
    def cov_re(self) -> pd.DataFrame:
        """Covariance of the random effects, of shape (q, q)."""
        import pandas as pd

        names = self.model.random_names
        covariance = self.model.components(self.record.theta)[self._covariance_name]
        return pd.DataFrame(covariance, index=names, columns=names)

    def _sizes(self) -> list[tuple[str, str]]:
        return [("No. of groups", f"{self.model.n_individuals}")]
