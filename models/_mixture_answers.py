"""Results of mixtures: what all share, and those with weighted records."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array
from saem.random import SeedLike, resolve_seed
from saem.results import Results

from ._mixture_base import AT_BOUNDARY, RecordMixture

__all__ = ["ClusterResults", "RecordMixtureResults"]

#: Scale of the intervals of a parameter, by the first word of its name.
_SCALES = {
    "weights": "logit",
    "probabilities": "logit",
    "rates": "log",
    "scales": "log",
    "shapes": "log",
    "variances": "log",
    "df": "log",
}


class ClusterResults(Results):
    """Base of the results of mixtures: what all of them say of rows and components."""

    model: Any

    def predict(self, X: Any = None) -> NDArray[np.intp]:
        """Most probable component of each row.

        Parameters
        ----------
        X : optional
            Rows as the model takes them; the data of the fit by default.

        Returns
        -------
        ndarray of shape (n_rows,)
        """
        return self.model.predict(self.record.theta, X)

    def predict_proba(self, X: Any = None) -> Array:
        """Posterior probabilities of the components, of shape (n_rows, k)."""
        return self.model.predict_proba(self.record.theta, X)

    def score_samples(self, X: Any = None) -> Array:
        """Log-likelihood of each row, of shape (n_rows,)."""
        return self.model.score_samples(self.record.theta, X)

    def sample(self, n: Any, seed: SeedLike = None) -> tuple[Any, NDArray[np.intp]]:
        """Draw rows from the fitted mixture, and their components; see `model.sample`."""
        return self.model.sample(self.record.theta, n, resolve_seed(seed)[1])

    @property
    def bic(self) -> float:
        """Schwarz's criterion, ``-2 llf + n_params log(sum of weights)``; smaller is better."""
        return -2.0 * self.llf + self.n_params * float(np.log(self.model.total_weight))

    @property
    def icl(self) -> float:
        """Integrated completed likelihood: BIC plus a penalty for overlap; smaller is better."""
        return self.model.icl(self.record.theta)

    def _lost_components(self) -> dict[str, str]:
        """Components whose share of the rows has become less than one row."""
        return {
            str(name): "the component holds less than one row"
            for name, value in self.params.items()
            if str(name).startswith("weights[") and value * self.model.total_weight < 1.0
        }


class RecordMixtureResults(ClusterResults):
    """Results of a mixture: parameters in arrays, clusters, densities, samples.

    Notes
    -----
    The arrays of `components` are attributes, too: ``results.weights``, and, as the model
    has them, ``results.rates``, ``results.means``, ...

    Standard errors come from the observed information (`RecordMixture.cov_params`).

    Examples
    --------
    >>> from saem.models import PoissonMixture
    >>> fit = PoissonMixture([[0], [1], [0], [1], [9], [8], [11], [9]], 2).fit("em", seed=0)
    >>> labels = fit.predict([[0], [10]])
    >>> bool(labels[0] != labels[1])
    True
    """

    model: RecordMixture

    @property
    def components(self) -> dict[str, Any]:
        """Weights and parameters of the components, in arrays; see `model.components`."""
        return self.model.components(self.record.theta)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name not in ("model", "record"):
            components = self.components
            if name in components:
                return components[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def _interval_scales(self) -> list[str]:
        return [_scale(name) for name in self.param_names]

    @property
    def boundary(self) -> dict[str, str]:
        """Parameters at their bounds, and components that have lost their rows."""
        found = self._lost_components()
        for name, value in self.params.items():
            kind = str(name).partition("[")[0]
            if kind == "probabilities" and not AT_BOUNDARY < value < 1.0 - AT_BOUNDARY:
                found[str(name)] = "the probability is at its bound"
        return found | self.model.boundary(self.record.theta)

    def _sizes(self) -> list[tuple[str, str]]:
        return [("No. of components", f"{self.model.n_components}")]


def _scale(name: str) -> str:
    """Scale of a parameter's interval; the diagonal of a matrix holds squares of scales."""
    kind, _, index = name.rstrip("]").partition("[")
    if kind == "scatters":
        _, a, b = index.split(",", 2) if index.count(",") == 2 else ("", "", "different")
        return "log" if a == b else "identity"
    return _SCALES.get(kind, "identity")
