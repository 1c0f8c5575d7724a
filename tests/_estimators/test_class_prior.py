"""Class frequencies of new images: given, or estimated from the batch."""

import numpy as np
import pandas as pd
import pytest
from problems import make_problem

from skxma import XMAdapterClassifier
from skxma.baselines import LogisticRegressionProbe, ZeroShotClassifier


@pytest.fixture(scope="module")
def problem():
    return make_problem(n_classes=4, shots=4, n_test=60)


@pytest.fixture(scope="module")
def clf(problem):
    names = np.array(["ant", "bee", "cat", "dog"])
    model = XMAdapterClassifier("precomputed", class_names=names, text_features=problem.text, vocabulary=problem.words)
    return model.fit(problem.X, names[problem.y])


def skewed_batch(problem, counts):
    rows = [np.flatnonzero(problem.y_test == c)[:count] for c, count in enumerate(counts)]
    return np.concatenate(rows)


def test_shares_multiply_the_probabilities_whatever_holds_them(clf, problem):
    shares = [0.7, 0.1, 0.2, 0.0]
    expected = clf.predict_proba(problem.X_test) * shares
    expected /= expected.sum(1, keepdims=True)
    by_label = dict(zip(clf.classes_[::-1], shares[::-1], strict=True))
    for given in (shares, np.array(shares), by_label, pd.Series(by_label)):
        np.testing.assert_allclose(clf.predict_proba(problem.X_test, class_prior=given), expected, atol=1e-12)
        np.testing.assert_array_equal(clf.predict(problem.X_test, given), clf.classes_[expected.argmax(1)])


def test_equal_shares_and_a_balanced_batch_change_nothing(clf, problem):
    plain = clf.predict_proba(problem.X_test)
    np.testing.assert_allclose(clf.predict_proba(problem.X_test, class_prior=[0.25] * 4), plain, atol=1e-12)
    np.testing.assert_array_equal(clf.predict_proba(problem.X_test, class_prior="batch"), plain)


def test_an_unbalanced_batch_gains(clf, problem):
    batch = skewed_batch(problem, [60, 30, 6, 2])
    X, own = problem.X_test[batch], problem.y_test[batch]
    plain, shifted = clf.predict_proba(X), clf.predict_proba(X, class_prior="batch")
    assert (shifted.argmax(1) == own).mean() > (plain.argmax(1) == own).mean()
    rows = np.arange(len(own))
    assert np.log(shifted[rows, own]).mean() > np.log(plain[rows, own]).mean() + 0.05
    np.testing.assert_array_equal(clf.predict(X, class_prior="batch"), clf.classes_[shifted.argmax(1)])


def test_which_images_are_unknown_does_not_depend_on_the_prior(problem):
    clf = XMAdapterClassifier("precomputed", text_features=problem.text, false_rejection_rate=0.3)
    clf.fit(problem.X, problem.y)
    shares = [0.97, 0.01, 0.01, 0.01]
    before, after = clf.predict(problem.X_test), clf.predict(problem.X_test, class_prior=shares)
    np.testing.assert_array_equal(before == -1, after == -1)
    known = after != -1
    np.testing.assert_array_equal(after[known], clf.predict_proba(problem.X_test, shares).argmax(1)[known])
    assert (before != after).any()


def test_a_prior_takes_the_place_of_what_was_learned_from_the_numbers_of_images(problem):
    kept = np.concatenate([np.flatnonzero(problem.y == c)[: 4 if c < 2 else 1] for c in range(4)])
    fits = [kind("precomputed", text_features=problem.text) for kind in (LogisticRegressionProbe, ZeroShotClassifier)]
    rows = np.arange(len(problem.y_test))
    for clf in fits:
        clf.fit(problem.X[kept], problem.y[kept])
        plain, equal = clf.predict_proba(problem.X_test), clf.predict_proba(problem.X_test, class_prior=[0.25] * 4)
        if isinstance(clf, ZeroShotClassifier):
            np.testing.assert_allclose(plain, equal, atol=1e-12)
        else:
            assert plain[:, :2].sum(1).mean() > 0.6
            assert equal[:, :2].sum(1).mean() == pytest.approx(0.5, abs=0.08)
            assert np.log(equal[rows, problem.y_test]).mean() > np.log(plain[rows, problem.y_test]).mean()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("uniform", "'batch', a share for each of the 4"),
        ([0.5, 0.5], r"has shape \(2,\)"),
        ([0.5, 0.5, 0.5, -0.5], r"not negative; got \('dog', -0.5\)"),
        ([0.5, np.nan, 0.5, 0], "finite"),
        ([0.2, 0.2, 0.2, 0.2], "sums to 0.8"),
        ([60, 30, 6, 4], "Divide counts"),
        (["a", "b", "c", "d"], "must hold numbers"),
        ({"ant": 1.0}, "no share of 'bee', 'cat', 'dog'"),
        ({"ant": 0.5, "eel": 0.5}, "shares of 'eel', which the model does not know"),
    ],
)
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_wrong_shares_are_refused_before_images_are_encoded(clf, given, message, method):
    with pytest.raises(ValueError, match=message):
        getattr(clf, method)("no image is looked at", class_prior=given)
