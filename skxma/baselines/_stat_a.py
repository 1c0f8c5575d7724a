"""StatA."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from skxma import functional as F
from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task
from skxma._sklearn_compat import Interval
from skxma.baselines._base import SupportTensors, zero_shot_logits
from skxma.baselines._semi_supervised import SHARPNESS, UNLABELED_CONSTRAINTS, Graph, nearest_in_pool, pool_of
from skxma.baselines._training import frozen
from skxma.caches import to_tensors
from skxma.embeddings import SAME_IMAGE


class StatAClassifier(BaseFewShotClassifier):
    """StatA [1]_: TransCLIP without labels, its Gaussians anchored at the text, so that a class may have no images.

    Assignments ``z ∝ ŷ · exp((log N(f; μ_c, Σ_c) + 50 / (2 k) · (Wᵀ z + W z)) / 50)``, ŷ zero-shot's probabilities, W
    the cosines to the k nearest images, Σ_c diagonal. With ``β_c = n_c / (α + n_c)``, n_c the number of images whose
    most probable class is c, and a mean and a variance by the assignments,
    ``μ_c = normalize(β_c mean + (1 − β_c) T_c)`` and ``Σ_c = β_c variance + (1 − β_c) (Σ_0 + (T_c − μ_c)²)``, Σ_0 the
    variance around the texts by ŷ; ten times in turn. Nothing is trained, and nothing chosen on validation images. The
    labeled images say only which classes there are.

    The official code [2]_ is transductive: it answers for the unlabeled images themselves, and so does `predict` here
    for an image that was among them. A new image is answered by the same assignment, with its nearest unlabeled images
    for neighbors. Without unlabeled images it is zero-shot.

    Parameters
    ----------
    alpha : float, default=1.0
        Strength α of the anchor, in images.

    n_neighbors : int, default=3
        Neighbors k in the graph of affinities.

    n_iter : int, default=10
        Rounds.

    unlabeled_label : str, int, NaN or None, default=None
        As in :class:`~skxma.XMAdapterClassifier`.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    means_ : ndarray of shape (n_classes, n_features)
        μ, of unit length.
    variances_ : ndarray of shape (n_classes, n_features)
        The diagonals of Σ.
    pool_, assignments_ : ndarray of shape (n_unlabeled, n_features) and (n_unlabeled, n_classes)
        The unlabeled images that differ, and their z.

    References
    ----------
    .. [1] Zanella et al., "Realistic Test-Time Adaptation of Vision-Language Models", CVPR 2025, arXiv:2501.03729.
    .. [2] https://github.com/MaxZanella/StatA
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        **UNLABELED_CONSTRAINTS,
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "n_iter": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        alpha: float = 1.0,
        n_neighbors: int = 3,
        n_iter: int = 10,
        unlabeled_label: Any = None,
        class_names: Any = None,
        templates: Any = "simple",
        text_features: Any = None,
        n_views: int = 1,
        conformal: str | None = None,
        device: Any = "auto",
        precision: str = "auto",
        memory: Any = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            encoder,
            class_names=class_names,
            templates=templates,
            text_features=text_features,
            n_views=n_views,
            conformal=conformal,
            device=device,
            precision=precision,
            memory=memory,
            random_state=random_state,
            verbose=verbose,
        )
        self.unlabeled_label = unlabeled_label
        self.alpha = alpha
        self.n_neighbors = n_neighbors
        self.n_iter = n_iter

    def _fit_support(self, task: Task) -> dict[str, Any]:
        support = SupportTensors.of(task)
        pool, _ = pool_of(task)
        text = torch.log_softmax(support.zero_shot_logits(pool), 1)
        z = torch.softmax(text, 1)
        graph = Graph.of(pool, pool[:0], self.n_neighbors)
        anchor = AnchoredGaussians.start(support.text, pool, z)
        gaussians = anchor
        for _ in range(self.n_iter):
            z = graph.assign(text, gaussians.log_density(pool), z, z[:0], self.n_neighbors)
            gaussians = anchor.moved(pool, z, self.alpha)
        z = graph.assign(text, gaussians.log_density(pool), z, z[:0], self.n_neighbors)
        return {
            "means_": frozen(gaussians.means),
            "variances_": frozen(gaussians.variances),
            "pool_": frozen(pool),
            "assignments_": frozen(z),
            "n_trained_": 0,
        }

    def _logits(self, features: Tensor) -> Tensor:
        means, variances, pool, z = to_tensors(
            self.means_, self.variances_, self.pool_, self.assignments_, like=features
        )
        logits = zero_shot_logits(self, features)
        if not len(pool):
            return logits
        density = AnchoredGaussians(means, variances).log_density(features)
        drawn, cosines, nearest = nearest_in_pool(features, pool, z, self.n_neighbors)
        fresh = torch.log_softmax(logits, 1) + density / SHARPNESS + drawn
        known = z[nearest[:, 0]].clamp_min(F.EPS).log()
        return torch.where(cosines[:, :1] > SAME_IMAGE, known, fresh)


@dataclass(frozen=True)
class AnchoredGaussians:
    """Gaussians of unit means (C, D) with diagonal covariances (C, D)."""

    means: Tensor
    variances: Tensor

    @classmethod
    def start(cls, text: Tensor, pool: Tensor, z: Tensor) -> AnchoredGaussians:
        """The anchor: texts (C, D), and the variance of the images (M, D) around them by their assignments (M, C)."""
        spread = second_moments(pool, z, text).sum(0) / max(len(pool), 1)
        return cls(text, spread.clamp_min(F.EPS).expand_as(text))

    def moved(self, pool: Tensor, z: Tensor, alpha: float) -> AnchoredGaussians:
        """The anchor moved by the images, the more of them a class has the further."""
        counts = torch.bincount(z.argmax(1), minlength=z.shape[1]).to(z) if len(z) else z.sum(0)
        share = (counts / (alpha + counts))[:, None]
        mass = z.sum(0)[:, None].clamp_min(F.EPS)
        means = F.normalize(share * F.normalize(z.T @ pool / mass) + (1 - share) * self.means)
        spread = second_moments(pool, z, means) / mass
        anchored = self.variances + (self.means - means).square()
        return AnchoredGaussians(means, (share * spread + (1 - share) * anchored).clamp_min(F.EPS))

    def log_density(self, features: Tensor) -> Tensor:
        """``−½ (f − μ_c)ᵀ Σ_c⁻¹ (f − μ_c) − ½ log det Σ_c`` (n, C)."""
        precision = self.variances.reciprocal()
        scaled = precision * self.means
        distance = features.square() @ precision.T - 2 * features @ scaled.T + (scaled * self.means).sum(1)
        return -(distance + self.variances.log().sum(1)) / 2


def second_moments(features: Tensor, z: Tensor, centers: Tensor) -> Tensor:
    """``Σ_i z_ic (f_i − center_c)²`` (C, D), at least 0."""
    crossed = 2 * centers * (z.T @ features) - z.sum(0)[:, None] * centers.square()
    return (z.T @ features.square() - crossed).clamp_min(0)
