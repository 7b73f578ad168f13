"""The printed summary: content, loudness, forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import saem
from saem._summary import number
from saem.nlme.results import NLMEResults


class Interrupt(saem.Callback):
    """Press Ctrl-C after some iterations."""

    def __init__(self, after):
        self.after = after

    def step(self, step):
        if step.snapshot.k >= self.after:
            raise KeyboardInterrupt


def test_head_and_table(theo_fit):
    text = str(theo_fit.summary())
    assert "NLME fitted by SAEM" in text
    assert "NOT CONVERGED" not in text
    for part in (
        "pk.oral_1cpt",
        "importance sampling",
        "AIC:",
        "BICc:",
        "Seed:",
        "Epochs:",
        "Ended by: all",
        "saem version:",
        "MC error",
        "shrink. %",
        "[0.025",
        "0.975]",
    ):
        assert part in text  # fmt: skip
    assert f"{-2 * theo_fit.llf:.3f}" in text
    assert number(theo_fit.params["ka"]) in text
    row = next(line for line in text.splitlines() if line.startswith("omega2_V "))
    shown = [float(cell) for cell in row.split()[1:]]
    frame = theo_fit.to_frame().loc["omega2_V"].drop("status").astype(float)
    order = ["estimate", "se", "rse_percent", "lower", "upper", "mc_error", "shrinkage_percent"]
    np.testing.assert_allclose(shown, frame[order], rtol=0.05)


def test_tables_have_one_width(theo_fit, mixture_fit):
    for fit in (theo_fit, mixture_fit):
        lines = str(fit.summary()).splitlines()
        rules = {len(line) for line in lines if line.startswith("===")}
        assert len(rules) == 1
        assert all(len(line) <= rules.copy().pop() for line in lines)


def test_level_of_the_intervals(theo_fit):
    assert "[0.05" in str(theo_fit.summary(alpha=0.1))


def test_html(theo_fit):
    page = theo_fit._repr_html_()
    assert page.count("<table") >= 2
    assert "omega2_CL" in page
    assert theo_fit.summary().as_latex().count("tabular") >= 2


def test_repr_is_short(theo_fit, mixture_fit):
    assert repr(theo_fit) == (
        "<NLMEResults: NLME by saem, 7 parameters, 12 individuals; .summary() shows all>"
    )
    assert "11 parameters" in repr(mixture_fit)


def test_interrupted_fit_is_loud(theo_model):
    with pytest.warns(saem.ConvergenceWarning, match="interrupted"):
        fit = theo_model.fit("saem", seed=1, callbacks=[Interrupt(8)], progress=False)
    text = str(fit.summary())
    assert "*** NOT CONVERGED ***" in text
    assert "interrupted by the user after iteration 8" in text
    assert "ended as planned" not in text
    assert "NOT CONVERGED" in repr(fit)


def test_failed_fit_prints_without_numbers_it_does_not_have(theo_fit, theo_model):
    theta = theo_fit.theta
    theta[theo_model.param_index[0]] = np.nan
    record = replace(theo_fit.record, theta=theta, converged=True)
    text = str(NLMEResults(theo_model, record).summary())
    assert "THE FIT FAILED: the estimates of ka are not finite" in text
    assert "ended as planned" not in text
    assert "-2 log-likelihood" not in text


def test_boundary_variance_is_flagged(theo_fit, theo_model):
    theta = theo_fit.theta
    at = theo_model.param_index[theo_model.param_names.index("omega2_V")]
    values = theo_model.estimation_vector(theta)
    values[theo_model.param_names.index("omega2_V")] = 1e-8
    theta = theo_model.with_estimates(theta, values)
    assert theta[at] == 1e-8
    fit = NLMEResults(theo_model, replace(theo_fit.record, theta=theta))
    text = str(fit.summary())
    row = next(line for line in text.splitlines() if line.startswith("omega2_V "))
    assert row.rstrip().endswith("boundary")
    assert "omega2_V is on a boundary" in text
    assert np.isnan(fit.to_frame().loc["omega2_V", "se"])


def test_fixed_parameters_are_shown_as_fixed(make_theo_model):
    parameters = {
        "ka": saem.LogNormal(1.5, fixed=True),
        "V": saem.LogNormal(30.0),
        "CL": saem.LogNormal(2.5),
    }
    model = make_theo_model(parameters=parameters)
    fit = model.fit("saem", seed=1, budget=saem.Iterations(60), progress=False)
    row = next(line for line in str(fit.summary()).splitlines() if line.startswith("ka "))
    assert row.split() == ["ka", "1.500", "fixed"]


def test_projections_are_told(theo_fit, theo_model):
    record = replace(theo_fit.record, halvings=2, projections=1)
    text = " ".join(NLMEResults(theo_model, record).warnings())
    assert "left its range 3 times" in text
    assert "2 steps halved, 1 projected" in text


def test_deterministic_fit_has_no_monte_carlo_column(mixture_fit):
    assert "MC error  " not in str(mixture_fit.summary()).split("estimate")[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.5794, "1.579"),
        (31.626, "31.63"),
        (123456.0, "123456"),
        (0.00021, "0.0002100"),
        (2e-7, "2.000e-07"),
        (0.0, "0"),
        (np.nan, ""),
        (np.inf, "inf"),
        (-0.5, "-0.5000"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text
