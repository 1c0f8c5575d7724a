from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import make_problem
from sklearn.base import clone

from skxma import XMAdapterClassifier
from skxma._evidence.calibrated import metric_selection
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.experts import IMAGE_EXPERTS
from skxma._evidence.calibrated.fusion import FusionParametrization
from skxma.embeddings import Embeddings


def classifier(problem=None, **changes):
    text = None if problem is None else dict(enumerate(problem.text))
    return XMAdapterClassifier("precomputed", text_features=text, random_state=0, **changes)


@pytest.fixture
def problem():
    return make_problem(n_classes=6, shots=6, dim=24)


CONFIG = CalibrationConfig()


@pytest.fixture
def tried(monkeypatch):
    """What of the metrics a fit tries."""
    choices = []

    def spy(support, metric, *others):
        choices.append(metric.choice)
        return once(support, metric, *others)

    once = metric_selection.score_metric
    monkeypatch.setattr(metric_selection, "score_metric", spy)
    return choices


def test_a_warm_fit_of_the_same_images_tries_what_was_chosen_and_says_the_same(problem, tried):
    clf = classifier(problem, vocabulary=problem.words, warm_start=True).fit(problem.X, problem.y)
    cold = clf.predict_proba(problem.X_test)
    assert len(tried) == 3 * len(CONFIG.shrinkages)
    chosen = [one.choice for one in clf.model_.components]
    assert {root for root, _ in chosen} == {"words", "classes", "none"}
    tried.clear()
    clf.fit(problem.X, problem.y)
    assert sorted(tried) == sorted(chosen)
    np.testing.assert_allclose(clf.predict_proba(problem.X_test), cold, atol=1e-3)


def test_a_cold_fit_forgets(problem, tried):
    clf = classifier(problem).fit(problem.X, problem.y)
    first = clf.predict_proba(problem.X_test)
    clf.fit(problem.X[::-1], problem.y[::-1])
    assert len(tried) == 2 * 2 * len(CONFIG.shrinkages)
    np.testing.assert_allclose(clf.predict_proba(problem.X_test), first, atol=1e-6)


@pytest.mark.parametrize("grow", ["fit", "partial_fit"])
@pytest.mark.parametrize("text", [True, False])
def test_images_and_classes_are_added_without_forgetting(problem, grow, text, tried):
    old = problem.y < 5
    clf = classifier(problem if text else None, warm_start=True).fit(problem.X[old], problem.y[old])
    before = clf.score(problem.X_test[problem.y_test < 5], problem.y_test[problem.y_test < 5])
    tried.clear()
    if grow == "fit":
        clf.fit(problem.X, problem.y)
    else:
        clf.partial_fit(problem.X[~old], problem.y[~old])
    assert len(tried) <= CONFIG.max_metrics
    assert clf.classes_.tolist() == list(range(6))
    assert clf.score(problem.X_test[problem.y_test < 5], problem.y_test[problem.y_test < 5]) > before - 0.1
    cold = classifier(problem if text else None).fit(problem.X, problem.y)
    assert clf.score(problem.X_test, problem.y_test) > cold.score(problem.X_test, problem.y_test) - 0.05


def test_what_was_learned_with_less_is_no_bound(problem, tried):
    one_shot = np.arange(len(problem.y)) % 6 == 0
    clf = classifier(problem, warm_start=True).fit(problem.X[one_shot], problem.y[one_shot])
    assert {one.choice for one in clf.model_.components} == {("classes", None), ("none", None)}
    tried.clear()
    clf.fit(problem.X, problem.y)
    assert len(tried) == 2 * len(CONFIG.shrinkages)
    # another number of experts, and no text any more
    clf.set_params(text_features=None).fit(problem.X, problem.y)
    assert clf.text_cache_ is None
    zero_shot = classifier(problem, warm_start=True).fit(problem.X[:1], problem.y[:1])
    assert zero_shot.fit(problem.X, problem.y).model_.components


def test_the_papers_training_goes_on(problem):
    common = {"evidence": "paper", "learning_rate": 3e-3}
    clf = classifier(problem, **common, n_epochs=10, warm_start=True).fit(problem.X, problem.y)
    first = clf.loss_curve_
    clf.fit(problem.X, problem.y)
    assert clf.loss_curve_[0] < first[0]
    assert clf.loss_curve_[-1] < first[-1]
    stays = clf.predict_proba(problem.X_test)
    clf.set_params(n_epochs=0).fit(problem.X, problem.y)
    np.testing.assert_allclose(clf.predict_proba(problem.X_test), stays, atol=1e-5)
    clf.set_params(warm_start=False).fit(problem.X, problem.y)
    untrained = classifier(problem, **common, n_epochs=0).fit(problem.X, problem.y)
    np.testing.assert_allclose(clf.predict_proba(problem.X_test), untrained.predict_proba(problem.X_test), atol=1e-6)


def test_the_papers_keys_of_known_images_stay_and_new_ones_start_as_they_are(problem):
    old = problem.y < 5
    clf = classifier(problem, evidence="paper", n_epochs=10, learning_rate=1e-2, warm_start=True)
    clf.fit(problem.X[old], problem.y[old])
    trained = {row.tobytes(): key for row, key in zip(clf.image_cache_.features, clf.image_cache_.keys, strict=True)}
    moved = [np.abs(np.frombuffer(row, "f4") - key).max() for row, key in trained.items()]
    assert min(moved) > 1e-4
    clf.set_params(n_epochs=0).partial_fit(problem.X[~old], problem.y[~old])
    cache = clf.image_cache_
    for row, key in zip(cache.features, cache.keys, strict=True):
        np.testing.assert_allclose(key, trained.get(row.tobytes(), row), atol=1e-6)


@pytest.mark.parametrize(
    "changes", [{"text_dim": 8}, {"evidence": "calibrated"}, {"alpha": 0.0}, {"fusion_ratio": 1.0}]
)
def test_what_does_not_fit_starts_anew(problem, changes):
    clf = classifier(problem, evidence="paper", n_epochs=2, warm_start=True).fit(problem.X, problem.y)
    clf.set_params(**changes).fit(problem.X, problem.y)
    assert np.isfinite(clf.predict_proba(problem.X_test)).all()
    clf.set_params(text_features=None, text_dim=None).fit(problem.X[:, :20], problem.y)
    assert np.isfinite(clf.predict_proba(problem.X_test[:, :20])).all()


@given(
    st.integers(0, 3),
    st.integers(1, 3),
    st.lists(st.floats(-2, 2), min_size=7, max_size=7),
    st.floats(1e-4, 0.5),
)
def test_a_start_is_the_solution_it_was_made_of(n_text, n_image, logs, rate):
    parametrization = FusionParametrization(np.ones(1 + n_text + n_image), n_text, n_image)
    relative = np.exp(logs[: 1 + n_text + n_image])
    theta = parametrization.theta_from(relative, rate, CONFIG.noise_prior_logit)
    found = parametrization.relative_weights(torch.as_tensor(theta[:-1])).values
    np.testing.assert_allclose(found, relative, rtol=1e-6)
    assert 1 / (1 + np.exp(-(theta[-1] + CONFIG.noise_prior_logit))) == pytest.approx(rate, rel=1e-4)


def test_a_start_by_other_experts_is_none(problem, monkeypatch):
    other = np.concatenate([problem.X[:, ::-1], problem.X], axis=1)
    clf = classifier(problem, warm_start=True).fit([problem.X, other], problem.y)
    assert clf.model_.experts[-3:] == (*IMAGE_EXPERTS[1:], "encoder_2")
    starts = []

    def spy(*given):
        starts.append(warm_theta(*given))
        return starts[-1]

    warm_theta = metric_selection.warm_theta
    monkeypatch.setattr(metric_selection, "warm_theta", spy)
    clf.fit([problem.X, other], problem.y)
    assert any(start is not None for start in starts)
    known = replace(clf.model_, further=[replace(clf.model_.further[0], block=2)])
    clf.model_ = known
    assert known.experts[-1] == "encoder_3"
    starts.clear()
    clf.fit([problem.X, other], problem.y)
    assert all(start is None for start in starts)


@pytest.mark.parametrize("evidence", ["calibrated", "paper"])
def test_embeddings_of_another_encoder_start_anew(problem, evidence):
    clf = classifier(problem, evidence=evidence, warm_start=True, n_epochs=2)
    clf.fit(Embeddings(problem.X, "one"), problem.y)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(24, 24)))[0].astype(np.float32)
    turned, queries = Embeddings(problem.X @ turn, "another"), Embeddings(problem.X_test @ turn, "another")
    clf.set_params(text_features=dict(enumerate(problem.text @ turn)))
    cold = clone(clf).fit(turned, problem.y)
    np.testing.assert_array_equal(clf.fit(turned, problem.y).predict_proba(queries), cold.predict_proba(queries))
    assert (clf.fit(turned, problem.y).predict_proba(queries) != cold.predict_proba(queries)).any()
