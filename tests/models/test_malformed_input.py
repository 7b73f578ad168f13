"""Malformed tables at the front door: a model that works, or an error of the library."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import saem
from saem.exceptions import SaemError, SaemWarning
from saem.models.gaussian_mixture import GaussianMixture
from saem.models.linear_mixed import LinearMixed

SETTINGS = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)

TYPES = ("full", "tied", "diag", "spherical")
CELLS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-3, 3).map(float),
    st.integers(-(2**70), 2**70),
    st.sampled_from([None, "", "a", "1.5", True, 1j, pd.NaT, 1e-320, -0.0]),
)
NICE = st.floats(-10, 10, allow_nan=False).map(lambda x: round(x, 2))


@st.composite
def frames(draw, names, cells=NICE, n=14):
    """Tables that are well formed: n rows of one kind of cells."""
    columns = {name: draw(st.lists(cells, min_size=n, max_size=n)) for name in names}
    return pd.DataFrame(columns, columns=list(names))


@st.composite
def odd_frames(draw, names):
    """Columns that are well formed or spoilt; sometimes a name is missing or doubled."""
    n = draw(st.sampled_from([0, 1, 2, 5, 9, 14, 14, 14]))
    columns = {}
    for name in names:
        cells = draw(st.sampled_from([NICE] * 6 + [st.integers(0, 3)] * 3 + [CELLS]))
        columns[name] = draw(st.lists(cells, min_size=n, max_size=n))
    frame = pd.DataFrame(columns, columns=list(names))
    damage = draw(st.sampled_from(["none"] * 6 + ["drop", "double", "index", "spoil"]))
    if damage == "drop":
        frame = frame.drop(columns=draw(st.sampled_from(names)))
    elif damage == "double":
        frame = pd.concat([frame, frame[[draw(st.sampled_from(names))]]], axis=1)
    elif damage == "index" and n:
        frame.index = [0] * n
    elif damage == "spoil" and n:
        frame = frame.astype(object)
        frame.iloc[draw(st.integers(0, n - 1)), 0] = draw(CELLS)
    return frame


def works(model):
    """One EM step from the start gives finite numbers and names for all of them."""
    theta = model.start(np.random.default_rng(0))
    params = model.params_of(theta)
    assert len(params) == len(model.param_names)
    assert np.all(np.isfinite(params))
    log_lik = model.posterior(theta)[-1]
    assert np.all(np.isfinite(log_lik))


@SETTINGS
@given(
    frame=odd_frames(("a", "b")),
    k=st.sampled_from([1, 2, 2, 2, 3, 3, 4, 5, 0, -1, 2.5, "2", None, True]),
    covariance_type=st.sampled_from([*TYPES, *TYPES, "none", 3]),
    init=st.sampled_from(["kmeans++"] * 4 + ["random"] * 4 + ["other", None, ("x", 1, None)]),
    reg_covar=st.sampled_from([1e-6] * 4 + [1e-2, 0.0, 0.0, -1.0, np.nan, "small"]),
    as_array=st.booleans(),
)
def test_gaussian_mixture(frame, k, covariance_type, init, reg_covar, as_array):
    X = frame.to_numpy() if as_array else frame
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", SaemWarning)
        try:
            model = GaussianMixture(
                X, k, covariance_type=covariance_type, init=init, reg_covar=reg_covar
            )
        except SaemError:
            return
    works(model)


@SETTINGS
@given(
    frame=odd_frames(("y", "x", "g")),
    formula=st.sampled_from(
        ["y ~ x", "y ~ 0 + x", "y ~ 1"] * 3 + ["log(y) ~ x", "y ~ x + w", "~ x", "y ~", 1]
    ),
    groups=st.sampled_from(["g"] * 8 + ["G", None]),
    re_formula=st.sampled_from([None, "~ x", "~ 0 + x"] * 3 + ["~ 0", "~ log(x)", "y ~ x", 2]),
)
def test_linear_mixed(frame, formula, groups, re_formula):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            model = LinearMixed(frame, formula, groups, re_formula)
        except SaemError:
            return
    works(model)


# Models that came later: any table, any options, one constructor each.

ODD = st.sampled_from(
    [
        None,
        0,
        -1,
        2.5,
        "2",
        True,
        "other",
        np.nan,
        np.inf,
        -np.inf,
        [],
        {},
        (1, 2),
        1j,
        b"x",
        object,
        [[1.0, 2.0], [3.0]],
        np.array([1j] * 14),
    ]
)
NUMBERS = st.one_of(NICE, st.integers(0, 4).map(float), CELLS)


def option(*fine, bad=()):
    """Values of an option: those that should work, and with them any others."""
    good = st.sampled_from(fine)
    return good, st.one_of(good, ODD, *([st.sampled_from(bad)] if bad else []))


def numbers(low, high, n=14):
    """Likewise for arrays of numbers in a range."""
    good = st.lists(st.floats(low, high).map(lambda x: round(x, 2)), min_size=n, max_size=n)
    return good, st.one_of(good, st.lists(NUMBERS, max_size=n + 1), ODD)


def classes(n=14):
    """Likewise for responses 0 and 1."""
    good = st.permutations([0, 1] * (n // 2))
    return good, st.one_of(good, st.lists(NUMBERS, max_size=n + 1), ODD)


@st.composite
def starts(draw):
    """Starting values in a dict, most of them wrong."""
    values = [[[1.0, 2.0], [2.0, 1.0]], [1.0, 2.0], [[0.5, 0.5]] * 2, [[np.nan] * 2] * 2, "y", 0]
    names = ["means", "rates", "probabilities", "scales", "shapes", "variances", "df"]
    weights = draw(st.sampled_from([[0.5, 0.5], [0.5], [2, -1], None, "x", [[0.5], [0.5]]]))
    chosen = draw(st.lists(st.sampled_from(names), max_size=3, unique=True))
    return {"weights": weights} | {name: draw(st.sampled_from(values)) for name in chosen}


def init(*names):
    """Likewise for names of starts, and values."""
    good = st.sampled_from(names)
    return good, st.one_of(good, starts(), ODD)


COMPONENTS = option(1, 2, 2, 3)
FLAG = option(True, False)
WEIGHTS = numbers(0.1, 2.0)
COLUMNS = {
    "weights": WEIGHTS,
    "init": init("kmeans++", "random"),
    "alpha": option(1e-9, 1e-3, bad=(1.0,)),
}
FAMILIES = option(
    {"a": "gaussian"}, {"b": "categorical"},
    bad=(
        {("a", "b"): "multinomial"}, {"a": "poisson"}, {"c": "gamma"}, {"a": "bad"}, {3: 3},
        {None: "gaussian"}, {"a": "multinomial"}, {("a", "a"): "multinomial"}, {"A": "gaussian"},
    ),
)  # fmt: skip
COUNTS_OF_ROWS = st.integers(0, 5)
POSITIVE = st.floats(0.1, 9.0).map(lambda x: round(x, 2))
BINARY = st.integers(0, 1)
#: Cells of a well-formed table, options that are needed, and those that are not.
CASES = {
    "PoissonMixture": (COUNTS_OF_ROWS, {"n_components": COMPONENTS}, COLUMNS),
    "BernoulliMixture": (BINARY, {"n_components": option(1, 2)}, COLUMNS),
    "CategoricalMixture": (st.sampled_from("uvw"), {"n_components": COMPONENTS}, COLUMNS),
    "MultinomialMixture": (st.integers(1, 5), {"n_components": COMPONENTS}, COLUMNS),
    "ExponentialMixture": (POSITIVE, {"n_components": COMPONENTS}, COLUMNS),
    "GammaMixture": (POSITIVE, {"n_components": COMPONENTS}, COLUMNS),
    "MixedMixture": (POSITIVE, {"n_components": COMPONENTS}, COLUMNS | {"families": FAMILIES}),
    "StudentMixture": (
        NICE,
        {"n_components": COMPONENTS},
        {
            "weights": WEIGHTS,
            "init": init("kmeans++", "random"),
            "df": option(None, 4.0, bad=([3.0, 5.0], [1.0] * 3)),
            "df_bounds": option((1.0, 200.0), bad=((200.0, 1.0), (1, np.nan), "ab")),
            "reg_covar": option(1e-6, 1e-3, 0.0),
        },
    ),
    "RegressionMixture": (
        NICE,
        {"y": numbers(-5.0, 5.0), "n_components": option(1, 2)},
        COLUMNS
        | {
            "init": init("clusterwise", "random"),
            "intercept": FLAG,
            "common_variance": FLAG,
        },
    ),
    "FactorAnalysis": (
        NICE,
        {"n_factors": option(1, 2)},
        {
            "weights": WEIGHTS,
            "noise_floor": option(1e-6, 0.1, bad=(1.0,)),
            "incomplete": option(None, True, False),
        },
    ),
    "PPCA": (NICE, {"n_factors": option(1, 2)}, {"weights": WEIGHTS}),
    "MultivariateNormal": (NICE, {}, {"weights": WEIGHTS}),
    "HiddenMarkov": (
        BINARY,
        {"n_states": option(1, 2)},
        {
            "lengths": option(
                None, [14], [3, 11], bad=([0, 14], [7, 8], [[7, 7]], ["a"], [7.0, 7.0])
            ),
            "emission": option("gaussian", "gaussian", bad=("categorical",)),
            "covariance_type": option("diag", "full"),
            "n_categories": option(None, 5),
            "reg_covar": option(1e-6, 1e-3),
            "weights": option(None, bad=([1.0], [1.0, 0.0], [0.0])),
            "init": option(None, bad=({"startprob": [0.5, 0.5]}, {"means": "a"})),
        },
    ),
    "PLSA": (
        st.integers(1, 5),
        {"n_topics": option(1, 2)},
        {
            "alpha": option(0.01, 0.0),
            "alpha_documents": option(None, 0.5),
            "vocabulary": option(None, ["u", "v", "w"], bad=("uvw", ["u"])),
            "init": option(None, bad=([[1.0, 0.0, 0.0]] * 2, [[0.2, 0.3, 0.5]] * 2)),
            "weights": WEIGHTS,
        },
    ),
    "LogisticMissing": (
        NICE,
        {"y": classes()},
        {"coefficients": option(None, [0.1, 0.2, 0.3, 0.4], bad=([0.1], [np.inf] * 4))},
    ),
    "VariationalLogistic": (
        NICE,
        {"y": classes()},
        {
            "prior_scale": option(1.0, 2, bad=(1e-300, 1e300)),
            "intercept": FLAG,
            "n_nodes": option(8, 24, bad=(1000,)),
            "weights": WEIGHTS,
        },
    ),
}


def runs(model):
    """One iteration works: finite names and numbers, or an error of the library."""
    theta = model.start(np.random.default_rng(0))
    params = model.params_of(theta)
    assert len(params) == len(model.param_names)
    assert np.all(np.isfinite(params))
    if "expect" not in model.capabilities:
        return  # chains take long
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaemWarning)
        try:
            fit = model.fit(budget=saem.Iterations(1), seed=0, progress=False)
        except SaemError:
            return
    assert np.all(np.isfinite(fit.params))


@pytest.mark.parametrize("name", CASES)
@settings(SETTINGS, max_examples=120)
@given(data=st.data())
def test_any_table_and_options(name, data):
    cells, needed, optional = CASES[name]
    names = ("a", "b", "c")
    spoil = data.draw(st.sampled_from(["nothing", "table", "options", "both"]), label="spoil")
    tables = st.one_of(*[odd_frames(names)] * 9, ODD)
    X = data.draw(tables if spoil in ("table", "both") else frames(names, cells), label="X")
    if isinstance(X, pd.DataFrame) and data.draw(st.booleans(), label="array"):
        X = X.to_numpy()
    which = 1 if spoil in ("options", "both") else 0
    options = data.draw(
        st.fixed_dictionaries(
            {key: values[which] for key, values in needed.items()},
            optional={key: values[which] for key, values in optional.items()},
        ),
        label="options",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", SaemWarning)
        try:
            model = getattr(saem.models, name)(X, **options)
        except SaemError as error:
            check_message(error)
            return
        runs(model)


def check_message(error):
    """Require sentences, without the text of another library's error."""
    message = str(error).rstrip()
    assert message.endswith((".", "]")), message
    assert "Traceback" not in message


@settings(SETTINGS, max_examples=80)
@given(
    frame=odd_frames(("y", "x", "g")),
    formula=st.sampled_from(["y ~ x", "y ~ 0 + x", "y ~ 1", "log(y) ~ x", "~ x", "y ~", 1, None]),
    groups=st.sampled_from(["g", "g", "g", "G", None, 3]),
    re_formula=st.sampled_from([None, None, "~ x", "~ 0 + x", "~ 0", "~ w", 2]),
    covariance=option("full", "diagonal")[1],
    binary=st.sampled_from([True, True, False]),
)
def test_mixed_logistic(frame, formula, groups, re_formula, covariance, binary):
    if binary and "y" in frame and not isinstance(frame["y"], pd.DataFrame):
        frame["y"] = np.arange(len(frame)) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", SaemWarning)
        try:
            model = saem.models.MixedLogistic(
                frame, formula, groups, re_formula, covariance=covariance
            )
        except SaemError as error:
            check_message(error)
            return
    assert np.all(np.isfinite(model.params_of(model.start(np.random.default_rng(0)))))


@settings(SETTINGS, max_examples=80)
@given(
    formula=st.sampled_from(
        [
            "b ~ a",
            "b ~ a + c",
            "b ~ center(a)",
            "b ~ 0",
            "~ a",
            "b ~ d",
            "log(b) ~ a",
            "a + b ~ c",
            1,
        ]
    ),
    frame=st.one_of(frames(("a", "b", "c")), odd_frames(("a", "b", "c"))),
    k=COMPONENTS[1],
    weights=st.one_of(st.none(), WEIGHTS[1]),
)
def test_regression_formula(formula, frame, k, weights):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", SaemWarning)
        try:
            model = saem.models.RegressionMixture.from_formula(formula, frame, k, weights=weights)
        except SaemError as error:
            check_message(error)
            return
        runs(model)


@settings(SETTINGS, max_examples=80)
@given(
    images=st.one_of(
        *[st.integers(0, 3).map(lambda n: np.random.default_rng(n).normal(size=(n, 4, 3)))] * 5,
        st.sampled_from(
            [
                np.full((3, 4, 3), np.nan), np.ones((3, 4, 3)), np.zeros((3, 0, 3)),
                np.eye(3), [["a"]], [[[1, 2], [3]]], np.full((2, 3, 3), np.inf),
            ]
        ),
        ODD,
    ),
    options=st.fixed_dictionaries(
        {},
        optional={
            "landmarks": option(1, 2)[1],
            "deformation_landmarks": option(1)[1],
            "width": option(None, 0.5)[1],
            "deformation_width": option(None, 0.5)[1],
            "covariance": option("shared", "full")[1],
            "ridge": option(0.1, 0.0)[1],
            "prior_scale": option(1.0, 0.5, bad=(1e-300,))[1],
            "prior_weight": option(5.0, 0.0)[1],
        },
    ),
)  # fmt: skip
def test_template(images, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", SaemWarning)
        try:
            model = saem.models.DeformableTemplate(images, **options)
        except SaemError as error:
            check_message(error)
            return
        assert np.all(np.isfinite(model.params_of(model.start(np.random.default_rng(0)))))
