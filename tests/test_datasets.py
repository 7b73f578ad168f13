"""The shipped data sets: shapes, attributes, values, and the simulated set's source."""

import hashlib
import io
import subprocess
import sys

import numpy as np
import pytest

from saem import datasets
from saem.datasets.simulate import main as write_simulated
from saem.exceptions import OptionError

# rows, columns, individuals, first 16 digits of the SHA-256 of the frame as CSV
EXPECTED = {
    "theophylline": (120, 5, 12, "e6aaa8e9a73087f8"),
    "orange": (35, 3, 5, "cf007a884804c720"),
    "loblolly": (84, 3, 14, "de3388942b3ae871"),
    "indometh": (66, 3, 6, "fe7cc48c1172cb79"),
    "old_faithful": (272, 2, 272, "35755e109446ec91"),
    "iris": (150, 5, 150, "9cc1c345c71bcc9b"),
    "simulated_pk": (800, 4, 100, "bedf8b50bfb8dc3e"),
}
NAMES = list(EXPECTED)


def as_csv(frame):
    return frame.to_csv(index=False, lineterminator="\n")


def test_list_names_every_set_with_its_size():
    table = datasets.list()
    assert table.columns.tolist() == ["name", "rows", "individuals", "title"]
    assert table["name"].tolist() == NAMES
    assert table["rows"].tolist() == [EXPECTED[n][0] for n in NAMES]
    assert table["individuals"].tolist() == [EXPECTED[n][2] for n in NAMES]
    assert table["title"].str.len().gt(0).all()


@pytest.mark.parametrize("name", NAMES)
def test_values_are_the_exported_ones(name):
    frame = datasets.load(name)
    rows, columns, _, digest = EXPECTED[name]
    assert frame.shape == (rows, columns)
    assert not frame.isna().any(axis=None)
    assert hashlib.sha256(as_csv(frame).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("name", NAMES)
def test_attributes_are_complete(name):
    frame = datasets.load(name)
    attrs = frame.attrs
    assert attrs["name"] == name
    for key in ("title", "description", "source", "licence"):
        assert isinstance(attrs[key], str)
        assert attrs[key].strip()
    for key in ("units", "columns"):
        assert list(attrs[key]) == frame.columns.tolist()
        assert all(attrs[key].values())
    assert ("truth" in attrs) == (name == "simulated_pk")


def test_theophylline_is_the_set_of_the_reference_answers():
    theo = datasets.load("theophylline")
    assert theo.columns.tolist() == ["Subject", "Wt", "Dose", "Time", "conc"]
    assert theo["Subject"].unique().tolist() == list(range(1, 13))
    assert (theo.groupby("Subject").size() == 10).all()
    assert (theo["Time"] > 0).all()
    assert theo.loc[0].tolist() == [1, 79.6, 319.992, 0.25, 2.84]  # 4.02 mg/kg * 79.6 kg
    assert "time 0" in theo.attrs["description"]


@pytest.mark.parametrize(
    ("name", "column", "mean"),
    [
        ("iris", "petal_length", 3.758),
        ("old_faithful", "waiting", 70.897),
        ("orange", "circumference", 115.857),
        ("loblolly", "height", 32.364),
        ("indometh", "conc", 0.5918),
    ],
)
def test_means_are_those_r_gives(name, column, mean):
    assert datasets.load(name)[column].mean() == pytest.approx(mean, abs=5e-4)


def test_each_load_is_a_fresh_copy():
    first = datasets.load("orange")
    first.loc[0, "age"] = -1
    first.attrs["units"]["age"] = "changed"
    second = datasets.load("orange")
    assert second.loc[0, "age"] == 118
    assert second.attrs["units"]["age"] == "day"


@pytest.mark.parametrize("name", ["theophyline", "Theophylline", "theo phylline"])
def test_unknown_name_names_the_nearest(name):
    with pytest.raises(OptionError, match="did you mean 'theophylline'"):
        datasets.load(name)


@pytest.mark.parametrize("name", ["zzz", "", None, 3, ["iris"]])
def test_unknown_name_shows_what_there_is(name):
    with pytest.raises(OptionError, match="available: theophylline, orange"):
        datasets.load(name)


def test_simulated_set_regenerates_bit_for_bit():
    out = io.StringIO()
    write_simulated(out)
    assert out.getvalue() == as_csv(datasets.load("simulated_pk"))


def test_simulated_subjects_do_not_depend_on_their_number():
    few, many = datasets.simulate_pk(3, seed=7), datasets.simulate_pk(50, seed=7)
    assert few.equals(many.iloc[: len(few)])
    assert not few.equals(datasets.simulate_pk(3, seed=8))


def test_simulated_set_has_the_stated_truth():
    # The median over subjects is near the profile of the median parameters.
    frame = datasets.simulate_pk(4000)
    truth = frame.attrs["truth"]
    assert len(frame) == 40_000
    assert (frame["dv"] > 0).all()
    k = truth["CL"] / truth["V"]
    t = frame["time"].to_numpy()[:10]
    f = (320 * truth["ka"] / (truth["V"] * (truth["ka"] - k))) * (
        np.exp(-k * t) - np.exp(-truth["ka"] * t)
    )
    median = np.median(frame["dv"].to_numpy().reshape(-1, 10), axis=0)
    assert median == pytest.approx(f, rel=0.06)


@pytest.mark.parametrize("n_individuals", [0, -1])
def test_simulation_needs_a_subject(n_individuals):
    with pytest.raises(OptionError, match="n_individuals must be at least 1"):
        datasets.simulate_pk(n_individuals)


@pytest.mark.parametrize(
    "times", [(), (0.0, 1.0), (2.0, 1.0), (1.0, 1.0), ((1.0,),), (float("nan"),)]
)
def test_simulation_needs_increasing_times(times):
    with pytest.raises(OptionError, match="times must be increasing"):
        datasets.simulate_pk(2, times=times)


def test_import_is_light():
    code = "import saem.datasets, sys; print(*{'numpy', 'pandas'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []
