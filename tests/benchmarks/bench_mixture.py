"""Time and memory of an EM iteration of Gaussian mixtures, against scikit-learn.

Run as a script: ``python tests/benchmarks/bench_mixture.py [--rows N] [--threads 1 2]``.
Both libraries work in this process on the same array, start from the same values
and are held to the same number of threads. The bars, for full covariances and
1e6 rows x 10 columns x 8 components: at least 5 times faster, and peak memory
below 1.2 times the data.

Memory is the growth of the process's resident peak over what it was with the
data loaded, measured in a process of its own, as a share of the data.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np

N_FEATURES, N_COMPONENTS = 10, 8
TYPES = ("full", "tied", "diag", "spherical")


def make_data(n_rows: int) -> np.ndarray:
    """Rows around eight overlapping centres."""
    rng = np.random.default_rng(0)
    centres = 2.0 * rng.standard_normal((N_COMPONENTS, N_FEATURES))
    X = rng.standard_normal((n_rows, N_FEATURES))
    for start in range(0, n_rows, 10_000):  # in parts, so that the peak is the data
        part = X[start : start + 10_000]
        part += centres[rng.integers(N_COMPONENTS, size=len(part))]
    return X


def run_ours(model, theta: np.ndarray, n_iter: int, n_threads: int) -> tuple[float, np.ndarray]:
    """Median seconds per EM iteration and the last theta, through the engine."""
    from saem.engine import Combination, Run, iterate
    from saem.estep import Exact
    from saem.proxies import Full
    from saem.schedules import Constant

    em = Combination("EM", Exact(), Full(), Constant(1.0), Constant(1.0), n_iter)
    run = Run(model, em, theta, seed=0, n_threads=n_threads)
    try:
        seconds = [0.0]
        for snapshot in iterate(run):
            seconds.append(snapshot.seconds)
        return float(np.median(np.diff(seconds))), snapshot.theta
    finally:
        run.close()


def run_peer(X: np.ndarray, covariance_type: str, parts: dict, n_iter: int, n_threads: int):
    """Median seconds per EM iteration of scikit-learn, and the fitted peer."""
    from sklearn.mixture import GaussianMixture
    from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky
    from threadpoolctl import threadpool_limits

    peer = GaussianMixture(N_COMPONENTS, covariance_type=covariance_type)
    peer.weights_, peer.means_, peer.covariances_ = parts.values()
    peer.precisions_cholesky_ = _compute_precision_cholesky(peer.covariances_, covariance_type)
    seconds = []
    with threadpool_limits(n_threads):
        for _ in range(n_iter):
            start = time.perf_counter()
            _, log_resp = peer._e_step(X)
            peer._m_step(X, log_resp)
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), peer


def compare(X: np.ndarray, covariance_type: str, n_threads: int, n_iter: int) -> None:
    """Print one line of the comparison, after a check that both reach the same place."""
    from saem.models import GaussianMixture

    model = GaussianMixture(X, N_COMPONENTS, covariance_type=covariance_type)
    theta = model.start(np.random.default_rng(0))
    parts = model.components(theta)
    ours, theta = run_ours(model, theta, n_iter, n_threads)
    theirs, peer = run_peer(X, covariance_type, parts, n_iter, n_threads)
    gap = np.abs(model.components(theta)["means"] - peer.means_).max()
    print(
        f"{covariance_type:10s} threads {n_threads}: saem {ours:.3f} s, scikit-learn "
        f"{theirs:.3f} s an iteration, ratio {theirs / ours:.1f}; means differ by {gap:.1e}",
        flush=True,
    )


def peak_memory() -> float:
    """Largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def measure_memory(n_rows: int) -> None:
    """Print the growth of the peak by model, start and three iterations, per byte of data."""
    from saem.models import GaussianMixture

    small = GaussianMixture(make_data(20_000), N_COMPONENTS)
    run_ours(small, small.start(np.random.default_rng(0)), 2, 2)  # imports and compiled code
    X = make_data(n_rows)
    before = peak_memory()
    model = GaussianMixture(X, N_COMPONENTS)
    run_ours(model, model.start(np.random.default_rng(0)), 3, 2)
    grown = (peak_memory() - before) / X.nbytes
    print(f"memory: {grown:.3f} times the data beyond the data itself ({X.nbytes / 1e6:.0f} MB)")


def main() -> None:
    """Run the comparison as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--types", nargs="+", default=list(TYPES), choices=TYPES)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="measure memory only")
    options = parser.parse_args()
    if options.memory:
        measure_memory(options.rows)
        return
    subprocess.run([sys.executable, __file__, "--memory", "--rows", str(options.rows)], check=True)
    X = make_data(options.rows)
    for covariance_type in options.types:
        for n_threads in options.threads:
            compare(X, covariance_type, n_threads, options.iterations)


if __name__ == "__main__":
    main()
