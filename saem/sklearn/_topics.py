"""Probabilistic latent semantic analysis as an estimator."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import validate_data

from saem import models
from saem.contract import Array, Model
from saem.exceptions import DataError
from saem.sklearn._base import Estimator

__all__ = ["PLSA"]


class PLSA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Topic model on counts, dense or sparse.

    Parameters
    ----------
    n_components : int
        Number of topics.
    alpha : float
        Pseudo-count of every word in every topic, at least 0; 0 gives maximum likelihood.
    alpha_documents : float, optional
        Pseudo-count of every topic in every document. As `alpha` by default.
    topics_init : array_like of shape (n_components, n_features), optional
        Topics to start from; random ones by default.
    [run parameters]

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Probability of each word in each topic. Rows sum to 1, unlike those of
        `sklearn.decomposition.LatentDirichletAllocation`.
    [run attributes]

    Notes
    -----
    A document without words says nothing: it is left out of the fit, and its proportions are
    equal. Log-likelihoods are of documents. `batch_size` is not used, as chunks are not taken.

    Examples
    --------
    >>> X = [[5, 1, 0, 0], [4, 2, 0, 0], [0, 0, 3, 3], [0, 0, 1, 5]]
    >>> PLSA(2, random_state=0).fit_transform(X).shape
    (4, 2)
    """

    _allow_nan = False
    _positive = True

    def __init__(
        self,
        n_components: int = 10,
        *,
        alpha: float = 0.01,
        alpha_documents: float | None = None,
        topics_init: Any = None,
        tol: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        random_state: Any = None,
        algorithm: Any = "em",
    ) -> None:
        self.n_components = n_components
        self.alpha = alpha
        self.alpha_documents = alpha_documents
        self.topics_init = topics_init
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.random_state = random_state
        self.algorithm = algorithm

    def __sklearn_tags__(self) -> Any:
        """Tags; scikit-learn has none for counts, and whole numbers are what "categorical" says."""
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.sparse = True
        return tags

    def _read(self, X: Any, *, reset: bool) -> Any:
        from scipy.sparse import csr_array

        X = validate_data(
            self, X, reset=reset, dtype=np.float64, accept_sparse="csr",
            ensure_min_samples=2 if reset else 1,
        )  # fmt: skip
        matrix = csr_array(X)
        if matrix.nnz and matrix.data.min() < 0.0:
            raise DataError("Negative values in data passed to PLSA; all must be counts.")
        return matrix

    def _make(self, data: Any, weights: Array | None, *, stream: bool) -> Model:
        names = getattr(self, "feature_names_in_", None)
        return models.PLSA(
            data, self.n_components, alpha=self.alpha, alpha_documents=self.alpha_documents,
            vocabulary=names, init=self.topics_init, weights=weights,
        )  # fmt: skip

    def _start(self, model: Any, rng: np.random.Generator) -> Array:
        """Given topics, or weighted frequencies of the words times exponential numbers."""
        if model.init is not None:
            start: Array = model.start(rng)
            return start
        frequency = model.weights @ model.documents.matrix() + 0.5
        topics = frequency * rng.exponential(size=(model.n_topics, model.n_words))
        packed: Array = model.pack_params(topics=topics / topics.sum(axis=1, keepdims=True))
        return packed

    def _set_estimates(self, model: Any, theta: Array) -> None:
        self.components_ = model.theta_spec.view(theta)["topics"].copy()

    def _slim(self, model: Any) -> Any:
        return models.PLSA(
            np.ones((1, model.n_words)), model.n_topics, alpha=model.alpha,
            alpha_documents=model.alpha_documents, vocabulary=model.vocabulary,
        )  # fmt: skip

    @property
    def _n_features_out(self) -> int:
        return int(self.components_.shape[0])

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Estimate the topics.

        Parameters
        ----------
        X : array_like or sparse matrix of shape (n_samples, n_features)
            Counts of words in documents.
        y : None
            Not used.
        sample_weight : array_like of shape (n_samples,), optional
            At least 0. A weight of 2 is the same as the document standing there twice.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            With all that is wrong with data and options.
        """
        counts = self._read(X, reset=True)
        weights = self._weights(sample_weight, counts)
        full = np.flatnonzero(counts.sum(axis=1))
        if full.size == 0:
            raise DataError("no document holds a word.")
        if full.size < counts.shape[0]:
            counts = counts[full]
            weights = None if weights is None else weights[full]
        return self._fit(counts, weights, counts.shape[0])

    def _proportions(self, X: Any) -> tuple[Array, Array, float]:
        """Proportions and log-likelihoods of documents, and the number of their words."""
        self._check_fitted()
        counts = self._read(X, reset=False)
        n, k = counts.shape[0], self.components_.shape[0]
        proportions, log_lik = np.full((n, k), 1.0 / k), np.zeros(n)
        full = np.flatnonzero(counts.sum(axis=1))
        if full.size:
            proportions[full], log_lik[full] = self._model.proportions(self._theta, counts[full])
        return proportions, log_lik, float(counts.sum())

    def transform(self, X: Any) -> Array:
        """Topic proportions of documents, of shape (n_samples, n_components)."""
        return self._proportions(X)[0]

    def score_samples(self, X: Any) -> Array:
        """Log-likelihood of each document at its best proportions, of shape (n_samples,)."""
        return self._proportions(X)[1]

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-likelihood of a document."""
        return float(self.score_samples(X).mean())

    def perplexity(self, X: Any) -> float:
        """``exp(-sum X log p / sum X)``, the proportions fitted to the documents themselves."""
        _, log_lik, tokens = self._proportions(X)
        return float(np.exp(-log_lik.sum() / tokens))
