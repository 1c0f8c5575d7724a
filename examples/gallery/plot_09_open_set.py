"""
Know when not to answer
=======================

A classifier of twenty things is shown twenty others. Unless it is told otherwise it answers one of its own; with a
``false_rejection_rate`` it may say "unknown".
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.datasets import load_emoji

emoji = load_emoji()
X = CLIPEncoder("tiny").fit_transform(emoji.images)
known = np.isin(emoji.target, emoji.target_names[::2])
support = known & (emoji.sets != "noto")
queries, strangers = known & (emoji.sets == "noto"), ~known

# %%
# The rate is a price: this share of the images that do belong to the classes is refused, as far as the support set
# can tell. The threshold is that quantile of the scores of the support images, each judged by the model without it,
# so no image of anything unknown is needed.

print("price  refused: known  unknown   right answers")
for rate in (0.02, 0.05, 0.1, 0.2, 0.3):
    clf = XMAdapterClassifier("tiny", false_rejection_rate=rate).fit(X[support], emoji.target[support])
    of_known, of_strangers = clf.predict(X[queries]), clf.predict(X[strangers])
    print(
        f"{rate:5.2f}  {np.mean(of_known == 'unknown'):14.0%}  {np.mean(of_strangers == 'unknown'):7.0%}"
        f"  {np.mean(of_known == emoji.target[queries]):14.0%}"
    )

# %%
# With only 20 images of known things to ask for, one image is 5 %.
#
# ``open_set_score`` orders all images by how unlike the known classes they are. The area under the ROC curve is the
# chance that a stranger scores above a known one.

inside, outside = clf.open_set_score(X[queries]), clf.open_set_score(X[strangers])
area = roc_auc_score(np.repeat([0, 1], [len(inside), len(outside)]), np.concatenate([inside, outside]))
print(f"area under the ROC curve {area:.2f}")

fig, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
bins = np.histogram_bin_edges(np.concatenate([inside, outside]), 14)
ax.hist(inside, bins, density=True, color="#0072B2", alpha=0.75, label="of the known things")
ax.hist(outside, bins, density=True, histtype="step", color="#D55E00", linewidth=2, label="of other things")
ax.axvline(clf.reject_threshold_, color="black", linestyle="--", label=f"threshold at a price of {rate}")
ax.set(xlabel="open_set_score", ylabel="density", yticks=[])
ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)

# %%
# Which strangers are refused least? Those that look like something known.

accepted = strangers & (clf.open_set_score(X) < np.quantile(outside, 0.03))
fig, axes = plt.subplots(1, accepted.sum(), figsize=(1.9 * accepted.sum(), 2.5), layout="constrained", squeeze=False)
answers = clf.set_params(false_rejection_rate=None).fit(X[support], emoji.target[support]).predict(X[accepted])
for ax, image, label, answer in zip(axes.flat, emoji.images[accepted], emoji.target[accepted], answers, strict=True):
    ax.imshow(image)
    ax.set(xticks=[], yticks=[])
    ax.set_title(label, fontsize=8)
    ax.set_xlabel(f"taken for\n{answer}", fontsize=8)
