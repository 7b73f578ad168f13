"""The checks of ``saem doctor``: versions, caches, threads, and a fit with a known answer."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["doctor"]

_PACKAGES = (
    "saem", "numpy", "scipy", "numba", "llvmlite", "pandas", "formulaic", "statsmodels",
    "matplotlib",
)  # fmt: skip


def doctor(say: Callable[[str], Any]) -> bool:
    """Report on the installation and fit a small problem whose exact answer is known.

    Parameters
    ----------
    say : callable
        Takes each line of the report.

    Returns
    -------
    bool
        Whether all is well.
    """
    say(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in _PACKAGES:
        try:
            say(f"  {name:<12} {version(name)}")
        except PackageNotFoundError:
            say(f"  {name:<12} is missing; reinstall saem with pip")
            return False
    threads = _threads()
    say(f"Threads: {threads} usable of {os.cpu_count()} in the machine")
    return _caches(say) & _self_test(say)


def _threads() -> int:
    """Processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _caches(say: Callable[[str], Any]) -> bool:
    """Where compiled functions are kept, and whether they can be."""
    from numba.core import config

    if config.DISABLE_JIT:
        say("Compiler: switched off by NUMBA_DISABLE_JIT; fits are hundreds of times slower")
        return False
    from saem.nlme import _kernels

    cache: Any = getattr(_kernels.log_lik, "_cache", None)
    place = getattr(cache, "cache_path", None)
    folder = Path(place) if place else None
    if folder is None or not _writable(folder):
        say(
            f"Compiler cache: {folder or 'none'} cannot be written; every process compiles anew "
            "(some 20 s). Remedy: set NUMBA_CACHE_DIR to a folder of yours"
        )
        return False
    files = [path for path in folder.glob("*.nb?") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    say(f"Compiler cache: {folder} (writable; {len(files)} files, {size:.1f} MB)")
    return True


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _self_test(say: Callable[[str], Any]) -> bool:
    """Fit straight lines with random base and slope, whose maximum is known in closed form."""
    import saem

    frame, exact = _lines()
    model = saem.NLME(
        frame,
        structural="growth.linear",
        parameters={"base": saem.Normal(8.0, omega=1.0), "slope": saem.Normal(1.5, omega=1.0)},
        columns={"id": "id", "time": "time", "dv": "dv"},
    )
    well = True
    # EM with quadrature is exact for a linear model. For SAEM 0.1 is a fifth of the smallest
    # standard error here, and far above its Monte Carlo error.
    for algorithm, tolerance in (("em", 1e-4), ("saem", 0.1)):
        begin = time.perf_counter()
        fit = model.fit(algorithm, seed=1, progress=False)
        seconds = time.perf_counter() - begin
        found = np.asarray(fit.params, dtype=float)
        worst = float(np.max(np.abs(found - exact)))
        good = worst < tolerance and bool(np.all(np.isfinite(found)))
        say(
            f"Self test, {algorithm}: {'passed' if good else 'FAILED'}; largest distance to the "
            f"exact answer {worst:.1g} (allowed {tolerance:g}), {seconds:.2f} s"
        )
        well &= good
    return well


def _lines() -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Balanced lines, and the maximum-likelihood estimates.

    With times that sum to zero, base and slope of a subject are its mean and
    its least-squares slope, independent of each other; the variance of each is
    that between subjects plus that of the residuals.
    """
    import pandas as pd

    rng = np.random.default_rng(0)
    n, times = 40, np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    base, slope = rng.normal(10, 2, (n, 1)), rng.normal(1, 1, (n, 1))
    y = base + slope * times + rng.normal(0, 0.5, (n, times.size))
    frame = pd.DataFrame(
        {"id": np.repeat(np.arange(n), times.size), "time": np.tile(times, n), "dv": y.ravel()}
    )
    mean, rate = y.mean(axis=1), y @ times / (times @ times)
    rest = y - mean[:, None] - rate[:, None] * times
    sigma2 = float((rest**2).sum()) / (n * (times.size - 2))
    exact = [
        mean.mean(),
        rate.mean(),
        mean.var() - sigma2 / times.size,
        rate.var() - sigma2 / (times @ times),
        np.sqrt(sigma2),
    ]
    return frame, np.array(exact)
