"""Cross-modal linear probe."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from skxma import functional as F
from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task, torch_seed
from skxma._sklearn_compat import Interval
from skxma.baselines._base import SupportTensors
from skxma.baselines._training import Plan, batches, count, cross_entropy, frozen, leaf, means_of, minimize_by_steps
from skxma.caches import to_tensors

WARMUP_STEPS, CURVE_STEPS = 50, 100


class CrossModalLinearProbe(BaseFewShotClassifier):
    """Cross-modal linear probe [1]_: a linear head that starts at the text, with the texts as training samples too.

    ``logit_scale · f · w``, w = T at the start. Half of each batch are images, half are class texts; AdamW with warm-up
    and cosine decay.

    The official code [2]_ picks learning rate, weight decay, batch size and step on min(K, 4) validation shots per
    class, from {1e-3, 1e-4}, {0, 1e-4, 1e-2}, {8, 32} and every 100th of 12800. Here they are fixed.
    The head is that of the last step. If no class has a text, only images are trained on.

    Parameters
    ----------
    n_steps : int, default=12800
        Batches.

    learning_rate : float, default=1e-4
        Of AdamW after the warm-up.

    weight_decay : float, default=1e-2
        Of AdamW.

    batch_size : int, default=32
        Images and texts in a step.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_features)
        w.
    loss_curve_ : list of float
        Training loss of each hundred steps.
    n_trained_ : int
        Number of trained parameters.

    References
    ----------
    .. [1] Lin et al., "Multimodality Helps Unimodality: Cross-Modal Few-Shot Learning with Multimodal Models", CVPR
       2023, arXiv:2301.06267.
    .. [2] https://github.com/linzhiqiu/cross_modal_adaptation
    """

    learns_frequencies: ClassVar[bool] = True
    search_grid: ClassVar[dict[str, tuple[float, ...]]] = {
        "learning_rate": (1e-3, 1e-4),
        "weight_decay": (0.0, 1e-4, 1e-2),
    }
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "n_steps": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        n_steps: int = 12800,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-2,
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
        self.n_steps = n_steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size

    def _fit_support(self, task: Task) -> dict[str, Any]:
        support = SupportTensors.of(task)
        weight = leaf(support.text, support.text)
        seed = torch_seed(self.random_state)
        n_texts = 0 if task.text is None else self.batch_size // 2
        images = batches(len(support.labels), self.batch_size - n_texts, seed, weight.device)
        texts = text_batches(task.text, n_texts, seed, weight.device)

        def objective() -> Tensor:
            rows, chosen = next(images), next(texts)
            features = torch.cat([support.features[rows], support.text[chosen]])
            labels = torch.cat([support.labels[rows], chosen])
            weights = torch.cat([support.weights[rows], support.weights.new_ones(len(chosen))])
            loss = cross_entropy(support.scale * F.affinity(features, weight), labels)
            return (weights * loss).sum() / weights.sum()

        plan = Plan("adamw", self.learning_rate, 1, weight_decay=self.weight_decay, warmup=WARMUP_STEPS)
        curve = means_of(minimize_by_steps([weight], objective, self.n_steps, plan), CURVE_STEPS)
        return {"loss_curve_": curve, "coef_": frozen(weight), "n_trained_": count([weight])}

    def _logits(self, features: Tensor) -> Tensor:
        return self.encoder_logit_scale_ * F.affinity(features, *to_tensors(self.coef_, like=features))


def text_batches(text: Tensor | None, size: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Classes of one batch of texts after another, without end; empty ones without text.

    Classes are drawn in an order that depends on their texts alone, so that renaming them changes nothing.
    """
    if text is None:
        yield from repeat(torch.empty(0, dtype=torch.long, device=device))
        return
    rows = text.cpu().numpy()
    known = np.flatnonzero(rows.any(axis=1))
    ordered = torch.as_tensor(known[np.lexsort(rows[known].T[::-1])], device=device)
    yield from (ordered[batch] for batch in batches(len(ordered), size, seed, device))
