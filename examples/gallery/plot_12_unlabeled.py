"""
Images without labels count too
=================================

Two or four labeled digits of each kind, and hundreds that nobody has labeled. What do these bring, and what does it
cost when half of them are something else?
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.datasets import load_emoji

digits = load_digits()
images = np.kron(255 - digits.images * 15.9, np.ones((4, 4))).astype(np.uint8)
encoder = CLIPEncoder("tiny")
X, y = encoder.encode_image(list(images)), digits.target
strangers = encoder.encode_image(load_emoji().images)
names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

# %%
# The label -1 says that there is none. The first images of each digit are the shots, every second one of the rest is
# given without its label, and the others are the test.

SHOTS, SEEDS = (2, 4), range(2)


def draw(n_shots, seed):
    order = np.random.default_rng(seed).permutation(len(y))
    shots = np.concatenate([order[y[order] == digit][:n_shots] for digit in range(10)])
    rest = np.setdiff1d(order, shots)
    return shots, rest[::2], rest[1::2]


def fit(labeled, labels, unlabeled):
    clf = XMAdapterClassifier("tiny", class_names=names, unlabeled_label=-1)
    return clf.fit(np.concatenate([labeled, unlabeled]), np.concatenate([labels, np.full(len(unlabeled), -1)]))


accuracy = {"labels alone": [], "with the pool": [], "with half as many emoji": []}
for n_shots in SHOTS:
    found = {name: [] for name in accuracy}
    for seed in SEEDS:
        shots, pool, test = draw(n_shots, seed)
        some = X[pool[:200]]
        for name, unlabeled in zip(accuracy, (X[:0], some, np.concatenate([some, strangers[:100]])), strict=True):
            found[name].append(fit(X[shots], y[shots], unlabeled).score(X[test], y[test]))
    for name, scores in found.items():
        accuracy[name].append(np.mean(scores))
        print(f"{n_shots} shots, {name}: {np.mean(scores):.1%}")

fig, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
for (name, scores), marker, color in zip(accuracy.items(), "osD", ("#0072B2", "#D55E00", "#009E73"), strict=True):
    ax.plot(SHOTS, scores, marker=marker, color=color, label=name)
ax.set(xlabel="labeled images per digit", ylabel="accuracy", xticks=SHOTS)
ax.legend(frameon=False)

# %%
# ``n_unlabeled_used_`` is the number of images that the model learned from, the probable digits; ``soft_labels_`` holds
# the class probabilities of each.

shots, pool, _ = draw(4, 0)
clf = fit(X[shots], y[shots], np.concatenate([X[pool[:200]], strangers[:100]]))
print(f"learned from {clf.n_unlabeled_used_} of 300")
answers = clf.soft_labels_[:200]
right, says = np.mean(answers.argmax(1) == y[pool[:200]]), answers.max(1).mean()
print(f"of the 200 digits right about {right:.0%}, at a mean probability of {says:.2f}")
