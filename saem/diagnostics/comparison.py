"""Comparison of fits of different models to the same data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.exceptions import OptionError, Problems

if TYPE_CHECKING:
    import pandas as pd

    from saem.results import Results

__all__ = ["compare"]


def compare(
    fits: Mapping[str, Results], *, by: str = "aic", method: str | None = None
) -> pd.DataFrame:
    """Table of log-likelihoods and information criteria, best first.

    Parameters
    ----------
    fits : mapping of str to Results
        Fits by name, of the same data.
    by : {"aic", "bic"}
        Criterion by which fits are sorted, and that differences and weights are made of.
    method : str, optional
        Method of the log-likelihoods, as for ``fit.loglik``; each fit's own by default.

    Returns
    -------
    DataFrame
        Indexed by name: ``loglik``, ``error`` (Monte Carlo standard error), ``n_params``,
        ``aic``, ``bic`` (BICc for mixed-effects models, as ``fit.bic``), ``delta`` to the
        best, and ``weight``: ``exp(-delta / 2)``, scaled to sum 1 (Burnham and Anderson 2002,
        Model selection and multimodel inference, section 2.9).

    Raises
    ------
    saem.exceptions.OptionError
        If the fits are not of the same data, or there are none.

    Examples
    --------
    >>> import saem
    >>> eruptions = saem.datasets.load("old_faithful")
    >>> models = {k: saem.models.GaussianMixture(eruptions, k) for k in (1, 2)}
    >>> fits = {f"{k} components": m.fit("em", seed=0) for k, m in models.items()}
    >>> saem.compare(fits).index.tolist()
    ['2 components', '1 components']
    """
    import pandas as pd

    if not isinstance(fits, Mapping) or not fits:
        raise OptionError(
            "compare takes fits by name, such as compare({'one': fit_1, 'two': fit_2})."
        )
    if by not in ("aic", "bic"):
        raise OptionError(f"by={by!r} must be 'aic' or 'bic'.")
    check_same_data(fits)
    rows = {}
    for name, fit in fits.items():
        found = fit.loglik(method)
        # The fit's own criteria, with the log-likelihood of this method.
        shift = -2.0 * (found.value - fit.llf)
        rows[name] = {
            "loglik": found.value, "error": found.error, "n_params": fit.n_params,
            "aic": fit.aic + shift, "bic": fit.bic + shift,
        }  # fmt: skip
    frame = pd.DataFrame.from_dict(rows, orient="index").sort_values(by, kind="stable")
    frame["n_params"] = frame["n_params"].astype(int)
    frame["delta"] = frame[by] - frame[by].min()
    weight = np.exp(-0.5 * frame["delta"])
    frame["weight"] = weight / weight.sum()
    return frame.rename_axis("fit")


def check_same_data(fits: Mapping[str, Results]) -> None:
    """Raise `OptionError` unless all fits have the same responses of the same individuals.

    Parameters
    ----------
    fits : mapping of str to Results
    """
    problems = Problems("the comparison")
    names = list(fits)
    first: Any = fits[names[0]].model
    for name in names[1:]:
        why = _difference(first, fits[name].model)
        if why:
            problems.add(
                f"{name!r} and {names[0]!r} are fits of different data: {why}",
                remedy="likelihoods are compared on the same data only",
            )
    problems.raise_if_any(OptionError)


def _difference(one: Any, two: Any) -> str:
    """What tells the data of two models apart; empty if nothing does."""
    for what, name in (("observations", "nobs"), ("individuals", "n_individuals")):
        a, b = getattr(one, name), getattr(two, name)
        if a != b:
            return f"{b} {what} against {a}"
    mixed = [hasattr(model, "individuals") for model in (one, two)]
    if mixed[0] != mixed[1]:
        return "one is a mixed-effects model, the other is not"
    if mixed[0]:
        if [*one.individuals.ids] != [*two.individuals.ids]:
            return "their ids differ"
        if not one.individuals.same_responses(two.individuals):
            return "their responses differ"
    elif type(one) is type(two) and not np.array_equal(one.values, two.values):
        return "their values differ"
    return ""
