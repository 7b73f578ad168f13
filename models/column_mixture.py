"""Base of mixtures whose columns are independent given the component.

    p(x_i) = sum_c w_c prod_j f_j(x_ij; theta_jc)

with f_j Poisson, Bernoulli, categorical, multinomial, exponential, gamma or Gaussian.
Missing values (NaN) are left out of the product: they are taken as missing at random.
"""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import astuple
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem._jit import compiled
from saem._types import make_kernels
from saem.contract import Array
from saem.exceptions import DataError, ModelError, Problems
from saem.statistics import Packed

from . import _column_kernels as kernels
from . import _mixture_columns as reading
from ._checks import add_bad_weights
from ._column_checks import check_groups, check_table, prior_of, shifted
from ._column_given import KINDS, Block, blocks_of, directions_of, names_of, set_blocks
from ._column_start import coordinates, random_labels, responsibilities
from ._incomplete import read_weights
from ._mixture_base import RecordMixture
from ._mixture_columns import Column, Source
from ._mixture_options import check_alpha, check_components, check_init
from ._mixture_records import add_statistics

__all__ = ["ColumnMixture", "StackedMixture"]

_NAMES = ("expect", "draw", "classify", "accumulate", "maximize", "project", "surrogate")


class ColumnMixture(RecordMixture):
    """Mixture whose columns are independent given the component; base of the public ones.

    Parameters
    ----------
    X : array_like or DataFrame of shape (n, n_features)
        Rows; NaN (None, NA) where a value is missing.
    n_components : int
        Number of components k.
    weights : array_like of shape (n,), optional
        Weights of the rows, at least 0; ones by default. 2 is the same as the row twice.
    init : {"kmeans++", "random"} or dict
        How `start` finds its values. ``"kmeans++"``: k-means++ centres and at most 10
        steps of k-means on coordinates of about equal spread (square roots of counts,
        logarithms of positive values, indicators of levels) of at most 10 000 random rows.
        ``"random"``: random responsibilities of such rows, uniform on the simplex. Or
        values as a dict of the form of `components`.
    alpha : float
        Pseudo-rows per row, in each component, that are distributed as all data; above 0.
        They keep probabilities and rates from 0 and variances from collapsing, and
        matter at no more than this relative size. EM maximises the likelihood times this prior.

    Notes
    -----
    With ``s~ = s + alpha W prior`` in the place of s the M-step is the usual one: ``w_c = N_c / W``
    and maximum likelihood in each column (Dempster, Laird and Rubin 1977, section 4.3).
    """

    maximize_errors: ClassVar[dict[int, str]] = {
        kernels.EMPTY_COMPONENT: "a component has lost all its rows; use fewer components or "
        "another start",
        kernels.BAD_COLUMN: "the statistic of a column has left its range; raise alpha, or use "
        "fewer components",
    }
    _persisted: ClassVar[tuple[str, ...]] = (
        "n_components", "alpha", "feature_names", "columns", "_table", "row_weights",
        "_template", "init", "_given",
    )  # fmt: skip

    def __init__(
        self,
        X: Any,
        n_components: int,
        *,
        weights: ArrayLike | None = None,
        init: str | Mapping[str, Any] = "kmeans++",
        alpha: float = 1e-9,
    ) -> None:
        options = Problems("the mixture")
        check_components(n_components, options)
        check_alpha(alpha, options)
        check_init(init, options)
        options.raise_if_any(ModelError)
        problems = Problems("the mixture")
        source = reading.read_source(X, problems)
        problems.raise_if_any(DataError)
        assert source is not None
        self.n_components, self.alpha = int(n_components), float(alpha)
        self.feature_names = source.names
        self.columns = self._declare(source, problems)
        problems.raise_if_any(DataError)
        table = self._read(source, problems)
        self.columns = shifted(self.columns, table)
        checked = read_weights(weights, len(table), problems)
        check_table(self.columns, table, self.n_components, problems)
        problems.raise_if_any(DataError)
        self._set_layout()
        self._set_table(table, checked)
        self._set_template()
        self.init = init if isinstance(init, str) else "given"
        self._given = None if isinstance(init, str) else self._pack_given(init)

    def __init_subclass__(cls) -> None:
        """Put the common parameters into the docstring of a public class."""
        super().__init_subclass__()
        if cls.__doc__ and ColumnMixture.__doc__:
            common = inspect.cleandoc(ColumnMixture.__doc__).partition("\n\n")[2]
            cls.__doc__ = inspect.cleandoc(cls.__doc__).replace("[common parameters]", common)

    # What the public classes bring.

    @abstractmethod
    def _declare(self, source: Source, problems: Problems) -> list[Column]:
        """Columns with their families and levels."""

    @abstractmethod
    def _gather(self, blocks: list[Block]) -> dict[str, Any]:
        """Parameters of all columns, in the form of `components`."""

    @abstractmethod
    def _spread(self, given: Mapping[str, Any]) -> list[Block]:
        """Inverse of `_gather`; KeyError where a part is missing."""

    # Data.

    def _read(self, source: Source, problems: Problems) -> Array:
        """Numbers of all member columns, side by side."""
        at = {name: values for name, values in zip(source.names, source.columns, strict=True)}
        read = [
            reading.read_column(at[member], column, member, source.rows, problems)
            for column in self.columns
            for member in column.members
        ]
        problems.raise_if_any(DataError)
        table = np.stack(read, axis=1)
        check_groups(self.columns, table, source.rows, problems)
        problems.raise_if_any(DataError)
        return table

    def _set_layout(self) -> None:
        k = self.n_components
        self._firsts = np.cumsum([1, *(c.size for c in self.columns)]).tolist()
        q = self._firsts.pop() - 1
        self.theta_spec = Packed(
            sizes=(3,), alpha=(), columns=(len(self.columns), 3), prior=(1 + q,),
            weights=(k,), parameters=(q, k), natural=(1 + q, k),
        )  # fmt: skip
        self.stat_spec = Packed(counts=(k,), sums=(q, k))
        self.latent_size, self.work_size = k, 0
        names, self._named, self._added = names_of(self.columns, k)
        self.param_names = [f"weights[{c}]" for c in range(k)] + names
        per_component = sum(
            len(c.levels) - 1 if c.levels else c.size - 1 for c in self.columns
        )  # fmt: skip
        self.n_params = k - 1 + k * per_component
        functions = {name: compiled(getattr(kernels, name)) for name in _NAMES}
        self._functions = SimpleNamespace(**functions, refresh=compiled(kernels.refresh))
        self.kernels = make_kernels(**functions)

    def _set_table(self, table: Array, weights: Array) -> None:
        self._table = table
        values, offsets = reading.pairs_of(self.columns, self._firsts, table)
        self._set_rows(values, offsets, weights)

    def _set_template(self) -> None:
        """Theta in which each component has the distribution of all data."""
        k, q = self.n_components, self.stat_spec.shapes["sums"][0]
        n, prior, s = self.n_individuals, np.zeros(1 + q), np.zeros(1 + q)
        add_statistics(self._functions.accumulate, self.values, self.offsets, np.ones((n, 1)), s)
        for column, first in zip(self.columns, self._firsts, strict=True):
            here = slice(first, first + column.size)
            prior[here] = prior_of(column, n * s[here], n)
        self._template = self.theta_spec.pack(
            {
                "sizes": [k, len(self.columns), q],
                "alpha": self.alpha,
                "columns": [
                    [c.code, first, c.size]
                    for c, first in zip(self.columns, self._firsts, strict=True)
                ],
                "prior": prior,
                "weights": np.full(k, 1.0 / k),
                "parameters": np.zeros((q, k)),
                "natural": np.zeros((1 + q, k)),
            }
        )
        means = np.where(prior == -1.0, 0.0, prior)
        means[0] = 1.0
        code = self._functions.maximize(np.repeat(means, k) / k, self._template)
        assert code == 0, self.maximize_errors[code]

    def persist(self) -> dict[str, Any]:
        """Options and data for a fit file."""
        return super().persist() | {"columns": [astuple(column) for column in self.columns]}

    def _restored(self) -> None:
        columns: Any = self.columns  # as `persist` gave them
        self.columns = [Column(*parts) for parts in columns]
        self._set_layout()
        self._set_table(self._table, self.row_weights)

    def with_data(self, X: Any, weights: ArrayLike | None = None) -> Self:
        """Return the same model on other rows: same columns, levels, prior and theta layout.

        Parameters
        ----------
        X : array_like or DataFrame of shape (n_rows, n_features)
        weights : array_like of shape (n_rows,), optional

        Raises
        ------
        DataError
            If a row breaks a rule of its column, or has a level that the model does not know.
        """
        problems = Problems("X")
        table = self._new_table(X, problems)
        checked = read_weights(weights, len(table), problems)
        problems.raise_if_any(DataError)
        other = copy.copy(self)
        other._set_table(table, checked)
        return other

    def _new_table(self, X: Any, problems: Problems) -> Array:
        source = reading.read_source(X, problems, self.feature_names)
        problems.raise_if_any(DataError)
        assert source is not None
        return self._read(source, problems)

    def _records(self, X: Any) -> tuple[Array, NDArray[np.int64]]:
        return reading.pairs_of(self.columns, self._firsts, self._new_table(X, Problems("X")))

    # Parameters.

    def components(self, theta: Array) -> dict[str, Any]:
        """Weights of shape (k,), and the parameters of the components.

        Parameters
        ----------
        theta : ndarray of shape (theta_spec.size,)

        Returns
        -------
        dict
            ``weights`` and what the class says.
        """
        view = self.theta_spec.view(theta)
        blocks = blocks_of(self.columns, self._firsts, view["parameters"])
        return {"weights": view["weights"].copy()} | self._gather(blocks)

    def pack_components(self, *, weights: ArrayLike, **parameters: Any) -> Array:
        """Theta from what `components` returns.

        Raises
        ------
        ModelError
            If a value has the wrong shape or is out of its range.
        """
        return self._pack_given({"weights": weights, **parameters})

    def _pack_given(self, given: Mapping[str, Any]) -> Array:
        problems = Problems("the starting values")
        theta = self._template.copy()
        view = self.theta_spec.view(theta)
        expected = set(self.components(theta))
        if set(given) != expected:
            problems.add(
                f"they have the keys {sorted(map(str, given))}; they need {sorted(expected)}"
            )
            problems.raise_if_any(ModelError)
        weights = np.array(given["weights"], dtype=float)
        if weights.shape != (self.n_components,) or not np.all(np.isfinite(weights)):
            problems.add(f"weights must be {self.n_components} finite numbers")
        else:
            add_bad_weights(weights, problems)
            view["weights"][:] = weights / weights.sum()
        try:
            blocks = self._spread(given)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            problems.add(f"the parameters are not of the form of `components`: {error}")
        else:
            set_blocks(self.columns, self._firsts, view["parameters"], blocks, problems)
        problems.raise_if_any(ModelError)
        self._functions.refresh(np.empty(0), theta)
        return theta

    def params_of(self, theta: Array) -> Array:
        """Weights (all k) and parameters, as `param_names`."""
        view = self.theta_spec.view(theta)
        named = view["parameters"].ravel()[self._named] + self._added
        return np.concatenate([view["weights"], named])

    # Starts.

    def start(self, rng: np.random.Generator) -> Array:
        """Starting theta: random for "kmeans++" and "random", as given otherwise."""
        if self._given is not None:
            return self._given.copy()
        table = self._table[self._some_rows(rng)]
        records = reading.pairs_of(self.columns, self._firsts, table)
        latents = self._random_responsibilities(table, rng)
        return self._first_step(self._template.copy(), *records, latents)

    def _random_responsibilities(self, table: Array, rng: np.random.Generator) -> Array:
        k = self.n_components
        if self.init == "random":
            return rng.dirichlet(np.ones(k), size=len(table))
        return responsibilities(random_labels(coordinates(self.columns, table), k, rng), k)

    # Standard errors.

    def theta_of(self, params: ArrayLike) -> Array:
        """Theta of parameters in the order of `param_names`: the inverse of `params_of`."""
        params, k = np.asarray(params, dtype=float), self.n_components
        theta = self._template.copy()
        view = self.theta_spec.view(theta)
        view["weights"][:] = params[:k]
        view["parameters"].ravel()[self._named] = params[k:] - self._added
        for column, first in zip(self.columns, self._firsts, strict=True):
            if column.family == "bernoulli":
                view["parameters"][first - 1] = 1.0 - view["parameters"][first]
        self._functions.refresh(np.empty(0), theta)
        return theta

    def _directions(self, theta: Array) -> Array:
        view = self.theta_spec.view(theta)
        return directions_of(
            self.columns, self._firsts, self._named, view["weights"], view["parameters"]
        )

    # Samples.

    def sample(
        self, theta: Array, n: int, rng: np.random.Generator
    ) -> tuple[Any, NDArray[np.intp]]:
        """Draw rows from the fitted mixture.

        Returns
        -------
        X : ndarray or DataFrame of shape (n, n_features)
            A DataFrame where columns may differ in kind.
        labels : ndarray of shape (n,)
        """
        from ._column_sample import sample_column

        view = self.theta_spec.view(theta)
        labels = rng.choice(self.n_components, size=n, p=view["weights"] / view["weights"].sum())
        drawn: dict[str, Any] = {}
        for column, first in zip(self.columns, self._firsts, strict=True):
            raw = view["parameters"][first - 1 : first - 1 + column.size]
            drawn |= sample_column(column, raw, labels, self._totals(column, n, rng), rng)
        return self._as_table(drawn), labels

    def _totals(self, column: Column, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Totals of multinomial rows: drawn from those of the data."""
        if column.family != "multinomial":
            return np.ones(n, dtype=np.int64)
        at = [self._members.index(m) for m in column.members]
        totals = self._table[:, at].sum(axis=1)
        return rng.choice(totals[~np.isnan(totals)], size=n).astype(np.int64)

    @property
    def _members(self) -> list[str]:
        return [m for column in self.columns for m in column.members]

    def _as_table(self, drawn: dict[str, Any]) -> Any:
        """Rows in the form that a user would give them."""
        import pandas as pd

        return pd.DataFrame({name: drawn[name] for name in self.feature_names})


class StackedMixture(ColumnMixture):
    """Mixture whose columns are all of one family; base of the public ones."""

    family: ClassVar[str]

    def _declare(self, source: Source, problems: Problems) -> list[Column]:
        return [Column(name, self.family, (name,)) for name in source.names]

    def _gather(self, blocks: list[Block]) -> dict[str, Any]:
        return {kind: np.stack([b[kind] for b in blocks], axis=1) for kind in blocks[0]}

    def _spread(self, given: Mapping[str, Any]) -> list[Block]:
        kinds = KINDS[self.family]
        arrays = {kind: np.asarray(given[kind], dtype=float) for kind in kinds}
        for kind, array in arrays.items():
            if array.shape != (self.n_components, len(self.columns)):
                shape = self.n_components, len(self.columns)
                raise ValueError(f"{kind} have shape {array.shape}; they must have shape {shape}")
        return [{kind: arrays[kind][:, j] for kind in kinds} for j in range(len(self.columns))]

    def _as_table(self, drawn: dict[str, Any]) -> Any:
        return np.stack([drawn[name] for name in self.feature_names], axis=1)
