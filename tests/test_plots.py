"""Figures show the numbers of the fit, labelled."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

import saem
from saem.exceptions import OptionError
from saem.plots import convergence


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def lines(axis):
    return {line.get_label(): line for line in axis.get_lines()}


def legend(figure):
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


def tick_labels(axis):
    low, high = sorted(axis.get_view_interval())
    return [t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high]


def overlapping(figure):
    """Pairs of drawn texts whose boxes overlap."""
    figure.savefig(io.BytesIO(), dpi=figure.dpi)
    texts = [*figure.texts, *(t for box in figure.legends for t in box.get_texts())]
    for axis in figure.axes:
        texts += [axis.title, axis.xaxis.label, axis.yaxis.label]
        texts += tick_labels(axis.xaxis) + tick_labels(axis.yaxis)
    texts = [t for t in texts if t.get_visible() and t.get_text()]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
    assert len(boxes) > 5
    return [
        (a, b)
        for i, (a, one) in enumerate(boxes)
        for b, two in boxes[:i]
        if one.padded(-1).overlaps(two.padded(-1))
    ]


@pytest.fixture(scope="module")
def mixture_runs(mixture_fit):
    model = mixture_fit.model
    options = {"seed": 0, "budget": saem.Epochs(8), "progress": False}
    return {"EM": mixture_fit, "iEM": model.fit("iem", **options)}


def test_one_panel_per_parameter_with_the_trace(theo_fit):
    figure = theo_fit.plot.convergence()
    assert isinstance(figure, Figure)
    assert titles(figure) == list(theo_fit.params.index)
    drawn = figure.axes[0].get_lines()[0]
    assert np.array_equal(drawn.get_xdata(), theo_fit.trace["iteration"])
    assert np.array_equal(drawn.get_ydata(), theo_fit.trace["ka"])
    assert lines(figure.axes[0])["estimate"].get_ydata()[0] == theo_fit.params["ka"]
    assert {"estimate", "falling steps", "averaged"} <= set(legend(figure))
    assert figure.axes[-1].get_xlabel() == "iteration"


def test_axis_can_be_epochs_or_seconds(theo_fit):
    for x in ("epochs", "seconds"):
        figure = theo_fit.plot.convergence(x=x, y="V")
        assert np.array_equal(figure.axes[0].get_lines()[0].get_xdata(), theo_fit.trace[x])


def test_reference_is_marked(theo_fit):
    figure = theo_fit.plot.convergence(y=["ka", "a"], reference={"ka": 1.5794, "V": 31.6})
    assert lines(figure.axes[0])["reference"].get_ydata()[0] == 1.5794
    assert "reference" not in lines(figure.axes[1])


def test_variances_that_fall_far_are_logarithmic(theo_fit):
    figure = theo_fit.plot.convergence()
    scales = {axis.get_title(): axis.get_yscale() for axis in figure.axes}
    assert scales["omega2_V"] == "log"
    assert scales["ka"] == scales["a"] == "linear"


def test_runs_are_overlaid(mixture_runs):
    figure = convergence(mixture_runs, x="epochs", y="means[0,waiting]")
    assert legend(figure) == ["EM", "iEM"]
    assert figure.axes[0].get_xlabel() == "passes over the data"


def test_log_likelihood_of_every_algorithm(mixture_runs):
    figure = convergence(mixture_runs, x="epochs", y="loglik")
    for label, line in lines(figure.axes[0]).items():
        values = line.get_ydata()
        values = values[np.isfinite(values)]
        assert values.size > 3, label
        assert abs(values[-1] - mixture_runs["EM"].llf) < 1e-3
    gap = convergence(mixture_runs, y="loglik", reference=mixture_runs["EM"].llf)
    assert gap.axes[0].get_yscale() == "log"


def test_log_likelihood_where_it_is_not_known(theo_fit):
    with pytest.raises(OptionError, match="keeps no log-likelihood"):
        convergence(theo_fit, y="loglik")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "time"}, "'iteration', 'epochs', 'seconds'"),
        ({"y": "kaa"}, r"not a parameter.*'ka'"),
        ({"reference": 3.0}, "several parameters"),
    ],
)
def test_wrong_options(theo_fit, options, message):
    with pytest.raises(OptionError, match=message):
        theo_fit.plot.convergence(**options)


def test_wrong_fits():
    with pytest.raises(OptionError, match="empty"):
        convergence({})
    with pytest.raises(OptionError, match="not the results of a fit"):
        convergence({"a": 3})


def test_many_parameters_are_cut_short():
    X = np.random.default_rng(0).normal(size=(80, 6))
    fit = saem.models.GaussianMixture(X, 2, covariance_type="diag").fit(
        "em", seed=0, progress=False
    )
    many = saem.models.GaussianMixture(X, 2).fit("em", seed=0, progress=False)
    assert len(fit.plot.convergence().axes) == 26
    figure = many.plot.convergence()
    assert len(figure.axes) == 30
    assert f"first 30 of {len(many.params)}" in figure.get_suptitle()


def test_individual_fits(theo_fit):
    figure = theo_fit.plot.individual_fits(n=5)
    assert titles(figure) == [f"Subject {i}" for i in range(1, 6)]
    assert figure.axes[-1].get_xlabel() == "Time (h)"
    assert figure.get_supylabel() == "conc (mg/L)"
    assert legend(figure) == ["population", "individual", "observed"]
    theo = saem.datasets.load("theophylline").query("Subject == 2")
    drawn = lines(figure.axes[1])
    assert np.array_equal(drawn["observed"].get_ydata(), theo["conc"])
    at = np.isin(drawn["individual"].get_xdata(), theo["Time"])
    np.testing.assert_allclose(
        drawn["individual"].get_ydata()[at], theo_fit.predict().loc[theo.index], rtol=1e-12
    )
    # The curve is fine, and starts at the dose.
    assert drawn["individual"].get_xdata()[0] == 0
    assert drawn["individual"].get_xdata().size > 100


def test_individuals_by_id(theo_fit):
    assert titles(theo_fit.plot.individual_fits(ids=[12, 3])) == ["Subject 12", "Subject 3"]
    with pytest.raises(OptionError, match="id 77 is not in the data"):
        theo_fit.plot.individual_fits(ids=[77])
    with pytest.raises(OptionError, match="at least 1"):
        theo_fit.plot.individual_fits(n=0)
    assert theo_fit.plot.individual_fits(n=1, log=True).axes[0].get_yscale() == "log"


def test_observed_vs_predicted(theo_fit):
    figure = theo_fit.plot.observed_vs_predicted()
    assert titles(figure) == ["population predictions", "individual predictions"]
    points = figure.axes[1].get_lines()[-1]
    assert np.array_equal(points.get_xdata(), theo_fit.predict())
    assert np.array_equal(points.get_ydata(), theo_fit.residuals()["dv"])
    assert figure.get_supylabel() == "observed conc (mg/L)"
    assert figure.axes[0].get_xlim() == figure.axes[0].get_ylim()
    assert theo_fit.plot.observed_vs_predicted(log=True).axes[0].get_xscale() == "log"


def test_residuals(theo_fit):
    figure = theo_fit.plot.residuals()
    assert len(figure.axes) == 6
    frame = theo_fit.residuals()
    assert np.array_equal(figure.axes[0].get_lines()[-1].get_ydata(), frame["iwres"])
    assert np.array_equal(figure.axes[4].get_lines()[-1].get_xdata(), frame["time"])
    assert np.array_equal(figure.axes[5].get_lines()[-1].get_ydata(), np.sort(frame["cwres"]))


def test_components_in_two_dimensions(mixture_fit):
    figure = mixture_fit.plot.components()
    axis = figure.axes[0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("eruptions", "waiting")
    ellipses = [p for p in axis.patches if isinstance(p, Ellipse)]
    assert len(ellipses) == 4
    # 95 % ellipse of component 0: the semi-axes are roots of the covariance's eigenvalues.
    values = np.linalg.eigvalsh(mixture_fit.covariances[0])
    radius = np.sqrt(-2 * np.log(0.05))
    np.testing.assert_allclose(ellipses[1].width, 2 * radius * np.sqrt(values[1]))
    np.testing.assert_allclose(ellipses[1].center, mixture_fit.means[0])
    assert legend(figure) == ["component 0, weight 0.36", "component 1, weight 0.64"]


@pytest.mark.parametrize("kind", ["tied", "diag", "spherical"])
def test_components_of_other_covariances(kind):
    X = saem.datasets.load("old_faithful")
    model = saem.models.GaussianMixture(X, 2, covariance_type=kind)
    figure = model.fit("em", seed=0, progress=False).plot.components()
    assert len(figure.axes[0].patches) == 4


def test_components_in_one_dimension(mixture_fit):
    figure = mixture_fit.plot.components("waiting")
    drawn = lines(figure.axes[0])
    places, density = drawn["mixture"].get_xdata(), drawn["mixture"].get_ydata()
    area = np.sum(0.5 * (density[1:] + density[:-1]) * np.diff(places))
    assert 0.95 < area < 1.0
    assert figure.axes[0].get_ylabel() == "density"


def test_unknown_feature(mixture_fit):
    with pytest.raises(OptionError, match=r"'waitin'.*'waiting'"):
        mixture_fit.plot.components(["waitin"])
    with pytest.raises(OptionError, match="one or two"):
        mixture_fit.plot.components(["waiting", "waiting"])


def test_no_text_overlaps(theo_fit, mixture_fit):
    for figure in (
        theo_fit.plot.convergence(reference=theo_fit.params),
        theo_fit.plot.individual_fits(),
        theo_fit.plot.observed_vs_predicted(),
        theo_fit.plot.residuals(),
        mixture_fit.plot.convergence(),
        mixture_fit.plot.components(),
        mixture_fit.plot.components("waiting"),
    ):
        assert overlapping(figure) == []


def test_notebooks_show_figures(mixture_fit):
    figure = mixture_fit.plot.components()
    assert figure._repr_html_().startswith('<img src="data:image/png;base64,')
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    assert b"<svg" in buffer.getvalue()


def test_accessor_names_its_figures(theo_fit):
    text = repr(theo_fit.plot)
    for name in ("convergence", "individual_fits", "observed_vs_predicted", "residuals"):
        assert f".{name}()" in text


def test_plotting_leaves_pyplot_and_fitting_leaves_matplotlib_alone():
    code = """
import sys, saem
fit = saem.models.GaussianMixture(saem.datasets.load("old_faithful"), 2).fit("em", seed=0)
fit.params, fit.bse, fit.llf
import saem.plots
heavy = {"matplotlib", "statsmodels", "formulaic", "scipy.stats"} & set(sys.modules)
assert not heavy, heavy
fit.plot.components()
assert "matplotlib.pyplot" not in sys.modules
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
