"""Data and models that the tests of convergence share."""

import functools

import numpy as np
import pandas as pd

import saem

TIMES = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 12.0])


def bolus_data(n=30, omega_v=0.3, seed=5):
    rng = np.random.default_rng(seed)
    v, cl = 20.0 * np.exp(omega_v * rng.normal(size=n)), 3.0 * np.exp(0.3 * rng.normal(size=n))
    mean = 100.0 / v[:, None] * np.exp(-(cl / v)[:, None] * TIMES)
    return pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), TIMES.size),
            "time": np.tile(TIMES, n),
            "dv": (mean + 0.1 * rng.normal(size=mean.shape)).ravel(),
            "amt": 100.0,
        }
    )


def bolus(frame, structural="pk.iv_bolus_1cpt", **parameters):
    chosen = parameters or {"V": saem.LogNormal(18.0), "CL": saem.LogNormal(2.5)}
    return saem.NLME(frame, structural=structural, parameters=chosen, error=saem.ConstantError(0.3))


@functools.cache
def theophylline(ka=1.0, V=20.0, CL=2.0, a=1.0):
    return saem.NLME(
        saem.datasets.load("theophylline"),
        structural="pk.oral_1cpt",
        parameters={"ka": saem.LogNormal(ka), "V": saem.LogNormal(V), "CL": saem.LogNormal(CL)},
        error=saem.ConstantError(a),
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )


def kinds(found):
    return list(found.frame["kind"])
