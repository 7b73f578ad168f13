"""Messages of the models on bad input say what, where, the rule and the remedy."""

import numpy as np
import pandas as pd
import pytest

import saem
from saem.exceptions import DataError, ModelError

COUNTS = pd.DataFrame({"a": [0, 1, 7, 9], "b": [2, 1, 0, 5]}, index=["p", "q", "r", "s"])
REAL = pd.DataFrame({"a": [0.1, 1.2, -2.0, 3.3, 0.7], "b": [2.0, 1.1, 0.3, 5.0, -1.0]})


def spoilt(frame, row, column, value):
    frame = frame.astype(float)
    frame.iloc[row, frame.columns.get_loc(column)] = value
    return frame


#: What, where, rule, remedy: each must stand in the message.
MESSAGES = {
    "count": (
        lambda m: m.PoissonMixture(spoilt(COUNTS, 2, "a", 0.5), 2),
        DataError, ["row r, column 'a'", "0.5", "count (a whole number, at least 0)"],
    ),
    "level": (
        lambda m: m.BernoulliMixture(COUNTS, 2),
        DataError, ["row r, column 'a'", "7", "not one of the levels 0, 1"],
    ),
    "positive": (
        lambda m: m.GammaMixture(COUNTS, 2), DataError, ["row p, column 'a'", "value 0", "above 0"],
    ),
    "constant": (
        lambda m: m.StudentMixture(REAL.assign(b=3.0), 1),
        DataError, ["column 'b' is constant (value 3)", "Remedy: drop the column"],
    ),
    "missing": (
        lambda m: m.StudentMixture(spoilt(REAL, 1, "b", np.nan), 1),
        DataError, ["takes no missing values", "Remedy: drop these rows or impute"],
    ),
    "components": (
        lambda m: m.ExponentialMixture(COUNTS, 0),
        ModelError, ["n_components=0", "whole number, at least 1"],
    ),
    "start": (
        lambda m: m.CategoricalMixture(COUNTS, 2, init="kmeans"),
        ModelError, ["init='kmeans'", "did you mean 'kmeans++'?"],
    ),
    "families": (
        lambda m: m.MixedMixture(REAL, 2, families={"A": "gausian"}),
        DataError,
        ["the column 'A'", "did you mean 'a'?", "'gausian'", "did you mean 'gaussian'?"],
    ),
    "no dict": (
        lambda m: m.MixedMixture(REAL, 2, families=["gamma"]),
        ModelError, ["families=['gamma']", "must be a dict"],
    ),
    "half a row": (
        lambda m: m.MultinomialMixture(spoilt(COUNTS, 0, "a", np.nan), 2),
        DataError, ["row p", "missing", "Remedy: set all counts of the row to NaN"],
    ),
    "weights": (
        lambda m: m.MultivariateNormal(REAL, weights=[1, 1, -1, 1, 1]),
        DataError, ["weights[2] is -1.0", "finite and at least 0"],
    ),
    "factors": (
        lambda m: m.FactorAnalysis(REAL, 2.5), ModelError, ["n_factors=2.5", "whole number"],
    ),
    "lengths": (
        lambda m: m.HiddenMarkov(REAL, 2, lengths=[2, 2]),
        DataError, ["lengths sum to 4", "X has 5 rows"],
    ),
    "symbols": (
        lambda m: m.HiddenMarkov(np.array([[0], [1], [1.5]]), 2, emission="categorical"),
        DataError, ["sequence 0, row 2", "symbol 1.5", "Remedy: code symbols as 0, 1"],
    ),
    "responses": (
        lambda m: m.LogisticMissing(REAL, pd.Series([0, 1, 2, 1, 0], index=list("vwxyz"))),
        DataError, ["row x", "y is 2", "must be 0 or 1"],
    ),
    "one class": (
        lambda m: m.VariationalLogistic(REAL, [1, 1, 1, 1, 1]),
        DataError, ["y is 1 in every row", "Remedy"],
    ),
    "words": (
        lambda m: m.PLSA(spoilt(COUNTS, 1, "b", 0.3), 2),
        DataError, ["document q, word 'b'", "0.3", "Remedy: give raw counts"],
    ),
    "terms": (
        lambda m: m.RegressionMixture(REAL.assign(c=2 * REAL["a"]), [1, 2, 4, 1, 7], 1),
        DataError, ["term 'c' is a linear combination of the terms before it", "drop the term"],
    ),
    "template": (
        lambda m: m.DeformableTemplate(np.ones((2, 3, 3)), width="wide", ridge=None),
        ModelError, ["width='wide' must be a number above 0", "ridge=None"],
    ),
    "random effects": (
        lambda m: m.MixedLogistic(
            pd.DataFrame({"y": [0, 1, 1, 0], "x": [1.0, 2, 3, 5], "g": [0, 0, 1, 1]}),
            "y ~ 1", "g", "~ x",
        ),
        ModelError, ["random-effect term 'x'", "Remedy: add it there"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_say_what_where_rule_and_remedy(name):
    build, kind, parts = MESSAGES[name]
    with pytest.raises(kind) as caught:
        build(saem.models)
    for part in parts:
        assert part in str(caught.value)
