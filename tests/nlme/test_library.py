"""Library models against scalar references in plain Python and high-precision arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import solve_ivp
from scipy.special import expit

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


def two_compartments(V1, Q, V2, CL):
    """Rates and shares, in sixty digits."""
    k10, k12, k21 = (Fraction(a) / Fraction(b) for a, b in ((CL, V1), (Q, V1), (Q, V2)))
    total = k10 + k12 + k21
    square = total * total - 4 * k10 * k21
    gap = Fraction(math.isqrt(int(square * 10**120)), 10**60)
    fast, slow = (total + gap) / 2, (total - gap) / 2
    return (fast, (fast - k21) / gap), (slow, (k21 - slow) / gap)


def iv_bolus_2cpt(V1, Q, V2, CL, *, time, amt):
    terms = two_compartments(V1, Q, V2, CL)
    return amt / V1 * sum(float(w) * math.exp(-float(r) * time) for r, w in terms) * (time >= 0)


def infusion_2cpt(V1, Q, V2, CL, *, time, amt, duration):
    parts = two_compartments(V1, Q, V2, CL)
    return sum(
        float(w) * infusion_1cpt(V1, V1 * float(r), time=time, amt=amt, duration=duration)
        for r, w in parts
    )


def oral_2cpt(ka, V1, Q, V2, CL, *, time, amt):
    terms = two_compartments(V1, Q, V2, CL)
    return amt * ka / V1 * sum(float(w) * bateman(ka, float(r), time) for r, w in terms)


def oral_1cpt_lag(ka, V, CL, Tlag, *, time, amt):
    return oral_1cpt(ka, V, CL, time=time - Tlag, amt=amt)


def oral_2cpt_lag(ka, V1, Q, V2, CL, Tlag, *, time, amt):
    return oral_2cpt(ka, V1, Q, V2, CL, time=time - Tlag, amt=amt)


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


def count_poisson(rate, *, dv):
    return stats.poisson.logpmf(dv, rate)


def binary_logistic(intercept, slope, *, dv, time):
    return stats.bernoulli.logpmf(dv, expit(intercept + slope * time))


def tte_weibull(scale, shape, *, dv, time, previous):
    distribution = stats.weibull_min(shape, scale=scale)
    value = distribution.logsf(time) - distribution.logsf(previous)
    return value + (distribution.logpdf(time) - distribution.logsf(time) if dv else 0.0)


TIMES = np.array([-1.0, 0.0, 1e-9, 0.25, 1.0, 2.0, 5.0, 24.0, 200.0])
TWO = [10.0, 4.0, 50.0, 3.0]
CASES = {
    "pk.oral_1cpt": (oral_1cpt, [1.5, 30.0, 3.0], [TIMES, np.full(9, 320.0)]),
    "pk.oral_1cpt_k": (oral_1cpt_k, [1.5, 30.0, 0.1], [TIMES, np.full(9, 320.0)]),
    "pk.iv_bolus_1cpt": (iv_bolus_1cpt, [30.0, 3.0], [TIMES, np.full(9, 320.0)]),
    "pk.infusion_1cpt": (
        infusion_1cpt,
        [30.0, 3.0],
        [TIMES, np.full(9, 320.0), np.array([2.0, 2, 2, 2, 2, 2, 0, 0, 1e-3])],
    ),
    "pk.oral_1cpt_lag": (oral_1cpt_lag, [1.5, 30.0, 3.0, 0.5], [TIMES, np.full(9, 320.0)]),
    "pk.iv_bolus_2cpt": (iv_bolus_2cpt, TWO, [TIMES, np.full(9, 320.0)]),
    "pk.infusion_2cpt": (
        infusion_2cpt,
        TWO,
        [TIMES, np.full(9, 320.0), np.array([2.0, 2, 2, 2, 2, 2, 0, 0, 1e-3])],
    ),
    "pk.oral_2cpt": (oral_2cpt, [1.5, *TWO], [TIMES, np.full(9, 320.0)]),
    "pk.oral_2cpt_lag": (oral_2cpt_lag, [1.5, *TWO, 0.5], [TIMES, np.full(9, 320.0)]),
    "pd.emax": (emax, [5.0, 30.0, 40.0], [np.array([0.0, 1.0, 40.0, 1e6])]),
    "pd.sigmoid_emax": (sigmoid_emax, [5.0, 30, 40, 1.7], [np.array([0.0, 1.0, 40.0, 1e6])]),
    "growth.linear": (linear, [140.0, 6.0], [np.linspace(-1, 1, 7)]),
    "growth.logistic": (logistic, [190.0, 700.0, 350.0], [np.linspace(0, 1600, 7)]),
    "growth.gompertz": (gompertz, [4.6, 2.2, 0.7], [np.linspace(0, 10, 7)]),
    "growth.asymptotic": (asymptotic, [101.0, -8.6, -3.2], [np.linspace(3, 25, 7)]),
    "count.poisson": (count_poisson, [3.2], [np.array([0.0, 1.0, 4.0, 60.0])]),
    "binary.logistic": (
        binary_logistic, [0.3, -0.4], [np.array([0.0, 1.0, 1.0, 0.0]), np.array([0.0, 2.0, 50, 9])]
    ),
    "tte.weibull": (
        tte_weibull,
        [10.0, 3.0],
        [np.array([0.0, 1, 1, 0]), np.array([0.0, 4, 9, 20]), np.array([0.0, 0, 4, 9])],
    ),
}  # fmt: skip


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


def integrated(name, psi, times, duration):
    """Central concentration of a unit dose, by numerical integration of the equations."""
    V1, Q, V2, CL = psi[-4:]
    ka = psi[0] if "oral" in name else 0.0

    def slopes(t, state, rate):
        depot, central, peripheral = state
        flow = Q * (central / V1 - peripheral / V2)
        return [-ka * depot, ka * depot + rate - CL / V1 * central - flow, flow]

    state = [float("oral" in name), float("bolus" in name), 0.0]
    infusion = "infusion" in name
    pieces = [(duration, 1.0 / duration), (times[-1], 0.0)] if infusion else [(times[-1], 0.0)]
    found, at = [], 0.0
    for end, rate in pieces:
        inside = times[(times > at) & (times <= end)]
        solved = solve_ivp(
            slopes, (at, end), state, "LSODA", inside, args=(rate,), rtol=1e-12, atol=1e-14
        )
        found.extend(solved.y[1] / V1)
        state, at = solved.y[:, -1], end
    return np.array(found)


@pytest.mark.parametrize(
    "psi",
    [
        TWO,
        [10.0, 1e-3, 50.0, 3.0],  # hardly any exchange
        [10.0, 40.0, 500.0, 0.1],  # deep and slow
        [1.0, 1.0, 1.0, 0.01],
    ],
)
@pytest.mark.parametrize("name", ["pk.iv_bolus_2cpt", "pk.oral_2cpt", "pk.infusion_2cpt"])
def test_two_compartments_solve_their_equations(name, psi):
    psi = [0.7, *psi] if "oral" in name else psi
    times = np.array([0.1, 0.5, 1.5, 2.0, 3.0, 8.0, 24.0])
    columns = [times, np.ones(7)] + ([np.full(7, 2.0)] if "infusion" in name else [])
    predicted = resolve_structural(name).predict(np.array(psi), np.array(columns))
    np.testing.assert_allclose(predicted, integrated(name, psi, times, 2.0), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("gap", [0.0, 1e-15, 1e-12, 1e-9, 1e-6, 1e-3, 0.1])
@pytest.mark.parametrize("which", [0, 1])
def test_absorption_as_fast_as_either_exponential(gap, which):
    rate = float(two_compartments(*TWO)[which][0])
    at = np.array([1e-7, 0.01, 0.5, 3.0, 40.0])
    columns = np.array([at, np.full(5, 320.0)])
    ka = rate * (1.0 + gap)
    predicted = resolve_structural("pk.oral_2cpt").predict(np.array([ka, *TWO]), columns)
    expected = [oral_2cpt(ka, *TWO, time=t, amt=320.0) for t in at.tolist()]
    np.testing.assert_allclose(predicted, expected, rtol=1e-12)


@pytest.mark.parametrize("exchange", [0.0, 1e-12, 1e-300])
@pytest.mark.parametrize("route", ["iv_bolus", "infusion", "oral"])
def test_two_compartments_without_exchange_are_one(route, exchange):
    columns = [TIMES, np.full(9, 320.0)] + ([np.full(9, 2.0)] if route == "infusion" else [])
    ka = [1.5] if route == "oral" else []
    one = resolve_structural(f"pk.{route}_1cpt")
    two = resolve_structural(f"pk.{route}_2cpt")
    psi = np.array([*ka, 10.0, exchange, 50.0, 3.0])
    alone = one.predict(np.array([*ka, 10.0, 3.0]), np.array(columns))
    np.testing.assert_allclose(two.predict(psi, np.array(columns)), alone, rtol=1e-9, atol=1e-20)


def test_a_tiny_terminal_share_keeps_its_digits():
    # At late times all that is left is a share of 1e-9 of the dose.
    psi = [10.0, 1e-4, 1e3, 30.0]
    late = np.array([[20.0, 100.0], [320.0, 320.0]])
    predicted = resolve_structural("pk.iv_bolus_2cpt").predict(np.array(psi), late)
    expected = [iv_bolus_2cpt(*psi, time=t, amt=320.0) for t in (20.0, 100.0)]
    assert expected[0] < 1e-8
    np.testing.assert_allclose(predicted, expected, rtol=1e-13)


def test_no_rate_at_all_keeps_the_dose():
    columns = np.array([[0.0, 10.0], [320.0, 320.0]])
    predicted = resolve_structural("pk.iv_bolus_2cpt").predict(
        np.array([10.0, 0.0, 50.0, 1e-300]), columns
    )
    np.testing.assert_allclose(predicted, 32.0, rtol=1e-14)


@pytest.mark.parametrize("name", ["pk.oral_1cpt_lag", "pk.oral_2cpt_lag"])
def test_slope_by_the_lag_is_minus_the_slope_by_time(name):
    plain = resolve_structural(name.removesuffix("_lag"))
    lagged = resolve_structural(name)
    psi = np.array(CASES[name][1])
    time, lag, step = np.array([0.2, 0.49, 0.51, 1.0, 6.0, 30.0]), psi[-1], 1e-6
    amt = np.full(6, 320.0)

    def by_lag(shift):
        changed = psi.copy()
        changed[-1] += shift
        return lagged.predict(changed, np.array([time, amt]))

    def by_time(shift):
        return plain.predict(psi[:-1], np.array([time - lag + shift, amt]))

    slopes = (by_lag(step) - by_lag(-step)) / (2.0 * step)
    np.testing.assert_allclose(slopes, -(by_time(step) - by_time(-step)) / (2.0 * step), atol=1e-7)
    assert np.all(slopes[:2] == 0.0)
    # Rising from the lag on a later start is less, beyond the peak it is more.
    assert np.all(slopes[2:4] < 0.0)
    assert slopes[-1] > 0.0


def test_linearised_models_see_the_lag():
    import pandas as pd

    import saem
    from saem.inference.linearisation import linearise

    rng = np.random.default_rng(0)
    time = np.tile([0.25, 1.0, 2.0, 6.0, 12.0], 6)
    frame = pd.DataFrame({"id": np.repeat(np.arange(6), 5), "time": time, "amt": 320.0})
    frame["dv"] = [max(0.0, oral_1cpt_lag(1.5, 30.0, 3.0, 0.5, time=t, amt=320.0)) for t in time]
    frame["dv"] += 0.3 * rng.standard_normal(30)
    model = saem.NLME(
        frame, structural="pk.oral_1cpt_lag",
        parameters={
            "ka": saem.LogNormal(1.5, omega=0.3), "V": saem.LogNormal(30.0, omega=0.3),
            "CL": saem.LogNormal(3.0, omega=0.3), "Tlag": saem.LogNormal(0.5, random=False),
        },
    )  # fmt: skip
    lin = linearise(model, model.start(rng))
    after = time > 0.5
    slopes = np.array(
        [
            -0.5 * (oral_1cpt(*psi, time=t - 0.5 + 1e-5, amt=320.0)
                    - oral_1cpt(*psi, time=t - 0.5 - 1e-5, amt=320.0)) / 2e-5
            for t, psi in zip(time, np.repeat(np.exp(lin.phi[:, :3]), 5, axis=0), strict=True)
        ]
    )  # fmt: skip
    np.testing.assert_allclose(lin.jacobian[after, 3], slopes[after], rtol=1e-5)
    assert np.all(lin.jacobian[~after, 3] == 0.0)


def test_list_models():
    listed = list_models()
    assert [m["name"] for m in listed] == list(LIBRARY)
    assert listed[0]["parameters"] == "ka, V, CL"
    assert listed[0]["columns"] == "time, amt"
    assert all(m["formula"] and m["meaning"] for m in listed)
