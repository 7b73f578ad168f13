"""Saved fits come back with the same bits and answer everything; wrong files say why."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest

import saem
from saem._persist_tables import pack_table, unpack_table
from saem._persist_values import pack_value, unpack_value
from saem.exceptions import DataError, ModelError
from saem.persist import FORMAT_VERSION

# Models are fitted for the sake of saving them, a few iterations long.
pytestmark = pytest.mark.filterwarnings("ignore::saem.exceptions.ConvergenceWarning")


def emax(E0, Emax, *, dose):
    return E0 + Emax * dose / (2.0 + dose)


@pytest.fixture(scope="module")
def dose_response():
    """Text ids, a categorical covariate, an own index, and rows not in order of subjects."""
    rng = np.random.default_rng(5)
    n = 14
    frame = pd.DataFrame({"who": np.repeat([f"p{i}" for i in range(n)], 4)})
    frame["dose"] = np.tile([0.0, 1.0, 3.0, 9.0], n)
    frame["sex"] = pd.Categorical(np.repeat(rng.choice(["F", "M"], n), 4), categories=["M", "F"])
    effect = np.repeat(10 * np.exp(0.3 * rng.standard_normal(n)), 4)
    frame["y"] = 5 + effect * frame["dose"] / (2 + frame["dose"]) + 0.5 * rng.standard_normal(4 * n)
    frame.index = [f"row {i}" for i in range(len(frame))]
    frame.attrs["units"] = {"y": "mm", "dose": "mg"}
    return frame


@pytest.fixture(scope="module")
def user_fit(dose_response):
    model = saem.NLME(
        dose_response,
        emax,
        {"E0": saem.Normal(5.0, random=False), "Emax": saem.LogNormal(8.0, covariates="sex")},
        columns={"id": "who", "dv": "y"},
    )
    return model.fit("saem", seed=3, budget=saem.Iterations(60), progress=False)


def test_same_bits_after_loading(theo_fit, path):
    theo_fit.save(path)
    again = saem.load(path)
    assert type(again) is type(theo_fit)
    assert np.array_equal(again.theta, theo_fit.theta)
    assert np.array_equal(again.model.values, theo_fit.model.values)
    pd.testing.assert_series_equal(again.params, theo_fit.params, check_exact=True)
    pd.testing.assert_series_equal(again.bse, theo_fit.bse, check_exact=True)
    pd.testing.assert_series_equal(again.mc_error, theo_fit.mc_error, check_exact=True)
    pd.testing.assert_frame_equal(again.trace, theo_fit.trace, check_exact=True)
    pd.testing.assert_frame_equal(
        again.individual("mode"), theo_fit.individual("mode"), check_exact=True
    )
    assert again.llf == theo_fit.llf
    assert str(again.summary()) == str(theo_fit.summary())
    assert again.record.settings == theo_fit.record.settings
    assert again.record.sampler == theo_fit.record.sampler
    for name in ("noise", "memories", "s", "theta_start"):
        assert np.array_equal(getattr(again.record, name), getattr(theo_fit.record, name))


def test_same_bits_in_a_fresh_process(theo_fit, path):
    theo_fit.save(path)
    code = (
        f"import saem; fit = saem.load({str(path)!r}); print(fit.llf.hex(), fit.params.sum().hex())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [float(theo_fit.llf).hex(), float(theo_fit.params.sum()).hex()]


def test_same_fit_same_bytes(theo_fit, tmp_path):
    theo_fit.save(tmp_path / "a.saem")
    saem.load(tmp_path / "a.saem").save(tmp_path / "b.saem")
    assert (tmp_path / "a.saem").read_bytes() == (tmp_path / "b.saem").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.saem", "b.saem"]


def test_readable_without_the_library(theo_fit, path):
    theo_fit.save(path)
    with zipfile.ZipFile(path) as archive:
        content = json.loads(archive.read("fit.json"))
        theta = np.load(io.BytesIO(archive.read("arrays/theta.npy")), allow_pickle=False)
        names = set(archive.namelist())
    assert content["format"] == "saem-fit"
    assert content["format_version"] == FORMAT_VERSION
    assert set(content["versions"]) == {"saem", "numpy", "pandas", "python"}
    assert content["model"]["structural"]["name"] == "pk.oral_1cpt"
    assert content["record"]["seed"] == 1
    assert names == {"fit.json"} | {f"arrays/{name}.npy" for name in content["arrays"]}
    assert np.array_equal(theta, theo_fit.theta)


def test_user_function_is_given_again(user_fit, dose_response, path):
    user_fit.save(path)
    again = saem.load(path, structural=emax)
    assert again.model.individuals.ids == [f"p{i}" for i in range(14)]
    assert np.array_equal(again.model.values, user_fit.model.values)
    assert again.params.equals(user_fit.params)
    assert again.model.individuals.design.levels == user_fit.model.individuals.design.levels
    predicted = again.predict()
    pd.testing.assert_series_equal(predicted, user_fit.predict(), check_exact=True)
    pd.testing.assert_index_equal(predicted.index, dose_response.index)
    assert again.model.individuals.subjects.attrs["units"] == {"y": "mm", "dose": "mg"}
    assert again.individual().index.dtype == user_fit.individual().index.dtype


def test_missing_function_shows_its_text(user_fit, path):
    user_fit.save(path)
    with pytest.raises(ModelError, match=r"(?s)load\(path, structural=emax\).*def emax\(E0, Emax"):
        saem.load(path)


def test_function_with_other_parameters_is_refused(user_fit, path):
    def line(a, b, *, dose):
        return a + b * dose

    user_fit.save(path)
    with pytest.raises(ModelError, match="has parameters a, b and columns dose, but the fit used"):
        saem.load(path, structural=line)


def test_function_with_another_text_is_warned_of(user_fit, path):
    user_fit.save(path)

    def emax(E0, Emax, *, dose):
        return E0 - Emax * dose / (2.0 + dose)

    with pytest.warns(saem.SaemWarning, match="another text than the function of the fit"):
        saem.load(path, structural=emax)


def test_saem_goes_on_from_a_loaded_fit(theo_fit, path):
    theo_fit.save(path)
    again = saem.load(path)
    options = {"seed": 2, "budget": saem.Iterations(20), "progress": False}
    one = again.model.fit("saem", start=again.theta, **options)
    other = theo_fit.model.fit("saem", start=theo_fit.theta, **options)
    assert np.array_equal(one.theta, other.theta)


def test_a_model_that_does_not_say_what_it_is_made_of_cannot_be_saved(theo_fit, path):
    class Own(type(theo_fit.model)):
        pass

    other = type(theo_fit)(object.__new__(Own), theo_fit.record)
    with pytest.raises(ModelError, match="type Own cannot be saved: it has no method `persist`"):
        other.save(path)
    assert not path.exists()


def test_a_class_for_a_model_of_the_library_is_refused(mixture_fit, path):
    mixture_fit.save(path)
    with pytest.raises(ModelError, match="holds a GaussianMixture of the library"):
        saem.load(path, model=saem.models.GaussianMixture)


def test_tables_of_many_types():
    rows = pd.MultiIndex.from_arrays([[1, 1, 2], ["a", "b", "a"]], names=["one", None])
    table = pd.DataFrame(
        {
            "text": ["x", "é", ""],
            7: [1, 2, 3],
            ("a", 2): [True, False, True],
            "day": pd.to_datetime(["2020-01-01", "2021-02-03", "2022-03-04"]),
            "mixed": pd.Series([1, "b", np.nan], dtype=object),
            "level": pd.Categorical([3, 1, 3], categories=[3, 2, 1], ordered=True),
            "nullable": pd.array([1, 2, 3], dtype="Int64"),
        }
    )
    table.index = rows
    table.attrs = {"units": {"x": "mg"}, "limit": float("inf"), "missing": None, "n": [1, (2,)]}
    arrays = {}
    description = json.loads(json.dumps(pack_table(table, "t", arrays), allow_nan=False))
    again = unpack_table(description, arrays)
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    assert again.attrs == table.attrs | {"n": [1, [2]]}


def test_values_of_many_types():
    value = {
        "one": [1, 2.5, None, True, "x", float("-inf")],
        "two": (np.arange(4, dtype=np.int32).reshape(2, 2), np.array("é"), np.float64(0.1)),
        "../x": {"a": np.array([np.nan, 1.0]), "$array": np.zeros(0)},
        "float": {("a", "b"): "multinomial", 3: np.array(True)},
        "frame": pd.DataFrame({"x": [1.0, 2.0]}),
        "empty": {},
    }
    arrays = {}
    text = json.dumps(pack_value(value, "model", arrays), allow_nan=False)
    assert not any(".." in name for name in arrays)
    assert len({name.casefold() for name in arrays}) == len(arrays)
    again = unpack_value(json.loads(text), arrays)
    frames = again.pop("frame"), value.pop("frame")
    pd.testing.assert_frame_equal(*frames)
    assert list(again) == list(value)
    assert again["one"] == value["one"]
    assert isinstance(again["two"], tuple)
    assert again["two"][0].dtype == np.int32
    assert repr(again) == repr(unplain_scalars(value))


def unplain_scalars(value):
    """The value as JSON gives it back: numpy scalars are Python's."""
    return {**value, "two": (*value["two"][:2], float(value["two"][2]))}


def test_values_that_a_file_cannot_hold():
    with pytest.raises(DataError, match=r"model/levels/0 holds 1j \(a complex\), which a fit file"):
        pack_value({"levels": [1j]}, "model", {})
    with pytest.raises(DataError, match="which a fit file cannot hold"):
        pack_value(np.array([object()]), "model", {})
    with pytest.raises(DataError, match=r"column 'x' holds \[1\] \(a list\)"):
        pack_table(pd.DataFrame({"x": [[1]]}), "t", {})
    with pytest.raises(DataError, match="is a Timestamp, which a fit file cannot hold"):
        pack_table(pd.DataFrame({pd.Timestamp("2020-01-01"): [1]}), "t", {})


# -- wrong files ---------------------------------------------------------------------


def rewrite(source, target, change):
    """Copy a fit file with its fit.json changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "fit.json":
                parsed = json.loads(content)
                change(parsed)
                content = json.dumps(parsed).encode()
            new.writestr(name, content)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not really"])
def test_no_archive(content, path):
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a fit file: it is no zip archive"):
        saem.load(path)


def test_missing_file(path):
    with pytest.raises(FileNotFoundError):
        saem.load(path)


def test_another_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "text")
    with pytest.raises(DataError, match=r"has no member fit\.json"):
        saem.load(path)


def test_json_of_something_else(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fit.json", '{"format": "other"}')
    with pytest.raises(DataError, match="does not say format 'saem-fit'"):
        saem.load(path)


def test_newer_format(theo_fit, path, tmp_path):
    theo_fit.save(path)
    rewrite(path, tmp_path / "new.saem", lambda c: c.update(format_version=99))
    with pytest.raises(DataError, match=r"format version 99 .*Remedy: upgrade saem"):
        saem.load(tmp_path / "new.saem")


def test_form_of_a_model_that_no_release_wrote(mixture_fit, path, tmp_path):
    mixture_fit.save(path)
    rewrite(path, tmp_path / "old.saem", lambda c: c["model"].pop("state"))
    with pytest.raises(DataError, match="in a form that no release of saem has written"):
        saem.load(tmp_path / "old.saem")


@pytest.mark.parametrize("name", sorted(saem.models.__all__))
def test_missing_parts_of_a_state(name, path, tmp_path):
    model = getattr(saem.models, name).example(np.random.default_rng(1), 60)
    model.fit(budget=saem.Iterations(1), progress=False, seed=0).save(path)
    rewrite(path, tmp_path / "bad.saem", lambda c: c["model"]["state"].popitem())
    with pytest.raises(DataError, match="damaged"):
        saem.load(tmp_path / "bad.saem")


def test_truncated_file(theo_fit, path):
    theo_fit.save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="no zip archive, or cut short"):
        saem.load(path)


def test_flipped_bytes(theo_fit, path):
    theo_fit.save(path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("arrays/theta.npy")
    at = member.header_offset + 30 + len(member.filename) + member.compress_size // 2
    content[at : at + 8] = bytes(b ^ 0xFF for b in content[at : at + 8])
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"damaged|cut short"):
        saem.load(path)


@pytest.mark.parametrize("change", [
    lambda c: c["record"].pop("seed"),
    lambda c: c["model"].update(kind="Other"),
    lambda c: c["model"]["parameters"]["ka"].update({"class": "Unknown"}),
    lambda c: c["arrays"].remove("theta"),
    lambda c: c.pop("model"),
])  # fmt: skip
def test_missing_parts(change, theo_fit, path, tmp_path):
    theo_fit.save(path)
    rewrite(path, tmp_path / "bad.saem", change)
    with pytest.raises(DataError):
        saem.load(tmp_path / "bad.saem")


def test_pickles_are_never_read(theo_fit, path, tmp_path):
    theo_fit.save(path)
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(tmp_path / "bad.saem", "w") as new,
    ):
        for name in old.namelist():
            pickled = name == "arrays/theta.npy"
            new.writestr(name, stream.getvalue() if pickled else old.read(name))
    with pytest.raises(DataError, match=r"damaged.*pickle"):
        saem.load(tmp_path / "bad.saem")


def test_structural_for_a_model_without_one(mixture_fit, path):
    mixture_fit.save(path)
    with pytest.raises(ModelError, match="the file holds a GaussianMixture"):
        saem.load(path, structural=emax)
