"""Samples that depend on one another are left out together, in closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hostile import seeds
from hypothesis import given, settings
from problems import make_problem

from skxma import XMAdapterClassifier
from skxma import functional as F
from skxma._evidence.calibrated.experts import ridge_img2txt
from skxma._evidence.calibrated.metric import (
    MetricSupport,
    candidate_metrics,
    complete_mean_length,
    leave_each_out,
    leave_one_out_scores,
)
from skxma._sampling import group_members, stratified_folds
from skxma._statistics import class_means, weighted_mean
from skxma.functional import HELD_OUT

pytestmark = pytest.mark.property
few = settings(max_examples=20, deadline=None)


def draw_groups(seed, n_classes=3, dim=6):
    """Features, labels and weights, and groups of one to three samples, some of them of several classes."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_classes).repeat(2), rng.integers(n_classes, size=8)])
    n = len(labels)
    groups = rng.integers(0, 7, n)
    groups = np.where(rng.random(n) < 0.5, groups, 1000 + np.arange(n))
    tensors = rng.standard_normal((n, dim)), labels, rng.uniform(0.5, 2, n)
    return *map(torch.as_tensor, tensors), groups, rng


@few
@given(seeds)
def test_leaving_a_group_out_equals_refitting_without_it(seed):
    check_left_out(*draw_groups(seed)[:4])


@pytest.mark.parametrize("seed", range(3))
def test_leaving_a_class_out_whole_equals_refitting_without_it(seed):
    features, labels, weights, _, _ = draw_groups(seed)
    groups = np.where(labels == 1, 0, 1000 + np.arange(len(labels)))
    groups[:2] = 0
    assert (labels[:2] == 0).all()
    check_left_out(features, labels, weights, groups)


def check_left_out(features, labels, weights, groups):
    rho, width, n_classes = 0.3, features.shape[1], 3
    (metric,) = candidate_metrics(features, labels, weights, n_classes, None, (rho,))
    members = torch.as_tensor(group_members(groups))
    support = MetricSupport.from_keys(metric(features), labels, weights, n_classes, members)
    rows = torch.arange(len(labels))
    got, mass = leave_one_out_scores(support, metric.scatter_weight, rows)

    x = features - weighted_mean(features, weights)
    means, _ = class_means(x, labels, weights, n_classes)
    trace = (weights[:, None] * (x - means[labels]) ** 2).sum() / width
    for i in rows.tolist():
        rest = torch.as_tensor(groups != groups[i])
        left_means, left_mass = class_means(x[rest], labels[rest], weights[rest], n_classes)
        residual = x[rest] - left_means[labels[rest]]
        scatter = residual.T @ (weights[rest][:, None] * residual)
        inner = torch.linalg.inv((1 - rho) * scatter / trace + rho * torch.eye(width, dtype=x.dtype))
        own = (x[i] @ inner @ x[i]).sqrt()
        lengths = torch.einsum("nd,de,ne->n", x, inner, x).sqrt()
        torch.testing.assert_close(got.key_cosines[i], torch.where(rest, x @ inner @ x[i] / own / lengths, HELD_OUT))
        squared = torch.einsum("nd,de,ne->n", left_means, inner, left_means)
        y = [int(labels[i])]
        squared[y] = complete_mean_length(squared[y, None], support, rows[i : i + 1])[:, 0]
        dots, present = left_means @ inner @ x[i], left_mass > 0
        wanted = dots / own / squared.sqrt().clamp_min(1e-300)
        torch.testing.assert_close(got.prototype[i][present], wanted[present], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(got.gaussian[i][present], (dots - squared / 2)[present], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(mass[i], left_mass)
        assert not got.prototype[i][~present].any()
        assert bool(support.singleton[i]) == (not bool(left_mass[labels[i]] > 0))


def test_a_class_that_is_left_out_whole_is_gone_whatever_its_mass_rounds_to():
    keys, labels, weights = torch.randn(7, 4), torch.zeros(7, dtype=torch.long), torch.linspace(0.1, 2, 7)
    support = MetricSupport.from_keys(keys, labels, weights, 1, torch.arange(7).expand(7, -1))
    # the sums of a large class are not equal to the last digit in single precision
    rounded = replace(support, mass=support.mass * (1 + 3e-7))
    assert bool((rounded.mass > weights.sum()).all())
    assert bool(leave_each_out(rounded, 0.1, torch.arange(7)).gone.all())


@few
@given(seeds)
def test_img2txt_of_a_sample_has_not_seen_its_group(seed):
    features, labels, weights, groups, rng = draw_groups(seed)
    f, targets = F.normalize(features), F.normalize(torch.as_tensor(rng.standard_normal((3, 6))))[labels]
    _, left_out = ridge_img2txt(f, targets, weights, 0.5, torch.as_tensor(group_members(groups)))
    # mean and shift are those of all samples
    mean, shift = weighted_mean(f, weights), weighted_mean(targets - f, weights)
    for i in range(len(labels)):
        rest = torch.as_tensor(groups != groups[i])
        x, y, v = (f - mean)[rest], (targets - f - shift)[rest], weights[rest][:, None]
        matrix = torch.linalg.solve(x.T @ (v * x) + 0.5 * torch.eye(6, dtype=f.dtype), x.T @ (v * y))
        torch.testing.assert_close(left_out[i], F.normalize((f[i] + shift + (f[i] - mean) @ matrix)[None])[0])


@few
@given(seeds)
def test_the_samples_of_a_group_share_a_fold(seed):
    _, labels, _, groups, _ = draw_groups(seed)
    folds = stratified_folds(labels.numpy(), 4, groups)
    for group in np.unique(groups):
        assert len(set(folds[groups == group])) == 1
    alone = np.arange(len(labels))
    np.testing.assert_array_equal(stratified_folds(labels.numpy(), 4, alone), stratified_folds(labels.numpy(), 4))


@pytest.mark.parametrize("groups", [np.zeros(12, int), np.arange(12) % 2])
def test_one_group_or_two_leave_something_to_say(groups):
    problem = make_problem(n_classes=3, shots=4)
    clf = XMAdapterClassifier("precomputed", text_features=problem.text, conformal="cross")
    clf.fit(problem.X, problem.y, groups=groups)
    np.testing.assert_allclose(clf.predict_proba(problem.X_test).sum(1), 1)
