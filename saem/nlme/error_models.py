"""Residual error models: how an observation scatters around the prediction f.

    y = f + g(f) eps,   eps ~ N(0, 1);     exponential: log y = log f + a eps.

Only the declaration stands here. The one function that computes the density of
an observation (`saem.nlme._residual`) is compiled with the model's kernels and selects by `code`.

| code | class | g(f) |
| --- | --- | --- |
| 0 | `ConstantError` | a |
| 1 | `ProportionalError` | b f |
| 2 | `CombinedError(form="sum")` | a + b f^c |
| 3 | `CombinedError(form="variance")` | sqrt(a^2 + b^2 f^(2 c)) |
| 4 | `ExponentialError` | a, on the log scale |
| 5 | `PowerError` | b f^c |
| 6 | `LogLikelihood` | none: the structural function returns the log-likelihood of its row |

The power c is 1 unless the user asks for another, or for its estimate. With several endpoints
each has an error model of its own, and a `Shared` value is one number of several
(`saem.nlme.endpoints`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from saem.contract import Array
from saem.exceptions import OptionError
from saem.nlme._explain import did_you_mean
from saem.nlme.parameters import Problem, is_number

__all__ = [
    "CombinedError",
    "ConstantError",
    "ErrorModel",
    "ExponentialError",
    "LogLikelihood",
    "PowerError",
    "ProportionalError",
    "Shared",
    "resolve_error",
    "start_value",
]

#: Residual parameters, in the order of the block sigma.
SIGMA = ("a", "b", "c")


@dataclass(frozen=True)
class Shared:
    """A residual parameter that several endpoints have in common: one number, estimated once.

    Given as the value of a parameter in the error models of all endpoints that share it.

    Parameters
    ----------
    name : str
        Its name in tables.
    start : float
        Value to start from.

    Examples
    --------
    >>> sd = Shared("sd", 0.3)
    >>> error = {"parent": ConstantError(sd), "metabolite": ConstantError(sd)}
    >>> error["parent"].start
    array([0.3, 0. , 1. ])
    """

    name: str
    start: float


def start_value(value: Any) -> Any:
    """Number to start from: that of a `Shared`, or the value itself.

    Parameters
    ----------
    value : Shared, or anything

    Returns
    -------
    Any
    """
    return value.start if isinstance(value, Shared) else value


class ErrorModel(ABC):
    """Base of the residual error models; use one of those."""

    @property
    @abstractmethod
    def code(self) -> int:
        """Number of the error model in compiled code."""

    @property
    @abstractmethod
    def param_names(self) -> tuple[str, ...]:
        """Names of the residual parameters: of ``"a"``, ``"b"`` and ``"c"``."""

    @property
    @abstractmethod
    def formula(self) -> str:
        """Standard deviation of an observation, as text."""

    @property
    def continuous(self) -> bool:
        """Whether the structural function predicts the response, with residuals about it."""
        return True

    @property
    def positive(self) -> bool:
        """Whether observations and predictions must be positive."""
        return False

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """Names of the residual parameters that are kept at their start."""
        return ()

    @property
    def has_closed_form(self) -> bool:
        """Whether the complete-data estimates follow from a sum of squares."""
        return True

    @property
    def start(self) -> Array:
        """Starting (a, b, c), shape (3,); 0, and a power of 1, for what the model does not have."""
        missing = {"a": 0.0, "b": 0.0, "c": 1.0}
        values = (start_value(getattr(self, name, missing[name])) for name in SIGMA)
        return np.array([float(value) for value in values])

    def problems(self) -> list[Problem]:
        """List what is wrong with this error model, each with its remedy."""
        found = []
        for name in self.param_names:
            value: Any = start_value(getattr(self, name))
            if name == "c":
                if not is_number(value):
                    found.append(
                        (
                            f"{type(self).__name__}: c is {value!r}, not a finite number",
                            "start c from a number such as 1.0",
                        )
                    )
            elif not is_number(value) or not value > 0:
                found.append(
                    (
                        f"{type(self).__name__}: {name} is {value!r}, but must be positive and "
                        "finite",
                        f"start {name} from a positive number",
                    )
                )
        return found


@dataclass(frozen=True)
class ConstantError(ErrorModel):
    """Residual standard deviation a, in the units of the response.

    Parameters
    ----------
    a : float or Shared
        Value to start from.
    """

    a: float | Shared = 1.0

    code = 0
    param_names = ("a",)
    formula = "a"


@dataclass(frozen=True)
class ProportionalError(ErrorModel):
    """Residual standard deviation b f, proportional to the prediction.

    Parameters
    ----------
    b : float or Shared
        Value to start from; a fraction.
    """

    b: float | Shared = 0.3

    code = 1
    param_names = ("b",)
    formula = "b f"


@dataclass(frozen=True)
class _Powered(ErrorModel):
    """An error model with a power c of the prediction."""

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """The power, where it is fixed."""
        return ("c",) if self.fixed_c else ()  # type: ignore[attr-defined]

    def problems(self) -> list[Problem]:
        """List what is wrong with this error model, each with its remedy."""
        found = super().problems()
        fixed = self.fixed_c  # type: ignore[attr-defined]
        if not isinstance(fixed, (bool, np.bool_)):
            found.append(
                (
                    f"{type(self).__name__}: fixed_c is {fixed!r}, not True or False",
                    "set fixed_c=True or False",
                )
            )
        if fixed is True and isinstance(self.c, Shared):  # type: ignore[attr-defined]
            found.append(
                (
                    f"{type(self).__name__}: c is shared, but kept at its start (fixed_c=True)",
                    "set fixed_c=False, or give the number itself",
                )
            )
        return found


@dataclass(frozen=True)
class CombinedError(_Powered):
    """Constant and proportional error together.

    Parameters
    ----------
    a : float or Shared
        Value to start from, in the units of the response.
    b : float or Shared
        Value to start from; a fraction.
    form : {"sum", "variance"}
        Whether standard deviations add up, ``a + b f^c`` (often called
        combined1), or variances, ``sqrt(a^2 + b^2 f^(2 c))`` (combined2).
    c : float or Shared
        Power of the prediction.
    fixed_c : bool
        Keep the power at `c`, the default, instead of estimating it.
    """

    a: float | Shared = 1.0
    b: float | Shared = 0.3
    form: str = "sum"
    c: float | Shared = 1.0
    fixed_c: bool = True

    has_closed_form = False

    @property
    def _plain(self) -> bool:
        return bool(self.fixed_c) and self.c == 1.0

    @property
    def param_names(self) -> tuple[str, ...]:
        """Names of the residual parameters; the power, unless it is fixed at 1."""
        return SIGMA[:2] if self._plain else SIGMA

    @property
    def code(self) -> int:
        """Number of the error model in compiled code."""
        return 3 if self.form == "variance" else 2

    @property
    def formula(self) -> str:
        """Standard deviation of an observation, as text."""
        if self.form == "variance":
            return "sqrt(a^2 + b^2 f^2)" if self._plain else "sqrt(a^2 + b^2 f^(2 c))"
        return "a + b f" if self._plain else "a + b f^c"

    def problems(self) -> list[Problem]:
        """List what is wrong with this error model, each with its remedy."""
        found = super().problems()
        if self.form not in ("sum", "variance"):
            found.append(
                (
                    f"CombinedError: form is {self.form!r}, not 'sum' or 'variance'",
                    'use form="sum" for a + b f, form="variance" for sqrt(a^2 + b^2 f^2)',
                )
            )
        return found


@dataclass(frozen=True)
class PowerError(_Powered):
    """Residual standard deviation ``b f^c``: constant for c = 0, proportional for c = 1.

    Parameters
    ----------
    b : float or Shared
        Value to start from.
    c : float or Shared
        Power of the prediction to start from.
    fixed_c : bool
        Keep the power at `c` instead of estimating it.
    """

    b: float | Shared = 0.3
    c: float | Shared = 1.0
    fixed_c: bool = False

    code = 5
    param_names = ("b", "c")
    formula = "b f^c"

    @property
    def has_closed_form(self) -> bool:
        """Whether the complete-data estimate of b follows from a sum of squares."""
        return bool(self.fixed_c)


@dataclass(frozen=True)
class ExponentialError(ErrorModel):
    """Gaussian error of the logarithm; response and prediction must be positive.

    Parameters
    ----------
    a : float or Shared
        Standard deviation of log y to start from.
    """

    a: float | Shared = 0.3

    code = 4
    param_names = ("a",)
    formula = "a on the log scale"
    positive = True


@dataclass(frozen=True)
class LogLikelihood(ErrorModel):
    """No residual error: the structural function returns the log-likelihood of its row.

    For responses that are not continuous: counts, yes or no, categories, times to events. The
    function may ask for the response as the keyword-only column ``dv``, and every row adds what
    it returns, which must be the log density or log probability with its constants, so
    that likelihoods of different models can be compared. There are no residual parameters.

    Examples
    --------
    >>> import math
    >>> import numpy as np
    >>> import pandas as pd
    >>> import saem
    >>> def poisson(rate, *, dv):
    ...     return dv * math.log(rate) - rate - math.lgamma(dv + 1.0)
    >>> counts = pd.DataFrame(
    ...     {"id": np.repeat(range(4), 3), "dv": [0, 1, 0, 3, 2, 4, 1, 1, 2, 6, 4, 5]}
    ... )
    >>> model = saem.NLME(
    ...     counts,
    ...     structural=poisson,
    ...     parameters={"rate": saem.LogNormal(2.0)},
    ...     error=saem.LogLikelihood(),
    ... )
    >>> model.param_names
    ['rate', 'omega2_rate']
    """

    code = 6
    param_names = ()
    formula = "none: the function returns the log-likelihood of its row"
    continuous = False


#: Short names, as a command line uses them.
NAMES: dict[str, ErrorModel] = {
    "constant": ConstantError(),
    "proportional": ProportionalError(),
    "combined": CombinedError(),
    "combined-variance": CombinedError(form="variance"),
    "exponential": ExponentialError(),
    "power": PowerError(),
    "log-likelihood": LogLikelihood(),
}


def resolve_error(spec: ErrorModel | str) -> ErrorModel:
    """Turn a short name into an error model with its default start.

    Parameters
    ----------
    spec : ErrorModel or str
        An error model, or a key of `NAMES`.

    Returns
    -------
    ErrorModel

    Raises
    ------
    OptionError
        If `spec` is neither.
    """
    if isinstance(spec, ErrorModel):
        return spec
    if isinstance(spec, str) and spec in NAMES:
        return NAMES[spec]
    guess = did_you_mean(spec, NAMES) if isinstance(spec, str) else ""
    raise OptionError(
        f"error is {spec!r}, not an error model{guess}. Remedy: use an object such as "
        f"ConstantError(1.0), or one of the names {', '.join(map(repr, NAMES))}."
    )
