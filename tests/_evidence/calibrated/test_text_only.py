"""Classes known by their text alone, and classes of which nothing is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import make_problem, make_thin_problem
from scipy.special import log_softmax

from skxma import XMAdapterClassifier, load
from skxma import functional as F
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.experts import LeaveOneOutScores, expert_names
from skxma._evidence.calibrated.fit import fit_calibrated
from skxma._evidence.calibrated.fusion import FusionObjective, FusionParametrization, weight_penalty
from skxma._evidence.calibrated.text_only import (
    TextOnlyFusion,
    fit_text_only,
    likelihood_beside_text_only,
    place_text_only,
    statistics_of_others,
)
from skxma.caches import ImageCache, to_tensors

LIKE = torch.zeros(1, dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6))
@pytest.mark.property
def test_statistics_of_others_are_those_without_the_column(seed, n_columns):
    scores = torch.as_tensor(np.random.default_rng(seed).standard_normal((3, 4, n_columns)))
    mean, std = statistics_of_others(scores)
    for column in range(n_columns):
        others = scores[..., torch.arange(n_columns) != column]
        torch.testing.assert_close(mean[..., column], others.mean(-1))
        torch.testing.assert_close(std[..., column], others.std(-1, correction=0))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5))
@pytest.mark.property
def test_likelihood_is_that_of_logits_with_one_class_replaced(seed, n_classes):
    rng = np.random.default_rng(seed)
    logits, alone = (torch.as_tensor(3 * rng.standard_normal((6, n_classes))) for _ in range(2))
    labels = torch.as_tensor(rng.integers(n_classes, size=6))
    expected = torch.zeros(6, dtype=torch.float64)
    for c in range(n_classes):
        replaced = torch.where(torch.arange(n_classes) == c, alone, logits)
        expected += torch.log_softmax(replaced, 1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(likelihood_beside_text_only(logits, alone, labels), expected)


def test_likelihood_is_finite_where_a_class_is_certain():
    logits = torch.tensor([[900.0, 0.0, 1.0]], dtype=torch.float64)
    found = likelihood_beside_text_only(logits, torch.zeros_like(logits), torch.tensor([0]))
    assert bool(torch.isfinite(found).all())


def test_classes_with_images_keep_their_scores():
    scores = torch.as_tensor(np.random.default_rng(0).standard_normal((6, 5, 4)))
    has_images = torch.tensor([True, True, False, True])
    placed = place_text_only(scores, has_images, (2.0, 3.0), 1.0)
    torch.testing.assert_close(placed[..., has_images], scores[..., has_images])
    mean = scores[..., has_images].mean(-1)
    std = scores[..., has_images].std(-1, correction=0)
    beyond = torch.stack([2 * scores[0, :, 2] - 2 * mean[0], std[1], 3 * scores[2, :, 2] - 3 * mean[2], *std[3:]])
    torch.testing.assert_close(placed[:, :, 2], mean + beyond)


def test_nothing_learned_places_a_class_by_its_text_as_it_is():
    scores = torch.as_tensor(np.random.default_rng(0).standard_normal((6, 5, 4)))
    has_images = torch.tensor([True, True, False, True])
    left_out = LeaveOneOutScores(expert_names(True, 3), scores, scores[..., :1], torch.ones(1), torch.zeros(5) > 0)
    placed = TextOnlyFusion().apply(left_out, has_images).scores
    torch.testing.assert_close(placed[[0, 2]], scores[[0, 2]])
    torch.testing.assert_close(placed[[1, 3, 4, 5]], F.fill_absent(scores[[1, 3, 4, 5]], has_images, 1.5))


def draw_fusion(seed, n_samples=12, n_classes=3):
    """A fusion among classes with images, of experts that know something, and weights beside the priors."""
    rng = np.random.default_rng(seed)
    labels = torch.as_tensor(rng.permutation(np.arange(n_samples) % n_classes))
    truth = torch.nn.functional.one_hot(labels, n_classes).double()
    scores = torch.as_tensor(rng.standard_normal((6, n_samples, n_classes))) + 0.5 * truth
    own = scores.gather(2, labels[None, :, None].expand(6, -1, 1))
    left_out = LeaveOneOutScores(expert_names(True, 3), scores, own, torch.ones(1), torch.zeros(n_samples) > 0)
    loss_weights, prior = torch.as_tensor(rng.uniform(0.5, 2, n_samples)), rng.uniform(0.5, 2, 6)
    parametrization = FusionParametrization(prior, 2, 3)
    config = CalibrationConfig(max_weight_penalty=0.5, weight_penalty_samples=3.0)
    independence = torch.ones(n_samples)
    problem = FusionObjective(left_out, labels, loss_weights, independence, parametrization, config)
    return problem, prior * rng.uniform(0.4, 2.5, 6)


def objective_of_text_only(problem, weights, zero_shot, centered_text, deviations):
    """What `fit_text_only` says that it minimizes, sample by sample and class by class."""
    scores, labels, config = problem.scores.scores.numpy(), problem.labels.numpy(), problem.config
    n, n_classes = scores.shape[1:]
    shares = problem.loss_weights.numpy() / problem.loss_weights.numpy().sum()
    factors = {0: zero_shot, 2: centered_text}
    loss = 0.0
    for i, c in np.ndindex(n, n_classes):
        others = np.delete(scores[:, i], c, axis=1)
        mean, std = others.mean(1), others.std(1)
        placed = [
            mean[j] + (factors[j] * (scores[j, i, c] - mean[j]) if j in factors else deviations * std[j])
            for j in range(6)
        ]
        logits = weights @ scores[:, i]
        logits[c] = weights @ np.array(placed)
        loss -= shares[i] * log_softmax(logits)[labels[i]]
    u = np.array([zero_shot, centered_text]) * weights[[0, 2]] / problem.parametrization.prior[[0, 2]]
    penalty = weight_penalty(n, n_classes, config)
    return loss + penalty * ((u - np.log(u)).sum() + (deviations - config.imageless_deviations) ** 2)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_learned_of_a_text_alone_minimizes_what_is_stated(seed):
    problem, weights = draw_fusion(seed)
    found = fit_text_only(problem, weights)
    theta = np.array([np.log(found.zero_shot), np.log(found.centered_text), found.deviations])

    def objective(at):
        return objective_of_text_only(problem, weights, *np.exp(at[:2]), at[2])

    slopes = [(objective(theta + step) - objective(theta - step)) / 2e-4 for step in 1e-4 * np.eye(3)]
    np.testing.assert_allclose(slopes, 0, atol=2e-4)
    # the penalty is felt: a free minimum lies elsewhere
    assert np.abs(np.append(theta[:2], theta[2] - 1.5)).max() > 0.05


def fit_some(problem, imaged, n_classes):
    """Reports of a fit among all classes and of one among the first ones alone, which have the images."""
    rows = np.isin(problem.y, imaged)
    config = CalibrationConfig(text_shapes_metric=False)
    text, words = to_tensors(problem.text, problem.words, like=LIKE)
    reports = []
    for n in (n_classes, len(imaged)):
        cache, _ = ImageCache.build(problem.X[rows], problem.y[rows], n, np.ones(rows.sum()), problem.text[:n])
        reports.append(fit_calibrated(cache, text[:n], words, config, LIKE))
    return reports


@pytest.mark.parametrize("shots", [1, 4])
def test_nothing_changes_among_the_classes_with_images(shots):
    problem, imaged = make_problem(n_classes=7, shots=shots), np.arange(4)
    whole, alone = fit_some(problem, imaged, 7)
    assert whole.noise_rate == pytest.approx(alone.noise_rate, abs=1e-6)
    np.testing.assert_allclose(whole.label_noise, alone.label_noise, atol=1e-5)
    (X,) = to_tensors(problem.X_test, like=LIKE)
    log_p = [
        torch.log_softmax(report.model.scorer(LIKE).logits(X)[:, torch.as_tensor(imaged)], 1)
        for report in (whole, alone)
    ]
    torch.testing.assert_close(log_p[0], log_p[1], atol=1e-3, rtol=1e-3)


def test_the_residual_leaves_classes_without_images_alone():
    problem = make_thin_problem()
    text = np.concatenate([problem.text, make_problem(n_classes=2, dim=12).text])
    clf = XMAdapterClassifier("precomputed", text_features=text, vocabulary=problem.words)
    clf.partial_fit(problem.X, problem.y, classes=np.arange(4))
    residual = clf.model_.residual
    assert residual is not None
    assert residual[:2].any(1).all()
    assert not residual[2:].any()


def test_predictions_are_the_weighted_experts_with_these_classes_placed():
    problem = make_problem(n_classes=6, shots=4)
    whole, _ = fit_some(problem, np.arange(3), 6)
    scorer, (X,) = whole.model.scorer(LIKE), to_tensors(problem.X_test, like=LIKE)
    has_images = torch.arange(6) < 3
    expected = torch.zeros(len(X), 6, dtype=torch.float64)
    total = sum(one.averaging_weight for one in whole.model.components)
    for one in whole.model.components:
        alone = replace(whole.model, components=[replace(one, text_only=None)]).scorer(LIKE)
        stack = alone.stacks[0]
        queries = stack.metrics[0](X)
        prototype, gaussian = stack.means(queries[None])
        evidence = stack.indices[0].evidence(F.normalize(queries), one.beta)
        cache = F.log_mean_evidence(evidence, stack.mass)[None]
        rows = [scorer._metric_free_experts(X), cache, prototype, gaussian / one.gaussian]
        scores = torch.cat(rows)[: len(one.weights)]
        placed = place_text_only(
            scores, has_images, (one.text_only.zero_shot, one.text_only.centered_text), one.text_only.deviations
        )
        weights = torch.as_tensor(one.weights * one.averaging_weight / total)
        expected += torch.tensordot(weights, placed, dims=1)
    torch.testing.assert_close(scorer.logits(X), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shots", [1, 4, 16])
def test_images_of_a_class_with_good_text_are_found_and_the_others_not_lost(shots):
    problem = make_problem(n_classes=8, shots=shots, dim=32, text_noise=0.2, noise=0.6)
    rows = problem.y < 4
    clf = XMAdapterClassifier("precomputed", text_features=problem.text)
    clf.partial_fit(problem.X[rows], problem.y[rows], classes=np.arange(8))
    right = clf.predict(problem.X_test) == problem.y_test
    assert right[problem.y_test >= 4].mean() > 0.7
    assert right[problem.y_test < 4].mean() > 0.7


def test_a_class_with_useless_text_takes_few_images_of_the_others():
    problem = make_problem(n_classes=8, shots=8, dim=32)
    rng = np.random.default_rng(0)
    text = rng.standard_normal(problem.text.shape)
    rows = problem.y < 4
    clf = XMAdapterClassifier("precomputed", text_features=text / np.linalg.norm(text, axis=1, keepdims=True))
    clf.partial_fit(problem.X[rows], problem.y[rows], classes=np.arange(8))
    known = problem.y_test < 4
    alone = XMAdapterClassifier("precomputed", text_features=clf.text_features[:4]).fit(
        problem.X[rows], problem.y[rows]
    )
    lost = alone.score(problem.X_test[known], problem.y_test[known]) - clf.score(
        problem.X_test[known], problem.y_test[known]
    )
    assert lost < 0.15


@pytest.mark.parametrize("with_text", [True, False])
def test_a_class_of_which_nothing_is_known_has_a_probability_of_zero(with_text):
    problem = make_problem(n_classes=5, shots=3)
    rows, text = problem.y < 4, problem.text.copy()
    text[4] = 0
    given = {"text_features": text} if with_text else {}
    clf = XMAdapterClassifier("precomputed", **given)
    clf.partial_fit(problem.X[rows], problem.y[rows], classes=np.arange(5))
    alone = XMAdapterClassifier("precomputed", **({"text_features": text[:4]} if with_text else {}))
    alone.fit(problem.X[rows], problem.y[rows])
    probabilities = clf.predict_proba(problem.X_test)
    assert (probabilities[:, 4] < 1e-40).all()
    assert np.isfinite(clf.decision_function(problem.X_test)).all()
    np.testing.assert_allclose(probabilities[:, :4], alone.predict_proba(problem.X_test), atol=1e-4)
    np.testing.assert_allclose(clf.left_out_probability_, alone.left_out_probability_, atol=1e-4)
    assert clf.reject_threshold_ == pytest.approx(alone.reject_threshold_, abs=1e-2)
    assert (clf.zero_shot(problem.X_test)[:, 4] < 1e-40).all()
    # its first image makes it a class like any other
    clf.partial_fit(problem.X[~rows], problem.y[~rows])
    assert clf.score(problem.X_test, problem.y_test) > 0.6


def test_nothing_is_expected_of_images_of_one_class():
    problem = make_problem(n_classes=3, shots=4)
    rows = problem.y < 1
    for parameters in ({}, {"text_features": problem.text}):
        clf = XMAdapterClassifier("precomputed", **parameters)
        clf.partial_fit(problem.X[rows], problem.y[rows], classes=np.arange(3))
        assert np.isnan(clf.left_out_score_)


def test_a_saved_model_knows_how_it_scores_them(tmp_path):
    problem = make_problem(n_classes=6, shots=2, noise=2, text_noise=2)
    rows = problem.y < 3
    clf = XMAdapterClassifier("precomputed", text_features=problem.text)
    clf.partial_fit(problem.X[rows], problem.y[rows], classes=np.arange(6))
    assert {one.text_only.deviations for one in clf.model_.components} != {1.5}
    clf.save(tmp_path / "some.skxma")
    again = load(tmp_path / "some.skxma").predict_proba(problem.X_test)
    np.testing.assert_array_equal(again, clf.predict_proba(problem.X_test))
