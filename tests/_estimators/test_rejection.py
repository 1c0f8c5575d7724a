import warnings

import joblib
import numpy as np
import pytest
from problems import make_problem
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma._evidence.calibrated.model import CalibratedScorer
from skxma._evidence.fitted import LeftOutPredictions
from skxma.datasets import load_emoji


@pytest.fixture(scope="module")
def emoji():
    data = load_emoji()
    return CLIPEncoder("tiny").encode_image(data.images), data.target, data.sets


def known_half(emoji, styles):
    _, y, sets = emoji
    known = np.isin(y, np.unique(y)[::2])
    support = known & np.isin(sets, styles)
    return support, ~np.isin(sets, styles), known


@pytest.mark.parametrize("evidence", ["calibrated", "paper"])
def test_things_of_no_class_score_higher(emoji, evidence):
    X, y, sets = emoji
    support, rest, known = known_half(emoji, np.unique(sets)[:3])
    clf = XMAdapterClassifier("tiny", evidence=evidence).fit(X[support], y[support])
    assert roc_auc_score(~known[rest], clf.open_set_score(X[rest])) > (0.75 if evidence == "calibrated" else 0.55)


def test_about_the_wanted_share_of_known_things_is_rejected_and_more_of_the_others(emoji, tmp_path):
    X, y, sets = emoji
    support, rest, known = known_half(emoji, np.unique(sets)[:3])
    clf = XMAdapterClassifier("tiny", false_rejection_rate=0.2).fit(X[support], y[support])
    answers = clf.predict(X)
    assert set(answers) <= {*clf.classes_, "unknown"}
    rejected = answers == "unknown"
    assert np.mean(rejected[rest & known]) == pytest.approx(0.2, abs=0.15)
    assert np.mean(rejected[rest & ~known]) > 2 * np.mean(rejected[rest & known])
    joblib.dump(clf, tmp_path / "m")
    np.testing.assert_array_equal(joblib.load(tmp_path / "m").predict(X), answers)
    always = XMAdapterClassifier("tiny").fit(X[support], y[support])
    np.testing.assert_array_equal(always.predict(X)[~rejected], answers[~rejected])


def test_a_smaller_rate_rejects_less():
    problem = make_problem(shots=6)
    thresholds = [
        XMAdapterClassifier("precomputed", false_rejection_rate=rate).fit(problem.X, problem.y).reject_threshold_
        for rate in (0.5, 0.2, 0.05)
    ]
    assert thresholds == sorted(thresholds)
    assert thresholds[0] < thresholds[2] < np.inf


def test_one_shot_knows_a_threshold_too(emoji):
    X, y, sets = emoji
    support, rest, known = known_half(emoji, np.unique(sets)[:1])
    clf = XMAdapterClassifier("tiny", false_rejection_rate=0.1).fit(X[support], y[support])
    rejected = clf.predict(X) == "unknown"
    assert np.mean(rejected[rest & known]) < 0.25
    assert np.mean(rejected[rest & ~known]) > np.mean(rejected[rest & known])


@pytest.mark.property
@pytest.mark.parametrize("rate", [0.1, 0.25])
def test_no_more_than_the_rate_of_exchangeable_images_is_refused(rate):
    # 19 labeled images: both rates are multiples of 1/20, where the share is exactly the rate
    rng = np.random.default_rng(0)
    n_draws, refused = 4000, 0
    for scores in rng.standard_normal((n_draws, 20)):
        answers = LeftOutPredictions(np.zeros(19), np.ones(19), scores[:19, None], np.ones(1), np.zeros((19, 2)))
        refused += scores[19] > answers.rejection_threshold(rate)
    low, high = binom.ppf([0.0005, 0.9995], n_draws, rate)
    assert low <= refused <= high


def test_a_rate_that_so_few_images_cannot_give_is_said():
    problem = make_problem(n_classes=5, shots=1)
    with pytest.warns(UserWarning, match=r"0\.1 needs 9 different labeled images and there are 5: up to 0\.17"):
        clf = XMAdapterClassifier("precomputed", false_rejection_rate=0.1).fit(problem.X, problem.y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        enough = XMAdapterClassifier("precomputed", false_rejection_rate=1 / 6).fit(problem.X, problem.y)
    assert clf.reject_threshold_ == enough.reject_threshold_ < np.inf


def test_a_group_is_one_image_for_a_rate():
    problem = make_problem(n_classes=4, shots=4)
    copies = np.concatenate([problem.X, problem.X + 1e-3])
    clf = XMAdapterClassifier("precomputed", false_rejection_rate=0.05)
    with pytest.warns(UserWarning, match=r"needs 19 different labeled images and there are 16"):
        clf.fit(copies, np.tile(problem.y, 2), groups=np.tile(np.arange(16), 2))


@pytest.mark.parametrize(("label", "said"), [(2, "one of the classes"), ("none", "another kind")])
def test_an_unknown_label_must_be_new_and_of_the_labels_kind(label, said):
    problem = make_problem()
    with pytest.raises(ValueError, match=said):
        XMAdapterClassifier("precomputed", false_rejection_rate=0.1, unknown_label=label).fit(problem.X, problem.y)


@pytest.mark.parametrize("evidence", ["calibrated", "paper"])
def test_what_is_refused_is_what_scores_above_the_threshold(evidence):
    problem = make_problem(shots=4)
    clf = XMAdapterClassifier(
        "precomputed", text_features=problem.text, evidence=evidence, n_epochs=5, false_rejection_rate=0.3
    ).fit(problem.X, problem.y)
    refused = clf.open_set_score(problem.X_test) > clf.reject_threshold_
    assert 0 < refused.sum() < len(refused)
    answers = np.where(refused, -1, clf.classes_[clf.predict_proba(problem.X_test).argmax(1)])
    np.testing.assert_array_equal(clf.predict(problem.X_test), answers)


def test_refusing_passes_over_the_images_once(emoji, monkeypatch):
    X, y, sets = emoji
    support, rest, _ = known_half(emoji, np.unique(sets)[:2])
    clf = XMAdapterClassifier("tiny", false_rejection_rate=0.2).fit(X[support], y[support])
    passes = []
    fused = CalibratedScorer.fused
    monkeypatch.setattr(
        CalibratedScorer,
        "fused",
        lambda self, x, *given, **more: passes.append(len(x)) or fused(self, x, *given, **more),
    )
    clf.predict(X[rest])
    assert passes == [rest.sum()]


@pytest.mark.parametrize(("label", "said"), [(2, "one of the classes"), ("none", "another kind")])
def test_a_label_that_is_set_after_a_fit_is_checked_too(label, said):
    problem = make_problem()
    clf = XMAdapterClassifier("precomputed", false_rejection_rate=0.1).fit(problem.X, problem.y)
    with pytest.raises(ValueError, match=said):
        clf.set_params(unknown_label=label).predict(problem.X_test)
