"""Simulated pharmacokinetic data with known truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..exceptions import OptionError

if TYPE_CHECKING:
    import pandas as pd

DOSE = 320.0
SEED = 1
TRUTH: dict[str, float] = {
    "ka": 1.5,
    "V": 30.0,
    "CL": 3.0,
    "omega_ka": 0.3,  # standard deviations on the log scale
    "omega_V": 0.3,
    "omega_CL": 0.3,
    "b": 0.1,  # proportional error
}
TIMES_8 = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0)
TIMES_10 = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 18.0, 24.0)


def simulate_pk(
    n_individuals: int = 1000, *, times: Sequence[float] = TIMES_10, seed: int = SEED
) -> pd.DataFrame:
    """Simulate concentrations after one oral dose, one compartment.

    Parameters
    ----------
    n_individuals : int
        Number of subjects.
    times : sequence of float
        Sampling times in hours, the same for every subject, increasing and above 0.
    seed : int
        Seed of the PCG64 generator. Subject i is the same for any `n_individuals` above i.

    Returns
    -------
    pandas.DataFrame
        Columns ``id``, ``time`` (h), ``amt`` (mg, on every row) and ``dv`` (mg/L);
        ``attrs["truth"]`` holds the parameters.

    Notes
    -----
    With psi_i = (ka, V, CL) exp(0.3 eta_i) and standard normal eta_i and eps_ij,

        f = D ka / (V (ka - k)) (exp(-k t) - exp(-ka t)),   k = CL / V,
        dv = f (1 + 0.1 eps).

    Values are rounded to 8 significant digits: `exp` may differ in its last bit between
    machines, the data may not.

    Examples
    --------
    >>> import saem
    >>> saem.datasets.simulate_pk(50).shape
    (500, 4)
    """
    import numpy as np
    import pandas as pd

    t = np.asarray(times, dtype=float)
    if n_individuals < 1:
        raise OptionError(f"simulate_pk: n_individuals must be at least 1, got {n_individuals}")
    if t.ndim != 1 or t.size == 0 or not np.all(np.diff(t, prepend=0.0) > 0):
        raise OptionError(f"simulate_pk: times must be increasing and above 0, got {times}")

    rng = np.random.Generator(np.random.PCG64(seed))
    noise = rng.standard_normal((n_individuals, 3 + t.size))
    typical = np.array([TRUTH["ka"], TRUTH["V"], TRUTH["CL"]])
    omega = np.array([TRUTH["omega_ka"], TRUTH["omega_V"], TRUTH["omega_CL"]])
    ka, v, cl = (typical * np.exp(omega * noise[:, :3])).T[:, :, None]
    k = cl / v
    f = DOSE * ka / (v * (ka - k)) * (np.exp(-k * t) - np.exp(-ka * t))
    dv = f * (1.0 + TRUTH["b"] * noise[:, 3:])

    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(1, n_individuals + 1), t.size),
            "time": np.tile(t, n_individuals),
            "amt": DOSE,
            "dv": [float(f"{value:.8g}") for value in dv.ravel()],
        }
    )
    frame.attrs["truth"] = dict(TRUTH)
    return frame
