"""Checks of scikit-learn that an estimator cannot pass, with the reasons."""

from __future__ import annotations

from typing import Any

from saem.sklearn._mixture import Mixture
from saem.sklearn._regression import RegressionMixture
from saem.sklearn._student import StudentMixture
from saem.sklearn._topics import PLSA

__all__ = ["expected_failed_checks"]

_WEIGHTS = "check_sample_weight_equivalence_on_dense_data"
_SPARSE_WEIGHTS = "check_sample_weight_equivalence_on_sparse_data"
_COUNTS = "it gives fractions, whatever the tags say; counts are whole numbers"
_EXACT = "its response is a linear function of its covariates, with no residual variance"
_REASONS: dict[type, dict[str, str]] = {
    PLSA: {_WEIGHTS: _COUNTS, _SPARSE_WEIGHTS: _COUNTS},
    StudentMixture: {
        _WEIGHTS: "its 15 rows of 30 columns determine no scatter matrix, and are refused"
    },
    RegressionMixture: {
        _WEIGHTS: "its 15 rows do not carry 30 coefficients, and are refused",
        "check_sample_weights_shape": _EXACT,
        "check_sample_weights_not_overwritten": _EXACT,
        "check_regressors_no_decision_function": _EXACT,
    },
}


def expected_failed_checks(estimator: Any) -> dict[str, str]:
    """Checks of scikit-learn that an estimator cannot pass.

    For the argument of the same name of `sklearn.utils.estimator_checks.check_estimator`
    and `parametrize_with_checks`.

    Parameters
    ----------
    estimator : estimator

    Returns
    -------
    dict of str to str
        Names of checks, with reasons.
    """
    reasons = dict(_REASONS.get(type(estimator), {}))
    if isinstance(estimator, Mixture) and estimator.n_components > 1:
        reasons.setdefault(_WEIGHTS, "random starts depend on the order and number of the rows")
    if getattr(estimator, "handle_unknown", "warn") == "error":
        reasons[_WEIGHTS] = "it predicts levels that the fit did not see: handle_unknown='error'"
    if getattr(estimator, "fractions", "warn") == "error":
        reasons[_WEIGHTS] = _COUNTS
    return reasons
