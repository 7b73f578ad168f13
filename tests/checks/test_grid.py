"""Every model of the library under every algorithm: the public check grid."""

import numpy as np
import pytest

import saem
from saem import checks
from saem.algorithms import algorithms
from saem.checks import EXPECTED, Outcome
from saem.exceptions import SaemWarning

MODELS = [*saem.models.__all__, "NLME"]


@pytest.fixture(scope="module")
def models():
    return checks.examples()


def judge(outcomes: list[Outcome], label: str) -> None:
    """Fail for what failed unexpectedly, and for what is expected to fail and does not."""
    failed = {o.check: o.message for o in outcomes if o.state == "failed"}
    expected = {
        check for (model, algorithm, check) in EXPECTED
        if model == label and algorithm in {o.algorithm for o in outcomes}
    }  # fmt: skip
    unexpected = {check: text for check, text in failed.items() if check not in expected}
    assert not unexpected, unexpected
    assert expected <= set(failed), f"expected to fail, but does not: {expected - set(failed)}"


@pytest.mark.parametrize("label", MODELS)
def test_model_and_proxies(models, label):
    model = models[label]
    outcomes = [
        outcome
        for outcome in checks.check_model(model, [], raise_errors=False).itertuples(index=False)
    ]
    judge(outcomes, label)


@pytest.mark.parametrize("algorithm", algorithms())
@pytest.mark.parametrize("label", MODELS)
def test_pair(models, label, algorithm):
    outcomes = checks.check_pair(models[label], algorithm)
    judge(outcomes, label)
    undefined = [o for o in outcomes if o.state == "not defined"]
    if undefined:  # with a reason that tells what to do instead
        assert len(undefined) == 1
        assert "Remedy" in undefined[0].message


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_gaussian_mixtures_of_all_layouts(covariance_type, missing):
    model = saem.models.GaussianMixture.example(
        np.random.default_rng(2), 40, covariance_type=covariance_type,
        missing=missing,
    )  # fmt: skip
    checks.check_model(model, ["fiem"])


def wrong_names(model):
    model.param_names = [*model.param_names, "one too many"]


def wrong_count(model):
    model.n_individuals -= 1


def wrong_type(model):
    model.offsets = model.offsets.astype(np.int32)


def wrong_m_step(model):
    """An M-step of another statistic: that of a model with a penalty it does not tell of."""
    with pytest.warns(SaemWarning, match="reg_covar"):
        other = saem.models.GaussianMixture(
            model.values.reshape(model.n_individuals, -1), 2, reg_covar=0.5
        )
    model.start = lambda rng: other.start(np.random.default_rng(0))
    model.penalised = False


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (wrong_names, "names fit the parameters"),
        (wrong_count, "data are contiguous float64"),
        (wrong_type, "data are contiguous float64"),
        (wrong_m_step, "Fisher's identity"),
    ],
)
def test_a_wrong_model_is_found_out(fault, check):
    """Each planted fault is reported by the check that is meant to see it."""
    model = saem.models.GaussianMixture.example(np.random.default_rng(1), 40)
    fault(model)
    with pytest.raises(AssertionError, match=check):
        checks.check_model(model, [])


def test_the_grid_as_a_table(models):
    table = checks.grid({"LinearMixed": models["LinearMixed"]}, ["em", "classification-em"])
    assert table.loc["LinearMixed", "em"] == "ok"
    assert table.loc["LinearMixed", "classification-em"] == "n/a"
    assert set(table.attrs["outcomes"].columns) == {
        "model", "algorithm", "check", "state", "message",
    }  # fmt: skip
