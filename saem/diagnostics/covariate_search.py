"""Stepwise search for covariates, by likelihood-ratio tests or guided by conditional samples."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from saem.contract import Array
from saem.diagnostics.effects import eta_draws
from saem.estep.quadrature import quadrature_dimension
from saem.exceptions import OptionError, Problems, SaemError
from saem.nlme._explain import did_you_mean
from saem.nlme.covariates import build_design, formula_columns
from saem.nlme.occasions import COLUMN

if TYPE_CHECKING:
    import pandas as pd

    from saem.nlme.results import NLMEResults

__all__ = ["METHODS", "CovariateSearch", "covariate_search"]

#: Ways to search.
METHODS = ("scm", "cossac")
#: Random effects up to which likelihoods are computed by quadrature.
_QUADRATURE = 3

Term = tuple[str, str]


@dataclass
class CovariateSearch:
    """A stepwise search that has ended.

    Attributes
    ----------
    fit : NLMEResults
        The model that was chosen.
    terms : dict of str to list of str
        Terms that each parameter has gained.
    log : DataFrame
        One row per fit: ``step``, ``direction`` (``"base"``, ``"forward"``, ``"backward"``),
        ``parameter`` and ``term`` that were tried, ``screen`` (p-value of the correlation that
        led there; NaN for SCM), ``loglik`` and its Monte Carlo ``error``, ``n_params``, ``df``,
        ``statistic`` and ``p_value`` of the likelihood-ratio test, ``accepted``, and ``note``
        (first warning of the fit, or why there is none).
    """

    fit: NLMEResults
    terms: dict[str, list[str]]
    log: pd.DataFrame

    @property
    def n_fits(self) -> int:
        """Fits that were made, that of the base model included."""
        return len(self.log)


def covariate_search(
    fit: NLMEResults,
    data: pd.DataFrame,
    candidates: Mapping[str, Sequence[str]] | Sequence[str],
    *,
    method: str = "scm",
    forward: float = 0.05,
    backward: float = 0.01,
    screen: float = 0.2,
    algorithm: Any = None,
    loglik: str | None = None,
    n_samples: int = 20,
    seed: int | None = None,
    **options: Any,
) -> CovariateSearch:
    """Add and remove covariates step by step.

    Parameters
    ----------
    fit : NLMEResults
        Fit of the base model; covariates that it has stay.
    data : DataFrame
        The data of that fit, with the columns of all candidates.
    candidates : mapping of str to sequence of str, or sequence of str
        Formula terms to try for each parameter, such as ``{"CL": ["log(Wt / 70)", "Sex"]}``;
        a plain sequence is tried for every parameter with a random effect.
    method : {"scm", "cossac"}
        ``"scm"``: stepwise covariate modelling, which fits every candidate at every step.
        ``"cossac"``: candidates are ranked by tests of draws of the random effects, and only
        those that look promising are fitted, the best first.
    forward, backward : float
        Levels of the likelihood-ratio tests to add a term, and to keep one.
    screen : float
        Level of the tests of draws, for ``"cossac"``; candidates above are not fitted.
    algorithm : str or Algorithm, optional
        How models are fitted; the default algorithm if None.
    loglik : str, optional
        Method of the log-likelihoods: by default quadrature, which has no noise, for up to
        three random effects, importance sampling beyond.
    n_samples : int
        Draws per individual, for ``"cossac"``.
    seed : int, optional
        That of the fit by default.
    **options
        Further options of ``model.fit``.

    Returns
    -------
    CovariateSearch

    Raises
    ------
    saem.exceptions.OptionError
        With everything that is wrong with the options.

    Notes
    -----
    SCM: Jonsson and Karlsson (1998), Pharm. Res. 15, 1463-1468: forward steps take the term
    with the smallest p-value below `forward`, until there is none; backward steps then drop the
    term with the largest p-value above `backward`. ``"cossac"`` follows the idea of Ayral,
    Si Abdallah, Magnard and Chauvin (2021), CPT Pharmacometrics Syst. Pharmacol. 10, 318-329:
    random effects sampled from the individuals' posteriors tell which terms to try. A step
    takes the first term, by rank, that passes the same likelihood-ratio test; backward steps
    try the included terms from the weakest (draws with the effect of the term put back) on.
    Unlike there, all forward steps come first. After selection p-values and intervals are
    too optimistic.
    """
    search = _Search(fit, data, candidates, method, forward, backward, screen)
    search.check()
    search.algorithm, search.options = algorithm, {"progress": False} | options
    search.seed = fit.record.seed if seed is None else seed
    search.n_samples = n_samples
    few = quadrature_dimension(fit.model) <= _QUADRATURE
    search.loglik = loglik or ("quadrature" if few else "importance")
    return search.run()


@dataclass
class _Search:
    """State of a search."""

    base: Any
    data: Any
    candidates: Any
    method: str
    forward: float
    backward: float
    screen: float
    algorithm: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    n_samples: int = 20
    loglik: str = "quadrature"
    terms: list[Term] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)

    # -- options -----------------------------------------------------------------

    def check(self) -> None:
        """Check the options and turn the candidates into pairs of parameter and term."""
        problems, model = Problems("the covariate search"), self.base.model
        if self.method not in METHODS:
            problems.add(f"method={self.method!r} must be 'scm' or 'cossac'")
        for name in ("forward", "backward", "screen"):
            if not 0.0 < getattr(self, name) < 1.0:
                problems.add(f"{name}={getattr(self, name)!r} must lie between 0 and 1")
        given = self.candidates
        if not isinstance(given, Mapping):
            own = model.random_names[: model.n_subject_coords]
            given = {name: list(given) for name in own}
        self.candidates = [(name, term) for name, terms in given.items() for term in terms]
        if not self.candidates:
            problems.add("there are no candidates", remedy="name terms for each parameter")
        for name, term in self.candidates:
            self._check_candidate(name, term, problems)
        problems.raise_if_any(OptionError)

    def _check_candidate(self, name: str, term: str, problems: Problems) -> None:
        parameters = self.base.model.declared[1]
        if name not in parameters:
            problems.add(
                f"candidate {term!r} is for {name!r}, which is no parameter"
                f"{did_you_mean(name, parameters)}"
            )
        elif self.method == "cossac" and not parameters[name].random:
            problems.add(
                f"{name!r} has no random effect to rank {term!r} by", remedy="method='scm'"
            )
        try:
            columns = formula_columns(term)[0]
        except Exception as error:  # formulaic lets any exception of its parser through
            problems.add(f"candidate {term!r} of {name!r} cannot be read: {error}")
            return
        for column in sorted(columns - set(map(str, self.data.columns))):
            problems.add(
                f"candidate {term!r} of {name!r} uses column {column!r}, which the data do not "
                f"have{did_you_mean(column, list(self.data.columns))}"
            )

    # -- fits --------------------------------------------------------------------

    def model_with(self, terms: Sequence[Term], near: Any) -> Any:
        """The base model with these terms, starting at the estimates of another fit."""
        old = self.base.model
        parameters = {}
        for name, parameter in old.declared[1].items():
            formula = [parameter.covariates] if parameter.covariates else []
            formula += [term for owner, term in terms if owner == name]
            changes: dict[str, Any] = {"covariates": " + ".join(formula) or None}
            if near is not None and not parameter.fixed:
                changes["start"] = float(near.params[name])
            if near is not None and parameter.random and not parameter.fixed_omega:
                changes["omega"] = float(np.sqrt(near.omega.loc[name, name]))
            parameters[name] = replace(parameter, **changes)
        # Whatever else the model was made with, under the name of the argument.
        known = {"self", "data", "structural", "parameters", "columns", "occasion", "iov"}
        arguments = {
            name: getattr(old, name)
            for name in inspect.signature(type(old).__init__).parameters
            if name not in known
        }
        columns = dict(old.individuals.names)
        if old.occasions is not None:
            columns.pop(COLUMN)
            arguments |= {"occasion": old.occasions.label, "iov": dict(old.occasions.sds)}
            if near is not None:
                sds = np.sqrt(np.diag(near.gamma))
                arguments["iov"] = dict(zip(near.gamma.index, sds.tolist(), strict=True))
        return type(old)(
            self.data, old.declared[0], parameters=parameters, columns=columns, **arguments
        )

    def try_terms(
        self, terms: Sequence[Term], near: Any, tried: Term, direction: str, screen: float
    ) -> dict[str, Any]:
        """Fit the model with these terms and write a row of the log; returns the row."""
        row: dict[str, Any] = {
            "step": 0, "direction": direction, "parameter": tried[0], "term": tried[1],
            "screen": screen, "loglik": np.nan, "error": np.nan, "n_params": 0, "df": 0,
            "statistic": np.nan, "p_value": np.nan, "accepted": False, "note": "", "fit": None,
        }  # fmt: skip
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                model = self.model_with(terms, near)
                fit = model.fit(self.algorithm, seed=self.seed, **self.options)
                found = fit.loglik(self.loglik)
            except SaemError as error:
                if direction == "base":
                    raise
                # Such as a term that is collinear with one that is in the model.
                row["note"] = " ".join(str(error).split())
            else:
                row |= {
                    "loglik": found.value, "error": found.error, "n_params": fit.n_params,
                    "fit": fit,
                }  # fmt: skip
        if caught and not row["note"]:
            row["note"] = str(caught[0].message).split(". ")[0]
        self.log.append(row)
        return row

    def test(self, row: dict[str, Any], current: dict[str, Any], step: int) -> float:
        """Likelihood-ratio test of a row against the current model."""
        from scipy.stats import chi2

        smaller, larger = sorted((row, current), key=lambda r: r["n_params"])
        row["step"] = step
        if row["fit"] is None:
            return np.nan  # never passes, in either direction
        row["df"] = larger["n_params"] - smaller["n_params"]
        row["statistic"] = 2.0 * (larger["loglik"] - smaller["loglik"])
        p_value = float(chi2.sf(max(row["statistic"], 0.0), max(1, row["df"])))
        row["p_value"] = p_value
        return p_value

    # -- steps -------------------------------------------------------------------

    def run(self) -> CovariateSearch:
        """Forward steps, then backward steps."""
        import pandas as pd

        current = self.try_terms([], None, ("", ""), "base", np.nan)
        current["accepted"] = True
        step, go_on = 1, True
        for direction in ("forward", "backward"):
            go_on = True
            while go_on:
                found = self.step(current, direction, step)
                step += 1
                go_on = found is not None
                current = found or current
        terms: dict[str, list[str]] = {}
        for name, term in self.terms:
            terms.setdefault(name, []).append(term)
        frame = pd.DataFrame(self.log).drop(columns="fit")
        return CovariateSearch(current["fit"], terms, frame)

    def step(self, current: dict[str, Any], direction: str, number: int) -> dict[str, Any] | None:
        """One step; the new current model, or None if nothing changes."""
        adding = direction == "forward"
        pool = [t for t in self.candidates if t not in self.terms] if adding else list(self.terms)
        ranked = [(term, np.nan) for term in pool]
        guided = self.method == "cossac"
        if guided:
            ranked = self.rank(current["fit"], pool, adding)
        passed: list[tuple[float, dict[str, Any], Term]] = []
        for term, screen in ranked:
            terms = [*self.terms, term] if adding else [t for t in self.terms if t != term]
            row = self.try_terms(terms, current["fit"], term, direction, screen)
            p = self.test(row, current, number)
            if (p < self.forward) if adding else (p > self.backward):
                passed.append((p, row, term))
                if guided:
                    break
        if not passed:
            return None
        _, row, term = (
            min(passed, key=lambda x: x[0]) if adding else max(passed, key=lambda x: x[0])
        )
        row["accepted"] = True
        if adding:
            self.terms.append(term)
        else:
            self.terms.remove(term)
        return row

    def rank(self, fit: Any, pool: Sequence[Term], adding: bool) -> list[tuple[Term, float]]:
        """Terms with p-values of their tests, the most promising change first."""
        model = fit.model
        eta = eta_draws(fit, "samples", self.n_samples, self.seed)
        beta, design = model.theta_spec.view(fit.theta)["beta"], model.individuals.design
        ranked = []
        for name, term in pool:
            x = self.columns_of(fit, term)
            own = eta[:, :, model.random_names.index(name)]
            if not adding:
                place = list(model.parameters).index(name)
                names = self._names_of(fit, term)
                used = [j for j in design.used[name] if design.names[j] in names]
                effect = design.matrix[:, used] @ beta[used, place]
                own = own + effect[:, None]
            p = regression_p(x, own)
            if not adding or p < self.screen:
                ranked.append(((name, term), p))
        return sorted(ranked, key=lambda pair: pair[1] if adding else -pair[1])

    def _design(self, fit: Any, term: str) -> Any:
        """Design of one term alone, one row per individual."""
        from saem.diagnostics.effects import subject_covariates

        label = fit.model.individuals.names["id"]
        frame = self.data[[label, *sorted(formula_columns(term)[0])]]
        subjects = subject_covariates(fit, frame).reset_index(drop=True)
        problems = Problems("the covariates")
        design = build_design({"term": term}, subjects, fit.model.individuals.ids, problems)
        problems.raise_if_any(OptionError)
        return design

    def columns_of(self, fit: Any, term: str) -> Array:
        """Columns of a term without the ones, shape (n_individuals, k)."""
        return np.asarray(self._design(fit, term).matrix[:, 1:])

    def _names_of(self, fit: Any, term: str) -> tuple[str, ...]:
        return tuple(self._design(fit, term).names[1:])


def regression_p(x: Array, eta: Array) -> float:
    """P-value of the regression of random effects on columns, from the F averaged over draws.

    Parameters
    ----------
    x : ndarray of shape (n, k)
    eta : ndarray of shape (n, n_draws)

    Returns
    -------
    float
        On the safe side; see `saem.diagnostics.effects.mean_correlation`.
    """
    from scipy.stats import f

    n, k = x.shape
    basis, _ = np.linalg.qr(x - x.mean(axis=0))
    centred = eta - eta.mean(axis=0)
    explained = ((basis.T @ centred) ** 2).sum(axis=0)
    left = (centred**2).sum(axis=0) - explained
    statistic = float(np.mean(explained / k / (left / (n - 1 - k))))
    return float(f.sf(statistic, k, n - 1 - k))
