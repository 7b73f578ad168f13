"""Replicate data sets under the fitted model, for every check that is made by simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from saem.contract import Array
from saem.exceptions import OptionError
from saem.random import SeedLike, resolve_seed

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = ["check_replicates", "generator", "replicates"]

#: Numbers that all replicates together may take (4 GB).
_MOST = 500_000_000
#: Keeps these draws apart from data simulated with the same seed.
_PURPOSE = 0x64696167


def generator(seed: SeedLike, purpose: int = 0) -> np.random.Generator:
    """Generator of a check: the same for the same seed, not that which simulates data.

    Parameters
    ----------
    seed : int, SeedSequence, Generator or None
    purpose : int
        Different checks of a fit do not share their draws.

    Returns
    -------
    numpy.random.Generator
    """
    return np.random.default_rng([resolve_seed(seed)[0], _PURPOSE, purpose])


def check_replicates(model: NLME, n: object, fewest: int) -> None:
    """Raise `OptionError` if so many replicates are too few, too many or no number."""
    whole = isinstance(n, int | np.integer) and not isinstance(n, bool)
    if not whole or not fewest <= int(n) <= _MOST // max(1, model.nobs):  # type: ignore[call-overload]
        raise OptionError(
            f"n_simulations={n!r} must be a whole number from {fewest} to "
            f"{_MOST // max(1, model.nobs)} for these {model.nobs} observations."
        )


def replicates(model: NLME, theta: Array, n: int, seed: SeedLike) -> Array:
    """Responses of n replicate data sets, shape (n, n_rows), rows stacked as in the model.

    Parameters
    ----------
    model : NLME
        Gives design, covariates and the structural model.
    theta : ndarray
        Packed parameters.
    n : int
    seed : int, SeedSequence, Generator or None
    """
    from saem.nlme._replicates import replicate

    rng = generator(seed)
    out = np.empty((n, model.individuals.dv.size))
    for k in range(n):
        out[k] = replicate(model, theta, rng)
    return out
