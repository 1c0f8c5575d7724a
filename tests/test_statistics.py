import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skxma import functional as F
from skxma._statistics import ClassPriorEstimator, are_among, class_shares
from skxma.embeddings import SAME_IMAGE, unit_rows

UNTESTED = ClassPriorEstimator(level=1.0)


def gaussian_batch(counts, separation, seed):
    """Logits (n, C) by Bayes' rule for equal frequencies, of images around the corners of a simplex."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    x = separation * np.eye(len(counts))[labels] + rng.standard_normal((len(labels), len(counts)))
    return torch.as_tensor(separation * x), torch.full((len(counts),), 1 / len(counts), dtype=torch.float64)


@pytest.mark.property
@settings(deadline=None, max_examples=50)
@given(st.integers(1, 30), st.integers(2, 5), st.integers(0, 10**6))
def test_a_batch_whose_mean_answer_is_the_base_changes_nothing(n, n_classes, seed):
    rng = torch.Generator().manual_seed(seed)
    probabilities = torch.softmax(5 * torch.randn(n, n_classes, generator=rng, dtype=torch.float64), 1)
    base = probabilities.mean(0)
    for estimator in (ClassPriorEstimator(), UNTESTED):
        found = estimator.estimate(probabilities.log(), base)
        torch.testing.assert_close(found, base, rtol=0, atol=1e-6)


@pytest.mark.property
@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(2, 5), st.floats(0.5, 5), st.integers(0, 10**6))
def test_the_estimate_is_the_maximum_of_the_penalized_likelihood(n, n_classes, scale, seed):
    rng = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, n_classes, generator=rng, dtype=torch.float64)
    base = torch.full((n_classes,), 1 / n_classes, dtype=torch.float64)
    found = UNTESTED.estimate(logits, base)
    likelihoods, counts = torch.softmax(logits, 1) / base, torch.full_like(base, 5.0)

    def value(prior):
        return float(F.class_prior_log_likelihood(likelihoods, prior) + (counts * prior.log()).sum())

    # concave, so no point beside it is higher
    for other in torch.eye(n_classes, dtype=torch.float64):
        for step in (1e-3, 0.1):
            assert value((1 - step) * found + step * other) <= value(found) + 1e-6


def test_frequencies_are_found_and_balanced_batches_left_alone():
    counts = [80, 40, 20, 10]
    logits, base = gaussian_batch(counts, 3.0, 0)
    found = ClassPriorEstimator().estimate(logits, base)
    assert np.abs(found.numpy() - np.array(counts) / 150).max() < 0.06
    left = [ClassPriorEstimator().estimate(*gaussian_batch([40] * 4, 3.0, seed)) for seed in range(40)]
    assert sum(torch.equal(prior, base) for prior in left) >= 38


def test_errors_that_fall_on_some_classes_are_no_other_frequencies():
    left, found = [], []
    for seed in range(20):
        offsets = torch.as_tensor(np.random.default_rng(seed).normal(0, 0.5, 8))
        for counts, kept in (([60] * 8, left), ([80, 40, 20, 10, 5, 2, 1, 1], found)):
            logits, base = gaussian_batch(counts, 2.0, seed)
            assert not torch.equal(UNTESTED.estimate(logits + offsets, base), base)
            kept.append(torch.equal(ClassPriorEstimator().estimate(logits + offsets, base), base))
    assert sum(left) >= 18
    assert sum(found) <= 10


def test_one_class_has_all_images():
    base = torch.ones(1, dtype=torch.float64)
    assert torch.equal(ClassPriorEstimator().estimate(torch.zeros(3, 1), base), base)


def test_few_images_of_many_classes_are_left_alone():
    logits, base = gaussian_batch([1] * 60, 4.0, 0)
    assert torch.equal(ClassPriorEstimator().estimate(logits, base), base)


def test_shares_of_a_class_without_images_are_a_quarter_of_the_rarest():
    np.testing.assert_allclose(class_shares(torch.tensor([8.0, 4.0, 0.0])), np.array([8, 4, 1]) / 13)


@pytest.mark.property
@settings(deadline=None, max_examples=50)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 40), st.integers(0, 10**6))
def test_copies_are_found_up_to_rounding_as_by_all_cosines(n, n_known, n_features, seed):
    rng = np.random.default_rng(seed)
    known = unit_rows(rng.standard_normal((n_known, n_features)) + 1)
    others = unit_rows(rng.standard_normal((n, n_features)) + 1)
    copies = unit_rows(known * (1 + 1e-7 * rng.standard_normal(known.shape)))
    features = np.concatenate([others, copies])
    wanted = np.concatenate([(others @ known.T > SAME_IMAGE).any(1), np.ones(n_known, dtype=bool)])
    np.testing.assert_array_equal(are_among(features, known), wanted)
