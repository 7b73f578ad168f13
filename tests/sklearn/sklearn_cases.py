"""Data for the estimators of the scikit-learn face, and estimators for the data."""

import numpy as np

import saem.sklearn as face
from saem import models
from saem.models.factor_analysis import simulate as simulate_factors
from saem.models.plsa import simulate as simulate_topics

TYPES = ("full", "tied", "diag", "spherical")
MIXTURES = [
    "GaussianMixture", "PoissonMixture", "BernoulliMixture", "CategoricalMixture",
    "MultinomialMixture", "GammaMixture", "ExponentialMixture", "StudentMixture", "MixedMixture",
]  # fmt: skip
WITH_MISSING = [n for n in MIXTURES if n not in ("MultinomialMixture", "StudentMixture")]
EVERY = [*MIXTURES, "FactorAnalysis", "PPCA", "MultivariateNormal", "PLSA", "RegressionMixture"]


def clusters(n=300, seed=0, d=2):
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    centres = np.array([[0.0, 0.0, 1.0], [3.0, 1.0, -1.0], [-1.0, 4.0, 0.0]])[:, :d]
    return centres[labels] + rng.normal(size=(n, d)) * np.array([1.0, 0.7, 1.3])[:d], labels


def same_start(covariance_type):
    precisions = {
        "full": np.tile(np.eye(2), (3, 1, 1)), "tied": np.eye(2), "diag": np.ones((3, 2)),
        "spherical": np.ones(3),
    }[covariance_type]  # fmt: skip
    return {
        "n_components": 3, "covariance_type": covariance_type, "weights_init": [0.4, 0.3, 0.3],
        "means_init": [[0.0, 0.5], [2.5, 1.0], [-1.0, 3.0]], "precisions_init": precisions,
        "random_state": 0,
    }  # fmt: skip


def data_of(name, n=120, seed=0):
    """Rows that suit an estimator with two components."""
    rng = np.random.default_rng(seed)
    if name == "PLSA":
        return simulate_topics(rng, n, n_topics=2, n_words=12).counts.toarray()
    if name in ("FactorAnalysis", "PPCA"):
        return simulate_factors(rng, n)[0]
    if name == "GaussianMixture":
        return clusters(n, seed)[0]
    if name == "MultivariateNormal":
        from saem.models.multivariate_normal import simulate

        return simulate(rng, n, missing=0.2)[0]
    return getattr(models, name).simulate(rng, n)[0]


def estimator(name, **options):
    cls = getattr(face, name)
    return cls(**({"n_components": 2} if "n_components" in cls().get_params() else {}), **options)


def rows(X, chosen):
    return X.iloc[chosen] if hasattr(X, "iloc") else X[chosen]


def start_of(name, X):
    """Values to start from, so that the order of rows does not matter."""
    if name == "GaussianMixture":
        return {"means_init": [[0.0, 0.0], [2.0, 2.0]], "weights_init": [0.5, 0.5],
                "precisions_init": np.tile(np.eye(2), (2, 1, 1))}  # fmt: skip
    model = estimator(name, random_state=0).fit(X).results_.model
    return {"init_params": model.components(model.start(np.random.default_rng(0)))}


def fitted_pair(name, **options):
    """Fitted estimator and what it says of its data, as one array."""
    if name == "RegressionMixture":
        X, y, _ = models.RegressionMixture.simulate(np.random.default_rng(0), 120)
        return estimator(name, random_state=0, **options).fit(X, y), lambda e: e.predict(X)
    X = data_of(name)
    ask = (lambda e: e.predict_proba(X)) if name in MIXTURES else (lambda e: e.transform(X))
    return estimator(name, random_state=0, **options).fit(X), ask
