"""The estimators are composed of parts: no chain of classes, and few calls to where something is decided."""

import sys
from pathlib import Path

import numpy as np
import pytest
from problems import make_problem

import skxma
from skxma import XMAdapterClassifier, baselines
from skxma._evidence.calibrated import fit as calibrated_fit

CLASSIFIERS = [XMAdapterClassifier, *(getattr(baselines, name) for name in baselines.__all__)]
PROBLEM = make_problem(n_classes=3, shots=2, dim=8)
# stands for scikit-learn's where that has none
STAND_IN = "CallbackSupportMixin"


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_two_classes_of_our_own_stand_above_those_of_scikit_learn(kind):
    own = [cls for cls in kind.__mro__ if cls.__module__.startswith("skxma") and cls.__name__ != STAND_IN]
    assert len(own) == 2


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_what_a_fit_sets_ends_in_an_underscore(kind):
    clf = kind("precomputed", text_features=PROBLEM.text).set_params(**short(kind))
    before = set(vars(clf))
    made = set(vars(clf.fit(PROBLEM.X, PROBLEM.y))) - before
    assert made
    assert all(name.endswith("_") and not name.startswith("_") for name in made)


def short(kind):
    wanted = {"n_epochs": 1, "n_steps": 1, "width": 16}
    return {name: value for name, value in wanted.items() if name in kind().get_params()}


def test_a_later_fit_leaves_no_attribute_of_an_earlier_one():
    clf = XMAdapterClassifier("precomputed", text_features=PROBLEM.text, unlabeled_label=-1, n_epochs=0)
    clf.fit(PROBLEM.X, np.r_[PROBLEM.y[:-1], -1])
    assert {"soft_labels_", "n_unlabeled_used_", "unlabeled_cache_", "unlabeled_position_"} <= set(vars(clf))
    clf.set_params(unlabeled_label=None).fit(PROBLEM.X, PROBLEM.y)
    fresh = XMAdapterClassifier("precomputed", text_features=PROBLEM.text, n_epochs=0).fit(PROBLEM.X, PROBLEM.y)
    assert set(vars(clf)) == set(vars(fresh))


def test_the_metric_is_chosen_at_most_four_calls_below_the_fit(monkeypatch):
    stacks = []

    def select_metrics(*arguments):
        frame, names = sys._getframe(1), []
        while frame is not None:
            if frame.f_code.co_filename.startswith(str(Path(skxma.__file__).parent)):
                names.append(frame.f_code.co_name)
            frame = frame.f_back
        stacks.append(names)
        return choose(*arguments)

    choose = calibrated_fit.select_metrics
    monkeypatch.setattr(calibrated_fit, "select_metrics", select_metrics)
    XMAdapterClassifier("precomputed", text_features=PROBLEM.text).fit(PROBLEM.X, PROBLEM.y)
    # and the fourth call is that of the function that chooses
    assert stacks[0] == ["fit_calibrated", "fit", "_fit_support", "fit"]
