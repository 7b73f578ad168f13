"""Simulate responses from a nonlinear mixed-effects model, on the design of its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from saem.contract import Array
from saem.nlme._replicates import predictions, respond
from saem.nlme._rows import endpoint_labels
from saem.nlme.endpoints import DVID
from saem.random import SeedLike, resolve_seed

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.model import NLME

__all__ = ["simulate"]


def simulate(model: NLME, theta: Array | None = None, seed: SeedLike = None) -> pd.DataFrame:
    """Draw random effects and responses for the individuals of a model.

    ``phi_i ~ N(B' x_i, Omega)``, ``y_ij = f(x_ij; psi_i) + g(f) eps_ij`` by the error model of the
    row's endpoint, on the log scale where it is exponential.

    Parameters
    ----------
    model : NLME
        Gives design, covariates and the structural model.
    theta : ndarray, optional
        Packed parameters, such as ``results.theta``; the starting values if None.
    seed : int, SeedSequence, Generator or None

    Returns
    -------
    pandas.DataFrame
        One row per observation: ``id``, the columns of the structural model, ``dvid`` (the
        endpoint, where there are labels) and ``dv``; individuals in the order of the model, rows
        of one by endpoint. ``attrs["psi"]`` holds
        the individual parameters, shape (n_individuals, n_params).
    """
    import pandas as pd

    _, rng = resolve_seed(seed)
    data = model.individuals
    theta = model.start(rng) if theta is None else theta
    normals = rng.standard_normal((model.n_individuals, model.n_coords))
    dv = respond(model, theta, normals, rng.standard_normal(data.dv.size))
    _, psi = predictions(model, theta, normals)
    columns = data.matrix(model.structural.columns)
    ids = np.repeat(np.arange(model.n_individuals), data.n_obs)
    frame = pd.DataFrame({"id": pd.Index(data.ids).take(ids)})
    for c, name in enumerate(model.structural.columns):
        frame[name] = columns[c]
    labels = endpoint_labels(model)
    if labels is not None:
        frame[DVID] = pd.Series(labels).infer_objects()
    frame["dv"] = dv
    frame.attrs["psi"] = psi.tolist()
    return frame
