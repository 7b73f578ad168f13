"""Hypothesis tests of nonlinear mixed-effects models: Wald, likelihood ratio, score.

| test | fits needed | a variance at 0 |
| --- | --- | --- |
| `wald` | the full one | refused: its estimate is not normal there |
| `likelihood_ratio` | both | mixture of chi-square distributions |
| `score` | the restricted one | one-sided |
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.estep.quadrature import quadrature_dimension
from saem.exceptions import OptionError, Problems, SaemWarning
from saem.inference._chi_bar import chi_bar_sf, weights_of
from saem.inference._nesting import edge_names, embedded, tested_names
from saem.nlme._continuous import require_predictions

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.model import NLME
    from saem.nlme.results import NLMEResults

__all__ = ["TestResult", "likelihood_ratio", "score", "wald"]

#: A score by a variance is taken at so many of its standard errors from 0: there it is
#: defined, and differs from that at 0 by as little.
_NEAR_ZERO = 1e-3
#: A statistic this far below 0 comes of fits that stopped short of a maximum at a variance of 0.
_NEGLIGIBLE = 0.02
#: Shifts of the points of importance sampling, over which scores are averaged.
_SHIFTS = 8
#: Random effects up to which likelihoods are compared by quadrature.
_QUADRATURE = 3


@dataclass(frozen=True)
class TestResult:
    """Outcome of a test.

    Attributes
    ----------
    statistic : float
    df : int
        Parameters that are tested.
    p_value : float
    names : tuple of str
        Of the tested parameters.
    method : str
        ``"Wald"``, ``"likelihood ratio"`` or ``"score"``.
    distribution : str
        Of the statistic under the hypothesis, in words.
    weights : tuple of float
        Weights of chi-square distributions in `distribution`, by their degrees of freedom
        ``df - len(weights) + 1, ..., df``.
    error : float
        Monte Carlo standard error of the statistic; 0 without draws.
    table : DataFrame or None
        For a Wald test: every parameter by itself, two-sided.
    """

    statistic: float
    df: int
    p_value: float
    names: tuple[str, ...]
    method: str
    distribution: str
    weights: tuple[float, ...] = (1.0,)
    error: float = 0.0
    table: pd.DataFrame | None = None

    __test__ = False  # not a class of tests to pytest

    def __str__(self) -> str:
        """Return the outcome in words."""
        names = ", ".join(self.names)
        head = (
            f"{self.method} test of {names}: statistic {self.statistic:.4g}, "
            f"{self.distribution}, p = {self.p_value:.3g}"
        )
        if self.error > 0.0:
            head += f" (Monte Carlo error of the statistic {self.error:.2g})"
        return head if self.table is None else f"{head}\n{self.table.to_string()}"


def _chi_square(df: int) -> str:
    return f"chi-square({df})"


def wald(
    fit: NLMEResults,
    what: str | Sequence[str] | Mapping[str, float] | Array | None = None,
    value: Any = 0.0,
) -> TestResult:
    """Wald test that parameters have given values.

    Parameters
    ----------
    fit : NLMEResults
    what : str, sequence of str, mapping of str to float, or ndarray, optional
        Names; names with the values to test, on the user's scale; or a matrix R of
        shape (q, n_params) for ``R theta = value``, theta on the Gaussian scale. By default
        every covariate coefficient.
    value : float or array-like of shape (q,)
        Tested value of the names, or of ``R theta``.

    Returns
    -------
    TestResult
        Its ``table`` has each parameter by itself: ``estimate``, ``value``, ``z`` and the
        two-sided ``p_value``, ``2 (1 - Phi(|z|))``. The joint test is chi-square with as many
        degrees of freedom as there are restrictions.

    Raises
    ------
    OptionError
        For unknown names, values out of range, a variance or residual scale at 0, or
        parameters without a standard error.

    Notes
    -----
    ``W = (R theta - r)' (R C R')^-1 (R theta - r)`` on the Gaussian scale: the logarithm of a
    log-normal parameter, so that ``{"ka": 1.0}`` tests ``log ka = 0``. Wald 1943,
    Trans. Amer. Math. Soc. 54, 426-482.
    """
    import pandas as pd
    from scipy.stats import chi2, norm

    model = fit.model
    theta = model.estimation_vector(fit.record.theta)
    if isinstance(what, np.ndarray):
        matrix = np.atleast_2d(np.asarray(what, dtype=float))
        if matrix.shape[1] != theta.size or not np.isfinite(matrix).all():
            raise OptionError(
                f"the matrix has shape {matrix.shape}, not finite numbers in {theta.size} columns, "
                "one for each parameter."
            )
        target = np.broadcast_to(np.asarray(value, dtype=float), (len(matrix),))
        names = [_in_words(row, model.param_names) for row in matrix]
        shown = target
    else:
        values = _values(model, what, value)
        names = list(values)
        at = [model.param_names.index(name) for name in names]
        matrix = np.eye(theta.size)[at]
        shown = np.array(list(values.values()))
        target = np.array([_gaussian(model, n, v) for n, v in values.items()])
    covariance = fit._information.cov_estimation
    used = np.any(matrix != 0.0, axis=0)
    unknown = used & ~np.isfinite(np.diagonal(covariance))
    if unknown.any():
        bad = [name for name, lost in zip(model.param_names, unknown, strict=True) if lost]
        raise OptionError(
            f"{', '.join(bad)} has no standard error (boundary, or not identified), so that a Wald "
            "test does not hold. Remedy: saem.inference.tests.likelihood_ratio."
        )
    covariance = np.nan_to_num(covariance)
    gap = matrix @ theta - target
    spread = matrix @ covariance @ matrix.T
    if np.linalg.matrix_rank(spread) < len(spread):
        raise OptionError("the restrictions are not linearly independent. Remedy: drop some.")
    z = gap / np.sqrt(np.diagonal(spread))
    statistic = float(gap @ np.linalg.solve(spread, gap))
    estimates = fit.params.reindex(names).to_numpy() if not isinstance(what, np.ndarray) else None
    table = pd.DataFrame(
        {
            "estimate": matrix @ theta if estimates is None else estimates,
            "value": shown,
            "z": z,
            "p_value": 2.0 * norm.sf(np.abs(z)),
        },
        index=pd.Index(names, name="parameter"),
    )
    df = len(matrix)
    return TestResult(
        statistic, df, float(chi2.sf(statistic, df)), tuple(names), "Wald", _chi_square(df),
        table=table,
    )  # fmt: skip


def _in_words(row: Array, names: list[str]) -> str:
    """Contrast as text, such as ``ka - V``."""
    parts = []
    for weight, name in zip(row, names, strict=True):
        if weight != 0.0:
            size = "" if abs(weight) == 1.0 else f"{abs(weight):g} "
            sign = "-" if weight < 0.0 else "+"
            parts.append(f"{sign} {size}{name}")
    return " ".join(parts).removeprefix("+ ") or "0"


def _values(model: NLME, what: Any, value: Any) -> dict[str, float]:
    """Tested names with their values, checked."""
    if what is None:
        kinds = zip(model.param_names, model.param_kind, strict=True)
        what = [name for name, kind in kinds if kind == "coefficient"]
        if not what:
            raise OptionError(
                "the model has no covariate coefficient. Remedy: name the parameters to test."
            )
    if isinstance(what, str):
        what = [what]
    if not isinstance(what, Mapping):
        numbers = np.broadcast_to(np.asarray(value, dtype=float), (len(what),))
        what = dict(zip(what, map(float, numbers), strict=True))
    problems = Problems("the Wald test")
    for name, number in what.items():
        if name not in model.param_names:
            problems.add(f"{name!r} is not one of {', '.join(model.param_names)}")
            continue
        kind = model.param_kind[model.param_names.index(name)]
        if kind in ("variance", "residual") and not number > 0.0:
            problems.add(
                f"{name} = {number:g} is the edge of its range, where its estimate is not normal",
                remedy="use saem.inference.tests.likelihood_ratio",
            )
        elif not np.isfinite(_gaussian(model, name, number)):
            problems.add(f"{name} = {number:g} is out of its range", remedy="test another value")
    problems.raise_if_any(OptionError)
    return dict(what)


def _gaussian(model: NLME, name: str, value: float) -> float:
    """Tested value on the scale of estimation."""
    kind = model.param_kind[model.param_names.index(name)]
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(model.parameters[name].to_phi(value)) if kind == "typical" else float(value)


def likelihood_ratio(
    full: NLMEResults, restricted: NLMEResults, method: str | None = None
) -> TestResult:
    """Likelihood-ratio test of a fit against one with fewer parameters.

    Parameters
    ----------
    full, restricted : NLMEResults
        Of the same data; every parameter of the restricted fit is one of the full.
    method : str, optional
        Of the log-likelihoods, see `saem.inference.likelihood.log_likelihood`; by default
        quadrature up to three random effects, else importance sampling.

    Returns
    -------
    TestResult

    Raises
    ------
    OptionError
        If the fits are not nested, or of different data.

    Warns
    -----
    SaemWarning
        If the restricted fit has the greater likelihood: the full one is not at its maximum.

    Notes
    -----
    Variances and residual scales are tested at the edge of their range, where the statistic
    is a mixture of chi-square distributions (Self and Liang 1987, J. Amer. Statist. Assoc. 82,
    605-610): half and half of q and q + 1 degrees of freedom for one variance and q
    further numbers, its covariances among them (Stram and Lee 1994, Biometrics 50,
    1171-1177). For several variances without covariances the weights follow from the correlations
    of their estimates at the hypothesis; with covariances they are not known, and the test takes
    chi-square with all degrees of freedom, which is conservative.
    """
    names = tested_names(full.model, restricted.model, priors=False)
    if method is None:
        most = max(quadrature_dimension(fit.model) for fit in (full, restricted))
        method = "quadrature" if most <= _QUADRATURE else "importance"
    one, other = full.loglik(method), restricted.loglik(method)
    statistic = 2.0 * (one.value - other.value)
    error = 2.0 * float(np.hypot(one.error, other.error))
    if statistic < -max(3.0 * error, _NEGLIGIBLE):
        warnings.warn(
            f"the restricted fit has the greater log-likelihood, by {-statistic / 2.0:.3g}: the "
            "full one is not at its maximum, or they are at different ones. Remedy: start the full "
            "fit from the restricted estimates.",
            SaemWarning,
            stacklevel=2,
        )
    statistic = max(statistic, 0.0)
    weights = _boundary_weights(full.model, restricted, names)
    return _mixed("likelihood ratio", statistic, names, weights, error)


def _mixed(
    method: str, statistic: float, names: tuple[str, ...], weights: Array, error: float = 0.0
) -> TestResult:
    """Return a test whose statistic is a mixture of chi-squares under the hypothesis."""
    df = len(names)
    first = df - len(weights) + 1
    words = _chi_square(df)
    if len(weights) > 1:
        words = " + ".join(f"{w:.3g} {_chi_square(first + j)}" for j, w in enumerate(weights))
    p_value = chi_bar_sf(statistic, weights, first)
    return TestResult(
        statistic, df, p_value, names, method, words, tuple(map(float, weights)), error
    )


def _boundary_weights(full: NLME, restricted: NLMEResults, names: tuple[str, ...]) -> Array:
    """Weights of chi-squares, from the parameters that are tested at the edge of their range."""
    kinds = [full.param_kind[full.param_names.index(name)] for name in names]
    edge = edge_names(full, restricted.model, names)
    if len(edge) > 1 and "covariance" in kinds:
        return np.ones(1)
    if len(edge) < 2:
        return np.full(1 + len(edge), 0.5 ** len(edge))
    _, matrix = embedded(full, restricted)
    tested = [full.param_names.index(name) for name in names]
    rest = [j for j in range(len(full.param_names)) if j not in tested]
    covariance = np.linalg.inv(_efficient(matrix, tested, rest))
    place = [list(names).index(name) for name in edge]
    return weights_of(np.asarray(covariance[np.ix_(place, place)], dtype=float))


def _efficient(matrix: Array, tested: list[int], rest: list[int]) -> Array:
    """Information on the tested parameters with the others unknown."""
    cross = matrix[np.ix_(tested, rest)]
    inner = np.linalg.solve(matrix[np.ix_(rest, rest)], cross.T)
    return np.asarray(matrix[np.ix_(tested, tested)] - cross @ inner)


def score(restricted: NLMEResults, full: NLME, *, seed: int = 0) -> TestResult:
    """Score test of further parameters, without fitting the model that has them.

    Parameters
    ----------
    restricted : NLMEResults
        A fit.
    full : NLME
        The model with more parameters on the same data: covariate coefficients, covariances,
        or one variance (a parameter with ``random=True`` that had none). Parameters that are
        not tested may have priors.
    seed : int
        Of the points of importance sampling, beyond four random effects.

    Returns
    -------
    TestResult
        With the Monte Carlo ``error`` of the statistic where it is by importance sampling.

    Raises
    ------
    OptionError
        If the models are not nested, of different data, or more than one variance, or a
        variance with other parameters, is tested.

    Notes
    -----
    ``S' I^-1 S`` with S the score of the tested parameters at the restricted estimates, by
    quadrature up to four random effects, by importance sampling with eight shifts of its points
    beyond, and I the expected information of the linearised model on them with the
    others unknown (Rao 1948, Proc. Camb. Phil. Soc. 44, 50-57), exact for linear models.
    What the others' scores add is taken out, so that these need be consistent only, not at
    the maximum of the likelihood: priors of theirs do no harm (Neyman's C(alpha), 1959).
    A variance is tested one-sided (Verbeke and Molenberghs 2003, Biometrics 59, 254-262):
    its score counts if it is positive.
    """
    from saem.nlme.priors import prior_information

    require_predictions(full, "score tests", "likelihood_ratio, or a Wald test")
    names = tested_names(full, restricted.model, priors=True)
    edge = edge_names(full, restricted.model, names)
    residual = any(full.param_kind[full.param_names.index(name)] == "residual" for name in names)
    if residual or (edge and len(names) > 1):
        raise OptionError(
            "the score test takes coefficients and covariances, or one variance by itself, not "
            f"{', '.join(names)}. Remedy: likelihood_ratio, or one at a time."
        )
    theta, matrix = embedded(full, restricted, priors=True)
    matrix = matrix - prior_information(full, theta)
    tested = [full.param_names.index(name) for name in names]
    rest = [j for j in range(len(full.param_names)) if j not in tested]
    information = _efficient(matrix, tested, rest)
    if edge:
        numbers = full.estimation_vector(theta)
        numbers[tested[0]] = _NEAR_ZERO / np.sqrt(information[0, 0])
        theta = full.with_estimates(theta, numbers)
    slopes = _slopes(full, theta, seed)
    # At estimates that are not quite the maximum the others' scores are not 0: taken out.
    inner = np.linalg.solve(matrix[np.ix_(rest, rest)], slopes[:, rest].T)
    effective = slopes[:, tested] - (matrix[np.ix_(tested, rest)] @ inner).T
    mean = effective.mean(axis=0)
    if edge:
        mean = np.maximum(mean, 0.0)
    scaled = np.linalg.solve(information, mean)
    error = 0.0
    if len(slopes) > 1:
        error = 2.0 * float(np.std(effective @ scaled, ddof=1)) / np.sqrt(len(slopes))
    weights = np.full(2, 0.5) if edge else np.ones(1)
    return _mixed("score", float(mean @ scaled), names, weights, error)


def _slopes(model: NLME, theta: Array, seed: int) -> Array:
    """Scores of the likelihood: one row by quadrature, several by importance sampling."""
    from saem.inference.posterior import individual_scores, nodes_for
    from saem.inference.scoring import prior_score, scores_of_shifts

    if nodes_for(quadrature_dimension(model)) is not None:
        return individual_scores(model, theta).sum(axis=0)[None]
    slopes = scores_of_shifts(model, theta, _SHIFTS, seed=seed)
    return slopes - prior_score(model, theta) if model.penalised else slopes
