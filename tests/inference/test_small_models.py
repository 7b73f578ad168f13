"""Everything a fit answers, of a model without random effects and of a subject with one row."""

import functools

import numpy as np
import pandas as pd
import pytest

import saem
from saem.exceptions import OptionError

TIMES = np.array([0.5, 1.0, 2.0, 4.0, 8.0])


def data(n=16):
    rng = np.random.default_rng(5)
    v, cl = 20.0 * np.exp(0.3 * rng.normal(size=n)), 3.0 * np.exp(0.3 * rng.normal(size=n))
    mean = 100.0 / v[:, None] * np.exp(-(cl / v)[:, None] * TIMES)
    frame = pd.DataFrame({"id": np.repeat(np.arange(n), 5), "time": np.tile(TIMES, n)})
    frame["dv"], frame["amt"] = (mean + 0.1 * rng.normal(size=mean.shape)).ravel(), 100.0
    return frame


@functools.cache
def without_effects():
    return fit_of(data(), random=False)


@functools.cache
def single_row():
    frame = data()
    return fit_of(frame[(frame["id"] != 3) | (frame["time"] == 2.0)], random=True)


def fit_of(frame, random):
    model = saem.NLME(
        frame,
        structural="pk.iv_bolus_1cpt",
        parameters={
            "V": saem.LogNormal(18.0, random=random), "CL": saem.LogNormal(2.5, random=random)
        },
        error=saem.ConstantError(0.3),
    )  # fmt: skip
    return model.fit(seed=1, progress=False)


def test_least_squares_without_random_effects():
    """The estimates, their errors and the likelihood are those of the normal density."""
    fit = without_effects()
    frame = data()
    predicted = (
        100.0 / fit.params["V"] * np.exp(-fit.params["CL"] / fit.params["V"] * frame["time"])
    )
    residual = (frame["dv"] - predicted).to_numpy()
    assert fit.params["a"] == pytest.approx(np.sqrt(np.mean(residual**2)), rel=1e-4)
    variance = fit.params["a"] ** 2
    expected = -0.5 * np.sum(np.log(2.0 * np.pi * variance) + residual**2 / variance)
    for method in ("importance", "quadrature", "laplace", "linearised"):
        assert fit.loglik(method).value == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(
        fit.information("louis").bse, fit.information("exact").bse, rtol=1e-3
    )
    assert np.isfinite(fit.information("sandwich").bse).all()


def test_what_has_no_meaning_without_random_effects_is_empty_or_refused():
    fit = without_effects()
    assert fit.shrinkage.empty
    assert fit.shrinkages().index.isin(["V", "CL"]).sum() == 0
    assert fit.random_effects.shape == (16, 0)
    assert (fit.mc_error == 0.0).all()
    assert fit.accuracy()["within"].all()
    means = fit.individual("mean")
    np.testing.assert_allclose(means["V"], fit.params["V"])
    assert len(fit.residuals()) == 80
    assert np.isfinite(fit.residuals()["iwres"]).all()
    with pytest.raises(OptionError, match="no random effects"):
        fit.chains()
    assert {cause.kind for cause in fit.why(n_starts=0).causes} <= {"outlying row"}


@pytest.mark.parametrize("fit", [without_effects, single_row])
def test_residual_diagnostics_of_small_models(fit):
    fit = fit()
    frame = fit.residuals()
    assert len(frame) == fit.nobs
    assert np.isfinite(frame.select_dtypes("number").to_numpy()).all()
    assert np.isfinite(fit.residual_tests().select_dtypes("number").to_numpy()).all()


@pytest.mark.parametrize("fit", [without_effects, single_row])
def test_to_arviz_of_small_models(fit):
    pytest.importorskip("arviz")
    found = fit().to_arviz()
    assert found.posterior.sizes["id"] == 16
    assert found.log_likelihood.sizes != {}


def test_a_subject_with_one_row_is_shrunk_the_most():
    fit = single_row()
    assert np.isfinite(fit.individual("mean").to_numpy()).all()
    sd = fit.individual("sd")
    assert sd.loc[3, "CL"] == sd["CL"].max()
    assert np.isfinite(fit.shrinkages().to_numpy(dtype=float)).all()
    assert fit.accuracy()["within"].all()
    assert len(fit.why(n_starts=0)) == 0
