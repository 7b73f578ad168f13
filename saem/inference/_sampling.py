"""Log-likelihood by importance sampling."""

from __future__ import annotations

import numpy as np

from saem._types import make_visitor
from saem.contract import Array, Model
from saem.exceptions import OptionError
from saem.inference._quadrature import quadrature
from saem.inference._value import Likelihood
from saem.inference._visits import Modes, find_modes, require_gaussian, visit_all
from saem.random import SeedLike, resolve_seed

__all__ = ["importance_sampling"]

#: Default draws per individual: at most, at least, and of all together in between.
_MOST_SAMPLES, _FEWEST_SAMPLES, _ALL_SAMPLES = 5000, 1000, 500_000

#: Draws of the pilot run; inflation of the proposals, in standard deviations.
_PILOT = 800
_INFLATION = 1.15
#: Share of the mean number of draws that an individual gets at least, and at most.
_FEWEST, _MOST = 0.2, 20.0


def importance_sampling(
    model: Model,
    theta: Array,
    *,
    n_samples: int | None = None,
    df: int = 5,
    seed: SeedLike = 0,
    modes: Modes | None = None,
    n_threads: int | None = None,
) -> Likelihood:
    """Log-likelihood by importance sampling, for any number of random effects.

    Parameters
    ----------
    model : Model
        With Gaussian random effects.
    theta : ndarray
        Packed parameters.
    n_samples : int, optional
        Draws per individual, on average: individuals whose weights vary more
        get more of them. By default 5000, fewer (down to 1000) for more than a
        hundred individuals.
    df : int
        Degrees of freedom of the Student proposals.
    seed : int, SeedSequence, Generator or None
        The same seed gives the same bits for any number of threads.
    modes : Modes, optional
        Modes at theta, if they are known already.
    n_threads : int, optional

    Returns
    -------
    Likelihood
        With the Monte Carlo standard error, by the delta method on the weights.

    Notes
    -----
    ``p(y_i) = E_q[p(y_i | phi) N(phi; mu_i, Omega) / q(phi)]``. A pilot run of 800
    draws, most of them from a Student distribution at the Laplace mode, finds the posterior
    mean and covariance; the proposals of the main run are centred there, with
    standard deviations 1.15 times as large (a skewed posterior has its mass
    elsewhere than at its mode). One draw in ten is from the prior, which keeps the
    weights bounded and finds other modes (Hesterberg 1995, Technometrics 37,
    185-194). Draws come in antithetic pairs, and the density of
    that Gaussian serves as control variate (Owen 2013, Monte Carlo theory, methods
    and examples, section 9.10). Draws are shared out in proportion to the
    standard deviations of the pilot's weights (Neyman allocation).
    """
    from saem.inference import _importance

    require_gaussian(model, "importance sampling")
    if isinstance(df, bool) or not isinstance(df, int | np.integer) or not 1 <= df <= 100:
        raise OptionError(f"df={df!r} must be a whole number from 1 to 100.")
    if n_samples is None:
        n_samples = max(_FEWEST_SAMPLES, min(_MOST_SAMPLES, _ALL_SAMPLES // model.n_individuals))
    if n_samples < 10:
        raise OptionError(f"n_samples={n_samples!r} must be at least 10.")
    n, d = model.n_individuals, model.n_coords
    if d == 0:
        return quadrature(model, theta, n_threads=n_threads)
    modes = find_modes(model, theta, n_threads=n_threads) if modes is None else modes
    visitor = make_visitor(_importance.visit_importance)
    entropy = resolve_seed(seed)[0]

    def run(centre: Array, factor: Array, pairs: Array, inflation: float, stage: int) -> Array:
        memories = np.concatenate([centre, factor.reshape(n, d * d), pairs[:, None]], axis=1)
        records, _ = visit_all(
            model, visitor, theta, settings=np.array([d, model.latent_size, df, inflation, stage]),
            memories=np.ascontiguousarray(memories), record_size=_importance.record_size(d),
            work_size=_importance.work_size(d, int(df), model.latent_size), seed=entropy,
            n_threads=n_threads,
        )  # fmt: skip
        return records

    pilot_pairs = max(50, min(_PILOT, n_samples // 4) // 2)
    pilot = run(modes.phi, modes.factor, np.full(n, float(pilot_pairs)), 1.0, 0)
    centre, factor = _recentred(modes, pilot, d)
    pairs = _shares(pilot[:, 3], 0.5 * n_samples)
    records = run(centre, factor, pairs, _INFLATION, 1)
    values, errors = records[:, 0].copy(), records[:, 1].copy()
    return Likelihood(
        float(values.sum()), float(np.sqrt(np.sum(errors**2))), values, errors,
        "importance sampling", records[:, 2].copy(), (2 * pairs).astype(np.int64),
    )  # fmt: skip


def _recentred(modes: Modes, pilot: Array, d: int) -> tuple[Array, Array]:
    """Posterior means and factors of the covariances, as the pilot run found them.

    The covariance is a mean of the pilot's, weighted by its effective sample
    size, and of the Laplace approximation's, weighted as 10 draws a coordinate.
    """
    centre, factor = modes.phi.copy(), modes.factor.copy()
    ess = pilot[:, 2]
    rows = np.flatnonzero(np.isfinite(pilot[:, 0]) & (ess > 5.0 * d))
    mean = pilot[rows, 4 : 4 + d]
    covariance = pilot[rows, 4 + d :].reshape(-1, d, d)
    shift = mean - modes.phi[rows]
    laplace = modes.covariance[rows] + shift[:, :, None] * shift[:, None, :]
    own, other = ess[rows, None, None], 10.0 * d
    mixed = (own * covariance + other * laplace) / (own + other)
    # Sums of squares and of products: positive definite, unless they were rounded away.
    proper = np.linalg.eigvalsh(mixed)[:, 0] > 0.0
    centre[rows[proper]] = mean[proper]
    factor[rows[proper]] = np.linalg.cholesky(mixed[proper])
    return centre, np.ascontiguousarray(factor)


def _shares(sd: Array, mean_pairs: float) -> Array:
    """Pairs of every individual, in proportion to the standard deviation of one pair."""
    sd = np.where(np.isfinite(sd), sd, 0.0)
    weight = sd / sd.mean() if sd.mean() > 0 else np.ones_like(sd)
    weight = np.clip(weight, _FEWEST, _MOST)
    return np.maximum(5.0, np.round(mean_pairs * weight / weight.mean()))
