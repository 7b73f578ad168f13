"""What a fit with inter-occasion variability says, by subject and by occasion.

Inside, every occasion has random coordinates of its own (`saem.nlme.occasions`); here they are
given back the names of a user: the label of the occasion, and one kappa per parameter.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saem.contract import Array
from saem.nlme.occasions import COLUMN, expand_parameters, expand_structural, on_occasion

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.model import NLME
    from saem.nlme.results import NLMEResults

__all__ = [
    "covariance",
    "effect_names",
    "effects",
    "occasion_frame",
    "occasion_index",
    "occasion_psi",
    "on_new_rows",
    "present",
    "recounted",
    "row_labels",
    "shrinkage",
]

Indices = NDArray[np.int64]


def _numbers(model: NLME) -> tuple[Indices, Indices]:
    """Subject and number of the occasion of each stacked row."""
    data = model.individuals
    owner = np.repeat(np.arange(data.n_individuals), data.n_obs)
    return owner, data.columns[COLUMN].astype(np.int64)


def present(model: NLME) -> NDArray[np.bool_]:
    """Which occasions each subject has, shape (n_individuals, number of occasions).

    Parameters
    ----------
    model : NLME
        With occasions.

    Returns
    -------
    ndarray of bool
    """
    assert model.occasions is not None
    owner, codes = _numbers(model)
    found = np.zeros((model.n_individuals, model.occasions.number), dtype=bool)
    found[owner, codes] = True
    return found


def row_labels(model: NLME) -> pd.Series:
    """Label of the occasion of each stacked row, as the user gave them.

    Parameters
    ----------
    model : NLME
        With occasions.

    Returns
    -------
    Series
    """
    import pandas as pd

    assert model.occasions is not None
    labels = model.occasions.labels
    owner, codes = _numbers(model)
    return pd.Series([labels[i][o] for i, o in zip(owner, codes, strict=True)])


def occasion_index(results: NLMEResults) -> tuple[pd.MultiIndex, Indices, Indices]:
    """Index by id and occasion of all occasions that there are; their subjects and numbers.

    Parameters
    ----------
    results : NLMEResults

    Returns
    -------
    index : MultiIndex
    subjects, numbers : ndarray of int64
    """
    import pandas as pd

    model = results.model
    assert model.occasions is not None
    subjects, numbers = np.nonzero(present(model))
    labels = [model.occasions.labels[i][o] for i, o in zip(subjects, numbers, strict=True)]
    ids = results._index()
    index = pd.MultiIndex.from_arrays(
        [ids[subjects], labels], names=[ids.name, str(model.occasions.label)]
    )
    return index, subjects, numbers


# -- random effects ------------------------------------------------------------------


def effect_names(model: NLME) -> list[str]:
    """Names of the random effects: those of the subject, and one kappa per varying parameter.

    Parameters
    ----------
    model : NLME

    Returns
    -------
    list of str
    """
    occasions = model.occasions
    if occasions is None:
        return list(model.random_names)
    first = model.n_subject_coords
    return [*model.random_names[:first], *(f"kappa_{name}" for name in occasions.sds)]


def effects(model: NLME, eta: Array) -> list[Array]:
    """Values of each of `effect_names`: of the subjects, or of all occasions that there are.

    Parameters
    ----------
    model : NLME
    eta : ndarray of shape (n_individuals, n_draws, n_coords)

    Returns
    -------
    list of ndarray
        Of shape (n_individuals, n_draws) or (n_occasions, n_draws).
    """
    first, found = model.n_subject_coords, []
    for a in range(first):
        found.append(eta[:, :, a])
    if model.occasions is not None:
        k = len(model.occasions.sds)
        subjects, numbers = np.nonzero(present(model))
        for r in range(k):
            found.append(eta[subjects, :, first + numbers * k + r])
    return found


def covariance(results: NLMEResults) -> tuple[Array, Array]:
    """Omega of the subjects' effects, and Gamma of an occasion's deviations.

    Parameters
    ----------
    results : NLMEResults

    Returns
    -------
    omega, gamma : ndarray
        Gamma of shape (0, 0) without occasions.
    """
    model, matrix = results.model, results._blocks["omega"]
    first = model.n_subject_coords
    k = 0 if model.occasions is None else len(model.occasions.sds)
    return matrix[:first, :first].copy(), matrix[first : first + k, first : first + k].copy()


def shrinkage(results: NLMEResults, eta: Array) -> Array:
    """``1 - sd / omega`` of each of `effect_names`, deviations of all occasions together.

    Parameters
    ----------
    results : NLMEResults
    eta : ndarray of shape (n_individuals, n_draws, n_coords)

    Returns
    -------
    ndarray of shape (n_effects,)
    """
    omega, gamma = covariance(results)
    variances = np.concatenate([np.diag(omega), np.diag(gamma)])
    sds = [np.std(values, ddof=1) for values in effects(results.model, eta)]
    return np.asarray(1.0 - np.array(sds) / np.sqrt(variances))


# -- individual parameters -----------------------------------------------------------


def occasion_psi(model: NLME, psi: Array) -> Array:
    """Natural parameters on every occasion that there is, deviations applied.

    Parameters
    ----------
    model : NLME
        With occasions.
    psi : ndarray of shape (n_individuals, n_draws, n_params)
        Deviations among the parameters, as inside.

    Returns
    -------
    ndarray of shape (n_occasions, n_draws, n_declared)
        In the order of `occasion_index`.
    """
    assert model.occasions is not None
    subjects, numbers = np.nonzero(present(model))
    names = model.declared[0].param_names
    k, p = len(model.occasions.sds), len(names)
    own = psi[subjects][:, :, :p].copy()
    for r, name in enumerate(model.occasions.sds):
        m = names.index(name)
        kappa = psi[subjects, :, p + numbers * k + r]
        own[:, :, m] = on_occasion(model.parameters[name], own[:, :, m], kappa)
    return own


def occasion_frame(results: NLMEResults, kind: str, n_samples: int, seed: int) -> pd.DataFrame:
    """Parameters by id and occasion; see `NLMEResults.individual`.

    Parameters
    ----------
    results : NLMEResults
    kind : {"mode", "mean", "sd", "samples"}
    n_samples : int
        Draws per individual, for samples.
    seed : int

    Returns
    -------
    DataFrame
    """
    import pandas as pd

    from saem.inference import individuals
    from saem.inference.conditional_samples import conditional_samples

    model, theta = results.model, results.record.theta
    index, _, _ = occasion_index(results)
    names = list(model.declared[0].param_names)
    if kind == "mode":
        found = occasion_psi(model, results._psi_modes[:, None])[:, 0]
    elif kind == "samples":
        draws = occasion_psi(model, individuals.samples(model, theta, n_samples, seed=seed))
        rows = [(*label, s) for label in index for s in range(n_samples)]
        longer = pd.MultiIndex.from_tuples(rows, names=[*index.names, "sample"])
        return pd.DataFrame(draws.reshape(-1, len(names)), index=longer, columns=names)
    else:
        draws = occasion_psi(model, conditional_samples(model, theta, seed=seed).psi)
        found = draws.mean(axis=1) if kind == "mean" else draws.std(axis=1, ddof=1)
    return pd.DataFrame(found, index=index, columns=names)


def on_new_rows(
    model: NLME, psi: Array, subjects: Indices, labels: list[Hashable], columns: Array
) -> Array:
    """Parameters for new rows of known subjects, as for a first occasion.

    Parameters
    ----------
    model : NLME
        With occasions.
    psi : ndarray of shape (n_individuals, n_params)
        Of the subjects of the fit.
    subjects : ndarray of int64, shape (n_rows,)
    labels : list
        Occasion of each row. Of one that the subject did not have in the fit nothing is known:
        its deviations are 0.
    columns : ndarray of shape (n_columns, n_rows)
        Of the structural model; its occasions become 0, in place.

    Returns
    -------
    ndarray of shape (n_rows, n_params)
    """
    assert model.occasions is not None
    known = model.occasions.labels
    k, p = len(model.occasions.sds), len(model.declared[0].param_names)
    places = [{label: o for o, label in enumerate(own)} for own in known]
    codes = np.array([places[i].get(o, -1) for i, o in zip(subjects, labels, strict=True)])
    rows = psi[subjects]
    for r in range(k):
        own = psi[subjects, p + np.maximum(codes, 0) * k + r]
        rows[:, p + r] = np.where(codes < 0, 0.0, own)
    rows[:, p + k : p + k * model.occasions.number] = 0.0
    columns[model.structural.columns.index(COLUMN)] = 0.0
    return np.asarray(rows)


# -- another number of occasions -----------------------------------------------------


def recounted(model: NLME, theta: Array, number: int) -> tuple[NLME, Array]:
    """Model for subjects with up to so many occasions, at the same parameters.

    Parameters
    ----------
    model : NLME
        With occasions.
    theta : ndarray
        Packed parameters.
    number : int
        Occasions of a subject; fewer than the model has already leave it as it is.

    Returns
    -------
    model : NLME
        Its data are to be replaced.
    theta : ndarray
    """
    occasions = model.occasions
    assert occasions is not None
    if number <= occasions.number or not occasions.sds:
        return model, theta
    new: Any = copy.copy(model)
    new.occasions = replace(occasions, number=number)
    base = model.declared[0]
    parameters = {name: model.parameters[name] for name in base.param_names}
    new.structural = expand_structural(base, parameters, new.occasions)
    expanded = expand_parameters(parameters, new.occasions)
    new.parameters = {name: expanded[name] for name in new.structural.param_names}
    new.random_names = [name for name, p in new.parameters.items() if p.random]
    new.omega_pattern = new._pattern(model.omega, model.gamma)
    design = model.individuals.design
    used = {name: design.used.get(name, (0,)) for name in new.parameters}
    new.individuals = replace(model.individuals, design=replace(design, used=used))
    new._pack()
    new._names()
    start = new.start(np.random.default_rng(0))
    return new, new.with_estimates(start, model.estimation_vector(theta))
