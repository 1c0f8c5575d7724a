"""
A pipeline: encoder, PCA, classifier
====================================

The encoder is a transformer and the classifier a classifier, so anything of scikit-learn goes between them. This one
reduces the embeddings to a few dimensions first. What that costs is measured here: accuracy, and the text.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.datasets import load_emoji
from skxma.model_selection import FewShotSplit

# %%
# After PCA the embeddings are no longer the encoder's, so its text does not fit them. ``encoder="precomputed"`` takes
# any numbers; without ``text_features`` the class means stand for the text.

emoji = load_emoji()
pipeline = make_pipeline(CLIPEncoder("tiny"), PCA(32), XMAdapterClassifier("precomputed"))
pipeline.fit(emoji.images[emoji.sets != "noto"], emoji.target[emoji.sets != "noto"])
print(pipeline.predict(emoji.images[emoji.sets == "noto"])[:4])

# %%
# A cross-validation over the whole pipeline encodes each image once, however many folds and candidates there are:
# the encoder remembers what it has seen, by content.

cv = FewShotSplit(4, random_state=0)
dimensions = (4, 8, 16, 32, 64, 128)
scores = [
    cross_val_score(pipeline.set_params(pca__n_components=d), emoji.images, emoji.target, cv=cv) for d in dimensions
]
without_pca = make_pipeline(CLIPEncoder("tiny"), XMAdapterClassifier("precomputed"))
without_text = cross_val_score(without_pca, emoji.images, emoji.target, cv=cv).mean()
with_text = cross_val_score(XMAdapterClassifier("tiny"), emoji.images, emoji.target, cv=cv).mean()

means, errors = np.mean(scores, 1) * 100, np.std(scores, 1) / 2 * 100
fig, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
ax.errorbar(dimensions, means, errors, color="#0072B2", marker="o", capsize=3, label="PCA, no text")
ax.axhline(without_text * 100, color="#D55E00", linestyle="--", label="all 128 dimensions, no text")
ax.axhline(with_text * 100, color="#009E73", label="all 128 dimensions and the text")
ax.set_xscale("log", base=2)
ax.set_xticks(dimensions, [str(d) for d in dimensions])
ax.set(xlabel="dimensions kept", ylabel="accuracy (%), 4 shots")
ax.legend(frameon=False, loc="lower right")

# %%
# Few dimensions are enough for most of it. It is not a way to be more accurate: the classifier finds the directions
# that matter by itself, with the labels, and PCA takes the words away.

for d, mean in zip(dimensions, means, strict=True):
    print(f"{d:4d} dimensions {mean:.1f} %")
print(f" all dimensions {100 * without_text:.1f} %, and the text {100 * with_text:.1f} %")
