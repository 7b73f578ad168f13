"""Newton steps on the observed log-likelihood: score, information, limit, guards."""

import functools

import numpy as np
import pandas as pd
import pytest

import saem
from saem.checks._tools import run_of, snapshots
from saem.engine import Run
from saem.estep import ImportanceSampling, Quadrature
from saem.exceptions import BoundaryWarning, OptionError
from saem.inference.likelihood import QuadratureRule
from saem.inference.scoring import score_and_information
from saem.newton import Newton
from saem.nlme._kernels import VARIANCE_FLOOR
from saem.nlme.priors import NormalPrior

#: The posteriors of the proportional model have heavy tails at its start.
_MANY = 41
TIMES = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 12.0])


def bolus(error, n=40, omega_v=0.3, seed=3, priors=None, **options):
    """One compartment after a bolus; the volume may have no variability."""
    rng = np.random.default_rng(seed)
    v, cl = 20.0 * np.exp(omega_v * rng.normal(size=n)), 3.0 * np.exp(0.3 * rng.normal(size=n))
    mean = 100.0 / v[:, None] * np.exp(-(cl / v)[:, None] * TIMES)
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), TIMES.size),
            "time": np.tile(TIMES, n),
            "dv": (mean * (1 + 0.1 * rng.normal(size=mean.shape))
                   + 0.05 * rng.normal(size=mean.shape)).ravel(),
            "amt": 100.0,
        }
    )  # fmt: skip
    parameters = {"V": saem.LogNormal(18.0), "CL": saem.LogNormal(2.5)} | options
    return saem.NLME(
        frame, structural="pk.iv_bolus_1cpt", parameters=parameters, error=error, priors=priors
    )


CASES = {
    "constant": lambda: bolus(saem.ConstantError(0.3)),
    "proportional": lambda: bolus(saem.ProportionalError(0.2)),
    "combined": lambda: bolus(saem.CombinedError(0.1, 0.1)),
    "V without random effect": lambda: bolus(
        saem.ConstantError(0.3), V=saem.LogNormal(18.0, random=False)
    ),
}


@functools.cache
def case(name):
    return CASES[name]()


@pytest.mark.parametrize("name", CASES)
def test_score_is_the_slope_of_the_loglikelihood(name):
    """Fisher's identity against central differences of the quadrature log-likelihood."""
    model = case(name)
    theta = model.start(np.random.default_rng(0))
    run = run_of(model, saem.EM(Quadrature(_MANY), acceleration="newton"))
    run.full_pass(0)
    run.full_pass(1)
    score, information, _ = score_and_information(model, theta, run.records)
    rule, centre = QuadratureRule(model, _MANY), model.estimation_vector(theta)
    for k in range(centre.size):
        step = 0.005 / np.sqrt(abs(information[k, k]))
        ends = []
        for sign in (1.0, -1.0):
            shifted = centre.copy()
            shifted[k] += sign * step
            ends.append(rule(model.with_estimates(theta, shifted)))
        slope = (ends[0] - ends[1]) / (2.0 * step)
        # A score wrong by so much moves an estimate by 1e-3 of its standard error.
        allowed = 1e-3 * np.sqrt(abs(information[k, k]))
        assert score[k] == pytest.approx(slope, abs=allowed), model.param_names[k]


@pytest.mark.parametrize("name", CASES)
def test_the_limit_is_that_of_em_in_fewer_passes(name):
    model = case(name)
    plain = model.fit(saem.EM(Quadrature(9), tolerance=1e-8), seed=0, progress=False)
    fast = model.fit(
        saem.EM(Quadrature(9), tolerance=1e-8, acceleration="newton"), seed=0, progress=False
    )
    assert fast.record.stopped_by == "tolerance"
    assert fast.record.n_iter < plain.record.n_iter
    # 1e-8 nats are 1e-4 standard errors; EM's own rule extrapolates.
    distance = (fast.params - plain.params) / fast.bse
    assert distance.abs().max() < 3e-3


def test_what_is_left_bounds_the_distance():
    """Half the Newton decrement is what the log-likelihood has to gain, near the maximum."""
    model = case("constant")
    best = model.fit(
        saem.EM(Quadrature(9), tolerance=1e-12, acceleration="newton"), seed=0, progress=False
    )
    se = np.sqrt(np.diag(best.information("exact").cov_estimation))
    centre = model.estimation_vector(best.theta)
    start = model.with_estimates(best.theta, centre + 0.05 * se)
    combination = saem.EM(Quadrature(9), acceleration="newton").combine(model)
    run = Run(model, combination, start, seed=0, n_threads=1)
    for _ in snapshots(run, 1):
        pass
    rule = QuadratureRule(model, 9)
    gain = rule(best.theta) - rule(start)
    assert run.algorithm.proxy.left(run) == pytest.approx(gain, rel=0.1)
    assert 2.0 * gain > 0.05**2  # every parameter is 0.05 of its errors off
    run.close()


def test_a_variance_whose_maximum_is_zero_is_found_there():
    model = bolus(saem.ProportionalError(0.2), omega_v=0.0, seed=1)
    fit = model.fit(saem.EM(Quadrature(9), acceleration="newton"), seed=0, progress=False)
    view = model.theta_spec.view(fit.theta)
    assert view["omega"][0, 0] <= 10 * VARIANCE_FLOOR
    with pytest.warns(BoundaryWarning, match="omega2_V"):
        assert "omega2_V" in fit.boundary
    assert fit.converged
    assert fit.record.n_iter < 40
    rule = QuadratureRule(model, 9)
    for value in (1e-3, 1e-4):
        away = fit.theta.copy()
        model.theta_spec.view(away)["omega"][0, 0] = value
        model.theta_spec.view(away)["chol"][0, 0] = np.sqrt(value)
        assert rule(away) < rule(fit.theta)


def test_far_starts_fall_back_on_em_and_arrive():
    model = bolus(
        saem.ConstantError(3.0), V=saem.LogNormal(200.0, omega=1.0),
        CL=saem.LogNormal(0.3, omega=1.0),
    )  # fmt: skip
    near = case("constant").fit("em", seed=0, progress=False)
    fit = model.fit(
        saem.EM(Quadrature(9), tolerance=1e-7, acceleration="newton"), seed=0, progress=False
    )
    np.testing.assert_allclose(fit.params, near.params, rtol=2e-3)


def test_same_bits_for_any_threads_and_after_a_pause():
    model = case("combined")
    algorithm = saem.EM(ImportanceSampling(64), acceleration="newton", n_iter=6, tolerance=None)

    def path(**options):
        run = run_of(model, algorithm, **options)
        found = np.array([s.theta for s in snapshots(run, 6)])
        run.close()
        return found

    expected = path()
    np.testing.assert_array_equal(path(n_threads=2, block_size=3), expected)
    first, second = run_of(model, algorithm), run_of(model, algorithm)
    for _ in snapshots(first, 3):
        pass
    second.load_state_dict(first.state_dict())
    rest = np.array([s.theta for s in snapshots(second, 3)])
    np.testing.assert_array_equal(rest, expected[3:])


def test_what_has_no_scores_is_refused():
    mixture = saem.models.GaussianMixture.example(np.random.default_rng(1), 40)
    with pytest.raises(OptionError, match="Remedy: acceleration='anderson'"):
        mixture.fit(saem.EM(acceleration="newton"), progress=False)
    with pytest.raises(OptionError, match="not random"):
        run_of(case("constant"), saem.EM(saem.MonteCarlo(), acceleration=Newton()))


def test_with_a_prior_it_climbs_the_penalised_likelihood():
    model = bolus(saem.ConstantError(0.3), priors={"V": NormalPrior(np.log(30.0), 0.02)})
    slow = model.fit(saem.EM(Quadrature(9), tolerance=1e-9), seed=0, progress=False)
    fast = model.fit(seed=0, progress=False)
    assert fast.converged
    np.testing.assert_allclose(fast.params, slow.params, rtol=1e-3)
    free = case("constant").fit(seed=0, progress=False)
    assert fast.params["V"] > free.params["V"] + 1.0
