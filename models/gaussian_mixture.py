"""Gaussian mixtures with full, tied, diagonal or spherical covariances.

    x_i | z_i = c  ~  N(m_c, C_c),      P(z_i = c) = w_c.

The statistic of a row is (r_c, r_c x, r_c x x' or what the covariance type needs
of it), with r_c the posterior probability of component c or the indicator of a
drawn component; the layouts stand in `saem.models._gaussian_kernels`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem._types import make_kernels
from saem.contract import Array, Model
from saem.exceptions import DataError, ModelError, Problems
from saem.statistics import Packed

from . import _gaussian_updates as updates
from . import _mixture_layout as layout
from ._gaussian_blocks import work_size
from ._mixture_checks import check_data, check_given, check_options, check_size
from ._mixture_scores import free_to_named, scores
from ._mixture_simulate import simulate
from ._mixture_start import distinct_rows, kmeans_plus_plus, lloyd, subsample
from ._records import expect_records
from ._table import chunks, moments, read_table

if TYPE_CHECKING:
    from ._mixture_results import MixtureResults

__all__ = ["GaussianMixture", "simulate"]

#: Data are centred (in a copy) when a mean exceeds this many standard deviations: second
#: moments about the origin would lose the square of this in relative accuracy.
_FAR = 100.0


class GaussianMixture(Model):
    """Mixture of Gaussian distributions.

    Parameters
    ----------
    X : array_like or DataFrame of shape (n, n_features)
        Rows of numbers. A contiguous float64 array is used as it is, without a
        copy: do not change it before the last fit is done.
    n_components : int
        Number of components k.
    covariance_type : {"full", "tied", "diag", "spherical"}
        One covariance matrix per component, one for all, one diagonal matrix per
        component, or one variance per component.
    init : {"kmeans++", "random"}, dict or tuple
        How `start` finds its values. ``"kmeans++"``: k-means++ centres and at most
        10 steps of k-means on standardised columns of at most 10 000 random rows.
        ``"random"``: k distinct rows as means, the covariance of the data, equal
        weights. Or values given as a dict with the keys ``weights``, ``means`` and
        ``covariances``, or as a tuple in this order; shapes as in `components`.
    reg_covar : float
        Variance floor: added to the diagonal of every covariance in the M-step,
        as scikit-learn does under the same name. With a value above 0 the
        likelihood is bounded, and EM maximises it only up to terms of this size.

    Notes
    -----
    The M-step with mean statistic (N_c, M_c, S_c) is

        w_c = N_c / sum N,   m_c = M_c / N_c,   C_c = S_c / N_c - m_c m_c' + reg_covar I

    (full; the other types pool or take the diagonal). Dempster, Laird and Rubin
    (1977), section 4.3.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(-2, 1, (50, 1)), rng.normal(2, 1, (50, 1))])
    >>> model = GaussianMixture(X, 2)
    >>> model.n_params
    5
    """

    name: ClassVar[str] = "Gaussian mixture"
    capabilities: ClassVar[frozenset[str]] = frozenset({"expect", "draw", "block"})
    #: What the positive codes of `maximize` mean.
    maximize_errors: ClassVar[dict[int, str]] = {
        updates.EMPTY_COMPONENT: "a component has lost all its rows; use fewer components or "
        "another start",
        updates.SINGULAR_COVARIANCE: "the covariance of a component is singular; raise "
        "reg_covar, use fewer components or a simpler covariance_type",
    }

    def __init__(
        self,
        X: Any,
        n_components: int,
        *,
        covariance_type: str = "full",
        init: str | dict[str, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike] = "kmeans++",
        reg_covar: float = 1e-6,
    ) -> None:
        problems = Problems("the mixture")
        check_options(n_components, covariance_type, init, reg_covar, problems)
        options_fine = not problems
        table = read_table(X, problems)
        if table is not None and options_fine:
            check_size(table, n_components, problems)
        self._moments = None if problems or table is None else moments(table.values)
        if table is not None and self._moments is not None:
            check_data(table, self._moments, n_components, covariance_type, reg_covar, problems)
        problems.raise_if_any(DataError if options_fine else ModelError)
        assert table is not None
        assert self._moments is not None

        self.n_components = k = int(n_components)
        self.covariance_type = covariance_type
        self.reg_covar = float(reg_covar)
        self.n_individuals, self.n_features = table.values.shape
        self.feature_names = table.names
        self.nobs = self.n_individuals
        self._set_data(table.values)
        self._set_layout()
        self.latent_size = k
        self.work_size = work_size(k, self.n_features)
        self._functions = layout.functions_of(covariance_type)
        self.kernels = make_kernels(
            expect=self._functions.expect,
            draw=self._functions.draw,
            accumulate=self._functions.accumulate,
            maximize=self._functions.maximize,
            block=self._functions.block,
        )
        self.init = init if isinstance(init, str) else "given"
        self._given: Array | None = None
        if not isinstance(init, str):
            shapes = layout.component_shapes(covariance_type, k, self.n_features)
            given = check_given(init, shapes, matrices=layout.has_triangles(covariance_type))
            self._given = self.pack_components(**given)

    def _set_data(self, X: Array) -> None:
        """Keep a view of the data, or a centred copy where they lie far from the origin."""
        assert self._moments is not None
        mean, sd = self._moments.mean, np.sqrt(np.diag(self._moments.cov))
        self.shift = np.where(np.abs(mean) > _FAR * sd, mean, 0.0)
        if np.any(self.shift):
            X = X - self.shift
        self.values = X.ravel()
        self.offsets = np.array([0, self.n_features])

    def _set_layout(self) -> None:
        k, d = self.n_components, self.n_features
        second = layout.packed_shape(self.covariance_type, k, d)
        self.theta_spec = Packed(
            sizes=(2,),
            floor=(),
            weights=(k,),
            means=(k, d),
            covariances=second,
            log_constants=(k,),
            factors=second,
        )
        self.stat_spec = Packed(counts=(k,), sums=(k, d), squares=second)
        self.param_names = layout.param_names(self.covariance_type, k, self.feature_names)
        self.n_params = k - 1 + k * d + int(np.prod(second))

    # Parameters.

    def components(self, theta: Array) -> dict[str, Array]:
        """Weights, means and covariances, in scikit-learn's shapes.

        Parameters
        ----------
        theta : ndarray of shape (theta_spec.size,)

        Returns
        -------
        dict
            ``weights`` of shape (k,), ``means`` (k, d) and ``covariances``: (k, d, d)
            for full, (d, d) for tied, (k, d) for diag, (k,) for spherical.
        """
        view = self.theta_spec.view(theta)
        covariances = view["covariances"].copy()
        if layout.has_triangles(self.covariance_type):
            covariances = layout.unpack_triangles(covariances, self.n_features)
        return {
            "weights": view["weights"].copy(),
            "means": view["means"] + self.shift,
            "covariances": covariances,
        }

    def pack_components(
        self, *, weights: ArrayLike, means: ArrayLike, covariances: ArrayLike
    ) -> Array:
        """Theta from what `components` returns.

        Raises
        ------
        ModelError
            If a covariance is not positive definite.
        """
        covariances = np.asarray(covariances, dtype=float)
        if layout.has_triangles(self.covariance_type):
            low = np.tril_indices(self.n_features)
            covariances = covariances[..., low[0], low[1]]
        theta = self.theta_spec.pack(
            {
                "sizes": [self.n_components, self.n_features],
                "floor": self.reg_covar,
                "weights": weights,
                "means": np.asarray(means, dtype=float) - self.shift,
                "covariances": covariances,
                "log_constants": np.zeros(self.n_components),
                "factors": np.zeros(self.theta_spec.shapes["factors"]),
            }
        )
        if not self._functions.derive(theta):
            raise ModelError(
                "a given covariance is not positive definite. Remedy: check it with "
                "numpy.linalg.eigvalsh, or add a small number to its diagonal."
            )
        return theta

    def params_of(self, theta: Array) -> Array:
        """Weights (all k), means and (lower triangles of) covariances, as `param_names`."""
        view = self.theta_spec.view(theta)
        means = view["means"] + self.shift
        return np.concatenate([view["weights"], means.ravel(), view["covariances"].ravel()])

    def check_theta(self, theta: Array) -> None:
        """Raise `ModelError` if a starting theta is not admissible."""
        if theta.shape != (self.theta_spec.size,) or not np.all(np.isfinite(theta)):
            raise ModelError(
                f"theta must be {self.theta_spec.size} finite numbers; use `pack_components`."
            )

    # Starts.

    def start(self, rng: np.random.Generator) -> Array:
        """Starting theta: random for "kmeans++" and "random", as given otherwise."""
        if self._given is not None:
            return self._given.copy()
        rows = subsample(self.values.reshape(-1, self.n_features), self.n_components, rng)
        if self.init == "random":
            rows = distinct_rows(rows, self.n_components)
            chosen = rng.choice(len(rows), self.n_components, replace=False)
            return self._common_covariance(rows[chosen])
        scale = rows.std(axis=0)
        scaled = rows / np.where(scale > 0.0, scale, 1.0)
        labels = lloyd(scaled, kmeans_plus_plus(scaled, self.n_components, rng))
        return self._from_labels(rows, labels)

    def _from_labels(self, rows: Array, labels: NDArray[np.intp]) -> Array:
        """M-step on a partition of some rows."""
        s = np.zeros(self.stat_spec.size)
        latent = np.eye(self.n_components)
        for y, label in zip(rows, labels, strict=True):
            self._functions.accumulate(1.0 / len(rows), y, latent[label], s)
        means = np.stack([rows[labels == c].mean(axis=0) for c in range(self.n_components)])
        theta = self._common_covariance(means)
        trial = theta.copy()
        if self._functions.maximize(s, trial) == 0:
            theta = trial
        return theta

    def _common_covariance(self, means: Array) -> Array:
        """Theta with equal weights and the covariance of all data in each component."""
        assert self._moments is not None
        k = self.n_components
        cov = self._moments.cov + self.reg_covar * np.eye(self.n_features)
        covariances = {
            "full": np.tile(cov, (k, 1, 1)),
            "tied": cov,
            "diag": np.tile(np.diag(cov), (k, 1)),
            "spherical": np.full(k, np.diag(cov).mean()),
        }[self.covariance_type]
        return self.pack_components(
            weights=np.full(k, 1.0 / k), means=means + self.shift, covariances=covariances
        )

    # Functions of rows.

    def _rows(self, X: Any) -> Array:
        """New rows, checked and centred as the data; the model's own for None."""
        if X is None:
            return self.values.reshape(-1, self.n_features)
        problems = Problems("X")
        table = read_table(X, problems, self.feature_names)
        problems.raise_if_any(DataError)
        assert table is not None
        return table.values - self.shift if np.any(self.shift) else table.values

    def posterior(self, theta: Array, X: Any = None) -> tuple[Array, Array]:
        """Posterior probabilities of components, and log-likelihoods.

        Parameters
        ----------
        theta : ndarray of shape (theta_spec.size,)
        X : array_like or DataFrame of shape (n_rows, n_features), optional
            The model's own data by default.

        Returns
        -------
        probabilities : ndarray of shape (n_rows, n_components)
        log_likelihood : ndarray of shape (n_rows,)
        """
        return self._posterior(theta, self._rows(X))

    def _posterior(self, theta: Array, rows: Array) -> tuple[Array, Array]:
        probabilities = np.empty((len(rows), self.n_components))
        log_lik = np.empty(len(rows))
        expect_records(
            self._functions.expect, theta, rows.ravel(), self.n_features,
            probabilities, log_lik, np.empty(self.work_size),
        )  # fmt: skip
        return probabilities, log_lik

    def predict_proba(self, theta: Array, X: Any = None) -> Array:
        """Posterior probabilities of shape (n_rows, n_components)."""
        return self.posterior(theta, X)[0]

    def predict(self, theta: Array, X: Any = None) -> NDArray[np.intp]:
        """Most probable component of each row."""
        rows = self._rows(X)
        parts = [self._posterior(theta, rows[p])[0].argmax(axis=1) for p in chunks(len(rows))]
        return np.concatenate(parts)

    def score_samples(self, theta: Array, X: Any = None) -> Array:
        """Log-likelihood of each row."""
        rows = self._rows(X)
        return np.concatenate([self._posterior(theta, rows[p])[1] for p in chunks(len(rows))])

    def loglik(self, theta: Array) -> float:
        """Log-likelihood of the data."""
        return float(self.score_samples(theta).sum())

    def icl(self, theta: Array) -> float:
        """Integrated completed likelihood, in the form where smaller is better.

        ``BIC - 2 sum_i log r_i(c_i)`` with c_i the most probable component of row
        i: BIC plus a penalty for overlap. Biernacki, Celeux and Govaert (2000),
        IEEE Trans. PAMI 22, 719-725, equation (10), times -2.
        """
        rows = self._rows(None)
        total = 0.0
        for part in chunks(len(rows)):
            probabilities, log_lik = self._posterior(theta, rows[part])
            total += log_lik.sum() + np.log(probabilities.max(axis=1)).sum()
        return float(-2.0 * total + self.n_params * np.log(self.n_individuals))

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
        rows = self._rows(None)
        parts = self.components(theta)
        parts["means"] = parts["means"] - self.shift
        information = np.zeros((self.n_params, self.n_params))
        step = max(1, 4_000_000 // self.n_params)  # rows whose scores take 32 MB
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            each = scores(part, self._posterior(theta, part)[0], parts, self.covariance_type)
            information += each.T @ each
        jacobian = free_to_named(self.n_components, self.n_params)
        scale = 1.0 / np.sqrt(np.maximum(np.diag(information), np.finfo(float).tiny))
        try:
            inverse = np.linalg.inv(information * np.outer(scale, scale))
        except np.linalg.LinAlgError:
            return np.full((len(jacobian),) * 2, np.nan)
        return jacobian @ (inverse * np.outer(scale, scale)) @ jacobian.T

    def sample(
        self, theta: Array, n: int, rng: np.random.Generator
    ) -> tuple[Array, NDArray[np.intp]]:
        """Draw rows from the fitted mixture.

        Returns
        -------
        X : ndarray of shape (n, n_features)
        labels : ndarray of shape (n,)
        """
        parts = self.components(theta)
        return simulate(
            rng,
            n,
            weights=parts["weights"],
            means=parts["means"],
            covariances=parts["covariances"],
            covariance_type=self.covariance_type,
        )

    def results(self, record: Any) -> MixtureResults:
        """Wrap the record of a fit."""
        from ._mixture_results import MixtureResults

        return MixtureResults(self, record)
