"""Covariate formulas: the design matrix, its names, new data, and what is refused."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from saem.exceptions import DataError, ModelError, SaemError
from saem.nlme.covariates import formula_columns
from saem.nlme.data import read_individuals
from saem.nlme.error_models import ConstantError
from saem.nlme.parameters import LogNormal, Normal
from saem.nlme.structural import resolve_structural

N = 8
SUBJECTS = pd.DataFrame(
    {
        "id": [f"s{i}" for i in range(N)],
        "Wt": [50.0, 60, 70, 80, 90, 55, 65, 75],
        "Age": [30, 41, 52, 23, 34, 65, 46, 57],
        "Sex": ["M", "F", "F", "M", "F", "M", "M", "F"],
        "race": pd.Categorical(list("bcabcabc"), categories=list("cbaz")),
        "smoker": [True, False] * 4,
        "my col": np.arange(N) ** 2.0,
    }
)


def long_frame(subjects=SUBJECTS, **changes):
    frame = subjects.loc[subjects.index.repeat(3)].reset_index(drop=True)
    frame["time"] = np.tile([0.0, 1.0, 2.0], len(subjects))
    frame["dv"] = np.arange(len(frame)) % 7 + 1.0
    return frame.assign(**changes)


def read(frame, **formulas):
    model = resolve_structural("growth.linear")
    parameters = {
        "base": Normal(1.0, covariates=formulas.get("base")),
        "slope": LogNormal(1.0, covariates=formulas.get("slope")),
    }
    return read_individuals(frame, None, model, parameters, ConstantError())


def complaint(frame, error=SaemError, **formulas):
    with pytest.raises(error) as caught:
        read(frame, **formulas)
    return str(caught.value)


def test_no_formula_is_a_column_of_ones():
    design = read(long_frame()).design
    np.testing.assert_array_equal(design.matrix, np.ones((N, 1)))
    assert design.used == {"base": (0,), "slope": (0,)}
    assert design.coefficient_names("base") == []


def test_union_of_columns():
    design = read(long_frame(), base="log(Wt / 70) + Sex", slope="Age + log(Wt/70)").design
    assert design.names == ("1", "log(Wt / 70)", "Sex[T.M]", "Age")
    assert design.used == {"base": (0, 1, 2), "slope": (0, 3, 1)}
    assert design.coefficient_names("base") == ["beta_base_log(Wt / 70)", "beta_base_Sex[T.M]"]
    assert design.coefficient_names("slope") == ["beta_slope_Age", "beta_slope_log(Wt / 70)"]
    expected = np.column_stack(
        [np.ones(N), np.log(SUBJECTS.Wt / 70), SUBJECTS.Sex == "M", SUBJECTS.Age]
    )
    np.testing.assert_allclose(design.matrix, expected)
    assert design.matrix.flags.c_contiguous
    assert design.levels == {"Sex": ("F", "M")}
    assert design.reference == {"Sex": "F"}


def test_reference_level_can_be_chosen():
    design = read(long_frame(), base="C(Sex, contr.treatment('M'))").design
    assert design.reference == {"Sex": "M"}
    np.testing.assert_array_equal(design.matrix[:, 1], SUBJECTS.Sex == "F")


def test_unused_category_is_dropped():
    design = read(long_frame(), base="race").design
    assert design.levels == {"race": ("c", "b", "a")}
    assert design.names == ("1", "race[T.b]", "race[T.a]")


@pytest.mark.parametrize(
    ("formula", "column"),
    [
        ("smoker", SUBJECTS.smoker),
        ("`my col`", SUBJECTS["my col"]),
        ("log(`my col` + 1)", np.log(SUBJECTS["my col"] + 1)),
        ("I(Wt ** 2)", SUBJECTS.Wt**2),
        ("~ Wt", SUBJECTS.Wt),
        ("1 + Wt", SUBJECTS.Wt),
        ("center(Wt)", SUBJECTS.Wt - SUBJECTS.Wt.mean()),
        ("np.sqrt(Wt - 50)", np.sqrt(SUBJECTS.Wt - 50)),
    ],
)
def test_formulas(formula, column):
    design = read(long_frame(), slope=formula).design
    np.testing.assert_allclose(design.matrix[:, 1], column)


@pytest.mark.parametrize("formula", ["", "  ", "1", None])
def test_formulas_without_covariates(formula):
    assert read(long_frame(), slope=formula).design.names == ("1",)


def test_order_of_subjects_is_that_of_first_appearance():
    frame = long_frame().iloc[::-1].sort_values("time", kind="stable")
    with pytest.warns(UserWarning, match="not together"):
        data = read(frame, base="Wt")
    assert data.ids == [f"s{i}" for i in reversed(range(N))]
    np.testing.assert_array_equal(data.design.matrix[:, 1], SUBJECTS.Wt[::-1])
    assert list(data.subjects["Wt"]) == list(SUBJECTS.Wt[::-1])


class TestNewSubjects:
    @pytest.fixture
    def design(self):
        return read(long_frame(), base="center(Wt) + Sex", slope="log(Wt)").design

    def test_coded_as_in_the_fit(self, design):
        new = pd.DataFrame({"Wt": [100.0, 70.0], "Sex": ["M", "M"]})
        mean = SUBJECTS.Wt.mean()
        expected = [[1, 100 - mean, 1, np.log(100)], [1, 70 - mean, 1, np.log(70)]]
        np.testing.assert_allclose(design.apply(new), expected)

    def test_same_subjects_same_matrix(self, design):
        np.testing.assert_array_equal(design.apply(SUBJECTS), design.matrix)

    @pytest.mark.parametrize(
        ("new", "words"),
        [
            ({"Wt": [70.0], "Sex": ["X"]}, ["'Sex'", "'X'", "'F', 'M'"]),
            ({"Wt": [0.0], "Sex": ["F"]}, ["'log(Wt)'", "-inf", "subject 1"]),
            ({"Wt": [np.nan], "Sex": ["F"]}, ["center(Wt)", "nan", "subject 1"]),
            ({"Sex": ["F"]}, ["'base'", "'slope'", "Wt"]),
        ],
    )
    def test_refused(self, design, new, words):
        with pytest.raises(DataError) as caught:
            design.apply(pd.DataFrame(new))
        for word in words:
            assert word in str(caught.value)


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("log(Wgt / 70)", ["'Wgt'", "did you mean 'Wt'", "do not have"]),
        ("log(Wt", ["cannot be read", "log(Wt / 70) + Sex"]),
        ("Wt +* Age", ["cannot be read"]),
        ("base ~ Wt", ["two sides"]),
        ("Wt | Sex", ["cannot be read"]),
        ("logg(Wt)", ["'logg'", "formulas do not know", "did you mean 'log'"]),
        ("0 + Sex", ["intercept is the typical value"]),
        ("Wt - 1", ["intercept is the typical value"]),
        ("Wt ** 2", ["interactions", "I(Wt ** 2)"]),
    ],
)
def test_refused_formulas(formula, words):
    text = complaint(long_frame(), ModelError, slope=formula)
    assert f"formula {formula!r} of parameter 'slope'" in text
    assert "Remedy" in text
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("changes", "formula", "words"),
    [
        ({"Wt": 70.0}, "log(Wt)", ["'log(Wt)'", "constant", "4.2485", "typical value"]),
        ({"Sex": "M"}, "Wt + C(Sex)", []),
        ({}, "log(Wt - 50)", ["'log(Wt - 50)'", "-inf", "id 's0'", "log of 0"]),
        ({}, "I(1 / (Wt - 60)) + Age", ["inf", "id 's1'", "division by 0"]),
        ({}, "np.log(Wt - 60)", ["nan", "id 's0'", "2 more subjects"]),
        ({}, "Wt + I(2 * Wt + 3) + Age", ["'Wt' and 'I(2 * Wt + 3)'", "collinear", "leave one"]),
        ({}, "Sex + I(Sex == 'M')", ["collinear"]),
        ({}, "id", ["7 columns for 8 subjects"]),
        ({}, "log(Sex)", ["cannot be evaluated"]),
    ],
)
def test_covariates_that_cannot_be_used(changes, formula, words):
    if formula == "id":
        frame = long_frame(label=long_frame()["id"] + "x", half=0.0)
        text = complaint(frame, DataError, slope="label + Age")
        words = ["8 columns for 8 subjects", "fewer covariates"]
    elif formula == "Wt + C(Sex)":
        # One level leaves no column: nothing to estimate, nothing to refuse.
        assert read(long_frame(**changes), slope=formula).design.names == ("1", "Wt")
        return
    else:
        text = complaint(long_frame(**changes), DataError, slope=formula)
    for word in ["of parameter 'slope'", *words]:
        assert word in text


def test_covariate_varies_within_a_subject():
    frame = long_frame()
    frame.loc[7, "Wt"] = 71.5
    text = complaint(frame, DataError, slope="log(Wt)")
    for word in ["'Wt'", "constant within a subject", "70.0", "71.5", "id 's2'", "row 7", "row 8"]:
        assert word in text


@pytest.mark.parametrize(
    ("column", "value"), [("Wt", np.nan), ("Sex", None), ("race", np.nan), ("Sex", np.nan)]
)
def test_missing_covariate(column, value):
    frame = long_frame()
    frame.loc[4, column] = value
    text = complaint(frame, DataError, slope=column)
    for word in [f"'{column}'", "missing", "id 's1'", "row 5 (index 4)", "fill it in"]:
        assert word in text


def test_infinite_covariate():
    frame = long_frame()
    frame.loc[3:5, "Wt"] = np.inf
    text = complaint(frame, DataError, slope="Wt")
    assert "column 'Wt' is inf for id 's1'" in text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (pd.to_datetime("2020-01-01"), ["datetime64", "numbers or categories"]),
        (1j, ["complex128"]),
        ([[1, 2]] * 24, ["cannot be compared", "[1, 2]", "id 's0'", "row 1"]),
    ],
)
def test_covariates_of_a_wrong_kind(values, words):
    text = complaint(long_frame(Wt=values), DataError, slope="Wt")
    for word in ["covariate 'Wt'", *words]:
        assert word in text


def test_numbers_as_text():
    subjects = pd.concat([SUBJECTS] * 2, ignore_index=True)
    subjects["id"] = range(2 * N)
    subjects["Wt"] = [f"{i},5" if i == 3 else f"{i}.5" for i in range(2 * N)]
    text = complaint(long_frame(subjects), DataError, slope="Wt")
    for word in ["is text", "'3,5'", "pandas.to_numeric"]:
        assert word in text


def test_all_formula_problems_at_once():
    frame = long_frame(Age=40)
    frame.loc[1, "Wt"] = 1.0
    text = complaint(frame, DataError, base="Wt + Hgt", slope="Wt + Age")
    assert text.startswith("2 problems")
    text = complaint(long_frame(Age=40), DataError, base="Wt + Hgt", slope="Wt + Age")
    assert "'Hgt'" in text
    assert "'Age' is constant, 40" in text


def test_names_in_a_formula():
    columns, functions = formula_columns("log(Wt / `my ref`) * Sex + np.sqrt(Age) + poly(Hb, 2)")
    assert columns == {"Wt", "my ref", "Sex", "Age", "Hb"}
    assert functions == {"log", "np", "poly"}


def test_formulaic_is_imported_only_for_a_formula():
    code = """
import sys, pandas as pd
from saem.nlme.data import read_individuals
from saem.nlme.structural import resolve_structural
from saem.nlme.parameters import Normal
from saem.nlme.error_models import ConstantError
frame = pd.DataFrame({"id": [1, 1, 2, 2], "x": [1., 2, 1, 3], "dv": [1., 2, 3, 4]})
f = resolve_structural(lambda a, *, x: a * x)
read_individuals(frame, None, f, {"a": Normal(1.0)}, ConstantError())
heavy = ("formulaic", "statsmodels", "matplotlib", "saem.nlme.library")
print([m for m in heavy if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
