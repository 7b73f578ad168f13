"""FOCEI, Laplace and FO: values and gradients against independent computations."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

import saem
from saem.exceptions import OptionError
from saem.inference.first_order import ConditionalObjective
from saem.inference.likelihood import log_likelihood

NAMES = ("ka", "V", "CL")


def theophylline(error, **options):
    parameters = {
        "ka": saem.LogNormal(1.5, omega=0.6),
        "V": saem.LogNormal(31.0, omega=0.15),
        "CL": saem.LogNormal(2.7, omega=0.3),
    }
    return saem.NLME(
        saem.datasets.load("theophylline"), "pk.oral_1cpt", parameters, error=error,
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"}, **options,
    )  # fmt: skip


def oral(phi, time, dose):
    """One compartment with absorption, parameters on the logarithmic scale."""
    ka, v, cl = np.exp(phi)
    k = cl / v
    return dose * ka / (v * (ka - k)) * (np.exp(-k * time) - np.exp(-ka * time))


def slopes(phi, time, dose, h=1e-5):
    ends = [oral(phi + s * h * e, time, dose) for e in np.eye(3) for s in (1, -1)]
    return np.array([(ends[2 * a] - ends[2 * a + 1]) / (2 * h) for a in range(3)]).T


def subjects(frame):
    for _, rows in frame.groupby("Subject", sort=False):
        yield rows["Time"].to_numpy(), rows["Dose"].to_numpy(), rows["conc"].to_numpy()


def log_joint(phi, mu, omega, a, b, time, dose, dv):
    f = oral(phi, time, dose)
    g = a + b * np.abs(f)
    data = -0.5 * np.sum(np.log(2 * np.pi * g**2) + ((dv - f) / g) ** 2)
    return data + multivariate_normal(mu, omega).logpdf(phi)


def hessian(function, at, h=1e-3):
    """Fourth-order central differences (Richardson)."""

    def plain(h):
        out, unit = np.empty((3, 3)), h * np.eye(3)
        for i in range(3):
            for j in range(3):
                p, q = unit[i], unit[j]
                out[i, j] = function(at + p + q) - function(at + p - q)
                out[i, j] += function(at - p - q) - function(at - p + q)
        return out / (4 * h * h)

    return (4 * plain(h) - plain(2 * h)) / 3


def approximations(mu, omega, a, b, time, dose, dv):
    """FOCEI's and Laplace's log-likelihood of one subject, by plain numpy and scipy."""
    from scipy.optimize import minimize

    def function(phi):
        return log_joint(phi, mu, omega, a, b, time, dose, dv)

    phi = minimize(lambda p: -function(p), mu, method="Nelder-Mead", options={"maxiter": 4000}).x
    for _ in range(4):  # Newton, to rounding
        gradient = [(function(phi + 1e-4 * e) - function(phi - 1e-4 * e)) / 2e-4 for e in np.eye(3)]
        curvature = hessian(function, phi)
        phi = phi - np.linalg.solve(curvature, gradient)
    f, j = oral(phi, time, dose), slopes(phi, time, dose)
    v = (a + b * np.abs(f)) ** 2
    c = j * (2 * (a + b * np.abs(f)) * b * np.sign(f) / v)[:, None]
    expected = np.linalg.inv(omega) + j.T @ (j / v[:, None]) + 0.5 * c.T @ c
    return tuple(
        function(phi) + 1.5 * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(h)[1]
        for h in (expected, -curvature)
    )


def test_values_of_two_subjects():
    """FOCEI by its definition, modes and Hessians by scipy and numpy: to 1e-5 nats."""
    model = theophylline(saem.CombinedError(0.5, 0.1))
    theta = model.start(np.random.default_rng(0))
    mu, omega = np.log([1.5, 31.0, 2.7]), np.diag(np.square([0.6, 0.15, 0.3]))
    found = [log_likelihood(model, theta, kind).contributions for kind in ("focei", "laplace")]
    everybody = list(subjects(saem.datasets.load("theophylline")))
    exact = ConditionalObjective(model, "laplace").at(theta).contributions
    for i in (0, 8):
        focei, laplace = approximations(mu, omega, 0.5, 0.1, *everybody[i])
        assert found[0][i] == pytest.approx(focei, abs=1e-5)
        assert exact[i] == pytest.approx(laplace, abs=1e-5)
        # Mixed derivatives of the step before are good enough for that method: 1e-3 nats.
        assert found[1][i] == pytest.approx(laplace, abs=1e-3)
        assert abs(focei - laplace) > 1e-3  # the two are not the same


def test_first_order_is_the_normal_density_linearised_at_zero():
    """Marginal normal density of every subject, by numpy, to 1e-6 nats."""
    model = theophylline(saem.CombinedError(0.5, 0.1))
    found = log_likelihood(model, model.start(np.random.default_rng(0)), "fo")
    mu, omega = np.log([1.5, 31.0, 2.7]), np.diag(np.square([0.6, 0.15, 0.3]))
    for value, (time, dose, dv) in zip(
        found.contributions, subjects(saem.datasets.load("theophylline")), strict=True
    ):
        f, j = oral(mu, time, dose), slopes(mu, time, dose)
        covariance = j @ omega @ j.T + np.diag((0.5 + 0.1 * np.abs(f)) ** 2)
        assert value == pytest.approx(multivariate_normal(f, covariance).logpdf(dv), abs=1e-6)
    assert found.method == "FO"


def growth(base, slope, *, age):
    return base + slope * age


def linear_model(n=15, m=6, seed=3):
    rng = np.random.default_rng(seed)
    age = np.linspace(-1.0, 1.0, m)
    b = rng.multivariate_normal([150.0, 6.0], [[60.0, 8.0], [8.0, 3.0]], n)
    y = b[:, :1] + b[:, 1:] * age + 0.7 * rng.standard_normal((n, m))
    frame = pd.DataFrame(
        {"id": np.repeat(np.arange(n), m), "age": np.tile(age, n), "dv": y.ravel()}
    )
    parameters = {"base": saem.Normal(149.0, omega=7.0), "slope": saem.Normal(5.0, omega=1.5)}
    model = saem.NLME(frame, growth, parameters, error=saem.ConstantError(0.9), omega="full",
                      columns={"id": "id", "dv": "dv"})  # fmt: skip
    return model, y, np.column_stack([np.ones(m), age])


def test_all_agree_on_a_linear_gaussian_model():
    """Every approximation is the closed form there: 1e-8 nats relative to some 150."""
    model, y, z = linear_model()
    theta = model.start(np.random.default_rng(0))
    view = model.theta_spec.view(theta)
    covariance = z @ view["omega"] @ z.T + 0.81 * np.eye(len(z))
    exact = multivariate_normal(z @ [149.0, 5.0], covariance).logpdf(y).sum()
    for method in ("focei", "laplace", "linearised", "fo"):
        assert log_likelihood(model, theta, method).value == pytest.approx(exact, rel=1e-9)


def emax(E0, Emax, EC50, *, dose):
    return E0 + Emax * dose / (EC50 + dose)


def mixed_model(error):
    """Block covariance, a covariate, a parameter without random effect, one that is fixed."""
    rng = np.random.default_rng(5)
    n, dose = 12, np.array([0.0, 10.0, 30.0, 90.0, 150.0])
    weight = rng.normal(70.0, 10.0, n)
    e0, e_max = 20.0 * np.exp(0.2 * rng.normal(size=n)), 100.0 * np.exp(0.2 * rng.normal(size=n))
    f = e0[:, None] + e_max[:, None] * dose / (12.0 + dose)
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), dose.size), "dose": np.tile(dose, n),
            "w": np.repeat(weight, dose.size),
            "dv": (f * np.exp(0.1 * rng.normal(size=f.shape))).ravel(),
        }
    )  # fmt: skip
    parameters = {
        "E0": saem.LogNormal(22.0, omega=0.3),
        "Emax": saem.LogNormal(90.0, omega=0.3, covariates="I(w - 70)"),
        "EC50": saem.LogNormal(11.0, random=False),
    }
    return saem.NLME(frame, emax, parameters, error=error, omega="full", columns={"id": "id"})


def occasions_model():
    rng = np.random.default_rng(6)
    n, times = 8, np.array([0.5, 1.0, 2.0, 4.0])
    rows = []
    for i in range(n):
        v, cl = 20.0 * np.exp(0.3 * rng.normal()), 3.0 * np.exp(0.3 * rng.normal())
        for o in range(2):
            own = cl * np.exp(0.2 * rng.normal())
            dv = 5.0 * np.exp(-own / v * times) + 0.1 * rng.normal(size=4)
            rows += [
                {"id": i, "occ": o, "time": t, "dv": y, "amt": 100.0}
                for t, y in zip(times, dv, strict=True)
            ]
    return saem.NLME(
        pd.DataFrame(rows), "pk.iv_bolus_1cpt",
        {"V": saem.LogNormal(19.0, omega=0.3), "CL": saem.LogNormal(2.8, omega=0.3)},
        error=saem.ConstantError(0.12), occasion="occ", iov=["CL"],
    )  # fmt: skip


def concentration_and_effect(V, CL, E0, EC50, *, time, amt, dvid):
    c = amt / V * math.exp(-CL / V * time)
    return c if dvid == 0.0 else E0 * EC50 / (c + EC50)


def endpoints_model():
    """Two responses: proportional error of one, constant error of the other."""
    rng = np.random.default_rng(8)
    rows = []
    for i in range(10):
        v, cl, e0 = np.exp(np.log([20.0, 3.0, 10.0]) + 0.2 * rng.normal(size=3))
        for t in (0.5, 2.0, 6.0):
            c = 100.0 / v * np.exp(-cl / v * t)
            both = (c * (1 + 0.1 * rng.normal()), e0 * 2.0 / (c + 2.0) + 0.4 * rng.normal())
            rows += [
                {"id": i, "time": t, "dvid": label, "amt": 100.0, "dv": dv}
                for label, dv in zip(("cp", "effect"), both, strict=True)
            ]
    parameters = {
        "V": saem.LogNormal(19.0, omega=0.25), "CL": saem.LogNormal(3.2, omega=0.25),
        "E0": saem.LogNormal(9.0, omega=0.25), "EC50": saem.LogNormal(2.2, random=False),
    }  # fmt: skip
    error = {"cp": saem.ProportionalError(0.15), "effect": saem.ConstantError(0.5)}
    return saem.NLME(pd.DataFrame(rows), concentration_and_effect, parameters, error=error)


MODELS = {
    "combined": lambda: mixed_model(saem.CombinedError(1.0, 0.1)),
    "combined variance": lambda: mixed_model(saem.CombinedError(1.0, 0.1, form="variance")),
    "power": lambda: mixed_model(saem.PowerError(0.2, 0.9)),
    "exponential": lambda: mixed_model(saem.ExponentialError(0.1)),
    "proportional": lambda: mixed_model(saem.ProportionalError(0.1)),
    "occasions": occasions_model,
    "endpoints": endpoints_model,
}


@pytest.mark.parametrize("kind", ["focei", "laplace"])
@pytest.mark.parametrize("name", MODELS)
def test_gradient_is_that_of_the_value(name, kind):
    """Against central differences of the objective with its modes found anew.

    In standard errors; the differences themselves are good to some 1e-6.
    """
    model = MODELS[name]()
    objective = ConditionalObjective(model, kind)
    here = objective.at(model.start(np.random.default_rng(0)))
    gradient = objective.gradient(here)
    steps = objective._steps(here, 5e-3)
    for k, step in enumerate(steps):
        ends = [
            objective.at(objective._moved(here.theta, k, sign * step), here.modes, search=False)
            for sign in (1.0, -1.0)
        ]
        slope = (ends[0].value - ends[1].value) / (2.0 * step)
        assert gradient[k] * step / 5e-3 == pytest.approx(slope * step / 5e-3, abs=2e-4, rel=1e-4)


def test_value_is_that_of_the_one_density():
    """The log joint density at the modes is the compiled one, whatever the error model."""
    from saem.inference._visits import find_modes

    for make in MODELS.values():
        model = make()
        theta = model.start(np.random.default_rng(0))
        found = ConditionalObjective(model).at(theta)
        log_joint = find_modes(model, theta).log_joint
        log_omega = np.log(np.diag(model.theta_spec.view(theta)["chol"])).sum()
        constant = 0.5 * model.n_coords * np.log(2 * np.pi) + log_omega
        np.testing.assert_allclose(found.modes.log_joint, log_joint + constant, atol=1e-8)


def test_hessian_on_the_estimation_scale():
    """Standard errors of FOCEI by differences of its gradient, and of its value."""
    model, y, z = linear_model()
    fit = model.fit(saem.FOCEI(tolerance=1e-14), seed=1, progress=False)
    cov = np.linalg.inv(
        len(y) * z.T @ np.linalg.solve(z @ fit.omega.to_numpy() @ z.T + fit.sigma["a"] ** 2
                                       * np.eye(len(z)), z)
    )  # fmt: skip
    assert fit.information().method == "FOCEI"
    np.testing.assert_allclose(fit.bse[["base", "slope"]], np.sqrt(np.diag(cov)), rtol=1e-5)
    louis = fit.information("louis").bse
    np.testing.assert_allclose(fit.bse, louis, rtol=2e-4)


def test_objective_leaves_out_the_constant():
    model, _, _ = linear_model()
    fit = model.fit("focei", seed=1, progress=False)
    expected = -2.0 * fit.loglik("focei").value - model.nobs * np.log(2 * np.pi)
    assert fit.objective() == pytest.approx(expected, abs=1e-12)


def test_refuses_what_it_cannot():
    model = saem.models.LinearMixed.example(np.random.default_rng(0))
    with pytest.raises(OptionError, match="Remedy"):
        ConditionalObjective(model)
    with pytest.raises(OptionError, match="'focei', 'laplace'"):
        ConditionalObjective(linear_model()[0], "foce")
