"""Results of factor analysis and probabilistic PCA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.exceptions import OptionError
from saem.random import SeedLike, resolve_seed
from saem.results import Results

from .factor_analysis import FactorAnalysis, simulate

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FactorAnalysisResults"]

#: A noise variance within this factor of its floor counts as on the boundary.
_AT_FLOOR = 1.001


class FactorAnalysisResults(Results):
    """Results of a factor model: loadings, uniquenesses, communalities, scores.

    Examples
    --------
    >>> import numpy as np
    >>> from saem.models.factor_analysis import FactorAnalysis, simulate
    >>> X, _ = simulate(np.random.default_rng(0), n=100)
    >>> fit = FactorAnalysis(X, 2).fit("em", seed=0, progress=False)
    >>> fit.loadings.shape, fit.scores().shape
    ((6, 2), (100, 2))
    """

    model: FactorAnalysis

    def _part(self, name: str) -> Array:
        return self.model.components(self.record.theta)[name]

    def _by_feature(self, values: Array, name: str) -> pd.Series:
        import pandas as pd

        return pd.Series(values, index=self.model.feature_names, name=name)

    def _by_factor(self, values: Array) -> pd.DataFrame:
        import pandas as pd

        columns = [f"factor{k}" for k in range(self.model.n_factors)]
        return pd.DataFrame(values, index=self.model.feature_names, columns=columns)

    @property
    def mean(self) -> pd.Series:
        """Mean, one entry per column."""
        return self._by_feature(self._part("mean"), "mean")

    @property
    def loadings(self) -> pd.DataFrame:
        """Loadings of shape (n_features, n_factors), as EM left them; see `rotated`."""
        return self._by_factor(self._part("loadings"))

    @property
    def noise_variance(self) -> pd.Series:
        """Noise variance of each column, in its units squared."""
        return self._by_feature(self._part("noise_variance"), "noise_variance")

    @property
    def covariance(self) -> pd.DataFrame:
        """Covariance of the columns, ``Lambda Lambda' + Psi``."""
        import pandas as pd

        loadings = self._part("loadings")
        value = loadings @ loadings.T + np.diag(self._part("noise_variance"))
        names = self.model.feature_names
        return pd.DataFrame(value, index=names, columns=names)

    @property
    def communalities(self) -> pd.Series:
        """Share of each column's variance that the factors explain."""
        return (1.0 - self.uniquenesses).rename("communality")

    @property
    def uniquenesses(self) -> pd.Series:
        """Share of each column's variance that is noise."""
        noise = self._part("noise_variance")
        total = np.square(self._part("loadings")).sum(axis=1) + noise
        return self._by_feature(noise / total, "uniqueness")

    def rotated(self, method: str = "varimax") -> pd.DataFrame:
        """Loadings after an orthogonal rotation of the factors.

        Parameters
        ----------
        method : {"varimax", "quartimax", "principal"}
            The first two by statsmodels, on rows scaled to the same length (Kaiser's
            normalisation); ``"principal"`` makes Lambda' Psi^-1 Lambda diagonal, with
            decreasing entries, as textbooks do.

        Returns
        -------
        DataFrame of shape (n_features, n_factors)
            Each column's largest entry is above 0.
        """
        loadings = self._part("loadings")
        if method == "principal":
            scaled = loadings / np.sqrt(self._part("noise_variance"))[:, None]
            rotated = loadings @ np.linalg.svd(scaled, full_matrices=False)[2].T
        elif method in ("varimax", "quartimax"):
            from statsmodels.multivariate.factor_rotation import rotate_factors

            length = np.linalg.norm(loadings, axis=1, keepdims=True)
            rotated = loadings
            if self.model.n_factors > 1:
                rotated = loadings @ rotate_factors(loadings / length, method)[1]
        else:
            raise OptionError(f"method={method!r} must be 'varimax', 'quartimax' or 'principal'.")
        largest = rotated[np.abs(rotated).argmax(axis=0), np.arange(rotated.shape[1])]
        return self._by_factor(rotated * np.where(largest < 0.0, -1.0, 1.0))

    def explained_variance(self, method: str = "principal") -> pd.DataFrame:
        """Variance that each factor explains, after a rotation as in `rotated`.

        Returns
        -------
        DataFrame of shape (n_factors, 3)
            ``sum_of_squares`` of standardised loadings, its ``proportion`` of the number
            of columns, and the ``cumulative`` proportion.
        """
        import pandas as pd

        rotated = self.rotated(method)
        total = np.diag(self.covariance.to_numpy())
        squares = np.square(rotated.to_numpy() / np.sqrt(total)[:, None]).sum(axis=0)
        frame = pd.DataFrame({"sum_of_squares": squares}, index=rotated.columns)
        frame["proportion"] = frame["sum_of_squares"] / self.model.n_features
        frame["cumulative"] = frame["proportion"].cumsum()
        return frame

    def scores(self, X: Any = None) -> Array:
        """Posterior means of the factors (regression scores), of shape (n_rows, n_factors)."""
        return self.model.transform(self.record.theta, X)

    transform = scores

    def score_samples(self, X: Any = None) -> Array:
        """Log-likelihood of the observed entries of each row, of shape (n_rows,)."""
        return self.model.score_samples(self.record.theta, X)

    def sample(self, n: int, seed: SeedLike = None) -> Array:
        """Draw complete rows of shape (n, n_features) from the fitted model."""
        rng = resolve_seed(seed)[1]
        return simulate(rng, n, **self.model.components(self.record.theta))[0]

    @property
    def _interval_scales(self) -> list[str]:
        d, q = self.model.n_features, self.model.n_factors
        n_noise = len(self.param_names) - d - d * q
        return ["identity"] * (d + d * q) + ["log"] * n_noise

    @property
    def boundary(self) -> dict[str, str]:
        """Noise variances at their floor (Heywood cases)."""
        view = self.model.theta_spec.view(self.record.theta)
        named = [name for name in self.param_names if name.startswith("noise")]
        return {
            name: "the noise variance is at its floor (Heywood case); use fewer factors"
            for name, value, floor in zip(named, view["noise"], view["floors"], strict=False)
            if value <= _AT_FLOOR * floor
        }

    def _sizes(self) -> list[tuple[str, str]]:
        return [
            ("No. of rows", f"{self.model.n_individuals}"),
            ("No. of factors", f"{self.model.n_factors}"),
        ]
