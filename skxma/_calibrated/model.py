"""The fitted form of the calibrated evidence: arrays that persist, and the tensors that score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._calibrated.experts import text_scores
from skxma._calibrated.metric import NO_ROOT, Frame, Metric, view_means
from skxma._index.clustered import ready_keys
from skxma._index.clusters import KeyCells
from skxma._index.exact import Combine, Keys
from skxma._statistics import class_means
from skxma.caches import Floats, ImageCache, ReadyOnce, TextCache, like


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
    share : float
        What it counts in the mean, in proportion to those of the others.
    """

    frame: int
    scale: Floats | None
    beta: float
    gaussian: float
    weights: NDArray[np.float64]
    prior: NDArray[np.float64]
    loss: float
    choice: tuple[str, float | None] = (NO_ROOT, None)
    share: float = 1.0


@dataclass(frozen=True)
class CalibratedCache(ReadyOnce["CalibratedScorer"]):
    """A fitted leave-one-out-calibrated cache.

    Attributes
    ----------
    image_cache : ImageCache
    text_cache : TextCache or None
    frames : list of StoredFrame
    members : list of Member
        Empty where there was nothing to learn from: then zero-shot stands.
    logit_scale, alpha, beta, fusion_ratio : float
        Means over the members by their shares; the logit scale is the weight of zero-shot.
    residual : ndarray of shape (C, D) or None
        Trained on the centred embeddings.
    cells : KeyCells or None
        Of the keys in the metric of the only member, where predictions read no more of them than they need.
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
    cells: KeyCells | None = None

    def _scorer(self, like_this: Tensor) -> CalibratedScorer:
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
        keys, labels, weights = like(like_this, image.keys, image.labels, image.weights)
        means, self.mass = class_means(keys, labels, weights, image.n_classes)
        self.plain_frame = Frame((self.mass[:, None] * means).sum(0) / self.mass.sum(), None)
        self.plain_means = self.plain_frame(means)
        frames = [
            Frame(like(like_this, f.mean)[0], None if f.basis is None else like(like_this, f.basis)[0])
            for f in cache.frames
        ]
        self.members = [
            MemberScorer(
                Metric(frames[m.frame], None if m.scale is None else like(like_this, m.scale)[0]),
                m,
                (keys, labels, weights, means, self.mass),
                cache.cells,
            )
            for m in cache.members
        ]
        self.all_keys = self.members[0].keys if self.members else Keys(keys, labels, weights, image.n_classes)

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, C) of L2-normalised embeddings (n, D): the fused experts and the residual."""
        residual = self.residual_logits(features)
        return self.fused(features, [residual]) + residual

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, C), and how unlike all known classes each is, (n,), in which the residual has no say."""
        residual = self.residual_logits(features)
        fused = self.fused(features, [residual, torch.zeros_like(residual)], certain_is_enough=False)
        return fused + residual, F.open_set_score(fused)

    def residual_logits(self, features: Tensor) -> Tensor:
        """What the residual adds to the logits (n, C)."""
        if self.cache.residual is None:
            return features.new_zeros(len(features), len(self.mass))
        return F.normalise(self.plain_frame(features)) @ like(features, self.cache.residual)[0].T

    def fused(self, features: Tensor, added: Sequence[Tensor], certain_is_enough: bool = True) -> Tensor:
        """Mean over the members of their fused experts (n, C).

        Parameters
        ----------
        features : Tensor of shape (n, D)
        added : sequence of Tensor of shape (n, C)
            What will be added: where not all keys are read, enough are for the probabilities of each of these sums.
        certain_is_enough : bool
            See `retrieval.must_read`.
        """
        first = self._first_experts(features)
        if not self.members:
            return self.cache.logit_scale * first[0]
        total = torch.zeros_like(first[0])
        for member in self.members:
            total += member.member.share * member.logits(features, first, added, certain_is_enough)
        return total / sum(member.member.share for member in self.members)

    def affinities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines to the keys in the first metric, and affinities to the text of their classes; both (n, N)."""
        queries = F.normalise(self.members[0].metric(features)) if self.members else features
        image, text_cache = self.all_keys.cosines(queries), self.cache.text_cache
        if text_cache is None:
            return image, torch.zeros_like(image)
        return image, text_cache.affinity(features, self.cache.image_cache.labels)

    def prototype_and_text(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What the two modalities say, for how far they disagree: cosines to class means and to the texts, (n, C)."""
        first = self._first_experts(features)
        if not self.members:
            return first[0], first[0]
        member = self.members[0]
        prototype, _ = view_means(member.metric(features), member.means)
        return F.fill_absent(prototype, self.mass > 0), first[min(1, len(first) - 1)]

    def _first_experts(self, features: Tensor) -> Tensor:
        """Zero-shot and text experts (3, n, C), or without text the class means of the plain embeddings (1, n, C)."""
        text_cache = self.cache.text_cache
        if text_cache is not None and text_cache.centres is not None:
            text, image_mean, text_mean = like(features, text_cache.keys, *text_cache.centres)
            return text_scores(features, text_cache.img2txt(features), text, (image_mean, text_mean))
        prototype, _ = view_means(self.plain_frame(features), self.plain_means)
        return F.fill_absent(prototype[None], self.mass > 0)


class MemberScorer:
    """One metric of a calibrated cache as tensors.

    Parameters
    ----------
    metric : Metric
    member : Member
    support : keys (N, D), labels (N,), weights (N,), class means (C, D), masses (C,)
    cells : KeyCells or None
    """

    def __init__(self, metric: Metric, member: Member, support: tuple[Tensor, ...], cells: KeyCells | None) -> None:
        keys, labels, weights, means, self.mass = support
        self.metric, self.member = metric, member
        self.means = metric(means)
        self.keys = ready_keys(keys, labels, weights, len(means), cells, metric)

    def logits(self, features: Tensor, first: Tensor, added: Sequence[Tensor], certain_is_enough: bool) -> Tensor:
        """Fused experts (n, C) of embeddings (n, D), `first` (J', n, C) being those that no metric changes."""
        queries, present = self.metric(features), self.mass > 0
        prototype, gaussian = view_means(queries, self.means)
        others = F.fill_absent(torch.stack([prototype, gaussian / self.member.gaussian]), present)
        weights = like(features, self.member.weights)[0]
        n_first = len(first)
        rest = torch.tensordot(weights[:n_first], first, dims=1)
        rest = rest + torch.tensordot(weights[n_first + 1 :], others[: len(weights) - n_first - 1], dims=1)

        def fuse(evidence: Tensor) -> Tensor:
            cache = F.fill_absent(F.log_mean_evidence(evidence, self.mass), present)
            return rest + weights[n_first] * cache

        def plus(more: Tensor) -> Combine:
            return lambda evidence: fuse(evidence) + more

        combine = [plus(more) for more in added]
        return fuse(self.keys.enough_evidence(F.normalise(queries), self.member.beta, combine, certain_is_enough))
