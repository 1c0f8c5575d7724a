"""A fitted model together with the experts of its pool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skxma._evidence.calibrated.model import CalibratedModel
from skxma._evidence.fitted import EvidenceScorer
from skxma._evidence.semi_supervised.class_statistics import ClassStatistics, fuse_pool
from skxma.caches import CachedScorerMixin, ImageCache, TextCache


@dataclass(frozen=True)
class PooledModel(CachedScorerMixin["PooledScorer"]):
    """A model whose logits are fused with the experts of a pool; everything else is the model's.

    Attributes
    ----------
    base : CalibratedModel
        Fitted without the pool.
    statistics : ClassStatistics
    weights : ndarray of shape (3,)
        Of the model's logits, and of the pool's cosine and Gaussian expert.
    """

    base: CalibratedModel
    statistics: ClassStatistics
    weights: NDArray[np.float64]

    @property
    def image_cache(self) -> ImageCache:
        """Keys, labels and weights of the labeled images."""
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
        """The image experts' share of the cache experts' weights."""
        return self.base.fusion_ratio

    @property
    def logit_scale(self) -> float:
        """Weight of the zero-shot cosines."""
        return self.base.logit_scale

    @property
    def evidence(self) -> str:
        """Value of the parameter `evidence` that makes such models."""
        return self.base.evidence

    def _make_scorer(self, like: Tensor) -> PooledScorer:
        return PooledScorer(self, like)

    def without_pool(self) -> CalibratedModel:
        """Return the model as it was before it learned from unlabeled images."""
        return self.base

    def with_index(self, like: Tensor) -> PooledModel:
        """Return the model with clustered labeled keys, or unchanged where all keys must be read."""
        return PooledModel(self.base.with_index(like), self.statistics, self.weights)


class PooledScorer:
    """A pooled model as tensors.

    Parameters
    ----------
    model : PooledModel
    like : Tensor
        Gives device and dtype.
    """

    def __init__(self, model: PooledModel, like: Tensor) -> None:
        self.base: EvidenceScorer = model.base.scorer(like)
        self.index = self.base.index
        self.experts = model.statistics.experts(like)
        self.weights = model.weights

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, C) of L2-normalized embeddings (n, D)."""
        return fuse_pool(self.weights, self.base.logits(features), self.experts(features))

    def logits_and_open_set(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, C) and open-set scores (n,), in which the pool plays no part: it may hold the unknown itself."""
        logits, scores = self.base.logits_and_open_set(features)
        return fuse_pool(self.weights, logits, self.experts(features)), scores

    def affinities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Image and text affinities (n, N) to the labeled keys."""
        return self.base.affinities(features)
