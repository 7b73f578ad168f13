"""The README's code runs, and shows what it really prints."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from saem.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
ROOT = Path(__file__).parents[1]


def shown(name):
    """Output between the markers of that name."""
    found = re.search(
        rf"<!-- output:{name} -->\n```text\n(.*?)```\n<!-- /output:{name} -->", README, re.S
    )
    assert found, f"README shows no output {name}"
    return found[1]


def parameter_rows(summary):
    """Cells of the parameter table by parameter and heading."""
    head, table = re.split(r"^-{10,}$", summary, flags=re.M)
    headings = re.split(r"\s{2,}", head.strip().splitlines()[-1].strip())
    rows = {}
    for line in table.splitlines():
        name, *cells = re.split(r"\s{2,}", line.strip())
        if cells:
            rows[name] = dict(zip(headings, map(float, cells), strict=False))
    return rows


@pytest.fixture(scope="module")
def scope():
    """Names after all python blocks of the README ran, in order, as in one session."""
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S):
        exec(compile(block, "README.md", "exec"), names)
    return names


def test_summary_is_the_real_one(scope):
    # On another processor the chains part after some steps: Monte Carlo error is the measure.
    real, printed = str(scope["fit"].summary()), shown("theophylline")
    found, expected = parameter_rows(printed), parameter_rows(real)
    assert list(found) == list(expected) == scope["fit"].param_names
    for name, row in expected.items():
        assert list(found[name]) == list(row)
        error = row["MC error"]
        advice = f"{name}: run docs/make_readme.py"
        assert abs(found[name]["estimate"] - row["estimate"]) < 5 * error, advice
        assert found[name]["s.e."] == pytest.approx(row["s.e."], rel=0.03), advice
        for end in ("[0.025", "0.975]"):
            assert abs(found[name][end] - row[end]) < 0.05 * row["s.e."] + 5 * error, advice
        assert 0.4 * error < found[name]["MC error"] < 2.5 * error, advice
    for line in ("-2 log-likelihood", "AIC", "BICc"):
        first, second = (
            float(re.search(rf"{re.escape(line)}:\s+([\d.]+)", text)[1]) for text in (real, printed)
        )
        assert first == pytest.approx(second, abs=0.1)


def test_comparison_is_the_real_one(scope):
    printed = shown("old_faithful")
    for name, run in scope["runs"].items():
        line = re.search(rf"^{name}\s+log-likelihood ([-\d.]+)", printed, re.M)
        assert line, name
        assert float(line[1]) == pytest.approx(run.llf, abs=0.01)


def test_figures_are_there():
    paths = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert "docs/images/convergence.png" in paths
    for path in paths:
        assert (ROOT / path).read_bytes().startswith(b"\x89PNG")


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_shell_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    section = re.search(r"^## Shell\n.*?```sh\n(.*?)```", README, re.M | re.S)[1]
    for line in section.replace("\\\n", "").splitlines():
        command, *args = shlex.split(line)
        assert command == "saem"
        assert main(args) == 0, capsys.readouterr().err
    assert (tmp_path / "results" / "report.html").exists()


def test_runs_agree_with_each_other(scope):
    values = np.array([run.llf for run in scope["runs"].values()])
    assert np.ptp(values) < 0.1
