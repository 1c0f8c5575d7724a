"""GDA."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from skxma import functional as F
from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task
from skxma._sklearn_compat import Interval
from skxma.baselines._base import SupportTensors, shrunk_inverse, zero_shot_logits
from skxma.baselines._training import frozen
from skxma.caches import to_tensors


class GDAClassifier(BaseFewShotClassifier):
    """GDA [1]_: Gaussian discriminant analysis with one covariance for all classes, added to zero-shot.

    ``logit_scale · f Tᵀ + alpha · (f · W + b)``, ``W = μ Σ⁻¹``, ``b = log(1/C) − ½ μ Σ⁻¹ μ``,
    ``Σ⁻¹ = D · pinv((N − 1) Σ̂ + tr(Σ̂) I)`` of the pooled within-class covariance Σ̂. Nothing is trained.

    The official code [2]_ picks alpha from {1e-4, ..., 100} on a full validation set, for ImageNet on the test set;
    here it is fixed, and :func:`skxma.model_selection.tune` searches it on validation images. It takes 10 augmented
    views of each image as samples, so that one shot has a covariance; here one shot has none, and is zero-shot.

    Parameters
    ----------
    alpha : float, default=1.0
        Weight of the Gaussian scores.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_features)
        W.
    intercept_ : ndarray of shape (n_classes,)
        b.

    References
    ----------
    .. [1] Wang et al., "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", ICLR 2024, arXiv:2402.04087.
    .. [2] https://github.com/mrflogs/ICLR24
    """

    search_grid: ClassVar[dict[str, tuple[float, ...]]] = {"alpha": (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        alpha: float = 1.0,
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
        self.alpha = alpha

    def _fit_support(self, task: Task) -> dict[str, Any]:
        support = SupportTensors.of(task)
        means = support.means.double()
        inverse = shrunk_inverse(support.features, support.labels, support.weights, support.means)
        weight = means @ inverse
        bias = -torch.tensor(float(len(means))).log() - (weight * means).sum(1) / 2
        return {
            "coef_": frozen(weight),
            "intercept_": frozen(bias),
            "present_": support.present.cpu().numpy(),
            "n_trained_": 0,
        }

    def _logits(self, features: Tensor) -> Tensor:
        weight, bias, present = to_tensors(self.coef_, self.intercept_, self.present_, like=features)
        scores = F.fill_absent(features @ weight.T + bias, present)
        return F.residual_logits(zero_shot_logits(self, features), scores, self.alpha)
