"""Results of multivariate normal distributions with missing entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.exceptions import OptionError
from saem.random import SeedLike, resolve_seed
from saem.results import Results

from .multivariate_normal import MultivariateNormal

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MultivariateNormalResults"]


class MultivariateNormalResults(Results):
    """Results of a multivariate normal: moments, imputations, densities, samples.

    Notes
    -----
    Standard errors come from the observed information, which counts what is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from saem.models.multivariate_normal import MultivariateNormal, simulate
    >>> X, _ = simulate(np.random.default_rng(0), n=80)
    >>> fit = MultivariateNormal(X).fit("em", seed=0, progress=False)
    >>> fit.mean.shape, bool(np.isnan(fit.impute()).any())
    ((3,), False)
    """

    model: MultivariateNormal

    @property
    def mean(self) -> pd.Series:
        """Mean, one entry per column."""
        import pandas as pd

        value = self.model.components(self.record.theta)["mean"]
        return pd.Series(value, index=self.model.feature_names, name="mean")

    @property
    def covariance(self) -> pd.DataFrame:
        """Covariance of shape (n_features, n_features)."""
        return self._matrix(self.model.components(self.record.theta)["covariance"])

    @property
    def correlation(self) -> pd.DataFrame:
        """Correlations of shape (n_features, n_features)."""
        covariance = self.model.components(self.record.theta)["covariance"]
        sd = np.sqrt(np.diag(covariance))
        return self._matrix(covariance / np.outer(sd, sd))

    def _matrix(self, value: Array) -> pd.DataFrame:
        import pandas as pd

        names = self.model.feature_names
        return pd.DataFrame(value, index=names, columns=names)

    def impute(self, X: Any = None, *, n_draws: int | None = None, seed: SeedLike = None) -> Array:
        """Rows without holes: conditional means, or draws for multiple imputation.

        Parameters
        ----------
        X : array_like or DataFrame of shape (n_rows, n_features), optional
            The data of the fit by default.
        n_draws : int, optional
            So many imputations, drawn given the observed entries at the estimates; the
            uncertainty of the estimates themselves is not in them.
        seed : int, SeedSequence, Generator or None

        Returns
        -------
        ndarray of shape (n_rows, n_features) or (n_draws, n_rows, n_features)
        """
        if n_draws is None:
            return self.model.impute(self.record.theta, X)
        if n_draws < 1:
            raise OptionError(f"n_draws={n_draws!r} must be at least 1.")
        rng = resolve_seed(seed)[1]
        return np.stack(
            [self.model.draw_missing(self.record.theta, rng, X) for _ in range(n_draws)]
        )

    def score_samples(self, X: Any = None) -> Array:
        """Log-likelihood of the observed entries of each row, of shape (n_rows,)."""
        return self.model.score_samples(self.record.theta, X)

    def sample(self, n: int, seed: SeedLike = None) -> Array:
        """Draw complete rows of shape (n, n_features) from the fitted distribution."""
        parts = self.model.components(self.record.theta)
        noise = resolve_seed(seed)[1].standard_normal((n, self.model.n_features))
        return parts["mean"] + noise @ np.linalg.cholesky(parts["covariance"]).T

    @property
    def _interval_scales(self) -> list[str]:
        d = self.model.n_features
        a, b = np.tril_indices(d)
        return ["identity"] * d + ["log" if same else "identity" for same in a == b]

    def _sizes(self) -> list[tuple[str, str]]:
        share = float(np.isnan(self.model.data).mean())
        return [
            ("No. of rows", f"{self.model.n_individuals}"),
            ("Missing entries", f"{100.0 * share:.1f} %"),
        ]
