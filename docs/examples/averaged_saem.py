"""SAEM in its plainest form: polynomial steps from the first iteration on, averaged."""

from dataclasses import dataclass, field
from typing import ClassVar

from saem.algorithms import SAEM_MOVES, Algorithm
from saem.contract import Model
from saem.engine import Combination
from saem.estep import MonteCarlo
from saem.proxies import Full, Proxy
from saem.schedules import Constant, Polynomial


@dataclass(frozen=True)
class AveragedSAEM(Algorithm):
    """``s <- s + gamma_k (S(z_k) - s)``, gamma_k = k^-power; the estimate is T(mean of s)."""

    power: float = 0.6
    proxy: Proxy = field(default_factory=Full)
    n_iter: int = 1000
    name: ClassVar[str] = "averaged-saem"

    def combine(self, model: Model) -> Combination:
        """Return the three parts."""
        estep = MonteCarlo(moves=SAEM_MOVES)
        rho, gamma = Constant(1.0), Polynomial(self.power)
        half = self.n_iter // 2
        return Combination(self.name, estep, self.proxy, rho, gamma, self.n_iter, half)


if __name__ == "__main__":
    from saem.checks import grid

    print(grid(algorithms=[AveragedSAEM()]))
