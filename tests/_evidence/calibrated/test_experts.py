import pytest
import torch
from problems import make_problem

from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.experts import (
    GAUSSIAN,
    ImageScale,
    encoder_expert,
    gaussian_score_std,
    image_scores,
    left_out_image_scores,
    modality_means,
    ridge_img2txt,
    text_scores,
)
from skxma._evidence.calibrated.metric import MetricSupport, candidate_metrics, query_scores
from skxma._runtime import blocks
from skxma._statistics import SingletonPrior, zero_shot_cosines


def in_metric(problem, rho=0.3):
    features, labels = torch.as_tensor(problem.X, dtype=torch.float64), torch.as_tensor(problem.y)
    weights = torch.ones(len(labels), dtype=torch.float64)
    n_classes = int(labels.max()) + 1
    metric = next(iter(candidate_metrics(features, labels, weights, n_classes, None, (rho,))))
    return metric, MetricSupport.from_keys(metric(features), labels, weights, n_classes)


def test_nodes_have_the_mean_and_spread_that_are_stated():
    nodes, weights = SingletonPrior().quadrature(0.1)
    assert weights.sum() == pytest.approx(1)
    assert weights @ nodes == pytest.approx(0.3)
    assert weights @ (nodes - 0.3) ** 2 == pytest.approx(0.2**2)
    assert SingletonPrior().quadrature(1.0)[0].max() == 0.95
    nodes, weights = SingletonPrior(mean=2.5, std=1.5, n_nodes=3).quadrature(0.1)
    assert len(nodes) == 3
    assert weights @ nodes == pytest.approx(0.25)


def test_own_scores_are_the_entries_of_the_own_class_at_every_node():
    problem = make_problem(shots=3)
    metric, support = in_metric(problem)
    scores, _ = left_out_image_scores(support, metric.scatter_weight, CalibrationConfig())
    for q in range(len(scores.node_weights)):
        for i, label in enumerate(problem.y):
            torch.testing.assert_close(scores.own[:, i, q], scores.scores[:, i, label])


def test_singletons_are_simulated_and_others_are_not():
    problem = make_problem(n_classes=3, shots=3)
    problem.X, problem.y = problem.X[2:], problem.y[2:]
    metric, support = in_metric(problem)
    scores, _ = left_out_image_scores(support, metric.scatter_weight, CalibrationConfig())
    assert scores.singleton.tolist() == [True] + [False] * 6
    assert len(scores.own[1, 0].unique()) > 1
    assert len(scores.own[1, 1].unique()) == 1
    torch.testing.assert_close(scores.scores[1, 0, 0], scores.own[1, 0] @ scores.node_weights)


@pytest.mark.parametrize("entries", [1, 40])
def test_scores_in_blocks_are_the_scores_at_once(monkeypatch, entries):
    problem = make_problem(shots=3)
    metric, support = in_metric(problem)
    whole, scale = left_out_image_scores(support, metric.scatter_weight, CalibrationConfig(beta=4.0))
    monkeypatch.setattr(blocks, "SCORE_ENTRIES", entries)
    parts, scale_in_parts = left_out_image_scores(support, metric.scatter_weight, CalibrationConfig(beta=4.0))
    torch.testing.assert_close(whole.scores, parts.scores)
    assert scale.beta == scale_in_parts.beta
    assert scale.gaussian == pytest.approx(scale_in_parts.gaussian, rel=1e-12)


def test_a_class_without_images_gets_the_mean_and_some_deviations():
    problem = make_problem(n_classes=4, shots=3)
    problem.y[problem.y == 3] = 2
    metric, support = in_metric(problem)
    support = MetricSupport.from_keys(support.keys, support.labels, support.weights, 4)
    queries = query_scores(support, metric(torch.as_tensor(problem.X_test).double()))
    scores = image_scores(queries, support, support.mass, ImageScale(3.0, 2.0), 1.5)
    seen = scores[:, :, :3]
    torch.testing.assert_close(scores[:, :, 3], seen.mean(2) + 1.5 * seen.std(2, correction=0))
    torch.testing.assert_close(seen[GAUSSIAN], queries.gaussian[:, :3] / 2)


def test_the_scale_is_found_from_the_cosines_and_from_the_scores_that_stand_for_something():
    problem = make_problem(n_classes=4, shots=3)
    kept = problem.y < 3
    metric, support = in_metric(problem)
    support = MetricSupport.from_keys(support.keys[kept], support.labels[kept], support.weights[kept], 4)
    config = CalibrationConfig()
    scores, scale = left_out_image_scores(support, metric.scatter_weight, config)
    assert scale.beta == config.beta_times_sigma / support.sigma
    # in units of their deviation over the classes with images
    assert float(scores.scores[GAUSSIAN, :, :3].std(correction=0)) == pytest.approx(1)
    assert scale.gaussian != 1
    _, given = left_out_image_scores(support, metric.scatter_weight, config, scale=ImageScale(7.0, 3.0))
    assert given == ImageScale(7.0, 3.0)


def test_the_deviation_leaves_out_what_stands_for_nothing():
    scores = torch.tensor([[1.0, 5.0, 100.0], [2.0, 50.0, 100.0]])
    labels, singleton = torch.tensor([0, 1]), torch.tensor([False, True])
    present = torch.tensor([True, True, False])
    wanted = torch.tensor([1.0, 5.0, 2.0]).std(correction=0)
    assert gaussian_score_std(scores, labels, singleton, present) == pytest.approx(float(wanted))
    assert gaussian_score_std(scores[:1, :1], labels[:1], singleton[:1], present[:1]) == 1
    assert gaussian_score_std(torch.ones(2, 3), labels, singleton, present) == 1


def test_encoders_beside_the_first_are_counted_from_two():
    assert [encoder_expert(block) for block in (1, 2, 3)] == ["encoder_2", "encoder_3", "encoder_4"]


def test_img2txt_left_out_equals_refitting_without_the_sample():
    problem = make_problem(n_classes=3, shots=3, dim=5)
    f, targets = torch.as_tensor(problem.X).double(), torch.as_tensor(problem.text).double()[problem.y]
    weights = torch.ones(9, dtype=torch.float64)
    _, left_out = ridge_img2txt(f, targets, weights, 1.0)
    shift, mean = (targets - f).mean(0), f.mean(0)
    x, rest = f - mean, targets - f - shift
    for i in range(9):
        others = torch.arange(9) != i
        gram = x[others].T @ x[others] + torch.eye(5)
        matrix = torch.linalg.solve(gram, x[others].T @ rest[others])
        wanted = torch.nn.functional.normalize(f[i] + shift + x[i] @ matrix, dim=0)
        torch.testing.assert_close(left_out[i], wanted)


def test_img2txt_brings_images_nearer_to_their_text():
    problem = make_problem(n_classes=8, shots=8, text_noise=0.1, noise=0.3)
    f, text = torch.as_tensor(problem.X), torch.as_tensor(problem.text)
    net, _ = ridge_img2txt(f, text[problem.y], torch.ones(len(f)), 1.0)
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


def test_centered_cosines_know_no_gap_between_the_modalities():
    problem = make_problem(n_classes=6, text_noise=0.2, noise=0.3)
    f, text = torch.as_tensor(problem.X_test).double(), torch.as_tensor(problem.text).double()
    shift = torch.zeros(16, dtype=torch.float64)
    shift[3] = 5.0
    labels, weights = torch.as_tensor(problem.y_test), torch.ones(len(f), dtype=torch.float64)
    plain = text_scores(f, f, text, modality_means(f, labels, weights, text))[2]
    moved = text_scores(f + shift, f, text + 2 * shift, modality_means(f + shift, labels, weights, text + 2 * shift))[2]
    torch.testing.assert_close(plain, moved)
    assert float((plain.argmax(1) == labels).double().mean()) > 0.9


def test_modality_means_count_every_class_the_same():
    f = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    text = torch.tensor([[2.0, 0.0], [0.0, 4.0], [9.0, 9.0]])
    image_mean, text_mean = modality_means(f, torch.tensor([0, 0, 0, 1]), torch.ones(4), text)
    assert image_mean.tolist() == [0.5, 0.5]
    assert text_mean.tolist() == [1.0, 2.0]
