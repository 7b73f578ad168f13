"""Variance-reduced EM: SVRG-EM, fiEM (SAGA) and SPIDER-EM.

All take ``s <- s + rho (target - s)`` with a target that is unbiased for the full
statistic, given the past, and whose variance vanishes as the run converges; so the
step need not decrease.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from saem.algorithms._base import Algorithm, Step, batch_of, deterministic, iterations, step_of
from saem.contract import Model
from saem.engine import Combination
from saem.estep import EStep
from saem.exceptions import OptionError
from saem.proxies import Anchor, AnchorAnew, MemoryPair, Recursive
from saem.schedules import Constant

__all__ = ["FIEM", "SPIDEREM", "SVRGEM", "GeomSPIDEREM"]

#: First step of SPIDER-EM, whose batches of sqrt(n) leave little noise.
_SPIDER_STEP = 0.3


@dataclass(frozen=True)
class SVRGEM(Algorithm):
    """SVRG-EM (sEM-VR): the statistic of an anchor pass, corrected on batches.

    Parameters
    ----------
    batch_size : int, optional
        Individuals per iteration; by default a twentieth of them, at most 64.
    step : "auto", float, Schedule or TheoryStep
        ``"auto"`` adapts it (`saem.schedules.Adaptive`); ``TheoryStep(c)`` is
        ``c b n ** (-2/3)``.
    inner : int, optional
        Iterations from one anchor to the next; n / batch_size by default.
    storage : {"records", "anchor"}
        Remember the individuals' records at the anchor (one E-evaluation per individual of a
        batch), or only the anchor's theta (two, and no memory).
    order : {"shuffle", "iid"}
        A fresh permutation each pass, or draws with replacement.
    estep : EStep, optional
        As for `EM`.
    n_epochs : float
        Passes of batches; each anchor costs a pass besides.
    n_iter : int, optional
        Iterations in place of `n_epochs`.

    Notes
    -----
    At an anchor ``abar = sbar(theta^l)``; then
    ``s <- s + rho (abar + mean_I (sbar_i(theta) - sbar_i(theta^l)) - s)``
    (Chen, Zhu, Teh and Zhang 2018, NeurIPS 31, algorithm 1; Karimi, Wai, Moulines and Lavielle
    2019, NeurIPS 32, equation 8). O(n^(2/3) / eps) E-evaluations.
    """

    batch_size: int | None = None
    step: Step = "auto"
    inner: int | None = None
    storage: str = "records"
    order: str = "shuffle"
    estep: EStep | None = None
    n_epochs: float = 20
    n_iter: int | None = None
    name: ClassVar[str] = "svrg-em"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        if self.storage not in ("records", "anchor"):
            raise OptionError(f"storage={self.storage!r} must be 'records' or 'anchor'.")
        batch = batch_of(model, self.batch_size)
        kind = Anchor if self.storage == "records" else AnchorAnew
        return Combination(
            self.name, deterministic(model, self.estep), kind(batch, self.order, self.inner),
            step_of(self.step, model, batch), Constant(1.0),
            self.n_iter or iterations(model, batch, self.n_epochs),
        )  # fmt: skip


@dataclass(frozen=True)
class FIEM(Algorithm):
    """Fast incremental EM (SAGA): the memory's mean, corrected on a batch, refreshed on another.

    Parameters
    ----------
    batch_size, step, order, estep, n_epochs, n_iter
        As for `SVRGEM`; a pass of batches costs two of E-evaluations.
    same : bool
        Refresh the batch that was corrected (SAGA; with ``order="iid"`` only): half the
        E-evaluations.

    Notes
    -----
    ``s <- s + rho (mbar + mean_I (sbar_i(theta) - m_i) - s)``, then for j in an independent
    batch J ``mbar <- mbar + (sbar_j(theta) - m_j) / n``, ``m_j <- sbar_j(theta)``, same theta
    (Karimi, Wai, Moulines and Lavielle 2019, NeurIPS 32, algorithm 2). O(n^(2/3) / eps)
    E-evaluations. Two permutations a pass (``"shuffle"``) refresh all of the memory in one
    pass, and converge far faster than independent draws.
    """

    batch_size: int | None = None
    step: Step = "auto"
    order: str = "shuffle"
    same: bool = False
    estep: EStep | None = None
    n_epochs: float = 20
    n_iter: int | None = None
    name: ClassVar[str] = "fiem"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        batch = batch_of(model, self.batch_size)
        return Combination(
            self.name, deterministic(model, self.estep), MemoryPair(batch, self.order, self.same),
            step_of(self.step, model, batch), Constant(1.0),
            self.n_iter or iterations(model, batch, self.n_epochs) + 1,
        )  # fmt: skip


@dataclass(frozen=True)
class SPIDEREM(Algorithm):
    """SPIDER-EM: the last target, corrected by its change over a batch.

    Parameters
    ----------
    batch_size : int, optional
        The square root of n by default.
    step, order, estep, n_epochs, n_iter
        As for `SVRGEM`; a pass of batches costs two of E-evaluations.
    inner : int, optional
        Iterations from one full pass to the next; the square root of n by default.

    Notes
    -----
    ``S <- S + mean_I (sbar_i(theta_k) - sbar_i(theta_{k-1}))``, ``s <- s + rho (S - s)``, S from a
    full pass every `inner` iterations (Fort, Moulines and Wai 2020, NeurIPS 33, algorithm
    1). ``n + sqrt(n) O(1 / eps)`` E-evaluations, no memory.
    """

    batch_size: int | None = None
    step: Step = "auto"
    inner: int | None = None
    order: str = "shuffle"
    estep: EStep | None = None
    n_epochs: float = 20
    n_iter: int | None = None
    name: ClassVar[str] = "spider-em"
    geometric: ClassVar[bool] = False

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        root = math.isqrt(model.n_individuals - 1) + 1 if model.n_individuals > 1 else 1
        batch = batch_of(model, self.batch_size or root)
        proxy = Recursive(batch, self.order, self.inner or root, self.geometric)
        return Combination(
            self.name, deterministic(model, self.estep), proxy,
            step_of(self.step, model, batch, first=_SPIDER_STEP), Constant(1.0),
            self.n_iter or iterations(model, batch, self.n_epochs),
        )  # fmt: skip


@dataclass(frozen=True)
class GeomSPIDEREM(SPIDEREM):
    """SPIDER-EM with geometric lengths between the full passes.

    Parameters
    ----------
    batch_size, step, inner, order, estep, n_epochs, n_iter
        As for `SPIDEREM`; `inner` is the mean length.

    Notes
    -----
    Random lengths make every iterate an honest estimate, without drawing one at the end
    (Fort, Moulines and Wai 2021, ICASSP 3135-3139).
    """

    name: ClassVar[str] = "geom-spider-em"
    geometric: ClassVar[bool] = True
