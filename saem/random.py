"""Randomness: one place where seeds are resolved, one counter-based generator.

A draw is a pure function of (seed, individual, iteration, position), so the
numbers an individual sees do not depend on threads, block sizes, the order of
visits or an interruption: there is no generator state to save.

The generator is SplitMix64: output j of stream `key` is
``mix(key + (j + 1) * 0x9E3779B97F4A7C15)``.

References
----------
Steele, G. L., Lea, D. and Flood, C. H. (2014). Fast splittable pseudorandom
number generators. OOPSLA '14.
"""

from __future__ import annotations

import numpy as np

from saem._jit import helper
from saem._math import log, sincos_2pi

__all__ = [
    "SeedLike",
    "fill_log_uniform",
    "fill_normal",
    "resolve_seed",
    "stream",
    "substream",
    "uniform",
]

SeedLike = int | np.random.SeedSequence | np.random.Generator | None

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_UNIT = 2.0**-53


def resolve_seed(seed: SeedLike) -> tuple[int, np.random.Generator]:
    """Resolve what a user gave as `seed`.

    Parameters
    ----------
    seed : int, SeedSequence, Generator or None
        None takes entropy from the operating system. A Generator is used by
        drawing 64 bits from it, so passing it twice gives two different fits.

    Returns
    -------
    entropy : int
        64 bits that reproduce the fit when given as `seed`; kept in the record.
    rng : numpy.random.Generator
        Generator for what is drawn in Python (starting values, simulated data).

    Raises
    ------
    saem.exceptions.OptionError
        If `seed` is of another type, or negative.
    """
    from saem.exceptions import OptionError

    if isinstance(seed, np.random.Generator):
        entropy = int(seed.integers(0, 2**64, dtype=np.uint64))
    elif isinstance(seed, np.random.SeedSequence):
        entropy = int(seed.generate_state(1, np.uint64)[0])
    elif seed is None:
        entropy = int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
    elif isinstance(seed, int | np.integer) and not isinstance(seed, bool):
        if not 0 <= int(seed) < 2**64:
            raise OptionError(f"seed must be a whole number from 0 to 2**64 - 1; got {seed}.")
        entropy = int(seed)
    else:
        raise OptionError(
            "seed must be None, a whole number, a numpy SeedSequence or a numpy Generator; "
            f"got {seed!r} of type {type(seed).__name__}."
        )
    return entropy, np.random.Generator(np.random.PCG64(entropy))


@helper
def _mix(z):
    """Finaliser of SplitMix64: a bijection of 64 bits that scrambles them."""
    z = (z ^ (z >> np.uint64(30))) * _MULTIPLY_1
    z = (z ^ (z >> np.uint64(27))) * _MULTIPLY_2
    return z ^ (z >> np.uint64(31))


@helper
def stream(seed, individual, iteration):
    """Key of the stream of one individual at one iteration."""
    key = _mix(np.uint64(seed) + _GOLDEN)
    key = _mix(key ^ _mix((np.uint64(individual) + np.uint64(1)) * _GOLDEN))
    return _mix(key ^ _mix((np.uint64(iteration) + np.uint64(1)) * _MULTIPLY_1))


@helper
def substream(key, chain, part):
    """Key of a part of a stream, for one of several chains."""
    return _mix(key ^ ((np.uint64(chain) << np.uint64(32)) + np.uint64(part) + np.uint64(1)))


@helper
def _bits(key, position):
    """The 64 bits at a position of a stream."""
    return _mix(key + (np.uint64(position) + np.uint64(1)) * _GOLDEN)


@helper
def uniform(key, position):
    """Uniform number in the open interval (0, 1) at a position of a stream."""
    return (np.float64(_bits(key, position) >> np.uint64(11)) + 0.5) * _UNIT


@helper
def fill_normal(key, position, out):
    """Fill `out` with standard normal numbers; uses positions from `position` on.

    Box and Muller (1958). Uniform numbers first, then their transforms: short
    separate loops vectorise. Returns the first unused position.
    """
    pairs = out.size // 2
    for p in range(2 * pairs):
        out[p] = uniform(key, position + p)
    for p in range(pairs):
        radius = np.sqrt(-2.0 * log(out[p]))
        sine, cosine = sincos_2pi(out[pairs + p])
        out[p] = radius * cosine
        out[pairs + p] = radius * sine
    at = position + 2 * pairs
    if out.size == 2 * pairs:
        return at
    sine, cosine = sincos_2pi(uniform(key, at + 1))
    out[out.size - 1] = np.sqrt(-2.0 * log(uniform(key, at))) * cosine
    return at + 2


@helper
def fill_log_uniform(key, position, out):
    """Fill `out` with logarithms of uniform numbers; returns the next position."""
    for j in range(out.size):
        out[j] = uniform(key, position + j)
    for j in range(out.size):
        out[j] = log(out[j])
    return position + out.size
