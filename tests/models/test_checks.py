"""Checks that the models share, on cases with known answers."""

import numpy as np
import pytest

from saem.exceptions import ModelError, Problems
from saem.models._checks import (
    add_bad_matrices,
    add_bad_weights,
    add_missing_column,
    check_size_of_theta,
    collinear,
    dependent_columns,
    did_you_mean,
    first_line,
    is_number,
    is_symmetric,
    is_whole,
    read_arrays,
)


def texts(check, *arguments):
    problems = Problems("the thing")
    check(*arguments, problems)
    return [str(item) for item in problems.items]


@pytest.mark.parametrize(
    ("value", "whole", "number"),
    [
        (3, True, True), (np.int64(3), True, True), (True, False, False), (2.0, False, True),
        (np.float32(2.5), False, True), (np.nan, False, True), ("3", False, False),
        (None, False, False), (1j, False, False), (np.complex128(1), False, False),
        (np.array([1]), False, False),
    ],
)  # fmt: skip
def test_kinds_of_numbers(value, whole, number):
    assert is_whole(value) is whole
    assert is_number(value) is number


def test_symmetry_is_relative():
    matrix = np.array([[1.0, 1e-9], [1e-9 * (1 + 1e-10), 1.0]])
    assert is_symmetric(matrix)
    matrix[1, 0] *= 1 + 1e-6
    assert not is_symmetric(matrix)


def test_matrices_are_named_with_their_fault():
    stack = np.array([np.eye(2), [[1.0, 0.5], [0.4, 1.0]], [[1.0, 2.0], [2.0, 1.0]]])
    asymmetric, indefinite = texts(add_bad_matrices, "psi", stack)
    assert "psi[1] is not symmetric" in asymmetric
    assert "psi[2] is not positive definite: smallest eigenvalue -1" in indefinite
    (single,) = texts(add_bad_matrices, "psi", stack[2])
    assert "psi is not positive definite" in single


def test_weights_of_components():
    assert texts(add_bad_weights, np.array([0.25, 0.75])) == []
    assert "must all be above 0" in texts(add_bad_weights, np.array([0.0, 1.0]))[0]
    assert "sum to 1.1" in texts(add_bad_weights, np.array([0.4, 0.7]))[0]


def test_columns_that_others_determine():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 3))
    both = np.column_stack([x[:, 0], np.zeros(50), x[:, 1], 2 * x[:, 0] - 1e6 * x[:, 1], x[:, 2]])
    assert dependent_columns(both) == [1, 3]
    assert dependent_columns(x + 1e3) == []
    x = np.column_stack([x, x[:, 0] + x[:, 2]])
    assert collinear(np.corrcoef(x, rowvar=False)).tolist() == [0, 2, 3]
    assert collinear(np.corrcoef(x[:, :3], rowvar=False)).size == 0


def test_arrays_are_copied_and_all_faults_are_told():
    problems, good = Problems("the thing"), np.ones(2)
    shapes = {"a": (2,), "b": (2,), "c": (2,), "d": (), "e": (2,), "f": (2,)}
    given = {"a": good, "b": [1.0], "c": [np.inf, 1.0], "d": "x", "e": [1j, 1.0], "other": 3}
    arrays = read_arrays(given, shapes, problems)
    assert list(arrays) == ["a"]
    assert not np.shares_memory(arrays["a"], good)
    message = "\n".join(map(str, problems.items))
    for text in (
        "b has shape (1,); it must have shape (2,)", "c holds values that are missing or infinite",
        "d must be an array of numbers of shape ()", "e must be an array of numbers",
    ):  # fmt: skip
        assert text in message
    assert len(problems.items) == 4


def test_theta_of_another_model():
    check_size_of_theta(np.zeros(3), 3)
    for theta in (np.zeros(2), np.array([0.0, np.nan, 0.0])):
        with pytest.raises(ModelError, match="theta must be 3 finite numbers; use `pack_params`"):
            check_size_of_theta(theta, 3)


def test_names_spelled_alike():
    assert did_you_mean("weight", ["Weight", "age"]) == "did you mean 'Weight'?"
    assert did_you_mean("zzz", ["age"]) is None
    (text,) = texts(add_missing_column, "zzz", ["age", "dose"])
    assert "column 'zzz' is missing" in text
    assert "'age', 'dose'" in text


def test_first_line_of_an_error():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
