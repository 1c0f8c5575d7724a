"""Left-out logits of weights that did not see the sample either (docs/method.md, "Honest left-out answers").

The caches leave each sample out, but the fusion weights and the choice among the metrics are learned on all left-out
scores, and a handful of numbers chosen on a handful of samples flatters them. So the samples are dealt out to folds:
weights and choice are learned without a fold, and score it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._evidence.calibrated.averaging import choose_per_root
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.experts import LeaveOneOutScores
from skxma._evidence.calibrated.fusion import Fusion, FusionObjective, fused_logits
from skxma._evidence.calibrated.newton import refit_without_folds
from skxma.caches import Integers


@dataclass(frozen=True)
class LeftOutLogits:
    """Logits of the support samples, none of which has been seen by what made its own, in two summands.

    The first summand is zero-shot, the second all other experts.

    Attributes
    ----------
    logits : Tensor of shape (2, N, C)
        With the weights as they are learned, from scores in which the own class has a shot less.
    as_new : Tensor of shape (2, N, C)
        With the weights that new images get.
    own : Tensor of shape (2, N, Q)
        Of the own class at each node of the quadrature, with the weights as they are learned.
    own_as_new : Tensor of shape (2, N, Q)
        The same with the weights that new images get.
    """

    logits: Tensor
    as_new: Tensor
    own: Tensor
    own_as_new: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All logits."""
        return self.logits, self.as_new, self.own, self.own_as_new

    @classmethod
    def of(
        cls, scores: LeaveOneOutScores, weights: NDArray[np.float64], new_weights: NDArray[np.float64]
    ) -> LeftOutLogits:
        """Logits of leave-one-out scores by the weights that were learned, and by those that new images get.

        Parameters
        ----------
        scores : LeaveOneOutScores
        weights, new_weights : ndarray of shape (J,), or of shape (N, J) where each sample has its own
        """

        def summands(experts: Tensor, by: NDArray[np.float64]) -> Tensor:
            return torch.stack([fused_logits(experts[:1], by[..., :1]), fused_logits(experts[1:], by[..., 1:])])

        pairs = (
            (scores.scores, weights),
            (scores.scores, new_weights),
            (scores.own, weights),
            (scores.own, new_weights),
        )
        return cls(*(summands(*pair) for pair in pairs))

    @classmethod
    def joined(cls, several: Iterable[LeftOutLogits], n_samples: int) -> LeftOutLogits:
        """Join the logits of some samples after others, `n_samples` in all; each is dropped before the next."""
        parts: list[Tensor] = []
        start = 0
        for some in several:
            n = some.logits.shape[1]
            if n == n_samples:
                return some
            parts = parts or [part.new_empty(2, n_samples, part.shape[2]) for part in some.parts]
            for whole, part in zip(parts, some.parts, strict=True):
                whole[:, start : start + n] = part
            start += n
        return cls(*parts)

    @classmethod
    def mean(cls, several: Iterable[LeftOutLogits], weights: Sequence[float]) -> LeftOutLogits:
        """Weighted mean of several, by weights that sum to 1; each is dropped before the next is asked for."""
        means: list[Tensor] = []
        for weight, one in zip(weights, several, strict=True):
            if means:
                for mean, part in zip(means, one.parts, strict=True):
                    mean += weight * part
            else:
                means = [part if weight == 1 else weight * part for part in one.parts]
        return cls(*means)

    def scaled(self, factors: tuple[float, float]) -> LeftOutLogits:
        """Multiply the two summands by a factor each."""
        if factors == (1, 1):
            return self
        by = self.logits.new_tensor(factors)[:, None, None]
        return LeftOutLogits(*(by * part for part in self.parts))

    def among(self, classes: Tensor) -> LeftOutLogits:
        """The logits of some classes (K,), in which the labels of all samples are."""
        if len(classes) == self.logits.shape[2]:
            return self
        return replace(self, logits=self.logits[:, :, classes], as_new=self.as_new[:, :, classes])

    def ruling_out(self, unknown: Tensor | None) -> LeftOutLogits:
        """The logits with those of classes ruled out of which nothing is known; `unknown` is a mask (C,) or None."""
        if unknown is None:
            return self
        sums = [F.rule_out(part.sum(0), unknown) for part in (self.logits, self.as_new)]
        firsts = [torch.where(unknown, 0.0, part[0]) for part in (self.logits, self.as_new)]
        logits, as_new = (torch.stack([first, total - first]) for first, total in zip(firsts, sums, strict=True))
        return replace(self, logits=logits, as_new=as_new)

    def open_set_scores(self, labels: Tensor) -> Tensor:
        """Open-set scores (N, Q) that new images of the same classes would have."""
        own = self.own_as_new.sum(0)
        others = F.split_own_class(self.as_new.sum(0), labels)[1][:, None].expand_as(own)
        return F.open_set_score(torch.stack([own, others], dim=2))


@dataclass(frozen=True)
class CrossFittedMetric:
    """Left-out logits in one metric, of each fold by weights that were learned on the others.

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


def cross_fit_metrics(
    roots: Sequence[str],
    problems: Sequence[FusionObjective],
    scores: Sequence[LeaveOneOutScores],
    fusions: Sequence[Fusion],
    folds: Integers,
    correction: float,
) -> list[CrossFittedMetric]:
    """Learn the fusions of several metrics without each fold, and score the fold.

    Parameters
    ----------
    roots : sequence of str
    problems : sequence of FusionObjective
        Among the classes with images.
    scores : sequence of LeaveOneOutScores
        Among all classes.
    fusions : sequence of Fusion
        Learned on all samples.
    folds : ndarray of shape (N,)
    correction : float
        See `fusion.leave_one_out_correction`.
    """
    own_fold = np.unique(folds, return_inverse=True)[1]
    found = []
    for root, problem, of_all, weights, objectives in zip(
        roots, problems, scores, *refit_without_folds(problems, fusions, folds), strict=True
    ):
        of_samples = weights[own_fold]
        new_weights = problem.parametrization.rescaled(of_samples, correction)
        found.append(CrossFittedMetric(root, objectives, LeftOutLogits.of(of_all, of_samples, new_weights)))
    return found


def cross_fitted_logits(
    metrics: Sequence[CrossFittedMetric],
    folds: Integers,
    singleton: Tensor,
    independence: Tensor,
    config: CalibrationConfig,
) -> LeftOutLogits:
    """Left-out logits of all samples, each fold by the metrics that are best on the others.

    Parameters
    ----------
    metrics : sequence of CrossFittedMetric
    folds : ndarray of shape (N,)
    singleton : bool Tensor of shape (N,)
    independence : Tensor of shape (N,)
        Part of an independent sample that each is.
    config : CalibrationConfig
    """
    mean = LeftOutLogits(*(torch.zeros_like(part) for part in metrics[0].left_out.parts))
    judges = torch.where(singleton, 0.0, independence).double().cpu().numpy()
    for k, fold in enumerate(np.unique(folds)):
        out = torch.as_tensor(np.flatnonzero(folds == fold), device=singleton.device)
        candidates = [(one.root, float(one.objectives[k])) for one in metrics]
        for index, weight in choose_per_root(candidates, float(judges[folds != fold].sum()), config):
            for total, part in zip(mean.parts, metrics[index].left_out.parts, strict=True):
                total[:, out] += weight * part[:, out]
    return mean
