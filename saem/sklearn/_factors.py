"""Factor analysis and probabilistic principal components as estimators."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin

from saem import models
from saem.contract import Array, Model
from saem.sklearn._base import RowEstimator

__all__ = ["PPCA", "FactorAnalysis"]

_COMMON = """n_components : int
    Number of factors, below the number of columns.
noise_floor : float
    Noise variances do not fall below this share of the variance of their column.
[run parameters]"""

_ESTIMATES = """components_ : ndarray of shape (n_components, n_features)
    Loadings, determined up to a rotation.
mean_ : ndarray of shape (n_features,)"""


class FactorAnalysis(ClassNamePrefixFeaturesOutMixin, TransformerMixin, RowEstimator):
    """Factor analysis with missing values and weights.

    Parameters
    ----------
    [factor parameters]

    Attributes
    ----------
    [factor attributes]
    noise_variance_ : ndarray of shape (n_features,)
    [run attributes]

    Notes
    -----
    Differences from `sklearn.decomposition.FactorAnalysis`: NaN is a missing value, integrated
    out of the likelihood; `fit` takes sample weights; `tol` is per row and means the gain of
    an iteration; there are no ``rotation``, ``svd_method`` and ``noise_variance_init``.
    `transform` gives posterior means of the factors, as there.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(50, 1)) + np.random.default_rng(1).normal(
    ...     size=(50, 4)
    ... )
    >>> FactorAnalysis(1).fit(X).transform(X).shape
    (50, 1)
    """

    _docs: ClassVar[dict[str, str]] = {
        "[factor parameters]": _COMMON, "[factor attributes]": _ESTIMATES
    }  # fmt: skip
    _min_features = 2
    _model_class: ClassVar[str] = "FactorAnalysis"

    def __init__(
        self,
        n_components: int = 1,
        *,
        noise_floor: float = 1e-6,
        tol: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        random_state: Any = None,
        algorithm: Any = "em",
        batch_size: int = 64,
    ) -> None:
        self.n_components = n_components
        self.noise_floor = noise_floor
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.random_state = random_state
        self.algorithm = algorithm
        self.batch_size = batch_size

    def _make(self, data: Any, weights: Array | None, *, stream: bool) -> Model:
        model: Model = getattr(models, self._model_class)(
            self._named(data), self.n_components, weights=weights, noise_floor=self.noise_floor,
            incomplete=True if stream else None,
        )  # fmt: skip
        return model

    def _set_estimates(self, model: Any, theta: Array) -> None:
        parts = model.components(theta)
        self.components_ = np.ascontiguousarray(parts["loadings"].T)
        self.mean_ = parts["mean"]
        self.noise_variance_ = parts["noise_variance"]

    @property
    def _n_features_out(self) -> int:
        return int(self.components_.shape[0])

    def transform(self, X: Any) -> Array:
        """Posterior means of the factors, of shape (n_samples, n_components)."""
        self._check_fitted()
        scores: Array = self._model.transform(self._theta, self._read(X, reset=False))
        return scores

    def inverse_transform(self, X: Any) -> Array:
        """Mean rows that belong to factors.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_components)

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        self._check_fitted()
        return np.asarray(self.mean_ + np.asarray(X, dtype=float) @ self.components_)

    def get_covariance(self) -> Array:
        """Covariance of the model, of shape (n_features, n_features)."""
        self._check_fitted()
        return np.asarray(
            self.components_.T @ self.components_
            + np.diag(np.broadcast_to(self.noise_variance_, self.mean_.shape))
        )

    def get_precision(self) -> Array:
        """Inverse covariance of the model, of shape (n_features, n_features)."""
        return np.asarray(np.linalg.inv(self.get_covariance()))


class PPCA(FactorAnalysis):
    """Probabilistic principal component analysis with missing values and weights.

    Parameters
    ----------
    [factor parameters]

    Attributes
    ----------
    [factor attributes]
    noise_variance_ : float
    [run attributes]

    Notes
    -----
    The directions are those of `sklearn.decomposition.PCA`; `transform` gives posterior means of
    the factors, which are shrunk, and not the projections.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(50, 4)) * [1, 2, 3, 4]
    >>> PPCA(2).fit(X).components_.shape
    (2, 4)
    """

    _model_class = "PPCA"

    def _set_estimates(self, model: Any, theta: Array) -> None:
        super()._set_estimates(model, theta)
        self.noise_variance_ = float(self.noise_variance_[0])
