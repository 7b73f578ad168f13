"""Importance sampling E-step: quantiles, weights, exact answers, second modes."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import saem
from saem.checks._tools import individual_statistics, run_of
from saem.estep import Exact, ImportanceSampling
from saem.estep.importance import normal_quantile, student_quantile
from saem.exceptions import OptionError
from saem.inference._visits import find_modes
from saem.models import LinearMixed

P = np.array([1e-300, 1e-12, 0.01, 0.07, 0.3, 0.4999, 0.6, 0.9, 0.99, 1 - 1e-12])


@pytest.mark.nojit
def test_quantiles():
    np.testing.assert_allclose([normal_quantile(p) for p in P], stats.norm.ppf(P), rtol=1e-13)
    found = [student_quantile(p) for p in P[1:]]
    np.testing.assert_allclose(found, stats.t.ppf(P[1:], 4), rtol=1e-9)
    assert normal_quantile(0.5) == student_quantile(0.5) == 0.0


@pytest.fixture(scope="module")
def linear():
    return LinearMixed.example(np.random.default_rng(1), 40)


def statistics(model, estep, seed=1):
    run = run_of(model, saem.EM(estep, n_iter=1), seed=seed)
    run.full_pass(0)
    return individual_statistics(run), run.loglik


@pytest.mark.parametrize("tails", ["student", "gaussian"])
def test_posterior_moments_and_likelihood_against_the_closed_form(linear, tails):
    """Errors fall faster than the square root of the number of points."""
    exact, loglik = statistics(linear, Exact())
    errors, gaps = [], []
    for n_points in (64, 1024):
        found = [statistics(linear, ImportanceSampling(n_points, tails=tails), s) for s in range(4)]
        errors.append(np.sqrt(np.mean([(f[0] - exact) ** 2 for f in found])))
        gaps.append(np.sqrt(np.mean([(f[1] - loglik) ** 2 for f in found])))
    assert errors[1] < errors[0] / 6.0  # 4 by independent points, 16 at best
    assert gaps[1] < 0.05


def test_the_shift_makes_the_estimate_unbiased(linear):
    """The mean over seeds of exp(estimate of log p(y)) is p(y), per individual."""
    _, loglik = statistics(linear, Exact())
    found = [statistics(linear, ImportanceSampling(32), s)[1] for s in range(200)]
    # The bias of a logarithm is minus half its variance.
    z = (np.mean(found) + np.var(found) / 2.0 - loglik) / (np.std(found) / np.sqrt(200))
    assert abs(z) < 4.0  # false alarm 6e-5


def test_em_with_points_is_em(linear):
    exact = linear.fit("em", seed=0, progress=False)
    fits = [linear.fit("imp-em", seed=s, progress=False) for s in (0, 1)]
    for fit in fits:
        assert exact.llf - fit.llf < 1e-3
        assert fit.record.sampler["effective_points"]["least"] > 100
        assert not fit.is_deterministic
    assert not np.array_equal(fits[0].theta, fits[1].theta)
    again = linear.fit("imp-em", seed=0, progress=False, n_threads=2, block_size=3)
    np.testing.assert_array_equal(again.theta, fits[0].theta)


def test_acceleration_climbs_the_same_likelihood(linear):
    plain = linear.fit(saem.ImportanceEM(), seed=3, progress=False)
    fast = linear.fit(saem.ImportanceEM(acceleration="anderson"), seed=3, progress=False)
    ends = [fit.record.history.loglik[-1] for fit in (plain, fast)]
    assert ends[0] == pytest.approx(ends[1], abs=1e-4)
    assert fast.llf == pytest.approx(plain.llf, abs=1e-4)


def test_a_higher_second_mode_is_found():
    """A flip-flop seen from the inferior side: the search starts again from a better point."""
    times = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0])
    # Slow absorption: ka 0.1, CL / V = 1; the prior mean is the exchanged pair.
    ka, v, cl = 0.1, 10.0, 10.0
    k = cl / v
    f = 100.0 * ka / (v * (ka - k)) * (np.exp(-k * times) - np.exp(-ka * times))
    frame = pd.DataFrame({"id": 1, "time": times, "amt": 100.0, "dv": f})
    model = saem.NLME(
        pd.concat([frame, frame.assign(id=2)]),
        structural="pk.oral_1cpt",
        parameters={
            "ka": saem.LogNormal(1.0, omega=2.0),
            "V": saem.LogNormal(1.0, omega=2.0),
            "CL": saem.LogNormal(10.0, omega=0.05),
        },
        error=saem.ConstantError(0.05),
    )
    theta = model.start(np.random.default_rng(0))
    best = find_modes(model, theta).phi
    run = run_of(model, saem.EM(ImportanceSampling(512)), theta)
    run.full_pass(0)
    d = model.n_coords
    means = individual_statistics(run)[:, :d]
    assert np.abs(means - best).max() < 1.0  # the modes are log(100) apart
    quadrature = run_of(model, saem.EM(saem.Quadrature(9)), theta)
    quadrature.full_pass(0)
    assert run.loglik > quadrature.loglik - 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_points": 4}, "n_points=4"),
        ({"refresh_every": 0}, "refresh_every=0"),
        ({"tails": "heavy"}, "tails='heavy'"),
    ],
)
def test_options_are_checked(linear, options, words):
    with pytest.raises(OptionError, match=words):
        ImportanceSampling(**options).bind(linear)


def test_named_methods_insist_on_their_e_step(linear):
    with pytest.raises(OptionError, match="imp-em needs"):
        saem.ImportanceEM(estep=saem.Quadrature()).combine(linear)
    with pytest.raises(OptionError, match="quadrature-em needs"):
        saem.QuadratureEM(estep=ImportanceSampling()).combine(linear)
    model = saem.models.FactorAnalysis.example(np.random.default_rng(0), 20)
    model.n_coords = 5
    with pytest.raises(OptionError, match="Remedy"):
        saem.QuadratureEM().combine(model)
