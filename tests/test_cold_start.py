"""The second process of a first fit: when it is started, waited for, and stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core import config

import saem
from saem import _cold_start, _jit

pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled")


class Process:
    """Stand-in for the second process."""

    def __init__(self, code=0):
        self.code, self.ended, self.killed = code, False, False

    def wait(self):
        self.ended = True
        return self.code

    def poll(self):
        return self.code if self.ended else None

    def kill(self):
        self.killed = True


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Processes that were started, with an empty cache and two cores."""
    made = []

    def start(command, **options):
        made.append(Process())
        return made[-1]

    monkeypatch.setattr(_jit, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(subprocess, "Popen", start)
    return made


def compile_something(module):
    """Compile a small function that says it is of that module."""

    def one():
        return 1

    one.__module__ = module
    return _jit.kernel("int64()")(one)()


def test_functions_of_the_other_process_are_waited_for(started, tmp_path):
    (tmp_path / "compiled-by-an-older-version").touch()
    with _cold_start.two_compilers():
        assert len(started) == 1
        assert compile_something("saem.nlme._kernels") == 1
        assert not started[0].ended
        assert compile_something("saem.estep._moves") == 1
        assert started[0].ended
    assert not started[0].killed
    # From now on it is known that all is compiled, and nothing is started.
    assert len(list(tmp_path.glob("compiled-*"))) == 1
    with _cold_start.two_compilers():
        pass
    assert len(started) == 1
    assert compile_something("saem.estep._moves") == 1  # nobody is waited for any more


def test_the_other_process_ends_with_a_fit_that_fails(started, tmp_path):
    with pytest.raises(saem.SaemError), _cold_start.two_compilers():
        raise saem.SaemError("a misspelt column")
    assert started[0].killed
    assert not list(tmp_path.glob("compiled-*"))


def test_a_process_that_fails_leaves_no_mark(started, tmp_path):
    with _cold_start.two_compilers():
        started[0].code = 1
        assert compile_something("saem._loop") == 1
    assert not list(tmp_path.glob("compiled-*"))


@pytest.mark.parametrize("why", ["one core", "no cache", "no processes"])
def test_nothing_is_shared_where_that_cannot_help(started, monkeypatch, why):
    def refuse(command, **options):
        raise OSError("no processes")

    if why == "one core":
        monkeypatch.setattr(os, "cpu_count", lambda: 1)
    elif why == "no cache":
        monkeypatch.setattr(_jit, "cache_folder", lambda: None)
    else:
        monkeypatch.setattr(subprocess, "Popen", refuse)
    with _cold_start.two_compilers():
        assert compile_something("saem._loop") == 1
    assert started == []


def test_the_second_part_compiles_alone_and_nothing_of_the_first():
    root = Path(saem.__path__[0]).parent
    code = (
        "import sys; from saem import _cold_start; _cold_start.compile_part(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    modules = done.stdout.split()
    for prefix in _cold_start._OTHERS:
        assert any(name.startswith(prefix) for name in modules)
    assert "saem.nlme._kernels" not in modules
