"""What holds for every finite input, of the estimator in both evidences and of every rival."""

import numpy as np
import pytest
import torch
from hostile import PROPERTY, Hostile, each_evidence, each_rival, hostile_problems, ours, rival
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import make_problem

from skxma import XMAdapterClassifier
from skxma._estimators.base import BaseFewShotClassifier

TOLERANCE = 1e-5
pytestmark = PROPERTY
numbers = st.fixed_dictionaries(
    {},
    optional={
        "alpha": st.sampled_from([0.0, 1e-8, 1.0, 100.0]),
        "beta": st.sampled_from([1e-8, 1.0, 100.0]),
        "fusion_ratio": st.sampled_from([0.0, 1e-9, 0.5, 1.0]),
        "hard_sample_weight": st.sampled_from([0.0, 1.0, 100.0]),
    },
)


def check_answers(clf: BaseFewShotClassifier, queries: np.ndarray) -> np.ndarray:
    """Probabilities, which are some, with the most probable class that all other answers name too."""
    proba = clf.predict_proba(queries)
    assert np.isfinite(proba).all()
    assert (proba >= 0).all()
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-12)
    decision = clf.decision_function(queries)
    assert np.isfinite(decision).all()
    best = (decision > 0).astype(int) if decision.ndim == 1 else decision.argmax(1)
    np.testing.assert_array_equal(proba.argmax(1), best)
    np.testing.assert_array_equal(clf.predict(queries), clf.classes_[best])
    assert np.isfinite(clf.zero_shot(queries)).all()
    return proba


@each_evidence
@settings(max_examples=40, deadline=None)
@given(problem=hostile_problems(weighted=True), numbers=numbers)
def test_any_finite_embeddings_have_probabilities(evidence, problem, numbers):
    clf = ours(problem, evidence, **numbers).fit(problem.X, problem.y, problem.weights)
    assert check_answers(clf, problem.queries).shape == (len(problem.queries), problem.n_classes)
    for name in ("hardness_", "label_noise_", "left_out_probability_"):
        values = getattr(clf, name)
        assert values.shape == problem.y.shape
        assert np.isfinite(values).all(), name
    assert ((clf.label_noise_ >= 0) & (clf.label_noise_ <= 1)).all()
    assert np.isfinite([clf.alpha_, clf.beta_, clf.fusion_ratio_, clf.logit_scale_, clf.noise_rate_]).all()
    assert np.isfinite(clf.loss_curve_).all()
    assert np.isfinite(clf.open_set_score(problem.queries)).all()
    image, text, index = clf.kneighbors(problem.queries)
    assert np.isfinite(image).all()
    assert np.isfinite(text).all()
    assert ((index >= 0) & (index < len(problem.y))).all()


@settings(max_examples=40, deadline=None)
@given(problem=hostile_problems(weighted=True, n_queries=8), pool_is_tested=st.booleans())
def test_any_finite_pool_has_probabilities(problem, pool_is_tested):
    pool, queries = (problem.queries, problem.X) if pool_is_tested else (problem.queries[:6], problem.queries[4:])
    X, y = np.concatenate([problem.X, pool]), np.concatenate([problem.y, np.full(len(pool), -1)])
    weights = None if problem.weights is None else np.concatenate([problem.weights, np.ones(len(pool))])
    clf = ours(problem, "calibrated", unlabeled_label=-1).fit(X, y, weights)
    check_answers(clf, queries)
    np.testing.assert_allclose(clf.soft_labels_.sum(1), 1, atol=1e-5)
    assert np.isfinite(clf.soft_labels_).all()


def test_one_labeled_image_and_a_pool_that_harms_zero_shot_have_probabilities():
    text = np.array([[0.13, -0.13, 0.64], [0.1, -0.54, 0.36]])
    pool = [text[0], text[1], [1.3, 0.95, -0.7], [-1.27, -0.62, 0.04], [-2.33, -0.22, -1.25], [-0.73, -0.54, -0.32]]
    clf = XMAdapterClassifier("precomputed", text_features=text, unlabeled_label=-1)
    clf.partial_fit([text[0], *pool], [0] + [-1] * 6, classes=[0, 1])
    assert check_answers(clf, np.asarray(pool)).shape == (6, 2)


@each_rival
@settings(max_examples=10, deadline=None)
@given(problem=hostile_problems(weighted=True))
def test_any_finite_embeddings_have_probabilities_of_every_rival(kind, problem):
    clf = rival(kind, problem.text).fit(problem.X, problem.y, problem.weights)
    assert check_answers(clf, problem.queries).shape == (len(problem.queries), problem.n_classes)


@each_evidence
@pytest.mark.parametrize(
    "shots",
    [[50, 50], [50, 1], [1] * 1000, [1, 2, 3] * 100, [50] + [1] * 199],
    ids=["2x50", "50+1", "1000x1", "300 of 1 to 3", "50 + 199x1"],
)
def test_two_to_a_thousand_classes_of_one_to_fifty_shots(evidence, shots):
    problem = make_problem(len(shots), max(shots), dim=12, n_test=1)
    keep = np.concatenate([c * max(shots) + np.arange(n) for c, n in enumerate(shots)])
    parameters = {"n_epochs": 1} if evidence == "paper" else {}
    clf = ours(problem, evidence, **parameters).fit(problem.X[keep], problem.y[keep])
    check_answers(clf, np.r_[problem.X_test[:20], np.zeros((1, 12), dtype=np.float32)])


def permuted(problem: Hostile, order: np.ndarray) -> Hostile:
    weights = None if problem.weights is None else problem.weights[order]
    return Hostile(**{**vars(problem), "X": problem.X[order], "y": problem.y[order], "weights": weights})


def renamed(problem: Hostile, order: np.ndarray) -> Hostile:
    """The problem in which the class that was `order[i]` is called i."""
    text = None if problem.text is None else problem.text[order]
    return Hostile(**{**vars(problem), "y": np.argsort(order)[problem.y], "text": text})


def probabilities(problem: Hostile, evidence: str) -> np.ndarray:
    clf = ours(problem, evidence).fit(problem.X, problem.y, problem.weights)
    proba: np.ndarray = clf.predict_proba(problem.queries)
    return proba


@each_evidence
@settings(max_examples=15, deadline=None)
@given(problem=hostile_problems(weighted=True), data=st.data())
def test_the_order_of_samples_and_the_names_of_classes_never_matter(evidence, problem, data):
    before = probabilities(problem, evidence)
    samples = np.array(data.draw(st.permutations(range(len(problem.y)))))
    np.testing.assert_array_equal(probabilities(permuted(problem, samples), evidence), before)
    classes = np.array(data.draw(st.permutations(range(problem.n_classes))))
    other = renamed(problem, classes)
    if other.text is not None or len(np.unique(other.y)) == problem.n_classes:
        # AdamW divides a gradient that rounding alone makes by its own size, as where all images are equal
        tolerance = 1e-3 if evidence == "paper" else TOLERANCE
        np.testing.assert_allclose(probabilities(other, evidence), before[:, classes], atol=tolerance)


@each_evidence
@settings(max_examples=15, deadline=None)
@given(problem=hostile_problems(n_queries=9), chunk=st.integers(1, 60), block=st.integers(1, 60))
def test_chunks_of_any_size_give_what_the_whole_gives(evidence, problem, chunk, block):
    clf = ours(problem, evidence).fit(problem.X, problem.y)
    whole = clf.predict_proba(problem.queries)
    alone = np.concatenate([clf.predict_proba(problem.queries[i : i + 1]) for i in range(len(problem.queries))])
    np.testing.assert_allclose(alone, whole, atol=TOLERANCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skxma._estimators.scoring.CHUNK_ENTRIES", chunk)
        patch.setattr("skxma._runtime.blocks.SCORE_ENTRIES", block)
        np.testing.assert_allclose(clf.predict_proba(problem.queries), whole, atol=TOLERANCE)
        in_blocks = ours(problem, evidence).fit(problem.X, problem.y)
        np.testing.assert_allclose(in_blocks.predict_proba(problem.queries), whole, atol=TOLERANCE)


@each_evidence
def test_chunks_of_a_problem_in_single_precision_give_what_the_whole_gives(evidence, monkeypatch):
    problem = make_problem(n_classes=40, shots=8, dim=300, n_test=5)
    clf = ours(problem, evidence).fit(problem.X, problem.y)
    assert clf.compute_dtype_ == "float32"
    whole = clf.predict_proba(problem.X_test)
    parts = np.concatenate([clf.predict_proba(problem.X_test[i : i + 7]) for i in range(0, 200, 7)])
    np.testing.assert_allclose(parts, whole, atol=TOLERANCE)
    monkeypatch.setattr("skxma._estimators.scoring.CHUNK_ENTRIES", 1)
    np.testing.assert_allclose(clf.predict_proba(problem.X_test), whole, atol=TOLERANCE)


@each_rival
@settings(max_examples=5, deadline=None)
@given(problem=hostile_problems(plain=True), data=st.data())
def test_order_names_and_chunks_never_matter_to_a_rival(kind, problem, data):
    def answers(problem):
        clf = rival(kind, problem.text).fit(problem.X, problem.y)
        return clf, clf.predict_proba(problem.queries)

    clf, before = answers(problem)
    alone = np.concatenate([clf.predict_proba(row[None]) for row in problem.queries])
    np.testing.assert_allclose(alone, before, atol=TOLERANCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("skxma._estimators.scoring.CHUNK_ENTRIES", 1)
        np.testing.assert_allclose(clf.predict_proba(problem.queries), before, atol=TOLERANCE)
    samples = np.array(data.draw(st.permutations(range(len(problem.y)))))
    np.testing.assert_allclose(answers(permuted(problem, samples))[1], before, atol=TOLERANCE)
    classes = np.array(data.draw(st.permutations(range(problem.n_classes))))
    other = renamed(problem, classes)
    np.testing.assert_allclose(answers(other)[1], before[:, classes], atol=TOLERANCE)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@each_evidence
def test_threads_never_matter_to_work_that_is_worth_several(evidence, threads, monkeypatch):
    problem = make_problem(n_classes=20, shots=6, dim=200)
    monkeypatch.setattr("skxma._runtime.threads.SMALL_WORK", 0)
    found = []
    for n in (1, 2, 3):
        threads(n)
        found.append(ours(problem, evidence).fit(problem.X, problem.y).predict_proba(problem.X_test))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=TOLERANCE)


@each_rival
def test_threads_never_matter_to_a_rival(kind, threads, monkeypatch):
    problem = make_problem(n_classes=8, shots=4, dim=64)
    monkeypatch.setattr("skxma._runtime.threads.SMALL_WORK", 0)
    found = []
    for n in (1, 3):
        threads(n)
        found.append(rival(kind, problem.text).fit(problem.X, problem.y).predict_proba(problem.X_test))
    np.testing.assert_allclose(found[1], found[0], atol=TOLERANCE)
