"""Fits that several files of tests look at; they are made once and never changed."""

from __future__ import annotations

import os

import pytest

import saem


def pytest_configure(config):
    """Without the compiler NumPy warns of what kernels do on purpose: let it pass.

    SplitMix64 lives on wrap-around, and kernels follow the rules of IEEE for what is not finite.
    In worker threads too (`numpy.seterr` would hold in this thread only).
    """
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        for what in ("overflow", "invalid value", "divide by zero"):
            line = f"ignore:{what} encountered:RuntimeWarning"
            config.addinivalue_line("filterwarnings", line)


def theophylline_model(**options):
    """Theophylline with independent log-normal parameters, as in the README."""
    covariates = options.pop("covariates", None)
    arguments = {
        "structural": "pk.oral_1cpt",
        "parameters": {
            "ka": saem.LogNormal(1.0),
            "V": saem.LogNormal(20.0),
            "CL": saem.LogNormal(0.5, covariates=covariates),
        },
        "error": saem.ConstantError(1.0),
        "columns": {"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    }
    return saem.NLME(saem.datasets.load("theophylline"), **(arguments | options))


@pytest.fixture(scope="session")
def theo_model():
    """Theophylline without covariates."""
    return theophylline_model()


@pytest.fixture(scope="session")
def theo_fit(theo_model):
    """Its fit by SAEM with default settings and seed 1."""
    return theo_model.fit("saem", seed=1, progress=False)


@pytest.fixture(scope="session")
def mixture_fit():
    """Two components on Old Faithful by EM."""
    model = saem.models.GaussianMixture(saem.datasets.load("old_faithful"), 2)
    return model.fit("em", seed=0, progress=False)


@pytest.fixture(scope="session")
def make_theo_model():
    """Theophylline models with other options."""
    return theophylline_model


@pytest.fixture
def path(tmp_path):
    """Place for a saved fit."""
    return tmp_path / "fit.saem"
