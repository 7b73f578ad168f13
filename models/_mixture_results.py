"""Results of Gaussian mixtures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saem.contract import Array

from ._mixture_answers import ClusterResults
from .gaussian_mixture import GaussianMixture

if TYPE_CHECKING:
    from saem.plots import MixturePlots

__all__ = ["MixtureResults"]

#: A variance within this factor of its floor counts as on the boundary.
_AT_FLOOR = 10.0


class MixtureResults(ClusterResults):
    """Results of a Gaussian mixture: parameters in arrays, clusters, densities, samples.

    Notes
    -----
    Standard errors come from the empirical information (`GaussianMixture.cov_params`);
    they hold for components that overlap little and many rows.

    Examples
    --------
    >>> import numpy as np
    >>> from saem.models import GaussianMixture
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(-3, 1, (50, 1)), rng.normal(3, 1, (50, 1))])
    >>> fit = GaussianMixture(X, 2).fit("em", seed=0)
    >>> labels = fit.predict([[-3.0], [3.0]])
    >>> bool(labels[0] != labels[1])
    True
    """

    model: GaussianMixture

    def _component(self, name: str) -> Array:
        return self.model.components(self.record.theta)[name]

    @property
    def weights(self) -> Array:
        """Weights of shape (k,)."""
        return self._component("weights")

    @property
    def means(self) -> Array:
        """Means of shape (k, d)."""
        return self._component("means")

    @property
    def covariances(self) -> Array:
        """Covariances, in scikit-learn's shapes; see `GaussianMixture.components`."""
        return self._component("covariances")

    @property
    def _interval_scales(self) -> list[str]:
        return self.model.interval_scales

    @property
    def boundary(self) -> dict[str, str]:
        """Variances at the floor `reg_covar`, and components that have lost their rows."""
        model, found = self.model, self._lost_components()
        for name, value, scale in zip(
            self.param_names, self.params.to_numpy(), self._interval_scales, strict=True
        ):
            if scale == "log" and value <= _AT_FLOOR * model.reg_covar:
                found[name] = (
                    f"the variance is at the floor reg_covar={model.reg_covar:g}; the component "
                    "may have collapsed onto equal rows"
                )
        return found

    @property
    def plot(self) -> MixturePlots:
        """Figures: ``convergence()`` and ``components()``."""
        from saem.plots import MixturePlots

        return MixturePlots(self)

    def _sizes(self) -> list[tuple[str, str]]:
        model = self.model
        sizes = [
            ("No. of components", f"{model.n_components}"),
            ("Covariances", model.covariance_type),
        ]
        if model.row_weights is not None:
            sizes.append(("Sum of weights", f"{model.total_weight:g}"))
        if model.n_missing:
            sizes.append(("Missing values", f"{model.n_missing}"))
        return sizes

    def _fixed(self) -> dict[str, float]:
        model = self.model
        full = model.named_values(self.record.theta)
        return {n: v for n, v in full.items() if n not in model.param_names}
