"""Student mixtures as an estimator."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from saem import models
from saem.contract import Array, Model
from saem.sklearn._columns import STARTS
from saem.sklearn._mixture import Mixture, named_start

__all__ = ["StudentMixture"]


class StudentMixture(Mixture):
    """Mixture of multivariate Student distributions: clusters with heavy tails.

    Parameters
    ----------
    n_components : int
    df : float or array_like of shape (n_components,), optional
        Degrees of freedom, kept at these values. None estimates those of each component.
    df_bounds : (float, float)
        Range of estimated degrees of freedom.
    reg_covar : float
        Added to the diagonal of every scatter matrix in the M-step.
    init_params : {"kmeans", "random"} or dict
        k-means++ centres and at most 10 steps of k-means on standardised columns; random
        responsibilities; or values in the form of the model's ``components``.
    [run parameters]

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    scatters_ : ndarray of shape (n_components, n_features, n_features)
        The covariance is the scatter times df / (df - 2), for df above 2.
    df_ : ndarray of shape (n_components,)
    [run attributes]

    Notes
    -----
    Missing values are refused, and so are columns that others determine, for instance where
    there are more columns than rows.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).standard_t(4, size=(100, 2))
    >>> StudentMixture(1, df=4).fit(X).scatters_.shape
    (1, 2, 2)
    """

    _allow_nan = False

    def __init__(
        self,
        n_components: int = 1,
        *,
        df: ArrayLike | None = None,
        df_bounds: tuple[float, float] = (1.0, 200.0),
        reg_covar: float = 1e-6,
        init_params: Any = "kmeans",
        tol: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        random_state: Any = None,
        algorithm: Any = "em",
        batch_size: int = 64,
    ) -> None:
        self.n_components = n_components
        self.df = df
        self.df_bounds = df_bounds
        self.reg_covar = reg_covar
        self.init_params = init_params
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.random_state = random_state
        self.algorithm = algorithm
        self.batch_size = batch_size

    def _make(self, data: Any, weights: Array | None, *, stream: bool) -> Model:
        return models.StudentMixture(
            self._named(data), self.n_components, df=self.df, df_bounds=self.df_bounds,
            weights=weights, init=named_start(self.init_params, STARTS), reg_covar=self.reg_covar,
        )  # fmt: skip

    def _set_estimates(self, model: Any, theta: Array) -> None:
        parts = model.components(theta)
        self.weights_, self.means_ = parts["weights"], parts["means"]
        self.scatters_, self.df_ = parts["scatters"], parts["df"]
