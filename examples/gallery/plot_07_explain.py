"""
Explain a prediction
====================

An answer of this classifier has its evidence: which support images were retrieved, with which affinity, and what
the text alone would have said.
"""

from skxma import XMAdapterClassifier
from skxma.datasets import load_emoji
from skxma.inspection import FusionDisplay, RetrievalDisplay

emoji = load_emoji()
shots = (emoji.sets == "noto") | (emoji.sets == "twemoji")
support, labels = emoji.images[shots], emoji.target[shots]
clf = XMAdapterClassifier("tiny").fit(support, labels)

# %%
# Two queries that are answered right and two that are not. Each row: the query, the most probable classes, and the
# support images that were retrieved for it, with their affinity in the image cache and in the text cache. Blue is
# the right class, vermilion a wrong one.

queries, truth = emoji.images[emoji.sets == "noto-v1"], emoji.target[emoji.sets == "noto-v1"]
right = clf.predict(queries) == truth
chosen = [*right.nonzero()[0][:2], *(~right).nonzero()[0][:2]]
RetrievalDisplay.from_estimator(clf, queries[chosen], truth[chosen], support=support)

# %%
# The same in numbers, for one of them. Affinities are cosines; ``indices`` are the positions of the images given to
# ``fit``.

wrong = chosen[-1]
image_affinity, text_affinity, indices = clf.kneighbors(queries[[wrong]], n_neighbors=4)
print(f"query: {truth[wrong]}")
for i, a, b in zip(indices[0], image_affinity[0], text_affinity[0], strict=True):
    print(f"  {labels[i]:24s} image {a:+.2f}  text {b:+.2f}")

zero_shot, fused = clf.zero_shot(queries[[wrong]])[0], clf.predict_proba(queries[[wrong]])[0]
for what, p in (("text alone", zero_shot), ("fused", fused)):
    own = p[clf.classes_ == truth[wrong]][0]
    print(f"{what:10s}: {clf.classes_[p.argmax()]} {p.max():.2f}; the right class {own:.2f}")

# %%
# How the kinds of evidence were weighed is the same for all queries, and was learned: a bar of 1 is the weight that a
# kind has before any image is seen. The text of this encoder was found to be worth less than that.

FusionDisplay.from_estimator(clf)
