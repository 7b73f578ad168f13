"""Algorithms whose E-step draws: stochastic EM, Monte Carlo EM, SAEM, MISSO."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from saem.algorithms._base import (
    SAEM_MOVES,
    Algorithm,
    batch_of,
    iterations,
    on_passes,
    saem_path,
    simulated,
)
from saem.automatic import AscentBased, BoothHobert
from saem.contract import Model
from saem.engine import Combination
from saem.estep import BlockWalk, CoordinateWalk, IndependentLaplace, MonteCarlo, PriorProposal
from saem.exceptions import OptionError
from saem.proxies import Full, Incremental
from saem.schedules import Constant, Geometric, Quadratic, Schedule, TwoPhase, as_schedule

__all__ = [
    "FSAEM",
    "MCEM",
    "MISSO",
    "SAEM",
    "AscentMCEM",
    "RandomWalkSAEM",
    "StochasticEM",
]

#: Moves of random-walk SAEM: none of them knows the data but by being accepted or not.
_WALKS = (PriorProposal(2), CoordinateWalk(2, target=0.4), BlockWalk(2, shape="prior"))
#: Moves of f-SAEM, those for individuals whose independent proposals fail, when modes are
#: found anew and when they are followed: at every iteration while theta moves fast.
_FAST = (IndependentLaplace(1, df=None), IndependentLaplace(1), BlockWalk(1))
_FALLBACK = (PriorProposal(1), CoordinateWalk(1), BlockWalk(2))
_REFRESH, _FOLLOW = (5, 20, 50), (1, 2, 3, 4, 6, 8, 10, 13, 17, 25, 30, 40)


@dataclass(frozen=True)
class StochasticEM(Algorithm):
    """Stochastic EM: one draw per individual takes the place of the expectation.

    Parameters
    ----------
    estep : MonteCarlo, optional
        Kind of draws; one exact draw where the model has a sampler, else as for `SAEM`.
    n_iter : int
        Iterations.
    burn_in : float
        First fraction of the iterations that is left out of the average.

    Notes
    -----
    ``z_i ~ p(z | y_i; theta)``, ``theta <- T(mean_i S(z_i, y_i))``: theta is a Markov chain around
    the maximum, and the estimate T of the statistic averaged after the burn-in (Celeux and
    Diebolt 1985, Comput. Statist. Quarterly 2, 73-82). Its distance from the maximum
    is of order 1 / n. It is SAEM with gamma = 1.
    """

    estep: MonteCarlo | None = None
    n_iter: int = 500
    burn_in: float = 0.2
    name: ClassVar[str] = "stochastic-em"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        if not 0 <= self.burn_in < 1:
            raise OptionError(f"burn_in={self.burn_in!r} must lie in [0, 1).")
        return Combination(
            self.name, simulated(model, self.estep), Full(), Constant(1.0), Constant(1.0),
            self.n_iter, average_from=round(self.burn_in * self.n_iter),
        )  # fmt: skip


@dataclass(frozen=True)
class MCEM(Algorithm):
    """Monte Carlo EM: the E-step by draws, whose number grows.

    Parameters
    ----------
    estep : MonteCarlo, optional
        Kind of draws; its ``n_draws`` is set by this algorithm.
    n_draws : float, Schedule, AscentBased or BoothHobert
        Draws per individual and iteration: a number, a function of the iteration (10 growing
        by 6 % up to 1000 by default), or a rule that chooses them as it goes
        (`saem.automatic`).
    n_iter : int
        Iterations.
    tolerance : float
        With `AscentBased`: stop when the gain still to come is below so many nats, at the
        rule's confidence.

    Notes
    -----
    ``s <- mean_i (1 / M) sum_m S(z_im, y_i)``, ``theta <- T(s)`` (Wei and Tanner 1990, JASA 85,
    699-704). With a constant number of draws the estimate keeps a Monte Carlo error of
    constant size.
    """

    estep: MonteCarlo | None = None
    n_draws: float | Schedule | AscentBased | BoothHobert = field(
        default_factory=lambda: Geometric(10, 1.06, 1000)
    )
    n_iter: int = 80
    tolerance: float = 1e-2
    name: ClassVar[str] = "mcem"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        estep = self.estep or MonteCarlo(moves=SAEM_MOVES)
        one = Constant(1.0)
        if isinstance(self.n_draws, AscentBased | BoothHobert):
            estep = replace(estep, n_draws=float(self.n_draws.n_draws), path=1)
            rule = isinstance(self.n_draws, AscentBased)
            return Combination(
                self.name, estep, self.n_draws, one, one, self.n_iter,
                tolerance=self.tolerance if rule else None,
            )  # fmt: skip
        estep = replace(estep, n_draws=as_schedule(self.n_draws, "n_draws"))
        return Combination(self.name, estep, Full(), one, one, self.n_iter)


@dataclass(frozen=True)
class AscentMCEM(MCEM):
    """Monte Carlo EM with ascent-based numbers of draws.

    Parameters
    ----------
    estep, n_draws, n_iter, tolerance
        As for `MCEM`, with `AscentBased` draws.

    Notes
    -----
    Caffo, Jank and Jones 2005, JRSS B 67, 235-251; see `saem.automatic.AscentBased`.
    """

    n_draws: float | Schedule | AscentBased | BoothHobert = field(default_factory=AscentBased)
    n_iter: int = 1000
    name: ClassVar[str] = "ascent-mcem"


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
    accuracy : float, optional
        Go on with averaging beyond the iterations planned until the Monte Carlo errors of every
        estimate and of its standard error are below this fraction of the standard error.
    max_iter : int, optional
        Iterations at which that ends in any case; ten times those planned by default.

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
    accuracy: float | None = None
    max_iter: int | None = None
    name: ClassVar[str] = "saem"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        if not 0 <= self.averaged <= 1:
            raise OptionError(f"averaged={self.averaged!r} must lie between 0 and 1.")
        estep, total = simulated(model, self.estep), self.length
        if self.accuracy is not None and not self.accuracy > 0:
            raise OptionError(f"accuracy={self.accuracy!r} must be above 0, such as 0.02.")
        errors = hasattr(model, "param_kind") or hasattr(model, "cov_params")
        if self.accuracy is not None and not errors:
            raise OptionError(
                f"accuracy={self.accuracy!r} is in units of standard errors, which a {model.name} "
                "does not give. Remedy: SAEM(n_smoothing=...)."
            )
        average_from = total - round(self.averaged * self.n_smoothing)
        return Combination(
            self.name, estep, Full(), Constant(1.0),
            TwoPhase(self.n_burn_in, self.n_exploration, self.power, self.delay), total,
            average_from=average_from if average_from < total else None,
            annealing=self.annealing, annealing_until=self.n_burn_in + self.annealing_iterations,
        )  # fmt: skip

    @property
    def length(self) -> int:
        """Iterations planned."""
        return self.n_burn_in + self.n_exploration + self.n_smoothing

    def with_accuracy(self, accuracy: float) -> SAEM:
        """Return SAEM that goes on until Monte Carlo errors are below a part of standard errors."""
        return replace(self, accuracy=accuracy)

    def with_iterations(self, n_iter: int) -> SAEM:
        """Return the same algorithm with the smoothing phase cut or extended, to end there."""
        rest = n_iter - self.n_burn_in - self.n_exploration
        if rest < 0:
            exploration = max(0, n_iter - self.n_burn_in)
            return replace(self, n_exploration=exploration, n_smoothing=0, max_iter=n_iter)
        return replace(self, n_smoothing=rest, max_iter=n_iter)


@dataclass(frozen=True)
class FSAEM(SAEM):
    """Fast SAEM: chains of independent proposals around each individual's posterior mode.

    Parameters
    ----------
    estep : MonteCarlo, optional
        Chains; by default those described below, also where the model has an exact sampler.
    n_burn_in, n_exploration, n_smoothing, power, delay, averaged, annealing, annealing_iterations
        As for `SAEM`.

    Notes
    -----
    Proposals are drawn from N(mode_i, Gamma_i), Gamma_i the inverse Hessian of the negative log
    posterior at its mode (Karimi, Lavielle and Moulines 2020, Comput. Statist. Data Anal. 141,
    123-138). For a linear Gaussian model every one is accepted. What differs from other
    implementations:

    * Gaussian proposals take turns with Student ones of 4 degrees of freedom. Alone, they hold
      chains fast where a posterior's tail is heavier than theirs: in two compartments from a far
      start the error after 30 iterations is then ten times as large (vignette on f-SAEM);
    * the acceptance ratio has the full log-likelihood of the data, whatever the error model, and
      Gamma_i its Hessian, of counts and censored data as well;
    * chains begin at the modes and keep their states afterwards: putting them back to the
      mode would not leave the posterior invariant;
    * modes follow theta at each of the first iterations and then ever more rarely, and are
      searched for anew three times; proposals go on to the end, beside a block walk;
    * an individual of whose proposals fewer than 10 % are accepted gets prior, coordinate and block
      moves instead, until modes are found anew. Which ones are at the end stands in the
      record: ``fit.record.sampler["on_fallback"]``, counted from 0.

    The original's schedule, a few iterations of these proposals followed by walks, is written
    ``SAEM(estep=MonteCarlo(moves=(IndependentLaplace(6, df=None, until=20), BlockWalk(2,
    from_=20), ...), refresh=tuple(range(1, 20))))``. Plain `SAEM` has the Student proposals and
    the walk only, and finds its modes less often.
    """

    name: ClassVar[str] = "f-saem"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        estep = MonteCarlo(
            moves=_FAST, fallback=_FALLBACK, refresh=_REFRESH, follow=_FOLLOW, exact=False,
            path=saem_path(model.n_individuals),
        )  # fmt: skip
        return replace(super().combine(model), estep=self.estep or estep)


@dataclass(frozen=True)
class RandomWalkSAEM(SAEM):
    """SAEM by random walks that start from draws of the prior, as it is customarily done.

    Parameters
    ----------
    estep : MonteCarlo, optional
        Chains; by default two sweeps each of proposals from the prior, of a walk of one
        coordinate after the other and of a walk of all, one state per iteration, scales
        shared by the individuals.
    n_burn_in, n_exploration, n_smoothing, power, delay, averaged, annealing, annealing_iterations
        As for `SAEM`.

    Notes
    -----
    Kuhn and Lavielle 2005, Comput. Statist. Data Anal. 49, 1020-1038; phases of 300 and 100
    iterations with steps 1/k and variances kept from falling by more than 3 % per iteration
    in the first 150, as in the R package saemix. For comparison: `SAEM` and `FSAEM` mix better.
    """

    n_exploration: int = 300
    n_smoothing: int = 100
    power: float = 1.0
    delay: float = 1.0
    averaged: float = 0.0
    annealing: float | None = 0.97
    annealing_iterations: int = 150
    name: ClassVar[str] = "saem-rwm"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        estep = MonteCarlo(
            moves=_WALKS, start="prior", adaptation="pooled", refresh=(), exact=False
        )
        parts = replace(super().combine(model), estep=self.estep or estep)
        # Where variances are not parameters there are none to hold up.
        return parts if hasattr(model, "anneal") else replace(parts, annealing=None)


@dataclass(frozen=True)
class MISSO(Algorithm):
    """MISSO: the remembered surrogates of a batch are replaced by simulated ones.

    Parameters
    ----------
    batch_size : int, optional
        Individuals per iteration; by default a twentieth of them, at most 64.
    n_draws : float or Schedule
        Draws per individual, as a function of the passes done. Convergence asks that the
        sum over passes of ``n_draws ** -0.5`` be finite; the default ``10 + p ** 2``, at
        most 1000, keeps that rule as long as it can be paid for.
    order : {"shuffle", "iid"}
        A fresh permutation each pass, or draws with replacement.
    estep : MonteCarlo, optional
        Kind of draws; by default as for `SAEM`.
    n_epochs : float
        Passes over the data, besides the initial one.
    n_iter : int, optional
        Iterations in place of `n_epochs`.

    Notes
    -----
    ``A_i <- (1 / M_k) sum_m r_i(theta; theta^k, z_m)`` for i in the batch, then
    ``theta <- argmin mean_i A_i``
    (Karimi, Wai, Moulines and Lavielle 2022, "Minimization by incremental stochastic surrogate
    optimization", algorithm 2). For latent variables the surrogate is that of EM, the mean
    of statistics its record, and the method is mini-batch MCEM. On
    `saem.models.VariationalLogistic` it is the quadratic one.
    """

    batch_size: int | None = None
    n_draws: float | Schedule = field(default_factory=lambda: Quadratic(10.0, 1.0, 1000.0))
    order: str = "shuffle"
    estep: MonteCarlo | None = None
    n_epochs: float = 20
    n_iter: int | None = None
    name: ClassVar[str] = "misso"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        batch = batch_of(model, self.batch_size)
        estep = self.estep or MonteCarlo(moves=SAEM_MOVES)
        draws = on_passes(as_schedule(self.n_draws, "n_draws"), model, batch)
        return Combination(
            self.name, replace(estep, n_draws=draws), Incremental(batch, self.order),
            Constant(1.0), Constant(1.0),
            self.n_iter or iterations(model, batch, self.n_epochs) + 1,
        )  # fmt: skip
