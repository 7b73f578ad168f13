"""User functions as structural models: what is accepted, and what the refusals say."""

import json
import math
import os
import subprocess
import sys

import numba
import numpy as np
import pandas as pd
import pytest

from saem.exceptions import ModelError, SaemWarning
from saem.nlme.data import read_individuals
from saem.nlme.error_models import ConstantError, ExponentialError, ProportionalError
from saem.nlme.parameters import Normal
from saem.nlme.structural import Structural, check_predictions, resolve_structural

pytestmark = pytest.mark.nojit
jit_only = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the compiler is switched off")
FACTOR = 2.0


def plain_helper(x):
    return x


@numba.njit
def compiled_helper(x):
    return FACTOR * x


# --- accepted -----------------------------------------------------------------------------


def emax(E0, Emax, EC50, *, dose):
    return E0 + Emax * dose / (EC50 + dose)


def with_default(a, *, time, dose=3.0):
    return a * time + dose


def no_columns(a):
    return 2 * a


def branches(a, b, *, time):
    total = 0.0
    for i in range(3):
        if time > b:
            total += a * i
    return np.where(time > 1, total, -1.0)


def uses_helper(a, *, time):
    return compiled_helper(a) + time + math.exp(-time) + np.log1p(time)


def integer(a, *, time):
    return int(a * time)


@numba.njit
def already_compiled(a, *, time):
    return a * time


@pytest.mark.parametrize(
    ("function", "psi", "columns"),
    [
        (emax, [5.0, 30.0, 40.0], ["dose"]),
        (with_default, [2.0], ["time", "dose"]),
        (no_columns, [2.0], []),
        (branches, [1.0, 0.5], ["time"]),
        (uses_helper, [1.5], ["time"]),
        (integer, [1.5], ["time"]),
        (already_compiled, [1.5], ["time"]),
        (lambda a, *, time: a + time, [1.5], ["time"]),
    ],
)
def test_compiled_loop_equals_python(function, psi, columns):
    model = resolve_structural(function)
    assert list(model.columns) == columns
    values = np.random.default_rng(1).uniform(0, 3, (len(columns), 11))
    plain = getattr(function, "py_func", function)
    expected = [plain(*psi, **dict(zip(columns, row, strict=True))) for row in values.T]
    np.testing.assert_allclose(model.predict(np.array(psi), values), expected, rtol=1e-14)


def test_record_of_a_function():
    model = resolve_structural(with_default)
    assert model.param_names == ("a",)
    assert model.defaults == {"dose": 3.0}
    assert model.source.startswith("def with_default(a, *, time, dose=3.0):")
    assert model.qualified_name.endswith(".with_default")
    assert resolve_structural(model) is model


def test_division_by_zero_is_infinite_not_an_error():
    model = resolve_structural(lambda a, *, time: a / time)
    np.testing.assert_array_equal(model.predict(np.ones(1), np.array([[0.0, 2.0]])), [np.inf, 0.5])


# --- refused ------------------------------------------------------------------------------


def star_args(*psi, time):
    return time


def star_kwargs(a, **columns):
    return a


def positional_default(a, b=1.0, *, time):
    return a + b + time


def no_parameters(*, time):
    return time


def reads_identity(a, *, id):
    return a * id


def bad_default(a, *, time=None):
    return a


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (star_args, ["'star_args'", "test_structural.py, line", "*psi", "no names"]),
        (star_kwargs, ["**columns", "no names"]),
        (positional_default, ["'b'", "1.0", "parameters={...}", "behind the star"]),
        (no_parameters, ["no positional arguments", "nothing to estimate"]),
        (reads_identity, ["column 'id' cannot go into a prediction", "subject"]),
        (bad_default, ["'time'", "None", "finite number"]),
        (3, ["3", "int", "library name or a Python function"]),
        (None, ["None"]),
        (math.exp, ["built-in function exp", "def f(ka, V, *, time)"]),
        ("".join, ["library name or a Python function"]),
        ("pk.oral_1cp", ["'pk.oral_1cp'", "did you mean 'pk.oral_1cpt'", "growth.logistic"]),
        ("emx", ["did you mean 'pd.emax'"]),
        ("nothing like it", ["is not in the library.", "use one of pk.oral_1cpt"]),
    ],
)
def test_refused_specs(spec, words):
    with pytest.raises(ModelError) as caught:
        resolve_structural(spec)
    for word in words:
        assert word in str(caught.value)


def calls_plain_helper(a, *, time):
    scale = 1.0
    return scale * plain_helper(a)


def unknown_name(a, *, time):
    return undefined_thing(a)  # noqa: F821


def unknown_attribute(a, *, time):
    b = a
    return np.no_such_function(b)


def uses_string(a, *, time):
    b = "text" + a
    return b


def uses_dictionary(a, *, time):
    table = {"x": a}
    return table[time]


def uses_import(a, *, time):
    from scipy.special import expit

    return expit(a)


def as_array(a, *, time):
    return a * time.mean()


def indexes(a, *, time):
    return a[0] * time


def catches(a, *, time):
    try:
        return a / time
    except ZeroDivisionError:
        return 0.0


@jit_only
@pytest.mark.parametrize(
    ("function", "line", "words"),
    [
        (calls_plain_helper, "return scale * plain_helper(a)", ["'plain_helper'", "numba.njit"]),
        (unknown_name, "return undefined_thing(a)", ["'undefined_thing'", "not defined"]),
        (unknown_attribute, "return np.no_such_function(b)", ["no_such_function", "math or numpy"]),
        (uses_string, 'b = "text" + a', ["add(", "strings"]),
        (uses_dictionary, "return table[time]", ["dictionaries"]),
        (uses_import, "from scipy.special import expit", ["import", "leave out"]),
        (as_array, "return a * time.mean()", ["'mean'", "one row at a time"]),
        (indexes, "return a[0] * time", ["getitem", "indexing"]),
        (catches, "except ZeroDivisionError:", ["leave out try"]),
    ],
)
def test_compile_errors_show_the_users_line(function, line, words):
    with pytest.raises(ModelError) as caught:
        resolve_structural(function)
    text = str(caught.value)
    assert text.startswith(f"structural function {function.__name__!r} cannot be compiled:")
    assert line in text
    number = int(text.split("test_structural.py, line ")[1].split(":")[0])
    first = function.__code__.co_firstlineno
    assert first < number < first + 8
    assert "Remedy: " in text
    for word in words:
        assert word in text
    assert len(text) < 700
    assert caught.value.__cause__ is not None


def returns_array(a, *, time):
    return np.array([a, time])


def returns_nothing(a, *, time):
    a + time


def returns_sometimes(a, *, time):
    if time > 0:
        return a


def returns_bool(a, *, time):
    return a > time


def returns_string(a, *, time):
    return "1.5"


def returns_complex(a, *, time):
    return a * 1j


def returns_tuple(a, *, time):
    return a, time


def yields(a, *, time):
    yield a


@jit_only
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (returns_array, ["an array", "one row at a time"]),
        (returns_nothing, ["nothing (None)", "end every path"]),
        (returns_sometimes, ["nothing (None) on some", "end every path"]),
        (returns_bool, ["a boolean", "float"]),
        (returns_string, ["a string"]),
        (returns_complex, ["a complex number"]),
        (returns_tuple, ["Tuple"]),
        (yields, ["generator"]),
    ],
)
def test_wrong_return_types(function, words):
    with pytest.raises(ModelError, match="not one number") as caught:
        resolve_structural(function)
    for word in [function.__name__, "test_structural.py, line", "Remedy", *words]:
        assert word in str(caught.value)


# --- predictions at the starting values -----------------------------------------------------


def data_for(function, **changes):
    frame = pd.DataFrame(
        {"id": ["u", "u", "v", "v"], "time": [0.0, 1, 0, 2], "dv": [1.0, 2, 3, 4]},
        index=[10, 11, 12, 13],
    ).assign(**changes)
    model = resolve_structural(function)
    parameters = {name: Normal(1.0) for name in model.param_names}
    return model, read_individuals(frame, None, model, parameters, ConstantError())


def raises(a, *, time):
    if time > 1.5:
        raise ValueError("too late")
    return a


def logs(a, *, time):
    return np.log(a - time)


def divides(a, *, time):
    return a / time


def at_most_zero(a, *, time):
    return -a * time


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (raises, ConstantError(), ["raises ValueError: too late", 'raise ValueError("too late")']),
        (logs, ConstantError(), ["not a number (NaN)", "if ... else"]),
        (divides, ConstantError(), ["is infinite", "id 'u', row 1 (index 10)", "in 1 more row)"]),
        (at_most_zero, ExponentialError(), ["not positive", "logarithm", "drop rows"]),
    ],
)
def test_bad_predictions(function, error, words):
    model, data = data_for(function)
    with pytest.raises(ModelError) as caught:
        check_predictions(model, [1.0], data, error)
    text = str(caught.value)
    if function in (raises, logs):
        words = [*words, "id 'v', row 4 (index 13)", "time = 2"]
    for word in [*words, function.__name__, "starting values", "a = 1", "time = ", "Remedy: "]:
        assert word in text


def test_predictions_of_each_individual():
    model, data = data_for(lambda a, *, time: np.sqrt(a) + time)
    check_predictions(model, [4.0], data, ConstantError())
    check_predictions(model, [[4.0], [1.0]], data, ConstantError())
    with pytest.raises(ModelError, match=r"id 'v', row 3 \(index 12\): a = -1, time = 0"):
        check_predictions(model, [[4.0], [-1.0]], data, ConstantError())


def test_library_model_out_of_range():
    frame = pd.DataFrame({"id": [1, 1, 2], "time": [1.0, 2, 3], "dv": [1.0, 2, 3]})
    model = resolve_structural("growth.gompertz")
    parameters = {name: Normal(1.0, fixed=True, random=False) for name in model.param_names}
    data = read_individuals(frame, None, model, parameters, ConstantError())
    with pytest.raises(ModelError, match=r"NaN.*b3 = -1.*check the columns"):
        check_predictions(model, [1.0, 1.0, -1.0], data, ConstantError())


def test_zero_prediction_under_proportional_error_warns():
    model, data = data_for(at_most_zero)
    with pytest.warns(SaemWarning, match=r"0 in 2 of 4 rows.*id 'u', row 1.*CombinedError"):
        check_predictions(model, [1.0], data, ProportionalError())


def test_python_return_type_is_checked_without_the_compiler():
    # What a model looks like when the compiler is switched off.
    data = data_for(lambda a, *, time: a)[1]
    broken = Structural("f", ("a",), ("time",), None, None, "f", lambda a, *, time: "1.5")
    with pytest.raises(ModelError, match=r"returns '1.5' \(a str\), not one number, for id 'u'"):
        check_predictions(broken, [1.0], data, ConstantError())


def test_everything_works_with_the_compiler_switched_off():
    code = """
import warnings; warnings.simplefilter("error")
import numpy as np
from saem.nlme.structural import resolve_structural
f = resolve_structural(lambda a, b, *, time: np.where(time > b, a / time, 0.0))
print(f.predict(np.array([2.0, 1.0]), np.array([[0.0, 4.0]])).tolist())
g = resolve_structural("pk.oral_1cpt")
print(g.predict(np.array([0.1, 30.0, 3.0]), np.array([[1.0, -1.0], [30.0, 30.0]])).tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first == "[0.0, 0.5]"
    assert json.loads(second) == pytest.approx([0.1 * math.exp(-0.1), 0.0])
