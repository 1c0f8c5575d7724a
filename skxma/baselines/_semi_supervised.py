"""Shared by the rivals that learn from images without labels, marked in `y` by `unlabeled_label`."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from skxma._estimators.task import Task
from skxma.caches import to_tensors

UNLABELED_CONSTRAINTS: dict[str, Any] = {"unlabeled_label": [str, Integral, Real, None]}


def pool_of(task: Task) -> tuple[Tensor, Tensor]:
    """Embeddings (M, D) of a task's images without labels, and their weights (M,) in the unit of the labeled."""
    like = task.like
    if task.pool is None:
        return like.new_empty(0, task.cache.keys.shape[1]), torch.empty_like(like)
    features, weights = to_tensors(task.pool.keys, task.pool.weights, like=like)
    return features, weights / task.cache.weight_unit
