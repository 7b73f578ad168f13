"""Structural models that come with the library.

Each is one compiled loop over the rows of an individual, with the signature
`saem._types.STRUCTURAL`: ``psi`` are the parameters on their natural scale,
``columns`` one row per data column, ``out`` the predictions. What depends on
the individual only is computed before the loop; the loops have selections but
no jumps, so that they become vector instructions.

Importing this module compiles the models, or reads them from the disk cache;
it is imported when the first of them is asked for.

Pharmacokinetic models (`saem.nlme._pk`) predict concentrations and are zero before
the dose (time < 0, or before the lag). Units are the user's: amount, time and
volume fix all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from saem._jit import kernel
from saem._math import exp, log
from saem._types import STRUCTURAL
from saem.contract import Array
from saem.nlme import _events, _library_slopes, _pk, _pk_slopes

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
    jacobian
        Its exact derivatives, compiled; None where they are not known.
    """

    name: str
    param_names: tuple[str, ...]
    columns: tuple[str, ...]
    formula: str
    compiled: Any
    meaning: str
    jacobian: Any = None


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
_LAG = "0 before Tlag"
_TWO = (
    "alpha + beta = k10 + k12 + k21, alpha beta = k10 k21, A = (alpha - k21) / (alpha - beta), "
    "B = 1 - A; k10 = CL / V1, k12 = Q / V1, k21 = Q / V2"
)
_ORAL_TWO = (
    "amt ka / V1 (A (exp(-alpha time) - exp(-ka time)) / (ka - alpha) "
    f"+ B (exp(-beta time) - exp(-ka time)) / (ka - beta)), {_TWO}"
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
            _pk.oral_1cpt,
            "one compartment, oral dose at time 0, by clearance",
            _pk_slopes.oral_1cpt,
        ),
        LibraryModel(
            "pk.oral_1cpt_k",
            ("ka", "V", "k"),
            ("time", "amt"),
            _ORAL,
            _pk.oral_1cpt_k,
            "one compartment, oral dose at time 0, by elimination rate",
            _pk_slopes.oral_1cpt_k,
        ),
        LibraryModel(
            "pk.iv_bolus_1cpt",
            ("V", "CL"),
            ("time", "amt"),
            "amt / V exp(-CL / V time)",
            _pk.iv_bolus_1cpt,
            "one compartment, intravenous bolus at time 0",
            _pk_slopes.iv_bolus_1cpt,
        ),
        LibraryModel(
            "pk.infusion_1cpt",
            ("V", "CL"),
            ("time", "amt", "duration"),
            _INFUSION,
            _pk.infusion_1cpt,
            "one compartment, infusion from time 0 (duration 0: bolus)",
            _pk_slopes.infusion_1cpt,
        ),
        LibraryModel(
            "pk.oral_1cpt_lag",
            ("ka", "V", "CL", "Tlag"),
            ("time", "amt"),
            f"pk.oral_1cpt at time - Tlag, {_LAG}",
            _pk.oral_1cpt_lag,
            "one compartment, oral dose at time 0, absorbed from Tlag on",
            _pk_slopes.oral_1cpt_lag,
        ),
        LibraryModel(
            "pk.iv_bolus_2cpt",
            ("V1", "Q", "V2", "CL"),
            ("time", "amt"),
            f"amt / V1 (A exp(-alpha time) + B exp(-beta time)), {_TWO}",
            _pk.iv_bolus_2cpt,
            "two compartments, intravenous bolus at time 0",
            _pk_slopes.iv_bolus_2cpt,
        ),
        LibraryModel(
            "pk.infusion_2cpt",
            ("V1", "Q", "V2", "CL"),
            ("time", "amt", "duration"),
            "pk.iv_bolus_2cpt, averaged over doses from time 0 to min(time, duration)",
            _pk.infusion_2cpt,
            "two compartments, infusion from time 0 (duration 0: bolus)",
            _pk_slopes.infusion_2cpt,
        ),
        LibraryModel(
            "pk.oral_2cpt",
            ("ka", "V1", "Q", "V2", "CL"),
            ("time", "amt"),
            _ORAL_TWO,
            _pk.oral_2cpt,
            "two compartments, oral dose at time 0",
            _pk_slopes.oral_2cpt,
        ),
        LibraryModel(
            "pk.oral_2cpt_lag",
            ("ka", "V1", "Q", "V2", "CL", "Tlag"),
            ("time", "amt"),
            f"pk.oral_2cpt at time - Tlag, {_LAG}",
            _pk.oral_2cpt_lag,
            "two compartments, oral dose at time 0, absorbed from Tlag on",
            _pk_slopes.oral_2cpt_lag,
        ),
        LibraryModel(
            "pd.emax",
            ("E0", "Emax", "EC50"),
            ("dose",),
            "E0 + Emax dose / (EC50 + dose)",
            emax,
            "effect that saturates with dose or concentration",
            _library_slopes.emax,
        ),
        LibraryModel(
            "pd.sigmoid_emax",
            ("E0", "Emax", "EC50", "gamma"),
            ("dose",),
            "E0 + Emax dose^gamma / (EC50^gamma + dose^gamma)",
            sigmoid_emax,
            "saturating effect with a Hill exponent",
            _library_slopes.sigmoid_emax,
        ),
        LibraryModel(
            "growth.linear",
            ("base", "slope"),
            ("time",),
            "base + slope time",
            linear,
            "straight line",
            _library_slopes.linear,
        ),
        LibraryModel(
            "growth.logistic",
            ("Asym", "xmid", "scal"),
            ("time",),
            "Asym / (1 + exp((xmid - time) / scal))",
            logistic,
            "symmetric S-shaped growth",
            _library_slopes.logistic,
        ),
        LibraryModel(
            "growth.gompertz",
            ("Asym", "b2", "b3"),
            ("time",),
            "Asym exp(-b2 b3^time)",
            gompertz,
            "S-shaped growth, faster early",
            _library_slopes.gompertz,
        ),
        LibraryModel(
            "growth.asymptotic",
            ("Asym", "R0", "lrc"),
            ("time",),
            "Asym + (R0 - Asym) exp(-exp(lrc) time)",
            asymptotic,
            "exponential approach to an asymptote",
            _library_slopes.asymptotic,
        ),
        # Log-likelihoods of rows, for error=saem.LogLikelihood().
        LibraryModel(
            "count.poisson",
            ("rate",),
            ("dv",),
            "dv log(rate) - rate - log(dv!)",
            _events.count_poisson,
            "log-likelihood of a count",
        ),
        LibraryModel(
            "binary.logistic",
            ("intercept", "slope"),
            ("dv", "time"),
            "log p or log(1 - p), logit p = intercept + slope time",
            _events.binary_logistic,
            "log-likelihood of yes (1) or no (0)",
        ),
        LibraryModel(
            "tte.weibull",
            ("scale", "shape"),
            ("dv", "time", "previous"),
            "dv log h(time) - H(time) + H(previous), H(t) = (t / scale)^shape, h its derivative",
            _events.tte_weibull,
            "log-likelihood of events (1), repeated or not, and of censoring (0)",
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
