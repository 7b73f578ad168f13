"""Names for combinations: each algorithm is an E-step, a proxy and two schedules.

An algorithm is an immutable description. `combine` binds it to a model by
filling in what depends on the model, such as the E-step; the loop that runs it
is the engine's, the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from saem.contract import Model
from saem.engine import Combination
from saem.estep import EStep, Exact, MonteCarlo, Quadrature
from saem.estep.montecarlo import BlockWalk, IndependentLaplace
from saem.exceptions import OptionError, nearest
from saem.proxies import Full, Incremental, MiniBatch
from saem.schedules import Constant, Geometric, Polynomial, Schedule, TwoPhase, as_schedule

__all__ = ["EM", "MCEM", "SAEM", "Algorithm", "IncrementalEM", "OnlineEM", "algorithms", "resolve"]


class Algorithm(ABC):
    """Base of the algorithms."""

    #: Name by which `fit` knows it.
    name: ClassVar[str]

    @abstractmethod
    def combine(self, model: Model) -> Combination:
        """Return the three parts and the length of a run on this model."""

    def with_iterations(self, n_iter: int) -> Algorithm:
        """Return the same algorithm with another number of iterations."""
        return replace(self, n_iter=n_iter)  # type: ignore[type-var]


def _deterministic(model: Model, estep: EStep | None) -> EStep:
    """Return the E-step given, or the most exact one that the model has."""
    if estep is not None:
        return estep
    return Exact() if "expect" in model.capabilities else Quadrature(9 if model.n_coords < 4 else 5)


@dataclass(frozen=True)
class EM(Algorithm):
    """EM: ``s <- sbar(theta)``, ``theta <- T(s)``.

    Parameters
    ----------
    estep : EStep, optional
        By default exact where the model has it, else adaptive quadrature.
    n_iter : int
        At most so many iterations.
    tolerance : float
        Stop when the log-likelihood still to be gained, as extrapolated from
        the last two gains (Aitken), is below this many nats.

    Notes
    -----
    The log-likelihood never falls; the rate is linear, the largest fraction of
    missing information (Dempster, Laird and Rubin 1977, JRSS B 39, 1-38).
    """

    estep: EStep | None = None
    n_iter: int = 2000
    tolerance: float = 1e-9
    name: ClassVar[str] = "em"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        return Combination(
            self.name, _deterministic(model, self.estep), Full(), Constant(1.0), Constant(1.0),
            self.n_iter, tolerance=self.tolerance,
        )  # fmt: skip


@dataclass(frozen=True)
class IncrementalEM(Algorithm):
    """Incremental EM: refresh the remembered statistics of a batch, then the parameters.

    Parameters
    ----------
    batch_size : int
        Individuals per iteration.
    order : {"shuffle", "iid"}
        A fresh permutation each pass, or draws with replacement.
    estep : EStep, optional
        As for `EM`.
    n_epochs : int
        Passes over the data, besides the initial one.

    Notes
    -----
    ``mbar <- mbar + (1 / n) sum_I (sbar_i(theta) - m_i)``, ``theta <- T(mbar)``
    (Neal and Hinton 1998, "A view of the EM algorithm that justifies
    incremental, sparse, and other variants").
    """

    batch_size: int = 1
    order: str = "shuffle"
    estep: EStep | None = None
    n_epochs: int = 50
    n_iter: int | None = None
    name: ClassVar[str] = "iem"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        proxy = Incremental(self.batch_size, self.order)
        return Combination(
            self.name, _deterministic(model, self.estep), proxy, Constant(1.0), Constant(1.0),
            self.n_iter or _iterations(model, self.batch_size, self.n_epochs) + 1,
        )  # fmt: skip


@dataclass(frozen=True)
class OnlineEM(Algorithm):
    """Online EM: the statistic follows that of a batch with decreasing steps.

    Parameters
    ----------
    batch_size, order, estep, n_epochs
        As for `IncrementalEM`.
    gamma : Schedule
        Steps; ``(k + 1) ** -0.6`` by default.
    average : bool
        Average the statistic over the second half (Polyak and Ruppert).

    Notes
    -----
    ``s <- s + gamma_k (mean_I sbar_i(theta) - s)`` (Cappe and Moulines 2009,
    JRSS B 71, 593-613).
    """

    batch_size: int = 1
    order: str = "shuffle"
    estep: EStep | None = None
    n_epochs: int = 10
    gamma: Schedule = field(default_factory=Polynomial)
    average: bool = True
    n_iter: int | None = None
    name: ClassVar[str] = "online-em"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        n_iter = self.n_iter or _iterations(model, self.batch_size, self.n_epochs)
        return Combination(
            self.name, _deterministic(model, self.estep), MiniBatch(self.batch_size, self.order),
            Constant(1.0), self.gamma, n_iter, average_from=n_iter // 2 if self.average else None,
        )  # fmt: skip


@dataclass(frozen=True)
class MCEM(Algorithm):
    """Monte Carlo EM: the E-step by draws, whose number grows.

    Parameters
    ----------
    estep : MonteCarlo, optional
        Kind of draws; its ``n_draws`` is set by this algorithm.
    n_draws : float or Schedule
        Draws per individual and iteration.
    n_iter : int
        Iterations.

    Notes
    -----
    (Wei and Tanner 1990, JASA 85, 699-704.) With a constant number of draws
    the estimate keeps a Monte Carlo error of constant size.
    """

    estep: MonteCarlo | None = None
    n_draws: float | Schedule = field(default_factory=lambda: Geometric(10, 1.06, 1000))
    n_iter: int = 80
    name: ClassVar[str] = "mcem"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        estep = self.estep or MonteCarlo(moves=SAEM_MOVES)
        estep = replace(estep, n_draws=as_schedule(self.n_draws, "n_draws"))
        return Combination(self.name, estep, Full(), Constant(1.0), Constant(1.0), self.n_iter)


#: Moves of one cycle of SAEM; the reasons stand in `SAEM`.
SAEM_MOVES = (BlockWalk(1), IndependentLaplace(1))
#: From this number of individuals on, short paths give Monte Carlo error enough below
#: the standard errors.
_MANY = 400


def saem_path(n_individuals: int) -> int:
    """States of a chain that SAEM averages into one simulated statistic; see `SAEM`."""
    if n_individuals >= _MANY:
        return 4
    return 16 if n_individuals >= 50 else 3


@dataclass(frozen=True)
class SAEM(Algorithm):
    """Stochastic approximation EM.

    Parameters
    ----------
    estep : MonteCarlo, optional
        Draws; by default exact ones where the model has a sampler, else
        Markov chains as described below.
    n_burn_in : int
        Iterations of the chains alone.
    n_exploration : int
        Iterations with step 1.
    n_smoothing : int
        Iterations with decreasing steps.
    power, delay : float
        Steps ``(1 + j / delay) ** -power`` of the smoothing phase.
    averaged : float
        Last fraction of the smoothing phase whose statistics are averaged for
        the estimate (Polyak and Ruppert); 0 takes the last one.
    annealing : float, optional
        Variances may fall by no more than this factor per iteration, during
        the first `annealing_iterations`. Off by default.

    Notes
    -----
    ``s <- s + gamma_k (mean_i S(z_i, y_i) - s)``, z_i drawn at theta
    (Delyon, Lavielle and Moulines 1999, Ann. Statist. 27, 94-128; with Markov
    chains: Kuhn and Lavielle 2004, ESAIM P&S 8, 115-131).

    Defaults, and why:

    * *Chains start at each individual's posterior mode*, found from the prior
      mean. Chains that start from draws of a wide prior settle, for a few
      individuals, in a second mode (flip-flop of absorption and elimination)
      and inflate the variances for good.
    * *Moves*: a block walk in the shape of the Laplace covariance, and
      independent Student proposals around the mode. The latter are accepted
      in 60-80 % of cases on the usual models, so that successive states are
      almost independent; the walk serves the individuals for which the
      approximation is poor. The states of several such cycles are averaged
      into one simulated statistic: 3 below 50 individuals (which have several
      chains), 16 up to 400, 4 beyond. That takes 6, 32 or 8 likelihood
      evaluations, where the customary two sweeps of three walks take 12 to 14
      for a single state. Monte Carlo error is then 1 to 10 % of the standard
      errors after 400 iterations.
    * *A short exploration* (50): with chains that mix there is nothing to wait
      for, and with step 1 the noise itself does harm, since a variance that
      happens to fall near zero comes back only slowly.
    * *Steps that decrease slowly, and averaging* (delay 20, power 0.7): steps
      1/k stop moving in directions where EM is slow (missing information
      above one half); slower steps move on, and averaging removes their
      noise at the optimal rate.
    * *No annealing*: it protects against chains that do not move, at the cost
      of keeping every variance up. With modes found by optimisation it only
      delays.
    """

    estep: MonteCarlo | None = None
    n_burn_in: int = 5
    n_exploration: int = 50
    n_smoothing: int = 345
    power: float = 0.7
    delay: float = 20.0
    averaged: float = 0.7
    annealing: float | None = None
    annealing_iterations: int = 0
    name: ClassVar[str] = "saem"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        if not 0 <= self.averaged <= 1:
            raise OptionError(f"averaged={self.averaged!r} must lie between 0 and 1.")
        estep = self.estep
        if estep is None:
            estep = MonteCarlo(moves=SAEM_MOVES, path=saem_path(model.n_individuals))
        total = self.n_burn_in + self.n_exploration + self.n_smoothing
        average_from = total - round(self.averaged * self.n_smoothing)
        return Combination(
            self.name, estep, Full(), Constant(1.0),
            TwoPhase(self.n_burn_in, self.n_exploration, self.power, self.delay), total,
            average_from=average_from if average_from < total else None,
            annealing=self.annealing, annealing_until=self.n_burn_in + self.annealing_iterations,
        )  # fmt: skip

    def with_iterations(self, n_iter: int) -> SAEM:
        """Return the same algorithm with the smoothing phase cut or extended."""
        rest = n_iter - self.n_burn_in - self.n_exploration
        if rest < 0:
            return replace(self, n_exploration=max(0, n_iter - self.n_burn_in), n_smoothing=0)
        return replace(self, n_smoothing=rest)


def _iterations(model: Model, batch_size: int, n_epochs: int) -> int:
    """Iterations of whole batches in a number of passes."""
    n = model.n_individuals
    return n_epochs * max(1, n // min(batch_size, n))


_REGISTRY: dict[str, type[Algorithm]] = {
    a.name: a for a in (EM, IncrementalEM, OnlineEM, MCEM, SAEM)
}


def algorithms() -> list[str]:
    """Names of the algorithms."""
    return list(_REGISTRY)


def resolve(algorithm: Any, model: Model) -> Algorithm:
    """Turn a name, None or an algorithm object into an algorithm.

    Parameters
    ----------
    algorithm : str, Algorithm or None
        None takes the model's default.
    model : Model

    Returns
    -------
    Algorithm

    Raises
    ------
    saem.exceptions.OptionError
        For an unknown name.
    """
    if algorithm is None:
        algorithm = model.default_algorithm
    if isinstance(algorithm, Algorithm):
        return algorithm
    if isinstance(algorithm, str):
        key = algorithm.casefold().replace("_", "-")
        if key in _REGISTRY:
            return _REGISTRY[key]()
        close = nearest(key, _REGISTRY)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise OptionError(
            f"algorithm {algorithm!r} is not known; there are {', '.join(_REGISTRY)}.{hint}"
        )
    raise OptionError(
        f"algorithm must be a name or an algorithm object such as saem.SAEM(); got {algorithm!r}."
    )
