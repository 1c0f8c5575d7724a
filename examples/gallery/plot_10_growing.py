"""
Grow and shrink a fitted model
==============================

Images and classes come and go. ``partial_fit`` adds them and ``drop`` forgets them; nothing is encoded twice, and
the result is that of a fit on what remains.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.datasets import load_emoji

emoji = load_emoji()
X = CLIPEncoder("tiny").fit_transform(emoji.images)
support, test = emoji.sets != "noto", emoji.sets == "noto"

# %%
# Start with ten things and add ten at a time. Accuracy is measured on all classes known so far, and on the first ten
# alone: nothing is forgotten, there only is more to confuse them with.

first = emoji.target_names[:10]
clf, known, of_all, of_first = XMAdapterClassifier("tiny"), [], [], []
for start in range(0, 40, 10):
    new = np.isin(emoji.target, emoji.target_names[start : start + 10]) & support
    began = time.perf_counter()
    clf.partial_fit(X[new], emoji.target[new])
    seconds = time.perf_counter() - began
    asked, early = test & np.isin(emoji.target, clf.classes_), test & np.isin(emoji.target, first)
    known.append(len(clf.classes_))
    of_all.append(100 * clf.score(X[asked], emoji.target[asked]))
    of_first.append(100 * clf.score(X[early], emoji.target[early]))
    print(f"{known[-1]} classes ({seconds:.1f} s): {of_all[-1]:.1f} %, on the first ten {of_first[-1]:.1f} %")

fig, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
ax.plot(known, of_all, color="#0072B2", marker="o", label="all classes so far")
ax.plot(known, of_first, color="#D55E00", marker="s", linestyle="--", label="the first ten")
ax.set(xlabel="classes known", ylabel="accuracy (%)", xticks=known, ylim=(0, 102))
ax.legend(frameon=False, loc="lower left")

# %%
# It is the model that one fit on everything gives:

at_once = XMAdapterClassifier("tiny").fit(X[support], emoji.target[support])
difference = np.abs(clf.predict_proba(X[test]) - at_once.predict_proba(X[test])).max()
print(f"largest difference of a probability: {difference:.1e}")

# %%
# A class is forgotten with its images and its text. What was of that class then gets another's name.

of_it = test & (emoji.target == "snail")
before = clf.predict(X[of_it])
after = clf.drop(["snail"]).predict(X[of_it])
print(f"{before[0]} -> {after[0]}; {len(clf.classes_)} classes left")

# %%
# A class needs no image to be known; its name in ``class_names`` makes it one of the answers. How far that goes is
# a matter of the encoder's text, and that of the bundled one is weak: ten things of which there is no image all
# lose to things with images. Among themselves the ten are told apart better than by a guess, which is right one
# time in ten.

few = support & np.isin(emoji.target, emoji.target_names[:30])
named = XMAdapterClassifier("tiny", class_names=list(emoji.target_names)).fit(X[few], emoji.target[few])
unseen = test & ~np.isin(emoji.target, emoji.target_names[:30])
print(f"{len(named.classes_)} classes; those with no image: {named.score(X[unseen], emoji.target[unseen]):.0%} right")
ten = np.flatnonzero(~np.isin(named.classes_, emoji.target_names[:30]))
best = named.classes_[ten[named.predict_proba(X[unseen])[:, ten].argmax(1)]]
print(f"among the ten alone: {np.mean(best == emoji.target[unseen]):.0%} right")
