"""The command `saem`: demo, fit, datasets, models, doctor.

Exit codes: 0 all well; 1 an error of the data, the model or the fit; 2 a wrong command
line; 3 the fit ended without convergence (its results are written all the same); 130
interrupted before there were results.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from saem._cli_read import UsageError
from saem.exceptions import OptionError, SaemError, SaemWarning, nearest

__all__ = ["main"]

OK, ERROR, USAGE, INTERRUPTED = 0, 1, 2, 130

_EXAMPLES = """\
examples:
  saem demo --out demo
  saem datasets theophylline --out theo.csv
  saem fit theo.csv --model pk.oral_1cpt --id Subject --time Time --dv conc --dose Dose \\
      --start ka=1 V=20 CL=2 --seed 1 --out results
  saem COMMAND --help
"""

_DEMO = """\
Fits a one-compartment model to the theophylline data (12 subjects, one oral dose) by SAEM,
clearance depending on body weight, and prints the summary.

examples:
  saem demo
  saem demo --out demo              tables, figures and report.html in demo/
"""

_FIT = """\
Fits a nonlinear mixed-effects model to a table with one observation per row.

FILE is text with a first line of column names, separated by commas, semicolons, tabs or
blanks; "." is a missing value. The dose stands on every row of a subject.

--model is a name from `saem models`, or FILE.py:function. A function predicts one
observation; positional arguments are parameters, keyword-only arguments are columns:

    def emax(E0, Emax, EC50, *, dose):
        return E0 + Emax * dose / (EC50 + dose)

examples:
  saem fit theo.csv --model pk.oral_1cpt --id Subject --time Time --dv conc --dose Dose \\
      --start ka=1 V=20 CL=2 --out results
  saem fit theo.csv --model pk.oral_1cpt --id Subject --time Time --dv conc --dose Dose \\
      --start ka=1 V=20 CL=2 --covariate "CL=log(Wt / 70)" --error combined \\
      --omega "ka;V,CL" --seed 7 --out results
  saem fit pd.csv --model mymodels.py:emax --id subject --dv response --dose dose \\
      --start E0=20 Emax=100 EC50=10 --fixed E0 --no-random E0 --algorithm em --out results
  saem fit crossover.csv --model pk.oral_1cpt --id ID --time TIME --dv DV --dose AMT \
      --start ka=1 V=20 CL=2 --occasion PERIOD --iov CL --out results

exit codes:
  0 fine; 1 an error of the data, the model or the fit; 2 a wrong command line; 3 the fit
  ended without convergence, its results are written; 130 interrupted before any result
"""

_DATASETS = """\
examples:
  saem datasets                     what there is
  saem datasets orange              source, licence, units, first rows
  saem datasets orange --out orange.csv
"""


class _Parser(argparse.ArgumentParser):
    """Shows where help is, instead of the whole usage, when the line is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}\nSee {self.prog} --help.\n")


def _algorithm(text: str) -> str:
    from saem.algorithms import algorithms

    known = algorithms()
    key = text.casefold().replace("_", "-")
    if key not in known:
        near = nearest(key, known)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(known)}{hint}")
    return key


def _whole(least: int, most: float = float("inf")) -> Any:
    """A converter of whole numbers from `least` on."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not allowed; the least is {least}")
        return value

    return convert


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=_whole(1), metavar="N", help="default: all")
    command.add_argument("--no-plots", action="store_true", help="write no figures")
    command.add_argument(
        "--overwrite", action="store_true", help="replace files in DIR that saem did not write"
    )
    command.add_argument("--debug", action="store_true", help="show where an error came from")


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="saem",
        description="Fits latent-variable models by EM and its stochastic relatives.",
        epilog=_EXAMPLES,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    demo = commands.add_parser(
        "demo", help="fit theophylline by SAEM", description=_DEMO, formatter_class=raw
    )
    demo.add_argument("--out", metavar="DIR", help="write tables, figures and a report here")
    _add_run_options(demo)

    fit = commands.add_parser(
        "fit", help="fit a model to a table", description=_FIT, formatter_class=raw
    )
    fit.add_argument("file", metavar="FILE", help="the table")
    fit.add_argument("--out", metavar="DIR", required=True, help="where the results go")
    model = fit.add_argument_group("model")
    model.add_argument("--model", metavar="NAME|FILE.py:function", required=True)
    model.add_argument(
        "--start", nargs="+", action="extend", metavar="PARAM=VALUE", help="typical values"
    )
    model.add_argument(
        "--distribution",
        nargs="+",
        action="extend",
        metavar="PARAM=KIND",
        help="lognormal (default), normal, logit:LOW:HIGH or probit:LOW:HIGH",
    )
    model.add_argument(
        "--covariate",
        nargs="+",
        action="extend",
        metavar="PARAM=FORMULA",
        help='formula over columns constant within subjects, such as "CL=log(Wt / 70)"',
    )
    model.add_argument(
        "--no-random", nargs="+", action="extend", metavar="PARAM", help="same for all subjects"
    )
    model.add_argument(
        "--fixed", nargs="+", action="extend", metavar="PARAM", help="typical value kept at start"
    )
    model.add_argument(
        "--error",
        action="append",
        metavar="KIND",
        help="residual error: constant (default), proportional, combined, combined-variance, "
        "exponential or power; with several endpoints --error ENDPOINT=KIND for each",
    )
    model.add_argument(
        "--omega",
        default="diagonal",
        metavar="PATTERN",
        help='diagonal (default), full, or blocks such as "ka,V;CL"',
    )
    model.add_argument(
        "--occasion", metavar="COLUMN", help="tells the occasions of a subject apart; with --iov"
    )
    model.add_argument(
        "--iov", nargs="+", action="extend", metavar="PARAM[=SD]",
        help="parameters that vary between occasions, with a standard deviation to start from",
    )  # fmt: skip
    model.add_argument(
        "--gamma", default="diagonal", metavar="PATTERN", help="as --omega, between occasions"
    )
    data = fit.add_argument_group("columns", "those left out are found by their usual names")
    for name, meaning in [
        ("id", "subject"),
        ("time", "time"),
        ("dv", "response"),
        ("dose", "dose of the subject"),
        ("dvid", "endpoint of the response, where there are several"),
    ]:
        data.add_argument(f"--{name}", metavar="COLUMN", help=meaning)
    data.add_argument(
        "--column",
        nargs="+",
        action="extend",
        metavar="NAME=COLUMN",
        help="any other column of the model",
    )
    run = fit.add_argument_group("run")
    run.add_argument(
        "--algorithm",
        type=_algorithm,
        help="saem, f-saem, em, ...; by default SAEM, then steps that end at the maximum",
    )
    run.add_argument("--iterations", type=_whole(1), metavar="N")
    run.add_argument(
        "--seed",
        type=_whole(0, 2**64 - 1),
        default=1,
        metavar="N",
        help="the same seed gives the same results (default: %(default)s)",
    )
    _add_run_options(fit)

    datasets = commands.add_parser(
        "datasets",
        help="show or export a data set",
        description="Shows the data sets that come with saem.",
        epilog=_DATASETS,
        formatter_class=raw,
    )
    datasets.add_argument("name", nargs="?", metavar="NAME")
    datasets.add_argument("--out", metavar="FILE.csv", help="write the data set here")
    datasets.add_argument("--overwrite", action="store_true", help="replace an existing file")
    datasets.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)

    models = commands.add_parser(
        "models",
        help="list the structural models of the library",
        description="Lists the structural models that --model knows.",
        epilog="examples:\n  saem models\n  saem models pk\n",
        formatter_class=raw,
    )
    models.add_argument("name", nargs="?", metavar="NAME", help="show those with this in the name")
    models.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)

    doctor = commands.add_parser(
        "doctor",
        help="check the installation",
        description="Shows versions, caches and threads, and fits a small problem whose exact "
        "answer is known.",
        epilog="examples:\n  saem doctor\n",
        formatter_class=raw,
    )
    doctor.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `saem`.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit code; see the head of this module.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    options.argv = list(sys.argv[1:] if argv is None else argv)
    if options.version:
        import saem

        print(f"saem {saem.__version__}")
        return OK
    if options.command is None:
        parser.print_help()
        return USAGE
    command = {
        "demo": _demo,
        "fit": _fit,
        "datasets": _datasets,
        "models": _models,
        "doctor": _doctor,
    }[options.command]
    with warnings.catch_warnings():
        warnings.simplefilter("always", SaemWarning)
        warnings.showwarning = _show_warning
        return _guarded(command, options)


def _guarded(command: Any, options: argparse.Namespace) -> int:
    """Run a command; turn what goes wrong into one message and an exit code."""
    try:
        code = int(command(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader (head, less) has gone: nothing more to say to anybody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (UsageError, SaemError, OSError, KeyboardInterrupt) as error:
        if options.debug:
            import traceback

            traceback.print_exc()
        return _explain(error, options.command)


def _explain(error: BaseException, command: str) -> int:
    """Say what went wrong; return the exit code."""
    if isinstance(error, UsageError):
        _say(f"saem {command}: {error}\nSee saem {command} --help.")
        return USAGE
    if isinstance(error, KeyboardInterrupt):
        _say(f"\nsaem {command}: interrupted")
        return INTERRUPTED
    if isinstance(error, SaemError):
        _say(f"saem {command}: {error}")
        return ERROR
    assert isinstance(error, OSError)
    _say(f"saem {command}: {f'{error.filename}: {error.strerror}' if error.strerror else error}")
    return ERROR


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _show_warning(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    # What other packages warn of is of no use at a shell.
    if issubclass(category, SaemWarning):
        _say(f"saem: warning: {message}")


def _demo(options: argparse.Namespace) -> int:
    from saem._cli_fit import demo

    return demo(options)


def _fit(options: argparse.Namespace) -> int:
    from saem._cli_fit import fit

    return fit(options)


def _doctor(options: argparse.Namespace) -> int:
    from saem._doctor import doctor

    return OK if doctor(print) else ERROR


def _datasets(options: argparse.Namespace) -> int:
    import saem

    if options.name is None:
        if options.out:
            raise UsageError("--out needs the name of a data set")
        for row in saem.datasets.list().itertuples():
            print(
                f"{row.name:<14} {row.rows:>5} rows, {row.individuals:>4} individuals  {row.title}"
            )
        return OK
    frame = saem.datasets.load(options.name)
    if options.out:
        path = Path(options.out)
        if path.exists() and not options.overwrite:
            raise OptionError(f"{path} exists. Remedy: another name, or --overwrite.")
        frame.to_csv(path, index=False)
        print(f"{len(frame)} rows written to {path}")
        return OK
    about = frame.attrs
    print(f"{about['title']} ({about['name']})\n\n{_wrap(about['description'])}\n")
    for column, meaning in about["columns"].items():
        print(f"  {column:<14} {meaning} [{about['units'][column]}]")
    for name, value in about.get("truth", {}).items():
        print(f"  true {name} = {value:g}")
    print(f"\n{_wrap('Source: ' + about['source'])}\nLicence: {about['licence']}\n")
    print(frame.head().to_string(index=False), f"\n... {len(frame)} rows")
    return OK


def _wrap(text: str) -> str:
    from textwrap import fill

    return fill(text, 92)


def _models(options: argparse.Namespace) -> int:
    from saem.nlme.library import list_models

    records = [r for r in list_models() if (options.name or "") in r["name"]]
    if not records:
        near = nearest(options.name, [r["name"] for r in list_models()])
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise OptionError(f"no structural model has {options.name!r} in its name.{hint}")
    for record in records:
        print(f"{record['name']:<18} {record['meaning']}")
        print(f"    parameters {record['parameters']};  columns {record['columns']}")
        print(f"    {record['formula']}")
    return OK
