"""Malformed tables at the front door: a model that works, or an error of the library."""

import warnings

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
def frames(draw, names):
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
    frame=frames(("a", "b")),
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
    frame=frames(("y", "x", "g")),
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
