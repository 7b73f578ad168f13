"""Mixtures of tables with columns of several kinds: numbers, counts, categories."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem.exceptions import ModelError, Problems

from ._checks import did_you_mean
from ._column_given import Block
from ._mixture_columns import FAMILIES, Column, Source, infer_family, levels_of
from .column_mixture import ColumnMixture

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MixedMixture"]


class MixedMixture(ColumnMixture):
    """Mixture of a table whose columns are of different families.

    `components` has ``weights`` (k,) and a dict for each column: ``means`` and ``variances``
    (gaussian), ``rates`` (poisson), ``scales`` (exponential), ``shapes`` and ``scales``
    (gamma), each (k,), ``probabilities`` (k,) of the value 1 (bernoulli) or (k, n_levels)
    (categorical, multinomial). `sample` gives a DataFrame.

    The option `families` is a dict from columns to families: ``"gaussian"``, ``"poisson"``,
    ``"bernoulli"``, ``"categorical"``, ``"exponential"``, ``"gamma"``, or, for a tuple of
    columns, ``"multinomial"``. Columns that it does not name are judged by their type:
    booleans are Bernoulli, integers of at least 0 Poisson, other numbers Gaussian, all else
    (text, pandas categories) categorical.

    ``p(x) = sum_c w_c prod_j f_j(x_j; theta_cj)``, with f_j the family of column j.

    [common parameters]

    References
    ----------
    Hunt, L. and Jorgensen, M. (1999). Mixture model clustering using the MULTIMIX program.
    Australian and New Zealand Journal of Statistics 41, 154-171.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"x": [0.1, 0.2, 5.1, 5.3], "colour": ["red", "red", "blue", "red"]})
    >>> model = MixedMixture(frame, 2)
    >>> [column.family for column in model.columns]
    ['gaussian', 'categorical']
    """

    name: ClassVar[str] = "mixture of mixed columns"
    _persisted: ClassVar[tuple[str, ...]] = (*ColumnMixture._persisted, "families")

    def __init__(
        self,
        X: Any,
        n_components: int,
        *,
        families: Mapping[Any, str] | None = None,
        weights: ArrayLike | None = None,
        init: str | Mapping[str, Any] = "kmeans++",
        alpha: float = 1e-9,
    ) -> None:
        if families is not None and not isinstance(families, Mapping):
            raise ModelError(
                f"families={families!r} must be a dict from columns to families, such as "
                "{'wait': 'gamma'}."
            )
        self.families = dict(families or {})
        super().__init__(X, n_components, weights=weights, init=init, alpha=alpha)

    def _declare(self, source: Source, problems: Problems) -> list[Column]:
        at = dict(zip(source.names, source.columns, strict=True))
        given = self._checked_families(source.names, problems)
        if problems:
            return []
        columns = []
        for name in source.names:
            if name in given and name != given[name][0][0]:
                continue  # a member of a group that stands at its first member
            members, family = given.get(name, ((name,), infer_family(at[name])))
            levels: tuple[Hashable, ...] = ()
            if family == "multinomial":
                levels = members
            elif family == "bernoulli":
                levels = (0, 1)
            elif family == "categorical":
                levels = levels_of(at[name])
            columns.append(Column("+".join(members), family, members, levels))
        return columns

    def _checked_families(
        self, names: list[str], problems: Problems
    ) -> dict[str, tuple[tuple[str, ...], str]]:
        """Group and family of each column that `families` names."""
        found: dict[str, tuple[tuple[str, ...], str]] = {}
        for key, family in self.families.items():
            members = tuple(map(str, key)) if isinstance(key, tuple) else (str(key),)
            for member in members:
                if member not in names:
                    problems.add(
                        f"families names the column {member!r}, which X lacks",
                        remedy=did_you_mean(member, names, 3),
                    )
                if member in found:
                    problems.add(f"families names the column {member!r} twice")
                found[member] = (members, str(family))
            if family not in FAMILIES:
                problems.add(
                    f"families gives {key!r} the family {family!r}; known are "
                    f"{', '.join(map(repr, FAMILIES))}",
                    remedy=did_you_mean(family, FAMILIES),
                )
            elif (family == "multinomial") != (len(members) > 1):
                problems.add(
                    f"families gives {key!r} the family {family!r}; a multinomial takes a tuple of "
                    "columns, other families one column"
                )
        return found

    def _gather(self, blocks: list[Block]) -> dict[str, Any]:
        return {column.name: block for column, block in zip(self.columns, blocks, strict=True)}

    def _spread(self, given: Mapping[str, Any]) -> list[Block]:
        return [given[column.name] for column in self.columns]

    @staticmethod
    def simulate(
        rng: np.random.Generator,
        n: int = 1000,
        *,
        weights: ArrayLike = (0.4, 0.6),
    ) -> tuple[pd.DataFrame, NDArray[np.intp]]:
        """Simulate two components in a Gaussian, a count, a category and a waiting time.

        Returns
        -------
        X : DataFrame
            ``size`` N(0, 1) or N(2.5, 0.64), ``visits`` Poisson of rate 2 or 6, ``colour``
            red, green, blue with probabilities (0.7, 0.2, 0.1) or (0.1, 0.3, 0.6), ``wait``
            gamma of shape 3 and scale 1 or 2.
        labels : ndarray of shape (n,)
        """
        import pandas as pd

        z = rng.choice(2, size=n, p=np.asarray(weights, dtype=float))
        bounds = np.array([[0.7, 0.9], [0.1, 0.4]])
        code = (rng.random(n)[:, None] >= bounds[z]).sum(axis=1)
        frame = pd.DataFrame(
            {
                "size": np.array([0.0, 2.5])[z] + np.array([1.0, 0.8])[z] * rng.standard_normal(n),
                "visits": rng.poisson(np.array([2.0, 6.0])[z]),
                "colour": np.array(["red", "green", "blue"], dtype=object)[code],
                "wait": rng.gamma(3.0, np.array([1.0, 2.0])[z]),
            }
        )
        return frame, z

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> Self:
        """Small simulated instance that starts near the truth."""
        frame = cls.simulate(rng, n)[0]
        frame.loc[:2, "colour"] = ["blue", "green", "red"]  # each occurs, whatever the seed
        start = {
            "weights": (0.45, 0.55),
            "size": {"means": (0.2, 2.2), "variances": (1.0, 0.8)},
            "visits": {"rates": (2.2, 5.5)},
            "colour": {"probabilities": ((0.1, 0.25, 0.65), (0.55, 0.3, 0.15))},
            "wait": {"shapes": (3.0, 3.0), "scales": (1.1, 1.8)},
        }
        return cls(frame, 2, families={"wait": "gamma"}, init=start)
