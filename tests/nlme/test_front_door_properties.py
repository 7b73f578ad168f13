"""Property tests of the front door: a right answer, or an error of the library."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saem import datasets
from saem.exceptions import SaemError
from saem.nlme.data import read_individuals
from saem.nlme.error_models import ConstantError
from saem.nlme.parameters import LogNormal
from saem.nlme.structural import resolve_structural

ORAL = resolve_structural("pk.oral_1cpt")
PARAMETERS = {"ka": LogNormal(1.0), "V": LogNormal(20.0), "CL": LogNormal(0.5)}
COLUMNS = {"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"}
THEO = datasets.load("theophylline")


def theo():
    return THEO.copy()


def read(frame, columns=COLUMNS, parameters=PARAMETERS):
    return read_individuals(frame, columns, ORAL, parameters, ConstantError())


NUMBERS = st.floats(-5, 50, width=32).map(lambda x: round(x, 2))
STRANGE = st.sampled_from(
    [np.nan, np.inf, -np.inf, None, "", "1.5", "x", True, 1j, pd.NA, pd.NaT, [1], 10**30, b"1"]
)
CELLS = st.one_of(NUMBERS, NUMBERS, NUMBERS, STRANGE)
IDS = st.one_of(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["a", None, np.nan, 1.5]))
NAMES = st.sampled_from(["id", "ID", "Subject", "time", "T", "dv", "y", "conc", "amt", "dose", "w"])


@st.composite
def tables(draw):
    """Frames from sound to hopeless: strange cells, wrong names, rows in any order."""
    n = draw(st.integers(0, 8))
    clean = draw(st.booleans())
    cells = NUMBERS if clean else CELLS
    ids = st.integers(0, 3) if clean else IDS
    times = sorted(draw(st.lists(st.floats(0, 9), min_size=n, max_size=n)))
    columns = {
        "id": draw(st.lists(ids, min_size=n, max_size=n)),
        "time": times if clean else draw(st.lists(cells, min_size=n, max_size=n)),
        "dv": draw(st.lists(cells, min_size=n, max_size=n)),
        "amt": [5.0] * n if clean else draw(st.lists(cells, min_size=n, max_size=n)),
        "w": draw(st.lists(st.one_of(st.just(1.0), cells), min_size=n, max_size=n)),
    }
    frame = pd.DataFrame(columns, index=draw(st.permutations(range(n))))
    if draw(st.booleans()):
        frame = frame.drop(columns=draw(st.sampled_from(list(columns))))
    if not clean:
        frame = frame.rename(columns=dict(draw(st.lists(st.tuples(NAMES, NAMES), max_size=2))))
    if draw(st.booleans()):
        frame = frame.infer_objects()
    return frame


def assert_remedies(error):
    """Every problem, one a line, comes with its remedy."""
    problems = [line for line in str(error).splitlines()[1:] if line.strip()[0].isdigit()]
    for line in problems or [str(error)]:
        assert "Remedy: " in line, line


def assert_right(frame, data):
    """Check a result against the frame by plain loops."""
    ids = frame[data.names["id"]].tolist()
    assert data.ids == list(dict.fromkeys(ids))
    assert sorted(data.source_row.tolist()) == list(range(len(frame)))
    assert data.n_individuals >= 2
    assert data.offsets[0] == 0
    assert data.offsets[-1] == len(frame)
    for i, (a, b) in enumerate(zip(data.offsets[:-1], data.offsets[1:], strict=True)):
        rows = data.source_row[a:b].tolist()
        assert rows == [r for r, own in enumerate(ids) if own == data.ids[i]]
        assert data.n_obs[i] == len(rows) >= 1
        assert list(data.dv[a:b]) == [frame[data.names["dv"]].iloc[r] for r in rows]
        for name in ("time", "amt"):
            assert list(data.columns[name][a:b]) == [frame[data.names[name]].iloc[r] for r in rows]
        assert (np.diff(data.columns["time"][a:b]) >= 0).all()
    assert np.isfinite([data.dv, data.columns["time"], data.columns["amt"]]).all()
    assert (data.columns["amt"] >= 0).all()
    assert np.ptp(data.dv) > 0
    assert [frame.index[r] for r in data.source_row] == list(data.row_labels)
    assert np.isfinite(data.design.matrix).all()


QUICK = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


@pytest.mark.filterwarnings("ignore::saem.exceptions.SaemWarning")
@QUICK
@given(frame=tables(), formula=st.sampled_from([None, None, "w", "log(w)", "C(w)"]))
def test_right_answer_or_own_error(frame, formula):
    before = frame.copy(deep=True)
    parameters = PARAMETERS | {"V": LogNormal(1.0, covariates=formula)}
    try:
        data = read(frame, None, parameters=parameters)
    except SaemError as error:
        assert_remedies(error)
    else:
        assert_right(frame, data)
        if formula:
            assert data.design.matrix.shape[1] >= 2 or formula == "C(w)"
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.filterwarnings("ignore::saem.exceptions.SaemWarning")
@QUICK
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 119), st.sampled_from(list(COLUMNS.values())), CELLS),
        min_size=1,
        max_size=3,
    )
)
def test_spoilt_cells_are_never_let_through(changes):
    frame = theo().astype(object)
    for row, column, value in changes:
        frame.iloc[row, frame.columns.get_loc(column)] = value
    frame = frame.infer_objects()
    try:
        data = read(frame)
    except SaemError as error:
        assert_remedies(error)
    else:
        assert_right(frame, data)


@pytest.mark.filterwarnings("ignore::saem.exceptions.SaemWarning")
@QUICK
@given(
    columns=st.dictionaries(
        st.sampled_from(["id", "dv", "time", "amt", "evid", "x", 3, None]),
        st.sampled_from(["Subject", "conc", "Time", "Dose", "Wt", "nothing", 7, None, ()]),
        max_size=4,
    )
)
def test_any_mapping(columns):
    frame = theo()
    try:
        data = read(frame, columns=columns)
    except SaemError as error:
        assert_remedies(error)
    else:
        assert_right(frame, data)
        assert data.names | columns == data.names
