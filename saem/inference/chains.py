"""How well the Markov chains of every individual mix, at given population parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.algorithms import SAEM_MOVES
from saem.contract import Array, Model
from saem.estep import MonteCarlo
from saem.estep import _layout as layout
from saem.estep.montecarlo import memory_views
from saem.exceptions import OptionError
from saem.inference._visits import require_gaussian, visit_all, visit_blocks
from saem.random import SeedLike, resolve_seed

if TYPE_CHECKING:
    import pandas as pd

    from saem.estep.moves import Move

__all__ = ["diagnose", "effective_size", "split_rhat"]

#: Iterations in which scales adapt, and cycles of each.
_ADAPT, _CYCLES = 20, 10


def diagnose(
    model: Model,
    theta: Array,
    moves: Sequence[Move] | MonteCarlo = SAEM_MOVES,
    *,
    n_states: int = 1000,
    n_chains: int = 4,
    seed: SeedLike = 0,
    n_threads: int | None = None,
) -> pd.DataFrame:
    """Run chains of every individual at fixed parameters and tell how well they mix.

    Scales adapt in 20 iterations of 10 cycles, as in a fit; then they stay.

    Parameters
    ----------
    model : Model
        With Gaussian latent coordinates.
    theta : ndarray
        Packed parameters.
    moves : sequence of moves, or MonteCarlo
        One cycle; or an E-step, of which moves, fallback, start, searches and adaptation count.
    n_states : int
        States of every chain, one per cycle; at least 8.
    n_chains : int
        Chains of every individual.
    seed : int, SeedSequence, Generator or None
        The same seed gives the same numbers for any number of threads.
    n_threads : int, optional

    Returns
    -------
    DataFrame
        A row per individual (ids where the model has them), with the columns

        ``acceptance_KIND``
            Rate of every kind of move that was tried.
        ``ess``
            Effective number of states, the least over the coordinates (`effective_size`).
        ``evaluations``
            Evaluations of the likelihood for these states, slopes included; the search for
            the mode, which is made once, is not.
        ``ess_per_evaluation``
            Their ratio.
        ``rhat``
            Split R-hat, the largest over the coordinates (`split_rhat`).
        ``jump``
            Mean squared jump per coordinate, whitened by the posterior covariance: 2
            for independent draws, 0 for chains that stand still.
        ``on_fallback``
            Whether the fallback moves were in use.

    Raises
    ------
    saem.exceptions.OptionError
        For options that are not allowed, or a model without Gaussian coordinates.
    """
    import pandas as pd

    require_gaussian(model, "the diagnosis of chains")
    if model.n_coords == 0:
        raise OptionError(
            "the model has no random effects, so that there are no chains to diagnose."
        )
    if n_states < 8 or n_chains < 1:
        raise OptionError(
            f"n_states={n_states!r} must be at least 8 and n_chains={n_chains!r} at least 1."
        )
    estep = moves if isinstance(moves, MonteCarlo) else MonteCarlo(moves=tuple(moves))
    estep = replace(
        estep, n_chains=n_chains, n_draws=n_chains * _CYCLES, path=1, exact=False, refresh=(),
        follow=(),
    )  # fmt: skip
    bound: Any = estep.bind(model)
    options: dict[str, Any] = {
        "seed": resolve_seed(seed)[0], "n_threads": n_threads,
        "work_size": bound.work_size - model.work_size,
    }  # fmt: skip
    for k in range(_ADAPT):
        _prepare(bound, theta, k, 1.0, options)
        for _ in _visit(bound, theta, k, options):
            pass
        bound.after(k)
    _prepare(bound, theta, _ADAPT, 0.5, options)
    bound.settings[1] = n_states
    bound.n_draws = n_states * n_chains
    views = memory_views(bound)
    before = {name: views[name].copy() for name in ("tried", "accepted", "evaluations")}
    n = model.n_individuals
    ess, rhat, jump = np.empty(n), np.empty(n), np.empty(n)
    for rows, records in _visit(bound, theta, _ADAPT, options):
        states = records.reshape(len(records), n_chains, n_states, -1)[..., 1 : 1 + model.n_coords]
        ess[rows] = effective_size(states).min(axis=-1)
        rhat[rows] = split_rhat(states).max(axis=-1)
        jump[rows] = _jumps(states)
    tried, accepted = (views[name] - before[name] for name in ("tried", "accepted"))
    evaluations = views["evaluations"] - before["evaluations"]
    evaluations = evaluations + tried[:, : layout.FIRST_GRADIENT].sum(axis=1)
    columns: dict[str, Any] = {}
    for kind, name in enumerate(layout.KINDS):
        if tried[:, kind].any():
            rate = accepted[:, kind] / np.maximum(tried[:, kind], 1.0)
            columns[f"acceptance_{name}"] = np.where(tried[:, kind] > 0.0, rate, np.nan)
    columns |= {
        "ess": ess, "evaluations": evaluations, "ess_per_evaluation": ess / evaluations,
        "rhat": rhat, "jump": jump, "on_fallback": views["fallback"] != 0.0,
    }  # fmt: skip
    individuals = getattr(model, "individuals", None)
    ids = individuals.ids if individuals is not None else range(n)
    return pd.DataFrame(columns, index=pd.Index(ids, name="id"))


def _prepare(bound: Any, theta: Array, k: int, gamma: float, options: dict[str, Any]) -> None:
    """Place the chains in iteration 0, and set moves and adaptation."""

    def visit(visitor: Any, settings: Array) -> None:
        visit_all(
            bound.model, visitor, theta, settings=settings, iteration=k, memories=bound.memories,
            **options,
        )  # fmt: skip

    bound.before(k, gamma, visit)


def _visit(
    bound: Any, theta: Array, k: int, options: dict[str, Any]
) -> Iterator[tuple[slice, Array]]:
    """Records of one visit of everybody, some individuals at a time."""
    for rows, records, _ in visit_blocks(
        bound.model, bound.visitor, theta, settings=bound.settings, memories=bound.memories,
        record_size=bound.record_size, iteration=k, **options,
    ):  # fmt: skip
        yield rows, records


def _halves(states: Array) -> Array:
    """First and second halves as chains of their own, (..., 2 n_chains, n_states // 2, d)."""
    half = states.shape[-2] // 2
    return np.concatenate([states[..., :half, :], states[..., -half:, :]], axis=-3)


def effective_size(states: Array) -> Array:
    """Effective number of draws of every coordinate.

    ``m L / tau`` for m half chains of length L, tau the sum of autocorrelations by the initial
    monotone sequence (Geyer 1992, Statist. Sci. 7, 473-483), the autocorrelations from within- and
    between-chain variances (Vehtari et al. 2021, Bayesian Anal. 16, 667-718, equations 10 and 11).

    Parameters
    ----------
    states : ndarray of shape (..., n_chains, n_states, d)

    Returns
    -------
    ndarray of shape (..., d)
        NaN for a coordinate that never moved.
    """
    chains = _halves(np.asarray(states, dtype=float))
    m, length = chains.shape[-3], chains.shape[-2]
    means = chains.mean(axis=-2, keepdims=True)
    spectrum = np.fft.rfft(chains - means, n=2 * length, axis=-2)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, axis=-2)[..., :length, :] / length
    covariance = covariance.mean(axis=-3)
    within = covariance[..., 0, :] * length / (length - 1)
    total = covariance[..., 0, :] + means[..., 0, :].var(axis=-2, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = 1.0 - (within[..., None, :] - covariance) / total[..., None, :]
    rho[..., 0, :] = 1.0
    even = 2 * (length // 2)
    pairs = rho[..., 0:even:2, :] + rho[..., 1:even:2, :]
    positive = np.logical_and.accumulate(pairs > 0.0, axis=-2)
    pairs = np.minimum.accumulate(np.where(positive, pairs, 0.0), axis=-2)
    tau = -1.0 + 2.0 * pairs.sum(axis=-2)
    return np.where(total > 0.0, m * length / np.maximum(tau, 1.0 / (m * length)), np.nan)


def split_rhat(states: Array) -> Array:
    """Split R-hat of every coordinate: 1 where all half chains tell the same.

    ``sqrt(((L - 1) / L W + B) / W)`` with W the mean variance within half chains of length L and
    B the variance of their means (Gelman et al. 2013, Bayesian Data Analysis, 11.4).

    Parameters
    ----------
    states : ndarray of shape (..., n_chains, n_states, d)

    Returns
    -------
    ndarray of shape (..., d)
        NaN for a coordinate that never moved.
    """
    chains = _halves(np.asarray(states, dtype=float))
    length = chains.shape[-2]
    within = chains.var(axis=-2, ddof=1).mean(axis=-2)
    between = chains.mean(axis=-2).var(axis=-2, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt((length - 1) / length + between / within)


def _jumps(states: Array) -> Array:
    """Mean squared jump per coordinate, whitened by the covariance of all states."""
    n, _, _, d = states.shape
    steps = np.diff(states, axis=2).reshape(n, -1, d)
    pooled = states.reshape(n, -1, d)
    centred = pooled - pooled.mean(axis=1, keepdims=True)
    covariance = np.einsum("imp,imq->ipq", centred, centred) / pooled.shape[1]
    second = np.einsum("imp,imq->ipq", steps, steps) / steps.shape[1]
    # Trace of covariance**-1 second; a direction without any movement counts nothing.
    inverse = np.linalg.pinv(covariance, hermitian=True)
    return np.asarray(np.einsum("ipq,iqp->i", inverse, second) / d)
