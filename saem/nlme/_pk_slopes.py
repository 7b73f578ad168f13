"""Exact derivatives of the pharmacokinetic models of the library by their parameters.

Each function writes ``slopes[m, j]``, the derivative of prediction j of its namesake in
`saem.nlme._pk` by parameter m (signature `saem._types.JACOBIAN`). All come from
the integral of one exponential,

    E(r, t) = (1 - exp(-r t)) / r,    dE/dt = 1 - r E,    dE/dr = (t (1 - r E) - E) / r,

so that derivatives need no exponentials beyond those of the prediction. Where the prediction is 0,
before the dose or the lag, so are its derivatives; at the lag itself they are those from the right.
"""

from __future__ import annotations

import numpy as np

from saem._jit import helper, kernel
from saem._math import exp
from saem._types import JACOBIAN
from saem.contract import Array

#: Below this r t the derivative of E by r is taken from its series, whose error is 1e-15 there.
_SHORT = 0.0625


@helper
def _integral(rate: float, t: float) -> tuple[float, float, float]:
    """Return E(rate, t), its derivative by the rate, and exp(-rate t)."""
    x = rate * t
    decay = exp(-x)
    if x < _SHORT:
        value = t * (
            1.0
            - x * (1 / 2 - x * (1 / 6 - x * (1 / 24 - x * (1 / 120 - x * (1 / 720 - x / 5040)))))
        )
        slope = (
            -t
            * t
            * (
                1 / 2
                - x
                * (
                    1 / 3
                    - x * (1 / 8 - x * (1 / 30 - x * (1 / 144 - x * (1 / 840 - x * (1 / 5760)))))
                )
            )
        )
        return value, slope, decay
    value = (1.0 - decay) / rate
    return value, (t * decay - value) / rate, decay


@helper
def _absorbed(ka: float, k: float, t: float) -> tuple[float, float, float, float]:
    """``g = (exp(-k t) - exp(-ka t)) / (ka - k)`` and its derivatives by ka, k and t.

    With ``slow = min(ka, k)`` and ``gap = |ka - k|``, ``g = exp(-slow t) E(gap, t)``.
    """
    slow, gap = min(ka, k), abs(ka - k)
    integral, by_gap, _ = _integral(gap, t)
    decay = exp(-slow * t)
    value = decay * integral
    by_fast = decay * by_gap
    by_slow = -t * value - by_fast
    by_time = decay * (1.0 - gap * integral - slow * integral)
    if ka >= k:
        return value, by_fast, by_slow, by_time
    return value, by_slow, by_fast, by_time


@helper
def _oral(
    ka: float, volume: float, k: float, lag: float, columns: Array, by_lag: Array, slopes: Array
) -> None:
    """One compartment: rows 0 and 1 by ka and V at a fixed k, row 2 by k; `by_lag` by the lag."""
    for j in range(slopes.shape[1]):
        t = columns[0, j] - lag
        value, by_ka, by_rate, by_time = _absorbed(ka, k, max(t, 0.0))
        dose = columns[1, j] / volume if t >= 0.0 else 0.0
        slopes[0, j] = dose * (value + ka * by_ka)
        slopes[1, j] = -dose * ka * value / volume
        slopes[2, j] = dose * ka * by_rate
        by_lag[j] = -dose * ka * by_time


@helper
def _by_clearance(volume: float, clearance: float, of_volume: Array, of_k: Array) -> None:
    """Turn derivatives by (V, k) into those by (V, CL), with ``k = CL / V``."""
    for j in range(of_k.size):
        by_k = of_k[j] / volume
        of_volume[j] -= by_k * clearance / volume
        of_k[j] = by_k


@kernel(JACOBIAN, deferred=True)
def oral_1cpt(psi: Array, columns: Array, work: Array, slopes: Array) -> None:
    """One compartment, first-order absorption, by clearance."""
    _oral(psi[0], psi[1], psi[2] / psi[1], 0.0, columns, work, slopes)
    _by_clearance(psi[1], psi[2], slopes[1], slopes[2])


@kernel(JACOBIAN, deferred=True)
def oral_1cpt_lag(psi: Array, columns: Array, work: Array, slopes: Array) -> None:
    """One compartment, first-order absorption after a lag, by clearance."""
    _oral(psi[0], psi[1], psi[2] / psi[1], psi[3], columns, slopes[3], slopes)
    _by_clearance(psi[1], psi[2], slopes[1], slopes[2])


@kernel(JACOBIAN, deferred=True)
def oral_1cpt_k(psi: Array, columns: Array, work: Array, slopes: Array) -> None:
    """One compartment, first-order absorption, by elimination rate."""
    _oral(psi[0], psi[1], psi[2], 0.0, columns, work, slopes)


@helper
def _infused(rate: float, t: float, duration: float) -> tuple[float, float]:
    """What is left at t of a unit dose given from 0 to `duration`; and its derivative by the rate.

    ``E(rate, s) exp(-rate (t - s)) / duration`` with ``s = min(t, duration)``, or a bolus.
    """
    infused = min(t, duration)
    rest = t - infused
    decay = exp(-rate * rest)
    if not duration > 0.0:
        return decay, -rest * decay
    value, slope, _ = _integral(rate, infused)
    return value * decay / duration, (slope - rest * value) * decay / duration


@helper
def _one(psi: Array, columns: Array, infusion: bool, slopes: Array) -> None:
    """One compartment, doses into it: by V and CL."""
    volume, clearance = psi[0], psi[1]
    k = clearance / volume
    for j in range(slopes.shape[1]):
        t = columns[0, j]
        duration = columns[2, j] if infusion else 0.0
        value, by_k = _infused(k, max(t, 0.0), duration)
        dose = columns[1, j] / volume if t >= 0.0 else 0.0
        slopes[0, j] = -dose * (value + k * by_k) / volume
        slopes[1, j] = dose * by_k / volume


@kernel(JACOBIAN, deferred=True)
def iv_bolus_1cpt(psi: Array, columns: Array, work: Array, slopes: Array) -> None:
    """One compartment, dose given at once into it."""
    _one(psi, columns, False, slopes)


@kernel(JACOBIAN, deferred=True)
def infusion_1cpt(psi: Array, columns: Array, work: Array, slopes: Array) -> None:
    """One compartment, dose given at constant rate; duration 0 is a bolus."""
    _one(psi, columns, True, slopes)


@helper
def _rates(
    central: float, between: float, peripheral: float, clearance: float
) -> tuple[float, float, float, float, float, float, float, float]:
    """Rates and first share of two compartments, and what their derivatives are made of.

    Returns fast, slow, the share of the fast exponential, gap = fast - slow, k10, k12, k21 and
    ``excess = fast - k21``.
    """
    k10, k12, k21 = clearance / central, between / central, between / peripheral
    excess = k10 + k12 - k21
    gap = np.sqrt(excess * excess + 4.0 * k12 * k21)
    fast = 0.5 * (k10 + k12 + k21 + gap)
    # fast - k21 is the root that does not cancel, or the product of both over it.
    over = 0.5 * (gap + abs(excess))
    over = over if excess >= 0.0 else k12 * k21 / over
    return fast, k10 * k21 / fast, over / gap, gap, k10, k12, k21, over


@helper
def _moved(
    d10: float, d12: float, d21: float, fast: float, slow: float, gap: float,
    k10: float, k21: float, over: float,
) -> tuple[float, float, float]:  # fmt: skip
    """Changes of fast, slow and the share with changes of k10, k12 and k21.

    For a root r of ``s^2 - S s + P``, ``dr = (r dS - dP) / (2 r - S)``, with
    ``S = k10 + k12 + k21`` and ``P = k10 k21``.
    """
    d_sum, d_product = d10 + d12 + d21, d10 * k21 + k10 * d21
    d_fast = (fast * d_sum - d_product) / gap
    d_slow = (d_product - slow * d_sum) / gap
    return d_fast, d_slow, (d_fast - d21 - over * (d_fast - d_slow) / gap) / gap


@helper
def _two(
    at: int, lag: float, columns: Array, psi: Array, infusion: bool, oral: bool, slopes: Array
) -> None:
    """Two compartments; their parameters V1, Q, V2, CL begin at place `at` of psi.

    ``f = dose scale (A h(fast) + (1 - A) h(slow))``, scale 1 / V1 or ka / V1.
    """
    v1, v2 = psi[at], psi[at + 2]
    fast, slow, share, gap, k10, k12, k21, over = _rates(v1, psi[at + 1], v2, psi[at + 3])
    moved = (
        _moved(-k10 / v1, -k12 / v1, 0.0, fast, slow, gap, k10, k21, over),
        _moved(0.0, 1.0 / v1, 1.0 / v2, fast, slow, gap, k10, k21, over),
        _moved(0.0, 0.0, -k21 / v2, fast, slow, gap, k10, k21, over),
        _moved(1.0 / v1, 0.0, 0.0, fast, slow, gap, k10, k21, over),
    )
    rest = 1.0 - share
    ka = psi[0] if oral else 1.0
    for j in range(slopes.shape[1]):
        t = max(columns[0, j] - lag, 0.0)
        dose = columns[1, j] * ka / v1 if columns[0, j] >= lag else 0.0
        if oral:
            first, first_ka, first_rate, first_time = _absorbed(ka, fast, t)
            second, second_ka, second_rate, second_time = _absorbed(ka, slow, t)
        else:
            duration = columns[2, j] if infusion else 0.0
            first, first_rate = _infused(fast, t, duration)
            second, second_rate = _infused(slow, t, duration)
        value = share * first + rest * second
        for m in range(4):
            d_fast, d_slow, d_share = moved[m]
            slope = share * first_rate * d_fast + rest * second_rate * d_slow
            slopes[at + m, j] = dose * (slope + d_share * (first - second))
        slopes[at, j] -= dose * value / v1
        if oral:
            slopes[0, j] = dose * (value / ka + share * first_ka + rest * second_ka)
            if slopes.shape[0] > at + 4:
                slopes[at + 4, j] = -dose * (share * first_time + rest * second_time)


@kernel(JACOBIAN, deferred=True)
def iv_bolus_2cpt(psi: Array, columns: Array, work: Array, slopes: Array) -> None:
    """Two compartments, dose given at once into the central one."""
    _two(0, 0.0, columns, psi, False, False, slopes)


@kernel(JACOBIAN, deferred=True)
def infusion_2cpt(psi: Array, columns: Array, work: Array, slopes: Array) -> None:
    """Two compartments, dose given at constant rate; duration 0 is a bolus."""
    _two(0, 0.0, columns, psi, True, False, slopes)


@kernel(JACOBIAN, deferred=True)
def oral_2cpt(psi: Array, columns: Array, work: Array, slopes: Array) -> None:
    """Two compartments, first-order absorption into the central one."""
    _two(1, 0.0, columns, psi, False, True, slopes)


@kernel(JACOBIAN, deferred=True)
def oral_2cpt_lag(psi: Array, columns: Array, work: Array, slopes: Array) -> None:
    """Two compartments, first-order absorption into the central one after a lag."""
    _two(1, psi[5], columns, psi, False, True, slopes)
