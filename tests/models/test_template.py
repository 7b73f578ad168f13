"""Deformable template: compiled functions against plain NumPy, fits against quadrature."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from saem._types import no_structural
from saem.algorithms import EM, SAEM
from saem.engine import Run
from saem.estep import Quadrature
from saem.exceptions import DataError, ModelError
from saem.inference.likelihood import QuadratureRule
from saem.models import _template_kernels as kernels
from saem.models.deformable_template import DeformableTemplate, simulate


def make_images(n=25, seed=1, deformation_sd=0.2, sigma=0.15):
    return simulate(
        np.random.default_rng(seed), n, shape=(6, 5), landmarks=3, deformation_landmarks=1,
        deformation_sd=deformation_sd, sigma=sigma,
    )  # fmt: skip


def make_model(deformation_landmarks=1, n=25, **options):
    data = make_images(n)
    return DeformableTemplate(
        data.images, landmarks=3, deformation_landmarks=deformation_landmarks, **options
    )


def any_theta(model, seed=0):
    """Parameters near the start, with correlated deformations."""
    rng = np.random.default_rng(seed)
    params = model.params_of(model.start(rng))
    k = model.geometry.landmarks**2
    params[:k] += 0.1 * rng.normal(size=k)
    theta = model.theta_of(params)
    side = model._entries[0][-1] + 1
    root = 0.2 * np.eye(side) + 0.02 * rng.normal(size=(side, side))
    view = model.theta_spec.view(theta)
    return model.pack_params(beta=view["beta"], sigma2=float(view["sigma2"]), gamma=root @ root.T)


def kernel_matrix(model, z):
    """K_p of the deformed pixels of one image, written out."""
    geometry = model.geometry
    rows, columns = geometry.shape

    def centres(n):
        return np.array([-1 + (2 * a + 1) / n for a in range(n)])

    def gauss(x, y, width):
        return np.exp(-np.sum((x - y) ** 2) / (2 * width**2))

    def grid(n, m):
        return [np.array([x, y]) for x in centres(n) for y in centres(m)]

    controls = grid(geometry.deformation_landmarks, geometry.deformation_landmarks)
    moves = np.reshape(z, (2, len(controls))).T
    out = []
    for place in grid(rows, columns):
        shift = sum(
            gauss(place, g, geometry.deformation_width) * v
            for g, v in zip(controls, moves, strict=True)
        )
        landmarks = grid(geometry.landmarks, geometry.landmarks)
        out.append([gauss(place - shift, r, geometry.width) for r in landmarks])
    return np.array(out)


def complete_data(model, theta, seed=3):
    """Drawn deformations with their matrices, the mean statistic, and log p(y, z) of each."""
    rng = np.random.default_rng(seed)
    view = model.theta_spec.view(theta)
    d, n = model.n_coords, model.n_individuals
    draws = 0.2 * rng.normal(size=(n, d))
    s, latent = np.zeros(model.stat_spec.size), np.empty(model.latent_size)
    matrices, values = [], []
    for i in range(n):
        latent[:d] = draws[i]
        value = kernels.log_lik(
            no_structural, theta, model.record_of(i), latent, np.empty(model.work_size)
        )
        values.append(value + multivariate_normal(np.zeros(d), view["gamma"]).logpdf(draws[i]))
        kernels.accumulate(1.0 / n, model.record_of(i), latent, s)
        matrices.append(kernel_matrix(model, draws[i]))
    return draws, matrices, s, np.array(values)


@pytest.mark.nojit
@pytest.mark.parametrize("covariance", ["shared", "full"])
def test_complete_density_and_statistic(covariance):
    model = make_model(2, n=4, covariance=covariance)
    theta = any_theta(model)
    view = model.theta_spec.view(theta)
    np.testing.assert_allclose(model.theta_of(model.params_of(theta)), theta, rtol=1e-12)
    draws, matrices, s, values = complete_data(model, theta)
    blocks = model.stat_spec.view(s)
    images = model.images.reshape(4, -1)
    for i in range(4):
        mean = matrices[i] @ view["beta"]
        expected = multivariate_normal(mean, float(view["sigma2"])).logpdf(images[i])
        expected += multivariate_normal(np.zeros(8), view["gamma"]).logpdf(draws[i])
        assert values[i] == pytest.approx(expected, rel=1e-11)
    low, low_z = np.tril_indices(9), np.tril_indices(8)
    mean_of = [np.mean([f(i) for i in range(4)], axis=0) for f in (
        lambda i: matrices[i].T @ images[i],
        lambda i: (matrices[i].T @ matrices[i])[low],
        lambda i: np.outer(draws[i], draws[i])[low_z],
        lambda i: images[i] @ images[i],
    )]  # fmt: skip
    for name, expected in zip(("s1", "s2", "s3", "s4"), mean_of, strict=True):
        np.testing.assert_allclose(blocks[name], expected, rtol=1e-11, atol=1e-14)
    mean, chol = np.empty(8), np.empty((8, 8))
    kernels.prior(theta, model.record_of(0), mean, chol)
    np.testing.assert_array_equal(mean, 0.0)
    np.testing.assert_allclose(chol @ chol.T, view["gamma"], rtol=1e-12, atol=1e-16)


@pytest.mark.nojit
def test_surrogate_is_the_complete_log_likelihood_with_penalties():
    model = make_model(2, n=6)
    theta, other = any_theta(model), any_theta(model, seed=8)
    _, _, s, values = complete_data(model, theta)
    change = values.mean() - complete_data(model, other)[3].mean()
    change += (model.penalty(theta) - model.penalty(other)) / 6
    mine = kernels.surrogate(s, theta) - kernels.surrogate(s, other)
    assert mine == pytest.approx(change, rel=1e-10)


@pytest.mark.nojit
@pytest.mark.parametrize("covariance", ["shared", "full"])
def test_maximize_is_least_squares_and_the_maximum(covariance):
    model = make_model(1, n=20, covariance=covariance, ridge=0.3, prior_weight=4.0)
    theta = any_theta(model)
    draws, matrices, s, _ = complete_data(model, theta)
    assert kernels.maximize(s, theta) == 0
    view = model.theta_spec.view(theta)
    # the ridge as nine more pixels of value 0
    stacked = np.concatenate([*matrices, np.sqrt(0.3) * np.eye(9)])
    target = np.concatenate([model.images.ravel(), np.zeros(9)])
    beta = np.linalg.lstsq(stacked, target, rcond=None)[0]
    np.testing.assert_allclose(view["beta"], beta, rtol=1e-9)
    square = np.sum((target - stacked @ beta) ** 2) / model.images.size
    assert view["sigma2"] == pytest.approx(square, rel=1e-10)
    gamma = (draws.T @ draws + 4.0 * 0.01 * np.eye(2)) / 24.0
    if covariance == "shared":
        gamma = np.mean(np.diag(gamma)) * np.eye(2)
    np.testing.assert_allclose(view["gamma"], gamma, rtol=1e-11)
    best, params = kernels.surrogate(s, theta), model.params_of(theta)
    for e, size in zip(np.eye(params.size), np.maximum(np.abs(params), 0.01), strict=True):
        h = 1e-3 * size
        ahead, behind = (kernels.surrogate(s, model.theta_of(params + v * e)) for v in (h, -h))
        assert max(ahead, behind) < best
        # where a parabola has its maximum: off by the third derivative, of the order of h^2
        assert abs(ahead - behind) / (2 * best - ahead - behind) * 0.5 * h < 2e-6 * size
    double = kernels.surrogate(0.5 * s, theta) + kernels.surrogate(1.5 * s, theta)
    assert double == pytest.approx(2 * best, rel=1e-12)


def test_em_by_quadrature_climbs_to_a_stationary_point():
    """Two coordinates: the likelihood is known by quadrature; no ridge, no prior."""
    model = make_model(1, ridge=0.0, prior_weight=0.0)
    fit = model.fit(EM(estep=Quadrature(9), n_iter=150, tolerance=None), progress=False)
    path = fit.trace["loglik"].to_numpy()[1:]
    # the rule of 9 nodes is adapted anew in each pass, with an error of about 1e-6
    assert np.all(np.diff(path) > -1e-7 * abs(path[-1]))
    rule = QuadratureRule(model, 15)
    params = model.params_of(fit.theta)
    value = rule(fit.theta)
    for j in range(params.size):
        step = np.zeros(params.size)
        step[j] = 1e-3 * max(abs(params[j]), 0.02)
        ahead, behind = (rule(model.theta_of(params + h * step)) for h in (1.0, -1.0))
        curvature = (2 * value - ahead - behind) / step[j] ** 2
        # the Newton step left to go is a small share of the standard error
        newton = (ahead - behind) / (2 * step[j]) / curvature
        assert abs(newton) * np.sqrt(curvature) < 0.02


def test_saem_agrees_with_em_and_recovers_the_template():
    data = make_images(40, deformation_sd=0.3, sigma=0.1)
    model = DeformableTemplate(data.images, landmarks=3, deformation_landmarks=1)
    exact = model.fit(EM(estep=Quadrature(9), n_iter=100, tolerance=None), progress=False)
    fit = model.fit(SAEM(n_smoothing=200), seed=1, progress=False)
    rule = QuadratureRule(model, 9)
    objective = [rule(f.theta) + model.penalty(f.theta) for f in (exact, fit)]
    assert abs(objective[0] - objective[1]) < 0.2
    np.testing.assert_allclose(fit.template(), exact.template(), atol=0.01)
    error = np.abs(fit.template() - data.template).mean()
    assert error < 0.4 * np.abs(data.images.mean(axis=0) - data.template).mean()
    assert fit.params["sigma2"] == pytest.approx(0.1**2, rel=0.15)
    # deformations are found, and rebuild the images up to noise
    found = fit.deformations()
    assert np.corrcoef(found.ravel(), data.deformations.ravel())[0, 1] > 0.9
    residual = np.square(fit.reconstructions() - data.images).mean()
    assert residual == pytest.approx(0.1**2, rel=0.2)
    blurred = np.square(np.diff(data.images.mean(axis=0), axis=0)).mean()
    assert fit.sharpness > blurred
    assert fit.template((12, 10)).shape == (12, 10)
    assert np.isnan(fit.bse).all()


def test_weights_are_repeated_images():
    model = make_model(1, n=10)
    weights = np.ones(10)
    weights[[0, 3]] = 2.0, 0.0
    rows = [0, *[i for i in range(10) if i != 3]]
    repeated = DeformableTemplate(model.images[rows], landmarks=3, deformation_landmarks=1)
    theta = model.start(np.random.default_rng(0))
    results = []
    for m in (model.reweighted(weights), repeated):
        run = Run(m, EM(estep=Quadrature(9)).combine(m), theta, seed=0)
        results.append((run.full_pass(0), run.loglik))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-10, atol=1e-14)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-12)
    with pytest.raises(ModelError, match="whole numbers"):
        model.reweighted(np.full(10, 0.5))


@pytest.mark.nojit
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_inadmissible_statistics(ridge):
    model = make_model(1, n=20, ridge=ridge, prior_weight=0.0, covariance="full")
    theta = any_theta(model)
    _, _, s, _ = complete_data(model, theta)
    before, slices = theta.copy(), model.stat_spec.slices
    assert kernels.maximize(s.copy(), theta.copy()) == 0
    changes = (
        ("s1", np.nan, kernels.NOT_FINITE),
        ("s4", np.inf, kernels.NOT_FINITE),
        ("s2", -1.0, kernels.SINGULAR_TEMPLATE),
        ("s4", 0.0, kernels.ZERO_RESIDUAL),
        ("s3", -0.1, kernels.SINGULAR_GAMMA),
    )
    for block, value, code in changes:
        bad = s.copy()
        bad[slices[block].start] = value
        assert kernels.maximize(bad, theta) == code
        np.testing.assert_array_equal(theta, before)
        if code != kernels.NOT_FINITE:
            kernels.project(bad, theta)
            assert kernels.maximize(bad, theta.copy()) == 0
    kept = s.copy()
    kernels.project(kept, theta)
    np.testing.assert_array_equal(kept, s)
    assert set(model.maximize_errors) == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("images", "options", "error", "text"),
    [
        (np.zeros((3, 4)), {}, DataError, "(?s)shape .3, 4.*reshape"),
        ([["a"]], {}, DataError, "must be numbers"),
        (np.ones((2, 3, 3)), {}, DataError, "all pixels of all images are 1"),
        (np.full((1, 1, 2), np.nan), {}, DataError, r"(?s)2 problems.*image 0, pixel \(0, 1\)"),
        (np.eye(3)[None], {"landmarks": 0, "ridge": -1.0}, ModelError, "(?s)2 problems.*ridge"),
        (np.eye(3)[None], {"covariance": "diag"}, ModelError, "covariance='diag'"),
        (np.eye(3)[None], {"width": 0.0}, ModelError, "width=0.0"),
    ],
)
def test_bad_input(images, options, error, text):
    with pytest.raises(error, match=text):
        DeformableTemplate(images, **options)


def test_bad_parameters():
    model = make_model()
    with pytest.raises(ModelError, match=r"(?s)3 problems.*beta.*gamma.*sigma2"):
        model.pack_params(beta=[1.0], sigma2=0.0, gamma=np.eye(3))
    with pytest.raises(ModelError, match="positive definite"):
        model.pack_params(beta=np.zeros(9), sigma2=1.0, gamma=-np.eye(1))
    with pytest.raises(ModelError, match="pack_params"):
        model.check_theta(np.zeros(3))
    example = DeformableTemplate.example(np.random.default_rng(0), 5)
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(example.start(rng), example.start(rng))
