"""TaskRes."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task, torch_seed
from skxma._sklearn_compat import Interval
from skxma.baselines._base import SupportTensors
from skxma.baselines._training import Plan, cosine_logits, count, cross_entropy, frozen, leaf, steps_a_pass, train
from skxma.caches import to_tensors


class TaskResClassifier(BaseFewShotClassifier):
    """TaskRes [1]_: a trained residual on each class text.

    ``logit_scale · cos(f, T + alpha · x)``, x = 0 at the start, so an untrained TaskRes is zero-shot.

    The official code [2]_ takes 0.5 for alpha (1.0 on Flowers102) and the last of 100 epochs, as here. There T is the
    raw text feature of the encoder, here it is scaled to the length `text_norm`: the longer the text, the less a
    residual moves it.

    Parameters
    ----------
    alpha : float, default=0.5
        Scale of the residual.

    text_norm : float, default=10.0
        Length of the text features to which the residual is added.

    n_epochs : int, default=100
        Passes over the support set.

    learning_rate : float, default=2e-3
        Of Adam.

    batch_size : int, default=256
        Images in a step.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    prototypes_ : ndarray of shape (n_classes, n_features)
        ``T + alpha · x``. Classes without images keep their text.
    loss_curve_ : list of float
        Training loss of each epoch.
    n_trained_ : int
        Number of trained parameters.

    References
    ----------
    .. [1] Yu et al., "Task Residual for Tuning Vision-Language Models", CVPR 2023, arXiv:2211.10277.
    .. [2] https://github.com/geekyutao/TaskRes
    """

    learns_frequencies: ClassVar[bool] = True
    search_grid: ClassVar[dict[str, tuple[float, ...]]] = {"alpha": (0.5, 1.0)}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="left")],
        "text_norm": [Interval(Real, 0, None, closed="neither")],
        "n_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        alpha: float = 0.5,
        text_norm: float = 10.0,
        n_epochs: int = 100,
        learning_rate: float = 2e-3,
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
        self.alpha = alpha
        self.text_norm = text_norm
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size

    def _fit_support(self, task: Task) -> dict[str, Any]:
        support = SupportTensors.of(task)
        text = self.text_norm * support.text
        residual = leaf(torch.zeros_like(text), text)
        seen = support.present[:, None].to(text)

        def losses(rows: Tensor) -> Tensor:
            prototypes = text + self.alpha * seen * residual
            return cross_entropy(cosine_logits(support.features[rows], prototypes, support.scale), support.labels[rows])

        plan = Plan(
            "adam",
            self.learning_rate,
            self.n_epochs,
            self.batch_size,
            weight_decay=5e-4,
            warmup=steps_a_pass(len(support.labels), self.batch_size),
        )
        curve = train([residual], losses, support.weights, plan, torch_seed(self.random_state))
        prototypes = frozen(text + self.alpha * seen * residual)
        return {"loss_curve_": curve, "prototypes_": prototypes, "n_trained_": count([residual])}

    def _logits(self, features: Tensor) -> Tensor:
        (prototypes,) = to_tensors(self.prototypes_, like=features)
        return cosine_logits(features, prototypes, self.encoder_logit_scale_)
