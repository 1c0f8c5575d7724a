"""Multi-Modal Adapter."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from skxma import functional as F
from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task, torch_seed
from skxma._sklearn_compat import Interval
from skxma.baselines._base import SupportTensors
from skxma.baselines._training import Plan, count, cross_entropy, frozen, leaf, linear_start, train
from skxma.caches import to_tensors

N_HEADS = 4


class MultiModalAdapterClassifier(BaseFewShotClassifier):
    """Multi-Modal Adapter [1]_: attention between the image and the class texts, which adapts both.

    Image and texts are mapped to a narrow space, where the image attends to the texts and each text to the image, by
    masked multi-head attention of four heads; what comes back is mapped up, normalized and blended:
    ``f' = ratio · a(f, T) + (1 − ratio) · f``, ``T' = ratio · b(f) + (1 − ratio) · T``, then
    ``logit_scale · cos(f', T')``. As a text sees only the image, b is the same for all classes.

    The authors' code runs up to 100 epochs of Adam at 1e-2 and stops where accuracy on images set aside has not risen
    for 5 epochs; without such images it is the last of fewer epochs at a lower rate here. It takes raw features; here
    those of unit length are scaled to `feature_norm`, which matters for the sharpness of the attention.

    Parameters
    ----------
    ratio : float in [0, 1], default=0.2
        Share of the adapted features.

    width : int, default=128
        Width of the narrow space, a multiple of four.

    feature_norm : float, default=10.0
        Length of the features that the attention sees.

    n_epochs : int, default=20
        Passes over the support set.

    learning_rate : float, default=1e-3
        Of Adam.

    batch_size : int, default=256
        Images in a step.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    layers_ : list of ndarray
        Weights (d_out, d_in) and biases of the maps down, to queries, keys and values, out of the heads, and up.
    loss_curve_ : list of float
        Training loss of each epoch.
    n_trained_ : int
        Number of trained parameters.

    References
    ----------
    .. [1] Seputis et al., "Multi-Modal Adapter for Vision-Language Models", 2024, arXiv:2409.02958.
    """

    learns_frequencies: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "ratio": [Interval(Real, 0, 1, closed="both")],
        "width": [Interval(Integral, N_HEADS, None, closed="left")],
        "feature_norm": [Interval(Real, 0, None, closed="neither")],
        "n_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        ratio: float = 0.2,
        width: int = 128,
        feature_norm: float = 10.0,
        n_epochs: int = 20,
        learning_rate: float = 1e-3,
        batch_size: int = 256,
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
        self.width = width
        self.feature_norm = feature_norm
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size

    def _fit_support(self, task: Task) -> dict[str, Any]:
        if self.width % N_HEADS:
            raise ValueError(f"width={self.width} must be a multiple of {N_HEADS}, the number of attention heads.")
        support = SupportTensors.of(task)
        seed = torch_seed(self.random_state)
        layers = starting_layers(support.features.shape[1], self.width, seed, support.features)

        def losses(rows: Tensor) -> Tensor:
            logits = self._adapted(support.features[rows], support.text, layers, support.scale)
            return cross_entropy(logits, support.labels[rows])

        plan = Plan("adam", self.learning_rate, self.n_epochs, self.batch_size, weight_decay=1e-4, decay=False)
        return {
            "loss_curve_": train(layers, losses, support.weights, plan, seed),
            "layers_": [frozen(layer) for layer in layers],
            "text_": frozen(support.text),
            "n_trained_": count(layers),
        }

    def _adapted(self, features: Tensor, text: Tensor, layers: Sequence[Tensor], scale: float) -> Tensor:
        """Logits (n, C) of features (n, D) and texts (C, D), both of unit length."""
        image, common = attend(self.feature_norm * features, self.feature_norm * text, layers)
        image = F.normalize(self.ratio * image + (1 - self.ratio) * features)
        # |ratio · b + (1 − ratio) · T|, without an array of n texts for each class
        overlap = 2 * self.ratio * (1 - self.ratio) * F.affinity(common, text)
        length = (self.ratio**2 + (1 - self.ratio) ** 2 + overlap).clamp_min(F.EPS).sqrt()
        mixed = self.ratio * (image * common).sum(1, keepdim=True) + (1 - self.ratio) * F.affinity(image, text)
        return scale * mixed / length

    def _logits(self, features: Tensor) -> Tensor:
        text, *layers = to_tensors(self.text_, *self.layers_, like=features)
        return self._adapted(features, text, layers, self.encoder_logit_scale_)


def starting_layers(dim: int, width: int, seed: int, example: Tensor) -> list[Tensor]:
    """Weights and biases of the six maps as torch starts them: attention by Xavier, without biases."""
    generator = torch.Generator().manual_seed(seed)
    down, up = linear_start(dim, width, generator), linear_start(width, dim, generator)
    bound = (6 / (4 * width)) ** 0.5
    inner = (2 * torch.rand(3, width, width, generator=generator, dtype=torch.float64) - 1) * bound
    out = linear_start(width, width, generator)[0]
    zero = torch.zeros(width)
    arrays = [*down, inner[0], zero, inner[1], zero, inner[2], zero, out, zero, *up]
    return [leaf(array, example) for array in arrays]


def attend(features: Tensor, text: Tensor, layers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Attention outputs: of the image over the texts, and of each text over the image, both (n, D) of unit length."""
    down, down_bias, query, query_bias, key, key_bias, value, value_bias, out, out_bias, up, up_bias = layers
    image, words = features @ down.T + down_bias, text @ down.T + down_bias

    def heads(x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], N_HEADS, -1).transpose(0, 1)

    queries, keys, values = (
        heads(image @ query.T + query_bias),
        heads(words @ key.T + key_bias),
        heads(words @ value.T + value_bias),
    )
    shares = torch.softmax(queries @ keys.transpose(1, 2) / queries.shape[2] ** 0.5, dim=2)
    for_image = (shares @ values).transpose(0, 1).flatten(1)
    for_text = image @ value.T + value_bias

    def back(x: Tensor) -> Tensor:
        return F.normalize((x @ out.T + out_bias) @ up.T + up_bias)

    return back(for_image), back(for_text)
