import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skxma import functional as F

sizes = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(2, 4), st.integers(2, 6), st.integers(0, 10**6))


def draw(size):
    n, n_keys, n_classes, dim, seed = size
    rng = torch.Generator().manual_seed(seed)
    queries, keys = (F.normalize(torch.randn(m, dim, generator=rng, dtype=torch.float64)) for m in (n, n_keys))
    labels = torch.randint(n_classes, (n_keys,), generator=rng)
    return queries, keys, labels, n_classes


@given(sizes)
def test_evidence_is_the_sum_over_the_keys_of_each_class(size):
    queries, keys, labels, n_classes = draw(size)
    values = torch.eye(n_classes, dtype=torch.float64)[labels]
    got = F.cache_evidence(F.affinity(queries, keys), values, 5.5)
    for i, query in enumerate(queries):
        for c in range(n_classes):
            wanted = sum(
                math.exp(-5.5 * (1 - float(query @ key))) for key, label in zip(keys, labels, strict=True) if label == c
            )
            assert float(got[i, c]) == pytest.approx(wanted)


@given(sizes)
def test_evidence_of_one_hot_values_is_that_of_the_product(size):
    queries, keys, labels, n_classes = draw(size)
    weights = torch.rand(len(keys), dtype=torch.float64) + 0.1
    values = torch.eye(n_classes, dtype=torch.float64)[labels] * weights[:, None]
    affinities = F.affinity(queries, keys)
    wanted = F.cache_evidence(affinities, values, 3.0)
    torch.testing.assert_close(F.one_hot_evidence(affinities, labels, weights, n_classes, 3.0), wanted)


class Elsewhere(torch.Tensor):
    """Says that it is on a GPU."""

    device = torch.device("cuda")


@given(sizes)
def test_sums_by_class_are_the_same_wherever_they_are_made(size):
    queries, keys, labels, n_classes = draw(size)
    contributions = F.affinity(queries, keys)
    wanted = torch.stack([contributions[:, labels == c].sum(1) for c in range(n_classes)], 1)
    torch.testing.assert_close(F.sum_by_class(contributions, labels, n_classes), wanted)
    elsewhere = F.sum_by_class(contributions.as_subclass(Elsewhere), labels, n_classes)
    torch.testing.assert_close(elsewhere.as_subclass(torch.Tensor), wanted)


@given(sizes)
def test_text_affinity_is_equal_within_a_class(size):
    queries, _, labels, n_classes = draw(size)
    text = F.normalize(torch.randn(n_classes, queries.shape[1], dtype=torch.float64))
    got = F.text_affinity(queries, text, labels)
    one_hot = torch.eye(n_classes, dtype=torch.float64)[labels]
    torch.testing.assert_close(got, queries @ (one_hot @ text).T)


@given(sizes, st.floats(0, 1))
def test_fusion_inside_the_exponential_is_a_gate_per_class(size, ratio):
    queries, keys, labels, n_classes = draw(size)
    image = F.affinity(queries, keys)
    text = F.text_affinity(queries, F.normalize(keys[:1].repeat(n_classes, 1)), labels)
    fused = F.fuse(image, text, ratio)
    torch.testing.assert_close((2 * fused).exp(), (2 * ratio * image).exp() * (2 * (1 - ratio) * text).exp())


@given(sizes, st.floats(0, 1))
def test_fused_evidence_is_that_of_the_fused_affinities(size, ratio):
    queries, keys, labels, n_classes = draw(size)
    weights = torch.rand(len(keys), dtype=torch.float64) + 0.1
    class_text = F.affinity(queries, F.normalize(torch.randn(n_classes, queries.shape[1], dtype=torch.float64)))
    image = F.affinity(queries, keys)
    got = F.fused_evidence(image, class_text, labels, weights, ratio, 4.0)
    fused = F.fuse(image, class_text[:, labels], ratio)
    torch.testing.assert_close(got, F.one_hot_evidence(fused, labels, weights, n_classes, 4.0))
    left_out = torch.randint(len(keys), (len(queries),))
    got = F.fused_evidence(image, class_text, labels, weights, ratio, 4.0, left_out)
    fused = F.leave_self_out(fused, left_out)
    torch.testing.assert_close(got, F.one_hot_evidence(fused, labels, weights, n_classes, 4.0))


def test_a_sample_left_out_retrieves_nothing_and_gradients_stay_finite():
    keys = F.normalize(torch.randn(4, 3))
    beta = torch.tensor(3.0, requires_grad=True)
    rows = torch.tensor([2, 0])
    affinities = F.leave_self_out(F.affinity(keys[rows], keys), rows)
    evidence = F.cache_evidence(affinities, torch.eye(4), beta)
    assert evidence[0, 2] == 0
    assert evidence[1, 0] == 0
    assert (evidence > 0).sum() == 6
    evidence.sum().backward()
    assert torch.isfinite(beta.grad)


def test_residual_logits_with_alpha_zero_are_zero_shot():
    zero_shot, evidence = torch.randn(3, 4), torch.rand(3, 4)
    assert torch.equal(F.residual_logits(zero_shot, evidence, 0.0), zero_shot)


def test_hardness_averages_the_gap_over_the_other_keys_of_the_own_class():
    labels = torch.tensor([0, 0, 0, 1])
    image = torch.tensor([[1.0, 0.5, 0.3, 0.9]]).repeat(4, 1)
    text = torch.full((4, 2), 0.1)
    held = F.leave_self_out(image, torch.arange(4))
    got = F.hardness(held, text, labels, labels)
    assert got[0] == pytest.approx((0.4 + 0.2) / 2)
    assert got[1] == pytest.approx((0.9 + 0.2) / 2)
    assert got[3] == 0


def test_hardness_of_some_samples_is_theirs_among_all():
    labels, own = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([1, 0])
    image = torch.tensor([[0.9, 0.8, 0.5, 0.3, 0.1], [0.6, 0.4, 0.2, 0.0, 0.7]])
    text = torch.tensor([[0.0, 0.2], [0.1, 0.0]])
    got = F.hardness(F.leave_self_out(image, torch.tensor([4, 0])), text, own, labels)
    assert got.tolist() == pytest.approx([(0.3 + 0.1) / 2, 0.3])


@given(st.lists(st.floats(0, 10), min_size=1, max_size=20), st.floats(0, 5))
def test_hard_sample_weights_have_mean_one_and_grow_with_hardness(hardness, strength):
    hard = torch.tensor(hardness, dtype=torch.float64)
    weights = F.hard_sample_weights(hard, strength)
    assert float(weights.mean()) == pytest.approx(1)
    order = hard.argsort()
    assert bool((weights[order].diff() >= -1e-12).all())
    assert float(weights.max() / weights.min()) <= 1 + strength + 1e-9


@given(st.floats(-30, 0), st.floats(1e-6, 0.5), st.integers(2, 1000))
def test_wrong_label_posterior_is_bayes(log_p, rate, n_classes):
    p = math.exp(log_p)
    wanted = (rate / n_classes) / ((1 - rate) * p + rate / n_classes)
    got = F.wrong_label_posterior(torch.tensor([log_p], dtype=torch.float64), rate, n_classes)
    assert float(got) == pytest.approx(wanted)


def test_no_noise_means_no_wrong_label():
    assert F.wrong_label_posterior(torch.tensor([-50.0]), 0.0, 3).item() == 0
    log_p = torch.tensor([-1.5])
    assert torch.equal(F.noisy_log_likelihood(log_p, 0.0, 3), log_p)


def test_absent_classes_get_the_mean_plus_one_deviation_of_the_row():
    scores = torch.tensor([[1.0, 3.0, 99.0], [2.0, 2.0, -5.0]])
    filled = F.fill_absent(scores, torch.tensor([True, True, False]))
    assert filled.tolist() == [[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]
    assert F.fill_absent(scores, torch.tensor([False] * 3)).abs().sum() == 0


@given(sizes)
def test_class_log_evidence_does_not_favor_repeated_keys(size):
    queries, keys, labels, n_classes = draw(size)
    values = torch.eye(n_classes, dtype=torch.float64)[labels]
    cosines = F.affinity(queries, keys)
    weights, mass = torch.ones(len(keys), dtype=torch.float64), values.sum(0)
    once = F.class_log_evidence(cosines, labels, weights, mass, 4.0)
    twice = F.class_log_evidence(cosines.repeat(1, 2), labels.repeat(2), weights.repeat(2), 2 * mass, 4.0)
    torch.testing.assert_close(once, twice)


def test_no_evidence_is_a_finite_log_and_the_mean_is_that_of_the_mass():
    got = F.log_mean_evidence(torch.tensor([[0.0, 3.0]], dtype=torch.float64), torch.tensor([2.0, 2.0]))
    assert got.tolist() == [[pytest.approx(math.log(1e-8)), pytest.approx(math.log(1.5 + 1e-8))]]
    assert F.log_mean_evidence(torch.zeros(1, 1), torch.zeros(1)).item() == pytest.approx(math.log(1e-8))


@settings(max_examples=30)
@given(sizes)
def test_own_and_others_make_the_log_probability(size):
    queries, _, _, n_classes = draw(size)
    logits = torch.randn(len(queries), n_classes, dtype=torch.float64)
    labels = torch.randint(n_classes, (len(queries),))
    own, others = F.split_own_class(logits, labels)
    wanted = torch.log_softmax(logits, 1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(own - torch.logaddexp(own, others), wanted)


def test_normalize_keeps_zero_rows():
    assert F.normalize(torch.zeros(2, 3)).abs().sum() == 0
    assert np.allclose(F.normalize(torch.full((1, 4), 1e-6)).norm(), 1)


batches = st.tuples(st.integers(1, 40), st.integers(2, 6), st.floats(0.1, 20), st.integers(0, 10**6))


def draw_batch(size):
    n, n_classes, scale, seed = size
    rng = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, n_classes, generator=rng, dtype=torch.float64)
    base, prior = torch.rand(2, n_classes, generator=rng, dtype=torch.float64).add(0.05).unbind()
    return logits, base / base.sum(), prior / prior.sum()


@pytest.mark.property
@settings(deadline=None)
@given(batches, st.floats(0, 10))
def test_a_step_for_the_class_prior_never_lowers_the_penalized_likelihood(size, pseudo_count):
    logits, base, prior = draw_batch(size)
    likelihoods, counts = torch.softmax(logits, 1) / base, pseudo_count * len(base) * base
    last = -math.inf
    for _ in range(30):
        # 0 log 0 is 0: without pseudo-counts a frequency may go to nothing
        value = float(F.class_prior_log_likelihood(likelihoods, prior) + torch.xlogy(counts, prior).sum())
        assert value >= last - 1e-9 * (1 + abs(last))
        last, prior = value, F.class_prior_step(likelihoods, prior, counts)
        assert float(prior.sum()) == pytest.approx(1)
        assert float(prior.min()) >= 0


@given(batches)
def test_the_prior_that_logits_hold_for_changes_nothing_and_another_is_bayes_rule(size):
    logits, base, prior = draw_batch(size)
    torch.testing.assert_close(F.shift_class_prior(logits, base, base), logits)
    wanted = torch.softmax(logits, 1) * prior / base
    got = torch.softmax(F.shift_class_prior(logits, prior, base), 1)
    torch.testing.assert_close(got, wanted / wanted.sum(1, keepdim=True))
    torch.testing.assert_close(F.shift_class_prior(F.shift_class_prior(logits, prior, base), base, prior), logits)
