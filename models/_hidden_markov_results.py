"""Results of hidden Markov models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array
from saem.exceptions import ModelError
from saem.random import SeedLike, resolve_seed
from saem.results import Results

from ._hidden_markov_layout import param_scales
from .hidden_markov import HiddenMarkov, simulate

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HiddenMarkovResults"]

#: Probabilities below this count as on the boundary.
_AT_ZERO = 1e-6


class HiddenMarkovResults(Results):
    """Results of a hidden Markov model; names of parameters follow hmmlearn.

    Notes
    -----
    Functions of sequences take and give rows one sequence after the other. The number of
    observations of `bic` is that of the rows, since a single long sequence informs too.

    Examples
    --------
    >>> import numpy as np
    >>> from saem.models.hidden_markov import HiddenMarkov, simulate
    >>> sequences, paths = simulate(np.random.default_rng(0), n=10)
    >>> fit = HiddenMarkov(sequences, 2).fit("em", seed=0, progress=False)
    >>> fit.predict().shape, fit.predict_proba().shape
    ((300,), (300, 2))
    """

    model: HiddenMarkov

    def _part(self, name: str) -> Array:
        parts = self.model.components(self.record.theta)
        if name not in parts:
            raise ModelError(f"a model with {self.model.emission} emissions has no {name}.")
        return parts[name]

    @property
    def startprob(self) -> Array:
        """Probabilities of the first state, of shape (K,)."""
        return self._part("startprob")

    @property
    def transmat(self) -> pd.DataFrame:
        """Transition matrix of shape (K, K): from the row's state to the column's."""
        import pandas as pd

        frame = pd.DataFrame(self._part("transmat"))
        return frame.rename_axis(index="from", columns="to")

    @property
    def means(self) -> pd.DataFrame:
        """Means of shape (K, d), for Gaussian emissions."""
        import pandas as pd

        return pd.DataFrame(self._part("means"), columns=self.model.feature_names)

    @property
    def covariances(self) -> Array:
        """Variances of shape (K, d) or covariances (K, d, d), for Gaussian emissions."""
        return self._part("covariances")

    @property
    def emissionprob(self) -> pd.DataFrame:
        """Probabilities of symbols, of shape (K, n_categories), for categorical emissions."""
        import pandas as pd

        return pd.DataFrame(self._part("emissionprob"))

    @property
    def stationary(self) -> Array:
        """Distribution over states that the transitions leave unchanged, of shape (K,).

        The one reached from equal shares where there are several.
        """
        chain = self._part("transmat")
        k = len(chain)
        # The average of the powers of A, to which (1 - e) (I - e A)^-1 tends.
        damping = 1.0 - 1e-10
        limit = np.linalg.solve((np.eye(k) - damping * chain).T, np.full(k, (1.0 - damping) / k))
        return np.asarray(limit / limit.sum(), dtype=np.float64)

    @property
    def durations(self) -> Array:
        """Expected rows of a stay in each state, ``1 / (1 - A_kk)``, of shape (K,)."""
        stay = np.diag(self._part("transmat"))
        with np.errstate(divide="ignore"):
            return np.asarray(1.0 / (1.0 - stay), dtype=np.float64)

    def predict(self, X: Any = None, lengths: Any = None) -> NDArray[np.intp]:
        """Most probable path of each sequence (Viterbi).

        Parameters
        ----------
        X, lengths
            Sequences as for the model; those of the fit by default.

        Returns
        -------
        ndarray of shape (n_rows,)
        """
        return self.model.viterbi(self.record.theta, X, lengths)[0]

    def predict_proba(self, X: Any = None, lengths: Any = None) -> Array:
        """Smoothed probabilities of the states, of shape (n_rows, K)."""
        return self.model.predict_proba(self.record.theta, X, lengths)

    def score_samples(self, X: Any = None, lengths: Any = None) -> Array:
        """Log-likelihood of each sequence, of shape (n_sequences,)."""
        return self.model.score_samples(self.record.theta, X, lengths)

    def sample(
        self, n: int = 1, length: int = 100, seed: SeedLike = None
    ) -> tuple[list[Array], list[NDArray[np.intp]]]:
        """Simulate sequences from the fitted model.

        Returns
        -------
        sequences : list of ndarray of shape (length, d)
        paths : list of ndarray of shape (length,)
        """
        rng = resolve_seed(seed)[1]
        return simulate(rng, n, length=length, **self.model.components(self.record.theta))

    @property
    def bic(self) -> float:
        """Schwarz's criterion, ``-2 llf + n_params log(nobs)``; smaller is better."""
        return -2.0 * self.llf + self.n_params * float(np.log(self.nobs))

    @property
    def _interval_scales(self) -> list[str]:
        return param_scales(self.model.kind, self.model.n_states, self.model.n_features)

    @property
    def boundary(self) -> dict[str, str]:
        """Probabilities estimated at 0 (or 1)."""
        return {
            str(name): "the probability is at its boundary"
            for name, value in self.params.items()
            if "prob" in str(name) or "transmat" in str(name)
            if (value < _AT_ZERO or value > 1.0 - _AT_ZERO) and self.model.n_states > 1
        }

    def _sizes(self) -> list[tuple[str, str]]:
        return [
            ("No. of sequences", f"{self.model.n_individuals}"),
            ("No. of states", f"{self.model.n_states}"),
        ]
