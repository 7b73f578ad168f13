"""Residual error models: how an observation scatters around the prediction f.

    y = f + g(f) eps,   eps ~ N(0, 1);     exponential: log y = log f + a eps.

Only the declaration stands here. The one function that computes the density of
an observation is compiled with the model's kernels and selects by `code`.

| code | class | g(f) |
| --- | --- | --- |
| 0 | `ConstantError` | a |
| 1 | `ProportionalError` | b f |
| 2 | `CombinedError(form="sum")` | a + b f |
| 3 | `CombinedError(form="variance")` | sqrt(a^2 + b^2 f^2) |
| 4 | `ExponentialError` | a, on the log scale |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

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
    "ProportionalError",
    "resolve_error",
]


class ErrorModel(ABC):
    """Base of the residual error models; use one of those."""

    @property
    @abstractmethod
    def code(self) -> int:
        """Number of the error model in compiled code."""

    @property
    @abstractmethod
    def param_names(self) -> tuple[str, ...]:
        """Names of the residual parameters: of ``"a"`` and ``"b"``."""

    @property
    @abstractmethod
    def formula(self) -> str:
        """Standard deviation of an observation, as text."""

    @property
    def positive(self) -> bool:
        """Whether observations and predictions must be positive."""
        return False

    @property
    def start(self) -> Array:
        """Starting (a, b), shape (2,); 0 for one that the model does not have."""
        return np.array([float(getattr(self, name, 0.0)) for name in ("a", "b")])

    def problems(self) -> list[Problem]:
        """List what is wrong with this error model, each with its remedy."""
        found = []
        for name in self.param_names:
            value = getattr(self, name)
            if not is_number(value) or not value > 0:
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
    a : float
        Value to start from.
    """

    a: float = 1.0

    code = 0
    param_names = ("a",)
    formula = "a"


@dataclass(frozen=True)
class ProportionalError(ErrorModel):
    """Residual standard deviation b f, proportional to the prediction.

    Parameters
    ----------
    b : float
        Value to start from; a fraction.
    """

    b: float = 0.3

    code = 1
    param_names = ("b",)
    formula = "b f"


@dataclass(frozen=True)
class CombinedError(ErrorModel):
    """Constant and proportional error together.

    Parameters
    ----------
    a : float
        Value to start from, in the units of the response.
    b : float
        Value to start from; a fraction.
    form : {"sum", "variance"}
        Whether standard deviations add up, ``a + b f`` (often called
        combined1), or variances, ``sqrt(a^2 + b^2 f^2)`` (combined2).
    """

    a: float = 1.0
    b: float = 0.3
    form: str = "sum"

    param_names = ("a", "b")

    @property
    def code(self) -> int:
        """Number of the error model in compiled code."""
        return 3 if self.form == "variance" else 2

    @property
    def formula(self) -> str:
        """Standard deviation of an observation, as text."""
        return "sqrt(a^2 + b^2 f^2)" if self.form == "variance" else "a + b f"

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
class ExponentialError(ErrorModel):
    """Gaussian error of the logarithm; response and prediction must be positive.

    Parameters
    ----------
    a : float
        Standard deviation of log y to start from.
    """

    a: float = 0.3

    code = 4
    param_names = ("a",)
    formula = "a on the log scale"
    positive = True


#: Short names, as a command line uses them.
NAMES: dict[str, ErrorModel] = {
    "constant": ConstantError(),
    "proportional": ProportionalError(),
    "combined": CombinedError(),
    "combined-variance": CombinedError(form="variance"),
    "exponential": ExponentialError(),
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
