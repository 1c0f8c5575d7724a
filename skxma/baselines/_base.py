"""What the rival methods share: their common parameters, and a support set ready for their formulas."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import torch
from sklearn.utils import check_random_state
from torch import Tensor

from skxma import functional as F
from skxma._estimators.base import FewShotClassifier
from skxma._estimators.task import Task
from skxma._sklearn_compat import Interval
from skxma._statistics import class_means, zero_shot_cosines
from skxma.caches import to_tensors


class Baseline(FewShotClassifier):
    """Base of the rival methods: the parameters that all have, with the meaning that `XMAdapterClassifier` gives them.

    Attributes
    ----------
    search_grid : dict from parameter to candidates
        What is searched where there are validation images (:func:`skxma.model_selection.tune`); empty where nothing is.
    n_trained_ : int
        Number of trained parameters, 0 for a method without training.
    """

    n_views: int
    n_trained_: int
    search_grid: ClassVar[dict[str, tuple[float, ...]]] = {}

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **FewShotClassifier._parameter_constraints,
        "n_views": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        class_names: Any = None,
        templates: Any = "simple",
        text_features: Any = None,
        n_views: int = 1,
        device: Any = "auto",
        precision: str = "auto",
        memory: Any = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.encoder = encoder
        self.class_names = class_names
        self.templates = templates
        self.text_features = text_features
        self.n_views = n_views
        self.device = device
        self.precision = precision
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose

    def _zero_shot_logits(self, features: Tensor) -> Tensor:
        """``logit_scale · f Tᵀ`` (n, C); class means stand for the text where there is none."""
        return self.encoder_logit_scale_ * zero_shot_cosines(features, *to_tensors(self.text_features_, like=features))

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))


@dataclass(frozen=True)
class Support:
    """A task as tensors.

    Attributes
    ----------
    features : Tensor of shape (N, D)
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (N,), mean 1
    values : Tensor of shape (N, C)
        One-hot labels times weights.
    text : Tensor of shape (C, D)
        L2-normalised text of every class; see `every_text`.
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
    means: Tensor
    mass: Tensor
    scale: float

    @classmethod
    def of(cls, task: Task) -> Support:
        """The tensors of a task, where and in what precision it is to be computed."""
        cache = task.cache
        example = torch.empty(0, device=task.device, dtype=task.dtype)
        features, labels, weights, values = to_tensors(
            cache.keys, cache.labels, cache.weights, cache.values, like=example
        )
        means, mass = class_means(features, labels, weights, cache.n_classes)
        text = every_text(task.text, means, mass > 0)
        return cls(features, labels, weights, values, text, means, mass, task.logit_scale)

    @property
    def present(self) -> Tensor:
        """Which classes have a sample, bool (C,)."""
        return self.mass > 0


def every_text(text: Tensor | None, means: Tensor, present: Tensor) -> Tensor:
    """A text of unit length (C, D) for every class, for heads that start from the text.

    A class without text gets its mean picture, moved by the mean difference between the other classes' texts and
    pictures; without any text the mean pictures stand for it. A class with neither gets the mean of the other rows.
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
