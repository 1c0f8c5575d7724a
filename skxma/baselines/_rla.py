"""RLA."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from skxma import functional as F
from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task, torch_seed
from skxma._sklearn_compat import Interval
from skxma.baselines._base import SupportTensors
from skxma.baselines._training import Plan, count, cross_entropy, frozen, leaf, train
from skxma.caches import to_tensors


class RLAClassifier(BaseFewShotClassifier):
    """RLA [1]_, the regularized linear adapter: a square matrix on the image embeddings, held near the identity.

    ``logit_scale · cos(W f, T)``, W = I at the start. Full-batch Adam with cosine decay on the cross-entropy plus
    ``λ |W − I|²`` (Frobenius norm), λ one over the number of shots. The paper proposes it for features from which
    nothing but the embedding is known, and validates nothing: learning rates of 1e-5 to 1e-2 give it much the same.

    The official code [2]_ sees another augmented view of each image in each step; here a step sees the mean embedding
    of `n_views`. With unequal numbers of images, the number of shots is their mean over the classes that have images.

    Parameters
    ----------
    strength : float or None, default=None
        Weight λ of the penalty; None is one over the number of shots.

    n_epochs : int, default=300
        Steps, each on the whole support set.

    learning_rate : float, default=1e-3
        Of Adam.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    adapter_ : ndarray of shape (n_features, n_features)
        W.
    text_ : ndarray of shape (n_classes, n_features)
        T, with a mean image moved to the texts for a class without any.
    loss_curve_ : list of float
        Training loss of each step, penalty included.
    n_trained_ : int
        Number of trained parameters.

    References
    ----------
    .. [1] Fahes et al., "CLIP's Visual Embedding Projector is a Few-shot Cornucopia", 2024, arXiv:2410.05270.
    .. [2] https://github.com/astra-vision/ProLIP
    """

    search_grid: ClassVar[dict[str, tuple[float, ...]]] = {
        "strength": (0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0),
        "learning_rate": (1e-5, 1e-4, 1e-3, 1e-2),
    }
    learns_frequencies: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "strength": [Interval(Real, 0, None, closed="left"), None],
        "n_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        strength: float | None = None,
        n_epochs: int = 300,
        learning_rate: float = 1e-3,
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
        self.strength = strength
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate

    def _fit_support(self, task: Task) -> dict[str, Any]:
        support = SupportTensors.of(task)
        strength = 1 / n_shots(support, task.cache.weight_unit) if self.strength is None else self.strength
        identity = torch.eye(support.features.shape[1]).to(support.features)
        adapter = leaf(identity, identity)

        def losses(rows: Tensor) -> Tensor:
            logits = adapted_logits(support.features[rows], adapter, support.text, support.scale)
            return cross_entropy(logits, support.labels[rows])

        def penalty() -> Tensor:
            return strength * (adapter - identity).square().sum()

        whole = len(support.labels)
        plan = Plan("adam", self.learning_rate, self.n_epochs, whole, eps=1e-4)
        curve = train([adapter], losses, support.weights, plan, torch_seed(self.random_state), penalty)
        return {
            "loss_curve_": curve,
            "adapter_": frozen(adapter),
            "text_": frozen(support.text),
            "n_trained_": count([adapter]),
        }

    def _logits(self, features: Tensor) -> Tensor:
        adapter, text = to_tensors(self.adapter_, self.text_, like=features)
        return adapted_logits(features, adapter, text, self.encoder_logit_scale_)


def adapted_logits(features: Tensor, adapter: Tensor, text: Tensor, scale: float) -> Tensor:
    """``scale · cos(W f, T)`` (n, C)."""
    return scale * F.affinity(F.normalize(features @ adapter.T), text)


def n_shots(support: SupportTensors, weight_unit: float) -> float:
    """Mean number of images, by their weights, of the classes that have images."""
    return float(support.mass.sum()) * weight_unit / int(support.present.sum())
