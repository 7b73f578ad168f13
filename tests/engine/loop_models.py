"""Small models and short algorithms that the tests of the loop share."""

import numpy as np
import pandas as pd
from toys import Toy, toy_data

import saem
from saem.algorithms import (
    EM,
    MCEM,
    SAEM,
    IncrementalEM,
    OnlineEM,
)
from saem.engine import Combination, Run, iterate
from saem.models.gaussian_mixture import GaussianMixture
from saem.models.linear_mixed import LinearMixed, simulate


def decay(amount, rate, *, time):
    """Exponential decay: quick to compute, nonlinear in one parameter."""
    return amount * np.exp(-rate * time)


def decay_data(n=8, seed=1, times=(0.5, 1.0, 2.0, 4.0)):
    rng = np.random.default_rng(seed)
    amount, rate = 10.0 * np.exp(0.3 * rng.normal(size=n)), 0.5 * np.exp(0.3 * rng.normal(size=n))
    t = np.tile(times, n)
    who = np.repeat(np.arange(n), len(times))
    y = amount[who] * np.exp(-rate[who] * t) + 0.3 * rng.normal(size=t.size)
    return pd.DataFrame({"id": who, "time": t, "dv": y})


def decay_model(n=8, error=None, frame=None):
    return saem.NLME(
        decay_data(n) if frame is None else frame,
        structural=decay,
        parameters={
            "amount": saem.LogNormal(8.0, omega=0.5),
            "rate": saem.LogNormal(0.4, omega=0.5),
        },
        error=error or saem.ConstantError(0.5),
    )


def mixture(n=60, seed=0, d=2, k=2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(k, size=n)
    rows = rng.standard_normal((n, d)) + 3.0 * labels[:, None]
    means = np.linspace(-1.0, 3.0, k)[:, None] * np.ones(d)
    start = {
        "weights": np.full(k, 1 / k),
        "means": means,
        "covariances": np.tile(np.eye(d), (k, 1, 1)),
    }
    return GaussianMixture(rows, k, init=start)


def mixed(n=30, seed=0):
    frame = simulate(np.random.default_rng(seed), n=n)
    return LinearMixed(frame, "y ~ 0 + a1 + a2", "id", "~ 0 + b1 + b2 + b3")


MODELS = {"toy": lambda: Toy(toy_data()), "mixture": mixture, "mixed": mixed, "nlme": decay_model}


def make_run(model, algorithm, seed=1, **options):
    combination = algorithm if isinstance(algorithm, Combination) else algorithm.combine(model)
    return Run(model, combination, model.start(np.random.default_rng(0)), seed=seed, **options)


def path_of(model, algorithm, n_iter=None, **options):
    """Theta after every iteration."""
    run = make_run(model, algorithm, **options)
    path = [
        snapshot.theta for snapshot, _ in zip(iterate(run), range(n_iter or 10**9), strict=False)
    ]
    run.close()
    return np.array(path)


def final_bits(name, algorithm, **options):
    """Hexadecimal parameters of a fit, for comparison across processes."""
    model = {
        "mixture": lambda: mixture(3000), "mixed": lambda: mixed(200), "nlme": decay_model,
    }[name]()  # fmt: skip
    theta = path_of(model, algorithm, seed=5, **options)[-1]
    return [float(v).hex() for v in theta]


SHORT = {
    "em": EM(n_iter=4),
    "iem": IncrementalEM(batch_size=7, n_epochs=2),
    "online-em": OnlineEM(batch_size=7, n_epochs=2),
    "saem": SAEM(n_burn_in=1, n_exploration=3, n_smoothing=4),
    "mcem": MCEM(n_draws=3, n_iter=4),
}
