"""Error models: one definition for sampler, M-step, likelihood, information and files."""

import numpy as np
import pandas as pd
import pytest

import saem
from saem.exceptions import ModelError
from saem.inference.likelihood import quadrature
from saem.nlme import _kernels
from saem.nlme._residual import residual_sds, variance_slopes
from saem.nlme.error_models import NAMES, resolve_error

ALL = [
    saem.ConstantError(0.5),
    saem.ProportionalError(0.2),
    saem.ExponentialError(0.2),
    saem.CombinedError(0.3, 0.1),
    saem.CombinedError(0.3, 0.1, "variance"),
    saem.CombinedError(0.3, 0.1, c=1.4, fixed_c=False),
    saem.CombinedError(0.3, 0.1, "variance", c=0.7),
    saem.PowerError(0.25, 0.6),
    saem.PowerError(0.25, 0.6, fixed_c=True),
]


def decay(amount, rate, *, time):
    """Exponential decay."""
    return amount * np.exp(-rate * time)


def data(n=30, seed=1, sd=lambda f: 0.25 * f**0.6):
    rng = np.random.default_rng(seed)
    times = np.array([0.2, 0.6, 1.2, 2.5, 4.0])
    amount = 10.0 * np.exp(0.3 * rng.standard_normal(n))
    f = (amount[:, None] * np.exp(-0.4 * times)).ravel()
    y = np.maximum(f + sd(f) * rng.standard_normal(f.size), 0.05)
    return pd.DataFrame({"id": np.repeat(np.arange(n), 5), "time": np.tile(times, n), "dv": y})


def make(error, frame=None):
    return saem.NLME(
        data() if frame is None else frame, structural=decay, error=error,
        parameters={"amount": saem.LogNormal(9.0, omega=0.4),
                    "rate": saem.LogNormal(0.5, random=False)},
    )  # fmt: skip


@pytest.mark.nojit
@pytest.mark.parametrize("error", ALL, ids=str)
def test_slopes_of_the_variance(error):
    f = np.array([-2.0, 0.3, 1.0, 4.0, 50.0])
    sigma = error.start

    def variance(values):
        out = np.empty(f.size)
        residual_sds(error.code, values, f, out)
        return out**2

    slopes = variance_slopes(error.code, sigma, f)
    assert slopes.shape == (3, 5)
    for k, name in enumerate(("a", "b", "c")):
        if name in error.param_names:
            step = np.zeros(3)
            step[k] = 1e-6
            differences = (variance(sigma + step) - variance(sigma - step)) / 2e-6
            np.testing.assert_allclose(slopes[k], differences, rtol=1e-6, atol=1e-9)


def test_limits_of_the_power():
    rows = data()
    theta = {}
    for error in (saem.ConstantError(0.3), saem.ProportionalError(0.3), saem.PowerError(0.3, 0.0),
                  saem.PowerError(0.3, 1.0), saem.CombinedError(1e-9, 0.3, c=1.0)):  # fmt: skip
        model = make(error, rows)
        theta[str(error)] = quadrature(model, model.start(np.random.default_rng(0))).value
    constant, proportional, zero, one, combined = theta.values()
    assert zero == pytest.approx(constant, rel=1e-12)
    assert one == pytest.approx(proportional, rel=1e-12)
    assert combined == pytest.approx(proportional, rel=1e-7)
    assert constant != pytest.approx(proportional, rel=1e-3)


@pytest.mark.parametrize(
    "error",
    [saem.PowerError(0.5, 0.2), saem.PowerError(0.4, 0.6, fixed_c=True), saem.CombinedError(0.5)],
    ids=str,
)
def test_em_ends_at_the_maximum_of_the_likelihood(error):
    # E-step, M-step and likelihood agree on g only if the root of the one is that of the other.
    model = make(error)
    fit = model.fit(saem.algorithms.QuadratureEM(n_iter=2000, tolerance=1e-9), seed=0)
    centre = model.estimation_vector(fit.theta)
    se = fit.bse.to_numpy() / np.abs(model.natural_derivative(fit.theta))
    for j, name in enumerate(model.param_names):
        step = np.zeros(centre.size)
        step[j] = 0.02 * se[j]
        up, down = (
            quadrature(model, model.with_estimates(fit.theta, centre + sign * step)).value
            for sign in (1.0, -1.0)
        )
        assert abs(up - down) / 0.04 < 2e-3, name


def test_information_knows_the_power():
    model = make(saem.PowerError(0.3, 0.5))
    fit = model.fit(saem.algorithms.QuadratureEM(n_iter=500), seed=0)
    exact, louis = fit.information("exact"), fit.information("louis")
    np.testing.assert_allclose(louis.bse, exact.bse, rtol=0.01)
    linear = fit.information("linearised")
    assert np.all(np.abs(linear.bse / exact.bse - 1.0) < 0.35)
    # Identity scale: the interval of an exponent may cross 0.
    low, high = fit.conf_int().loc["c"]
    assert low + high == pytest.approx(2.0 * fit.params["c"], rel=1e-9)


def test_saem_estimates_a_power():
    model = make(saem.PowerError(0.3, 1.0))
    exact = model.fit(saem.algorithms.QuadratureEM(n_iter=1000), seed=0)
    found = model.fit("saem", seed=3)
    assert ((found.params - exact.params).abs() / exact.bse).max() < 0.125
    assert list(found.sigma.index) == ["b", "c"]
    # The truth is 0.6.
    assert abs(exact.params["c"] - 0.6) < 3.0 * exact.bse["c"]


def test_residuals_are_weighted_by_the_fitted_power():
    model = make(saem.PowerError(0.25, 0.6, fixed_c=True))
    fit = model.fit(saem.algorithms.QuadratureEM(n_iter=200), seed=0)
    found = fit.residuals()
    f, y = found["individual"], found["dv"]
    np.testing.assert_allclose(found["iwres"], (y - f) / (fit.params["b"] * f**0.6), rtol=1e-10)


def test_exponential_error_is_constant_error_of_logarithms():
    rows = data()
    logged = rows.assign(dv=np.log(rows["dv"]))

    def line(amount, rate, *, time):
        return np.log(amount) - rate * time

    first = make(saem.ExponentialError(0.2), rows)
    second = saem.NLME(logged, structural=line, parameters=first.parameters,
                       error=saem.ConstantError(0.2))  # fmt: skip
    theta = first.start(np.random.default_rng(0))
    other = second.start(np.random.default_rng(0))
    jacobian = float(np.log(rows["dv"]).sum())
    assert quadrature(first, theta).value == pytest.approx(
        quadrature(second, other).value - jacobian, rel=1e-12
    )


@pytest.mark.parametrize("error", ALL, ids=str)
def test_files_keep_the_error_model(error, tmp_path):
    model = make(error)
    fit = model.fit(saem.SAEM(n_burn_in=1, n_exploration=3, n_smoothing=0), seed=0)
    fit.save(tmp_path / "fit.saem")
    again = saem.load(tmp_path / "fit.saem", structural=decay)
    assert again.model.error == error
    assert again.model.param_names == model.param_names


def test_names():
    assert resolve_error("power") == saem.PowerError()
    assert {e.code for e in NAMES.values()} == set(range(7))
    assert saem.CombinedError().param_names == ("a", "b")
    assert saem.CombinedError(c=0.5).param_names == ("a", "b", "c")
    assert make(saem.CombinedError(c=0.5)).param_names[-2:] == ["a", "b"]
    assert make(saem.CombinedError(fixed_c=False)).param_names[-3:] == ["a", "b", "c"]
    assert saem.PowerError().formula == "b f^c"
    assert saem.CombinedError(c=0.5).formula == "a + b f^c"


def test_annealing_leaves_the_power_alone():
    model = make(saem.PowerError(0.3, 1.0))
    before = model.start(np.random.default_rng(0))
    after = before.copy()
    model.theta_spec.view(after)["sigma"][:] = [0.0, 0.01, 0.1]
    model.anneal(before, after, 0.9)
    np.testing.assert_allclose(model.theta_spec.view(after)["sigma"], [0.0, 0.27, 0.1])


def test_mistakes():
    with pytest.raises(ModelError, match="c is 'one', not a finite number"):
        make(saem.PowerError(0.3, "one"))
    with pytest.raises(ModelError, match="fixed_c is 'yes', not True or False"):
        make(saem.PowerError(0.3, 1.0, fixed_c="yes"))
    with pytest.raises(ModelError, match="b is -1"):
        make(saem.PowerError(-1))
    zero = data().assign(time=0.0)
    with pytest.warns(saem.exceptions.SaemWarning, match="a power error has no variance there"):
        saem.NLME(
            zero.assign(time=np.tile([0.0, 1.0, 2.0, 3.0, 4.0], 30)),
            structural=lambda amount, *, time: amount * time,
            parameters={"amount": saem.LogNormal(1.0)}, error=saem.PowerError(),
        )  # fmt: skip
    assert _kernels.POWER == 5
