"""Results that every fit of evidence returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from skxma._index.exact import Keys
from skxma.caches import Floats, ImageCache, Integers, TextCache


class Scorer(Protocol):
    """A model on a device, ready to score many chunks of pictures."""

    all_keys: Keys

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, C) of L2-normalised embeddings (n, D)."""

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, C) of L2-normalised embeddings (n, D), and how unlike all known classes each of them is, (n,)."""

    def affinities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Image and text affinities (n, N) of L2-normalised embeddings (n, D) to the keys."""


class RetrievalModel(Protocol):
    """What an evidence leaves behind: two caches and the scalars that fuse them, as arrays."""

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
        """The image's share of the evidence."""

    @property
    def logit_scale(self) -> float:
        """Weight of the zero-shot cosines."""

    def on(self, like_this: Tensor) -> Scorer:
        """Make it ready to score, with the device and precision of `like_this`."""


@dataclass(frozen=True)
class LeftOutAnswers:
    """What a fit says of its own support samples when it has not seen them.

    Attributes
    ----------
    label : ndarray of shape (N,)
        Class that each sample is given.
    probability : ndarray of shape (N,)
        Its probability.
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
    def of(cls, logits: Tensor, open_set: Tensor, node_weights: Tensor) -> LeftOutAnswers:
        """From leave-one-out logits (N, C), open-set scores (N', Q) and the weights of their columns (Q,)."""
        probability, label = torch.softmax(logits, 1).max(1)
        floats = (a.float().cpu().numpy() for a in (probability, open_set, node_weights, logits))
        return cls(label.cpu().numpy(), *floats)

    def rejection_threshold(self, rate: float) -> float:
        """The open-set score that a share `rate` of pictures of known classes exceeds."""
        scores = self.open_set.ravel()
        order = np.argsort(scores)
        weights = np.tile(self.node_weights, len(self.open_set))[order]
        below = np.cumsum(weights) / weights.sum()
        return float(scores[order][min(int(np.searchsorted(below, 1 - rate)), len(scores) - 1)])


@dataclass(frozen=True)
class FitReport:
    """A fitted model and what the fit found out about the keys of its image cache.

    Attributes
    ----------
    model : RetrievalModel
    hardness, label_noise : ndarray of shape (N,)
    noise_rate : float
    loss_curve : list of float
    left_out : LeftOutAnswers
    """

    model: RetrievalModel
    hardness: Floats
    label_noise: Floats
    noise_rate: float
    loss_curve: list[float]
    left_out: LeftOutAnswers
