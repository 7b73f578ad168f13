"""Elementary functions against references of more digits, in units of the last place."""

import math
from decimal import Decimal, localcontext

import numba
import numpy as np
import pytest
from scipy.special import ndtr

from saem._math import HALF_LOG_2PI, exp, expit, log, norm_cdf, sincos_2pi

SPACED = np.linspace(-708.0, 709.0, 1501)
# Around 0, at powers of two, and next to the ends of the reduction's intervals.
DELICATE = np.concatenate(
    [
        [0.0, -0.0, 1e-300, -1e-300, 5e-324, 1e-17, -1e-17, 1e-8, -1e-8],
        np.ldexp(1.0, np.arange(-20, 10)),
        -np.ldexp(1.0, np.arange(-20, 10)),
        (np.arange(-60, 60) + 0.5) * math.log(2.0),
        np.nextafter((np.arange(-20, 20) + 0.5) * math.log(2.0), np.inf),
    ]
)


def over_array(function):
    """Apply in a compiled loop, where the function vectorises."""

    @numba.njit(error_model="numpy")
    def loop(x, out):
        for j in range(x.size):
            out[j] = function(x[j])

    def apply(x):
        out = np.empty(x.size)
        loop(np.ascontiguousarray(x), out)
        return out

    return apply


def ulps(values, x, reference):
    """Largest distance from the exact function, in units in the last place of the result."""
    worst = 0.0
    with localcontext() as context:
        context.prec = 40
        for value, argument in zip(values, x, strict=True):
            exact = reference(Decimal(float(argument)))
            unit = Decimal(float(np.spacing(abs(float(exact)))))
            worst = max(worst, float(abs(Decimal(float(value)) - exact) / unit))
    return worst


@pytest.mark.nojit
def test_exp_is_within_two_units():
    x = np.concatenate([SPACED, DELICATE])
    assert ulps(over_array(exp)(x), x, Decimal.exp) <= 2.0


@pytest.mark.nojit
def test_exp_saturates_and_keeps_nan():
    low, high = over_array(exp)(np.array([-708.0, 709.0]))
    got = over_array(exp)(np.array([-np.inf, -1e9, -745.0, 709.5, 1e9, np.inf, np.nan]))
    np.testing.assert_array_equal(got, [low, low, low, high, high, high, np.nan])
    assert 0.0 < low
    assert high < np.inf
    assert over_array(exp)(np.zeros(1))[0] == 1.0


def test_exp_is_close_everywhere_in_a_long_vector():
    # NumPy's own exp is within 1 unit, so that 3 between the two is what 2 allows.
    x = np.random.default_rng(0).uniform(-708.0, 709.0, 200_000)
    expected = np.exp(x)
    assert np.max(np.abs(over_array(exp)(x) - expected) / np.spacing(expected)) <= 3.0


@pytest.mark.nojit
def test_log_is_within_one_unit():
    rng = np.random.default_rng(1)
    x = np.concatenate(
        [
            np.exp(rng.uniform(-708.0, 709.0, 800)),
            rng.random(400),
            1.0 + np.concatenate([-1.0, 1.0] * np.logspace(-16, -1, 60)[:, None]),
            np.ldexp(1.0, np.arange(-1022, 1024, 31)),
            np.nextafter(np.ldexp(math.sqrt(0.5), np.arange(-30, 30)), 0.0),
            [np.finfo(float).tiny, np.finfo(float).max],
        ]
    )
    x = x[x != 1.0]
    assert ulps(over_array(log)(x), x, Decimal.ln) <= 1.0
    assert over_array(log)(np.ones(1))[0] == 0.0


@pytest.mark.nojit
def test_sine_and_cosine_of_full_turns():
    u = np.concatenate(
        [np.linspace(0.0, 1.0, 2001), np.arange(9) / 8.0, [2.0**-54, 1.0 - 2.0**-53]]
    )
    got = np.array([sincos_2pi(x) for x in u])
    turn = np.longdouble("6.283185307179586476925286766559")
    sine, cosine = np.sin(turn * u.astype(np.longdouble)), np.cos(turn * u.astype(np.longdouble))
    assert np.max(np.abs(got[:, 0] - sine)) <= 2e-16
    assert np.max(np.abs(got[:, 1] - cosine)) <= 2e-16


@pytest.mark.nojit
def test_expit_and_its_tails():
    x = np.concatenate([np.linspace(-700.0, 40.0, 600), np.linspace(-2.0, 2.0, 101)])

    def reference(v):
        return 1 / (1 + (-v).exp())

    assert ulps(over_array(expit)(x), x, reference) <= 4.0
    low, high = over_array(expit)(np.array([-1e4, 1e4]))
    assert 0.0 < low < 1e-300
    assert high == 1.0


@pytest.mark.nojit
def test_norm_cdf_and_its_lower_tail():
    x = np.linspace(-37.0, 9.0, 400)
    # The argument of erfc is rounded: that alone costs x**2 units in the tail.
    allowed = (4.0 + x * x) * np.finfo(float).eps
    np.testing.assert_array_less(np.abs(over_array(norm_cdf)(x) / ndtr(x) - 1.0), allowed)
    assert over_array(norm_cdf)(np.zeros(1))[0] == 0.5
    assert pytest.approx(0.5 * math.log(2.0 * math.pi), abs=1e-16) == HALF_LOG_2PI
