"""Variance-reduced EM of Gaussian mixtures: cost of an E-evaluation, a race, and memory.

Run as a script: ``python tests/benchmarks/bench_vr.py [cost] [race] [memory] [--rows N]``.

cost
    CPU time per E-evaluation of iEM, fiEM and SVRG-EM on the two-component benchmark, as a multiple
    of that of an EM iteration; the smallest of several passes each, for the machine may be
    shared. Bars: fiEM at most 4 with batches of 1, at most 1.5 with batches of 64.
race
    Full covariances, 1e6 rows x 10 columns x 8 components, all from one start: wall time to within
    1e-4 nats per row of the limit of EM; methods slower than EM are given up. Scikit-learn's EM
    makes the same iterates (checked), so its time is that of an iteration, measured in this
    process on as many threads, times the number that EM needs. Bar: the best of the library at
    least 15 times faster.
memory
    Growth of the resident peak by fiEM on that problem, in a process of its own. Bar: at
    most 1.2 n k doubles and 100 MB beyond the data.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np
from bench_mixture import N_COMPONENTS, N_FEATURES, peak_memory, run_peer

import saem
from saem.engine import Run, iterate
from saem.models.gaussian_mixture import GaussianMixture, simulate
from saem.schedules import TheoryStep

#: Nats per row within which the limit counts as reached.
CLOSE = 1e-4
#: Iterations after which EM is given up.
LONGEST = 2000
#: Standard deviation of the centres, in those of a component.
SPREAD = 0.75


def two_components(n: int) -> GaussianMixture:
    """Make the benchmark of which only the means are estimated."""
    X, _ = simulate(np.random.default_rng(0), n)
    return GaussianMixture(
        X, 2, covariance_type="spherical", init={"means": [[1.0], [-1.0]]}, reg_covar=0.0,
        fixed={"weights": [0.2, 0.8], "covariances": [1.0, 1.0]},
    )  # fmt: skip


def per_evaluation(model, algorithm, n_passes: int, *, batches: bool) -> float:
    """Smallest CPU seconds per E-evaluation over the passes; of those by batches if asked."""
    run = Run(model, algorithm.combine(model), model.start(None), seed=0, n_threads=1)
    states, best = iterate(run), np.inf
    for _ in range(n_passes):
        before, k, clock = run.n_evals, run.k, time.process_time()
        next(states)
        seconds = time.process_time() - clock
        if run.k - k > 1 or not batches:  # not the full pass at an anchor
            best = min(best, seconds / (run.n_evals - before))
    return best


def measure_cost(n: int = 100_000) -> None:
    """Print nanoseconds per E-evaluation and multiples of EM's."""
    model = two_components(n)
    em = per_evaluation(model, saem.EM(tolerance=None), 200, batches=False)
    print(f"EM: {em * 1e9:.0f} ns per E-evaluation")
    for batch in (1, 64):
        for algorithm in (
            saem.IncrementalEM(batch_size=batch),
            saem.FIEM(batch_size=batch, step=TheoryStep(1.0)),
            saem.SVRGEM(batch_size=batch, step=TheoryStep(1.0)),
        ):
            cost = per_evaluation(model, algorithm, 12, batches=True)
            print(
                f"{algorithm.name} with batches of {batch}: {cost * 1e9:.0f} ns, "
                f"{cost / em:.1f} times EM",
                flush=True,
            )


def centres_of() -> np.ndarray:
    """Centres that overlap, so that EM takes its time."""
    return SPREAD * np.random.default_rng(0).standard_normal((N_COMPONENTS, N_FEATURES))


def overlapping(n_rows: int) -> np.ndarray:
    """Rows around eight centres with unit variances."""
    rng = np.random.default_rng(1)
    centres = centres_of()
    X = rng.standard_normal((n_rows, N_FEATURES))
    for start in range(0, n_rows, 10_000):  # in parts, so that the peak is the data
        part = X[start : start + 10_000]
        part += centres[rng.integers(N_COMPONENTS, size=len(part))]
    return X


def mixture_of(X: np.ndarray) -> GaussianMixture:
    """Make a model that starts off the truth, but where all methods end at one maximum."""
    shift = 0.5 * np.random.default_rng(2).standard_normal((N_COMPONENTS, N_FEATURES))
    start = {
        "weights": np.full(N_COMPONENTS, 1 / N_COMPONENTS),
        "means": centres_of() + shift,
        "covariances": [2.0 * np.eye(N_FEATURES)] * N_COMPONENTS,
    }
    return GaussianMixture(X, N_COMPONENTS, init=start)


def race_of(model, algorithm, start, goal: float, longest: float, n_threads: int, resolution):
    """Wall seconds and passes until the log-likelihood per row is above the goal."""
    n = model.n_individuals
    combination = algorithm.combine(model)
    run = Run(model, combination, start, seed=0, n_threads=n_threads, resolution=resolution)
    try:
        for state in iterate(run):
            reached = model.loglik(state.theta) / n
            if reached > goal:
                return state.seconds, state.n_evals / n
            if state.seconds > longest:
                break
        return np.inf, state.n_evals / n
    finally:
        run.close()


def run_race(n: int, n_threads: int) -> None:
    """Print the times of all candidates and of scikit-learn."""
    X = overlapping(n)
    model = mixture_of(X)
    start = model.start(np.random.default_rng(0))
    fast = saem.AndersonEM(tolerance=1e-7 * n)
    limit = model.fit(fast, start=start, progress=False, n_threads=n_threads).llf / n
    goal, begin = limit - CLOSE, model.loglik(start) / n
    print(f"limit {limit:.6f} nats per row; the start is {limit - begin:.4f} below it", flush=True)
    run = Run(model, saem.EM(n_iter=LONGEST).combine(model), start, n_threads=n_threads)
    iterations, seconds_em = 0, 0.0
    for state in iterate(run):
        if state.loglik / n > goal:  # that before the step: where the iteration before has led
            break
        iterations, seconds_em = state.k, state.seconds
    else:
        raise SystemExit("EM ends at another maximum than anderson-em: nothing to compare")
    run.close()
    theirs, peer = run_peer(X, "full", model.components(start), 3, n_threads)
    run = Run(model, saem.EM(n_iter=3).combine(model), start, n_threads=n_threads)
    *_, third = iterate(run)
    run.close()
    gap = np.abs(model.components(third.theta)["means"] - peer.means_).max()
    total = theirs * iterations
    print(
        f"scikit-learn: {theirs:.2f} s an iteration, {iterations} iterations, {total:.0f} s "
        f"(third iterate differs by {gap:.0e})",
        flush=True,
    )
    print(f"em: {seconds_em:.2f} s, {iterations} passes, {total / seconds_em:.1f} times faster")
    candidates: list[tuple[str, object, int | None]] = [
        ("anderson-em", saem.AndersonEM(tolerance=None), None),
        ("squarem-em", saem.SquaremEM(tolerance=None), None),
    ]
    for batch in (64, 1024):
        every = max(1, n // batch // 10)
        candidates += [
            (f"fiem, batch {batch}", saem.FIEM(batch_size=batch, n_epochs=500), every),
            (f"svrg-em, batch {batch}", saem.SVRGEM(batch_size=batch, n_epochs=500), every),
            (
                f"mini-batch-em, batch {batch}",
                saem.IncrementalEM(batch_size=batch, n_epochs=500),
                every,
            ),
        ]
    for label, algorithm, every in candidates:
        seconds, passes = race_of(model, algorithm, start, goal, seconds_em, n_threads, every)
        print(
            f"{label}: {seconds:.2f} s, {passes:.1f} passes, {total / seconds:.1f} times faster",
            flush=True,
        )


def measure_memory(n: int) -> None:
    """Print the growth of the peak by fiEM beyond the data."""
    small = mixture_of(overlapping(5000))
    small.fit(saem.FIEM(batch_size=64, n_iter=100), seed=0, progress=False)  # imports, kernels
    X = overlapping(n)
    before = peak_memory()
    model = mixture_of(X)
    combination = saem.FIEM(batch_size=64, n_epochs=1).combine(model)
    run = Run(model, combination, model.start(np.random.default_rng(0)), seed=0)
    for _ in iterate(run):
        pass
    run.close()
    grown, allowed = peak_memory() - before, 1.2 * n * N_COMPONENTS * 8 + 100e6
    print(
        f"fiEM: {grown / 1e6:.0f} MB beyond the data of {X.nbytes / 1e6:.0f} MB; the bar is "
        f"{allowed / 1e6:.0f} MB"
    )


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], help="cost, race, memory; all by default")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--here", action="store_true", help="measure memory in this process")
    options = parser.parse_args()
    parts = options.parts or ["cost", "memory", "race"]
    if "cost" in parts:
        measure_cost()
    if "memory" in parts:
        if options.here:
            measure_memory(options.rows)
        else:
            own = [sys.executable, __file__, "memory", "--here", "--rows", str(options.rows)]
            subprocess.run(own, check=True)
    if "race" in parts:
        run_race(options.rows, options.threads)


if __name__ == "__main__":
    main()
