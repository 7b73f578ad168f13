"""Individual parameters: typical value, random effect, transformation, covariates.

An individual parameter psi lives on its natural scale (litres, hours); the
model is Gaussian in ``phi = u(psi)``:

    phi_i = u(typical value) + covariates_i @ beta + eta_i,   eta ~ N(0, Omega).

| class | u(psi) | range of psi |
| --- | --- | --- |
| `Normal` | psi | all numbers |
| `LogNormal` | log(psi) | positive |
| `LogitNormal` | log((psi - lower) / (upper - psi)) | between the bounds |
| `ProbitNormal` | Phi^-1((psi - lower) / (upper - lower)) | between the bounds |
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from saem.contract import Array

__all__ = ["LogNormal", "LogitNormal", "Normal", "Parameter", "ProbitNormal", "is_number"]

#: What is wrong, and the remedy.
Problem = tuple[str, str]


def is_number(value: object) -> bool:
    """Whether a value is a finite real number, not a boolean.

    Parameters
    ----------
    value : object

    Returns
    -------
    bool
    """
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Parameter(ABC):
    """Base of the four kinds of parameter; use one of those.

    Parameters
    ----------
    start : float
        Typical value to start from, on the natural scale (that of psi).
    omega : float, optional
        Starting *standard deviation* of the random effect, on the Gaussian
        scale (that of phi); see `start_omega` for the default.
    covariates : str, optional
        Right-hand side of a formula over subject-level columns, for instance
        ``"log(Wt / 70)"``. Its intercept is implied: it is the typical value,
        so covariates should be centred on a typical subject.
    random : bool
        Whether the parameter has a random effect.
    fixed : bool
        Keep the typical value at `start` instead of estimating it.
    fixed_omega : bool
        Keep the standard deviation at `omega` instead of estimating it.
    """

    start: float
    _: KW_ONLY
    omega: float | None = None
    covariates: str | None = None
    random: bool = True
    fixed: bool = False
    fixed_omega: bool = False

    #: Number of the transformation in compiled code.
    code: ClassVar[int]

    @property
    def bounds(self) -> tuple[float, float]:
        """Open interval in which psi lies."""
        return -math.inf, math.inf

    @property
    def start_omega(self) -> float:
        """Starting standard deviation of the random effect; 0 without one.

        The default is 1 on a log, logit or probit scale: wide, since a start
        that is too narrow traps the first iterations. A `Normal` parameter has
        units, so there it is 30 % of the typical value (1 if that is 0). Other
        programs start from the *square of the typical value* as variance,
        which is wide enough that individual parameters change sign and roles,
        and ends in far worse optima.
        """
        if not self.random:
            return 0.0
        return self._default_omega if self.omega is None else float(self.omega)

    @property
    def _default_omega(self) -> float:
        return 1.0

    @abstractmethod
    def to_phi(self, psi: ArrayLike) -> Array:
        """Map natural-scale values to the Gaussian scale, elementwise."""

    @abstractmethod
    def to_psi(self, phi: ArrayLike) -> Array:
        """Map Gaussian-scale values to the natural scale, elementwise."""

    @abstractmethod
    def dpsi_dphi(self, phi: ArrayLike) -> Array:
        """Derivative of `to_psi` at phi, elementwise."""

    def problems(self, name: str) -> list[Problem]:
        """List what is wrong with this parameter.

        Parameters
        ----------
        name : str
            Name under which the model knows the parameter.

        Returns
        -------
        list of (str, str)
            Each problem with its remedy; empty when all is well.
        """
        return [
            (f"parameter {name!r}: {text}", remedy)
            for found in (self._range_problems(), self._option_problems())
            for text, remedy in found
        ]

    def _range_problems(self) -> Iterator[Problem]:
        low, high = self.bounds
        if not is_number(self.start):
            yield f"start is {self.start!r}, not a finite number", "give a typical value"
        elif not low < self.start < high:
            kind = type(self).__name__
            rule = "positive" if high == math.inf else f"between {low:g} and {high:g}"
            remedy = "use Normal" if high == math.inf else "set other bounds (lower=, upper=)"
            yield (
                f"start is {self.start!r}, but a {kind} parameter must be {rule}",
                f"start from a {rule} value, or {remedy}",
            )

    def _option_problems(self) -> Iterator[Problem]:
        for option in ("random", "fixed", "fixed_omega"):
            value = getattr(self, option)
            if not isinstance(value, (bool, np.bool_)):
                yield f"{option} is {value!r}, not True or False", f"set {option}=True or False"
        if self.omega is not None:
            if not is_number(self.omega) or not self.omega > 0:
                yield (
                    f"omega is {self.omega!r}, but a standard deviation must be positive and "
                    "finite",
                    "give a positive omega, or random=False for no random effect",
                )
            if not self.random:
                yield (
                    f"omega is {self.omega!r}, but random=False says there is no random effect",
                    "leave one of the two out",
                )
        if self.fixed_omega and (not self.random or self.omega is None):
            missing = "there is no random effect" if not self.random else "no omega is given"
            yield f"fixed_omega=True, but {missing}", "state the value to keep, omega=..."
        if self.covariates is not None and not isinstance(self.covariates, str):
            yield (
                f"covariates is {self.covariates!r}, not a formula",
                'write the formula as text, for instance covariates="log(Wt / 70)"',
            )


@dataclass(frozen=True)
class Normal(Parameter):
    """A parameter that is Gaussian as it stands: phi = psi.

    See `Parameter` for the options. The default `omega` is 30 % of the typical
    value, or 1 if that is 0.

    Examples
    --------
    >>> Normal(200.0).start_omega
    60.0
    """

    code: ClassVar[int] = 0

    @property
    def _default_omega(self) -> float:
        return 0.3 * abs(float(self.start)) or 1.0

    def to_phi(self, psi: ArrayLike) -> Array:
        """Map natural-scale values to the Gaussian scale: no change."""
        return np.array(psi, dtype=float)

    def to_psi(self, phi: ArrayLike) -> Array:
        """Map Gaussian-scale values to the natural scale: no change."""
        return np.array(phi, dtype=float)

    def dpsi_dphi(self, phi: ArrayLike) -> Array:
        """Derivative of `to_psi`: 1."""
        return np.ones_like(np.asarray(phi, dtype=float))


@dataclass(frozen=True)
class LogNormal(Parameter):
    """A positive parameter whose logarithm is Gaussian.

    See `Parameter` for the options. `omega` is then close to the coefficient
    of variation between subjects.

    Examples
    --------
    >>> volume = LogNormal(20.0, covariates="log(Wt / 70)")
    >>> float(volume.to_psi(volume.to_phi(20.0)).round(6))
    20.0
    """

    code: ClassVar[int] = 1

    @property
    def bounds(self) -> tuple[float, float]:
        """Open interval in which psi lies."""
        return 0.0, math.inf

    def to_phi(self, psi: ArrayLike) -> Array:
        """Map natural-scale values to the Gaussian scale: the logarithm."""
        return np.log(np.asarray(psi, dtype=float))

    def to_psi(self, phi: ArrayLike) -> Array:
        """Map Gaussian-scale values to the natural scale: the exponential."""
        return np.exp(np.asarray(phi, dtype=float))

    def dpsi_dphi(self, phi: ArrayLike) -> Array:
        """Derivative of `to_psi`: psi itself."""
        return self.to_psi(phi)


@dataclass(frozen=True)
class _Bounded(Parameter):
    """A parameter between two bounds."""

    lower: float = 0.0
    upper: float = 1.0

    @property
    def bounds(self) -> tuple[float, float]:
        """Open interval in which psi lies."""
        return float(self.lower), float(self.upper)

    def _range_problems(self) -> Iterator[Problem]:
        ends = (self.lower, self.upper)
        if all(map(is_number, ends)) and self.lower < self.upper:
            yield from super()._range_problems()
        else:
            yield (
                f"bounds are {self.lower!r} and {self.upper!r}, but must be finite numbers, the "
                "lower below the upper",
                "give lower < upper",
            )

    def _share(self, psi: ArrayLike) -> Array:
        """Position of psi between the bounds, 0 to 1."""
        return (np.asarray(psi, dtype=float) - self.lower) / (self.upper - self.lower)


@dataclass(frozen=True)
class LogitNormal(_Bounded):
    """A parameter between two bounds whose logit is Gaussian.

    Parameters
    ----------
    start : float
        Typical value to start from, between the bounds.
    lower, upper : float
        The bounds.
    **options
        Those of `Parameter`.

    Examples
    --------
    >>> LogitNormal(0.5).problems("F")
    []
    """

    code: ClassVar[int] = 2

    def to_phi(self, psi: ArrayLike) -> Array:
        """Map natural-scale values to the Gaussian scale: the logit."""
        values = np.asarray(psi, dtype=float)
        return np.log((values - self.lower) / (self.upper - values))

    def to_psi(self, phi: ArrayLike) -> Array:
        """Map Gaussian-scale values to the natural scale: the inverse logit."""
        return self.lower + (self.upper - self.lower) * _expit(phi)

    def dpsi_dphi(self, phi: ArrayLike) -> Array:
        """Derivative of `to_psi`."""
        return (self.upper - self.lower) * _expit(phi) * _expit(-np.asarray(phi, dtype=float))


@dataclass(frozen=True)
class ProbitNormal(_Bounded):
    """A parameter between two bounds whose probit is Gaussian.

    Parameters
    ----------
    start : float
        Typical value to start from, between the bounds.
    lower, upper : float
        The bounds.
    **options
        Those of `Parameter`.

    Examples
    --------
    >>> float(ProbitNormal(0.5).to_phi(0.5))
    0.0
    """

    code: ClassVar[int] = 3

    def to_phi(self, psi: ArrayLike) -> Array:
        """Map natural-scale values to the Gaussian scale: the normal quantile."""
        from scipy.special import ndtri

        return np.asarray(ndtri(self._share(psi)))

    def to_psi(self, phi: ArrayLike) -> Array:
        """Map Gaussian-scale values to the natural scale: the normal distribution function."""
        from scipy.special import ndtr

        return np.asarray(self.lower + (self.upper - self.lower) * ndtr(np.asarray(phi, float)))

    def dpsi_dphi(self, phi: ArrayLike) -> Array:
        """Derivative of `to_psi`: the normal density times the width of the range."""
        values = np.asarray(phi, dtype=float)
        density: Any = np.exp(-0.5 * values**2) / math.sqrt(2.0 * math.pi)
        return np.asarray((self.upper - self.lower) * density)


def _expit(phi: ArrayLike) -> Array:
    # 0.5 (1 + tanh(x / 2)) cannot overflow, but loses all digits in the lower tail.
    values = np.asarray(phi, dtype=float)
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, small) / (1.0 + small)
