"""Fits that maximise FOCEI's or Laplace's objective, and fits that start from it."""

import numpy as np
import pandas as pd
import pytest

import saem
from saem.exceptions import BoundaryWarning, OptionError
from saem.inference.first_order import ConditionalObjective


def line(base, *, time):
    return base + 0.0 * time


def balanced(n=20, m=5, seed=1):
    """One-way layout, whose maximum-likelihood estimates are known in closed form."""
    rng = np.random.default_rng(seed)
    y = 10.0 + 2.0 * rng.standard_normal((n, 1)) + rng.standard_normal((n, m))
    frame = pd.DataFrame(
        {"id": np.repeat(np.arange(n), m), "time": np.tile(np.arange(m), n), "dv": y.ravel()}
    )
    within = np.sum((y - y.mean(axis=1, keepdims=True)) ** 2) / (n * (m - 1))
    between = np.mean((y.mean(axis=1) - y.mean()) ** 2) - within / m
    model = saem.NLME(
        frame, line, {"base": saem.Normal(4.0, omega=6.0)}, error=saem.ConstantError(3.0),
        columns={"id": "id", "dv": "dv"},
    )  # fmt: skip
    return model, [y.mean(), between, np.sqrt(within)]


@pytest.mark.parametrize("algorithm", [saem.FOCEI, saem.Laplace])
def test_linear_gaussian_model_is_exact(algorithm):
    """Both are the exact maximum likelihood there: estimates to 1e-8 of the closed form."""
    model, exact = balanced()
    fit = model.fit(algorithm(tolerance=1e-17), seed=1, progress=False)
    np.testing.assert_allclose(fit.params, exact, rtol=1e-8)
    assert fit.converged
    assert fit.stopped_by == "tolerance"


def theophylline(error, omega="diagonal", starts=(1.0, 20.0, 2.0)):
    return saem.NLME(
        saem.datasets.load("theophylline"), "pk.oral_1cpt",
        dict(zip(("ka", "V", "CL"), map(saem.LogNormal, starts), strict=True)), error=error,
        omega=omega, columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )  # fmt: skip


def numpy_focei(x, time, dose, dv, there, eta):
    """-2 log-likelihood of FOCEI by plain numpy, all subjects at once; rows beyond have weight 0.

    x: logs of typical values, of standard deviations, of a and of b (combined error). `eta`
    keeps the modes from call to call.
    """
    mu, variance, a, b = x[:3], np.exp(2 * x[3:6]), np.exp(x[6]), np.exp(x[7])

    def model(eta):
        ka, v, cl = (np.exp(mu[j] + eta[:, j, None]) for j in range(3))
        k = cl / v
        scale = dose * ka / (v * (ka - k))
        return scale * (np.exp(-k * time) - np.exp(-ka * time))

    def pieces(eta):
        f, h = model(eta), 1e-5
        j = np.stack([(model(eta + h * e) - model(eta - h * e)) / (2 * h) for e in np.eye(3)], 2)
        g = a + b * np.abs(f)
        r = (dv - f) / g
        weight = there * (1 / g**2 + 2 * b**2 / g**2)
        by_f = there * (r / g + b / g * (r * r - 1) * np.sign(f))
        score = np.einsum("ij,ija->ia", by_f, j) - eta / variance
        curvature = np.einsum("ij,ija,ijb->iab", weight, j, j) + np.diag(1 / variance)
        value = -0.5 * np.sum(there * (np.log(2 * np.pi * g * g) + r * r), axis=1)
        value += -0.5 * np.sum(eta**2 / variance + np.log(variance), axis=1)
        return value, score, curvature

    value, score, curvature = pieces(eta)
    for _ in range(30):
        move = np.linalg.solve(curvature, score[:, :, None])[:, :, 0]
        if np.max(np.sum(move * score, axis=1)) < 1e-18:
            break
        t = np.ones(len(dv))
        for _ in range(30):
            new = pieces(eta + t[:, None] * move)
            worse = ~(new[0] >= value - 1e-11)
            if not worse.any():
                break
            t[worse] *= 0.5
        eta += t[:, None] * move
        value, score, curvature = new
    return -2.0 * np.sum(value - 0.5 * np.linalg.slogdet(curvature)[1])


def padded(frame):
    groups = [rows for _, rows in frame.groupby("Subject", sort=False)]
    longest = max(map(len, groups))
    columns = []
    for name in ("Time", "Dose", "conc"):
        column = np.ones((len(groups), longest))
        for i, rows in enumerate(groups):
            column[i, : len(rows)] = rows[name]
        columns.append(column)
    there = np.array([[j < len(rows) for j in range(longest)] for rows in groups], dtype=float)
    return (*columns, there, np.zeros((len(groups), 3)))


def test_theophylline_against_an_independent_maximisation():
    """Combined error: estimates to 2e-4 of those of scipy on an objective of its own."""
    from scipy.optimize import minimize

    fit = theophylline(saem.CombinedError(0.5, 0.1)).fit("focei", seed=1, progress=False)
    data = padded(saem.datasets.load("theophylline"))
    start = np.log([1.5, 32.0, 2.8, 0.6, 0.13, 0.26, 0.45, 0.05])
    found = minimize(numpy_focei, start, args=data, method="BFGS", jac="3-point")
    x = found.x
    expected = np.concatenate([np.exp(x[:3]), np.exp(2 * x[3:6]), np.exp(x[6:])])
    np.testing.assert_allclose(fit.params, expected, rtol=2e-4)
    assert -2.0 * fit.loglik("focei").value == pytest.approx(found.fun, abs=2e-5)


@pytest.mark.parametrize("name", ["focei", "laplace"])
def test_gradient_vanishes_at_the_end(name):
    """In standard errors, at the estimates: within 2e-4 of the maximum of the objective."""
    model = theophylline(saem.ConstantError(1.0))
    fit = model.fit(name, seed=1, progress=False)
    objective = ConditionalObjective(model, name)
    here = objective.at(fit.theta)
    assert np.max(np.abs(objective.gradient(here) * objective._steps(here, 1.0))) < 2e-4
    assert fit.record.objective == name
    assert len(fit.trace) == fit.record.n_iter + 1
    rising = fit.trace["loglik"].dropna().to_numpy()
    assert np.all(np.diff(rising) > -1e-9)


def test_singular_covariance_is_reached():
    """Theophylline with a full covariance: the maximum has determinant 0, and is found."""
    model = theophylline(saem.ConstantError(1.0), omega="full")
    fit = model.fit("focei", seed=1, progress=False)
    again = model.fit("focei", seed=1, progress=False, start=fit.theta)
    assert fit.converged
    assert again.loglik("focei").value - fit.loglik("focei").value < 1e-4
    diagonal = theophylline(saem.ConstantError(1.0)).fit("focei", seed=1, progress=False)
    assert fit.loglik("focei").value > diagonal.loglik("focei").value


def test_variance_that_is_zero_goes_to_its_floor():
    """Data without variation between subjects in the slope: flagged as on the boundary."""
    rng = np.random.default_rng(4)
    y = 10.0 + 2.0 * rng.standard_normal((20, 1)) + rng.standard_normal((20, 4))
    y += -0.9 * (y - y.mean(axis=1, keepdims=True)).mean(axis=0)
    time = np.tile(np.arange(4.0) - 1.5, 20)
    residual = y.ravel()
    slope = (residual * time).reshape(20, 4).sum(axis=1) / 5.0
    y = y - slope[:, None] * (np.arange(4.0) - 1.5) + 0.5 * (np.arange(4.0) - 1.5)
    frame = pd.DataFrame({"id": np.repeat(np.arange(20), 4), "time": time, "dv": y.ravel()})

    def sloped(base, slope, *, time):
        return base + slope * time

    model = saem.NLME(
        frame, sloped, {"base": saem.Normal(9.0, omega=2.0), "slope": saem.Normal(0.4, omega=0.5)},
        error=saem.ConstantError(1.0),
    )  # fmt: skip
    fit = model.fit("focei", seed=1, progress=False)
    assert fit.converged
    with pytest.warns(BoundaryWarning, match="omega2_slope"):
        assert "omega2_slope" in fit.boundary
    assert np.isfinite(fit.bse[["base", "slope"]]).all()


def test_prior_is_maximised_too():
    """On the linear model, against EM on the penalised likelihood: 1e-4 of an estimate."""
    model, _ = balanced()
    data = pd.DataFrame(
        {"id": np.repeat(np.arange(20), 5), "time": np.tile(np.arange(5), 20),
         "dv": model.individuals.dv}
    )  # fmt: skip
    penalised = saem.NLME(
        data, line, {"base": saem.Normal(4.0, omega=6.0)}, error=saem.ConstantError(3.0),
        columns={"id": "id", "dv": "dv"}, priors={"base": saem.NormalPrior(8.0, 0.3)},
    )  # fmt: skip
    focei = penalised.fit(saem.FOCEI(tolerance=1e-14), seed=1, progress=False)
    em = penalised.fit(saem.EM(tolerance=1e-13), seed=1, progress=False)
    np.testing.assert_allclose(focei.params, em.params, rtol=1e-4)
    assert abs(focei.params["base"] - model.fit("focei", seed=1).params["base"]) > 0.1


def test_results_say_what_they_maximise(tmp_path):
    model, _ = balanced()
    fit = model.fit("focei", seed=1, progress=False)
    assert any("FOCEI" in text for text in fit.warnings())
    assert "FOCEI" in str(fit.summary())
    fit.save(tmp_path / "a.saem")
    assert saem.load(tmp_path / "a.saem", structural=line).record.objective == "focei"
    assert saem.compare({"one": fit}, method="focei")["loglik"]["one"] == fit.loglik("focei").value
    # A later phase maximises the likelihood.
    begun = model.fit(saem.EM(), start="focei", seed=1, progress=False)
    assert begun.record.objective == ""
    assert not begun.warnings()
    assert begun.record.phases[0]["algorithm"] == "focei"


def test_unknown_start_is_refused():
    model, _ = balanced()
    with pytest.raises(OptionError, match="'focei', 'laplace'"):
        model.fit("saem", start="fo", progress=False)


def test_same_bits_for_any_threads():
    model = theophylline(saem.CombinedError(0.5, 0.1))
    fits = [model.fit("focei", seed=s, n_threads=t, progress=False) for s, t in ((1, 1), (2, 2))]
    assert np.array_equal(fits[0].theta, fits[1].theta)
