"""The command `saem`: exit codes, messages, files."""

import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

import saem
from saem._cli_read import UsageError, pairs, read_table
from saem.cli import main
from saem.exceptions import DataError

FILES = {"estimates.csv", "individuals.csv", "trace.csv", "fit.saem", "report.html"}
FIGURES = {
    "convergence.png",
    "individual_fits.png",
    "observed_vs_predicted.png",
    "residuals.png",
}
COLUMNS = ["--id", "Subject", "--time", "Time", "--dv", "conc", "--dose", "Dose"]
MODEL = ["--model", "pk.oral_1cpt", "--start", "ka=1", "V=20", "CL=2"]


@pytest.fixture(scope="module")
def theo(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "theo.csv"
    saem.datasets.load("theophylline").to_csv(path, index=False)
    return str(path)


def run(*args, **options):
    """The installed command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "import sys; from saem.cli import main; sys.exit(main())", *args],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def code_of(args):
    try:
        return main(args)
    except SystemExit as end:  # argparse leaves this way
        return end.code


def fails(capsys, *args, code):
    """Run in this process; return what it says on standard error."""
    assert code_of(list(args)) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.err.count("\n") < 25
    return captured.err


# -- whole runs ------------------------------------------------------------------


def test_demo_writes_everything(tmp_path):
    out = tmp_path / "new" / "demo"
    result = run("demo", "--out", str(out))
    assert result.returncode == 0, result.stderr
    assert {p.name for p in out.iterdir()} == FILES | FIGURES
    assert "NLME fitted by SAEM" in result.stdout
    assert "beta_CL_log(Wt / 70)" in result.stdout
    assert result.stderr == ""  # no progress where there is no terminal
    for name in FIGURES:
        assert (out / name).read_bytes()[:4] == b"\x89PNG"

    estimates = pd.read_csv(out / "estimates.csv", index_col="parameter")
    again = saem.load(out / "fit.saem")
    assert estimates["estimate"].to_numpy() == pytest.approx(again.params.to_numpy())
    assert {"se", "rse_percent", "lower", "upper", "mc_error"} <= set(estimates.columns)
    individuals = pd.read_csv(out / "individuals.csv")
    assert len(individuals) == 12
    assert {"ka_mode", "ka_mean", "ka_sd", "eta_ka"} <= set(individuals.columns)
    trace = pd.read_csv(out / "trace.csv")
    assert {"iteration", "epochs", "seconds", "ka", "V", "CL"} <= set(trace.columns)
    # The same from Python: same seed, same bits.
    assert again.seed == 1


def test_fit_from_a_file(theo, tmp_path, capsys):
    out = tmp_path / "out"
    args = ["fit", theo, *MODEL, *COLUMNS, "--out", str(out), "--no-plots", "--iterations", "60"]
    assert main([*args, "--seed", "3"]) == 0
    assert {p.name for p in out.iterdir()} == FILES
    first = (out / "estimates.csv").read_bytes()
    assert main([*args, "--seed", "3", "--threads", "2"]) == 0  # our own folder: replaced
    assert (out / "estimates.csv").read_bytes() == first
    assert main([*args, "--seed", "4"]) == 0
    assert (out / "estimates.csv").read_bytes() != first
    assert "saem fit" in (out / "report.html").read_text(encoding="utf-8")
    assert "Written to" in capsys.readouterr().out


def test_options_reach_the_model(theo, tmp_path, capsys):
    out = tmp_path / "out"
    code = main(
        ["fit", theo, *MODEL, *COLUMNS, "--out", str(out), "--no-plots", "--algorithm", "em",
         "--covariate", "CL=log(Wt / 70)", "--error", "proportional", "--omega", "V,CL;ka",
         "--distribution", "ka=logit:0:10", "V=lognormal", "--iterations", "2"]
    )  # fmt: skip
    assert code == 3  # two iterations of EM do not converge
    assert "not converged" in capsys.readouterr().err
    fit = saem.load(out / "fit.saem")
    assert fit.model.parameters["ka"] == saem.LogitNormal(1.0, 0.0, 10.0)
    assert fit.model.parameters["CL"].covariates == "log(Wt / 70)"
    assert fit.model.error == saem.ProportionalError()
    assert "cov_V_CL" in fit.params
    assert not fit.converged


def test_own_function(tmp_path, capsys):
    frame = saem.datasets.load("orange")
    frame.to_csv(tmp_path / "orange.csv", sep=";", index=False)
    (tmp_path / "own.py").write_text(
        "import math\n\n"
        "def grow(top, middle, width, *, age):\n"
        "    return top / (1 + math.exp((middle - age) / width))\n"
    )
    base = ["fit", str(tmp_path / "orange.csv"), "--out", str(tmp_path / "out"), "--no-plots"]
    base += ["--id", "Tree", "--dv", "circumference", "--iterations", "60"]
    base += ["--start", "top=200", "middle=700", "width=300", "--no-random", "middle"]
    base += ["--fixed", "width", "--no-random", "width"]
    model = f"{tmp_path / 'own.py'}:grow"
    assert main([*base, "--model", model, "--column", "age=age"]) == 0
    estimates = pd.read_csv(tmp_path / "out" / "estimates.csv", index_col="parameter")
    assert estimates.loc["width", "status"] == "fixed"
    assert estimates.loc["top", "estimate"] == pytest.approx(180, rel=0.1)
    capsys.readouterr()

    text = fails(capsys, *base, "--model", f"{tmp_path / 'own.py'}:grwo", code=1)
    assert "no function 'grwo'. It has grow" in text
    text = fails(capsys, *base, "--model", f"{tmp_path / 'none.py'}:grow", code=1)
    assert "there is no file" in text
    assert "name the function too" in fails(capsys, *base, "--model", "own.py", code=2)
    (tmp_path / "own.py").write_text("1 / 0\n")
    assert "ZeroDivisionError" in fails(capsys, *base, "--model", model, code=1)


def test_interrupt_keeps_what_is_there(theo, tmp_path):
    out = tmp_path / "out"
    code = (
        "import signal, sys, saem._session as f, saem.cli as c\n"
        # A shell gives jobs in the background an interrupt that is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "old = f._append\n"
        "def append(history, snapshot, params):\n"
        "    old(history, snapshot, params)\n"
        "    if snapshot.k == 20: print('running', flush=True)\n"
        "f._append = append\n"
        "sys.exit(c.main())\n"
    )
    args = ["fit", theo, *MODEL, *COLUMNS, "--out", str(out), "--no-plots"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *args, "--algorithm", "saem", "--iterations", "100000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "running\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 3, stderr
    assert "interrupted by the user after iteration" in stderr
    assert "what was reached is in" in stderr
    assert "NOT CONVERGED" in stdout
    assert {p.name for p in out.iterdir()} == FILES


def test_interrupt_before_results(theo, tmp_path, capsys, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(saem.NLME, "fit", interrupted)
    args = ["fit", theo, *MODEL, *COLUMNS, "--out", str(tmp_path)]
    assert "interrupted" in fails(capsys, *args, code=130)


# -- wrong command lines ---------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--start", "kaa=1"], "did you mean ka?"),
        (["--start", "ka=1", "V=20"], "no starting value for CL"),
        (["--start", "ka"], "write NAME=VALUE"),
        (["--start", "ka=one", "V=20", "CL=2"], "'one' is not a number"),
        (["--start", "ka=1", "ka=2"], "given twice"),
        (["--distribution", "ka=gamma"], "write one of lognormal"),
        (["--distribution", "ka=logit:0"], "write one of lognormal"),
        (["--covariate", "W=Wt"], "'W' is not a parameter"),
        (["--fixed", "W"], "'W' is not a parameter"),
        (["--column", "time=Dose"], "contradicts"),
        (["--algorithm", "seam"], "did you mean saem"),
        (["--iterations", "0"], "the least is 1"),
        (["--seed", "-1"], "-1"),
        (["--threads", "two"], "'two' is not a whole number"),
        (["--error", "additive"], "invalid choice"),
    ],
)
def test_usage_errors(theo, tmp_path, capsys, extra, says):
    start = [] if extra[0] == "--start" else MODEL[2:]
    args = ["fit", theo, *MODEL[:2], *start, *COLUMNS, "--out", str(tmp_path)]
    text = fails(capsys, *args, *extra, code=2)
    assert says in text
    assert "--help" in text


def test_missing_start_lists_parameters_and_an_example(theo, tmp_path, capsys):
    args = ["fit", theo, *MODEL[:2], *COLUMNS, "--out", str(tmp_path)]
    text = fails(capsys, *args, code=2)
    assert "ka, V, CL" in text
    assert "--start ka=... V=... CL=..." in text


def test_no_dose_in_the_model(theo, tmp_path, capsys):
    args = ["fit", theo, "--model", "growth.linear", "--start", "base=1", "slope=1"]
    text = fails(capsys, *args, *COLUMNS, "--out", str(tmp_path), code=2)
    assert "uses no dose" in text


def test_no_command_and_unknown_command(capsys):
    assert main([]) == 2
    assert "examples:" in capsys.readouterr().out
    assert "invalid choice" in fails(capsys, "dmeo", code=2)
    assert "--out needs" in fails(capsys, "datasets", "--out", "x.csv", code=2)


# -- errors of data, model, files ------------------------------------------------


def test_misspelt_column(theo, tmp_path, capsys):
    columns = [c if c != "Subject" else "Subjct" for c in COLUMNS]
    text = fails(capsys, "fit", theo, *MODEL, *columns, "--out", str(tmp_path), code=1)
    assert "Subjct" in text
    assert "Subject" in text


def test_debug_shows_where(theo, tmp_path, capsys):
    args = ["fit", "nowhere.csv", *MODEL, "--out", str(tmp_path)]
    assert main([*args, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_unknown_model_and_bad_start(theo, tmp_path, capsys):
    args = ["fit", theo, *COLUMNS, "--out", str(tmp_path)]
    assert "pk.oral_1cpt" in fails(capsys, *args, "--model", "oral_1cp", code=1)
    start = ["--start", "ka=-1", "V=20", "CL=2"]
    assert "must be positive" in fails(capsys, *args, *MODEL[:2], *start, code=1)
    assert "two blocks" in fails(capsys, *args, *MODEL, "--omega", "ka,V;V", code=1)


def test_output_folder_is_checked_first(theo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(saem.NLME, "fit", None)  # would fail if it came to that
    (tmp_path / "file").write_text("mine")
    args = ["fit", theo, *MODEL, *COLUMNS, "--out"]
    assert "is a file" in fails(capsys, *args, str(tmp_path / "file"), code=1)
    assert "cannot be written" in fails(capsys, *args, str(tmp_path / "file" / "sub"), code=1)
    (tmp_path / "estimates.csv").write_text("mine")
    text = fails(capsys, *args, str(tmp_path), code=1)
    assert "estimates.csv" in text
    assert "--overwrite" in text
    assert (tmp_path / "estimates.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0", "binary"),
        (b"\xff\xfe\x00", "binary"),
        (b"PK\x03\x04rest", "workbook"),
        (b"id,time\n1,2,3\n", "as many fields"),
        (b"id,time\n1,2\n1,2,3\n", "as many fields"),
    ],
)
def test_files_that_are_no_tables(tmp_path, content, says):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_table(str(path))


def test_files_that_are_not_there(tmp_path):
    (tmp_path / "theo.csv").write_text("id\n1\n")
    with pytest.raises(DataError, match=r"there is no file.*Did you mean .*theo\.csv"):
        read_table(str(tmp_path / "theop.csv"))
    with pytest.raises(DataError, match="is a folder"):
        read_table(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        b"id,weight\n1,2.5\n2,.\n",
        b"id;weight\n1;2,5\n2;.\n",
        b"id\tweight\n1\t2.5\n2\t.\n",
        b"id|weight\n1|2.5\n2|.\n",
        b"id  weight\n1   2.5\n2   .\n",
        b"id, weight\n1, 2.5\n2, .\n",
        b'\xef\xbb\xbf"id","weight"\n1,2.5\n2,.\n',
        "id,weight\n1,2.5\n2,.\n".encode("utf-16"),
        b"\nid,weight\r\n1,2.5\r\n2,\r\n",
    ],
)
def test_separators_and_encodings(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    frame, expression = read_table(str(path))
    assert frame.columns.tolist() == ["id", "weight"]
    assert frame["weight"].tolist() == pytest.approx([2.5, float("nan")], nan_ok=True)
    pd.testing.assert_frame_equal(eval(expression, {"pd": pd}), frame)


def test_old_encoding(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes("id,µg\n1,2\n".encode("latin-1"))
    assert read_table(str(path))[0].columns.tolist() == ["id", "µg"]


def test_pairs():
    assert pairs(["a=1", "b = x = 2"], "--start") == {"a": "1", "b": "x = 2"}
    assert pairs(None, "--start") == {}
    with pytest.raises(UsageError, match="--start '=1'"):
        pairs(["=1"], "--start")


# -- the small commands ----------------------------------------------------------


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"saem {saem.__version__}\n"
    for command in ("demo", "fit", "datasets", "models", "doctor"):
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0
        assert "examples:" in capsys.readouterr().out


def test_datasets(tmp_path, capsys):
    assert main(["datasets"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in saem.datasets.list()["name"])
    assert main(["datasets", "simulated_pk"]) == 0
    assert "true " in capsys.readouterr().out
    path = tmp_path / "orange.csv"
    assert main(["datasets", "orange", "--out", str(path)]) == 0
    assert len(pd.read_csv(path)) == 35
    assert "exists" in fails(capsys, "datasets", "orange", "--out", str(path), code=1)
    assert main(["datasets", "orange", "--out", str(path), "--overwrite"]) == 0
    assert "did you mean 'orange'" in fails(capsys, "datasets", "oragne", code=1)
    bad = str(tmp_path / "none" / "orange.csv")
    assert "none" in fails(capsys, "datasets", "orange", "--out", bad, code=1)


def test_models(capsys):
    assert main(["models"]) == 0
    assert "growth.logistic" in capsys.readouterr().out
    assert main(["models", "pk."]) == 0
    assert "growth" not in capsys.readouterr().out
    assert "Did you mean" in fails(capsys, "models", "pk.oral1cpt", code=1)


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert text.count("passed") == 2
    assert "numba" in text
    assert "Compiler cache" in text


def test_reader_that_leaves_is_no_error():
    code = "import sys; from saem.cli import main; sys.exit(main(['datasets', 'simulated_pk']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_occasions_of_the_shell(tmp_path, capsys):
    theo = saem.datasets.load("theophylline")
    late = (theo["Time"] > 4.0).map({False: "early", True: "late"})
    path = tmp_path / "two.csv"
    theo.assign(half=late).to_csv(path, index=False)
    out = tmp_path / "out"
    args = ["fit", str(path), *MODEL, *COLUMNS, "--out", str(out), "--no-plots"]
    code = code_of(
        [*args, "--occasion", "half", "--iov", "CL=0.1", "--algorithm", "saem", "--iterations", "5"]
    )
    assert code in (0, 3)
    table = pd.read_csv(out / "occasions.csv")
    assert list(table.columns[:2]) == ["Subject", "half"]
    assert {"CL_mode", "CL_mean", "CL_sd", "kappa_CL"} <= set(table.columns)
    assert len(table) == 24
    assert "gamma2_CL" in pd.read_csv(out / "estimates.csv")["parameter"].to_list()
    capsys.readouterr()
    assert "--gamma" in fails(capsys, *args, "--gamma", "full", code=2)
    assert "occasion is not given" in fails(capsys, *args, "--iov", "CL", code=1)
    assert "'CX', which is no parameter" in fails(
        capsys, *args, "--occasion", "half", "--iov", "CX", code=1
    )
