"""Monte Carlo errors of estimates, standard errors and -2 log-likelihood, as table and as rule."""

import numpy as np
import pytest
from evidence import theophylline

import saem
from saem.convergence.accuracy import noise_of
from saem.exceptions import OptionError
from saem.inference.information import louis_information
from saem.inference.likelihood import importance_sampling, quadrature
from saem.models import LinearMixed


def test_errors_of_standard_errors_are_those_of_other_seeds():
    """Over ten seeds standard errors scatter by what each fit says of them."""
    fits = [theophylline().fit("saem", seed=s, progress=False) for s in range(10)]
    tables = [fit.accuracy() for fit in fits[:3]]
    scatter = np.std([fit.bse for fit in fits], axis=0, ddof=1)
    reported = np.sqrt(np.mean([table["mc_error_of_se"][:-1] ** 2 for table in tables], axis=0))
    # Nine degrees of freedom, seven correlated values: false alarm about 1e-3 each.
    assert np.all((scatter / reported > 0.25) & (scatter / reported < 2.5))
    assert tables[0].attrs["expected_loss"] < 0.01
    assert (tables[0]["relative_of_se"][:-1] < 0.05).all()
    assert tables[0].index[-1] == "-2LL"


def test_without_draws_only_nodes_and_the_likelihood_have_an_error():
    fit = theophylline().fit("em", progress=False)
    table = fit.accuracy()
    assert (table["mc_error"][:-1] == 0.0).all()
    # Two nodes of nine fewer: a thousandth or two of the standard errors.
    assert (table["relative_of_se"][:-1] > 0.0).all()
    assert (table["relative_of_se"][:-1] < 0.005).all()
    assert table.loc["-2LL", "mc_error"] == pytest.approx(2 * fit.llf_error)
    assert table["within"].all()


def test_a_linear_mixed_model_has_the_table_and_the_rule():
    """Standard errors of 12 seeds scatter by what is said of them: within 0.4 to 2, at 1e-3."""
    model = LinearMixed.example(np.random.default_rng(1))
    fits = [model.fit("saem", seed=s, progress=False) for s in range(12)]
    tables = [fit.accuracy() for fit in fits[:3]]
    scatter = np.std([fit.bse for fit in fits], axis=0, ddof=1)
    reported = np.sqrt(np.mean([table["mc_error_of_se"][:-1] ** 2 for table in tables], axis=0))
    assert np.all((scatter / reported > 0.4) & (scatter / reported < 2.0))
    fit = model.fit("saem", accuracy=0.08, seed=1, progress=False)
    assert fit.stopped_by == "accuracy"
    assert fit.record.n_iter > 400
    assert (fit.mc_error / fit.bse).max() <= 0.08
    assert fit.accuracy().attrs["accuracy"] == 0.08
    assert fit.accuracy()["within"].all()


def test_the_rule_names_both_errors():
    fit = theophylline().fit("saem", accuracy=0.02, seed=1, progress=False)
    assert fit.stopped_by == "accuracy"
    assert "of the estimates are at most" in fit.reason
    assert "those of the standard errors" in fit.reason
    assert "stopped" not in fit.reason
    assert "converged: Monte Carlo errors" in fit.summary().as_text()
    noise = noise_of(theophylline(), fit.record)
    assert np.nanmax(noise.relative) <= 0.02
    assert np.nanmax(noise.of_se(theophylline(), fit.record.theta)) <= 0.02


def test_standard_errors_keep_a_run_going(monkeypatch):
    """A rule that finds the standard errors too noisy goes on, and says so at its limit."""
    monkeypatch.setattr("saem.convergence.accuracy.Noise.of_se", lambda *_: np.full(7, 0.5))
    with pytest.warns(saem.ConvergenceWarning):
        fit = theophylline().fit(saem.SAEM(accuracy=0.05, max_iter=600), seed=1, progress=False)
    assert fit.stopped_by == "limit"
    assert fit.record.n_iter == 600
    assert "error of the standard error of" in fit.reason


# -- likelihood and information --------------------------------------------------------------


def test_draws_of_the_likelihood_are_added_until_it_is_accurate():
    """Ten times the accuracy takes some hundred times the draws; 4 errors from quadrature."""
    model = theophylline()
    theta = model.fit(seed=1, progress=False).theta
    usual = importance_sampling(model, theta)
    assert usual.error < 0.05
    finer = importance_sampling(model, theta, accuracy=0.002)
    assert finer.error <= 0.002
    assert finer.n_points.sum() > 8 * usual.n_points.sum()
    assert abs(finer.value - quadrature(model, theta).value) < 4 * finer.error
    # What is asked for by number stays.
    few = importance_sampling(model, theta, n_samples=100)
    assert few.error > 0.02
    assert few.n_points.sum() < 200 * model.n_individuals
    with pytest.raises(OptionError, match="accuracy"):
        importance_sampling(model, theta, accuracy=0.0)


def test_the_summary_warns_of_a_noisy_likelihood():
    fit = theophylline().fit(seed=1, progress=False)
    fit._logliks[("importance", ())] = saem.results.LogLik(-172.7, 0.2, "importance sampling")
    assert any("Monte Carlo error of 0.4, above 0.1" in text for text in fit.warnings())
    row = fit.accuracy().loc["-2LL"]
    assert row["mc_error"] == pytest.approx(0.4)
    assert not row["within"]


def test_draws_of_the_information_are_added_until_it_is_accurate():
    model = theophylline()
    theta = model.fit(seed=1, progress=False).theta
    first = louis_information(model, theta, n_samples=160, seed=1)
    asked = 0.4 * np.nanmax(first.bse_error / first.bse)
    more = louis_information(model, theta, n_samples=160, accuracy=asked, seed=1)
    assert np.nanmax(more.bse_error / more.bse) <= asked
    exact = louis_information(model, theta)
    # Jackknife errors with 19 degrees of freedom: beyond 6 of them by chance at 1e-4 in all.
    assert np.all(np.abs(more.bse - exact.bse) < 6 * more.bse_error)
    with pytest.raises(OptionError, match="accuracy"):
        louis_information(model, theta, accuracy=-1.0)
