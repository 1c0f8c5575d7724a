"""Clusters of keys: spherical k-means within each class, and the nearest center of a query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skxma import functional as F
from skxma._index.exact import CELL_SIZE, POINTS_A_CENTRE, ROUNDS, TILE_ENTRIES
from skxma.caches import Integers


@dataclass(frozen=True)
class KeyCells:
    """Keys in cells: each of keys of one class that are near each other.

    Attributes
    ----------
    order : ndarray of shape (N,), intp
        Positions of the keys, cell after cell and class after class.
    starts : ndarray of shape (J + 1,), intp
        Where in that order each of the J cells starts, and the last ends.
    """

    order: Integers
    starts: Integers


def cut_cells(unit: Tensor, labels: Tensor, n_classes: int) -> KeyCells:
    """Cut the keys of each class into cells by spherical k-means, about 128 keys each.

    Parameters
    ----------
    unit : Tensor of shape (N, R), L2-normalised
    labels : integer Tensor of shape (N,)
    n_classes : int
    """
    by_class = torch.argsort(labels, stable=True)
    orders, sizes = [], []
    for mine in by_class.split(torch.bincount(labels, minlength=n_classes).tolist()):
        if not len(mine):
            continue
        cell = nearest_centre(unit[mine], max(1, round(len(mine) / CELL_SIZE)))
        orders.append(mine[torch.argsort(cell, stable=True)])
        size = torch.bincount(cell)
        sizes.append(size[size > 0])
    starts = np.concatenate([[0], np.cumsum(torch.cat(sizes).cpu().numpy())])
    return KeyCells(torch.cat(orders).cpu().numpy().astype(np.intp), starts.astype(np.intp))


def nearest_centre(unit: Tensor, n_centres: int) -> Tensor:
    """Which of so many centres each unit vector (N, R) is nearest to, (N,); the centres are learned from a share."""
    if n_centres == 1:
        return torch.zeros(len(unit), dtype=torch.long, device=unit.device)
    centres = unit[:: len(unit) // n_centres][:n_centres]
    share = unit[:: max(1, len(unit) // (POINTS_A_CENTRE * n_centres))]
    for _ in range(ROUNDS):
        cell = (share @ centres.T).argmax(1)
        centres = F.normalise(torch.zeros_like(centres).index_add_(0, cell, share))
    return torch.cat([(some @ centres.T).argmax(1) for some in unit.split(max(1, TILE_ENTRIES // n_centres))])
