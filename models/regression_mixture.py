"""Mixtures of linear regressions.

y_i | x_i  ~  sum_c w_c N(x_i' beta_c, v_c)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem._jit import compiled
from saem._types import make_kernels
from saem.contract import Array
from saem.exceptions import DataError, ModelError, Problems
from saem.statistics import Packed

from . import _regression_kernels as kernels
from ._checks import add_bad_flags, add_bad_weights
from ._column_start import responsibilities
from ._incomplete import read_weights
from ._mixture_base import RecordMixture, simplex_directions
from ._mixture_options import check_alpha, check_components, check_init, given_arrays
from ._regression_design import (
    ArrayDesign,
    Basis,
    FormulaDesign,
    check_design,
    design_of,
    least_squares,
)
from ._regression_start import clusterwise

if TYPE_CHECKING:
    from ._regression_results import RegressionMixtureResults

__all__ = ["RegressionMixture"]

_NAMES = ("expect", "draw", "classify", "accumulate", "maximize", "project", "surrogate")
_INITS = ("clusterwise", "random")


class RegressionMixture(RecordMixture):
    """Mixture of Gaussian linear regressions (latent class regression).

    Parameters
    ----------
    X : array_like or DataFrame of shape (n, n_covariates)
        Covariates; missing values are refused. For a formula use `from_formula`.
    y : array_like of shape (n,)
        Responses. A row whose response is missing (NaN) says nothing about the parameters;
        its posterior probabilities are the weights of the components.
    n_components : int
        Number of components k.
    intercept : bool
        Put a column of ones before X.
    common_variance : bool
        One residual variance for all components.
    weights : array_like of shape (n,), optional
        Weights of the rows, at least 0; ones by default. 2 is the same as the row twice.
    init : {"clusterwise", "random"} or dict
        How `start` finds its values. ``"clusterwise"``: the best of 10 clusterwise
        least-squares partitions (Späth 1979) of at most 10 000 random rows.
        ``"random"``: random responsibilities of such rows, uniform on the simplex. Or
        values as a dict of the form of `components`.
    alpha : float
        Pseudo-rows per row, in each component, that lie around the ordinary regression of
        all rows; above 0. They keep variances from collapsing, and matter at no more than
        this relative size. EM maximises the likelihood times this prior.

    Notes
    -----
    The M-step is weighted least squares in each component (DeSarbo and Cron 1988).

    Only Gaussian regressions are offered. The complete-data likelihood of a Poisson or
    logistic regression is no exponential family of finite dimension in its coefficients:
    its M-step needs every row's covariates and responsibilities, not a sum of statistics.

    References
    ----------
    DeSarbo, W. S. and Cron, W. L. (1988). A maximum likelihood methodology for clusterwise
    linear regression. Journal of Classification 5, 249-282.

    Examples
    --------
    >>> import numpy as np
    >>> X, y, _ = RegressionMixture.simulate(np.random.default_rng(0), 100)
    >>> fit = RegressionMixture(X, y, 2).fit("em", seed=0)
    >>> fit.coefficients.shape
    (2, 2)
    """

    name: ClassVar[str] = "mixture of regressions"
    #: What the positive codes of `maximize` mean.
    maximize_errors: ClassVar[dict[int, str]] = {
        kernels.EMPTY_COMPONENT: "a component has lost all its rows; use fewer components or "
        "another start",
        kernels.SINGULAR_DESIGN: "the covariates of a component are collinear; raise alpha, or "
        "use fewer terms",
        kernels.ZERO_VARIANCE: "the residual variance of a component is not above 0; raise "
        "alpha, or use fewer components",
    }
    _persisted: ClassVar[tuple[str, ...]] = (
        "n_components", "alpha", "common_variance", "_design", "_basis", "values", "offsets",
        "row_weights", "init", "_given",
    )  # fmt: skip

    def __init__(
        self,
        X: Any,
        y: ArrayLike,
        n_components: int,
        *,
        intercept: bool = True,
        common_variance: bool = False,
        weights: ArrayLike | None = None,
        init: str | Mapping[str, Any] = "clusterwise",
        alpha: float = 1e-6,
    ) -> None:
        problems = Problems("the mixture")
        add_bad_flags(problems, intercept=intercept)
        problems.raise_if_any(ModelError)
        self._build(
            ArrayDesign.of(X, intercept),
            (X, y),
            n_components,
            common_variance,
            weights,
            init,
            alpha,
        )

    @classmethod
    def from_formula(
        cls,
        formula: str,
        data: Any,
        n_components: int,
        *,
        common_variance: bool = False,
        weights: ArrayLike | None = None,
        init: str | Mapping[str, Any] = "clusterwise",
        alpha: float = 1e-6,
    ) -> Self:
        """Build the model from a formula such as ``"y ~ age + group"``.

        Parameters
        ----------
        formula : str
            Response and terms; the intercept is implied, ``- 1`` drops it.
        data : DataFrame
            New rows (`predict`, `with_data`) are DataFrames, too.
        n_components, common_variance, weights, init, alpha
            As for the class.
        """
        model = cls.__new__(cls)
        model._build(
            FormulaDesign.of(formula), data, n_components, common_variance, weights, init, alpha
        )
        return model

    def _build(
        self, design: Any, data: Any, n_components: Any, common_variance: bool, weights: Any,
        init: Any, alpha: Any,
    ) -> None:  # fmt: skip
        options = Problems("the mixture")
        check_components(n_components, options)
        check_init(init, options, _INITS)
        check_alpha(alpha, options)
        add_bad_flags(options, common_variance=common_variance)
        options.raise_if_any(ModelError)
        problems = Problems("the mixture")
        x, y = design.read(data, problems)
        checked = read_weights(weights, len(x), problems)
        check_design(x, y, checked, design.names, int(n_components), problems)
        problems.raise_if_any(DataError)
        self.n_components, self.alpha = int(n_components), float(alpha)
        self.common_variance = bool(common_variance)
        self._design, self.terms = design, list(design.names)
        self._basis = least_squares(x, y, checked)
        self._set_layout()
        self._set_data(x, y, checked)
        self.init = init if isinstance(init, str) else "given"
        self._given = None if isinstance(init, str) else self._pack_given(init)

    def _set_layout(self) -> None:
        k, p = self.n_components, len(self.terms)
        self.theta_spec = Packed(
            head=(kernels.HEAD,), weights=(k,), coefficients=(k, p), variances=(k,),
            log_constants=(k,),
        )  # fmt: skip
        self.stat_spec = Packed(counts=(k,), squares=(k,), cross=(k, p), gram=(k, p * (p + 1) // 2))
        self.latent_size, self.work_size = k, 0
        self.param_names = [
            *(f"weights[{c}]" for c in range(k)),
            *(f"coefficients[{c},{term}]" for c in range(k) for term in self.terms),
            *(["variances"] if self.common_variance else [f"variances[{c}]" for c in range(k)]),
        ]
        self.n_params = len(self.param_names) - 1
        functions = {name: compiled(getattr(kernels, name)) for name in _NAMES}
        self._functions = SimpleNamespace(**functions, derive=compiled(kernels.derive))
        self.kernels = make_kernels(**functions)

    def persist(self) -> dict[str, Any]:
        """Options and data for a fit file."""
        parts = {"design": self._design.persist(), "basis": asdict(self._basis)}
        return super().persist() | parts

    def _restored(self) -> None:
        design: Any = self._design  # this and the next as `persist` gave them
        basis: Any = self._basis
        self._design, self._basis = design_of(design), Basis(**basis)
        self.terms = list(self._design.names)
        self._set_layout()
        self._set_rows(self.values, self.offsets, self.row_weights)

    def _set_data(self, x: Array, y: Array, weights: Array) -> None:
        self._set_rows(*self._records_of(x, y), weights)

    def _set_rows(self, values: Array, offsets: NDArray[np.int64], weights: Array) -> None:
        missing = np.isnan(values[offsets[:-1] + 1])
        super()._set_rows(values, offsets, np.where(missing, 0.0, weights))
        self.nobs = int((~missing).sum())

    def _records_of(self, x: Array, y: Array) -> tuple[Array, NDArray[np.int64]]:
        basis = self._basis
        records = np.column_stack([np.ones(len(x)), y - x @ basis.start, x @ basis.forward])
        return records.ravel(), np.arange(len(x) + 1, dtype=np.int64) * records.shape[1]

    def _records(self, X: Any) -> tuple[Array, NDArray[np.int64]]:
        return self._records_of(*self._design.read(X, Problems("the rows")))

    def with_data(self, data: Any, weights: ArrayLike | None = None) -> Self:
        """Return the same model on other rows: same terms, same meaning of theta.

        Parameters
        ----------
        data : tuple or DataFrame
            ``(X, y)``, or a DataFrame for a model made from a formula.
        weights : array_like of shape (n_rows,), optional

        Raises
        ------
        DataError
            With all that is wrong with the rows.
        """
        problems = Problems("the rows")
        x, y = self._design.read(data, problems)
        checked = read_weights(weights, len(x), problems)
        problems.raise_if_any(DataError)
        other = copy.copy(self)
        other._set_data(x, y, checked)
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
            ``weights`` (k,), ``coefficients`` (k, p) in the order of `terms`, and residual
            ``variances`` (k,).
        """
        view = self.theta_spec.view(theta)
        return {
            "weights": view["weights"].copy(),
            "coefficients": self._basis.start + view["coefficients"] @ self._basis.forward.T,
            "variances": view["variances"].copy(),
        }

    def pack_components(
        self, *, weights: ArrayLike, coefficients: ArrayLike, variances: ArrayLike
    ) -> Array:
        """Theta from what `components` returns.

        Raises
        ------
        ModelError
            If a value has the wrong shape or is out of its range.
        """
        given = {"weights": weights, "coefficients": coefficients, "variances": variances}
        return self._pack_given(given)

    def _pack_given(self, given: Mapping[str, Any]) -> Array:
        k = self.n_components
        shapes = {"weights": (k,), "coefficients": (k, len(self.terms)), "variances": (k,)}
        arrays, problems = given_arrays(given, shapes), Problems("the starting values")
        add_bad_weights(arrays["weights"], problems)
        if not np.all(arrays["variances"] > 0.0):
            problems.add("variances must all be above 0")
        elif self.common_variance and np.ptp(arrays["variances"]) > 0.0:
            problems.add("variances must be equal with common_variance=True")
        problems.raise_if_any(ModelError)
        arrays["weights"] /= arrays["weights"].sum()
        return self._pack(**arrays)

    def _pack(self, weights: Array, coefficients: Array, variances: Array) -> Array:
        basis = self._basis
        head = [
            self.n_components, len(self.terms), self.alpha, float(self.common_variance),
            basis.variance,
        ]  # fmt: skip
        theta = self.theta_spec.pack(
            {
                "head": head,
                "weights": weights,
                "coefficients": (coefficients - basis.start) @ basis.back.T,
                "variances": variances,
                "log_constants": np.zeros(self.n_components),
            }
        )
        self._functions.derive(theta)
        return theta

    def params_of(self, theta: Array) -> Array:
        """Weights (all k), coefficients and variances, as `param_names`."""
        parts = self.components(theta)
        variances = parts["variances"][:1] if self.common_variance else parts["variances"]
        return np.concatenate([parts["weights"], parts["coefficients"].ravel(), variances])

    def theta_of(self, params: ArrayLike) -> Array:
        """Theta of parameters in the order of `param_names`: the inverse of `params_of`."""
        params, k, p = np.array(params, dtype=float), self.n_components, len(self.terms)
        variances = np.broadcast_to(params[k + k * p :], (k,))
        return self._pack(params[:k], params[k : k + k * p].reshape(k, p), variances)

    def _directions(self, theta: Array) -> Array:
        """Coefficients move along the orthonormal basis, by the residual standard deviation."""
        view, k, p = self.theta_spec.view(theta), self.n_components, len(self.terms)
        n = len(self.param_names)
        parts = [np.pad(part, (0, n - k)) for part in simplex_directions(view["weights"])]
        for c in range(k):
            first = k + c * p
            for column in self._basis.forward.T * np.sqrt(view["variances"][c]):
                parts.append(np.pad(column, (first, n - first - p)))
        for m, value in enumerate(view["variances"][: n - k - k * p]):
            first = k + k * p + m
            parts.append(np.pad([value], (first, n - first - 1)))
        return np.array(parts).T

    # Starts.

    def start(self, rng: np.random.Generator) -> Array:
        """Starting theta: random for "clusterwise" and "random", as given otherwise."""
        if self._given is not None:
            return self._given.copy()
        k, p = self.n_components, len(self.terms)
        records = self.values.reshape(-1, 2 + p)[self._some_rows(rng)]
        if self.init == "random":
            r = rng.dirichlet(np.ones(k), size=len(records))
        else:
            r = responsibilities(clusterwise(records[:, 2:], records[:, 1], k, rng), k)
        theta = self._pack(
            np.full(k, 1.0 / k),
            np.tile(self._basis.start, (k, 1)),
            np.full(k, self._basis.variance),
        )
        offsets = np.arange(len(records) + 1, dtype=np.int64) * (2 + p)
        return self._first_step(theta, records.ravel(), offsets, r)

    # Responses.

    def predict_response(self, theta: Array, X: Any = None) -> Array:
        """Mean response ``sum_c w_c x' beta_c`` of each row, of shape (n_rows,).

        Parameters
        ----------
        theta : ndarray of shape (theta_spec.size,)
        X : array_like or DataFrame, optional
            Covariates; the model's own by default.
        """
        parts = self.components(theta)
        return np.asarray(self._covariates(X) @ (parts["weights"] @ parts["coefficients"]))

    def _covariates(self, X: Any) -> Array:
        if X is None:
            rows = self.values.reshape(self.n_individuals, -1)
            return np.asarray(rows[:, 2:] @ self._basis.back)
        problems = Problems("X")
        x = self._design.covariates(X, problems)[0]
        problems.raise_if_any(DataError)
        return np.asarray(x)

    def sample(
        self, theta: Array, X: Any, rng: np.random.Generator
    ) -> tuple[Array, NDArray[np.intp]]:
        """Draw responses at covariates X (None: the model's own).

        Returns
        -------
        y : ndarray of shape (n_rows,)
        labels : ndarray of shape (n_rows,)
        """
        parts, x = self.components(theta), self._covariates(X)
        labels = rng.choice(self.n_components, size=len(x), p=parts["weights"])
        mean = np.einsum("np,np->n", x, parts["coefficients"][labels])
        return mean + np.sqrt(parts["variances"][labels]) * rng.standard_normal(len(x)), labels

    @staticmethod
    def simulate(
        rng: np.random.Generator,
        n: int = 1000,
        *,
        weights: ArrayLike = (0.4, 0.6),
        coefficients: ArrayLike = ((1.0, 2.0), (-1.0, -1.5)),
        variances: ArrayLike = (0.3, 0.6),
    ) -> tuple[Array, Array, NDArray[np.intp]]:
        """Simulate covariates N(0, 1) of shape (n, p - 1), responses, and components.

        The first coefficient of each component is its intercept.
        """
        beta = np.asarray(coefficients, dtype=float)
        labels = rng.choice(len(beta), size=n, p=np.asarray(weights, dtype=float))
        X = rng.standard_normal((n, beta.shape[1] - 1))
        mean = beta[labels, 0] + np.einsum("np,np->n", X, beta[labels, 1:])
        noise = np.sqrt(np.asarray(variances, dtype=float)[labels]) * rng.standard_normal(n)
        return X, mean + noise, labels

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> Self:
        """Small simulated instance that starts near the truth."""
        X, y, _ = cls.simulate(rng, n)
        start = {
            "weights": (0.45, 0.55),
            "coefficients": ((0.8, 1.8), (-0.8, -1.3)),
            "variances": (0.4, 0.5),
        }
        return cls(X, y, 2, init=start)

    def results(self, record: Any) -> RegressionMixtureResults:
        """Wrap the record of a fit."""
        from ._regression_results import RegressionMixtureResults

        return RegressionMixtureResults(self, record)
