"""The fitted form of the calibrated evidence: arrays that persist, and the tensors that score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._calibrated.config import WarmStart
from skxma._calibrated.experts import IMAGELESS_DEVIATIONS, text_scores
from skxma._calibrated.metric import IDENTITY_ROOT, CenteredBasis, Metric, class_mean_scores
from skxma._index.clustered import build_index
from skxma._index.clusters import KeyClusters, can_be_clustered, cluster_keys
from skxma._index.exact import Combine, ExactIndex
from skxma._statistics import class_means
from skxma.caches import CachedScorerMixin, Floats, ImageCache, TextCache, to_tensors


@dataclass(frozen=True)
class StoredBasis:
    """A centered basis as arrays: mean (D,) and basis (D, R), None for the identity."""

    mean: Floats
    basis: Floats | None

    def to_tensors(self, like: Tensor) -> CenteredBasis:
        """Return the basis as tensors with the device and dtype of `like`."""
        basis = None if self.basis is None else to_tensors(self.basis, like=like)[0]
        return CenteredBasis(to_tensors(self.mean, like=like)[0], basis)


@dataclass(frozen=True)
class MetricComponent:
    """One metric of the mean with everything that scores a new image in it, as arrays.

    Attributes
    ----------
    basis : int
        Index of its centered basis in the model's list.
    scale : ndarray of shape (R,) or None
        See `metric.Metric`.
    beta, gaussian : float
        See `experts.ImageScale`.
    weights, prior : ndarray of shape (J,)
        Weights of the experts, and the priors to which these are pulled.
    loss : float
        Mean leave-one-out negative log-likelihood in this metric.
    choice : tuple of str and float or None
        See `metric.Metric`.
    averaging_weight : float
        Weight in the mean over the metrics, in proportion to the others'.
    """

    basis: int
    scale: Floats | None
    beta: float
    gaussian: float
    weights: NDArray[np.float64]
    prior: NDArray[np.float64]
    loss: float
    choice: tuple[str, float | None] = (IDENTITY_ROOT, None)
    averaging_weight: float = 1.0


@dataclass(frozen=True)
class FurtherMetric:
    """The metric of an encoder beside the first with everything that scores a new image in it, as arrays.

    Attributes
    ----------
    block : int
        Place of the encoder in `ImageCache.blocks`.
    basis : StoredBasis
    scale : ndarray of shape (R,) or None
        See `metric.Metric`.
    beta, gaussian : float
        See `experts.ImageScale`.
    weights : ndarray of shape (3,)
        Of its image experts, whose sum is one expert in the fusion.
    """

    block: int
    basis: StoredBasis
    scale: Floats | None
    beta: float
    gaussian: float
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class CalibratedModel(CachedScorerMixin["CalibratedScorer"]):
    """A fitted leave-one-out-calibrated cache.

    Predictions read the weights of `components`. The scalars alpha, beta, fusion ratio and logit scale are reports:
    means over the components, which no prediction reads where there are components.

    Attributes
    ----------
    image_cache : ImageCache
    text_cache : TextCache or None
    bases : list of StoredBasis
    components : list of MetricComponent
        Empty where there was nothing to learn from: the prediction then is zero-shot's.
    logit_scale, alpha, beta, fusion_ratio : float
        The logit scale is the weight of zero-shot.
    residual : ndarray of shape (C, D) or None
        Trained on the centered embeddings.
    key_clusters : KeyClusters or None
        Clusters of the keys in the metric of the only member, with which predictions read no more keys than needed.
    further : list of FurtherMetric
        Of the encoders beside the first that are of use. The weight of each stands in each component after those of the
        first encoder's image experts.
    """

    image_cache: ImageCache
    text_cache: TextCache | None
    bases: list[StoredBasis]
    components: list[MetricComponent]
    logit_scale: float
    alpha: float
    beta: float
    fusion_ratio: float
    residual: Floats | None = None
    key_clusters: KeyClusters | None = None
    further: list[FurtherMetric] = field(default_factory=list)

    @property
    def evidence(self) -> str:
        """Value of the parameter `evidence` that makes such models."""
        return "calibrated"

    def _make_scorer(self, like: Tensor) -> CalibratedScorer:
        return CalibratedScorer(self, like)

    def warm_start(self, noise_rate: float) -> WarmStart:
        """Return the solution from which a fit on other samples may start."""
        return WarmStart({one.choice: one.weights / one.prior for one in self.components}, noise_rate)

    def without_pool(self) -> CalibratedModel:
        """Return the model itself, which has no pool."""
        return self

    def with_index(self, like: Tensor) -> CalibratedModel:
        """Return the model with clustered keys, or unchanged where predictions must read all keys.

        They must where nothing was learned; where a class has no images, because the score that it is given instead
        depends on the evidence of all others; and where beta is too sharp for a sample of keys to tell about the rest.
        """
        if not self.components or not (self.image_cache.shots > 0).all():
            return self
        index = self.scorer(like).index
        if not can_be_clustered(index.unit, self.components[0].beta):
            return self
        (labels,) = to_tensors(self.image_cache.labels, like=index.unit)
        return replace(self, key_clusters=cluster_keys(index.unit, labels, self.image_cache.n_classes))


class CalibratedScorer:
    """A calibrated cache as tensors, its keys mapped by every metric.

    Parameters
    ----------
    cache : CalibratedModel
    like : Tensor
        Gives device and dtype.
    """

    def __init__(self, cache: CalibratedModel, like: Tensor) -> None:
        self.cache = cache
        image = cache.image_cache
        all_keys, labels, weights = to_tensors(image.keys, image.labels, image.weights, like=like)
        encoders = image.split(all_keys)
        keys = encoders[0]
        means, self.mass = class_means(keys, labels, weights, image.n_classes)
        self.plain_basis = CenteredBasis((self.mass[:, None] * means).sum(0) / self.mass.sum(), None)
        self.plain_means = self.plain_basis(means)
        bases = [basis.to_tensors(like) for basis in cache.bases]
        self.components = [
            MetricScorer(
                Metric(bases[m.basis], None if m.scale is None else to_tensors(m.scale, like=like)[0]),
                m,
                (keys, labels, weights, means, self.mass),
                cache.key_clusters,
            )
            for m in cache.components
        ]
        self.further = [
            FurtherScorer(one, encoders[one.block], labels, weights, image.n_classes) for one in cache.further
        ]
        if self.components:
            self.index = self.components[0].index
        else:
            self.index = ExactIndex(keys, labels, weights, image.n_classes)

    def first_encoder(self, features: Tensor) -> Tensor:
        """The first encoder's part (n, D_0) of embeddings (n, D) by all encoders."""
        return self.cache.image_cache.split(features)[0]

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, C) of L2-normalized embeddings (n, D): the fused experts and the residual."""
        residual = self.residual_logits(self.first_encoder(features))
        return self.fused(features, [residual]) + residual

    def logits_and_open_set(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, C) and open-set scores (n,) of L2-normalized embeddings (n, D).

        The residual plays no part in the scores: it is trained to tell known classes apart.
        """
        residual = self.residual_logits(self.first_encoder(features))
        fused = self.fused(features, [residual, torch.zeros_like(residual)], skip_if_certain=False)
        return fused + residual, F.open_set_score(fused)

    def residual_logits(self, features: Tensor) -> Tensor:
        """Logits (n, C) that the residual adds to embeddings (n, D_0) by the first encoder."""
        if self.cache.residual is None:
            return features.new_zeros(features.shape[0], len(self.mass))
        (residual,) = to_tensors(self.cache.residual, like=features)
        return F.normalize(self.plain_basis(features)) @ residual.T

    def fused(self, features: Tensor, added: Sequence[Tensor], skip_if_certain: bool = True) -> Tensor:
        """Mean over the metrics of their fused experts (n, C).

        Parameters
        ----------
        features : Tensor of shape (n, D)
        added : sequence of Tensor of shape (n, C)
            Logits that the caller will add. Where not all keys are read, the softmax of each of these sums is within
            the index's tolerance.
        skip_if_certain : bool
            See `clustered.classes_to_score`.
        """
        encoders = self.cache.image_cache.split(features)
        features = encoders[0]
        first = self._metric_free_experts(features)
        if not self.components:
            return self.cache.logit_scale * first[0]
        further = [one.scores(encoders[one.metric_of.block]) for one in self.further]
        total = torch.zeros_like(first[0])
        for component in self.components:
            logits = component.logits(features, first, further, added, skip_if_certain)
            total += component.component.averaging_weight * logits
        return total / sum(component.component.averaging_weight for component in self.components)

    def affinities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines to the keys in the first metric, and affinities to the text of their classes; both (n, N).

        Of several encoders they are the first one's.
        """
        features = self.first_encoder(features)
        queries = F.normalize(self.components[0].metric(features)) if self.components else features
        image, text_cache = self.index.cosines(queries), self.cache.text_cache
        if text_cache is None:
            return image, torch.zeros_like(image)
        return image, text_cache.affinity(features, self.cache.image_cache.labels)

    def prototype_and_text(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines to the class means and to the texts (n, C), whose difference is the hardness of a sample."""
        features = self.first_encoder(features)
        first = self._metric_free_experts(features)
        if not self.components:
            return first[0], first[0]
        component = self.components[0]
        prototype, _ = class_mean_scores(component.metric(features), component.means)
        return F.fill_absent(prototype, self.mass > 0), first[min(1, len(first) - 1)]

    def _metric_free_experts(self, features: Tensor) -> Tensor:
        """Zero-shot and text experts (3, n, C), or without text the class means of the plain embeddings (1, n, C)."""
        text_cache = self.cache.text_cache
        if text_cache is not None and text_cache.modality_means is not None:
            text, image_mean, text_mean = to_tensors(text_cache.keys, *text_cache.modality_means, like=features)
            return text_scores(features, text_cache.img2txt(features), text, (image_mean, text_mean))
        prototype, _ = class_mean_scores(self.plain_basis(features), self.plain_means)
        return F.fill_absent(prototype[None], self.mass > 0)


class MetricScorer:
    """One metric of a calibrated cache as tensors.

    Parameters
    ----------
    metric : Metric
    component : MetricComponent
    support : keys (N, D), labels (N,), weights (N,), class means (C, D), masses (C,)
    clusters : KeyClusters or None
    """

    def __init__(
        self, metric: Metric, component: MetricComponent, support: tuple[Tensor, ...], clusters: KeyClusters | None
    ) -> None:
        keys, labels, weights, means, self.mass = support
        self.metric, self.component = metric, component
        # the metric is affine, so the mean of the mapped keys is the mapped mean
        self.means = metric(means)
        self.index = build_index(keys, labels, weights, len(means), clusters, metric)

    def logits(
        self,
        features: Tensor,
        first: Tensor,
        further: Sequence[Tensor],
        added: Sequence[Tensor],
        skip_if_certain: bool,
    ) -> Tensor:
        """Fused experts (n, C) of embeddings (n, D).

        Those that this metric does not change are given: `first` (J', n, C), and of each `further` encoder (n, C).
        """
        queries, present = self.metric(features), self.mass > 0
        prototype, gaussian = class_mean_scores(queries, self.means)
        others = F.fill_absent(
            torch.stack([prototype, gaussian / self.component.gaussian]), present, IMAGELESS_DEVIATIONS
        )
        (weights,) = to_tensors(self.component.weights, like=features)
        n_first = len(first)
        rest = torch.tensordot(weights[:n_first], first, dims=1)
        n_here = len(weights) - n_first - len(further)
        rest = rest + torch.tensordot(weights[n_first + 1 : n_first + n_here], others[: n_here - 1], dims=1)
        for weight, scores in zip(weights[n_first + n_here :], further, strict=True):
            rest = rest + weight * scores

        def fuse(evidence: Tensor) -> Tensor:
            cache = F.fill_absent(F.log_mean_evidence(evidence, self.mass), present, IMAGELESS_DEVIATIONS)
            return rest + weights[n_first] * cache

        def plus(more: Tensor) -> Combine:
            return lambda evidence: fuse(evidence) + more

        combine = [plus(more) for more in added]
        return fuse(self.index.bounded_evidence(F.normalize(queries), self.component.beta, combine, skip_if_certain))


class FurtherScorer:
    """The metric of an encoder beside the first as tensors.

    Parameters
    ----------
    metric_of : FurtherMetric
    keys : Tensor of shape (N, D_b)
        L2-normalized embeddings of the support images by this encoder.
    labels, weights : Tensor of shape (N,)
    n_classes : int
    """

    def __init__(self, metric_of: FurtherMetric, keys: Tensor, labels: Tensor, weights: Tensor, n_classes: int) -> None:
        self.metric_of = metric_of
        basis, scale = metric_of.basis, metric_of.scale
        self.metric = Metric(basis.to_tensors(keys), None if scale is None else to_tensors(scale, like=keys)[0])
        means, self.mass = class_means(keys, labels, weights, n_classes)
        self.means = self.metric(means)
        self.index = build_index(keys, labels, weights, n_classes, None, self.metric)

    def scores(self, features: Tensor) -> Tensor:
        """Sum of the weighted image experts (n, C) for embeddings (n, D_b) by this encoder."""
        queries = self.metric(features)
        evidence = self.index.evidence(F.normalize(queries), self.metric_of.beta)
        prototype, gaussian = class_mean_scores(queries, self.means)
        scores = [F.log_mean_evidence(evidence, self.mass), prototype, gaussian / self.metric_of.gaussian]
        (weights,) = to_tensors(self.metric_of.weights, like=features)
        filled = F.fill_absent(torch.stack(scores), self.mass > 0, IMAGELESS_DEVIATIONS)
        return torch.tensordot(weights, filled, dims=1)
