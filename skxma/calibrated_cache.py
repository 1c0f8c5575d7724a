"""The fitted form of the calibrated evidence: arrays that persist, and the tensors that score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import functional as F
from .caches import Floats, ImageCache, TextCache, like
from .experts import ImageScale, query_image_scores, text_scores
from .metric import NO_ROOT, Frame, Metric, see_support, view, weighted_mean


@dataclass(frozen=True)
class StoredFrame:
    """A frame as arrays: mean (D,) and basis (D, R), None for the identity."""

    mean: Floats
    basis: Floats | None


@dataclass(frozen=True)
class Member:
    """One metric of the mean, with all that scores a new picture in it; arrays, so that it persists.

    Attributes
    ----------
    frame : int
        Which of the cache's frames.
    scale : ndarray of shape (R,) or None
    beta, gaussian : float
        See `experts.ImageScale`.
    weights, prior : ndarray of shape (J,)
        Of the experts, and what they are pulled to.
    loss : float
        Mean leave-one-out negative log-likelihood in this metric.
    choice : tuple of str and float or None
        See `metric.Metric`.
    """

    frame: int
    scale: Floats | None
    beta: float
    gaussian: float
    weights: NDArray[np.float64]
    prior: NDArray[np.float64]
    loss: float
    choice: tuple[str, float | None] = (NO_ROOT, None)


@dataclass(frozen=True)
class CalibratedCache:
    """A fitted leave-one-out-calibrated cache.

    Attributes
    ----------
    image_cache : ImageCache
    text_cache : TextCache or None
    frames : list of StoredFrame
    members : list of Member
        Empty where there was nothing to learn from: then zero-shot stands.
    logit_scale, alpha, beta, fusion_ratio : float
        Means over the members; the logit scale is the weight of zero-shot.
    residual : ndarray of shape (C, D) or None
        Trained on the centred embeddings.
    """

    image_cache: ImageCache
    text_cache: TextCache | None
    frames: list[StoredFrame]
    members: list[Member]
    logit_scale: float
    alpha: float
    beta: float
    fusion_ratio: float
    residual: Floats | None = None

    def on(self, like_this: Tensor) -> CalibratedScorer:
        """Make it ready to score, with the device and precision of `like_this`."""
        return CalibratedScorer(self, like_this)


class CalibratedScorer:
    """A calibrated cache as tensors, its keys mapped by every metric.

    Parameters
    ----------
    cache : CalibratedCache
    like_this : Tensor
    """

    def __init__(self, cache: CalibratedCache, like_this: Tensor) -> None:
        self.cache = cache
        image = cache.image_cache
        self.keys, labels, weights = like(like_this, image.keys, image.labels, image.weights)
        self.frames = [
            Frame(like(like_this, f.mean)[0], None if f.basis is None else like(like_this, f.basis)[0])
            for f in cache.frames
        ]
        framed = [frame(self.keys) for frame in self.frames]
        self.metrics = [
            Metric(self.frames[m.frame], None if m.scale is None else like(like_this, m.scale)[0])
            for m in cache.members
        ]
        self.supports = [
            see_support(metric.stretch(framed[m.frame]), labels, weights, image.n_classes)
            for metric, m in zip(self.metrics, cache.members, strict=True)
        ]
        self.plain_frame = Frame(weighted_mean(self.keys, weights), None)
        self.plain = None
        if cache.text_cache is None:
            self.plain = see_support(self.plain_frame(self.keys), labels, weights, image.n_classes)

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, C) of L2-normalised embeddings (n, D): the fused experts and the residual."""
        return self.with_residual(self.fused(features), features)

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, C), and how unlike all known classes each is, (n,), in which the residual has no say."""
        fused = self.fused(features)
        return self.with_residual(fused, features), F.open_set_score(fused)

    def with_residual(self, fused: Tensor, features: Tensor) -> Tensor:
        """Logits (n, C) of the fused experts (n, C) and the embeddings (n, D)."""
        if self.cache.residual is None:
            return fused
        return fused + F.normalise(self.plain_frame(features)) @ like(features, self.cache.residual)[0].T

    def fused(self, features: Tensor) -> Tensor:
        """Mean over the members of their fused experts (n, C)."""
        first = self._first_experts(features)
        if not self.cache.members:
            return self.cache.logit_scale * first[0]
        framed = [frame(features) for frame in self.frames]
        total = torch.zeros_like(first[0])
        for member, metric, support in zip(self.cache.members, self.metrics, self.supports, strict=True):
            queries = metric.stretch(framed[member.frame])
            image = query_image_scores(support, ImageScale(member.beta, member.gaussian), queries)
            experts = torch.cat([first, image])[: len(member.weights)]
            total += torch.tensordot(like(features, member.weights)[0], experts, dims=1)
        return total / len(self.cache.members)

    def affinities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines to the keys in the first metric, and affinities to the text of their classes; both (n, N)."""
        if self.cache.members:
            image = view(self.supports[0], self.metrics[0](features)).key
        else:
            image = F.affinity(features, self.keys)
        text_cache = self.cache.text_cache
        if text_cache is None:
            return image, torch.zeros_like(image)
        return image, text_cache.affinity(features, self.cache.image_cache.labels)

    def _first_experts(self, features: Tensor) -> Tensor:
        """Zero-shot and text experts (3, n, C), or without text the class means of the plain embeddings (1, n, C)."""
        text_cache = self.cache.text_cache
        if text_cache is not None and text_cache.centres is not None:
            text, image_mean, text_mean = like(features, text_cache.keys, *text_cache.centres)
            return text_scores(features, text_cache.img2txt(features), text, (image_mean, text_mean))
        assert self.plain is not None
        return query_image_scores(self.plain, ImageScale(beta=1.0, gaussian=1.0), self.plain_frame(features))[1:2]
