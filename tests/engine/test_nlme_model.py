"""The nonlinear mixed model against SciPy's densities and finite differences."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, ndtr

import saem
from saem.algorithms import EM, SAEM
from saem.engine import Run, iterate
from saem.estep import Quadrature
from saem.exceptions import ModelError
from saem.nlme import _kernels

ERRORS = {
    "constant": saem.ConstantError(0.7),
    "proportional": saem.ProportionalError(0.2),
    "sum": saem.CombinedError(0.4, 0.15),
    "variance": saem.CombinedError(0.4, 0.15, form="variance"),
    "exponential": saem.ExponentialError(0.25),
    "power": saem.PowerError(0.2, 0.7),
    "fixed power": saem.PowerError(0.2, 0.7, fixed_c=True),
    "sum, power": saem.CombinedError(0.4, 0.15, c=1.3, fixed_c=False),
    "variance, power": saem.CombinedError(0.4, 0.15, "variance", c=0.8),
}


def four(scale, rate, share, floor, *, time):
    """Decay to a floor: one parameter of every kind."""
    return scale * (share * np.exp(-rate * time) + 1.0) + floor


def data(n=9, seed=3):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 6, n)
    who = np.repeat(np.arange(n), sizes)
    frame = pd.DataFrame(
        {
            "id": who,
            "time": np.concatenate([np.sort(rng.uniform(0.1, 4.0, m)) for m in sizes]),
            "age": rng.normal(0.0, 1.0, n)[who],
            "sex": np.where(rng.random(n) < 0.5, "F", "M")[who],
        }
    )
    frame["dv"] = 3.0 + 2.0 * np.exp(-frame["time"]) + rng.uniform(0.0, 1.0, len(frame))
    return frame


def make(error="constant", omega="full", frame=None, **changes):
    parameters = {
        "scale": saem.LogNormal(2.0, omega=0.4, covariates="age"),
        "rate": saem.LogitNormal(1.0, lower=0.2, upper=3.0, omega=0.6),
        "share": saem.ProbitNormal(0.4, lower=-0.5, upper=1.5, omega=0.5),
        "floor": saem.Normal(1.0, omega=0.3, covariates="sex"),
    } | changes
    return saem.NLME(
        data() if frame is None else frame, structural=four, parameters=parameters,
        error=ERRORS[error], omega=omega,
    )  # fmt: skip


def some_theta(model, seed=0):
    """Admissible parameters away from the start, covariances included."""
    rng = np.random.default_rng(seed)
    theta = model.start(rng)
    values = model.estimation_vector(theta)
    for j, kind in enumerate(model.param_kind):
        if kind in ("typical", "coefficient", "exponent"):
            values[j] += 0.2 * rng.standard_normal()
        elif kind == "covariance":
            values[j] = 0.02 * rng.standard_normal()
        else:
            values[j] *= np.exp(0.2 * rng.standard_normal())
    return model.with_estimates(theta, values)


def sd_of(error, a, b, c, f):
    """Residual standard deviation, written out."""
    return {
        "power": b * np.abs(f) ** c,
        "fixed power": b * np.abs(f) ** 0.7,
        "sum, power": a + b * np.abs(f) ** c,
        "variance, power": np.hypot(a, b * np.abs(f) ** 0.8),
        "constant": a + 0.0 * f,
        "proportional": b * np.abs(f),
        "sum": a + b * np.abs(f),
        "variance": np.sqrt(a**2 + b**2 * f**2),
        "exponential": a + 0.0 * f,
    }[error]


def reference_log_lik(model, theta, i, z, error, frame):
    """Log p(y_i | z) from the data frame and SciPy."""
    rows = frame[frame["id"] == i]
    view = model.theta_spec.view(theta)
    design = model.individuals.design.matrix[i]
    phi = design @ view["beta"]
    for name, value in zip(model.random_names, z, strict=True):
        phi[list(model.parameters).index(name)] = value
    scale, rate = np.exp(phi[0]), 0.2 + 2.8 * expit(phi[1])
    share, floor = -0.5 + 2.0 * ndtr(phi[2]), phi[3]
    f = scale * (share * np.exp(-rate * rows["time"].to_numpy()) + 1.0) + floor
    a, b, c = view["sigma"]
    y = rows["dv"].to_numpy()
    if error == "exponential":
        return stats.lognorm.logpdf(y, a, scale=f).sum()
    return stats.norm.logpdf(y, f, sd_of(error, a, b, c, f)).sum()


def log_lik(model, theta, i, z):
    latent = np.append(z, [0.0, 0.0])
    value = _kernels.log_lik(
        model.structural.compiled, theta, model.record_of(i), latent, np.empty(model.work_size)
    )
    return value, latent


@pytest.mark.nojit
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("fixed_effects", [(), ("rate",), ("scale", "share")])
def test_density_of_the_observations(error, fixed_effects):
    frame = data()
    kinds = {
        "rate": saem.LogitNormal(1.0, lower=0.2, upper=3.0, random=False),
        "scale": saem.LogNormal(2.0, random=False, covariates="age"),
        "share": saem.ProbitNormal(0.4, lower=-0.5, upper=1.5, random=False, fixed=True),
    }
    model = make(error, frame=frame, **{name: kinds[name] for name in fixed_effects})
    theta = some_theta(model)
    rng = np.random.default_rng(1)
    mean, chol = np.empty(model.n_coords), np.empty((model.n_coords,) * 2)
    for i in range(model.n_individuals):
        _kernels.prior(theta, model.record_of(i), mean, chol)
        z = mean + 0.3 * rng.standard_normal(model.n_coords)
        value, _ = log_lik(model, theta, i, z)
        expected = reference_log_lik(model, theta, i, z, error, frame)
        assert value == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.nojit
def test_prior_is_that_of_the_covariates():
    frame = data()
    model = make(frame=frame)
    theta = some_theta(model)
    view = model.theta_spec.view(theta)
    named = dict(zip(model.param_names, model.estimation_vector(theta), strict=True))
    mean, chol = np.empty(4), np.empty((4, 4))
    for i in range(model.n_individuals):
        first = frame[frame["id"] == i].iloc[0]
        _kernels.prior(theta, model.record_of(i), mean, chol)
        expected = np.array([named[n] for n in ("scale", "rate", "share", "floor")])
        expected[0] += named["beta_scale_age"] * first["age"]
        sex = next(name for name in named if name.startswith("beta_floor"))
        expected[3] += named[sex] * (first["sex"] == "M")
        np.testing.assert_allclose(mean, expected, rtol=1e-13)
        np.testing.assert_allclose(chol @ chol.T, view["omega"], rtol=1e-12)


def test_exponential_error_is_the_density_of_the_data_themselves():
    # Over all y the density must integrate to 1: the Jacobian is in.
    frame = pd.DataFrame({"id": [0, 1, 2], "time": 1.0, "dv": [2.0, 3.0, 4.0]})
    y = np.linspace(1e-3, 60.0, 20_001)
    frame = pd.DataFrame({"id": np.arange(y.size), "time": 1.0, "dv": y})
    model = saem.NLME(
        frame, structural=four, error=saem.ExponentialError(0.3),
        parameters={
            "scale": saem.LogNormal(2.0), "rate": saem.LogNormal(1.0, random=False),
            "share": saem.Normal(1.0, random=False), "floor": saem.Normal(1.0, random=False),
        },
    )  # fmt: skip
    theta = model.start(np.random.default_rng(0))
    z = np.array([np.log(2.0)])
    density = np.exp([log_lik(model, theta, i, z)[0] for i in range(y.size)])
    assert np.trapezoid(density, y) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("omega", ["diagonal", [["scale", "floor"], ["rate"]], "full"])
def test_patterns_of_omega(omega):
    model = make(omega=omega)
    theta = model.fit(SAEM(n_burn_in=1, n_exploration=15, n_smoothing=0), seed=0).theta
    matrix = model.theta_spec.view(theta)["omega"]
    linked = {
        "diagonal": [], "full": [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)],
    }.get(omega if isinstance(omega, str) else "", [(0, 3)])  # fmt: skip
    for a in range(4):
        for b in range(a):
            assert matrix[a, b] == pytest.approx(matrix[b, a], rel=1e-12)
            assert (matrix[a, b] != 0.0) == ((b, a) in linked)
    assert np.all(np.linalg.eigvalsh(matrix) > 0.0)
    covariances = [n for n in model.param_names if n.startswith("cov_")]
    assert len(covariances) == len(linked)


# -- M-step --------------------------------------------------------------------------------


def complete_log_lik(model, theta, draws):
    """Complete-data log-likelihood of given draws, from the compiled density and SciPy."""
    total = 0.0
    d = model.n_coords
    mean, chol = np.empty(d), np.empty((d, d))
    for i, z in enumerate(draws):
        _kernels.prior(theta, model.record_of(i), mean, chol)
        total += log_lik(model, theta, i, z)[0]
        total += stats.multivariate_normal.logpdf(z, mean, chol @ chol.T)
    return total


def statistic(model, theta, draws):
    s = np.zeros(model.stat_spec.size)
    for i, z in enumerate(draws):
        _, latent = log_lik(model, theta, i, z)
        _kernels.accumulate(1.0 / len(draws), model.record_of(i), latent, s)
    return s


def simulated_draws(model, theta, seed=2):
    rng = np.random.default_rng(seed)
    d = model.n_coords
    mean, chol = np.empty(d), np.empty((d, d))
    draws = []
    for i in range(model.n_individuals):
        _kernels.prior(theta, model.record_of(i), mean, chol)
        draws.append(mean + 0.5 * chol @ rng.standard_normal(d) + 0.1)
    return np.array(draws)


CASES = {
    "constant, full": {"error": "constant", "omega": "full"},
    "proportional, diagonal": {"error": "proportional", "omega": "diagonal"},
    "power, full": {"error": "fixed power", "omega": "full"},
    "exponential, block": {"error": "exponential", "omega": [["scale", "floor"]]},
    "fixed entries": {
        "error": "constant",
        "omega": "diagonal",
        "scale": saem.LogNormal(2.0, omega=0.4, fixed=True, covariates="age"),
        "floor": saem.Normal(1.0, omega=0.3, fixed_omega=True),
    },
}


@pytest.mark.nojit
@pytest.mark.parametrize("case", CASES)
def test_maximize_is_the_maximiser(case):
    options = dict(CASES[case])
    omega, error = options.pop("omega"), options.pop("error")
    model = make(error, omega, data(30), **options)
    theta = some_theta(model)
    draws = simulated_draws(model, theta)
    before = theta.copy()
    # One call is a sweep over coefficients and Omega; its fixed point is the maximum.
    for _ in range(200):
        last = theta.copy()
        assert _kernels.maximize(statistic(model, theta, draws), theta) == 0
        if np.array_equal(last, theta):
            break
    centre = model.estimation_vector(theta)
    for j, name in enumerate(model.param_names):
        step = 1e-4 * max(1e-2, abs(centre[j]))
        values = []
        for sign in (1.0, -1.0):
            shifted = centre.copy()
            shifted[j] += sign * step
            values.append(complete_log_lik(model, model.with_estimates(theta, shifted), draws))
        middle = complete_log_lik(model, theta, draws)
        slope = (values[0] - values[1]) / (2.0 * step)
        curvature = (2.0 * middle - values[0] - values[1]) / step**2
        assert curvature > 0.0, name
        # In standard errors of the complete data the distance to the maximum is nil.
        assert abs(slope / np.sqrt(curvature)) < 1e-4, name
    free = set(model.param_index)
    view, old = model.theta_spec.view(theta), model.theta_spec.view(before)
    for block in ("beta", "sigma"):
        at = model.theta_spec.slices[block]
        for j, (new, was) in enumerate(zip(view[block].ravel(), old[block].ravel(), strict=True)):
            if at.start + j not in free:
                assert new == was
    if case == "fixed entries":
        assert "scale" not in model.param_names
        assert "omega2_floor" not in model.param_names
        place = model.random_names.index("floor")
        assert view["omega"][place, place] == pytest.approx(0.09)


@pytest.mark.nojit
def test_one_sweep_raises_the_complete_likelihood():
    model = make("constant", "full", data(30))
    theta = some_theta(model)
    draws = simulated_draws(model, theta)
    values = [complete_log_lik(model, theta, draws)]
    for _ in range(6):
        _kernels.maximize(statistic(model, theta, draws), theta)
        values.append(complete_log_lik(model, theta, draws))
    assert np.all(np.diff(values) > -1e-9)
    assert values[1] > values[0] + 0.1


@pytest.mark.nojit
def test_statistics_that_are_not_admissible():
    model = make()
    theta = some_theta(model)
    s = statistic(model, theta, simulated_draws(model, theta))
    spoilt = s.copy()
    spoilt[0] = np.nan
    assert _kernels.maximize(spoilt, theta.copy()) == 1
    spoilt = s.copy()
    spoilt[-1] = -0.1
    assert _kernels.maximize(spoilt, theta.copy()) == 2
    _kernels.project(spoilt, theta)
    assert spoilt[-1] == 0.0
    assert _kernels.maximize(spoilt, theta.copy()) == 0
    for name in ("n_obs", "xx"):
        spoilt = s.copy()
        model.stat_spec.view(spoilt)[name][...] *= -1.0
        assert _kernels.maximize(spoilt, theta.copy()) == 4
        _kernels.project(spoilt, theta)
        assert _kernels.maximize(spoilt, theta.copy()) == 0
    singular = model.theta_spec.view(theta.copy())
    assert np.all(np.isfinite(singular["omega"]))


@pytest.mark.nojit
def test_a_covariance_that_is_not_definite_is_shrunk():
    for omega in ([[1.0, 2.0], [2.0, 1.0]], [[1.0, np.nan], [np.nan, 1.0]]):
        matrix, chol = np.array(omega), np.empty((2, 2))
        _kernels.factorise(matrix, chol)
        assert np.all(np.isfinite(np.diag(chol)))
        assert np.all(np.diag(chol) > 0.0)


@pytest.mark.nojit
def test_sums_of_logarithms_survive_extreme_values():
    for values in ([1e-200] * 9, [1e60] * 9, [0.0, 1.0, -2.0], np.linspace(0.1, 50.0, 37)):
        f = np.array(values, dtype=float)
        size = np.maximum(np.abs(f), _kernels.PREDICTION_FLOOR)
        dv = f + 0.1 * size
        for b in (1.0, 0.1, 1e-250):
            logs, square = _kernels.proportional_sums(b, dv, f)
            assert logs == pytest.approx((np.log(size) + np.log(b)).sum(), rel=1e-12)
            assert square == pytest.approx(np.square((dv - f) / size).sum(), rel=1e-12)


# -- numerical M-step ----------------------------------------------------------------------


def numeric_data(seed=5, n=24):
    rng = np.random.default_rng(seed)
    times = np.array([0.2, 0.6, 1.2, 2.5, 4.0, 6.0])
    amount = 10.0 * np.exp(0.3 * rng.standard_normal(n))
    t, who = np.tile(times, n), np.repeat(np.arange(n), times.size)
    weight = rng.normal(0.0, 0.5, n)
    f = amount[who] * np.exp(-0.4 * np.exp(0.3 * weight[who]) * t)
    y = f + np.sqrt(0.2**2 + 0.1**2 * f**2) * rng.standard_normal(t.size)
    return pd.DataFrame({"id": who, "time": t, "weight": weight[who], "dv": y})


def decay(amount, rate, *, time):
    """Exponential decay."""
    return amount * np.exp(-rate * time)


def numerical_model(error):
    return saem.NLME(
        numeric_data(),
        structural=decay,
        parameters={
            "amount": saem.LogNormal(8.0, omega=0.5),
            "rate": saem.LogNormal(0.6, random=False, covariates="weight"),
        },
        error=error,
    )


@pytest.mark.parametrize(
    "error",
    [
        saem.ConstantError(0.5),
        saem.CombinedError(0.3, 0.2),
        saem.CombinedError(0.3, 0.2, "variance"),
        saem.PowerError(0.3, 0.5),
    ],
)
def test_numerical_m_step_reaches_a_root_of_the_score(error):
    from saem.inference.likelihood import quadrature

    model = numerical_model(error)
    assert model.is_numerical
    found = model.fit(EM(Quadrature(25), n_iter=3000, tolerance=1e-11), seed=0)
    assert found.converged, found.reason
    centre = model.estimation_vector(found.theta)
    se = found.bse.to_numpy() / np.abs(model.natural_derivative(found.theta))

    def loglik(values):
        return quadrature(model, model.with_estimates(found.theta, values), n_nodes=25).value

    for j, name in enumerate(model.param_names):
        step = np.zeros(centre.size)
        step[j] = 0.02 * se[j]
        slope = (loglik(centre + step) - loglik(centre - step)) / 0.04
        # In nats per standard error: the maximum is within 1e-3 standard errors.
        assert abs(slope) < 1e-3, name


@pytest.mark.nojit
def test_numerical_m_step_in_a_few_iterations():
    model = numerical_model(saem.CombinedError(0.5, 0.3))
    run = Run(
        model, SAEM(n_burn_in=1, n_exploration=4, n_smoothing=2).combine(model),
        model.start(np.random.default_rng(0)), seed=0, n_threads=1,
    )  # fmt: skip
    path = np.array([model.params_of(s.theta) for s in iterate(run)])
    assert np.all(np.isfinite(path))
    assert set(run.numerical) >= {"free", "step"}
    assert np.any(path[-1] != path[1])


def test_chains_agree_with_quadrature_where_the_m_step_is_numerical():
    model = numerical_model(saem.CombinedError(0.3, 0.2))
    exact = model.fit(EM(Quadrature(15), n_iter=3000), seed=0)
    found = model.fit("saem", seed=1)
    # An eighth of a standard error is far beyond the Monte Carlo error of 400 iterations.
    distance = (found.params - exact.params).abs() / exact.bse
    assert distance.max() < 0.125, distance


# -- structural limit ----------------------------------------------------------------------


def test_equal_rates_of_absorption_and_elimination_do_no_harm():
    from saem.nlme.library import LIBRARY

    compiled = LIBRARY["pk.oral_1cpt"].compiled
    names = LIBRARY["pk.oral_1cpt"].param_names
    columns = LIBRARY["pk.oral_1cpt"].columns
    time, amount = np.array([0.1, 1.0, 5.0, 20.0]), 100.0
    rows = {"time": time, "amt": np.full(4, amount)}
    table = np.array([rows[c] for c in columns])

    def predict(ka, volume, k):
        psi = np.array([{"ka": ka, "V": volume, "CL": k * volume}[n] for n in names])
        out = np.empty(4)
        compiled(psi, table, out)
        return out

    limit = amount / 10.0 * 0.3 * time * np.exp(-0.3 * time)
    np.testing.assert_allclose(predict(0.3, 10.0, 0.3), limit, rtol=1e-13)
    for gap in 10.0 ** np.arange(-16, -1.0):
        k = 0.3 * (1.0 + gap)
        # Long double leaves enough digits of the difference for gaps above 1e-8.
        if gap > 1e-8:
            a, b = np.longdouble(0.3), np.longdouble(k)
            t = time.astype(np.longdouble)
            exact = amount / 10.0 * a / (a - b) * (np.exp(-b * t) - np.exp(-a * t))
            np.testing.assert_allclose(predict(0.3, 10.0, k), exact.astype(float), rtol=2e-10)
        np.testing.assert_allclose(predict(0.3, 10.0, k), limit, rtol=20.0 * gap + 1e-12)


def test_a_fit_through_equal_rates_stays_finite():
    model = saem.NLME(
        saem.datasets.load("theophylline"),
        structural="pk.oral_1cpt",
        parameters={
            "ka": saem.LogNormal(0.1), "V": saem.LogNormal(30.0), "CL": saem.LogNormal(3.0),
        },
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )  # fmt: skip
    # From ka = CL / V the modes on both sides are as near; either will do.
    result = model.fit("saem", seed=0)
    assert result.converged
    assert np.all(np.isfinite(result.trace.iloc[1:, 5:]))
    assert not np.isclose(result.params["ka"], result.params["CL"] / result.params["V"], rtol=0.1)


def test_starting_parameters_are_checked():
    model = make()
    theta = model.start(np.random.default_rng(0))
    model.check_theta(theta)
    broken = theta.copy()
    model.theta_spec.view(broken)["omega"][0, 1] = 9.0
    model.theta_spec.view(broken)["omega"][1, 0] = 9.0
    with pytest.raises(ModelError, match="not positive definite"):
        model.check_theta(broken)
    broken[:] = np.nan
    with pytest.raises(ModelError, match="not finite"):
        model.check_theta(broken)


@pytest.mark.nojit
def test_conditional_log_likelihood_of_kept_draws():
    model = numerical_model(saem.CombinedError(0.5, 0.3))
    theta = model.start(np.random.default_rng(0))
    rng = np.random.default_rng(1)
    n, width = model.n_individuals, 1 + model.latent_size
    records = np.zeros((n, 2 * width))
    expected = 0.0
    for i in range(n):
        for m, weight in enumerate((0.3, 0.7)):
            z = np.log(10.0) + 0.2 * rng.standard_normal(1)
            records[i, m * width] = weight
            records[i, m * width + 1] = z[0]
            expected += weight * log_lik(model, theta, i, z)[0]
    run = Run(model, SAEM().combine(model), theta, seed=0, n_threads=1)
    assert run.conditional_loglik(theta, records) == pytest.approx(expected, rel=1e-13)
