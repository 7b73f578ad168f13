"""Mixtures of categories and of mixed columns as estimators."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.utils.validation import _num_samples, validate_data

from saem.contract import Array
from saem.exceptions import DataError, OptionError, SaemWarning
from saem.sklearn._columns import ColumnEstimator

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CategoricalMixture", "MixedMixture"]


class _Levels(ColumnEstimator):
    """Base of mixtures with categorical columns, whose levels are those of the fit."""

    handle_unknown: str

    def __sklearn_tags__(self) -> Any:
        """Tags of the estimator."""
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        return tags

    def _read(self, X: Any, *, reset: bool) -> pd.DataFrame:
        """Rows as a frame, categorical columns with the levels of the fit."""
        if self.handle_unknown not in ("warn", "error", "missing"):
            raise OptionError(
                f"handle_unknown={self.handle_unknown!r} is not one of 'warn', 'error', 'missing'."
            )
        frame = self._frame(X, reset)
        if reset:
            self._levels = self._levels_of(frame)
        return self._with_levels(frame)

    def _frame(self, X: Any, reset: bool) -> pd.DataFrame:
        import pandas as pd

        least = 2 if reset else 1
        if hasattr(X, "iloc") and hasattr(X, "columns"):
            validate_data(self, X, reset=reset, skip_check_array=True)
            if _num_samples(X) < least or not X.shape[1]:
                raise DataError(
                    f"Found array with {_num_samples(X)} sample(s) and {X.shape[1]} feature(s) "
                    f"while a minimum of {least} and 1 is required."
                )
            return X.set_axis(self._columns(X.shape[1]), axis=1)
        array = validate_data(
            self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan",
            ensure_min_samples=least,
        )  # fmt: skip
        if array.dtype.kind not in "OUS":
            return pd.DataFrame(array, columns=self._columns(array.shape[1]))
        try:  # of a dict and the like: a TypeError that says so
            return pd.DataFrame(array.astype(float), columns=self._columns(array.shape[1]))
        except ValueError:
            frame = pd.DataFrame(array.astype(object), columns=self._columns(array.shape[1]))
            return frame.infer_objects()

    def _columns(self, n: int) -> list[str]:
        if hasattr(self, "feature_names_in_"):
            return [str(name) for name in self.feature_names_in_]
        return [f"x{j}" for j in range(n)]

    @abstractmethod
    def _levels_of(self, frame: pd.DataFrame) -> dict[str, Any]:
        """Levels of the categorical columns."""

    def _with_levels(self, frame: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        frame = frame.copy(deep=False)
        for name, levels in self._levels.items():
            values = frame[name].astype(object)
            unknown = ~(values.isin(list(levels)) | values.isna())
            if unknown.any():
                self._report(name, values[unknown].iloc[0], len(levels))
            frame[name] = pd.Series(
                pd.Categorical(values.where(~unknown), categories=list(levels)), index=frame.index
            )
        return frame

    def _report(self, name: str, value: Any, n_levels: int) -> None:
        """Refuse a level that the fit did not see, or warn of it."""
        text = (
            f"column {name!r} holds {value!r}, which is not among the {n_levels} levels of the fit"
        )
        if self.handle_unknown == "error":
            raise DataError(f"{text}. Remedy: handle_unknown='missing', or declare all levels.")
        if self.handle_unknown == "warn":
            warnings.warn(
                f"{text}, and counts as missing. Remedy: handle_unknown='missing', or declare all "
                "levels.",
                SaemWarning,
                stacklevel=6,
            )

    def _named(self, X: Any) -> Any:
        return X


def _sorted_levels(values: pd.Series) -> list[Any]:
    from saem.models._mixture_columns import levels_of

    return list(levels_of(values))


class CategoricalMixture(_Levels):
    """Latent class analysis: mixture of independent categorical variables.

    Parameters
    ----------
    categories : "auto" or list of array_like
        Levels of each column. ``"auto"``: the values in the data of the fit (of the first
        chunk), or the categories that a pandas column declares.
    handle_unknown : {"warn", "missing", "error"}
        Whether other values count as missing, with or without a warning, or are refused.
    [column parameters]

    Attributes
    ----------
    categories_ : list of ndarray
        Levels of each column.
    weights_ : ndarray of shape (n_components,)
    probabilities_ : list of ndarray of shape (n_components, n_levels)
        One for each column.
    [run attributes]

    Examples
    --------
    >>> X = [["a", "x"], ["a", "x"], ["b", "y"], ["b", "y"], ["a", "y"], ["b", "z"]]
    >>> fitted = CategoricalMixture(2, random_state=0).fit(X)
    >>> fitted.categories_[1].tolist()
    ['x', 'y', 'z']
    """

    _model_class = "CategoricalMixture"

    def __init__(
        self,
        n_components: int = 1,
        *,
        categories: Any = "auto",
        handle_unknown: str = "warn",
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
        self.categories = categories
        self.handle_unknown = handle_unknown

    def _levels_of(self, frame: pd.DataFrame) -> dict[str, Any]:
        if isinstance(self.categories, str):
            if self.categories != "auto":
                raise OptionError(f"categories={self.categories!r} must be 'auto' or a list.")
            return {name: _sorted_levels(frame[name]) for name in frame.columns}
        if len(self.categories) != frame.shape[1]:
            raise OptionError(
                f"categories has {len(self.categories)} entries; X has {frame.shape[1]} columns."
            )
        return {
            name: list(np.asarray(levels).tolist())
            for name, levels in zip(frame.columns, self.categories, strict=True)
        }

    def _set_estimates(self, model: Any, theta: Array) -> None:
        parts = model.components(theta)
        self.weights_ = parts["weights"]
        self.categories_ = [np.array(model.levels[name]) for name in model.feature_names]
        self.probabilities_ = [parts["probabilities"][name] for name in model.feature_names]


class MixedMixture(_Levels):
    """Mixture of a table whose columns are of different families.

    Parameters
    ----------
    families : dict, optional
        Families of columns, by name (``"x0"``, ... for an array): ``"gaussian"``,
        ``"poisson"``, ``"bernoulli"``, ``"categorical"``, ``"exponential"``, ``"gamma"``, or,
        for a tuple of columns, ``"multinomial"``. Others are judged by their type: booleans
        are Bernoulli, integers of at least 0 Poisson, other numbers Gaussian, all else
        categorical.
    handle_unknown : {"warn", "missing", "error"}
        Whether levels that the fit did not see count as missing, with or without a warning, or
        are refused.
    [column parameters]

    Attributes
    ----------
    families_ : dict
        Family of each column (or group of columns).
    weights_ : ndarray of shape (n_components,)
    parameters_ : dict
        Parameters of each column, in a dict of arrays of shape (n_components, ...); see
        `saem.models.MixedMixture`.
    [run attributes]

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"x": [0.1, 0.2, 5.1, 5.3], "colour": ["red", "red", "blue", "red"]})
    >>> MixedMixture(1).fit(frame).families_
    {'x': 'gaussian', 'colour': 'categorical'}
    """

    _model_class = "MixedMixture"
    _estimates: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        n_components: int = 1,
        *,
        families: Mapping[Any, str] | None = None,
        handle_unknown: str = "warn",
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
        self.families = families
        self.handle_unknown = handle_unknown

    def _levels_of(self, frame: pd.DataFrame) -> dict[str, Any]:
        from saem.models._mixture_columns import infer_family

        given = dict(self.families or {})
        grouped = {str(m) for key in given if isinstance(key, tuple) for m in key}
        return {
            name: _sorted_levels(frame[name])
            for name in frame.columns
            if name not in grouped
            and given.get(name, None if name in given else infer_family(frame[name]))
            == "categorical"
        }

    def _options(self) -> dict[str, Any]:
        return {"families": self.families}

    def _set_estimates(self, model: Any, theta: Array) -> None:
        parts = model.components(theta)
        self.weights_ = parts.pop("weights")
        self.families_ = {column.name: column.family for column in model.columns}
        self.parameters_ = parts
