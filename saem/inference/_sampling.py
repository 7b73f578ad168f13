"""Log-likelihood by importance sampling."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from saem._types import make_visitor
from saem.contract import Array, Model
from saem.exceptions import OptionError, SaemWarning
from saem.inference._pareto import pareto_k, tail_size
from saem.inference._quadrature import quadrature
from saem.inference._value import Likelihood
from saem.inference._visits import Modes, find_modes, require_gaussian, visit_all
from saem.random import SeedLike, resolve_seed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ids_of", "importance_convergence", "importance_sampling"]

#: Default draws per individual: at most, at least, and of all together in between.
_MOST_SAMPLES, _FEWEST_SAMPLES, _ALL_SAMPLES = 5000, 1000, 500_000

#: Monte Carlo error of a log-likelihood, in nats, up to which draws are added by default: 0.1 of -2
#: log-likelihood, below what AIC can tell apart. Draws of all together that this may take.
ACCURATE, _MOST_IN_ALL = 0.05, 5_000_000
#: Reserve in the number of draws over what errors promise.
_RESERVE = 1.2

#: Draws of the pilot run.
_PILOT = 800
#: Proposals have standard deviations ``1 + this / sqrt(d)`` times the posterior's: wide enough
#: that skewed posteriors of few coordinates have no heavy-tailed weights, at a cost that does
#: not grow with d.
_INFLATION = 1.15
#: Share of the mean number of draws that an individual gets at least, and at most.
_FEWEST, _MOST = 0.2, 20.0
#: Pareto k above which weights are not to be relied on (Vehtari et al. 2024); ids named then.
HEAVY = 0.7
_NAMED = 10


def importance_sampling(
    model: Model,
    theta: Array,
    *,
    n_samples: int | None = None,
    accuracy: float | None = None,
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
    accuracy : float, optional
        Nats: more draws are taken until the Monte Carlo error is below, up to 5 000 000 of all
        individuals together. By default 0.05, that is 0.1 of -2 log-likelihood, unless
        `n_samples` is given.
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
        With the Monte Carlo standard error, by the delta method on the weights, and the Pareto
        k of every individual.

    Warns
    -----
    SaemWarning
        With the ids of individuals whose Pareto k is above 0.7.

    Notes
    -----
    ``p(y_i) = E_q[p(y_i | phi) N(phi; mu_i, Omega) / q(phi)]``. A pilot run of 800
    draws, most of them from a Student distribution at the Laplace mode, finds the posterior
    mean and covariance; the proposals of the main run are centred there, with
    standard deviations ``1 + 1.15 / d^(1/2)`` times as large (a skewed posterior has its mass
    elsewhere than at its mode). One draw in ten is from the prior, which keeps the
    weights bounded and finds other modes (Hesterberg 1995, Technometrics 37,
    185-194). Draws come in antithetic pairs, and the density of
    that Gaussian serves as control variate (Owen 2013, Monte Carlo theory, methods
    and examples, section 9.10). Draws are shared out in proportion to the
    standard deviations of the pilot's weights (Neyman allocation).
    """
    if model.n_coords == 0:
        return quadrature(model, theta, n_threads=n_threads)
    if accuracy is not None and not accuracy > 0.0:
        raise OptionError(f"accuracy={accuracy!r} must be above 0, such as 0.05.")
    if accuracy is None:
        accuracy = ACCURATE if n_samples is None else np.inf
    sampler = _Sampler(model, theta, n_samples, df, seed, modes, n_threads)
    most = max(1.0, 0.5 * _MOST_IN_ALL / sampler.pairs.sum())  # times as many
    while True:
        draws = (2 * sampler.pairs).astype(np.int64)
        n_tail = int(tail_size(draws).max()) + 1
        records = sampler.run(sampler.pairs, 1, n_tail)
        values, errors = records[:, 0].copy(), records[:, 1].copy()
        wanted = _RESERVE * float(np.sum(errors**2)) / accuracy**2
        if wanted <= _RESERVE or most < _RESERVE or not np.isfinite(wanted):
            break
        sampler.pairs = np.round(sampler.pairs * min(wanted, most))
        most /= min(wanted, most)
    shapes = np.array(
        [pareto_k(row, int(m)) for row, m in zip(records[:, -n_tail:], draws, strict=True)]
    )
    _warn_of_heavy_tails(model, shapes)
    return Likelihood(
        float(values.sum()), float(np.sqrt(np.sum(errors**2))), values, errors,
        "importance sampling", records[:, 2].copy(), draws, shapes,
    )  # fmt: skip


def importance_convergence(
    model: Model,
    theta: Array,
    *,
    n_samples: int | None = None,
    n_blocks: int = 20,
    df: int = 5,
    seed: SeedLike = 0,
    modes: Modes | None = None,
    n_threads: int | None = None,
) -> pd.DataFrame:
    """Course of the importance-sampled log-likelihood as draws are added.

    Parameters
    ----------
    model : Model
        With Gaussian random effects.
    theta : ndarray
        Packed parameters.
    n_samples : int, optional
        Draws per individual, on average, at the end; see `importance_sampling`.
    n_blocks : int
        Blocks of draws, each an estimate of its own.
    df : int
        Degrees of freedom of the Student proposals.
    seed : int, SeedSequence, Generator or None
    modes : Modes, optional
        Modes at theta, if they are known already.
    n_threads : int, optional

    Returns
    -------
    DataFrame
        One row per block: ``draws`` so far, per individual on average; ``loglik``, the
        estimate from all blocks so far; its Monte Carlo standard ``error``.

    Raises
    ------
    OptionError
        If blocks would have fewer than ten draws.

    Notes
    -----
    Likelihoods of the blocks (not their logarithms) are averaged, individual by individual.
    Where the course still climbs in steps at its end, few draws carry the estimate, and it
    is too small.
    """
    import pandas as pd

    if n_samples is None:
        n_samples = _default_samples(model)
    if isinstance(n_blocks, bool) or not 1 <= n_blocks <= n_samples // 10:
        raise OptionError(
            f"n_blocks={n_blocks!r} must be a whole number from 1 to {n_samples // 10}, a tenth "
            "of n_samples."
        )
    if model.n_coords == 0:
        raise OptionError("without random effects the log-likelihood needs no draws.")
    sampler = _Sampler(model, theta, n_samples, df, seed, modes, n_threads)
    pairs = np.maximum(5.0, np.round(sampler.pairs / n_blocks))
    level = np.full(model.n_individuals, -np.inf)  # log of the sum of likelihoods so far
    square = level.copy()  # log of the sum of their squared errors
    rows = []
    for block in range(n_blocks):
        found = sampler.run(pairs, 1 + block)
        level = np.logaddexp(level, found[:, 0])
        with np.errstate(divide="ignore"):  # an error of 0
            square = np.logaddexp(square, 2.0 * (found[:, 0] + np.log(found[:, 1])))
        draws = 2.0 * pairs.mean() * (block + 1)
        error = np.sqrt(np.exp(square - 2.0 * level).sum())
        rows.append((draws, float(np.sum(level - np.log(block + 1.0))), float(error)))
    return pd.DataFrame(rows, columns=["draws", "loglik", "error"])


def _default_samples(model: Model) -> int:
    return max(_FEWEST_SAMPLES, min(_MOST_SAMPLES, _ALL_SAMPLES // model.n_individuals))


class _Sampler:
    """Proposals of every individual, found by a pilot run, and the draws each gets."""

    def __init__(
        self, model: Model, theta: Array, n_samples: int | None, df: int, seed: SeedLike,
        modes: Modes | None, n_threads: int | None,
    ) -> None:  # fmt: skip
        require_gaussian(model, "importance sampling")
        if isinstance(df, bool) or not isinstance(df, int | np.integer) or not 1 <= df <= 100:
            raise OptionError(f"df={df!r} must be a whole number from 1 to 100.")
        if n_samples is None:
            n_samples = _default_samples(model)
        if n_samples < 10:
            raise OptionError(f"n_samples={n_samples!r} must be at least 10.")
        self.model, self.theta, self.df, self.n_threads = model, theta, int(df), n_threads
        self.seed = resolve_seed(seed)[0]
        n, d = model.n_individuals, model.n_coords
        modes = find_modes(model, theta, n_threads=n_threads) if modes is None else modes
        self.centre, self.factor, self.inflation = modes.phi, modes.factor, 1.0
        pilot_pairs = max(50, min(_PILOT, n_samples // 4) // 2)
        pilot = self.run(np.full(n, float(pilot_pairs)), 0)
        self.centre, self.factor = _recentred(modes, pilot, d)
        self.inflation = 1.0 + _INFLATION / np.sqrt(d)
        self.pairs = _shares(pilot[:, 3], 0.5 * n_samples)

    def run(self, pairs: Array, stage: int, n_tail: int = 0) -> Array:
        """Records of `visit_importance`; draws of every stage are its own."""
        from saem.inference import _importance

        model, (n, d) = self.model, self.centre.shape
        flat = self.factor.reshape(n, d * d)
        memories = np.concatenate([self.centre, flat, pairs[:, None]], axis=1)
        records, _ = visit_all(
            model, make_visitor(_importance.visit_importance), self.theta,
            settings=np.array([d, model.latent_size, self.df, self.inflation, stage]),
            memories=np.ascontiguousarray(memories),
            record_size=_importance.record_size(d, n_tail),
            work_size=_importance.work_size(d, self.df, model.latent_size), seed=self.seed,
            n_threads=self.n_threads,
        )  # fmt: skip
        return records


def ids_of(model: Model) -> list[Any]:
    """Ids of the individuals; their numbers where the model knows no ids."""
    data = getattr(model, "individuals", None)
    return list(data.ids) if data is not None else list(range(model.n_individuals))


def _warn_of_heavy_tails(model: Model, shapes: Array) -> None:
    """Name the individuals whose weights are not to be relied on."""
    bad = np.flatnonzero(shapes > HEAVY)
    if not bad.size:
        return
    ids = ids_of(model)
    worst = bad[np.argsort(-shapes[bad])]
    named = ", ".join(f"{ids[i]!r} (k = {shapes[i]:.2f})" for i in worst[:_NAMED])
    more = f" and {bad.size - _NAMED} more" if bad.size > _NAMED else ""
    warnings.warn(
        f"importance weights of {named}{more} have a heavy tail (Pareto k above {HEAVY}): their "
        "log-likelihood may be too small, and its error with it. Remedy: method='quadrature' for "
        "few random effects, else more draws (n_samples=...) or smaller df.",
        SaemWarning,
        stacklevel=4,
    )


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
