"""The evidence of an image cache's keys: of all of them, tile by tile, or of those that can still change the answer.

Of a million keys each tells little, and no few of them stand for all: ``Σ exp(β (cos − 1))`` over a class is a sum of
many small terms and a few large ones. So the large ones are retrieved (the cells of keys nearest to the query), of the
others a share is read, and that says within what limits the evidence of each class lies. Only classes that could still
be the answer within these limits are then read whole. What is left unread moves no probability by more than a
tolerance wherever the limits hold (:func:`must_read`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from skxma import functional as F

TILE_ENTRIES, TILE_ROWS, BLOCK_ROWS = 2**21, 1024, 2**14
TOLERANCE = 0.01
DEVIATIONS = 6.0
CELL_SIZE, N_NEAR = 128, 32
SAMPLED, MIN_SAMPLE = 16, 64
ROUNDS, POINTS_A_CENTRE = 4, 64

Map = Callable[[Tensor], Tensor]
Combine = Callable[[Tensor], Tensor]
"""From evidence (n, C) to logits (n, C); the logit of a class rises with its evidence and depends on no other's."""


class Keys:
    """Unit keys that say how much of each class is near a query.

    Parameters
    ----------
    unit : Tensor of shape (N, R), L2-normalised
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (N,)
    n_classes : int
    """

    n_cells = 0

    def __init__(self, unit: Tensor, labels: Tensor, weights: Tensor, n_classes: int) -> None:
        self.unit, self.labels, self.weights, self.n_classes = unit, labels, weights, n_classes

    def cosines(self, queries: Tensor) -> Tensor:
        """Cosines (n, N) of unit queries (n, R) to all keys."""
        return queries @ self.unit.T

    def evidence(self, queries: Tensor, beta: float) -> Tensor:
        """Sums ``Σ v exp(β (cos − 1))`` (n, C) over the keys of each class, in memory for one tile of the cosines."""
        return torch.cat([self._whole(rows, beta) for rows in queries.split(TILE_ROWS)])

    def enough_evidence(
        self, queries: Tensor, beta: float, combine: Sequence[Combine], certain_is_enough: bool = True
    ) -> Tensor:
        """Evidence (n, C) that is exact or near enough for some purposes; here it is exact."""
        return self.evidence(queries, beta)

    def _whole(self, queries: Tensor, beta: float) -> Tensor:
        found = queries.new_zeros(len(queries), self.n_classes)
        for tile in tiles(0, len(self.unit), len(queries)):
            found += F.sum_by_class(self._contributions(queries, tile, beta), self.labels[tile], self.n_classes)
        return found

    def _contributions(self, queries: Tensor, some: slice | Tensor, beta: float) -> Tensor:
        """``v exp(β (cos − 1))`` (n, m) of some keys."""
        return (queries @ self.unit[some].T).sub_(1).mul_(beta).exp_().mul_(self.weights[some])


def tiles(start: int, stop: int, n_rows: int) -> list[slice]:
    """Runs of keys whose contributions to some rows are few enough to stay in the processor's cache."""
    width = max(1, TILE_ENTRIES // max(1, n_rows))
    return [slice(first, min(first + width, stop)) for first in range(start, stop, width)]
