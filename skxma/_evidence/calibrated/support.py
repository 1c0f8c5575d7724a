"""The support set of a calibrated fit, and the leave-one-out scores of its samples that no metric changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._evidence.calibrated.config import CalibrationConfig
from skxma._evidence.calibrated.experts import (
    IMAGE_EXPERTS,
    PROTOTYPE,
    LeaveOneOutScores,
    expert_names,
    left_out_image_scores,
    modality_means,
    ridge_img2txt,
    text_scores,
)
from skxma._evidence.calibrated.further import FurtherEncoder
from skxma._evidence.calibrated.metric import CenteredBasis, MetricSupport, singletons
from skxma._sampling import fusion_training_rows, group_members
from skxma._statistics import weighted_mean
from skxma.caches import ImageCache, Integers, TextCache, to_tensors


@dataclass(frozen=True)
class CalibrationSupport:
    """The support set as tensors, with everything that does not depend on the metric.

    Attributes
    ----------
    features : Tensor of shape (N, D)
    labels, weights : Tensor of shape (N,)
    members : integer Tensor of shape (N, g)
        Samples that are left out together with each, see `MetricSupport`.
    independence : Tensor of shape (N,)
        Part of an independent sample that each is: one over the size of its group.
    n_classes : int
    rows : integer Tensor of shape (n,)
        Samples from which the fusion is learned: all, or an equal part of each class of a large support set, because a
        few numbers do not need more.
    unknown : Tensor of shape (C,) or None
        Mask of the classes of which nothing is known; None for none.
    text_part : Tensor of shape (3, N, C) or None
        Leave-one-out scores of zero-shot and of the text experts.
    text_cache : TextCache or None
    plain : LeaveOneOutScores or None
        Without text: scores in the plain embeddings, whose class means stand for zero-shot.
    further : tuple of FurtherEncoder
        Encoders beside the first, whose embeddings `features` are.
    shares : tuple of float
        Factors of the prior weights of each encoder's image experts, the first encoder's first.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor
    members: Tensor
    independence: Tensor
    n_classes: int
    rows: Tensor
    unknown: Tensor | None = None
    text_part: Tensor | None = None
    text_cache: TextCache | None = None
    plain: LeaveOneOutScores | None = None
    further: tuple[FurtherEncoder, ...] = ()
    shares: tuple[float, ...] = (1.0,)

    @property
    def all_rows(self) -> Tensor:
        """Numbers (N,) of all samples, of which `rows` are a part."""
        return torch.arange(len(self.labels), device=self.labels.device)

    @cached_property
    def imaged(self) -> Tensor:
        """Classes (K,) with images, ascending."""
        return self.labels.unique()

    @cached_property
    def has_images(self) -> Tensor:
        """Mask (C,) of the classes with images."""
        return torch.bincount(self.labels, minlength=self.n_classes) > 0

    @cached_property
    def imaged_labels(self) -> Tensor:
        """Place (N,) of each sample's class among those with images."""
        return torch.searchsorted(self.imaged, self.labels)

    @property
    def counts(self) -> NDArray[np.float64]:
        """Independent samples of each class (C,)."""
        counts = torch.bincount(self.labels, weights=self.independence, minlength=self.n_classes)
        return counts.double().cpu().numpy()

    @property
    def groups(self) -> Integers | None:
        """Number of the group of each sample (N,), or None where each stands for itself."""
        if self.members.shape[1] == 1:
            return None
        first: Integers = self.members[:, 0].cpu().numpy()
        return first

    @property
    def work(self) -> int:
        """Multiplications ``N · D · C`` of one product of all samples with one vector per class."""
        n, width = self.features.shape
        return n * width * self.n_classes

    @property
    def all_singletons(self) -> bool:
        """True where no class has two samples that can be left out one without the other."""
        return bool(singletons(self.labels, self.members).all())

    @cached_property
    def n_image_experts(self) -> int:
        """Image experts of an encoder: without the Gaussian where nothing tells how wide the classes are."""
        return len(IMAGE_EXPERTS) - self.all_singletons


def prepare_support(
    cache: ImageCache, text: Tensor | None, config: CalibrationConfig, like: Tensor
) -> CalibrationSupport:
    """Score the support set leave-one-out by all experts of the first encoder that do not depend on its metric."""
    keys, weights, labels = to_tensors(cache.keys, cache.weights, cache.labels, like=like)
    features = cache.split(keys)[0]
    training_rows = fusion_training_rows(cache.labels, cache.n_classes, config.max_scores, config.max_pairs)
    rows = torch.as_tensor(training_rows, device=labels.device)
    every = np.arange(len(cache.labels)) if cache.groups is None else cache.groups
    members, independence = to_tensors(group_members(every), cache.independence, like=like)
    samples = CalibrationSupport(features, labels, weights, members, independence, cache.n_classes, rows)
    if text is None:
        plain = plain_scores(features, labels, weights, cache.n_classes, members, config)
        return replace(samples, plain=plain, unknown=cache.unknown_classes(None, like))
    # samples of classes without text teach Img2Txt nothing
    net_weights = torch.where(text.any(1)[labels], weights, 0.0)
    net, mapped = ridge_img2txt(features, text[labels], net_weights, config.ridge, members)
    means = modality_means(features, labels, weights, text)
    image_mean, text_mean = (mean.float().cpu().numpy() for mean in means)
    text_cache = TextCache(text.float().cpu().numpy(), net, modality_means=(image_mean, text_mean))
    return replace(
        samples,
        text_part=text_scores(features, mapped, text, means),
        text_cache=text_cache,
        unknown=cache.unknown_classes(text_cache.keys, like),
    )


def plain_scores(
    features: Tensor, labels: Tensor, weights: Tensor, n_classes: int, members: Tensor, config: CalibrationConfig
) -> LeaveOneOutScores:
    """Leave-one-out scores in the plain embeddings."""
    keys = CenteredBasis(weighted_mean(features, weights), None)(features)
    seen = MetricSupport.from_keys(keys, labels, weights, n_classes, members)
    return left_out_image_scores(seen, 0.0, replace(config, leave_one_out=True))[0]


def combine_scores(
    support: CalibrationSupport, image: LeaveOneOutScores, rows: Tensor, config: CalibrationConfig
) -> LeaveOneOutScores:
    """Put zero-shot and the text experts before the image experts, and those of further encoders after them."""
    n_image, further = support.n_image_experts, [one.left_out(rows, config) for one in support.further]
    if support.text_part is not None:
        first = support.text_part[:, rows]
        index = support.labels[rows][None, :, None].expand(len(first), -1, 1)
        own = first.gather(2, index).expand(-1, -1, image.own.shape[2])
    else:
        assert support.plain is not None
        first, own = support.plain.scores[[PROTOTYPE]][:, rows], support.plain.own[[PROTOTYPE]][:, rows]
    return LeaveOneOutScores(
        expert_names(support.text_part is not None, n_image, (one.block for one in support.further)),
        torch.cat([first, image.scores[:n_image], *(one.scores for one in further)]),
        torch.cat([own, image.own[:n_image], *(one.own for one in further)]),
        image.node_weights,
        image.singleton,
    )


def cross_modal_hardness(support: CalibrationSupport, scores: LeaveOneOutScores, rows: Tensor) -> Tensor:
    """``|A_img − A_txt|`` of the rows (n,) with their own classes, standardized over the classes with images.

    The image affinity is the cosine to the class mean. A singleton has no image affinity to its class, and hardness 0.
    """
    scores = scores.among(support.imaged)
    text = scores.scores[scores.names.index("text_cache") if "text_cache" in scores.names else 0]
    image = scores.scores[scores.names.index("prototype")]
    return torch.where(scores.singleton, 0.0, F.standardized_gap(image, text, support.imaged_labels[rows]))


def loss_weights(support: CalibrationSupport, hardness: Tensor, rows: Tensor, config: CalibrationConfig) -> Tensor:
    """Loss weight of each of the rows (n,): sample weight over the size of its group, times ``1 + λ h_i``."""
    hard = F.hard_sample_weights(hardness, config.hard_sample_weight)
    return support.weights[rows] * support.independence[rows] * hard
