"""
Find label errors
=================

Twelve of two hundred labels are made wrong on purpose. The fit judges every support image by the model without it,
and lists those whose label is probably wrong.
"""

import numpy as np

from skxma import XMAdapterClassifier
from skxma.datasets import load_emoji
from skxma.inspection import HardSamplesDisplay, labels_in_question

emoji = load_emoji()
rng = np.random.default_rng(0)
flipped = rng.choice(len(emoji.target), 12, replace=False)
given = emoji.target.copy()
for i in flipped:
    given[i] = rng.choice(emoji.target_names[emoji.target_names != given[i]])

# %%
# Nothing but ``fit`` is needed.

clf = XMAdapterClassifier("tiny").fit(emoji.images, given)
found = labels_in_question(clf)
print(f"{len(found)} labels in question; estimated share of wrong ones {clf.noise_rate_:.1%}, true {12 / 200:.1%}")
for one in found:
    truth = "was flipped" if one.sample in flipped else "was not"
    print(
        f"{one.probability:.2f}  {one.label:22s} rather {one.suggested:22s} ({truth}; it is {emoji.target[one.sample]})"
    )

# %%
# Below the threshold of ½ the order still counts: it is the order in which to look at images again. Of the first n,
# how many were flipped?

order = np.argsort(-clf.label_noise_)
for n in (6, 12, 24, 48):
    print(f"the first {n:2d}: {np.isin(order[:n], flipped).sum():2d} of the 12")

# %%
# The images themselves. The title is the label that was given, vermilion where the model without the image says
# something else.

HardSamplesDisplay.from_estimator(clf, emoji.images, by="label_noise")

# %%
# A fit sets aside the samples that are more likely mislabeled than not, and goes on without them, so wrong labels
# cost little. Asking for the test: one set of drawings is held out, and a fifth of the labels of the others are
# wrong.

from skxma.baselines import LogisticRegressionProbe

train, test = emoji.sets != "noto-v1", emoji.sets == "noto-v1"
labels = emoji.target[train].copy()
for i in rng.choice(len(labels), len(labels) // 5, replace=False):
    labels[i] = rng.choice(emoji.target_names[emoji.target_names != labels[i]])
for name, method in (
    ("XMAdapter", XMAdapterClassifier("tiny")),
    ("logistic regression", LogisticRegressionProbe("tiny")),
):
    clean = method.fit(emoji.images[train], emoji.target[train]).score(emoji.images[test], emoji.target[test])
    noisy = method.fit(emoji.images[train], labels).score(emoji.images[test], emoji.target[test])
    print(f"{name:20s} {clean:.1%} with right labels, {noisy:.1%} with a fifth of them wrong")
