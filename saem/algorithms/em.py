"""EM and its incremental and online forms, with an E-step that is not random."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from saem.acceleration import Anderson, Squarem
from saem.algorithms._base import Algorithm, batch_of, deterministic, iterations
from saem.contract import Model
from saem.engine import Combination
from saem.estep import Classification, EStep, ImportanceSampling, Quadrature
from saem.estep.quadrature import quadrature_dimension
from saem.exceptions import OptionError
from saem.newton import Newton
from saem.proxies import Full, Incremental, MiniBatch, Proxy
from saem.schedules import Constant, Polynomial, Schedule

__all__ = [
    "EM",
    "AndersonEM",
    "ClassificationEM",
    "ImportanceEM",
    "IncrementalEM",
    "MiniBatchEM",
    "OnlineEM",
    "QuadratureEM",
    "SquaremEM",
]

#: Random effects for which quadrature is offered by name.
_MOST_BY_QUADRATURE = 4
_ACCELERATIONS: dict[str, type[Proxy]] = {
    "anderson": Anderson, "squarem": Squarem, "newton": Newton,
}  # fmt: skip


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
    acceleration : {"anderson", "squarem", "newton"} or proxy, optional
        Extrapolate the iterates (`saem.acceleration`), or put the missing information back
        into the steps (`saem.newton.Newton`, for `saem.NLME`); None does neither.

    Notes
    -----
    The log-likelihood never falls; the rate is linear, the largest fraction of
    missing information (Dempster, Laird and Rubin 1977, JRSS B 39, 1-38).
    """

    estep: EStep | None = None
    n_iter: int = 2000
    tolerance: float | None = 1e-9
    acceleration: str | Proxy | None = None
    name: ClassVar[str] = "em"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        return Combination(
            self.name, deterministic(model, self.estep), self._proxy(), Constant(1.0),
            Constant(1.0), self.n_iter, tolerance=self.tolerance,
        )  # fmt: skip

    def with_accuracy(self, accuracy: float) -> EM:
        """Return EM that stops when ``accuracy ** 2 / 2`` nats are left to gain.

        Then no estimate is farther from the maximum than `accuracy` of its standard errors, for
        ``(theta_j - theta^_j)^2 / se_j^2`` is at most twice what is left.
        """
        return replace(self, tolerance=0.5 * accuracy**2)

    def _proxy(self) -> Proxy:
        if self.acceleration is None:
            return Full()
        if isinstance(self.acceleration, Proxy):
            return self.acceleration
        if self.acceleration not in _ACCELERATIONS:
            raise OptionError(
                f"acceleration={self.acceleration!r} must be None or one of "
                f"{', '.join(map(repr, _ACCELERATIONS))}."
            )
        return _ACCELERATIONS[self.acceleration]()


@dataclass(frozen=True)
class AndersonEM(EM):
    """EM with Anderson acceleration of its map (DAAREM).

    Parameters
    ----------
    estep, n_iter, tolerance, acceleration
        As for `EM`.

    Notes
    -----
    Henderson and Varadhan 2019, J. Comput. Graph. Statist. 28, 834-846, here in statistic
    space; see `saem.acceleration.Anderson`.
    """

    acceleration: str | Proxy | None = "anderson"
    name: ClassVar[str] = "anderson-em"


@dataclass(frozen=True)
class SquaremEM(EM):
    """EM with squared extrapolation of its map (SQUAREM).

    Parameters
    ----------
    estep, n_iter, tolerance, acceleration
        As for `EM`.

    Notes
    -----
    Varadhan and Roland 2008, Scand. J. Statist. 35, 335-353, here in statistic space; see
    `saem.acceleration.Squarem`.
    """

    acceleration: str | Proxy | None = "squarem"
    name: ClassVar[str] = "squarem-em"


@dataclass(frozen=True)
class QuadratureEM(EM):
    """EM with an adaptive quadrature E-step, also where the model has an exact one.

    Parameters
    ----------
    estep, n_iter, tolerance, acceleration
        As for `EM`; nine nodes per random effect up to three of them, five for four.

    Notes
    -----
    Adaptive Gauss-Hermite quadrature (Liu and Pierce 1994, Biometrika 81, 624-629) makes the
    E-step exact up to its nodes, whose number grows as a power of the random effects.
    """

    estep: EStep | None = None
    name: ClassVar[str] = "quadrature-em"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        estep = self.estep or Quadrature(9 if quadrature_dimension(model) < 4 else 5)
        if not isinstance(estep, Quadrature):
            raise OptionError(f"quadrature-em needs saem.Quadrature(); estep is {estep!r}.")
        if quadrature_dimension(model) > _MOST_BY_QUADRATURE:
            raise OptionError(
                f"quadrature-em is for up to {_MOST_BY_QUADRATURE} random effects; this model has "
                f"{model.n_coords}. Remedy: 'imp-em' or 'saem'."
            )
        return replace(super().combine(model), estep=estep)


@dataclass(frozen=True)
class ImportanceEM(EM):
    """EM with an importance sampling E-step: quasi-random points around each mode.

    Parameters
    ----------
    estep, n_iter, tolerance, acceleration
        As for `EM`; the E-step by default `saem.ImportanceSampling()`.

    Notes
    -----
    Known as importance sampling EM (IMPMAP) and, with quasi-random points, QRPEM (Leary and
    Dunlavey 2012, PAGE 21). The points are the same at every iteration, so that this is EM on a
    fixed approximation of the likelihood, for any number of random effects; it stops
    when that has nothing left to gain.
    """

    estep: EStep | None = None
    tolerance: float | None = 1e-6
    name: ClassVar[str] = "imp-em"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        estep = self.estep or ImportanceSampling()
        if not isinstance(estep, ImportanceSampling):
            raise OptionError(f"imp-em needs saem.ImportanceSampling(); estep is {estep!r}.")
        return replace(super().combine(model), estep=estep)


@dataclass(frozen=True)
class ClassificationEM(Algorithm):
    """Classification EM: each individual goes to its most probable latent value.

    Parameters
    ----------
    n_iter : int
        At most so many iterations.
    tolerance : float
        Stop when the classification log-likelihood gains less than this many nats.

    Notes
    -----
    ``z_i <- argmax_z p(z | y_i; theta)``, ``theta <- T(mean_i S(z_i, y_i))``: raises the
    classification log-likelihood ``sum_i log p(y_i, z_i; theta)`` until nothing changes, after
    finitely many iterations (Celeux and Govaert 1992, Comput. Statist. Data Anal. 14, 315-332).
    Its limit is not the maximum-likelihood estimate: components that overlap come out too
    far apart and too tight. Its log-likelihood in the trace is the classification one.
    """

    n_iter: int = 500
    tolerance: float | None = 1e-9
    name: ClassVar[str] = "classification-em"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        return Combination(
            self.name, Classification(), Full(), Constant(1.0), Constant(1.0),
            self.n_iter, tolerance=self.tolerance,
        )  # fmt: skip


@dataclass(frozen=True)
class IncrementalEM(Algorithm):
    """Incremental EM: refresh the remembered statistics of a batch, then the parameters.

    Parameters
    ----------
    batch_size : int, optional
        Individuals per iteration; 1 is the method of the paper.
    order : {"shuffle", "iid"}
        A fresh permutation each pass, or draws with replacement.
    estep : EStep, optional
        As for `EM`.
    n_epochs : float
        Passes over the data, besides the initial one.
    n_iter : int, optional
        Iterations in place of `n_epochs`.

    Notes
    -----
    ``mbar <- mbar + (1 / n) sum_I (sbar_i(theta) - m_i)``, ``theta <- T(mbar)``
    (Neal and Hinton 1998, "A view of the EM algorithm that justifies
    incremental, sparse, and other variants"). There is no step size.
    """

    batch_size: int | None = 1
    order: str = "shuffle"
    estep: EStep | None = None
    n_epochs: float = 50
    n_iter: int | None = None
    name: ClassVar[str] = "iem"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        batch = batch_of(model, self.batch_size)
        return Combination(
            self.name, deterministic(model, self.estep), Incremental(batch, self.order),
            Constant(1.0), Constant(1.0),
            self.n_iter or iterations(model, batch, self.n_epochs) + 1,
        )  # fmt: skip


@dataclass(frozen=True)
class MiniBatchEM(IncrementalEM):
    """Mini-batch EM: incremental EM by batches of a twentieth of the individuals, at most 64.

    Parameters
    ----------
    batch_size, order, estep, n_epochs, n_iter
        As for `IncrementalEM`; a `batch_size` of None chooses one.

    Notes
    -----
    The update is that of `IncrementalEM` (Karimi, Lavielle and Moulines 2018, "On the
    convergence properties of the mini-batch EM and MCEM algorithms").
    """

    batch_size: int | None = None
    name: ClassVar[str] = "mini-batch-em"


@dataclass(frozen=True)
class OnlineEM(Algorithm):
    """Online EM: the statistic follows that of a batch with decreasing steps.

    Parameters
    ----------
    batch_size, order, estep, n_epochs, n_iter
        As for `MiniBatchEM`.
    gamma : Schedule
        Steps; ``(k + 20) ** -0.6`` by default. Larger first steps would let the first
        batches wipe out the statistic of the initial pass.
    average : bool
        Average the statistic over the second half (Polyak and Ruppert).

    Notes
    -----
    ``s <- s + gamma_k (mean_I sbar_i(theta) - s)`` (Cappe and Moulines 2009,
    JRSS B 71, 593-613). For data that come in chunks see `saem.Stream`.
    """

    batch_size: int | None = None
    order: str = "shuffle"
    estep: EStep | None = None
    n_epochs: float = 20
    gamma: Schedule = field(default_factory=lambda: Polynomial(0.6, offset=20.0))
    average: bool = True
    n_iter: int | None = None
    name: ClassVar[str] = "online-em"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        batch = batch_of(model, self.batch_size)
        n_iter = self.n_iter or iterations(model, batch, self.n_epochs)
        return Combination(
            self.name, deterministic(model, self.estep), MiniBatch(batch, self.order),
            Constant(1.0), self.gamma, n_iter, average_from=n_iter // 2 if self.average else None,
        )  # fmt: skip
