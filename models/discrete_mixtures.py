"""Mixtures of counts, binary variables and categories.

Columns are independent given the component; categories are latent class analysis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem.contract import Array
from saem.exceptions import Problems

from ._column_given import Block
from ._mixture_columns import Column, Source, levels_of
from .column_mixture import ColumnMixture, StackedMixture

__all__ = ["BernoulliMixture", "CategoricalMixture", "MultinomialMixture", "PoissonMixture"]


class PoissonMixture(StackedMixture):
    """Mixture of independent Poisson counts.

    `components` has ``weights`` (k,) and ``rates`` (k, n_features).

    ``p(x) = sum_c w_c prod_j Poisson(x_j; lambda_cj)``; with responsibilities r the M-step is
    ``lambda_cj = sum_i r_ic x_ij / sum_i r_ic``.

    [common parameters]

    References
    ----------
    McLachlan, G. J. and Peel, D. (2000). Finite Mixture Models. Wiley.

    Examples
    --------
    >>> model = PoissonMixture([[0], [1], [0], [1], [9], [8], [11], [9]], 2)
    >>> rates = model.fit("em", seed=0).rates
    >>> [round(float(rate), 1) for rate in sorted(rates[:, 0])]
    [0.5, 9.2]
    """

    name: ClassVar[str] = "Poisson mixture"
    family: ClassVar[str] = "poisson"

    @staticmethod
    def simulate(
        rng: np.random.Generator,
        n: int = 1000,
        *,
        weights: ArrayLike = (0.4, 0.6),
        rates: ArrayLike = ((1.0, 6.0, 2.0), (5.0, 2.0, 8.0)),
    ) -> tuple[Array, NDArray[np.intp]]:
        """Simulate rows of shape (n, n_features), and their components."""
        rates = np.asarray(rates, dtype=float)
        labels = rng.choice(len(rates), size=n, p=np.asarray(weights, dtype=float))
        return rng.poisson(rates[labels]).astype(float), labels

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> Self:
        """Small simulated instance that starts near the truth."""
        start = {"weights": (0.45, 0.55), "rates": ((1.2, 5.5, 2.2), (4.5, 2.2, 7.5))}
        return cls(cls.simulate(rng, n)[0], 2, init=start)


class BernoulliMixture(StackedMixture):
    """Mixture of independent binary variables.

    `components` has ``weights`` (k,) and ``probabilities`` (k, n_features) of the value 1.

    ``P(x) = sum_c w_c prod_j p_cj^x_j (1 - p_cj)^(1 - x_j)``; with responsibilities r the M-step
    is ``p_cj = sum_i r_ic x_ij / sum_i r_ic``.

    [common parameters]

    References
    ----------
    Bishop, C. M. (2006). Pattern Recognition and Machine Learning. Springer, section 9.3.3.

    Examples
    --------
    >>> X = [[1, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    >>> model = BernoulliMixture(X, 2)
    >>> model.n_params
    7
    """

    name: ClassVar[str] = "Bernoulli mixture"
    family: ClassVar[str] = "bernoulli"

    def _declare(self, source: Source, problems: Problems) -> list[Column]:
        return [Column(name, "bernoulli", (name,), (0, 1)) for name in source.names]

    @staticmethod
    def simulate(
        rng: np.random.Generator,
        n: int = 1000,
        *,
        weights: ArrayLike = (0.4, 0.6),
        probabilities: ArrayLike = ((0.9, 0.8, 0.85, 0.2, 0.7), (0.2, 0.1, 0.3, 0.7, 0.15)),
    ) -> tuple[Array, NDArray[np.intp]]:
        """Simulate rows of shape (n, n_features), and their components."""
        p = np.asarray(probabilities, dtype=float)
        labels = rng.choice(len(p), size=n, p=np.asarray(weights, dtype=float))
        return (rng.random((n, p.shape[1])) < p[labels]).astype(float), labels

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> Self:
        """Small simulated instance that starts near the truth."""
        high, low = np.full(10, 0.75), np.full(10, 0.25)  # far from 0 and 1
        X, _ = cls.simulate(rng, n, probabilities=(high, low))
        start = {"weights": (0.45, 0.55), "probabilities": (high - 0.05, low + 0.05)}
        return cls(X, 2, init=start)


class CategoricalMixture(ColumnMixture):
    """Latent class analysis: mixture of independent categorical variables.

    `components` has ``weights`` (k,) and ``probabilities``, a dict from column to an
    array (k, n_levels) in the order of ``levels[column]``. Levels are the values of a
    column in order, or the categories declared in a pandas column. `sample` gives a
    DataFrame of such values.

    ``P(x) = sum_c w_c prod_j p_cj[x_j]``; with responsibilities r the M-step is ``p_cj[l] = sum_i
    r_ic 1(x_ij = l) / sum_i r_ic``.

    [common parameters]

    Attributes
    ----------
    levels : dict
        Levels of each column.

    References
    ----------
    Goodman, L. A. (1974). Exploratory latent structure analysis using both identifiable
    and unidentifiable models. Biometrika 61, 215-231.

    Examples
    --------
    >>> X = [["a", "x"], ["a", "x"], ["b", "y"], ["b", "y"], ["a", "y"], ["b", "z"]]
    >>> model = CategoricalMixture(X, 2)
    >>> model.levels["x1"]
    ('x', 'y', 'z')
    """

    name: ClassVar[str] = "latent class model"

    def _declare(self, source: Source, problems: Problems) -> list[Column]:
        return [
            Column(name, "categorical", (name,), levels_of(values))
            for name, values in zip(source.names, source.columns, strict=True)
        ]

    @property
    def levels(self) -> dict[str, tuple[Any, ...]]:
        """Levels of each column."""
        return {column.name: column.levels for column in self.columns}

    def _gather(self, blocks: list[Block]) -> dict[str, Any]:
        pairs = zip(self.columns, blocks, strict=True)
        return {"probabilities": {c.name: block["probabilities"] for c, block in pairs}}

    def _spread(self, given: Mapping[str, Any]) -> list[Block]:
        return [{"probabilities": given["probabilities"][c.name]} for c in self.columns]

    @staticmethod
    def simulate(
        rng: np.random.Generator,
        n: int = 1000,
        *,
        weights: ArrayLike = (0.4, 0.6),
        probabilities: Any = (
            ((0.7, 0.2, 0.1), (0.1, 0.3, 0.6)),
            ((0.8, 0.2), (0.3, 0.7)),
            ((0.6, 0.2, 0.1, 0.1), (0.1, 0.1, 0.2, 0.6)),
        ),
    ) -> tuple[Array, NDArray[np.intp]]:
        """Simulate codes 0, 1, ... of shape (n, n_columns), and their components.

        ``probabilities[j]`` of shape (k, n_levels) belongs to column j.
        """
        tables = [np.asarray(p, dtype=float) for p in probabilities]
        labels = rng.choice(len(tables[0]), size=n, p=np.asarray(weights, dtype=float))
        u = rng.random((n, len(tables), 1))
        codes = [
            (u[:, j] >= np.cumsum(p, axis=1)[labels, :-1]).sum(axis=1) for j, p in enumerate(tables)
        ]
        return np.stack(codes, axis=1).astype(float), labels

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> Self:
        """Small simulated instance that starts near the truth."""
        two = np.array(((0.75, 0.25), (0.25, 0.75)))
        three = np.array(((0.5, 0.3, 0.2), (0.2, 0.3, 0.5)))
        truth = [two] * 9 + [three] * 2  # far from 0
        X, _ = cls.simulate(rng, n, probabilities=truth)
        X[:3, 9:] = np.arange(3)[:, None]  # each level occurs, whatever the seed
        X[:2, :9] = np.arange(2)[:, None]
        start = {f"x{j}": 0.9 * p + 0.1 / p.shape[1] for j, p in enumerate(truth)}
        return cls(X, 2, init={"weights": (0.45, 0.55), "probabilities": start})


class MultinomialMixture(ColumnMixture):
    """Mixture of multinomial rows of counts.

    The total of a row is taken as given, and a row is missing as a whole or not at all.
    `components` has ``weights`` (k,) and ``probabilities`` (k, n_features). `sample` draws
    totals from those of the data. Zeros cost neither time nor memory.

    ``P(x | total) = sum_c w_c Multinomial(x; total, p_c)``; with responsibilities r the M-step is
    ``p_cj = sum_i r_ic x_ij / sum_ij r_ic x_ij``.

    [common parameters]

    References
    ----------
    Nigam, K., McCallum, A., Thrun, S. and Mitchell, T. (2000). Text classification from
    labeled and unlabeled documents using EM. Machine Learning 39, 103-134.

    Examples
    --------
    >>> X = [[5, 1, 0], [4, 2, 0], [0, 1, 6], [1, 0, 5]]
    >>> MultinomialMixture(X, 2).fit("em", seed=0).probabilities.shape
    (2, 3)
    """

    name: ClassVar[str] = "multinomial mixture"

    def _declare(self, source: Source, problems: Problems) -> list[Column]:
        names = tuple(source.names)
        return [Column("counts", "multinomial", names, names)]

    def _gather(self, blocks: list[Block]) -> dict[str, Any]:
        return dict(blocks[0])

    def _spread(self, given: Mapping[str, Any]) -> list[Block]:
        return [{"probabilities": given["probabilities"]}]

    def _as_table(self, drawn: dict[str, Any]) -> Any:
        return np.stack([drawn[name] for name in self.feature_names], axis=1)

    @staticmethod
    def simulate(
        rng: np.random.Generator,
        n: int = 1000,
        *,
        weights: ArrayLike = (0.4, 0.6),
        probabilities: ArrayLike = ((0.5, 0.3, 0.1, 0.1), (0.1, 0.2, 0.3, 0.4)),
        total: float = 8.0,
    ) -> tuple[Array, NDArray[np.intp]]:
        """Simulate counts of shape (n, n_features), and their components.

        Totals are 1 plus Poisson numbers of mean ``total - 1``.
        """
        p = np.asarray(probabilities, dtype=float)
        labels = rng.choice(len(p), size=n, p=np.asarray(weights, dtype=float))
        totals = 1 + rng.poisson(total - 1.0, size=n)
        return rng.multinomial(totals, p[labels]).astype(float), labels

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> Self:
        """Small simulated instance that starts near the truth."""
        start = {
            "weights": (0.45, 0.55),
            "probabilities": ((0.45, 0.3, 0.15, 0.1), (0.15, 0.2, 0.3, 0.35)),
        }
        return cls(cls.simulate(rng, n)[0], 2, init=start)
