"""The fitted form of the paper's evidence: arrays that persist, and the tensors that score."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skxma import functional as F
from skxma._evidence.index.clustered import build_index
from skxma._evidence.index.clusters import KeyClusters, can_be_clustered, cluster_keys
from skxma._statistics import zero_shot_cosines
from skxma.caches import CachedScorerMixin, Floats, ImageCache, TextCache, to_tensors


@dataclass(frozen=True)
class PaperModel(CachedScorerMixin["PaperScorer"]):
    """A fitted model of the paper's form.

    Attributes
    ----------
    image_cache : ImageCache
        With trained keys.
    text_cache : TextCache or None
    text_features : ndarray of shape (C, D)
        Zero-shot weights: the class text, or class means where there is none.
    alpha, beta, fusion_ratio, logit_scale : float
    key_clusters : KeyClusters or None
        Clusters of the keys, with which predictions read no more of them than needed.
    """

    image_cache: ImageCache
    text_cache: TextCache | None
    text_features: Floats
    alpha: float
    beta: float
    fusion_ratio: float
    logit_scale: float
    key_clusters: KeyClusters | None = None

    @property
    def evidence(self) -> str:
        """Value of the parameter `evidence` that makes such models."""
        return "paper"

    def _make_scorer(self, like: Tensor) -> PaperScorer:
        return PaperScorer(self, like)

    def without_pool(self) -> PaperModel:
        """Return the model itself, which has no pool."""
        return self

    def with_index(self, like: Tensor) -> PaperModel:
        """Return the model with clustered keys, or unchanged where predictions must read all keys.

        They must where a class has no images, and where the sharpness of the image affinities, βγ, is too large for a
        sample of keys to tell about the rest.
        """
        if not (self.image_cache.shots > 0).all():
            return self
        unit = self.scorer(like).index.keys
        if not can_be_clustered(unit, self.beta * self.fusion_ratio):
            return self
        (labels,) = to_tensors(self.image_cache.labels, like=unit)
        return replace(self, key_clusters=cluster_keys(unit, labels, self.image_cache.n_classes))


class PaperScorer:
    """A model of the paper's form as tensors.

    Parameters
    ----------
    model : PaperModel
    like : Tensor
        Gives device and dtype.
    """

    def __init__(self, model: PaperModel, like: Tensor) -> None:
        self.model = model
        image = model.image_cache
        arrays = model.text_features, image.keys, image.labels, image.weights
        self.text, keys, labels, weights = to_tensors(*arrays, like=like)
        self.index = build_index(keys, labels, weights, image.n_classes, model.key_clusters)

    def logits(self, features: Tensor) -> Tensor:
        """Logits ``logit_scale · f T + α exp(−β (1 − A)) L`` (n, C) of L2-normalized embeddings (n, D)."""
        return self._logits(features, skip_if_certain=True)

    def logits_and_open_set(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, C) and open-set scores (n,) of L2-normalized embeddings (n, D)."""
        logits = self._logits(features, skip_if_certain=False)
        return logits, F.open_set_score(logits)

    def _logits(self, features: Tensor, skip_if_certain: bool) -> Tensor:
        model = self.model
        zero_shot, text = self.affinities_to_texts(features)
        ratio = self._ratio(model.fusion_ratio)
        gate = F.text_gate(text, ratio, model.beta)

        def combine(evidence: Tensor) -> Tensor:
            return F.residual_logits(zero_shot, evidence * gate, model.alpha)

        return combine(self.index.bounded_evidence(features, model.beta * ratio, [combine], skip_if_certain))

    def affinities_to_texts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Zero-shot logits and affinities to the class texts, both (n, C)."""
        zero_shot = self.model.logit_scale * zero_shot_cosines(features, self.text)
        if self.model.text_cache is None:
            # a gate that is open, as the fusion ratio is 1
            return zero_shot, torch.ones_like(zero_shot)
        return zero_shot, self.model.text_cache.class_affinity(features)

    def evidence(self, image: Tensor, text: Tensor, fusion_ratio: float, beta: float) -> Tensor:
        """Evidence (n, C) of affinities to the images (n, N), as `affinities` has them, and to the texts (n, C)."""
        labels, weights = to_tensors(self.model.image_cache.labels, self.model.image_cache.weights, like=image)
        return F.fused_evidence(image, text, labels, weights, self._ratio(fusion_ratio), beta)

    def _ratio(self, fusion_ratio: float) -> float:
        return 1.0 if self.model.text_cache is None else fusion_ratio

    def affinities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Affinities ``A_img`` and ``A_txt`` (n, N) of L2-normalized embeddings (n, D)."""
        image = self.index.cosines(features)
        if self.model.text_cache is None:
            return image, torch.zeros_like(image)
        return image, self.model.text_cache.affinity(features, self.model.image_cache.labels)
