"""Class means, spreads and zero-shot cosines."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skxma import functional as F
from skxma.functional import EPS

LONE_MEAN, LONE_SPREAD, LONE_MAX, LONE_NODES = 2.5, 2.0, 0.95, 5
BLOCK_ENTRIES = 2**24


def lone_nodes(sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Gauss–Hermite nodes and weights (Q,) for the cosine of a picture to a class of one: ``σ (2.5 + 2 N(0, 1))``."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(LONE_NODES)
    return np.minimum(sigma * (LONE_MEAN + LONE_SPREAD * nodes), LONE_MAX), weights / weights.sum()


def zero_shot_cosines(features: Tensor, text: Tensor) -> Tensor:
    """``f Tᵀ`` (n, C); a class whose text is zero gets the row's mean plus one standard deviation."""
    return F.fill_absent(F.affinity(features, text), text.any(1))


MIN_SPREAD = 0.05
ALONE = 1e-6
BLOCK_ROWS = 2**14


def class_means(features: Tensor, labels: Tensor, weights: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Weighted class means (C, D) and masses (C,); a class without samples has mean 0."""
    sums, mass = features.new_zeros(n_classes, features.shape[1]), features.new_zeros(n_classes)
    for x, y, v in zip(*(a.split(BLOCK_ROWS) for a in (features, labels, weights)), strict=True):
        one_hot = features.new_zeros(n_classes, len(y)).scatter_(0, y[None, :], v[None, :])
        sums += one_hot @ x
        mass += one_hot.sum(1)
    return sums / mass.clamp_min(EPS)[:, None], mass


def weighted_mean(features: Tensor, weights: Tensor) -> Tensor:
    """Mean (D,) of the rows (N, D) by their weights (N,)."""
    return (weights[:, None] * features).sum(0) / weights.sum()


def spread(keys: Tensor) -> float:
    """σ, the standard deviation of the cosines between different keys (N, R), never below 0.05."""
    n = len(keys)
    if n < 2:
        return MIN_SPREAD
    unit = torch.nn.functional.normalize(keys.double(), dim=1)
    pairs = n * (n - 1)
    total = unit.sum(0).square().sum() - n
    squares = (unit.T @ unit if n > unit.shape[1] else unit @ unit.T).square().sum() - n
    variance = squares / pairs - (total / pairs) ** 2
    return max(float(variance.clamp_min(0).sqrt()), MIN_SPREAD)
