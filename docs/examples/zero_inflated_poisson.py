"""Zero-inflated Poisson counts: y is 0 with probability pi, and Poisson(lam) otherwise."""

from math import exp, lgamma, log
from typing import ClassVar

import numpy as np

from saem import authoring
from saem.authoring import DataError, Model, Packed, Problems, Results, kernel, uniform

# theta = (pi, lam); y = (count,); latent = (z,), whether the zero is an extra one;
# S(y, z) = (z, 1 - z, (1 - z) y): extra zeros, rows of the Poisson part, their total.


@kernel(authoring.EXPECT)
def expect(theta, y, latent, work):
    """Write P(z = 1 | y) and return log p(y)."""
    log_poisson = y[0] * log(theta[1]) - theta[1] - lgamma(y[0] + 1.0)
    extra = theta[0] if y[0] == 0.0 else 0.0
    density = extra + (1.0 - theta[0]) * exp(log_poisson)
    latent[0] = extra / density if extra > 0.0 else 0.0  # P(z = 1 | y)
    return log(density) if extra > 0.0 else log(1.0 - theta[0]) + log_poisson


@kernel(authoring.DRAW)
def draw(theta, y, key, latent, work):
    """Draw z given y."""
    expect(theta, y, latent, work)
    latent[0] = 1.0 if uniform(key, 0) < latent[0] else 0.0


@kernel(authoring.CLASSIFY)
def classify(theta, y, latent, work):
    """Write the most probable z and return log p(y, z)."""
    log_lik = expect(theta, y, latent, work)
    probability = max(latent[0], 1.0 - latent[0])
    latent[0] = 1.0 if latent[0] > 0.5 else 0.0
    return log_lik + log(probability)


@kernel(authoring.ACCUMULATE)
def accumulate(weight, y, latent, s):
    """Add the weighted statistic."""
    s[0] += weight * latent[0]
    s[1] += weight * (1.0 - latent[0])
    s[2] += weight * (1.0 - latent[0]) * y[0]


@kernel(authoring.MAXIMIZE)
def maximize(s, theta):
    """Set theta = T(s); 1 where s has no maximum."""
    if not (0.0 < s[0] < np.inf and 0.0 < s[1] < np.inf and 0.0 < s[2] < np.inf):
        return 1
    theta[0] = s[0] / (s[0] + s[1])
    theta[1] = s[2] / s[1]
    return 0


@kernel(authoring.SURROGATE)
def surrogate(s, theta):
    """Return what `maximize` maximises over theta."""
    return s[0] * log(theta[0]) + s[1] * (log(1.0 - theta[0]) - theta[1]) + s[2] * log(theta[1])


@kernel(authoring.PROJECT)
def project(s, theta):
    """Move s to where `maximize` can work."""
    for j in range(3):
        s[j] = max(s[j], 1e-9)


class ZeroInflatedPoisson(Model):
    """Counts with more zeros than a Poisson distribution has."""

    name: ClassVar[str] = "zero-inflated Poisson"
    capabilities: ClassVar[frozenset[str]] = frozenset({"expect", "draw", "classify", "surrogate"})
    maximize_errors: ClassVar[dict[int, str]] = {
        1: "no extra zeros, or nothing but zeros, are left"
    }

    def __init__(self, counts):
        problems, values = Problems("the counts"), np.array(counts, dtype=float)
        for i in np.flatnonzero(~((values >= 0) & (values % 1 == 0))):
            problems.add(f"row {i}: {values.flat[i]} is no count", remedy="drop the row")
        if values.ndim != 1 or not (values == 0).any() or not (values > 0).any():
            problems.add(f"counts of shape {values.shape} must be a row with zeros and others")
        problems.raise_if_any(DataError)
        self.values, self.offsets = values, np.array([0, 1])  # records of length 1
        self.n_individuals = self.nobs = values.size
        self.latent_size = 1
        self.theta_spec = Packed(pi=(), lam=())
        self.stat_spec = Packed(extra=(), poisson=(), total=())
        self.param_names = ["pi", "lam"]
        self.kernels = authoring.make_kernels(
            expect=expect, draw=draw, classify=classify, accumulate=accumulate,
            maximize=maximize, surrogate=surrogate, project=project,
        )  # fmt: skip

    @classmethod
    def example(cls, rng, n=60):
        """Small simulated instance."""
        return cls(rng.poisson(3.0, n) * (rng.random(n) > 0.3))

    def start(self, rng):
        """Half of the zeros are extra."""
        return np.array([0.5 * np.mean(self.values == 0), self.values[self.values > 0].mean()])

    def params_of(self, theta):
        """Theta is what a user sees."""
        return theta.copy()

    def persist(self):
        """What a saved fit holds of the model: the arguments of its constructor."""
        return {"counts": self.values}

    def posterior(self, theta):
        """Probabilities of extra zeros, and log-likelihoods, of all rows."""
        z, log_lik, work = np.empty((self.nobs, 1)), np.empty(self.nobs), np.empty(0)
        for i in range(self.nobs):
            log_lik[i] = expect(theta, self.record_of(i), z[i], work)
        return z[:, 0], log_lik

    def loglik(self, theta):
        """Log-likelihood of the data."""
        return float(self.posterior(theta)[1].sum())

    def cov_params(self, theta):
        """Inverse of the sum of squared scores, which are E[d log f(y, z) / d theta | y]."""
        (pi, lam), (z, _) = theta, self.posterior(theta)
        scores = np.array([z / pi - (1 - z) / (1 - pi), (1 - z) * (self.values / lam - 1)])
        return np.linalg.inv(scores @ scores.T)

    def results(self, record):
        """Wrap the record of a fit."""
        return ZeroInflatedPoissonResults(self, record)


class ZeroInflatedPoissonResults(Results):
    """Results of zero-inflated Poisson counts."""

    _interval_scales: ClassVar[list[str]] = ["logit", "log"]

    def predict_proba(self):
        """Probability of each row to be an extra zero."""
        return self.model.posterior(self.record.theta)[0]


if __name__ == "__main__":
    from saem.checks import check_model

    model = ZeroInflatedPoisson.example(np.random.default_rng(1))
    print(model.fit(seed=0, progress=False).summary())
    table = check_model(model)
    print(table.groupby("algorithm", sort=False)["state"].value_counts().unstack(fill_value=0))
