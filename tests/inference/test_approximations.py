"""Likelihoods by linearisation and Laplace; tails of importance weights; parts and courses."""

import warnings

import numpy as np
import pytest
from reference import exact_theta, model_of, shipped, theta_at
from scipy import stats

import saem
from saem.exceptions import OptionError, SaemWarning
from saem.inference._pareto import generalised_pareto_shape, pareto_k, tail_size
from saem.inference._sampling import _warn_of_heavy_tails
from saem.inference.likelihood import (
    importance_convergence,
    importance_sampling,
    laplace,
    linearised,
    log_likelihood,
    quadrature,
)
from saem.inference.linearisation import linearise

THETA = [1.5, 31.5, 2.75, 0.4, 0.017, 0.07]


def test_both_are_exact_for_a_linear_model():
    model, theta = model_of("oxboys"), exact_theta("oxboys")
    exact = quadrature(model, theta)
    for method in ("laplace", "linearised"):
        found = log_likelihood(model, theta, method)
        np.testing.assert_allclose(found.contributions, exact.contributions, atol=1e-5)
        assert np.isnan(found.error)


@pytest.mark.parametrize(
    ("error", "residual"),
    [
        ("constant", [0.7]),
        ("proportional", [0.16]),
        ("combined", [0.4, 0.06]),
        ("exponential", [0.17]),
    ],
)
@pytest.mark.parametrize("random_volume", [True, False])
def test_linearised_is_the_normal_density_of_dense_matrices(error, residual, random_volume):
    model = shipped(error, random_volume)
    numbers = THETA if random_volume else [*THETA[:4], THETA[5]]
    theta = theta_at(model, [*numbers, *residual])
    found, lin = linearised(model, theta), linearise(model, theta)
    view, data = model.theta_spec.view(theta), model.individuals
    random = view["parameter"].astype(int)
    for i, (a, b) in enumerate(zip(data.offsets[:-1], data.offsets[1:], strict=True)):
        jacobian = lin.jacobian[a:b, random]
        mean = lin.f[a:b] + jacobian @ (lin.mu[i] - lin.phi[i])[random]
        covariance = jacobian @ view["omega"] @ jacobian.T + np.diag(lin.variance[a:b])
        y = np.log(data.dv[a:b]) if error == "exponential" else data.dv[a:b]
        expected = stats.multivariate_normal.logpdf(y, mean, covariance)
        if error == "exponential":
            expected -= y.sum()  # the density of dv, not of its logarithm
        assert found.contributions[i] == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("name", ["theophylline", "pd1"])
def test_laplace_is_quadrature_with_one_node(name):
    model, theta = model_of(name), exact_theta(name)
    one = quadrature(model, theta, n_nodes=1).contributions
    np.testing.assert_allclose(laplace(model, theta).contributions, one, atol=1e-4)


def test_linearised_needs_predictions():
    from saem.models.linear_mixed import simulate

    frame = simulate(np.random.default_rng(1), n=10)
    model = saem.models.LinearMixed(frame, "y ~ 0 + a1 + a2", "id", "~ 0 + b1 + b2")
    with pytest.raises(OptionError, match="no predictions"):
        log_likelihood(model, model.start(np.random.default_rng(0)), "linearised")


# -- tails of weights ---------------------------------------------------------------


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.4, 0.8, 1.5])
def test_shape_of_generalised_pareto_draws(shape):
    """Mean of 200 estimates from 400 draws: z below 4 beside a bias below 0.01; chance 6e-5."""
    rng = np.random.default_rng(11)
    draws = stats.genpareto.rvs(shape, size=(200, 400), random_state=rng)
    found = np.array([generalised_pareto_shape(np.sort(row)) for row in draws])
    error = found.std(ddof=1) / np.sqrt(200.0)
    assert abs(found.mean() - shape) < 4.0 * error + 0.01
    # Zhang and Stephens: asymptotic standard deviation (1 + k) / sqrt(n) for k > -1/2.
    assert found.std(ddof=1) == pytest.approx((1.0 + shape) / 20.0, rel=0.35)


def test_shape_does_not_depend_on_the_scale():
    excesses = np.sort(stats.genpareto.rvs(0.5, size=300, random_state=3))
    first = generalised_pareto_shape(excesses)
    assert generalised_pareto_shape(1e-8 * excesses) == pytest.approx(first, rel=1e-9)


def test_pareto_k_of_student_weights():
    """Weights r^-1 of a Pareto law with index a have k = 1/a; mean of 50 within 4 errors."""
    rng = np.random.default_rng(4)
    for index in (1.0, 2.0, 4.0):
        logs = rng.exponential(1.0 / index, size=(50, 4000))
        found = np.array([pareto_k(row, 4000) for row in logs])
        size = int(tail_size(4000))
        expected = (size / index + 5.0) / (size + 10.0)  # drawn towards 1/2
        assert abs(found.mean() - expected) < 4.0 * found.std(ddof=1) / np.sqrt(50.0) + 0.01
        # Only the largest matter, in any order.
        largest = rng.permutation(np.sort(logs[0])[-(size + 1) :])
        assert pareto_k(largest, 4000) == pytest.approx(found[0], rel=1e-12)


def test_pareto_k_without_a_tail():
    assert pareto_k(np.zeros(500), 500) == -np.inf  # all weights the same
    assert pareto_k(np.full(500, -np.inf), 500) == np.inf
    assert pareto_k(np.zeros(10), 10) == np.inf


def test_tail_kept_by_the_sampler_is_that_of_all_weights():
    """k of a proposal that is far too narrow is large; of the library's own it is small."""
    model, theta = model_of("pd1"), exact_theta("pd1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        good = importance_sampling(model, theta)
    assert good.pareto_k.shape == (100,)
    assert good.pareto_k.max() < 0.7


def test_warning_names_the_individuals():
    model = shipped()
    shapes = np.zeros(12)
    shapes[[2, 6]] = 0.75, 1.5
    ids = model.individuals.ids
    with pytest.warns(SaemWarning, match=rf"{ids[6]!r} \(k = 1.50\), {ids[2]!r} \(k = 0.75\)"):
        _warn_of_heavy_tails(model, shapes)


# -- importance sampling against quadrature ------------------------------------------


def misses(model, theta, seeds):
    """Seeds outside the 99 % interval of the reported error, and the reported errors."""
    exact = quadrature(model, theta)
    runs = [importance_sampling(model, theta, seed=s) for s in seeds]
    outside = sum(abs(r.value - exact.value) > 2.576 * r.error + exact.error for r in runs)
    return outside, np.array([r.error for r in runs])


def collinear(rho):
    """Theophylline with correlation rho between the random effects of V and CL."""
    frame = saem.datasets.load("theophylline")
    model = saem.NLME(
        frame[frame["Time"] > 0],
        "pk.oral_1cpt",
        {"ka": saem.LogNormal(1.5), "V": saem.LogNormal(30.0), "CL": saem.LogNormal(2.7)},
        omega=[["V", "CL"]],
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )
    values = dict(zip(["ka", "V", "CL", "omega2_ka", "omega2_V", "omega2_CL"], THETA, strict=True))
    values |= {"cov_V_CL": rho * np.sqrt(0.017 * 0.07), "a": 0.7}
    return model, theta_at(model, [values[name] for name in model.param_names])


CASES = {
    "theophylline": lambda: (shipped(), theta_at(shipped(), [*THETA, 0.7])),
    "correlation 0.99": lambda: collinear(0.99),
    "pd1": lambda: (model_of("pd1"), exact_theta("pd1")),
}


@pytest.mark.parametrize("case", CASES)
def test_importance_sampling_against_quadrature(case):
    """More than 3 of 15 seeds outside their 99 % intervals: false alarm 1.3e-5."""
    outside, errors = misses(*CASES[case](), range(15))
    assert outside <= 3
    assert errors.max() < 0.05


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:importance weights")  # one k of 10,000 is estimated above 0.7
@pytest.mark.parametrize("case", CASES)
def test_importance_sampling_over_a_hundred_seeds(case):
    """More than 5 of 100 seeds outside their 99 % intervals: false alarm 5e-4."""
    outside, errors = misses(*CASES[case](), range(100))
    print(f"{case}: {outside} of 100 outside, largest error {errors.max():.4f}")
    assert outside <= 5
    assert errors.max() < 0.05


# -- parts and courses ----------------------------------------------------------------


def test_course_of_the_estimate():
    """The last of ten blocks within 4 errors of quadrature: false alarm 6e-5."""
    model = shipped()
    theta = theta_at(model, [*THETA, 0.7])
    course = importance_convergence(model, theta, n_blocks=10, seed=2)
    assert list(course.columns) == ["draws", "loglik", "error"]
    assert len(course) == 10
    last = course.iloc[-1]
    assert last["draws"] == pytest.approx(5000, rel=0.02)
    assert abs(last["loglik"] - quadrature(model, theta).value) < 4.0 * last["error"]
    ratio = course["error"].iloc[0] / last["error"]
    assert 2.0 < ratio < 5.0  # about the root of ten
    assert course.equals(importance_convergence(model, theta, n_blocks=10, seed=2, n_threads=2))
    with pytest.raises(OptionError, match="n_blocks=0"):
        importance_convergence(model, theta, n_blocks=0)


def test_contributions_of_a_fit():
    model = shipped()
    fit = model.fit("em", progress=False)
    for method in ("importance", "quadrature", "laplace", "linearised"):
        parts = fit.individual_loglik(method)
        assert list(parts.index) == list(model.individuals.ids)
        assert parts["loglik"].sum() == pytest.approx(fit.loglik(method).value, abs=1e-9)
    parts = fit.individual_loglik()
    assert {"ess", "pareto_k"} <= set(parts.columns)
    assert np.sqrt((parts["error"] ** 2).sum()) == pytest.approx(fit.llf_error)
    assert len(fit.loglik_convergence(n_blocks=5)) == 5
