"""The fitted form of the paper's evidence: arrays that persist, and the tensors that score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skxma import functional as F
from skxma._index.clustered import ready_keys
from skxma._index.clusters import KeyCells
from skxma._statistics import zero_shot_cosines
from skxma.caches import Floats, ImageCache, ReadyOnce, TextCache, like


@dataclass(frozen=True)
class TrainedCache(ReadyOnce["TrainedScorer"]):
    """A fitted cache of the paper's form.

    Attributes
    ----------
    image_cache : ImageCache
        With trained keys.
    text_cache : TextCache or None
    text : ndarray of shape (C, D)
        What zero-shot uses: the class text, or class means where there is none.
    alpha, beta, fusion_ratio, logit_scale : float
    cells : KeyCells or None
        Of the keys, where predictions read no more of them than they need.
    """

    image_cache: ImageCache
    text_cache: TextCache | None
    text: Floats
    alpha: float
    beta: float
    fusion_ratio: float
    logit_scale: float
    cells: KeyCells | None = None

    def _scorer(self, like_this: Tensor) -> TrainedScorer:
        return TrainedScorer(self, like_this)


class TrainedScorer:
    """A trained cache as tensors.

    Parameters
    ----------
    cache : TrainedCache
    like_this : Tensor
    """

    def __init__(self, cache: TrainedCache, like_this: Tensor) -> None:
        self.cache = cache
        image = cache.image_cache
        self.text, keys, labels, weights = like(like_this, cache.text, image.keys, image.labels, image.weights)
        self.all_keys = ready_keys(keys, labels, weights, image.n_classes, cache.cells)

    def logits(self, features: Tensor) -> Tensor:
        """``logit_scale · f T + α exp(−β (1 − A)) L`` (n, C) of L2-normalised embeddings (n, D)."""
        return self._logits(features, certain_is_enough=True)

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, C) of L2-normalised embeddings (n, D), and how unlike all known classes each of them is, (n,)."""
        logits = self._logits(features, certain_is_enough=False)
        return logits, F.open_set_score(logits)

    def _logits(self, features: Tensor, certain_is_enough: bool) -> Tensor:
        cache = self.cache
        zero_shot, text = self.affinities_to_texts(features)
        ratio = self._ratio(cache.fusion_ratio)
        gate = F.text_gate(text, ratio, cache.beta)

        def combine(evidence: Tensor) -> Tensor:
            return F.residual_logits(zero_shot, evidence * gate, cache.alpha)

        return combine(self.all_keys.enough_evidence(features, cache.beta * ratio, [combine], certain_is_enough))

    def affinities_to_texts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Zero-shot logits and affinities to the class texts, both (n, C)."""
        zero_shot = self.cache.logit_scale * zero_shot_cosines(features, self.text)
        if self.cache.text_cache is None:
            # a gate that is open, as the fusion ratio is 1
            return zero_shot, torch.ones_like(zero_shot)
        return zero_shot, self.cache.text_cache.class_affinity(features)

    def evidence(self, image: Tensor, text: Tensor, fusion_ratio: float, beta: float) -> Tensor:
        """Evidence (n, C) of affinities to the images (n, N), as `affinities` has them, and to the texts (n, C)."""
        labels, weights = like(image, self.cache.image_cache.labels, self.cache.image_cache.weights)
        return F.fused_evidence(image, text, labels, weights, self._ratio(fusion_ratio), beta)

    def _ratio(self, fusion_ratio: float) -> float:
        return 1.0 if self.cache.text_cache is None else fusion_ratio

    def affinities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``A_img`` and ``A_txt`` (n, N) of L2-normalised embeddings (n, D)."""
        image = self.all_keys.cosines(features)
        if self.cache.text_cache is None:
            return image, torch.zeros_like(image)
        return image, self.cache.text_cache.affinity(features, self.cache.image_cache.labels)
