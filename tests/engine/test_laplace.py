"""Mode and curvature of a posterior, and the deterministic E-step that is built on them."""

import numpy as np
import pytest
from loop_models import decay_model, make_run, mixed

from saem import _loop
from saem._jit import kernel
from saem._types import ACCUMULATE, LOG_LIK, MAXIMIZE, PRIOR, make_kernels
from saem.algorithms import EM, SAEM
from saem.contract import Model
from saem.estep import MonteCarlo, Quadrature
from saem.estep.montecarlo import memory_views
from saem.statistics import Packed

QUADRATIC, SADDLE, NAN, WALL, TWO_MODES = 0.0, 1.0, 2.0, 3.0, 4.0

#: Of the quadratic likelihood, around (1, -2).
PRECISION = np.array([[2.0, 0.5], [0.5, 3.0]])


@kernel(LOG_LIK)
def log_lik(structural, theta, y, latent, work):
    x0, x1 = latent[0], latent[1]
    if theta[0] == 1.0:  # two modes, a saddle at the start
        return -2.0 * (x0 * x0 - 4.0) ** 2 - x1 * x1
    if theta[0] == 2.0:
        return np.nan
    if theta[0] == 3.0:  # the density is 0 beyond a wall next to the start
        return -np.inf if x0 < -0.00005 else 3.0 * x0 - x1
    if theta[0] == 4.0:  # a high mode at 3 and a low one at -1, nearer to the start
        high = 8.0 - 8.0 * (x0 - 3.0) ** 2
        low = -8.0 * (x0 + 1.0) ** 2
        return max(high, low) + np.log(1.0 + np.exp(-abs(high - low))) - x1 * x1
    a, b = x0 - 1.0, x1 + 2.0
    return -0.5 * (2.0 * a * a + 2.0 * 0.5 * a * b + 3.0 * b * b)


@kernel(PRIOR)
def prior(theta, y, mean, chol):
    mean[:] = 0.0
    chol[0, 0] = 2.0
    chol[0, 1] = 0.0
    chol[1, 0] = 0.5
    chol[1, 1] = 1.0


@kernel(ACCUMULATE)
def accumulate(weight, y, latent, s):
    s[0] += weight * latent[0]


@kernel(MAXIMIZE)
def maximize(s, theta):
    return 0


class Shape(Model):
    """One individual whose log-likelihood has a given shape."""

    name = "shape"
    capabilities = frozenset({"gaussian"})
    param_names = ("shape",)

    def __init__(self, shape):
        self.values, self.offsets = np.zeros(1), np.array([0, 1])
        self.n_individuals = self.nobs = 1
        self.theta_spec, self.stat_spec = Packed(shape=()), Packed(x=())
        self.latent_size = self.n_coords = 2
        self.shape = shape
        self.kernels = make_kernels(
            log_lik=log_lik, prior=prior, accumulate=accumulate, maximize=maximize
        )

    def start(self, rng):
        return np.array([self.shape])

    def params_of(self, theta):
        return theta.copy()

    def results(self, record):
        raise NotImplementedError


def approximation(shape):
    """Mode and covariance of the Laplace approximation, on the scale of z."""
    model = Shape(shape)
    bound = MonteCarlo(n_chains=1).bind(model)
    bound.settings[1] = 0.0  # the search from the prior mean alone
    bound.settings[4] = 1.0
    value = _loop.visit_at(
        model.kernels, bound.laplace, model.values, model.offsets, np.array([shape]),
        np.empty(0), bound.memories, bound.settings, 0, 0, 0, bound.work_size,
    )  # fmt: skip
    views = memory_views(bound)
    factor = views["factor"][0]
    return value, views["mode"][0], factor @ factor.T


@pytest.mark.nojit
def test_a_normal_posterior_is_found_exactly():
    value, mode, covariance = approximation(QUADRATIC)
    chol = np.array([[2.0, 0.0], [0.5, 1.0]])
    prior_precision = np.linalg.inv(chol @ chol.T)
    expected = np.linalg.inv(PRECISION + prior_precision)
    centre = expected @ PRECISION @ np.array([1.0, -2.0])
    np.testing.assert_allclose(mode, centre, atol=1e-6)
    np.testing.assert_allclose(covariance, expected, rtol=1e-5)
    shift = centre - np.array([1.0, -2.0])
    joint = -0.5 * shift @ PRECISION @ shift - 0.5 * centre @ prior_precision @ centre
    joint -= np.log(2.0 * np.pi) + np.log(2.0)
    assert value == pytest.approx(joint, abs=1e-9)


@pytest.mark.nojit
def test_where_the_curvature_is_not_definite_the_prior_stands_in():
    chol = np.array([[2.0, 0.0], [0.5, 1.0]])
    for shape in (SADDLE, NAN):
        value, mode, covariance = approximation(shape)
        np.testing.assert_allclose(mode, 0.0, atol=1e-6)
        np.testing.assert_allclose(covariance, chol @ chol.T, rtol=1e-12)
        assert np.isfinite(value) == (shape == SADDLE)


@pytest.mark.nojit
def test_a_wall_next_to_the_start_does_no_harm():
    _, mode, covariance = approximation(WALL)
    assert np.all(np.isfinite(mode))
    assert np.all(np.linalg.eigvalsh(covariance) > 0.0)


@pytest.mark.nojit
@pytest.mark.parametrize("old", [-1.0, 3.0])
def test_the_better_of_two_modes_is_kept(old):
    """The prior mean leads to one mode; the mode of before is tried as well."""
    model = Shape(TWO_MODES)
    bound = MonteCarlo(n_chains=1).bind(model)
    views = memory_views(bound)
    values = []
    for start in (old, 0.0):
        views["mode"][0] = [start, 0.0]
        bound.settings[4] = 0.0
        values.append(
            _loop.visit_at(
                model.kernels, bound.laplace, model.values, model.offsets,
                np.array([TWO_MODES]), np.empty(0), bound.memories, bound.settings, 0, 0, 0,
                bound.work_size,
            )
        )  # fmt: skip
        if old == 3.0 and start == old:
            assert views["mode"][0, 0] == pytest.approx(3.0, abs=0.2)
    assert values[0] >= values[1] - 1e-6


# -- quadrature ----------------------------------------------------------------------------


@pytest.mark.nojit
def test_quadrature_is_exact_for_a_linear_model():
    model = mixed(8)
    theta = model.start(np.random.default_rng(0))
    _, _, expected = model.posterior(theta)
    for n_nodes in (1, 2, 3, 5):
        bound = Quadrature(n_nodes).bind(model)
        got = visit_everybody(model, bound, theta)
        np.testing.assert_allclose(got, expected, rtol=1e-7)


def visit_everybody(model, bound, theta):
    """Log-likelihoods of all individuals; the memories move on."""
    record = np.empty(bound.record_size)
    return np.array(
        [
            _loop.visit_at(
                model.kernels, bound.visitor, model.values, model.offsets, theta, record,
                bound.memories, bound.settings, 0, 0, i, bound.work_size,
            )
            for i in range(model.n_individuals)
        ]
    )  # fmt: skip


@pytest.mark.nojit
def test_quadrature_follows_large_changes_of_the_parameters():
    """A rule that fitted the parameters of before must not be trusted for new ones."""
    model = decay_model(4)
    run = make_run(model, SAEM())
    near, far = run.theta.copy(), run.theta.copy()
    view = model.theta_spec.view(far)
    view["sigma"][0] = 0.1
    view["omega"] *= 0.04
    view["chol"] *= 0.2
    view["beta"][0] += [0.2, 0.1]
    moved = Quadrature(9).bind(model)
    for theta in (near, far, near, far):
        got = visit_everybody(model, moved, theta)
        fresh = Quadrature(25).bind(model)
        visit_everybody(model, fresh, theta)
        np.testing.assert_allclose(got, visit_everybody(model, fresh, theta), atol=1e-4)


@pytest.mark.nojit
def test_quadrature_of_an_impossible_individual_is_not_a_number():
    model = Shape(NAN)
    bound = Quadrature(3).bind(model)
    assert not np.isfinite(visit_everybody(model, bound, np.array([NAN]))[0])
    assert bound.memories[0, 0] == 0.0


def test_em_with_nine_nodes_follows_the_path_of_many():
    model = decay_model(8)
    few = model.fit(EM(Quadrature(9), n_iter=8, tolerance=None), seed=0).trace
    many = model.fit(EM(Quadrature(41), n_iter=8, tolerance=None), seed=0).trace
    np.testing.assert_allclose(few["loglik"][1:], many["loglik"][1:], atol=1e-3)
