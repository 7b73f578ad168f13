"""What mixtures with weighted records share: posteriors, criteria, standard errors.

The records of these mixtures begin with the weight of their row, and the first k numbers
of a latent record are the responsibilities.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem.contract import Array, Model
from saem.exceptions import DataError, Problems

from ._checks import check_size_of_theta
from ._incomplete import read_weights
from ._information import covariance_of, observed_information
from ._mixture_records import add_statistics, posteriors
from ._mixture_start import MAX_ROWS
from ._persisted import Persisted
from ._sums import mean_statistic
from ._table import chunks

if TYPE_CHECKING:
    from ._mixture_answers import RecordMixtureResults

__all__ = [
    "AT_BOUNDARY",
    "RecordMixture",
    "simplex_directions",
]

#: A probability as near to 0 or 1 as this counts as on the boundary.
AT_BOUNDARY = 1e-6


class RecordMixture(Persisted, Model):
    """Base of mixtures whose rows carry weights and stand in records of any length.

    Attributes
    ----------
    n_components : int
    row_weights : ndarray of shape (n_individuals,)
    n_params : int
        Number of free parameters.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"expect", "draw", "classify", "surrogate"})
    linear_statistic = True
    n_components: int
    row_weights: Array
    n_params: int
    _functions: SimpleNamespace

    # What a family of mixtures brings.

    @abstractmethod
    def _records(self, X: Any) -> tuple[Array, NDArray[np.int64]]:
        """Records and offsets of new rows, checked; weights 1."""

    @abstractmethod
    def components(self, theta: Array) -> dict[str, Any]:
        """Weights and parameters of the components, in arrays."""

    @abstractmethod
    def theta_of(self, params: ArrayLike) -> Array:
        """Theta of parameters in the order of `param_names`: the inverse of `params_of`."""

    @abstractmethod
    def _directions(self, theta: Array) -> Array:
        """Free directions of the parameters, of shape (len(param_names), n_free).

        Each moves them by about their own size or spread. Parameters on the boundary have none.
        """

    # Data.

    def _set_rows(self, values: Array, offsets: NDArray[np.int64], weights: Array) -> None:
        """Take records, and write the weights into them."""
        values[offsets[:-1]] = weights
        self.values, self.offsets, self.row_weights = values, offsets, weights
        self.n_individuals = self.nobs = len(weights)

    def reweighted(self, weights: ArrayLike) -> Self:
        """Return the same model and rows with other weights.

        Parameters
        ----------
        weights : array_like of shape (n_individuals,)
            At least 0. A weight of 2 is the same as the row standing there twice, 0 as
            its absence.
        """
        problems = Problems("the weights")
        checked = read_weights(weights, self.n_individuals, problems)
        problems.raise_if_any(DataError)
        other = copy.copy(self)
        other._set_rows(self.values.copy(), self.offsets, checked)
        return other

    @property
    def total_weight(self) -> float:
        """Sum of the weights: the number of rows where all weigh 1."""
        return float(self.row_weights.sum())

    def check_theta(self, theta: Array) -> None:
        """Raise `ModelError` if a starting theta is not admissible."""
        check_size_of_theta(theta, self.theta_spec.size, "pack_components")

    def boundary(self, theta: Array) -> dict[str, str]:
        """Parameters at bounds of the model's own, each with a word why."""
        return {}

    # Starts.

    def _some_rows(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """Rows that a start is made from: of positive weight, and at most `MAX_ROWS`."""
        counted = np.flatnonzero(self.row_weights)
        size = max(MAX_ROWS, 50 * self.n_components)
        if len(counted) > size:
            counted = np.sort(rng.choice(counted, size, replace=False, shuffle=False))
        return counted

    def _first_step(
        self, theta: Array, values: Array, offsets: NDArray[np.int64], latents: Array
    ) -> Array:
        """Theta after an M-step on given latent records; where that fails, theta helps out."""
        s = np.zeros(self.stat_spec.size)
        latents = np.ascontiguousarray(latents)
        add_statistics(self._functions.accumulate, values, offsets, latents, s)
        if self._functions.maximize(s, theta) != 0:
            self._functions.project(s, theta)
            self._functions.maximize(s, theta)
        return theta

    # Functions of rows.

    def _rows(self, X: Any) -> tuple[Array, NDArray[np.int64]]:
        return (self.values, self.offsets) if X is None else self._records(X)

    def _posteriors(
        self, theta: Array, values: Array, offsets: NDArray[np.int64]
    ) -> Iterator[tuple[slice, Array, Array]]:
        """Chunks of rows with their responsibilities and log-likelihoods."""
        n = len(offsets) - 1
        record = np.empty(int(np.diff(offsets).max()) if n else 0)
        latent, work = np.empty(self.latent_size), np.empty(max(1, self.work_size))
        for part in chunks(n):
            probabilities = np.empty((part.stop - part.start, self.n_components))
            log_lik = np.empty(len(probabilities))
            posteriors(
                self._functions.expect, theta, values,
                offsets[part.start : part.stop + 1], record, latent, work, probabilities, log_lik,
            )  # fmt: skip
            yield part, probabilities, log_lik

    def posterior(self, theta: Array, X: Any = None) -> tuple[Array, Array]:
        """Posterior probabilities of components, and log-likelihoods, whatever the weights.

        Parameters
        ----------
        theta : ndarray of shape (theta_spec.size,)
        X : optional
            Rows as the model takes them; its own by default.

        Returns
        -------
        probabilities : ndarray of shape (n_rows, n_components)
        log_likelihood : ndarray of shape (n_rows,)
        """
        parts = [(p, ll) for _, p, ll in self._posteriors(theta, *self._rows(X))]
        return np.concatenate([p for p, _ in parts]), np.concatenate([ll for _, ll in parts])

    def predict_proba(self, theta: Array, X: Any = None) -> Array:
        """Posterior probabilities of shape (n_rows, n_components)."""
        return self.posterior(theta, X)[0]

    def predict(self, theta: Array, X: Any = None) -> NDArray[np.intp]:
        """Most probable component of each row."""
        parts = self._posteriors(theta, *self._rows(X))
        return np.concatenate([p.argmax(axis=1) for _, p, _ in parts])

    def score_samples(self, theta: Array, X: Any = None) -> Array:
        """Log-likelihood of each row."""
        parts = self._posteriors(theta, *self._rows(X))
        return np.concatenate([log_lik for _, _, log_lik in parts])

    def loglik(self, theta: Array) -> float:
        """Log-likelihood of the data: the sum of weights times log-likelihoods of rows."""
        return float(self.row_weights @ self.score_samples(theta))

    # Criteria and standard errors.

    def icl(self, theta: Array) -> float:
        """Integrated completed likelihood, in the form where smaller is better.

        ``BIC - 2 sum_i log r_i(c_i)`` with c_i the most probable component of row
        i: BIC plus a penalty for overlap. Biernacki, Celeux and Govaert (2000),
        IEEE Trans. PAMI 22, 719-725, equation (10), times -2.
        """
        total = 0.0
        for part, probabilities, log_lik in self._posteriors(theta, *self._rows(None)):
            total += self.row_weights[part] @ (log_lik + np.log(probabilities.max(axis=1)))
        return float(-2.0 * total + self.n_params * np.log(self.total_weight))

    def cov_params(self, theta: Array) -> Array:
        """Covariance of the estimates, in the order of `param_names`.

        The inverse of the observed information (Oakes 1999). It holds at a maximum of the
        likelihood, for components that are told apart by many rows. The matrix is singular:
        weights sum to one.

        Returns
        -------
        ndarray of shape (len(param_names), len(param_names))
            NaN for probabilities on the boundary, and everywhere where the data do not
            determine the parameters.
        """
        directions = self._directions(theta)
        information = observed_information(
            lambda other: mean_statistic(self, self._functions, other)[0],
            self._functions.surrogate,
            self.theta_of,
            self.params_of(theta),
            directions,
        )
        if not _is_positive(information):
            return np.full((len(directions),) * 2, np.nan)
        covariance = covariance_of(information, directions, self.n_individuals)
        unknown = ~directions.any(axis=1)
        covariance[unknown] = covariance[:, unknown] = np.nan
        return covariance

    def results(self, record: Any) -> RecordMixtureResults:
        """Wrap the record of a fit."""
        from ._mixture_answers import RecordMixtureResults

        return RecordMixtureResults(self, record)


def _is_positive(information: Array) -> bool:
    """Whether a matrix is positive definite, beyond the error of differences."""
    if not np.all(np.isfinite(information)):
        return False
    scale = np.sqrt(np.abs(np.diag(information)))
    if not np.all(scale > 0.0):
        return False
    return bool(np.linalg.eigvalsh(information / np.outer(scale, scale)).min(initial=1.0) > 1e-7)


def simplex_directions(p: Array) -> list[Array]:
    """Free directions of probabilities: one goes up by its size, the largest down as much."""
    top, found = int(p.argmax()), []
    for a in range(len(p)):
        if a != top and p[a] > AT_BOUNDARY:
            direction = np.zeros(len(p))
            direction[a], direction[top] = p[a], -p[a]
            found.append(direction)
    return found
