"""Kinds of Markov chain moves, as a user names them.

Every move leaves the posterior of an individual invariant, and so does a cycle of them.
All act on the Gaussian scale, where no Jacobian is needed:
``log p(y | z) + log N(z; mean, Omega)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from saem.estep import _layout as layout

__all__ = [
    "AnisotropicLangevin",
    "BlockWalk",
    "CoordinateWalk",
    "Hamiltonian",
    "IndependentLaplace",
    "Langevin",
    "Move",
    "PriorProposal",
]

#: Degrees of freedom beyond which a Student distribution is as good as a Gaussian.
_LARGEST_DF = 100
#: Slope beyond any that is computed: no Langevin step is shortened.
_NO_BOUND = 1e300


@dataclass(frozen=True)
class Move:
    """Base of the moves.

    Parameters
    ----------
    sweeps : int
        Moves per cycle.
    from_ : int
        First iteration in which the move is made. Methods that visit batches look at the
        schedule at the first iteration of each pass.
    until : int, optional
        First iteration in which it rests again; None makes it go on to the end.
    """

    sweeps: int = 1
    from_: int = field(default=0, kw_only=True)
    until: int | None = field(default=None, kw_only=True)
    code: ClassVar[int]

    def active(self, k: int) -> bool:
        """Whether the move is made in iteration k."""
        return self.from_ <= k and (self.until is None or k < self.until)

    def numbers(self, d: int) -> list[float]:
        """Code, sweeps, size and two options, as the compiled code takes them."""
        return [self.code, self.sweeps, d, 0.0, 0.0]

    def uses(self, d: int) -> tuple[int, int]:
        """Count the normal and uniform numbers of one sweep."""
        return d, 1

    @property
    def needs_laplace(self) -> bool:
        """Whether the move is made in the shape of the Laplace approximation."""
        return self.code >= layout.LAPLACE

    def errors(self) -> list[str]:
        """List what is wrong with the options."""
        found = []
        if self.sweeps < 1:
            found.append(f"sweeps={self.sweeps!r} must be at least 1")
        if self.until is not None and self.until <= self.from_:
            found.append(f"until={self.until!r} must come after from_={self.from_!r}")
        target = getattr(self, "target", 0.5)
        if not 0.0 < target < 1.0:
            found.append(f"target={target!r} must lie between 0 and 1")
        return found


@dataclass(frozen=True)
class PriorProposal(Move):
    """Independent proposals from the prior N(mean_i, Omega); nothing to tune.

    Accepted with probability ``min(1, p(y | z') / p(y | z))``.

    Parameters
    ----------
    sweeps : int
        Moves per cycle.
    from_, until : int
        Iterations in which it is made, see `Move`.
    """

    sweeps: int = 2
    code: ClassVar[int] = layout.PRIOR


@dataclass(frozen=True)
class CoordinateWalk(Move):
    """Random walk of one coordinate after the other, with adapted scales.

    Parameters
    ----------
    sweeps : int
        Moves per cycle.
    target : float
        Acceptance rate the scales are adapted to.
    from_, until : int
        Iterations in which it is made, see `Move`.
    """

    sweeps: int = 2
    target: float = 0.44
    code: ClassVar[int] = layout.COORDINATE

    def uses(self, d: int) -> tuple[int, int]:
        """Count the normal and uniform numbers of one sweep."""
        return d, d


@dataclass(frozen=True)
class BlockWalk(Move):
    """Random walk of several coordinates at once.

    Parameters
    ----------
    sweeps : int
        Moves per cycle.
    target : float
        Acceptance rate the scales are adapted to.
    size : int, optional
        Whitened coordinates that move at once; all by default.
    shape : {"laplace", "prior"}
        Steps in the shape of the Laplace covariance, or of the prior's, as a walk has them that
        knows nothing of the data.
    from_, until : int
        Iterations in which it is made, see `Move`.
    """

    sweeps: int = 2
    target: float = 0.3
    size: int | None = None
    shape: str = "laplace"
    code: ClassVar[int] = layout.BLOCK

    def numbers(self, d: int) -> list[float]:
        """Code, sweeps, size and two options, as the compiled code takes them."""
        return [self.code, self.sweeps, self._size(d), float(self.shape == "prior"), 0.0]

    def uses(self, d: int) -> tuple[int, int]:
        """Count the normal and uniform numbers of one sweep."""
        return d, 2 if self._size(d) < d else 1

    @property
    def needs_laplace(self) -> bool:
        """Whether the move is made in the shape of the Laplace approximation."""
        return self.shape == "laplace"

    def errors(self) -> list[str]:
        """List what is wrong with the options."""
        found = super().errors()
        if self.shape not in ("laplace", "prior"):
            found.append(f"shape={self.shape!r} must be 'laplace' or 'prior'")
        if self.size is not None and self.size < 1:
            found.append(f"size={self.size!r} must be at least 1")
        return found

    def _size(self, d: int) -> int:
        return min(d, self.size or d)


@dataclass(frozen=True)
class IndependentLaplace(Move):
    """Independent proposals around each individual's posterior mode: the kernel of f-SAEM.

    Mode and covariance are those of a Laplace approximation, from the Hessian of the
    log posterior whatever the data are, so that residual error models and counts need no
    case of their own. A chain keeps its state: it is not put back to the mode.

    Parameters
    ----------
    sweeps : int
        Moves per cycle.
    df : int or None
        Degrees of freedom of a Student proposal, whose tails let a chain leave an inferior
        mode; None for a Gaussian one, which is accepted more often (always, for a linear
        Gaussian model).
    inflation : float
        Factor of the covariance.
    from_, until : int
        Iterations in which it is made, see `Move`.

    Notes
    -----
    ``log alpha = l(z') - l(z) + log q(z) - log q(z')`` with q the density that was drawn from
    (Karimi, Lavielle and Moulines 2020, Comput. Statist. Data Anal. 141, 123-138, with
    a Gaussian q). When modes are found anew is the choice of `saem.MonteCarlo` (`refresh`);
    proposals around old ones remain exact, they are only accepted less often.
    """

    sweeps: int = 1
    df: int | None = 4
    inflation: float = 1.0
    code: ClassVar[int] = layout.LAPLACE

    def numbers(self, d: int) -> list[float]:
        """Code, sweeps, size and two options, as the compiled code takes them."""
        return [self.code, self.sweeps, d, self.df or 0, self.inflation**0.5]

    def uses(self, d: int) -> tuple[int, int]:
        """Count the normal and uniform numbers of one sweep."""
        df = self.df or 0
        return d + df % 2, 1 + df // 2

    def errors(self) -> list[str]:
        """List what is wrong with the options."""
        found = super().errors()
        if self.df is not None and not (
            isinstance(self.df, int) and not isinstance(self.df, bool) and 1 <= self.df
            and self.df <= _LARGEST_DF
        ):  # fmt: skip
            found.append(
                f"df={self.df!r} must be a whole number from 1 to {_LARGEST_DF}, or None for a "
                "Gaussian"
            )
        if not self.inflation > 0.0:
            found.append(f"inflation={self.inflation!r} must be above 0")
        return found


@dataclass(frozen=True)
class Langevin(Move):
    """Metropolis-adjusted Langevin moves, preconditioned by the Laplace covariance.

    Parameters
    ----------
    sweeps : int
        Moves per cycle.
    target : float
        Acceptance rate the step is adapted to, per individual.
    from_, until : int
        Iterations in which it is made, see `Move`.

    Notes
    -----
    ``z' = z + h/2 G grad l(z) + sqrt(h) chol(G) eps`` with G the Laplace covariance, accepted with
    both proposal densities (Roberts and Tweedie 1996, Bernoulli 2, 341-363; rate 0.574: Roberts
    and Rosenthal 1998, JRSS B 60, 255-268). Slopes are central differences of the
    log-likelihood (2 d evaluations); the move is exact whatever their error, since one
    function of the state gives the density in both directions.
    """

    sweeps: int = 1
    target: float = 0.574
    code: ClassVar[int] = layout.LANGEVIN

    def numbers(self, d: int) -> list[float]:
        """Code, sweeps, size and two options, as the compiled code takes them."""
        return [self.code, self.sweeps, d, _NO_BOUND, 0.0]


@dataclass(frozen=True)
class AnisotropicLangevin(Move):
    """Langevin moves that are shorter in coordinates where the posterior is steep.

    Parameters
    ----------
    sweeps : int
        Moves per cycle.
    target : float
        Acceptance rate the step is adapted to, per individual.
    bound : float
        Slope beyond which steps are shortened, per posterior standard deviation.
    from_, until : int
        Iterations in which it is made, see `Move`.

    Notes
    -----
    ``x' = x + h/2 gamma o D + sqrt(h gamma) o eps``, ``gamma_a = b / max(b, |D_a|)``, D the
    gradient in the coordinates x of the Laplace covariance; the acceptance ratio has the
    determinants of both covariances (after Allassonniere and Kuhn 2015, Comput. Statist.
    Data Anal. 91, 4-19).
    """

    sweeps: int = 1
    target: float = 0.574
    bound: float = 2.0
    code: ClassVar[int] = layout.ANISOTROPIC

    def numbers(self, d: int) -> list[float]:
        """Code, sweeps, size and two options, as the compiled code takes them."""
        return [self.code, self.sweeps, d, self.bound, 0.0]

    def errors(self) -> list[str]:
        """List what is wrong with the options."""
        wrong = [] if self.bound > 0.0 else [f"bound={self.bound!r} must be above 0"]
        return super().errors() + wrong


@dataclass(frozen=True)
class Hamiltonian(Move):
    """Hamiltonian Monte Carlo by short trajectories, preconditioned by the Laplace covariance.

    Parameters
    ----------
    sweeps : int
        Moves per cycle.
    target : float
        Acceptance rate the step is adapted to, per individual; a trajectory is never longer
        than a quarter turn of a normal posterior, so that easy posteriors accept more.
    n_steps : int
        Leapfrog steps of a trajectory.
    from_, until : int
        Iterations in which it is made, see `Move`.

    Notes
    -----
    Leapfrog steps in the coordinates of the Laplace covariance, of a length drawn anew within 20 %
    (Neal 2011, Handbook of Markov Chain Monte Carlo, chapter 5). Slopes as for `Langevin`:
    leapfrog keeps volume and can be reversed in any field of forces, so the move is exact.
    """

    sweeps: int = 1
    target: float = 0.8
    n_steps: int = 3
    code: ClassVar[int] = layout.HAMILTONIAN

    def numbers(self, d: int) -> list[float]:
        """Code, sweeps, size and two options, as the compiled code takes them."""
        return [self.code, self.sweeps, self.n_steps, 0.0, 0.0]

    def uses(self, d: int) -> tuple[int, int]:
        """Count the normal and uniform numbers of one sweep."""
        return d, 2

    def errors(self) -> list[str]:
        """List what is wrong with the options."""
        wrong = [] if self.n_steps >= 1 else [f"n_steps={self.n_steps!r} must be at least 1"]
        return super().errors() + wrong
