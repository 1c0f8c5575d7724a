"""Exact retrieval: the evidence of all keys, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from skxma import functional as F
from skxma._index.config import IndexConfig

Combine = Callable[[Tensor], Tensor]
"""From evidence (n, C) to logits (n, C); the logit of a class rises with its evidence and depends on no other's."""


class ExactIndex:
    """Unit keys whose evidence is summed per class.

    Parameters
    ----------
    unit : Tensor of shape (N, R), L2-normalized
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (N,)
    n_classes : int
    config : IndexConfig, optional
    """

    n_clusters = 0

    def __init__(
        self, unit: Tensor, labels: Tensor, weights: Tensor, n_classes: int, config: IndexConfig | None = None
    ) -> None:
        self.unit, self.labels, self.weights, self.n_classes = unit, labels, weights, n_classes
        self.config = IndexConfig() if config is None else config

    def cosines(self, queries: Tensor) -> Tensor:
        """Cosines (n, N) of unit queries (n, R) to all keys."""
        return queries @ self.unit.T

    def evidence(self, queries: Tensor, beta: float) -> Tensor:
        """Sum ``Σ v exp(β (cos − 1))`` (n, C) over the keys of each class, in memory for one tile of the cosines."""
        if torch.compiler.is_compiling():
            # tiles depend on the number of queries, which a traced graph leaves open
            return F.sum_by_class(self._contributions(queries, slice(None), beta), self.labels, self.n_classes)
        return torch.cat([self._evidence_of_rows(rows, beta) for rows in queries.split(self.config.tile_rows)])

    def bounded_evidence(
        self, queries: Tensor, beta: float, combine: Sequence[Combine], skip_if_certain: bool = True
    ) -> Tensor:
        """Evidence (n, C) that is exact or accurate enough for the logits that follow from it; here it is exact."""
        return self.evidence(queries, beta)

    def _evidence_of_rows(self, queries: Tensor, beta: float) -> Tensor:
        total = queries.new_zeros(len(queries), self.n_classes)
        for tile in self._tiles(0, len(self.unit), len(queries)):
            total += F.sum_by_class(self._contributions(queries, tile, beta), self.labels[tile], self.n_classes)
        return total

    def _contributions(self, queries: Tensor, keys: slice | Tensor, beta: float) -> Tensor:
        """Contributions ``v exp(β (cos − 1))`` (n, m) of some keys."""
        cosines = queries @ self.unit[keys].T
        return F.modulate(cosines, beta, out=cosines).mul_(self.weights[keys])

    def _tiles(self, start: int, stop: int, n_rows: int) -> list[slice]:
        """Split a run of keys so that the contributions of each part to `n_rows` queries stay in the CPU cache."""
        width = max(1, self.config.tile_entries // max(1, n_rows))
        return [slice(first, min(first + width, stop)) for first in range(start, stop, width)]
