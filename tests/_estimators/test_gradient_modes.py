"""Fits and predictions inside of torch.no_grad and torch.inference_mode, which surround most scripts that encode."""

import numpy as np
import pytest
import torch
from problems import make_problem

from skxma import XMAdapterClassifier
from skxma.baselines import APETClassifier, LPPlusPlusClassifier, TransCLIPClassifier
from skxma.datasets import load_emoji

PROBLEM = make_problem(n_classes=3, shots=3, dim=8, n_test=6)
ESTIMATORS = {
    "calibrated": XMAdapterClassifier("precomputed", text_features=PROBLEM.text, random_state=0),
    "paper": XMAdapterClassifier(
        "precomputed", evidence="paper", n_epochs=2, text_features=PROBLEM.text, random_state=0
    ),
    "paper without text": XMAdapterClassifier("precomputed", evidence="paper", n_epochs=2, random_state=0),
    "pool": XMAdapterClassifier("precomputed", text_features=PROBLEM.text, unlabeled_label=-1, random_state=0),
    "warm": XMAdapterClassifier("precomputed", evidence="paper", n_epochs=2, warm_start=True, random_state=0),
    "a trained rival": APETClassifier("precomputed", text_features=PROBLEM.text, n_epochs=2, random_state=0),
    "another rival": LPPlusPlusClassifier("precomputed", text_features=PROBLEM.text, n_epochs=2),
    "a rival with a pool": TransCLIPClassifier("precomputed", text_features=PROBLEM.text, unlabeled_label=-1),
}


def answers(clf):
    X, y = np.r_[PROBLEM.X, PROBLEM.X_test[::2]], np.r_[PROBLEM.y, np.full(9, -1)]
    if clf.unlabeled_label is None:
        X, y = PROBLEM.X, PROBLEM.y
    clf.fit(X, y)
    found = [clf.predict_proba(PROBLEM.X_test), clf.zero_shot(PROBLEM.X_test)]
    clf.fit(X, y).partial_fit(PROBLEM.X_test[:2], PROBLEM.y_test[:2]).drop(2)
    if isinstance(clf, XMAdapterClassifier):
        found += [clf.open_set_score(PROBLEM.X_test), *clf.kneighbors(PROBLEM.X_test, 2)]
    return [*found, clf.predict_proba(PROBLEM.X_test)]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_callers_mode_changes_nothing_and_stays(name, mode):
    clf = ESTIMATORS[name]
    wanted = answers(clf.__sklearn_clone__())
    with mode():
        found = answers(clf.__sklearn_clone__())
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("evidence", ["calibrated", "paper"])
def test_a_model_goes_on_in_another_mode(evidence):
    clf = ESTIMATORS[evidence].__sklearn_clone__().set_params(warm_start=True)
    with torch.inference_mode():
        before = clf.fit(PROBLEM.X, PROBLEM.y).predict_proba(PROBLEM.X_test)
    np.testing.assert_array_equal(clf.predict_proba(PROBLEM.X_test), before)
    assert np.isfinite(clf.fit(PROBLEM.X, PROBLEM.y).predict_proba(PROBLEM.X_test)).all()


def test_images_are_encoded_in_any_mode():
    emoji = load_emoji(sets=["noto"])
    X, y = emoji.images[:6], emoji.target[:6]
    clf = XMAdapterClassifier("tiny", vocabulary=["sea", "sky"], evidence="calibrated", memory=False)
    with torch.inference_mode():
        found = clf.fit(X, y).predict_proba(X)
    np.testing.assert_allclose(clf.fit(X, y).predict_proba(X), found, atol=1e-6)
