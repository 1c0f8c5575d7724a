import numpy as np
import pytest
from problems import make_problem

from skxma import XMAdapterClassifier
from skxma.baselines import TipAdapterClassifier


@pytest.mark.parametrize("kind", [XMAdapterClassifier, TipAdapterClassifier])
@pytest.mark.parametrize("text", [False, True])
def test_dropping_is_fitting_without(kind, text):
    problem = make_problem(n_classes=5, shots=3)
    clf = kind("precomputed", text_features=problem.text if text else None).fit(problem.X, problem.y)
    clf.drop([1, 3])
    keep = ~np.isin(problem.y, [1, 3])
    texts = {c: problem.text[c] for c in (0, 2, 4)} if text else None
    wanted = kind("precomputed", text_features=texts).fit(problem.X[keep], problem.y[keep])
    np.testing.assert_array_equal(clf.classes_, [0, 2, 4])
    np.testing.assert_allclose(clf.predict_proba(problem.X_test), wanted.predict_proba(problem.X_test), atol=1e-6)


def test_what_was_dropped_comes_back_with_its_images_alone():
    problem = make_problem(n_classes=4, shots=3)
    clf = XMAdapterClassifier("precomputed", text_features=problem.text).fit(problem.X, problem.y)
    whole = clf.predict_proba(problem.X_test)
    first, last = problem.y == 0, problem.y == 3
    clf.drop([0, 3]).partial_fit(problem.X[last], problem.y[last])
    np.testing.assert_array_equal(clf.classes_, [1, 2, 3])
    clf.partial_fit(problem.X[first], problem.y[first])
    np.testing.assert_allclose(clf.predict_proba(problem.X_test), whole, atol=1e-6)
    assert len(clf.fit(problem.X, problem.y).classes_) == 4


def test_wrong_drops_are_named_and_change_nothing():
    problem = make_problem(n_classes=3)
    clf = XMAdapterClassifier("precomputed").fit(problem.X, problem.y)
    before = clf.predict_proba(problem.X_test)
    with pytest.raises(ValueError, match=r"\[9\]"):
        clf.drop([9])
    with pytest.raises(ValueError, match="1 classes would remain"):
        clf.drop([0, 1])
    np.testing.assert_array_equal(clf.predict_proba(problem.X_test), before)
