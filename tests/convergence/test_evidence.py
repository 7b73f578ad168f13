"""Drift and agreement of starts: each on a data set made to have it."""

import functools

import numpy as np
import pytest
from evidence import bolus, bolus_data, theophylline

import saem
from saem.convergence.drift import brownian_bridge_tail
from saem.exceptions import OptionError


@functools.cache
def clean():
    return bolus(bolus_data()).fit(seed=1, progress=False)


# -- drift -----------------------------------------------------------------------------------


def test_tail_of_the_bridge():
    """Critical values of Kolmogorov's distribution."""
    assert brownian_bridge_tail(1.358) == pytest.approx(0.05, abs=2e-4)
    assert brownian_bridge_tail(1.628) == pytest.approx(0.01, abs=1e-4)
    assert brownian_bridge_tail(0.0) == 1.0


def test_drift_needs_averaged_iterations():
    with pytest.raises(OptionError, match="averaged iterations of SAEM"):
        clean().drift()


@pytest.mark.slow
def test_drift_tests_have_their_level():
    """False alarms over 60 seeds; 420 p-values of correlated rows count as 120.

    Found when written: 7.6 and 1.4 % at levels 5 and 1 % (Geweke), 3.3 and 1.0 % (partial sums).
    """
    tables = [theophylline().fit("saem", seed=s, progress=False).drift() for s in range(60)]
    for name in ("geweke_p", "cusum_p"):
        p = np.concatenate([table[name] for table in tables])
        print(f"\n{name}: {np.mean(p < 0.05):.1%} below 5 %, {np.mean(p < 0.01):.1%} below 1 %")
        assert np.mean(p < 0.05) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 120)
        assert np.mean(p < 0.01) < 0.01 + 4 * np.sqrt(0.01 * 0.99 / 120)


# -- starts ----------------------------------------------------------------------------------


def test_starts_that_agree():
    found = clean().agreement(3)
    assert found.agrees
    assert found.n_maxima == 1
    assert len(found.fits) == 3
    assert found.frame["distance"].max() < 0.05
    assert "3 starts ended in 1 maximum" in str(found)


def test_the_second_maximum_of_theophylline_is_shown():
    """Slow absorption is 3.306 nats above the maximum quoted everywhere."""
    found = saem.multistart(theophylline(), 12, seed=1)
    assert found.n_maxima >= 2
    assert not found.agrees
    best = found.frame.iloc[0]
    assert best["llf"] == pytest.approx(-169.411, abs=0.01)
    assert best["ka"] < best["CL"] / best["V"]
    usual = found.frame[found.frame["maximum"] == 2].iloc[0]
    assert usual["below"] == pytest.approx(3.306, abs=0.01)
    assert usual["ka"] == pytest.approx(1.5794, abs=1e-3)
    assert "3.306 below" in str(found)


def test_one_start_is_none_to_compare():
    with pytest.raises(OptionError, match="at least 2"):
        saem.multistart(theophylline(), 1)
