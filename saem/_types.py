"""Types of the compiled functions that models and E-steps are made of.

All arrays are contiguous float64. A model's functions travel together in one
compiled record, `Kernels`, so that the engine's loops are compiled once, for
these types, and shared by all models.

Symbols: `theta` packed parameters (with derived quantities and constants),
`y` the record of one individual's data, `latent` one draw (or the exact
posterior record) of an individual, `s` packed statistic, `work` scratch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import float64, int64, types, uint64, void
from numba.core import config
from numba.core.types import FunctionType
from numba.experimental import structref

from saem._jit import compiled, helper, kernel

VECTOR = float64[::1]
MATRIX = float64[:, ::1]
INDEX = int64[::1]

#: structural(psi, columns, out): predictions from natural-scale parameters.
STRUCTURAL = void(VECTOR, MATRIX, VECTOR)
#: expect(theta, y, latent, work) -> log-likelihood; writes the posterior record.
EXPECT = float64(VECTOR, VECTOR, VECTOR, VECTOR)
#: log_lik(structural, theta, y, latent, work) -> log p(y | latent); fills the extras of latent.
LOG_LIK = float64(FunctionType(STRUCTURAL), VECTOR, VECTOR, VECTOR, VECTOR)
#: jacobian(psi, columns, work, slopes): derivatives of the predictions, (n_params, n_rows);
#: work has room for n_rows numbers.
JACOBIAN = void(VECTOR, MATRIX, VECTOR, MATRIX)
#: gradient(structural, jacobian, theta, y, latent, work, grad, information) -> log p(y | latent):
#: as `log_lik`; its derivatives by the Gaussian coordinates, and their expected information.
GRADIENT = float64(
    FunctionType(STRUCTURAL), FunctionType(JACOBIAN), VECTOR, VECTOR, VECTOR, VECTOR, VECTOR, MATRIX
)
#: search(log_lik, structural, gradient, jacobian, theta, y, mean, chol, u, spread, z, tolerance,
#: work) -> log p(y, z): a mode of the posterior, see `saem._laplace.laplace`.
SEARCH = float64(
    FunctionType(LOG_LIK), FunctionType(STRUCTURAL), FunctionType(GRADIENT), FunctionType(JACOBIAN),
    VECTOR, VECTOR, VECTOR, MATRIX, VECTOR, MATRIX, VECTOR, float64, VECTOR,
)  # fmt: skip
#: prior(theta, y, mean, chol): mean and lower Cholesky factor of the Gaussian prior.
PRIOR = void(VECTOR, VECTOR, VECTOR, MATRIX)
#: draw(theta, y, key, latent, work): an exact draw from the posterior.
DRAW = void(VECTOR, VECTOR, uint64, VECTOR, VECTOR)
#: accumulate(weight, y, latent, s): adds weight * S(y, latent) to s.
ACCUMULATE = void(float64, VECTOR, VECTOR, VECTOR)
#: maximize(s, theta) -> 0, or a positive code when s is not admissible.
MAXIMIZE = int64(VECTOR, VECTOR)
#: project(s, theta): moves s to the nearest admissible statistic, in place.
PROJECT = void(VECTOR, VECTOR)
#: classify(theta, y, latent, work) -> log p(y, z): writes the most probable z, as a draw.
CLASSIFY = EXPECT
#: surrogate(s, theta) -> <s, phi(theta)> - psi(theta), what `maximize` maximises (terms free of
#: theta left out): the complete-data log-likelihood per individual, penalties included.
SURROGATE = float64(VECTOR, VECTOR)

#: expect_batch(theta, columns, latents, work) -> sum of log-likelihoods: as `expect` for
#: equal-length records gathered from anywhere, data (length, rows) and latents (latent_size, rows).
EXPECT_BATCH = float64(VECTOR, MATRIX, MATRIX, VECTOR)
#: accumulate_batch(columns, latents, s, work): adds the sum of their S(y, latent) to s.
ACCUMULATE_BATCH = void(MATRIX, MATRIX, VECTOR, VECTOR)
#: Rows that these two are given at a time, at most.
BATCH_ROWS = 128

_FIELDS: tuple[tuple[str, Any], ...] = (
    ("structural", STRUCTURAL),
    ("expect", EXPECT),
    ("log_lik", LOG_LIK),
    ("prior", PRIOR),
    ("draw", DRAW),
    ("accumulate", ACCUMULATE),
    ("maximize", MAXIMIZE),
    ("project", PROJECT),
    ("classify", CLASSIFY),
    ("surrogate", SURROGATE),
    ("expect_batch", EXPECT_BATCH),
    ("accumulate_batch", ACCUMULATE_BATCH),
    ("jacobian", JACOBIAN),
    ("gradient", GRADIENT),
    ("search", SEARCH),
)


class Functions(NamedTuple):
    """The compiled functions of a model, as compiled code passes them on.

    A plain tuple: unlike `Kernels` it has no reference count, whose atomic
    instructions would make threads wait for each other at every call.
    """

    structural: Any
    expect: Any
    log_lik: Any
    prior: Any
    draw: Any
    accumulate: Any
    maximize: Any
    project: Any
    classify: Any
    surrogate: Any
    expect_batch: Any
    accumulate_batch: Any
    jacobian: Any
    gradient: Any
    search: Any


@structref.register
class KernelsType(types.StructRef):  # type: ignore[misc]
    """Numba type of `Kernels`."""


@structref.register
class VisitorType(types.StructRef):  # type: ignore[misc]
    """Numba type of `Visitor`."""


KERNELS = KernelsType(tuple((name, FunctionType(sig)) for name, sig in _FIELDS))
FUNCTIONS = types.NamedTuple(tuple(FunctionType(sig) for _, sig in _FIELDS), Functions)

#: visit(functions, theta, y, record, memory, settings, key, work) -> log-likelihood or NaN.
#: The E-step of one individual: writes weighted draws into `record`.
VISIT = float64(FUNCTIONS, VECTOR, VECTOR, VECTOR, VECTOR, VECTOR, uint64, VECTOR)
VISITOR = VisitorType((("visit", FunctionType(VISIT)),))


class Kernels(structref.StructRefProxy):  # type: ignore[misc]
    """The compiled functions of a model."""


class Visitor(structref.StructRefProxy):  # type: ignore[misc]
    """The compiled function of an E-step."""


structref.define_boxing(KernelsType, Kernels)
structref.define_boxing(VisitorType, Visitor)


@kernel(KERNELS(*(FunctionType(sig) for _, sig in _FIELDS)))
def _make_kernels(
    structural, expect, log_lik, prior, draw, accumulate, maximize, project, classify, surrogate,
    expect_batch, accumulate_batch, jacobian, gradient, search,
):  # fmt: skip
    fns = structref.new(KERNELS)
    fns.structural = structural
    fns.expect = expect
    fns.log_lik = log_lik
    fns.prior = prior
    fns.draw = draw
    fns.accumulate = accumulate
    fns.maximize = maximize
    fns.project = project
    fns.classify = classify
    fns.surrogate = surrogate
    fns.expect_batch = expect_batch
    fns.accumulate_batch = accumulate_batch
    fns.jacobian = jacobian
    fns.gradient = gradient
    fns.search = search
    return fns


@kernel(VISITOR(FunctionType(VISIT)))
def _make_visitor(visit):
    visitor = structref.new(VISITOR)
    visitor.visit = visit
    return visitor


@helper
def unpack(kernels):
    """Take the functions out of their record; once per loop, not per individual."""
    return Functions(
        kernels.structural,
        kernels.expect,
        kernels.log_lik,
        kernels.prior,
        kernels.draw,
        kernels.accumulate,
        kernels.maximize,
        kernels.project,
        kernels.classify,
        kernels.surrogate,
        kernels.expect_batch,
        kernels.accumulate_batch,
        kernels.jacobian,
        kernels.gradient,
        kernels.search,
    )


@kernel(STRUCTURAL)
def no_structural(psi, columns, out):
    """Stand for the structural function in models that have none."""
    out[:] = np.nan


@kernel(EXPECT)
def no_expect(theta, y, latent, work):
    """Stand for `expect` in models without an exact E-step."""
    return np.nan


@kernel(LOG_LIK)
def no_log_lik(structural, theta, y, latent, work):
    """Stand for `log_lik` in models without Gaussian latent coordinates."""
    return np.nan


@kernel(PRIOR)
def no_prior(theta, y, mean, chol):
    """Stand for `prior` in models without Gaussian latent coordinates."""
    mean[:] = np.nan


@kernel(DRAW)
def no_draw(theta, y, key, latent, work):
    """Stand for `draw` in models without an exact sampler."""
    latent[:] = np.nan


@kernel(PROJECT)
def no_project(s, theta):
    """Stand for `project` in models whose statistics are always admissible."""


@kernel(CLASSIFY)
def no_classify(theta, y, latent, work):
    """Stand for `classify` in models whose latent variable has no modes to choose from."""
    latent[:] = np.nan
    return np.nan


@kernel(SURROGATE)
def no_surrogate(s, theta):
    """Stand for `surrogate` in models that do not tell what they maximise."""
    return np.nan


@kernel(EXPECT_BATCH)
def no_expect_batch(theta, columns, latents, work):
    """Stand for `expect_batch` in models that are visited one individual at a time."""
    latents[:, :] = np.nan
    return np.nan


@kernel(ACCUMULATE_BATCH)
def no_accumulate_batch(columns, latents, s, work):
    """Stand for `accumulate_batch` in models that are visited one individual at a time."""
    s[:] = np.nan


@kernel(JACOBIAN)
def no_jacobian(psi, columns, work, slopes):
    """Stand for `jacobian` in models whose derivatives are not known."""
    slopes[:, :] = np.nan


@kernel(GRADIENT)
def no_gradient(structural, jacobian, theta, y, latent, work, grad, information):
    """Stand for `gradient` in models whose derivatives are not known."""
    return np.nan


@kernel(SEARCH)
def no_search(
    log_lik, structural, gradient, jacobian, theta, y, mean, chol, u, spread, z, tolerance, work
):
    """Stand for `search` in models without Gaussian latent coordinates."""
    return np.nan


class _Plain:
    """Stand-in for a compiled record when the compiler is switched off."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


def _search_of(log_lik: Any, gradient: Any) -> Any:
    """Search for modes that suits a model; compiled when the first such model is made."""
    if log_lik is no_log_lik:
        return no_search
    if gradient is no_gradient:
        from saem._laplace_differences import by_differences

        return by_differences
    from saem._laplace_gradients import by_gradients

    return by_gradients


def make_kernels(
    *,
    accumulate: Any,
    maximize: Any,
    structural: Any = no_structural,
    expect: Any = no_expect,
    log_lik: Any = no_log_lik,
    prior: Any = no_prior,
    draw: Any = no_draw,
    project: Any = no_project,
    classify: Any = no_classify,
    surrogate: Any = no_surrogate,
    expect_batch: Any = no_expect_batch,
    accumulate_batch: Any = no_accumulate_batch,
    jacobian: Any = no_jacobian,
    gradient: Any = no_gradient,
) -> Any:
    """Put a model's compiled functions into one record for the engine's loops."""
    functions = {
        "structural": structural,
        "expect": expect,
        "log_lik": log_lik,
        "prior": prior,
        "draw": draw,
        "accumulate": accumulate,
        "maximize": maximize,
        "project": project,
        "classify": classify,
        "surrogate": surrogate,
        "expect_batch": expect_batch,
        "accumulate_batch": accumulate_batch,
        "jacobian": jacobian,
        "gradient": gradient,
        "search": _search_of(log_lik, gradient),
    }
    if config.DISABLE_JIT:
        return _Plain(**functions)
    return _make_kernels(*map(compiled, functions.values()))


def make_visitor(visit: Any) -> Any:
    """Put an E-step's compiled function into a record for the engine's loops."""
    if config.DISABLE_JIT:
        return _Plain(visit=visit)
    return _make_visitor(compiled(visit))
