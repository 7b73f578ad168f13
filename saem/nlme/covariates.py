"""Subject-level covariates: from formulas to one design matrix.

Each parameter's formula gives columns on the Gaussian scale,

    phi_i = u(typical value) + sum_j beta_j x_ij + eta_i.

All parameters share one matrix X of shape (n_individuals, n_columns): a column
of ones for the typical values, then every distinct covariate column once.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array
from saem.exceptions import DataError, Problems
from saem.nlme._explain import count, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Design", "build_design", "formula_columns"]

#: Name of the column of ones.
ONES = "1"
#: Singular values below this, of standardised columns, count as 0.
_RANK_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Design:
    """Design matrix of the covariates, and how to build it for new subjects.

    Attributes
    ----------
    matrix : ndarray of shape (n_individuals, n_columns)
        Column 0 is all ones.
    names : tuple of str
        Name of each column: ``"1"``, ``"log(Wt / 70)"``, ``"Sex[T.F]"``, ...
    used : dict of str to tuple of int
        Columns that each parameter uses; 0 comes first.
    levels : dict of str to tuple
        Levels of each categorical covariate; the first is the reference.
    """

    matrix: Array
    names: tuple[str, ...]
    used: dict[str, tuple[int, ...]]
    levels: dict[str, tuple[Hashable, ...]] = field(default_factory=dict)
    _specs: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def reference(self) -> dict[str, Hashable]:
        """Reference level of each categorical covariate."""
        return {name: levels[0] for name, levels in self.levels.items()}

    def coefficient_names(self, parameter: str) -> list[str]:
        """Names of a parameter's covariate coefficients, without its typical value.

        Such as ``beta_CL_log(Wt / 70)`` or ``beta_V_Sex[T.F]``.
        """
        return [f"beta_{parameter}_{self.names[j]}" for j in self.used[parameter] if j > 0]

    def apply(self, subjects: pd.DataFrame) -> Array:
        """Design matrix of other subjects, coded as for the ones fitted.

        Parameters
        ----------
        subjects : DataFrame
            One row per subject, with the covariates the formulas need.

        Returns
        -------
        ndarray of shape (len(subjects), n_columns)

        Raises
        ------
        DataError
            If a covariate is missing, not finite, or of an unknown level.
        """
        problems = Problems("the covariates")
        for name, levels in self.levels.items():
            if name in subjects:
                for value in subjects[name].unique():
                    if value not in levels:
                        problems.add(
                            f"covariate {name!r} has the level {value!r}, which no subject of the "
                            "fit had",
                            remedy=f"use one of the levels {', '.join(map(repr, levels))}",
                        )
        problems.raise_if_any(DataError)
        matrix = np.ones((len(subjects), len(self.names)))
        for parameter, spec in self._specs.items():
            try:
                matrix[:, self.used[parameter][1:]] = _evaluate(spec, subjects)[1]
            except Exception as error:  # formulaic lets any exception of a formula through
                problems.add(f"formula of {parameter!r}: {_first_line(error)}")
        if not problems and not np.isfinite(matrix).all():
            row, column = np.argwhere(~np.isfinite(matrix))[0]
            problems.add(
                f"covariate column {self.names[column]!r} is {matrix[row, column]} for subject "
                f"{row + 1}",
                remedy="give finite covariates inside the range of the formula",
            )
        problems.raise_if_any(DataError)
        return matrix


def formula_columns(formula: str) -> tuple[set[str], set[str]]:
    """Data columns and functions that a formula names.

    Parameters
    ----------
    formula : str
        Right-hand side of a formula.

    Returns
    -------
    columns, functions : set of str

    Raises
    ------
    ValueError
        If the formula has two sides or parts, or its syntax is wrong.
    """
    from formulaic import Formula, SimpleFormula

    parsed = Formula(formula)
    if not isinstance(parsed, SimpleFormula):
        raise ValueError("it has two sides; only the covariates are written")
    columns: set[str] = set()
    functions: set[str] = set()
    for term in parsed:
        for factor in term.factors:
            if factor.eval_method.value == "lookup":
                columns.add(factor.expr)
            elif factor.eval_method.value == "python":
                found = _names_in(factor.expr)
                columns |= found[0]
                functions |= found[1]
    return columns, functions


def _names_in(expression: str) -> tuple[set[str], set[str]]:
    """Names of data and names called (or looked into) in a Python expression."""
    quoted: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        name = f"_quoted_{len(quoted)}"
        quoted[name] = match.group(1)
        return name

    tree = ast.parse(re.sub(r"`([^`]+)`", stand_in, expression), mode="eval")
    heads = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    heads |= {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    names = [n for n in ast.walk(tree) if isinstance(n, ast.Name)]
    data = {quoted.get(n.id, n.id) for n in names if id(n) not in heads}
    return data, {n.id for n in names if id(n) in heads}


def check_formula(
    parameter: str, formula: str, available: Iterable[Hashable], problems: Problems
) -> tuple[set[str], bool]:
    """Check a formula without evaluating it; return the columns it needs.

    Parameters
    ----------
    parameter : str
        Whose formula it is.
    formula : str
    available : iterable
        Columns of the data.
    problems : Problems
        Receives what is wrong.

    Returns
    -------
    columns : set of str
        Columns needed, of those that the data have.
    usable : bool
        Whether the formula can be evaluated.
    """
    from formulaic.transforms import TRANSFORMS

    owner = f"formula {formula!r} of parameter {parameter!r}"
    try:
        columns, functions = formula_columns(formula)
        _check_algebra(formula)
    except Exception as error:  # formulaic lets any exception of its parser through
        problems.add(
            f"{owner} cannot be read: {_first_line(error)}",
            remedy='write only covariates, for instance "log(Wt / 70) + Sex"',
        )
        return set(), False
    known = list(available)
    usable = True
    for name in sorted(columns):
        if name not in known:
            problems.add(
                f"{owner} uses column {name!r}, which the data do not have"
                f"{did_you_mean(name, known)}",
                remedy=f"use one of the columns {', '.join(map(repr, known))}",
            )
            usable = False
    for name in sorted(functions - set(TRANSFORMS) - columns):
        problems.add(
            f"{owner} uses {name!r}, which formulas do not know{did_you_mean(name, TRANSFORMS)}",
            remedy=f"use log, exp, center, or a function of numpy such as np.{name}",
        )
        usable = False
    return columns & set(known), usable


def _check_algebra(formula: str) -> None:
    """Refuse what formula algebra reads otherwise than it looks."""
    flat = formula
    while (shorter := re.sub(r"\([^()]*\)", "", flat)) != flat:
        flat = shorter
    power = re.search(r"([\w`]+)\s*(\*\*|\^)", flat)
    if power:
        raise ValueError(
            f"{power.group(2)!r} means interactions in a formula, not a power; write "
            f"I({power.group(1)} ** 2)"
        )
    if re.search(r"(^|\+)\s*0(?![\w.])|-\s*1(?![\w.])", flat):
        raise ValueError("the intercept is the typical value and cannot be taken out")


def _first_line(error: Exception) -> str:
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return text.rstrip(". ") or type(error).__name__


def _evaluate(spec: Any, subjects: pd.DataFrame) -> tuple[Any, Array]:
    """Evaluate a formula (or the spec of an earlier one) without its intercept."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is not finite is reported by name
        # No names from the caller's scope: a formula means the same everywhere.
        frame = spec.get_model_matrix(subjects, context={}, na_action="ignore")
    keep = [j for j, name in enumerate(frame.columns) if name != "Intercept"]
    return frame.model_spec, np.asarray(frame, dtype=float)[:, keep]


def build_design(
    formulas: Mapping[str, str | None],
    subjects: pd.DataFrame,
    ids: list[Hashable],
    problems: Problems,
) -> Design:
    """Build the design matrix of all parameters.

    Parameters
    ----------
    formulas : mapping of str to str or None
        Formula of each parameter, checked by `check_formula`.
    subjects : DataFrame
        One row per individual with the columns the formulas need, none missing.
    ids : list
        Ids of the individuals, in the order of the rows.
    problems : Problems
        Receives constant, collinear and non-finite covariate columns.

    Returns
    -------
    Design
        Of use only if no problem was added.
    """
    columns: list[Array] = [np.ones(len(ids))]
    names = [ONES]
    used: dict[str, tuple[int, ...]] = {}
    levels: dict[str, tuple[Hashable, ...]] = {}
    specs: dict[str, Any] = {}
    for parameter, formula in formulas.items():
        indices = [0]
        used[parameter] = (0,)
        if formula is not None and formula.strip():
            owner = f"formula {formula!r} of parameter {parameter!r}"
            try:
                spec, values = _evaluate(_parse(formula), subjects)
            except Exception as error:  # formulaic lets any exception of a formula through
                problems.add(
                    f"{owner} cannot be evaluated: {_first_line(error)}",
                    remedy="check that its columns are of the kind (number, category) it needs",
                )
                continue
            own_names = [n for n in spec.column_names if n != "Intercept"]
            if _usable(owner, own_names, values, ids, problems):
                specs[parameter] = spec
                levels |= _levels_of(spec, subjects)
                for name, column in zip(own_names, values.T, strict=True):
                    if name not in names:
                        names.append(name)
                        columns.append(column)
                    indices.append(names.index(name))
        used[parameter] = tuple(indices)
    matrix = np.ascontiguousarray(np.column_stack(columns))
    return Design(matrix, tuple(names), used, levels, specs)


def _parse(formula: str) -> Any:
    from formulaic import Formula

    return Formula(formula)


def _levels_of(spec: Any, subjects: pd.DataFrame) -> dict[str, tuple[Hashable, ...]]:
    """Levels of the categorical columns of an evaluated formula, reference first."""
    found: dict[str, tuple[Hashable, ...]] = {}
    for factor, contrast in spec.factor_contrasts.items():
        expression = getattr(factor, "expr", str(factor))
        for name in formula_columns(expression)[0]:
            if name in subjects:
                base = getattr(contrast.contrasts, "base", None)
                ordered = list(contrast.levels)
                if base in ordered:
                    ordered = [base, *(level for level in ordered if level != base)]
                found[name] = tuple(ordered)
    return found


def _usable(
    owner: str, names: list[str], values: Array, ids: list[Hashable], problems: Problems
) -> bool:
    """Report columns that are not finite, constant, or combinations of others."""
    before = len(problems.items)
    for name, column in zip(names, values.T, strict=True):
        bad = np.flatnonzero(~np.isfinite(column))
        if bad.size:
            more = f" and {count(bad.size - 1, 'more subject')}" if bad.size > 1 else ""
            problems.add(
                f"{owner}: column {name!r} is {column[bad[0]]} for id {ids[bad[0]]!r}{more}",
                remedy="the formula must be finite for every subject: correct the covariate or "
                "the formula (log of 0 and division by 0 are not)",
            )
        elif np.ptp(column) <= 1e-12 * np.abs(column).max(initial=0.0):
            problems.add(
                f"{owner}: column {name!r} is constant, {column[0]:g} for every subject, and "
                "cannot be told from the typical value",
                remedy="leave it out of the formula",
            )
    if len(problems.items) == before and len(names) >= len(ids):
        problems.add(
            f"{owner} has {len(names)} columns for {len(ids)} subjects",
            remedy="use fewer covariates than there are subjects, less one",
        )
    if len(problems.items) == before and names:
        involved = _collinear(values)
        if involved.any():
            listed = " and ".join(repr(n) for n, bad in zip(names, involved, strict=True) if bad)
            problems.add(
                f"{owner}: columns {listed} are collinear: one is a combination of the others and "
                "a constant",
                remedy="leave one of them out",
            )
    return len(problems.items) == before


def _collinear(values: Array) -> NDArray[np.bool_]:
    """Which columns take part in a linear dependence (a constant included)."""
    centred = values - values.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=0)
    _, singular, right = np.linalg.svd(centred, full_matrices=False)
    null = right[singular < _RANK_TOLERANCE * np.sqrt(len(singular))]
    return np.asarray((np.abs(null) > 1e-6).any(axis=0))
