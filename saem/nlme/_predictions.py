"""Check a structural model's predictions at the starting values, before any fit."""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem.contract import Array
from saem.exceptions import ModelError, Problems, SaemWarning
from saem.nlme._explain import count, failing_line
from saem.nlme._residual import POWER, PROPORTIONAL
from saem.nlme.endpoints import Endpoints

if TYPE_CHECKING:
    from saem.nlme.data import Individuals
    from saem.nlme.error_models import ErrorModel
    from saem.nlme.structural import Structural

__all__ = ["check_predictions"]


def check_predictions(
    structural: Structural,
    psi: ArrayLike,
    individuals: Individuals,
    error: ErrorModel | Endpoints,
) -> None:
    """Evaluate the structural model for every individual at given parameters.

    Parameters
    ----------
    structural : Structural
    psi : array_like of shape (n_params,) or (n_individuals, n_params)
        Natural-scale parameters in the order of ``structural.param_names``:
        the typical values to start from, shared or one row per individual.
    individuals : Individuals
    error : ErrorModel or Endpoints

    Raises
    ------
    ModelError
        If a prediction raises, is not one finite number, or is not positive
        where the error model takes its logarithm; the message names id, row,
        parameter and column values. So for the log-likelihood of a row, if the function
        returns that.

    Warns
    -----
    SaemWarning
        If a prediction is 0 under a proportional or power error, which then has
        no residual variance there.
    """
    values = np.atleast_2d(np.asarray(psi, dtype=float))
    endpoints = error if isinstance(error, Endpoints) else Endpoints((), (error,))
    check = _Check(structural, values, individuals, endpoints)
    problems = Problems(f"the structural model {structural.name!r} at the starting values")
    wrong_type = check.wrong_type()
    if wrong_type:
        problems.add(wrong_type, remedy=f"return the {check.noun} of one row as a float")
        problems.raise_if_any(ModelError)
    predictions = check.predictions()
    for rows, what, remedy in (
        (np.isnan(predictions), "is not a number (NaN)", "start from other values, or guard"),
        (np.isinf(predictions), "is infinite", check.impossible),
        (
            np.isfinite(predictions)
            & (predictions <= 0)
            & endpoints.positive[individuals.endpoint],
            "is not positive, but the exponential error model takes its logarithm",
            "start from other values, drop rows where the prediction must be 0, or choose another "
            "error model; or guard",
        ),
    ):
        if rows.any():
            check.report(problems, rows, predictions, what, remedy)
    problems.raise_if_any(ModelError)
    _warn_zero(check, predictions, endpoints)


def _warn_zero(check: _Check, predictions: Array, endpoints: Endpoints) -> None:
    codes = np.array(endpoints.codes)[check.individuals.endpoint]
    zero = np.flatnonzero((predictions == 0) & np.isin(codes, (PROPORTIONAL, POWER)))
    if zero.size:
        kind = "proportional" if codes[zero[0]] == PROPORTIONAL else "power"
        warnings.warn(
            f"the prediction is 0 in {zero.size} of {predictions.size} rows, first for "
            f"{check.where(int(zero[0]))}: a {kind} error has no variance there. Remedy: "
            "drop these rows or use CombinedError.",
            SaemWarning,
            stacklevel=4,
        )


class _Check:
    """Predictions of one model for one data set, and words about their rows."""

    def __init__(
        self, structural: Structural, psi: Array, individuals: Individuals, endpoints: Endpoints
    ) -> None:
        self.structural = structural
        self.noun = "prediction" if endpoints.continuous else "log-likelihood"
        self.impossible = "start from other values, or guard"
        if not endpoints.continuous:
            self.impossible = f"see that the row is possible at the start; {self.impossible}"
        self.psi = psi
        self.individuals = individuals
        self.columns = individuals.matrix(structural.columns)

    def individual_of(self, row: int) -> int:
        return int(np.searchsorted(self.individuals.offsets, row, side="right")) - 1

    def psi_of(self, individual: int) -> Array:
        return self.psi[individual if len(self.psi) > 1 else 0]

    def predictions(self) -> Array:
        # Rows are predicted one by one, so shared parameters need one call only.
        if len(self.psi) == 1:
            return self.structural.predict(self.psi[0], self.columns)
        ends = self.individuals.offsets
        return np.concatenate(
            [
                self.structural.predict(self.psi[i], self.columns[:, a:b])
                for i, (a, b) in enumerate(itertools.pairwise(ends))
            ]
        )

    def plain(self, row: int) -> object:
        """Call the user's own Python function for one row."""
        with np.errstate(all="ignore"):
            return self.structural.function(
                *self.psi_of(self.individual_of(row)),
                **dict(zip(self.structural.columns, self.columns[:, row], strict=True)),
            )

    def wrong_type(self) -> str:
        """Complaint about what the Python function returns for the first row, if any.

        Compilation has seen to this already, unless the compiler is switched off.
        """
        if not self.structural.scalar:
            return ""
        try:
            value = self.plain(0)
        except Exception:  # reported with the rows that are not a number
            return ""
        array = np.asarray(value)
        if array.ndim == 0 and array.dtype.kind in "iuf":
            return ""
        return (
            f"it returns {value!r} (a {type(value).__name__}), not one number, for {self.where(0)}"
        )

    def where(self, row: int) -> str:
        """Id, row, parameter and column values of a stacked row."""
        i = self.individual_of(row)
        names = (*self.structural.param_names, *self.structural.columns)
        values = (*self.psi_of(i), *self.columns[:, row])
        listed = ", ".join(f"{n} = {v:g}" for n, v in zip(names, values, strict=True))
        return f"id {self.individuals.ids[i]!r}, {self.individuals.row_text(row)}: {listed}"

    def report(
        self,
        problems: Problems,
        rows: NDArray[np.bool_],
        predictions: Array,
        what: str,
        remedy: str,
    ) -> None:
        """Add the first of these rows and the count of the others."""
        first = int(np.flatnonzero(rows)[0])
        cause = f"the {self.noun} {what}"
        if np.isfinite(predictions[first]):
            cause = f"the {self.noun} is {predictions[first]:g}, which {what}"
        if self.structural.scalar and not np.isfinite(predictions[first]):
            try:
                self.plain(first)
            except Exception as error:
                line = failing_line(error, self.structural.function)  # type: ignore[arg-type]
                cause = f"it raises {type(error).__name__}: {error} ({line})"
        more = int(rows.sum()) - 1
        others = f" (and in {count(more, 'more row')})" if more else ""
        guarded = remedy.replace(
            "guard",
            "write the function so that it is defined there (x if ... else y)"
            if self.structural.scalar
            else "check the columns of that row",
        )
        problems.add(f"{cause} for {self.where(first)}{others}", remedy=guarded)
