"""Models with answers known independently, for the tests of inference."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import saem
from saem.inference.likelihood import QuadratureRule

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

#: Estimates and standard errors on the natural scale, in the order of the model.
EXACT = {
    "theophylline": (
        [1.579388, 31.62597, 2.747985, 0.3946792, 0.01788806, 0.07074905, 0.7379785],
        [0.3027817, 1.470715, 0.2347028, 0.1894553, 0.0110171, 0.03619388, 0.05627099],
        -172.7176,
    ),
    "theophylline-weight": (
        [1.5779, 31.61885, 2.760663, 0.007602299, 0.3897772, 0.01722872, 0.06649116, 0.7394406],
        [
            0.3008392, 1.452583, 0.2304792, 0.009070816, 0.1871576, 0.01071914, 0.03414875,
            0.05656681,
        ],
        -172.3735,
    ),
    "pd1": (
        [23.16749, 106.6604, 11.23551, 0.3906527, 0.1303298, 0.3092957, 0.04727948, 4.68736],
        [
            1.094215, 6.135129, 0.9565677, 0.09878001, 0.02798883, 0.0470524, 0.02208751,
            0.3925956,
        ],
        -1226.232,
    ),
    "oxboys": (
        [149.3718, 6.525467, 62.79026, 8.374898, 2.711702, 0.6598891],
        [1.55463, 0.3297691],
        -362.9838,
    ),
}  # fmt: skip


def emax(E0, Emax, EC50, *, dose):
    return E0 + Emax * dose / (EC50 + dose)


def line(base, slope, *, age):
    return base + slope * age


def read(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there: the reference data are not part of the project")
    return pd.read_csv(path)


def _theophylline(weight):
    return saem.NLME(
        read("theo.csv"),
        "pk.oral_1cpt",
        {
            "ka": saem.LogNormal(1.0),
            "V": saem.LogNormal(20.0),
            "CL": saem.LogNormal(2.0, covariates="I(Weight - 70)" if weight else None),
        },
        columns={"id": "Id", "time": "Time", "dv": "Concentration", "amt": "Dose"},
    )


@functools.cache
def model_of(name):
    """The model of that name; skips without the reference data."""
    if name == "pd1":
        parameters = {
            "E0": saem.LogNormal(20.0),
            "Emax": saem.LogNormal(100.0),
            "EC50": saem.LogNormal(10.0, covariates="gender"),
        }
        columns = {"id": "subject", "dv": "response", "dose": "dose"}
        return saem.NLME(read("pd1.csv"), emax, parameters, columns=columns)
    if name == "oxboys":
        return saem.NLME(
            read("oxboys.csv"),
            line,
            {"base": saem.Normal(140.0, omega=10.0), "slope": saem.Normal(5.0, omega=3.0)},
            omega="full",
            columns={"id": "Subject", "dv": "height", "age": "age"},
        )
    return _theophylline(name == "theophylline-weight")


@functools.cache
def shipped(error="constant", random_volume=True):
    """Theophylline as the library ships it, with other error models too."""
    frame = saem.datasets.load("theophylline")
    frame = frame[frame["Time"] > 0]
    volume = saem.LogNormal(30.0, random=random_volume)
    errors = {
        "constant": saem.ConstantError(1.0),
        "proportional": saem.ProportionalError(0.2),
        "combined": saem.CombinedError(0.4, 0.06),
        "exponential": saem.ExponentialError(0.2),
    }
    return saem.NLME(
        frame,
        "pk.oral_1cpt",
        {"ka": saem.LogNormal(1.5), "V": volume, "CL": saem.LogNormal(2.7)},
        error=errors[error],
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )


def theta_at(model, values):
    """Packed parameters with these estimates (natural scale)."""
    numbers = np.array(values, dtype=float)
    for j, (name, kind) in enumerate(zip(model.param_names, model.param_kind, strict=True)):
        if kind == "typical":
            numbers[j] = model.parameters[name].to_phi(numbers[j])
    return model.with_estimates(model.start(np.random.default_rng(0)), numbers)


def exact_theta(name):
    """Packed parameters at the published maximum."""
    return theta_at(model_of(name), EXACT[name][0])


@functools.cache
def maximum(name, n_nodes=13):
    """Maximum of the likelihood by quadrature: Newton steps from the published one."""
    from saem.inference.information import louis_information

    model = model_of(name)
    theta = exact_theta(name)
    for _ in range(3):
        information = louis_information(model, theta)
        rule = QuadratureRule(model, n_nodes)
        rule(theta)
        centre, steps = model.estimation_vector(theta), 0.02 * information.bse_estimation
        gradient = []
        for j, step in enumerate(steps):
            sides = []
            for sign in (1.0, -1.0):
                shifted = centre.copy()
                shifted[j] += sign * step
                sides.append(rule(model.with_estimates(theta, shifted)))
            gradient.append((sides[0] - sides[1]) / (2.0 * step))
        theta = model.with_estimates(theta, centre + information.cov_estimation @ gradient)
    return theta
