"""What every model must fulfil, in plain NumPy and SciPy; for the files of tests beside it."""

import numpy as np
from scipy.optimize import minimize

from saem.algorithms import EM
from saem.engine import Run


def expected(model, theta):
    """Mean expected statistic and log-likelihood, individual by individual."""
    s = np.zeros(model.stat_spec.size)
    latent, work = np.empty(model.latent_size), np.empty(max(1, model.work_size))
    loglik = 0.0
    for i in range(model.n_individuals):
        y = model.record_of(i)
        loglik += model._functions.expect(theta, y, latent, work)
        model._functions.accumulate(1.0 / model.n_individuals, y, latent, s)
    return s, loglik


def full_pass(model, theta):
    """Mean expected statistic and log-likelihood, as EM computes them."""
    run = Run(model, EM(n_iter=1).combine(model), theta)
    s = run.full_pass(0)
    run.close()
    return s, run.loglik


def drawn(model, theta, i, n):
    """Draws of the latent record of one individual, of shape (n, latent_size)."""
    out, work = np.empty((n, model.latent_size)), np.empty(max(1, model.work_size))
    for j in range(n):
        key = np.uint64((j + 1) * 0x9E3779B97F4A7C15 % 2**64)
        model._functions.draw(theta, model.record_of(i), key, out[j], work)
    return out


def statistics_of(model, i, latents):
    """Statistic of an individual for each latent record."""
    out = np.zeros((len(latents), model.stat_spec.size))
    for latent, s in zip(latents, out, strict=True):
        model._functions.accumulate(1.0, model.record_of(i), latent, s)
    return out


def check_draws(model, theta, i, n=4000):
    """The mean statistic of draws is the expected one; false alarm 1e-5 (4.9 sigma of each)."""
    latent, work = np.empty(model.latent_size), np.empty(max(1, model.work_size))
    model._functions.expect(theta, model.record_of(i), latent, work)
    exact = statistics_of(model, i, latent[None])[0]
    found = statistics_of(model, i, drawn(model, theta, i, n))
    error = found.std(axis=0) / np.sqrt(n)
    scale = np.abs(exact) + np.abs(found).max(axis=0)
    assert np.all(np.abs(found.mean(axis=0) - exact) <= 4.9 * error + 1e-12 * scale)


def check_maximum(model, s, theta, free, size=0.05, seed=0):
    """T(s) maximises the surrogate, which is affine in s.

    `free(theta)` gives unconstrained coordinates and a function back to theta.
    """
    theta = theta.copy()
    assert model._functions.maximize(s, theta) == 0
    top = model._functions.surrogate(s, theta)
    rng = np.random.default_rng(seed)
    x, back = free(theta)
    start = x + size * rng.standard_normal(x.size)
    other = back(start)
    assert model._functions.surrogate(s, other) < top
    found = minimize(
        lambda u: -model._functions.surrogate(s, back(u)), start, method="BFGS",
        options={"gtol": 1e-7, "maxiter": 2000},
    )  # fmt: skip
    assert -found.fun <= top + 1e-10 * (1.0 + abs(top))
    np.testing.assert_allclose(-found.fun, top, rtol=1e-7, atol=1e-9)
    # slopes at T(s) vanish; 1e-5 is the step, the error of a difference its square
    for step in 1e-5 * np.eye(x.size):
        rise = model._functions.surrogate(s, back(x + step)) - model._functions.surrogate(
            s, back(x - step)
        )
        assert abs(rise) / 2e-5 < 1e-5 * (1.0 + abs(top))
    for at in (theta, other):
        whole = model._functions.surrogate(3.0 * s, at)
        np.testing.assert_allclose(whole, 3.0 * model._functions.surrogate(s, at), rtol=1e-12)
        mixed = model._functions.surrogate(0.5 * s + 0.5 * rng.random(s.size) * s, at)
        assert np.isfinite(mixed)


def check_affine(model, theta, seed=0):
    """``Q(a s + (1 - a) t) = a Q(s) + (1 - a) Q(t)``, also for signed combinations."""
    rng = np.random.default_rng(seed)
    s, t = rng.normal(size=(2, model.stat_spec.size))
    q = model._functions.surrogate
    for a in (0.3, -2.0):
        expected_value = a * q(s, theta) + (1.0 - a) * q(t, theta)
        found = q(a * s + (1.0 - a) * t, theta)
        scale = abs(a * q(s, theta)) + abs((1.0 - a) * q(t, theta))
        assert abs(found - expected_value) <= 1e-11 * scale


def check_scale_free(model, s, theta):
    """T(s) does not depend on the total weight."""
    one, other = theta.copy(), theta.copy()
    assert model._functions.maximize(s, one) == 0
    assert model._functions.maximize(7.0 * s, other) == 0
    np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-11)


def check_weights(weighted, repeated, theta):
    """Weights as numbers of repetitions: the same statistic in all, the same likelihood."""
    one, loglik = expected(weighted, theta)
    two, again = expected(repeated, theta)
    np.testing.assert_allclose(
        one * weighted.n_individuals, two * repeated.n_individuals, rtol=1e-10, atol=1e-10
    )
    np.testing.assert_allclose(loglik, again, rtol=1e-11)
    np.testing.assert_allclose(weighted.loglik(theta), loglik, rtol=1e-11)


def check_refused(model, s, theta):
    """An inadmissible s is refused without touching theta, and `project` repairs it."""
    before = theta.copy()
    code = model._functions.maximize(s.copy(), theta)
    assert code > 0
    assert code in model.maximize_errors
    np.testing.assert_array_equal(theta, before)
    repaired = s.copy()
    model._functions.project(repaired, theta)
    np.testing.assert_array_equal(theta, before)
    assert model._functions.maximize(repaired, theta) == 0
    assert np.all(np.isfinite(theta))
    return repaired


def run_em(model, start=None, n_iter=5000, tolerance=1e-11):
    """EM to the end; the log-likelihood never falls. Returns the results."""
    options = {} if start is None else {"start": start}
    fit = model.fit(EM(n_iter=n_iter, tolerance=tolerance), seed=0, progress=False, **options)
    path = fit.trace["loglik"].to_numpy()[1:]
    assert np.all(np.diff(path) > -1e-10 * abs(path[-1]))
    return fit


def normal_loglik(X, mean, cov):
    """Log-likelihood of the observed entries of normal rows."""
    total = 0.0
    for row in X:
        seen = ~np.isnan(row)
        block, left = cov[np.ix_(seen, seen)], row[seen] - mean[seen]
        log_det = np.linalg.slogdet(2.0 * np.pi * block)[1]
        total -= 0.5 * (log_det + left @ np.linalg.solve(block, left))
    return total


def plain_errors(model, params):
    """Standard errors from the curvature of the log-likelihood in the user's parameters."""
    params, h = np.asarray(params), 1e-4
    steps = h * np.eye(params.size)

    def value(p):
        return model.loglik(model.theta_of(p))

    hessian = [
        [
            value(params + e + f) - value(params + e - f)
            - value(params - e + f) + value(params - e - f)
            for f in steps
        ]
        for e in steps
    ]  # fmt: skip
    return np.sqrt(np.diag(np.linalg.inv(-np.array(hessian) / (4.0 * h * h))))
