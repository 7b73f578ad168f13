"""The HTML report: whole, self-contained, escaped, and enough to repeat the fit."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import saem
from saem import report
from saem._report_code import python_code
from saem._report_page import number, table
from saem.exceptions import BoundaryWarning

VOID = {"meta", "img", "br", "link", "input", "hr"}
ONE_PIXEL = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Collects text and references; fails on tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.references, self.pre = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.references += [v for k, v in attrs if k in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "pre":
            self.pre.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if "pre" in self.open:
            self.pre[-1] += data

    def has(self, text):
        return text in " ".join("".join(self.text).split())


@pytest.fixture(scope="module")
def theo_fit():
    model = saem.NLME(
        saem.datasets.load("theophylline"),
        structural="pk.oral_1cpt",
        parameters={
            "ka": saem.LogNormal(1.0, omega=0.5),
            "V": saem.LogNormal(20.0),
            "CL": saem.LogNormal(0.5, covariates="log(Wt / 70)"),
        },
        omega=[["ka", "CL"], ["V"]],
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )
    return model.fit("saem", seed=5, budget=saem.Iterations(80), progress=False)


def test_report_is_whole(theo_fit, tmp_path):
    pictures = {name: ONE_PIXEL for name in report.CAPTIONS}
    path = report.write_report(
        theo_fit,
        tmp_path / "report.html",
        figures=pictures,
        data_source="theo.csv",
        data_code='saem.datasets.load("theophylline")',
        command="saem fit theo.csv",
    )
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    for words in (
        "NLME pk.oral_1cpt by SAEM",
        "12 individuals, 120 observations",
        "k = CL / V",
        "log-normal",
        "blocks ka, CL; V",
        "Log-likelihood",
        "BICc",
        "all 80 iterations done",
        "Acceptance",
        "Monte Carlo error",
        "saem fit theo.csv",
        "seed",
        "numpy",
    ):
        assert page.has(words), words
    for name in theo_fit.param_names:
        assert page.has(name)
    assert text.count("<figure>") == len(pictures)
    # Nothing from elsewhere: pictures are inside, and there is nothing to follow.
    assert all(reference.startswith("data:image/png") for reference in page.references)
    assert not re.search(r"url\(|@import|<script|http", text)


def test_code_of_the_report_repeats_the_fit(theo_fit):
    code = python_code(theo_fit, 'saem.datasets.load("theophylline")')
    scope = {}
    exec(code.replace("print(fit.summary())", ""), scope)
    pd.testing.assert_series_equal(
        scope["fit"].params, theo_fit.params, check_exact=True, check_names=False
    )


def test_code_for_own_function_and_own_algorithm():
    def line(base, slope, *, age):
        return base + slope * age / 1000

    model = saem.NLME(
        saem.datasets.load("orange"),
        structural=line,
        parameters={"base": saem.Normal(20.0), "slope": saem.Normal(100.0, random=False)},
        error=saem.ProportionalError(0.2),
        columns={"id": "Tree", "dv": "circumference"},
    )
    chains = saem.MonteCarlo(moves=(saem.PriorProposal(2), saem.BlockWalk(1)), n_chains=4)
    algorithm = saem.SAEM(estep=chains, n_exploration=20, n_smoothing=30)
    fit = model.fit(algorithm, seed=2, progress=False)
    code = python_code(fit, 'saem.datasets.load("orange")')
    assert "def line(base, slope, *, age):" in code
    scope = {}
    exec(code.replace("print(fit.summary())", ""), scope)
    pd.testing.assert_series_equal(
        scope["fit"].params, fit.params, check_exact=True, check_names=False
    )
    page = Page(report.html_report(fit, figures={}))
    assert page.has("def line(base, slope, *, age):")
    assert page.has("PriorProposal")


def test_report_of_a_mixture():
    mix = saem.models.GaussianMixture(saem.datasets.load("old_faithful"), n_components=2)
    fit = mix.fit("em", seed=0, progress=False)
    page = Page(report.html_report(fit, figures={}, title="Geyser"))
    assert page.has("Geyser")
    assert page.has("covariance type")
    assert page.has("none: the algorithm draws nothing")
    assert "# the table that was fitted" in python_code(fit)


def test_what_users_write_is_escaped():
    frame = saem.datasets.load("orange").rename(columns={"age": "<b>age</b>"})
    model = saem.NLME(
        frame,
        structural="growth.linear",
        parameters={"base": saem.LogNormal(20.0), "slope": saem.LogNormal(0.1)},
        columns={"id": "Tree", "time": "<b>age</b>", "dv": "circumference"},
    )
    fit = model.fit("saem", seed=1, budget=saem.Iterations(10), progress=False)
    with pytest.warns(BoundaryWarning, match="omega2_base"):  # the trees start alike
        text = report.html_report(
            fit, figures={}, title="<script>1</script>", data_source="<i>x</i>", command="a && b"
        )
    for raw in ("<b>", "<script", "<i>x", "a && b"):
        assert raw not in text
    Page(text)


def test_unknown_errors_are_said_to_be_unknown(theo_fit, monkeypatch):
    monkeypatch.setattr(theo_fit, "mc_error", theo_fit.mc_error * np.nan)
    assert Page(report.html_report(theo_fit, figures={})).has("Monte Carlo errornot known")


def test_fit_without_convergence_says_so():
    mix = saem.models.GaussianMixture(saem.datasets.load("old_faithful"), n_components=3)
    with pytest.warns(saem.ConvergenceWarning):
        fit = mix.fit("em", seed=0, budget=saem.Iterations(3), progress=False)
    text = report.html_report(fit, figures={})
    assert "did NOT converge" in text
    assert 'class="note bad"' in text


def test_only_the_first_individuals_are_shown():
    model = saem.NLME(
        saem.datasets.load("simulated_pk"),
        structural="pk.oral_1cpt",
        parameters={k: saem.LogNormal(v) for k, v in {"ka": 1.0, "V": 20.0, "CL": 2.0}.items()},
        error=saem.ProportionalError(0.3),
    )
    fit = model.fit("saem", seed=1, budget=saem.Iterations(20), progress=False)
    page = Page(report.html_report(fit, figures={}))
    assert page.has("50 more stand in individuals.csv")


@pytest.mark.slow
def test_figures_are_drawn(theo_fit):
    pictures = report.draw_figures(theo_fit, dpi=50)
    assert set(pictures) == set(report.CAPTIONS) - {"components"}
    assert all(png.startswith(ONE_PIXEL) for png in pictures.values())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (1.5, "1.500"),
        (-31.58236, "−31.58"),
        (123456.7, "123457"),
        (1e9, "1.000e+09"),
        (0.00001234, "1.234e−05"),
        (0.01234, "0.01234"),
        (np.nan, "–"),
        (np.inf, "inf"),
        (None, "–"),
        (np.int64(12), "12"),
        (True, "yes"),
        ("<a>", "&lt;a&gt;"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_columns_of_numbers_stand_right():
    html = table(["name", "value"], [("a", 1.0), ("b", "")])
    assert html.count('class="n"') == 3
