"""What a fit expects of itself on new images."""

import math

import numpy as np
import pytest
import torch

from skxma._evidence.fitted import ExpectedScore


def draw(n, accuracy, seed):
    """Calibrated logits of two classes, and labels."""
    rng = np.random.default_rng(seed)
    margin = math.log(accuracy / (1 - accuracy))
    labels = torch.as_tensor(rng.integers(0, 2, n))
    right = torch.as_tensor(rng.random(n) < accuracy)
    logits = torch.zeros(n, 2, dtype=torch.float64)
    logits[torch.arange(n), torch.where(right, labels, 1 - labels)] = margin
    return logits, labels, torch.ones(n)


def test_the_interval_holds_the_accuracy_about_as_often_as_it_says():
    found = [ExpectedScore.from_left_out(*draw(40, 0.8, seed), torch.arange(40)) for seed in range(300)]
    assert np.mean([one.low <= 0.8 <= one.high for one in found]) >= 0.88
    assert np.mean([one.value for one in found]) == pytest.approx(0.8, abs=0.01)


def test_more_samples_make_it_narrower_and_weights_count():
    few, many = (ExpectedScore.from_left_out(*draw(n, 0.8, 0), torch.arange(n)) for n in (20, 500))
    assert many.high - many.low < 0.5 * (few.high - few.low)
    logits, labels, weights = draw(20, 0.8, 0)
    doubled = ExpectedScore.from_left_out(logits, labels, 2 * weights, torch.arange(20))
    assert (doubled.value, doubled.low) == pytest.approx((few.value, few.low))
    one = torch.zeros(20)
    one[0] = 1
    alone = ExpectedScore.from_left_out(logits, labels, one, torch.arange(20))
    assert alone.high - few.low > few.high - few.low
    pairs = ExpectedScore.from_left_out(logits, labels, weights, torch.arange(20) // 2)
    assert pairs.value == few.value
    assert pairs.high - pairs.low > 1.2 * (few.high - few.low)


def test_without_samples_nothing_is_known():
    found = ExpectedScore.from_left_out(torch.zeros(0, 3), *torch.zeros(2, 0, dtype=torch.long), torch.zeros(0))
    assert math.isnan(found.value)
    assert (found.low, found.high) == (0, 1)
