"""CLAP."""

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


class CLAPClassifier(BaseFewShotClassifier):
    """CLAP [1]_: class prototypes that start at the text and are held near it, where zero-shot does well.

    ``logit_scale · cos(f, w)``, w = T at the start, with the penalty ``mean_c λ_c ‖w_c − T_c‖²``, λ_c the mean
    zero-shot probability of the true class over the images of class c.

    Nothing is chosen on validation data, neither in the official code [2]_ nor here (last of 300 epochs). There the
    support set is 20 augmented views of each image and T the raw text feature of the encoder; here T is scaled to the
    length `text_norm`: the longer the text, the slower it turns and the dearer it is to move.

    Parameters
    ----------
    text_norm : float, default=10.0
        Length of the text features at which the prototypes start.

    n_epochs : int, default=300
        Passes over the support set.

    learning_rate : float, default=0.1
        Of SGD.

    batch_size : int, default=256
        Images in a step.

    encoder, class_names, templates, text_features, n_views, conformal, device, precision, memory, random_state, verbose
        As in :class:`~skxma.XMAdapterClassifier`.

    Attributes
    ----------
    prototypes_ : ndarray of shape (n_classes, n_features)
        The trained w. Classes without images keep their text.
    penalty_ : ndarray of shape (n_classes,)
        λ_c.
    loss_curve_ : list of float
        Training loss of each epoch, penalty included.
    n_trained_ : int
        Number of trained parameters.

    References
    ----------
    .. [1] Silva-Rodríguez et al., "A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models", CVPR
       2024, arXiv:2312.12730.
    .. [2] https://github.com/jusiro/CLAP
    """

    learns_frequencies: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseFewShotClassifier._parameter_constraints,
        "text_norm": [Interval(Real, 0, None, closed="neither")],
        "n_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        text_norm: float = 10.0,
        n_epochs: int = 300,
        learning_rate: float = 0.1,
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
        self.text_norm = text_norm
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size

    def _fit_support(self, task: Task) -> dict[str, Any]:
        support = SupportTensors.of(task)
        text = self.text_norm * support.text
        strength = class_confidence(support)
        moved = leaf(torch.zeros_like(text), text)
        seen = support.present[:, None].to(text)

        def losses(rows: Tensor) -> Tensor:
            prototypes = text + seen * moved
            return cross_entropy(cosine_logits(support.features[rows], prototypes, support.scale), support.labels[rows])

        plan = Plan(
            "sgd",
            self.learning_rate,
            self.n_epochs,
            self.batch_size,
            warmup=steps_a_pass(len(support.labels), self.batch_size),
        )
        curve = train(
            [moved],
            losses,
            support.weights,
            plan,
            torch_seed(self.random_state),
            lambda: (strength * moved.square().sum(1)).mean(),
        )
        return {
            "loss_curve_": curve,
            "prototypes_": frozen(text + seen * moved),
            "penalty_": frozen(strength),
            "n_trained_": count([moved]),
        }

    def _logits(self, features: Tensor) -> Tensor:
        (prototypes,) = to_tensors(self.prototypes_, like=features)
        return cosine_logits(features, prototypes, self.encoder_logit_scale_)


def class_confidence(support: SupportTensors) -> Tensor:
    """Mean zero-shot probability of the true class over the samples of each class (C,); 0 without samples."""
    probabilities = torch.softmax(cosine_logits(support.features, support.text, support.scale), dim=1)
    return (probabilities * support.values).sum(0) / support.mass.clamp_min(1e-12)
