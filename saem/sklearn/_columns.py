"""Mixtures of counts, binary and positive variables as estimators."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from saem import models
from saem.contract import Array, Model
from saem.exceptions import DataError, OptionError, Problems, SaemWarning
from saem.models.column_mixture import ColumnMixture
from saem.sklearn._mixture import Mixture, named_start

if TYPE_CHECKING:
    from saem.models._mixture_columns import Source

__all__ = [
    "STARTS",
    "BernoulliMixture",
    "ColumnEstimator",
    "ExponentialMixture",
    "GammaMixture",
    "MultinomialMixture",
    "PoissonMixture",
]

STARTS = {"kmeans": "kmeans++", "random": "random"}

_COMMON = """n_components : int
init_params : {"kmeans", "random"} or dict
    k-means++ centres and at most 10 steps of k-means on coordinates of about equal spread;
    random responsibilities, uniform on the simplex; or values in the form of the model's
    ``components``.
alpha : float
    Pseudo-rows per row, in each component, that are distributed as all data; above 0. They
    keep probabilities from 0 and variances from collapsing.
[run parameters]"""


_FRACTIONS = """fractions : {"warn", "error"}
    What to do where the data of the fit hold values that are not whole numbers: warn and use
    the quasi-likelihood, the same function of the values; or refuse them."""


class ColumnEstimator(Mixture):
    """Base of mixtures whose columns are independent given the component; NaN is missing."""

    _docs: ClassVar[dict[str, str]] = {"[column parameters]": _COMMON, "[fractions]": _FRACTIONS}
    _model_class: ClassVar[str]
    #: Attributes of the estimates and their names in `components`.
    _estimates: ClassVar[dict[str, str]]
    #: Whether values must be whole numbers.
    _counts: ClassVar[bool] = False

    def __init__(
        self,
        n_components: int = 1,
        *,
        init_params: Any = "kmeans",
        alpha: float = 1e-9,
        tol: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        random_state: Any = None,
        algorithm: Any = "em",
        batch_size: int = 64,
    ) -> None:
        self.n_components = n_components
        self.init_params = init_params
        self.alpha = alpha
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.random_state = random_state
        self.algorithm = algorithm
        self.batch_size = batch_size

    def __sklearn_tags__(self) -> Any:
        """Tags; scikit-learn has none for counts, and whole numbers are what "categorical" says."""
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = self._counts
        return tags

    def _make(self, data: Any, weights: Array | None, *, stream: bool) -> Model:
        model: Model = self._model_type()(
            self._named(data), self.n_components, weights=weights, alpha=self.alpha,
            init=named_start(self.init_params, STARTS), **self._options(),
        )  # fmt: skip
        return model

    def _model_type(self) -> Any:
        """Class of the model."""
        return getattr(models, self._model_class)

    def _options(self) -> dict[str, Any]:
        """Further options of the model."""
        return {}

    def _one_row(self, model: Any) -> Any:
        return model._as_table(
            {m: [1.0 if c.family == "multinomial" or not c.levels else c.levels[0]]
             for c in model.columns for m in c.members}
        )  # fmt: skip

    def _set_estimates(self, model: Any, theta: Array) -> None:
        parts = model.components(theta)
        self.weights_ = parts["weights"]
        for attribute, name in self._estimates.items():
            setattr(self, attribute, parts[name])


class _AnyCounts(ColumnMixture):
    """Reads numbers of at least 0 as counts, whole or not."""

    def _read(self, source: Source, problems: Problems) -> Array:
        other = copy.copy(self)
        other.columns = [replace(column, family="exponential") for column in self.columns]
        return super(_AnyCounts, other)._read(source, problems)


class QuasiPoisson(_AnyCounts, models.PoissonMixture):
    """Poisson mixture of fractional counts, by its quasi-likelihood."""


class QuasiMultinomial(_AnyCounts, models.MultinomialMixture):
    """Multinomial mixture of fractional counts, by its quasi-likelihood."""


_ANY_COUNTS = {"PoissonMixture": QuasiPoisson, "MultinomialMixture": QuasiMultinomial}


class CountMixture(ColumnEstimator):
    """Base of the mixtures of counts."""

    _positive = True
    _counts = True

    def __init__(
        self,
        n_components: int = 1,
        *,
        fractions: str = "warn",
        init_params: Any = "kmeans",
        alpha: float = 1e-9,
        tol: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        random_state: Any = None,
        algorithm: Any = "em",
        batch_size: int = 64,
    ) -> None:
        super().__init__(
            n_components, init_params=init_params, alpha=alpha, tol=tol, max_iter=max_iter,
            n_init=n_init, random_state=random_state, algorithm=algorithm, batch_size=batch_size,
        )  # fmt: skip
        self.fractions = fractions

    def _read(self, X: Any, *, reset: bool) -> Array:
        if self.fractions not in ("warn", "error"):
            raise OptionError(f"fractions={self.fractions!r} is not one of 'warn', 'error'.")
        rows: Array = super()._read(X, reset=reset)
        if reset:
            with np.errstate(invalid="ignore"):
                fractional = np.any(np.abs(rows - np.floor(rows)) > 0.0)  # false for NaN
            self._whole = self.fractions == "error" or not fractional
            if not self._whole:
                warnings.warn(
                    "X holds values that are not whole numbers; they count as they are, by the "
                    "quasi-likelihood. Remedy: give raw counts; fractions='error' refuses others.",
                    SaemWarning,
                    stacklevel=4,
                )
        return rows

    def _model_type(self) -> Any:
        return super()._model_type() if self._whole else _ANY_COUNTS[self._model_class]


class PoissonMixture(CountMixture):
    """Mixture of independent Poisson counts.

    Parameters
    ----------
    [fractions]
    [column parameters]

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    rates_ : ndarray of shape (n_components, n_features)
    [run attributes]

    Examples
    --------
    >>> X = [[0], [1], [0], [1], [9], [8], [11], [9]]
    >>> fitted = PoissonMixture(2, random_state=0).fit(X)
    >>> sorted(fitted.rates_.ravel().round(1).tolist())
    [0.5, 9.2]
    """

    _model_class = "PoissonMixture"
    _estimates: ClassVar[dict[str, str]] = {"rates_": "rates"}


class MultinomialMixture(CountMixture):
    """Mixture of multinomial rows of counts; the total of a row is taken as given.

    Parameters
    ----------
    [fractions]
    [column parameters]

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    probabilities_ : ndarray of shape (n_components, n_features)
    [run attributes]

    Examples
    --------
    >>> X = [[5, 1, 0], [4, 2, 0], [0, 1, 6], [1, 0, 5]]
    >>> MultinomialMixture(2, random_state=0).fit(X).probabilities_.shape
    (2, 3)
    """

    _model_class = "MultinomialMixture"
    _estimates: ClassVar[dict[str, str]] = {"probabilities_": "probabilities"}
    _allow_nan = False  # without one count the total is not known

    def _slim(self, model: Any) -> Any:
        return model  # samples draw their totals from the data


class ExponentialMixture(ColumnEstimator):
    """Mixture of independent exponential variables.

    Parameters
    ----------
    [column parameters]

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    scales_ : ndarray of shape (n_components, n_features)
        Means.
    [run attributes]

    Examples
    --------
    >>> X = [[0.1], [0.2], [0.1], [7.0], [9.0], [4.0]]
    >>> ExponentialMixture(2, random_state=0).fit(X).scales_.shape
    (2, 1)
    """

    _model_class = "ExponentialMixture"
    _estimates: ClassVar[dict[str, str]] = {"scales_": "scales"}
    _positive = True


class GammaMixture(ColumnEstimator):
    """Mixture of independent gamma variables.

    Parameters
    ----------
    zeros : {"half", "raise"}
        A gamma variable is never 0. ``"half"``: zeros are taken for rounded values, and count
        as half the smallest positive value that their column has in the data of the fit, with
        a warning. ``"raise"``: they are refused.
    [column parameters]

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    shapes_, scales_ : ndarray of shape (n_components, n_features)
        The mean is shape times scale.
    zero_values_ : ndarray of shape (n_features,)
        What zeros count as.
    [run attributes]

    Examples
    --------
    >>> X = [[0.1], [0.2], [0.15], [7.0], [9.0], [8.0]]
    >>> GammaMixture(2, random_state=0).fit(X).shapes_.shape
    (2, 1)
    """

    _model_class = "GammaMixture"
    _estimates: ClassVar[dict[str, str]] = {"shapes_": "shapes", "scales_": "scales"}
    _positive = True

    def __init__(
        self,
        n_components: int = 1,
        *,
        zeros: str = "half",
        init_params: Any = "kmeans",
        alpha: float = 1e-9,
        tol: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        random_state: Any = None,
        algorithm: Any = "em",
        batch_size: int = 64,
    ) -> None:
        super().__init__(
            n_components, init_params=init_params, alpha=alpha, tol=tol, max_iter=max_iter,
            n_init=n_init, random_state=random_state, algorithm=algorithm, batch_size=batch_size,
        )  # fmt: skip
        self.zeros = zeros

    def _read(self, X: Any, *, reset: bool) -> Array:
        if self.zeros not in ("half", "raise"):
            raise OptionError(f"zeros={self.zeros!r} is not one of 'half', 'raise'.")
        rows: Array = super()._read(X, reset=reset)
        if reset:
            least = np.where(rows > 0.0, rows, np.inf).min(axis=0)
            self.zero_values_ = 0.5 * np.where(np.isfinite(least), least, np.nan)
        zero = rows == 0.0
        if not zero.any():
            return rows
        if self.zeros == "raise":
            raise DataError(
                f"X holds {zero.sum()} zeros; a gamma variable is above 0. Remedy: zeros='half'."
            )
        warnings.warn(
            f"{zero.sum()} zeros count as half the smallest positive value of their column, since "
            "a gamma variable is above 0.",
            SaemWarning,
            stacklevel=4,
        )
        return np.where(zero, self.zero_values_, rows)


class BernoulliMixture(ColumnEstimator):
    """Mixture of independent binary variables.

    Parameters
    ----------
    binarize : float or None
        Values above it are 1, others 0, as for `sklearn.naive_bayes.BernoulliNB`. With None
        X must hold zeros and ones.
    [column parameters]

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    probabilities_ : ndarray of shape (n_components, n_features)
        Of the value 1.
    [run attributes]

    Examples
    --------
    >>> X = [[1, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    >>> BernoulliMixture(2, random_state=0).fit(X).probabilities_.shape
    (2, 3)
    """

    _model_class = "BernoulliMixture"
    _estimates: ClassVar[dict[str, str]] = {"probabilities_": "probabilities"}

    def __init__(
        self,
        n_components: int = 1,
        *,
        binarize: float | None = 0.0,
        init_params: Any = "kmeans",
        alpha: float = 1e-9,
        tol: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 1,
        random_state: Any = None,
        algorithm: Any = "em",
        batch_size: int = 64,
    ) -> None:
        super().__init__(
            n_components, init_params=init_params, alpha=alpha, tol=tol, max_iter=max_iter,
            n_init=n_init, random_state=random_state, algorithm=algorithm, batch_size=batch_size,
        )  # fmt: skip
        self.binarize = binarize

    def _read(self, X: Any, *, reset: bool) -> Array:
        rows: Array = super()._read(X, reset=reset)
        if self.binarize is None:
            return rows
        return np.where(np.isnan(rows), rows, (rows > self.binarize).astype(float))
