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
from saem._plots_convergence import band_of
from saem.exceptions import OptionError
from saem.plots import convergence, convergence_table


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


# -- several runs, distances and gaps ------------------------------------------------------


@pytest.fixture(scope="module")
def seeds():
    """Online EM from three seeds, and EM to the maximum, of the same mixture."""
    data = saem.datasets.load("old_faithful")
    init = {
        "weights": [0.5, 0.5],
        "means": [[2.5, 60.0], [4.0, 75.0]],
        "covariances": np.tile(np.cov(data.T) / 2.0, (2, 1, 1)),
    }
    model = saem.models.GaussianMixture(data, 2, init=init)
    options = {"progress": False, "budget": saem.Epochs(10)}
    online = [model.fit("online-em", seed=seed, **options) for seed in (1, 2, 3)]
    return {"online EM": online, "EM": model.fit("em", seed=0, progress=False)}


MEANS = ["means[0,eruptions]", "means[1,eruptions]"]


def test_distance_to_a_reference(seeds):
    options = {"x": "epochs", "y": "distance", "params": MEANS}
    frame = convergence_table(seeds, reference=seeds["EM"], **options)
    assert list(frame.columns) == ["name", "run", "quantity", "x", "y"]
    assert set(frame["quantity"]) == {"distance"}
    assert frame.attrs["x"] == "epochs"
    for name, run in (("EM", 0), ("online EM", 2)):
        fit = seeds["EM"] if name == "EM" else seeds["online EM"][run]
        rows = frame.query("name == @name and run == @run")
        expected = ((fit.trace[MEANS] - seeds["EM"].params[MEANS]) ** 2).sum(axis=1)
        np.testing.assert_allclose(rows["y"], expected, rtol=1e-12)
        assert np.array_equal(rows["x"], fit.trace["epochs"])
    # The same goal in other clothes.
    goal = seeds["EM"].params[MEANS]
    for reference in (goal, dict(goal), goal.to_numpy(), seeds["EM"].params):
        assert frame.equals(convergence_table(seeds, reference=reference, **options))


def test_the_band_of_seeds_is_drawn_as_tabled(seeds):
    options = {"x": "epochs", "y": "distance", "params": MEANS, "reference": seeds["EM"]}
    figure = convergence(seeds, band=(0.0, 1.0), **options)
    axis = figure.axes[0]
    assert axis.get_yscale() == "log"
    assert legend(figure) == ["online EM", "EM"]
    frame = convergence_table(seeds, band=(0.0, 1.0), **options)
    assert list(frame.columns) == ["name", "quantity", "x", "y", "lower", "upper"]
    rows = frame.query("name == 'online EM'")
    drawn = lines(axis)["online EM"]
    assert np.array_equal(drawn.get_xdata(), rows["x"])
    np.testing.assert_allclose(drawn.get_ydata(), rows["y"])
    (shade,) = axis.collections
    corners = shade.get_paths()[0].vertices
    assert corners[:, 1].max() == pytest.approx(rows["upper"].max())
    # Quantiles 0 and 1 of three runs on the same places are the extremes.
    each = convergence_table(seeds, **options).query("name == 'online EM'")
    spread = each.groupby("x")["y"].agg(["min", "median", "max"])
    np.testing.assert_allclose(rows[["lower", "y", "upper"]], spread, rtol=1e-10)


def test_runs_of_different_length_share_a_grid():
    long = np.array([0.0, 1.0, 2.0, 3.0]), np.array([8.0, 4.0, 2.0, 1.0])
    short = np.array([0.0, 2.0]), np.array([4.0, 1.0])
    late = np.array([1.0, 3.0]), np.array([np.nan, 3.0])
    grid, middle, low, high = band_of([long, short], (0.0, 1.0))
    assert np.array_equal(grid, [0, 1, 2, 3])
    # In between by lines; a run that has ended stays at its last value.
    np.testing.assert_allclose(low, [4.0, 2.5, 1.0, 1.0])
    np.testing.assert_allclose(high, [8.0, 4.0, 2.0, 1.0])
    np.testing.assert_allclose(middle, [6.0, 3.25, 1.5, 1.0])
    np.testing.assert_allclose(band_of([long, short], (0.0, 1.0), log_y=True)[2][1], 2.0)
    assert np.array_equal(band_of([long, late], (0.0, 1.0))[0], [3.0])
    assert band_of([(np.zeros(2), np.full(2, np.nan))], (0.0, 1.0))[0].size == 0
    many = np.arange(5000.0), np.arange(5000.0)
    grid, middle, *_ = band_of([many, many], (0.25, 0.75))
    assert grid.size == 400
    assert np.array_equal(grid[[0, -1]], [0.0, 4999.0])
    np.testing.assert_allclose(middle, grid)


def test_gap_to_a_reference_or_to_the_best(seeds):
    best = seeds["EM"].llf
    for reference in (None, best, {"loglik": best}, seeds["EM"]):
        figure = convergence(seeds, x="epochs", y="loglik gap", reference=reference)
        axis = figure.axes[0]
        assert axis.get_yscale() == "log"
        assert "(nats)" in axis.get_title()
        drawn = lines(axis)["EM"].get_ydata()[:-1]
        # The log-likelihood of a row is that of the parameters before its step.
        expected = best - seeds["EM"].trace["loglik"].to_numpy()[1:]
        good = expected > 1e-6
        assert good.sum() > 5
        np.testing.assert_allclose(drawn[good], expected[good], atol=1e-9)
    assert "best of the runs" in convergence(seeds, y="loglik gap").axes[0].get_title()


def test_reference_results_mark_every_panel(seeds):
    figure = convergence(seeds, y=[MEANS[0], "loglik"], reference=seeds["EM"])
    for axis, level in zip(
        figure.axes, (seeds["EM"].params[MEANS[0]], seeds["EM"].llf), strict=True
    ):
        assert lines(axis)["reference"].get_ydata()[0] == level


def test_axes_of_ones_own(seeds):
    own = Figure()
    axes = own.subplots(1, 2)
    figure = convergence(
        seeds, x="iterations", y=["distance", MEANS[0]], reference=seeds["EM"], ax=axes, log="x"
    )
    assert figure is own
    assert [axis.get_xscale() for axis in axes] == ["log", "log"]
    assert [axis.get_yscale() for axis in axes] == ["linear", "linear"]
    assert axes[0].get_xlabel() == "iteration"
    assert axes[0].get_ylabel().startswith("squared distance of 12 parameters")
    assert [t.get_text() for t in axes[0].get_legend().get_texts()] == ["online EM", "EM"]
    with pytest.raises(OptionError, match="1 axes, but 2 quantities"):
        convergence(seeds, y=MEANS, ax=axes[0])


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        ({"y": "distance"}, ["needs a reference value of", "reference= results"]),
        ({"y": "distance", "reference": 1.0}, ["made of several parameters"]),
        ({"y": "distance", "reference": [1.0, 2.0]}, ["2 numbers, but there are 12 parameters"]),
        (
            {"y": ["distance", "los"], "params": ["mean"], "x": "epochs"},
            ["2 problems", "y='los'", "'loglik'", "params='mean'", "There are weights"],
        ),
        ({"y": "loglik", "params": MEANS}, ["which is not drawn"]),
        ({"y": []}, ["y is empty"]),
        ({"band": (0.9, 0.1), "log": "z"}, ["2 problems", "two quantiles", "log='z'"]),
    ],
)
def test_wrong_questions_list_what_there_is(seeds, options, messages):
    with pytest.raises(OptionError) as error:
        convergence(seeds, **options)
    for message in messages:
        assert message in str(error.value)


def test_distance_needs_the_parameters_in_every_fit(seeds, theo_fit):
    with pytest.raises(OptionError, match="'PK' has no means"):
        convergence(
            {"EM": seeds["EM"], "PK": theo_fit}, y="distance", reference=seeds["EM"], params=MEANS
        )
    with pytest.raises(OptionError, match="empty list"):
        convergence({"none": []})


def test_no_text_overlaps_in_comparisons(seeds):
    for options in ({"y": "distance"}, {"y": ["loglik gap", *MEANS]}):
        assert overlapping(convergence(seeds, x="epochs", reference=seeds["EM"], **options)) == []
