"""Whether one model is another with fewer parameters, and its estimates within the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from saem.contract import Array
from saem.exceptions import OptionError, Problems
from saem.inference._visits import require_no_priors
from saem.nlme import _kernels

if TYPE_CHECKING:
    from saem.nlme.error_models import ErrorModel
    from saem.nlme.model import NLME
    from saem.nlme.results import NLMEResults

__all__ = ["edge_names", "embedded", "tested_names"]

_COMBINED = (_kernels.COMBINED_SUM, _kernels.COMBINED_VARIANCE)
_SIMPLE = (_kernels.CONSTANT, _kernels.PROPORTIONAL)
_POWERS = (_kernels.POWER, _kernels.PROPORTIONAL)
#: Variances stand at this in units of their standard error instead of at 0.
_NEAR_ZERO = 1e-3


def tested_names(full: NLME, restricted: NLME, *, priors: bool) -> tuple[str, ...]:
    """Parameters of the full model that the restricted one lacks.

    Parameters
    ----------
    full, restricted : NLME
    priors : bool
        Whether parameters that are not tested may have priors.

    Raises
    ------
    OptionError
        Listing why the models are not nested.
    """
    for model in () if priors else (full, restricted):
        require_no_priors(model, "the test of nested models")
    problems = Problems("the test of nested models")
    one, other = full.individuals, restricted.individuals
    if list(one.ids) != list(other.ids) or not one.same_responses(other):
        problems.add("the models have different data", remedy="fit both to the same rows")
    if full.structural.name != restricted.structural.name:
        problems.add(
            f"the structural models differ: {full.structural.name} and {restricted.structural.name}"
        )
    if full.endpoints.labels != restricted.endpoints.labels:
        problems.add(
            "the endpoints differ",
            remedy="give the same keys of error in the same order",
        )
    else:
        for one_error, other_error in zip(
            full.endpoints.errors, restricted.endpoints.errors, strict=True
        ):
            _check_errors(one_error, other_error, problems)
    missing = [name for name in restricted.param_names if name not in full.param_names]
    if missing:
        problems.add(f"the full model lacks {', '.join(missing)}", remedy="is the order right?")
    names = tuple(name for name in full.param_names if name not in restricted.param_names)
    if not names:
        problems.add("the models have the same parameters")
    for name in names if priors else ():
        block = name.startswith(("omega2_", "cov_")) and "omega" in full.priors
        if name in full.priors or block:
            problems.add(
                f"{name}, which is tested, has a prior: its score is not the likelihood's",
                remedy="leave that prior out",
            )
    problems.raise_if_any(OptionError)
    return names


def _check_errors(full: ErrorModel, restricted: ErrorModel, problems: Problems) -> None:
    """Check that an error model is another one with fewer parameters, or the same."""
    codes = full.code, restricted.code
    special = codes[1] in _SIMPLE if codes[0] in _COMBINED else codes == _POWERS
    if codes[0] != codes[1] and not special:
        problems.add(f"{type(restricted).__name__} is not a special case of {type(full).__name__}")


def edge_names(full: NLME, restricted: NLME, names: tuple[str, ...]) -> list[str]:
    """Tested parameters that the restricted model puts at the edge of their range, at 0."""
    found = []
    for name in names:
        kind = full.param_kind[full.param_names.index(name)]
        lost = name.removeprefix("omega2_") not in restricted.random_names
        if (kind == "variance" and lost) or kind == "residual":
            found.append(name)
    return found


def embedded(full: NLME, restricted: NLMEResults, *, priors: bool = False) -> tuple[Array, Array]:
    """Estimates of a restricted fit as parameters of the full model, and information there.

    What the restricted model lacks is 0, or as the restricted model keeps it; variances stand
    just above 0, where the linearised information is that at 0. `priors` is as for
    `tested_names`.

    Returns
    -------
    theta : ndarray
        Packed parameters of the full model.
    matrix : ndarray of shape (n_params, n_params)
        Linearised information.
    """
    from saem.inference._blocks import marginal_information
    from saem.inference.linearisation import linearise

    model = restricted.model
    estimates = model.estimation_vector(restricted.record.theta)
    known = dict(zip(model.param_names, estimates, strict=True))
    theta = full.start(np.random.default_rng(0))
    sigma = restricted.model.theta_spec.view(restricted.record.theta)["sigma"]
    # What its endpoints have in the slots of the full model's residual parameters.
    kept = {
        number.name: sigma[model.endpoints.places[number.place]]
        for number in full.endpoints.numbers
    }
    numbers = np.zeros(len(full.param_names))
    edge = edge_names(full, model, tested_names(full, model, priors=priors))
    variances = []
    for k, (name, kind) in enumerate(zip(full.param_names, full.param_kind, strict=True)):
        if name in known:
            numbers[k] = known[name]
        elif kind == "typical":  # kept at its start there
            parameter = model.parameters[name]
            numbers[k] = float(parameter.to_phi(parameter.start))
        elif kind == "variance" and name in edge:
            variances.append(k)
            numbers[k] = 1e-6
        elif kind == "variance":  # kept there
            numbers[k] = model.parameters[name.removeprefix("omega2_")].start_omega ** 2
        elif kind == "residual":
            numbers[k] = max(float(kept[name]), _kernels.SIGMA_FLOOR)
        elif kind == "exponent":  # 1 where a model has none
            numbers[k] = float(kept[name])
    theta = full.with_estimates(theta, numbers)
    matrix = marginal_information(full, theta, linearise(full, theta))
    if variances:
        # Once the scale is known, close enough to 0 to make no difference.
        for k in variances:
            numbers[k] = max(_NEAR_ZERO / np.sqrt(matrix[k, k]), 2.0 * _kernels.VARIANCE_FLOOR)
        theta = full.with_estimates(theta, numbers)
        matrix = marginal_information(full, theta, linearise(full, theta))
    return theta, matrix
