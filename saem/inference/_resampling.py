"""Replicate data sets of a bootstrap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.exceptions import OptionError, Problems
from saem.inference._mixture_bootstrap import generator
from saem.nlme._occasion_tables import present
from saem.nlme._replicates import replicate, resampled, respond, with_responses

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = ["Maker", "groups_of", "standardised"]


def groups_of(model: NLME, strata: Any, problems: Problems) -> Any:
    """Groups of the individuals as numbers, or None with a problem noted."""
    import pandas as pd

    data = model.individuals
    values: Any
    if not isinstance(strata, str):
        values = np.asarray(strata)
        if values.shape != (model.n_individuals,):
            problems.add(
                f"strata= has shape {values.shape}, not one value for each of the "
                f"{model.n_individuals} individuals"
            )
            return None
    elif strata in data.subjects:
        values = data.subjects[strata].to_numpy()
    elif strata in data.columns:
        column = data.columns[strata]
        values = column[data.offsets[:-1]]
        if not np.array_equal(np.repeat(values, data.n_obs), column):
            problems.add(f"column {strata!r} changes within individuals: it makes no strata")
    else:
        known = [*map(str, data.subjects.columns), *data.columns]
        problems.add(
            f"strata={strata!r} is not a column of the model ({', '.join(known)})",
            remedy="name one of these, or give one value per individual",
        )
        return None
    return pd.factorize(pd.Series(values))[0]


class Maker:
    """Makes the model of a replicate, from its number alone."""

    def __init__(self, model: NLME, theta: Array, kind: str, groups: Any, seed: int) -> None:
        self.model, self.theta, self.kind, self.groups = model, theta, kind, groups
        self.seed = seed
        if kind == "conditional":
            self.normals, self.eps = standardised(model, theta)

    def __call__(self, b: int) -> tuple[NLME, Array, np.random.Generator]:
        """Return the model, its start, and a generator for the fit."""
        model, theta = self.model, self.theta
        rng = generator(self.seed, b)
        if self.kind == "case":
            new = resampled(model, _draw(model.n_individuals, self.groups, rng))
        elif self.kind == "parametric":
            new = with_responses(model, replicate(model, theta, rng))
        else:
            normals = _redraw(model, self.normals, rng)
            eps = self.eps[rng.integers(0, self.eps.size, self.eps.size)]
            new = with_responses(model, respond(model, theta, normals, eps))
        start = new.with_estimates(
            new.start(np.random.default_rng(0)), model.estimation_vector(theta)
        )
        return new, start, rng


def _draw(n: int, groups: Any, rng: np.random.Generator) -> Any:
    """Numbers of individuals drawn with replacement, within groups."""
    if groups is None:
        return rng.integers(0, n, n)
    chosen = np.empty(n, dtype=np.int64)
    for group in range(groups.max() + 1):
        members = np.flatnonzero(groups == group)
        chosen[members] = rng.choice(members, members.size)
    return chosen


def _redraw(model: NLME, normals: Array, rng: np.random.Generator) -> Array:
    """Random effects drawn with replacement: those of subjects, and of all their occasions."""
    first, n = model.n_subject_coords, len(normals)
    drawn = np.zeros_like(normals)
    drawn[:, :first] = normals[rng.integers(0, n, n), :first]
    if model.occasions is not None and model.occasions.sds:
        pool = normals[:, first:].reshape(-1, len(model.occasions.sds))
        pool = pool[np.isfinite(pool[:, 0])]
        rows = rng.integers(0, len(pool), n * model.occasions.number)
        drawn[:, first:] = pool[rows].reshape(n, -1)
    return drawn


def standardised(model: NLME, theta: Array) -> tuple[Array, Array]:
    """Random effects and residuals of a fit with mean 0 and exactly the model's variances.

    Returns
    -------
    normals : ndarray of shape (n_individuals, n_coords)
        Modes of the random effects, in units in which the model's have covariance I: those of
        subjects, and those of occasions, all occasions together (NaN where there was none).
    eps : ndarray of shape (n_rows,)
        Standardised residuals at the modes.
    """
    from saem.inference._visits import find_modes
    from saem.inference.linearisation import linearise, responses_of

    modes = find_modes(model, theta)
    lin = linearise(model, theta, modes=modes)
    random = model.theta_spec.view(theta)["parameter"].astype(int)
    eta = modes.phi - lin.mu[:, random]
    first = model.n_subject_coords
    normals = np.full(eta.shape, np.nan)
    normals[:, :first] = _whitened(eta[:, :first])
    if model.occasions is not None and model.occasions.sds:
        k = len(model.occasions.sds)
        there = present(model)
        blocks = normals[:, first:].reshape(*there.shape, k)
        blocks[there] = _whitened(eta[:, first:].reshape(*there.shape, k)[there])
        normals[:, first:] = blocks.reshape(len(eta), -1)
    response, _ = responses_of(model)
    eps = (response - lin.f) / np.sqrt(lin.variance)
    eps = eps - eps.mean()
    return normals, eps / np.sqrt(np.mean(eps**2))


def _whitened(effects: Array) -> Array:
    """Rows with mean 0 and covariance I."""
    centred = effects - effects.mean(axis=0)
    covariance = centred.T @ centred / len(centred)
    values = np.linalg.eigvalsh(covariance)
    if values.size and not values[0] > 1e-10 * values[-1]:
        raise OptionError(
            "the modes of the random effects have a singular covariance (one is shrunken to 0), "
            "from which none with the estimated variance can be drawn. Remedy: kind='parametric' "
            "or kind='case'."
        )
    factor = np.linalg.cholesky(covariance)
    return np.linalg.solve(factor, centred.T).T if values.size else centred
