"""Visual predictive checks: bands hold what they promise, corrections are what they say."""

import io

import numpy as np
import pandas as pd
import pytest
from known import at, oral_model
from matplotlib.figure import Figure

from saem.diagnostics._replicates import replicates
from saem.diagnostics.vpc import bin_edges, corrected, predictive_check
from saem.exceptions import OptionError
from saem.nlme._replicates import with_responses


@pytest.fixture(scope="module")
def truth():
    model, theta = oral_model()
    return at(with_responses(model, replicates(model, theta, 1, 99)[0]), theta)


def shares_inside(n_sets, n_simulations, level, **options):
    """Share of percentiles inside their bands, for each of many data sets from the model."""
    model, theta = oral_model()
    shares = []
    for k in range(n_sets):
        dv = replicates(model, theta, 1, 70_000 + k)[0]
        fit = at(with_responses(model, dv), theta)
        check = fit.vpc(level=level, n_simulations=n_simulations, seed=k, **options)
        shares.append(check.inside)
    return np.array(shares)


@pytest.mark.parametrize("correction", [None, "proportional"])
def test_bands_hold_the_nominal_fraction(correction):
    """Mean share inside over 60 data sets within 4 standard errors of 0.8: false alarm 1e-4."""
    shares = shares_inside(60, 99, 0.8, bins=4, correction=correction)
    error = shares.std(ddof=1) / np.sqrt(shares.size)
    assert error < 0.03
    assert abs(shares.mean() - 0.8) < 4.0 * error


@pytest.mark.slow
def test_bands_hold_the_nominal_fraction_over_200_data_sets():
    """95 % bands of 399 simulations; within 3.5 standard errors: false alarm 5e-4."""
    shares = shares_inside(200, 399, 0.95, bins=6, strata={i: i % 2 for i in range(40)})
    error = shares.std(ddof=1) / np.sqrt(shares.size)
    assert error < 0.01
    assert abs(shares.mean() - 0.95) < 3.5 * error


def test_percentiles_are_those_of_the_data(truth):
    check = truth.vpc(bins=6, n_simulations=60, percentiles=(10, 50))
    data = truth.model.individuals
    assert len(check.observed) == 6 * 2
    for _, row in check.observed.iterrows():
        own = data.dv[data.columns["time"] == row["x"]]
        assert row["n"] == own.size == 40
        assert row["value"] == np.quantile(own, row["percentile"] / 100.0)
    sets = truth._replicates(60, None)[:, data.columns["time"] == 2.0]
    medians = np.quantile(sets, 0.5, axis=1)
    row = check.simulated.query("x == 2 and percentile == 50").iloc[0]
    assert row["median"] == pytest.approx(np.median(medians))
    assert row["lower"] == pytest.approx(np.quantile(medians, 0.025, method="weibull"))
    frame = check.to_frame()
    assert check.inside == frame["inside"].mean()
    pd.testing.assert_frame_equal(check.observed, truth.vpc(bins=6, n_simulations=60,
                                  percentiles=(10, 50)).observed)  # fmt: skip


def test_correction_formula():
    """Bergstrand et al., equation 1, by hand; equal predictions change nothing."""
    f = np.array([2.0, 4.0, 6.0, 1.0])
    cell = np.array([0, 0, 0, 1])
    y = np.array([[1.0, 3.0, 9.0, 5.0]])
    np.testing.assert_allclose(corrected(y, f, cell, "proportional", 0.0), [[2, 3, 6, 5]])
    np.testing.assert_allclose(corrected(y, f, cell, "additive", 0.0), [[3, 3, 7, 5]])
    bounded = corrected(y, f, cell, "proportional", 1.0)
    np.testing.assert_allclose(bounded, [[1, 3, 1 + 8 * 3 / 5, 5]])
    same = np.full(4, 3.0)
    for correction in ("proportional", "additive"):
        np.testing.assert_allclose(corrected(y, same, cell, correction, 0.0), y, rtol=1e-15)
    with pytest.raises(OptionError, match="lie below lower_bound=5"):
        corrected(y, f, cell, "proportional", 5.0)


def test_corrected_check_is_the_plain_one_where_predictions_are_equal(truth):
    """One dose and one time per bin: all predictions of a cell are equal."""
    amt = truth.model.individuals.columns["amt"][truth.model.individuals.offsets[:-1]]
    options = {"bins": 6, "n_simulations": 60, "strata": "amt"}
    plain, other = truth.vpc(**options), truth.vpc(correction="proportional", **options)
    assert list(plain.observed["stratum"].unique()) == sorted(set(amt))
    pd.testing.assert_frame_equal(plain.to_frame(), other.to_frame())
    mixed = truth.vpc(bins=6, n_simulations=60, correction="proportional")
    assert not np.allclose(mixed.observed["value"], truth.vpc(bins=6).observed["value"])


def test_bins():
    x = np.array([0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 8.0, 8.0])
    np.testing.assert_allclose(bin_edges(x, 4), [0, 0.5, 1.5, 5, 8])
    np.testing.assert_allclose(bin_edges(x, 2), [0, 1.5, 8])
    np.testing.assert_allclose(bin_edges(x, 100), [0, 0.5, 1.5, 5, 8])
    np.testing.assert_allclose(bin_edges(x, 4, "equal"), [0, 2, 4, 6, 8])
    np.testing.assert_allclose(bin_edges(np.ones(3), 4), [0.5, 1.5])
    for bad in (0, [1.0], [0.0, 8.0, 4.0], [1.0, 8.0]):
        with pytest.raises(OptionError, match="bins="):
            bin_edges(x, bad)


def test_options_are_checked(truth):
    with pytest.raises(OptionError, match=r"5 problems(?s:.)*did you mean 'time'"):
        truth.vpc("tme", binning="log", percentiles=(5, 100), correction="x", level=95)
    with pytest.raises(OptionError, match="strata='sex' is neither"):
        truth.vpc(strata="sex")
    with pytest.raises(OptionError, match="varies within"):
        truth.vpc(strata="time")
    with pytest.raises(OptionError, match="no label for id 3"):
        truth.vpc(strata={0: "a", 1: "a", 2: "b"})
    with pytest.raises(OptionError, match="n_simulations=10"):
        predictive_check(truth, n_simulations=10)


def test_figure(truth):
    figure = truth.plot.vpc(bins=6, n_simulations=60, strata="amt", log=True)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 2
    check = truth.vpc(bins=6, n_simulations=60, strata="amt").observed
    drawn = [line.get_ydata() for line in figure.axes[0].get_lines()]
    median = check.query("stratum == 100 and percentile == 50")["value"].to_numpy()
    assert any(np.array_equal(y, median) for y in drawn)
    figure.savefig(io.BytesIO())
    assert truth.plot.vpc(n_simulations=60, points=False, correction="proportional").axes
