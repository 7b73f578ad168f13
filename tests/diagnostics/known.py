"""Models whose marginal distribution is known in closed form, or simulated from known values."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd

import saem
from saem.nlme.results import NLMEResults


def line(base, slope, *, age):
    return base + slope * age


def linear_model(n=30, seed=3, shuffle=False):
    """Straight lines with correlated random effects; its packed true parameters."""
    rng = np.random.default_rng(seed)
    age = np.tile(np.array([-1.0, -0.3, 0.2, 0.7, 1.0]), n)
    effects = rng.multivariate_normal([10.0, 3.0], [[4.0, 1.0], [1.0, 2.25]], size=n)
    ids = np.repeat(np.arange(n), 5)
    dv = effects[ids, 0] + effects[ids, 1] * age + 0.8 * rng.normal(size=age.size)
    frame = pd.DataFrame({"id": ids, "age": age, "dv": dv})
    if shuffle:
        frame = frame.sort_values(["age", "id"])
    model = saem.NLME(
        frame,
        line,
        {"base": saem.Normal(10.0, omega=2.0), "slope": saem.Normal(3.0, omega=1.5)},
        error=saem.ConstantError(0.8),
        omega="full",
    )
    theta = model.start(rng)
    estimates = model.estimation_vector(theta)
    estimates[model.param_names.index("cov_base_slope")] = 1.0
    return model, model.with_estimates(theta, estimates)


def marginal(model, theta):
    """Mean and covariance of each individual's responses in `linear_model`."""
    view, data = model.theta_spec.view(theta), model.individuals
    for a, b in itertools.pairwise(data.offsets):
        design = np.column_stack([np.ones(b - a), data.columns["age"][a:b]])
        spread = design @ view["omega"] @ design.T + view["sigma"][0] ** 2 * np.eye(b - a)
        yield slice(a, b), design @ view["beta"][0], spread


def oral_model(n=40, error=None, seed=0):
    """One compartment after oral doses, responses to be drawn; true parameters."""
    times = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), times.size),
            "time": np.tile(times, n),
            "dv": 1.0 + np.tile(times, n),
            "amt": np.repeat(np.where(np.arange(n) % 2, 100.0, 200.0), times.size),
        }
    )
    model = saem.NLME(
        frame,
        "pk.oral_1cpt",
        {
            "ka": saem.LogNormal(1.2, omega=0.4),
            "V": saem.LogNormal(20.0, omega=0.2),
            "CL": saem.LogNormal(3.0, omega=0.3),
        },
        error=error or saem.CombinedError(0.1, 0.1),
    )
    return model, model.start(np.random.default_rng(seed))


def at(model, theta, seed=0):
    """Results of this model at these parameters, without a fit."""
    return NLMEResults(model, SimpleNamespace(theta=theta, seed=seed))
