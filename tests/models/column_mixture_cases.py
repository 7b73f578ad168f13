"""Data, models and densities by scipy of the mixtures of columns."""

import numpy as np
import pandas as pd
from scipy import stats

from saem.models.discrete_mixtures import (
    BernoulliMixture,
    CategoricalMixture,
    MultinomialMixture,
    PoissonMixture,
)
from saem.models.mixed_mixture import MixedMixture
from saem.models.positive_mixtures import ExponentialMixture, GammaMixture

CLASSES = (
    PoissonMixture, BernoulliMixture, CategoricalMixture, MultinomialMixture,
    ExponentialMixture, GammaMixture, MixedMixture,
)  # fmt: skip


def data_of(cls, n=150, seed=3, holes=True):
    """Simulated rows, some values missing (whole rows of multinomial counts)."""
    rng = np.random.default_rng(seed)
    X = cls.simulate(rng, n)[0]
    if holes and cls is MultinomialMixture:
        X[rng.random(n) < 0.1] = np.nan
    elif holes and isinstance(X, pd.DataFrame):
        X = X.astype({"visits": float}).mask(rng.random(X.shape) < 0.1)
    elif holes:
        X[rng.random(X.shape) < 0.1] = np.nan
    return X


def options_of(cls):
    return {"families": {"wait": "gamma", "visits": "poisson"}} if cls is MixedMixture else {}


def model_of(cls, n=150, seed=3, holes=True, k=2, **options):
    return cls(data_of(cls, n, seed, holes), k, **(options_of(cls) | options))


def log_densities(model, parts, X):
    """Log joint density of rows and components by scipy, value by value; shape (n, k)."""
    table = X if isinstance(X, pd.DataFrame) else pd.DataFrame(X, columns=model.feature_names)
    total = np.tile(np.log(parts["weights"]), (len(table), 1))
    for j, column in enumerate(model.columns):
        own = parts.get(column.name, parts)

        def value(kind, c, j=j, own=own):
            array = np.asarray(own[kind])
            return array[c] if array.ndim == 1 else array[c, j]

        for c in range(model.n_components):
            if column.family == "multinomial":
                counts = table.to_numpy(dtype=float)
                seen = ~np.isnan(counts[:, 0])
                p = own["probabilities"][c]
                n = counts[seen].sum(axis=1)
                total[seen, c] += stats.multinomial(n, p / p.sum()).logpmf(counts[seen])
                continue
            x = table[column.name]
            seen = x.notna().to_numpy()
            if column.family == "categorical":
                p = own["probabilities"]
                p = p[column.name] if isinstance(p, dict) else p
                code = [column.levels.index(v) for v in x[seen]]
                total[seen, c] += np.log(p[c][code])
                continue
            x = x[seen].to_numpy(dtype=float)
            if column.family == "poisson":
                density = stats.poisson(value("rates", c)).logpmf(x)
            elif column.family == "bernoulli":
                density = stats.bernoulli(value("probabilities", c)).logpmf(x)
            elif column.family == "exponential":
                density = stats.expon(scale=value("scales", c)).logpdf(x)
            elif column.family == "gamma":
                shape = value("shapes", c)
                density = stats.gamma(shape, scale=value("scales", c)).logpdf(x)
            else:
                sd = np.sqrt(value("variances", c))
                density = stats.norm(value("means", c), sd).logpdf(x)
            total[seen, c] += density
    return total
