"""
Photographs: what is where in scikit-learn's sample images
==========================================================

scikit-learn brings two photographs. A handful of small crops of each, named in words, make a classifier; applied to
every place of the photographs it draws a map.
"""

# sphinx_gallery_thumbnail_number = 2

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from sklearn.datasets import load_sample_images

from skxma import XMAdapterClassifier

photographs = load_sample_images().images
SIDE = 56

# %%
# For each class, a region of a photograph from which crops are taken: photograph, top, bottom, left, right.

regions = {
    "temple": (0, 80, 340, 90, 335),
    "sky": (0, 0, 190, 340, 640),
    "lake": (0, 225, 300, 340, 540),
    "trees": (0, 290, 427, 345, 640),
    "flower": (1, 85, 355, 175, 440),
    "leaves": (1, 0, 427, 0, 165),
}
rng = np.random.default_rng(0)


def crops(n, photograph, top, bottom, left, right):
    """Cut n random squares out of a region."""
    rows, columns = rng.integers(top, bottom - SIDE + 1, n), rng.integers(left, right - SIDE + 1, n)
    return [photographs[photograph][r : r + SIDE, c : c + SIDE] for r, c in zip(rows, columns, strict=True)]


N_SHOTS, N_TEST = 4, 30
train = [crop for region in regions.values() for crop in crops(N_SHOTS, *region)]
test = [crop for region in regions.values() for crop in crops(N_TEST, *region)]
train_labels, test_labels = np.repeat(list(regions), N_SHOTS), np.repeat(list(regions), N_TEST)

fig, axes = plt.subplots(N_SHOTS, len(regions), figsize=(7, 4.8), layout="constrained")
for ax, crop in zip(axes.T.flat, train, strict=True):
    ax.imshow(crop)
    ax.set_axis_off()
for ax, name in zip(axes[0], regions, strict=True):
    ax.set_title(name)

# %%
# The bundled encoder has seen drawings only, never a photograph. What its words say of these crops is worth little;
# what the crops say of each other is worth a lot. The classifier learns that from the support set.

clf = XMAdapterClassifier("tiny").fit(train, train_labels)
zero_shot = (clf.classes_[clf.zero_shot(test).argmax(1)] == test_labels).mean()
print(f"zero-shot {zero_shot:.0%}, with {N_SHOTS} crops per class {clf.score(test, test_labels):.0%}")

# %%
# The map: a window slides over both photographs, and each place takes the color of the answer. Test crops overlap
# with the places of the support crops, and all are of the same two photographs, so this is easier than photographs of
# other temples and flowers would be.

STEP = 14
palette = ListedColormap(["#D55E00", "#0072B2", "#F0E442", "#56B4E9", "#CC79A7", "#009E73"])
fig, axes = plt.subplots(2, 2, figsize=(9.5, 6.2), layout="constrained")
for (left, right), photograph in zip(axes, photographs, strict=True):
    height, width, _ = photograph.shape
    tops, lefts = range(0, height - SIDE + 1, STEP), range(0, width - SIDE + 1, STEP)
    windows = [photograph[r : r + SIDE, c : c + SIDE] for r in tops for c in lefts]
    answers = np.searchsorted(clf.classes_, clf.predict(windows)).reshape(len(tops), len(lefts))
    left.imshow(photograph)
    right.imshow(photograph.mean(2), cmap="gray")
    near, far = (SIDE - STEP) / 2, (SIDE + STEP) / 2
    extent = (near, lefts[-1] + far, tops[-1] + far, near)
    shown = right.imshow(answers, cmap=palette, vmin=-0.5, vmax=len(regions) - 0.5, alpha=0.7, extent=extent)
    right.set(xlim=left.get_xlim(), ylim=left.get_ylim())
    left.set_axis_off()
    right.set_axis_off()
bar = fig.colorbar(shown, ax=axes, ticks=range(len(regions)), shrink=0.8)
bar.ax.set_yticklabels(clf.classes_)
