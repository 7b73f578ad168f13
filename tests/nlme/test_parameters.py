"""Parameters and error models: transformations, defaults, complaints."""

import math

import numpy as np
import pytest
from scipy import special

from saem.exceptions import OptionError
from saem.nlme.error_models import (
    CombinedError,
    ConstantError,
    ExponentialError,
    ProportionalError,
    resolve_error,
)
from saem.nlme.parameters import LogitNormal, LogNormal, Normal, ProbitNormal

KINDS = [
    (Normal(2.0), 0, lambda phi: phi),
    (LogNormal(2.0), 1, np.exp),
    (LogitNormal(3.0, 2.0, 7.0), 2, lambda phi: 2.0 + 5.0 * special.expit(phi)),
    (ProbitNormal(3.0, 2.0, 7.0), 3, lambda phi: 2.0 + 5.0 * special.ndtr(phi)),
]
KIND_IDS = [type(k[0]).__name__ for k in KINDS]


@pytest.mark.parametrize(("parameter", "code", "reference"), KINDS, ids=KIND_IDS)
class TestTransformations:
    phi = np.linspace(-3.0, 3.0, 13)

    def test_to_psi_is_the_reference(self, parameter, code, reference):
        assert parameter.code == code
        np.testing.assert_allclose(parameter.to_psi(self.phi), reference(self.phi), rtol=1e-14)

    def test_round_trip(self, parameter, code, reference):
        back = parameter.to_phi(parameter.to_psi(self.phi))
        np.testing.assert_allclose(back, self.phi, rtol=1e-12, atol=1e-12)

    def test_derivative_by_differences(self, parameter, code, reference):
        h = 1e-5
        slope = (parameter.to_psi(self.phi + h) - parameter.to_psi(self.phi - h)) / (2 * h)
        np.testing.assert_allclose(parameter.dpsi_dphi(self.phi), slope, rtol=1e-8)

    def test_input_is_not_changed_or_shared(self, parameter, code, reference):
        given = self.phi.copy()
        parameter.to_psi(given)[:] = 0.0
        np.testing.assert_array_equal(given, self.phi)


def test_far_tails_do_not_overflow():
    with np.errstate(all="raise"):
        psi = LogitNormal(0.5).to_psi(np.array([-600.0, 600.0]))
    assert psi[0] == pytest.approx(math.exp(-600))
    assert psi[1] == 1.0


@pytest.mark.parametrize(
    ("parameter", "omega"),
    [
        (LogNormal(20.0), 1.0),
        (LogitNormal(0.2), 1.0),
        (ProbitNormal(0.2), 1.0),
        (Normal(-200.0), 60.0),
        (Normal(0.0), 1.0),
        (Normal(5.0, omega=2), 2.0),
        (LogNormal(5.0, random=False), 0.0),
    ],
)
def test_default_omega(parameter, omega):
    assert parameter.problems("x") == []
    assert parameter.start_omega == omega


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        (LogNormal(0.0), ["'p'", "0.0", "LogNormal", "positive", "Normal"]),
        (LogNormal(-1), ["-1", "positive"]),
        (Normal(math.nan), ["nan", "finite", "typical value"]),
        (Normal(math.inf), ["inf", "finite"]),
        (Normal("1"), ["'1'", "finite number"]),
        (Normal(True), ["True", "finite number"]),
        (Normal(None), ["None", "finite number"]),
        (Normal(1j), ["1j", "finite number"]),
        (LogitNormal(1.0), ["1.0", "between 0 and 1", "lower="]),
        (LogitNormal(5.0, 0.0, 5.0), ["5.0", "between 0 and 5"]),
        (ProbitNormal(-0.1), ["-0.1", "between 0 and 1"]),
        (LogitNormal(0.5, 1.0, 0.0), ["bounds", "1.0", "0.0", "lower < upper"]),
        (LogitNormal(0.5, 0.0, math.inf), ["bounds", "inf"]),
        (LogNormal(1.0, omega=0.0), ["omega", "0.0", "positive", "random=False"]),
        (LogNormal(1.0, omega=math.nan), ["omega", "nan", "positive"]),
        (LogNormal(1.0, omega="a"), ["omega", "'a'"]),
        (LogNormal(1.0, omega=0.5, random=False), ["omega", "0.5", "random=False"]),
        (LogNormal(1.0, fixed_omega=True), ["fixed_omega", "omega=..."]),
        (LogNormal(1.0, fixed_omega=True, random=False), ["fixed_omega", "no random effect"]),
        (LogNormal(1.0, random="no"), ["random", "'no'", "True or False"]),
        (LogNormal(1.0, covariates=["Wt"]), ["covariates", "['Wt']", "formula"]),
    ],
)
def test_problems_of_parameters(parameter, words):
    found = parameter.problems("p")
    assert len(found) == 1
    text = " ".join(found[0])
    assert text.startswith("parameter 'p':")
    for word in words:
        assert word in text


def test_all_problems_of_a_parameter_at_once():
    assert len(LogNormal(-1.0, omega=-1.0, covariates=3, fixed=2).problems("p")) == 4


@pytest.mark.parametrize(
    ("error", "code", "names", "start"),
    [
        (ConstantError(2.0), 0, ("a",), [2.0, 0.0, 1.0]),
        (ProportionalError(), 1, ("b",), [0.0, 0.3, 1.0]),
        (CombinedError(0.5, 0.1), 2, ("a", "b"), [0.5, 0.1, 1.0]),
        (CombinedError(form="variance"), 3, ("a", "b"), [1.0, 0.3, 1.0]),
        (ExponentialError(), 4, ("a",), [0.3, 0.0, 1.0]),
    ],
)
def test_error_models(error, code, names, start):
    assert (error.code, error.param_names, error.problems()) == (code, names, [])
    np.testing.assert_array_equal(error.start, start)
    assert error.positive == (code == 4)
    assert error.formula


def test_problems_of_error_models():
    found = CombinedError(a=0.0, b=math.nan, form="max").problems()
    assert len(found) == 3
    assert "a is 0.0" in found[0][0]
    assert "b is nan" in found[1][0]
    assert "'max'" in found[2][0]
    assert "variance" in found[2][1]


def test_error_model_by_name():
    assert resolve_error("proportional") == ProportionalError()
    assert resolve_error(ConstantError(3.0)) == ConstantError(3.0)
    with pytest.raises(OptionError, match=r"'proportionl'.*did you mean 'proportional'"):
        resolve_error("proportionl")
    with pytest.raises(OptionError, match="None"):
        resolve_error(None)
