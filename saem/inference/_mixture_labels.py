"""Labels of components: which parameters belong to which, and how two fits match."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array

__all__ = ["Match", "component_entries", "match", "permuted"]

_NAME = re.compile(r"^([^\[\]]*)\[(\d+)(.*)\]$")


class Match(NamedTuple):
    """Assignment of one fit's components to another's.

    Attributes
    ----------
    order : ndarray of shape (k,)
        ``order[c]`` is the component that plays the part of c.
    gain : float
        Sum of the gains of the assignment; `second` that of the next best one.
    """

    order: NDArray[np.intp]
    gain: float
    second: float

    @property
    def margin(self) -> float:
        """How far the best assignment is ahead; infinite for one component."""
        return self.gain - self.second


def component_entries(names: list[str], k: int) -> NDArray[np.intp]:
    """Positions of the parameters of each component among the names.

    A name such as ``means[1,x]`` belongs to component 1, if every component has the
    same entries under that word; others, such as a covariance that all share, to none.

    Returns
    -------
    ndarray of shape (k, n_own)
        In the same order for each component.
    """
    found: dict[str, dict[int, dict[str, int]]] = {}
    for position, name in enumerate(names):
        parts = _NAME.match(name)
        if parts:
            word, component, rest = parts.groups()
            found.setdefault(word, {}).setdefault(int(component), {})[rest] = position
    entries: list[list[int]] = [[] for _ in range(k)]
    for own in found.values():
        if set(own) == set(range(k)) and all(set(own[c]) == set(own[0]) for c in own):
            for c in range(k):
                entries[c] += [own[c][rest] for rest in own[0]]
    return np.array(entries, dtype=np.intp).reshape(k, -1)


def permuted(params: Array, entries: NDArray[np.intp], order: NDArray[np.intp]) -> Array:
    """Parameters with the components in another order."""
    result = params.copy()
    result[entries] = params[entries[order]]
    return result


def match(gain: Array) -> Match:
    """Best assignment, and the next best by leaving out each of its pairs in turn.

    Parameters
    ----------
    gain : ndarray of shape (k, k)
        ``gain[c, j]``: what speaks for the other fit's component j in the part of c.
    """
    from scipy.optimize import linear_sum_assignment

    rows, order = linear_sum_assignment(gain, maximize=True)
    best, second = float(gain[rows, order].sum()), -np.inf
    if len(gain) > 1:
        barred = np.abs(gain).sum() + 1.0
        for c in rows:
            other = gain.copy()
            other[c, order[c]] -= 4.0 * barred
            second = max(second, float(other[linear_sum_assignment(other, maximize=True)].sum()))
    return Match(order, best, second)
