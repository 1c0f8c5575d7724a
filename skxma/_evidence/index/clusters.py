"""Clusters of keys: spherical k-means within each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skxma import functional as F
from skxma._evidence.index.config import IndexConfig
from skxma._statistics import cosine_spread
from skxma.caches import Integers


@dataclass(frozen=True)
class KeyClusters:
    """Clusters of nearby keys, each of keys of one class.

    Attributes
    ----------
    order : ndarray of shape (N,), intp
        Positions of the keys, cluster after cluster and class after class.
    starts : ndarray of shape (J + 1,), intp
        Where in that order each of the J clusters starts, and the last ends.
    """

    order: Integers
    starts: Integers


def cluster_keys(unit: Tensor, labels: Tensor, n_classes: int, config: IndexConfig | None = None) -> KeyClusters:
    """Divide the keys of each class into clusters by spherical k-means.

    Parameters
    ----------
    unit : Tensor of shape (N, R), L2-normalized
    labels : integer Tensor of shape (N,)
    n_classes : int
    config : IndexConfig, optional
    """
    config = IndexConfig() if config is None else config
    by_class = torch.argsort(labels, stable=True)
    orders, sizes = [], []
    for keys in by_class.split(torch.bincount(labels, minlength=n_classes).tolist()):
        if not len(keys):
            continue
        cluster = nearest_center(unit[keys], max(1, round(len(keys) / config.cluster_size)), config)
        orders.append(keys[torch.argsort(cluster, stable=True)])
        size = torch.bincount(cluster)
        sizes.append(size[size > 0])
    starts = np.concatenate([[0], np.cumsum(torch.cat(sizes).cpu().numpy())])
    return KeyClusters(torch.cat(orders).cpu().numpy().astype(np.intp), starts.astype(np.intp))


def nearest_center(unit: Tensor, n_centers: int, config: IndexConfig) -> Tensor:
    """Assign unit vectors (N, R) to the nearest of `n_centers` centers that k-means learns from a subsample; (N,)."""
    if n_centers == 1:
        return torch.zeros(len(unit), dtype=torch.long, device=unit.device)
    # keys stand in an order that follows their content, so evenly spaced ones are a sample
    centers = unit[:: len(unit) // n_centers][:n_centers]
    sample = unit[:: max(1, len(unit) // (config.points_per_center * n_centers))]
    for _ in range(config.kmeans_iterations):
        cluster = (sample @ centers.T).argmax(1)
        centers = F.normalize(torch.zeros_like(centers).index_add_(0, cluster, sample))
    rows = max(1, config.tile_entries // n_centers)
    return torch.cat([(block @ centers.T).argmax(1) for block in unit.split(rows)])


def can_be_clustered(unit: Tensor, beta: float, config: IndexConfig | None = None) -> bool:
    """Tell whether a sample of the keys (N, R) estimates the evidence of the others, for a sharpness β.

    Where β σ is large, evidence is a matter of single keys, which a sample misses.
    """
    config = IndexConfig() if config is None else config
    sample = unit[:: max(1, len(unit) // config.sharpness_sample)]
    return beta * cosine_spread(sample) <= config.max_sharpness
