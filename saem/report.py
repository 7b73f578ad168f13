"""One self-contained HTML page on a fit: what was fitted, what came out, why to trust it.

The page needs no network and no other file: figures are inside it. It holds all
that is needed to repeat the fit: data columns, model, settings, seed, versions, code.
"""

from __future__ import annotations

import io
import platform
from collections.abc import Mapping
from datetime import date
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saem import _report_page as html
from saem._report_code import python_code

if TYPE_CHECKING:
    import os

    from saem.results import Results

__all__ = ["CAPTIONS", "draw_figures", "html_report", "write_report"]

#: Figures of a report, in order, with what they show.
CAPTIONS = {
    "convergence": (
        "Course of the estimates over the iterations. A trustworthy fit has settled: lines that "
        "still drift or jump at the end have not converged."
    ),
    "individual_fits": (
        "Data (points) and predictions of the fitted model for each individual at its own most "
        "probable parameters, and for a typical individual."
    ),
    "observed_vs_predicted": (
        "Observations against predictions. Points should scatter around the diagonal along its "
        "whole length."
    ),
    "residuals": (
        "Weighted residuals. They should scatter around zero without trend, most of them between "
        "-2 and 2."
    ),
    "components": "Data, coloured by their most probable component, and the fitted components.",
}

#: Those that need a continuous response, which the structural model predicts.
_OF_PREDICTIONS = ("individual_fits", "observed_vs_predicted", "residuals")

#: Individuals shown in a report; all of them stand in individuals.csv.
_MOST_ROWS = 50

_DISTRIBUTIONS = {
    "Normal": "normal",
    "LogNormal": "log-normal",
    "LogitNormal": "logit-normal",
    "ProbitNormal": "probit-normal",
}


def draw_figures(results: Results, dpi: int = 100) -> dict[str, bytes]:
    """Draw the figures of a report as PNG.

    Parameters
    ----------
    results : Results
    dpi : int
        Dots per inch.

    Returns
    -------
    dict of str to bytes
        By name; those of `CAPTIONS` that the model's results have.
    """
    figures = {}
    for name in CAPTIONS:
        draw = getattr(results.plot, name, None)
        if draw is None or (name in _OF_PREDICTIONS and not _predicts(results.model)):
            continue
        figure = draw()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)
        figures[name] = buffer.getvalue()
    return figures


def _predicts(model: Any) -> bool:
    """Whether a model predicts the response; a user's log-likelihood does not."""
    return bool(getattr(getattr(model, "error", None), "continuous", True))


def html_report(
    results: Results,
    *,
    title: str | None = None,
    figures: Mapping[str, bytes] | None = None,
    data_source: str | None = None,
    data_code: str | None = None,
    command: str | None = None,
) -> str:
    """Build the report of a fit.

    Parameters
    ----------
    results : Results
    title : str, optional
        Model and algorithm by default.
    figures : mapping of str to bytes, optional
        PNG pictures by name; drawn if None, left out if empty.
    data_source : str, optional
        Where the data come from, in words.
    data_code : str, optional
        Python expression that loads the data.
    command : str, optional
        The shell command that made the fit.

    Returns
    -------
    str
        A complete HTML page.
    """
    model, record = results.model, results.record
    if title is None:
        what = getattr(getattr(model, "structural", None), "name", None)
        title = f"{model.name}{f' {what}' if what else ''} by {record.algorithm.upper()}"
    if figures is None:
        figures = draw_figures(results)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{_lead(results)}</p>',
        _verdict(results),
        html.section("Estimates", _estimates(results), _legend(results)),
        html.section("Fit", html.facts(_statistics(results))),
        html.section("Model", *_model(model)),
        html.section("Data", *_data(model, data_source)),
        html.section("Convergence", html.facts(_convergence(results))),
        html.section("Figures", *(html.figure(p, CAPTIONS.get(n, n)) for n, p in figures.items())),
        html.section("Individual parameters", *_individuals(results)),
        html.section("How to repeat this fit", *_repeat(results, data_code, command)),
    ]
    return html.page(title, parts, {"generator": f"saem {record.version}"})


def write_report(results: Results, path: str | os.PathLike[str], **options: Any) -> Path:
    """Write the report of a fit to a file.

    Parameters
    ----------
    results : Results
    path : str or path-like
        Such as ``"report.html"``.
    **options
        Those of `html_report`.

    Returns
    -------
    pathlib.Path
        The file written.
    """
    target = Path(path)
    target.write_text(html_report(results, **options), encoding="utf-8")
    return target


def _lead(results: Results) -> str:
    model = results.model
    return (
        f"{model.n_individuals} individuals, {results.nobs} observations, "
        f"{results.n_params} estimated parameters. {date.today():%d %B %Y}, "
        f"saem {escape(results.record.version)}."
    )


def _verdict(results: Results) -> str:
    """What stopped the fit, and what a reader must know."""
    warnings = results.warnings()
    good = results.converged and not warnings
    head = "The fit ended as planned" if results.converged else "The fit did NOT converge"
    body = f"<strong>{head}:</strong> {escape(results.reason)}."
    if warnings:
        body += f"<ul>{''.join(f'<li>{escape(w)}</li>' for w in warnings)}</ul>"
    return f'<div class="note {"good" if good else "bad"}">{body}</div>'


def _estimates(results: Results) -> str:
    """Parameter table with headings for readers; empty columns left out."""
    frame = results.to_frame()
    heads = {
        "se": "SE",
        "rse_percent": "RSE %",
        "lower": "95 % from",
        "upper": "to",
        "mc_error": "MC error",
        "shrinkage_percent": "shrinkage %",
    }
    empty = [c for c in frame.columns if frame[c].isna().all() or (frame[c] == "").all()]
    frame = frame.drop(columns=empty).rename(columns=heads)
    return html.frame_table(
        frame, {"RSE %": _percent, "shrinkage %": _percent, "MC error": _two_digits}
    )


def _percent(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.1f}"


def _two_digits(value: float) -> str:
    return html.number(value, 2)


def _legend(results: Results) -> str:
    words = [
        "SE: standard error; RSE: relative to the estimate",
        "intervals: 95 % Wald",
        "MC error: how far another seed may end",
    ]
    if hasattr(results.model, "random_names"):
        words.append("omega2: variance of a random effect, on its Gaussian scale")
    if getattr(results.model, "occasions", None) is not None:
        words.append("gamma2: variance between the occasions of a subject, likewise")
    return f'<p class="small">{"; ".join(words)}.</p>'


def _statistics(results: Results) -> list[tuple[str, Any]]:
    error = results.llf_error
    spread = f" ± {error:.2g}" if error > 0 else ""
    items: list[tuple[str, Any]] = [
        ("Log-likelihood", f"{results.llf:.3f}{spread} ({results.llf_method})"),
        ("−2 log-likelihood", f"{-2 * results.llf:.3f}"),
        ("AIC", f"{results.aic:.3f}"),
        (results._bic_name, f"{results.bic:.3f}"),
        ("Estimated parameters", results.n_params),
    ]
    return items


def _model(model: Any) -> list[str]:
    """The model in words and formula."""
    if not hasattr(model, "structural"):
        items = [("Kind", model.name)]
        for name in ("n_components", "covariance_type", "n_features", "reg_covar"):
            if hasattr(model, name):
                items.append((name.replace("_", " "), getattr(model, name)))
        return [html.facts(items)]
    (structural, parameters), endpoints = model.declared, model.endpoints
    words = (
        "each observation is a prediction <i>f</i> from the parameters of its individual, plus "
        "residual error"
        if endpoints.continuous
        else "each row adds the log-likelihood <i>f</i> of its response given the parameters of "
        "its individual"
    )
    parts = [f"<p>Nonlinear mixed-effects model: {words}.</p>"]
    source = structural.source or f"{structural.qualified_name} (source not available)"
    if "\n" in source.strip():
        parts += [f"<p>Structural model <code>{escape(structural.name)}</code>:</p>"]
        parts += [html.code(source)]
    else:
        columns = ", ".join(structural.columns)
        parts += [
            f"<p>Structural model <code>{escape(structural.name)}</code>, "
            f"columns {escape(columns)}:</p>",
            html.code(f"f = {source}"),
        ]
    rows = []
    for name in structural.param_names:
        p = parameters[name]
        low, high = p.bounds
        kind = _DISTRIBUTIONS.get(type(p).__name__, type(p).__name__)
        if np.isfinite(high):
            kind += f" on ({low:g}, {high:g})"
        effect = f"sd {p.start_omega:g}" if p.random else "none"
        if p.fixed_omega:
            effect += ", fixed"
        start = f"{p.start:g}" + (", fixed" if p.fixed else "")
        rows.append((name, kind, start, effect, p.covariates or "none"))
    parts.append(
        html.table(
            ["parameter", "distribution", "start", "random effect (start)", "covariates"], rows
        )
    )
    facts = [("Covariance of random effects", _pattern(model.omega)), *_errors(endpoints)]
    if model.occasions is not None:
        label, varied = model.occasions.label, ", ".join(model.occasions.sds) or "nothing"
        facts += [
            ("Varies between occasions", f"{varied}; occasions by column {label}"),
            ("Covariance between occasions", _pattern(model.gamma)),
        ]
    parts.append(html.facts(facts))
    return parts


def _pattern(pattern: Any) -> str:
    return pattern if isinstance(pattern, str) else "blocks " + "; ".join(map(", ".join, pattern))


def _errors(endpoints: Any) -> list[tuple[str, str]]:
    """Residual error of each endpoint, with its starting values."""
    found = []
    for e, error in enumerate(endpoints.errors):
        if not error.continuous:
            continue
        mine = [number for number in endpoints.numbers if e in number.users]
        start = ", ".join(f"{n.name} = {endpoints.start[n.place]:g}" for n in mine)
        title = "Residual standard deviation"
        title += f" of {endpoints.label_of(e)}" if endpoints.number > 1 else ""
        found.append((title, f"{error.formula} (start {start})"))
    return found


def _data(model: Any, source: str | None) -> list[str]:
    items: list[tuple[str, Any]] = [("Source", source)] if source else []
    individuals = getattr(model, "individuals", None)
    items.append(("Individuals", model.n_individuals))
    items.append(("Observations", int(model.nobs)))
    if individuals is None:
        return [html.facts(items)]
    n_obs = individuals.n_obs
    items.append(
        (
            "Observations of an individual",
            f"{n_obs.min()} to {n_obs.max()}, median {np.median(n_obs):g}"
            if np.ptp(n_obs)
            else f"{n_obs[0]} each",
        )
    )
    numbers = {"dv": individuals.dv} | dict(individuals.columns)
    if getattr(model, "occasions", None) is not None:
        from saem.nlme._occasion_tables import present

        numbers.pop("occasion")
        each = present(model).sum(axis=1)
        items.append(("Occasions of an individual", f"{each.min()} to {each.max()}"))
    rows = [
        (
            name,
            str(individuals.names.get(name, "constant")),
            float(values.min()),
            float(np.median(values)),
            float(values.max()),
        )
        for name, values in numbers.items()
    ]
    parts = [html.facts(items), html.table(["role", "column", "least", "median", "largest"], rows)]
    subjects = individuals.subjects
    if subjects.shape[1]:
        spans = []
        for name in subjects:
            values = subjects[name]
            if values.dtype.kind in "iuf":
                text = f"{values.min():g} to {values.max():g}, median {values.median():g}"
            else:
                text = ", ".join(f"{k}: {v}" for k, v in values.value_counts().items())
            spans.append((str(name), text))
        parts += ["<h3>Covariates, over individuals</h3>", html.facts(spans)]
    return parts


def _convergence(results: Results) -> list[tuple[str, Any]]:
    record = results.record
    items: list[tuple[str, Any]] = [
        ("Stopped because", record.reason),
        ("Iterations", record.n_iter),
        ("E-step evaluations", f"{record.n_evals} ({results.epochs:.0f} passes over the data)"),
        ("Time", f"{record.seconds:.2f} s"),
    ]
    if record.average_from is not None:
        items.append(("Estimates averaged", f"from iteration {record.average_from + 1} on"))
    for name, value in record.sampler.items():
        if isinstance(value, dict):
            text = ", ".join(f"{k} {html.number(v, 3)}" for k, v in value.items())
            items.append((name.replace("_", " ").capitalize() + " of moves", text))
        else:
            items.append((name.removeprefix("n_").replace("_", " ").capitalize(), value))
    share = (results.mc_error / results.bse).replace([np.inf, -np.inf], np.nan).dropna()
    if results.is_deterministic:
        items.append(("Monte Carlo error", "none: the algorithm draws nothing"))
    elif len(share):
        items.append(
            (
                "Monte Carlo error",
                f"at most {100 * share.max():.2g} % of the standard error ({share.idxmax()})",
            )
        )
    else:
        items.append(("Monte Carlo error", "not known"))
    if record.halvings or record.projections:
        items.append(
            ("Guarded steps", f"{record.halvings} halvings, {record.projections} projections")
        )
    return items


def _individuals(results: Results) -> list[str]:
    if not hasattr(results, "individual"):
        return []
    frame = results.individual("mode")
    rest = len(frame) - _MOST_ROWS
    parts = [
        "<p>Most probable parameters of each individual, given its data.</p>",
        html.frame_table(frame.head(_MOST_ROWS)),
    ]
    if rest > 0:
        parts.append(f'<p class="small">{rest} more stand in individuals.csv.</p>')
    if getattr(results.model, "occasions", None) is not None:
        frame = results.individual("mode", by="occasion")
        shown = frame.head(_MOST_ROWS).reset_index(level=1)
        parts += ["<p>The same on every occasion.</p>", html.frame_table(shown)]
        if len(frame) > _MOST_ROWS:
            more = len(frame) - _MOST_ROWS
            parts.append(f'<p class="small">{more} more stand in occasions.csv.</p>')
    return parts


def _repeat(results: Results, data_code: str | None, command: str | None) -> list[str]:
    record = results.record
    parts = []
    if command:
        parts += ["<p>At a shell:</p>", html.code(command)]
    parts += ["<p>In Python:</p>", html.code(python_code(results, data_code))]
    settings = [(k, str(v)) for k, v in record.settings.items() if k != "kind"]
    versions = {"saem": record.version, "Python": platform.python_version()}
    versions |= {name: version(name) for name in ("numpy", "scipy", "numba", "pandas")}
    parts += [
        "<h3>Settings</h3>",
        html.facts([("algorithm", record.algorithm), ("seed", record.seed), *settings]),
        f'<p class="small">{escape(", ".join(f"{k} {v}" for k, v in versions.items()))}.</p>',
    ]
    return parts
