"""Mixtures of multivariate Student distributions: clusters with heavy tails.

p(x_i) = sum_c w_c t(x_i; m_c, C_c, nu_c)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem._jit import compiled
from saem._types import make_kernels
from saem.contract import Array
from saem.exceptions import DataError, ModelError, Problems
from saem.statistics import Packed

from . import _student_kernels as kernels
from ._column_start import random_labels, responsibilities
from ._incomplete import read_weights
from ._mixture_base import RecordMixture, simplex_directions
from ._mixture_options import check_components, check_init
from ._student_checks import check_given, check_spread, check_student, fixed_df
from ._table import Moments, Table, moments, read_table

__all__ = ["StudentMixture"]

_NAMES = ("expect", "draw", "classify", "accumulate", "maximize", "project", "surrogate")
#: Degrees of freedom of a start, where they are estimated.
_START_DF = 10.0


class StudentMixture(RecordMixture):
    """Mixture of multivariate Student distributions with full scatter matrices.

    Parameters
    ----------
    X : array_like or DataFrame of shape (n, n_features)
        Rows of numbers; missing values are refused.
    n_components : int
        Number of components k.
    df : float or array_like of shape (k,), optional
        Degrees of freedom, kept at these values. None estimates those of each component,
        which takes EM more iterations.
    df_bounds : (float, float)
        Range of estimated degrees of freedom. Beyond 200 the distribution cannot be told
        from a normal one; below 1 the likelihood may grow without bound at single rows.
    weights : array_like of shape (n,), optional
        Weights of the rows, at least 0; ones by default. 2 is the same as the row twice.
    init : {"kmeans++", "random"} or dict
        How `start` finds its values. ``"kmeans++"``: k-means++ centres and at most 10
        steps of k-means on standardised columns of at most 10 000 random rows.
        ``"random"``: random responsibilities of such rows, uniform on the simplex. Or
        values as a dict of the form of `components`.
    reg_covar : float
        Floor: added to the diagonal of every scatter matrix in the M-step. With a value
        above 0 the likelihood is bounded, and EM maximises it only up to terms of this size.

    Notes
    -----
    A Student variable is a normal one with covariance C / u, and u gamma-distributed with
    shape and rate nu / 2. The latent variable is the component and u, and `maximize` has a
    closed form but for nu, which solves one equation in one unknown (Newton's method). EM
    creeps along nu; an accelerated algorithm helps.

    Rows with missing values are refused: their expected statistic holds conditional means
    and covariances of what is missing, in every component, which would have to be
    remembered with each row.

    `classify` gives the most probable component, with the mean of u given it.

    References
    ----------
    Peel, D. and McLachlan, G. J. (2000). Robust mixture modelling using the t distribution.
    Statistics and Computing 10, 339-348.

    Examples
    --------
    >>> import numpy as np
    >>> X, _ = StudentMixture.simulate(np.random.default_rng(0), 100)
    >>> model = StudentMixture(X, 2, df=4)
    >>> model.n_params
    11
    """

    linear_statistic = False  # products of latent weights and indicators
    name: ClassVar[str] = "Student mixture"
    #: What the positive codes of `maximize` mean.
    maximize_errors: ClassVar[dict[int, str]] = {
        kernels.EMPTY_COMPONENT: "a component has lost all its rows; use fewer components or "
        "another start",
        kernels.SINGULAR_SCATTER: "the scatter matrix of a component is singular; raise "
        "reg_covar, or use fewer components",
        kernels.BAD_PRECISIONS: "no degrees of freedom belong to the precisions of a component; "
        "average over more rows",
    }
    _persisted: ClassVar[tuple[str, ...]] = (
        "n_components", "df", "df_bounds", "reg_covar", "feature_names", "shift", "_moments",
        "values", "offsets", "row_weights", "init", "_given",
    )  # fmt: skip

    def __init__(
        self,
        X: Any,
        n_components: int,
        *,
        df: ArrayLike | None = None,
        df_bounds: tuple[float, float] = (1.0, 200.0),
        weights: ArrayLike | None = None,
        init: str | Mapping[str, Any] = "kmeans++",
        reg_covar: float = 1e-6,
    ) -> None:
        options = Problems("the mixture")
        check_components(n_components, options)
        check_init(init, options)
        check_student(df_bounds, reg_covar, options)
        options.raise_if_any(ModelError)
        self.n_components = k = int(n_components)
        self.df = fixed_df(df, k, options)
        options.raise_if_any(ModelError)
        problems = Problems("the mixture")
        table = _read(X, problems)
        checked = read_weights(weights, len(table.values), problems)
        check_spread(table, k, problems)
        problems.raise_if_any(DataError)
        self.df_bounds = float(df_bounds[0]), float(df_bounds[1])
        self.reg_covar = float(reg_covar)
        self.feature_names = table.names
        self._moments = moments(table.values)
        self.shift = self._moments.mean
        self._set_layout(table.values.shape[1])
        self._set_table(table, checked)
        self.init = init if isinstance(init, str) else "given"
        self._given = None if isinstance(init, str) else self._pack_given(init)

    def _set_layout(self, d: int) -> None:
        k, self.n_features = self.n_components, d
        t = d * (d + 1) // 2
        self.theta_spec = Packed(
            head=(kernels.HEAD,), weights=(k,), means=(k, d), scatters=(k, t), df=(k,),
            log_constants=(k,), log_precisions=(k,), factors=(k, t),
        )  # fmt: skip
        self.stat_spec = Packed(
            counts=(k,), precisions=(k,), logs=(k,), sums=(k, d), squares=(k, t)
        )
        self.latent_size, self.work_size = 3 * k, k + 2
        names = self.feature_names
        pairs = [(a, b) for j, a in enumerate(names) for b in names[: j + 1]]
        self.param_names = [
            *(f"weights[{c}]" for c in range(k)),
            *(f"means[{c},{a}]" for c in range(k) for a in names),
            *(f"scatters[{c},{a},{b}]" for c in range(k) for a, b in pairs),
            *(f"df[{c}]" for c in range(k) if self.df is None),
        ]
        self.n_params = len(self.param_names) - 1
        functions = {name: compiled(getattr(kernels, name)) for name in _NAMES}
        self._functions = SimpleNamespace(**functions, derive=compiled(kernels.derive))
        self.kernels = make_kernels(**functions)

    def _restored(self) -> None:
        self._moments = Moments(*self._moments)
        self._set_layout(len(self.feature_names))
        self._set_rows(self.values, self.offsets, self.row_weights)

    def _set_table(self, table: Table, weights: Array) -> None:
        self._set_rows(*self._records_of(table.values), weights)

    def _records_of(self, X: Array) -> tuple[Array, NDArray[np.int64]]:
        records = np.column_stack([np.ones(len(X)), X - self.shift])
        return records.ravel(), np.arange(len(X) + 1, dtype=np.int64) * records.shape[1]

    def _records(self, X: Any) -> tuple[Array, NDArray[np.int64]]:
        return self._records_of(_read(X, Problems("X"), self.feature_names).values)

    def with_data(self, X: Any, weights: ArrayLike | None = None) -> Self:
        """Return the same model on other rows: same columns, same meaning of theta.

        Parameters
        ----------
        X : array_like or DataFrame of shape (n_rows, n_features)
        weights : array_like of shape (n_rows,), optional

        Raises
        ------
        DataError
            With all that is wrong with X.
        """
        problems = Problems("X")
        table = _read(X, problems, self.feature_names)
        checked = read_weights(weights, len(table.values), problems)
        problems.raise_if_any(DataError)
        other = copy.copy(self)
        other._set_table(table, checked)
        return other

    # Parameters.

    def components(self, theta: Array) -> dict[str, Any]:
        """Parameters of the components.

        Parameters
        ----------
        theta : ndarray of shape (theta_spec.size,)

        Returns
        -------
        dict
            ``weights`` (k,), ``means`` (k, d), ``scatters`` (k, d, d), ``df`` (k,). The
            covariance is the scatter times df / (df - 2), for df above 2.
        """
        view, d = self.theta_spec.view(theta), self.n_features
        scatters = np.empty((self.n_components, d, d))
        a, b = np.tril_indices(d)
        scatters[:, a, b] = scatters[:, b, a] = view["scatters"]
        return {
            "weights": view["weights"].copy(),
            "means": view["means"] + self.shift,
            "scatters": scatters,
            "df": view["df"].copy(),
        }

    def pack_components(
        self, *, weights: ArrayLike, means: ArrayLike, scatters: ArrayLike, df: ArrayLike = ()
    ) -> Array:
        """Theta from what `components` returns; `df` only where it is not fixed.

        Raises
        ------
        ModelError
            If a value has the wrong shape or is out of its range.
        """
        given = {"weights": weights, "means": means, "scatters": scatters}
        return self._pack_given(given | ({"df": df} if self.df is None else {}))

    def _pack_given(self, given: Mapping[str, Any]) -> Array:
        k, d = self.n_components, self.n_features
        shapes: dict[str, tuple[int, ...]]
        shapes = {"weights": (k,), "means": (k, d), "scatters": (k, d, d)}
        if self.df is None:
            shapes["df"] = (k,)
        arrays = check_given(given, shapes, self.df_bounds)
        arrays["weights"] /= arrays["weights"].sum()
        arrays["scatters"] = arrays["scatters"][:, *np.tril_indices(d)]
        return self._pack(**arrays)

    def _pack(
        self, weights: Array, means: Array, scatters: Array, df: Array | None = None
    ) -> Array:
        """Theta from arrays, scatters as triangles."""
        shapes = self.theta_spec.shapes
        blocks = {name: np.zeros(shapes[name]) for name in ("log_constants", "log_precisions")}
        head = [
            self.n_components, self.n_features, self.reg_covar, float(self.df is not None),
            *self.df_bounds,
        ]  # fmt: skip
        theta = self.theta_spec.pack(
            blocks
            | {
                "head": head,
                "weights": weights,
                "means": means - self.shift,
                "scatters": scatters,
                "df": df if self.df is None else self.df,
                "factors": np.zeros(shapes["factors"]),
            }
        )
        self._functions.derive(theta)
        return theta

    def params_of(self, theta: Array) -> Array:
        """Weights (all k), means, scatters (lower triangles) and df unless fixed."""
        view = self.theta_spec.view(theta)
        parts = [view["weights"], (view["means"] + self.shift).ravel(), view["scatters"].ravel()]
        return np.concatenate([*parts, view["df"]] if self.df is None else parts)

    def theta_of(self, params: ArrayLike) -> Array:
        """Theta of parameters in the order of `param_names`: the inverse of `params_of`."""
        shapes = self.theta_spec.shapes
        names = ["weights", "means", "scatters"] + (["df"] if self.df is None else [])
        sizes = np.cumsum([int(np.prod(shapes[name])) for name in names])[:-1]
        pieces = np.split(np.array(params, dtype=float), sizes)
        return self._pack(**{n: p.reshape(shapes[n]) for n, p in zip(names, pieces, strict=True)})

    def _directions(self, theta: Array) -> Array:
        view, k, d = self.theta_spec.view(theta), self.n_components, self.n_features
        a, b = np.tril_indices(d)
        sd = np.sqrt(view["scatters"][:, a == b])
        sizes = [np.zeros(k), sd.ravel(), (sd[:, a] * sd[:, b]).ravel()]
        if self.df is None:
            low, high = self.df_bounds
            sizes.append(np.where((view["df"] > low) & (view["df"] < high), view["df"], 0.0))
        rest = np.diag(np.concatenate(sizes))
        parts = [np.pad(part, (0, len(rest) - k)) for part in simplex_directions(view["weights"])]
        return np.array([*parts, *rest[rest.any(axis=1)]]).reshape(-1, len(rest)).T

    def boundary(self, theta: Array) -> dict[str, str]:
        """Degrees of freedom at their bounds."""
        df, at = self.theta_spec.view(theta)["df"], self.df_bounds
        if self.df is not None:
            return {}
        return {
            f"df[{c}]": f"the degrees of freedom are at the bound {value:g}"
            for c, value in enumerate(df)
            if value in at
        }

    # Starts.

    def start(self, rng: np.random.Generator) -> Array:
        """Starting theta: random for "kmeans++" and "random", as given otherwise."""
        if self._given is not None:
            return self._given.copy()
        k, d = self.n_components, self.n_features
        rows = self.values.reshape(-1, 1 + d)[self._some_rows(rng), 1:]
        if self.init == "random":
            r = rng.dirichlet(np.ones(k), size=len(rows))
        else:
            sd = np.sqrt(np.diag(self._moments.cov))
            r = responsibilities(random_labels(rows / sd, k, rng), k)
        df = np.full(k, np.clip(_START_DF, *self.df_bounds)) if self.df is None else self.df
        low = np.tril_indices(d)
        theta = self._pack(
            np.full(k, 1.0 / k), np.tile(self.shift, (k, 1)),
            np.tile(self._moments.cov[low] + self.reg_covar * np.eye(d)[low], (k, 1)), df,
        )  # fmt: skip
        # u = 1, and the mean of log u that belongs to these degrees of freedom
        from scipy.special import digamma

        logs = np.broadcast_to(digamma(0.5 * df) - np.log(0.5 * df), r.shape)
        latents = np.hstack([r, np.ones_like(r), logs])
        return self._first_step(theta, *self._records_of(rows + self.shift), latents)

    # Samples.

    def sample(
        self, theta: Array, n: int, rng: np.random.Generator
    ) -> tuple[Array, NDArray[np.intp]]:
        """Draw rows from the fitted mixture.

        Returns
        -------
        X : ndarray of shape (n, n_features)
        labels : ndarray of shape (n,)
        """
        return self.simulate(rng, n, **self.components(theta))

    @staticmethod
    def simulate(
        rng: np.random.Generator,
        n: int = 1000,
        *,
        weights: ArrayLike = (0.4, 0.6),
        means: ArrayLike = ((0.0, 0.0), (5.0, 3.0)),
        scatters: ArrayLike = (((1.0, 0.5), (0.5, 1.0)), ((2.0, -0.6), (-0.6, 0.7))),
        df: ArrayLike = (3.0, 6.0),
    ) -> tuple[Array, NDArray[np.intp]]:
        """Simulate rows of shape (n, n_features), and their components."""
        means, df = np.asarray(means, dtype=float), np.asarray(df, dtype=float)
        factors = np.linalg.cholesky(np.asarray(scatters, dtype=float))
        labels = rng.choice(len(means), size=n, p=np.asarray(weights, dtype=float))
        u = rng.chisquare(df[labels]) / df[labels]
        noise = np.einsum("nij,nj->ni", factors[labels], rng.standard_normal((n, means.shape[1])))
        return means[labels] + noise / np.sqrt(u)[:, None], labels

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> Self:
        """Small simulated instance that starts near the truth, with 4 degrees of freedom."""
        start = {
            "weights": (0.45, 0.55),
            "means": ((0.3, 0.3), (4.5, 2.7)),
            "scatters": (((1.2, 0.3), (0.3, 1.2)), ((1.8, -0.4), (-0.4, 0.8))),
        }
        return cls(cls.simulate(rng, n, df=(4.0, 4.0))[0], 2, df=4.0, init=start)


def _read(X: Any, problems: Problems, names: list[str] | None = None) -> Table:
    """Rows of finite numbers; says why missing ones are refused."""
    table = read_table(X, problems, names)
    if table is not None and np.isnan(table.values).any():
        problems.add(
            "a Student mixture takes no missing values: the expected statistic of such a row "
            "needs conditional moments in each component, too much to remember with it",
            remedy="drop these rows or impute; GaussianMixture takes missing values",
        )
    problems.raise_if_any(DataError)
    assert table is not None
    return table
