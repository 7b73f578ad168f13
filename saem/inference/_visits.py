"""Visits of all individuals at given parameters, outside any fit."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from saem._laplace import laplace_work
from saem._types import make_visitor
from saem.contract import Array, Model
from saem.engine import check_threads
from saem.estep import _moves
from saem.exceptions import OptionError
from saem.inference import _kernels

__all__ = [
    "Modes",
    "find_modes",
    "require_gaussian",
    "require_no_priors",
    "visit_all",
    "visit_blocks",
]

#: Numbers that records may take at a time (32 MB).
_BLOCK = 4_000_000
#: Individuals handed to a thread at a time, at least.
_SHARE = 8


def require_gaussian(model: Model, what: str) -> None:
    """Raise `OptionError` if the model has no Gaussian latent coordinates."""
    if "gaussian" not in model.capabilities:
        raise OptionError(
            f"{what} needs a model with Gaussian random effects; {model.name} offers "
            f"{sorted(model.capabilities)}."
        )


def require_no_priors(model: Model, what: str) -> None:
    """Raise `OptionError` if the estimates maximise more than the likelihood."""
    if model.penalised:
        raise OptionError(
            f"{what} compares likelihoods, but this model has priors, so that its estimates do not "
            "maximise the likelihood. Remedy: leave out the priors, or use bootstrap(...)."
        )


def visit_all(
    model: Model,
    visitor: Any,
    theta: Array,
    *,
    settings: Array,
    memories: Array,
    work_size: int,
    record_size: int = 0,
    seed: int = 0,
    iteration: int = 0,
    first: int = 0,
    n_threads: int | None = None,
) -> tuple[Array, Array]:
    """Visit the individuals first, first + 1, ..., one for each row of `memories`.

    Random numbers belong to individuals, so the result has the same bits for
    any number of threads and any division into blocks.

    Returns
    -------
    records : ndarray of shape (len(memories), record_size)
    values : ndarray of shape (len(memories),)
        What the visits returned.
    """
    n = len(memories)
    records, values = np.empty((n, record_size)), np.empty(n)
    threads = check_threads(n_threads)
    size = work_size + model.work_size

    def work(start: int, stop: int) -> None:
        _kernels.visit_range(
            model.kernels, visitor, model.values, model.offsets, theta, records[start:stop],
            memories[start:stop], settings, seed, iteration, first + start, size,
            values[start:stop],
        )  # fmt: skip

    share = max(_SHARE, -(-n // (4 * threads)))
    if threads == 1 or n <= share:
        work(0, n)
    else:
        with ThreadPoolExecutor(threads) as pool:
            jobs = [pool.submit(work, a, min(a + share, n)) for a in range(0, n, share)]
            for job in jobs:
                job.result()
    return records, values


def visit_blocks(
    model: Model, visitor: Any, theta: Array, *, memories: Array, record_size: int, **options: Any
) -> Iterator[tuple[slice, Array, Array]]:
    """As `visit_all`, some individuals at a time, so that records take little memory."""
    step = max(1, _BLOCK // max(1, record_size))
    for start in range(0, model.n_individuals, step):
        rows = slice(start, min(start + step, model.n_individuals))
        records, values = visit_all(
            model, visitor, theta, memories=memories[rows], record_size=record_size,
            first=start, **options,
        )  # fmt: skip
        yield rows, records, values


#: Searches for a mode from draws of the prior, besides that from its mean.
_SEARCHES = 3.0


@dataclass(frozen=True)
class Modes:
    """Laplace approximation of every individual's posterior.

    Attributes
    ----------
    phi : ndarray of shape (n_individuals, d)
        Modes of the Gaussian coordinates.
    factor : ndarray of shape (n_individuals, d, d)
        Lower factors of the covariances (inverse negative Hessians at the modes).
    log_joint : ndarray of shape (n_individuals,)
        ``log p(y_i, phi_i)`` at the modes; -inf where no mode was found.
    """

    phi: Array
    factor: Array
    log_joint: Array

    @property
    def covariance(self) -> Array:
        """Covariances, shape (n_individuals, d, d)."""
        return np.asarray(self.factor @ self.factor.transpose(0, 2, 1))


def find_modes(
    model: Model, theta: Array, *, start: Array | None = None, n_threads: int | None = None
) -> Modes:
    """Posterior modes by damped Newton steps, from the prior mean, prior draws and `start`.

    Parameters
    ----------
    model : Model
    theta : ndarray
        Packed parameters.
    start : ndarray of shape (n_individuals, d), optional
        Modes found before; the better of the two maxima is kept.
    n_threads : int, optional
    """
    require_gaussian(model, "a posterior mode")
    d, size = model.n_coords, model.latent_size
    # The memory of a sampler without chains: scales, then mode and factor.
    memories = np.zeros((model.n_individuals, _moves.memory_size(0, d, size)))
    settings = np.array([0.0, _SEARCHES, float(d), float(size), 1.0])
    if start is not None:
        memories[:, 2 * d : 3 * d] = start
        settings[4] = 0.0
    _, values = visit_all(
        model, make_visitor(_moves.visit_laplace), theta, settings=settings, memories=memories,
        work_size=_moves.work_size(0, 0, d, size) + laplace_work(d), n_threads=n_threads,
    )  # fmt: skip
    phi = memories[:, 2 * d : 3 * d].copy()
    factor = memories[:, 3 * d : 3 * d + d * d].reshape(len(memories), d, d).copy()
    return Modes(phi, factor, values)
