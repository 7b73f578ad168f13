"""Step sizes and sample sizes as plain functions of the iteration, counted from 0.

A schedule is a small immutable object that is called with an iteration number.
Where a schedule is meant as Robbins-Monro steps, sum gamma = infinity and
sum gamma**2 < infinity hold by the checks made when it is built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from saem.exceptions import OptionError

__all__ = [
    "Adaptive",
    "Constant",
    "Geometric",
    "OnPasses",
    "Polynomial",
    "Quadratic",
    "Schedule",
    "TheoryStep",
    "TwoPhase",
    "as_schedule",
    "values",
]

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


@dataclass(frozen=True)
class Quadratic:
    """Sample sizes ``start + rate * k ** 2``, at most `limit`.

    Parameters
    ----------
    start, rate, limit : float
    """

    start: float
    rate: float = 1.0
    limit: float = float("inf")

    def __post_init__(self) -> None:
        """Check the arguments."""
        if self.start <= 0 or self.rate < 0:
            raise OptionError(
                f"start={self.start!r}, rate={self.rate!r}: start must be positive and rate "
                "not negative."
            )

    def __call__(self, k: int) -> float:
        """Value at iteration k."""
        return min(self.limit, self.start + self.rate * k**2)


@dataclass(frozen=True)
class OnPasses:
    """Another schedule on the clock of passes: its k counts passes, not iterations.

    A step that decreased with every batch would be small before the first pass is over.

    Parameters
    ----------
    schedule : Schedule
        Of the number of passes done, which need not be whole.
    iterations_per_pass : float
    """

    schedule: Schedule
    iterations_per_pass: float

    def __post_init__(self) -> None:
        """Check the argument."""
        if not self.iterations_per_pass > 0:
            raise OptionError(f"iterations_per_pass={self.iterations_per_pass!r} must be positive.")

    def __call__(self, k: int) -> float:
        """Value at iteration k."""
        return self.schedule(k / self.iterations_per_pass)  # type: ignore[arg-type]


@dataclass(frozen=True)
class TheoryStep:
    """Constant step ``min(1, scale * b * n ** -(2/3))`` for n individuals and batches of b.

    The rule under which variance-reduced EM needs O(n^(2/3) / eps) E-evaluations (Karimi,
    Wai, Moulines and Lavielle 2019, NeurIPS 32, theorems 1 and 2, where `scale` collects
    the constants of the model).

    Parameters
    ----------
    scale : float
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the argument."""
        if not self.scale > 0:
            raise OptionError(f"scale={self.scale!r} must be positive.")

    def bind(self, n: int, batch_size: int) -> Constant:
        """Return the step for n individuals."""
        return Constant(min(1.0, self.scale * batch_size * n ** (-2.0 / 3.0)))


@dataclass(frozen=True)
class Adaptive:
    """Constant-type step of variance-reduced methods that is adapted pass by pass.

    After every pass the residual ``h = sbar - s`` is compared with that of the pass before,
    in length and direction, with the coordinates weighted by their variances among individuals.
    A residual that shrinks little but keeps its direction says that the step is too short, and
    doubles it; one that hardly shrinks and has lost its direction is noise, and halves it, as
    does a step that had to be cut to stay admissible; one that has grown besides quarters it.

    Parameters
    ----------
    first : float
        Step to start with.
    least : float
        Smallest step.

    Notes
    -----
    With a rate (1 - lambda) of EM and a step rho, m iterations shrink the residual by
    ``exp(-rho m (1 - lambda))``, down to a floor of noise of order ``sqrt(rho / b)``: the best step
    balances both, and lies where the residual begins to lose its direction.
    """

    first: float
    least: float = 1e-6

    def __call__(self, k: int) -> float:
        """Step of full passes, which are free of batches' noise: that of EM."""
        return 1.0

    def after(self, step: float, cosine: float, ratio: float, cut: bool) -> float:
        """Return the step of the next pass.

        Parameters
        ----------
        step : float
            That of the pass before.
        cosine, ratio : float
            Of the residuals after and before it.
        cut : bool
            Whether steps had to be halved or projected to stay admissible.
        """
        same = cosine > _SAME_DIRECTION
        if ratio > 1.0 and not same:
            step *= 0.25
        elif cut:
            step *= 0.5
        elif same and ratio > _SHRUNK:
            step *= 2.0
        elif ratio > _STUCK:
            step *= 0.5
        return min(1.0, max(self.least, step))


#: A residual shrunk below this fraction in a pass has shrunk enough.
_SHRUNK = 0.1
#: A residual above this fraction has hardly shrunk.
_STUCK = 0.5
#: Cosine above which two residuals have the same direction.
_SAME_DIRECTION = 0.5


def values(schedule: Schedule, first: int, count: int) -> NDArray[np.float64]:
    """Values of a schedule at successive iterations.

    Parameters
    ----------
    schedule : Schedule
    first, count : int
        First iteration, and how many.

    Returns
    -------
    ndarray of shape (count,)
    """
    if isinstance(schedule, Constant):
        return np.full(count, schedule.value)
    return np.fromiter((schedule(k) for k in range(first, first + count)), float, count)


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
