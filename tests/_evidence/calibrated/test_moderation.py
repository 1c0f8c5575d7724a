"""Scales that few samples leave open."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from skxma._evidence.calibrated.config import ScalePrior
from skxma._evidence.calibrated.cross_fit import LeftOutLogits
from skxma._evidence.calibrated.moderation import (
    ScaleGrid,
    moderation_factors,
    nearest_log_factors,
    rows_by_node,
)

PRIOR = ScalePrior()
pytestmark = pytest.mark.property


def separated(n_samples, n_classes=2, margin=8.0, accuracy=1.0, seed=0):
    """Logits that say one class with certainty, and labels that agree in a share of the samples."""
    rng = np.random.default_rng(seed)
    labels = torch.as_tensor(np.arange(n_samples) % n_classes)
    said = labels.clone()
    wrong = rng.permutation(n_samples)[: round((1 - accuracy) * n_samples)]
    said[wrong] = (said[wrong] + 1) % n_classes
    return margin * torch.nn.functional.one_hot(said, n_classes).double(), labels


def factors(zero_shot, rest, labels, **options):
    return moderation_factors(zero_shot, rest, labels, torch.ones(len(labels)), 0.01, PRIOR, **options)


def test_a_few_right_answers_do_not_prove_that_zero_shot_knows_the_images():
    few, many = (factors(z, 0 * z, y)[0] for z, y in (separated(2), separated(100)))
    assert few < 0.4
    assert many > 0.7


def test_wrong_answers_take_the_weight_from_zero_shot():
    z, labels = separated(40, accuracy=0.5)
    assert factors(z, 0 * z, labels)[0] < 0.2


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_order_and_class_names_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    z, rest = torch.as_tensor(rng.standard_normal((2, 9, 3)) * 3)
    labels = torch.as_tensor(rng.integers(0, 3, 9))
    rows, names = torch.as_tensor(rng.permutation(9)), torch.as_tensor(rng.permutation(3))
    found = factors(z, rest, labels)
    shuffled = factors(z[rows], rest[rows], labels[rows])
    renamed = factors(z[:, names], rest[:, names], torch.argsort(names)[labels])
    assert shuffled == pytest.approx(found, rel=1e-4)
    assert renamed == pytest.approx(found, rel=1e-4)


def test_a_scale_that_is_held_stays():
    z, labels = separated(6)
    rest = torch.as_tensor(np.random.default_rng(0).standard_normal((6, 2)))
    assert factors(z, rest, labels, holds_rest=True)[1] == 1
    assert factors(0 * z, rest, labels, has_zero_shot=False)[0] == 1


def test_the_prior_is_one_and_only_small_scales_are_foreign():
    grid = ScaleGrid.of(PRIOR, torch.empty(0, dtype=torch.float64), True, False)
    assert grid.log_prior.shape == (len(grid.zero_shot), len(grid.rest))
    assert float(torch.exp(grid.log_prior).sum()) == pytest.approx(1)
    assert float(grid.zero_shot.min()) == pytest.approx(np.exp(PRIOR.least_log))
    assert float(grid.native[0]) < 1e-3
    assert float(grid.native[-1]) == 1


def test_the_prior_is_what_its_numbers_say():
    grid = ScaleGrid.of(PRIOR, torch.empty(0, dtype=torch.float64), True, False)
    log_zero = np.linspace(PRIOR.least_log, PRIOR.largest_log, PRIOR.n_zero_shot)
    log_rest = np.linspace(PRIOR.least_rest_log, PRIOR.largest_log, PRIOR.n_rest)
    native = norm.pdf(log_zero, 0, PRIOR.native_std)
    native *= PRIOR.native / native.sum()
    foreign = (1 - PRIOR.native) * (log_zero <= 0) / (log_zero <= 0).sum()
    rest = norm.pdf(log_rest, 0, PRIOR.rest_std)
    np.testing.assert_allclose(torch.exp(grid.log_prior), np.outer(native + foreign, rest / rest.sum()), rtol=1e-5)
    np.testing.assert_allclose(grid.native, native / (native + foreign), rtol=1e-5)
    np.testing.assert_allclose(grid.rest, np.exp(log_rest), rtol=1e-5)


def test_the_nearest_factors_are_those_that_made_the_target():
    rng = np.random.default_rng(4)
    parts, offset = torch.as_tensor(rng.standard_normal((2, 30, 4))), torch.as_tensor(rng.standard_normal((30, 4)))
    theta = torch.tensor([0.4, -0.3], dtype=torch.float64)
    target = torch.softmax(torch.tensordot(torch.exp(theta), parts, dims=1) + offset, 1) / 30
    np.testing.assert_allclose(nearest_log_factors(target, parts, 0.0, offset), theta, atol=1e-3)
    np.testing.assert_allclose(nearest_log_factors(target, parts, 1e3, offset), 0, atol=1e-3)
    bounded = nearest_log_factors(target, parts, 0.0, offset, largest=0.1)
    assert bounded[0] == pytest.approx(0.1)
    assert bounded[1] < 0


def test_how_many_samples_a_row_stands_for_has_no_part_in_the_pull_of_the_factors():
    # labels that say nothing leave the prior, whatever the weight of the rows
    z, labels = separated(6)
    prior, rest = replace(PRIOR, factor_ridge=0.1), torch.as_tensor(np.random.default_rng(0).standard_normal((6, 2)))
    once, often = (moderation_factors(z, rest, labels, torch.full((6,), float(n)), 1.0, prior) for n in (1, 50))
    assert often == pytest.approx(once, rel=1e-4)


def test_nothing_is_scaled_where_neither_factor_is_free():
    z, labels = separated(6)
    rest = torch.as_tensor(np.random.default_rng(0).standard_normal((6, 2)))
    assert factors(0 * z, rest, labels, has_zero_shot=False, holds_rest=True) == (1.0, 1.0)
    assert factors(z, rest, labels, holds_rest=True)[0] < 0.9


@pytest.mark.parametrize("n_singletons", [0, 1])
def test_a_simulated_sample_has_a_row_for_each_node(n_singletons):
    rng = np.random.default_rng(5)
    logits, own = torch.as_tensor(rng.standard_normal((2, 3, 4))), torch.as_tensor(rng.standard_normal((2, 3, 2)))
    labels, independence = torch.tensor([0, 3, 3]), torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64)
    nodes, singleton = torch.tensor([0.25, 0.75], dtype=torch.float64), torch.arange(3) < n_singletons
    left_out = LeftOutLogits(logits, logits, own, own)
    rows, of_rows, weights = rows_by_node(left_out, labels, singleton, nodes, independence)
    if not n_singletons:
        assert rows is logits
        assert weights is independence
        return
    assert rows.shape == (2, 6, 4)
    for i in range(3):
        for node in range(2):
            wanted = logits[:, i].clone()
            wanted[:, labels[i]] = own[:, i, node]
            torch.testing.assert_close(rows[:, 2 * i + node], wanted)
            assert of_rows[2 * i + node] == labels[i]
            assert weights[2 * i + node] == independence[i] * nodes[node]


def test_the_learned_ratio_stands_where_zero_shot_is_right_and_falls_where_it_is_wrong():
    rest, labels = separated(60, margin=3.0, accuracy=0.9, seed=1)
    for accuracy, low, high in ((1.0, 0.8, 1.0), (0.5, 0.0, 0.3)):
        zero_shot, _ = separated(60, accuracy=accuracy)
        z, r = factors(zero_shot, rest, labels)
        assert low < z / r <= high + 1e-6
