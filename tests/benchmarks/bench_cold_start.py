"""Import, first-ever compilation, and second run of the main job, each in a fresh process.

Run as a script: ``python tests/benchmarks/bench_cold_start.py``. Bars: import below 0.5 s,
the first-ever fit with everything compiled below 30 s, the second run below 3 s of CPU.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time

JOB = """
import saem
model = saem.NLME(
    saem.datasets.load("theophylline"), structural="pk.oral_1cpt",
    parameters={"ka": saem.LogNormal(1.0), "V": saem.LogNormal(20.0), "CL": saem.LogNormal(0.5)},
    columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
)
fit = model.fit("saem", seed=1, progress=False)
fit.bse, fit.mc_error, fit.llf, fit.individual("mode"), str(fit.summary())
"""
DEMO = "import sys; from saem.cli import main; sys.exit(main(['demo', '--out', sys.argv[1]]))"


def run(code: str, cache: str, *arguments: str) -> tuple[float, float]:
    """Wall and CPU seconds of a fresh process."""
    with tempfile.TemporaryDirectory() as folder:  # away from a checkout
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=folder, check=True,
            stdout=subprocess.DEVNULL, env=os.environ | {"NUMBA_CACHE_DIR": cache},
        )  # fmt: skip
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, used


def main() -> None:
    """Print wall and CPU times."""
    with tempfile.TemporaryDirectory() as cache:
        first = run(JOB, cache)
        jobs = [run(JOB, cache) for _ in range(3)]
        imports = [run("import saem", cache) for _ in range(5)]
        nothing = [run("pass", cache) for _ in range(5)]
        out = os.path.join(cache, "out")
        run(DEMO, cache, out)
        demos = [run(DEMO, cache, os.path.join(cache, f"out{j}")) for j in range(3)]
    rows = [
        ("first-ever fit and inference", first, "bar: 30 s wall"),
        ("second run of it", min(jobs), ""),
        ("import saem", min(imports), "bar: 0.5 s wall"),
        ("python alone", min(nothing), ""),
        ("saem demo, second run", min(demos, key=lambda pair: pair[1]), "bar: 3 s CPU"),
    ]
    for name, (wall, used), bar in rows:
        print(f"{name:30} {wall:7.2f} s wall {used:7.2f} s CPU   {bar}")


if __name__ == "__main__":
    main()
