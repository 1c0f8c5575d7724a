"""
Comparison with rival methods
=============================

``skxma.baselines`` has the methods that the literature compares with, as estimators with the same interface. The same
images, embeddings, texts and support sets go to each; nothing is tuned.
"""

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.baselines import (
    CLAPClassifier,
    GDAClassifier,
    LogisticRegressionProbe,
    TipAdapterFClassifier,
    ZeroShotClassifier,
)
from skxma.datasets import load_emoji
from skxma.inspection import FewShotCurveDisplay

emoji = load_emoji()
X = CLIPEncoder("tiny").fit_transform(emoji.images)
methods = {
    "XMAdapter": XMAdapterClassifier("tiny"),
    "logistic regression": LogisticRegressionProbe("tiny"),
    "GDA": GDAClassifier("tiny"),
    "CLAP": CLAPClassifier("tiny"),
    "Tip-Adapter-F": TipAdapterFClassifier("tiny"),
    "zero-shot": ZeroShotClassifier("tiny"),
}
display = FewShotCurveDisplay.from_estimator(methods, X, emoji.target, shots=(1, 2, 4), n_splits=3)

# %%
# ± is the standard error over three random support sets. In numbers:

for name, by_shots in display.scores.items():
    print(f"{name:20s}", end="")
    for n_shots, scores in by_shots.items():
        print(f"  {n_shots}: {100 * scores.mean():.1f} ± {100 * scores.std() / 2**0.5:.1f}", end="")
    print()

# %%
# The text of this encoder is weak: zero-shot is right one time in four. Tip-Adapter-F and CLAP, which start from it,
# stay behind; GDA, which needs two images per class, equals it at one. Logistic regression sees no text and is ahead at
# one and two shots; so is ``CrossModalLinearProbe``, which is left out here only because a fit takes seconds. The
# default weighs the text by what it is worth on the support set. On an encoder with good text the order is another: the
# page of :doc:`results </results>` has both kinds, all methods and five seeds, and says where rivals are ahead.
#
# Accuracy is not all. The mean probability that a method gives to its answers, against how often they are right:

import numpy as np

from skxma.model_selection import FewShotSplit

train, test = next(FewShotSplit(2, random_state=0).split(X, emoji.target))
print(f"{'2 shots':20s}   says  is right")
for name, method in methods.items():
    probabilities = method.fit(X[train], emoji.target[train]).predict_proba(X[test])
    right = np.mean(method.classes_[probabilities.argmax(1)] == emoji.target[test])
    print(f"{name:20s}  {probabilities.max(1).mean():5.1%}   {right:5.1%}")

# %%
# Logistic regression, as accurate here, is far too modest, GDA far too sure. Of the three, the default's probabilities
# are the nearest to how often it is right.
