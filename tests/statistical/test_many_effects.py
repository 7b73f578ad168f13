"""The default algorithm with more than four random effects, against a closed form.

Six effects and a full covariance (28 parameters), 60 subjects with 10 responses. With one design
of orthogonal columns, ``Z'Z = m I``, the least-squares coefficients c_i of the subjects are
``N(beta, Omega + sigma^2 I / m)`` and independent of the residuals, so that the maximum is

    beta = mean c_i,  sigma^2 = SSR / (n (m - 6)),
    Omega = mean (c_i - beta)(c_i - beta)' - sigma^2 I / m

wherever that Omega is positive definite.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

import saem
from saem.algorithms import default_algorithm
from saem.algorithms.default import SAEMWherePointsFail
from saem.inference.information import first_order_information

N, M, D = 60, 10, 6


def combination(b0, b1, b2, b3, b4, b5, *, x0, x1, x2, x3, x4, x5):
    return b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3 + b4 * x4 + b5 * x5


def six_effects(seed=0):
    """The model, its exact estimates by name, and the exact maximum of the log-likelihood."""
    rng = np.random.default_rng(seed)
    z = np.sqrt(M) * np.linalg.qr(np.vander(np.linspace(-1, 1, M), D))[0]
    root = 0.4 * rng.normal(size=(D, D))
    omega = root @ root.T + np.diag([1.0, 1.0, 0.5, 0.5, 0.3, 0.3])
    b = rng.multivariate_normal(np.arange(1.0, 7.0), omega, N)
    y = b @ z.T + rng.normal(size=(N, M))
    frame = pd.DataFrame(
        {"id": np.repeat(np.arange(N), M), "dv": y.ravel()}
        | {f"x{j}": np.tile(z[:, j], N) for j in range(D)}
    )
    parameters = {f"b{j}": saem.Normal(0.8 * (j + 1), omega=1.5) for j in range(D)}
    model = saem.NLME(frame, combination, parameters, error=saem.ConstantError(1.5), omega="full")
    c = y @ z / M
    beta, sigma2 = c.mean(axis=0), np.sum((y - c @ z.T) ** 2) / (N * (M - D))
    omega = (c - beta).T @ (c - beta) / N - sigma2 / M * np.eye(D)
    assert np.linalg.eigvalsh(omega)[0] > 0.0
    exact = {f"b{j}": beta[j] for j in range(D)} | {"a": np.sqrt(sigma2)}
    for i in range(D):
        exact[f"omega2_b{i}"] = omega[i, i]
        exact |= {f"cov_b{j}_b{i}": omega[i, j] for j in range(i)}
    density = multivariate_normal(z @ beta, z @ omega @ z.T + sigma2 * np.eye(M))
    return model, pd.Series(exact)[model.param_names], density.logpdf(y).sum()


@pytest.fixture(scope="module")
def known():
    model, exact, top = six_effects()
    theta = model.with_estimates(model.start(np.random.default_rng(0)), exact.to_numpy())
    # FOCEI is exact for this model: its Hessian is the observed information.
    return model, exact, top, first_order_information(model, theta)


def check_seeds(known, seeds):
    """Distances below 0.02 standard errors; the log-likelihood within 4 of its errors (6e-5)."""
    model, exact, top, information = known
    worst = []
    for seed in seeds:
        fit = model.fit(seed=seed, progress=False)
        assert fit.stopped_by == "tolerance"
        assert [phase["algorithm"] for phase in fit.record.phases] == ["saem", "em"]
        worst.append(((fit.params - exact).abs() / information.bse).max())
        assert abs(fit.llf - top) < 4.0 * fit.llf_error
        assert fit.llf_error < 0.05
    assert max(worst) < 0.02, worst
    return fit


def test_default_reaches_the_closed_form(known):
    fit = check_seeds(known, range(3))
    # Errors of 28 estimates are at most 0.006 standard errors as reported, and as found.
    assert (fit.mc_error / known[3].bse).max() < 0.02
    np.testing.assert_allclose(fit.information("louis").bse, known[3].bse, rtol=0.01)


@pytest.mark.slow
def test_default_reaches_the_closed_form_from_twenty_seeds(known):
    check_seeds(known, range(20))


def test_points_that_fail_are_followed_by_draws():
    model, _, _ = six_effects()
    found = default_algorithm(model)
    assert [type(part).__name__ for part in found.parts] == ["SAEM", "EM", "SAEMWherePointsFail"]

    def record(least):
        return SimpleNamespace(sampler={"n_points": 2304, "effective_points": {"least": least}})

    assert found.parts[-1].needed(record(47.0))
    assert not found.parts[-1].needed(record(1300.0))
    assert SAEMWherePointsFail(accuracy=0.005).needed(record(1300.0))


def two_compartments(n=60, seed=11):
    """Oral doses, five effects, of which V1 and CL are correlated; ten samples each."""
    rng = np.random.default_rng(seed)
    sd = np.array([0.4, 0.25, 0.3, 0.3, 0.3])
    correlation = np.eye(5)
    correlation[1, 4] = correlation[4, 1] = 0.6
    eta = rng.multivariate_normal(np.zeros(5), correlation * np.outer(sd, sd), n)
    ka, v1, q, v2, cl = (np.array([1.2, 10.0, 2.5, 30.0, 2.0]) * np.exp(eta)).T[:, :, None]
    time = np.array([0.25, 0.5, 1.0, 1.5, 2.5, 4.0, 8.0, 12.0, 24.0, 48.0])
    k10, k12, k21 = cl / v1, q / v1, q / v2
    root = np.sqrt((k10 + k12 + k21) ** 2 - 4 * k10 * k21)
    fast, slow = (k10 + k12 + k21 + root) / 2, (k10 + k12 + k21 - root) / 2
    share = (fast - k21) / (fast - slow)
    f = share * (np.exp(-fast * time) - np.exp(-ka * time)) / (ka - fast)
    f += (1 - share) * (np.exp(-slow * time) - np.exp(-ka * time)) / (ka - slow)
    f *= 100.0 * ka / v1
    dv = f * (1 + 0.1 * rng.normal(size=f.shape)) + 0.03 * rng.normal(size=f.shape)
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), 10),
            "time": np.tile(time, n),
            "amt": 100.0,
            "dv": dv.ravel(),
        }
    )
    starts = {"ka": 0.8, "V1": 14.0, "Q": 1.5, "V2": 20.0, "CL": 3.0}
    return saem.NLME(
        frame, "pk.oral_2cpt", {k: saem.LogNormal(v, omega=0.5) for k, v in starts.items()},
        error=saem.CombinedError(0.1, 0.15), omega=[["V1", "CL"]],
    )  # fmt: skip


@pytest.mark.slow
def test_two_compartments_against_long_averages():
    """Yardstick: 3000 averaged iterations of SAEM, another method with an error of its own.

    Distances are within 4 times both errors, as reported: 13 parameters and 3 seeds, 2.5e-3.
    """
    model = two_compartments()
    long = model.fit(saem.SAEM(n_exploration=100, n_smoothing=3000), seed=17, progress=False)
    se = long.information("louis").bse
    assert (long.mc_error / se).max() < 0.02  # found: 0.0153
    for seed in range(3):
        fit = model.fit(seed=seed, progress=False)
        assert fit.stopped_by == "tolerance"
        assert (fit.mc_error / se).max() < 0.02
        error = np.sqrt(fit.mc_error**2 + long.mc_error**2)
        assert ((fit.params - long.params).abs() / error).max() < 4.0
        assert fit.llf_error < 0.05
