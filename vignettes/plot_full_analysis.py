"""
A full analysis, from the first plot to the report
==================================================

Sixty patients take one oral dose; six concentrations are measured in each, together with weight,
age and sex. The data are simulated, so at the end we can say what the analysis got right: clearance
and volume grow with weight, age and sex do nothing.

The order is that of an analysis in earnest: look, fit, ask whether the fit has converged, ask
whether the model is right, mend it, and only then read off numbers.
"""

# %%
# Data
# ----

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import saem
from saem.report import write_report

TRUTH = {"ka": 1.2, "V": 25.0, "CL": 2.5, "weight_on_V": 1.0, "weight_on_CL": 0.75}
HOURS = np.array([0.5, 1.5, 3.0, 6.0, 12.0, 24.0])


def simulated_study(n=60, seed=20):
    """One row per observation; log weight is centred at 70 kg."""
    rng = np.random.default_rng(seed)
    weight = np.exp(rng.normal(np.log(70.0), 0.25, n))
    age, sex = rng.uniform(20.0, 75.0, n), rng.choice(["f", "m"], n)
    lw = np.log(weight / 70.0)
    ka = TRUTH["ka"] * np.exp(0.4 * rng.standard_normal(n))
    volume = TRUTH["V"] * np.exp(TRUTH["weight_on_V"] * lw + 0.2 * rng.standard_normal(n))
    clearance = TRUTH["CL"] * np.exp(TRUTH["weight_on_CL"] * lw + 0.25 * rng.standard_normal(n))
    k = clearance / volume
    scale = 300.0 * ka / (volume * (ka - k))
    f = scale[:, None] * (np.exp(-np.outer(k, HOURS)) - np.exp(-np.outer(ka, HOURS)))
    dv = f * (1.0 + 0.12 * rng.standard_normal(f.shape))
    rows = {"id": np.arange(n), "lw": lw, "age": (age - 45.0) / 10.0, "sex": sex}
    frame = pd.DataFrame({name: np.repeat(value, HOURS.size) for name, value in rows.items()})
    return frame.assign(time=np.tile(HOURS, n), amt=300.0, dv=dv.ravel())


data = simulated_study()

fig, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for _, rows in data.groupby("id"):
    axes.semilogy(rows["time"], rows["dv"], "-", lw=0.7, color="C0", alpha=0.6)
axes.set(xlabel="hours after the dose", ylabel="concentration [mg/L]")

# %%
# A first model, without covariates
# ---------------------------------


def model_of(**formulas):
    """One compartment, with covariate formulas for some parameters."""
    return saem.NLME(
        data,
        structural="pk.oral_1cpt",
        parameters={
            name: saem.LogNormal(start, covariates=formulas.get(name))
            for name, start in {"ka": 0.8, "V": 35.0, "CL": 4.0}.items()
        },
        error=saem.ProportionalError(0.2),
    )


base = model_of().fit(seed=1, progress=False)
print(base.summary())

# %%
# Has it converged?
# -----------------
#
# The Monte Carlo error of an estimate is how far another seed may end. It should be a small part of
# the standard error, and it is.

noise = base.mc_error / base.bse
print(noise.round(4).to_string())
assert base.converged
assert np.nanmax(noise) < 0.05
base.plot.convergence()

# %%
# Is it right?
# ------------
#
# A visual predictive check compares quantiles of the data with those of data that the model
# would make. NPDE are standard normal if the model is right.

base.plot.vpc()
tests = base.residual_tests()
print(tests.round(3).to_string())

# %%
# The model may pass and still leave something out. Draws of the random effects, unlike their modes,
# are not shrunk towards each other, so tests against covariates keep their level.

found = base.covariate_tests(data[["id", "lw", "age", "sex"]])
print(found.round(4).to_string())
base.plot.covariates(data[["id", "lw", "age", "sex"]])

# %%
# Which covariates?
# -----------------
#
# A stepwise search, in which draws of the random effects tell what to try first.

candidates = ["lw", "age", "sex"]
search = base.covariate_search(data, candidates, method="cossac")
shown = ["step", "direction", "parameter", "term", "screen", "p_value", "accepted"]
print(search.log[shown].round(4).to_string())
assert search.terms == {"V": ["lw"], "CL": ["lw"]}

final = search.fit
print(saem.compare({"no covariates": base, "weight on V and CL": final}).round(2).to_string())

# %%
# The final model
# ---------------
#
# Weight explains two thirds of the variance of V and a quarter of that of CL. The exponent of
# clearance is two standard errors from that of the simulation, about what the largest of nine
# estimates may be; together the two exponents are compatible with 0.75 and 1.

print(final.summary())
exponents = {"beta_CL_lw": TRUTH["weight_on_CL"], "beta_V_lw": TRUTH["weight_on_V"]}
test = final.wald_test(exponents)
print(test)
assert test.p_value > 0.01

truth = pd.Series({name: TRUTH[name] for name in ("ka", "V", "CL")} | exponents)
off = (final.params[truth.index] - truth) / final.bse[truth.index]
print("standard errors from the truth:", off.round(2).to_dict())
assert off.abs().max() < 3.0
explained = 1.0 - final.params / base.params
assert explained["omega2_V"] > 0.6
assert 0.15 < explained["omega2_CL"] < 0.35

# %%
# Wald intervals lean on a quadratic likelihood. The profile does not; here they agree.

profile = final.profile("beta_CL_lw")
wald = final.conf_int().loc["beta_CL_lw"]
print(profile)
print(f"Wald: {wald.iloc[0]:.4g} to {wald.iloc[1]:.4g}")
assert abs(profile.lower - wald.iloc[0]) < 0.1 * final.bse["beta_CL_lw"]

tests = final.residual_tests()
print(tests.round(3).to_string())
assert tests["p_combined"].min() > 0.01
final.plot.vpc()

# %%
# A new patient
# -------------
#
# Of whom two concentrations are known. Bands are for new observations, with nine chances in ten.

new = pd.DataFrame(
    {"id": "new", "time": np.linspace(0.25, 24.0, 60), "amt": 300.0, "lw": np.log(95 / 70)}
)
new["dv"] = np.nan
known = new.index[[3, 20]]
unknown = final.forecast(new)
new.loc[known, "dv"] = [3.4, 7.0]
better = final.forecast(new)

fig, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for forecast, label, color in (
    (unknown, "from weight alone", "C1"),
    (better, "with two values", "C0"),
):
    axes.fill_between(
        new["time"], forecast["lower"], forecast["upper"], color=color, alpha=0.2, lw=0
    )
    axes.plot(new["time"], forecast["prediction"], color=color, label=label)
axes.plot(new.loc[known, "time"], new.loc[known, "dv"], "ko", label="observed")
axes.set(xlabel="hours after the dose", ylabel="concentration [mg/L]")
axes.legend()
width = {name: (f["upper"] - f["lower"]).mean() for name, f in (("0", unknown), ("2", better))}
print({f"{n} observations": round(float(w), 2) for n, w in width.items()})
assert width["2"] < 0.8 * width["0"]

# %%
# The report
# ----------
#
# One file, with figures and the code that repeats the fit.

with tempfile.TemporaryDirectory() as folder:
    page = write_report(final, Path(folder) / "report.html")
    print(f"{page.stat().st_size / 1e6:.1f} MB")
    final.save(Path(folder) / "final.saem")
    again = saem.load(Path(folder) / "final.saem")
    assert again.params.equals(final.params)

plt.show()
