"""Bounded retrieval: read only the clusters of keys that can still change an answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from skxma import functional as F
from skxma._index.clusters import KeyCells
from skxma._index.exact import BLOCK_ROWS, DEVIATIONS, MIN_SAMPLE, N_NEAR, SAMPLED, TOLERANCE, Combine, Keys, Map, tiles


def must_read(low: Tensor, high: Tensor, tolerance: float, certain_is_enough: bool = True) -> Tensor:
    """Which classes (n, C) must be read so that no probability is off by more than a tolerance.

    Whatever logits between the limits the others have, the probabilities are within `tolerance` of those of the true
    logits, if these lie between the limits too.

    Let u_c be the largest probability that class c can have: its logit at the upper limit, all others at the lower.
    Unread are the classes of the smallest u whose sum is within the tolerance. They are off by no more than that sum.
    A class that is read has the probability ``r (1 − U)``, r its share among those read and U ≤ tolerance the
    probability of the unread, so it is off by no more either. Where one class alone is left, its probability is
    ``1 − U`` without being read.

    Parameters
    ----------
    low, high : Tensor of shape (n, C)
        Limits of the logits.
    tolerance : float
    certain_is_enough : bool
        False has the only possible class read too, for its logit's sake.
    """
    total = torch.logsumexp(low, 1, keepdim=True)
    others = total + torch.log1p(-torch.exp(low - total).clamp_max(1.0))
    largest = torch.sigmoid(high - others)
    ascending, order = largest.sort(dim=1)
    needed = torch.zeros_like(largest, dtype=torch.bool)
    needed.scatter_(1, order, ascending.cumsum(1) > tolerance)
    return needed & (needed.sum(1, keepdim=True) > 1) if certain_is_enough else needed


class CelledKeys(Keys):
    """Keys of which only those are read that can still change the answer.

    Parameters
    ----------
    unit : Tensor of shape (N, R), L2-normalised
        In the order of the cells, as labels and weights.
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (N,)
    n_classes : int
    cells : KeyCells
    """

    def __init__(self, unit: Tensor, labels: Tensor, weights: Tensor, n_classes: int, cells: KeyCells) -> None:
        super().__init__(unit, labels, weights, n_classes)
        device = unit.device
        self.position = torch.as_tensor(np.argsort(cells.order), device=device)
        self.starts = cells.starts.tolist()
        self.sizes = torch.as_tensor(np.diff(cells.starts), device=device)
        self.n_cells = len(self.sizes)
        self.class_of_cell = labels[torch.as_tensor(cells.starts[:-1], device=device)]
        n_keys = torch.bincount(labels, minlength=n_classes)
        self.class_starts = [0, *torch.cumsum(n_keys, 0).tolist()]
        cell_of_key = torch.repeat_interleave(torch.arange(self.n_cells, device=device), self.sizes)
        self.centres = F.normalise(unit.new_zeros(self.n_cells, unit.shape[1]).index_add_(0, cell_of_key, unit))
        every = (n_keys // MIN_SAMPLE).clamp(1, SAMPLED)[labels]
        place = torch.arange(len(labels), device=device) - torch.tensor(self.class_starts, device=device)[labels]
        sampled = place % every == every // 2
        self.sample = Keys(unit[sampled], cell_of_key[sampled], weights[sampled], self.n_cells)
        self.sampled_of_cell = torch.bincount(self.sample.labels, minlength=self.n_cells)
        self.largest_weight = float(weights.max())

    def cosines(self, queries: Tensor) -> Tensor:
        """Cosines (n, N) of unit queries (n, R) to all keys, in the order of the cache."""
        return super().cosines(queries)[:, self.position]

    def enough_evidence(
        self, queries: Tensor, beta: float, combine: Sequence[Combine], certain_is_enough: bool = True
    ) -> Tensor:
        """Evidence (n, C) near enough for some purposes, exact for classes that matter to them.

        Parameters
        ----------
        queries : Tensor of shape (n, R), L2-normalised
        beta : float
        combine : sequence of callable
            From evidence to logits, each a purpose: its probabilities will be within `TOLERANCE`.
        certain_is_enough : bool
            See :func:`must_read`.
        """
        estimate, doubt = self.estimate(queries, beta)
        low, high = (estimate - DEVIATIONS * doubt).clamp_min(0), estimate + DEVIATIONS * doubt
        read = torch.zeros_like(estimate, dtype=torch.bool)
        for logits in combine:
            read |= must_read(logits(low), logits(high), TOLERANCE, certain_is_enough)
        read &= doubt > 0
        for c in read.any(0).nonzero()[:, 0].tolist():
            rows = read[:, c].nonzero()[:, 0]
            estimate[rows, c] = self._sum(queries[rows], self.class_starts[c], self.class_starts[c + 1], beta)
        return estimate

    def estimate(self, queries: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        """Evidence by the nearest cells and a share of all others, and its standard error; both (n, C)."""
        near = (queries @ self.centres.T).topk(min(N_NEAR, self.n_cells), dim=1).indices
        is_near = torch.zeros(len(queries), self.n_cells, dtype=torch.bool, device=queries.device)
        is_near.scatter_(1, near, True)
        total, squares = self._sample_sums(queries, beta)
        total, squares = (sums.masked_fill_(is_near, 0.0) for sums in (total, squares))
        # a key as near as the nearest that was sampled may have been missed in any class
        missed = squares.amax(1, keepdim=True).sqrt()
        total, squares = self._by_class(total), self._by_class(squares)
        away = ~is_near
        n_read, n_left = (self._by_class(away * n.to(queries)) for n in (self.sampled_of_cell, self.sizes))
        mean = total / n_read.clamp_min(1)
        variance = (squares / n_read.clamp_min(1) - mean**2).clamp_min(0)
        error = n_left * ((1 - n_read / n_left.clamp_min(1)) * variance / n_read.clamp_min(1)).sqrt()
        # of keys from which none was read it is known only that no cosine is above 1
        error = torch.where(n_left > n_read, error + missed, 0.0)
        error = torch.where((n_read == 0) & (n_left > 0), n_left * self.largest_weight, error)
        return n_left * mean + self._near_sums(queries, near, beta), error

    def _by_class(self, of_cells: Tensor) -> Tensor:
        """Sums (n, C) of what belongs to the cells (n, J) of each class."""
        return F.sum_by_class(of_cells, self.class_of_cell, self.n_classes)

    def _sample_sums(self, queries: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        """Sums, and sums of squares, of the contributions of each cell's sampled keys; both (n, J)."""
        total, squares = queries.new_zeros(2, len(queries), self.n_cells)
        for tile in tiles(0, len(self.sample.unit), len(queries)):
            contributions = self.sample._contributions(queries, tile, beta)
            # these are the keys of a few neighbouring cells
            cells = self.sample.labels[tile]
            first, last = int(cells[0]), int(cells[-1])
            some, n_some = slice(first, last + 1), last - first + 1
            total[:, some] += F.sum_by_class(contributions, cells - first, n_some)
            squares[:, some] += F.sum_by_class(contributions.square_(), cells - first, n_some)
        return total, squares

    def _near_sums(self, queries: Tensor, near: Tensor, beta: float) -> Tensor:
        """Evidence (n, C) of all keys in the cells `near` (n, P) each query."""
        found = queries.new_zeros(len(queries), self.n_classes)
        cells, order = near.flatten().sort(stable=True)
        rows = order // near.shape[1]
        present, counts = cells.unique_consecutive(return_counts=True)
        classes = self.class_of_cell[present].tolist()
        for j, c, some in zip(present.tolist(), classes, rows.split(counts.tolist()), strict=True):
            found[some, c] += self._sum(queries[some], self.starts[j], self.starts[j + 1], beta)
        return found

    def _sum(self, queries: Tensor, start: int, stop: int, beta: float) -> Tensor:
        """Evidence (n,) of a run of keys."""
        found = queries.new_zeros(len(queries))
        for tile in tiles(start, stop, len(queries)):
            found += self._contributions(queries, tile, beta).sum(1)
        return found


def ready_keys(
    keys: Tensor, labels: Tensor, weights: Tensor, n_classes: int, cells: KeyCells | None, metric: Map = F.normalise
) -> Keys:
    """Keys (N, D) in a metric, ready to answer; of those in cells no more are read than needed."""
    order = None if cells is None else torch.as_tensor(cells.order, device=keys.device)
    unit = torch.empty_like(keys)
    for start in range(0, len(keys), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        unit[block] = F.normalise(metric(keys[block if order is None else order[block]]))
    if order is None or cells is None:
        return Keys(unit, labels, weights, n_classes)
    return CelledKeys(unit, labels[order], weights[order], n_classes, cells)
