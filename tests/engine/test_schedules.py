"""Step sizes: values, the conditions of Robbins and Monro, and what is refused."""

import numpy as np
import pytest

from saem.exceptions import OptionError
from saem.schedules import (
    Adaptive,
    Constant,
    Geometric,
    OnPasses,
    Polynomial,
    Quadratic,
    Schedule,
    TheoryStep,
    TwoPhase,
    as_schedule,
    values,
)


def test_phases_of_saem():
    gamma = TwoPhase(burn_in=2, exploration=3, power=0.7, delay=4.0)
    got = [gamma(k) for k in range(8)]
    expected = [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.25**-0.7, 1.5**-0.7]
    np.testing.assert_allclose(got, expected, rtol=1e-15)


def test_textbook_steps():
    gamma = TwoPhase(burn_in=0, exploration=0, power=1.0, delay=1.0)
    np.testing.assert_allclose([gamma(k) for k in range(4)], [1.0, 1 / 2, 1 / 3, 1 / 4])
    np.testing.assert_allclose([Polynomial(1.0)(k) for k in range(3)], [1.0, 0.5, 1 / 3])


def test_steps_never_exceed_one():
    assert Polynomial(0.6, scale=10.0)(0) == 1.0
    assert Polynomial(0.6, scale=10.0)(10**6) < 1.0


@pytest.mark.parametrize("gamma", [Polynomial(0.51), Polynomial(1.0), TwoPhase(0, 0, 0.7)])
def test_robbins_and_monro(gamma):
    # Doubling the horizon adds at least as much as from 1/k, and less and less of squares.
    steps = np.array([gamma(k) for k in range(40_000)])
    assert steps[20_000:].sum() > 0.69
    squares = np.square(steps)
    assert squares[20_000:].sum() < squares[10_000:20_000].sum()


def test_sample_sizes_grow_up_to_their_limit():
    size = Geometric(10, 1.5, 30)
    np.testing.assert_allclose([size(k) for k in range(4)], [10, 15, 22.5, 30])
    assert size(10**9) == 30
    assert Geometric(1.0, 1.0)(10**9) == 1.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: Polynomial(0.5),
        lambda: Polynomial(1.1),
        lambda: Polynomial(scale=0.0),
        lambda: Polynomial(offset=-1.0),
        lambda: TwoPhase(-1),
        lambda: TwoPhase(exploration=-1),
        lambda: TwoPhase(power=0.4),
        lambda: TwoPhase(delay=0.0),
        lambda: Geometric(0.0, 1.1),
        lambda: Geometric(1.0, 0.9),
        lambda: as_schedule("fast", "gamma"),
        lambda: as_schedule(True, "gamma"),
    ],
)
def test_what_is_refused(make):
    with pytest.raises(OptionError):
        make()


def test_numbers_and_functions_become_schedules():
    assert as_schedule(2, "n")(5) == 2.0
    assert as_schedule(Constant(3.0), "n")(5) == 3.0

    def steps(k):
        return k

    assert as_schedule(steps, "n") is steps
    assert isinstance(Constant(1.0), Schedule)


def test_clock_of_passes():
    gamma = OnPasses(TwoPhase(0, 2, 1.0), iterations_per_pass=4)
    assert [gamma(k) for k in (0, 7, 8)] == [1.0, 1.0, 1.0]
    assert gamma(12) == 0.5  # one pass after the second
    with pytest.raises(OptionError, match="iterations_per_pass=0"):
        OnPasses(Constant(1.0), 0)


def test_step_of_the_theory():
    assert TheoryStep(2.0).bind(1000, 5).value == pytest.approx(2.0 * 5 / 100.0)
    assert TheoryStep(1.0).bind(8, 8).value == 1.0
    with pytest.raises(OptionError, match="scale=0"):
        TheoryStep(0)


def test_quadratic_sample_sizes():
    draws = Quadratic(10, 1, 50)
    assert [draws(k) for k in (0, 3, 100)] == [10, 19, 50]
    with pytest.raises(OptionError, match="start=0"):
        Quadratic(0)


@pytest.mark.parametrize(
    ("cosine", "ratio", "cut", "expected"),
    [
        (0.9, 0.5, False, 0.2),  # shrank little, same direction: too short
        (0.1, 0.7, False, 0.05),  # hardly shrank, another direction: noise
        (0.1, 0.3, False, 0.1),  # shrank, another direction: as it should be
        (0.1, 0.01, False, 0.1),  # shrank enough
        (0.1, 1.5, False, 0.025),  # has grown, another direction
        (0.9, 1.5, False, 0.2),  # has grown on its way
        (0.9, 0.5, True, 0.05),  # left the admissible set
    ],
)
def test_adaptive_steps(cosine, ratio, cut, expected):
    assert Adaptive(0.1).after(0.1, cosine, ratio, cut) == pytest.approx(expected)


def test_adaptive_steps_keep_their_bounds():
    assert Adaptive(0.1).after(0.9, 1.0, 0.9, False) == 1.0
    assert Adaptive(0.1, least=1e-3).after(1e-3, 0.0, 2.0, False) == 1e-3


def test_values_are_those_of_the_calls():
    for schedule in (Constant(0.3), Polynomial(), TwoPhase(1, 2, 0.7, 3.0)):
        expected = [schedule(k) for k in range(3, 9)]
        np.testing.assert_array_equal(values(schedule, 3, 6), expected)
