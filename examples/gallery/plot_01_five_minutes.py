"""
Emoji in five minutes
=====================

Forty things, each drawn by five emoji sets. One drawing of each is enough to recognize the others.

The data and the encoder are part of the package, so this runs without a network.
"""

# sphinx_gallery_thumbnail_number = 2

import matplotlib.pyplot as plt

from skxma.datasets import load_emoji

emoji = load_emoji()
print(emoji.images.shape, emoji.target[:6])

# %%
# The first eight things, a row for each set. One set is what we learn from; the other four are the test.

things = emoji.target_names[:8]
sets = ("noto", "twemoji", "fluent-emoji-flat", "emojione", "noto-v1")
fig, axes = plt.subplots(len(sets), len(things), figsize=(9, 6), layout="constrained")
for row, name in zip(axes, sets, strict=True):
    for ax, thing in zip(row, things, strict=True):
        ax.imshow(emoji.images[(emoji.sets == name) & (emoji.target == thing)][0])
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
for ax, thing in zip(axes[0], things, strict=True):
    ax.set_title(thing.replace(" ", "\n", 1), fontsize=9)

# %%
# A classifier is made and fitted like any of scikit-learn's. Images go in as they are: arrays here, paths or PIL
# images elsewhere. The labels are words, so the text encoder knows what they mean.

from skxma import XMAdapterClassifier

shots, test = emoji.sets == "noto", emoji.sets != "noto"
clf = XMAdapterClassifier("tiny").fit(emoji.images[shots], emoji.target[shots])
accuracy = clf.score(emoji.images[test], emoji.target[test])
zero_shot = (clf.classes_[clf.zero_shot(emoji.images[test]).argmax(1)] == emoji.target[test]).mean()
print(f"from the words alone (zero-shot) {zero_shot:.1%}, with one image each {accuracy:.1%}")

# %%
# ``predict_proba`` gives the probabilities. Here are the best three answers for one image of each of six things.

some = test & (emoji.sets == "twemoji")
queries, truth = emoji.images[some][::7], emoji.target[some][::7]
probabilities = clf.predict_proba(queries)
fig, axes = plt.subplots(2, len(queries), figsize=(11, 4.2), layout="constrained", height_ratios=[1, 0.8])
for top, bottom, image, label, row in zip(*axes, queries, truth, probabilities, strict=True):
    top.imshow(image)
    top.set_title(label, fontsize=9)
    top.set_axis_off()
    best = row.argsort()[::-1][:3]
    colors = ["#0072B2" if clf.classes_[c] == label else "#D55E00" for c in best]
    bottom.barh([2, 1, 0], row[best], height=0.3, color=colors)
    for place, c in zip([2, 1, 0], best, strict=True):
        bottom.text(0, place + 0.2, clf.classes_[c], fontsize=8, va="bottom")
    bottom.set(xlim=(0, 1), ylim=(-0.3, 2.8), yticks=[], xticks=[0, 0.5, 1])
    bottom.spines[["top", "right"]].set_visible(False)
    bottom.tick_params(labelsize=8)

# %%
# More drawings of each thing make it better. ``FewShotSplit`` draws random support sets of so many shots, and
# scikit-learn does the rest; every image is encoded once and then remembered.

from sklearn.model_selection import cross_val_score

from skxma.model_selection import FewShotSplit

for n_shots in (1, 2, 4):
    scores = cross_val_score(clf, emoji.images, emoji.target, cv=FewShotSplit(n_shots, random_state=0))
    print(f"{n_shots} shots: {scores.mean():.1%} ± {scores.std() / len(scores) ** 0.5:.1%}")
