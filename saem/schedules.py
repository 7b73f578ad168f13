"""Step sizes and sample sizes as plain functions of the iteration, counted from 0.

A schedule is a small immutable object that is called with an iteration number.
Where a schedule is meant as Robbins-Monro steps, sum gamma = infinity and
sum gamma**2 < infinity hold by the checks made when it is built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from saem.exceptions import OptionError

__all__ = ["Constant", "Geometric", "Polynomial", "Schedule", "TwoPhase", "as_schedule"]

#: Powers beyond this exponent of e count as infinite.
_LARGEST_EXPONENT = 600.0


@runtime_checkable
class Schedule(Protocol):
    """A number for every iteration."""

    def __call__(self, k: int) -> float:
        """Value at iteration k >= 0."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same value at every iteration.

    Parameters
    ----------
    value : float
    """

    value: float

    def __call__(self, k: int) -> float:
        """Value at iteration k."""
        return self.value


def _check_power(power: float) -> None:
    if not 0.5 < power <= 1.0:
        raise OptionError(
            f"power={power!r}: step sizes k**-power need 0.5 < power <= 1, so that their sum "
            "diverges and the sum of their squares does not (Robbins-Monro)."
        )


@dataclass(frozen=True)
class Polynomial:
    """Steps ``min(1, scale * (k + offset) ** -power)``.

    Parameters
    ----------
    power : float
        In (1/2, 1].
    scale, offset : float
        Positive.
    """

    power: float = 0.6
    scale: float = 1.0
    offset: float = 1.0

    def __post_init__(self) -> None:
        """Check the Robbins-Monro conditions."""
        _check_power(self.power)
        if self.scale <= 0 or self.offset <= 0:
            raise OptionError(
                f"scale={self.scale!r}, offset={self.offset!r}: both must be positive."
            )

    def __call__(self, k: int) -> float:
        """Value at iteration k."""
        return min(1.0, self.scale * (k + self.offset) ** -self.power)


@dataclass(frozen=True)
class TwoPhase:
    """Burn-in with step 0, exploration with step 1, then decreasing steps.

    gamma_k = 0 for k < burn_in, 1 for the next `exploration` iterations, then
    ``(1 + j / delay) ** -power`` with j = 0, 1, ... (Delyon, Lavielle and
    Moulines 1999, Ann. Statist. 27, section 3; Kuhn and Lavielle 2004 for the
    two phases). ``delay = 1`` is the textbook's ``(k - K1) ** -power``; with a
    larger delay the steps stay large enough for directions in which EM is slow.

    Parameters
    ----------
    burn_in, exploration : int
        Iterations of the first two phases.
    power, delay : float
        Of the steps that follow.
    """

    burn_in: int = 5
    exploration: int = 150
    power: float = 0.7
    delay: float = 1.0

    def __post_init__(self) -> None:
        """Check the Robbins-Monro conditions."""
        _check_power(self.power)
        if self.burn_in < 0 or self.exploration < 0:
            raise OptionError(
                f"burn_in={self.burn_in!r}, exploration={self.exploration!r}: "
                "numbers of iterations cannot be negative."
            )
        if self.delay <= 0:
            raise OptionError(f"delay={self.delay!r} must be positive.")

    def __call__(self, k: int) -> float:
        """Value at iteration k."""
        if k < self.burn_in:
            return 0.0
        j = k - self.burn_in - self.exploration
        return 1.0 if j <= 0 else (1.0 + j / self.delay) ** -self.power


@dataclass(frozen=True)
class Geometric:
    """Sample sizes ``start * ratio ** k``, at most `limit` (Wei and Tanner 1990).

    Parameters
    ----------
    start, ratio, limit : float
    """

    start: float
    ratio: float
    limit: float = float("inf")

    def __post_init__(self) -> None:
        """Check the arguments."""
        if self.start <= 0 or self.ratio < 1:
            raise OptionError(
                f"start={self.start!r}, ratio={self.ratio!r}: start must be positive "
                "and ratio at least 1."
            )

    def __call__(self, k: int) -> float:
        """Value at iteration k."""
        exponent = k * math.log(self.ratio)
        if exponent > _LARGEST_EXPONENT:  # the power itself would overflow
            return self.limit
        return min(self.limit, self.start * self.ratio**k)


def as_schedule(value: float | Schedule, name: str) -> Schedule:
    """Turn a number into a constant schedule; check what is neither.

    Parameters
    ----------
    value : float or Schedule
    name : str
        Name of the argument, for the message.

    Returns
    -------
    Schedule
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Constant(float(value))
    if callable(value):
        return value
    raise OptionError(f"{name} must be a number or a function of the iteration; got {value!r}.")
