"""Inter-occasion variability: a second level of random effects, with a covariance of its own.

    phi_io = u(typical value) + covariates_i @ beta + eta_i + kappa_io,
    eta_i ~ N(0, Omega),   kappa_io ~ N(0, Gamma)

for occasion o of subject i. The model is written as one with a single level: the deviations of
every occasion become parameters of their own (Gaussian, of mean 0), whose block of the covariance
is the same for all occasions. The structural model is called occasion by occasion. Subjects with
fewer occasions than others have deviations that no response depends on: as the prior integrates
to 1 they change no likelihood, and the estimates are the maximum-likelihood ones.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba.core import config
from numpy.typing import NDArray

from saem._jit import compiled as as_compiled
from saem._math import exp
from saem.contract import Array
from saem.exceptions import DataError, ModelError, Problems
from saem.nlme._explain import did_you_mean
from saem.nlme.parameters import LogitNormal, LogNormal, Normal, Parameter, is_number
from saem.nlme.structural import Structural

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Deviation",
    "Occasions",
    "expand_parameters",
    "expand_structural",
    "on_occasion",
    "read_occasions",
]

Indices = NDArray[np.int64]

#: Name of the structural model's column that numbers the occasions of a subject.
COLUMN = "occasion"
#: Starting standard deviation of the deviations, on a log or logit scale.
_START = 0.3


@dataclass(frozen=True)
class Deviation(Normal):
    """Deviation kappa of one parameter on one occasion: Gaussian, of mean 0."""


@dataclass(frozen=True)
class Occasions:
    """Occasions of the data, and the parameters that vary between them.

    Attributes
    ----------
    label : hashable
        Column of the data.
    sds : dict of str to float
        Parameters, in the order of the structural model, with the standard deviation to start from.
    number : int
        Largest number of occasions of a subject.
    column : hashable
        Column of the checked frame that holds the number of each row's occasion, from 0.
    labels : tuple of tuple
        Labels of every subject's occasions, in the order of their numbers.
    """

    label: Hashable
    sds: dict[str, float]
    number: int
    column: Hashable = ""
    labels: tuple[tuple[Hashable, ...], ...] = ()

    def names(self, o: int) -> list[str]:
        """Names of the deviations of occasion o (from 0): ``kappa_CL_1``, ..."""
        return [f"kappa_{name}_{o + 1}" for name in self.sds]


def read_occasions(
    frame: pd.DataFrame,
    occasion: Hashable | None,
    iov: Sequence[str] | Mapping[str, float] | None,
    identity: Hashable | None,
    structural: Structural,
    parameters: Mapping[str, Parameter],
) -> tuple[pd.DataFrame, Occasions | None]:
    """Check the occasions, and number those of every subject.

    Parameters
    ----------
    frame : DataFrame
    occasion : hashable or None
        Column whose labels tell the occasions of a subject apart; any type.
    iov : sequence of str, mapping of str to float, or None
        Parameters that vary between occasions, with starting standard deviations if a mapping.
        None of them, ``[]``, if occasions only start the clock anew.
    identity : hashable or None
        Column of the ids; None if it was not found.
    structural : Structural
    parameters : mapping of str to Parameter

    Returns
    -------
    frame : DataFrame
        With one column more: the numbers 0, 1, ... of the occasions, by first appearance in
        each subject.
    occasions : Occasions or None
        None without inter-occasion variability.

    Raises
    ------
    DataError, ModelError
        With all that is wrong about occasions.
    """
    if occasion is None and iov is None:
        return frame, None
    model, data = Problems("the inter-occasion variability"), Problems("the occasions")
    if occasion is None or iov is None:
        missing = "occasion" if occasion is None else "iov"
        model.add(
            f"{missing} is not given: occasions need a column and parameters that vary",
            remedy='write occasion="OCC", iov=["CL"] (or iov=[], if no parameter varies)',
        )
        model.raise_if_any(ModelError)
    sds = _starts(iov, structural, parameters, model)
    model.raise_if_any(ModelError)
    labels = list(frame.columns)
    if occasion not in labels or list(labels).count(occasion) != 1:
        data.add(
            f"occasion column {occasion!r} is not in the data{did_you_mean(occasion, labels)}",
            remedy=f"use one of {', '.join(map(repr, labels))}",
        )
    elif identity is not None and len(frame):
        codes, names = _codes(frame, occasion, identity, data)
        data.raise_if_any(DataError)
        number = int(codes.max()) + 1
        if number < 2 and sds:
            data.add(
                f"occasion column {occasion!r} has one occasion for every subject",
                remedy="leave out iov: it cannot be told from the variability between subjects",
            )
        data.raise_if_any(DataError)
        column = f"number of {occasion}"
        while column in labels:
            column += "_"
        frame = frame.copy()
        frame[column] = codes
        return frame, Occasions(occasion, sds, number, column, names)
    data.raise_if_any(DataError)
    return frame, None


def _starts(
    iov: object,
    structural: Structural,
    parameters: Mapping[str, Parameter],
    problems: Problems,
) -> dict[str, float]:
    """Starting standard deviations, in the order of the structural model."""
    if isinstance(iov, str) or not isinstance(iov, (Sequence, Mapping)):
        problems.add(
            f"iov is {iov!r}, not names of parameters",
            remedy='write iov=["CL"], or iov={"CL": 0.2} with a standard deviation to start from',
        )
        return {}
    if COLUMN in structural.columns or COLUMN in structural.param_names:
        problems.add(
            f"the structural model uses the name {COLUMN!r} itself", remedy="rename its argument"
        )
    for name in iov:
        parameter = parameters.get(name) if isinstance(parameters, Mapping) else None
        if name not in structural.param_names:
            near = did_you_mean(name, structural.param_names)
            problems.add(
                f"iov names {name!r}, which is no parameter{near}",
                remedy=f"the parameters are {', '.join(structural.param_names)}",
            )
        elif parameter is not None and not isinstance(parameter, (Normal, LogNormal, LogitNormal)):
            problems.add(
                f"iov names {name!r}, a {type(parameter).__name__} parameter",
                remedy="use LogitNormal for a parameter between bounds that varies with occasions",
            )
    sds = {}
    for name in structural.param_names:
        if name in iov:
            default = _START
            if isinstance(parameters.get(name), Normal):
                default = 0.5 * parameters[name].start_omega or 1.0
            value = iov[name] if isinstance(iov, Mapping) else default
            if not is_number(value) or not value > 0:
                problems.add(
                    f"iov of {name!r} starts from {value!r}, but a standard deviation must be "
                    "positive and finite",
                    remedy="give a positive number",
                )
            sds[name] = value
    return sds


def _codes(
    frame: pd.DataFrame, label: Hashable, identity: Hashable, problems: Problems
) -> tuple[Array, tuple[tuple[Hashable, ...], ...]]:
    """Number of each row's occasion within its subject, by first appearance; and their labels."""
    import pandas as pd

    occasions = frame[label]
    missing = occasions.isna().to_numpy()
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        problems.add(
            f"occasion column {label!r} is missing at row {row + 1} (index {frame.index[row]!r}), "
            f"and in {int(missing.sum()) - 1} more rows",
            remedy="give every row an occasion",
        )
        return np.zeros(len(frame)), ()
    codes, labels = np.zeros(len(frame)), []
    subjects = pd.factorize(frame[identity])[0]
    for i in range(subjects.max(initial=-1) + 1):
        rows = np.flatnonzero(subjects == i)
        own, uniques = pd.factorize(occasions.iloc[rows])
        codes[rows] = own
        labels.append(tuple(uniques.tolist()))
        back = np.flatnonzero(np.diff(own) < 0)
        if back.size:
            row = int(rows[back[0] + 1])
            problems.add(
                f"occasion column {label!r}: subject {frame[identity].iloc[row]!r} comes back to "
                f"{occasions.iloc[row]!r} at row {row + 1} (index {frame.index[row]!r})",
                remedy="sort the rows of a subject by occasion, or give the later one a new label",
            )
            break
    return codes, tuple(labels)


def expand_parameters(
    parameters: Mapping[str, Parameter], occasions: Occasions
) -> dict[str, Parameter]:
    """Parameters with the deviations of every occasion behind them.

    Parameters
    ----------
    parameters : mapping of str to Parameter
        In any order.
    occasions : Occasions

    Returns
    -------
    dict of str to Parameter
    """
    expanded = dict(parameters)
    for o in range(occasions.number):
        for name, sd in zip(occasions.names(o), occasions.sds.values(), strict=True):
            expanded[name] = Deviation(0.0, omega=sd, fixed=True)
    return expanded


def expand_structural(
    base: Structural, parameters: Mapping[str, Parameter], occasions: Occasions
) -> Structural:
    """Structural model that takes the deviations as parameters, and the occasion as a column.

    Parameters
    ----------
    base : Structural
    parameters : mapping of str to Parameter
        Those of `base`.
    occasions : Occasions

    Returns
    -------
    Structural
    """
    which = [base.param_names.index(name) for name in occasions.sds]
    varied = [parameters[name] for name in occasions.sds]
    codes = np.array([p.code for p in varied], dtype=np.int64)
    bounds = np.array([p.bounds if np.isfinite(p.bounds).all() else (0.0, 1.0) for p in varied])
    bounds = bounds.reshape(-1, 2)
    loop = _by_occasion(
        as_compiled(base.compiled), len(base.param_names), len(base.columns),
        np.array(which, dtype=np.int64), codes, bounds,
    )  # fmt: skip
    kappas = [name for o in range(occasions.number) for name in occasions.names(o)]

    def function(*psi: float, **columns: float) -> Any:
        """Predict one row, as the user's function does; for messages about it."""
        o, p = int(columns.pop(COLUMN)), len(base.param_names)
        own = list(psi[:p])
        for r, (m, code) in enumerate(zip(which, codes, strict=True)):
            own[m] = _deviated(code, *bounds[r], own[m], psi[p + o * len(which) + r])
        return base.function(*own, **columns)

    return replace(
        base,
        param_names=(*base.param_names, *kappas),
        columns=(*base.columns, COLUMN),
        compiled=loop,
        function=function if base.scalar else loop,
        jacobian=None,
    )


def on_occasion(parameter: Parameter, psi: Array, kappa: Array) -> Array:
    """Natural values of a parameter on an occasion, ``u^-1(u(psi) + kappa)``.

    Parameters
    ----------
    parameter : Parameter
    psi, kappa : ndarray
        Values of the subjects, and their deviations.

    Returns
    -------
    ndarray
    """
    return np.asarray(parameter.to_psi(parameter.to_phi(psi) + kappa))


def _deviated_in_python(code: int, lower: float, upper: float, psi: float, kappa: float) -> float:
    """``u^-1(u(psi) + kappa)``, without going through u."""
    if code == 1:
        return psi * exp(kappa)
    if code == 2:
        # Odds of the place between the bounds are multiplied.
        above = (psi - lower) * exp(kappa)
        return lower + (upper - lower) * above / (above + upper - psi)
    return psi + kappa


_deviated: Callable[..., float] = (
    _deviated_in_python
    if config.DISABLE_JIT
    else numba.njit(nogil=True, error_model="numpy")(_deviated_in_python)
)


def _by_occasion(
    inner: Any, p: int, n_columns: int, which: Indices, codes: Indices, bounds: Array
) -> Any:
    """Compile the loop over the occasions of a subject, whose rows are together."""
    k, deviated = which.size, _deviated

    def structural(psi: Any, columns: Any, out: Any) -> None:
        own = np.empty(p)
        start = 0
        while start < out.size:
            occasion = columns[n_columns, start]
            stop = start + 1
            while stop < out.size and columns[n_columns, stop] == occasion:
                stop += 1
            for m in range(p):
                own[m] = psi[m]
            for r in range(k):
                kappa = psi[p + int(occasion) * k + r]
                own[which[r]] = deviated(codes[r], bounds[r, 0], bounds[r, 1], psi[which[r]], kappa)
            part = np.empty((n_columns, stop - start))
            for c in range(n_columns):
                for j in range(stop - start):
                    part[c, j] = columns[c, start + j]
            inner(own, part, out[start:stop])
            start = stop

    if config.DISABLE_JIT:
        return structural
    from saem._types import STRUCTURAL

    loop = numba.njit(nogil=True, error_model="numpy")(structural)
    loop.compile(STRUCTURAL)
    loop.disable_compile()
    return loop
