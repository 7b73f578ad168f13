"""What the estimators share: reading, fitting, streams, pickling."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from saem.contract import Array, Model
from saem.exceptions import DataError, OptionError, Problems
from saem.sklearn._fitting import best_run, check_run_options, seeds_of
from saem.streaming import Stream

__all__ = ["Estimator", "RowEstimator", "rebuilt", "stored"]

_RUN_PARAMETERS = """tol : float
    EM stops when an iteration changes the mean log-likelihood of a row by less than this
    (scikit-learn's rule); accelerated EM when less than this is left to gain per row.
    Other algorithms do not use it.
max_iter : int
    At most so many iterations of EM, or passes over the rows.
n_init : int
    Number of starts; the fit with the largest log-likelihood is kept.
random_state : int, RandomState instance or None
    Of starts, of stochastic algorithms, and of samples.
algorithm : str or Algorithm
    Name (`saem.algorithms.algorithms`) or object such as ``saem.FIEM(batch_size=256)``. With
    an object its own lengths and tolerances hold, not `max_iter` and `tol`.
batch_size : int
    Rows per step of `partial_fit`."""

_RUN_ATTRIBUTES = """converged_ : bool
    Whether the fit met its rule, or came to its own end.
n_iter_ : int
    Iterations of the best run.
lower_bound_ : float
    Mean log-likelihood of a row at the estimates (scikit-learn: before the last M-step).
lower_bounds_ : ndarray of shape (n_iter_,)
    Mean log-likelihood before each M-step; NaN where the algorithm does not compute it.
results_ : Results
    Results of the fit, with summary and standard errors. They hold the data, and are left out
    when the estimator is pickled.
n_features_in_ : int
feature_names_in_ : ndarray of shape (n_features_in_,)
    Where X has column names that are text."""


_DOCS = {"[run parameters]": _RUN_PARAMETERS, "[run attributes]": _RUN_ATTRIBUTES}


class Estimator(BaseEstimator, ABC):
    """Base of the estimators.

    Parameters of the class stand in the constructors of the subclasses; those that say how to
    run are read here: `algorithm`, `tol`, `max_iter`, `n_init`, `random_state`, `batch_size`.
    """

    #: Text for the marks in the docstrings of subclasses.
    _docs: ClassVar[dict[str, str]] = {}
    _allow_nan: ClassVar[bool] = True
    #: Whether negative values are refused.
    _positive: ClassVar[bool] = False
    _min_features: ClassVar[int] = 1
    _model: Any
    _theta: Array
    _stream: Stream | None

    def __init_subclass__(cls, **options: Any) -> None:
        """Put what is common into the docstring of a public class."""
        super().__init_subclass__(**options)
        if not cls.__doc__:
            return
        text = inspect.cleandoc(cls.__doc__)
        for mark, common in (cls._docs | _DOCS).items():
            text = text.replace(mark, common)
        cls.__doc__ = text

    def __sklearn_tags__(self) -> Any:
        """Tags of the estimator."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self._allow_nan
        tags.input_tags.positive_only = self._positive
        return tags

    # What an estimator brings.

    @abstractmethod
    def _make(self, data: Any, weights: Array | None, *, stream: bool) -> Model:
        """Model of checked data; one that takes any later chunk for a stream."""

    @abstractmethod
    def _set_estimates(self, model: Any, theta: Array) -> None:
        """Set the estimates as attributes."""

    def _start(self, model: Any, rng: np.random.Generator) -> Array:
        """Packed parameters to start from."""
        start: Array = model.start(rng)
        return start

    # Reading.

    def _read(self, X: Any, *, reset: bool) -> Any:
        """Rows as checked numbers, of shape (n, n_features)."""
        X = validate_data(
            self,
            X,
            reset=reset,
            dtype=np.float64,
            ensure_all_finite="allow-nan" if self._allow_nan else True,
            ensure_min_samples=2 if reset else 1,
            ensure_min_features=self._min_features if reset else 1,
        )
        if self._positive:
            self._refuse_negative(X)
        return X

    def _refuse_negative(self, X: Array) -> None:
        with np.errstate(invalid="ignore"):
            rows = np.flatnonzero((X < 0.0).any(axis=1))
        if rows.size:
            raise DataError(
                f"Negative values in data passed to {type(self).__name__}, the first in row "
                f"{rows[0]}; all must be at least 0."
            )

    def _named(self, X: Array) -> Any:
        """Rows with the names of their columns, where there are names."""
        if not hasattr(self, "feature_names_in_"):
            return X
        import pandas as pd

        return pd.DataFrame(X, columns=self.feature_names_in_, copy=False)

    def _weights(self, sample_weight: Any, X: Any) -> Array | None:
        if sample_weight is None:
            return None
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
        if np.any(weights < 0.0):
            raise DataError(f"sample_weight[{np.argmin(weights)}] is negative; it must not be.")
        if not weights.any():
            raise DataError("sample_weight is zero for every row: one weight must be above 0.")
        return weights

    def _check_options(self) -> None:
        problems = Problems(f"the options of {type(self).__name__}")
        check_run_options(self, problems)
        problems.raise_if_any(OptionError)

    # Fitting.

    def _fit(self, data: Any, weights: Array | None, n: int, *, stream: bool = False) -> Self:
        """Fit checked data of n rows."""
        self._check_options()
        model = self._make(data, weights, stream=stream)
        total = float(n if weights is None else weights.sum())
        results = best_run(self, model, total, self._start)
        record = results.record
        self._results, self._model, self._theta = results, model, record.theta
        self._stream = None
        self.converged_, self.n_iter_ = bool(record.converged), int(record.n_iter)
        self.lower_bounds_ = np.asarray(record.history.loglik, dtype=float)[1:] / total
        self.lower_bound_ = self._mean_loglik(total)
        self._set_estimates(model, self._theta)
        return self

    def _mean_loglik(self, total: float) -> float:
        return float(self._model.loglik(self._theta)) / total

    def _partial_fit(self, data: Any, n: int) -> Self:
        """Fit the first chunk; take others in by online EM."""
        stream = getattr(self, "_stream", None)
        if stream is None:
            self._fit(data, None, n, stream=True)
            self._stream = Stream(
                self._model, batch_size=self.batch_size, start=self._theta,
                seed=seeds_of(self.random_state, 1)[0],
            )  # fmt: skip
            self.n_samples_seen_ = n
            return self
        stream.partial_fit(data)
        self._theta = stream.averaged
        self.n_samples_seen_ += n
        self.n_iter_ += 1
        self._results = None
        self._set_estimates(self._model, self._theta)
        return self

    @property
    def _first_chunk(self) -> bool:
        return getattr(self, "_stream", None) is None

    # State.

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there are estimates."""
        return hasattr(self, "_theta")

    def _check_fitted(self) -> None:
        check_is_fitted(self)

    @property
    def results_(self) -> Any:
        """Results of the fit, with summary and standard errors."""
        self._check_fitted()
        results = getattr(self, "_results", None)
        if results is None:
            raise AttributeError(
                "results_ hold the data of one fit: they do not outlive a pickle, and a stream has "
                "none. Remedy: fit again."
            )
        return results

    def _slim(self, model: Any) -> Any:
        """The same model on one row, for a pickle without the data."""
        return model.with_data(self._one_row(model))

    def _one_row(self, model: Any) -> Any:
        return np.ones((1, model.n_features))

    def __getstate__(self) -> dict[str, Any]:
        """State for a pickle: models as declarations, without data and results."""
        state = dict(super().__getstate__())
        if "_model" not in state:
            return state
        state["_results"] = None
        stream, model = state.get("_stream"), state["_model"]
        # A stream is made again from the rows of its first chunk.
        state["_model"] = stored(self._slim(model) if stream is None else model)
        if stream is not None:
            state["_stream"] = stream.state_dict()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the models again."""
        state = dict(state)
        if "_model" in state:
            state["_theta"] = np.array(state["_theta"])  # a memory map is read-only
            state["_model"] = model = rebuilt(state["_model"])
            kept = state.get("_stream")
            if kept is not None:
                stream = Stream(model, batch_size=state["batch_size"], start=state["_theta"])
                stream.load_state_dict(kept)
                state["_stream"] = stream
        super().__setstate__(state)


class RowEstimator(Estimator):
    """Base of estimators whose data are rows without responses, with a density."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Estimate the parameters.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            NaN where a value is missing (at random), if the model takes missing values.
        y : None
            Not used.
        sample_weight : array_like of shape (n_samples,), optional
            At least 0. A weight of 2 is the same as the row standing there twice.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            With all that is wrong with data and options.
        RuntimeError
            If every run failed, such as by a component that lost its rows.
        """
        rows = self._read(X, reset=True)
        return self._fit(rows, self._weights(sample_weight, rows), len(rows))

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Take in a chunk of rows: the first is fitted, others move the estimates by online EM.

        The estimates are those of the averaged statistic (`saem.Stream`). The first chunk
        should hold some tens of rows for each component. `algorithm` is that of the first
        chunk.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
        y : None
            Not used.

        Returns
        -------
        self
        """
        rows = self._read(X, reset=self._first_chunk)
        return self._partial_fit(rows, len(rows))

    def score_samples(self, X: Any) -> Array:
        """Log-likelihood of the observed values of each row, of shape (n_samples,)."""
        self._check_fitted()
        log_lik: Array = self._model.score_samples(self._theta, self._read(X, reset=False))
        return log_lik

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-likelihood of a row."""
        return float(self.score_samples(X).mean())


def stored(model: Any) -> tuple[type, dict[str, Any]]:
    """Declaration of a model that can be pickled."""
    return type(model), model.persist()


def rebuilt(declaration: tuple[Any, dict[str, Any]]) -> Any:
    """Model of a declaration from `stored`."""
    cls, state = declaration
    state = _writable(state)
    return cls.rebuild(state) if hasattr(cls, "rebuild") else cls(**state)


def _writable(value: Any) -> Any:
    """Copies of arrays, which a memory map would leave read-only."""
    if isinstance(value, dict):
        return {name: _writable(part) for name, part in value.items()}
    return np.array(value) if isinstance(value, np.ndarray) else value
