"""
Old Faithful: a mixture, by EM and its relatives
================================================

272 eruptions of a geyser: how long each lasted and how long the wait was until the next. Short
eruptions are followed by short waits. We fit Gaussian mixtures, find out how much the start
matters, choose the number of components, and watch EM and incremental EM on their way.
"""

# %%
# Data and a first fit
# --------------------
#
# The model holds the data and the number of components; the algorithm is chosen when it is fitted.
# For a mixture the E-step is exact, so EM is deterministic once the start is known, and it stops
# when the log-likelihood still to be gained is below 1e-9.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse

import saem

X = saem.datasets.load("old_faithful")
model = saem.models.GaussianMixture(X, n_components=2)
fit = model.fit("em", seed=1)
print(fit.summary())

# %%
# The two kinds of eruption: about a third are short (2 minutes, then 54 minutes of waiting), the
# rest long (4.3 and 80 minutes).

order = np.argsort(fit.means[:, 0])
weights, means = fit.weights[order], fit.means[order]
assert fit.converged
assert np.allclose(weights, [0.3559, 0.6441], atol=5e-4)
assert np.allclose(means, [[2.036, 54.48], [4.290, 79.97]], atol=5e-3)


def ellipses(axes, fit, **style):
    """Draw the ellipse of each component that holds 90 % of its mass."""
    for mean, cov in zip(fit.means, fit.covariances, strict=True):
        values, vectors = np.linalg.eigh(cov)
        width, height = 2 * np.sqrt(-2 * np.log(0.1) * values)
        angle = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
        axes.add_patch(Ellipse(mean, width, height, angle=angle, fill=False, **style))


fig, axes = plt.subplots(figsize=(6, 4.2), layout="constrained")
share = fit.predict_proba()[:, order[1]]
points = axes.scatter(X["eruptions"], X["waiting"], c=share, cmap="coolwarm", s=14)
ellipses(axes, fit, lw=1.5, color="0.2")
axes.set(xlabel="eruption [min]", ylabel="wait until the next [min]")
fig.colorbar(points, label="probability of the long kind")

# %%
# Hardly any eruption is in doubt: for all but a few the posterior probability is close to 0 or 1.

doubtful = np.mean((share > 0.05) & (share < 0.95))
assert doubtful < 0.03

# %%
# Does the start matter?
# ----------------------
#
# With two components, no; with more, very much. Each seed below draws another start (k-means++),
# and the maxima reached differ by several nats. A fit takes milliseconds, so the remedy is to fit
# from many starts and keep the best. (`n_starts` is a cheaper form of this that chooses among the
# starts after a few iterations, and can choose wrongly.)


def fits_from_starts(k, n_starts=20):
    """Fits from that many starts, the best first."""
    model = saem.models.GaussianMixture(X, n_components=k)
    fits = [model.fit(saem.EM(n_iter=5000), seed=s, progress=False) for s in range(n_starts)]
    return sorted(fits, key=lambda fit: -fit.llf)


sizes = range(1, 6)
fits = {k: fits_from_starts(k) for k in sizes}

fig, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for k in sizes:
    gaps = [fits[k][0].llf - fit.llf for fit in fits[k]]
    axes.plot(np.sort(gaps), np.arange(1, 21) / 20, drawstyle="steps-post", label=f"{k}")
axes.set(xlabel="nats below the best of 20 starts", ylabel="share of starts")
axes.legend(title="components")

# %%
# One or two components: all 20 starts end at the same maximum. Three: only every fifth start
# finds the best one, 5 nats above the others.

spread = {k: fits[k][0].llf - fits[k][-1].llf for k in sizes}
found = {k: np.mean([fits[k][0].llf - fit.llf < 1e-3 for fit in fits[k]]) for k in sizes}
for k in sizes:
    print(f"{k} components: spread {spread[k]:5.2f} nats, best found by {found[k]:.0%} of starts")
assert spread[1] < 1e-6
assert spread[2] < 1e-6
assert spread[3] > 4
assert 0 < found[3] < 0.5

# %%
# How many components?
# --------------------
#
# The log-likelihood can only grow with the number of components; BIC charges half the logarithm of
# the number of eruptions, in nats, for each parameter. ICL also charges overlap, as it counts
# clusters rather than components of a density.

best = {k: fits[k][0] for k in sizes}
bic = np.array([best[k].bic for k in sizes])
icl = np.array([best[k].icl for k in sizes])
fig, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot(sizes, bic, "o-", label="BIC")
axes.plot(sizes, icl, "s--", label="ICL")
axes.set(xlabel="components", ylabel="criterion (smaller is better)", xticks=list(sizes))
axes.legend()

# %%
# Both choose two. A third component would have to gain 17 nats for its six parameters; with the
# best of its maxima it comes close, with a bad start not nearly.

assert np.all(np.diff([best[k].llf for k in sizes]) > 0)
assert 1 + bic.argmin() == 2
assert 1 + icl.argmin() == 2
penalty = (best[3].n_params - best[2].n_params) * np.log(len(X)) / 2
gain = best[3].llf - best[2].llf
assert 0.9 * penalty < gain < penalty
print(f"a third component gains {gain:.1f} nats and costs {penalty:.1f}")

# %%
# EM and incremental EM on their way
# ----------------------------------
#
# Both are the same three parts with another proxy: EM refreshes the statistics of all rows before
# each step, incremental EM those of one row at a time. Their cost is compared in epochs, that is
# passes over the data, from one common start. A callback notes the log-likelihood once per
# epoch, since incremental EM itself never computes it.

three = saem.models.GaussianMixture(X, n_components=3)
start = three.start(np.random.default_rng(4))


class PerEpoch(saem.Callback):
    """Log-likelihood at the end of each epoch."""

    def __init__(self):
        self.epochs, self.loglik = [0.0], [three.loglik(start)]

    def step(self, step):
        epochs = step.snapshot.n_evals / step.n_individuals
        if epochs >= self.epochs[-1] + 1:
            self.epochs.append(epochs)
            self.loglik.append(three.loglik(step.snapshot.theta))


paths, ends = {}, {}
for name, algorithm in {"em": saem.EM(), "iem": saem.IncrementalEM(n_epochs=160)}.items():
    paths[name] = PerEpoch()
    ends[name] = three.fit(algorithm, seed=0, start=start, callbacks=[paths[name]], progress=False)

top = max(f.llf for f in ends.values())
fig, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for name, path in paths.items():
    axes.semilogy(path.epochs, top + 1e-9 - np.array(path.loglik), label=name.upper())
axes.set(xlabel="epochs", ylabel="nats below the maximum", ylim=(1e-8, None))
axes.legend()

# %%
# Same maximum, and each epoch of EM raises the log-likelihood, as it must. Incremental EM uses
# what it learns from a row at the next row already: it needs fewer passes to the same
# accuracy.


def epochs_to(path, tolerance):
    """Epochs until the log-likelihood is so close to the maximum."""
    gap = top - np.array(path.loglik)
    return np.array(path.epochs)[np.flatnonzero(gap < tolerance)[0]]


assert abs(ends["em"].llf - ends["iem"].llf) < 1e-6
assert np.all(np.diff(paths["em"].loglik) > -1e-9)
cost = {name: epochs_to(path, 1e-4) for name, path in paths.items()}
print(f"epochs to 1e-4 nats: EM {cost['em']:.0f}, incremental EM {cost['iem']:.0f}")
assert cost["iem"] < cost["em"]

# %%
# Conclusion
# ----------
#
# Two kinds of eruption, found from any start. More components raise the likelihood less than they
# cost, and with them starts begin to matter. EM and incremental EM end at the same maximum,
# incremental EM after fewer passes over the data.
