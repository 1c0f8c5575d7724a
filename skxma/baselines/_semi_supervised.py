"""Shared by the rivals that learn from images without labels, marked in `y` by `unlabeled_label`."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from skxma._estimators.task import Task
from skxma.caches import to_tensors

# of the assignments of TransCLIP, and of StatA, which follows it
SHARPNESS = 50.0
ASSIGNMENT_STEPS = 5
BLOCK_ENTRIES = 2**24
UNLABELED_CONSTRAINTS: dict[str, Any] = {"unlabeled_label": [str, Integral, Real, None]}


def pool_of(task: Task) -> tuple[Tensor, Tensor]:
    """Embeddings (M, D) of a task's images without labels, and their weights (M,) in the unit of the labeled."""
    like = task.like
    if task.pool is None:
        return like.new_empty(0, task.cache.keys.shape[1]), torch.empty_like(like)
    features, weights = to_tensors(task.pool.keys, task.pool.weights, like=like)
    return features, weights / task.cache.weight_unit


def nearest_in_pool(features: Tensor, pool: Tensor, z: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean assignment by the cosines to the k nearest images of a pool, for images outside of it.

    A new image is nobody's neighbor, so that of the two ways of the graph its own counts for both.

    Parameters
    ----------
    features : Tensor of shape (n, D)
    pool : Tensor of shape (M, D)
    z : Tensor of shape (M, C)
        Assignments of the pool.
    k : int
        Which is more than there are where the pool is smaller.

    Returns
    -------
    drawn : Tensor of shape (n, C)
    cosines, nearest : Tensor of shape (n, min(k, M))
    """
    cosines, nearest = (features @ pool.T).topk(min(k, len(pool)), dim=1)
    return (cosines[:, :, None] * z[nearest]).sum(1) / k, cosines, nearest


@dataclass(frozen=True)
class Graph:
    """Nearest neighbors in the pool, of the pool's images (first M rows) and of the labeled (the others).

    Attributes
    ----------
    nearest : integer Tensor of shape (M + N, k)
    cosines : Tensor of shape (M + N, k)
    """

    nearest: Tensor
    cosines: Tensor

    @classmethod
    def of(cls, pool: Tensor, labeled: Tensor, k: int) -> Graph:
        """Neighbors of all; an image of the pool is not its own."""
        k = min(k, max(len(pool) - 1, 0))
        nearest, cosines = [], []
        rows = torch.cat([pool, labeled])
        for start in range(0, max(len(rows), 1), step := max(1, BLOCK_ENTRIES // max(len(pool), 1))):
            some = rows[start : start + step] @ pool.T
            own = torch.arange(start, start + len(some), device=pool.device)
            inside = own < len(pool)
            some[inside.nonzero()[:, 0], own[inside]] = -2.0
            values, found = some.topk(k, dim=1)
            nearest.append(found)
            cosines.append(values)
        return cls(torch.cat(nearest), torch.cat(cosines))

    def both_ways(self, z: Tensor, labels: Tensor) -> Tensor:
        """``Wᵀ z + W z`` (M, C) for the pool; through Wᵀ the labeled images, one-hot (N, C), draw theirs too."""
        m = len(z)
        onward = (self.cosines[:m, :, None] * z[self.nearest[:m]]).sum(1)
        sources = torch.cat([z, labels])
        backward = torch.zeros_like(z)
        for i in range(self.nearest.shape[1]):
            backward.index_add_(0, self.nearest[:, i], self.cosines[:, i, None] * sources)
        return onward + backward

    def assign(self, log_prior: Tensor, log_density: Tensor, z: Tensor, labels: Tensor, n_neighbors: int) -> Tensor:
        """New assignments from earlier, ``z ∝ exp(log_prior + (log_density + 50 / (2 k) · (Wᵀ z + W z)) / 50)`` (M, C).

        Parameters
        ----------
        log_prior : Tensor of shape (M, C)
            Logarithm of what the text says, weighted.
        log_density : Tensor of shape (M, C)
        z : Tensor of shape (M, C)
        labels : Tensor of shape (N, C)
            One-hot, of the labeled images.
        n_neighbors : int
            k, which is more than the graph has where the pool is smaller.
        """
        if not len(z):
            return z
        for _ in range(ASSIGNMENT_STEPS):
            drawn = self.both_ways(z, labels) * (SHARPNESS / (2 * n_neighbors))
            z = torch.softmax(log_prior + (log_density + drawn) / SHARPNESS, 1)
        return z
