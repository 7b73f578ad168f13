"""The commands ``saem fit`` and ``saem demo``: run, print, write."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import saem
from saem._cold_start import two_compilers
from saem.exceptions import OptionError

if TYPE_CHECKING:
    import argparse

    import pandas as pd

    from saem.nlme.results import NLMEResults

__all__ = ["demo", "fit", "individual_table", "occasion_table", "write_outputs"]

_FIT_FILE = "fit.saem"
_TABLES = ("estimates.csv", "individuals.csv", "trace.csv")
_REPORT = "report.html"
_DEMO_DATA = 'saem.datasets.load("theophylline")'

OK, NOT_CONVERGED = 0, 3


def demo(options: argparse.Namespace) -> int:
    """Fit theophylline by SAEM with seed 1.

    Parameters
    ----------
    options : argparse.Namespace
        Of the command line.

    Returns
    -------
    int
        Exit code.
    """
    out = _prepare(options)
    with two_compilers():
        return _demo(out, options)


def _demo(out: Path | None, options: argparse.Namespace) -> int:
    """Fit, print and write."""
    model = saem.NLME(
        saem.datasets.load("theophylline"),
        structural="pk.oral_1cpt",
        parameters={
            "ka": saem.LogNormal(1.0),
            "V": saem.LogNormal(20.0),
            "CL": saem.LogNormal(0.5, covariates="log(Wt / 70)"),
        },
        error=saem.ConstantError(1.0),
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )
    results = model.fit("saem", seed=1, n_threads=options.threads)
    source = "theophylline, a data set of saem (from R's datasets)"
    return _finish(results, out, options, data_source=source, data_code=_DEMO_DATA)


def fit(options: argparse.Namespace) -> int:
    """Fit a model to a file.

    Parameters
    ----------
    options : argparse.Namespace
        Of the command line.

    Returns
    -------
    int
        Exit code.
    """
    out = _prepare(options)
    with two_compilers():
        return _fit(out, options)


def _fit(out: Path | None, options: argparse.Namespace) -> int:
    """Read, fit, print and write."""
    from saem._cli_read import build_model

    model, data_code = build_model(options)
    budget = saem.Iterations(options.iterations) if options.iterations else None
    results = model.fit(
        options.algorithm, seed=options.seed, budget=budget, n_threads=options.threads
    )
    return _finish(
        results,
        out,
        options,
        data_source=options.file,
        data_code=data_code,
        command=shlex.join(["saem", *options.argv]),
    )


def _prepare(options: argparse.Namespace) -> Path | None:
    """Output folder, made and found writable before anything is computed."""
    if options.out is None:
        return None
    out = Path(options.out)
    if out.exists() and not out.is_dir():
        raise OptionError(f"--out {out} is a file. Remedy: name a folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OptionError(
            f"--out {out} cannot be written: {error.strerror}. Remedy: name a folder where you "
            "may write."
        ) from error
    # A folder with a fit file is ours: a new fit replaces the old one.
    foreign = [name for name in (*_TABLES, _REPORT) if (out / name).exists()]
    if foreign and not (out / _FIT_FILE).exists() and not options.overwrite:
        raise OptionError(
            f"--out {out} holds {', '.join(foreign)}, but no fit of saem. Remedy: another "
            "folder, or --overwrite."
        )
    return out


def _finish(
    results: NLMEResults, out: Path | None, options: argparse.Namespace, **about: Any
) -> int:
    """Print the summary, write the files, say how it ended."""
    print(results.summary())
    if out is not None:
        names = write_outputs(results, out, plots=not options.no_plots, **about)
        print(f"\nWritten to {out}{os.sep}: {', '.join(names)}")
    elif options.command == "demo":
        print("\nTables, figures and a report: saem demo --out DIR")
    if results.converged:
        return OK
    kept = f"; what was reached is in {out}{os.sep}" if out is not None else ""
    print(f"saem {options.command}: not converged: {results.reason}{kept}", file=sys.stderr)
    return NOT_CONVERGED


def write_outputs(
    results: NLMEResults, out: Path, *, plots: bool = True, **about: Any
) -> list[str]:
    """Write tables, fit file, figures and report of a fit into a folder.

    Parameters
    ----------
    results : Results
    out : pathlib.Path
        An existing folder.
    plots : bool
        Whether to draw figures.
    **about
        Options of `saem.report.html_report`.

    Returns
    -------
    list of str
        Names of the files.
    """
    # First what marks the folder as ours, should the rest fail.
    results.save(out / _FIT_FILE)
    results.to_frame().to_csv(out / "estimates.csv")
    individual_table(results).to_csv(out / "individuals.csv")
    results.trace.to_csv(out / "trace.csv", index=False)
    names = [*_TABLES, _FIT_FILE]
    if results.model.occasions is not None:
        occasion_table(results).to_csv(out / "occasions.csv")
        names.append("occasions.csv")
    from saem.report import draw_figures, write_report

    pictures = draw_figures(results) if plots else {}
    for name, png in pictures.items():
        (out / f"{name}.png").write_bytes(png)
        names.append(f"{name}.png")
    write_report(results, out / _REPORT, figures=pictures, **about)
    return [*names, _REPORT]


def individual_table(results: NLMEResults) -> pd.DataFrame:
    """Parameters of each individual: mode, mean and standard deviation, and random effects.

    Parameters
    ----------
    results : Results
        Of an NLME model.

    Returns
    -------
    pandas.DataFrame
        One row per individual; columns such as ``ka_mode``, ``ka_mean``, ``ka_sd`` on
        the natural scale, and ``eta_ka`` at the mode.
    """
    import pandas as pd

    tables = [
        results.individual("mode").add_suffix("_mode"),
        results.individual("mean").add_suffix("_mean"),
        results.individual("sd").add_suffix("_sd"),
        results.random_effects.add_prefix("eta_"),
    ]
    return pd.concat(tables, axis=1)


def occasion_table(results: NLMEResults) -> pd.DataFrame:
    """Parameters of each individual on each occasion: mode, mean, standard deviation, deviations.

    Parameters
    ----------
    results : Results
        Of an NLME model with occasions.

    Returns
    -------
    pandas.DataFrame
        One row per individual and occasion; columns as `individual_table`, and ``kappa_CL`` at
        the mode.
    """
    import pandas as pd

    kinds: tuple[Any, ...] = ("mode", "mean", "sd")
    tables = [results.individual(kind, by="occasion").add_suffix(f"_{kind}") for kind in kinds]
    return pd.concat([*tables, results.occasion_effects.add_prefix("kappa_")], axis=1)
