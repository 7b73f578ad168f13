"""Log-likelihood of the observed data: importance sampling, quadrature, closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from saem._types import make_visitor
from saem.contract import Array, Model
from saem.estep import Exact, Quadrature
from saem.exceptions import OptionError, nearest
from saem.inference._visits import Modes, find_modes, require_gaussian, visit_all, visit_blocks
from saem.random import SeedLike, resolve_seed

__all__ = [
    "Likelihood",
    "QuadratureRule",
    "exact",
    "importance_sampling",
    "log_likelihood",
    "quadrature",
]

#: Default draws per individual: at most, at least, and of all together in between.
_MOST_SAMPLES, _FEWEST_SAMPLES, _ALL_SAMPLES = 5000, 1000, 500_000

#: Draws of the pilot run; inflation of the proposals, in standard deviations.
_PILOT = 800
_INFLATION = 1.15
#: Share of the mean number of draws that an individual gets at least, and at most.
_FEWEST, _MOST = 0.2, 20.0
#: Nodes per random effect that are tried in turn.
_NODES = (5, 7, 9, 13, 17, 21, 25)
#: Largest total of nodes per individual; more than this is refused.
_MAX_TOTAL = 20_000
#: Random effects up to which "auto" takes quadrature.
_AUTO_DIMENSION = 3


@dataclass(frozen=True)
class Likelihood:
    """A log-likelihood and what is known of its error.

    Attributes
    ----------
    value : float
        Log-likelihood of all individuals.
    error : float
        Monte Carlo standard error; for quadrature, the change by the last
        refinement; 0 where the value is exact.
    contributions : ndarray of shape (n_individuals,)
        Log-likelihood of each individual.
    errors : ndarray of shape (n_individuals,)
        Error of each.
    method : str
        ``"importance sampling"``, ``"quadrature"`` or ``"exact"``.
    ess : ndarray of shape (n_individuals,) or None
        Effective sample size of the weights.
    n_points : ndarray of int64, shape (n_individuals,)
        Draws, or nodes, of each individual.
    """

    value: float
    error: float
    contributions: Array
    errors: Array
    method: str
    ess: Array | None
    n_points: Any


def log_likelihood(model: Model, theta: Array, method: str = "auto", **options: Any) -> Likelihood:
    """Log-likelihood of a model at given parameters.

    Parameters
    ----------
    model : Model
    theta : ndarray
        Packed parameters.
    method : {"auto", "importance", "quadrature", "exact"}
        ``"auto"`` takes the closed form where there is one, quadrature up to
        three random effects, and importance sampling beyond.
    **options
        Those of `importance_sampling` or `quadrature`.

    Returns
    -------
    Likelihood
    """
    methods: dict[str, Any] = {
        "importance": importance_sampling, "quadrature": quadrature, "exact": exact,
    }  # fmt: skip
    if method == "is":
        method = "importance"
    if method == "auto":
        if "expect" in model.capabilities:
            method = "exact"
        else:
            method = "quadrature" if model.n_coords <= _AUTO_DIMENSION else "importance"
    if method not in methods:
        close = nearest(method, [*methods, "auto"])
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise OptionError(
            f"method={method!r} must be 'auto', 'importance' (or 'is'), 'quadrature' or "
            f"'exact'.{hint}"
        )
    return methods[method](model, theta, **options)


def exact(model: Model, theta: Array, *, n_threads: int | None = None) -> Likelihood:
    """Log-likelihood in closed form, for models with an exact E-step.

    Parameters
    ----------
    model : Model
    theta : ndarray
        Packed parameters.
    n_threads : int, optional

    Returns
    -------
    Likelihood
    """
    if "expect" not in model.capabilities:
        raise OptionError(
            f"{model.name} has no log-likelihood in closed form. Remedy: method='quadrature' for "
            "few random effects, method='importance' for any number."
        )
    bound = Exact().bind(model)
    n = model.n_individuals
    values = np.empty(n)
    for rows, _, part in visit_blocks(
        model, bound.visitor, theta, settings=bound.settings, memories=np.zeros((n, 0)),
        record_size=bound.record_size, work_size=0, n_threads=n_threads,
    ):  # fmt: skip
        values[rows] = part
    return Likelihood(
        float(values.sum()), 0.0, values, np.zeros(n), "exact", None, np.ones(n, dtype=np.int64)
    )


# -- quadrature ----------------------------------------------------------------------


class QuadratureRule:
    """Log-likelihood as a function of theta, by adaptive quadrature with fixed nodes.

    The rule is centred by its first evaluation, near which it is to be used; a
    value does not depend on what else was evaluated.

    Parameters
    ----------
    model : Model
    n_nodes : int
        Per random effect.
    n_threads : int, optional
    """

    def __init__(self, model: Model, n_nodes: int, n_threads: int | None = None) -> None:
        self.model, self.n_threads = model, n_threads
        self.bound = Quadrature(n_nodes).bind(model)
        self.centred: Array | None = None

    def contributions(self, theta: Array, memories: Array) -> Array:
        """Log-likelihood of every individual; `memories` are those of the E-step."""
        bound = self.bound
        values = np.empty(self.model.n_individuals)
        for rows, _, part in visit_blocks(
            self.model, bound.visitor, theta, settings=bound.settings, memories=memories,
            record_size=bound.record_size, work_size=bound.work_size - self.model.work_size,
            n_threads=self.n_threads,
        ):  # fmt: skip
            values[rows] = part
        return values

    def one(self, theta: Array, i: int, memories: Array) -> float:
        """Log-likelihood of individual i."""
        bound = self.bound
        _, value = visit_all(
            self.model, bound.visitor, theta, settings=bound.settings,
            memories=memories[i : i + 1], record_size=bound.record_size,
            work_size=bound.work_size - self.model.work_size, first=i, n_threads=1,
        )  # fmt: skip
        return float(value[0])

    def __call__(self, theta: Array) -> float:
        """Log-likelihood of all individuals."""
        if self.centred is None:
            self.centred = np.zeros_like(self.bound.memories)
            self.contributions(theta, self.centred)
        return float(self.contributions(theta, self.centred.copy()).sum())


def quadrature(
    model: Model,
    theta: Array,
    *,
    n_nodes: int | None = None,
    tolerance: float = 1e-4,
    n_threads: int | None = None,
) -> Likelihood:
    """Log-likelihood by adaptive Gauss-Hermite quadrature, for few random effects.

    Parameters
    ----------
    model : Model
        With Gaussian random effects.
    theta : ndarray
        Packed parameters.
    n_nodes : int, optional
        Nodes per random effect. By default they are increased, individual by
        individual, until the last increase changed the sum by less than
        `tolerance`, or 20,000 nodes per individual are reached.
    tolerance : float
        In nats, for the whole data set.
    n_threads : int, optional

    Returns
    -------
    Likelihood
        Its error is the sum of the absolute last changes; NaN for a given `n_nodes`.

    Raises
    ------
    OptionError
        If there are too many random effects.

    Notes
    -----
    ``log p(y_i) = log sum_m w_m exp(|x_m|^2) p(y_i, c_i + 2^(1/2) F_i x_m) + log |2^(1/2)
    F_i|``, c_i and F_i first the mode and the factor of the Laplace covariance, then
    the moments of the posterior (Naylor and Smith 1982, Appl. Statist. 31, 214-225;
    Pinheiro and Bates 1995, J. Comput. Graph. Statist. 4, 12-35). The error is that of
    one mode: a second one far away, as variances much wider than the estimates can
    give an individual, is missed, where importance sampling finds it.
    """
    require_gaussian(model, "quadrature")
    n, d = model.n_individuals, model.n_coords
    nodes = [q for q in _NODES if q**d <= _MAX_TOTAL]
    if n_nodes is None and len(nodes) < 2:
        raise OptionError(
            f"quadrature is not possible with {d} random effects: {_NODES[1]} nodes for each "
            f"make {_NODES[1] ** d} per individual, more than {_MAX_TOTAL}. Remedy: "
            "method='importance' (importance sampling)."
        )
    if n_nodes is not None or d == 0:
        used = 1 if d == 0 else int(n_nodes or 1)
        rule = QuadratureRule(model, used, n_threads)
        memories = np.zeros_like(rule.bound.memories)
        values = rule.contributions(theta, memories)
        if used > 2:  # once more, at the posterior moments that the first pass found
            values = rule.contributions(theta, memories)
        errors = np.full(n, 0.0 if d == 0 else np.nan)
        return Likelihood(
            float(values.sum()), float(errors.sum()), values, errors, "quadrature", None,
            np.full(n, used**d, dtype=np.int64),
        )  # fmt: skip
    memories = np.zeros_like(QuadratureRule(model, nodes[0]).bound.memories)
    values, errors = np.zeros(n), np.full(n, np.inf)
    points = np.zeros(n, dtype=np.int64)
    for k, q in enumerate(nodes):
        # A single change may be small by chance: the first three rules are for all.
        left = np.arange(n) if k < 3 else np.flatnonzero(errors > tolerance / n)
        if not left.size or errors.sum() < tolerance:
            break
        rule = QuadratureRule(model, q, n_threads)
        if left.size > n // 2:
            new = rule.contributions(theta, memories)[left]
        else:
            new = np.array([rule.one(theta, int(i), memories) for i in left])
        errors[left] = np.abs(new - values[left]) if k > 0 else np.inf
        values[left], points[left] = new, q**d
    return Likelihood(
        float(values.sum()), float(errors.sum()), values, errors, "quadrature", None, points
    )


# -- importance sampling -------------------------------------------------------------


def importance_sampling(
    model: Model,
    theta: Array,
    *,
    n_samples: int | None = None,
    df: int = 5,
    seed: SeedLike = 0,
    modes: Modes | None = None,
    n_threads: int | None = None,
) -> Likelihood:
    """Log-likelihood by importance sampling, for any number of random effects.

    Parameters
    ----------
    model : Model
        With Gaussian random effects.
    theta : ndarray
        Packed parameters.
    n_samples : int, optional
        Draws per individual, on average: individuals whose weights vary more
        get more of them. By default 5000, fewer (down to 1000) for more than a
        hundred individuals.
    df : int
        Degrees of freedom of the Student proposals.
    seed : int, SeedSequence, Generator or None
        The same seed gives the same bits for any number of threads.
    modes : Modes, optional
        Modes at theta, if they are known already.
    n_threads : int, optional

    Returns
    -------
    Likelihood
        With the Monte Carlo standard error, by the delta method on the weights.

    Notes
    -----
    ``p(y_i) = E_q[p(y_i | phi) N(phi; mu_i, Omega) / q(phi)]``. A pilot run of 800
    draws, most of them from a Student distribution at the Laplace mode, finds the posterior
    mean and covariance; the proposals of the main run are centred there, with
    standard deviations 1.15 times as large (a skewed posterior has its mass
    elsewhere than at its mode). One draw in ten is from the prior, which keeps the
    weights bounded and finds other modes (Hesterberg 1995, Technometrics 37,
    185-194). Draws come in antithetic pairs, and the density of
    that Gaussian serves as control variate (Owen 2013, Monte Carlo theory, methods
    and examples, section 9.10). Draws are shared out in proportion to the
    standard deviations of the pilot's weights (Neyman allocation).
    """
    from saem.inference import _importance

    require_gaussian(model, "importance sampling")
    if isinstance(df, bool) or not isinstance(df, int | np.integer) or not 1 <= df <= 100:
        raise OptionError(f"df={df!r} must be a whole number from 1 to 100.")
    if n_samples is None:
        n_samples = max(_FEWEST_SAMPLES, min(_MOST_SAMPLES, _ALL_SAMPLES // model.n_individuals))
    if n_samples < 10:
        raise OptionError(f"n_samples={n_samples!r} must be at least 10.")
    n, d = model.n_individuals, model.n_coords
    if d == 0:
        return quadrature(model, theta, n_threads=n_threads)
    modes = find_modes(model, theta, n_threads=n_threads) if modes is None else modes
    visitor = make_visitor(_importance.visit_importance)
    entropy = resolve_seed(seed)[0]

    def run(centre: Array, factor: Array, pairs: Array, inflation: float, stage: int) -> Array:
        memories = np.concatenate([centre, factor.reshape(n, d * d), pairs[:, None]], axis=1)
        records, _ = visit_all(
            model, visitor, theta, settings=np.array([d, model.latent_size, df, inflation, stage]),
            memories=np.ascontiguousarray(memories), record_size=_importance.record_size(d),
            work_size=_importance.work_size(d, int(df), model.latent_size), seed=entropy,
            n_threads=n_threads,
        )  # fmt: skip
        return records

    pilot_pairs = max(50, min(_PILOT, n_samples // 4) // 2)
    pilot = run(modes.phi, modes.factor, np.full(n, float(pilot_pairs)), 1.0, 0)
    centre, factor = _recentred(modes, pilot, d)
    pairs = _shares(pilot[:, 3], 0.5 * n_samples)
    records = run(centre, factor, pairs, _INFLATION, 1)
    values, errors = records[:, 0].copy(), records[:, 1].copy()
    return Likelihood(
        float(values.sum()), float(np.sqrt(np.sum(errors**2))), values, errors,
        "importance sampling", records[:, 2].copy(), (2 * pairs).astype(np.int64),
    )  # fmt: skip


def _recentred(modes: Modes, pilot: Array, d: int) -> tuple[Array, Array]:
    """Posterior means and factors of the covariances, as the pilot run found them.

    The covariance is a mean of the pilot's, weighted by its effective sample
    size, and of the Laplace approximation's, weighted as 10 draws a coordinate.
    """
    centre, factor = modes.phi.copy(), modes.factor.copy()
    ess = pilot[:, 2]
    rows = np.flatnonzero(np.isfinite(pilot[:, 0]) & (ess > 5.0 * d))
    mean = pilot[rows, 4 : 4 + d]
    covariance = pilot[rows, 4 + d :].reshape(-1, d, d)
    shift = mean - modes.phi[rows]
    laplace = modes.covariance[rows] + shift[:, :, None] * shift[:, None, :]
    own, other = ess[rows, None, None], 10.0 * d
    mixed = (own * covariance + other * laplace) / (own + other)
    # Sums of squares and of products: positive definite, unless they were rounded away.
    proper = np.linalg.eigvalsh(mixed)[:, 0] > 0.0
    centre[rows[proper]] = mean[proper]
    factor[rows[proper]] = np.linalg.cholesky(mixed[proper])
    return centre, np.ascontiguousarray(factor)


def _shares(sd: Array, mean_pairs: float) -> Array:
    """Pairs of every individual, in proportion to the standard deviation of one pair."""
    sd = np.where(np.isfinite(sd), sd, 0.0)
    weight = sd / sd.mean() if sd.mean() > 0 else np.ones_like(sd)
    weight = np.clip(weight, _FEWEST, _MOST)
    return np.maximum(5.0, np.round(mean_pairs * weight / weight.mean()))
