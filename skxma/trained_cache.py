"""The fitted form of the paper's evidence: arrays that persist, and the tensors that score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import functional as F
from .caches import Floats, ImageCache, TextCache, like
from .experts import zero_shot_cosines


@dataclass(frozen=True)
class TrainedCache:
    """A fitted cache of the paper's form.

    Attributes
    ----------
    image_cache : ImageCache
        With trained keys.
    text_cache : TextCache or None
    text : ndarray of shape (C, D)
        What zero-shot uses: the class text, or class means where there is none.
    alpha, beta, fusion_ratio, logit_scale : float
    """

    image_cache: ImageCache
    text_cache: TextCache | None
    text: Floats
    alpha: float
    beta: float
    fusion_ratio: float
    logit_scale: float

    def on(self, like_this: Tensor) -> TrainedScorer:
        """Make it ready to score, with the device and precision of `like_this`."""
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
        self.text, self.keys, self.labels, self.weights = like(
            like_this, cache.text, image.keys, image.labels, image.weights
        )

    def logits(self, features: Tensor) -> Tensor:
        """``logit_scale · f T + α exp(−β (1 − A)) L`` (n, C) of L2-normalised embeddings (n, D)."""
        zero_shot, image, text = self.affinities_to_classes(features)
        evidence = self.evidence(image, text, self.cache.fusion_ratio, self.cache.beta)
        return F.residual_logits(zero_shot, evidence, self.cache.alpha)

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, C) of L2-normalised embeddings (n, D), and how unlike all known classes each of them is, (n,)."""
        logits = self.logits(features)
        return logits, F.open_set_score(logits)

    def affinities_to_classes(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Zero-shot logits (n, C), affinities to the images (n, N) and to the class texts (n, C)."""
        cache = self.cache
        image = F.affinity(features, self.keys)
        if cache.text_cache is None:
            # a gate that is open, as the fusion ratio is 1
            text = image.new_ones(len(image), cache.image_cache.n_classes)
        else:
            text = cache.text_cache.class_affinity(features)
        return cache.logit_scale * zero_shot_cosines(features, self.text), image, text

    def evidence(self, image: Tensor, text: Tensor, fusion_ratio: float, beta: float) -> Tensor:
        """Evidence (n, C) of affinities to the images (n, N) and to the class texts (n, C)."""
        ratio = 1.0 if self.cache.text_cache is None else fusion_ratio
        return F.fused_evidence(image, text, self.labels, self.weights, ratio, beta)

    def affinities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``A_img`` and ``A_txt`` (n, N) of L2-normalised embeddings (n, D)."""
        image = F.affinity(features, self.keys)
        if self.cache.text_cache is None:
            return image, torch.zeros_like(image)
        return image, self.cache.text_cache.affinity(features, self.cache.image_cache.labels)
