"""The fitted form of the calibrated evidence: arrays that persist, and the tensors that score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skxma import functional as F
from skxma._evidence.calibrated.config import WarmStart
from skxma._evidence.calibrated.experts import TEXT_EXPERTS, TextExperts, expert_names
from skxma._evidence.calibrated.metric import IDENTITY_ROOT, CenteredBasis, ClassMeans, Metric, class_mean_scores
from skxma._evidence.calibrated.text_only import TextOnlyFusion, place_text_only
from skxma._evidence.index.clustered import build_index
from skxma._evidence.index.clusters import KeyClusters, can_be_clustered, cluster_keys
from skxma._evidence.index.exact import Combine, ExactIndex, StackedKeys
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
    text_only : TextOnlyFusion or None
        How it scores classes without images; None where there are none, or no class has a text.
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
    text_only: TextOnlyFusion | None = None


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
    """A fitted model of the calibrated evidence.

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
        Clusters of the keys in the only metric, with which predictions read no more keys than needed.
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

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts whose weights each component holds; none where there are no components."""
        if not self.components:
            return ()
        # without the means of the modalities a text cache has no experts
        has_text = self.text_cache is not None and self.text_cache.modality_means is not None
        n_others = len(expert_names(has_text, 0)) + len(self.further)
        n_image = len(self.components[0].weights) - n_others
        return expert_names(has_text, n_image, (one.block for one in self.further))

    def warm_start(self, noise_rate: float) -> WarmStart:
        """Return the solution from which a fit on other samples may start."""
        return WarmStart(self.experts, {one.choice: one.weights / one.prior for one in self.components}, noise_rate)

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
        unit = self.scorer(like).index.keys
        if not can_be_clustered(unit, self.components[0].beta):
            return self
        (labels,) = to_tensors(self.image_cache.labels, like=unit)
        return replace(self, key_clusters=cluster_keys(unit, labels, self.image_cache.n_classes))


class CalibratedScorer:
    """A calibrated model as tensors, its keys mapped by every metric.

    What does not depend on the images is computed here, once: a prediction for one image takes as long as its few
    dozen operations take to start.

    Parameters
    ----------
    model : CalibratedModel
    like : Tensor
        Gives device and dtype.
    """

    def __init__(self, model: CalibratedModel, like: Tensor) -> None:
        self.model = model
        image = model.image_cache
        all_keys, labels, weights = to_tensors(image.keys, image.labels, image.weights, like=like)
        encoders = image.split(all_keys)
        keys = encoders[0]
        means, self.mass = class_means(keys, labels, weights, image.n_classes)
        self.present = None if bool((self.mass > 0).all()) else self.mass > 0
        self.plain_basis = CenteredBasis((self.mass[:, None] * means).sum(0) / self.mass.sum(), None)
        self.plain_means = ClassMeans(F.column_major(self.plain_basis(means)))
        self.text, text_keys = None, None
        text_cache = model.text_cache
        if text_cache is not None and text_cache.modality_means is not None:
            text_keys = text_cache.keys
            text, image_mean, text_mean = to_tensors(text_cache.keys, *text_cache.modality_means, like=like)
            self.text = TextExperts(text, (image_mean, text_mean))
            self.img2txt = text_cache.img2txt.to_tensors(like)
        self.unknown = image.unknown_classes(text_keys, like)
        self.bases = [basis.to_tensors(like) for basis in model.bases]
        self.further = [
            FurtherScorer(one, encoders[one.block], labels, weights, image.n_classes) for one in model.further
        ]
        support = keys, labels, weights, means, self.mass
        by_width: dict[int, list[MetricComponent]] = {}
        for one in model.components:
            basis = model.bases[one.basis].basis
            by_width.setdefault(keys.shape[1] if basis is None else basis.shape[1], []).append(one)
        total = sum(one.averaging_weight for one in model.components)
        n_first = 1 if self.text is None else 1 + len(TEXT_EXPERTS)
        self.stacks = [
            MetricStack(some, self.bases, total, n_first, len(self.further), support, model.key_clusters)
            for some in by_width.values()
        ]
        if self.stacks:
            self.index = self.stacks[0].indices[0]
        else:
            self.index = ExactIndex(keys, labels, weights, image.n_classes)
        self.residual: Tensor | None = None if model.residual is None else to_tensors(model.residual, like=like)[0].T

    def first_encoder(self, features: Tensor) -> Tensor:
        """The first encoder's part (n, D_0) of embeddings (n, D) by all encoders."""
        return self.model.image_cache.split(features)[0]

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, C) of L2-normalized embeddings (n, D): the fused experts and the residual."""
        residual = self.residual_logits(self.first_encoder(features))
        if residual is None:
            return self.fused(features, [None])
        return self.fused(features, [residual]) + residual

    def logits_and_open_set(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, C) and open-set scores (n,) of L2-normalized embeddings (n, D).

        The residual plays no part in the scores: it is trained to tell known classes apart.
        """
        residual = self.residual_logits(self.first_encoder(features))
        fused = self.fused(features, [residual, None], skip_if_certain=False)
        return fused if residual is None else fused + residual, F.open_set_score(fused)

    def residual_logits(self, features: Tensor) -> Tensor | None:
        """Logits (n, C) that the residual adds to the first encoder's embeddings (n, D_0), or None without one."""
        return None if self.residual is None else F.normalize(self.plain_basis(features)) @ self.residual

    def fused(self, features: Tensor, added: Sequence[Tensor | None], skip_if_certain: bool = True) -> Tensor:
        """Mean over the metrics of their fused experts (n, C).

        Parameters
        ----------
        features : Tensor of shape (n, D)
        added : sequence of Tensor of shape (n, C) or None
            Logits that the caller will add. Where not all keys are read, the softmax of each of these sums is within
            the index's tolerance.
        skip_if_certain : bool
            See `clustered.classes_to_score`.
        """
        encoders = self.model.image_cache.split(features)
        features = encoders[0]
        first = self._metric_free_experts(features)
        if not self.stacks:
            return F.rule_out(self.model.logit_scale * first[0], self.unknown)
        further = [one.scores(encoders[one.fitted.block]) for one in self.further]
        mapped = [basis(features) for basis in self.bases]
        stacks = (stack.logits(mapped, first, further, added, skip_if_certain) for stack in self.stacks)
        return F.rule_out(reduce(torch.add, stacks), self.unknown)

    def affinities(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines to the keys in the first metric, and affinities to the text of their classes; both (n, N).

        Of several encoders they are the first one's.
        """
        features = self.first_encoder(features)
        queries = F.normalize(self.stacks[0].metrics[0](features)) if self.stacks else features
        image, text_cache = self.index.cosines(queries), self.model.text_cache
        if text_cache is None:
            return image, torch.zeros_like(image)
        return image, text_cache.affinity(features, self.model.image_cache.labels)

    def prototype_and_text(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines to the class means and to the texts (n, C), whose difference is the hardness of a sample."""
        features = self.first_encoder(features)
        first = self._metric_free_experts(features)
        if not self.stacks:
            return first[0], first[0]
        one = self.stacks[0]
        prototype, _ = class_mean_scores(one.metrics[0](features), one.means.means[0])
        return F.fill_absent(prototype, self.present), first[min(1, len(first) - 1)]

    def _metric_free_experts(self, features: Tensor) -> Tensor:
        """Zero-shot and text experts (3, n, C), or without text the class means of the plain embeddings (1, n, C)."""
        if self.text is not None:
            return self.text(features, self.img2txt(features))
        prototype, _ = self.plain_means(self.plain_basis(features))
        return F.fill_absent(prototype[None], self.present)


class MetricStack:
    """Metrics of equal width of a calibrated model, stacked into tensors: M metrics cost hardly more than one.

    Parameters
    ----------
    components : sequence of MetricComponent
    bases : sequence of CenteredBasis
        Those that the components name.
    total : float
        Sum of the averaging weights of all metrics, of this stack and of others.
    n_first, n_further : int
        Numbers of experts that no metric changes, and of further encoders.
    support : keys (N, D), labels (N,), weights (N,), class means (C, D), masses (C,)
    clusters : KeyClusters or None
        Of the keys in the only metric there is.
    """

    def __init__(
        self,
        components: Sequence[MetricComponent],
        bases: Sequence[CenteredBasis],
        total: float,
        n_first: int,
        n_further: int,
        support: tuple[Tensor, ...],
        clusters: KeyClusters | None,
    ) -> None:
        keys, labels, weights, means, self.mass = support
        self.present = None if bool((self.mass > 0).all()) else self.mass > 0
        scales = [None if one.scale is None else to_tensors(one.scale, like=keys)[0] for one in components]
        self.metrics = [Metric(bases[one.basis], scale) for one, scale in zip(components, scales, strict=True)]
        self.bases, self.betas = [one.basis for one in components], [one.beta for one in components]
        # the metrics are affine, so the mean of the mapped keys is the mapped mean
        self.means = ClassMeans(F.column_major(torch.stack([metric(means) for metric in self.metrics])))
        ones = torch.ones_like(self.means.means[0, 0])
        self.scale = torch.stack([ones if scale is None else scale for scale in scales])[:, None]
        self.indices = [build_index(keys, labels, weights, len(means), clusters, metric) for metric in self.metrics]
        self.stacked = StackedKeys.of(self.indices, self.betas)
        shares = np.stack([one.weights * (one.averaging_weight / total) for one in components])
        (weights,) = to_tensors(shares, like=keys)
        gaussian = to_tensors(np.array([one.gaussian for one in components]), like=keys)[0]
        self.first_weights = weights[:, :n_first]
        end = weights.shape[1] - n_further
        self.cache_weights = weights[:, n_first, None, None]
        self.class_mean_weights = weights[:, n_first + 1 : end].T[..., None, None]
        self.further_weights = weights[:, end:]
        self.gaussian = gaussian[:, None, None]
        text_only = [one.text_only or TextOnlyFusion() for one in components]
        placed = np.array([[one.zero_shot, one.centered_text, one.deviations] for one in text_only])
        self.zero_shot, self.centered_text, self.deviations = to_tensors(placed, like=keys)[0].T[..., None, None]

    def logits(
        self,
        mapped: Sequence[Tensor],
        first: Tensor,
        further: Sequence[Tensor],
        added: Sequence[Tensor | None],
        skip_if_certain: bool,
    ) -> Tensor:
        """Sum of the fused experts (n, C) of these metrics, each by its share in the mean over all.

        Parameters
        ----------
        mapped : sequence of Tensor of shape (n, R)
            The embeddings in each basis.
        first : Tensor of shape (J', n, C)
            The experts that no metric changes.
        further : sequence of Tensor of shape (n, C)
            The expert of each further encoder.
        added, skip_if_certain
            See `CalibratedScorer.fused`.
        """
        embeddings = [mapped[basis] for basis in self.bases]
        queries = (embeddings[0][None] if len(embeddings) == 1 else torch.stack(embeddings)) * self.scale
        prototype, gaussian = self.means(queries)
        scores = torch.stack([prototype, gaussian / self.gaussian][: len(self.class_mean_weights)])
        scores = self.filled(scores)
        rest = self.fused_first(first) + (self.class_mean_weights * scores).sum((0, 1))
        for weights, more in zip(self.further_weights.T, further, strict=True):
            rest = rest + (weights[:, None, None] * self.filled(more[None])).sum(0)

        def fuse(evidence: Tensor) -> Tensor:
            cache = self.filled(F.log_mean_evidence(evidence, self.mass))
            return rest + (self.cache_weights * cache).sum(0)

        def plus(more: Tensor | None) -> Combine:
            return lambda evidence: fuse(evidence[None]) if more is None else fuse(evidence[None]) + more

        unit = F.normalize(queries)
        if self.stacked is not None and not torch.compiler.is_compiling() and self.stacked.takes(first.shape[1]):
            return fuse(self.stacked.evidence(unit))
        # asked only where keys are clustered, which those of several metrics are not
        combine = [plus(more) for more in added]
        found = [
            index.bounded_evidence(rows, beta, combine, skip_if_certain)
            for index, rows, beta in zip(self.indices, unit, self.betas, strict=True)
        ]
        return fuse(torch.stack(found))

    def filled(self, scores: Tensor) -> Tensor:
        """Scores (..., M, n, C) by experts of images, with those of classes without images."""
        return F.fill_absent(scores, self.present, self.deviations)

    def fused_first(self, first: Tensor) -> Tensor:
        """Sum (n, C) over the metrics of the weighted experts (J', n, C) that no metric changes."""
        if self.present is None or len(first) == 1:
            return (self.first_weights.sum(0) @ first.flatten(1)).view_as(first[0])
        in_each = first[:, None].expand(-1, len(self.first_weights), -1, -1)
        placed = place_text_only(in_each, self.present, (self.zero_shot, self.centered_text), self.deviations)
        return (self.first_weights.T[..., None, None] * placed).sum((0, 1))


class FurtherScorer:
    """The metric of an encoder beside the first as tensors.

    Parameters
    ----------
    fitted : FurtherMetric
    keys : Tensor of shape (N, D_b)
        L2-normalized embeddings of the support images by this encoder.
    labels, weights : Tensor of shape (N,)
    n_classes : int
    """

    def __init__(self, fitted: FurtherMetric, keys: Tensor, labels: Tensor, weights: Tensor, n_classes: int) -> None:
        self.fitted, scale = fitted, fitted.scale
        self.metric = Metric(fitted.basis.to_tensors(keys), None if scale is None else to_tensors(scale, like=keys)[0])
        means, self.mass = class_means(keys, labels, weights, n_classes)
        self.means = ClassMeans(self.metric(means))
        (self.expert_weights,) = to_tensors(fitted.weights, like=keys)
        self.index = build_index(keys, labels, weights, n_classes, None, self.metric)

    def scores(self, features: Tensor) -> Tensor:
        """Sum of the weighted image experts (n, C) for embeddings (n, D_b) by this encoder; any for absent classes."""
        queries = self.metric(features)
        evidence = self.index.evidence(F.normalize(queries), self.fitted.beta)
        prototype, gaussian = self.means(queries)
        scores = torch.stack([F.log_mean_evidence(evidence, self.mass), prototype, gaussian / self.fitted.gaussian])
        return torch.tensordot(self.expert_weights, scores, dims=1)
