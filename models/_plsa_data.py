"""Reading of document-word counts, checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array
from saem.exceptions import DataError, Problems

from ._table import as_array

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Documents", "read_counts"]


@dataclass(frozen=True)
class Documents:
    """Counts of all documents, one after the other.

    Attributes
    ----------
    words : ndarray of int64
        Words of document d are ``words[starts[d]:starts[d + 1]]``.
    counts : ndarray
        How often each of them stands there; all above 0.
    starts : ndarray of int64, shape (n_documents + 1,)
    vocabulary : list of str
    """

    words: NDArray[np.int64]
    counts: Array
    starts: NDArray[np.int64]
    vocabulary: list[str]

    @property
    def n(self) -> int:
        """Number of documents."""
        return len(self.starts) - 1

    def matrix(self) -> csr_array:
        """Counts as a sparse matrix of shape (n_documents, n_words)."""
        from scipy.sparse import csr_array

        shape = (self.n, len(self.vocabulary))
        return csr_array((self.counts, self.words, self.starts), shape=shape)

    def records(self, weights: Array) -> tuple[Array, NDArray[np.int64]]:
        """Data records of the kernels: weight, vocabulary size, words, counts."""
        offsets = np.zeros(self.n + 1, dtype=np.int64)
        offsets[1:] = np.cumsum(2 + 2 * np.diff(self.starts))
        values = np.empty(offsets[-1])
        for d in range(self.n):
            rows = slice(self.starts[d], self.starts[d + 1])
            record = values[offsets[d] : offsets[d + 1]]
            record[:2] = weights[d], len(self.vocabulary)
            record[2:] = np.concatenate([self.words[rows], self.counts[rows]])
        return values, offsets


def _add_bad_counts(matrix: Any, rows: Any, names: list[str], problems: Problems) -> None:
    """Name counts that are not whole numbers of at least 0, and empty documents."""
    data = matrix.data
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(~((data >= 0.0) & (data == np.floor(data)) & (data < 2.0**53)))
    document = np.searchsorted(matrix.indptr, bad, side="right") - 1
    for at, d in zip(bad, document, strict=True):
        problems.add(
            f"document {rows[d]}, word {names[matrix.indices[at]]!r}: the count {data[at]:g} is "
            "not a whole number of at least 0",
            remedy="give raw counts, not frequencies or tf-idf",
        )
        if len(problems.items) > problems.LIMIT:
            return
    if problems:
        return
    matrix.eliminate_zeros()
    for d in np.flatnonzero(np.diff(matrix.indptr) == 0):
        problems.add(f"document {rows[d]} has no words", remedy="drop it")
        if len(problems.items) > problems.LIMIT:
            return


def read_counts(counts: Any, vocabulary: Any) -> Documents:
    """Check counts and bring them into one form; all problems are raised together."""
    from scipy.sparse import csr_array, issparse

    problems = Problems("the counts")
    names = None
    rows: Any = None
    if hasattr(counts, "columns") and hasattr(counts, "dtypes"):
        names, rows = [str(c) for c in counts.columns], counts.index
        counts = counts.to_numpy()
    array = counts if issparse(counts) else as_array(counts, "counts", problems)
    problems.raise_if_any(DataError)
    if array.dtype.kind not in "iufb" or array.ndim != 2 or 0 in array.shape:
        raise DataError(
            f"counts of shape {array.shape} and dtype {array.dtype} must be a matrix of numbers "
            "with one row per document and one column per word."
        )
    matrix = csr_array(array, dtype=float, copy=True)
    matrix.sum_duplicates()
    if vocabulary is not None:
        if isinstance(vocabulary, str) or not isinstance(vocabulary, Iterable):
            raise DataError(f"vocabulary={vocabulary!r} must be a sequence of words.")
        names = [str(w) for w in vocabulary]
    if names is None:
        names = [f"w{w}" for w in range(matrix.shape[1])]
    if len(names) != matrix.shape[1]:
        raise DataError(
            f"vocabulary has {len(names)} words, but counts have {matrix.shape[1]} columns."
        )
    _add_bad_counts(matrix, range(matrix.shape[0]) if rows is None else rows, names, problems)
    problems.raise_if_any(DataError)
    return Documents(
        matrix.indices.astype(np.int64), matrix.data, matrix.indptr.astype(np.int64), names
    )
