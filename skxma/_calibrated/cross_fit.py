"""Left-out logits of weights that did not see the sample either (docs/method.md, "Honest left-out answers").

The caches leave each sample out, but the fusion weights and the choice among the metrics are learned on all left-out
scores, and a handful of numbers chosen on a handful of samples flatters them. So the samples are dealt out to folds:
weights and choice are learned without a fold, and score it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._calibrated.averaging import choose_per_root
from skxma._calibrated.config import CalibrationConfig
from skxma._calibrated.experts import LeaveOneOutScores
from skxma._calibrated.fusion import Fusion, FusionProblem, fused_logits
from skxma._calibrated.newton import refit_without_folds
from skxma.caches import Integers


@dataclass(frozen=True)
class LeftOutLogits:
    """Logits of the support samples, none of which has been seen by what made its own.

    Attributes
    ----------
    logits : Tensor of shape (N, C)
        With the weights as they are learned, from scores in which the own class has a shot less.
    as_new : Tensor of shape (N, C)
        With the weights that new images get.
    own : Tensor of shape (N, Q)
        Of the own class with the weights that new images get, at each node of the quadrature.
    """

    logits: Tensor
    as_new: Tensor
    own: Tensor

    @classmethod
    def of(
        cls, scores: LeaveOneOutScores, weights: NDArray[np.float64], new_weights: NDArray[np.float64]
    ) -> LeftOutLogits:
        """Logits of leave-one-out scores by the weights (J,) that were learned, and by those that new images get."""
        return cls(
            fused_logits(scores.scores, weights),
            fused_logits(scores.scores, new_weights),
            fused_logits(scores.own, new_weights),
        )

    @classmethod
    def mean(cls, parts: Sequence[LeftOutLogits], weights: Sequence[float]) -> LeftOutLogits:
        """Weighted mean of several, by weights that sum to 1."""
        columns = zip(*((part.logits, part.as_new, part.own) for part in parts), strict=True)
        return cls(
            *(torch.stack([w * one for w, one in zip(weights, column, strict=True)]).sum(0) for column in columns)
        )

    def open_set_scores(self, labels: Tensor) -> Tensor:
        """Open-set scores (N, Q) that new images of the same classes would have."""
        others = F.split_own_class(self.as_new, labels)[1][:, None].expand_as(self.own)
        return F.open_set_score(torch.stack([self.own, others], dim=2))


@dataclass(frozen=True)
class CrossFittedMetric:
    """What a metric says of each fold by weights that were learned on the others.

    Attributes
    ----------
    root : str
        Name of its root B.
    objectives : ndarray of shape (K,)
        Objective of the weights on all folds but one.
    left_out : LeftOutLogits
    """

    root: str
    objectives: NDArray[np.float64]
    left_out: LeftOutLogits


def cross_fit_metric(
    root: str, problem: FusionProblem, fusion: Fusion, folds: Integers, correction: float
) -> CrossFittedMetric:
    """Learn the fusion of one metric without each fold, and score the fold.

    Parameters
    ----------
    root : str
    problem : FusionProblem
    fusion : Fusion
        Learned on all samples.
    folds : ndarray of shape (N,)
    correction : float
        See `fusion.leave_one_out_correction`.
    """
    weights, objectives = refit_without_folds(problem, fusion, folds)
    new_weights = problem.parametrization.rescaled(weights, correction)
    parts, rows = [], []
    for k, fold in enumerate(np.unique(folds)):
        out = torch.as_tensor(np.flatnonzero(folds == fold), device=problem.labels.device)
        parts.append(LeftOutLogits.of(problem.scores.take(out), weights[k], new_weights[k]))
        rows.append(out)
    place = torch.argsort(torch.cat(rows))
    columns = zip(*((part.logits, part.as_new, part.own) for part in parts), strict=True)
    return CrossFittedMetric(root, objectives, LeftOutLogits(*(torch.cat(column)[place] for column in columns)))


def cross_fitted_logits(
    metrics: Sequence[CrossFittedMetric], folds: Integers, singleton: Tensor, config: CalibrationConfig
) -> LeftOutLogits:
    """Left-out logits of all samples, each fold by the metrics that are best on the others.

    Parameters
    ----------
    metrics : sequence of CrossFittedMetric
    folds : ndarray of shape (N,)
    singleton : bool Tensor of shape (N,)
    config : CalibrationConfig
    """
    first = metrics[0].left_out
    mean = LeftOutLogits(*(torch.zeros_like(a) for a in (first.logits, first.as_new, first.own)))
    judges = ~singleton.cpu().numpy()
    for k, fold in enumerate(np.unique(folds)):
        out = torch.as_tensor(np.flatnonzero(folds == fold), device=singleton.device)
        candidates = [(one.root, float(one.objectives[k])) for one in metrics]
        for index, weight in choose_per_root(candidates, int(judges[folds != fold].sum()), config):
            part = metrics[index].left_out
            mean.logits[out] += weight * part.logits[out]
            mean.as_new[out] += weight * part.as_new[out]
            mean.own[out] += weight * part.own[out]
    return mean
