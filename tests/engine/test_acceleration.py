"""SQUAREM and Anderson acceleration: same limit as EM, far fewer passes, guarded."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from toys import Toy, toy_data

from saem._jit import kernel
from saem._types import ACCUMULATE, EXPECT, MAXIMIZE, SURROGATE, make_kernels
from saem.acceleration import Anderson, Squarem, left_to_gain
from saem.algorithms import Algorithm
from saem.contract import Model
from saem.engine import Combination, Run, iterate
from saem.estep import Exact, MonteCarlo
from saem.exceptions import OptionError
from saem.models.gaussian_mixture import GaussianMixture
from saem.proxies import Full
from saem.results import Results
from saem.schedules import Constant
from saem.statistics import Packed

BOTH = (Anderson, Squarem)


@dataclass(frozen=True)
class By(Algorithm):
    """Exact E-step and a proxy of choice."""

    proxy: object
    n_iter: int = 100

    def combine(self, model):
        one = Constant(1.0)
        return Combination(self.proxy.name, Exact(), self.proxy, one, one, self.n_iter)


def start_run(model, proxy, n_iter):
    theta = model.start(np.random.default_rng(0))
    return Run(model, By(proxy, n_iter).combine(model), theta, seed=0, n_threads=1)


def follow(model, proxy, n_iter):
    """Run of so many passes and its course: passes, and the log-likelihood reached."""
    run = start_run(model, proxy, n_iter)
    course = []
    for snapshot in iterate(run):
        passes = snapshot.n_evals / model.n_individuals
        course.append((passes, run.proxy_state.get("loglik", snapshot.loglik)))
    run.close()
    return run, np.array(course)


def passes_to(course, best, tolerance):
    """Passes after which the log-likelihood stays within a tolerance of the best."""
    missing = np.flatnonzero(best - course[:, 1] >= tolerance)
    return course[missing[-1] + 1 if missing.size else 0, 0]


# -- a map that is linear ------------------------------------------------------------------
#
# y_i | z_i ~ N(z_i, R), z_i ~ N(mu, W): E(z_i | y_i) = mu + K (y_i - mu) with
# K = W (W + R)^-1. The statistic is the mean of z, G(s) = (I - K) s + K ybar.
# theta = (mu, p, K, W^-1, (W + R)^-1).


@kernel(EXPECT, deferred=True)
def expect(theta, y, latent, work):
    p = y.size
    quadratic = 0.0
    for a in range(p):
        latent[a] = theta[a]
        for b in range(p):
            distance = y[b] - theta[b]
            latent[a] += theta[p + 1 + a * p + b] * distance
            at = p + 1 + 2 * p * p + a * p + b
            quadratic += (y[a] - theta[a]) * theta[at] * distance
    return -0.5 * quadratic


@kernel(ACCUMULATE, deferred=True)
def accumulate(weight, y, latent, s):
    for a in range(s.size):
        s[a] += weight * latent[a]


@kernel(MAXIMIZE, deferred=True)
def maximize(s, theta):
    for a in range(s.size):
        theta[a] = s[a]
    return 0


@kernel(SURROGATE, deferred=True)
def surrogate(s, theta):
    p = s.size
    value = 0.0
    for a in range(p):
        for b in range(p):
            value += (s[a] - 0.5 * theta[a]) * theta[p + 1 + p * p + a * p + b] * theta[b]
    return value


class Linear(Model):
    """Normal means of p coordinates, in units and combinations that are all different."""

    name = "linear"

    def __init__(self, p, fractions, *, with_surrogate=True, seed=0):
        rng = np.random.default_rng(seed)
        # W = L L', R = L diag(1 / h - 1) L': h are the observed fractions of information.
        factor = (np.eye(p) + np.tril(0.3 * rng.standard_normal((p, p)))) * 10.0 ** np.arange(p)
        prior = factor @ factor.T
        total = (factor / np.asarray(fractions)) @ factor.T
        y = 1.0 + rng.standard_normal((50, p)) @ np.linalg.cholesky(total).T
        self.gain = factor * np.asarray(fractions) @ np.linalg.inv(factor)
        self.values, self.offsets = y.ravel(), np.array([0, p])
        self.n_individuals, self.nobs, self.mean = 50, 50 * p, y.mean(axis=0)
        self.theta_spec = Packed(mu=(p,), size=(), gain=(p, p), precision=(p, p), total=(p, p))
        self.stat_spec = Packed(z=(p,))
        self.latent_size = self.work_size = p
        self.param_names = [f"mu{a}" for a in range(p)]
        functions = {"expect": expect, "accumulate": accumulate, "maximize": maximize}
        self.capabilities = frozenset({"expect"})
        if with_surrogate:
            functions["surrogate"] = surrogate
            self.capabilities |= {"surrogate"}
        self.kernels = make_kernels(**functions)
        self._theta = self.theta_spec.pack(
            {
                "mu": np.zeros(p), "size": p, "gain": self.gain,
                "precision": np.linalg.inv(prior), "total": np.linalg.inv(total),
            }
        )  # fmt: skip

    def start(self, rng):
        return self._theta.copy()

    def params_of(self, theta):
        return theta[: len(self.param_names)].copy()

    def results(self, record):
        return Results(self, record)


FRACTIONS = np.array([0.9, 0.5, 0.2, 0.05, 0.01])


@pytest.mark.nojit
@pytest.mark.parametrize("p", [1, 2, 4])
def test_anderson_ends_in_p_plus_one_evaluations_of_a_linear_map(p):
    model = Linear(p, FRACTIONS[:p])
    # One pass more: the map is first evaluated at s = G(start), which is itself an evaluation.
    run, course = follow(model, Anderson(order=p), p + 3)
    assert course[-1, 0] == p + 3
    reached = (run.theta[:p] - model.mean) / np.abs(model.mean)
    assert np.max(np.abs(reached)) < 1e-8
    # One evaluation before there is far to go.
    early, _ = follow(model, Anderson(order=p), p + 1)
    assert np.max(np.abs(early.theta[:p] - model.mean) / np.abs(model.mean)) > 1e-5


def test_iterates_do_not_depend_on_units_or_origin():
    # The metric is affine: so are the passes needed, with coordinates of size 1 to 10 000.
    model = Linear(5, FRACTIONS)
    run, _ = follow(model, Anderson(order=5), 9)
    np.testing.assert_allclose(run.theta[:5], model.mean, rtol=1e-8)


@pytest.mark.parametrize("proxy", BOTH)
def test_without_a_surrogate_the_limit_is_the_same(proxy):
    model = Linear(3, FRACTIONS[[0, 2, 3]], with_surrogate=False)
    run, course = follow(model, proxy(), 80)
    assert run.proxy_state["metric"] == 0.0
    np.testing.assert_allclose(run.theta[:3], model.mean, rtol=1e-8)
    # EM would need log(1e-8) / log(0.95) = 359 passes.
    assert course[-1, 0] <= 81


@pytest.mark.parametrize(("proxy", "factor"), [(Anderson, 1.01), (Squarem, 3.0)])
def test_what_is_left_to_gain_bounds_what_is_left(proxy, factor):
    model = Linear(3, FRACTIONS[[0, 2, 3]])
    total = model.theta_spec.view(model._theta)["total"]
    run = start_run(model, proxy(), 60)
    before, seen = np.nan, 0
    for _ in iterate(run):
        distance = run.theta[:3] - model.mean
        left = 0.5 * model.n_individuals * distance @ total @ distance
        if seen > 6 and left > 1e-12:  # once curvature along the slowest direction was met
            assert left <= max(left_to_gain(run), before) * factor
        before, seen = left_to_gain(run), seen + 1
    assert 0.0 <= left_to_gain(run) < 1e-12


# -- mixtures with much missing information ------------------------------------------------


def mixture(gap, *, d=1, k=2, n=2000, seed=0, kind="spherical"):
    """Equally spaced components on the first axis, `gap` standard deviations apart."""
    rng = np.random.default_rng(seed)
    means = np.zeros((k, d))
    means[:, 0] = gap * np.arange(k)
    labels = rng.choice(k, n, p=np.arange(4, 4 + k) / np.arange(4, 4 + k).sum())
    X = means[labels] + rng.standard_normal((n, d))
    covariances = np.ones(k) if kind == "spherical" else np.tile(np.eye(d), (k, 1, 1))
    init = {"weights": np.full(k, 1 / k), "means": means + 0.3, "covariances": covariances}
    return GaussianMixture(X, k, covariance_type=kind, init=init, reg_covar=0.0)


CASES = {
    "close": (lambda: mixture(2.5), 1500),
    "closer": (lambda: mixture(2.2, seed=1), 4000),
    "three": (lambda: mixture(2.8, k=3, n=3000, seed=1), 3000),
    "plane": (lambda: mixture(2.6, d=2, n=3000, kind="full"), 1500),
}


@cache
def by_em(case):
    make, n_iter = CASES[case]
    return follow(make(), Full(), n_iter)


def same_parameters(run, other, tolerance):
    params, expected = (r.model.params_of(r.theta) for r in (run, other))
    np.testing.assert_allclose(params, expected, rtol=0.0, atol=tolerance)


def missing_information(course):
    """Rate of EM: gains fall by the square of the largest fraction of missing information."""
    gains = np.diff(course[:, 1])
    late = np.flatnonzero(gains < 1e-5)[0]
    return np.sqrt(gains[late] / gains[late - 1])


@pytest.mark.parametrize("case", CASES)
def test_ten_times_fewer_evaluations_than_em(case):
    em, course = by_em(case)
    assert missing_information(course) > 0.95
    run, fast = follow(CASES[case][0](), Anderson(), 80)
    best = max(course[:, 1].max(), fast[:, 1].max())
    assert best - course[-1, 1] < 1e-10 * abs(best)
    for tolerance in (1e-4, 1e-6, 1e-8):
        assert passes_to(course, best, tolerance) >= 10.0 * passes_to(fast, best, tolerance)
    # The limit of EM, to 1e-8.
    np.testing.assert_allclose(
        em.model.params_of(run.theta), em.model.params_of(em.theta), atol=1e-8
    )


@pytest.mark.parametrize("case", ["close", "plane"])
def test_squarem_reaches_the_limit_of_em_sooner(case):
    em, course = by_em(case)
    run, fast = follow(CASES[case][0](), Squarem(), 200)
    best = max(course[:, 1].max(), fast[:, 1].max())
    assert passes_to(course, best, 1e-8) >= 3.0 * passes_to(fast, best, 1e-8)
    np.testing.assert_allclose(
        em.model.params_of(run.theta), em.model.params_of(em.theta), atol=1e-8
    )


@pytest.mark.parametrize("proxy", BOTH)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("epsilon", [0.0, 0.01])
def test_the_log_likelihood_falls_by_no_more_than_epsilon(proxy, case, epsilon):
    _, course = follow(CASES[case][0](), proxy(epsilon=epsilon), 80)
    reached = course[:, 1]
    fall = np.maximum.accumulate(reached) - reached
    assert fall.max() <= max(epsilon, 1e-13 * abs(reached[-1]))
    assert reached[-1] > reached[0] + 1.0


@pytest.mark.parametrize("proxy", BOTH)
def test_a_penalty_may_lower_the_log_likelihood(proxy):
    # EM then climbs something else than the log-likelihood, at last downhill; so may these.
    best, _ = by_em("close")
    init = best.model.components(best.theta)
    X = best.model.values.reshape(-1, 1)
    model = GaussianMixture(X, 2, covariance_type="spherical", init=init, reg_covar=0.02)
    em, course = follow(model, Full(), 1500)
    assert course[0, 1] > course[-1, 1] + 0.01
    run, _ = follow(model, proxy(epsilon=0.0), 500)
    same_parameters(run, em, 1e-8)


@pytest.mark.parametrize("proxy", BOTH)
def test_what_is_left_stops_at_the_maximum(proxy):
    _, course = by_em("close")
    run = start_run(CASES["close"][0](), proxy(), 400)
    for _ in iterate(run):
        if left_to_gain(run) < 1e-6:
            break
    else:
        pytest.fail("the rule was never met")
    # A bound by the curvature met so far: it may be short by the part not met yet.
    assert course[:, 1].max() - run.proxy_state["loglik"] < 2e-6


def test_rejected_points_go_back_to_em_and_are_counted():
    run, course = follow(CASES["closer"][0](), Squarem(epsilon=0.0), 120)
    assert run.proxy_state["rejected"] > 0
    # Every pass is counted, those for points that were given up too.
    assert run.n_evals == run.k * run.model.n_individuals
    assert len(course) == run.k - 1 - run.proxy_state["rejected"]


# -- guards --------------------------------------------------------------------------------


@pytest.mark.nojit
@pytest.mark.parametrize("proxy", BOTH)
def test_inadmissible_points_are_halved_towards_em(proxy):
    y = toy_data()
    # The maximum itself is just admissible; anything beyond is refused by the M-step.
    model = Toy(y, mu=-40.0, limit=44.0, mode=1.0)
    run, _ = follow(model, proxy(), 40)
    assert run.status == 0
    assert run.theta[0] == pytest.approx(y.mean(), abs=1e-10)


def test_a_step_beyond_the_limit_is_counted():
    y = toy_data()
    model = Toy(y, mu=-1.0, limit=y.mean() - 0.2, mode=1.0)
    run, _ = follow(model, Anderson(), 12)
    # The maximum is not admissible: every extrapolation to it is halved.
    assert run.counts[0] > 0
    assert run.theta[0] <= model._start[1]


@pytest.mark.nojit
@pytest.mark.parametrize("proxy", BOTH)
def test_a_failed_first_step_ends_the_run(proxy):
    run, _ = follow(Toy(toy_data(), limit=0.5, mode=1.0, repairs=False), proxy(), 10)
    assert run.status == 1


@pytest.mark.parametrize("proxy", BOTH)
def test_a_resumed_run_gives_the_same_bits(proxy):
    make, n_iter = CASES["closer"][0], 40
    whole, _ = follow(make(), proxy(), n_iter)
    first = start_run(make(), proxy(), n_iter)
    for snapshot in iterate(first):
        if snapshot.k >= 17:
            break
    state = first.state_dict()
    for _ in iterate(first):  # what was saved must not move on with the run
        pass
    second = start_run(make(), proxy(), n_iter)
    second.load_state_dict(state)
    for _ in iterate(second):
        pass
    assert np.array_equal(second.theta, whole.theta)
    assert np.array_equal(first.theta, whole.theta)
    assert second.n_evals == whole.n_evals


def test_started_at_the_limit_nothing_moves():
    em, _ = by_em("close")
    for proxy in BOTH:
        model = CASES["close"][0]()
        run = Run(model, By(proxy(), 12).combine(model), em.theta, seed=0)
        for _ in iterate(run):
            pass
        np.testing.assert_allclose(run.theta, em.theta, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("proxy", BOTH)
def test_wrong_options(proxy):
    with pytest.raises(OptionError, match=r"epsilon=-1.*at least 0"):
        proxy(epsilon=-1)
    model = Toy(toy_data())
    one = Constant(1.0)
    drawn = Combination("x", MonteCarlo(), proxy(), one, one, 5)
    with pytest.raises(OptionError, match="not random"):
        next(iterate(Run(model, drawn, model.start(np.random.default_rng(0)), seed=0)))
    damped = Combination("x", Exact(), proxy(), one, Constant(0.5), 5)
    with pytest.raises(OptionError, match="rho = gamma = 1"):
        next(iterate(Run(model, damped, model.start(np.random.default_rng(0)), seed=0)))


def test_wrong_order():
    with pytest.raises(OptionError, match="order=0"):
        Anderson(order=0)
