"""Cost of a SAEM iteration against that of its exponentials; gain from a second thread.

Run as a script; prints ratios measured in this run. The data are those of the
one-compartment set of 1000 subjects with 10 observations each. The yardstick is
a compiled scalar loop over `math.exp`, two exponentials per prediction.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from numba import njit

import saem
from saem.algorithms import SAEM_MOVES, saem_path
from saem.engine import Run

REPEATS = 15


def thousand_subjects(seed: int = 0) -> saem.NLME:
    """One-compartment data of 1000 subjects, and the model with its far start."""
    data = saem.datasets.simulate_pk(1000, seed=seed)
    return saem.NLME(
        data,
        structural="pk.oral_1cpt",
        parameters={
            "ka": saem.LogNormal(1.0),
            "V": saem.LogNormal(20.0),
            "CL": saem.LogNormal(2.0),
        },
        error=saem.ProportionalError(0.3),
    )


@njit(nogil=True, error_model="numpy")
def exponentials(x, repeats):
    """Sum of exp over x, `repeats` times: the yardstick."""
    total = 0.0
    for _ in range(repeats):
        for j in range(x.size):
            total += math.exp(x[j])
    return total


def best_of(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Shortest wall time of several runs, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def iteration_seconds(model: saem.NLME, n_threads: int, iterations: int = 20) -> float:
    """Seconds of one SAEM iteration after warm-up, Laplace refreshes not included."""
    algorithm = saem.SAEM().combine(model)
    run = Run(model, algorithm, model.start(np.random.default_rng(0)), seed=1, n_threads=n_threads)
    for _ in range(5):
        run.move(run.full_pass(run.k))
        run.k += 1

    def work() -> None:
        for k in range(100, 100 + iterations):
            run.move(run.full_pass(k))

    seconds = best_of(work) / iterations
    run.close()
    return seconds


def main() -> None:
    """Print the ratios."""
    model = thousand_subjects()
    # The moves of every state of a path, and one of the state a visit begins with.
    evaluations = 1 + saem_path(model.n_individuals) * sum(move.sweeps for move in SAEM_MOVES)
    x = -5.0 * np.random.default_rng(0).random(2 * model.nobs)
    exponentials(x, 1)
    yardstick = best_of(lambda: exponentials(x, evaluations))
    one, two = iteration_seconds(model, 1), iteration_seconds(model, 2)
    print(f"SAEM iteration, 1 thread   {one * 1e3:8.2f} ms")
    print(f"its exponentials alone     {yardstick * 1e3:8.2f} ms")
    print(f"ratio                      {one / yardstick:8.2f}")
    print(f"gain from a second thread  {one / two:8.2f}")


if __name__ == "__main__":
    main()
