import itertools

import pytest
from problems import make_problem

from skxma import XMAdapterClassifier
from skxma.datasets import load_emoji
from skxma.inspection import labels_in_question


def test_flipped_labels_come_first_with_the_right_suggestion():
    emoji = load_emoji()
    given, flipped = emoji.target.copy(), [7, 60, 133]
    for i in flipped:
        given[i] = emoji.target[(i + 37) % 200]
    clf = XMAdapterClassifier("tiny").fit(emoji.images, given)
    found = labels_in_question(clf, 0.3)
    assert {one.sample for one in found[:3]} == set(flipped)
    for one in found[:3]:
        assert one.label == given[one.sample]
        assert one.suggested == emoji.target[one.sample]
    assert all(a.probability >= b.probability for a, b in itertools.pairwise(found))
    assert labels_in_question(clf, 1.0) == []


def test_the_papers_form_estimates_no_noise():
    problem = make_problem()
    clf = XMAdapterClassifier("precomputed", evidence="paper", n_epochs=0).fit(problem.X, problem.y)
    with pytest.raises(ValueError, match="calibrated"):
        labels_in_question(clf)
