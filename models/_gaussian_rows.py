"""What a Gaussian mixture says of rows: posteriors, criteria, scores, standard errors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saem._jit import compiled
from saem.contract import Array
from saem.exceptions import DataError, Problems

from . import _mixture_layout as layout
from ._gaussian_data import records_of
from ._gaussian_params import GaussianParameters
from ._mixture_scores import free_to_named, scores
from ._records import expect_records
from ._table import chunks, read_table

__all__ = ["GaussianRows"]

#: Numbers in the scores that are formed together: 32 MB.
_SCORES = 4_000_000


class GaussianRows(GaussianParameters):
    """Base of `GaussianMixture`: answers about its own and about new rows.

    Attributes
    ----------
    rows : ndarray of shape (n, n_features)
        Values of the rows, less `shift`.
    row_weights : ndarray of shape (n,) or None
    """

    n_params: int
    feature_names: list[str]
    missing: bool | None
    row_weights: Array | None
    total_weight: float

    @property
    def rows(self) -> Array:
        """Values of the rows, less `shift`: a view of shape (n, n_features)."""
        return self.values.reshape(self.n_individuals, -1)[:, : self.n_features]

    # Functions of rows.

    def _rows(self, X: Any) -> Array:
        """New rows, checked and centred as the data; the model's own for None."""
        if X is None:
            return self.rows
        problems = Problems("X")
        allowed = self.missing is not False
        table = read_table(X, problems, self.feature_names, missing=allowed)
        problems.raise_if_any(DataError)
        assert table is not None
        return table.values - self.shift if np.any(self.shift) else table.values

    def posterior(self, theta: Array, X: Any = None) -> tuple[Array, Array]:
        """Posterior probabilities of components, and log-likelihoods of single rows.

        Parameters
        ----------
        theta : ndarray of shape (theta_spec.size,)
        X : array_like or DataFrame of shape (n_rows, n_features), optional
            The model's own data by default. Missing values are allowed; a row without
            any value has the weights as probabilities and the log-likelihood 0.

        Returns
        -------
        probabilities : ndarray of shape (n_rows, n_components)
        log_likelihood : ndarray of shape (n_rows,)
            Of a row that stands once, whatever its weight.
        """
        rows = self._rows(X)
        probabilities = np.empty((len(rows), self.n_components))
        log_lik = np.empty(len(rows))
        for part in chunks(len(rows)):
            probabilities[part], log_lik[part] = self._posterior(theta, rows[part])
        return probabilities, log_lik

    def _posterior(self, theta: Array, rows: Array) -> tuple[Array, Array]:
        k, d, t = self.n_components, self.n_features, self.covariance_type
        kind, most = "plain", 0
        if np.isnan(rows.sum()):
            kind, most = "missing", int(np.isnan(rows).sum(axis=1).max())
        records = records_of(rows, None, plain=kind == "plain")
        size, work = layout.scratch(t, kind, k, d, most)
        latents, log_lik = np.empty((len(rows), size)), np.empty(len(rows))
        expect = compiled(layout.functions_of(t, kind).expect)
        width = records.size // len(rows)
        expect_records(expect, theta, records, width, latents, log_lik, np.empty(work))
        return latents[:, :k], log_lik

    def predict_proba(self, theta: Array, X: Any = None) -> Array:
        """Posterior probabilities of shape (n_rows, n_components)."""
        return self.posterior(theta, X)[0]

    def predict(self, theta: Array, X: Any = None) -> NDArray[np.intp]:
        """Most probable component of each row."""
        rows = self._rows(X)
        parts = [self._posterior(theta, rows[p])[0].argmax(axis=1) for p in chunks(len(rows))]
        return np.concatenate(parts)

    def score_samples(self, theta: Array, X: Any = None) -> Array:
        """Log-likelihood of each row, whatever its weight."""
        rows = self._rows(X)
        return np.concatenate([self._posterior(theta, rows[p])[1] for p in chunks(len(rows))])

    def loglik(self, theta: Array) -> float:
        """Log-likelihood of the data: of each row, times its weight."""
        each = self.score_samples(theta)
        return float(each.sum() if self.row_weights is None else self.row_weights @ each)

    def icl(self, theta: Array) -> float:
        """Integrated completed likelihood, in the form where smaller is better.

        ``BIC - 2 sum_i log r_i(c_i)`` with c_i the most probable component of row
        i: BIC plus a penalty for overlap. Biernacki, Celeux and Govaert (2000),
        IEEE Trans. PAMI 22, 719-725, equation (10), times -2. Rows count by weight.
        """
        rows, total = self.rows, 0.0
        for part in chunks(len(rows)):
            probabilities, log_lik = self._posterior(theta, rows[part])
            each = log_lik + np.log(probabilities.max(axis=1))
            total += each.sum() if self.row_weights is None else self.row_weights[part] @ each
        return float(-2.0 * total + self.n_params * np.log(self.total_weight))

    def scores(self, theta: Array, part: slice) -> Array:
        """Gradient of the log-likelihood of some rows over the free parameters.

        Returns
        -------
        ndarray of shape (n_rows, n_params)
            The last weight is one minus the others. Weights of rows are left out.
        """
        parts = self.components(theta)
        parts["means"] = parts["means"] - self.shift
        rows = self.rows[part]
        probabilities = self._posterior(theta, rows)[0]
        each = scores(rows, probabilities, parts, self.covariance_type)
        return each[:, np.delete(self._free, self.n_components - 1)]

    def _jacobian(self) -> Array:
        """Derivative of the named parameters over the free ones."""
        every = free_to_named(self.n_components, len(self._free) - 1)
        return every[self._free][:, np.delete(self._free, self.n_components - 1)]

    def cov_params(self, theta: Array) -> Array:
        """Covariance of the estimates, in the order of `param_names`.

        The inverse of the empirical information, the sum over rows of score times
        score (McLachlan and Peel 2000, Finite Mixture Models, section 2.15.3). It
        holds at a maximum of the likelihood, for well separated components and many
        rows. The matrix is singular: the weights sum to one.

        Returns
        -------
        ndarray of shape (len(param_names), len(param_names))
            NaN where the information is singular.
        """
        information = np.zeros((self.n_params, self.n_params))
        step = max(1, _SCORES // len(self._free))
        for first in range(0, self.n_individuals, step):
            part = slice(first, first + step)
            each = self.scores(theta, part)
            w = 1.0 if self.row_weights is None else self.row_weights[part, None]
            information += (w * each).T @ each
        jacobian = self._jacobian()
        scale = 1.0 / np.sqrt(np.maximum(np.diag(information), np.finfo(float).tiny))
        try:
            inverse = np.linalg.inv(information * np.outer(scale, scale))
        except np.linalg.LinAlgError:
            return np.full((len(jacobian),) * 2, np.nan)
        return jacobian @ (inverse * np.outer(scale, scale)) @ jacobian.T
