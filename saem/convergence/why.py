"""What may be wrong with a fit: ranked causes, each with its evidence and a remedy."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from saem.convergence._subjects import mixing, second_modes
from saem.convergence.drift import drift_tests
from saem.exceptions import OptionError, SaemWarning

if TYPE_CHECKING:
    import pandas as pd

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
#: Subjects named in one line.
_NAMED = 8


@dataclass(frozen=True)
class Cause:
    """One thing that is wrong.

    Attributes
    ----------
    kind : str
        ``"failure"``, ``"not enough iterations"``, ``"drift"``, ``"unidentified direction"``,
        ``"boundary variance"``, ``"stuck subject"``, ``"multimodal subject"`` or
        ``"outlying row"``.
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
    """

    causes: tuple[Cause, ...]

    @property
    def frame(self) -> pd.DataFrame:
        """One row per cause, the gravest first."""
        import pandas as pd

        columns = list(Cause.__dataclass_fields__)
        return pd.DataFrame([vars(cause) for cause in self.causes], columns=columns)

    def __len__(self) -> int:
        return len(self.causes)

    def __str__(self) -> str:
        if not self.causes:
            return "Nothing found that speaks against this fit."
        lines = []
        for number, cause in enumerate(self.causes, 1):
            head = f"{number}. {cause.kind}: {cause.what}. {cause.evidence}"
            lines.append(textwrap.fill(head, 96, subsequent_indent="   "))
            lines.append(
                textwrap.fill(
                    f"Remedy: {cause.remedy}", 96, initial_indent="   ", subsequent_indent="   "
                )
            )
        return "\n".join(lines)

    __repr__ = __str__


def why(results: NLMEResults) -> Why:
    """Look for what may be wrong with a fit of an NLME.

    Parameters
    ----------
    results : NLMEResults

    Returns
    -------
    Why
        Each test is at level 0.001 over all parameters, rows or subjects that it looks at.

    Notes
    -----
    Looked at are: what stopped the fit; Monte Carlo errors against standard errors; drift of
    the averaged iterations (`saem.convergence.drift`); the eigenvalues of the scaled information
    (a condition number above 1000 names its direction); estimates at the edge of their range;
    short chains of every subject at the estimates, by their acceptance and by whether
    chains from different starts agree (Gelman and Rubin 1992, Statist. Sci. 7, 457-472); searches
    for a second mode of every subject from points of the prior; standardised residuals against
    the largest that a normal sample of the size would have.
    """
    found: list[Cause] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaemWarning)
        found += _ended(results)
        if results._finite:
            for check in _CHECKS:
                found += check(results)
    return Why(tuple(sorted(found, key=lambda cause: -cause.severity)))


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
    averaged = record.n_iter - (record.average_from or 0)
    wanted = (record.average_from or 0) + averaged * (worst / 0.02) ** 2
    yield Cause(
        "not enough iterations", name,
        f"Its Monte Carlo error is {worst:.0%} of its standard error after {record.n_iter} "
        "iterations: another seed ends elsewhere.", worst,
        f"fit(accuracy=0.02), which takes about {wanted:.0f} iterations; or the default algorithm, "
        "which removes the noise", min(0.85, 0.4 + worst),
    )  # fmt: skip


def _drift(results: NLMEResults) -> Iterator[Cause]:
    """Averaged iterations that still move."""
    try:
        table = drift_tests(results.model, results.record)
    except OptionError:
        return
    for name, row in table[table["p"] < _LEVEL].iterrows():
        yield Cause(
            "drift", str(name),
            f"The averaged iterations move: Geweke's z is {row['geweke_z']:.1f}, the largest "
            f"partial sum {row['cusum']:.2f} (p = {row['p']:.1g}, all parameters together).",
            float(row["p"]), "start the average later: more exploration (SAEM(n_exploration=200)), "
            "or start from here", 0.8,
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
    accepted, rhat = mixing(results)
    for i in np.flatnonzero((accepted < 0.01) | (rhat > 1.5)):
        if several.mass[i] > _MASS:
            continue
        yield Cause(
            "stuck subject", f"id {ids[i]}",
            f"Its chains accept {accepted[i]:.1%} of proposals; chains from different starts "
            f"differ by a factor {rhat[i]:.2f} (R-hat).", float(rhat[i]),
            "look at its data for errors of time or dose; other moves (saem.CoordinateWalk) or "
            "longer paths", 0.7,
        )  # fmt: skip


def _rows(results: NLMEResults) -> Iterator[Cause]:
    """Rows whose residuals no normal sample of that size has."""
    if not results.model.error.continuous:
        return
    frame = results.residuals()
    largest = NormalDist().inv_cdf(1.0 - _LEVEL / (2.0 * len(frame)))
    for label, row in frame[frame["iwres"].abs() > largest].iterrows():
        where = f" at time {row['time']:.4g}" if "time" in frame else ""
        yield Cause(
            "outlying row", f"row {label}, id {row['id']}{where}",
            f"Its residual is {row['iwres']:+.1f} standard deviations (observed {row['dv']:.4g}, "
            f"predicted {row['individual']:.4g}); among {len(frame)} rows {largest:.1f} would be "
            "exceeded once in a thousand data sets.", float(row["iwres"]),
            "check the record against its source; if it stands, consider another error model",
            min(0.65, 0.3 + 0.03 * abs(float(row["iwres"]))),
        )  # fmt: skip


_CHECKS: tuple[Callable[[NLMEResults], Iterator[Cause]], ...] = (
    _noise, _drift, _directions, _edges, _subjects, _rows,
)  # fmt: skip
