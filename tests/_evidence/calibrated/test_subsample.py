import pickle
from dataclasses import replace

import joblib
import numpy as np
import pytest
import torch
from problems import make_problem

from skxma import XMAdapterClassifier, load
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.fit import fit_calibrated
from skxma._sampling import stratified_subsample
from skxma.caches import ImageCache


@pytest.fixture(scope="module")
def problem():
    return make_problem(n_classes=5, shots=300, dim=24, n_test=60, noise=1.2, text_noise=1.5)


SMALL = CalibrationConfig(hard_sample_weight=0.3, max_support=500, subsample_size=200)
LIKE = torch.empty(0, dtype=torch.float64)


def fit(problem, y, config):
    """A report on the cache of a problem, and that cache, with the position of each sample in it."""
    cache, position = ImageCache.build(problem.X, y, 5, text=problem.text)
    text, words = (torch.as_tensor(a).double() for a in (problem.text, problem.words))
    return fit_calibrated(cache, text, words, config, LIKE), cache, position


def test_a_subsample_of_very_many_classes_may_be_all_samples(problem):
    config = replace(SMALL, max_support=20, subsample_size=10, n_epochs=0)
    some = np.arange(0, len(problem.y), 50)
    cache, _ = ImageCache.build(problem.X[some], problem.y[some], 5, text=problem.text)
    text, words = (torch.as_tensor(a).double() for a in (problem.text, problem.words))
    report = fit_calibrated(cache, text, words, config, LIKE)
    assert len(report.hardness) == len(some) == 30


def classifier(problem, **changes):
    changes = {"text_features": problem.text, "vocabulary": problem.words, "n_epochs": 0, **changes}
    return XMAdapterClassifier("precomputed", **changes)


def test_the_subsample_is_as_large_a_part_of_each_class():
    labels = np.repeat([0, 1, 2], [10, 4000, 1_000_000])
    rng = np.random.default_rng(0)
    labels = rng.permutation(labels)
    chosen = np.bincount(labels[stratified_subsample(labels, 4, 2**14, 8)], minlength=4)
    assert chosen[0] == 8
    assert chosen[1] == pytest.approx(4000 * 2**14 / len(labels), abs=1)
    assert chosen[2] == pytest.approx(2**14, rel=0.01)
    assert chosen[3] == 0


def test_a_fit_on_a_subsample_is_nearly_that_on_all(problem):
    part, _, _ = fit(problem, problem.y, SMALL)
    whole, _, _ = fit(problem, problem.y, replace(SMALL, max_support=10**6))
    assert len(part.model.image_cache.keys) == 1500
    assert len(part.model.components) == 1
    queries = torch.as_tensor(problem.X_test).double()
    predicted = [report.model.scorer(LIKE).logits(queries).argmax(1).numpy() for report in (part, whole)]
    accuracy = [(labels == problem.y_test).mean() for labels in predicted]
    assert accuracy[0] >= accuracy[1] - 0.02
    assert (part.left_out.label == whole.left_out.label).mean() > 0.95
    for report in (part, whole):
        assert report.hardness.shape == report.label_noise.shape == report.left_out.probability.shape == (1500,)
    assert np.corrcoef(part.hardness, whole.hardness)[0, 1] > 0.8


def test_wrong_labels_outside_of_the_subsample_are_found(problem):
    y = problem.y.copy()
    wrong = np.random.default_rng(0).choice(len(y), 60, replace=False)
    y[wrong] = (y[wrong] + 2) % 5
    report, cache, position = fit(problem, y, SMALL)
    outside = ~stratified_subsample(cache.labels, 5, 200, 8)[position]
    noise, set_aside = report.label_noise[position], report.model.image_cache.weights[position] == 0
    assert outside[wrong].sum() > 30
    assert np.median(noise[wrong][outside[wrong]]) > 5 * np.median(np.delete(noise, wrong))
    assert set_aside[wrong].mean() > 0.3
    assert set_aside[np.setdiff1d(np.arange(1500), wrong)].mean() < 0.05


@pytest.mark.parametrize("changes", [{}, {"evidence": "paper", "n_epochs": 0, "beta": 5.5}, {"text_features": None}])
def test_top_retrieval_answers_as_exact_retrieval_does(problem, changes):
    top = classifier(problem, retrieval="top", **changes).fit(problem.X, problem.y)
    assert top.model_.key_clusters is not None
    exact = top.predict_proba(problem.X_test), top.open_set_score(problem.X_test)
    held, top.model_ = top.model_, type(top.model_)(**{**vars_of(top.model_), "key_clusters": None})
    wanted = top.predict_proba(problem.X_test), top.open_set_score(problem.X_test)
    np.testing.assert_allclose(exact[0], wanted[0], atol=0.01)
    np.testing.assert_allclose(exact[1], wanted[1], atol=0.011)
    neighbors = top.kneighbors(problem.X_test[:5], 7)
    top.model_ = held
    for a, b in zip(top.kneighbors(problem.X_test[:5], 7), neighbors, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def vars_of(model):
    return {name: getattr(model, name) for name in model.__dataclass_fields__}


def test_exact_retrieval_is_the_default_below_a_size(problem):
    assert classifier(problem).fit(problem.X, problem.y).model_.key_clusters is None


def test_from_a_size_on_keys_are_clustered(problem, monkeypatch):
    monkeypatch.setattr("skxma._estimators.evidence.RETRIEVE_FROM", 1000)
    assert classifier(problem).fit(problem.X, problem.y).model_.key_clusters is not None
    assert classifier(problem, retrieval="exact").fit(problem.X, problem.y).model_.key_clusters is None


@pytest.mark.parametrize("reason", ["a class without images", "too sharp"])
def test_where_a_sample_tells_nothing_about_the_others_all_keys_are_read(problem, reason):
    y, changes = problem.y, {"class_names": dict.fromkeys(range(5))}
    if reason == "too sharp":
        changes = {"beta": 200.0}
    else:
        y = np.where(y == 4, 3, y)
        changes = {"text_features": dict(enumerate(problem.text))}
    clf = classifier(problem, retrieval="top", **changes).fit(problem.X, y)
    assert clf.model_.key_clusters is None
    assert clf.predict_proba(problem.X_test).shape == (300, 5)


def test_clusters_survive_every_way_of_saving(problem, tmp_path):
    clf = classifier(problem, retrieval="top").fit(problem.X, problem.y)
    wanted = clf.predict_proba(problem.X_test)
    joblib.dump(clf, tmp_path / "model.joblib")
    clf.save(tmp_path / "model.skxma")
    copies = [
        pickle.loads(pickle.dumps(clf)),
        joblib.load(tmp_path / "model.joblib"),
        load(tmp_path / "model.skxma"),
    ]
    # what was made ready for predictions is in none of them
    assert (tmp_path / "model.joblib").stat().st_size < 3 * clf.image_cache_.keys.nbytes
    for copy in copies:
        assert copy.model_.key_clusters is not None
        np.testing.assert_array_equal(copy.predict_proba(problem.X_test), wanted)


def test_skops_keeps_clusters_and_nothing_that_runs(problem, tmp_path):
    skops = pytest.importorskip("skops.io")
    clf = classifier(problem, retrieval="top").fit(problem.X, problem.y)
    wanted = clf.predict_proba(problem.X_test)
    skops.dump(clf, tmp_path / "model.skops")
    trusted = skops.get_untrusted_types(file=tmp_path / "model.skops")
    assert not [name for name in trusted if "torch" in name or "Scorer" in name]
    again = skops.load(tmp_path / "model.skops", trusted=trusted)
    np.testing.assert_array_equal(again.predict_proba(problem.X_test), wanted)


def test_a_scorer_is_made_once(problem, monkeypatch):
    clf = classifier(problem).fit(problem.X, problem.y)
    made = []
    make = type(clf.model_)._make_scorer
    monkeypatch.setattr(type(clf.model_), "_make_scorer", lambda self, like: made.append(1) or make(self, like))
    for _ in range(3):
        clf.predict(problem.X_test[:2])
    assert len(made) <= 1
    clf.fit(problem.X, problem.y).predict(problem.X_test[:2])
    assert len(made) >= 1


def test_the_parameter_is_checked(problem):
    with pytest.raises(ValueError, match="'retrieval' parameter"):
        classifier(problem, retrieval="most").fit(problem.X, problem.y)


def test_growing_keeps_the_clusters_up_to_date(problem):
    clf = classifier(problem, retrieval="top").fit(problem.X[:1200], problem.y[:1200])
    clf.partial_fit(problem.X[1200:], problem.y[1200:])
    assert len(clf.model_.key_clusters.order) == len(clf.image_cache_.keys) == 1500
    assert torch.isfinite(torch.as_tensor(clf.predict_proba(problem.X_test))).all()
