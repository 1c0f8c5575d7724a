"""Shared by the rival methods: a support set as tensors, and zero-shot logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skxma import functional as F
from skxma._estimators.base import BaseFewShotClassifier
from skxma._estimators.task import Task
from skxma._statistics import class_means, zero_shot_cosines
from skxma.caches import to_tensors


@dataclass(frozen=True)
class SupportTensors:
    """A task as tensors.

    Attributes
    ----------
    features : Tensor of shape (N, D)
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (N,), mean 1
    values : Tensor of shape (N, C)
        One-hot labels times weights.
    text : Tensor of shape (C, D)
        L2-normalized text of every class; see `every_text`.
    zero_shot_text : Tensor of shape (C, D)
        L2-normalized text; zero rows for classes without, class means where no class has any.
    means : Tensor of shape (C, D)
        Weighted class means, 0 for a class without samples.
    mass : Tensor of shape (C,)
        Sum of weights.
    scale : float
        The encoder's logit scale.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor
    values: Tensor
    text: Tensor
    zero_shot_text: Tensor
    means: Tensor
    mass: Tensor
    scale: float

    @classmethod
    def of(cls, task: Task) -> SupportTensors:
        """The tensors of a task, where and in what precision it is to be computed."""
        cache = task.cache
        example = torch.empty(0, device=task.device, dtype=task.dtype)
        features, labels, weights, values = to_tensors(
            cache.keys, cache.labels, cache.weights, cache.values, like=example
        )
        (zero_shot_text,) = to_tensors(task.text_features, like=example)
        means, mass = class_means(features, labels, weights, cache.n_classes)
        text = every_text(task.text, means, mass > 0)
        return cls(features, labels, weights, values, text, zero_shot_text, means, mass, task.logit_scale)

    def zero_shot_logits(self, features: Tensor) -> Tensor:
        """``logit_scale · f Tᵀ`` (n, C) of L2-normalized features (n, D)."""
        return self.scale * zero_shot_cosines(features, self.zero_shot_text)

    @property
    def present(self) -> Tensor:
        """Which classes have a sample, bool (C,)."""
        return self.mass > 0


def every_text(text: Tensor | None, means: Tensor, present: Tensor) -> Tensor:
    """A text of unit length (C, D) for every class, for heads that start from the text.

    A class without text gets its mean image, moved by the mean difference between the other classes' texts and
    images; without any text the mean images stand for it. A class with neither gets the mean of the other rows.
    """
    if text is None:
        rows, known = F.normalize(means), present
    else:
        known = text.any(1)
        both = known & present
        gap = (text[both] - F.normalize(means[both])).mean(0) if bool(both.any()) else torch.zeros_like(text[0])
        rows = torch.where(known[:, None], text, F.normalize(means) + gap)
        known = known | present
    rows = torch.where(known[:, None], rows, rows[known].mean(0))
    return F.normalize(rows)


def zero_shot_logits(clf: BaseFewShotClassifier, features: Tensor) -> Tensor:
    """``logit_scale · f Tᵀ`` (n, C) of a fitted classifier and L2-normalized features (n, D)."""
    return clf.encoder_logit_scale_ * zero_shot_cosines(features, *to_tensors(clf.text_features_, like=features))


def shrunk_inverse(features: Tensor, labels: Tensor, weights: Tensor, means: Tensor) -> Tensor:
    """``D · pinv((N − 1) Σ̂ + tr(Σ̂) I)`` (D, D) in double, Σ̂ the pooled within-class covariance; 0 where nothing varies.

    Parameters
    ----------
    features : Tensor of shape (n, D)
    labels : integer Tensor of shape (n,)
    weights : Tensor of shape (n,), positive
        N is their sum.
    means : Tensor of shape (C, D)
        Weighted class means.
    """
    residual = (features - means[labels]).double()
    # what rounding leaves of a lone sample is no variance
    residual = torch.where(torch.bincount(labels)[labels][:, None] > 1, residual, 0.0)
    scatter = residual.T @ (weights.double()[:, None] * residual)
    width = scatter.shape[0]
    trace = scatter.diagonal().sum() / max(float(weights.sum()) - 1, F.EPS)
    if not trace > F.EPS:
        return torch.zeros_like(scatter)
    scatter.diagonal().add_(trace)
    inverse: Tensor = width * torch.linalg.pinv(scatter, hermitian=True)
    return inverse
