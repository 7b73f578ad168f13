"""The front door: every malformed table gets one message, every good one the right answer."""

import datetime as dt
import time

import numpy as np
import pandas as pd
import pytest

from saem import datasets
from saem.exceptions import DataError, ModelError, SaemError, SaemWarning
from saem.nlme.data import read_individuals
from saem.nlme.error_models import ConstantError, ExponentialError, ProportionalError
from saem.nlme.parameters import LogNormal, Normal
from saem.nlme.structural import resolve_structural

ORAL = resolve_structural("pk.oral_1cpt")
PARAMETERS = {"ka": LogNormal(1.0), "V": LogNormal(20.0), "CL": LogNormal(0.5)}
COLUMNS = {"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"}


def theo(**changes):
    return datasets.load("theophylline").assign(**changes)


def cell(row, column, value):
    """Theophylline with one cell changed."""
    frame = theo()
    frame[column] = frame[column].astype(object)
    frame.loc[row, column] = value
    return frame if isinstance(value, (str, type(None))) else frame.infer_objects()


def read(frame, columns=COLUMNS, structural=ORAL, parameters=PARAMETERS, error=None):
    return read_individuals(frame, columns, structural, parameters, error or ConstantError())


def complaint(*args, kind=DataError, **options):
    with pytest.raises(SaemError) as caught:
        read(*args, **options)
    assert type(caught.value) is kind
    return str(caught.value)


def assert_words(text, words):
    for word in words:
        assert word in text, f"{word!r} is not in:\n{text}"


# --- good tables ----------------------------------------------------------------------------


def test_theophylline():
    frame = theo()
    before = frame.copy(deep=True)
    data = read(frame)
    assert data.ids == frame["Subject"].unique().tolist()
    assert data.n_individuals == 12
    np.testing.assert_array_equal(data.n_obs, np.full(12, 10))
    np.testing.assert_array_equal(data.offsets, np.arange(0, 121, 10))
    np.testing.assert_array_equal(data.dv, frame["conc"])
    np.testing.assert_array_equal(data.columns["amt"], frame["Dose"])
    np.testing.assert_array_equal(data.matrix(["amt", "time"])[1], frame["Time"])
    assert data.names == COLUMNS
    assert data.row_text(3) == "row 4 (index 3)"
    data.dv[:] = 0.0
    data.columns["time"][:] = 0.0
    pd.testing.assert_frame_equal(frame, before)


def test_columns_are_found_by_name_case_and_alias():
    frame = theo()
    assert read(frame, columns=None).names == COLUMNS
    assert read(frame.rename(columns={"conc": "DV"}), columns={}).names["dv"] == "DV"
    both = frame.assign(dv=frame["conc"] + 1)
    np.testing.assert_array_equal(read(both, columns=None).dv, frame["conc"] + 1)


def test_rows_are_grouped_with_a_warning():
    frame = theo().sort_values("Time", kind="stable")
    with pytest.warns(SaemWarning, match=r"12 subjects are not together.*row \d+ \(index \d+\)"):
        data = read(frame)
    assert data.ids == frame["Subject"].unique().tolist()
    np.testing.assert_array_equal(data.dv, frame["conc"].to_numpy()[data.source_row])
    assert (np.diff(data.columns["time"]).reshape(-1)[:9] > 0).all()
    assert list(data.row_labels) == list(frame.index[data.source_row])


@pytest.mark.parametrize(
    "ids",
    [
        [f"s{i}" for i in range(12)],
        [dt.date(2020, 1, 1 + i) for i in range(12)],
        [(i, "x") for i in range(12)],
        pd.Categorical(list("lkjihgfedcba")),
        np.arange(12) / 2,
        pd.array(range(12), dtype="Int64"),
    ],
)
def test_ids_of_any_kind(ids):
    values = pd.Series(ids).repeat(10).reset_index(drop=True)
    data = read(theo(Subject=values))
    assert data.ids == list(ids)


@pytest.mark.parametrize("dtype", ["float32", "int64", "Int64", "Float64", "int8"])
def test_numeric_dtypes(dtype):
    frame = theo(conc=np.tile(np.arange(1, 11), 12)).astype({"conc": dtype})
    data = read(frame)
    assert data.dv.dtype == np.float64
    np.testing.assert_array_equal(data.dv, np.tile(np.arange(1, 11), 12))


def test_default_of_a_column_stands_for_it():
    model = resolve_structural(lambda a, *, time, dose=3.0: a * time * dose)
    frame = pd.DataFrame({"id": [1, 1, 2, 2], "time": [1.0, 2, 1, 2], "dv": [1.0, 2, 3, 4]})
    parameters = {"a": Normal(1.0)}
    data = read(frame, None, model, parameters)
    np.testing.assert_array_equal(data.columns["dose"], [3.0] * 4)
    data = read(frame.assign(Dose=[1, 2, 3, 4]), None, model, parameters)
    np.testing.assert_array_equal(data.columns["dose"], [1.0, 2, 3, 4])


def test_time_that_the_model_does_not_use():
    model = resolve_structural(lambda a, *, x: a * x)
    frame = pd.DataFrame({"id": [1, 1, 2], "t": [2.0, 1, 1], "x": [1.0, 1, 2], "dv": [1.0, 2, 3]})
    parameters = {"a": Normal(1.0)}
    assert "time" not in read(frame, None, model, parameters).columns
    text = complaint(frame, {"time": "t"}, model, parameters)
    assert_words(text, ["'t' (time) decreases", "1 after 2", "id 1, row 2 (index 1)"])


def test_one_subject_without_random_effects():
    fixed = {name: LogNormal(1.0, random=False) for name in PARAMETERS}
    assert read(theo().iloc[:10], parameters=fixed).n_individuals == 1


# --- malformed tables -----------------------------------------------------------------------


@pytest.mark.parametrize("frame", [None, [1, 2], {"id": [1]}, np.ones((3, 3)), pd.Series([1.0])])
def test_not_a_frame(frame):
    text = complaint(frame)
    assert_words(text, [type(frame).__name__, "not a pandas DataFrame", "Remedy"])


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (theo().iloc[:0], ["no rows", "5 columns"]),
        (pd.DataFrame(), ["no rows", "column 'Subject'", "not in the data", "no columns"]),
        (theo().rename(columns={"Wt": "conc"}), ["'conc' stands 2 times", "rename or drop"]),
        (theo().rename(columns={"Wt": "Subject"}), ["'Subject' stands 2 times"]),
        (
            theo().rename(columns={"conc": "Conc", "Time": "time"}),
            ["'conc', named for 'dv'", "did you mean 'Conc'", "'Time'", "did you mean 'time'"],
        ),
        (theo().iloc[:10], ["one subject only", "id 1", "'Subject'", "at least 2", "random=False"]),
        (theo(conc=2.0), ["all 120 responses", "are 2", "without variance"]),
        (theo(conc=np.nan), ["subjects without observations", "id 1, 2, 3 and 9 more"]),
        (
            theo(conc=theo().conc.astype(str)),
            ["'conc' (dtype", "'2.84' at id 1, row 1", "to_numeric"],
        ),
        (theo(conc=theo().conc > 3), ["'conc'", "true/false", "bool", "astype(float)"]),
        (theo(conc=theo().conc + 1j), ["'conc'", "complex", "real numbers"]),
        (theo(conc=theo().conc.astype(object)), ["'conc' has dtype object", "astype(float)"]),
        (theo(conc=theo().conc.astype("category")), ["'conc' has dtype category", "astype(float)"]),
        (theo(Time=pd.Timestamp("2020-01-01")), ["'Time'", "dates", "hours or days"]),
        (theo(Time=pd.Timedelta(hours=1)), ["'Time'", "time differences", "Timedelta(hours=1)"]),
        (
            theo(Time=pd.Timestamp("2020-01-01", tz="UTC")),
            ["'Time'", "dates", "datetime64"],
        ),
        (theo(Dose=-1.0), ["'Dose' (amt)", "not be negative", "-1.0 at id 1, row 1", "117 more"]),
        (theo(evid=[1] + [0] * 119), ["'evid'", "1 row as", "1 at id 1, row 1", "event tables"]),
        (theo(MDV=[0.0, 1.0] * 60), ["'MDV'", "60 rows", "event tables are not yet read"]),
        (theo(Subject=[[1]] * 120), ["'Subject'", "cannot be compared", "[1]", "row 1"]),
    ],
)
def test_malformed_tables(frame, words):
    assert_words(complaint(frame), [*words, "Remedy: "])


@pytest.mark.parametrize(
    ("row", "column", "value", "words"),
    [
        (13, "conc", np.nan, ["'conc' (dv) is missing", "dropna(subset=['conc'])"]),
        (13, "conc", np.inf, ["'conc' (dv) must be finite", "inf", "drop the rows"]),
        (13, "conc", "BLQ", ["'conc' (dtype object) must be numbers", "'BLQ'", "to_numeric"]),
        (13, "Time", np.nan, ["'Time' (time) is missing", "drop the rows"]),
        (13, "Time", -np.inf, ["'Time' (time) must be finite", "-inf"]),
        (13, "Time", 0.01, ["decreases within a subject", "0.01 after", "sort_values(['Subject'"]),
        (13, "Dose", np.nan, ["'Dose' (amt) is missing", "dose on every row", "event tables"]),
        (13, "Dose", -5.0, ["'Dose' (amt) must not be negative", "-5.0", "sign"]),
        (13, "Dose", 0.0, ["'Dose' (amt) is 0", "has a dose on other rows", "event tables"]),
    ],
)
def test_malformed_cells(row, column, value, words):
    text = complaint(cell(row, column, value))
    assert_words(text, [*words, "id 2, row 14 (index 13)", "Remedy: "])


def test_dose_rows_of_an_event_table():
    frame = theo()
    doses = frame.groupby("Subject").head(1).assign(Time=0.0, conc=np.nan)
    table = pd.concat([doses, frame.assign(Dose=np.nan)]).sort_values(
        ["Subject", "Time"], kind="stable", ignore_index=True
    )
    text = complaint(table)
    assert_words(
        text, ["if they are dose rows, event tables are not yet read", "'Dose' (amt) is missing"]
    )


def test_missing_id():
    text = complaint(cell(13, "Subject", None))
    assert_words(text, ["id column 'Subject' is missing", "row 14 (index 13)", "drop these rows"])


def test_index_labels_are_named():
    frame = cell(13, "conc", np.inf)
    frame.index = [f"r{i}" for i in range(120)]
    assert "row 14 (index 'r13')" in complaint(frame)
    frame.index = pd.MultiIndex.from_product([range(12), range(10)])
    assert "row 14 (index (1, 3))" in complaint(frame)
    frame.index = [0] * 120
    assert "row 14 (index 0)" in complaint(frame)


def test_subject_without_a_response():
    frame = theo()
    frame.loc[10:19, "conc"] = np.nan
    assert_words(
        complaint(frame),
        ["subjects without observations: id 2", "drop these subjects", "and in 7 more rows"],
    )


def test_level_of_a_categorical_id_without_rows():
    frame = theo(Subject=pd.Categorical(theo().Subject, categories=range(20)))
    with pytest.warns(SaemWarning, match=r"'Subject' has 8 levels without a row, such as 0"):
        assert read(frame).n_individuals == 12


def test_replicates_warn():
    frame = theo()
    twice = pd.concat([frame, frame.iloc[[14]]]).sort_values(["Subject", "Time"], kind="stable")
    with pytest.warns(
        SaemWarning, match=r"^1 row with the .*1 of them with the same dv.*id 2, row 16"
    ):
        assert read(twice).dv.size == 121
    twice["conc"] += np.arange(121) * 1e-3
    with pytest.warns(SaemWarning, match=r"row before; first: .* replicate measurements"):
        read(twice)


def test_more_parameters_than_observations_warns():
    with pytest.warns(SaemWarning, match="4 observations for 7 parameters"):
        read(theo().iloc[[0, 1, 10, 11]])


def test_responses_of_the_exponential_error():
    text = complaint(cell(13, "conc", 0.0), error=ExponentialError())
    assert_words(text, ["'conc' (dv) must be positive", "0.0 at id 2, row 14 (index 13)"])
    assert read(cell(13, "conc", 0.0), error=ProportionalError()).dv[13] == 0.0


# --- column mapping -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "columns", "words"),
    [
        (theo(), {"id": "Subjct"}, ["'Subjct', named for 'id'", "did you mean 'Subject'", "'Wt'"]),
        (theo(), {"idd": "Subject"}, ["columns names 'idd'", "did you mean 'id'"]),
        (theo(), {"evid": "Wt"}, ["columns names 'evid'", "event tables"]),
        (theo(), {"dv": "Time"}, ["'Time' stands for 'dv' and for 'time'"]),
        (theo(), {"dv": "Subject"}, ["'Subject' stands for 'id' and for 'dv'"]),
        (theo(), {"dv": ["conc"]}, ["['conc']", "not in the data"]),
        (theo(), {"dv": 3}, ["column 3, named for 'dv'"]),
        (theo(), "Subject", ["columns is 'Subject'", "not a mapping"]),
        (
            theo(ID=1, Id=2),
            {},
            ["column 'id' may be any of 'ID', 'Id'", "columns={'id': 'ID'}"],
        ),
        (theo(y=1.0), {}, ["column 'dv' may be any of 'conc', 'y'"]),
        (
            theo().rename(columns={"Dose": "Ammt"}),
            None,
            ["column 'amt' is missing (did you mean 'Ammt'?)", "columns={'amt': ...}"],
        ),
    ],
)
def test_column_mapping(frame, columns, words):
    assert_words(complaint(frame, columns=columns), [*words, "Remedy: "])


# --- the model ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameters": None}, ["parameters is None", "not a mapping"]),
        ({"parameters": {}}, ["3 problems", "'ka'", "'V'", "'CL'", "is not given"]),
        (
            {"parameters": {"Ka": LogNormal(1.0), "V": LogNormal(1.0), "CL": LogNormal(1.0)}},
            ["'ka' of structural model 'pk.oral_1cpt' is not given (did you mean 'Ka'?)"],
        ),
        ({"parameters": PARAMETERS | {"CL": 3.0}}, ["'CL' is 3.0", "LogNormal(start)"]),
        ({"parameters": PARAMETERS | {"CL": LogNormal(0)}}, ["'CL': start is 0", "positive"]),
        ({"parameters": PARAMETERS | {1: LogNormal(1)}}, ["parameter 1 is not one of"]),
        ({"error": "constant"}, ["error is 'constant'", "ConstantError"]),
        ({"error": ConstantError(-1)}, ["ConstantError: a is -1", "positive"]),
    ],
)
def test_problems_of_the_model(changes, words):
    text = complaint(theo(), kind=ModelError, **changes)
    assert_words(text, ["with the model", "Remedy: ", *words])


def test_all_problems_in_one_message():
    frame = theo()
    frame.loc[5, "conc"] = np.nan
    frame.loc[7, "conc"] = np.inf
    frame.loc[20, "Wt"] = 3.0
    parameters = {
        "Ka": LogNormal(-1.0),
        "V": Normal(np.nan, omega=-1.0),
        "CL": LogNormal(1.0, covariates="log(Wt / 70) + Hgt"),
    }
    text = complaint(frame, parameters=parameters, error=ProportionalError(0.0))
    assert text.startswith("10 problems with the data and the model:")
    assert_words(text, ["row 6", "row 8", "'Wt' must be constant", "'Hgt'", "'Ka'", "b is 0.0"])
    assert_words(text, [f"\n  {n}. " for n in range(1, 11)])


def test_a_million_rows_quickly():
    n = 1_000_000
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(n // 10), 10),
            "time": np.tile(np.arange(10.0), n // 10),
            "amt": 320.0,
            "dv": np.random.default_rng(0).random(n),
        }
    )
    start = time.process_time()
    assert read(frame, None).n_individuals == n // 10
    assert time.process_time() - start < 2.0
