"""The multivariate normal as an imputer."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin

from saem import models
from saem.contract import Array, Model
from saem.exceptions import OptionError
from saem.sklearn._base import RowEstimator
from saem.sklearn._fitting import seeds_of

__all__ = ["MultivariateNormal"]


class MultivariateNormal(OneToOneFeatureMixin, TransformerMixin, RowEstimator):
    """Imputer by a multivariate normal distribution, fitted by maximum likelihood.

    Parameters
    ----------
    alpha : float
        Pseudo-rows per row around the means, uncorrelated and with the variances of the
        columns, at least 0. They keep the covariance regular where columns are many or
        collinear, and matter at no more than this relative size.
    sample_posterior : bool
        Whether `transform` draws missing values given the observed ones, as multiple
        imputation needs it, or fills in their conditional means.
    [run parameters]

    Attributes
    ----------
    location_ : ndarray of shape (n_features,)
    covariance_ : ndarray of shape (n_features, n_features)
    [run attributes]

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1.0, 2.1], [2.0, 3.9], [3.0, 6.1], [4.0, 8.0], [5.0, np.nan]])
    >>> float(MultivariateNormal().fit_transform(X)[4, 1].round(1))
    10.0
    """

    def __init__(
        self,
        *,
        alpha: float = 1e-6,
        sample_posterior: bool = False,
        tol: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        random_state: Any = None,
        algorithm: Any = "em",
        batch_size: int = 64,
    ) -> None:
        self.alpha = alpha
        self.sample_posterior = sample_posterior
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.random_state = random_state
        self.algorithm = algorithm
        self.batch_size = batch_size

    def _make(self, data: Any, weights: Array | None, *, stream: bool) -> Model:
        if not 0.0 <= self.alpha < 1.0:
            raise OptionError(f"alpha={self.alpha!r} must be at least 0 and below 1.")
        if self.alpha > 0.0:
            data, weights = self._with_pseudo_rows(data, weights)
        return models.MultivariateNormal(self._named(data), weights=weights)

    def _with_pseudo_rows(self, X: Array, weights: Array | None) -> tuple[Array, Array]:
        """Rows at ``mean +- sqrt(d) sd_j e_j``: their covariance is diag(sd ** 2)."""
        from saem.models._incomplete import observed_moments

        w = np.ones(len(X)) if weights is None else weights
        mean, variance = observed_moments(X, w)
        d = X.shape[1]
        away = np.diag(np.sqrt(d * variance))
        more = np.full(2 * d, self.alpha * w.sum() / (2 * d))
        return np.vstack([X, mean + away, mean - away]), np.concatenate([w, more])

    def _mean_loglik(self, total: float) -> float:
        model: Any = self._model
        n = model.n_individuals - (2 * model.n_features if self.alpha > 0.0 else 0)
        each = model.score_samples(self._theta)[:n]
        return float(model.weights[:n] @ each) / total

    def _set_estimates(self, model: Any, theta: Array) -> None:
        parts = model.components(theta)
        self.location_, self.covariance_ = parts["mean"], parts["covariance"]

    def transform(self, X: Any) -> Array:
        """Rows whose missing values are filled in, of shape (n_samples, n_features)."""
        self._check_fitted()
        rows, model = self._read(X, reset=False), self._model
        holes = np.isnan(rows)
        if not holes.any():
            return np.array(rows)
        if self.sample_posterior:
            rng = np.random.default_rng(seeds_of(self.random_state, 1)[0])
            filled = model.draw_missing(self._theta, rng, rows)
        else:
            filled = model.impute(self._theta, rows)
        return np.where(holes, filled, rows)  # observed values to the bit
