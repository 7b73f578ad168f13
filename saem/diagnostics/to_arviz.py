"""Individual parameters and pointwise log-likelihoods as ArviZ's InferenceData."""

from __future__ import annotations

import json
import warnings
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.diagnostics.shrinkage import random_effects_of
from saem.exceptions import OptionError
from saem.inference import _kernels
from saem.inference.conditional_samples import conditional_samples
from saem.nlme._replicates import _with
from saem.nlme._rows import endpoint_labels
from saem.nlme.endpoints import DVID

if TYPE_CHECKING:
    from saem.nlme.model import NLME
    from saem.nlme.results import NLMEResults

__all__ = ["pointwise_log_likelihood", "to_arviz"]


def load_arviz() -> Any:
    """Import ArviZ, or say how to get it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its notices about its own future
            import arviz
    except ImportError as error:
        raise ImportError(
            "to_arviz needs ArviZ, which is not installed. Remedy: pip install 'saem[arviz]'."
        ) from error
    if not hasattr(arviz, "InferenceData"):
        raise OptionError(
            f"ArviZ {arviz.__version__} has no InferenceData. Remedy: pip install 'saem[arviz]', "
            "which is a version below 1."
        )
    return arviz


def pointwise_log_likelihood(model: NLME, theta: Array, psi: Array) -> Array:
    """Log density of every observation given parameters of its individual.

    Parameters
    ----------
    model : NLME
    theta : ndarray
        Packed parameters.
    psi : ndarray of shape (n_individuals, n_draws, n_params)
        On the natural scale.

    Returns
    -------
    ndarray of shape (n_draws, n_rows)
        ``log p(y_ij | psi_i, theta)``, of the responses as given (also with an exponential
        error), rows stacked by individual. By the one function that computes the density
        of observations, on a model in which every observation is a record of its own.
    """
    data = model.individuals
    owner = np.repeat(np.arange(model.n_individuals), data.n_obs)
    n_rows = data.dv.size
    changes: dict[str, Any] = {
        "ids": list(range(n_rows)),
        "n_obs": np.ones(n_rows, dtype=np.int64),
        "offsets": np.arange(n_rows + 1, dtype=np.int64),
        "design": replace(data.design, matrix=data.design.matrix[owner]),
        "subjects": data.subjects.iloc[owner].reset_index(drop=True),
    }
    for item in fields(data):
        value = getattr(data, item.name)
        if item.name not in changes and isinstance(value, np.ndarray) and len(value) != n_rows:
            changes[item.name] = value[owner]
    single = _with(model, replace(data, **changes))
    index = model.theta_spec.view(theta)["parameter"].astype(int)
    parameters = list(model.parameters.values())
    n_draws, width = psi.shape[1], 1 + model.latent_size
    records = np.zeros((n_rows, n_draws, width))
    for place, m in enumerate(index):
        records[:, :, 1 + place] = parameters[m].to_phi(psi[:, :, m])[owner]
    out = np.empty((n_rows, n_draws))
    _kernels.log_lik_of_records(
        single.kernels, single.values, single.offsets, theta, records.reshape(n_rows, -1), 0,
        single.latent_size, single.work_size, out,
    )  # fmt: skip
    return out.T


def to_arviz(
    results: NLMEResults,
    *,
    accuracy: float = 0.05,
    max_draws: int = 4000,
    seed: int | None = None,
) -> Any:
    """Posteriors of the individuals at the estimates; also `NLMEResults.to_arviz`.

    Parameters
    ----------
    results : NLMEResults
    accuracy : float
        Monte Carlo error of every mean, as a fraction of the posterior sd, at most.
    max_draws : int
        Draws of an individual at most, over all chains.
    seed : int, optional
        That of the fit by default.

    Returns
    -------
    arviz.InferenceData
        See `NLMEResults.to_arviz`.

    Raises
    ------
    ImportError
        If ArviZ is not installed (extra ``arviz``).
    saem.exceptions.OptionError
        If its version has no InferenceData.
    """
    import pandas as pd

    arviz = load_arviz()
    model, theta, data = results.model, results.record.theta, results.model.individuals
    seed = results.record.seed if seed is None else seed
    draws = conditional_samples(model, theta, accuracy=accuracy, max_draws=max_draws, seed=seed)
    chains = (draws.n_chains, draws.n_draws // draws.n_chains)
    order = np.argsort(data.source_row, kind="stable")

    def by_chain(values: Array) -> Array:
        """Draws first, then chains and draws apart."""
        moved = np.moveaxis(values, 1, 0)
        return moved.reshape(*chains, *moved.shape[1:])

    psi = by_chain(draws.psi)
    eta = by_chain(random_effects_of(model, theta, draws.psi))
    pointwise = pointwise_log_likelihood(model, theta, draws.psi)[:, order]
    labels = data.row_labels[order]
    unique = labels.is_unique and not isinstance(labels, pd.MultiIndex)
    rows = labels.to_numpy() if unique else np.arange(labels.size)
    # Deviations of occasions are among the random effects only.
    posterior = {name: psi[..., m] for m, name in enumerate(model.declared[0].param_names)}
    label = str(results._index().name)
    dims = {name: [label] for name in posterior} | {
        "eta": [label, "effect"], "dv": ["row"], "individual": ["row"],
    }  # fmt: skip
    constant: dict[str, Any] = {"individual": np.repeat(np.array(data.ids), data.n_obs)[order]}
    known = dict(data.columns)
    labels = endpoint_labels(model)
    if labels is not None:
        known[DVID] = np.array(labels.tolist())
    for name, column in known.items():
        constant[name] = column[order]
        dims[name] = ["row"]
    with warnings.catch_warnings():
        # More draws than ArviZ expects are taken for a wrong shape.
        warnings.simplefilter("ignore", UserWarning)
        return arviz.from_dict(
            posterior=posterior | {"eta": eta},
            log_likelihood={"dv": pointwise.reshape(*chains, -1)},
            observed_data={"dv": data.dv[order]},
            constant_data=constant,
            coords={label: np.array(data.ids), "effect": model.random_names, "row": rows},
            dims=dims,
            posterior_attrs={
                "population_parameters": json.dumps(results.params.to_dict()),
                "accuracy": float(draws.accuracy.max()),
                "inference_library": "saem",
            },
        )
