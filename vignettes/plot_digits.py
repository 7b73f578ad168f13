"""
A template of handwritten digits
================================

Every handwritten 5 is a smooth deformation of one template, plus noise: the deformable template
model. Its template is estimated together with the variability of the deformations, by SAEM and its
batch versions. The two-timescale study shows templates of USPS digits, by eye sharper after a few
passes when variance is reduced. Here are 50 fives of scikit-learn's 8 x 8 digits, and sharpness
and residual variance are measured.
"""

# %%
# Images and model
# ----------------
#
# 6 x 6 landmarks for the template, 3 x 3 for each of the two directions of a deformation, grey
# values from 0 to 1. The start is the blurred mean image.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import saem
from saem.algorithms import SAEM_MOVES
from saem.estep import MonteCarlo
from saem.schedules import TheoryStep, TwoPhase

digits = load_digits()
fives = digits.images[digits.target == 5][:50] / 16.0
model = saem.models.DeformableTemplate(fives)
start = model.start(np.random.default_rng(0))

# %%
# Seven passes
# ------------
#
# All methods use the same sampler (a path of four states, Laplace approximations found anew after
# the first pass), slow steps of 1, batches of 5, and get seven passes' worth of simulations, first
# passes, anchors and second batches included. Five seeds.

SEEDS, PASSES = range(5), 7
SAMPLER = MonteCarlo(moves=SAEM_MOVES, path=4, refresh=(1,))
TWO = {
    "batch_size": 5,
    "estep": SAMPLER,
    "gamma": TwoPhase(burn_in=0, exploration=1000),
    "averaged": 0.0,
}
algorithms = {
    "SAEM": saem.SAEM(
        estep=SAMPLER, n_burn_in=0, n_exploration=PASSES, n_smoothing=0, averaged=0.0
    ),
    "iTTEM": saem.ITTEM(**TWO, n_epochs=PASSES - 1),
    "vrTTEM": saem.VRTTEM(**TWO, n_epochs=4, step=TheoryStep(1.0)),
    "fiTTEM": saem.FITTEM(**TWO, n_epochs=3, step=TheoryStep(1.0)),
}
runs = {
    name: [
        model.fit(a, start=start, seed=seed, budget=saem.Epochs(PASSES - 0.5), progress=False)
        for seed in SEEDS
    ]
    for name, a in algorithms.items()
}
for name, group in runs.items():
    assert all(run.epochs <= PASSES + 0.01 for run in group), name

grid = np.arange(PASSES + 1)


def residual_variance(run):
    """Residual variance after whole passes; the last record holds."""
    last = np.searchsorted(run.trace["epochs"], grid + 1e-9, side="right") - 1
    return run.trace["sigma2"].to_numpy()[last]


variance = {name: np.array([residual_variance(r) for r in group]) for name, group in runs.items()}
fig, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, rows in variance.items():
    axes.plot(grid, np.median(rows, axis=0), label=name, drawstyle="steps-post")
    axes.fill_between(grid, rows.min(axis=0), rows.max(axis=0), alpha=0.2, step="post", lw=0)
axes.set(
    xlabel="passes (simulations / n)",
    ylabel="residual variance of grey values",
    title="median and range of 5 seeds",
)
axes.legend()

# %%
# Sharpness is the mean squared gradient of the template.

sharpness = {name: np.array([run.sharpness for run in group]) for name, group in runs.items()}
for name in runs:
    print(
        f"{name:7s} residual variance {np.median(variance[name][:, -1]):.4f}, "
        f"sharpness {np.median(sharpness[name]):.4f} "
        f"({sharpness[name].min():.4f} to {sharpness[name].max():.4f})"
    )
assert all(np.all(rows[:, -1] < 0.85 * rows[:, 0]) for rows in variance.values())

fig, panels = plt.subplots(1, 5, figsize=(9, 2.2), layout="constrained")
images = {"mean image": fives.mean(axis=0)}
images |= {name: group[0].template((32, 32)) for name, group in runs.items()}
for axes, (name, image) in zip(panels, images.items(), strict=True):
    axes.imshow(image, cmap="gray_r", vmin=0.0, vmax=1.0)
    axes.set(title=name, xticks=[], yticks=[])

# %%
# By eye all four templates are the same, and by number nearly so: sharpness differs by about 1 %
# between methods, the residual variance by 2 %. Only early is there a difference: after two passes
# vrTTEM and iTTEM have a lower residual variance than SAEM. That variance reduction
# gives the sharper template after a few passes does not reproduce on these small images once the
# simulations are counted.

sharp = np.array([np.median(values) for values in sharpness.values()])
final = np.array([np.median(rows[:, -1]) for rows in variance.values()])
assert sharp.max() < 1.03 * sharp.min()
assert final.max() < 1.05 * final.min()
for name in ("iTTEM", "vrTTEM"):
    assert np.median(variance[name][:, 2]) < np.median(variance["SAEM"][:, 2])

# %%
# Conclusion
# ----------
#
# Templates become sharp within a few passes whatever the method. Batches are ahead after two.
