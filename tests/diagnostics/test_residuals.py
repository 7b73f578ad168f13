"""Residuals and prediction discrepancies: closed forms, levels of tests, order of rows."""

import numpy as np
import pandas as pd
import pytest
from known import linear_model, marginal, oral_model
from scipy import stats

import saem
from saem.diagnostics._replicates import replicates
from saem.diagnostics.residuals import (
    normal_scores,
    prediction_discrepancies,
    residual_tests,
    whiten,
)
from saem.exceptions import OptionError, SaemWarning


@pytest.fixture(scope="module")
def linear():
    model, theta = linear_model()
    return model, theta, replicates(model, theta, 4000, 1)


@pytest.mark.parametrize("decorrelation", ["cholesky", "eigen"])
def test_linear_model_has_the_exact_residuals(linear, decorrelation):
    """PWRES and NPDE are the exact whitened residuals, to the error of 4000 simulations.

    A simulated place has standard error sqrt(p (1 - p) / K); that of its normal quantile is
    below 0.06 for residuals within 2.5. Over 150 rows the largest error stays below 5 of these
    (false alarm 1e-4), also with the error of the simulated moments (about 0.03 a row).
    """
    model, theta, simulated = linear
    found = prediction_discrepancies(model, simulated, decorrelation)
    exact, alone = np.empty(model.nobs), np.empty(model.nobs)
    for rows, mean, covariance in marginal(model, theta):
        difference = model.individuals.dv[rows] - mean
        exact[rows] = whiten(covariance, difference, decorrelation)
        alone[rows] = difference / np.sqrt(np.diag(covariance))
    inside = np.abs(exact) < 2.5
    assert inside.sum() > 140
    np.testing.assert_allclose(found.pwres, exact, atol=0.2)
    np.testing.assert_allclose(found.npde[inside], exact[inside], atol=0.3)
    np.testing.assert_allclose(found.npd[inside], alone[inside], atol=0.3)
    assert np.sqrt(np.mean((found.pwres - exact) ** 2)) < 0.05


def test_whitening_is_an_inverse_root():
    covariance = np.array([[4.0, 1.2, 0.0], [1.2, 2.0, -0.4], [0.0, -0.4, 1.0]])
    for decorrelation in ("cholesky", "eigen"):
        root = whiten(covariance, np.eye(3), decorrelation)  # rows are W e_j
        np.testing.assert_allclose(root.T @ covariance @ root, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(root, root.T)


def test_extremes_and_ties():
    """Brendel et al.: places 0 and 1 become 1/(2K) and 1 - 1/(2K); equal values count half."""
    simulated = np.arange(1.0, 11.0)[:, None] * np.ones(4)
    scores = normal_scores(np.array([0.0, 11.0, 5.0, np.nan]), simulated)
    expected = stats.norm.ppf([0.05, 0.95, 0.45])
    np.testing.assert_allclose(scores[:3], expected, rtol=1e-12)
    assert np.isnan(scores[3])


def test_a_row_without_variance_is_missing(linear):
    model, _, simulated = linear
    flat = simulated[:200].copy()
    flat[:, 0] = 1.0
    with pytest.warns(SaemWarning, match="first id 0"):
        found = prediction_discrepancies(model, flat)
    assert np.isnan(found.npde[:5]).all()
    assert np.isfinite(found.npde[5:]).all()
    assert np.isfinite(found.npd).all()


def test_rows_keep_order_and_index():
    """A frame in another order gives the same residuals under the labels of its rows."""
    by_id = linear_model()
    with pytest.warns(SaemWarning, match="were grouped"):
        shuffled = linear_model(shuffle=True)[0]
    options = {"seed": 1, "budget": saem.Iterations(5), "progress": False}
    fits = [model.fit("saem", **options) for model in (by_id[0], shuffled)]
    frame = fits[1].residuals()
    assert frame.index[0] == 0
    assert frame.index[1] == 5
    pd.testing.assert_series_equal(fits[0].residuals()["dv"], frame["dv"].sort_index())
    frames = [fit.residuals("all", n_simulations=150) for fit in fits]
    assert list(frames[0].columns[-5:]) == ["iwres", "cwres", "pwres", "npd", "npde"]
    again = fits[1].residuals("npde", n_simulations=150)
    assert np.array_equal(again["npde"], frames[1]["npde"])
    other = fits[1].residuals("npde", n_simulations=150, seed=7)
    assert not np.array_equal(other["npde"], frames[1]["npde"])
    table = fits[0].residual_tests(["cwres", "npde"], n_simulations=150)
    assert list(table.index) == ["cwres", "npde"]
    assert table.loc["npde", "n"] == 150
    npde = frames[0]["npde"].to_numpy()
    assert table.loc["npde", "sample_variance"] == pytest.approx(npde.var(ddof=1))
    assert table.loc["npde", "p_mean"] == stats.wilcoxon(npde).pvalue


def test_options_are_checked():
    model, _ = linear_model()
    fit = model.fit("saem", seed=1, budget=saem.Iterations(2), progress=False)
    with pytest.raises(OptionError, match=r"2 problems(?s:.)*did you mean 'npde'(?s:.)*decorr"):
        fit.residuals(["npdee"], decorrelation="polar")
    for n in (99, 10**12, 2.5):
        with pytest.raises(OptionError, match="n_simulations"):
            fit.residuals("npde", n_simulations=n)


def npde_p_values(n_sets, n_simulations, error=None):
    """P-values of the tests of NPDE on data sets from the true model, each with own simulations."""
    model, theta = oral_model(error=error)
    rows = []
    for k in range(n_sets):
        dv = replicates(model, theta, 1, 50_000 + k)[0]
        simulated = replicates(model, theta, n_simulations, k)
        found = prediction_discrepancies(model, simulated, dv=dv)
        rows.append(residual_tests(found.npde))
    return pd.DataFrame(rows)


def check_level(p_values):
    """P-values of each test look uniform; false alarm 2e-3 a test (two checks at 1e-3)."""
    n = len(p_values)
    for name in ("mean", "variance", "kolmogorov_smirnov"):
        assert stats.kstest(p_values[name], "uniform").pvalue > 1e-3, name
        rejected = int((p_values[name] < 0.05).sum())
        assert rejected <= stats.binom.ppf(0.999, n, 0.05), name
    # Bonferroni: at most the nominal level.
    assert (p_values["combined"] < 0.05).sum() <= stats.binom.ppf(0.999, n, 0.05)


def test_npde_of_the_true_model_have_the_level_of_their_tests():
    """25 data sets of 40 individuals, 400 simulations; false alarm below 0.01 in all."""
    check_level(npde_p_values(25, 400))


@pytest.mark.slow
def test_npde_of_the_true_model_over_200_data_sets():
    """200 data sets, 1000 simulations each; false alarm below 0.01 in all."""
    check_level(npde_p_values(200, 1000))


def test_npde_notice_a_wrong_model():
    """A clearance 40 % too high, or half the proportional error: the combined test rejects."""
    model, theta = oral_model()
    dv = replicates(model, theta, 1, 9)[0]
    for name, factor in (("CL", 1.3), ("b", 0.5)):
        estimates = model.estimation_vector(theta)
        estimates[model.param_names.index(name)] *= factor
        wrong = replicates(model, model.with_estimates(theta, estimates), 300, 1)
        found = residual_tests(prediction_discrepancies(model, wrong, dv=dv).npde)
        assert found["combined"] < 1e-3, name
