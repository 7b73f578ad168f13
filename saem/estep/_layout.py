"""What the compiled moves and their settings and memories look like as flat numbers.

Memory of an individual, in this order: the state of every chain (latent_size
numbers each), log scales of the coordinate walk (d), of the block walk by
block size (d), the Laplace mode (d) and covariance factor (d * d) on the
natural z scale, log steps of the gradient moves, counts of tried and accepted
moves per kind, the count of likelihood evaluations, 1 where the fallback moves
are in use, the counts of the independent proposals where the stretch being judged began, and
1 where the last search for modes found several.

Settings, of which the search for modes reads the first five: chains, cycles
(or random searches), d, latent_size, gain of the adaptation (or 1 to place the chains);
then for the moves and for the fallback moves each their number and the normal
and uniform numbers of one cycle; where the fallback moves begin; the acceptance
rates aimed at, per kind; the moves.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "ANISOTROPIC",
    "BLOCK",
    "COORDINATE",
    "FIRST_GRADIENT",
    "GROUP",
    "HAMILTONIAN",
    "HEADER",
    "KINDS",
    "LANGEVIN",
    "LAPLACE",
    "N_GRADIENT",
    "N_KINDS",
    "PER_MOVE",
    "PRIOR",
    "TARGETS",
    "MemoryParts",
    "memory_parts",
    "memory_size",
    "work_size",
]

#: Codes of the moves; the last three use gradients.
PRIOR, COORDINATE, BLOCK, LAPLACE, LANGEVIN, ANISOTROPIC, HAMILTONIAN = range(7)
KINDS = ("prior", "coordinate", "block", "laplace", "langevin", "anisotropic", "hamiltonian")
N_KINDS = len(KINDS)
FIRST_GRADIENT, N_GRADIENT = LANGEVIN, 3
#: Where the targets stand in `settings`, numbers before the moves, and per move.
TARGETS = 12
HEADER, PER_MOVE = TARGETS + N_KINDS, 5
#: Cycles whose random numbers are drawn at once: long loops vectorise, short ones do not.
GROUP = 4


class MemoryParts(NamedTuple):
    """First positions of the parts of a memory, and its length."""

    scales: int
    blocks: int
    mode: int
    factor: int
    steps: int
    tried: int
    accepted: int
    evaluations: int
    fallback: int
    renewed: int
    several: int
    size: int


def memory_parts(n_chains: int, d: int, latent_size: int) -> MemoryParts:
    """Where the parts of an individual's memory begin."""
    at = n_chains * latent_size
    lengths = (d, d, d, d * d, N_GRADIENT, N_KINDS, N_KINDS, 1, 1, 2, 1)
    starts = [at]
    for length in lengths:
        starts.append(starts[-1] + length)
    return MemoryParts(*starts)


def memory_size(n_chains: int, d: int, latent_size: int) -> int:
    """Length of an individual's memory."""
    return memory_parts(n_chains, d, latent_size).size


def work_size(n_normal: int, n_uniform: int, d: int, latent_size: int) -> int:
    """Scratch numbers of the visitors, without the model's and Laplace's."""
    return GROUP * (n_normal + n_uniform) + 9 * d + 3 * d * d + 2 * latent_size + 2 * N_GRADIENT
