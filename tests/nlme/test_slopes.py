"""Exact derivatives of the library's models, and of individuals' likelihoods, against others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

import saem
from saem.inference._visits import find_modes
from saem.inference.linearisation import linearise
from saem.nlme.library import LIBRARY
from saem.nlme.structural import resolve_structural


def _bateman(ka, k, t):
    return (np.exp(-k * t) - np.exp(-ka * t)) / (ka - k)


def _infusion(k, t, duration):
    s = np.minimum(t, duration)
    given = np.where(duration > 0.0, (1.0 - np.exp(-k * s)) / (k * np.maximum(duration, 1e-9)), 1.0)
    return given * np.exp(-k * (t - s))


def _two(psi, of_rate):
    v1, q, v2, cl = psi
    k10, k12, k21 = cl / v1, q / v1, q / v2
    total = k10 + k12 + k21
    root = np.sqrt(total * total - 4.0 * k10 * k21)
    fast, slow = 0.5 * (total + root), 0.5 * (total - root)
    share = (fast - k21) / (fast - slow)
    return (share * of_rate(fast) + (1.0 - share) * of_rate(slow)) / v1


def _lagged(psi, c):
    return np.maximum(c[0] - psi.real, 0.0) - 1j * psi.imag, c[0] >= psi.real


def _oral_lag(p, c):
    t, given = _lagged(p[3], c)
    return np.where(given, c[1] * p[0] / p[1] * _bateman(p[0], p[2] / p[1], t), 0.0)


def _oral_2cpt_lag(p, c):
    t, given = _lagged(p[5], c)
    return np.where(given, c[1] * p[0] * _two(p[1:5], lambda r: _bateman(p[0], r, t)), 0.0)


#: Textbook formulas in complex arithmetic, written independently of the library's loops.
FORMULAS = {
    "pk.oral_1cpt": lambda p, c: c[1] * p[0] / p[1] * _bateman(p[0], p[2] / p[1], c[0]),
    "pk.oral_1cpt_k": lambda p, c: c[1] * p[0] / p[1] * _bateman(p[0], p[2], c[0]),
    "pk.oral_1cpt_lag": _oral_lag,
    "pk.iv_bolus_1cpt": lambda p, c: c[1] / p[0] * np.exp(-p[1] / p[0] * c[0]),
    "pk.infusion_1cpt": lambda p, c: c[1] / p[0] * _infusion(p[1] / p[0], c[0], c[2]),
    "pk.iv_bolus_2cpt": lambda p, c: c[1] * _two(p, lambda r: np.exp(-r * c[0])),
    "pk.infusion_2cpt": lambda p, c: c[1] * _two(p, lambda r: _infusion(r, c[0], c[2])),
    "pk.oral_2cpt": lambda p, c: c[1] * p[0] * _two(p[1:], lambda r: _bateman(p[0], r, c[0])),
    "pk.oral_2cpt_lag": _oral_2cpt_lag,
    "pd.emax": lambda p, c: p[0] + p[1] * c[0] / (p[2] + c[0]),
    "pd.sigmoid_emax": lambda p, c: p[0] + p[1] / (1.0 + (p[2] / c[0]) ** p[3]),
    "growth.linear": lambda p, c: p[0] + p[1] * c[0],
    "growth.logistic": lambda p, c: p[0] / (1.0 + np.exp((p[1] - c[0]) / p[2])),
    "growth.gompertz": lambda p, c: p[0] * np.exp(-p[1] * p[2] ** c[0]),
    "growth.asymptotic": lambda p, c: p[0] + (p[1] - p[0]) * np.exp(-np.exp(p[2]) * c[0]),
}


def columns_for(model, rng, n=14):
    """Times from just after the dose on, one amount, and infusions of which some are boluses."""
    duration = rng.uniform(0.5, 3.0, n) * (rng.random(n) < 0.7)
    rows = {"time": np.sort(rng.uniform(0.02, 9.0, n)), "dose": rng.uniform(0.1, 9.0, n)}
    rows |= {"amt": np.full(n, 100.0), "duration": duration}
    return np.ascontiguousarray([rows[name] for name in model.columns])


def slopes_of(model, psi, columns):
    """The library's derivatives."""
    slopes = np.full((psi.size, columns.shape[1]), np.nan)
    model.jacobian(psi, columns, np.empty(columns.shape[1]), slopes)
    return slopes


def complex_step(formula, psi, columns):
    """Derivatives ``Im f(psi + i h) / h``, exact to rounding (Squire and Trapp 1998)."""
    rows = []
    for m in range(psi.size):
        moved = psi.astype(complex)
        moved[m] += 1e-30j
        rows.append(np.imag(formula(moved, columns)) / 1e-30)
    return np.array(rows)


@pytest.mark.parametrize("name", LIBRARY)
def test_derivatives_of_the_library_are_exact(name):
    """Equal to complex steps of the textbook formulas, at 100 random places."""
    model = LIBRARY[name]
    if model.jacobian is None:
        pytest.skip("a model without exact derivatives")
    rng = np.random.default_rng(len(name))
    for _ in range(100):
        psi = np.exp(0.6 * rng.normal(size=len(model.param_names)))
        columns = columns_for(model, rng)
        exact = complex_step(FORMULAS[name], psi, columns)
        scale = np.abs(exact).max(axis=1, keepdims=True) + 1e-3
        # The formulas cancel where rates are close; the library's do not.
        np.testing.assert_allclose(slopes_of(model, psi, columns) / scale, exact / scale, atol=1e-7)


@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-7, 1e-4, 0.01])
@pytest.mark.parametrize("name", ["pk.oral_1cpt_k", "pk.oral_1cpt"])
def test_derivatives_where_absorption_and_elimination_meet(name, apart):
    """No digits are lost where ka = k: sixth-order differences of the prediction agree."""
    model, k = LIBRARY[name], 0.7
    psi = np.array([k * (1.0 + apart), 2.0, k if name.endswith("_k") else 2.0 * k])
    columns = columns_for(model, np.random.default_rng(0))

    def predicted(m, x):
        moved, out = psi.copy(), np.empty(columns.shape[1])
        moved[m] = x
        model.compiled(moved, columns, out)
        return out

    slopes = slopes_of(model, psi, columns)
    for m in range(3):
        h = 1e-3 * psi[m]
        d = [
            (predicted(m, psi[m] + s * h) - predicted(m, psi[m] - s * h)) / (2.0 * s * h)
            for s in (1, 2, 3)
        ]
        sixth = (15.0 * d[0] - 6.0 * d[1] + d[2]) / 10.0
        np.testing.assert_allclose(slopes[m], sixth, atol=1e-9 * np.abs(sixth).max())


def test_derivatives_by_the_lag_are_not_zero():
    """They are minus those by time after the lag, and zero before it."""
    model = LIBRARY["pk.oral_1cpt_lag"]
    columns = np.array([[0.2, 0.6, 1.0, 4.0], [100.0] * 4])
    slopes = slopes_of(model, np.array([1.2, 8.0, 0.7, 0.5]), columns)
    assert slopes[3, 0] == 0.0
    assert np.all(slopes[3, 1:3] < -1.0)  # the concentration rises: later is lower
    assert slopes[3, 3] > 0.0


ERRORS = {
    "constant": saem.ConstantError(0.6),
    "proportional": saem.ProportionalError(0.15),
    "combined": saem.CombinedError(0.3, 0.1),
    "variances": saem.CombinedError(0.3, 0.1, form="variance"),
    "power": saem.PowerError(0.2, 0.7),
    "exponential": saem.ExponentialError(0.2),
}
PARAMETERS = {
    "ka": saem.LogitNormal(1.2, lower=0.1, upper=5.0, omega=0.6),
    "V": saem.ProbitNormal(31.0, lower=10.0, upper=80.0, omega=0.3),
    "CL": saem.LogNormal(2.7, omega=0.3),
}


@pytest.fixture(scope="module")
def theophylline():
    """The data, without the responses before the dose, which exponential error cannot have."""
    frame = saem.datasets.load("theophylline")
    return frame[frame["Time"] > 0.0]


def model_of(data: pd.DataFrame, error, exact: bool, **options):
    """The oral model, with or without its exact derivatives."""
    structural = resolve_structural("pk.oral_1cpt")
    if not exact:
        structural = dataclasses.replace(structural, jacobian=None)
    return saem.NLME(
        data, structural=structural, parameters=PARAMETERS, error=error,
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"}, **options,
    )  # fmt: skip


@pytest.mark.parametrize("error", ERRORS)
def test_modes_are_the_same_with_exact_derivatives_and_with_differences(theophylline, error):
    """For every error model, and three transforms; in posterior standard deviations."""
    exact, other = (model_of(theophylline, ERRORS[error], e, omega="full") for e in (True, False))
    theta = exact.start(np.random.default_rng(0))
    theta = exact.with_estimates(theta, exact.estimation_vector(theta) + 0.02)
    ours, theirs = find_modes(exact, theta), find_modes(other, theta)
    sd = np.sqrt(np.square(theirs.factor).sum(axis=2))
    assert np.max(np.abs(ours.phi - theirs.phi) / sd) < 1e-4
    covariance = ours.factor @ ours.factor.transpose(0, 2, 1)
    expected = theirs.factor @ theirs.factor.transpose(0, 2, 1)
    scale = sd[:, :, None] * sd[:, None, :]
    assert np.max(np.abs(covariance - expected) / scale) < 2e-3


@pytest.mark.parametrize("error", ["constant", "exponential"])
def test_linearisation_is_the_same_with_exact_derivatives_and_with_differences(theophylline, error):
    """Predictions and Jacobian, on the scale on which residuals are normal."""
    exact, other = (model_of(theophylline, ERRORS[error], e) for e in (True, False))
    theta = exact.start(np.random.default_rng(0))
    at = find_modes(exact, theta).phi
    ours, theirs = linearise(exact, theta, at=at), linearise(other, theta, at=at)
    np.testing.assert_array_equal(ours.f, theirs.f)
    scale = np.abs(theirs.jacobian).max(axis=0)
    np.testing.assert_allclose(ours.jacobian / scale, theirs.jacobian / scale, atol=1e-7)
