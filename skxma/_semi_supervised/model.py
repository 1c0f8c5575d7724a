"""A fitted model together with the experts of its pool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skxma._calibrated.model import CalibratedCache
from skxma._fitted import Scorer
from skxma._semi_supervised.class_statistics import ClassStatistics, fused
from skxma.caches import ImageCache, TextCache


@dataclass(frozen=True)
class PooledModel:
    """A model whose logits are fused with what a pool says; all else is the model's.

    Attributes
    ----------
    base : CalibratedCache
        Fitted without the pool.
    statistics : ClassStatistics
    weights : ndarray of shape (3,)
        Of the model's logits, and of the pool's cosine and Gaussian expert.
    """

    base: CalibratedCache
    statistics: ClassStatistics
    weights: NDArray[np.float64]

    @property
    def image_cache(self) -> ImageCache:
        """Keys, labels and weights of the labelled pictures."""
        return self.base.image_cache

    @property
    def text_cache(self) -> TextCache | None:
        """Class text keys."""
        return self.base.text_cache

    @property
    def alpha(self) -> float:
        """Residual ratio."""
        return self.base.alpha

    @property
    def beta(self) -> float:
        """Sharpness."""
        return self.base.beta

    @property
    def fusion_ratio(self) -> float:
        """The image's share of the evidence."""
        return self.base.fusion_ratio

    @property
    def logit_scale(self) -> float:
        """Weight of the zero-shot cosines."""
        return self.base.logit_scale

    def on(self, like_this: Tensor) -> PooledScorer:
        """Make it ready to score, with the device and precision of `like_this`."""
        return PooledScorer(self, like_this)


class PooledScorer:
    """A pooled model as tensors.

    Parameters
    ----------
    model : PooledModel
    like_this : Tensor
    """

    def __init__(self, model: PooledModel, like_this: Tensor) -> None:
        self.base: Scorer = model.base.on(like_this)
        self.all_keys = self.base.all_keys
        self.experts = model.statistics.on(like_this)
        self.weights = model.weights

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, C) of L2-normalised embeddings (n, D)."""
        return fused(self.weights, self.base.logits(features), self.experts(features))

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, C), and open-set scores (n,), in which the pool has no say: it may hold the unknown itself."""
        logits, scores = self.base.judge(features)
        return fused(self.weights, logits, self.experts(features)), scores

    def affinities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Image and text affinities (n, N) to the labelled keys."""
        return self.base.affinities(features)
