"""The estimators obey scikit-learn, agree with its own, and do what pipelines ask."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.decomposition import FactorAnalysis as TheirFactorAnalysis
from sklearn.linear_model import LinearRegression
from sklearn.mixture import GaussianMixture as TheirMixture
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn_cases import TYPES, clusters, same_start

import saem.sklearn as face
from saem import models
from saem.models.factor_analysis import simulate as simulate_factors

#: Threads that wait for each other on a busy machine take more time than these problems.
pytestmark = pytest.mark.usefixtures("one_thread")

FAST = [
    face.GaussianMixture(), face.PoissonMixture(), face.BernoulliMixture(),
    face.CategoricalMixture(),
    face.MultinomialMixture(), face.GammaMixture(), face.ExponentialMixture(),
    face.StudentMixture(), face.MixedMixture(), face.FactorAnalysis(), face.PPCA(),
    face.PLSA(2), face.RegressionMixture(), face.MultivariateNormal(),
]  # fmt: skip
SLOW = [
    face.PLSA(), face.GaussianMixture(2, algorithm="fiem"), face.GaussianMixture(2, n_init=3),
    face.StudentMixture(algorithm="squarem-em"), face.MultivariateNormal(algorithm="saem"),
]  # fmt: skip


def reasons(estimator):
    return face.expected_failed_checks(estimator)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(FAST, expected_failed_checks=reasons)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(SLOW, expected_failed_checks=reasons)
def test_checks_of_scikit_learn_with_other_options(estimator, check):
    check(estimator)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_gaussian_mixture_is_scikit_learns_from_the_same_start(covariance_type, tol):
    X, _ = clusters()
    options = same_start(covariance_type) | {"tol": tol, "max_iter": 500}
    ours, theirs = face.GaussianMixture(**options).fit(X), TheirMixture(**options).fit(X)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.converged_
    assert theirs.converged_
    for name in ("weights_", "means_", "covariances_", "precisions_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-8)
    new, _ = clusters(50, seed=1)
    np.testing.assert_array_equal(ours.predict(new), theirs.predict(new))
    np.testing.assert_allclose(ours.predict_proba(new), theirs.predict_proba(new), atol=1e-7)
    np.testing.assert_allclose(ours.score_samples(new), theirs.score_samples(new), rtol=1e-7)
    for name in ("score", "bic", "aic"):
        assert getattr(ours, name)(new) == pytest.approx(getattr(theirs, name)(new), rel=1e-7)
    np.testing.assert_allclose(ours.lower_bounds_[-1], theirs.lower_bound_, rtol=1e-9)
    assert ours.lower_bound_ == pytest.approx(ours.score(X), rel=1e-10)


def test_means_alone_can_be_given():
    X, _ = clusters()
    means = np.array([[0.0, 0.0], [3.0, 1.0], [-1.0, 4.0]])
    ours = face.GaussianMixture(3, means_init=means, random_state=0).fit(X)
    np.testing.assert_array_equal(ours._results.model.components(
        ours._results.record.theta_start)["means"], means)  # fmt: skip
    assert np.abs(ours.means_ - means).max() < 0.5


@pytest.mark.parametrize("covariance_type", TYPES)
def test_maximum_is_no_lower_than_scikit_learns(covariance_type):
    X, _ = clusters(400, seed=3)
    options = {"covariance_type": covariance_type, "n_init": 3, "random_state": 0}
    ours = face.GaussianMixture(3, **options).fit(X)
    theirs = TheirMixture(3, tol=1e-6, max_iter=1000, init_params="k-means++", **options).fit(X)
    assert ours.score(X) > theirs.score(X) - 1e-4


def test_factor_analysis_has_scikit_learns_likelihood():
    X, _ = simulate_factors(np.random.default_rng(0), 200)
    ours = face.FactorAnalysis(2, tol=1e-12, max_iter=20_000, algorithm="anderson-em").fit(X)
    theirs = TheirFactorAnalysis(2, tol=1e-12, max_iter=20_000, svd_method="lapack").fit(X)
    assert ours.score(X) == pytest.approx(theirs.score(X), abs=1e-6)
    np.testing.assert_allclose(ours.get_covariance(), theirs.get_covariance(), atol=1e-3)
    np.testing.assert_allclose(ours.get_precision() @ ours.get_covariance(), np.eye(6), atol=1e-9)
    scores = theirs.transform(X)
    spin = np.linalg.lstsq(ours.transform(X), scores, rcond=None)[0]
    np.testing.assert_allclose(spin @ spin.T, np.eye(2), atol=1e-2)  # a rotation
    back = ours.inverse_transform(ours.transform(X))
    assert np.square(back - X).mean() < np.square(X.mean(axis=0) - X).mean()


def test_ppca_has_the_likelihood_of_scikit_learns_pca():
    X, _ = simulate_factors(np.random.default_rng(0), 200)
    ours, theirs = face.PPCA(2).fit(X), PCA(2).fit(X)
    n = len(X)  # PCA divides by n - 1
    sigma2 = np.linalg.eigvalsh(np.cov(X.T, bias=True))[:-2].mean()
    assert ours.noise_variance_ == pytest.approx(sigma2, rel=1e-6)
    assert ours.noise_variance_ == pytest.approx(theirs.noise_variance_ * (n - 1) / n, rel=1e-6)


def test_one_regression_is_least_squares():
    X, y, _ = models.RegressionMixture.simulate(np.random.default_rng(0), 200)
    w = np.random.default_rng(1).integers(0, 4, 200)
    ours = face.RegressionMixture(alpha=1e-12).fit(X, y, sample_weight=w)
    theirs = LinearRegression().fit(X, y, sample_weight=w)
    np.testing.assert_allclose(ours.coef_[0], theirs.coef_, rtol=1e-8)
    assert ours.intercept_[0] == pytest.approx(theirs.intercept_, rel=1e-8)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-8)
