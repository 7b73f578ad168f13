"""Draws from every individual's posterior that go on until their means are accurate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array
from saem.exceptions import OptionError, Problems
from saem.inference.individuals import _Chains, psi_of_draws
from saem.inference.posterior import split
from saem.random import SeedLike

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = ["ConditionalSamples", "conditional_samples"]

#: Chains of an individual, and cycles of every chain in one round.
_CHAINS, _CYCLES = 8, 10
#: Batches into which the course of a chain is cut for the Monte Carlo error.
_BATCHES = 8


@dataclass(frozen=True)
class ConditionalSamples:
    """Draws from the posterior of every individual, and how accurate their means are.

    Attributes
    ----------
    psi : ndarray of shape (n_individuals, n_draws, n_params)
        On the natural scale; chain by chain, each in its order.
    n_chains : int
        Chains of equal length that the draws of an individual come from.
    accuracy : ndarray of shape (n_individuals,)
        Monte Carlo standard error of the mean over posterior standard deviation, the
        largest over the parameters.
    requested : float
        What was asked for.
    """

    psi: Array
    n_chains: int
    accuracy: Array
    requested: float

    @property
    def n_draws(self) -> int:
        """Draws of every individual."""
        return int(self.psi.shape[1])

    @property
    def reached(self) -> NDArray[np.bool_]:
        """Whether each individual has the accuracy that was asked for."""
        return np.asarray(self.accuracy <= self.requested)

    @property
    def mean(self) -> Array:
        """Posterior means, shape (n_individuals, n_params)."""
        return np.asarray(self.psi.mean(axis=1))

    @property
    def sd(self) -> Array:
        """Posterior standard deviations, shape (n_individuals, n_params)."""
        return np.asarray(self.psi.std(axis=1))


def conditional_samples(
    model: NLME,
    theta: Array,
    *,
    accuracy: float = 0.05,
    max_draws: int = 16_000,
    seed: SeedLike = 0,
    n_threads: int | None = None,
) -> ConditionalSamples:
    """Draw from every individual's posterior until the mean of each is accurate.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    accuracy : float
        Largest Monte Carlo error of a mean, as a fraction of the posterior standard
        deviation; every parameter of every individual must have it.
    max_draws : int
        Draws of an individual at most, whatever is reached by then.
    seed : int, SeedSequence, Generator or None
        The same seed gives the same bits for any number of threads.
    n_threads : int, optional

    Returns
    -------
    ConditionalSamples

    Raises
    ------
    saem.exceptions.OptionError
        If the accuracy or the budget is out of range.

    Notes
    -----
    Eight chains of each individual start at its mode and adapt for 20 iterations; then every
    state is a draw. The Monte Carlo error is that of the means of 64 batches, eight of
    each chain, which grow with the run; the rule is looked at whenever the run has
    grown by a quarter, so that it cannot stop at the first lucky moment.
    """
    fewest = _CHAINS * _CYCLES * _BATCHES
    problems = Problems("the conditional samples")
    if not accuracy > 0.0:
        problems.add(f"accuracy={accuracy!r} must be positive, such as 0.05")
    if not max_draws >= fewest:
        problems.add(f"max_draws={max_draws!r} must be at least {fewest}")
    problems.raise_if_any(OptionError)
    chains = _Chains(model, theta, _CHAINS, seed, n_threads)
    rounds: list[Array] = []
    shape = (model.n_individuals, _CHAINS, _CYCLES, len(model.parameters))
    target = _BATCHES
    while True:
        psi = np.empty(shape)
        for rows, records in chains.advance(_CYCLES):
            latent = split(model, records)[1]
            psi[rows] = psi_of_draws(model, theta, latent, rows).reshape(-1, *shape[1:])
        rounds.append(psi)
        spent = len(rounds) * _CHAINS * _CYCLES
        last = spent + _CHAINS * _CYCLES > max_draws
        if len(rounds) < target and not last:
            continue
        whole = np.concatenate(rounds, axis=2)
        reached = relative_error(whole)
        if last or (reached <= accuracy).all():
            draws = whole.reshape(shape[0], -1, shape[3])
            return ConditionalSamples(draws, _CHAINS, reached, accuracy)
        target = max(target + 1, int(1.25 * len(rounds)))


def relative_error(psi: Array) -> Array:
    """Monte Carlo error of means by standard deviation, the largest over parameters.

    Parameters
    ----------
    psi : ndarray of shape (n_individuals, n_chains, length, n_params)
        States of chains.

    Returns
    -------
    ndarray of shape (n_individuals,)
        By means of batches; 0 where nothing varies.
    """
    n, n_chains, length, p = psi.shape
    size = length // _BATCHES
    cut = psi[:, :, length - size * _BATCHES :]
    means = cut.reshape(n, n_chains * _BATCHES, size, p).mean(axis=2)
    error = means.std(axis=1, ddof=1) / np.sqrt(n_chains * _BATCHES)
    sd = psi.reshape(n, -1, p).std(axis=1)
    # What is constant but for rounding has no error.
    varies = sd > 1e-12 * np.abs(psi.reshape(n, -1, p)).max(axis=1)
    ratio = np.divide(error, sd, out=np.zeros_like(sd), where=varies)
    return np.asarray(ratio.max(axis=1, initial=0.0))
