"""Gaussian mixtures with full, tied, diagonal or spherical covariances.

    x_i | z_i = c  ~  N(m_c, C_c),      P(z_i = c) = w_c.

The statistic of a row is (r_c, r_c x, r_c x x' or what the covariance type needs
of it), with r_c the posterior probability of component c or the indicator of a
drawn component; the layouts stand in `saem.models._gaussian_kernels`. Rows may have
weights (`saem.models._gaussian_weighted`) and missing values
(`saem.models._gaussian_missing`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem._types import make_kernels
from saem.contract import Array
from saem.exceptions import DataError, ModelError, Problems
from saem.statistics import Packed

from . import _gaussian_data as data
from . import _gaussian_updates as updates
from . import _mixture_layout as layout
from ._gaussian_params import PARTS
from ._gaussian_rows import GaussianRows
from ._gaussian_start import start_labels
from ._incomplete import read_weights
from ._mixture_checks import check_data, check_given, check_options, check_size
from ._mixture_simulate import example_parts, simulate, with_holes
from ._mixture_start import distinct_rows, group_means
from ._table import Moments, Table

if TYPE_CHECKING:
    from ._mixture_results import MixtureResults

__all__ = ["GaussianMixture", "simulate"]

#: Data are centred (in a copy) when a mean exceeds this many standard deviations: second
#: moments about the origin would lose the square of this in relative accuracy.
_FAR = 100.0


class GaussianMixture(GaussianRows):
    """Mixture of Gaussian distributions.

    Parameters
    ----------
    X : array_like or DataFrame of shape (n, n_features)
        Rows of numbers. A contiguous float64 array without missing values and
        weights is used as it is, without a copy: do not change it before the last
        fit is done. NaN is a missing value, taken to be missing at random; rows and
        columns without any value are refused.
    n_components : int
        Number of components k.
    covariance_type : {"full", "tied", "diag", "spherical"}
        One covariance matrix per component, one for all, one diagonal matrix per
        component, or one variance per component.
    init : {"kmeans++", "random"}, dict or tuple
        How `start` finds its values. ``"kmeans++"``: k-means++ centres and at most
        10 steps of k-means on standardised columns of at most 10 000 random rows,
        missing values replaced by means. ``"random"``: k distinct rows as means, the
        covariance of the data, equal weights. Or values given as a dict with the keys
        ``weights``, ``means`` and ``covariances`` (those in `fixed` may be left out),
        or as a tuple in this order; shapes as in `components`.
    reg_covar : float
        Variance floor: added to the diagonal of every covariance in the M-step,
        as scikit-learn does under the same name. With a value above 0 the
        likelihood is bounded, and EM maximises it only up to terms of this size.
    weights : array_like of shape (n,), optional
        Weights of rows, at least 0: they multiply a row's statistic and
        log-likelihood. They are frequencies: a weight of 2 is the same as the row
        standing there twice, also in BIC and standard errors, where the sum of
        weights is the number of rows.
    fixed : dict, optional
        Parts that are known and kept: any of ``weights``, ``means`` and
        ``covariances``, with values in the shapes of `components`.
    missing : bool, optional
        False refuses missing values. True prepares for them where the rows at hand
        have none but those of a later `with_data` may. By default the rows decide.

    Attributes
    ----------
    row_weights : ndarray of shape (n,) or None
    total_weight : float
        Sum of the weights; the number of rows without.
    n_missing : int
        Number of missing values.
    most_missing : int
        Largest number of missing values in a row.

    Notes
    -----
    The M-step with mean statistic (N_c, M_c, S_c) is

        w_c = N_c / sum N,   m_c = M_c / N_c,   C_c = S_c / N_c - m_c m_c' + reg_covar I

    (full; the other types pool or take the diagonal). Dempster, Laird and Rubin
    (1977), section 4.3. It is the exact maximum of the expected complete-data
    log-likelihood with the penalty ``-1/2 reg_covar sum_c N_c tr(C_c^-1)``; as the E-step
    knows no penalty, EM with a large reg_covar need not raise any objective.

    Missing values: the likelihood of a row is that of its observed values. Diagonal and
    spherical covariances skip a missing value; with the others its conditional moments
    given the observed values of the row enter the statistic (Ghahramani and Jordan 1994,
    NIPS 6, 120-127).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(-2, 1, (50, 1)), rng.normal(2, 1, (50, 1))])
    >>> model = GaussianMixture(X, 2)
    >>> model.n_params
    5
    >>> GaussianMixture(X, 2, fixed={"weights": [0.5, 0.5], "covariances": [[[1.0]]] * 2}).n_params
    2
    """

    name: ClassVar[str] = "Gaussian mixture"
    capabilities: ClassVar[frozenset[str]] = frozenset({"expect", "draw", "classify", "surrogate"})
    #: What the positive codes of `maximize` mean.
    maximize_errors: ClassVar[dict[int, str]] = {
        updates.EMPTY_COMPONENT: "a component has lost all its rows, or all observed values of "
        "a column; use fewer components or another start",
        updates.SINGULAR_COVARIANCE: "the covariance of a component is singular; raise "
        "reg_covar, use fewer components or a simpler covariance_type",
        updates.NOT_FINITE: "the statistic holds numbers that are not finite; lower the step "
        "size or rescale the data",
    }
    _persisted: ClassVar[tuple[str, ...]] = (
        "n_components", "covariance_type", "reg_covar", "missing", "fixed", "init", "_given",
        "feature_names", "n_features", "shift", "n_individuals", "n_missing", "most_missing",
        "values", "row_weights", "_kind", "_moments",
    )  # fmt: skip

    def __init__(
        self,
        X: Any,
        n_components: int,
        *,
        covariance_type: str = "full",
        init: str | dict[str, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike] = "kmeans++",
        reg_covar: float = 1e-6,
        weights: ArrayLike | None = None,
        fixed: Mapping[str, ArrayLike] | None = None,
        missing: bool | None = None,
    ) -> None:
        problems = Problems("the mixture")
        check_options(n_components, covariance_type, init, reg_covar, fixed, missing, problems)
        options_fine = not problems
        rows = data.read_rows(X, weights, problems, missing=missing)
        if rows is not None and options_fine:
            check_size(len(rows.present), n_components, problems)
        self._moments = None if problems or rows is None else data.moments_of(rows)
        if rows is not None and self._moments is not None:
            solid = data.solid_rows(rows.present, self._moments.mean)
            check_data(
                rows.table, solid, self._moments, n_components, covariance_type, reg_covar, problems
            )
        problems.raise_if_any(DataError if options_fine else ModelError)
        assert rows is not None
        assert self._moments is not None

        self.n_components = int(n_components)
        self.covariance_type = covariance_type
        self.reg_covar = float(reg_covar)
        self.missing = missing
        self.feature_names = rows.table.names
        self.n_features = rows.table.values.shape[1]
        mean, sd = self._moments.mean, np.sqrt(np.diag(self._moments.cov))
        self.shift = np.where(np.abs(mean) > _FAR * sd, mean, 0.0)
        self.fixed = self._check_parts(fixed or {}, "the fixed values")
        self._take(rows)
        self.init = init if isinstance(init, str) else "given"
        self._given: Array | None = None
        if not isinstance(init, str):
            given = dict(init) if isinstance(init, Mapping) else dict(zip(PARTS, init, strict=True))
            self._given = self.pack_components(**self._check_parts(given, "the starting values"))

    def _check_parts(self, parts: Mapping[str, Any], owner: str) -> dict[str, Array]:
        kind = self.covariance_type
        shapes = layout.component_shapes(kind, self.n_components, self.n_features)
        return check_given(parts, shapes, matrices=layout.has_triangles(kind), owner=owner)

    # Data.

    def _take(self, rows: data.Rows, kind: str | None = None) -> None:
        """Take rows over, centred where they lie far from the origin, and lay out records."""
        if kind is None:
            kind = "plain" if rows.weights is None else "weighted"
            kind = "missing" if rows.most_missing or self.missing else kind
        values = rows.table.values - self.shift if np.any(self.shift) else rows.table.values
        self.row_weights = rows.weights
        self.n_individuals = len(values)
        self.most_missing, self.n_missing = rows.most_missing, rows.n_missing
        self._set_layout(kind)
        self._set_records(data.records_of(values, rows.weights, plain=kind == "plain"))

    def _restored(self) -> None:
        self._moments = self._moments and Moments(*self._moments)
        self._set_layout(self._kind)
        self._set_records(self.values)

    def _set_records(self, records: Array) -> None:
        self.values = records
        width = self.n_features + (self._kind != "plain")
        self.offsets = np.array([0, width])
        w = self.row_weights
        self.total_weight = float(self.n_individuals if w is None else w.sum())
        self.nobs = round(self.total_weight)

    def _set_layout(self, kind: str) -> None:
        """Choose the functions for a kind of rows, and lay out their vectors."""
        k, d, t = self.n_components, self.n_features, self.covariance_type
        self._kind = kind
        # Not where x x' enters as it is, nor where conditional means enter by their squares.
        self.linear_statistic = t != "tied" and (kind != "missing" or t != "full")
        self.batched = kind != "missing"
        self._functions = layout.functions_of(t, kind)
        own = {n: f for n, f in self._functions._asdict().items() if f is not None}
        self._derive = own.pop("derive")
        self.kernels = make_kernels(**own)
        self.latent_size, self.work_size = layout.scratch(t, kind, k, d, self.most_missing)
        self.theta_spec = Packed(**layout.theta_shapes(t, k, d))
        self.stat_spec = Packed(**layout.statistic_shapes(t, kind, k, d))
        self._names = names = layout.param_names(t, k, self.feature_names)
        self._free = layout.free_names(t, k, d, self.fixed)
        self.param_names = [n for n, free in zip(names, self._free, strict=True) if free]
        self.n_params = len(self.param_names) - ("weights" not in self.fixed)

    def reweighted(self, weights: ArrayLike) -> Self:
        """Return the same model and rows with other weights.

        Parameters
        ----------
        weights : array_like of shape (n_individuals,)
            At least 0, not all 0.

        Raises
        ------
        DataError
            If there are too few, or one is negative or not finite.
        """
        problems = Problems("the weights")
        checked = read_weights(weights, self.n_individuals, problems)
        problems.raise_if_any(DataError)
        other = copy.copy(self)
        other.row_weights, values = checked, self.rows
        if other._kind == "plain":
            other._set_layout("weighted")
        other._set_records(data.records_of(values, checked, plain=False))
        if self._moments is not None:
            other._moments = None
        return other

    def with_data(self, X: Any, weights: ArrayLike | None = None) -> Self:
        """Return the same model with other rows: for streams and new samples.

        Options, names, and the shift of the data are kept, so that packed parameters and
        statistics of both models mean the same.

        Parameters
        ----------
        X : array_like or DataFrame of shape (n_rows, n_features)
            Any number of rows from 1 on; a DataFrame is matched by column names.
        weights : array_like of shape (n_rows,), optional

        Raises
        ------
        DataError
            If X is malformed, or has missing values and this model is not made for them.
        """
        problems = Problems("X")
        allowed = self._kind == "missing"
        rows = data.read_rows(
            X, weights, problems, self.feature_names, missing=None if allowed else self.missing
        )
        if rows is not None and rows.most_missing and not (allowed or self.missing is False):
            problems.add(
                "X has missing values, and the model was made from rows without",
                remedy="make it with missing=True, so that its statistic has room for them",
            )
        problems.raise_if_any(DataError)
        assert rows is not None
        other = copy.copy(self)
        kind = self._kind
        if not allowed:
            kind = "plain" if rows.weights is None else "weighted"
        other._moments = None
        other._take(rows, kind)
        return other

    @classmethod
    def example(
        cls,
        rng: np.random.Generator,
        n: int = 60,
        *,
        covariance_type: str = "full",
        weighted: bool = False,
        missing: float = 0.0,
    ) -> Self:
        """Two components in the plane, started at the truth.

        Parameters
        ----------
        rng : numpy.random.Generator
        n : int
            Number of rows.
        covariance_type : {"full", "tied", "diag", "spherical"}
        weighted : bool
            Whether rows get weights from 0.5 to 1.5.
        missing : float
            Share of the rows that lack one of their two values.
        """
        truth = example_parts(covariance_type)
        X = simulate(
            rng, n, weights=truth["weights"], means=truth["means"],
            covariances=truth["covariances"], covariance_type=covariance_type,
        )[0]  # fmt: skip
        return cls(
            with_holes(rng, X, missing),
            2,
            covariance_type=covariance_type,
            init=(truth["weights"], truth["means"], truth["covariances"]),
            weights=rng.uniform(0.5, 1.5, n) if weighted else None,
        )

    # Starts.

    def start(self, rng: np.random.Generator) -> Array:
        """Starting theta: random for "kmeans++" and "random", as given otherwise."""
        if self._given is not None:
            return self._given.copy()
        moments = self._moments_of_rows()
        k = self.n_components
        rows, weights = data.start_rows(
            self.rows, self.row_weights, moments.mean - self.shift, k, rng
        )
        if self.init == "random":
            rows = distinct_rows(rows, k)
            chosen = rng.choice(len(rows), k, replace=False)
            return self._common_covariance(rows[chosen])
        labels = start_labels(rows, weights, k, self._fixed_in_full(), rng)
        return self._from_labels(rows, weights, labels)

    def _moments_of_rows(self) -> Moments:
        if self._moments is None:  # of other rows or weights than the constructor's
            table = Table(self.rows + self.shift, self.feature_names, None)
            rows = data.Rows(table, self.row_weights, self.most_missing, self.n_missing)
            self._moments = data.moments_of(rows)
        return self._moments

    def _from_labels(self, rows: Array, weights: Array | None, labels: NDArray[np.intp]) -> Array:
        """M-step on a partition of some rows without missing values."""
        k = self.n_components
        plain = layout.functions_of(self.covariance_type)
        s = np.zeros(Packed(**layout.statistic_shapes(self.covariance_type, "plain", k,
                                                      self.n_features)).size)  # fmt: skip
        latent = np.eye(k)
        share = np.full(len(rows), 1.0 / len(rows)) if weights is None else weights / weights.sum()
        for w, y, label in zip(share, rows, labels, strict=True):
            plain.accumulate(w, y, latent[label], s)
        means = self._fixed_in_full().get("means")
        if means is None:
            means = group_means(rows, labels, k, weights)
        theta = self._common_covariance(means)
        plain.maximize(s, theta)  # leaves theta as it is where a covariance is singular
        return theta

    def _common_covariance(self, means: Array) -> Array:
        """Theta with equal weights and the covariance of all data in each component."""
        k, d = self.n_components, self.n_features
        cov = self._moments_of_rows().cov + self.reg_covar * np.eye(d)
        covariances = {
            "full": np.tile(cov, (k, 1, 1)),
            "tied": cov,
            "diag": np.tile(np.diag(cov), (k, 1)),
            "spherical": np.full(k, np.diag(cov).mean()),
        }[self.covariance_type]
        parts: dict[str, ArrayLike] = {
            "weights": np.full(k, 1.0 / k), "means": means + self.shift, "covariances": covariances
        }  # fmt: skip
        return self.pack_components(**{n: v for n, v in parts.items() if n not in self.fixed})

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
