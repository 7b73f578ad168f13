"""What may be wrong with a fit: ranked causes, each with its evidence and a remedy."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from saem.convergence._subjects import accepted_in_fit, mixing, second_modes
from saem.convergence.drift import drift_tests
from saem.exceptions import OptionError, SaemWarning

if TYPE_CHECKING:
    import pandas as pd

    from saem.convergence.agreement import Agreement
    from saem.nlme.results import NLMEResults

__all__ = ["Cause", "Why", "why"]

#: Scaled information with a larger condition number leaves directions all but free.
_CONDITION = 1000.0
#: Eigenvector entries that name the parameters of a direction.
_LOADING = 0.3
#: Error level of each test, over all of its parameters, rows or subjects.
_LEVEL = 1e-3
#: Monte Carlo error above this part of a standard error is too much.
_ACCURACY = 0.05
#: Posterior mass of a second mode that counts.
_MASS = 0.05
#: Acceptance below which chains stand still.
_RATE = 0.01
#: Starts of the search for a higher maximum, the predictions that a fit for which they are tried
#: by itself may have taken, and nats by which one is higher.
_STARTS, _CHEAP, _GAIN = 12, 2e7, 0.1
#: Standard error of a typical value, relative, that is allowed for at least, and the subjects
#: whose predictions are looked at.
_LEAST_ERROR, _LOOKED_AT = 0.025, 200


@dataclass(frozen=True)
class Cause:
    """One thing that is wrong.

    Attributes
    ----------
    kind : str
        ``"failure"``, ``"higher maximum"``, ``"predictions not finite"``, ``"not enough
        iterations"``, ``"drift"``, ``"unidentified direction"``, ``"boundary variance"``, ``"stuck
        subject"``, ``"multimodal subject"`` or ``"outlying row"``.
    what : str
        Parameters, subject or row concerned.
    evidence : str
        In words, with the numbers.
    value : float
        The number behind it: a p-value, a ratio, a mass, a condition number.
    remedy : str
    severity : float
        From 0 to 1; causes are ranked by it.
    """

    kind: str
    what: str
    evidence: str
    value: float
    remedy: str
    severity: float


@dataclass(frozen=True)
class Why:
    """Ranked causes; prints as text.

    Attributes
    ----------
    causes : tuple of Cause
        The gravest first; empty where nothing was found.
    n_starts : int
        Starts that the fit was compared with; 0 where they were not tried.
    """

    causes: tuple[Cause, ...]
    n_starts: int = 0

    @property
    def frame(self) -> pd.DataFrame:
        """One row per cause, the gravest first."""
        import pandas as pd

        columns = list(Cause.__dataclass_fields__)
        return pd.DataFrame([vars(cause) for cause in self.causes], columns=columns)

    def __len__(self) -> int:
        return len(self.causes)

    def __str__(self) -> str:
        untried = "Other starts were not tried: why(n_starts=12), or agreement()."
        if not self.causes:
            found = "Nothing found that speaks against this fit."
            return found if self.n_starts else f"{found} {untried}"
        lines = []
        for number, cause in enumerate(self.causes, 1):
            head = f"{number}. {cause.kind}: {cause.what}. {cause.evidence}"
            lines.append(textwrap.fill(head, 96, subsequent_indent="   "))
            lines.append(
                textwrap.fill(
                    f"Remedy: {cause.remedy}", 96, initial_indent="   ", subsequent_indent="   "
                )
            )
        if not self.n_starts:
            lines.append(untried)
        return "\n".join(lines)

    __repr__ = __str__


def why(results: NLMEResults, n_starts: int | None = None) -> Why:
    """Look for what may be wrong with a fit of an NLME.

    Parameters
    ----------
    results : NLMEResults
    n_starts : int, optional
        Starts of a search for a higher maximum, 0 for none. By default 12 for fits that cost
        little (20 million predictions of a response at most), or those of
        ``results.agreement()`` where that was called before.

    Returns
    -------
    Why
        Each test is at level 0.001 over all parameters, rows or subjects that it looks at.

    Notes
    -----
    Looked at are: what stopped the fit; whether other starts end higher
    (`saem.convergence.agreement.multistart`); whether the model has finite predictions two standard
    errors, and 5 %, around the typical values; Monte Carlo errors against standard errors; drift of
    the averaged iterations (`saem.convergence.drift`); the eigenvalues of the scaled information
    (a condition number above 1000 names its direction); estimates at the edge of their range;
    short chains of every subject at the estimates, by their acceptance and by whether
    chains from different starts agree (Gelman and Rubin 1992, Statist. Sci. 7, 457-472); searches
    for a second mode of every subject from points of the prior; standardised residuals against
    the largest that a normal sample of the size would have.
    """
    found: list[Cause] = []
    starts = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaemWarning)
        found += _ended(results)
        if results._finite:
            for check in _CHECKS:
                found += check(results)
            if results.record.stopped_by != "failure":
                agreement = _agreement(results, n_starts)
                if agreement is not None:
                    starts = len(agreement.fits) + agreement.failed
                    found += _higher(results, agreement)
    return Why(tuple(sorted(found, key=lambda cause: -cause.severity)), starts)


def _ended(results: NLMEResults) -> Iterator[Cause]:
    """What stopped the fit, where that was not its own end."""
    record = results.record
    if not results._finite or record.stopped_by == "failure":
        yield Cause(
            "failure", "the fit", f"It ended because {record.reason}.", float(record.n_iter),
            "other starting values; look at the trace (results.plot.convergence()) for the "
            "parameter that left first", 1.0,
        )  # fmt: skip
    elif not record.converged:
        yield Cause(
            "not enough iterations", "the fit", f"It ended with: {record.reason}.",
            float(record.n_iter), "go on from here, model.fit(start=results.theta, ...), or ask "
            "for more: fit(accuracy=0.02), budget=saem.Iterations(...)", 0.9,
        )  # fmt: skip


def _noise(results: NLMEResults) -> Iterator[Cause]:
    """Monte Carlo errors that are not small beside the standard errors."""
    ratio = (results.mc_error / results.bse).dropna()
    if ratio.empty or not ratio.max() > _ACCURACY:
        return
    record, name, worst = results.record, str(ratio.idxmax()), float(ratio.max())
    remedy = "more draws; or the default algorithm, which removes the noise"
    if record.average_from is not None and record.noise is not None:
        averaged = record.n_iter - record.average_from
        wanted = record.average_from + averaged * (worst / 0.02) ** 2
        remedy = (
            f"fit(accuracy=0.02), which takes about {wanted:.0f} iterations; or the default "
            "algorithm, which removes the noise"
        )
    yield Cause(
        "not enough iterations", name,
        f"Its Monte Carlo error is {worst:.0%} of its standard error after {record.n_iter} "
        "iterations: another seed ends elsewhere.", worst, remedy, min(0.85, 0.4 + worst),
    )  # fmt: skip


def _drift(results: NLMEResults) -> Iterator[Cause]:
    """Averaged iterations that still move."""
    try:
        table = drift_tests(results.model, results.record)
    except OptionError:
        return
    moving = table[table["p"] < _LEVEL].sort_values("p")
    if moving.empty:
        return
    row = moving.iloc[0]
    yield Cause(
        "drift", " and ".join(map(str, moving.index)),
        f"The averaged iterations move: for {moving.index[0]} Geweke's z is "
        f"{row['geweke_z']:.1f}, the largest partial sum {row['cusum']:.2f} (p = {row['p']:.1g}, "
        "all parameters together).", float(row["p"]),
        "start the average later: more exploration (SAEM(n_exploration=200)), or start from here",
        0.8,
    )  # fmt: skip


def _directions(results: NLMEResults) -> Iterator[Cause]:
    """Combinations of parameters about which the data say next to nothing."""
    information = results._information
    free = [j for j, n in enumerate(information.param_names) if n not in information.boundary]
    matrix = information.matrix[np.ix_(free, free)]
    scale = np.sqrt(np.maximum(np.diagonal(matrix), 1e-300))
    values, vectors = np.linalg.eigh(matrix / np.outer(scale, scale))
    condition = float(values[-1] / values[0]) if values[0] > 0 else np.inf
    if not information.unidentified and condition < _CONDITION:
        return
    loads = {
        information.param_names[j]: value
        for j, value in zip(free, vectors[:, 0], strict=True)
        if abs(value) > _LOADING
    }
    along = ", ".join(f"{value:+.2f} {name}" for name, value in loads.items())
    yield Cause(
        "unidentified direction", " and ".join(loads),
        f"The scaled information has condition number {condition:.2g}; it is flat along {along}.",
        condition, "fix one of these parameters (fixed=True), leave out a random effect or "
        "covariate among them, or add data that tell them apart", 0.95,
    )  # fmt: skip


def _edges(results: NLMEResults) -> Iterator[Cause]:
    for name, words in results.boundary.items():
        yield Cause(
            "boundary variance", name, f"{words[0].upper()}{words[1:]}." if words else
            "The estimate is at the edge of its range.", float(results.params[name]),
            "leave the random effect out (random=False), or the correlation; compare by "
            "a likelihood-ratio test corrected for the boundary", 0.6,
        )  # fmt: skip


def _subjects(results: NLMEResults) -> Iterator[Cause]:
    """Subjects whose chains do not move, and those whose posterior has another hump."""
    ids = [str(i) for i in results.model.individuals.ids]
    several = second_modes(results)
    for i in np.flatnonzero(several.mass > _MASS):
        where = ", ".join(
            f"{n} {a:.3g} or {b:.3g}"
            for n, a, b in zip(results.model.parameters, several.here[i], several.there[i],
                               strict=True)
        )  # fmt: skip
        yield Cause(
            "multimodal subject", f"id {ids[i]}",
            f"Its posterior has two modes; the lower one holds {several.mass[i]:.0%}: {where}.",
            float(several.mass[i]), "look at its data; constrain the model where two sets of "
            "parameters predict alike (such as ka > CL / V), and compare several starts "
            "(results.agreement())", min(0.75, 0.5 + 0.5 * float(several.mass[i])),
        )  # fmt: skip
    (accepted, rhat), own = mixing(results), accepted_in_fit(results)
    for i in np.flatnonzero((accepted < _RATE) | (rhat > 1.5) | (own < _RATE)):
        if several.mass[i] > _MASS:
            continue
        if own[i] < _RATE:
            evidence = f"In the fit its chains accepted {own[i]:.2%} of proposals."
            remedy = "the moves of plain SAEM() besides those of this fit, or longer paths; "
        else:
            evidence = (
                f"Its chains accept {accepted[i]:.1%} of proposals; chains from different starts "
                f"differ by a factor {rhat[i]:.2f} (R-hat)."
            )
            remedy = "other moves (saem.CoordinateWalk) or longer paths; "
        yield Cause(
            "stuck subject", f"id {ids[i]}", evidence, float(rhat[i]),
            remedy + "look at its data for errors of time or dose", 0.7,
        )  # fmt: skip


def _rows(results: NLMEResults) -> Iterator[Cause]:
    """Rows whose residuals no normal sample of that size has."""
    if not results.model.endpoints.continuous:
        return
    frame = results.residuals()
    largest = NormalDist().inv_cdf(1.0 - _LEVEL / (2.0 * len(frame)))
    for label, row in frame[frame["iwres"].abs() > largest].iterrows():
        where = f" at time {row['time']:.4g}" if "time" in frame else ""
        yield Cause(
            "outlying row", f"row {label}, id {row['id']}{where}",
            f"Its residual is {row['iwres']:+.3g} standard deviations (observed {row['dv']:.4g}, "
            f"predicted {row['individual']:.4g}); among {len(frame)} rows {largest:.1f} would be "
            "exceeded once in a thousand data sets.", float(row["iwres"]),
            "check the record against its source; if it stands, consider another error model",
            min(0.65, 0.3 + 0.03 * abs(float(row["iwres"]))),
        )  # fmt: skip


def _predictions(results: NLMEResults) -> Iterator[Cause]:
    """Typical values within two standard errors at which the model has no finite prediction."""
    from saem.inference.linearisation import all_phi, to_psi

    model, theta = results.model, results.record.theta
    if model.occasions is not None or not model.endpoints.continuous:
        return
    centre = model.estimation_vector(theta)
    plain = [type(model.parameters.get(name)).__name__ == "Normal" for name in model.param_names]
    least = _LEAST_ERROR * np.where(plain, np.abs(centre), 1.0)
    errors = np.fmax(results._information.bse_estimation, least)
    data, structural = model.individuals, model.structural
    columns = data.matrix(structural.columns)
    lost: dict[str, str] = {}
    for k, (name, kind) in enumerate(zip(model.param_names, model.param_kind, strict=True)):
        for sign in (1.0, -1.0) if kind == "typical" else ():
            shifted = centre.copy()
            shifted[k] += 2.0 * sign * errors[k]
            psi = to_psi(model, all_phi(model, model.with_estimates(theta, shifted)))
            for i in range(min(_LOOKED_AT, model.n_individuals)):
                rows = slice(data.offsets[i], data.offsets[i + 1])
                if not np.isfinite(structural.predict(psi[i], columns[:, rows])).all():
                    at = psi[i, list(model.parameters).index(name)]
                    lost.setdefault(name, f"{name} = {at:.4g} (id {data.ids[i]})")
                    break
    if lost:
        yield Cause(
            "predictions not finite", " and ".join(lost),
            f"Near the estimates the model has no finite prediction: at {', '.join(lost.values())}"
            ". The estimates may lean on the edge of what it can compute.", float(len(lost)),
            "look at divisions, logarithms and overflows in the structural function; make it "
            "finite for all parameter values, or bound the parameter (saem.LogitNormal)", 0.92,
        )  # fmt: skip


def _agreement(results: NLMEResults, n_starts: int | None) -> Agreement | None:
    """Fits from other starts: as asked for, those at hand, or where they cost little."""
    from saem.convergence.agreement import Agreement

    if n_starts is None:
        kept = results.__dict__.get("_agreement")
        if isinstance(kept, Agreement):
            return kept
        rows = results.nobs / results.model.n_individuals
        n_starts = _STARTS if results.record.n_evals * rows <= _CHEAP else 0
    return results.agreement(n_starts) if n_starts else None


def _higher(results: NLMEResults, agreement: Agreement) -> Iterator[Cause]:
    """Other starts that end in a higher maximum than this fit's."""
    from saem.convergence.agreement import same_maximum

    method = "quadrature" if results.model.n_coords <= 4 else "importance"
    own, best = results.loglik(method), agreement.best.loglik(method)
    gain = best.value - own.value
    if gain < max(_GAIN, 4.0 * np.hypot(own.error, best.error)):
        return
    if same_maximum(agreement.best, results):
        return
    found = ", ".join(f"{name} {value:.4g}" for name, value in agreement.best.params.items())
    count = int((agreement.frame["maximum"] == 1).sum())
    yield Cause(
        "higher maximum", "the likelihood",
        f"{count} of {len(agreement.fits)} starts end {gain:.3g} nats above this fit: {found}.",
        gain, "look at both, results.agreement().fits; fit from the other one, "
        "model.fit(start=results.agreement().best.theta), or, where it makes no sense, bound the "
        "parameters so that it is excluded", 0.85,
    )  # fmt: skip


_CHECKS: tuple[Callable[[NLMEResults], Iterator[Cause]], ...] = (
    _noise, _drift, _directions, _edges, _predictions, _subjects, _rows,
)  # fmt: skip
