"""CLIP-Adapter."""

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
from skxma.baselines._training import (
    Plan,
    cosine_logits,
    count,
    cross_entropy,
    frozen,
    leaf,
    linear_start,
    steps_a_pass,
    train,
)
from skxma.caches import to_tensors


class CLIPAdapterClassifier(BaseFewShotClassifier):
    """CLIP-Adapter [1]_: a two-layer bottleneck on the image feature, blended with it.

    ``f' = ratio · relu(relu(f W₁) W₂) + (1 − ratio) · f``, then ``logit_scale · cos(f', T)``; no biases. As the layers
    are homogeneous, features of unit length give what the official code [2]_ gives on raw ones.

    The paper searches the ratio for each data set; the official code fixes 0.2, as here. It has no training
    configuration of its own and is written for CoOp's framework; CoOp's is taken (SGD at 2e-3, batches of 32, 200
    epochs, the first at 1e-5), and the last epoch.

    Parameters
    ----------
    ratio : float in [0, 1], default=0.2
        Share of the adapted feature.

    reduction : int, default=4
        Features of the image per hidden unit.

    n_epochs : int, default=200
        Passes over the support set.

    learning_rate : float, default=2e-3
        Of SGD.

    batch_size : int, default=32
        Images in a step.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    down_, up_ : ndarray
        ``W₁`` (n_features, n_hidden) and ``W₂`` (n_hidden, n_features).
    loss_curve_ : list of float
        Training loss of each epoch.
    n_trained_ : int
        Number of trained parameters.

    References
    ----------
    .. [1] Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters", IJCV 2024, arXiv:2110.04544.
    .. [2] https://github.com/gaopengcuhk/CLIP-Adapter
    """

    learns_frequencies: ClassVar[bool] = True
    search_grid: ClassVar[dict[str, tuple[float, ...]]] = {"ratio": (0.2, 0.4, 0.6, 0.8)}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "ratio": [Interval(Real, 0, 1, closed="both")],
        "reduction": [Interval(Integral, 1, None, closed="left")],
        "n_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        ratio: float = 0.2,
        reduction: int = 4,
        n_epochs: int = 200,
        learning_rate: float = 2e-3,
        batch_size: int = 32,
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
        self.ratio = ratio
        self.reduction = reduction
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size

    def _fit_support(self, task: Task) -> dict[str, Any]:
        support = SupportTensors.of(task)
        width = support.features.shape[1]
        hidden = max(1, width // self.reduction)
        seed = torch_seed(self.random_state)
        generator = torch.Generator().manual_seed(seed)
        down = leaf(linear_start(width, hidden, generator)[0].T, support.features)
        up = leaf(linear_start(hidden, width, generator)[0].T, support.features)

        def losses(rows: Tensor) -> Tensor:
            adapted = adapt(support.features[rows], down, up, self.ratio)
            return cross_entropy(cosine_logits(adapted, support.text, support.scale), support.labels[rows])

        plan = Plan(
            "sgd",
            self.learning_rate,
            self.n_epochs,
            self.batch_size,
            weight_decay=5e-4,
            warmup=steps_a_pass(len(support.labels), self.batch_size),
        )
        return {
            "loss_curve_": train([down, up], losses, support.weights, plan, seed),
            "down_": frozen(down),
            "up_": frozen(up),
            "text_": frozen(support.text),
            "n_trained_": count([down, up]),
        }

    def _logits(self, features: Tensor) -> Tensor:
        down, up, text = to_tensors(self.down_, self.up_, self.text_, like=features)
        return cosine_logits(adapt(features, down, up, self.ratio), text, self.encoder_logit_scale_)


def adapt(features: Tensor, down: Tensor, up: Tensor, ratio: float) -> Tensor:
    """L2-normalized ``ratio · relu(relu(f W₁) W₂) + (1 − ratio) · f`` (n, D) of features (n, D)."""
    return F.normalize(ratio * torch.relu(torch.relu(features @ down) @ up) + (1 - ratio) * features)
