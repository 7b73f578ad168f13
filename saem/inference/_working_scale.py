"""The scale without bounds on which approximate likelihoods are climbed and differenced.

Logarithms of variances and residual scales; Cholesky factors of covariance blocks with logarithms
on their diagonals (Pinheiro and Bates 1996, Statist. Comput. 6, 289-296), Fisher's z of
correlations where part of a block is fixed; everything else as it is estimated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array

if TYPE_CHECKING:
    from saem.nlme.model import NLME

__all__ = ["WorkingScale"]

#: Longest change of a logarithm or Fisher's z in a step, and of what has units in standard
#: deviations of its random effect.
_LONGEST_LOG, _LONGEST_SD = 1.5, 3.0
#: Part of a variance that the other effects of its block leave unexplained, below which it is 0.
_SINGULAR = 1e-6


class WorkingScale:
    """Scale without bounds on which steps are taken.

    Parameters
    ----------
    model : NLME
    """

    def __init__(self, model: NLME) -> None:
        from saem.inference._blocks import entries_of

        self.model = model
        self.kinds = np.array(model.param_kind)
        _, omega, _ = entries_of(model)
        place = {(row, column): k for k, row, column in omega}
        #: Coordinates of each block whose entries are all estimated, and their places.
        self.blocks = _whole_blocks(place)
        inside = {k for _, at in self.blocks for k in at[np.tril_indices(len(at))]}
        self.place = {rc: k for rc, k in place.items() if k not in inside}
        self.logged = np.isin(self.kinds, ("variance", "residual"))
        self.logged[list(inside)] = False

    def values(self, theta: Array) -> Array:
        """Working values of the estimates, shape (n_params,)."""
        values = self.model.estimation_vector(theta).copy()
        values[self.logged] = np.log(values[self.logged])
        cov = self.model.theta_spec.view(theta)["omega"]
        for rows, at in self.blocks:
            factor, lower = np.linalg.cholesky(cov[np.ix_(rows, rows)]), np.tril_indices(len(rows))
            np.fill_diagonal(factor, np.log(np.diagonal(factor)))
            values[at[lower]] = factor[lower]
        for (row, column), k in self.place.items():
            if row != column:
                rho = cov[row, column] / np.sqrt(cov[row, row] * cov[column, column])
                values[k] = np.arctanh(rho)
        return values

    def theta(self, theta: Array, values: Array) -> Array | None:
        """Theta with other estimates; None where Omega would not be positive definite."""
        estimates = values.copy()
        with np.errstate(over="ignore"):
            estimates[self.logged] = np.exp(values[self.logged])
        for rows, at in self.blocks:
            factor = self._factor(values, at)
            lower = np.tril_indices(len(rows))
            estimates[at[lower]] = (factor @ factor.T)[lower]
        spread = np.diagonal(self.model.theta_spec.view(theta)["omega"]).copy()
        for (row, column), k in self.place.items():
            if row == column:
                spread[row] = estimates[k]
        for (row, column), k in self.place.items():
            if row != column:
                estimates[k] = np.tanh(values[k]) * np.sqrt(spread[row] * spread[column])
        if not np.all(np.isfinite(estimates)):
            return None
        moved = self.model.with_estimates(theta, estimates)
        # What is not positive definite is mended there, and is then another matrix.
        same = np.allclose(self.model.estimation_vector(moved), estimates, rtol=1e-9, atol=1e-300)
        return moved if same else None

    @staticmethod
    def _factor(values: Array, at: Any) -> Array:
        """Cholesky factor of a block from its working values."""
        factor = np.tril(values[at])
        np.fill_diagonal(factor, np.exp(np.diagonal(factor)))
        return factor

    def jacobian(self, theta: Array) -> Array:
        """Derivatives of the estimates by the working values, shape (n_params, n_params)."""
        estimates = self.model.estimation_vector(theta)
        cov = self.model.theta_spec.view(theta)["omega"]
        matrix = np.diag(np.where(self.logged, estimates, 1.0))
        for rows, at in self.blocks:
            factor, lower = np.linalg.cholesky(cov[np.ix_(rows, rows)]), np.tril_indices(len(rows))
            for i, j in zip(*lower, strict=True):
                unit = np.zeros_like(factor)
                unit[i, j] = factor[i, i] if i == j else 1.0
                change = unit @ factor.T
                matrix[at[lower], at[i, j]] = (change + change.T)[lower]
        for (row, column), k in self.place.items():
            if row == column:
                continue
            scale = np.sqrt(cov[row, row] * cov[column, column])
            matrix[k, k] = scale - cov[row, column] ** 2 / scale
            for a in (row, column):
                if (a, a) in self.place:
                    matrix[k, self.place[a, a]] = 0.5 * cov[row, column]
        return matrix

    def singular(self, theta: Array) -> Any:
        """Which diagonal entries of factors are next to nothing: Omega is singular there."""
        found = np.zeros(self.kinds.size, dtype=bool)
        cov = self.model.theta_spec.view(theta)["omega"]
        for rows, at in self.blocks:
            part = cov[np.ix_(rows, rows)]
            left = np.square(np.diagonal(np.linalg.cholesky(part))) / np.diagonal(part)
            found[np.diagonal(at)[left < _SINGULAR]] = True
        return found

    def longest(self, theta: Array) -> Array:
        """Largest change of each working value in one step."""
        limit = np.full(self.kinds.size, np.inf)
        view, p = self.model.theta_spec.view(theta), len(self.model.parameters)
        sd = np.sqrt(np.diagonal(view["omega"]))
        limit[self.logged | (self.kinds == "covariance")] = _LONGEST_LOG
        for rows, at in self.blocks:
            for i, row in enumerate(rows):
                limit[at[i, :i]] = _LONGEST_SD * sd[row]
                limit[at[i, i]] = _LONGEST_LOG
        first = self.model.theta_spec.slices["beta"].start
        for k, (at, kind) in enumerate(zip(self.model.param_index, self.kinds, strict=True)):
            place = int(view["position"][(at - first) % p]) if kind == "typical" else -1
            if place >= 0:
                limit[k] = max(_LONGEST_SD * sd[place], 0.1)
        return limit


def _whole_blocks(place: dict[tuple[int, int], int]) -> list[tuple[list[int], Any]]:
    """Blocks of two and more coordinates with all entries estimated: rows, and places below."""
    found, seen = [], set()
    for row in sorted({row for row, _ in place}):
        if row in seen:
            continue
        rows = sorted({a for pair in place if row in pair for a in pair} | {row})
        seen |= set(rows)
        pairs = [(a, b) for a in rows for b in rows if b <= a]
        if len(rows) > 1 and all(pair in place for pair in pairs):
            at = np.zeros((len(rows), len(rows)), dtype=np.int64)
            for a, b in pairs:
                at[rows.index(a), rows.index(b)] = place[a, b]
            found.append((rows, at))
    return found
