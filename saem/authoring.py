"""What the file of an own model imports, in one place that stays.

A model is data and a few compiled functions; the guide is ``docs/add_a_model.md``, what the parts
promise each other stands in `saem.contract`. From here come

* `kernel`, which compiles a function for one of the signatures below and keeps it on disk, and
  `helper`, for small functions that kernels call. Helpers of an own model stand in the file of
  its kernels: the cache on disk notices edits of that file and of saem, not of third files;
* the signatures, and `make_kernels`, which collects the functions that a model has;
* `uniform`, `fill_normal` and `fill_log_uniform`: random numbers of a draw, functions of its key
  and a position; `substream` splits a key;
* `Model`, the base class, `Packed`, the named blocks of a flat vector, and `Results`, the base
  of results;
* `Problems` and the exceptions with which all that is wrong with the input is said at once.

All arrays are contiguous float64 vectors, but for `PRIOR` and `STRUCTURAL`, which have a
matrix each: theta (packed parameters), y (record of an individual), latent (its latent record),
s (packed statistic), work (scratch of ``work_size`` numbers).

================  ===================================================================
signature         function
================  ===================================================================
``EXPECT``        ``expect(theta, y, latent, work) -> log p(y)``: writes the posterior record
``DRAW``          ``draw(theta, y, key, latent, work)``: writes an exact draw
``CLASSIFY``      ``classify(theta, y, latent, work) -> log p(y, z)``: writes the most probable z
``LOG_LIK``       ``log_lik(structural, theta, y, latent, work) -> log p(y | latent)``
``PRIOR``         ``prior(theta, y, mean, chol)``: mean and lower Cholesky factor of the prior
``STRUCTURAL``    ``structural(psi, columns, out)``: predictions of a structural model
``ACCUMULATE``    ``accumulate(weight, y, latent, s)``: adds ``weight * S(y, latent)``
``MAXIMIZE``      ``maximize(s, theta) -> 0``, or a positive code where s has no maximum
``PROJECT``       ``project(s, theta)``: moves s to where `maximize` can work
``SURROGATE``     ``surrogate(s, theta)``: what `maximize` maximises, affine in s
``EXPECT_BATCH``  ``expect_batch(theta, columns, latents, work) -> log-likelihood``: many at
                  once, data (length, rows) and latent records (latent_size, rows); for speed,
                  with the attribute `batched` and ``ACCUMULATE_BATCH``, which adds up their
                  statistics: ``accumulate_batch(columns, latents, s, work)``
================  ===================================================================

Examples
--------
>>> from saem.authoring import MAXIMIZE, kernel
>>> import numpy as np
>>> @kernel(MAXIMIZE)
... def maximize(s, theta):
...     if not s[0] > 0.0:
...         return 1
...     theta[0] = s[1] / s[0]
...     return 0
>>> theta = np.zeros(1)
>>> maximize(np.array([2.0, 3.0]), theta), theta[0].item()
(0, 1.5)
"""

from __future__ import annotations

from typing import Any

from saem import _types
from saem._jit import helper, kernel
from saem._types import (
    ACCUMULATE,
    ACCUMULATE_BATCH,
    CLASSIFY,
    DRAW,
    EXPECT,
    EXPECT_BATCH,
    LOG_LIK,
    MAXIMIZE,
    PRIOR,
    PROJECT,
    STRUCTURAL,
    SURROGATE,
)
from saem.contract import Array, Model
from saem.exceptions import DataError, ModelError, Problems
from saem.random import fill_log_uniform, fill_normal, substream, uniform
from saem.results import Results
from saem.statistics import Packed

__all__ = [
    "ACCUMULATE",
    "ACCUMULATE_BATCH",
    "CLASSIFY",
    "DRAW",
    "EXPECT",
    "EXPECT_BATCH",
    "LOG_LIK",
    "MAXIMIZE",
    "PRIOR",
    "PROJECT",
    "STRUCTURAL",
    "SURROGATE",
    "Array",
    "DataError",
    "Model",
    "ModelError",
    "Packed",
    "Problems",
    "Results",
    "fill_log_uniform",
    "fill_normal",
    "helper",
    "kernel",
    "make_kernels",
    "substream",
    "uniform",
]


def make_kernels(*, accumulate: Any, maximize: Any, **others: Any) -> Any:
    """Collect the compiled functions of a model, for its attribute `kernels`.

    Parameters
    ----------
    accumulate, maximize : callable
        Of the signatures `ACCUMULATE` and `MAXIMIZE`; every model has these two.
    **others : callable
        Those of `expect`, `draw`, `classify`, `log_lik`, `prior`, `structural`, `project`,
        `surrogate`, `expect_batch` and `accumulate_batch` that the model has; the class
        attribute `capabilities` says which of them algorithms may ask for.

    Returns
    -------
    record
        What the loops of the engine take.

    Raises
    ------
    TypeError
        For a name that is none of these, or a function that `kernel` has compiled for another
        signature.
    """
    return _types.make_kernels(accumulate=accumulate, maximize=maximize, **others)
