import numpy as np
import pytest
import torch
from problems import make_problem

from skxma._calibrated.experts import (
    ImageScale,
    centres,
    query_image_scores,
    ridge_img2txt,
    support_image_scores,
    text_scores,
)
from skxma._calibrated.metric import metrics, see_support
from skxma._statistics import lone_nodes, zero_shot_cosines
from skxma.caches import ImageCache


def in_metric(problem, rho=0.3):
    features, labels = torch.as_tensor(problem.X, dtype=torch.float64), torch.as_tensor(problem.y)
    weights = torch.ones(len(labels), dtype=torch.float64)
    n_classes = int(labels.max()) + 1
    metric = next(iter(metrics(features, labels, weights, n_classes, None, (rho,))))
    return metric, see_support(metric(features), labels, weights, n_classes)


def test_nodes_have_the_mean_and_spread_that_are_stated():
    nodes, weights = lone_nodes(0.1)
    assert weights.sum() == pytest.approx(1)
    assert weights @ nodes == pytest.approx(0.25)
    assert weights @ (nodes - 0.25) ** 2 == pytest.approx(0.2**2)
    assert lone_nodes(1.0)[0].max() == 0.95


def test_own_scores_are_the_entries_of_the_own_class_at_every_node():
    problem = make_problem(shots=3)
    metric, support = in_metric(problem)
    scores, _ = support_image_scores(support, metric.leave_out, None)
    for q in range(len(scores.node_weights)):
        for i, label in enumerate(problem.y):
            torch.testing.assert_close(scores.own[:, i, q], scores.scores[:, i, label])


def test_lone_samples_are_simulated_and_others_are_not():
    problem = make_problem(n_classes=3, shots=3)
    problem.X, problem.y = problem.X[2:], problem.y[2:]
    metric, support = in_metric(problem)
    scores, _ = support_image_scores(support, metric.leave_out, None)
    assert scores.lone.tolist() == [True] + [False] * 6
    assert len(scores.own[1, 0].unique()) > 1
    assert len(scores.own[1, 1].unique()) == 1
    torch.testing.assert_close(scores.scores[1, 0, 0], scores.own[1, 0] @ scores.node_weights)


def test_scores_in_blocks_are_the_scores_at_once(monkeypatch):
    problem = make_problem(shots=3)
    metric, support = in_metric(problem)
    whole, scale = support_image_scores(support, metric.leave_out, 4.0)
    monkeypatch.setattr("skxma._statistics.BLOCK_ENTRIES", 40)
    parts, scale_in_parts = support_image_scores(support, metric.leave_out, 4.0)
    torch.testing.assert_close(whole.scores, parts.scores)
    assert scale.beta == scale_in_parts.beta
    assert scale.gaussian == pytest.approx(scale_in_parts.gaussian, rel=1e-12)


def test_a_class_without_pictures_gets_the_mean_and_one_deviation():
    problem = make_problem(n_classes=4, shots=3)
    problem.y[problem.y == 3] = 2
    metric, support = in_metric(problem)
    support = see_support(support.keys, support.labels, support.weights, 4)
    scores = query_image_scores(support, ImageScale(3.0, 1.0), metric(torch.as_tensor(problem.X_test).double()))
    seen = scores[:, :, :3]
    torch.testing.assert_close(scores[:, :, 3], seen.mean(2) + seen.std(2, correction=0))


def test_img2txt_left_out_equals_refitting_without_the_sample():
    problem = make_problem(n_classes=3, shots=3, dim=5)
    f, targets = torch.as_tensor(problem.X).double(), torch.as_tensor(problem.text).double()[problem.y]
    weights = torch.ones(9, dtype=torch.float64)
    _, left_out = ridge_img2txt(f, targets, weights)
    shift, mean = (targets - f).mean(0), f.mean(0)
    x, rest = f - mean, targets - f - shift
    for i in range(9):
        others = torch.arange(9) != i
        gram = x[others].T @ x[others] + torch.eye(5)
        matrix = torch.linalg.solve(gram, x[others].T @ rest[others])
        wanted = torch.nn.functional.normalize(f[i] + shift + x[i] @ matrix, dim=0)
        torch.testing.assert_close(left_out[i], wanted)


def test_img2txt_brings_pictures_nearer_to_their_text():
    problem = make_problem(n_classes=8, shots=8, text_noise=0.1, noise=0.3)
    f, text = torch.as_tensor(problem.X), torch.as_tensor(problem.text)
    net, _ = ridge_img2txt(f, text[problem.y], torch.ones(len(f)))
    query, target = torch.as_tensor(problem.X_test), text[problem.y_test]
    before, after = (query * target).sum(1).mean(), (net(query) * target).sum(1).mean()
    assert after > before + 0.1


def test_classes_without_text_are_filled_in_both_text_experts():
    problem = make_problem()
    text = torch.as_tensor(problem.text).clone()
    text[2] = 0
    f = torch.as_tensor(problem.X_test)
    known = [0, 1, 3, 4]
    scores = text_scores(f, f, text, (f.mean(0), text[known].mean(0)))
    wanted = scores[:, :, known].mean(2) + scores[:, :, known].std(2, correction=0)
    torch.testing.assert_close(scores[:, :, 2], wanted)
    torch.testing.assert_close(zero_shot_cosines(f, text), scores[0])


def test_two_equal_pictures_a_class_leave_the_metric_alone():
    problem = make_problem(n_classes=2, shots=1)
    cache, _ = ImageCache.build(np.repeat(problem.X, 2, 0), np.repeat(problem.y, 2), 2)
    assert len(cache.keys) == 2


def test_centred_cosines_know_no_gap_between_the_modalities():
    problem = make_problem(n_classes=6, text_noise=0.2, noise=0.3)
    f, text = torch.as_tensor(problem.X_test).double(), torch.as_tensor(problem.text).double()
    shift = torch.zeros(16, dtype=torch.float64)
    shift[3] = 5.0
    labels, weights = torch.as_tensor(problem.y_test), torch.ones(len(f), dtype=torch.float64)
    plain = text_scores(f, f, text, centres(f, labels, weights, text))[2]
    moved = text_scores(f + shift, f, text + 2 * shift, centres(f + shift, labels, weights, text + 2 * shift))[2]
    torch.testing.assert_close(plain, moved)
    assert float((plain.argmax(1) == labels).double().mean()) > 0.9


def test_the_centres_count_every_class_the_same():
    f = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    text = torch.tensor([[2.0, 0.0], [0.0, 4.0], [9.0, 9.0]])
    image_mean, text_mean = centres(f, torch.tensor([0, 0, 0, 1]), torch.ones(4), text)
    assert image_mean.tolist() == [0.5, 0.5]
    assert text_mean.tolist() == [1.0, 2.0]
