import math

import numpy as np
import pytest
import torch
from problems import make_problem

from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.metric import (
    CenteredBasis,
    Metric,
    MetricSupport,
    candidate_metrics,
    class_text_root,
    complete_mean_length,
    covariance_alignment,
    covariance_root,
    leave_one_out_scores,
    query_scores,
    vocabulary_root,
)
from skxma._statistics import Spectrum, class_means, cosine_spread, pairwise_cosine_moments
from skxma.functional import HELD_OUT


def as_tensors(problem, weights=None):
    weights = np.ones(len(problem.y)) if weights is None else weights
    return (
        torch.as_tensor(problem.X, dtype=torch.float64),
        torch.as_tensor(problem.y),
        torch.as_tensor(weights, dtype=torch.float64),
    )


def refit_without(x, labels, weights, i, rho, trace):
    """The inner product of a whitening fitted without sample i, the trace held, by brute force."""
    rest = torch.arange(len(labels)) != i
    means, _ = class_means(x[rest], labels[rest], weights[rest], int(labels.max()) + 1)
    residual = x[rest] - means[labels[rest]]
    scatter = residual.T @ (weights[rest][:, None] * residual)
    return torch.linalg.inv((1 - rho) * scatter / trace + rho * torch.eye(x.shape[1], dtype=x.dtype)), means


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("with_words", [False, True])
def test_leave_one_out_equals_refitting_without_the_sample(weighted, with_words):
    problem = make_problem(n_classes=4, shots=3, dim=7, seed=3)
    problem.y[0] = 3  # unbalanced: classes of 2, 3, 3 and 4
    weights = np.random.default_rng(0).uniform(0.5, 2, len(problem.y)) if weighted else None
    features, labels, weights = as_tensors(problem, weights)
    root = covariance_root(torch.as_tensor(problem.words, dtype=torch.float64), 0.01) if with_words else None
    rho = 0.3
    (metric,) = candidate_metrics(features, labels, weights, 4, root, (rho,))
    support = MetricSupport.from_keys(metric(features), labels, weights, 4)
    rows = torch.arange(len(labels))
    got, _ = leave_one_out_scores(support, metric.scatter_weight, rows)

    x = (features - metric.basis.mean) @ (torch.eye(7, dtype=torch.float64) if root is None else root)
    means, _ = class_means(x, labels, weights, 4)
    residual = x - means[labels]
    trace = (weights[:, None] * residual**2).sum() / 7
    for i in rows.tolist():
        inner, left_means = refit_without(x, labels, weights, i, rho, trace)
        dots, own = x @ inner @ x[i], (x[i] @ inner @ x[i]).sqrt()
        lengths = torch.einsum("nd,de,ne->n", x, inner, x).sqrt()
        wanted = dots / own / lengths
        wanted[i] = HELD_OUT
        torch.testing.assert_close(got.key_cosines[i], wanted, atol=1e-10, rtol=1e-10)
        mean_dots = left_means @ inner @ x[i]
        squared = torch.einsum("nd,de,ne->n", left_means, inner, left_means)
        own_class = [int(labels[i])]
        squared[own_class] = complete_mean_length(squared[own_class, None], support, rows[i : i + 1])[:, 0]
        torch.testing.assert_close(got.prototype[i], mean_dots / own / squared.sqrt(), atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(got.gaussian[i], mean_dots - squared / 2, atol=1e-9, rtol=1e-10)


def test_the_mean_of_one_shot_less_gets_the_length_of_one_with_all_shots():
    """On average over many draws of a class, and for no other reason than the scatter."""
    rng, n, dim = np.random.default_rng(0), 3, 40
    labels, rows = torch.arange(2000).repeat_interleave(n), torch.arange(0, 2000 * n, n)
    keys = torch.as_tensor(rng.standard_normal((2000 * n, dim))) + 0.5
    support = MetricSupport.from_keys(keys, labels, torch.ones(2000 * n, dtype=torch.float64), 2000)
    without = (keys.reshape(2000, n, dim).sum(1) - keys[rows]) / (n - 1)
    short = without.square().sum(1, keepdim=True)
    completed = complete_mean_length(short, support, rows).mean()
    assert float(completed) == pytest.approx(float(support.means.square().sum(1).mean()), rel=0.01)
    assert float(short.mean()) > 1.2 * float(completed)


def test_the_own_class_of_a_singleton_has_no_say():
    problem = make_problem(n_classes=3, shots=2, dim=6)
    keep = np.ones(len(problem.y), dtype=bool)
    keep[0] = False
    problem.X, problem.y = problem.X[keep], problem.y[keep]
    features, labels, weights = as_tensors(problem)
    (metric,) = candidate_metrics(features, labels, weights, 3, None, (0.3,))
    support = MetricSupport.from_keys(metric(features), labels, weights, 3)
    seen, _ = leave_one_out_scores(support, metric.scatter_weight, torch.tensor([0]))
    assert seen.key_cosines[0, 0] == HELD_OUT
    assert seen.prototype[0, 0] == 0
    assert seen.gaussian[0, 0] == 0
    plain = query_scores(support, support.keys[:1])
    torch.testing.assert_close(seen.prototype[0, 1:], plain.prototype[0, 1:])


def test_one_shot_has_nothing_to_whiten():
    problem = make_problem(shots=1)
    features, labels, weights = as_tensors(problem)
    found = list(candidate_metrics(features, labels, weights, 5, None, CalibrationConfig().shrinkages))
    assert len(found) == 1
    assert found[0].scatter_weight == 0
    assert found[0].basis.basis is None
    assert found[0].scale is None


def test_whitening_makes_the_within_class_scatter_rounder():
    problem = make_problem(shots=20, seed=2)
    features, labels, weights = as_tensors(problem)
    spreads = []
    for metric in candidate_metrics(features, labels, weights, 5, None, CalibrationConfig().shrinkages):
        keys = metric(features)
        means, _ = class_means(keys, labels, weights, 5)
        values = torch.linalg.eigvalsh(torch.cov((keys - means[labels]).T))
        spreads.append(float(values[-1] / values[0]))
    assert spreads == sorted(spreads)
    assert spreads[0] < 3


def test_a_vocabulary_without_covariance_is_none():
    words = torch.ones(1, 4)
    assert covariance_root(words, 0.01) is None
    assert covariance_root(words.repeat(5, 1), 0.01) is None


@pytest.mark.parametrize("n_words", [5, None])
def test_the_root_to_the_fourth_is_the_shrunken_covariance(n_words):
    words = torch.as_tensor(make_problem().words[:n_words], dtype=torch.float64)
    root = covariance_root(words, shrinkage=0.01)
    covariance = torch.cov(words.T, correction=0)
    wanted = 0.99 * covariance / covariance.diagonal().mean() + 0.01 * torch.eye(16, dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.matrix_power(root, 4), wanted)


def test_the_alignment_is_the_product_of_the_scatters():
    features, _, _ = as_tensors(make_problem())
    words = torch.as_tensor(make_problem().words, dtype=torch.float64)
    weights = torch.arange(1.0, len(features) + 1, dtype=torch.float64)
    of_words, of_images = torch.cov(words.T), torch.cov(features.T, aweights=weights)
    wanted = 16 * (of_words @ of_images).trace() / of_words.trace() / of_images.trace()
    assert covariance_alignment(words, features, weights) == pytest.approx(float(wanted))


def test_a_kept_root_belongs_to_its_words_their_precision_and_the_shrinkage():
    words = torch.as_tensor(make_problem().words, dtype=torch.float64)
    for changed, shrinkage in ((words, 0.01), (words, 0.1), (words.float(), 0.01), (words.flip(1), 0.01)):
        root = vocabulary_root(changed, shrinkage)
        torch.testing.assert_close(root, covariance_root(changed, shrinkage), rtol=0, atol=0)
        assert root.dtype == changed.dtype


@pytest.mark.parametrize(("n", "dim"), [(2, 5), (30, 5), (5, 30)])
def test_spread_is_the_deviation_of_the_cosines_between_different_keys(n, dim):
    keys = torch.as_tensor(np.random.default_rng(n).standard_normal((n, dim)))
    unit = keys / keys.norm(dim=1, keepdim=True)
    cosines = unit @ unit.T
    between = cosines[~torch.eye(n, dtype=torch.bool)]
    assert cosine_spread(keys) == pytest.approx(max(float(between.std(correction=0)), 0.05))


@pytest.mark.parametrize(("n", "dim"), [(1, 3), (2, 5), (30, 5), (5, 30)])
def test_moments_are_those_of_the_cosines_between_different_rows(n, dim):
    unit = torch.as_tensor(np.random.default_rng(n).standard_normal((n, dim)))
    unit = unit / unit.norm(dim=1, keepdim=True)
    unit[0] = 0 if n > 2 else unit[0]
    between = (unit @ unit.T)[~torch.eye(n, dtype=torch.bool)]
    wanted = (float(between.mean()), float(between.std(correction=0))) if n > 1 else (0, 0)
    assert pairwise_cosine_moments(unit) == pytest.approx(wanted, abs=1e-7)


def test_a_shrunk_power_of_a_spectrum_is_that_of_the_shrunk_covariance():
    rows = torch.as_tensor(np.random.default_rng(0).standard_normal((4, 6)))
    covariance = rows.T @ rows
    spectrum = Spectrum.of(covariance)
    whitening = (spectrum.vectors * spectrum.shrunk_power(0.3, -0.5)) @ spectrum.vectors.T
    shrunk = 0.7 * covariance / (covariance.trace() / 6) + 0.3 * torch.eye(6)
    torch.testing.assert_close(whitening @ shrunk @ whitening, torch.eye(6, dtype=torch.float64))
    # rounding leaves eigenvalues below 0 of a singular covariance
    assert torch.isfinite(Spectrum.of(torch.zeros(3, 3, dtype=torch.float64)).shrunk_power(0.1, -0.5)).all()
    assert torch.isfinite(spectrum.shrunk_power(0.0, 0.25)).all()


def test_a_metric_centers_turns_and_stretches():
    metric = Metric(CenteredBasis(torch.ones(3), torch.eye(3)[:, [1, 0, 2]]), torch.tensor([1.0, 2.0, 3.0]))
    assert metric(torch.tensor([[2.0, 3.0, 4.0]])).tolist() == [[2.0, 2.0, 9.0]]


def test_the_root_of_the_class_texts_knows_no_order_and_no_absent_text():
    text = torch.as_tensor(make_problem().text, dtype=torch.float64)
    root = class_text_root(text, 0.1)
    with_absent = torch.cat([text.flip(0), torch.zeros(2, text.shape[1], dtype=torch.float64)])
    torch.testing.assert_close(class_text_root(with_absent, 0.1), root)
    assert class_text_root(text[:1], 0.1) is None
    directions = torch.linalg.svd(text - text.mean(0), full_matrices=False).Vh[: len(text) - 1]
    seen = torch.linalg.norm(directions @ root, dim=1)
    assert seen.min() > torch.linalg.eigvalsh(root)[0]


def test_images_vary_where_words_of_theirs_do_and_not_where_numbers_do():
    problem = make_problem(n_classes=20, shots=2, dim=64)
    features, weights = torch.as_tensor(problem.X), torch.ones(len(problem.X))
    noise = torch.as_tensor(np.random.default_rng(99).standard_normal(problem.text.shape))
    assert covariance_alignment(noise, features, weights) == pytest.approx(1.0, abs=0.2)
    assert covariance_alignment(torch.as_tensor(problem.text), features, weights) > 1.5
    assert covariance_alignment(torch.as_tensor(problem.words), features, weights) > 1.3
    heavy = torch.tensor([3.0, *[1.0] * (len(features) - 1)])
    repeated = torch.cat([features[:1], features[:1], features])
    torch.testing.assert_close(
        covariance_alignment(noise, features, heavy), covariance_alignment(noise, repeated, torch.ones(len(repeated)))
    )


def test_nothing_is_said_against_words_where_nothing_varies():
    one = torch.ones(1, 4)
    assert covariance_alignment(torch.eye(4), one, torch.ones(1)) == math.inf
    assert covariance_alignment(one, torch.eye(4), torch.ones(4)) == math.inf
