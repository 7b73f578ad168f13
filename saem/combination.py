"""What an algorithm is, and the state of one at work."""

from __future__ import annotations

from dataclasses import dataclass

from saem.contract import Array
from saem.estep import EStep
from saem.proxies import Proxy
from saem.schedules import Schedule

__all__ = ["Combination", "Snapshot"]


@dataclass(frozen=True)
class Combination:
    """An algorithm: three exchangeable parts and a name.

    Parameters
    ----------
    name : str
        Name under which results and plots show it.
    estep : EStep
    proxy : Proxy
    rho, gamma : Schedule
        Steps of the two sequences.
    n_iter : int
        Iterations after which it is finished, unless a rule stops it before.
    average_from : int, optional
        First iteration of the statistics that are averaged for the final
        estimate (Polyak and Ruppert); None takes the last statistic.
    annealing : float, optional
        Variances may fall by no more than this factor per iteration ...
    annealing_until : int
        ... up to this iteration.
    """

    name: str
    estep: EStep
    proxy: Proxy
    rho: Schedule
    gamma: Schedule
    n_iter: int
    average_from: int | None = None
    annealing: float | None = None
    annealing_until: int = 0
    tolerance: float | None = None


@dataclass(frozen=True)
class Snapshot:
    """State of a run after an iteration.

    Attributes
    ----------
    k : int
        Iterations done.
    n_evals : int
        E-evaluations so far, of any kind, initial passes included.
    seconds : float
        Wall time spent in the iterations.
    theta, s : ndarray
        Packed parameters and mean statistic (copies).
    target : ndarray or None
        The statistic that the last full pass aimed at.
    loglik : float
        Log-likelihood at the parameters *before* the last step, where a full
        pass of the E-step gives it; NaN elsewhere.
    gamma : float
        Step of the last iteration.
    """

    k: int
    n_evals: int
    seconds: float
    theta: Array
    s: Array
    target: Array | None
    loglik: float
    gamma: float
