"""CPU time against pynlme, the fastest Python peer, in one run on this machine.

Run as a script: ``python tests/benchmarks/bench_pynlme.py``; needs ``pip install pynlme``,
which is no dependency of saem. Both fit the same data from the same typical values with
starting variances of 1, 400 iterations, standard errors and a log-likelihood by importance
sampling. pynlme gets the vectorised form of its model (one NumPy call for all subjects),
which is its fastest. CPU time is that of the process, all threads; what is compiled or read
on the first fit is not counted, for either. Our log-likelihood has a Monte Carlo error of at
most `ERROR`; that of pynlme, from its fixed 5000 draws a subject, is off by what is printed.

Bar: saem takes at most a quarter of the CPU. Where each fit ends is measured by saem's
adaptive quadrature at both estimates.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import saem
from saem.algorithms import EM
from saem.estep import Quadrature
from saem.inference.likelihood import quadrature

#: Nats.
ERROR = 0.3


def theophylline() -> saem.NLME:
    """Theophylline; 12 subjects give 5 chains by default."""
    return saem.NLME(
        saem.datasets.load("theophylline"),
        structural="pk.oral_1cpt",
        parameters={
            "ka": saem.LogNormal(1.0, omega=1.0),
            "V": saem.LogNormal(20.0, omega=1.0),
            "CL": saem.LogNormal(0.5, omega=1.0),
        },
        error=saem.ConstantError(1.0),
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )


def thousand() -> saem.NLME:
    """Simulated data of 1000 subjects with 10 observations each."""
    return saem.NLME(
        saem.datasets.simulate_pk(1000),
        structural="pk.oral_1cpt",
        parameters={
            "ka": saem.LogNormal(1.0, omega=1.0),
            "V": saem.LogNormal(20.0, omega=1.0),
            "CL": saem.LogNormal(2.0, omega=1.0),
        },
        error=saem.ProportionalError(0.3),
    )


def one_compartment(phi: Any, x: Any, v: Any = None) -> Any:
    """Prediction in pynlme's vectorised form: a row of (time, dose) and of phi an observation."""
    ka, volume, clearance = phi[..., 0], phi[..., 1], phi[..., 2]
    k = clearance / volume
    t = x[:, 0]
    scale = x[:, 1] * ka / (volume * (ka - k))
    return scale * (np.exp(-k * t) - np.exp(-ka * t))


def fit_peer(model: saem.NLME, seed: int, n_chains: int) -> tuple[np.ndarray, float]:
    """Fit the model's data by pynlme.

    Returns saem's packed parameters at its estimates, and its log-likelihood there.
    """
    import pynlme

    data = model.individuals
    x = np.column_stack([data.columns["time"], data.columns["amt"]])
    group = np.repeat(np.arange(model.n_individuals), data.n_obs)
    start = np.log([p.start for p in model.parameters.values()])
    constant = isinstance(model.error, saem.ConstantError)
    beta, psi, stats, _ = pynlme.nlmefitsa(
        x, data.dv, group, None, one_compartment, start,
        ParamTransform=[1, 1, 1], CovPattern=np.eye(3), NIterations=[150, 150, 100],
        n_chains=n_chains, LogLikMethod="is", ComputeStdErrors=True, random_state=seed,
        ErrorModel="constant" if constant else "proportional", Vectorization="Full",
    )  # fmt: skip
    residual = float(np.ravel(stats.errorparam)[-1])
    theta = model.with_estimates(
        model.start(np.random.default_rng(0)), np.concatenate([beta, np.diag(psi), [residual]])
    )
    return theta, float(stats.logl)


def fit_ours(model: saem.NLME, seed: int, n_threads: int | None = None) -> Any:
    """Fit by saem, with standard errors and importance-sampled log-likelihood."""
    fit = model.fit("saem", seed=seed, progress=False, n_threads=n_threads)
    assert np.all(np.isfinite(fit.bse))
    assert np.isfinite(fit.loglik("importance", accuracy=ERROR).value)
    return fit


def cpu(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Shortest CPU time of several runs, and the last result."""
    times, result = [], None
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        times.append(time.process_time() - start)
    return min(times), result


def compare(name: str, model: saem.NLME, seeds: Sequence[int], n_chains: int) -> None:
    """Print CPU times, their ratio, and where the fits end."""
    best = model.fit(EM(Quadrature(7), n_iter=2000), seed=0, progress=False)
    top = quadrature(model, best.theta).value
    fit_ours(model, 99)
    repeats = 3 if model.n_individuals < 100 else 1
    ours = [cpu(lambda s=s: fit_ours(model, s), repeats) for s in seeds]
    peer = [cpu(lambda s=s: fit_peer(model, s, n_chains), repeats) for s in seeds]
    mine, theirs = min(t for t, _ in ours), min(t for t, _ in peer)
    print(f"{name}: {model.n_individuals} subjects, {n_chains} chains, maximum {top:.3f}")
    print(f"  CPU of saem     {mine:8.3f} s")
    print(f"  CPU of pynlme   {theirs:8.3f} s")
    print(f"  ratio           {mine / theirs:8.3f}   (bar: 0.25)")
    exact = [quadrature(model, theta).value for _, (theta, _) in peer]
    rows = {
        "saem ends below the maximum by": [top - fit.loglik("quadrature").value for _, fit in ours],
        "pynlme ends below the maximum by": [top - value for value in exact],
        "error of saem's log-likelihood": [
            fit.loglik("importance", accuracy=ERROR).value - fit.loglik("quadrature").value
            for _, fit in ours
        ],
        "error of pynlme's log-likelihood": [
            value - right for (_, (_, value)), right in zip(peer, exact, strict=True)
        ],
    }
    for what, values in rows.items():
        print(f"  {what:35} {', '.join(f'{value:.3f}' for value in values)}")


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if importlib.util.find_spec("pynlme") is None:
        raise SystemExit("pynlme is not installed: pip install pynlme")
    seeds = range(1, 1 + options.seeds)
    compare("theophylline", theophylline(), seeds, 5)
    compare("a thousand subjects", thousand(), seeds, 1)


if __name__ == "__main__":
    main()
