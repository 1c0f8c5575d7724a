"""
Answers with a guarantee
========================

A set of classes holds the right one in nine images of ten. No image is set aside for it: those that the model learns
from calibrate the sets too, each by a model that has not seen it.
"""

import matplotlib.pyplot as plt
import numpy as np

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.datasets import load_emoji
from skxma.inspection import CalibrationDisplay, CoverageDisplay

emoji = load_emoji()
X = CLIPEncoder("tiny").fit_transform(emoji.images)

# %%
# The promise holds for new images that are drawn as the labeled ones were, so here the images are shuffled: two of each
# thing to learn from, the others to ask about.

rng = np.random.default_rng(0)
support = np.concatenate([rng.permutation(np.flatnonzero(emoji.target == name))[:2] for name in emoji.target_names])
test = np.setdiff1d(np.arange(len(X)), support)
clf = XMAdapterClassifier("tiny", conformal="cross").fit(X[support], emoji.target[support])

sets = clf.predict_set(X[test], confidence_level=0.9)
own = np.searchsorted(clf.classes_, emoji.target[test])
held = sets[np.arange(len(test)), own].mean()
print(f"{held:.0%} of the sets hold the class; they have {sets.sum(1).mean():.1f} of the 40 classes on average")

# %%
# A sure answer is a set of one class, a doubtful one says between what.

shown = [int(np.flatnonzero(sets.sum(1) == size)[0]) for size in np.unique(sets.sum(1))[:5]]
fig, axes = plt.subplots(1, len(shown), figsize=(2.1 * len(shown), 3.2), layout="constrained", squeeze=False)
for ax, i in zip(axes.flat, shown, strict=True):
    ax.imshow(emoji.images[test[i]])
    ax.set(xticks=[], yticks=[])
    names = clf.classes_[sets[i]]
    ax.set_title(emoji.target[test[i]], fontsize=8)
    ax.set_xlabel("\nor ".join(names[:6]) + ("\n…" if len(names) > 6 else ""), fontsize=7)

# %%
# Labeled images that the model has not seen show whether the levels hold, and what they cost.

CoverageDisplay.from_estimator(clf, X[test], emoji.target[test])

# %%
# And they show whether the probabilities themselves can be believed. The answers that were left out in the fit say it
# before there are such images.

display = CalibrationDisplay.from_estimator(clf, X[test], emoji.target[test], name="new images")
CalibrationDisplay.from_estimator(clf, name="left out", ax=display.ax_)

# %%
# ``conformal="loo"``, the default, needs no further fit, but nothing is proved for it; with "cross" the set of level
# 1 − α misses its class in no more than 2α of all draws and a little, and in practice in α. A set of 99 % needs 99
# labeled images; with fewer, `predict_set` says so.
