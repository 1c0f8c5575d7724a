"""The rivals that take images without labels are what their formulas say."""

import numpy as np
import pytest
import torch
from problems import make_problem
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from skxma._statistics import class_shares
from skxma.baselines import (
    LabelSpreadingProbe,
    SelfTrainingProbe,
    SSTextUClassifier,
    StatAClassifier,
    TransCLIPClassifier,
)
from skxma.baselines._semi_supervised import Graph
from skxma.baselines._ss_text_u import transport

ALL = (TransCLIPClassifier, StatAClassifier, SSTextUClassifier, SelfTrainingProbe, LabelSpreadingProbe)


@pytest.fixture(scope="module")
def problem():
    return make_problem(n_classes=4, shots=20, dim=24, noise=1.0, text_noise=1.5)


@pytest.fixture(scope="module")
def marked(problem):
    return np.where(np.arange(len(problem.y)) % 20 < 2, problem.y, -1)


@pytest.mark.parametrize("kind", ALL)
def test_the_pool_plays_a_part_and_is_not_needed(kind, problem, marked):
    clf = kind("precomputed", text_features=problem.text, unlabeled_label=-1)
    pooled = clf.fit(problem.X, marked)
    answers, score = pooled.predict_proba(problem.X_test), pooled.score(problem.X_test, problem.y_test)
    assert score > 0.4
    without = clf.fit(problem.X[marked >= 0], marked[marked >= 0])
    assert not np.allclose(without.predict_proba(problem.X_test), answers)
    np.testing.assert_array_equal(without.classes_, [0, 1, 2, 3])


def test_ss_text_u_by_hand(problem, marked):
    clf = SSTextUClassifier("precomputed", text_features=problem.text, unlabeled_label=-1, n_iter=1, n_transport=500)
    clf.fit(problem.X, marked)
    labeled, pool = marked >= 0, problem.X[marked < 0].astype(np.float64)
    kernel = np.exp(100 * (pool @ problem.text.T.astype(np.float64) - 1))
    for _ in range(500):
        kernel /= kernel.sum(0) / (len(pool) / 4)
        kernel /= kernel.sum(1, keepdims=True)
    sums = np.stack([problem.X[labeled & (marked == c)].sum(0) for c in range(4)])
    moved = problem.text + 100 * 2 / (2 * 8) * sums + 100 / len(pool) * kernel.T @ pool
    expected = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    np.testing.assert_allclose(clf.prototypes_, expected, atol=1e-4)


def test_transport_meets_the_marginals():
    logits = torch.as_tensor(np.random.default_rng(0).standard_normal((40, 3)) * 5)
    share = class_shares(torch.tensor([4.0, 2.0, 0.0]))
    torch.testing.assert_close(share, torch.tensor([4.0, 2.0, 0.5]) / 6.5)
    counts = torch.ones(40, dtype=torch.float64)
    assigned = transport(logits, share, counts, 2000)
    torch.testing.assert_close(assigned.sum(1), counts)
    torch.testing.assert_close(assigned.mean(0), share.double(), atol=1e-6, rtol=0)


def test_neighbors_both_ways_are_the_sum_of_a_matrix_and_its_transpose():
    rng = np.random.default_rng(0)
    pool, labeled = (torch.nn.functional.normalize(torch.as_tensor(rng.standard_normal((n, 6))), dim=1) for n in (9, 4))
    graph = Graph.of(pool, labeled, 3)
    W = torch.zeros(13, 9, dtype=torch.float64)
    W.scatter_(1, graph.nearest, graph.cosines)
    assert not W[:9].diagonal().any()
    cosines = torch.cat([pool, labeled]) @ pool.T
    np.testing.assert_allclose(W[W != 0], cosines[W != 0])
    z, one_hot = torch.softmax(torch.as_tensor(rng.standard_normal((9, 2))), 1), torch.eye(2).double().repeat(2, 1)
    expected = W.T @ torch.cat([z, one_hot]) + W[:9] @ z
    torch.testing.assert_close(graph.both_ways(z, one_hot), expected)


def test_trans_clip_stays_at_its_fixed_point(problem, marked):
    clf = TransCLIPClassifier("precomputed", text_features=problem.text, unlabeled_label=-1, n_iter=60)
    means = clf.fit(problem.X, marked).means_
    np.testing.assert_allclose(clf.set_params(n_iter=61).fit(problem.X, marked).means_, means, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(clf.assignments_.sum(1), 1, atol=1e-5)
    # by hand: what both kinds of images weigh
    order = np.lexsort(clf.pool_.T)
    labeled = marked >= 0
    weights = np.concatenate([clf.assignments_[order] / len(order), 0.002 * 50 * np.eye(4)[marked[labeled]] / 8])
    images = np.concatenate([clf.pool_[order], problem.X[labeled]])
    moved = weights.T @ images
    np.testing.assert_allclose(moved / np.linalg.norm(moved, axis=1, keepdims=True), means, atol=1e-3)


def test_scikit_learns_own_are_scikit_learns(problem, marked):
    X = problem.X.astype(np.float64)
    training = SelfTrainingClassifier(LogisticRegression(C=31.6, max_iter=1000)).fit(X, marked)
    probe = SelfTrainingProbe("precomputed", unlabeled_label=-1).fit(problem.X, marked)
    np.testing.assert_allclose(probe.predict_proba(problem.X_test), training.predict_proba(problem.X_test), atol=1e-3)
    spreading = LabelSpreading().fit(X, marked)
    probe = LabelSpreadingProbe("precomputed", unlabeled_label=-1).fit(problem.X, marked)
    np.testing.assert_allclose(probe.predict_proba(problem.X_test), spreading.predict_proba(problem.X_test), atol=1e-3)


def test_stat_a_by_hand(problem, marked):
    clf = StatAClassifier("precomputed", text_features=problem.text, unlabeled_label=-1, n_iter=1, alpha=2.0)
    clf.fit(problem.X, marked)
    X, T = clf.pool_.astype(np.float64), problem.text.astype(np.float64)
    prior = np.exp(100 * X @ T.T)
    prior /= prior.sum(1, keepdims=True)
    cosines = X @ X.T - 9 * np.eye(len(X))
    W = np.where(cosines >= np.sort(cosines, axis=1)[:, -3:][:, :1], cosines, 0)

    def assign(z, means, variances):
        density = -0.5 * ((X[:, None] - means) ** 2 / variances + np.log(variances)).sum(2)
        for _ in range(5):
            z = prior * np.exp((density + 50 / 6 * (W.T @ z + W @ z)) / 50)
            z /= z.sum(1, keepdims=True)
        return z

    anchor = np.einsum("ic,icd->d", prior, (X[:, None] - T) ** 2) / len(X)
    z = assign(prior, T, np.repeat(anchor[None], 4, axis=0))
    counts = np.bincount(z.argmax(1), minlength=4)[:, None]
    share = counts / (2 + counts)
    own = z.T @ X
    means = share * own / np.linalg.norm(own, axis=1, keepdims=True) + (1 - share) * T
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    spread = np.einsum("ic,icd->cd", z, (X[:, None] - means) ** 2) / z.sum(0)[:, None]
    variances = share * spread + (1 - share) * (anchor + (T - means) ** 2)
    np.testing.assert_allclose(clf.means_, means, atol=1e-5)
    np.testing.assert_allclose(clf.variances_, variances, rtol=1e-3)
    np.testing.assert_allclose(clf.assignments_, assign(z, means, variances), atol=1e-3)


def test_stat_a_answers_its_own_pool_with_its_assignments(problem, marked):
    clf = StatAClassifier("precomputed", text_features=problem.text, unlabeled_label=-1).fit(problem.X, marked)
    np.testing.assert_allclose(clf.predict_proba(clf.pool_), clf.assignments_, atol=1e-5)


def test_stat_a_without_a_pool_is_zero_shot_and_keeps_the_anchor_of_a_class_without_images(problem, marked):
    labeled = marked >= 0
    clf = StatAClassifier("precomputed", text_features=problem.text, unlabeled_label=-1)
    alone = clf.fit(problem.X[labeled], marked[labeled])
    np.testing.assert_allclose(alone.predict_proba(problem.X_test), alone.zero_shot(problem.X_test), atol=1e-6)
    some = labeled | (problem.y < 2)
    few = clf.fit(problem.X[some], marked[some])
    moved = np.linalg.norm(few.means_ - problem.text, axis=1)
    assert moved[2:].max() < moved[:2].min()
