"""What the estimators of mixtures share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import DensityMixin

from saem.contract import Array
from saem.exceptions import OptionError, nearest
from saem.sklearn._base import RowEstimator
from saem.sklearn._fitting import seeds_of

__all__ = ["Mixture", "named_start"]


def named_start(given: Any, known: dict[str, str]) -> Any:
    """What the models call a start that scikit-learn calls otherwise; values as they are.

    Raises
    ------
    OptionError
        For a name that is not known.
    """
    if not isinstance(given, str):
        return given
    if given not in known:
        close = nearest(given, known)
        raise OptionError(
            f"init_params={given!r} is not one of {', '.join(map(repr, known))}."
            + (f" Did you mean {close[0]!r}?" if close else "")
        )
    return known[given]


class Mixture(DensityMixin, RowEstimator):
    """Base of the mixtures: clusters, densities, samples, criteria."""

    n_components: int

    score = RowEstimator.score  # not the empty one of the mixin

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> NDArray[np.intp]:
        """Fit, and return the most probable component of each row, of shape (n_samples,).

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        """
        return self.fit(X, y, sample_weight).predict(X)

    def predict(self, X: Any) -> NDArray[np.intp]:
        """Most probable component of each row, of shape (n_samples,)."""
        return self.predict_proba(X).argmax(axis=1)

    def predict_proba(self, X: Any) -> Array:
        """Posterior probabilities of the components, of shape (n_samples, n_components)."""
        self._check_fitted()
        probabilities: Array = self._model.predict_proba(self._theta, self._read(X, reset=False))
        return probabilities

    def sample(self, n_samples: int = 1) -> tuple[Any, NDArray[np.intp]]:
        """Draw rows from the fitted mixture.

        Parameters
        ----------
        n_samples : int

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            A DataFrame where columns differ in kind.
        y : ndarray of shape (n_samples,)
            Components.
        """
        self._check_fitted()
        if n_samples < 1:
            raise OptionError(f"n_samples={n_samples!r} must be at least 1.")
        rng = np.random.default_rng(seeds_of(self.random_state, 1)[0])
        drawn: tuple[Any, NDArray[np.intp]] = self._model.sample(self._theta, n_samples, rng)
        return drawn

    def bic(self, X: Any) -> float:
        """Schwarz's criterion on X, ``-2 log L + n_params log(n_samples)``; smaller is better."""
        log_lik = self.score_samples(X)
        return float(-2.0 * log_lik.sum() + self._model.n_params * np.log(len(log_lik)))

    def aic(self, X: Any) -> float:
        """Akaike's criterion on X, ``-2 log L + 2 n_params``; smaller is better."""
        return float(-2.0 * self.score_samples(X).sum() + 2.0 * self._model.n_params)
