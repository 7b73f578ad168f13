"""Posterior of every individual's parameters at given population parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.algorithms import SAEM_MOVES
from saem.contract import Array
from saem.estep import MonteCarlo
from saem.exceptions import OptionError
from saem.inference._visits import Modes, find_modes, visit_all, visit_blocks
from saem.inference.linearisation import all_phi, design_of, to_psi
from saem.inference.posterior import model_nodes, quadrature_records, split
from saem.random import SeedLike, resolve_seed

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = ["Conditional", "conditional", "moments", "samples"]

#: Chains of an individual, iterations in which their scales adapt.
_CHAINS, _BURN_IN = 8, 20
#: Cycles of every chain in one round; fewest and most rounds.
_CYCLES, _FEWEST, _MOST = 25, 16, 80
#: Cycles between two draws that are handed out.
_THIN = 3


@dataclass(frozen=True)
class Conditional:
    """Posterior means and standard deviations of the individual parameters.

    Attributes
    ----------
    psi_mean, psi_sd : ndarray of shape (n_individuals, n_params)
        On the natural scale, parameters without random effect included.
    eta_mean, eta_sd : ndarray of shape (n_individuals, d)
        Of the random effects, on the Gaussian scale.
    mc_error : ndarray of shape (n_individuals, n_params)
        Monte Carlo standard error of `psi_mean`; 0 by quadrature.
    method : str
        ``"quadrature"`` or ``"chains"``.
    """

    psi_mean: Array
    psi_sd: Array
    eta_mean: Array
    eta_sd: Array
    mc_error: Array
    method: str


def moments(
    model: NLME, theta: Array, *, seed: SeedLike = 0, n_threads: int | None = None
) -> tuple[Array, Array]:
    """Posterior means and standard deviations on the natural scale; see `conditional`.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    seed : int, SeedSequence, Generator or None
    n_threads : int, optional

    Returns
    -------
    mean, sd : ndarray of shape (n_individuals, n_params)
    """
    found = conditional(model, theta, seed=seed, n_threads=n_threads)
    return found.psi_mean, found.psi_sd


def conditional(
    model: NLME,
    theta: Array,
    *,
    method: str = "auto",
    accuracy: float = 0.05,
    seed: SeedLike = 0,
    n_threads: int | None = None,
    modes: Modes | None = None,
) -> Conditional:
    """Posterior means and standard deviations of every individual.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    method : {"auto", "quadrature", "chains"}
        Quadrature, which has no noise, for up to four random effects; Markov chains
        that start at the modes beyond.
    accuracy : float
        The chains go on until the Monte Carlo errors of the means, relative to the
        posterior standard deviations, are below this in the root mean square
        of every parameter, or 16,000 draws per individual are reached.
    seed : int, SeedSequence, Generator or None
    n_threads : int, optional
    modes : Modes, optional
        Modes at theta if they are known already; found otherwise.

    Returns
    -------
    Conditional
    """
    if method not in ("auto", "quadrature", "chains"):
        raise OptionError(f"method={method!r} must be 'auto', 'quadrature' or 'chains'.")
    n_nodes = model_nodes(model)
    if method == "quadrature" and n_nodes is None:
        raise OptionError(
            f"quadrature is too costly for {model.n_coords} random effects. Remedy: "
            "method='chains'."
        )
    sums = _Sums(model, theta)
    if n_nodes is not None and method != "chains":
        # From modes of several searches: a search from the prior mean alone may end in a
        # lesser mode, such as that of flip-flop kinetics.
        if modes is None and model.n_coords:
            modes = find_modes(model, theta, n_threads=n_threads)
        for rows, records in quadrature_records(model, theta, n_nodes, n_threads, modes):
            sums.add(rows, records)
        return sums.finish("quadrature")
    chains = _Chains(model, theta, _CHAINS, seed, n_threads)
    for number in range(_MOST):
        for rows, records in chains.advance(_CYCLES):
            sums.add(rows, records)
        sums.close_round()
        if number + 1 >= _FEWEST and sums.relative_error() < accuracy:
            break
    return sums.finish("chains")


def samples(
    model: NLME,
    theta: Array,
    n_samples: int,
    *,
    seed: SeedLike = 0,
    n_threads: int | None = None,
) -> Array:
    """Draws from every individual's posterior, on the natural scale.

    Markov chains with the moves of SAEM start at the modes; 20 iterations adapt
    their scales, then every third state is a draw.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    n_samples : int
        Draws per individual.
    seed : int, SeedSequence, Generator or None
        The same seed gives the same bits for any number of threads.
    n_threads : int, optional

    Returns
    -------
    ndarray of shape (n_individuals, n_samples, n_params)
    """
    if n_samples < 1:
        raise OptionError(f"n_samples={n_samples!r} must be at least 1.")
    chains = _Chains(model, theta, min(_CHAINS, n_samples), seed, n_threads)
    per_chain = -(-n_samples // chains.n_chains)
    out = np.empty((model.n_individuals, n_samples, len(model.parameters)))
    for rows, records in chains.advance(_THIN * per_chain):
        _, latent = split(model, records)
        shape = (len(latent), chains.n_chains, per_chain, _THIN, model.latent_size)
        kept = latent.reshape(shape)[:, :, :, -1].reshape(len(latent), -1, model.latent_size)
        out[rows] = psi_of_draws(model, theta, kept[:, :n_samples], rows)
    return out


def psi_of_draws(model: NLME, theta: Array, latent: Array, rows: slice) -> Array:
    """Natural parameters (n, m, n_params) of latent draws (n, m, latent_size)."""
    fixed = all_phi(model, theta)[rows]
    phi = np.repeat(fixed[:, None], latent.shape[1], axis=1)
    index = model.theta_spec.view(theta)["parameter"].astype(int)
    phi[:, :, index] = latent[:, :, : model.n_coords]
    return to_psi(model, phi)


class _Chains:
    """Chains of all individuals at fixed theta, adapted and ready to be advanced."""

    def __init__(
        self, model: NLME, theta: Array, n_chains: int, seed: SeedLike, n_threads: int | None
    ) -> None:
        self.model, self.theta, self.n_chains = model, theta, n_chains
        self.bound: Any = MonteCarlo(moves=SAEM_MOVES, n_chains=n_chains, n_draws=n_chains).bind(
            model
        )
        self.options: dict[str, Any] = {
            "seed": resolve_seed(seed)[0],
            "n_threads": n_threads,
            "work_size": self.bound.work_size - model.work_size,
        }
        self.k = 0
        for _ in range(_BURN_IN):
            self._prepare(gamma=1.0)
            for _ in self._visit():
                pass

    def _prepare(self, gamma: float) -> None:
        def visit(visitor: Any, settings: Array) -> None:
            visit_all(
                self.model, visitor, self.theta, settings=settings, iteration=self.k,
                memories=self.bound.memories, **self.options,
            )  # fmt: skip

        self.bound.before(self.k, gamma, visit)

    def _visit(self) -> Iterator[tuple[slice, Array]]:
        bound = self.bound
        for rows, records, _ in visit_blocks(
            self.model, bound.visitor, self.theta, settings=bound.settings,
            memories=bound.memories, record_size=bound.record_size, iteration=self.k,
            **self.options,
        ):  # fmt: skip
            yield rows, records
        bound.after(self.k)
        self.k += 1

    def advance(self, cycles: int) -> Iterator[tuple[slice, Array]]:
        """Records of so many cycles of every chain, chain by chain, without adaptation."""
        self._prepare(gamma=0.5)
        self.bound.settings[1] = cycles
        self.bound.n_draws = cycles * self.n_chains
        yield from self._visit()


class _Sums:
    """Running moments of psi and eta over rounds of weighted draws."""

    def __init__(self, model: NLME, theta: Array) -> None:
        self.model, self.theta = model, theta
        view = model.theta_spec.view(theta)
        index = view["parameter"].astype(int)
        self.mu = (design_of(model) @ view["beta"])[:, index]
        n, p, d = model.n_individuals, len(model.parameters), model.n_coords
        self.rounds: list[Array] = []
        self.first, self.second = np.zeros((n, p + d)), np.zeros((n, p + d))
        self.mean = np.zeros((n, p + d))
        #: Differences are taken from here: squares of large numbers would cancel.
        self.centre = np.concatenate([to_psi(model, all_phi(model, theta)), np.zeros((n, d))], 1)

    def add(self, rows: slice, records: Array) -> None:
        """Take in one round of some individuals."""
        d = self.model.n_coords
        weights, latent = split(self.model, records)
        psi = psi_of_draws(self.model, self.theta, latent, rows)
        values = np.concatenate([psi, latent[:, :, :d] - self.mu[rows, None]], axis=2)
        values -= self.centre[rows, None]
        self.mean[rows] = np.einsum("im,imp->ip", weights, values)
        self.first[rows] += self.mean[rows]
        self.second[rows] += np.einsum("im,imp->ip", weights, values * values)

    def close_round(self) -> None:
        """Keep the means of a round, for the Monte Carlo error."""
        self.rounds.append(self.mean.copy())

    def _moments(self) -> tuple[Array, Array, Array]:
        count = max(1, len(self.rounds))
        mean = self.first / count
        sd = np.sqrt(np.maximum(self.second / count - mean * mean, 0.0))
        error = np.zeros_like(mean)
        if count > 1:
            error = np.std(self.rounds, axis=0, ddof=1) / np.sqrt(count)
        return mean + self.centre, sd, error

    def relative_error(self) -> float:
        """Largest root mean square, over parameters, of error by standard deviation."""
        _, sd, error = self._moments()
        ratio = np.divide(error, sd, out=np.zeros_like(sd), where=sd > 0)
        return float(np.sqrt(np.square(ratio).mean(axis=0)).max())

    def finish(self, method: str) -> Conditional:
        """Moments of everything that was taken in."""
        mean, sd, error = self._moments()
        p = len(self.model.parameters)
        return Conditional(mean[:, :p], sd[:, :p], mean[:, p:], sd[:, p:], error[:, :p], method)
