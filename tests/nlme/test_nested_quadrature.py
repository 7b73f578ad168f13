"""Quadrature occasion by occasion, against closed forms and against integrals written out here.

The linear model has ``y_i ~ N(X b, Z Omega Z' + W Gamma W' + a^2 I)``; with five occasions its
posterior has 7 coordinates, where a product rule is out of the question.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import saem
from saem._laplace import laplace_work
from saem._types import make_visitor
from saem.algorithms import QuadratureEM
from saem.estep import Quadrature
from saem.estep.quadrature import visit_quadrature
from saem.exceptions import OptionError
from saem.inference._visits import visit_all
from saem.inference.likelihood import importance_sampling, quadrature
from saem.inference.posterior import quadrature_records, scores, second_moments, split


def line(base, slope, *, x):
    """A straight line."""
    return base + slope * x


def linear_data(occasions, n=16, seed=3):
    """Three to four responses on each of up to so many occasions; a few are left out."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        base, slope = 5.0 + rng.normal(), 1.0 + 0.4 * rng.normal()
        for o in range(occasions):
            if o > 1 and (i + o) % 5 == 0:
                continue
            level = base + 0.8 * rng.normal()
            for j in range(3 + (i + o) % 2):
                rows.append((i, f"o{o}", j - 1.0, level + slope * (j - 1.0) + 0.5 * rng.normal()))
    return pd.DataFrame(rows, columns=["id", "occ", "x", "dv"])


def linear_model(occasions):
    return saem.NLME(
        linear_data(occasions), structural=line, error=saem.ConstantError(0.8),
        parameters={"base": saem.Normal(4.0, omega=1.5), "slope": saem.Normal(0.5, omega=0.7)},
        occasion="occ", iov={"base": 0.5},
    )  # fmt: skip


def closed_form(values, frame):
    """Log-likelihood; values are base, slope, their variances, gamma2, a."""
    base, slope, first, second, gamma, a = values
    total = 0.0
    for _, rows in frame.groupby("id"):
        x, occasion = rows["x"].to_numpy(), rows["occ"].to_numpy()
        same = occasion[:, None] == occasion
        cov = first + second * np.outer(x, x) + gamma * same + a**2 * np.eye(x.size)
        root = np.linalg.cholesky(cov)
        white = np.linalg.solve(root, rows["dv"].to_numpy() - base - slope * x)
        total -= 0.5 * white @ white + np.log(np.diag(root)).sum()
        total -= 0.5 * x.size * np.log(2.0 * np.pi)
    return total


def exact_answer(frame):
    """Estimates, standard errors and log-likelihood of the linear model."""

    def loss(free):
        return -closed_form([*free[:2], *np.exp(free[2:])], frame)

    start = [5.0, 1.0, 0.0, -1.5, -0.5, -0.7]
    found = optimize.minimize(loss, start, method="BFGS", jac="3-point", options={"gtol": 1e-7})
    centre = np.array([*found.x[:2], *np.exp(found.x[2:])])
    steps, size = 1e-3 * np.abs(centre), centre.size

    def value(*moves):
        at = centre.copy()
        for k, sign in moves:
            at[k] += sign * steps[k]
        return closed_form(at, frame)

    information = np.empty((size, size))
    for k in range(size):
        second = value((k, 1)) - 2 * value() + value((k, -1))
        information[k, k] = -second / steps[k] ** 2
        for h in range(k):
            mixed = sum(i * j * value((k, i), (h, j)) for i in (1, -1) for j in (1, -1))
            information[k, h] = information[h, k] = -mixed / (4 * steps[k] * steps[h])
    return centre, np.sqrt(np.diag(np.linalg.inv(information))), -found.fun


@pytest.fixture(scope="module", params=[2, 5])
def linear(request):
    """Exact answer and the default fit, for two and for five occasions."""
    model = linear_model(request.param)
    assert model.n_coords == 2 + request.param
    return exact_answer(linear_data(request.param)), model.fit(seed=1), request.param


def test_the_default_reaches_the_closed_form(linear):
    (centre, bse, llf), fit, _ = linear
    assert fit.converged
    # The bar of the default: within 0.02 standard errors of the maximum.
    assert np.abs((fit.params.to_numpy() - centre) / bse).max() < 0.02
    np.testing.assert_allclose(fit.information("louis").bse, bse, rtol=2e-3)
    assert fit._information.method == "Louis"
    assert fit.loglik("quadrature").value == pytest.approx(llf, abs=1e-3)
    found = fit.loglik("importance")
    # A log-likelihood of a Gaussian model: proposals are the posteriors, up to tails.
    assert found.value == pytest.approx(llf, abs=max(5 * found.error, 1e-3))


def test_likelihood_and_information_away_from_the_maximum(linear):
    _, fit, occasions = linear
    model = fit.model
    values = np.array([4.5, 1.3, 0.7, 0.3, 0.9, 0.6])
    theta = model.with_estimates(fit.theta, values)
    expected = closed_form(values, linear_data(occasions))
    for q in (1, 3, 5):
        assert quadrature(model, theta, n_nodes=q).value == pytest.approx(expected, rel=1e-11)


def test_quadrature_em_reaches_the_closed_form(linear):
    (centre, bse, _), fit, _ = linear
    found = fit.model.fit(
        QuadratureEM(Quadrature(3), n_iter=5000, tolerance=1e-11), start=fit.theta * 1.0, seed=0
    )
    assert np.abs((found.params.to_numpy() - centre) / bse).max() < 1e-3


@pytest.mark.parametrize("name", ["saem", "f-saem"])
def test_chains_reach_the_closed_form(linear, name):
    (centre, bse, _), fit, _ = linear
    kind = {"saem": saem.SAEM, "f-saem": saem.FSAEM}[name]
    found = fit.model.fit(kind(n_exploration=150, n_smoothing=500), seed=2)
    error = np.maximum(found.mc_error.to_numpy(), 1e-4 * bse)
    # Six parameters, 4.7 of the errors the fit reports: a false alarm in some 60,000 runs, with
    # errors that are themselves known to a fifth rather one in 5000.
    assert (np.abs(found.params.to_numpy() - centre) / error).max() < 4.7
    assert (error / bse).max() < 0.25


# -- a nonlinear model ---------------------------------------------------------------

TIMES = np.array([0.5, 2.0, 6.0, 12.0])


def pk_data(n=8, occasions=5, seed=8):
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        cl = 3.0 * np.exp(0.4 * rng.normal())
        for o in range(occasions if i else 3):
            own = cl * np.exp(0.3 * rng.normal())
            f = 5.0 * np.exp(-own / 20.0 * TIMES)
            for t, value in zip(TIMES, f * (1 + 0.15 * rng.normal(size=f.size)), strict=True):
                rows.append((i, o, t, 100.0, value))
    return pd.DataFrame(rows, columns=["id", "OCC", "time", "amt", "dv"])


@pytest.fixture(scope="module")
def pk():
    model = saem.NLME(
        pk_data(), structural="pk.iv_bolus_1cpt", error=saem.ProportionalError(0.2),
        parameters={"V": saem.LogNormal(20.0, random=False, fixed=True),
                    "CL": saem.LogNormal(2.5, omega=0.5)},
        occasion="OCC", iov=["CL"],
    )  # fmt: skip
    return model.fit(seed=3)


def nested(params):
    """Log-likelihood by sums over two grids, which is exact for such smooth densities."""
    cl, omega2, gamma2, b = params
    grid = np.linspace(-6.5, 6.5, 121)
    weight = stats.norm.pdf(grid) * (grid[1] - grid[0])
    total = 0.0
    for _, rows in pk_data().groupby("id"):
        given_eta = np.zeros(grid.size)
        for _, part in rows.groupby("OCC"):
            own = cl * np.exp(np.sqrt(omega2) * grid[:, None] + np.sqrt(gamma2) * grid)
            f = np.maximum(5.0 * np.exp(-own[..., None] / 20.0 * TIMES), 1e-60)
            away = (part["dv"].to_numpy() - f) / (b * f)
            log_p = (-0.5 * away**2 - np.log(b * f)).sum(axis=-1) - 0.5 * np.log(2 * np.pi) * 4
            largest = log_p.max(axis=1)
            given_eta += largest + np.log(np.exp(log_p - largest[:, None]) @ weight)
        top = given_eta.max()
        total += top + np.log(np.exp(given_eta - top) @ weight)
    return total


def test_likelihoods_are_those_of_the_nested_integral(pk):
    assert pk.model.n_coords == 6
    exact = nested(pk.params)
    found = pk.loglik("quadrature")
    assert found.value == pytest.approx(exact, abs=2e-4)
    assert found.error < 1e-3
    # Ten seeds, each within 4 of its own errors: a false alarm in 1500 runs.
    for seed in range(10):
        drawn = importance_sampling(pk.model, pk.theta, seed=seed)
        assert abs(drawn.value - exact) < 4.0 * drawn.error
        assert drawn.error < 0.05


def test_the_default_ends_at_the_maximum_of_the_nested_integral(pk):
    assert pk.converged
    assert list(pk.params.index) == ["CL", "omega2_CL", "gamma2_CL", "b"]
    centre, bse = pk.params.to_numpy(), pk.bse.to_numpy()
    size = centre.size
    slope, hessian = np.empty(size), np.empty((size, size))
    unit = 0.1 * np.diag(bse)
    middle = nested(centre)
    for k in range(size):
        up, down = nested(centre + unit[k]), nested(centre - unit[k])
        slope[k], hessian[k, k] = (up - down) / 0.2, (up - 2 * middle + down) / 0.01
        for h in range(k):
            mixed = sum(
                i * j * nested(centre + i * unit[k] + j * unit[h]) for i in (1, -1) for j in (1, -1)
            )
            hessian[k, h] = hessian[h, k] = mixed / 0.04
    # Distance to the maximum in standard errors, by one Newton step on the integral.
    away = -np.linalg.solve(hessian, slope)
    assert np.abs(away).max() < 0.03  # 0.02 is asked for; differences of third order are 0.01
    errors = np.sqrt(np.diag(np.linalg.inv(-hessian)))
    # Louis' standard errors, in their own units; curvature over 0.1 of them is 1 % off.
    np.testing.assert_allclose(errors, 1.0, atol=0.02)


def test_stars_keep_means_and_second_moments_of_scores(linear):
    """Scores are quadratic here, so that 4 nodes are exact, as those of a product rule are."""
    _, fit, occasions = linear
    if occasions > 2:
        pytest.skip("a product rule over 7 coordinates")
    model, theta, everyone = fit.model, fit.theta, slice(0, fit.model.n_individuals)
    _, records = next(iter(quadrature_records(model, theta, 4)))
    q, d = 4, model.n_coords
    x, w = np.polynomial.hermite.hermgauss(q)
    product, _ = visit_all(
        model, make_visitor(visit_quadrature), theta, record_size=q**d * (1 + model.latent_size),
        settings=np.concatenate([[q, d, model.latent_size], x, np.log(w)]),
        memories=np.zeros((model.n_individuals, 1 + d + d * d)), n_threads=1,
        work_size=4 * d + 3 * d * d + model.latent_size + laplace_work(d),
    )  # fmt: skip
    assert (split(model, records)[0] < 0.0).any()
    found = []
    for record in (records, product):
        weights, _ = split(model, record)
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-12)
        score = scores(model, theta, record, everyone)
        mean = np.einsum("im,imp->ip", weights, score)
        found.append((mean, second_moments(model, record, score)))
    (mean, second), (other, reference) = found
    assert not (split(model, product)[0] < 0.0).any()
    sizes = np.sqrt(np.diag(reference))
    np.testing.assert_allclose(mean / sizes, other / sizes, atol=1e-6)
    scale = np.outer(sizes, sizes)
    np.testing.assert_allclose(second / scale, reference / scale, atol=1e-6)


def test_too_many_nodes_are_refused(pk):
    with pytest.raises(OptionError, match=r"101 nodes .* on 5 occasions takes 51106 nodes"):
        Quadrature(101).bind(pk.model)
