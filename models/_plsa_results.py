"""Results of topic models."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.exceptions import OptionError
from saem.results import Results

from .plsa import PLSA

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PLSAResults"]


class PLSAResults(Results):
    """Results of a topic model; names follow scikit-learn's decompositions."""

    model: PLSA

    @cached_property
    def components(self) -> pd.DataFrame:
        """Probability of every word in every topic, of shape (n_topics, n_words)."""
        import pandas as pd

        topics = self.model.theta_spec.view(self.record.theta)["topics"]
        return pd.DataFrame(topics.copy(), columns=self.model.vocabulary).rename_axis("topic")

    def transform(self, counts: Any = None) -> Array:
        """Topic proportions of documents, of shape (n_documents, n_topics).

        Parameters
        ----------
        counts : as for the model, optional
            Documents over the same vocabulary; those of the fit by default.
        """
        return self.model.proportions(self.record.theta, counts)[0]

    def perplexity(self, counts: Any = None) -> float:
        """``exp(-sum X log p / sum X)``, the proportions fitted to the documents themselves."""
        log_lik = self.model.proportions(self.record.theta, counts)[1]
        tokens = self.model.nobs if counts is None else float(np.asarray(counts.sum()).sum())
        return float(np.exp(-log_lik.sum() / tokens))

    def top_words(self, n: int = 10) -> pd.DataFrame:
        """Words of each topic by falling probability, of shape (n, n_topics)."""
        if n < 1:
            raise OptionError(f"n={n!r} must be at least 1.")
        topics = self.components
        best = np.argsort(-topics.to_numpy(), axis=1, kind="stable")[:, :n]
        words = np.array(self.model.vocabulary, dtype=object)[best]
        return type(topics)(words.T, columns=[f"topic{k}" for k in range(len(topics))])

    def _covariance(self) -> Array:
        """Not known: topics on the boundary have no normal approximation."""
        return np.full((len(self.param_names),) * 2, np.nan)

    def _sizes(self) -> list[tuple[str, str]]:
        return [
            ("No. of documents:", f"{self.model.n_individuals}"),
            ("No. of words:", f"{self.model.n_words}"),
        ]
