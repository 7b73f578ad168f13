"""What is installed is what the folders hold, and importing it is quick."""

import ast
import importlib
import importlib.util
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import saem

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = {"saem": "saem", "saem.models": "models", "saem.datasets": "data"}
HEAVY = {"formulaic", "matplotlib", "numba", "pandas", "scipy", "statsmodels"}
COMPILERS = {"helper", "intrinsic", "kernel", "njit", "overload", "routine"}


def python(*args, cwd=None):
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, cwd=cwd)


def packages_in_folders():
    for package, folder in FOLDERS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / folder).parts
            yield ".".join((package, *parts))


def test_listed_packages_are_the_folders():
    assert CONFIG["tool"]["setuptools"]["package-dir"] == FOLDERS
    assert sorted(CONFIG["tool"]["setuptools"]["packages"]) == sorted(packages_in_folders())


def decorator_name(node):
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)


def test_only_compiled_functions_go_without_annotations():
    bare = []
    for folder in FOLDERS.values():
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.FunctionDef) or node.returns is not None:
                    continue
                if not COMPILERS & set(map(decorator_name, node.decorator_list)):
                    bare.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert bare == []


def test_version_has_one_source():
    assert saem.__version__ == version("saem")
    if importlib.util.find_spec("saem").origin.startswith(str(ROOT)):
        assert version("saem") == CONFIG["project"]["version"]


@pytest.mark.parametrize(
    ("folder", "package"), [("models", "saem.models"), ("data", "saem.datasets")]
)
def test_mapped_folders_refuse_another_name(folder, package, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    with pytest.raises(ImportError, match=f"this folder is the package {package}"):
        importlib.import_module(folder)


def test_models_load_when_used():
    result = python("-c", "import sys, saem.models; print(*sys.modules)")
    assert result.returncode == 0, result.stderr
    assert not HEAVY & set(result.stdout.split())
    assert set(saem.models.__all__) <= set(dir(saem.models))
    for name in saem.models.__all__:
        assert getattr(saem.models, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Missing'"):
        _ = saem.models.Missing


def test_import_loads_nothing_heavy():
    result = python("-c", "import saem, sys; print(*sys.modules)")
    assert result.returncode == 0, result.stderr
    assert not HEAVY & set(result.stdout.split())


def test_import_is_quick():
    def seconds(code):
        begin = time.perf_counter()
        assert python("-c", code).returncode == 0
        return time.perf_counter() - begin

    seconds("import saem")  # warm the disk
    assert min(seconds("import saem") for _ in range(3)) < 0.5


def test_readme_holds_two_commands():
    spec = importlib.util.spec_from_file_location("readme", ROOT / ".ci" / "readme_commands.py")
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    main_job, tests = readme.commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert "saem demo" in main_job
    assert "pytest" in tests
    for text in ("# saem\n", "## Set up\nnothing\n", "## Set up\n```sh\none\n```\n"):
        with pytest.raises(SystemExit, match="README: "):
            readme.commands(text)


def test_wheel_holds_data_and_type_marker(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="needs the `test` extra")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for folder in FOLDERS.values():
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    # In another process: setuptools works in the current folder, and warns of its own matters.
    code = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    result = python("-c", code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (wheel,) = (tmp_path / "dist").glob("saem-*.whl")
    held = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}

    expected = {"saem/py.typed", "saem/datasets/export.R"}
    expected |= {f"saem/datasets/{name}.csv" for name in saem.datasets.list()["name"]}
    for package, folder in FOLDERS.items():
        for file in (tmp_path / folder).rglob("*.py"):
            inside = file.relative_to(tmp_path / folder).as_posix()
            expected.add(f"{package.replace('.', '/')}/{inside}")
    assert held == expected
