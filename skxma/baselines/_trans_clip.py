"""TransCLIP."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task
from skxma._sklearn_compat import Interval
from skxma.baselines._base import SupportTensors, zero_shot_logits
from skxma.baselines._semi_supervised import SHARPNESS, UNLABELED_CONSTRAINTS, Graph, nearest_in_pool, pool_of
from skxma.baselines._training import frozen
from skxma.caches import to_tensors

CONFIDENT = 8


class TransCLIPClassifier(BaseFewShotClassifier):
    """TransCLIP [1]_ in its few-shot form: a Gaussian mixture over unlabeled images, held near what the text says.

    Assignments ``z ∝ ŷ^λ · exp((log N(f; μ, Σ) + 50 / (2 k) · (Wᵀ z + W z)) / 50)``, ŷ zero-shot's probabilities, W
    the cosines to the k nearest images, Σ diagonal and shared; then μ and Σ of the assignments and of the labeled
    images, which together weigh 50 γ times the unlabeled; ten times in turn. Nothing is trained.

    The official code [2]_ is transductive: it answers for the pool itself. A new image is answered here by the same
    assignment, with its nearest images in the pool for neighbors. It picks γ from {0.002, 0.01, 0.02, 0.2} by
    min(4, shots) validation images per class; here γ is fixed, and :func:`skxma.model_selection.tune` searches it.

    Parameters
    ----------
    gamma : float, default=0.002
        Weight γ of the labeled; at 0.02 all labeled images weigh as much as all unlabeled. The default is that of
        the official values which is best on average over our feature files.

    text_weight : float, default=0.5
        Weight λ, which the official code has at 0.5 with labeled images.

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
    variances_ : ndarray of shape (n_features,)
        The diagonal of Σ.
    pool_, assignments_ : ndarray of shape (n_unlabeled, n_features) and (n_unlabeled, n_classes)
        The unlabeled images that differ, and their z.

    References
    ----------
    .. [1] Zanella et al., "Boosting Vision-Language Models with Transduction", NeurIPS 2024, arXiv:2406.01837.
    .. [2] https://github.com/MaxZanella/transduction-for-vlms
    """

    search_grid: ClassVar[dict[str, tuple[float, ...]]] = {"gamma": (0.002, 0.01, 0.02, 0.2)}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        **UNLABELED_CONSTRAINTS,
        "gamma": [Interval(Real, 0, None, closed="neither")],
        "text_weight": [Interval(Real, 0, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "n_iter": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        gamma: float = 0.002,
        text_weight: float = 0.5,
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
        self.gamma = gamma
        self.text_weight = text_weight
        self.n_neighbors = n_neighbors
        self.n_iter = n_iter

    def _fit_support(self, task: Task) -> dict[str, Any]:
        support = SupportTensors.of(task)
        pool, _ = pool_of(task)
        text = torch.log_softmax(support.zero_shot_logits(pool), 1)
        z = torch.softmax(text, 1)
        # the labeled images are among the neighbors, and their labels stay
        graph = Graph.of(pool, support.features, self.n_neighbors)
        labels = torch.nn.functional.one_hot(support.labels, z.shape[1]).to(z)
        mixture = Mixture.start(support, pool, z)
        for _ in range(self.n_iter):
            z = graph.assign(self.text_weight * text, mixture.log_density(pool), z, labels, self.n_neighbors)
            mixture = Mixture.of(support, pool, z, self.gamma)
        z = graph.assign(self.text_weight * text, mixture.log_density(pool), z, labels, self.n_neighbors)
        return {
            "means_": frozen(mixture.means),
            "variances_": frozen(mixture.variances),
            "pool_": frozen(pool),
            "assignments_": frozen(z),
            "n_trained_": 0,
        }

    def _logits(self, features: Tensor) -> Tensor:
        means, variances, pool, z = to_tensors(
            self.means_, self.variances_, self.pool_, self.assignments_, like=features
        )
        text = torch.log_softmax(zero_shot_logits(self, features), 1)
        logits = self.text_weight * text + Mixture(means, variances).log_density(features) / SHARPNESS
        if not len(pool):
            return logits
        return logits + nearest_in_pool(features, pool, z, self.n_neighbors)[0]


@dataclass(frozen=True)
class Mixture:
    """Gaussians of unit means (C, D) with one diagonal covariance (D,)."""

    means: Tensor
    variances: Tensor

    @classmethod
    def start(cls, support: SupportTensors, pool: Tensor, z: Tensor) -> Mixture:
        """Means of the labeled images, where there are none of the most confident of the pool; variances 1 / D."""
        means = support.means.clone()
        if len(pool):
            value, index = z.topk(min(CONFIDENT, len(pool)), dim=0)
            confident = (value[:, :, None] * pool[index]).mean(0)
            means = torch.where(support.present[:, None], means, confident)
        else:
            means = torch.where(support.present[:, None], means, support.text)
        width = pool.shape[1]
        return cls(torch.nn.functional.normalize(means, dim=1), means.new_full((width,), 1.0 / width))

    @classmethod
    def of(cls, support: SupportTensors, pool: Tensor, z: Tensor, gamma: float) -> Mixture:
        """Means and variances, of which the labeled images weigh 50 γ and the pool 1 in all."""
        labeled = gamma * SHARPNESS * support.values / support.values.sum()
        unlabeled = z / max(len(z), 1)
        mass = labeled.sum(0) + unlabeled.sum(0)
        means = (labeled.T @ support.features + unlabeled.T @ pool) / mass[:, None].clamp_min(1e-12)
        means = torch.nn.functional.normalize(means, dim=1)
        spread = _spread(support.features, labeled, means) + _spread(pool, unlabeled, means)
        return cls(means, (spread / mass.sum()).clamp_min(1e-12))

    def log_density(self, features: Tensor) -> Tensor:
        """``−½ (f − μ)ᵀ Σ⁻¹ (f − μ)`` (n, C)."""
        scale = self.variances.rsqrt()
        return -torch.cdist(features * scale, self.means * scale).square() / 2


def _spread(features: Tensor, weights: Tensor, means: Tensor) -> Tensor:
    """Weighted squared deviations (D,) from the class means, summed."""
    return weights.sum(1) @ features**2 - 2 * (means * (weights.T @ features)).sum(0) + weights.sum(0) @ means**2
