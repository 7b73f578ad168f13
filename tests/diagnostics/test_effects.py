"""Random effects, covariates and series of residuals: tables against hand computation, figures."""

import io

import numpy as np
import pandas as pd
import pytest
from known import at, linear_model, oral_model
from matplotlib.figure import Figure
from scipy import stats

import saem
from saem.diagnostics._replicates import replicates
from saem.diagnostics.effects import mean_correlation, subject_covariates
from saem.diagnostics.series import quantile_table
from saem.exceptions import DataError, OptionError
from saem.nlme._replicates import with_responses


@pytest.fixture(scope="module")
def fit():
    model, theta = oral_model(n=24)
    return at(with_responses(model, replicates(model, theta, 1, 3)[0]), theta)


@pytest.fixture(scope="module")
def people(fit):
    """A number that goes with clearance, one that does not, a category; indexed by id."""
    rng = np.random.default_rng(2)
    clearance = fit.random_effects["CL"].to_numpy()
    return pd.DataFrame(
        {
            "weight": 70 + 40 * clearance + rng.normal(size=24),
            "age": rng.normal(40, 9, size=24),
            "sex": np.where(rng.random(24) < 0.5, "f", "m"),
        },
        index=fit.model.individuals.ids,
    )


def test_modes_and_draws(fit):
    modes = fit.random_effects_table("mode")
    np.testing.assert_array_equal(modes.to_numpy(), fit.random_effects.to_numpy())
    draws = fit.random_effects_table(n_samples=3, seed=5)
    assert draws.shape == (72, 3)
    psi = fit.individual("samples", n_samples=3, seed=5)
    expected = np.log(psi["CL"]) - np.log(3.0)
    np.testing.assert_allclose(draws["CL"], expected, atol=1e-12)
    assert draws.index.names == ["id", "sample"]


def test_correlations_are_those_of_scipy(fit):
    table = fit.random_effect_correlations("mode")
    assert len(table) == 3
    for _, row in table.iterrows():
        r, p = stats.pearsonr(fit.random_effects[row["first"]], fit.random_effects[row["second"]])
        assert row["correlation"] == pytest.approx(r)
        assert row["p_value"] == pytest.approx(p)
        assert row["model"] == 0.0
    linear = at(*linear_model())
    assert linear.random_effect_correlations("mode")["model"][0] == pytest.approx(1.0 / 3.0)


def test_averaged_p_values_err_on_the_safe_side():
    """400 covariates without effect: at most a binomial share below 0.05 (false alarm 1e-3)."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=(30, 1, 400))
    eta = np.sqrt(0.7) * level + np.sqrt(0.3) * rng.normal(size=(30, 5, 400))
    _, p = mean_correlation(rng.normal(size=30), eta)
    assert (p < 0.05).sum() <= stats.binom.ppf(0.999, 400, 0.05)
    assert np.mean(p < 0.5) < 0.6


def test_covariates(fit, people):
    table = fit.covariate_tests(people, source="mode")
    assert len(table) == 9
    first = table[table["parameter"] == "CL"].iloc[0]
    assert first["covariate"] == "weight"
    r, p = stats.pearsonr(people["weight"], fit.random_effects["CL"])
    assert (first["statistic"], first["p_value"]) == (pytest.approx(r), pytest.approx(p))
    sex = table.query("parameter == 'V' and covariate == 'sex'").iloc[0]
    groups = [fit.random_effects["V"][(people["sex"] == s).to_numpy()] for s in "fm"]
    f, p = stats.f_oneway(*groups)
    assert (sex["kind"], sex["statistic"], sex["p_value"]) == (
        "category", pytest.approx(f), pytest.approx(p),
    )  # fmt: skip
    assert fit.covariate_tests(people, n_samples=5).iloc[0]["p_value"] < 0.01


def test_covariates_by_row_or_by_id(fit, people):
    rows = fit.model.individuals
    long = people.rename_axis("id").reset_index().iloc[np.repeat(np.arange(24), 6)]
    long = long.assign(time=rows.columns["time"], dv=rows.dv)
    shuffled = long.sample(frac=1.0, random_state=0)
    pd.testing.assert_frame_equal(
        subject_covariates(fit, shuffled), subject_covariates(fit, people), check_names=False
    )
    with pytest.raises(DataError, match="'bmi' varies"):
        subject_covariates(fit, long.assign(bmi=np.arange(144.0)))
    with pytest.raises(DataError, match="no row for id 23"):
        subject_covariates(fit, people.iloc[:-1])
    with pytest.raises(DataError, match="'age' is missing"):
        subject_covariates(fit, people.assign(age=people["age"].where(people.index > 2)))
    for given in (None, "sex"):
        with pytest.raises(OptionError, match="give a frame"):
            subject_covariates(fit, given)


def test_quantiles():
    values = pd.DataFrame({"npde": [0.5, -1.0, np.nan, 2.0]})
    table = quantile_table(values)
    assert list(table["value"]) == [-1.0, 0.5, 2.0]
    np.testing.assert_allclose(table["expected"], stats.norm.ppf([1 / 6, 0.5, 5 / 6]))
    # The smallest of three lies above x with probability (1 - F(x))^3.
    assert (1 - stats.norm.cdf(table["lower"][0])) ** 3 == pytest.approx(0.975)
    with pytest.raises(OptionError, match="level=5"):
        quantile_table(values, 5)


def test_autocorrelation_by_hand(fit):
    table = fit.residual_autocorrelation(["iwres", "cwres"], max_lag=9)
    assert table.groupby("residual")["lag"].max().to_dict() == {"cwres": 5, "iwres": 5}
    values = fit.residuals()["iwres"].to_numpy().reshape(24, 6)
    first, second = values[:, :-2].ravel(), values[:, 2:].ravel()
    expected = first @ second / np.sqrt((first @ first) * (second @ second))
    row = table.query("residual == 'iwres' and lag == 2").iloc[0]
    assert row["autocorrelation"] == pytest.approx(expected)
    assert row["n_pairs"] == 96
    assert row["upper"] == pytest.approx(1.96 / np.sqrt(96))
    with pytest.raises(OptionError, match="max_lag"):
        fit.residual_autocorrelation(max_lag=0)


def test_figures_show_the_tables(fit, people):
    plot = fit.plot
    figures = {
        "qq": plot.qq("iwres"),
        "autocorrelation": plot.autocorrelation("iwres"),
        "effects": plot.random_effects("mode"),
        "pairs": plot.random_effect_correlations("mode"),
        "covariates": plot.covariates(people, source="mode"),
    }
    for figure in figures.values():
        assert isinstance(figure, Figure)
        figure.savefig(io.BytesIO())
    drawn = figures["qq"].axes[0].get_lines()[-1].get_ydata()
    np.testing.assert_array_equal(drawn, fit.residual_quantiles("iwres")["value"])
    drawn = figures["autocorrelation"].axes[0].get_lines()[-1].get_ydata()
    table = fit.residual_autocorrelation("iwres")
    np.testing.assert_array_equal(drawn, table["autocorrelation"])
    titles = [axis.get_title() for axis in figures["effects"].axes]
    assert titles[2] == f"CL  (shrinkage {100 * fit.shrinkage['CL']:.0f} %)"
    assert len(figures["pairs"].axes) == 3
    assert len(figures["covariates"].axes) == 9
    points = figures["covariates"].axes[6].get_lines()[1]
    np.testing.assert_array_equal(points.get_xdata(), people["weight"])
    np.testing.assert_array_equal(points.get_ydata(), fit.random_effects["CL"])


def test_figures_of_a_fit():
    fit = linear_model(n=20)[0].fit("saem", seed=1, budget=saem.Iterations(60), progress=False)
    figure = fit.plot.monte_carlo(["slope", "a"])
    assert len(figure.axes) == 2
    course = [line.get_ydata() for line in figure.axes[0].get_lines()]
    assert any(np.array_equal(y, fit.trace["slope"]) for y in course)
    with pytest.raises(OptionError, match="params="):
        fit.plot.monte_carlo(["CL"])
    contributions = fit.individual_loglik()["loglik"].to_numpy() / 5
    figure = fit.plot.individual_loglik()
    np.testing.assert_allclose(figure.axes[0].get_lines()[0].get_ydata(), np.sort(contributions))
    lowest = figure.axes[0].texts[0].get_text()
    assert lowest == str(fit.model.individuals.ids[int(contributions.argmin())])
    options = {"n_samples": 500, "n_blocks": 5}
    drawn = fit.plot.loglik_convergence(**options).axes[0].get_lines()[0].get_ydata()
    np.testing.assert_array_equal(drawn, fit.loglik_convergence(**options)["loglik"])
