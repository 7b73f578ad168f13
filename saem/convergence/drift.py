"""Drift of the averaged phase: do its first and last part agree."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from saem.exceptions import OptionError
from saem.inference.monte_carlo import long_run_variance, recursion_of

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.model import NLME
    from saem.record import FitRecord

__all__ = ["brownian_bridge_tail", "drift_tests"]

#: Averaged iterations below which nothing can be said.
_FEWEST = 60
#: Parts of the averaged iterations that Geweke's test compares.
_FIRST, _LAST = 0.3, 0.5


def drift_tests(model: NLME, record: FitRecord) -> pd.DataFrame:
    """Test whether the averaged iterations of SAEM are those of a run that has arrived.

    Parameters
    ----------
    model : NLME
    record : FitRecord
        Of SAEM whose last iterations are averaged.

    Returns
    -------
    DataFrame
        One row per estimate: ``geweke_z`` and its two-sided ``geweke_p``; ``cusum``, the largest
        standardised partial sum, and its ``cusum_p``. Both p-values hold for each row by itself;
        ``p`` is the smaller one, Bonferroni-corrected for both tests and all rows. NaN for
        parameters on a boundary.

    Raises
    ------
    saem.exceptions.OptionError
        If nothing was averaged, or too little.

    Notes
    -----
    Geweke's test (1992, Bayesian Statistics 4, 169-193) compares the mean of the first 30 % of the
    averaged iterates with that of the last half. Iterates of SAEM are no stationary sequence;
    the variance of the difference is that of the linear recursion they follow, with its
    steps and the noise of the chains (`saem.inference.monte_carlo.Recursion`). The noise itself
    has short memory, and the largest absolute value of its standardised partial sums tends to
    that of a Brownian bridge (Ploberger and Kramer 1992, Econometrica 60, 271-285).
    """
    import pandas as pd

    found = recursion_of(model, record)
    if found is None or len(found.noise) < _FEWEST:
        raise OptionError(
            f"drift is tested on averaged iterations of SAEM, at least {_FEWEST}; this fit has "
            f"{0 if record.noise is None else len(record.noise)}. Remedy: fit by 'saem', with "
            "more iterations."
        )
    n = len(found.noise)
    contrast = np.zeros(n)
    contrast[: int(_FIRST * n)] = 1.0 / int(_FIRST * n)
    contrast[n - int(_LAST * n) :] -= 1.0 / int(_LAST * n)
    z = contrast @ found.path / np.sqrt(np.diagonal(found.covariance(contrast)))
    spread = np.sqrt(n * np.diagonal(long_run_variance(found.noise)))
    partial = np.cumsum(found.noise - found.noise.mean(axis=0), axis=0) / spread
    largest = np.abs(partial).max(axis=0)
    columns = {
        "geweke_z": z,
        "geweke_p": [2.0 * NormalDist().cdf(-abs(value)) for value in z],
        "cusum": largest,
        "cusum_p": [brownian_bridge_tail(value) for value in largest],
    }
    names = [model.param_names[j] for j in found.free]
    table = pd.DataFrame(columns, index=names)
    table["p"] = np.minimum(1.0, 2.0 * len(names) * table[["geweke_p", "cusum_p"]].min(axis=1))
    return table.reindex(model.param_names).rename_axis("parameter")


def brownian_bridge_tail(x: float) -> float:
    """Probability that the largest absolute value of a Brownian bridge exceeds x.

    ``2 sum_k (-1)^(k+1) exp(-2 k^2 x^2)`` (Kolmogorov 1933).

    Parameters
    ----------
    x : float
    """
    if x < 0.2:
        return 1.0
    k = np.arange(1, 101)
    return float(np.clip(2.0 * np.sum((-1.0) ** (k + 1) * np.exp(-2.0 * k**2 * x**2)), 0.0, 1.0))
