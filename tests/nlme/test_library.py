"""Library models against scalar references in plain Python and high-precision arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest

from saem.nlme.library import LIBRARY, list_models
from saem.nlme.structural import resolve_structural

pytestmark = pytest.mark.nojit


def bateman(ka, k, time):
    """Difference of exponentials over difference of rates, without cancellation."""
    if time < 0:
        return 0.0
    gap = abs(ka - k)
    rest = -math.expm1(-gap * time) / gap if gap else time
    return math.exp(-min(ka, k) * time) * rest


def oral_1cpt(ka, V, CL, *, time, amt):
    return amt * ka / V * bateman(ka, CL / V, time)


def oral_1cpt_k(ka, V, k, *, time, amt):
    return amt * ka / V * bateman(ka, k, time)


def iv_bolus_1cpt(V, CL, *, time, amt):
    return amt / V * math.exp(-CL / V * time) if time >= 0 else 0.0


def infusion_1cpt(V, CL, *, time, amt, duration):
    if time < 0:
        return 0.0
    if duration == 0:
        return iv_bolus_1cpt(V, CL, time=time, amt=amt)
    k = CL / V
    at_end = amt / (duration * CL) * -math.expm1(-k * min(time, duration))
    return at_end * math.exp(-k * max(0.0, time - duration))


def emax(E0, Emax, EC50, *, dose):
    return E0 + Emax * dose / (EC50 + dose)


def sigmoid_emax(E0, Emax, EC50, gamma, *, dose):
    return E0 + Emax * dose**gamma / (EC50**gamma + dose**gamma)


def linear(base, slope, *, time):
    return base + slope * time


def logistic(Asym, xmid, scal, *, time):
    return Asym / (1 + math.exp((xmid - time) / scal))


def gompertz(Asym, b2, b3, *, time):
    return Asym * math.exp(-b2 * b3**time)


def asymptotic(Asym, R0, lrc, *, time):
    return Asym + (R0 - Asym) * math.exp(-math.exp(lrc) * time)


TIMES = np.array([-1.0, 0.0, 1e-9, 0.25, 1.0, 2.0, 5.0, 24.0, 200.0])
CASES = {
    "pk.oral_1cpt": (oral_1cpt, [1.5, 30.0, 3.0], [TIMES, np.full(9, 320.0)]),
    "pk.oral_1cpt_k": (oral_1cpt_k, [1.5, 30.0, 0.1], [TIMES, np.full(9, 320.0)]),
    "pk.iv_bolus_1cpt": (iv_bolus_1cpt, [30.0, 3.0], [TIMES, np.full(9, 320.0)]),
    "pk.infusion_1cpt": (
        infusion_1cpt,
        [30.0, 3.0],
        [TIMES, np.full(9, 320.0), np.array([2.0, 2, 2, 2, 2, 2, 0, 0, 1e-3])],
    ),
    "pd.emax": (emax, [5.0, 30.0, 40.0], [np.array([0.0, 1.0, 40.0, 1e6])]),
    "pd.sigmoid_emax": (sigmoid_emax, [5.0, 30, 40, 1.7], [np.array([0.0, 1.0, 40.0, 1e6])]),
    "growth.linear": (linear, [140.0, 6.0], [np.linspace(-1, 1, 7)]),
    "growth.logistic": (logistic, [190.0, 700.0, 350.0], [np.linspace(0, 1600, 7)]),
    "growth.gompertz": (gompertz, [4.6, 2.2, 0.7], [np.linspace(0, 10, 7)]),
    "growth.asymptotic": (asymptotic, [101.0, -8.6, -3.2], [np.linspace(3, 25, 7)]),
}


def test_every_model_has_a_reference():
    assert set(CASES) == set(LIBRARY)


@pytest.mark.parametrize("name", CASES)
def test_model_equals_its_reference(name):
    reference, psi, columns = CASES[name]
    model = resolve_structural(name)
    user = resolve_structural(reference) if name == "pd.emax" else None
    assert model.name == name
    values = np.array(columns, dtype=float)
    expected = [
        reference(*psi, **dict(zip(model.columns, row, strict=True))) for row in values.T.tolist()
    ]
    predicted = model.predict(np.array(psi, dtype=float), values)
    np.testing.assert_allclose(predicted, expected, rtol=1e-13, atol=1e-300)
    if user:
        assert (user.param_names, user.columns) == (model.param_names, model.columns)


@pytest.mark.parametrize("name", CASES)
def test_nan_parameters_give_nan(name):
    _, psi, columns = CASES[name]
    for i in range(len(psi)):
        broken = np.array(psi, dtype=float)
        broken[i] = np.nan
        later = np.array(columns, dtype=float)[:, 1:]
        predicted = resolve_structural(name).predict(broken, later)
        assert np.isnan(predicted[-2:]).all() or (name, i) == ("pd.sigmoid_emax", 1)


def exact_oral(ka, volume, k, time, amt):
    """Oral model for the exact values of its floating-point arguments, by exact fractions."""
    ka, volume, k, time, amt = map(Fraction, (ka, volume, k, time, amt))
    slow, x = min(ka, k), abs(ka - k) * time
    ratio = (1 - exact_exp(-x)) / x if x else 1
    return float(amt * ka / volume * time * exact_exp(-slow * time) * ratio)


def exact_exp(x):
    """Exponential to 40 digits, by halving the argument and a series."""
    scale = 10**60
    halvings = max(0, math.ceil(math.log2(abs(x) + 1e-300)) + 8)
    y = Fraction(round(x / 2**halvings * scale), scale)
    term = total = Fraction(1)
    for n in range(1, 30):
        term = Fraction(round(term * y / n * scale), scale)
        total += term
    for _ in range(halvings):
        total = Fraction(round(total * total * scale), scale)
    return total


@pytest.mark.parametrize("gap", [0.0, 1e-15, 1e-12, 1e-9, 1e-6, 1e-4, 1e-3, 0.01, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_flip_flop_limit_is_exact(gap, sign):
    k = 0.37
    ka = k * (1 + gap) if sign > 0 else k / (1 + gap)
    times = np.array([1e-12, 1e-7, 1e-3, 0.01, 0.1, 0.5, 1.0, 3.0, 10.0, 40.0])
    model = resolve_structural("pk.oral_1cpt_k")
    predicted = model.predict(np.array([ka, 20.0, k]), np.array([times, np.full(10, 320.0)]))
    exact = [exact_oral(ka, 20.0, k, t, 320.0) for t in times.tolist()]
    np.testing.assert_allclose(predicted, exact, rtol=1e-12)


def test_oral_model_is_smooth_through_equal_rates():
    k = np.linspace(0.99, 1.01, 2001)
    at = np.array([[2.0], [100.0]])
    model = resolve_structural("pk.oral_1cpt_k")
    values = np.array([model.predict(np.array([1.0, 10.0, x]), at)[0] for x in k])
    assert np.abs(np.diff(values, 2)).max() < 1e-4


def test_infusion_tends_to_the_bolus():
    psi = np.array([30.0, 3.0])
    columns = np.array([[1.0, 5.0], [320.0, 320.0]])
    bolus = resolve_structural("pk.iv_bolus_1cpt").predict(psi, columns)
    short = resolve_structural("pk.infusion_1cpt").predict(
        psi, np.vstack([columns, np.full(2, 1e-10)])
    )
    np.testing.assert_allclose(short, bolus, rtol=1e-10)


def test_list_models():
    listed = list_models()
    assert [m["name"] for m in listed] == list(LIBRARY)
    assert listed[0]["parameters"] == "ka, V, CL"
    assert listed[0]["columns"] == "time, amt"
    assert all(m["formula"] and m["meaning"] for m in listed)
