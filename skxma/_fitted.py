"""Results that every fit of evidence returns, and the interfaces that fitted evidence offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from skxma._index.exact import ExactIndex
from skxma.caches import Floats, ImageCache, Integers, TextCache


class EvidenceScorer(Protocol):
    """Fitted evidence as tensors on a device, ready to score many chunks of images."""

    index: ExactIndex

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
    """

    label: Integers
    probability: Floats
    open_set: Floats
    node_weights: Floats
    logits: Floats

    @classmethod
    def from_logits(cls, logits: Tensor, open_set: Tensor, node_weights: Tensor) -> LeftOutPredictions:
        """Predict from leave-one-out logits (N, C), open-set scores (N', Q) and the weights of their columns (Q,)."""
        probability, label = torch.softmax(logits, 1).max(1)
        floats = (a.float().cpu().numpy() for a in (probability, open_set, node_weights, logits))
        return cls(label.cpu().numpy(), *floats)

    def rejection_threshold(self, rate: float) -> float:
        """Open-set score that the fraction `rate` of images of known classes exceeds."""
        scores = self.open_set.ravel()
        order = np.argsort(scores)
        weights = np.tile(self.node_weights, len(self.open_set))[order]
        below = np.cumsum(weights) / weights.sum()
        return float(scores[order][min(int(np.searchsorted(below, 1 - rate)), len(scores) - 1)])


@dataclass(frozen=True)
class FitReport:
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
    """

    model: FittedEvidence
    hardness: Floats
    label_noise: Floats
    noise_rate: float
    loss_curve: list[float]
    left_out: LeftOutPredictions
