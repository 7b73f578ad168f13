"""Mixtures of regressions as an estimator."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils import check_consistent_length, column_or_1d

from saem import models
from saem.contract import Array, Model
from saem.sklearn._base import Estimator
from saem.sklearn._mixture import named_start

__all__ = ["RegressionMixture"]

_STARTS = {"clusterwise": "clusterwise", "random": "random"}


class RegressionMixture(RegressorMixin, Estimator):
    """Mixture of Gaussian linear regressions.

    Parameters
    ----------
    n_components : int
        With 1 this is ordinary least squares.
    fit_intercept : bool
    common_variance : bool
        One residual variance for all components.
    init_params : {"clusterwise", "random"} or dict
        The best of 10 clusterwise least-squares partitions; random responsibilities; or
        values in the form of the model's ``components``.
    alpha : float
        Pseudo-rows per row, in each component, around the ordinary regression of all rows;
        above 0.
    [run parameters]

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    coef_ : ndarray of shape (n_components, n_features)
    intercept_ : ndarray of shape (n_components,)
    variances_ : ndarray of shape (n_components,)
        Of the residuals.
    [run attributes]

    Notes
    -----
    `predict` gives the mean response of the mixture, ``sum_c weights_[c] (intercept_[c] + x'
    coef_[c])``. A response that is NaN is missing. Covariates that others determine are
    refused, and so are more coefficients than the rows can carry.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(-1, 1, 40)[:, None]
    >>> y = np.where(np.arange(40) % 2, 3 * x[:, 0], -3 * x[:, 0]) + 0.1 * np.sin(40 * x[:, 0])
    >>> fitted = RegressionMixture(2, random_state=0).fit(x, y)
    >>> sorted(fitted.coef_[:, 0].round(0).tolist())
    [-3.0, 3.0]
    """

    _allow_nan = False

    def __init__(
        self,
        n_components: int = 1,
        *,
        fit_intercept: bool = True,
        common_variance: bool = False,
        init_params: Any = "clusterwise",
        alpha: float = 1e-6,
        tol: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        random_state: Any = None,
        algorithm: Any = "em",
        batch_size: int = 64,
    ) -> None:
        self.n_components = n_components
        self.fit_intercept = fit_intercept
        self.common_variance = common_variance
        self.init_params = init_params
        self.alpha = alpha
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.random_state = random_state
        self.algorithm = algorithm
        self.batch_size = batch_size

    def _make(self, data: Any, weights: Array | None, *, stream: bool) -> Model:
        X, y = data
        return models.RegressionMixture(
            self._named(X), y, self.n_components, intercept=self.fit_intercept,
            common_variance=self.common_variance, weights=weights,
            init=named_start(self.init_params, _STARTS), alpha=self.alpha,
        )  # fmt: skip

    def _set_estimates(self, model: Any, theta: Array) -> None:
        parts = model.components(theta)
        coefficients = parts["coefficients"]
        self.weights_, self.variances_ = parts["weights"], parts["variances"]
        first = 1 if self.fit_intercept else 0
        self.coef_ = coefficients[:, first:].copy()
        self.intercept_ = coefficients[:, 0].copy() if first else np.zeros(len(coefficients))

    def _one_row(self, model: Any) -> Any:
        return np.ones((1, self.n_features_in_)), np.zeros(1)

    def _read_pair(self, X: Any, y: Any, *, reset: bool) -> tuple[Array, Array]:
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        rows = self._read(X, reset=reset)
        response = np.asarray(column_or_1d(y, warn=True), dtype=np.float64)
        check_consistent_length(rows, response)
        return rows, response

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Estimate the regressions.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Covariates.
        y : array_like of shape (n_samples,)
            Responses.
        sample_weight : array_like of shape (n_samples,), optional
            At least 0. A weight of 2 is the same as the row standing there twice.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            With all that is wrong with data and options.
        """
        pair = self._read_pair(X, y, reset=True)
        return self._fit(pair, self._weights(sample_weight, pair[0]), len(pair[0]))

    def partial_fit(self, X: Any, y: Any) -> Self:
        """Take in a chunk of rows: the first is fitted, others move the estimates by online EM.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
        y : array_like of shape (n_samples,)

        Returns
        -------
        self
        """
        pair = self._read_pair(X, y, reset=self._first_chunk)
        return self._partial_fit(pair, len(pair[0]))

    def predict(self, X: Any) -> Array:
        """Mean response of each row, of shape (n_samples,)."""
        self._check_fitted()
        rows = self._read(X, reset=False)
        mean: Array = self._model.predict_response(self._theta, rows)
        return mean

    def _posterior(self, X: Any, y: Any) -> tuple[Array, Array]:
        """Probabilities of the components, and log-likelihoods, of rows with responses."""
        self._check_fitted()
        pair = self._read_pair(X, y, reset=False)
        found: tuple[Array, Array] = self._model.posterior(self._theta, pair)
        return found

    def predict_components(self, X: Any, y: Any) -> Array:
        """Posterior probabilities of the components of rows with responses.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
        y : array_like of shape (n_samples,)

        Returns
        -------
        ndarray of shape (n_samples, n_components)
        """
        return self._posterior(X, y)[0]

    def score_responses(self, X: Any, y: Any) -> Array:
        """Log-likelihood of each response given its covariates, of shape (n_samples,)."""
        return self._posterior(X, y)[1]
