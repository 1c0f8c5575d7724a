"""Results that every fit of evidence returns, and the interfaces that fitted evidence offers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from skxma._evidence.index.clustered import ClusteredIndex
from skxma._evidence.index.exact import ExactIndex
from skxma._statistics import P_VALUE_ROUNDING
from skxma.caches import Floats, ImageCache, Integers, TextCache

CONFIDENCE_LEVEL = 0.9
"""Probability of the intervals of accuracies."""


class EvidenceScorer(Protocol):
    """Fitted evidence as tensors on a device, ready to score many chunks of images."""

    index: ExactIndex | ClusteredIndex

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, C) of L2-normalized embeddings (n, D)."""

    def logits_and_open_set(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, C) and open-set scores (n,) of L2-normalized embeddings (n, D)."""

    def affinities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Image and text affinities (n, N) of L2-normalized embeddings (n, D) to the keys."""


class FittedEvidence(Protocol):
    """Two caches and the scalars that fuse them, as arrays."""

    @property
    def image_cache(self) -> ImageCache:
        """Keys, labels and weights."""

    @property
    def text_cache(self) -> TextCache | None:
        """Class text keys, or None where no class has a text."""

    @property
    def alpha(self) -> float:
        """Residual ratio."""

    @property
    def beta(self) -> float:
        """Sharpness."""

    @property
    def fusion_ratio(self) -> float:
        """Weight γ of the image affinity against the text affinity."""

    @property
    def logit_scale(self) -> float:
        """Weight of the zero-shot cosines."""

    @property
    def evidence(self) -> str:
        """Value of the parameter `evidence` that makes such models."""

    def scorer(self, like: Tensor) -> EvidenceScorer:
        """Return the model as tensors with the device and dtype of `like`."""

    def with_index(self, like: Tensor) -> FittedEvidence:
        """Return the model with clustered keys, or unchanged where all keys must be read."""

    def without_pool(self) -> FittedEvidence:
        """Return the model as it was before it learned from unlabeled images."""


@dataclass(frozen=True)
class LeftOutPredictions:
    """Predictions for the support samples, each by a model that has not seen its label.

    Attributes
    ----------
    label : ndarray of shape (N,)
        Most probable class.
    probability : ndarray of shape (N,)
        Probability of that class.
    open_set : ndarray of shape (N', Q)
        Open-set scores of the N' samples in use, at the nodes where the own class is simulated.
    node_weights : ndarray of shape (Q,)
    logits : ndarray of shape (N, C)
        Of some samples only where `rows` is given.
    rows : ndarray of shape (n,) or None
        The samples whose logits there are; None for all.
    own : ndarray of shape (N, Q) or None
        Logits of the own class at the nodes, for the same samples; None where no own class is simulated.
    independence : ndarray of shape (N',) or None
        Part of an independent sample that each sample in use is; None where each stands for itself.
    """

    label: Integers
    probability: Floats
    open_set: Floats
    node_weights: Floats
    logits: Floats
    rows: Integers | None = None
    own: Floats | None = None
    independence: Floats | None = None

    @classmethod
    def from_logits(
        cls,
        logits: Tensor,
        open_set: Tensor,
        node_weights: Tensor,
        own: Tensor | None = None,
        independence: Tensor | None = None,
    ) -> LeftOutPredictions:
        """Predict from leave-one-out logits (N, C).

        Parameters
        ----------
        logits : Tensor of shape (N, C)
        open_set : Tensor of shape (N', Q)
            Open-set scores.
        node_weights : Tensor of shape (Q,)
        own : Tensor of shape (N, Q), optional
            Logits of the own class at the nodes.
        independence : Tensor of shape (N',), optional
        """
        probability, label = torch.softmax(logits, 1).max(1)
        floats = (a.float().cpu().numpy() for a in (probability, open_set, node_weights, logits))
        optional = {"own": own, "independence": independence}
        given = {name: a.float().cpu().numpy() for name, a in optional.items() if a is not None}
        return cls(label.cpu().numpy(), *floats, **given)

    def open_set_quantile(self, share: float) -> float:
        """Open-set score that a share of the images of known classes exceeds."""
        scores, weights = self._sorted_open_set()
        below = np.cumsum(weights) / weights.sum()
        return float(scores[min(int(np.searchsorted(below, 1 - share)), len(scores) - 1)])

    def rejection_threshold(self, rate: float) -> float:
        """Open-set score above which the conformal p-value of an image is at most `rate`.

        ``p = (1 + Σ_i w_i 1[s_i ≥ s]) / (1 + N)`` with the scores s_i of the N samples at the nodes: of images drawn as
        the samples were, the share of those with ``p ≤ rate`` is at most `rate`. At a rate below `least_rate` it is the
        largest score.
        """
        scores, weights = self._sorted_open_set()
        above = np.append(np.cumsum(weights[::-1])[::-1][1:], 0.0)
        allowed = 1 + above <= rate / self.least_rate + P_VALUE_ROUNDING
        return float(scores[int(allowed.argmax()) if allowed.any() else -1])

    @property
    def n_independent(self) -> float:
        """Number N of independent samples that have an open-set score: a group is one."""
        return float(len(self.open_set) if self.independence is None else self.independence.sum(dtype=np.float64))

    @property
    def least_rate(self) -> float:
        """Least conformal p-value of an open-set score."""
        return 1 / (1 + self.n_independent)

    def _sorted_open_set(self) -> tuple[Floats, Floats]:
        """Open-set scores at all nodes (n,) in ascending order, and the parts of a sample that they are."""
        scores = self.open_set.ravel()
        order = np.argsort(scores)
        counts = np.ones(len(self.open_set)) if self.independence is None else self.independence
        weights = np.outer(counts, self.node_weights / self.node_weights.sum(dtype=np.float64)).ravel()
        return scores[order], weights[order]


@dataclass(frozen=True)
class ExpectedScore:
    """Share of right answers to expect on new images of the same kind, and its interval.

    Attributes
    ----------
    value : float
        NaN where no sample can tell.
    low, high : float
        0 and 1 there.
    """

    value: float = math.nan
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def from_left_out(
        cls, logits: Tensor, labels: Tensor, weights: Tensor, groups: Tensor, level: float = CONFIDENCE_LEVEL
    ) -> ExpectedScore:
        """Estimate from left-out logits (n, C) of samples whose class keeps others when they are left out.

        The estimate is the mean of two: the share of samples whose label is the likeliest class, and the mean
        probability of the likeliest class. The first counts, and is a little too low, because the own class has a shot
        less; the second does not waver with single samples, and is a little too high where weights are learned from
        few. Their errors on the tasks of ``benchmarks/priors.py`` cancel. The interval is Jeffreys' for so many
        independent samples.

        Parameters
        ----------
        logits : Tensor of shape (n, C)
        labels : integer Tensor of shape (n,)
        weights : Tensor of shape (n,)
        groups : integer Tensor of shape (n,)
            Group of each sample; the samples of one are no independent witnesses.
        level : float
            Probability of the interval.
        """
        if not len(labels):
            return cls()
        probability, label = torch.softmax(logits.double(), 1).max(1)
        shares = weights.double() / weights.double().sum()
        right = float((shares * (label == labels)).sum())
        value = (right + float((shares * probability).sum())) / 2
        of_groups = torch.bincount(groups.unique(return_inverse=True)[1], weights=shares)
        n = 1 / float(of_groups.square().sum())
        tails = (1 - level) / 2, (1 + level) / 2
        low, high = (float(betaincinv(n * value + 0.5, n * (1 - value) + 0.5, tail)) for tail in tails)
        return cls(value, low, high)


Model_co = TypeVar("Model_co", bound=FittedEvidence, covariant=True)


@dataclass(frozen=True)
class FitReport(Generic[Model_co]):
    """A fitted model, and the findings of its fit about the keys of its image cache.

    Attributes
    ----------
    model : FittedEvidence
    hardness : ndarray of shape (N,)
        Disagreement of the two modalities on each sample's class.
    label_noise : ndarray of shape (N,)
        Posterior probability that each label is wrong.
    noise_rate : float
        Estimated fraction of wrong labels.
    loss_curve : list of float
        Training loss at each pass.
    left_out : LeftOutPredictions
    expected : ExpectedScore
    """

    model: Model_co
    hardness: Floats
    label_noise: Floats
    noise_rate: float
    loss_curve: list[float]
    left_out: LeftOutPredictions
    expected: ExpectedScore = field(default_factory=ExpectedScore)
