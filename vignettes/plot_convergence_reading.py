# %% [markdown]
# # How to read convergence
#
# A stochastic fit ends with numbers; whether they are the maximum-likelihood estimates is
# another question. This page shows what to look at: the trace, the Monte Carlo errors, the rule
# that stopped the fit, drift, other starts, and `why()`, which looks at all of them.

# %%
import matplotlib.pyplot as plt
import numpy as np

import saem

theophylline = saem.datasets.load("theophylline")


def pk_model(data=theophylline, a=1.0, **start):
    start = {"ka": 1.0, "V": 20.0, "CL": 2.0} | start
    return saem.NLME(
        data,
        structural="pk.oral_1cpt",
        parameters={name: saem.LogNormal(value) for name, value in start.items()},
        error=saem.ConstantError(a),
        columns={"id": "Subject", "time": "Time", "dv": "conc", "amt": "Dose"},
    )


model = pk_model()

# %% [markdown]
# ## The default: draws explore, Newton steps finish
#
# Without an algorithm, `fit` runs 150 iterations of SAEM and then a few Newton steps with an
# E-step by quadrature. The trace holds both; `record.phases` says what ended each. The last phase
# has no noise: what is left to gain is known in nats, hence in standard errors.

# %%
fit = model.fit(seed=1, progress=False)
for phase in fit.record.phases:
    print(f"{phase['first']:4d} to {phase['last']:4d}: {phase['algorithm']}, {phase['reason']}")
print("stopped by:", fit.stopped_by)

saem_end = fit.record.phases[0]["last"]
noise = model.fit("saem", seed=1, progress=False)
exact = model.fit(
    saem.EM(saem.Quadrature(13), acceleration="newton", tolerance=1e-10), progress=False
)
trace = (fit.trace[fit.param_names] - exact.params) / exact.bse

fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
colours = plt.cm.tab10(range(3))
for name, colour in zip(["ka", "omega2_V", "a"], colours, strict=True):
    axes[0].plot(fit.trace["iteration"], trace[name], label=name, color=colour)
    axes[1].semilogy(
        fit.trace["iteration"][saem_end - 20 :],
        np.abs(trace[name][saem_end - 20 :]),
        ".-", label=name, color=colour,
    )  # fmt: skip
axes[0].axvline(saem_end, color="0.5", lw=1, ls="--")
axes[0].set(
    xlabel="iteration", ylabel="distance from the maximum (s.e.)", title="SAEM, then Newton steps",
    ylim=(-2, 2),
)  # fmt: skip
axes[0].legend()
axes[1].axvline(saem_end, color="0.5", lw=1, ls="--")
axes[1].axhline(0.02, color="k", lw=1, ls=":")
axes[1].set(xlabel="iteration", title="the last iterations, logarithmic")
plt.show()

assert fit.stopped_by == "tolerance"
assert np.abs(trace.iloc[-1]).max() < 0.02
assert np.abs(trace.iloc[saem_end]).max() > np.abs(trace.iloc[-1]).max()

# %% [markdown]
# ## Monte Carlo errors, and stopping by them
#
# SAEM alone keeps noise. How much is reported beside the standard errors, and confirmed by
# other seeds: over seeds, estimates scatter by what each fit says of itself.

# %%
seeds = [model.fit("saem", seed=s, progress=False) for s in range(10)]
scatter = np.std([f.params for f in seeds], axis=0, ddof=1)
reported = np.sqrt(np.mean([f.mc_error**2 for f in seeds], axis=0))
ratio = scatter / reported
print(dict(zip(fit.param_names, ratio.round(2), strict=True)))
# Ten seeds: a standard deviation is known to a factor 0.4 to 1.8 (chi-squared, level 1e-3).
assert np.all((ratio > 0.3) & (ratio < 2.0))

# %% [markdown]
# `accuracy` makes that a stopping rule: averaging goes on until each Monte Carlo error, of the
# estimates and of their standard errors, is below the fraction asked of the standard error;
# `stopped_by` says whether it got there, `reason` how near the worst are.

# %%
asked = [0.04, 0.02, 0.01]
runs = [model.fit("saem", accuracy=a, seed=1, progress=False) for a in asked]
for a, run in zip(asked, runs, strict=True):
    worst = (run.mc_error / run.bse).max()
    print(f"asked {a:.0%}: {run.record.n_iter} iterations, {worst:.2%}, {run.stopped_by}")
    assert run.stopped_by == "accuracy"
    assert worst <= a
assert runs[0].record.n_iter < runs[2].record.n_iter

# %% [markdown]
# `accuracy()` shows all three: errors of estimates, of standard errors (the noise of the estimates
# and the quadrature or draws of the information), and of -2 log-likelihood, for which draws are
# added until its error is below 0.1, less than AIC can tell apart.

# %%
print(runs[1].reason)
print(runs[1].accuracy().round(4).to_string())
assert runs[1].accuracy()["within"].all()

fig, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
for run, a in zip(runs, asked, strict=True):
    ax.loglog(run.record.n_iter, (run.mc_error / run.bse).max(), "o", label=f"{a:.0%} asked")
n = np.array([300, 3000])
ax.loglog(n, 0.018 * np.sqrt(600 / n), ":", color="0.5", label="root of n")
ax.set(xlabel="iterations", ylabel="largest Monte Carlo error (s.e.)")
ax.set_xticks([400, 800, 1600], ["400", "800", "1600"])
ax.set_xticks([], minor=True)
ax.legend()
plt.show()

# %% [markdown]
# ## Drift
#
# Averages assume that the averaged iterations have arrived. `drift()` tests it: their first
# part against their last (Geweke), and the largest partial sum of the chains' noise. A run from
# a far start that averages from its first iteration on fails; the usual one does not.

# %%
far = pk_model(ka=5.0, V=100.0, CL=10.0, a=5.0)
moving = far.fit(
    saem.SAEM(n_burn_in=0, n_exploration=0, n_smoothing=150, averaged=1.0, power=1.0, delay=1.0),
    seed=1, progress=False,
)  # fmt: skip
steady = noise.drift()
print(moving.drift().round(4))
assert moving.drift()["p"].min() < 1e-3
assert steady["p"].min() > 1e-3

fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
for ax, run, title in zip(axes, (moving, noise), ("still moves", "has arrived"), strict=True):
    first = run.record.average_from
    path = run.trace["V"][first + 1 :]
    ax.plot(run.trace["iteration"][first + 1 :], path)
    ax.axhline(exact.params["V"], color="k", lw=1, ls=":")
    p = run.drift().loc["V", "p"]
    ax.set(xlabel="averaged iterations", title=f"{title}: p = {p:.1g}")
axes[0].set_ylabel("V")
plt.show()

# %% [markdown]
# ## Other starts
#
# A fit can have converged, and to the wrong maximum. `agreement()` fits again from perturbed
# starts. On these data there is a higher maximum, with slow absorption (ka below CL / V) and no
# variance of ka: 3.3 nats above the one that is quoted everywhere. Which of them is meant is a
# matter of pharmacology, not of likelihood; that there are two must be known.

# %%
agreement = saem.multistart(model, 12, seed=1)
print(agreement)
assert agreement.n_maxima >= 2
best, usual = agreement.frame.iloc[0], agreement.frame[agreement.frame["maximum"] == 2].iloc[0]
assert best["ka"] < best["CL"] / best["V"]
assert usual["ka"] > usual["CL"] / usual["V"]
assert abs(usual["below"] - 3.306) < 0.01

fig, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
for _, rows in agreement.frame.groupby("maximum"):
    ax.plot(rows["ka"], rows["llf"], "o", ms=8, alpha=0.6, label=f"starts: {len(rows)}")
ax.set(xscale="log", xlabel="ka", ylabel="log-likelihood")
ax.legend()
plt.show()

# %% [markdown]
# ## `why()`
#
# One call looks at all of this and more: unidentified directions, variances at zero, subjects
# with two modes or chains that do not move, rows with huge residuals, predictions that are not
# finite. Of fits that cost little it tries other starts as well; here they find the
# higher maximum, and nothing else speaks against the fit.

# %%
print(fit.why())
assert list(fit.why().frame["kind"]) == ["higher maximum"]

print(moving.why(n_starts=0))
assert "drift" in set(moving.why(n_starts=0).frame["kind"])

wrong = theophylline.copy()
wrong.loc[wrong.index[37], "conc"] *= 10.0
spoiled = pk_model(wrong).fit(seed=1, progress=False)
causes = spoiled.why(n_starts=0)
print(causes)
assert f"row {wrong.index[37]}" in causes.frame.query("kind == 'outlying row'")["what"].iloc[0]
