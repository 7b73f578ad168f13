"""Cost of a SAEM iteration against that of its exponentials; gain from a second thread.

Run as a script; prints ratios measured in this run. The data are those of the
one-compartment set of 1000 subjects with 10 observations each. The yardstick is
a compiled scalar loop over `math.exp`, two exponentials per prediction.

What a second thread can gain depends on the machine: waking it takes some 0.1 ms, and it may
share its core with others. So the same yardstick, divided among two threads as simply as
possible, is measured beside it, for as long as an iteration takes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit

import saem
from saem.algorithms import SAEM_MOVES, saem_path
from saem.engine import Run

REPEATS = 15
ROUNDS = 3


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


def best_of(work: Callable[[], object], repeats: int = REPEATS, clock: Any = None) -> float:
    """Shortest wall time of several runs, in seconds, or that of another clock."""
    clock = clock or time.perf_counter
    times = []
    for _ in range(repeats):
        start = clock()
        work()
        times.append(clock() - start)
    return min(times)


def machine_gain(x: np.ndarray, repeats: int) -> float:
    """Gain of the yardstick itself from a second thread: one half each, nothing shared."""
    half = x.size // 2
    with ThreadPoolExecutor(1) as pool:

        def both() -> None:
            other = pool.submit(exponentials, x[half:], repeats)
            exponentials(x[:half], repeats)
            other.result()

        return best_of(lambda: exponentials(x, repeats)) / best_of(both)


def iteration_seconds(
    model: saem.NLME, n_threads: int, clock: Any = None, iterations: int = 5
) -> float:
    """Seconds of one SAEM iteration after warm-up, Laplace refreshes not included."""
    algorithm = saem.SAEM().combine(model)
    run = Run(model, algorithm, model.start(np.random.default_rng(0)), seed=1, n_threads=n_threads)
    for _ in range(5):
        run.move(run.full_pass(run.k))
        run.k += 1

    def work() -> None:
        for k in range(100, 100 + iterations):
            run.move(run.full_pass(k))

    seconds = best_of(work, 3 * REPEATS, clock) / iterations
    run.close()
    return seconds


def main() -> None:
    """Print the ratios."""
    model = thousand_subjects()
    # The moves of every state of a path, and one of the state a visit begins with.
    evaluations = 1 + saem_path(model.n_individuals) * sum(move.sweeps for move in SAEM_MOVES)
    x = -5.0 * np.random.default_rng(0).random(2 * model.nobs)
    exponentials(x, 1)
    cpu = time.process_time
    yardstick = best_of(lambda: exponentials(x, evaluations), 3 * REPEATS, cpu)
    used, one, two, machine = np.inf, np.inf, np.inf, 0.0
    for _ in range(ROUNDS):
        used = min(used, iteration_seconds(model, 1, cpu))
        yardstick = min(yardstick, best_of(lambda: exponentials(x, evaluations), REPEATS, cpu))
        one = min(one, iteration_seconds(model, 1))
        two = min(two, iteration_seconds(model, 2))
        machine = max(machine, machine_gain(x, max(1, round(evaluations * used / yardstick))))
    print(f"SAEM iteration, 1 thread   {used * 1e3:8.2f} ms CPU")
    print(f"its exponentials alone     {yardstick * 1e3:8.2f} ms CPU")
    print(f"ratio                      {used / yardstick:8.2f}   (bar: 2)")
    print(f"gain from a second thread  {one / two:8.2f}   (bar: 1.7)")
    print(f"of the yardstick alone     {machine:8.2f}   what the machine allows now")
    print(f"share of that              {one / two / machine:8.2f}")


if __name__ == "__main__":
    main()
