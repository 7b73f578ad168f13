"""Factor analysis and probabilistic principal components, with missing entries.

    y_i = mu + Lambda z_i + e_i,    z_i ~ N(0, I),    e_i ~ N(0, Psi),

Psi diagonal (factor analysis) or a multiple of the identity (probabilistic PCA). Layouts
stand in `saem.models._factor_kernels`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from saem._types import make_kernels
from saem.contract import Array
from saem.exceptions import DataError, ModelError, Problems
from saem.statistics import Packed

from . import _factor_kernels as kernels
from . import _factor_updates as updates
from ._checks import is_whole, read_arrays
from ._factor_start import check_size, principal_loadings, simulate
from ._incomplete import (
    IncompleteRows,
    add_empty_columns,
    observed_moments,
    read_weights,
)
from ._table import Table, read_table

if TYPE_CHECKING:
    from ._factor_results import FactorAnalysisResults

__all__ = ["PPCA", "FactorAnalysis", "simulate"]


class FactorAnalysis(IncompleteRows):
    """Factor analysis: few common factors and a noise variance of each column's own.

    Parameters
    ----------
    X : array_like or DataFrame of shape (n, n_features)
        Rows of numbers, not-a-number where an entry is missing (at random).
    n_factors : int
        Number of factors q, below the number of columns.
    weights : array_like of shape (n,), optional
        Weights of the rows, at least 0.
    noise_floor : float
        Noise variances do not fall below this share of the variance of their column
        (for probabilistic PCA: of the mean variance). Where an estimate ends there
        (Heywood case), fewer factors are called for.
    incomplete : bool, optional
        Whether entries may be missing: then the statistic holds second moments of the
        factors for each column, not once. As the data are, by default; say True where
        incomplete rows are to come by `with_data`.

    Notes
    -----
    ``y_i = mu + Lambda z_i + e_i`` with ``z_i ~ N(0, I)`` and ``e_i ~ N(0, diag(psi))``, so that
    ``y_i ~ N(mu, Lambda Lambda' + diag(psi))``.

    EM of Rubin and Thayer (1982), Psychometrika 47, 69-76, with the mean estimated
    jointly, and missing entries integrated out: given the factors the entries of a row are
    independent, so that each column is regressed on the factors over the rows that observe
    it. With A_j, b_j, c_j the means of (1, z)(1, z)', y_j (1, z) and y_j^2,

        (mu_j, lambda_j) = A_j^-1 b_j,    psi_j = (c_j - b_j' A_j^-1 b_j) / A_j[0, 0].

    Loadings are determined up to a rotation of the factors, which is left to the user
    (`FactorAnalysisResults.rotated`).

    Examples
    --------
    >>> import numpy as np
    >>> X, _ = simulate(np.random.default_rng(0), n=100)
    >>> model = FactorAnalysis(X, 2)
    >>> model.n_features, model.n_params
    (6, 23)
    """

    name: ClassVar[str] = "factor analysis"
    capabilities: ClassVar[frozenset[str]] = frozenset({"expect", "draw", "gaussian", "surrogate"})
    #: What the positive codes of `maximize` mean.
    maximize_errors: ClassVar[dict[int, str]] = {
        updates.NO_ROWS: "a column has no row of positive weight",
        updates.INADMISSIBLE: "the moments of factors and a column are not positive definite; "
        "average over more rows or draws, or use fewer factors",
    }
    _isotropic: ClassVar[bool] = False
    _persisted: ClassVar[tuple[str, ...]] = (
        *IncompleteRows._persisted, "n_factors", "noise_floor", "_floors", "incomplete"
    )  # fmt: skip

    def __init__(
        self,
        X: Any,
        n_factors: int,
        *,
        weights: ArrayLike | None = None,
        noise_floor: float = 1e-6,
        incomplete: bool | None = None,
    ) -> None:
        problems = Problems("the model")
        if not is_whole(n_factors) or n_factors < 1:
            problems.add(f"n_factors={n_factors!r} must be a whole number, at least 1")
        number = isinstance(noise_floor, int | float) and not isinstance(noise_floor, bool)
        if not number or not 0.0 < noise_floor < 1.0:
            problems.add(f"noise_floor={noise_floor!r} must be a number between 0 and 1")
        if incomplete is not None and not isinstance(incomplete, bool | np.bool_):
            problems.add(f"incomplete={incomplete!r} must be True, False or None")
        options_fine = not problems
        table = read_table(X, problems, missing=True)
        if table is not None:
            checked = read_weights(weights, len(table.values), problems)
            mean, variance = observed_moments(table.values, checked)
            add_empty_columns(table.names, mean, variance, problems)
            check_size(table, n_factors, incomplete, options_fine, problems)
        problems.raise_if_any(DataError if options_fine else ModelError)
        assert table is not None
        self.feature_names = table.names
        self.n_features = d = table.values.shape[1]
        self.n_factors = q = int(n_factors)
        self.noise_floor = float(noise_floor)
        self.shift = mean
        scale = np.full(d, variance.mean()) if self._isotropic else variance
        self._floors = noise_floor * scale
        self._set_rows(table.values, checked)
        self.incomplete = self.has_missing if incomplete is None else bool(incomplete)
        self._set_layout(d, q)

    def _restored(self) -> None:
        super()._restored()
        self._set_layout(self.n_features, self.n_factors)

    def _set_layout(self, d: int, q: int) -> None:
        self._functions = SimpleNamespace(
            expect=kernels.expect,
            draw=kernels.draw,
            log_lik=kernels.log_lik,
            prior=kernels.prior,
            accumulate=kernels.accumulate,
            maximize=updates.maximize,
            project=updates.project,
            surrogate=updates.surrogate,
        )
        self.kernels = make_kernels(**vars(self._functions))
        triangle = q * (q + 1) // 2
        self.latent_size = q + triangle
        self.n_coords = q
        self.work_size = kernels.work_size(q)
        self.theta_spec = Packed(
            sizes=(kernels.HEAD,),
            floors=(d,),
            mean=(d,),
            loadings=(d, q),
            noise=(d,),
            gain=(q, d),
            root=(q, q),
            covariance=(triangle,),
            log_constant=(),
        )
        moments = (q + 1) * (q + 2) // 2
        self.stat_spec = Packed(
            moments=(d, moments) if self.incomplete else (moments,),
            products=(d, q + 1),
            squares=(d,),
        )
        names = self.feature_names
        noise = ["noise"] if self._isotropic else [f"noise[{a}]" for a in names]
        self.param_names = [
            *(f"mean[{a}]" for a in names),
            *(f"loadings[{a},{k}]" for a in names for k in range(q)),
            *noise,
        ]
        self.n_params = len(self.param_names) - q * (q - 1) // 2

    def _check_more(self, table: Table, problems: Problems) -> None:
        if not self.incomplete and np.isnan(table.values).any():
            problems.add(
                "X misses entries, and the model was made for complete rows",
                remedy="make it with incomplete=True",
            )

    # Parameters.

    def pack_params(
        self, *, mean: ArrayLike, loadings: ArrayLike, noise_variance: ArrayLike
    ) -> Array:
        """Theta from parameters on the user's scale.

        Parameters
        ----------
        mean : array_like of shape (n_features,)
        loadings : array_like of shape (n_features, n_factors)
        noise_variance : array_like of shape (n_features,), or a number

        Raises
        ------
        ModelError
            If a shape is wrong, a number not finite or a variance not above 0.
        """
        d, q = self.n_features, self.n_factors
        if np.ndim(noise_variance) == 0:
            noise_variance = np.full(d, noise_variance)
        problems = Problems("the parameters")
        shapes = {"mean": (d,), "loadings": (d, q), "noise_variance": (d,)}
        parts = {"mean": mean, "loadings": loadings, "noise_variance": noise_variance}
        given = read_arrays(parts, shapes, problems)
        noise = given.get("noise_variance", np.ones(d))
        if not np.all(noise > 0.0):
            problems.add("noise_variance must be above 0 in every column")
        elif self._isotropic and np.ptp(noise) > 0.0:
            problems.add("noise_variance must be the same for all columns")
        problems.raise_if_any(ModelError)
        blocks = {name: np.zeros(shape) for name, shape in self.theta_spec.shapes.items()}
        blocks |= {
            "sizes": np.array([d, q, float(self._isotropic)]),
            "floors": self._floors,
            "mean": given["mean"] - self.shift,
            "loadings": given["loadings"],
            "noise": noise,
        }
        theta = self.theta_spec.pack(blocks)
        updates.derive(theta)
        return theta

    def components(self, theta: Array) -> dict[str, Array]:
        """Parameters as ``mean`` (d,), ``loadings`` (d, q) and ``noise_variance`` (d,)."""
        view = self.theta_spec.view(theta)
        return {
            "mean": view["mean"] + self.shift,
            "loadings": view["loadings"].copy(),
            "noise_variance": view["noise"].copy(),
        }

    def params_of(self, theta: Array) -> Array:
        """Means, loadings row by row, noise variances (one for probabilistic PCA)."""
        parts = self.components(theta)
        noise = parts["noise_variance"][:1] if self._isotropic else parts["noise_variance"]
        return np.concatenate([parts["mean"], parts["loadings"].ravel(), noise])

    def theta_of(self, params: Array) -> Array:
        """Theta from the parameters of `params_of`."""
        d, q = self.n_features, self.n_factors
        noise = params[d + d * q :]
        return self.pack_params(
            mean=params[:d],
            loadings=params[d : d + d * q].reshape(d, q),
            noise_variance=noise[0] if self._isotropic else noise,
        )

    def start(self, rng: np.random.Generator) -> Array:
        """Principal components of the standardised columns, missing entries at their mean.

        With the eigenvalues l of the correlation, loadings are those of probabilistic PCA
        (Tipping and Bishop 1999, equation 15) and noise is what they leave, at least 1 %.
        Nothing here is random.
        """
        covariance = self._filled_covariance()
        sd = np.sqrt(np.diag(covariance))
        loadings, _ = principal_loadings(covariance / np.outer(sd, sd), self.n_factors)
        left = np.maximum(1.0 - np.square(loadings).sum(axis=1), 0.01)
        return self.pack_params(
            mean=self.shift, loadings=sd[:, None] * loadings, noise_variance=sd**2 * left
        )

    def _filled_covariance(self) -> Array:
        """Covariance with missing entries at the mean, variances from the observed ones."""
        records = self._own_records()
        weights, rows = records[:, 0], np.nan_to_num(records[:, 1:], nan=0.0)
        rows = rows - weights @ rows / weights.sum()
        covariance = (weights * rows.T) @ rows / weights.sum()
        observed = weights @ ~np.isnan(records[:, 1:]) / weights.sum()
        grow = 1.0 / np.sqrt(observed)
        return np.asarray(covariance * np.outer(grow, grow), dtype=np.float64)

    def _directions(self, theta: Array) -> Array:
        parts = self.components(theta)
        spread = np.sqrt(parts["noise_variance"])
        noise = parts["noise_variance"][:1] if self._isotropic else parts["noise_variance"]
        return np.diag(np.concatenate([spread, np.repeat(spread, self.n_factors), noise]))

    def cov_params(self, theta: Array) -> Array:
        """Covariance of the estimates: inverse observed information.

        Of means and noise variances it holds for any rotation of the factors.

        Returns
        -------
        ndarray of shape (len(param_names), len(param_names))
            NaN for the loadings of two or more factors, which no data determine.
        """
        covariance = super().cov_params(theta)
        if self.n_factors > 1:
            d = self.n_features
            loadings = slice(d, d + d * self.n_factors)
            covariance[loadings] = covariance[:, loadings] = np.nan
        return covariance

    # Functions of rows.

    def posterior(self, theta: Array, X: Any = None) -> tuple[Array, Array, Array]:
        """Exact posterior of the factors.

        Parameters
        ----------
        theta : ndarray of shape (theta_spec.size,)
        X : array_like or DataFrame of shape (n_rows, n_features), optional
            The model's own data by default.

        Returns
        -------
        mean : ndarray of shape (n_rows, n_factors)
        covariance : ndarray of shape (n_rows, n_factors, n_factors)
        log_likelihood : ndarray of shape (n_rows,)
            Of the observed entries, weights left out.
        """
        records = self._records(X).copy()
        records[:, 0] = 1.0
        latents, log_lik = self._latents(theta, records)
        q = self.n_factors
        low = np.tril_indices(q)
        covariance = np.empty((len(records), q, q))
        covariance[:, low[0], low[1]] = covariance[:, low[1], low[0]] = latents[:, q:]
        return latents[:, :q].copy(), covariance, log_lik

    def transform(self, theta: Array, X: Any = None) -> Array:
        """Scores: posterior means of the factors, of shape (n_rows, n_factors)."""
        return self.posterior(theta, X)[0]

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> Self:
        """Six columns, one factor, a tenth of the entries missing."""
        X, _ = simulate(rng, n, loadings=[[1.0], [0.8], [-0.9], [0.7], [1.1], [0.9]])
        X[rng.random(X.shape) < 0.1] = np.nan
        return cls(X, 1)

    def results(self, record: Any) -> FactorAnalysisResults:
        """Wrap the record of a fit."""
        from ._factor_results import FactorAnalysisResults

        return FactorAnalysisResults(self, record)


class PPCA(FactorAnalysis):
    """Probabilistic principal component analysis: factor analysis with equal noise variances.

    Parameters
    ----------
    X, n_factors, weights, noise_floor, incomplete
        As for `FactorAnalysis`.

    Notes
    -----
    Tipping and Bishop (1999), JRSS B 61, 611-622. For complete rows the maximum is known:
    with l_1 >= l_2 >= ... the eigenvalues of the covariance and U its eigenvectors,

        sigma^2 = mean of l_{q+1}, ..., l_d,    Lambda = U_q (L_q - sigma^2 I)^{1/2}

    (equations 14 and 15), which is where `start` begins.

    Examples
    --------
    >>> import numpy as np
    >>> X, _ = simulate(np.random.default_rng(0), n=100)
    >>> PPCA(X, 2).n_params
    18
    """

    name: ClassVar[str] = "probabilistic PCA"
    _isotropic: ClassVar[bool] = True

    def start(self, rng: np.random.Generator) -> Array:
        """The maximum for complete rows; missing entries at their mean."""
        loadings, noise = principal_loadings(self._filled_covariance(), self.n_factors)
        return self.pack_params(
            mean=self.shift, loadings=loadings, noise_variance=max(noise, self._floors[0])
        )
