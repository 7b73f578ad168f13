"""Packed vectors: named blocks of numbers in one contiguous float64 vector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["Packed", "leaf_size"]

#: At most this many partial sums are kept in a full pass; see `leaf_size`.
_MAX_LEAVES = 512
_MIN_LEAF = 8


class Packed:
    """Names and shapes of the blocks of a packed vector.

    Parameters
    ----------
    **shapes : tuple of int
        Shape of each block, in the order in which they stand in the vector;
        ``()`` is one number.

    Examples
    --------
    >>> spec = Packed(weights=(2,), means=(2, 3))
    >>> spec.size
    8
    >>> vector = np.arange(8.0)
    >>> spec.view(vector)["means"]
    array([[2., 3., 4.],
           [5., 6., 7.]])
    """

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        self.shapes: dict[str, tuple[int, ...]] = dict(shapes)
        self.slices: dict[str, slice] = {}
        start = 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            self.slices[name] = slice(start, stop)
            start = stop
        self.size = start

    def view(self, vector: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Blocks of a vector, as views: writing to a block writes to the vector."""
        return {n: vector[self.slices[n]].reshape(s) for n, s in self.shapes.items()}

    def pack(self, blocks: Mapping[str, object]) -> NDArray[np.float64]:
        """Put blocks into a new vector; each must have its declared shape."""
        vector = np.empty(self.size)
        views = self.view(vector)
        if set(blocks) != set(views):
            raise KeyError(f"blocks {sorted(blocks)} given, {sorted(views)} expected")
        for name, value in blocks.items():
            block = np.asarray(value, dtype=float)
            if block.shape != self.shapes[name]:
                raise ValueError(f"block {name!r} has shape {block.shape}, not {self.shapes[name]}")
            views[name][...] = block
        return vector

    def labels(self) -> Iterator[str]:
        """Name of every number, such as ``means[0,2]``."""
        for name, shape in self.shapes.items():
            for index in np.ndindex(*shape):
                yield f"{name}[{','.join(map(str, index))}]" if index else name


def leaf_size(n_individuals: int) -> int:
    """Individuals per partial sum of a full pass.

    Sums over individuals are formed leaf by leaf and the leaves added in
    order. The size of a leaf depends on the number of individuals only, never
    on threads or blocks, so the result has the same bits however the leaves
    are shared out.

    Parameters
    ----------
    n_individuals : int

    Returns
    -------
    int
    """
    return max(_MIN_LEAF, -(-n_individuals // _MAX_LEAVES))
