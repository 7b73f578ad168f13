"""Hidden Markov models with Gaussian or categorical emissions; an individual is a sequence.

    P(z_1 = k) = pi_k,    P(z_{t+1} = l | z_t = k) = A_kl,    y_t | z_t = k ~ emission k.

Layouts stand in `saem.models._hidden_markov_kernels`.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem._types import make_kernels
from saem.contract import Array, Model
from saem.exceptions import DataError, ModelError, Problems

from . import _hidden_markov_kernels as kernels
from . import _hidden_markov_updates as updates
from ._checks import check_size_of_theta
from ._hidden_markov_data import (
    KINDS,
    Sequences,
    check_options,
    check_sequences,
    check_values,
    read_sequences,
    records_of,
)
from ._hidden_markov_layout import (
    check_parts,
    component_shapes,
    directions,
    param_names,
    spec_of,
    statistic_of,
)
from ._hidden_markov_simulate import simulate
from ._hidden_markov_start import start_parts
from ._incomplete import observed_moments, read_weights
from ._information import covariance_of, observed_information
from ._persisted import Persisted
from ._sums import mean_statistic

if TYPE_CHECKING:
    from ._hidden_markov_results import HiddenMarkovResults

__all__ = ["HiddenMarkov", "simulate"]


class HiddenMarkov(Persisted, Model):
    """Hidden Markov model: a Markov chain of states that is seen through its emissions.

    Parameters
    ----------
    X : list of array_like, or array_like or DataFrame of shape (n_rows, n_columns)
        Sequences: one array for each, or all rows together with `lengths`. Not-a-number
        is missing: the chain goes on, nothing is learned of its state there.
    n_states : int
        Number of states K.
    lengths : array_like of int, optional
        Rows of each sequence where they stand together; by default they are one sequence.
    emission : {"gaussian", "categorical"}
        Rows of numbers, or one column of symbols 0, 1, ...
    covariance_type : {"diag", "full"}
        Of Gaussian emissions: a variance for each state and column, or a covariance matrix
        for each state. With "full" a row is observed as a whole or not at all.
    n_categories : int, optional
        Number of symbols; by default one more than the largest.
    weights : array_like of shape (n_sequences,), optional
        Weights of the sequences, at least 0.
    init : dict, optional
        Starting values: ``startprob``, ``transmat`` and ``means`` with ``covariances``, or
        ``emissionprob``; shapes as in `components`. By default k-means on the rows, or
        random probabilities of symbols, and states that last two rows on average.
    reg_covar : float
        Variance floor: added to the diagonal of every covariance in the M-step, as in
        `GaussianMixture`.

    Notes
    -----
    Baum, Petrie, Soules and Weiss (1970), Ann. Math. Statist. 41, 164-171; Rabiner (1989),
    Proc. IEEE 77, 257-286. The E-step gives the probabilities g_t(k) of the states and the
    expected transitions x_t(k, l); the M-step is

        pi_k = sum g_1(k) / n,     A_kl = sum_t x_t(k, l) / sum_{t,l} x_t(k, l),

    and the moments of y_t weighted by g_t(k). A remembered latent record takes K^2 numbers
    and K for each row of the *longest* sequence.

    Examples
    --------
    >>> import numpy as np
    >>> sequences, paths = simulate(np.random.default_rng(0), n=5, length=40)
    >>> model = HiddenMarkov(sequences, 2)
    >>> model.n_individuals, model.nobs, model.n_params
    (5, 200, 7)
    """

    name: ClassVar[str] = "hidden Markov model"
    capabilities: ClassVar[frozenset[str]] = frozenset({"expect", "draw", "classify", "surrogate"})
    linear_statistic = True
    #: What the positive codes of `maximize` mean.
    maximize_errors: ClassVar[dict[int, str]] = {
        updates.EMPTY_STATE: "a state has lost all its rows; use fewer states or another start",
        updates.NEGATIVE_COUNT: "an expected count is below 0 or not finite",
        updates.SINGULAR_COVARIANCE: "the covariance of a state is singular; raise reg_covar, "
        "use fewer states or covariance_type='diag'",
    }
    _persisted: ClassVar[tuple[str, ...]] = (
        "n_states", "emission", "kind", "reg_covar", "feature_names", "n_features", "shift",
        "lengths", "values", "offsets", "nobs", "_given",
    )  # fmt: skip

    def __init__(
        self,
        X: Any,
        n_states: int,
        *,
        lengths: ArrayLike | None = None,
        emission: str = "gaussian",
        covariance_type: str = "diag",
        n_categories: int | None = None,
        weights: ArrayLike | None = None,
        init: dict[str, ArrayLike] | None = None,
        reg_covar: float = 1e-6,
    ) -> None:
        problems = Problems("the model")
        check_options(n_states, emission, covariance_type, n_categories, reg_covar, problems)
        options_fine = not problems
        kind = "categorical" if emission == "categorical" else str(covariance_type)
        sequences = read_sequences(X, lengths, problems)
        checked = np.ones(0)
        if sequences is not None:
            checked = read_weights(weights, len(sequences.lengths), problems, "sequences")
            if options_fine:
                check_sequences(sequences, kind, n_categories, checked, problems)
        problems.raise_if_any(DataError if options_fine else ModelError)
        assert sequences is not None
        self.n_states, self.emission, self.kind = int(n_states), emission, kind
        self.reg_covar = float(reg_covar)
        self.feature_names = sequences.names
        self._set_scale(sequences, checked, n_categories)
        self._set_sequences(sequences, checked)
        self._set_layout()
        self._given = None if init is None else self._pack(check_parts(init, self._shapes))

    def _restored(self) -> None:
        self._set_sizes()
        self._set_layout()

    def _set_layout(self) -> None:
        kind, k, d = self.kind, self.n_states, self.n_features
        self.covariance_type = None if kind == "categorical" else kind
        self.theta_spec, self.stat_spec = spec_of(kind, k, d), statistic_of(kind, k, d)
        self._shapes = component_shapes(kind, k, d)
        self.param_names = param_names(kind, k, d, self.feature_names)
        constrained = 1 + k + (k if kind == "categorical" else 0)
        self.n_params = len(self.param_names) - constrained
        self._functions = SimpleNamespace(
            expect=kernels.expect,
            draw=kernels.draw,
            classify=kernels.classify,
            accumulate=kernels.accumulate,
            maximize=updates.maximize,
            project=updates.project,
            surrogate=updates.surrogate,
        )
        self.kernels = make_kernels(**vars(self._functions))

    def _set_scale(self, sequences: Sequences, weights: Array, n_categories: int | None) -> None:
        """Columns, and what is taken off their values: second moments need a near origin."""
        if self.kind == "categorical":
            self.n_features = int(n_categories or np.nanmax(sequences.values) + 1)
            self.shift = np.zeros(1)
        else:
            self.n_features = sequences.values.shape[1]
            each_row = np.repeat(weights, sequences.lengths)
            self.shift = observed_moments(sequences.values, each_row)[0]

    def _set_sequences(self, sequences: Sequences, weights: Array) -> None:
        """Make the records of checked sequences."""
        self.lengths = sequences.lengths
        self._set_sizes()
        self.nobs = int((~np.isnan(sequences.values)).any(axis=1).sum())
        self.values, self.offsets = self._records(sequences, weights)

    def _set_sizes(self) -> None:
        self.n_individuals = len(self.lengths)
        k, longest = self.n_states, int(self.lengths.max())
        self.latent_size = k * (k + longest)
        self.work_size = kernels.work_size(k, self.n_features, longest)

    def _records(self, sequences: Sequences, weights: Array) -> tuple[Array, NDArray[np.int64]]:
        head = (self.n_states, self.n_features, KINDS[self.kind])
        return records_of(sequences.values - self.shift, sequences.lengths, weights, head)

    @property
    def weights(self) -> Array:
        """Weights of the sequences, of shape (n_sequences,)."""
        return self.values[self.offsets[:-1]].copy()

    @property
    def data(self) -> Array:
        """Rows of all sequences, one after the other, of shape (n_rows, n_columns)."""
        width = 1 if self.kind == "categorical" else self.n_features
        parts = [
            self.record_of(i)[kernels.RECORD_HEAD :].reshape(-1, width)
            for i in range(self.n_individuals)
        ]
        return np.concatenate(parts) + self.shift

    def _read(self, X: Any, lengths: Any) -> Sequences:
        """New sequences, checked against the model."""
        problems = Problems("X")
        sequences = read_sequences(X, lengths, problems, self.feature_names)
        if sequences is not None:
            check_values(sequences, self.kind, self.n_features, problems)
        problems.raise_if_any(DataError)
        assert sequences is not None
        return sequences

    def with_data(self, X: Any, lengths: Any = None, weights: Any = None) -> Self:
        """Return the same model on other sequences; theta means the same.

        Parameters
        ----------
        X, lengths, weights
            As for the model. Symbols beyond the model's are refused.
        """
        sequences = self._read(X, lengths)
        problems = Problems("the weights")
        checked = read_weights(weights, len(sequences.lengths), problems, "sequences")
        problems.raise_if_any(DataError)
        other = copy.copy(self)
        other._set_sequences(sequences, checked)
        return other

    def reweighted(self, weights: Any) -> Self:
        """Return the same model and data with other weights of the sequences.

        Parameters
        ----------
        weights : array_like of shape (n_sequences,)
            2 is the same as the sequence twice, 0 as its absence.
        """
        problems = Problems("the weights")
        checked = read_weights(weights, self.n_individuals, problems, "sequences")
        problems.raise_if_any(DataError)
        other = copy.copy(self)
        other.values = self.values.copy()
        other.values[self.offsets[:-1]] = checked
        return other

    # Parameters.

    def pack_params(self, **parts: ArrayLike) -> Array:
        """Theta from what `components` returns.

        Raises
        ------
        ModelError
            With all that is wrong: names, shapes, sums of probabilities, covariances.
        """
        return self._pack(check_parts(parts, self._shapes))

    def _pack(self, parts: dict[str, Array]) -> Array:
        blocks = {name: np.zeros(shape) for name, shape in self.theta_spec.shapes.items()}
        head = [self.n_states, self.n_features, KINDS[self.kind], self.reg_covar]
        blocks |= parts | {"sizes": np.array(head)}
        if "means" in parts:
            blocks["means"] = parts["means"] - self.shift
        theta = self.theta_spec.pack(blocks)
        if not updates.derive(theta):
            raise ModelError("a covariance is not positive definite")
        return theta

    def components(self, theta: Array) -> dict[str, Array]:
        """Parameters by name.

        Parameters
        ----------
        theta : ndarray of shape (theta_spec.size,)

        Returns
        -------
        dict
            ``startprob`` (K,), ``transmat`` (K, K); ``means`` (K, d) with ``covariances``
            (K, d) or (K, d, d), or ``emissionprob`` (K, n_categories).
        """
        view = self.theta_spec.view(theta)
        parts = {name: view[name].copy() for name in self._shapes}
        if "means" in parts:
            parts["means"] += self.shift
        return parts

    def params_of(self, theta: Array) -> Array:
        """All probabilities, means and (lower triangles of) covariances, as `param_names`."""
        parts = self.components(theta)
        if self.kind == "full":
            low = np.tril_indices(self.n_features)
            parts["covariances"] = parts["covariances"][:, low[0], low[1]]
        return np.concatenate([part.ravel() for part in parts.values()])

    def theta_of(self, params: Array) -> Array:
        """Theta from the parameters of `params_of`."""
        k, d = self.n_states, self.n_features
        parts, at = {}, 0
        for name, shape in self._shapes.items():
            if len(shape) == 3:
                low = np.tril_indices(d)
                packed = params[at:].reshape(k, -1)
                value = np.empty(shape)
                value[:, low[0], low[1]] = value[:, low[1], low[0]] = packed
            else:
                value = params[at : at + int(np.prod(shape))].reshape(shape)
                at += value.size
            parts[name] = value
        return self._pack(parts)

    def check_theta(self, theta: Array) -> None:
        """Raise `ModelError` if a starting theta is not admissible."""
        check_size_of_theta(theta, self.theta_spec.size)

    def start(self, rng: np.random.Generator) -> Array:
        """Starting theta: as given by `init`, else random, from k-means or near the shares."""
        if self._given is not None:
            return self._given.copy()
        parts = start_parts(self.kind, self.n_states, self.n_features, self.data, rng)
        return self._pack(parts)

    # Functions of sequences.

    def _each(self, X: Any, lengths: Any) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
        """Records with weight 1, their offsets and lengths; the model's own for None."""
        if X is None:
            values = self.values.copy()
            values[self.offsets[:-1]] = 1.0
            return values, self.offsets, self.lengths
        sequences = self._read(X, lengths)
        values, offsets = self._records(sequences, np.ones(len(sequences.lengths)))
        return values, offsets, sequences.lengths

    def _run(self, function: Any, theta: Array, X: Any, lengths: Any) -> tuple[Array, Array]:
        """States (n_rows, K) and values of sequences (n_sequences,) by a compiled function."""
        values, offsets, sizes = self._each(X, lengths)
        k, longest = self.n_states, int(sizes.max())
        latent = np.empty(k * (k + longest))
        work = np.empty(kernels.work_size(k, self.n_features, longest))
        states, out = np.empty((int(sizes.sum()), k)), np.empty(len(sizes))
        row = 0
        for i, size in enumerate(sizes):
            out[i] = function(theta, values[offsets[i] : offsets[i + 1]], latent, work)
            states[row : row + size] = latent[k * k : k * (k + size)].reshape(size, k)
            row += size
        return states, out

    def posterior(self, theta: Array, X: Any = None, lengths: Any = None) -> tuple[Array, Array]:
        """Smoothed probabilities of the states, and log-likelihoods.

        Parameters
        ----------
        theta : ndarray of shape (theta_spec.size,)
        X, lengths
            Sequences as for the model, whose own they are by default.

        Returns
        -------
        probabilities : ndarray of shape (n_rows, K)
            One row for each row of the sequences, one sequence after the other.
        log_likelihood : ndarray of shape (n_sequences,)
            Weights left out.
        """
        return self._run(kernels.expect, theta, X, lengths)

    def predict_proba(self, theta: Array, X: Any = None, lengths: Any = None) -> Array:
        """Smoothed probabilities of the states, of shape (n_rows, K)."""
        return self.posterior(theta, X, lengths)[0]

    def viterbi(
        self, theta: Array, X: Any = None, lengths: Any = None
    ) -> tuple[NDArray[np.intp], Array]:
        """Most probable path of each sequence, and log p(y, path).

        Returns
        -------
        states : ndarray of shape (n_rows,)
        log_joint : ndarray of shape (n_sequences,)
        """
        states, log_joint = self._run(kernels.classify, theta, X, lengths)
        return states.argmax(axis=1), log_joint

    def score_samples(self, theta: Array, X: Any = None, lengths: Any = None) -> Array:
        """Log-likelihood of each sequence, of shape (n_sequences,), weights left out."""
        return self.posterior(theta, X, lengths)[1]

    def loglik(self, theta: Array) -> float:
        """Weighted log-likelihood of the sequences."""
        weights = self.weights
        present = weights > 0.0  # an absent one may be impossible
        return float(weights[present] @ self.score_samples(theta)[present])

    def cov_params(self, theta: Array) -> Array:
        """Covariance of the estimates: inverse observed information.

        Probabilities move along their simplex; those at 0 are taken as known.

        Returns
        -------
        ndarray of shape (len(param_names), len(param_names))
            NaN for what is at its boundary.
        """
        ways = directions(self.components(theta), self.n_features)
        information = observed_information(
            lambda t: mean_statistic(self, self._functions, t)[0],
            updates.surrogate,
            self.theta_of,
            self.params_of(theta),
            ways,
        )
        covariance = covariance_of(information, ways, self.n_individuals)
        fixed = ~ways.any(axis=1)
        covariance[fixed] = covariance[:, fixed] = np.nan
        return covariance

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> Self:
        """Short sequences of unequal lengths with two states, and a start near the truth."""
        sequences, _ = simulate(rng, n, length=(4, 8))
        truth: dict[str, ArrayLike] = {
            "startprob": [0.5, 0.5],
            "transmat": [[0.8, 0.2], [0.3, 0.7]],
            "means": [[-1.2], [1.4]],
            "covariances": [[1.0], [1.0]],
        }
        return cls(sequences, 2, init=truth, reg_covar=0.0)

    def results(self, record: Any) -> HiddenMarkovResults:
        """Wrap the record of a fit."""
        from ._hidden_markov_results import HiddenMarkovResults

        return HiddenMarkovResults(self, record)
