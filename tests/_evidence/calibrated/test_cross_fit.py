"""Left-out answers of weights that have not seen the sample."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fusions import fit_fusion, take
from hypothesis import given, settings
from hypothesis import strategies as st

from skxma._evidence.calibrated.averaging import choose_per_root
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.cross_fit import (
    CrossFittedMetric,
    LeftOutLogits,
    cross_fit_metrics,
    cross_fitted_logits,
)
from skxma._evidence.calibrated.experts import LeaveOneOutScores
from skxma._evidence.calibrated.fusion import FusionObjective, FusionParametrization
from skxma._evidence.calibrated.newton import refit_without_folds

CONFIG = CalibrationConfig()
PRIOR = np.array([4.0, 1.0, 2.0, 0.5])
pytestmark = pytest.mark.property


def draw_problem(seed, n_samples=24, n_classes=4, n_singletons=0, **held):
    """Scores of four experts that know the labels to different degrees."""
    rng = np.random.default_rng(seed)
    labels = torch.as_tensor(rng.permutation(np.arange(n_samples) % n_classes))
    truth = torch.nn.functional.one_hot(labels, n_classes).double()
    skill = torch.as_tensor(rng.uniform(0, 1.5, 4))[:, None, None]
    scores = torch.as_tensor(rng.standard_normal((4, n_samples, n_classes))) + skill * truth
    singleton = torch.arange(n_samples) < n_singletons
    own = scores.gather(2, labels[None, :, None].expand(4, -1, 1)).repeat(1, 1, 3)
    own[:, singleton] += torch.as_tensor([-0.5, 0.0, 0.5])
    nodes = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    left_out = LeaveOneOutScores(("z", "t", "c", "p"), scores, own, nodes, singleton)
    weights = torch.as_tensor(rng.uniform(0.5, 1.5, n_samples))
    return FusionObjective(
        left_out, labels, weights, torch.ones(n_samples), FusionParametrization(PRIOR, 1, 2, **held), CONFIG
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0, 6]), st.sampled_from([{}, {"alpha": 0.7}, {"fusion_ratio": 0.4}]))
def test_weights_without_a_fold_are_those_of_a_fit_without_it(seed, n_singletons, held):
    problem = draw_problem(seed, n_singletons=n_singletons, **held)
    fusion, folds = fit_fusion(problem), np.arange(24) % 5
    weights, objectives = (found[0] for found in refit_without_folds([problem], [fusion], folds))
    assert weights.shape == (5, 4)
    for k in range(5):
        alone = fit_fusion(take(problem, torch.as_tensor(np.flatnonzero(folds != k))), fusion.theta)
        np.testing.assert_allclose(weights[k], alone.weights, rtol=1e-2, atol=1e-3)
        assert objectives[k] == pytest.approx(alone.objective, abs=1e-5)


def test_a_label_has_no_part_in_the_left_out_logits_of_its_fold():
    problem = draw_problem(3)
    folds = np.arange(24) % 6
    relabeled = problem.labels.clone()
    of_fold = torch.as_tensor(np.flatnonzero(folds == 2))
    relabeled[of_fold] = (relabeled[of_fold] + 1) % 4
    other = replace(problem, labels=relabeled)
    fusion = fit_fusion(problem)
    found = [
        cross_fit_metrics(["none"], [one], [one.scores], [fusion], folds, 1.0)[0].left_out.logits
        for one in (problem, other)
    ]
    torch.testing.assert_close(found[0][:, of_fold], found[1][:, of_fold], atol=1e-4, rtol=1e-4)
    rest = torch.as_tensor(np.flatnonzero(folds != 2))
    assert not torch.allclose(found[0][:, rest], found[1][:, rest], atol=1e-2)


def test_each_fold_is_answered_by_the_metrics_that_are_best_on_the_others():
    def metric(root, objectives, value):
        logits = torch.full((2, 4, 3), float(value))
        return CrossFittedMetric(root, np.array(objectives), LeftOutLogits(logits, logits, logits, logits))

    folds = np.array([0, 1, 0, 1])
    metrics = [metric("a", [0.0, 9.0], 1), metric("b", [9.0, 0.0], 2)]
    config = CalibrationConfig(max_metrics=1)
    found = cross_fitted_logits(metrics, folds, torch.zeros(4, dtype=torch.bool), torch.ones(4), config)
    np.testing.assert_array_equal(found.logits[0, :, 0], [1, 2, 1, 2])
    assert all(float(part.std()) > 0 for part in found.parts)


def test_no_more_metrics_of_a_root_are_chosen_than_allowed():
    objectives = [("a", 0.1), ("a", 0.2), ("a", 0.3), ("b", 0.4), ("c", 50.0)]
    chosen = choose_per_root(objectives, 30, CONFIG)
    assert [index for index, _ in chosen] == [0, 1, 3]
    assert sum(weight for _, weight in chosen) == pytest.approx(1)
    assert [weight for _, weight in chosen] == sorted((weight for _, weight in chosen), reverse=True)
