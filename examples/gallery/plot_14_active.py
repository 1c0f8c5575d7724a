"""
Which images to label
=====================

120 images, none of them labeled, and patience for 80 labels: which images should have them? `suggest` says it before
there is a model, and asks the model from then on.
"""

from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.active import suggest
from skxma.datasets import load_emoji

emoji = load_emoji()
X = CLIPEncoder("tiny").fit_transform(emoji.images)

# %%
# Two images of each of the 40 things are kept for a test; the other 120 are the pool, whose labels nobody has seen.

rng = np.random.default_rng(0)
kept = [rng.permutation(np.flatnonzero(emoji.target == name))[:2] for name in emoji.target_names]
is_test = np.isin(np.arange(len(X)), kept)
pool, answers = X[~is_test], emoji.target[~is_test]
clf = XMAdapterClassifier("tiny", class_names=emoji.target_names, random_state=0)

# %%
# In the first round there is no label. The images are clustered, and the most central one of each cluster is suggested.

first = suggest(clf, pool, 40, random_state=0)
fig, axes = plt.subplots(4, 10, figsize=(8, 3.4), layout="constrained")
for ax, row in zip(axes.flat, first, strict=False):
    ax.imshow(emoji.images[~is_test][row])
    ax.set_axis_off()

# %%
# A person labels what is suggested: here, that is a look at ``answers``. Three rounds, with a fit in between; and the
# same with images drawn at random.


def rounds(strategy, seed=0):
    """Accuracy on the test, and classes that have an image, after each round."""
    labeled, model, found = np.empty(0, dtype=int), clf, []
    for n in (40, 20, 20):
        rest = np.setdiff1d(np.arange(len(pool)), labeled)
        labeled = np.append(labeled, rest[suggest(model, pool[rest], n, strategy=strategy, random_state=seed)])
        model = clone(clf).fit(pool[labeled], answers[labeled])
        found.append((model.score(X[is_test], emoji.target[is_test]), len(set(answers[labeled]))))
    return model, np.array(found)


model, chosen = rounds("auto")
drawn = np.mean([rounds("random", seed)[1] for seed in range(2)], axis=0)

fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for found, label, marker in ((chosen, "suggested", "o"), (drawn, "at random", "s")):
    axes[0].plot([40, 60, 80], 100 * found[:, 0], marker=marker, label=label)
    axes[1].plot([40, 60, 80], found[:, 1], marker=marker, label=label)
axes[0].set(xlabel="labels", ylabel="accuracy on the test (%)")
axes[1].set(xlabel="labels", ylabel="classes with an image, of 40")
for ax in axes:
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)

# %%
# The model is saved as any other.

model.save(Path(mkdtemp()) / "emoji.skxma")
print(f"{chosen[-1, 0]:.0%} of the test with 80 labels that were asked for, {drawn[-1, 0]:.0%} with random ones")

# %%
# Suggested images are not drawn like those that come later, and probabilities that were calibrated on them may be off:
# `random_share` mixes in some that are (see the guide).
