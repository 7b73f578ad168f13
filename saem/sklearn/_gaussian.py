"""Gaussian mixtures as an estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from saem import models
from saem.contract import Array, Model
from saem.exceptions import DataError
from saem.sklearn._mixture import Mixture, named_start

__all__ = ["GaussianMixture"]

_STARTS = {"kmeans": "kmeans++", "random_from_data": "random"}


class GaussianMixture(Mixture):
    """Mixture of Gaussian distributions, with missing values, weights and streams.

    Parameters and attributes are those of `sklearn.mixture.GaussianMixture` where the meaning
    is the same; from the same start both give the same estimates.

    Parameters
    ----------
    n_components : int
    covariance_type : {"full", "tied", "diag", "spherical"}
    reg_covar : float
        Added to the diagonal of every covariance in the M-step.
    init_params : {"kmeans", "random_from_data"}
        k-means++ centres and at most 10 steps of k-means on standardised columns; or random
        rows as means, with the covariance of the data.
    weights_init : array_like of shape (n_components,), optional
        Weights to start from.
    means_init : array_like of shape (n_components, n_features), optional
        Means to start from.
    precisions_init : array_like, optional
        Inverse covariances to start from, in the shape of `covariances_`.
    [run parameters]

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    covariances_, precisions_ : ndarray
        Of shape (n_components, n_features, n_features) for ``"full"``, (n_features, n_features)
        for ``"tied"``, (n_components, n_features) for ``"diag"``, (n_components,) for
        ``"spherical"``.
    [run attributes]

    Notes
    -----
    Differences from scikit-learn: NaN is a missing value, integrated out of the likelihood;
    `fit` takes sample weights; `partial_fit` takes chunks; `tol` is 1e-6 and `max_iter` 1000 by
    default, since at 1e-3 the estimates can be far from the maximum; `sample` does not sort
    by component; there are no ``warm_start``, ``verbose`` and ``precisions_cholesky_``.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.concatenate([np.linspace(-5, -3, 50), np.linspace(3, 5, 50)])[:, None]
    >>> GaussianMixture(2, random_state=0).fit(X).means_.ravel().round(3).tolist()
    [-4.0, 4.0]
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-6,
        reg_covar: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        random_state: Any = None,
        algorithm: Any = "em",
        batch_size: int = 64,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.algorithm = algorithm
        self.batch_size = batch_size

    def _make(self, data: Any, weights: Array | None, *, stream: bool) -> Model:
        return models.GaussianMixture(
            self._named(data), self.n_components, covariance_type=self.covariance_type,
            init=named_start(self.init_params, _STARTS), reg_covar=self.reg_covar,
            weights=weights, missing=True if stream else None,
        )  # fmt: skip

    def _start(self, model: Any, rng: np.random.Generator) -> Array:
        given = {
            "weights": self.weights_init,
            "means": self.means_init,
            "covariances": self._inverted(self.precisions_init, "precisions_init"),
        }
        given = {name: value for name, value in given.items() if value is not None}
        parts = {} if len(given) == 3 else model.components(model.start(rng))
        checked = model._check_parts(given, "the starting values")
        theta: Array = model.pack_components(**(parts | checked))
        return theta

    def _inverted(self, matrices: ArrayLike | None, name: str) -> Array | None:
        """Inverses of precisions or covariances, in the same shape."""
        if matrices is None:
            return None
        array = np.asarray(matrices, dtype=float)
        if self.covariance_type not in ("full", "tied"):
            with np.errstate(divide="ignore"):
                return np.asarray(1.0 / array)
        try:
            inverse = np.linalg.inv(array)
        except np.linalg.LinAlgError as error:
            raise DataError(f"{name} cannot be inverted: {error}.") from error
        return np.asarray(0.5 * (inverse + np.swapaxes(inverse, -1, -2)))

    def _set_estimates(self, model: Any, theta: Array) -> None:
        parts = model.components(theta)
        self.weights_, self.means_ = parts["weights"], parts["means"]
        self.covariances_ = parts["covariances"]
        self.precisions_ = self._inverted(self.covariances_, "covariances_")
