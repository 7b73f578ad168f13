"""Results of mixtures of regressions."""

from __future__ import annotations

from typing import Any

from saem.contract import Array

from ._mixture_answers import RecordMixtureResults
from .regression_mixture import RegressionMixture

__all__ = ["RegressionMixtureResults"]


class RegressionMixtureResults(RecordMixtureResults):
    """Results of a mixture of regressions.

    `predict`, `predict_proba` and `score_samples` take rows with their responses: ``(X, y)``,
    or a DataFrame for a model made from a formula. `sample` takes covariates.
    """

    model: RegressionMixture

    def predict_response(self, X: Any = None) -> Array:
        """Mean response of each row of covariates, of shape (n_rows,); the fit's by default."""
        return self.model.predict_response(self.record.theta, X)
