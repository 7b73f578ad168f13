"""Fits that several files of tests look at; they are made once and never changed."""

from __future__ import annotations

import pytest

import saem


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
