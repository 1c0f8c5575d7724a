"""NaN for a missing label, as in scikit-activeml, wherever `y` is read."""

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score

from skxma import CLIPEncoder, XMAdapterClassifier, XMAdapterSearchCV
from skxma.datasets import load_emoji
from skxma.model_selection import FewShotSplit, UnlabeledInTraining


@pytest.fixture(scope="module")
def some():
    """Embeddings of ten classes; labels from 0 on, as floats, and with NaN for half of them."""
    emoji = load_emoji()
    names = list(emoji.target_names[:10])
    rows = np.flatnonzero(np.isin(emoji.target, names))
    target = np.searchsorted(names, emoji.target[rows]).astype(float)
    y = np.where(np.arange(len(rows)) % 2, np.nan, target)
    clf = XMAdapterClassifier("tiny", class_names=names, unlabeled_label=np.nan, random_state=0)
    return CLIPEncoder("tiny").encode_image(emoji.images[rows]), target, y, clf


def test_a_growing_support_set(some):
    X, _, y, clf = some
    whole = clf.fit(X, y).predict_proba(X)
    clf.fit(X[:30], y[:30]).partial_fit(X[30:], y[30:])
    assert np.allclose(clf.predict_proba(X), whole)
    assert len(clf.soft_labels_) == np.isnan(y).sum()


def test_a_search(some):
    X, target, y, clf = some
    found = XMAdapterSearchCV(clf, {"alpha": [0.5, 1.0]}, cv=2).fit(X, y)
    assert found.score(X, target) > 0.8
    assert len(found.best_estimator_.soft_labels_) == np.isnan(y).sum()


@pytest.mark.parametrize(
    "splits", [UnlabeledInTraining(2, unlabeled_label=np.nan), FewShotSplit(1, n_splits=2, unlabeled_label=np.nan)]
)
def test_splits(some, splits):
    X, _, y, clf = some
    for train, test in splits.split(X, y):
        assert np.isnan(y[train]).sum() == np.isnan(y).sum()
        assert not np.isnan(y[test]).any()
    assert np.isfinite(cross_val_score(clf, X, y, cv=splits)).all()
