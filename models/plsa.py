"""Probabilistic latent semantic analysis (topic model) on sparse counts.

    p(word w | document d) = sum_k lambda_dk topics_kw

Layouts stand in `saem.models._plsa_kernels`, results in `saem.models._plsa_results`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saem._types import make_kernels
from saem.contract import Array, Model
from saem.exceptions import DataError, ModelError, OptionError, Problems
from saem.statistics import Packed

from . import _plsa_kernels as kernels
from ._checks import is_number, is_whole
from ._incomplete import read_weights
from ._plsa_data import Documents, read_counts

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from ._plsa_results import PLSAResults

__all__ = ["PLSA", "Corpus", "simulate"]


class PLSA(Model):
    """Topic model of Hofmann; a document is an individual.

    Parameters
    ----------
    counts : sparse matrix, array_like or DataFrame of shape (n_documents, n_words)
        Whole numbers: how often each word stands in each document. The columns of a
        DataFrame are the vocabulary.
    n_topics : int
    alpha : float
        Pseudo-count of every word in every topic: the topics maximise the likelihood times
        a Dirichlet(1 + alpha) density. 0 gives maximum likelihood.
    alpha_documents : float, optional
        Pseudo-count of every topic in every document, likewise. As `alpha` by default.
    vocabulary : sequence of str, optional
        Names of the words.
    init : ndarray of shape (n_topics, n_words), optional
        Topics to start from; random ones by default.
    weights : array_like of shape (n_documents,), optional
        A weight of 2 is the same as the document standing there twice.

    Raises
    ------
    DataError, ModelError
        With all problems found, before anything is computed.

    Notes
    -----
    The objective, with X the counts, is

        sum_d max_lambda [ sum_w X_dw log(sum_k lambda_k topics_kw) + a sum_k log lambda_k ]
            + alpha sum_kw log topics_kw,

    maximised over the topics. The proportions lambda_d of a document are local, and the
    visit of a document finds its best ones exactly (a concave problem of n_topics numbers).
    With p_dwk the responsibilities at these, the expected statistic is
    ``N_kw = sum_d X_dw p_dwk`` and ``topics_kw`` is proportional to ``N_kw + alpha``:
    a minorising step of the profile likelihood, which therefore never falls. The original
    EM (Hofmann 1999, SIGIR, 50-57) and the incremental study that uses it take one step of
    lambda_d a visit instead, from where the last visit left it. That is cheaper a visit, but
    what a visit yields then depends on what was visited before: no statistic that is a
    function of parameters and data, hence no variance-reduced correction that means
    anything. The stationary points are the same.

    For ``alpha=0`` this is non-negative matrix factorisation with the Kullback-Leibler
    divergence (Gaussier and Goutte 2005, SIGIR, 601-602). A draw gives a topic to
    every token, given the best proportions. There is no ``classify``: hard assignments would
    want proportions of their own, and with these the problem of a document is not concave.

    A remembered record has ``n_topics`` numbers for each word of the longest document.

    Examples
    --------
    >>> import numpy as np
    >>> corpus = simulate(np.random.default_rng(0), 40, n_topics=2, n_words=12)
    >>> fit = PLSA(corpus.counts, 2, init=corpus.topics).fit("em", progress=False)
    >>> fit.components.shape
    (2, 12)
    """

    name: ClassVar[str] = "pLSA"
    capabilities: ClassVar[frozenset[str]] = frozenset({"expect", "draw", "surrogate"})
    maximize_errors: ClassVar[dict[int, str]] = {
        kernels.NEGATIVE_COUNT: "an expected count of a word in a topic is negative or not finite",
        kernels.EMPTY_TOPIC: "a topic has lost all its words; use fewer topics, or alpha above 0",
    }

    def __init__(
        self,
        counts: Any,
        n_topics: int,
        *,
        alpha: float = 0.01,
        alpha_documents: float | None = None,
        vocabulary: Any = None,
        init: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> None:
        problems = Problems("the topic model")
        own = alpha if alpha_documents is None else alpha_documents
        pseudo_counts = {"alpha": alpha}
        if alpha_documents is not None:
            pseudo_counts["alpha_documents"] = alpha_documents
        if not is_whole(n_topics) or n_topics < 1:
            problems.add(f"n_topics={n_topics!r} must be a whole number of at least 1")
        for name, value in pseudo_counts.items():
            if not (is_number(value) and 0.0 <= value < np.inf):
                problems.add(f"{name}={value!r} must be a number of at least 0")
        problems.raise_if_any(ModelError)
        self.documents: Documents = read_counts(counts, vocabulary)
        self.weights = read_weights(weights, self.documents.n, problems, "documents")
        problems.raise_if_any(DataError)
        self.n_topics, self.alpha, self.alpha_documents = int(n_topics), float(alpha), float(own)
        self.vocabulary = self.documents.vocabulary
        self.n_words = len(self.vocabulary)
        self.n_individuals = self.documents.n
        self.nobs = int(self.documents.counts.sum())
        self.values, self.offsets = self.documents.records(self.weights)
        longest = int(np.diff(self.documents.starts).max())
        self.latent_size = longest * self.n_topics
        self.work_size = kernels.work_size(self.n_topics, longest)
        shape = (self.n_topics, self.n_words)
        self.theta_spec = Packed(constants=(kernels.HEAD,), topics=shape)
        self.stat_spec = Packed(counts=shape)
        self.param_names = [f"topic{k}[{w}]" for k in range(self.n_topics) for w in self.vocabulary]
        self.n_params = self.n_topics * (self.n_words - 1)
        self.init = None if init is None else self._topics(init)
        self.kernels = make_kernels(
            expect=kernels.expect,
            draw=kernels.draw,
            accumulate=kernels.accumulate,
            maximize=kernels.maximize,
            project=kernels.project,
            surrogate=kernels.surrogate,
        )

    def _topics(self, topics: ArrayLike) -> Array:
        """Check topics and normalise them exactly."""
        array = np.asarray(topics, dtype=float)
        if array.shape != (self.n_topics, self.n_words):
            raise ModelError(
                f"topics have shape {array.shape}; they must have {(self.n_topics, self.n_words)}."
            )
        sums = array.sum(axis=1)
        if not (np.all(array >= 0.0) and np.all(np.abs(sums - 1.0) < 1e-6)):
            raise ModelError("topics must be non-negative and each sum to 1.")
        known = np.zeros(self.n_words, dtype=bool)
        known[self.documents.words] = True
        if np.any((array.sum(axis=0) == 0.0) & known):
            word = self.vocabulary[int(np.argmax((array.sum(axis=0) == 0.0) & known))]
            raise ModelError(
                f"word {word!r} stands in a document and has probability 0 in every topic. "
                "Remedy: give it a small probability."
            )
        return array / sums[:, None]

    def pack_params(self, *, topics: ArrayLike) -> Array:
        """Theta from the topics.

        Parameters
        ----------
        topics : array_like of shape (n_topics, n_words)
            Each row a distribution over the words.

        Raises
        ------
        ModelError
            If they are not.
        """
        array = self._topics(topics)
        penalty = 0.0
        if self.alpha > 0.0:
            with np.errstate(divide="ignore"):
                penalty = self.alpha * float(np.log(array).sum())
        head = [self.n_topics, self.n_words, self.n_individuals, self.alpha, self.alpha_documents]
        return self.theta_spec.pack({"constants": [*head, penalty], "topics": array})

    def params_of(self, theta: Array) -> Array:
        """Probabilities of the words, topic by topic."""
        return theta[kernels.HEAD :].copy()

    def start(self, rng: np.random.Generator) -> Array:
        """Topics of `init`, or the corpus' frequencies times exponential random numbers."""
        if self.init is not None:
            return self.pack_params(topics=self.init)
        frequency = np.bincount(self.documents.words, self.documents.counts, self.n_words) + 0.5
        topics = frequency * rng.exponential(size=(self.n_topics, self.n_words))
        return self.pack_params(topics=topics / topics.sum(axis=1, keepdims=True))

    def check_theta(self, theta: Array) -> None:
        """Raise `ModelError` if a starting theta is not admissible."""
        if theta.shape != (self.theta_spec.size,) or np.any(np.isnan(theta)):
            raise ModelError(f"theta must be {self.theta_spec.size} numbers; use `pack_params`.")
        self._topics(self.theta_spec.view(theta)["topics"])
        if self.alpha > 0.0 and not np.isfinite(theta[5]):
            raise ModelError("with alpha above 0 every word needs a probability above 0.")

    def proportions(self, theta: Array, counts: Any = None) -> tuple[Array, Array]:
        """Topic proportions of documents and their log-likelihoods.

        Parameters
        ----------
        theta : ndarray
        counts : as for the model, optional
            Other documents over the same vocabulary; the model's own by default.

        Returns
        -------
        proportions : ndarray of shape (n_documents, n_topics)
        log_likelihood : ndarray of shape (n_documents,)
            ``sum_w X_dw log p(w | d)``, without penalties.
        """
        documents = self.documents
        if counts is not None:
            documents = read_counts(counts, None)
            if len(documents.vocabulary) != self.n_words:
                raise DataError(
                    f"the documents have {len(documents.vocabulary)} words; the model has "
                    f"{self.n_words}."
                )
        values, offsets = documents.records(np.ones(documents.n))
        out, log_lik = np.empty((documents.n, self.n_topics)), np.empty(documents.n)
        longest = int(np.diff(documents.starts).max())
        kernels.proportions_of(
            theta, values, offsets, kernels.work_size(self.n_topics, longest), out, log_lik
        )
        return out, log_lik

    def loglik(self, theta: Array) -> float:
        """Log-likelihood ``sum X log(lambda topics)`` without the penalties."""
        return float(self.weights @ self.proportions(theta)[1])

    def penalised_loglik(self, theta: Array) -> float:
        """Objective of the fit: log-likelihood plus the penalties of lambda and topics."""
        proportions, log_lik = self.proportions(theta)
        if self.alpha_documents > 0.0:
            log_lik = log_lik + self.alpha_documents * np.log(proportions).sum(axis=1)
        return float(self.weights @ log_lik + theta[5])

    def reweighted(self, weights: Array) -> PLSA:
        """Return the same model and data with other weights of the documents."""
        return PLSA(
            self.documents.matrix(), self.n_topics, alpha=self.alpha,
            alpha_documents=self.alpha_documents, vocabulary=self.vocabulary,
            init=self.init, weights=weights,
        )  # fmt: skip

    def persist(self) -> dict[str, Any]:
        """Options and counts for a fit file."""
        documents = self.documents
        return {
            "words": documents.words, "counts": documents.counts, "starts": documents.starts,
            "vocabulary": self.vocabulary, "n_topics": self.n_topics, "alpha": self.alpha,
            "alpha_documents": self.alpha_documents, "init": self.init, "weights": self.weights,
        }  # fmt: skip

    @classmethod
    def rebuild(cls, state: dict[str, Any]) -> PLSA:
        """Make the model of what `persist` returned."""
        options = dict(state)
        parts = [options.pop(name) for name in ("words", "counts", "starts", "vocabulary", "init")]
        counts = Documents(*parts[:4]).matrix()
        model = cls(counts, vocabulary=parts[3], **options)
        model.init = parts[4]  # topics that sum to 1, and would be divided by their sum again
        return model

    @classmethod
    def example(cls, rng: np.random.Generator, n: int = 60) -> PLSA:
        """Small simulated corpus that starts at the true topics."""
        corpus = simulate(rng, n, n_topics=2, n_words=8, length=15)
        return cls(corpus.counts, 2, alpha=0.1, init=corpus.topics)

    def results(self, record: Any) -> PLSAResults:
        """Wrap the record of a fit."""
        from ._plsa_results import PLSAResults

        return PLSAResults(self, record)


class Corpus(NamedTuple):
    """A simulated corpus and what it was simulated from.

    Attributes
    ----------
    counts : csr_array of shape (n_documents, n_words)
    topics : ndarray of shape (n_topics, n_words)
    proportions : ndarray of shape (n_documents, n_topics)
    """

    counts: csr_array
    topics: Array
    proportions: Array


def simulate(
    rng: np.random.Generator,
    n: int = 1000,
    *,
    n_topics: int = 10,
    n_words: int = 300,
    length: float = 60.0,
    topic_concentration: float = 0.1,
    document_concentration: float = 0.3,
) -> Corpus:
    """Simulate documents from a topic model.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
        Documents.
    n_topics, n_words : int
    length : float
        Mean number of tokens of a document, which is 1 plus a Poisson number.
    topic_concentration, document_concentration : float
        Dirichlet parameters of the topics and of the proportions; small ones make topics of
        few words and documents of few topics.

    Returns
    -------
    Corpus
    """
    from scipy.sparse import csr_array

    if n < 1 or n_topics < 1 or n_words < 1 or not length >= 1.0:
        raise OptionError("n, n_topics, n_words and length must all be at least 1.")
    topics = rng.dirichlet(np.full(n_words, topic_concentration), n_topics)
    topics = 0.999 * topics + 0.001 / n_words
    proportions = rng.dirichlet(np.full(n_topics, document_concentration), n)
    tokens: NDArray[np.int64] = 1 + rng.poisson(length - 1.0, n)
    dense = proportions @ topics
    rows = [rng.multinomial(size, p / p.sum()) for size, p in zip(tokens, dense, strict=True)]
    return Corpus(csr_array(np.array(rows, dtype=float)), topics, proportions)
