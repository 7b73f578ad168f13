"""InferenceData: densities by scipy, order of rows, and that ArviZ can use it."""

import json
import sys
import warnings

import numpy as np
import pytest
from known import at, linear_model, oral_model
from scipy import stats

import saem
from saem.diagnostics._replicates import replicates
from saem.diagnostics.to_arviz import load_arviz, pointwise_log_likelihood
from saem.exceptions import OptionError, SaemWarning
from saem.nlme._replicates import with_responses


@pytest.mark.parametrize("error", ["combined", "exponential"])
def test_densities_are_those_of_scipy(error):
    """Of the responses as given, so with the Jacobian of the logarithm."""
    errors = {"combined": saem.CombinedError(0.3, 0.2), "exponential": saem.ExponentialError(0.3)}
    model, theta = oral_model(n=6, error=errors[error])
    model = with_responses(model, np.abs(replicates(model, theta, 1, 1)[0]))
    fit, data = at(model, theta), model.individuals
    psi = np.stack([fit._psi_modes, fit._psi_population], axis=1)
    found = pointwise_log_likelihood(model, theta, psi)
    for k, kind in enumerate(("individual", "population")):
        f = fit._stacked_predictions(kind)
        if error == "exponential":
            expected = stats.lognorm.logpdf(data.dv, 0.3, scale=f)
        else:
            expected = stats.norm.logpdf(data.dv, f, 0.3 + 0.2 * f)
        np.testing.assert_allclose(found[k], expected, rtol=1e-9, atol=1e-9)


def test_round_trip():
    """Rows in another order than the individuals; summary and loo work."""
    az = load_or_skip()
    with pytest.warns(SaemWarning, match="were grouped"):
        model, theta = linear_model(n=12, shuffle=True)
    fit = at(model, theta)
    found = fit.to_arviz(accuracy=0.06, seed=4)
    assert set(found.groups()) == {"posterior", "log_likelihood", "observed_data", "constant_data"}
    posterior = found.posterior
    assert posterior["base"].dims == ("chain", "draw", "id")
    frame = fit.residuals()
    np.testing.assert_array_equal(found.observed_data["dv"], frame["dv"])
    np.testing.assert_array_equal(found.observed_data["row"], frame.index)
    np.testing.assert_array_equal(found.constant_data["individual"], frame["id"])
    one = posterior.sel(chain=2, draw=7)
    f = one["base"].sel(id=frame["id"].to_numpy()).to_numpy()
    f = f + one["slope"].sel(id=frame["id"].to_numpy()).to_numpy() * found.constant_data["age"]
    expected = stats.norm.logpdf(frame["dv"], f, 0.8)
    pointwise = found.log_likelihood["dv"].sel(chain=2, draw=7)
    np.testing.assert_allclose(pointwise, expected, rtol=1e-9)
    np.testing.assert_allclose(one["eta"].sel(effect="base"), one["base"] - 10.0, atol=1e-12)
    assert json.loads(posterior.attrs["population_parameters"])["a"] == 0.8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ArviZ, on its own future and on Pareto k
        summary = az.summary(found, var_names=["base", "slope"])
        loo = az.loo(found)
    assert summary.shape[0] == 24
    assert (summary["r_hat"] < 1.05).all()
    draws = fit.conditional_samples(accuracy=0.06, max_draws=4000, seed=4)
    np.testing.assert_allclose(summary["mean"][:12], draws.mean[:, 0], atol=6e-4)
    assert loo.n_data_points == 60
    assert np.isfinite(loo.elpd_loo)


def load_or_skip():
    """ArviZ, or a skipped test."""
    try:
        return load_arviz()
    except ImportError:
        pytest.skip("ArviZ is not installed")


def test_arviz_that_is_missing_or_too_new(monkeypatch):
    fit = at(*linear_model(n=4))
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"pip install 'saem\[arviz\]'"):
        fit.to_arviz()

    class Newer:
        __version__ = "1.0.0"

    monkeypatch.setitem(sys.modules, "arviz", Newer())
    with pytest.raises(OptionError, match="no InferenceData"):
        fit.to_arviz()
