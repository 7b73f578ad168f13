"""The problems on which the library is judged, their exact answers, and what is measured.

"Exact" is the maximum of the likelihood by EM with an adaptive quadrature E-step.
The published table was made with a rule of about 12 nodes: it agrees with the
converged one to 1e-4 for theophylline and to 3e-3 for two variances of the Emax
model. Yardsticks are the scatter over seeds of an established implementation of
SAEM, 400 iterations with the same number of chains as here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import saem
from saem.algorithms import EM
from saem.contract import Array
from saem.estep import Quadrature
from saem.inference.information import louis_information
from saem.inference.likelihood import quadrature

#: Data whose licence does not let them be part of the project.
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@dataclass(frozen=True)
class Problem:
    """A model, the published answer, and the scatter that is to be beaten.

    Attributes
    ----------
    name : str
    make : callable
        Builds the model.
    table, table_se : mapping of str to float
        Published maximum and standard errors, by parameter name.
    table_llf : float
    table_tolerance : float
        Relative accuracy of the table, by its own rule of quadrature.
    coarse : mapping of str to float
        Parameters of which the table is less accurate than that.
    yardstick : mapping of str to float
        Standard deviation over seeds to beat, with `yardstick_epochs`.
    n_nodes : int
        Nodes with which the quadrature has converged.
    """

    name: str
    make: Callable[[], saem.NLME]
    table: Mapping[str, float]
    table_se: Mapping[str, float]
    table_llf: float
    n_nodes: int
    table_tolerance: float = 1e-4
    coarse: Mapping[str, float] = field(default_factory=dict)
    yardstick: Mapping[str, float] = field(default_factory=dict)
    yardstick_epochs: float = 400.0
    shared: str | None = None

    @property
    def available(self) -> bool:
        """Whether its data are there."""
        return self.shared is None or (SHARED / self.shared).exists()


def theophylline(covariate: bool = False, **starts: float) -> saem.NLME:
    """Theophylline by one compartment with absorption; weight on the clearance if asked."""
    start = {"ka": 1.0, "V": 20.0, "CL": 0.5} | starts
    return saem.NLME(
        saem.datasets.load("theophylline"),
        structural="pk.oral_1cpt",
        parameters={
            "ka": saem.LogNormal(start["ka"]),
            "V": saem.LogNormal(start["V"]),
            "CL": saem.LogNormal(start["CL"], covariates="I(Wt - 70)" if covariate else None),
        },
        error=saem.ConstantError(1.0),
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )


def emax(E0: float, Emax: float, EC50: float, *, dose: float) -> float:
    """Effect of a dose."""
    return E0 + Emax * dose / (EC50 + dose)


def growth_line(base: float, slope: float, *, age: float) -> float:
    """Straight line in age."""
    return base + slope * age


def pd1() -> saem.NLME:
    """Emax model with the gender on EC50."""
    return saem.NLME(
        pd.read_csv(SHARED / "pd1.csv"),
        structural=emax,
        parameters={
            "E0": saem.LogNormal(10.0),
            "Emax": saem.LogNormal(100.0),
            "EC50": saem.LogNormal(10.0, covariates="gender"),
        },
        error=saem.ConstantError(1.0),
        columns={"id": "subject", "dv": "response"},
    )


def oxboys() -> saem.NLME:
    """Heights of boys: straight lines with correlated coefficients."""
    return saem.NLME(
        pd.read_csv(SHARED / "oxboys.csv"),
        structural=growth_line,
        parameters={"base": saem.Normal(140.0), "slope": saem.Normal(5.0)},
        error=saem.ConstantError(1.0),
        omega="full",
        columns={"id": "Subject", "dv": "height"},
    )


def thousand(data_seed: int = 1, n: int = 1000) -> saem.NLME:
    """One-compartment data of 1000 subjects from a far start with wide variances."""
    return saem.NLME(
        saem.datasets.simulate_pk(n, seed=data_seed),
        structural="pk.oral_1cpt",
        parameters={
            "ka": saem.LogNormal(1.0, omega=1.0),
            "V": saem.LogNormal(20.0, omega=1.0),
            "CL": saem.LogNormal(2.0, omega=1.0),
        },
        error=saem.ProportionalError(0.3),
    )


THEOPHYLLINE = Problem(
    "theophylline",
    theophylline,
    {
        "ka": 1.579388, "V": 31.62597, "CL": 2.747985,
        "omega2_ka": 0.3946792, "omega2_V": 0.01788806, "omega2_CL": 0.07074905, "a": 0.7379785,
    },
    {
        "ka": 0.3027817, "V": 1.470715, "CL": 0.2347028,
        "omega2_ka": 0.1894553, "omega2_V": 0.0110171, "omega2_CL": 0.03619388, "a": 0.05627099,
    },
    -172.7176,
    n_nodes=13,
    yardstick={
        "ka": 0.0099, "V": 0.10, "CL": 0.0091,
        "omega2_ka": 0.0065, "omega2_V": 0.0014, "omega2_CL": 0.0027, "a": 0.0033,
    },
    yardstick_epochs=2000.0,
)  # fmt: skip

WEIGHT = Problem(
    "theophylline, weight on CL",
    functools.partial(theophylline, covariate=True),
    {
        "ka": 1.5779, "V": 31.61885, "CL": 2.760663, "beta_CL_I(Wt - 70)": 0.007602299,
        "omega2_ka": 0.3897772, "omega2_V": 0.01722872, "omega2_CL": 0.06649116, "a": 0.7394406,
    },
    {
        "ka": 0.3008392, "V": 1.452583, "CL": 0.2304792, "beta_CL_I(Wt - 70)": 0.009070816,
        "omega2_ka": 0.1871576, "omega2_V": 0.01071914, "omega2_CL": 0.03414875, "a": 0.05656681,
    },
    -172.3735,
    n_nodes=13,
    yardstick_epochs=2000.0,
)  # fmt: skip

PD1 = Problem(
    "Emax, gender on EC50",
    pd1,
    {
        "E0": 23.16749, "Emax": 106.6604, "EC50": 11.23551, "beta_EC50_gender": 0.3906527,
        "omega2_E0": 0.1303298, "omega2_Emax": 0.3092957, "omega2_EC50": 0.04727948,
        "a": 4.68736,
    },
    {
        "E0": 1.094215, "Emax": 6.135129, "EC50": 0.9565677, "beta_EC50_gender": 0.09878001,
        "omega2_E0": 0.02798883, "omega2_Emax": 0.0470524, "omega2_EC50": 0.02208751,
        "a": 0.3925956,
    },
    -1226.232,
    n_nodes=13,
    coarse={"omega2_E0": 3e-3, "omega2_EC50": 3e-3},
    yardstick={
        "E0": 0.34, "Emax": 0.69, "EC50": 0.31, "beta_EC50_gender": 0.054, "omega2_EC50": 0.018,
    },
    shared="pd1.csv",
)  # fmt: skip

OXBOYS = Problem(
    "heights of boys",
    oxboys,
    {
        "base": 149.3718, "slope": 6.525467, "omega2_base": 62.79026, "omega2_slope": 2.711702,
        "cov_base_slope": 8.374898, "a": 0.6598891,
    },
    {"base": 1.55463, "slope": 0.3297691},
    -362.9838,
    n_nodes=5,
    table_tolerance=1e-6,
    shared="oxboys.csv",
)  # fmt: skip

PROBLEMS = {p.name: p for p in (THEOPHYLLINE, WEIGHT, PD1, OXBOYS)}


@dataclass(frozen=True)
class Exact:
    """Maximum of the likelihood of a model: packed parameters, named values, standard errors."""

    theta: Array
    params: pd.Series
    se: pd.Series
    llf: float


def exact_fit(model: saem.NLME, n_nodes: int = 13, start: Any = None) -> Any:
    """EM with a quadrature E-step, run until nothing is left to gain."""
    algorithm = EM(estep=Quadrature(n_nodes), n_iter=5000, tolerance=1e-9)
    return model.fit(algorithm, seed=0, progress=False, start=start)


def simulated(
    n: int, seed: int, omega_V: float = 0.3, parameters: Mapping[str, Any] | None = None
) -> saem.NLME:
    """One-compartment data with a given variability of the volume."""
    rng = np.random.default_rng(seed)
    times = np.array([0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 18.0, 24.0])
    noise = rng.standard_normal((n, 3 + times.size))
    omega = np.array([0.3, omega_V, 0.3])
    ka, v, cl = (np.array([1.5, 30.0, 3.0]) * np.exp(omega * noise[:, :3])).T[:, :, None]
    k = cl / v
    f = 320.0 * ka / (v * (ka - k)) * (np.exp(-k * times) - np.exp(-ka * times))
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), times.size),
            "time": np.tile(times, n),
            "amt": 320.0,
            "dv": (f * (1.0 + 0.1 * noise[:, 3:])).ravel(),
        }
    )
    start = {"ka": saem.LogNormal(1.0), "V": saem.LogNormal(20.0), "CL": saem.LogNormal(2.0)}
    return saem.NLME(
        frame, structural="pk.oral_1cpt", parameters=dict(parameters or start),
        error=saem.ProportionalError(0.3),
    )  # fmt: skip


def exact(model: saem.NLME, n_nodes: int = 13) -> Exact:
    """Maximum likelihood by EM with quadrature, and its observed information."""
    coarse = exact_fit(model, 5)
    fit = exact_fit(model, n_nodes, start=coarse.theta) if n_nodes > 5 else coarse
    found = louis_information(model, fit.theta)
    se = pd.Series(found.bse, index=fit.params.index)
    return Exact(fit.theta, fit.params, se, quadrature(model, fit.theta).value)


@functools.cache
def exact_of(name: str) -> Exact:
    """Exact answer of a problem, computed once."""
    problem = PROBLEMS[name]
    return exact(problem.make(), problem.n_nodes)


@dataclass(frozen=True)
class Sample:
    """Fits of one model with several seeds; rows are seeds.

    Attributes
    ----------
    params, mc_error, bse : DataFrame
    llf : DataFrame
        By quadrature and by importance sampling, with the errors they report.
    epochs : float
    """

    params: pd.DataFrame
    mc_error: pd.DataFrame
    bse: pd.DataFrame
    llf: pd.DataFrame
    epochs: float


def sample(model: saem.NLME, seeds: Sequence[int], algorithm: Any = "saem") -> Sample:
    """Fit with default settings, once per seed."""
    params, errors, bse, llf = {}, {}, {}, {}
    for seed in seeds:
        fit = model.fit(algorithm, seed=seed, progress=False)
        params[seed], errors[seed], bse[seed] = fit.params, fit.mc_error, fit.bse
        importance, rule = fit.loglik("importance"), fit.loglik("quadrature")
        llf[seed] = {
            "importance": importance.value, "importance_error": importance.error,
            "quadrature": rule.value, "quadrature_error": rule.error,
        }  # fmt: skip
    frames = [pd.DataFrame(part).T for part in (params, errors, bse, llf)]
    return Sample(*frames, epochs=fit.epochs)


def judge(found: Sample, answer: Exact) -> pd.DataFrame:
    """Figures by parameter: distances from the exact answer in the units of the bars."""
    deviation = found.params - answer.params
    return pd.DataFrame(
        {
            "exact": answer.params,
            "exact_se": answer.se,
            "mean": found.params.mean(),
            "sd": found.params.std(),
            "mc_error": np.sqrt((found.mc_error**2).mean()),
            "worst_in_mc_errors": (deviation / found.mc_error).abs().max(),
            "bias_in_se": deviation.mean() / answer.se,
            "se_ratio": (found.bse / answer.se).mean(),
        }
    )
