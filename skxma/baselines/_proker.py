"""ProKeR."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from skxma import functional as F
from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task
from skxma._sklearn_compat import Interval, StrOptions
from skxma.baselines._base import SupportTensors, zero_shot_logits
from skxma.baselines._training import frozen
from skxma.caches import to_tensors

TABLE_SHOTS = (1, 2, 4, 8, 16)
BETAS = (3.0, 2.6, 1.5, 1.66, 1.7)
LAMBDAS = (0.05, 0.05, 0.05, 0.07, 0.1)


class ProKeRClassifier(BaseFewShotClassifier):
    """ProKeR [1]_: kernel ridge regression of what zero-shot leaves unexplained; nothing is trained.

    ``logit_scale · (f Tᵀ + k(f, F) a)``, ``a = (K / strength + I)⁻¹ (L − F Tᵀ)``, ``k = exp(−beta (1 − cos))``. The
    paper reports accuracy alone and has no temperature; the encoder's logit scale makes its scores into probabilities.

    The official code searches beta and strength (λ) on a full or a min(K, 4)-shot validation set, or transfers for each
    number of shots the values found on ImageNet. "auto" takes this last table, linearly between its shots on a log
    scale, and so needs no validation data; :func:`skxma.model_selection.tune` searches on validation images.

    Parameters
    ----------
    beta : float or "auto", default="auto"
        Sharpness of the kernel.

    strength : float or "auto", default="auto"
        How strongly the solution is held to zero-shot.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    dual_coef_ : ndarray of shape (n_keys, n_classes)
        a.
    beta_, strength_ : float
        What the parameters came to.

    References
    ----------
    .. [1] Bendou et al., "ProKeR: A Kernel Perspective on Few-Shot Adaptation of Large Vision-Language Models", CVPR
       2025, arXiv:2501.11175.
    """

    learns_frequencies: ClassVar[bool] = True
    search_grid: ClassVar[dict[str, tuple[float, ...]]] = {
        "beta": (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0),
        "strength": (1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0),
    }
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "beta": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "strength": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        beta: float | str = "auto",
        strength: float | str = "auto",
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
        self.beta = beta
        self.strength = strength

    def _fit_support(self, task: Task) -> dict[str, Any]:
        support = SupportTensors.of(task)
        shots = len(support.labels) / max(1, int(support.present.sum()))
        beta = by_shots(shots, BETAS) if isinstance(self.beta, str) else float(self.beta)
        strength = by_shots(shots, LAMBDAS) if isinstance(self.strength, str) else float(self.strength)
        kernel = F.affinity(support.features, support.features).sub(1).mul(beta).exp() / strength
        # of ridge regression: a sample twice is a sample of half the noise
        kernel.diagonal().add_(1 / support.weights)
        seen = support.present.to(kernel)
        cosines = support.zero_shot_logits(support.features) / support.scale
        wanted = (support.values > 0).to(kernel) - cosines
        dual_coef = frozen(torch.linalg.solve(kernel, wanted) * seen)
        return {"beta_": beta, "strength_": strength, "dual_coef_": dual_coef, "n_trained_": 0}

    def _logits(self, features: Tensor) -> Tensor:
        keys, dual = to_tensors(self.image_cache_.keys, self.dual_coef_, like=features)
        evidence = F.cache_evidence(F.affinity(features, keys), dual, self.beta_)
        return F.residual_logits(
            zero_shot_logits(self, features),
            evidence,
            self.encoder_logit_scale_,
        )


def by_shots(shots: float, table: tuple[float, ...]) -> float:
    """The published value for a number of shots per class, interpolated between the published ones."""
    return float(np.interp(np.log2(max(shots, 1)), np.log2(TABLE_SHOTS), table))
