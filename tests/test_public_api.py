"""Every public name is documented, reachable, and its examples run."""

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

import saem
import saem.datasets
import saem.models


def walk(package):
    """Names of the modules of a package, private ones too."""
    yield package.__name__
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        yield info.name


MODULES = sorted({name for package in (saem, saem.models, saem.datasets) for name in walk(package)})
PUBLIC_MODULES = [
    name for name in MODULES if not any(part.startswith("_") for part in name.split("."))
]


def public_names():
    """Pairs of module and name: what `__all__` of every public module offers."""
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        for name in getattr(module, "__all__", ()):
            yield module_name, name


NAMES = sorted(set(public_names()))


def takes_arguments(function):
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # compiled
        return False
    return any(name not in ("self", "cls") for name in parameters)


def ours(value):
    return (getattr(value, "__module__", None) or "").startswith("saem")


def own_doc(value):
    """Docstring that was written, not inherited nor made by `dataclass`."""
    text = (value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__) or ""
    generated = inspect.isclass(value) and text.startswith(f"{value.__name__}(")
    return "" if generated else inspect.cleandoc(text)


def documented_arguments(value):
    """Whether arguments have a section, here or in the base that defines them."""
    docs = [own_doc(value)]
    if inspect.isclass(value):
        docs += [own_doc(base) for base in value.__mro__[1:] if ours(base)]
    return any(f"{head}\n{'-' * len(head)}" in d for d in docs for head in HEADS)


HEADS = ("Parameters", "Attributes")


@pytest.mark.parametrize("name", sorted(saem.__all__))
def test_names_of_the_package_are_reachable(name):
    assert getattr(saem, name) is not None
    assert name in dir(saem)


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[".".join(pair) for pair in NAMES])
def test_public_names_are_documented(module, name):
    value = getattr(importlib.import_module(module), name)
    if inspect.ismodule(value):
        assert value.__doc__
        return
    if not (inspect.isclass(value) or callable(value)) or not ours(value):
        return  # constants and aliases carry no docstring of their own
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return  # compiled functions and the like
    assert own_doc(value), f"{module}.{name} has no docstring"
    first = own_doc(value).splitlines()[0]
    assert first.endswith((".", "?", ":")) or "``" in first, first
    private = getattr(value, "_is_protocol", False)
    if takes_arguments(value) and not private and not issubclass_of_exception(value):
        assert documented_arguments(value), f"{module}.{name} does not document its arguments"


def issubclass_of_exception(value):
    return inspect.isclass(value) and issubclass(value, BaseException)


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[".".join(pair) for pair in NAMES])
def test_public_methods_are_documented(module, name):
    value = getattr(importlib.import_module(module), name)
    if not inspect.isclass(value) or not ours(value):
        return
    bare = []
    for key, member in vars(value).items():
        if key.startswith("_"):
            continue
        function = member.fget if isinstance(member, property) else member
        function = getattr(function, "func", getattr(function, "__func__", function))
        if inspect.isfunction(function) and not function.__doc__:
            bare.append(f"{value.__qualname__}.{key}")
    assert bare == []


@pytest.mark.parametrize("name", MODULES)
def test_modules_say_what_they_hold(name):
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples may write files
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(
        optionflags=doctest.NORMALIZE_WHITESPACE
        | doctest.ELLIPSIS
        | doctest.IGNORE_EXCEPTION_DETAIL
    )
    with warnings.catch_warnings(), np.printoptions(legacy=False):
        for test in finder.find(module, name):
            runner.run(test)
    assert runner.failures == 0


def test_nothing_heavy_loads_before_it_is_used():
    code = (
        "import sys, saem, saem.datasets, saem.models\n"
        "dir(saem); saem.__all__; saem.datasets.load\n"
        "heavy = {'pandas', 'scipy', 'numba', 'statsmodels', 'formulaic', 'matplotlib'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


def test_a_fit_loads_neither_figures_nor_tables():
    code = (
        "import sys, saem\n"
        "data = saem.datasets.load('orange')\n"
        "model = saem.NLME(data, 'growth.logistic', {'Asym': saem.LogNormal(200),\n"
        "    'xmid': saem.LogNormal(700), 'scal': saem.LogNormal(300)},\n"
        "    columns={'id': 'Tree', 'time': 'age', 'dv': 'circumference'})\n"
        "model.fit('saem', seed=1, budget=saem.Iterations(5)).params\n"
        "heavy = {'statsmodels', 'formulaic', 'matplotlib'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'NLMEE'"):
        _ = saem.NLMEE
