"""Pharmacokinetic models of the library, in closed form after one dose at time 0.

One compartment empties at the rate k = CL / V. Two compartments of volumes V1 (central) and
V2, with the clearance Q between them, empty as the sum of two exponentials (Gibaldi and
Perrier 1982, Pharmacokinetics, 2nd ed., chapter 2). Every model here is a sum of positive
terms, one for each exponential, so that no digits cancel; what depends on the individual only is
computed before the loops.
"""

from __future__ import annotations

import numpy as np

from saem._jit import helper, kernel
from saem._math import exp
from saem._types import STRUCTURAL
from saem.contract import Array


@helper(fastmath={"contract"})
def _washed(rate: float, inverse: float, t: float) -> float:
    """Stable ``(1 - exp(-rate t)) / rate`` for rate t >= 0, given ``inverse = 1 / rate``.

    It is the integral of exp(-rate s) from 0 to t, which is t where rate is 0.
    Below ``x = rate t = 1/256`` the difference loses digits (1e-13 there) and
    the series, cut after the fourth power, is exact to 2e-15.
    """
    x = rate * t
    series = t * (1.0 - x * (1 / 2 - x * (1 / 6 - x * (1 / 24 - x * (1 / 120)))))
    direct = (1.0 - exp(-x)) * inverse
    return series if x < 0.00390625 else direct


@helper(fastmath={"contract"})
def _oral(
    ka: float, k: float, scale: float, lag: float, time: Array, amt: Array, out: Array
) -> None:
    """One compartment, first-order absorption from `lag` on; ``scale`` is ka / V.

    ``(exp(-k t) - exp(-ka t)) / (ka - k) = exp(-slow t) (1 - exp(-gap t)) / gap``
    with ``slow = min(ka, k)`` and ``gap = |ka - k|``: no cancellation where the
    two rates come close or time is short, and t exp(-k t) where they are equal.
    """
    slow = min(ka, k)
    gap = abs(ka - k)
    inverse = 1.0 / gap
    for j in range(out.size):
        t = time[j] - lag
        value = amt[j] * scale * exp(-slow * t) * _washed(gap, inverse, t)
        out[j] = 0.0 if t < 0.0 else value


@kernel(STRUCTURAL, deferred=True)
def oral_1cpt(psi: Array, columns: Array, out: Array) -> None:
    """One compartment, first-order absorption, by clearance."""
    ka, volume, clearance = psi[0], psi[1], psi[2]
    _oral(ka, clearance / volume, ka / volume, 0.0, columns[0], columns[1], out)


@kernel(STRUCTURAL, deferred=True)
def oral_1cpt_lag(psi: Array, columns: Array, out: Array) -> None:
    """One compartment, first-order absorption after a lag, by clearance."""
    ka, volume, clearance, lag = psi[0], psi[1], psi[2], psi[3]
    _oral(ka, clearance / volume, ka / volume, lag, columns[0], columns[1], out)


@kernel(STRUCTURAL, deferred=True)
def oral_1cpt_k(psi: Array, columns: Array, out: Array) -> None:
    """One compartment, first-order absorption, by elimination rate."""
    ka, volume, k = psi[0], psi[1], psi[2]
    _oral(ka, k, ka / volume, 0.0, columns[0], columns[1], out)


@kernel(STRUCTURAL, deferred=True)
def iv_bolus_1cpt(psi: Array, columns: Array, out: Array) -> None:
    """One compartment, dose given at once into it."""
    volume, clearance = psi[0], psi[1]
    k = clearance / volume
    for j in range(out.size):
        t = columns[0, j]
        value = columns[1, j] / volume * exp(-k * t)
        out[j] = 0.0 if t < 0.0 else value


@kernel(STRUCTURAL, deferred=True)
def infusion_1cpt(psi: Array, columns: Array, out: Array) -> None:
    """One compartment, dose given at constant rate; duration 0 is a bolus."""
    volume, clearance = psi[0], psi[1]
    k = clearance / volume
    inverse = 1.0 / k
    for j in range(out.size):
        t, duration = columns[0, j], columns[2, j]
        infused = min(t, duration)
        kept = _washed(k, inverse, infused) / duration if duration > 0.0 else 1.0
        value = columns[1, j] / volume * kept * exp(-k * (t - infused))
        out[j] = 0.0 if t < 0.0 else value


@helper
def _exponentials(
    central: float, between: float, peripheral: float, clearance: float
) -> tuple[float, float, float, float]:
    """Rates of two compartments, and their shares in the central one after a unit bolus.

    With k10 = CL / V1, k12 = Q / V1 and k21 = Q / V2 the rates are the roots of
    ``s^2 - (k10 + k12 + k21) s + k10 k21``, the shares ``(fast - k21) / (fast - slow)`` and
    ``(k21 - slow) / (fast - slow)``. The product of the two numerators is k12 k21: the greater is
    computed and the other got from it, so that neither cancels; likewise the two rates.
    """
    k10, k12, k21 = clearance / central, between / central, between / peripheral
    excess = k10 + k12 - k21
    gap = np.sqrt(excess * excess + 4.0 * k12 * k21)
    greater = 0.5 * (abs(excess) + gap)
    smaller = k12 * k21 / greater if greater > 0.0 else 0.0
    of_fast = greater if excess >= 0.0 else smaller
    of_slow = smaller if excess >= 0.0 else greater
    total = of_fast + of_slow
    fast = 0.5 * (k10 + k12 + k21 + gap)
    slow = k10 * k21 / fast
    if total == 0.0:  # equal rates: no exchange, and one share is all
        return fast, slow, 0.0, 1.0
    return fast, slow, of_fast / total, of_slow / total


@kernel(STRUCTURAL, deferred=True)
def iv_bolus_2cpt(psi: Array, columns: Array, out: Array) -> None:
    """Two compartments, dose given at once into the central one."""
    fast, slow, first, second = _exponentials(psi[0], psi[1], psi[2], psi[3])
    scale = 1.0 / psi[0]
    for j in range(out.size):
        t = columns[0, j]
        value = columns[1, j] * scale * (first * exp(-fast * t) + second * exp(-slow * t))
        out[j] = 0.0 if t < 0.0 else value


@kernel(STRUCTURAL, deferred=True)
def infusion_2cpt(psi: Array, columns: Array, out: Array) -> None:
    """Two compartments, dose given at constant rate; duration 0 is a bolus."""
    fast, slow, first, second = _exponentials(psi[0], psi[1], psi[2], psi[3])
    scale = 1.0 / psi[0]
    by_fast, by_slow = 1.0 / fast, 1.0 / slow
    for j in range(out.size):
        t, duration = columns[0, j], columns[2, j]
        infused = min(t, duration)
        rest = t - infused
        share = 1.0 / duration if duration > 0.0 else 1.0
        of_fast = _washed(fast, by_fast, infused) if duration > 0.0 else 1.0
        of_slow = _washed(slow, by_slow, infused) if duration > 0.0 else 1.0
        value = first * of_fast * exp(-fast * rest) + second * of_slow * exp(-slow * rest)
        out[j] = 0.0 if t < 0.0 else columns[1, j] * scale * share * value


@helper(fastmath={"contract"})
def _oral_2cpt(
    ka: float,
    central: float,
    between: float,
    peripheral: float,
    clearance: float,
    lag: float,
    time: Array,
    amt: Array,
    out: Array,
) -> None:
    """Two compartments, first-order absorption: the sum of `_oral` over both exponentials."""
    fast, slow, first, second = _exponentials(central, between, peripheral, clearance)
    scale = ka / central
    less, more = min(ka, fast), min(ka, slow)
    gap, other = abs(ka - fast), abs(ka - slow)
    inverse, reciprocal = 1.0 / gap, 1.0 / other
    for j in range(out.size):
        t = time[j] - lag
        value = first * exp(-less * t) * _washed(gap, inverse, t)
        value += second * exp(-more * t) * _washed(other, reciprocal, t)
        out[j] = 0.0 if t < 0.0 else amt[j] * scale * value


@kernel(STRUCTURAL, deferred=True)
def oral_2cpt(psi: Array, columns: Array, out: Array) -> None:
    """Two compartments, first-order absorption into the central one."""
    _oral_2cpt(
        psi[0], psi[1], psi[2], psi[3], psi[4], 0.0, columns[0], columns[1], out,
    )  # fmt: skip


@kernel(STRUCTURAL, deferred=True)
def oral_2cpt_lag(psi: Array, columns: Array, out: Array) -> None:
    """Two compartments, first-order absorption into the central one after a lag."""
    _oral_2cpt(
        psi[0], psi[1], psi[2], psi[3], psi[4], psi[5], columns[0], columns[1], out,
    )  # fmt: skip
