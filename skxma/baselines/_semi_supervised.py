"""What the rival methods share that learn from pictures without labels."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from skxma._estimators.task import Task
from skxma.baselines._base import Baseline
from skxma.caches import to_tensors


class SemiSupervisedBaseline(Baseline):
    """Base of the rivals that take pictures without labels, marked in `y` by `unlabeled_label`."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Baseline._parameter_constraints,
        "unlabeled_label": [str, Integral, Real, None],
    }

    def __init__(
        self,
        encoder: Any = "ViT-B-32/laion2b_s34b_b79k",
        *,
        unlabeled_label: Any = None,
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
        super().__init__(
            encoder,
            class_names=class_names,
            templates=templates,
            text_features=text_features,
            n_views=n_views,
            device=device,
            precision=precision,
            memory=memory,
            random_state=random_state,
            verbose=verbose,
        )
        self.unlabeled_label = unlabeled_label


def pool_of(task: Task) -> tuple[Tensor, Tensor]:
    """Embeddings (M, D) of a task's pictures without labels, and their weights (M,) in the unit of the labelled."""
    like = task.like
    if task.pool is None:
        return like.new_empty(0, task.cache.keys.shape[1]), torch.empty_like(like)
    features, weights = to_tensors(task.pool.keys, task.pool.weights, like=like)
    return features, weights / task.cache.weight_unit
