"""What a fit with inter-occasion variability says: predictions, tables, replicates, files.

The yardstick of the linear model is the multivariate normal of all of a subject's numbers,
``Z Omega Z' + W Gamma W' + a^2 I``, written out here.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import saem
from saem.algorithms import QuadratureEM
from saem.estep import Quadrature
from saem.exceptions import OptionError
from saem.inference._resampling import Maker, standardised
from saem.nlme._occasion_tables import present


def level(base, *, x):
    """A constant; x is there so that there is a column."""
    return base + 0.0 * x


def data(n=12, seed=4):
    """One or two occasions a subject, in an order of their own, three responses on each."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        eta = rng.normal()
        order = ["test", "ref"] if i % 2 else ["ref", "test"]
        for o in order[: 1 if i == 5 else 2]:
            kappa = 0.7 * rng.normal()
            for _ in range(3):
                rows.append((f"s{i}", o, 0.0, i % 3, 5.0 + eta + kappa + 0.5 * rng.normal()))
    return pd.DataFrame(rows, columns=["id", "period", "x", "group", "dv"])


@pytest.fixture(scope="module")
def fit():
    model = saem.NLME(
        data(), structural=level, parameters={"base": saem.Normal(4.0, omega=1.0)},
        error=saem.ConstantError(0.7), occasion="period", iov={"base": 0.5},
    )  # fmt: skip
    return model.fit(QuadratureEM(Quadrature(3), tolerance=1e-8), seed=0)


def gaussian(fit, rows, new=0):
    """Conditional mean of (base, kappas by label, one new kappa) given rows with responses."""
    mu, omega2, gamma2, a = fit.params
    labels = list(dict.fromkeys(rows["period"]))
    z = np.ones((len(rows), 1))
    w = (rows["period"].to_numpy()[:, None] == np.array(labels)).astype(float)
    both = np.hstack([z, w])
    prior = np.diag([omega2] + [gamma2] * len(labels))
    known = rows["dv"].notna().to_numpy()
    h = both[known]
    v = h @ prior @ h.T + a**2 * np.eye(len(h))
    gain = prior @ h.T @ np.linalg.inv(v)
    mean = gain @ (rows["dv"].to_numpy()[known] - mu)
    return mu, labels, mean, prior - gain @ h @ prior


def test_individuals_by_occasion_are_those_of_the_closed_form(fit):
    frame = data()
    modes = fit.individual("mode", by="occasion")
    means = fit.individual("mean", by="occasion")
    sds = fit.individual("sd", by="occasion")
    assert list(modes.index.names) == ["id", "period"]
    assert len(modes) == 23
    assert ("s5", "ref") not in modes.index
    for i, rows in frame.groupby("id", sort=False):
        mu, labels, mean, cov = gaussian(fit, rows)
        assert fit.individual().loc[i, "base"] == pytest.approx(mu + mean[0], abs=1e-6)
        for k, o in enumerate(labels):
            place = (i, o)
            sd = np.sqrt(cov[0, 0] + cov[k + 1, k + 1] + 2 * cov[0, k + 1])
            assert modes.loc[place, "base"] == pytest.approx(mu + mean[0] + mean[k + 1], abs=1e-5)
            assert fit.occasion_effects.loc[place, "base"] == pytest.approx(mean[k + 1], abs=1e-5)
            # Monte Carlo error of the mean below 0.05 sd by its rule, here four of them.
            assert abs(means.loc[place, "base"] - modes.loc[place, "base"]) < 0.2 * sd
            assert sds.loc[place, "base"] == pytest.approx(sd, rel=0.25)
    draws = fit.individual("samples", by="occasion", n_samples=3, seed=1)
    assert list(draws.index.names) == ["id", "period", "sample"]
    assert draws.shape == (69, 1)


def test_variances_and_shrinkage_take_occasions_together(fit):
    assert list(fit.omega) == ["base"]
    assert fit.gamma.loc["base", "base"] == fit.params["gamma2_base"]
    assert fit.omega.loc["base", "base"] == fit.params["omega2_base"]
    kappa = fit.occasion_effects["base"]
    expected = 1 - np.std(kappa, ddof=1) / np.sqrt(fit.params["gamma2_base"])
    assert fit.shrinkage["kappa_base"] == pytest.approx(expected, rel=1e-12)
    assert fit.to_frame().loc["gamma2_base", "shrinkage_percent"] == pytest.approx(100 * expected)
    assert list(fit.shrinkages(n_samples=20).index) == ["base", "kappa_base", "epsilon"]
    assert list(fit.random_effects) == ["base"]


def test_predictions_know_the_occasions_by_their_labels(fit):
    frame = data()
    for kind in ("individual", "population"):
        np.testing.assert_allclose(fit.predict(kind, frame), fit.predict(kind), rtol=1e-12)
    # In another order, and one row of an occasion that was not in the fit.
    mixed = frame.sample(frac=1.0, random_state=0)
    np.testing.assert_allclose(
        fit.predict("individual", mixed), fit.predict("individual").loc[mixed.index], rtol=1e-12
    )
    new = fit.predict("individual", frame.assign(period="third"))
    np.testing.assert_allclose(new, fit.individual()["base"].loc[frame["id"]], rtol=1e-12)
    bare = frame.drop(columns=["period", "id", "dv"])
    np.testing.assert_allclose(fit.predict("population", bare), fit.params["base"], rtol=1e-12)


def test_forecasts_of_more_occasions_are_those_of_the_closed_form(fit):
    rows = pd.DataFrame(
        {
            "id": "new", "x": 0.0, "period": ["a", "a", "b", "b", "c", "d"],
            "dv": [6.0, 6.4, 5.1, 5.0, np.nan, np.nan],
        }
    )  # fmt: skip
    other = rows.assign(id="unseen", dv=np.nan)
    found = fit.forecast(
        pd.concat([rows, other], ignore_index=True), interval="confidence", n_samples=4000, seed=3
    )
    mu, labels, mean, cov = gaussian(fit, rows)
    for j, o in enumerate(rows["period"]):
        k = 1 + labels.index(o)
        assert found["prediction"][j] == pytest.approx(mu + mean[0] + mean[k], abs=1e-5)
        sd = np.sqrt(cov[0, 0] + cov[k, k] + 2 * cov[0, k])
        width = found["upper"][j] - found["lower"][j]
        # Quantiles of 4000 draws of chains: an sd's error is some 3 %, five of them.
        assert width == pytest.approx(2 * stats.norm.ppf(0.95) * sd, rel=0.15)
    _, omega2, gamma2, _ = fit.params
    width = (found["upper"] - found["lower"]).iloc[6:]
    np.testing.assert_allclose(width, 2 * stats.norm.ppf(0.95) * np.sqrt(omega2 + gamma2), rtol=0.1)
    np.testing.assert_allclose(found["prediction"].iloc[6:], mu, rtol=1e-12)


def test_replicates_keep_subjects_whole(fit):
    model = fit.model
    make = Maker(model, fit.theta, "case", None, 5)
    new, _, _ = make(0)
    counts = {tuple(labels) for labels in new.occasions.labels}
    assert counts <= {("ref", "test"), ("test", "ref"), ("test",)}
    # Each is a subject of the data with all of its rows.
    originals = {tuple(model.record_of(i)) for i in range(model.n_individuals)}
    assert all(tuple(new.record_of(i)) in originals for i in range(new.n_individuals))


def test_the_conditional_bootstrap_has_the_variances_of_both_levels(fit):
    model, there = fit.model, present(fit.model)
    normals, _ = standardised(model, fit.theta)
    first, second = normals[:, 0], normals[:, 1:][there]
    for values in (first, second):
        assert abs(values.mean()) < 1e-9
        assert np.mean(values**2) == pytest.approx(1.0, rel=1e-9)
    assert np.isnan(normals[:, 1:][~there]).all()
    new, _, _ = Maker(model, fit.theta, "conditional", None, 5)(0)
    assert np.isfinite(new.individuals.dv).all()
    assert not np.array_equal(new.individuals.dv, model.individuals.dv)


def test_tables_of_effects(fit):
    table = fit.random_effects_table("mode")
    assert list(table) == ["base", "kappa_base"]
    assert list(table.index.names) == ["id", "period", "sample"]
    np.testing.assert_allclose(
        table["kappa_base"].to_numpy(), fit.occasion_effects["base"].to_numpy()
    )
    tests = fit.covariate_tests(data()[["id", "group"]].drop_duplicates(), source="mode")
    assert list(tests["parameter"]) == ["base"]
    assert not len(fit.random_effect_correlations())


def test_covariates_are_searched_at_the_level_of_subjects(fit):
    frame = data()
    rng = np.random.default_rng(0)
    level_of = fit.individual()["base"].loc[frame["id"]].to_numpy()
    frame["weight"] = level_of + 0.3 * rng.normal(size=12)[pd.factorize(frame["id"])[0]]
    search = fit.covariate_search(
        frame, {"base": ["weight", "group"]},
        algorithm=QuadratureEM(Quadrature(3), tolerance=1e-6),
    )  # fmt: skip
    assert search.terms == {"base": ["weight"]}
    assert "gamma2_base" in search.fit.param_names
    assert search.fit.params["omega2_base"] < fit.params["omega2_base"]


def test_a_clock_that_starts_anew_without_variability(fit):
    bare = saem.NLME(
        data(), structural=level, parameters={"base": saem.Normal(4.0, omega=1.0)},
        error=saem.ConstantError(0.7), occasion="period", iov=[],
    )  # fmt: skip
    none = bare.fit(QuadratureEM(Quadrature(3), tolerance=1e-8), seed=0)
    assert bare.param_names == ["base", "omega2_base", "a"]
    table = saem.compare({"iov": fit, "none": none}, method="quadrature")
    assert table.loc["iov", "loglik"] > table.loc["none", "loglik"]
    assert none.gamma.shape == (0, 0)
    np.testing.assert_allclose(
        none.individual(by="occasion")["base"].groupby("id", sort=False).first(),
        none.individual()["base"],
    )
    plain = saem.NLME(
        data(), structural=level, parameters={"base": saem.Normal(4.0, omega=1.0)},
        error=saem.ConstantError(0.7),
    )  # fmt: skip
    other = plain.fit(QuadratureEM(Quadrature(3), tolerance=1e-8), seed=0)
    np.testing.assert_allclose(other.params, none.params, rtol=1e-6)
    with pytest.raises(OptionError, match="no occasions"):
        _ = other.occasion_effects
    with pytest.raises(OptionError, match="this model has no occasions"):
        other.individual(by="occasion")


def test_figures_and_report(fit, tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    from saem.report import html_report

    figure = fit.plot.individual_fits(n=2)
    names = {line.get_label() for line in figure.axes[0].lines}
    assert {"ref", "test", "population", "observed"} == names
    fit.plot.random_effects("mode")
    fit.plot.covariates(data()[["id", "group"]].drop_duplicates(), source="mode")
    page = html_report(fit, figures={})
    assert "kappa_base_1" not in page
    assert "occasion=&#x27;period&#x27;" in page
    assert "1 to 2" in page
