from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from fusions import fit_fusion, log_probability_of

from skxma._evidence.calibrated.averaging import pseudo_bma_weights
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.experts import LeaveOneOutScores
from skxma._evidence.calibrated.fusion import (
    FusionObjective,
    FusionParametrization,
    fused_logits,
    leave_one_out_correction,
    leave_one_out_log_probability,
    mean_log_likelihood,
    weight_penalty,
)
from skxma._evidence.fitted import FitReport, LeftOutPredictions

PRIOR = np.array([10.0, 2.0, 1.0, 3.0])
CONFIG = CalibrationConfig()


def make_scores(n=60, n_classes=4, useful=(1.0, 0.5, 1.0, 0.0), wrong=0, seed=0):
    """Experts that know the label to a stated degree; the first `wrong` samples carry another label."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n)
    signal = np.eye(n_classes)[truth]
    scores = np.stack([k * signal + 0.5 * rng.standard_normal((n, n_classes)) for k in useful])
    labels = truth.copy()
    labels[:wrong] = (truth[:wrong] + 1) % n_classes
    scores, labels = torch.as_tensor(scores), torch.as_tensor(labels)
    own = scores.gather(2, labels[None, :, None].expand(len(scores), -1, 1)).repeat(1, 1, 3)
    names = ("zero_shot", "text_cache", "image_cache", "prototype")
    singleton = torch.zeros(n, dtype=torch.bool)
    return LeaveOneOutScores(names, scores, own, torch.full((3,), 1 / 3, dtype=torch.float64), singleton), labels


def fit(scores, labels, config=CONFIG, **held):
    return fit_fusion(objective_of(scores, labels, config, **held))


def objective_of(scores, labels, config=CONFIG, weights=None, **held):
    ones = torch.ones(len(labels))
    parametrization = FusionParametrization(PRIOR, 1, 2, **held)
    return FusionObjective(scores, labels, ones if weights is None else weights, ones, parametrization, config)


def test_a_useless_expert_loses_its_weight_and_a_useful_one_gains():
    fusion = fit(*make_scores(n=400, useful=(0.0, 1.0, 1.0, 0.0)))
    relative = fusion.weights / PRIOR
    assert relative[0] < 0.2
    assert relative[3] < 0.5
    assert relative[1] > 0.7


def test_the_noise_rate_follows_the_share_of_wrong_labels():
    clean = fit(*make_scores(n=400, useful=(2.0, 2.0, 2.0, 2.0)))
    noisy = fit(*make_scores(n=400, useful=(2.0, 2.0, 2.0, 2.0), wrong=80))
    assert clean.noise_rate < 0.03
    assert 0.1 < noisy.noise_rate < 0.35


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_numbers_are_held(alpha, ratio):
    fusion = fit(*make_scores(), alpha=alpha, fusion_ratio=ratio)
    relative = fusion.weights / PRIOR
    assert fusion.alpha == pytest.approx(alpha)
    assert fusion.fusion_ratio == pytest.approx(ratio)
    assert relative[1:].sum() == pytest.approx(3 * alpha)
    assert relative[2:].sum() == pytest.approx(3 * alpha * ratio)


def test_one_held_number_leaves_the_other_to_be_learned():
    free, held = fit(*make_scores()), fit(*make_scores(), alpha=0.4)
    assert held.alpha == pytest.approx(0.4)
    assert 0 < held.fusion_ratio < 1
    assert held.loss >= free.loss - 0.05


def test_what_is_reported_is_what_was_minimized():
    scores, labels = make_scores()
    fusion = fit(scores, labels)
    logits = np.tensordot(fusion.weights, scores.scores.numpy(), axes=1)
    np.testing.assert_allclose(fused_logits(scores.scores, fusion.weights), logits)
    shifted = logits - logits.max(1, keepdims=True)
    p = (np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True))[np.arange(len(labels)), labels]
    np.testing.assert_allclose(log_probability_of(labels, scores, fusion).exp(), p)
    wanted = -np.mean(np.log((1 - fusion.noise_rate) * p + fusion.noise_rate / 4))
    assert fusion.loss == pytest.approx(wanted)


def test_the_learned_weights_are_a_minimum():
    scores, labels = make_scores()
    parametrization = FusionParametrization(PRIOR, 1, 2)
    fusion = fit(scores, labels)

    def objective(weights):
        log_p = leave_one_out_log_probability(scores, torch.as_tensor(weights), labels)
        rate = torch.tensor(fusion.noise_rate, dtype=torch.float64)
        loss = -mean_log_likelihood(log_p, scores, rate, torch.ones(len(labels), dtype=torch.float64), 4)
        u = weights / parametrization.prior
        return float(loss) + weight_penalty(len(labels), 4, CONFIG) * np.sum(u - 1 - np.log(u))

    least = objective(fusion.weights)
    for j in range(4):
        for factor in (0.97, 1.03):
            moved = fusion.weights.copy()
            moved[j] *= factor
            assert objective(moved) > least


@pytest.mark.parametrize("n", [20, 400])
def test_the_learned_noise_rate_is_a_minimum(n):
    scores, labels = make_scores(n=n, useful=(2.0, 2.0, 2.0, 2.0), wrong=n // 10)
    fusion = fit(scores, labels)
    log_p = log_probability_of(labels, scores, fusion)

    def objective(rate):
        p = (1 - rate) * log_p.exp() + rate / 4
        return -float(p.log().mean()) + max(0.01, 0.5 / n) * (np.log(rate / (1 - rate)) + 4) ** 2

    assert objective(fusion.noise_rate) < min(objective(0.97 * fusion.noise_rate), objective(1.03 * fusion.noise_rate))
    distance = float(FusionParametrization(PRIOR, 1, 2).relative_weights(torch.as_tensor(fusion.theta[:-1])).penalty)
    assert fusion.objective == pytest.approx(objective(fusion.noise_rate) + weight_penalty(n, 4, CONFIG) * distance)


def test_a_share_of_known_images_exceeds_the_threshold():
    rng = np.random.default_rng(0)
    scores, nodes = rng.standard_normal((40, 3)), np.array([0.25, 0.5, 0.25], dtype=np.float32)
    logits = torch.as_tensor(rng.standard_normal((40, 5)))
    answers = LeftOutPredictions.from_logits(logits, torch.as_tensor(scores), torch.as_tensor(nodes))
    np.testing.assert_array_equal(answers.label, logits.argmax(1))
    np.testing.assert_allclose(answers.probability, torch.softmax(logits, 1).amax(1), rtol=1e-6)
    for rate in (0.1, 0.3, 0.7):
        above = scores > answers.open_set_quantile(rate) + 1e-6
        assert (above * nodes).sum() / 40 == pytest.approx(rate, abs=0.02)


def test_nothing_known_exceeds_the_threshold_of_no_rejection():
    # added up one by one, these weights fall short of their sum
    nodes = np.full(10, 0.1)
    assert np.cumsum(nodes)[-1] / nodes.sum() < 1
    scores = np.arange(10.0)[None]
    answers = LeftOutPredictions(np.zeros(1, int), np.ones(1), scores, nodes, np.zeros((1, 2)))
    assert answers.open_set_quantile(0.0) == 9
    assert answers.rejection_threshold(0.1) == 9


def test_what_was_learned_stays_as_it_is():
    scores, labels = make_scores()
    fusion = fit(scores, labels)
    answers = LeftOutPredictions.from_logits(torch.zeros(1, 2), torch.zeros(1, 1), torch.ones(1))
    report = FitReport(None, None, None, 0.0, [], answers)
    problem = objective_of(scores, labels)
    for one, name in (
        (fusion, "weights"),
        (problem.parametrization, "prior"),
        (answers, "label"),
        (report, "noise_rate"),
        (problem, "labels"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(one, name, None)


def test_singletons_are_scored_without_noise_and_by_the_mean_of_the_log_likelihoods():
    scores, labels = make_scores(n=6)
    own = scores.own.clone()
    own[:, :, 1] += 1.0
    singleton = torch.ones(6, dtype=torch.bool)
    scores = LeaveOneOutScores(
        scores.names, scores.scores, own, torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64), singleton
    )
    log_p = leave_one_out_log_probability(scores, torch.as_tensor(PRIOR), labels)
    rate = torch.tensor(0.3, dtype=torch.float64)
    got = mean_log_likelihood(log_p, scores, rate, torch.ones(6, dtype=torch.float64), 4)
    assert float(got) == pytest.approx(float((log_p @ scores.node_weights).mean()))
    assert fit(scores, labels).noise_rate == 0


def test_a_sample_of_little_loss_weight_has_little_influence():
    scores, labels = make_scores(n=200, useful=(2.0, 2.0, 2.0, 2.0), wrong=50)
    weights = torch.ones(200)
    weights[:50] = 1e-6
    trusting = fit_fusion(objective_of(scores, labels, weights=weights))
    assert trusting.noise_rate < fit(scores, labels).noise_rate / 2


def test_another_start_reaches_the_same_minimum():
    scores, labels = make_scores()
    a = fit(scores, labels)
    problem = objective_of(scores, labels)
    b = fit_fusion(problem, start=a.theta + 0.5)
    np.testing.assert_allclose(a.weights, b.weights, rtol=1e-2)


def test_labels_are_not_called_wrong_where_the_text_is():
    scores, labels = make_scores(n=20, useful=(0.0, 0.0, 2.0, 2.0), seed=3)
    # zero-shot is sure of another class for most
    scores.scores[0] *= 30.0
    scores.own[0] *= 30.0
    found = fit(scores, labels)
    assert found.noise_rate < 0.1
    assert found.weights[0] < 0.1 * PRIOR[0]
    unsuspecting = replace(CONFIG, suspicious_noise_rate=0.999)
    assert fit(scores, labels, unsuspecting).noise_rate > 0.3


def test_metrics_count_by_how_well_they_answer_for_samples_left_out():
    even = pseudo_bma_weights([0.5, 0.9, 0.2], 0, 0.3)
    np.testing.assert_allclose(even, 1 / 3)
    few, many = (pseudo_bma_weights([0.5, 0.9, 0.2], n, 0.3) for n in (10, 10_000))
    assert few[2] > few[0] > few[1] > 0
    np.testing.assert_allclose(few[0] / few[1], np.exp(0.3 * 10 * 0.4))
    np.testing.assert_allclose(many, [0, 0, 1])


def test_the_pull_to_the_priors_fades_with_the_samples():
    pulls = [weight_penalty(n, 10, CONFIG) for n in (10, 50, 100, 160, 1000)]
    assert pulls == sorted(pulls, reverse=True)
    assert pulls[0] == pulls[1] == 0.02
    assert pulls[3] == pytest.approx(1 / 160)


def test_many_classes_of_few_shots_are_pulled_as_hard_as_few_classes():
    assert weight_penalty(2000, 1000, CONFIG) == weight_penalty(20, 10, CONFIG) == 0.02
    assert weight_penalty(16000, 1000, CONFIG) < 0.005


def test_the_missing_shot_counts_less_the_more_there_are():
    assert leave_one_out_correction(np.array([2, 2, 0])) == pytest.approx(4 / 3)
    assert leave_one_out_correction(np.array([1, 1])) == 1.0
    assert leave_one_out_correction(np.array([16, 16])) == pytest.approx(256 / 255)
    assert leave_one_out_correction(np.array([1, 3])) == pytest.approx((1 + 3 * 9 / 8) / 4)


def test_rescaled_image_experts_shift_the_weights_and_the_scalars():
    scores, labels = make_scores()
    parametrization = FusionParametrization(PRIOR, 1, 2)
    before = fit_fusion(objective_of(scores, labels))
    after = parametrization.rescale_image_experts(before, 4 / 3)
    np.testing.assert_allclose(after.weights[2:] / before.weights[2:], (4 / 3) ** 0.5)
    np.testing.assert_allclose(after.weights[:2] / before.weights[:2], (3 / 4) ** 0.5)
    relative = after.weights[1:] / PRIOR[1:]
    assert after.alpha == pytest.approx(relative.mean())
    assert after.fusion_ratio == pytest.approx(relative[1:].sum() / relative.sum())
    two_texts = FusionParametrization(PRIOR, 2, 1)
    shifted = two_texts.rescale_image_experts(before, 4)
    np.testing.assert_allclose(shifted.weights / before.weights, [0.5, 0.5, 0.5, 2])
    held = FusionParametrization(PRIOR, 1, 2, alpha=0.5)
    fixed = fit_fusion(objective_of(scores, labels, alpha=0.5))
    assert held.rescale_image_experts(fixed, 4 / 3) is fixed
