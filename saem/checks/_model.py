"""Checks of a model alone: what its compiled functions promise each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from saem import _calls
from saem.algorithms import EM
from saem.checks._tools import (
    Check,
    best_estep,
    individual_statistics,
    path,
    permuted,
    require,
    require_close,
    run_of,
    snapshots,
    start_of,
)
from saem.contract import Array, Model
from saem.estep import Exact, MonteCarlo
from saem.exceptions import ModelError

__all__ = ["model_checks"]

#: Draws per individual of the check of a sampler.
_DRAWS = 400
#: Standard errors a mean of draws may be off; over some hundred coordinates and models the
#: chance of a false alarm is below 1e-4 (normal tail 6e-9 at 5.8).
_ERRORS = 5.8


def model_checks(model: Model) -> Iterator[Check]:
    """Yield the checks that apply to a model.

    Parameters
    ----------
    model : Model
        Small: some tens of individuals.

    Yields
    ------
    Check
    """
    yield Check("names fit the parameters", lambda: _names(model))
    yield Check("data are contiguous float64", lambda: _layout(model))
    yield Check("the M-step is repeatable and leaves its input", lambda: _maximize(model))
    yield Check("the M-step refuses statistics that are not finite", lambda: _refuses(model))
    yield Check("projected statistics have parameters", lambda: _project(model))
    yield Check("the order of individuals does not matter", lambda: _order(model))
    yield Check("a full pass is the mean over individuals", lambda: _additive(model))
    if {"expect", "gaussian"} & model.capabilities:
        yield Check("EM never lowers the log-likelihood", lambda: _ascent(model))
    if "surrogate" in model.capabilities:
        yield Check("the surrogate is affine in the statistic", lambda: _affine(model))
        yield Check("the M-step maximises the surrogate", lambda: _maximises(model))
    if model.linear_statistic:
        yield Check("the statistic is linear in the latent record", lambda: _linear(model))
    if {"surrogate", "expect"} <= model.capabilities and not model.penalised:
        yield Check("Fisher's identity", lambda: _fisher(model))
    if "expect" in model.capabilities:
        yield Check("the E-step is a pure function", lambda: _pure(model))
    if {"draw", "expect"} <= model.capabilities:
        yield Check("draws have the expected statistic", lambda: _draws(model))
    if model.batched:
        yield Check("visited together is visited one by one", lambda: _together(model))
    yield Check("weights are repetitions", lambda: _weights(model))


def _statistic(model: Model, theta: Array | None = None) -> tuple[Array, float]:
    """Mean statistic and log-likelihood of a full pass of the best E-step."""
    run = run_of(model, EM(best_estep(model), n_iter=1), theta)
    run.together = False
    s = run.full_pass(0)
    return s, run.loglik


def _m_step(model: Model, s: Array, theta: Array) -> tuple[int, Array]:
    return _calls.maximize(model.kernels, s, theta)


def _surrogate(model: Model, s: Array, theta: Array) -> float:
    return _calls.surrogate(model.kernels, s, theta)


def _names(model: Model) -> None:
    params = model.params_of(start_of(model))
    require(
        params.shape == (len(model.param_names),),
        f"params_of gives shape {params.shape} for {len(model.param_names)} names",
    )
    require(len(set(model.param_names)) == len(model.param_names), "names repeat")
    require(bool(np.all(np.isfinite(params))), "parameters at the start are not finite")


def _layout(model: Model) -> None:
    for name in ("values", "offsets"):
        array = getattr(model, name)
        require(array.flags.c_contiguous and array.ndim == 1, f"{name} is not one contiguous row")
    require(model.values.dtype == np.float64, f"values are {model.values.dtype}")
    require(model.offsets.dtype == np.int64, f"offsets are {model.offsets.dtype}")
    sizes = [model.record_of(i).size for i in range(model.n_individuals)]
    require(sum(sizes) == model.values.size, "records do not cover the values")


def _maximize(model: Model) -> None:
    s, _ = _statistic(model)
    kept = s.copy()
    code, theta = _m_step(model, s, start_of(model))
    require(code == 0, f"the M-step at the start gives code {code}")
    require(np.array_equal(s, kept), "the M-step changes the statistic")
    again, second = _m_step(model, s, theta)
    require(again == 0, "a second M-step fails")
    require(bool(np.all(np.isfinite(second))), "a second M-step is not finite")
    require(theta.shape == (model.theta_spec.size,), "theta has changed its shape")


def _refuses(model: Model) -> None:
    s, _ = _statistic(model)
    theta = start_of(model)
    code, new = _m_step(model, np.full_like(s, np.nan), theta)
    require(code > 0, f"code {code} for a statistic of NaN; a positive one is due")
    require(code in model.maximize_errors, f"code {code} has no entry in maximize_errors")
    require(np.array_equal(new, theta), "a refused statistic has changed theta")


def _project(model: Model) -> None:
    run = run_of(model, EM(best_estep(model), n_iter=1))
    each, (s, _), theta = individual_statistics(run), _statistic(model), start_of(model)
    for i in range(min(5, len(each))):
        for factor in (2.0, -3.0):
            odd = _calls.project(model.kernels, s + factor * (s - each[i]), theta)
            code, new = _m_step(model, odd, theta)
            require(code == 0, f"code {code} after projection of a signed combination")
            require(bool(np.all(np.isfinite(new))), "projected statistics give NaN")


def _order(model: Model) -> None:
    order = np.random.default_rng(3).permutation(model.n_individuals)
    first, second = _statistic(model), _statistic(permuted(model, order))
    require_close(second[0], first[0], 1e-10, "statistic in another order")
    require_close(np.array(second[1]), np.array(first[1]), 1e-10, "log-likelihood")


def _additive(model: Model) -> None:
    run = run_of(model, EM(best_estep(model), n_iter=1))
    require_close(individual_statistics(run).mean(axis=0), _statistic(model)[0], 1e-10, "mean")


def _ascent(model: Model) -> None:
    run = run_of(model, EM(best_estep(model), n_iter=8, tolerance=None))
    values = [s.loglik for s in snapshots(run, 8)]
    allowed = 1e-9 if "expect" in model.capabilities else 1e-5  # quadrature has an error
    if not model.penalised:
        lost = float(np.min(np.diff(values), initial=0.0))
        require(
            lost >= -allowed * max(1.0, abs(values[-1])), f"an iteration loses {-lost:.3g} nats"
        )
    require(bool(np.all(np.isfinite(values))), "log-likelihoods are not finite")


def _nearby(model: Model) -> Iterator[tuple[Array, Array]]:
    """Statistics around that of the start, and the parameters of each."""
    run = run_of(model, EM(best_estep(model), n_iter=1))
    each, theta = individual_statistics(run), start_of(model)
    rng = np.random.default_rng(5)
    for _ in range(12):
        weights = rng.exponential(size=len(each)) ** 0.5
        near = (weights / weights.sum()) @ each
        code, new = _m_step(model, near, theta)
        if code == 0:
            yield near, new


def _affine(model: Model) -> None:
    theta, (s, _) = start_of(model), _statistic(model)
    for near, _ in _nearby(model):
        middle = _surrogate(model, 0.5 * (s + near), theta)
        ends = 0.5 * (_surrogate(model, s, theta) + _surrogate(model, near, theta))
        require_close(np.array(middle), np.array(ends), 1e-10, "surrogate between two statistics")


def _maximises(model: Model) -> None:
    s, _ = _statistic(model)
    code, best = _m_step(model, s, start_of(model))
    require(code == 0, f"the M-step gives code {code}")
    top = _surrogate(model, s, best)
    count = 0
    for _, other in _nearby(model):
        value = _surrogate(model, s, other)
        require(
            value <= top + 1e-9 * max(1.0, abs(top)),
            f"parameters of another statistic have a surrogate higher by {value - top:.3g}",
        )
        count += 1
    require(count > 0, "no other statistic had parameters")


def _fisher(model: Model) -> None:
    """Require ``d/de L(theta_e) = n d/de Q(sbar(theta), theta_e)`` along parameters T(s + e d)."""
    s, _ = _statistic(model)
    _, theta = _m_step(model, s, start_of(model))
    expected, _ = _statistic(model, theta)
    for near, _ in list(_nearby(model))[:3]:
        step = 1e-4
        _, up = _m_step(model, s + step * (near - s), theta)
        _, down = _m_step(model, s - step * (near - s), theta)
        observed = (_statistic(model, up)[1] - _statistic(model, down)[1]) / (2 * step)
        gain = _surrogate(model, expected, up) - _surrogate(model, expected, down)
        predicted = model.n_individuals * gain / (2 * step)
        # Variance floors are penalties, too small to matter: a wrong E-step differs by far more.
        size = max(0.2, abs(observed), abs(predicted))
        require(
            abs(observed - predicted) <= 1e-3 * size,
            f"the log-likelihood has slope {observed:.6g}, the surrogate {predicted:.6g}",
        )


def _linear(model: Model) -> None:
    rng, q = np.random.default_rng(6), model.stat_spec.size
    for i in range(min(5, model.n_individuals)):
        first, second = rng.random(model.latent_size), rng.random(model.latent_size)
        sums = np.zeros((3, q))
        for latent, out in zip((first, second, first - second), sums, strict=True):
            _calls.accumulate(model.kernels, 1.0, model.record_of(i), latent, out)
        require_close(sums[2], sums[0] - sums[1], 1e-10, "statistic of a difference")


def _pure(model: Model) -> None:
    theta, values = start_of(model), model.values.copy()
    run = run_of(model, EM(Exact(), n_iter=1), theta.copy())
    first, second = individual_statistics(run), individual_statistics(run)
    require(np.array_equal(first, second), "two visits give different statistics")
    require(np.array_equal(values, model.values, equal_nan=True), "the E-step changes the data")
    require(np.array_equal(theta, run.theta), "the E-step has changed the parameters")


def _draws(model: Model) -> None:
    from saem.algorithms import MCEM

    run = run_of(model, MCEM(MonteCarlo(), n_draws=1, n_iter=1))
    draws = np.zeros((_DRAWS, model.stat_spec.size))
    for m in range(_DRAWS):
        run.k = m
        draws[m] = individual_statistics(run).mean(axis=0)
    expected, _ = _statistic(model)
    error = draws.std(axis=0, ddof=1) / np.sqrt(_DRAWS)
    off = np.abs(draws.mean(axis=0) - expected)
    slack = 1e-9 * np.maximum(1.0, np.abs(expected))
    worst = float(np.max((off - slack) / np.maximum(error, slack)))
    require(worst <= _ERRORS, f"the mean of {_DRAWS} draws is {worst:.1f} standard errors off")


def _together(model: Model) -> None:
    rows = _statistic(model)
    run = run_of(model, EM(Exact(), n_iter=1))
    require(run.together, "individuals are not visited together by the exact E-step")
    require_close(run.full_pass(0), rows[0], 1e-10, "statistic of those visited together")
    require_close(np.array(run.loglik), np.array(rows[1]), 1e-10, "log-likelihood")


def _weights(model: Model) -> None:
    n = model.n_individuals
    weights = np.random.default_rng(4).integers(0, 3, n).astype(float)
    try:
        weighted = model.reweighted(weights)
    except ModelError as error:
        require("weight" in str(error), "a refusal of weights does not say so")
        return
    repeated = permuted(model, np.repeat(np.arange(n), weights.astype(int)))
    repeated.n_individuals = int(weights.sum())
    first = path(weighted, EM(best_estep(weighted), n_iter=3, tolerance=None), 3)[-1]
    second = path(repeated, EM(best_estep(repeated), n_iter=3, tolerance=None), 3)[-1]
    require_close(
        model.params_of(first), model.params_of(second), 1e-8, "weighted and repeated individuals"
    )
