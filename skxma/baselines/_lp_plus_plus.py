"""LP++."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor

from skxma import functional as F
from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task
from skxma._sklearn_compat import Interval
from skxma._statistics import zero_shot_cosines
from skxma.baselines._base import SupportTensors
from skxma.baselines._training import cross_entropy, frozen
from skxma.caches import to_tensors

ALPHA_START = 250.0
BLEND_EVERY = 10
MOMENTUM = 0.9


class LPPlusPlusClassifier(BaseFewShotClassifier):
    """LP++ [1]_: a linear probe plus the text logits, blended by one learned number per class.

    ``f · w_c + b_c + α_c · f · T_c``. w starts at the sums of the class's features, all α at 250 times the mean cosine
    of the images to their texts. Gradient descent on the whole support set, steps from the curvature:
    ``4 N / λ_max(FᵀF)`` for w and b (momentum 0.9), and at every tenth epoch ``N / (4 max_c Σ_i (f_i · T_c)²)`` for α.

    The official code [2]_ keeps the epoch that is best on as many validation as training shots; here it is the last of
    300. Its gradient of α is never cleared, so a step goes by the sum over all epochs so far; the same is done here.

    Parameters
    ----------
    n_epochs : int, default=300
        Steps.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_features)
        w; 0 for classes without images.
    intercept_ : ndarray of shape (n_classes,)
        b.
    blend_ : ndarray of shape (n_classes,)
        α.
    loss_curve_ : list of float
        Training loss of each epoch.
    n_trained_ : int
        Number of trained parameters.

    References
    ----------
    .. [1] Huang et al., "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP", CVPR 2024, arXiv:2404.02285.
    .. [2] https://github.com/FereshteShakeri/FewShot-CLIP-Strong-Baseline
    """

    learns_frequencies: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "n_epochs": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        n_epochs: int = 300,
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
        self.n_epochs = n_epochs

    def _fit_support(self, task: Task) -> dict[str, Any]:
        support = SupportTensors.of(task)
        cosines = zero_shot_cosines(support.features, support.zero_shot_text)
        seen = support.present.to(cosines)
        weight = support.values.T @ support.features
        bias, blend = torch.zeros_like(seen), torch.full_like(seen, starting_blend(cosines, support))
        step, blend_step = step_sizes(support, cosines)
        speed, bias_speed, blend_sum = torch.zeros_like(weight), torch.zeros_like(bias), torch.zeros_like(blend)
        total = support.weights.sum()
        curve = []
        for epoch in range(self.n_epochs):
            logits = F.residual_logits(support.features @ weight.T + bias, cosines, blend)
            loss = (support.weights * cross_entropy(logits, support.labels)).sum() / total
            error = (support.weights[:, None] * torch.softmax(logits, 1) - support.values) * seen / total
            speed = MOMENTUM * speed + error.T @ support.features
            bias_speed = MOMENTUM * bias_speed + error.sum(0)
            blend_sum = blend_sum + (error * cosines).sum(0)
            weight, bias = weight - step * speed, bias - step * bias_speed
            if (epoch + 1) % BLEND_EVERY == 0:
                blend = blend - blend_step * blend_sum
            curve.append(loss)
        return {
            "loss_curve_": torch.stack(curve).tolist() if curve else [],
            "coef_": frozen(weight),
            "intercept_": frozen(bias),
            "blend_": frozen(blend),
            "n_trained_": weight.numel() + bias.numel() + blend.numel(),
        }

    def _logits(self, features: Tensor) -> Tensor:
        weight, bias, blend, text = to_tensors(
            self.coef_, self.intercept_, self.blend_, self.text_features_, like=features
        )
        return F.residual_logits(features @ weight.T + bias, zero_shot_cosines(features, text), blend)


def starting_blend(cosines: Tensor, support: SupportTensors) -> float:
    """250 times the mean cosine to the own text (one number), classes counting equally."""
    own = (cosines * support.values).sum(0) / support.mass.clamp_min(F.EPS)
    return float(ALPHA_START * own[support.present].mean())


def step_sizes(support: SupportTensors, cosines: Tensor) -> tuple[float, float]:
    """Steps of the probe and of the blend, from the largest curvature that each can meet."""
    weighted = support.weights[:, None]
    total = float(support.weights.sum())
    gram = support.features.T @ (weighted * support.features)
    largest = float(torch.linalg.eigvalsh(gram)[-1])
    strongest = float((weighted * cosines.square()).sum(0).max())
    return 4 * total / max(largest, F.EPS), total / max(4 * strongest, F.EPS)
