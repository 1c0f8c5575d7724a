"""Exact retrieval: the evidence of all keys, tile by tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skxma import functional as F
from skxma._evidence.index.config import IndexConfig
from skxma._runtime import blocks
from skxma.caches import Integers

Combine = Callable[[Tensor], Tensor]
"""From evidence (n, C) to logits (n, C); the logit of a class rises with its evidence and depends on no other's."""


class KeyIndex:
    """Unit keys in an order of their own.

    Parameters
    ----------
    unit : Tensor of shape (N, R), L2-normalized
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (N,)
        A key of weight 0 contributes nothing.
    n_classes : int
    config : IndexConfig, optional

    Attributes
    ----------
    position : integer Tensor of shape (N',)
        Where each key of the cache stands; set by subclasses, which make their order.
    """

    n_clusters = 0
    position: Tensor

    def __init__(
        self, unit: Tensor, labels: Tensor, weights: Tensor, n_classes: int, config: IndexConfig | None = None
    ) -> None:
        self.unit, self.labels, self.weights, self.n_classes = unit, labels, weights, n_classes
        self.log_weights = weights.log()
        self.config = IndexConfig() if config is None else config

    def evidence(self, queries: Tensor, beta: float) -> Tensor:
        """Sum ``Σ v exp(β (cos − 1))`` (n, C) over the keys of each class."""
        # one product and one sum: tiles depend on the number of queries, which a traced graph leaves open
        contributions = F.modulate(queries @ self.unit.T, beta) * self.weights
        return F.sum_by_class(contributions, self.labels, self.n_classes)

    @property
    def keys(self) -> Tensor:
        """Unit keys (N, R) in the order of the cache."""
        return self.unit[self.position]

    def cosines(self, queries: Tensor) -> Tensor:
        """Cosines (n, N) of unit queries (n, R) to all keys, in the order of the cache."""
        return (queries @ self.unit.T)[:, self.position]

    def bounded_evidence(
        self, queries: Tensor, beta: float, combine: Sequence[Combine], skip_if_certain: bool = True
    ) -> Tensor:
        """Evidence (n, C) that is exact or accurate enough for the logits that follow from it; here it is exact."""
        return self.evidence(queries, beta)

    def _contributions(self, queries: Tensor, keys: slice | Tensor, beta: float, out: Tensor | None = None) -> Tensor:
        """Contributions ``v exp(β (cos − 1))`` (n, m) of some keys; `out` may receive them."""
        # the product adds the logarithms of the weights: two passes over the largest arrays of a prediction, not five
        offsets, columns = self.log_weights[keys] - beta, self.unit[keys].T
        if len(queries) > self.config.few_queries or torch.get_num_threads() == 1:
            return torch.addmm(offsets, queries, columns, alpha=beta, out=out).exp_()
        # a product of a few rows takes one thread, one by each part of the keys takes all of them
        n_parts = math.gcd(len(offsets), self.config.n_parts)
        parts = columns.unflatten(1, (n_parts, -1)).transpose(0, 1)
        exponents = torch.baddbmm(offsets.view(n_parts, 1, -1), queries.expand(n_parts, -1, -1), parts, alpha=beta)
        return exponents.exp_().transpose(0, 1).flatten(1)

    def _tiles(self, start: int, stop: int, n_rows: int) -> list[slice]:
        """Split a run of keys so that the contributions of each part to `n_rows` queries stay in the CPU cache."""
        width = max(1, self.config.tile_entries // max(1, n_rows))
        return [slice(first, min(first + width, stop)) for first in range(start, stop, width)]


@dataclass(frozen=True)
class ClassBlock:
    """Classes with about as many keys each, which stand shot by shot: the first key of each class, the second, ...

    Attributes
    ----------
    start : int
        Where its keys start.
    n_shots : int
        Keys per class, where those of smaller classes are filled up with keys of weight 0.
    classes : slice
        Its classes, in the order of the blocks.
    """

    start: int
    n_shots: int
    classes: slice

    @property
    def n_classes(self) -> int:
        """The number of its classes."""
        return self.classes.stop - self.classes.start

    def tiles(self, width: int) -> Iterator[slice]:
        """Yield runs of about `width` keys, of whole shots."""
        step = self.n_classes * max(1, width // self.n_classes)
        stop = self.start + self.n_classes * self.n_shots
        for first in range(self.start, stop, step):
            yield slice(first, min(first + step, stop))


def class_blocks(counts: Integers, config: IndexConfig) -> tuple[Integers, list[ClassBlock]]:
    """Order classes by their number of keys, and divide them into blocks that are filled up little.

    Parameters
    ----------
    counts : ndarray of shape (C,)
        Keys of each class.
    config : IndexConfig

    Returns
    -------
    order : ndarray of shape (C,)
        The classes, those with the most keys first.
    blocks : list of ClassBlock
        Of the classes that have keys.
    """
    order = np.argsort(-counts, kind="stable")
    sizes = counts[order]
    n_present = int((sizes > 0).sum())
    blocks: list[ClassBlock] = []
    first, start = 0, 0
    while first < n_present:
        some = sizes[first : min(first + config.block_classes, n_present)]
        padded = some[0] * np.arange(1, len(some) + 1)
        n_classes = int(np.flatnonzero(padded <= (1 + config.padding) * np.cumsum(some))[-1]) + 1
        blocks.append(ClassBlock(start, int(some[0]), slice(first, first + n_classes)))
        start += int(some[0]) * n_classes
        first += n_classes
    return order, blocks


class ExactIndex(KeyIndex):
    """Unit keys whose evidence is summed per class; they stand so that a sum over a class is one over an axis.

    Parameters
    ----------
    unit : Tensor of shape (N, R), L2-normalized
        In the order of the cache, as labels and weights.
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (N,)
    n_classes : int
    config : IndexConfig, optional
    """

    def __init__(
        self, unit: Tensor, labels: Tensor, weights: Tensor, n_classes: int, config: IndexConfig | None = None
    ) -> None:
        config = IndexConfig() if config is None else config
        host = labels.cpu().numpy()
        counts = np.bincount(host, minlength=n_classes)
        class_order, self.blocks = class_blocks(counts, config)
        by_class, firsts = np.argsort(host, kind="stable"), np.cumsum(counts) - counts
        places, fills = [np.empty(0, dtype=np.intp)], [np.empty(0, dtype=bool)]
        for block in self.blocks:
            classes = class_order[block.classes]
            shots = np.arange(block.n_shots)[:, None]
            fills.append((shots >= counts[classes]).ravel())
            places.append(by_class[firsts[classes] + np.minimum(shots, counts[classes] - 1)].ravel())
        place, fill = np.concatenate(places), np.concatenate(fills)
        position = np.empty(len(host), dtype=np.intp)
        position[place[~fill]] = np.flatnonzero(~fill)
        order, filling = torch.as_tensor(place, device=unit.device), torch.as_tensor(fill, device=unit.device)
        # column by column, which one query alone reads three times as fast
        columns = unit.new_empty(unit.shape[1], len(order))
        for some in blocks.slices(len(order), blocks.KEY_ROWS):
            columns[:, some] = unit[order[some]].T
        super().__init__(columns.T, labels[order], weights[order].masked_fill(filling, 0.0), n_classes, config)
        self.position = torch.as_tensor(position, device=unit.device)
        in_order = bool((class_order == np.arange(n_classes)).all())
        self.is_whole = in_order and [block.n_classes for block in self.blocks] == [n_classes]
        self.class_position = None if in_order else torch.as_tensor(np.argsort(class_order), device=unit.device)

    def evidence(self, queries: Tensor, beta: float) -> Tensor:
        """Sum ``Σ v exp(β (cos − 1))`` (n, C) over the keys of each class, in memory for one tile of the cosines."""
        if torch.compiler.is_compiling():
            return super().evidence(queries, beta)
        n = len(queries)
        if self.is_whole and n * len(self.unit) <= self.config.tile_entries:
            # one image is scored in less time than the loops take to start
            return self._contributions(queries, slice(None), beta).unflatten(1, (-1, self.n_classes)).sum(1)
        total = queries.new_zeros(n, self.n_classes)
        n_rows = max(1, min(self.config.tile_rows, n))
        # made once: memory that is new costs as much as what is written to it
        room = queries.new_empty(n_rows * max((self._width(block, n_rows) for block in self.blocks), default=0))
        for rows, sums in zip(queries.split(n_rows), total.split(n_rows), strict=True):
            for block in self.blocks:
                of_block = sums[:, block.classes]
                for tile in block.tiles(self._width(block, n_rows)):
                    shape = len(rows), tile.stop - tile.start
                    found = self._contributions(rows, tile, beta, room[: shape[0] * shape[1]].view(shape))
                    of_block += found.unflatten(1, (-1, block.n_classes)).sum(1)
        return total if self.class_position is None else total[:, self.class_position]

    def _width(self, block: ClassBlock, n_rows: int) -> int:
        """Keys of a tile: whole shots of the block's classes."""
        n_shots = max(1, self.config.tile_entries // (n_rows * block.n_classes))
        return min(n_shots, block.n_shots) * block.n_classes


class StackedKeys:
    """The few keys of several exact indexes: one operation for all of them takes hardly longer than for one.

    Parameters
    ----------
    indices : sequence of ExactIndex
        Of one support set, each in a metric of its own.
    betas : sequence of float
        Sharpness in each.
    """

    def __init__(self, indices: Sequence[ExactIndex], betas: Sequence[float]) -> None:
        pairs = list(zip(indices, betas, strict=True))
        self.n_classes, self.max_entries = indices[0].n_classes, indices[0].config.tile_entries
        self.keys = torch.stack([beta * index.unit.T for index, beta in pairs])
        self.offsets = torch.stack([index.log_weights - beta for index, beta in pairs])[:, None]

    @classmethod
    def of(cls, indices: Sequence[KeyIndex], betas: Sequence[float]) -> StackedKeys | None:
        """The stacked keys of some indexes, or None where they are not few, or not summed over an axis."""
        exact = [index for index in indices if isinstance(index, ExactIndex) and index.is_whole]
        entries = sum(index.unit.numel() for index in exact)
        return cls(exact, betas) if len(exact) == len(indices) and entries <= exact[0].config.stacked_entries else None

    def takes(self, n_queries: int) -> bool:
        """Tell whether the cosines of so many queries are few enough to be made at once."""
        return n_queries * self.offsets.numel() <= self.max_entries

    def evidence(self, queries: Tensor) -> Tensor:
        """Sum ``Σ v exp(β (cos − 1))`` (M, n, C) of unit queries (M, n, R) over the keys of each class."""
        exponents = torch.baddbmm(self.offsets, queries, self.keys)
        return exponents.exp_().unflatten(2, (-1, self.n_classes)).sum(2)
