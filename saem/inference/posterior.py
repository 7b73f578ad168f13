"""Weighted draws from every individual's posterior, and the complete-data scores there.

By quadrature where the random effects are few: then nothing here is random.
By Markov chains that start at the modes elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from saem.contract import Array, Model
from saem.estep import Quadrature
from saem.estep.quadrature import quadrature_dimension, rule_size
from saem.inference import _kernels
from saem.inference._blocks import entries_of
from saem.inference._visits import visit_blocks
from saem.inference.linearisation import design_of
from saem.nlme.priors import prior_information

if TYPE_CHECKING:
    from saem.estep import BoundEStep
    from saem.inference._visits import Modes
    from saem.nlme.model import NLME

__all__ = [
    "individual_scores",
    "model_nodes",
    "nodes_for",
    "quadrature_records",
    "scores",
    "second_moments",
    "value_and_gradient",
]

#: Nodes per random effect, by their number.
_NODES = {0: 1, 1: 15, 2: 11, 3: 9, 4: 5}
#: Nodes of all individuals together beyond which fewer are taken for each, and the fewest.
_MOST_NODES, _FEWEST = 250_000, 5


def nodes_for(d: int, n_individuals: int = 1) -> int | None:
    """Nodes per random effect for posterior moments, None where they are too many.

    Parameters
    ----------
    d : int
        Random effects.
    n_individuals : int
        Of very many individuals each gets fewer nodes: the errors of their
        moments differ in sign, and average out.

    Returns
    -------
    int or None
    """
    nodes = _NODES.get(d)
    if nodes is None:
        return None
    while nodes > _FEWEST and n_individuals * nodes**d > _MOST_NODES:
        nodes -= 1
    return nodes


def model_nodes(model: Model) -> int | None:
    """Nodes per random effect for the posterior moments of a model; see `nodes_for`.

    Parameters
    ----------
    model : Model

    Returns
    -------
    int or None
    """
    d = quadrature_dimension(model)
    nodes = nodes_for(d)
    if nodes is None:
        return None
    return nodes_for(d, model.n_individuals * rule_size(model, nodes) // nodes**d)


def quadrature_records(
    model: NLME,
    theta: Array,
    n_nodes: int,
    n_threads: int | None = None,
    modes: Modes | None = None,
) -> Iterator[tuple[slice, Array]]:
    """Records of weighted nodes, some individuals at a time.

    A first pass, of fewer nodes, finds the posterior moments, a second is centred there.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    n_nodes : int
        Per random effect.
    n_threads : int, optional
    modes : Modes, optional
        Modes at theta, if they are known already.

    Yields
    ------
    rows : slice
        Individuals.
    records : ndarray of shape (n, n_nodes ** d * (1 + latent_size))
    """
    for rows, records, _ in _visits(model, theta, n_nodes, n_threads, modes):
        yield rows, records


def _visits(
    model: NLME, theta: Array, n_nodes: int, n_threads: int | None, modes: Modes | None
) -> Iterator[tuple[slice, Array, Array]]:
    """As `quadrature_records`, with the log-likelihood of every individual."""
    first, second = (Quadrature(q).bind(model) for q in (min(n_nodes, _FEWEST), n_nodes))
    if modes is not None:
        start_at_modes(model, theta, modes, first.memories)

    def visits(bound: BoundEStep) -> Iterator[tuple[slice, Array, Array]]:
        return visit_blocks(
            model, bound.visitor, theta, memories=first.memories, settings=bound.settings,
            work_size=bound.work_size - model.work_size, record_size=bound.record_size,
            n_threads=n_threads,
        )  # fmt: skip

    for _ in visits(first):
        pass
    yield from visits(second)


def start_at_modes(model: NLME, theta: Array, modes: Modes, memories: Array) -> None:
    """Let quadrature start at known modes: no search, unless their rule does not fit.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    modes : Modes
        Modes at theta.
    memories : ndarray
        Those of `Quadrature`; changed in place.
    """
    view, d = model.theta_spec.view(theta), model.n_coords
    mean = design_of(model) @ view["beta"][:, view["parameter"].astype(int)]
    whitener = np.linalg.inv(view["chol"])
    known = np.isfinite(modes.log_joint)
    memories[known, 0] = 1.0
    memories[known, 1 : 1 + d] = (modes.phi - mean)[known] @ whitener.T
    if d:  # nothing can be reshaped to rows of no numbers
        memories[known, 1 + d :] = (whitener @ modes.factor[known]).reshape(-1, d * d)


def split(model: Model, records: Array) -> tuple[Array, Array]:
    """Weights (n, m) and latent draws (n, m, latent_size) of records."""
    parts = records.reshape(len(records), -1, 1 + model.latent_size)
    return parts[:, :, 0], parts[:, :, 1:]


def second_moments(model: NLME, records: Array, score: Array) -> Array:
    """``sum_i E[s_i s_i' | y_i]`` of the values of scores at the draws of records.

    Parameters
    ----------
    model : NLME
    records : ndarray of shape (n, record_size)
        Weighted draws. Those of nested quadrature (`saem.nlme._nested`), which alone have
        negative weights, are stars: given the subject's effects the score is its value in the
        middle plus differences that are independent between occasions.
    score : ndarray of shape (n, n_draws, n_params)

    Returns
    -------
    ndarray of shape (n_params, n_params)
    """
    weights, _ = split(model, records)
    size = score.shape[-1]
    if not (weights < 0.0).any():
        flat = score.reshape(-1, size)
        return np.asarray((weights.reshape(-1, 1) * flat).T @ flat)
    assert model.occasions is not None
    number = model.occasions.number
    # Subjects, outer nodes and points of a star apart; a record has q^d0 stars.
    star = _star(model, weights.shape[1])
    own = weights.reshape(len(weights), -1, star)
    values = score.reshape(len(weights), -1, star, size)
    middle = values[:, :, 0]
    steps = (values[:, :, 1:] - middle[:, :, None]).reshape(*own.shape[:2], number, -1, size)
    outer = -own[:, :, 0] / (number - 1.0)
    share = own[:, :, 1:].reshape(*own.shape[:2], number, -1)
    means = np.einsum("imol,imolp->imop", share, steps)  # times the weight of the star
    flat = steps.reshape(-1, size)
    total = (share.reshape(-1, 1) * flat).T @ flat
    scale = np.where(outer > 0.0, 1.0 / np.where(outer > 0.0, outer, 1.0), 0.0)
    flat = means.reshape(-1, size)
    each = np.repeat(scale.ravel(), number)[:, None]
    total -= (each * flat).T @ flat
    centre = (middle + scale[:, :, None] * means.sum(axis=2)).reshape(-1, size)
    return np.asarray(total + (outer.reshape(-1, 1) * centre).T @ centre)


def _star(model: NLME, n_draws: int) -> int:
    """Draws of a star in records of so many."""
    from saem.nlme._nested import star_size

    q = 1
    while q < n_draws:
        outer, star = star_size(model, q)
        if outer * star == n_draws:
            return star
        q += 1
    raise AssertionError("records that no nested rule makes")  # pragma: no cover


def sum_of_statistics(model: NLME, records: Array, rows: slice) -> Array:
    """Sum over individuals of the posterior means of the complete-data statistic.

    Parameters
    ----------
    model : NLME
    records : ndarray of shape (n, record_size)
        Weighted draws.
    rows : slice
        Individuals they belong to.

    Returns
    -------
    ndarray of shape (n_statistics,)
    """
    weights, latent = split(model, records)
    used = np.where(weights[:, :, None] != 0.0, latent, 0.0)
    z, x, d = used[:, :, : model.n_coords], design_of(model)[rows], model.n_coords
    mean, m = np.einsum("im,ima->ia", weights, z), model.endpoints.number
    each = model.stat_spec.shapes["s3"]
    return model.stat_spec.pack(
        {
            "s1": x.T @ mean,
            "s2": np.einsum("im,ima,imb->ab", weights, z, z),
            "xx": x.T @ x,
            "n_obs": np.reshape(model.individuals.counts(m)[rows].sum(axis=0), each),
            "s3": np.reshape([np.sum(weights * used[:, :, d + e]) for e in range(m)], each),
        }
    )


def scores(model: NLME, theta: Array, records: Array, rows: slice) -> Array:
    """Scores of the complete data of each individual at each of its draws.

    Closed form for the distribution of the random effects and the residual scale;
    central differences of ``log p(y | z)`` for the other parameters.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    records : ndarray of shape (n, record_size)
        Weighted draws.
    rows : slice
        Individuals they belong to.

    Returns
    -------
    ndarray of shape (n, m, n_params)
    """
    beta, omega, sigma = entries_of(model)
    weights, latent = split(model, records)
    view = model.theta_spec.view(theta)
    d = model.n_coords
    x = design_of(model)[rows]
    random = view["parameter"].astype(int)
    places = {int(p): a for a, p in enumerate(random)}
    residual = latent[:, :, :d] - (x @ view["beta"][:, random])[:, None]
    inverse = np.linalg.inv(view["omega"])
    lean = residual @ inverse
    n_obs = model.individuals.counts(model.endpoints.number)[rows]
    score = np.zeros((*latent.shape[:2], len(model.param_names)))
    for k, row, column in beta:
        if column in places:
            score[:, :, k] = x[:, row, None] * lean[:, :, places[column]]
    for k, row, column in omega:
        for a, b in model.tied_entries(row, column):
            value = lean[:, :, a] * lean[:, :, b] - inverse[a, b]
            score[:, :, k] += value * (0.5 if row == column else 1.0)
    for k, _, c in sigma:
        scale = view["sigma"][c]
        for e in model.endpoints.scale_users(c):
            score[:, :, k] += latent[:, :, d + e] / scale**3 - n_obs[:, None, e] / scale
    for entry in model.numerical_entries:
        k = model.param_index.index(entry)
        step = 1e-5 * max(abs(theta[entry]), 1e-3)
        up, down = (
            _log_lik(model, _shifted(theta, (entry, sign * step)), records, rows)
            for sign in (1.0, -1.0)
        )
        score[:, :, k] = (up - down) / (2.0 * step)
    # Draws without weight may have no finite likelihood.
    score[weights == 0.0] = 0.0
    return score


def individual_scores(
    model: NLME, theta: Array, *, modes: Modes | None = None, n_threads: int | None = None
) -> Array:
    """Scores of the observed data of each individual, by quadrature.

    ``E[d log f_i | y_i]``, which is the derivative of ``log p(y_i)`` (Fisher's identity).

    Parameters
    ----------
    model : NLME
        With few enough random effects, see `nodes_for`.
    theta : ndarray
        Packed parameters.
    modes : Modes, optional
        Modes at theta, if they are known already.
    n_threads : int, optional

    Returns
    -------
    ndarray of shape (n_individuals, n_params)
        On the estimation scale.
    """
    return _values_and_scores(model, theta, modes, n_threads)[1]


def value_and_gradient(
    model: NLME, theta: Array, *, n_threads: int | None = None
) -> tuple[float, Array]:
    """Log-likelihood by quadrature, and its gradient on the estimation scale.

    Parameters
    ----------
    model : NLME
        With few enough random effects, see `nodes_for`.
    theta : ndarray
        Packed parameters.
    n_threads : int, optional

    Returns
    -------
    value : float
    gradient : ndarray of shape (n_params,)
    """
    values, slopes = _values_and_scores(model, theta, None, n_threads)
    return float(values.sum()), np.asarray(slopes.sum(axis=0))


def _values_and_scores(
    model: NLME, theta: Array, modes: Modes | None, n_threads: int | None
) -> tuple[Array, Array]:
    n_nodes = model_nodes(model)
    assert n_nodes is not None
    values = np.empty(model.n_individuals)
    out = np.empty((model.n_individuals, len(model.param_names)))
    for rows, records, part in _visits(model, theta, n_nodes, n_threads, modes):
        weights, _ = split(model, records)
        values[rows] = part
        out[rows] = np.einsum("im,imp->ip", weights, scores(model, theta, records, rows))
    return values, out


def _shifted(theta: Array, *changes: tuple[int, float]) -> Array:
    """Theta with numbers added to some of its entries."""
    new = theta.copy()
    for entry, change in changes:
        new[entry] += change
    return new


def _log_lik(model: NLME, theta: Array, records: Array, rows: slice) -> Array:
    """Log p(y | z) of every draw of the records, shape (n, m)."""
    weights, _ = split(model, records)
    out = np.empty(weights.shape)
    _kernels.log_lik_of_records(
        model.kernels, model.values, model.offsets, theta, records, rows.start,
        model.latent_size, model.work_size, out,
    )  # fmt: skip
    return out


class Curvature:
    """Second differences of ``E[log p(y | z; nu)]`` by the parameters without closed form.

    Parameters
    ----------
    model : NLME
    theta : ndarray
    complete : ndarray of shape (n_params, n_params)
        Expected information, for the steps: 0.01 of its standard errors.
    """

    def __init__(self, model: NLME, theta: Array, complete: Array) -> None:
        self.model, self.theta = model, theta
        sigma = model.theta_spec.slices["sigma"]
        self.entries = list(model.numerical_entries)
        if self.entries:
            # The residual scale too: unless it is constant it is not orthogonal to the others.
            residual = [at for at in model.param_index if sigma.start <= at < sigma.stop]
            self.entries += [at for at in residual if at not in self.entries]
        self.at = [model.param_index.index(entry) for entry in self.entries]
        scale = np.sqrt(np.maximum(np.diagonal(complete)[self.at], 1e-300))
        self.steps = np.minimum(0.01 / scale, 0.01 * np.maximum(np.abs(theta[self.entries]), 0.1))
        self.matrix = np.zeros((len(self.at),) * 2)

    def add(self, rows: slice, records: Array) -> None:
        """Take in the records of some individuals."""
        weights, _ = split(self.model, records)

        def value(*changes: tuple[int, float]) -> float:
            log_lik = _log_lik(self.model, _shifted(self.theta, *changes), records, rows)
            return float(np.sum(weights * np.where(weights != 0.0, log_lik, 0.0)))

        if not self.entries:
            return
        centre = value()
        moves = list(zip(self.entries, self.steps, strict=True))
        for a, (entry, step) in enumerate(moves):
            second = value((entry, step)) - 2.0 * centre + value((entry, -step))
            self.matrix[a, a] -= second / step**2
            for b, (other, width) in enumerate(moves[:a]):
                mixed = sum(
                    i * j * value((entry, i * step), (other, j * width))
                    for i in (1.0, -1.0)
                    for j in (1.0, -1.0)
                )
                self.matrix[a, b] -= mixed / (4.0 * step * width)
                self.matrix[b, a] = self.matrix[a, b]

    def replace(self, complete: Array) -> None:
        """Put the curvature in the place of the expected information."""
        prior = prior_information(self.model, self.theta)
        complete[np.ix_(self.at, self.at)] = self.matrix + prior[np.ix_(self.at, self.at)]
