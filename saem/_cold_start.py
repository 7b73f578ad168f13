"""The first fit of an installation: compiling in two processes instead of one.

What a fit compiles depends little on itself: the samplers do not need the model's functions, nor
these the samplers. A second process compiles the one part into the disk cache while this one
compiles the other, and this one waits where it comes to a function of the other's. Whatever
becomes of the second process, the first then finds the functions or compiles them itself.
"""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numba
from numba.core import config

from saem import _jit

__all__ = ["compile_part", "two_compilers"]

#: What the second process compiles: these modules, and these functions that wait to be used.
_MODULES = ("saem.estep.montecarlo", "saem._loop", "saem.inference._importance")
_DEFERRED = (
    ("saem._loop", "sweep"),
    ("saem.inference._pareto", "generalised_pareto_shape"),
)
#: Modules whose functions are the second process's, as seen by the first.
_OTHERS = ("saem.estep.", "saem._loop", "saem.inference._importance", "saem.inference._pareto")


def compile_part() -> None:
    """Compile the second process's part; what it runs."""
    for module in _MODULES:
        importlib.import_module(module)
    for module, name in _DEFERRED:
        _jit.compiled(getattr(importlib.import_module(module), name))


def _marker() -> Path | None:
    """File that tells that this version was compiled here by this Python; None without a cache."""
    folder = _jit.cache_folder()
    if folder is None or config.DISABLE_JIT:
        return None
    versions = f"{sys.version_info.major}.{sys.version_info.minor}-{numba.__version__}"
    return folder / f"compiled-{_jit.sources_digest()}-{versions}-{platform.machine()}"


@contextmanager
def two_compilers() -> Iterator[None]:
    """Share compiling with a second process if nothing is compiled yet and there are two cores."""
    marker = _marker()
    if marker is None or marker.exists() or (os.cpu_count() or 1) < 2 or not sys.executable:
        yield
        return
    command = [sys.executable, "-c", "from saem import _cold_start; _cold_start.compile_part()"]
    quiet = subprocess.DEVNULL
    try:
        other = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
    except OSError:  # no processes here: all is compiled by this one
        yield
        return

    def wait() -> None:
        if other.wait() == 0:
            for old in marker.parent.glob("compiled-*"):
                old.unlink(missing_ok=True)
            marker.touch()

    _jit.wait_for(_OTHERS, wait)
    try:
        yield
    finally:
        _jit.wait_for((), None)
        if other.poll() is None:
            other.kill()
        other.wait()
