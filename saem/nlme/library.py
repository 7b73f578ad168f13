"""Structural models that come with the library.

Each is one compiled loop over the rows of an individual, with the signature
`saem._types.STRUCTURAL`: ``psi`` are the parameters on their natural scale,
``columns`` one row per data column, ``out`` the predictions. What depends on
the individual only is computed before the loop; the loops have selections but
no jumps, so that they become vector instructions.

Importing this module compiles the models, or reads them from the disk cache;
it is imported when the first of them is asked for.

Pharmacokinetic models predict concentrations and are zero before the dose
(time < 0). Units are the user's: amount, time and volume fix all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from saem._jit import helper, kernel
from saem._math import exp, log
from saem._types import STRUCTURAL
from saem.contract import Array

__all__ = ["LIBRARY", "LibraryModel", "list_models"]


@dataclass(frozen=True)
class LibraryModel:
    """A structural model of the library.

    Attributes
    ----------
    name : str
        Name by which a user asks for it.
    param_names, columns : tuple of str
        Parameters, in the order of psi, and data columns.
    formula : str
        The prediction, as text.
    compiled
        The compiled loop.
    meaning : str
        One line on what it describes.
    """

    name: str
    param_names: tuple[str, ...]
    columns: tuple[str, ...]
    formula: str
    compiled: Any
    meaning: str


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
def _oral(ka: float, k: float, scale: float, time: Array, amt: Array, out: Array) -> None:
    """One compartment, first-order absorption; ``scale`` is ka / V.

    ``(exp(-k t) - exp(-ka t)) / (ka - k) = exp(-slow t) (1 - exp(-gap t)) / gap``
    with ``slow = min(ka, k)`` and ``gap = |ka - k|``: no cancellation where the
    two rates come close or time is short, and t exp(-k t) where they are equal.
    """
    slow = min(ka, k)
    gap = abs(ka - k)
    inverse = 1.0 / gap
    for j in range(out.size):
        t = time[j]
        value = amt[j] * scale * exp(-slow * t) * _washed(gap, inverse, t)
        out[j] = 0.0 if t < 0.0 else value


@kernel(STRUCTURAL, deferred=True)
def oral_1cpt(psi: Array, columns: Array, out: Array) -> None:
    """One compartment, first-order absorption, by clearance."""
    ka, volume, clearance = psi[0], psi[1], psi[2]
    _oral(ka, clearance / volume, ka / volume, columns[0], columns[1], out)


@kernel(STRUCTURAL, deferred=True)
def oral_1cpt_k(psi: Array, columns: Array, out: Array) -> None:
    """One compartment, first-order absorption, by elimination rate."""
    ka, volume, k = psi[0], psi[1], psi[2]
    _oral(ka, k, ka / volume, columns[0], columns[1], out)


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


@kernel(STRUCTURAL, deferred=True)
def emax(psi: Array, columns: Array, out: Array) -> None:
    """Effect that saturates with dose."""
    baseline, maximum, half = psi[0], psi[1], psi[2]
    for j in range(out.size):
        dose = columns[0, j]
        out[j] = baseline + maximum * dose / (half + dose)


@kernel(STRUCTURAL, deferred=True)
def sigmoid_emax(psi: Array, columns: Array, out: Array) -> None:
    """Effect that saturates with dose, with a Hill exponent."""
    baseline, maximum, gamma = psi[0], psi[1], psi[3]
    log_half = np.log(psi[2])
    for j in range(out.size):
        dose = columns[0, j]
        share = 1.0 / (1.0 + exp(gamma * (log_half - log(dose))))
        out[j] = baseline + maximum * (share if dose > 0.0 else 0.0)


@kernel(STRUCTURAL, deferred=True)
def linear(psi: Array, columns: Array, out: Array) -> None:
    """Straight line."""
    base, slope = psi[0], psi[1]
    for j in range(out.size):
        out[j] = base + slope * columns[0, j]


@kernel(STRUCTURAL, deferred=True)
def logistic(psi: Array, columns: Array, out: Array) -> None:
    """S-shaped growth, symmetric about its midpoint."""
    asymptote, midpoint, scale = psi[0], psi[1], psi[2]
    for j in range(out.size):
        out[j] = asymptote / (1.0 + exp((midpoint - columns[0, j]) / scale))


@kernel(STRUCTURAL, deferred=True)
def gompertz(psi: Array, columns: Array, out: Array) -> None:
    """S-shaped growth, faster early."""
    asymptote, shift = psi[0], psi[1]
    log_base = np.log(psi[2])
    for j in range(out.size):
        out[j] = asymptote * exp(-shift * exp(log_base * columns[0, j]))


@kernel(STRUCTURAL, deferred=True)
def asymptotic(psi: Array, columns: Array, out: Array) -> None:
    """Exponential approach to an asymptote."""
    asymptote, initial = psi[0], psi[1]
    rate = np.exp(psi[2])
    for j in range(out.size):
        out[j] = asymptote + (initial - asymptote) * exp(-rate * columns[0, j])


_ORAL = "amt ka / (V (ka - k)) (exp(-k time) - exp(-ka time))"
_INFUSION = (
    "amt / (duration CL) (1 - exp(-k min(time, duration))) exp(-k max(0, time - duration)), "
    "k = CL / V"
)

#: All models of the library, by name.
LIBRARY: dict[str, LibraryModel] = {
    model.name: model
    for model in (
        LibraryModel(
            "pk.oral_1cpt",
            ("ka", "V", "CL"),
            ("time", "amt"),
            f"{_ORAL}, k = CL / V",
            oral_1cpt,
            "one compartment, oral dose at time 0, by clearance",
        ),
        LibraryModel(
            "pk.oral_1cpt_k",
            ("ka", "V", "k"),
            ("time", "amt"),
            _ORAL,
            oral_1cpt_k,
            "one compartment, oral dose at time 0, by elimination rate",
        ),
        LibraryModel(
            "pk.iv_bolus_1cpt",
            ("V", "CL"),
            ("time", "amt"),
            "amt / V exp(-CL / V time)",
            iv_bolus_1cpt,
            "one compartment, intravenous bolus at time 0",
        ),
        LibraryModel(
            "pk.infusion_1cpt",
            ("V", "CL"),
            ("time", "amt", "duration"),
            _INFUSION,
            infusion_1cpt,
            "one compartment, infusion from time 0 (duration 0: bolus)",
        ),
        LibraryModel(
            "pd.emax",
            ("E0", "Emax", "EC50"),
            ("dose",),
            "E0 + Emax dose / (EC50 + dose)",
            emax,
            "effect that saturates with dose or concentration",
        ),
        LibraryModel(
            "pd.sigmoid_emax",
            ("E0", "Emax", "EC50", "gamma"),
            ("dose",),
            "E0 + Emax dose^gamma / (EC50^gamma + dose^gamma)",
            sigmoid_emax,
            "saturating effect with a Hill exponent",
        ),
        LibraryModel(
            "growth.linear",
            ("base", "slope"),
            ("time",),
            "base + slope time",
            linear,
            "straight line",
        ),
        LibraryModel(
            "growth.logistic",
            ("Asym", "xmid", "scal"),
            ("time",),
            "Asym / (1 + exp((xmid - time) / scal))",
            logistic,
            "symmetric S-shaped growth",
        ),
        LibraryModel(
            "growth.gompertz",
            ("Asym", "b2", "b3"),
            ("time",),
            "Asym exp(-b2 b3^time)",
            gompertz,
            "S-shaped growth, faster early",
        ),
        LibraryModel(
            "growth.asymptotic",
            ("Asym", "R0", "lrc"),
            ("time",),
            "Asym + (R0 - Asym) exp(-exp(lrc) time)",
            asymptotic,
            "exponential approach to an asymptote",
        ),
    )
}


def list_models() -> list[dict[str, str]]:
    """Structural models of the library, one record each.

    Returns
    -------
    list of dict
        With ``name``, ``parameters``, ``columns``, ``formula`` and ``meaning``;
        ``pandas.DataFrame(list_models())`` makes a table of it.
    """
    return [
        {
            "name": model.name,
            "parameters": ", ".join(model.param_names),
            "columns": ", ".join(model.columns),
            "formula": model.formula,
            "meaning": model.meaning,
        }
        for model in LIBRARY.values()
    ]
