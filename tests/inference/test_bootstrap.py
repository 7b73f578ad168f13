"""Bootstraps: their distributions, reproducibility, resuming, failures."""

import functools

import numpy as np
import pandas as pd
import pytest
from reference import shipped
from scipy import stats

import saem
from saem.exceptions import OptionError
from saem.inference._resampling import Maker, standardised
from saem.inference.bootstrap import Bootstrap
from saem.nlme._replicates import respond


def line(base, slope, *, age):
    return base + slope * age


@functools.cache
def balanced(n=60):
    """A balanced linear model: the variance of its mean is known in closed form."""
    rng = np.random.default_rng(2)
    ages = np.linspace(-1.0, 1.0, 5)
    b = rng.normal(size=(n, 2)) * [1.5, 0.8] + [10.0, 3.0]
    dv = b[:, :1] + b[:, 1:] * ages + 0.5 * rng.normal(size=(n, 5))
    frame = pd.DataFrame({"id": np.repeat(np.arange(n), 5), "age": np.tile(ages, n)})
    frame["dv"] = dv.ravel()
    frame["sex"] = np.where(frame["id"] < n // 3, "f", "m")
    model = saem.NLME(
        frame,
        line,
        {
            "base": saem.Normal(10.0, omega=1.5, covariates="sex"),
            "slope": saem.Normal(3.0, omega=0.8),
        },
        error=saem.ConstantError(0.5),
    )
    return model.fit("anderson-em", progress=False, seed=1)


@functools.cache
def replicates(kind):
    return balanced().bootstrap(200, kind, seed=3)


@pytest.mark.parametrize("kind", ["case", "parametric", "conditional"])
def test_standard_errors_of_a_linear_model(kind):
    """200 replicates: ratio to the exact within 4 Monte Carlo errors (5 % each), 6 ratios.

    False alarm 4e-4 for normal replicates; to that a term of order 1/n, 5 %, in which the
    kinds and the information differ.
    """
    fit = balanced()
    found = replicates(kind)
    assert found.n_failed == 0
    assert found.status["converged"].all()
    exact = fit.information("exact").bse
    ratio = found.bse.to_numpy() / exact
    fixed = [j for j, k in enumerate(fit.model.param_kind) if k in ("typical", "coefficient")]
    assert np.all(np.abs(ratio[fixed] - 1.0) < 4.0 * 0.05 + 0.05)
    # Variances: the case bootstrap goes with the kurtosis of these 60 individuals.
    assert np.all(np.abs(ratio - 1.0) < 4.0 * 0.05 + (0.3 if kind == "case" else 0.1))


def test_parametric_replicates_are_centred_at_the_estimate():
    """Fixed effects of a linear model are unbiased: 3 z values below 4, false alarm 2e-4."""
    fit = balanced()
    found = replicates("parametric")
    z = found.bias / (found.bse / np.sqrt(200.0))
    fixed = [k in ("typical", "coefficient") for k in fit.model.param_kind]
    assert np.abs(z[fixed]).max() < 4.0


def test_conditional_effects_have_the_variance_of_the_model():
    """Shrinkage is taken out exactly; residuals have variance 1; means are 0."""
    fit = shipped().fit("anderson-em", progress=False, seed=1)
    normals, eps = standardised(fit.model, fit.theta)
    np.testing.assert_allclose(normals.T @ normals / 12.0, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(normals.mean(axis=0), 0.0, atol=1e-10)
    assert np.mean(eps**2) == pytest.approx(1.0)
    assert abs(eps.mean()) < 1e-12
    # Each individual's own effects and residuals are resampled, not others made up.
    maker = Maker(fit.model, fit.theta, "conditional", None, 5)
    model, *_ = maker(0)
    rng = maker(0)[2]
    del rng
    from saem.inference._mixture_bootstrap import generator

    rng = generator(5, 0)
    rows = rng.integers(0, 12, 12)
    residuals = eps[rng.integers(0, eps.size, eps.size)]
    expected = respond(fit.model, fit.theta, normals[rows], residuals)
    assert np.array_equal(model.individuals.dv, expected)


def test_same_bits_for_any_number_of_workers_and_replicates():
    fit = shipped().fit("anderson-em", progress=False, seed=1)
    one = fit.bootstrap(6, seed=7, n_workers=1)
    many = fit.bootstrap(9, seed=7, n_workers=3)
    assert one.replicates.equals(many.replicates.iloc[:6])
    other = fit.bootstrap(6, seed=8, n_workers=1)
    assert not one.replicates.equals(other.replicates)


def test_stochastic_refits_are_reproducible_too():
    fit = shipped().fit("anderson-em", progress=False, seed=1)
    options = {"algorithm": saem.SAEM(n_exploration=20, n_smoothing=20), "seed": 7}
    one, two = (fit.bootstrap(3, n_workers=w, **options) for w in (1, 3))
    assert one.replicates.equals(two.replicates)
    assert one.replicates.notna().all(axis=None)


def test_goes_on_after_an_interruption(tmp_path, monkeypatch):
    fit = shipped().fit("anderson-em", progress=False, seed=1)
    whole = fit.bootstrap(6, seed=7, n_workers=1)
    first = fit.bootstrap(3, seed=7, folder=tmp_path / "boot", n_workers=1)
    file = tmp_path / "boot" / "replicates.csv"
    with file.open("a") as stream:
        stream.write("3,True,conver")  # cut off while it was written
    fitted = []
    from saem.inference import bootstrap as module

    plain = module._refit
    monkeypatch.setattr(module, "_refit", lambda m, b, *a: fitted.append(b) or plain(m, b, *a))
    found = fit.bootstrap(6, seed=7, folder=tmp_path / "boot", n_workers=1)
    assert fitted == [3, 4, 5]
    assert found.replicates.equals(whole.replicates)
    assert found.status["seconds"].iloc[:3].equals(first.status["seconds"])
    assert len(file.read_text().splitlines()) == 7
    with pytest.raises(OptionError, match=r"another bootstrap: seed differ"):
        fit.bootstrap(6, seed=8, folder=tmp_path / "boot")


def test_failed_replicates_are_kept_with_their_message(monkeypatch):
    fit = shipped().fit("anderson-em", progress=False, seed=1)
    plain = Maker.__call__

    def sometimes(self, b):
        if b == 1:
            raise saem.exceptions.FitError("no start was found")
        return plain(self, b)

    monkeypatch.setattr(Maker, "__call__", sometimes)
    found = fit.bootstrap(3, seed=7, n_workers=1)
    assert found.n_failed == 1
    assert found.replicates.iloc[1].isna().all()
    assert found.status.loc[1, "message"] == "FitError: no start was found"
    assert not found.status.loc[1, "converged"]
    table = found.summary()
    assert table.attrs["n_failed"] == 1
    assert np.isfinite(table["se"]).all()


def test_strata_keep_their_sizes():
    fit = balanced()
    maker = Maker(fit.model, fit.theta, "case", np.repeat([0, 1], [20, 40]), 3)
    sex = fit.model.individuals.subjects["sex"].to_numpy()
    for b in range(5):
        model, *_ = maker(b)
        assert np.array_equal(model.individuals.subjects["sex"].to_numpy(), sex)
        assert not np.array_equal(model.individuals.dv, fit.model.individuals.dv)
    by_name = fit.bootstrap(2, strata="sex", seed=3, n_workers=1)
    by_value = fit.bootstrap(2, strata=list(sex), seed=3, n_workers=1)
    assert by_name.replicates.equals(by_value.replicates)
    assert not by_name.replicates.equals(fit.bootstrap(2, seed=3, n_workers=1).replicates)


def of_gamma(n=400, n_replicates=4000, seed=0):
    """Bootstrap of the mean of an exponential sample, as the class sees it."""
    rng = np.random.default_rng(seed)
    sample = rng.exponential(size=n)
    means = sample[rng.integers(0, n, (n_replicates, n))].mean(axis=1)
    u = sample - sample.mean()
    a = np.sum(u**3) / (6.0 * np.sum(u**2) ** 1.5)
    index = ["mean"]
    status = pd.DataFrame({"converged": np.ones(n_replicates, bool)})
    return sample, Bootstrap(
        pd.Series([sample.mean()], index), pd.DataFrame(means[:, None], columns=index), status,
        "case", seed, pd.Series([a], index),
    )  # fmt: skip


def test_intervals_against_scipy():
    """BCa and basic ends within the Monte Carlo error of 4000 replicates (5 sd of a quantile)."""
    sample, found = of_gamma()
    ends = found.conf_int(0.1, "basic").to_numpy()[0]
    percentile = found.conf_int(0.1).to_numpy()[0]
    np.testing.assert_allclose(ends, 2.0 * sample.mean() - percentile[::-1])
    reference = stats.bootstrap(
        (sample,), np.mean, n_resamples=4000, method="BCa", confidence_level=0.9, rng=1
    ).confidence_interval
    # sd of a 5 % quantile of a normal: sqrt(.05 .95 / 4000) / 0.103 standard errors.
    tolerance = 5.0 * 0.034 * found.bse.iloc[0] * np.sqrt(2.0)
    np.testing.assert_allclose(found.conf_int(0.1, "bca").to_numpy()[0], reference, atol=tolerance)
    with pytest.raises(OptionError, match="alpha=2"):
        found.conf_int(2)
    with pytest.raises(OptionError, match="method='normal'"):
        found.conf_int(method="normal")


def test_acceleration_of_a_fit_is_that_of_its_influences():
    found = balanced().bootstrap(20, seed=3)
    assert found.acceleration is not None
    assert np.all(np.abs(found.acceleration) < 0.2)
    corrected = found.conf_int(method="bca")
    assert (corrected["lower"] < corrected["upper"]).all()


def test_bad_options_are_named_together():
    fit = balanced()
    with pytest.raises(OptionError) as caught:
        fit.bootstrap(0, "wild", strata="sex")
    for part in ("n_replicates=0", "kind='wild'", "kind='case' only"):
        assert part in str(caught.value)
    with pytest.raises(OptionError, match="strata='race' is not a column"):
        fit.bootstrap(2, strata="race")
    with pytest.raises(OptionError, match="changes within individuals"):
        fit.bootstrap(2, strata="age")
