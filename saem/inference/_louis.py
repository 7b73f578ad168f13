"""Information from posterior moments of the complete data's score.

With ``m_i = E[score_i | y_i]``, the score of the observed data of individual i,

    Louis       E[-d2 log f | y] - sum_i Var(score_i | y_i)
    score       sum_i m_i m_i'

The moments are by quadrature for few random effects, without any error to speak of; by Markov
chains in rounds elsewhere, and then with a Monte Carlo error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.exceptions import OptionError
from saem.inference._blocks import complete_information, marginal_information
from saem.inference._conclusion import Information, boundary_of, conclude

if TYPE_CHECKING:
    from saem.inference._visits import Modes
    from saem.nlme.model import NLME
    from saem.random import SeedLike

__all__ = ["louis_information", "sandwich_information", "score_information"]

#: Rounds of draws; their differences give the Monte Carlo error.
_ROUNDS, _CHAINS = 20, 8
#: Default draws per individual, and the fewest.
_SAMPLES, _FEWEST = 4000, _ROUNDS * _CHAINS
#: Times as many draws that are tried in turn for an accuracy.
_GROWTH = (1, 4, 16, 64)


class _Moments:
    """Posterior moments of the scores, round by round.

    Attributes
    ----------
    means : ndarray of shape (n_rounds, n_individuals, n_params)
        Scores of the observed data, as every round estimates them.
    seconds : ndarray of shape (n_rounds, n_params, n_params)
        ``sum_i E[score_i score_i' | y_i]``.
    complete : ndarray of shape (n_rounds, n_params, n_params)
        Information of the complete data.
    boundary : ndarray of bool
    """

    def __init__(
        self, model: NLME, theta: Array, *, modes: Modes | None, n_samples: int | None,
        seed: SeedLike, n_threads: int | None, n_nodes: int | None = None,
    ) -> None:  # fmt: skip
        from saem.inference._complete import complete_curvature
        from saem.inference._visits import find_modes
        from saem.inference.linearisation import linearise
        from saem.inference.posterior import (
            Curvature,
            scores,
            second_moments,
            split,
            sum_of_statistics,
        )

        self.model, self.theta = model, theta
        modes = find_modes(model, theta, n_threads=n_threads) if modes is None else modes
        lin = linearise(model, theta, modes=modes, n_threads=n_threads)
        self.boundary = boundary_of(model, theta, marginal_information(model, theta, lin))
        expected = complete_information(model, theta, lin)
        means, seconds, completes = [], [], []
        for records in _rounds(model, theta, modes, n_samples, seed, n_threads, n_nodes):
            curvature = Curvature(model, theta, expected)
            mean = np.empty((model.n_individuals, len(expected)))
            second = np.zeros_like(expected)
            statistic = np.zeros(model.stat_spec.size)
            for rows, block in records:
                weights, _ = split(model, block)
                score = scores(model, theta, block, rows)
                mean[rows] = np.einsum("im,imp->ip", weights, score)
                second += second_moments(model, block, score)
                curvature.add(rows, block)
                if model.penalised:
                    statistic += sum_of_statistics(model, block, rows) / model.n_individuals
            complete = expected.copy()
            if model.penalised:  # the maximum of the likelihood is elsewhere
                complete = complete_curvature(model, theta, statistic, expected)
            curvature.replace(complete)
            means.append(mean)
            seconds.append(second)
            completes.append(complete)
        self.means, self.seconds = np.array(means), np.array(seconds)
        self.complete = np.array(completes)

    def cross_product(self, left_out: int | None = None) -> Array:
        """``sum_i m_i m_i'``, products of different rounds only, where there are several.

        The square of a noisy mean is too large by its variance; a product of two rounds is
        not. One round may be left out.
        """
        means = self.means if left_out is None else np.delete(self.means, left_out, axis=0)
        r, total = len(means), means.sum(axis=0)
        square = total.T @ total
        if r == 1:
            return square
        flat = means.reshape(-1, means.shape[-1])
        return np.asarray((square - flat.T @ flat) / (r * (r - 1)))

    def observed(self, left_out: int | None = None) -> Array:
        """Louis' information."""
        difference = self.complete - self.seconds
        if left_out is not None:
            difference = np.delete(difference, left_out, axis=0)
        return np.asarray(difference.mean(axis=0)) + self.cross_product(left_out)

    def sandwich(self, left_out: int | None = None) -> Array:
        """Godambe's information ``H J^-1 H`` of the parameters off the boundary, NaN elsewhere."""
        free = np.ix_(~self.boundary, ~self.boundary)
        observed, variance = self.observed(left_out)[free], self.cross_product(left_out)[free]
        matrix = np.full(self.complete.shape[1:], np.nan)
        matrix[free] = observed @ np.linalg.pinv(variance, hermitian=True) @ observed
        return matrix

    def conclude(self, name: str, matrix: Any) -> Information:
        """Standard errors from one of the matrices, and how far draws have moved them."""
        derivative = self.model.natural_derivative(self.theta)
        found = conclude(self.model, matrix(), derivative, self.boundary, name)
        found = replace(found, complete=self.complete.mean(axis=0))
        rounds = len(self.means)
        if rounds == 1:
            return found
        free = np.flatnonzero(~self.boundary)
        left = np.full((rounds, derivative.size), np.nan)
        for k in range(rounds):
            inverse = np.linalg.pinv(matrix(k)[np.ix_(free, free)], hermitian=True)
            left[k, free] = np.sqrt(np.maximum(np.diagonal(inverse), 0.0))
        spread = np.square(left - left.mean(axis=0)).sum(axis=0) * (rounds - 1.0) / rounds
        return replace(found, bse_error=np.sqrt(spread) * np.abs(derivative))


def _rounds(
    model: NLME,
    theta: Array,
    modes: Modes,
    n_samples: int | None,
    seed: SeedLike,
    n_threads: int | None,
    n_nodes: int | None,
) -> Iterator[Any]:
    """Rounds of weighted draws of all individuals: one of quadrature nodes, or many of chains."""
    from saem.inference.individuals import _Chains
    from saem.inference.posterior import model_nodes, quadrature_records

    n_nodes = n_nodes or model_nodes(model)
    if n_nodes is not None and n_samples is None:
        yield quadrature_records(model, theta, n_nodes, n_threads, modes)
        return
    n_samples = _SAMPLES if n_samples is None else n_samples
    if n_samples < _FEWEST:
        raise OptionError(f"n_samples={n_samples!r} must be at least {_FEWEST}.")
    chains = _Chains(model, theta, _CHAINS, seed, n_threads)
    for _ in range(_ROUNDS):
        yield chains.advance(-(-n_samples // (_ROUNDS * _CHAINS)))


def louis_information(
    model: NLME,
    theta: Array,
    *,
    modes: Modes | None = None,
    n_samples: int | None = None,
    accuracy: float | None = None,
    n_nodes: int | None = None,
    seed: SeedLike = 0,
    n_threads: int | None = None,
) -> Information:
    """Observed information at the maximum, as complete less missing information.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters, at the maximum of the likelihood.
    modes : Modes, optional
        Modes at theta, if they are known already.
    n_samples : int, optional
        Draws per individual, by Markov chains. By default quadrature is used instead for up to
        four random effects, and 4000 draws beyond.
    accuracy : float, optional
        With draws: take four times as many until the Monte Carlo error of every standard error is
        below this part of it, up to 64 times.
    n_nodes : int, optional
        Nodes per random effect, in place of the default's 15, 11, 9 or 5.
    seed : int, SeedSequence, Generator or None
        Of the chains.
    n_threads : int, optional

    Returns
    -------
    Information
        With the Monte Carlo errors of its standard errors where chains were used.

    Notes
    -----
    ``I = E[-d2 log f | y] - sum_i Var(d log f_i | y_i)`` (Louis 1982, JRSS B 44,
    226-233). The first term is the expected information where the model
    is an exponential family, second differences elsewhere. Chains run in 20 rounds; errors are
    by the jackknife over rounds.
    """
    if accuracy is not None and not accuracy > 0.0:
        raise OptionError(f"accuracy={accuracy!r} must be above 0, such as 0.02.")
    for more in _GROWTH:
        times = n_samples if more == 1 else more * (n_samples or _SAMPLES)
        moments = _Moments(
            model, theta, modes=modes, n_samples=times, seed=seed, n_threads=n_threads,
            n_nodes=n_nodes,
        )  # fmt: skip
        found = moments.conclude("Louis", moments.observed)
        if accuracy is None or found.bse_error is None:
            break
        if np.nanmax(found.bse_error / found.bse, initial=0.0) <= accuracy:
            break
    return found


def score_information(
    model: NLME,
    theta: Array,
    *,
    modes: Modes | None = None,
    n_samples: int | None = None,
    seed: SeedLike = 0,
    n_threads: int | None = None,
) -> Information:
    """Cross-product of the individuals' scores, ``sum_i s_i s_i'``.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters, at the maximum of the likelihood.
    modes, n_samples, seed, n_threads
        As for `louis_information`.

    Returns
    -------
    Information

    Notes
    -----
    Berndt, Hall, Hall and Hausman (1974), Ann. Econ. Soc. Meas. 3, 653-665. Positive
    semi-definite, and consistent if the model is right; with few individuals far more variable
    than the observed information, and singular with fewer individuals than parameters. The scores
    are not centred: at the maximum they add up to 0.
    """
    moments = _Moments(
        model, theta, modes=modes, n_samples=n_samples, seed=seed, n_threads=n_threads
    )
    return moments.conclude("score", moments.cross_product)


def sandwich_information(
    model: NLME,
    theta: Array,
    *,
    modes: Modes | None = None,
    n_samples: int | None = None,
    seed: SeedLike = 0,
    n_threads: int | None = None,
) -> Information:
    """Godambe's information ``H J^-1 H``, whose inverse holds where the model is not quite right.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters, at the maximum of the likelihood.
    modes, n_samples, seed, n_threads
        As for `louis_information`.

    Returns
    -------
    Information
        Its covariance is ``H^-1 J H^-1``, H Louis' information and J the cross-product of scores.

    Notes
    -----
    Huber 1967; White 1982, Econometrica 50, 1-25. Errors in distributions are forgiven,
    not errors in the structural model; with few individuals it is as variable as J.
    """
    moments = _Moments(
        model, theta, modes=modes, n_samples=n_samples, seed=seed, n_threads=n_threads
    )
    return moments.conclude("sandwich", moments.sandwich)
