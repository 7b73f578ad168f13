"""Models by the log-likelihood of a row: counts, yes or no, repeated events."""

import math

import numpy as np
import pandas as pd

import saem

RNG = np.random.default_rng


def poisson(rate, *, dv):
    """Log probability of a count."""
    return dv * math.log(rate) - rate - math.lgamma(dv + 1.0)


def logistic(b0, b1, alpha, *, t, x, dv):
    """Log probability of 0 or 1."""
    logit = (2.0 * dv - 1.0) * (b0 + b1 * t + alpha * x)
    return min(logit, 0.0) - math.log1p(math.exp(-abs(logit)))


def weibull(scale, shape, *, time, previous, dv):
    """Event (1) or not (0) at the end of the stretch from previous to time."""
    value = (previous / scale) ** shape - (time / scale) ** shape
    if dv > 0.0:
        value += math.log(shape / scale) + (shape - 1.0) * math.log(time / scale)
    return value


def counts(n=40, m=4, seed=1):
    rng = RNG(seed)
    rates = np.exp(np.log(3.0) + 0.5 * rng.standard_normal(n))
    return pd.DataFrame(
        {"id": np.repeat(np.arange(n), m), "count": rng.poisson(np.repeat(rates, m))}
    )


def events(n=40, seed=2, end=6.0):
    """Repeated events of a Weibull hazard: a row at time 0, one an event, one at the end."""
    rng = RNG(seed)
    rows = []
    for i in range(n):
        scale, shape = 2.0 * np.exp(0.3 * rng.standard_normal(2))
        rows.append((i, 0.0, 0.0, 0.0))
        time = before = 0.0
        while True:
            # H(next) = H(time) + a standard exponential.
            time = scale * ((before / scale) ** shape + rng.exponential()) ** (1.0 / shape)
            if time > end:
                break
            rows.append((i, time, before, 1.0))
            before = time
        rows.append((i, end, before, 0.0))
    return pd.DataFrame(rows, columns=["id", "time", "previous", "event"])


def poisson_model(frame=None, structural=poisson, **options):
    return saem.NLME(
        counts() if frame is None else frame, structural=structural,
        parameters={"rate": saem.LogNormal(2.0)}, error=saem.LogLikelihood(),
        columns={"dv": "count"}, **options,
    )  # fmt: skip


def weibull_model(frame=None, structural=weibull):
    return saem.NLME(
        events() if frame is None else frame, structural=structural,
        parameters={"scale": saem.LogNormal(1.5, omega=0.5),
                    "shape": saem.LogNormal(1.5, omega=0.5)},
        error=saem.LogLikelihood(), columns={"dv": "event"},
    )  # fmt: skip


def binary_frame(n=80, seed=3):
    rng = RNG(seed)
    t, x = np.tile(np.linspace(-1.0, 1.0, 10), n), np.repeat(rng.normal(size=n), 10)
    b = np.repeat([0.3, 1.0] + rng.normal(size=(n, 2)) * [0.9, 1.5], 10, axis=0)
    p = 1.0 / (1.0 + np.exp(-(b[:, 0] + b[:, 1] * t + 0.5 * x)))
    y = (rng.random(p.size) < p).astype(float)
    return pd.DataFrame({"id": np.repeat(np.arange(n), 10), "t": t, "x": x, "y": y})


def binary_model(frame):
    return saem.NLME(
        frame, structural=logistic, error=saem.LogLikelihood(), columns={"dv": "y"},
        parameters={"b0": saem.Normal(0.0, omega=1.0), "b1": saem.Normal(0.0, omega=1.0),
                    "alpha": saem.Normal(0.0, random=False)},
    )  # fmt: skip
