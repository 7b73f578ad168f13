"""Bar: reported standard errors against the scatter of the estimates, and coverage.

Simulated data sets of one design: one compartment after intravenous doses, log-normal V and CL,
weight on CL, proportional error. Each is fitted exactly (accelerated EM with quadrature), so
that nothing but the standard errors is tested. ``python tests/statistical/test_coverage.py``
prints the figures of docs/validation.md.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

import saem
from saem.nlme._replicates import replicate, with_responses

N_SETS, N_INDIVIDUALS = 2000, 100
TIMES = np.array([0.5, 1.5, 4.0, 8.0, 12.0, 20.0])
TRUTH = {
    "V": np.log(20.0), "CL": np.log(3.0), "beta_CL_log(weight / 70)": 0.75,
    "omega2_V": 0.04, "omega2_CL": 0.09, "b": 0.15,
}  # fmt: skip


def design() -> saem.NLME:
    """100 individuals with six samples each; the responses are placeholders."""
    weight = 70.0 * np.exp(0.25 * np.random.default_rng(40).standard_normal(N_INDIVIDUALS))
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(N_INDIVIDUALS), TIMES.size),
            "time": np.tile(TIMES, N_INDIVIDUALS),
            "amt": 100.0,
            "weight": np.repeat(weight, TIMES.size),
            "dv": 1.0 + np.arange(N_INDIVIDUALS * TIMES.size) % 7,
        }
    )
    return saem.NLME(
        frame,
        "pk.iv_bolus_1cpt",
        {
            "V": saem.LogNormal(15.0, omega=0.4),
            "CL": saem.LogNormal(2.0, omega=0.4, covariates="log(weight / 70)"),
        },
        error=saem.ProportionalError(0.3),
    )


def study(n_sets: int = N_SETS, seed: int = 41) -> pd.DataFrame:
    """Estimates, standard errors and coverage of all parameters over simulated data sets."""
    model = design()
    start = model.start(np.random.default_rng(0))
    theta = model.with_estimates(start, np.array([TRUTH[n] for n in model.param_names]))
    true = model.params_of(theta)
    algorithm = saem.EM(estep=saem.Quadrature(5), acceleration="anderson", tolerance=1e-7)
    estimates, errors, covered = [], [], []
    for b in range(n_sets):
        dv = replicate(model, theta, np.random.default_rng([seed, b]))
        fit = with_responses(model, dv).fit(algorithm, seed=0, progress=False)
        ends = fit.conf_int().to_numpy()
        estimates.append(fit.params.to_numpy())
        errors.append(fit.bse.to_numpy())
        covered.append((ends[:, 0] <= true) & (true <= ends[:, 1]))
    estimates, errors = np.array(estimates), np.array(errors)
    sd = estimates.std(axis=0, ddof=1)
    return pd.DataFrame(
        {
            "truth": true,
            "mean": estimates.mean(axis=0),
            "sd": sd,
            "reported_se": errors.mean(axis=0),
            "ratio": errors.mean(axis=0) / sd,
            "coverage_percent": 100.0 * np.mean(covered, axis=0),
        },
        index=model.param_names,
    )


@pytest.mark.slow
def test_standard_errors_and_coverage():
    """2000 data sets: ratios within 7 % (fixed effects) and 15 % (variances).

    The scatter of a ratio is 1.6 %, that of a coverage 0.5 %, a quarter of its margin: with exact
    errors and intervals a fixed effect fails by chance in 1e-4 of the seeds. 500 data sets, with
    twice the scatter, would fail in one seed of ten.
    """
    found = study()
    print(found.to_string())
    fixed = [n for n in found.index if n in ("V", "CL") or n.startswith("beta")]
    variances = [n for n in found.index if n.startswith("omega2")]
    assert found.loc[fixed, "ratio"].between(0.93, 1.07).all()
    assert found.loc[variances, "ratio"].between(0.85, 1.15).all()
    assert found.loc[fixed, "coverage_percent"].between(93.0, 97.0).all()


def test_small_study_runs():
    """Eight data sets: ratios of a scatter of 27 %, false alarm below 1e-4."""
    found = study(8)
    assert found["ratio"].between(0.3, 4.0).all()
    assert np.all(np.abs(found["mean"] / found["truth"] - 1.0) < 0.5)


if __name__ == "__main__":
    from record import table

    print(table(study(int(sys.argv[1]) if len(sys.argv) > 1 else N_SETS), "parameter"))
