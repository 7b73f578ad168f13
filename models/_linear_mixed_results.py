"""Results of linear mixed models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from saem.contract import Array
from saem.exceptions import OptionError
from saem.random import SeedLike, resolve_seed

from ._random_effects import RandomEffectsResults
from .linear_mixed import LinearMixed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LinearMixedResults"]


class LinearMixedResults(RandomEffectsResults):
    """Results of a linear mixed model; names follow statsmodels' `MixedLMResults`.

    Examples
    --------
    >>> import numpy as np
    >>> from saem.models.linear_mixed import LinearMixed, simulate
    >>> frame = simulate(np.random.default_rng(0), n=50)
    >>> fit = LinearMixed(frame, "y ~ 0 + a1 + a2", "id", "~ 0 + b1 + b2 + b3").fit("em")
    >>> fit.random_effects.shape
    (50, 3)
    """

    model: LinearMixed
    _covariance_name: ClassVar[str] = "psi"

    @property
    def scale(self) -> float:
        """Residual variance."""
        return float(self.params.iloc[-1])

    @property
    def random_effects(self) -> pd.DataFrame:
        """Conditional means of the random effects, one row per group."""
        return self.model.random_effects(self.record.theta)[0]

    @property
    def random_effects_sd(self) -> pd.DataFrame:
        """Conditional standard deviations of the random effects, one row per group."""
        return self.model.random_effects(self.record.theta)[1]

    def individual(
        self, what: str = "mean", *, n_samples: int = 100, seed: SeedLike = None
    ) -> pd.DataFrame:
        """Random effects of each group, given its data.

        Parameters
        ----------
        what : {"mode", "mean", "sd", "samples"}
            The posterior is Gaussian, so that mode and mean are the same.
        n_samples : int
            Draws per group, for ``"samples"``.
        seed : int, SeedSequence, Generator or None

        Returns
        -------
        DataFrame
            One row per group; per group and sample for ``"samples"``.
        """
        if what in ("mode", "mean"):
            return self.random_effects
        if what == "sd":
            return self.random_effects_sd
        if what != "samples":
            raise OptionError(f"what={what!r} must be 'mode', 'mean', 'sd' or 'samples'.")
        return self._samples(n_samples, resolve_seed(seed)[1])

    def _samples(self, n_samples: int, rng: np.random.Generator) -> pd.DataFrame:
        import pandas as pd

        model = self.model
        mean, cov, _ = model.posterior(self.record.theta)
        roots = np.linalg.cholesky(cov)
        noise = rng.standard_normal((len(mean), n_samples, model.n_coords))
        draws: Array = mean[:, None, :] + np.einsum("iab,isb->isa", roots, noise)
        index = pd.MultiIndex.from_product(
            [model.group_labels, range(n_samples)], names=[model.groups, "sample"]
        )
        return pd.DataFrame(
            draws.reshape(-1, model.n_coords), index=index, columns=model.random_names
        )

    @property
    def _interval_scales(self) -> list[str]:
        p, q = len(self.model.fixed_names), self.model.n_coords
        a, b = np.tril_indices(q)
        return ["identity"] * p + ["log" if d else "identity" for d in a == b] + ["log"]
