"""Tables of models, and searches for covariates."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import saem
from saem.diagnostics.covariate_search import regression_p
from saem.exceptions import OptionError

QUIET = {"progress": False, "seed": 1}


def bolus_data(n=60, seed=1, exponent=0.75):
    """Clearance grows with weight; volume with nothing, and age and sex do nothing."""
    rng = np.random.default_rng(seed)
    people = pd.DataFrame(
        {
            "wt": rng.uniform(45, 110, n),
            "age": rng.uniform(20, 80, n),
            "sex": np.where(rng.random(n) < 0.5, "f", "m"),
        }
    )
    times = np.array([0.5, 2.0, 6.0, 12.0])
    volume = 20 * np.exp(0.2 * rng.normal(size=n))
    clearance = 3 * (people["wt"].to_numpy() / 70) ** exponent * np.exp(0.25 * rng.normal(size=n))
    mean = 100 / volume[:, None] * np.exp(-(clearance / volume)[:, None] * times)
    frame = people.loc[np.repeat(np.arange(n), 4)].reset_index(drop=True)
    dv = (mean + 0.15 * rng.normal(size=mean.shape)).ravel()
    return frame.assign(id=np.repeat(np.arange(n), 4), time=np.tile(times, n), amt=100.0, dv=dv)


def bolus_model(data, covariates=None):
    return saem.NLME(
        data,
        "pk.iv_bolus_1cpt",
        {
            "V": saem.LogNormal(18.0, omega=0.3),
            "CL": saem.LogNormal(2.5, omega=0.4, covariates=covariates),
        },
        error=saem.ConstantError(0.3),
    )


@pytest.fixture(scope="module")
def data():
    return bolus_data()


@pytest.fixture(scope="module")
def base(data):
    return bolus_model(data).fit("quadrature-em", **QUIET)


def test_table_of_models(data, base):
    larger = bolus_model(data, "log(wt / 70)").fit("quadrature-em", **QUIET)
    table = saem.compare({"base": base, "weight": larger}, method="quadrature")
    assert list(table.index) == ["weight", "base"]
    assert list(table["n_params"]) == [6, 5]
    for name, fit in (("base", base), ("weight", larger)):
        value = fit.loglik("quadrature").value
        assert table.loc[name, "loglik"] == value
        assert table.loc[name, "aic"] == pytest.approx(-2 * value + 2 * fit.n_params)
        assert table.loc[name, "bic"] == pytest.approx(fit.bic - 2 * (value - fit.llf))
    delta = table["aic"].iloc[1] - table["aic"].iloc[0]
    assert list(table["delta"]) == [0.0, pytest.approx(delta)]
    assert table["weight"].iloc[0] == pytest.approx(1 / (1 + np.exp(-delta / 2)))
    by_bic = saem.compare({"base": base, "weight": larger}, by="bic")
    assert by_bic["delta"].iloc[1] == pytest.approx(by_bic["bic"].diff().iloc[1])


def test_fits_of_different_data_are_refused(data, base):
    options = {"budget": saem.Iterations(2), **QUIET}
    fewer = bolus_model(data[data["id"] < 50]).fit("saem", **options)
    shifted = bolus_model(data.assign(dv=data["dv"] + 0.1)).fit("saem", **options)
    renamed = bolus_model(data.assign(id=data["id"] + 1)).fit("saem", **options)
    rows = SimpleNamespace(model=SimpleNamespace(nobs=240, n_individuals=60))
    fits = {"a": base, "b": fewer, "c": shifted, "d": renamed, "e": rows}
    listed = ("4 problems", "200 observations", "responses differ", "ids differ", "is a mixed")
    with pytest.raises(OptionError, match="(?s)" + ".*".join(listed)):
        saem.compare(fits)
    with pytest.raises(OptionError, match="fits by name"):
        saem.compare([base])
    with pytest.raises(OptionError, match="by='llf'"):
        saem.compare({"a": base}, by="llf")


@pytest.mark.parametrize("method", ["scm", "cossac"])
def test_search_finds_the_one_true_covariate(data, base, method):
    """Six candidates, one true. A false one survives backward elimination at 1 % each: five of
    them, false alarm below 0.05 a data set; this is one data set, chosen before the search."""
    found = base.covariate_search(
        data, ["log(wt / 70)", "age", "sex"], method=method, algorithm="quadrature-em"
    )
    assert found.terms == {"CL": ["log(wt / 70)"]}
    log = found.log
    assert found.n_fits == len(log)
    assert found.n_fits == 13 if method == "scm" else found.n_fits <= 5
    assert list(log["direction"].unique()) == ["base", "forward", "backward"]
    best = log.query("accepted and direction == 'forward'").iloc[0]
    assert best["statistic"] == pytest.approx(2 * (best["loglik"] - log["loglik"][0]))
    assert best["p_value"] == pytest.approx(stats.chi2.sf(best["statistic"], 1))
    assert best["df"] == 1
    direct = bolus_model(data, "log(wt / 70)").fit("quadrature-em", **QUIET)
    assert best["loglik"] == pytest.approx(direct.loglik("quadrature").value, abs=1e-3)
    estimate = found.fit.params["beta_CL_log(wt / 70)"]
    assert abs(estimate - 0.75) < 4 * found.fit.bse["beta_CL_log(wt / 70)"]
    if method == "cossac":
        assert best["screen"] < 0.01


def test_backward_steps_drop_what_does_not_last(data, base):
    """With a forward level that takes anything, elimination leaves the true term alone."""
    found = base.covariate_search(
        data, {"CL": ["age", "wt", "I(wt * 2.0)"]}, forward=0.999, algorithm="quadrature-em"
    )
    assert found.terms == {"CL": ["wt"]} or found.terms == {"CL": ["I(wt * 2.0)"]}
    removed = found.log.query("direction == 'backward' and accepted")
    assert list(removed["term"]) == ["age"]
    collinear = found.log[found.log["note"].str.contains("collinear")]
    assert len(collinear)
    assert not collinear["accepted"].any()
    assert collinear["loglik"].isna().all()


def test_regression_is_that_of_least_squares():
    rng = np.random.default_rng(1)
    x, eta = rng.normal(size=(30, 1)), rng.normal(size=30)
    assert regression_p(x, eta[:, None]) == pytest.approx(stats.linregress(x[:, 0], eta).pvalue)
    groups = np.arange(30) % 3
    dummies = np.stack([groups == 1, groups == 2], axis=1).astype(float)
    expected = stats.f_oneway(*(eta[groups == g] for g in range(3))).pvalue
    assert regression_p(dummies, eta[:, None]) == pytest.approx(expected)


def test_options_of_the_search_are_checked(data, base):
    candidates = {"CLx": ["wt"], "CL": ["wieght", "log("]}
    with pytest.raises(OptionError, match=r"5 problems(?s:.)*'lasso'(?s:.)*forward=5") as caught:
        base.covariate_search(data, candidates, method="lasso", forward=5)
    assert "'CLx', which is no parameter" in str(caught.value)
    assert "cannot be read" in str(caught.value)
    with pytest.raises(OptionError, match="no candidates"):
        base.covariate_search(data, {})
