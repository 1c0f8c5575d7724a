"""Bounded retrieval: read in full only the classes whose evidence can still change a probability.

The evidence of a class is a sum ``Σ v exp(β (cos − 1))`` of many small terms and a few large ones. Clusters of keys
nearest to the query hold the large terms and are read in full, as in an inverted file. Of all other clusters a sample
of the keys is read, which bounds the rest of the sum. From these bounds :func:`classes_to_score` chooses the classes
that are read in full; the others cannot move any probability by more than a tolerance, wherever the bounds hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from skxma import functional as F
from skxma._evidence.index.clusters import KeyClusters
from skxma._evidence.index.config import IndexConfig
from skxma._evidence.index.exact import Combine, ExactIndex, KeyIndex
from skxma._runtime import blocks


def classes_to_score(low: Tensor, high: Tensor, tolerance: float, skip_if_certain: bool = True) -> Tensor:
    """Choose the classes that must be read so that no probability is off by more than a tolerance.

    The guarantee holds whatever logits between their limits the other classes are given, if the true logits lie
    between the limits too.

    Let u_c be the largest probability that class c can have: its logit at the upper limit, all others at the lower.
    The classes of the smallest u whose sum is within the tolerance stay unread. They are off by no more than that sum.
    A class that is read has the probability ``r (1 − U)``, r its share among those read and U ≤ tolerance the
    probability of the unread, so it is off by no more either. Where one class alone is left, its probability is
    ``1 − U`` without being read.

    Parameters
    ----------
    low, high : Tensor of shape (n, C)
        Limits of the logits.
    tolerance : float
    skip_if_certain : bool
        False reads the only possible class too, because its logit is wanted and not only its probability.

    Returns
    -------
    bool Tensor of shape (n, C)
    """
    total = torch.logsumexp(low, 1, keepdim=True)
    others = total + torch.log1p(-torch.exp(low - total).clamp_max(1.0))
    largest = torch.sigmoid(high - others)
    ascending, order = largest.sort(dim=1)
    needed = torch.zeros_like(largest, dtype=torch.bool)
    needed.scatter_(1, order, ascending.cumsum(1) > tolerance)
    return needed & (needed.sum(1, keepdim=True) > 1) if skip_if_certain else needed


class ClusteredIndex(KeyIndex):
    """Clustered keys, of which a query reads only those that can still change the answer.

    Parameters
    ----------
    unit : Tensor of shape (N, R), L2-normalized
        In the order of the clusters, as labels and weights.
    labels : integer Tensor of shape (N,)
    weights : Tensor of shape (N,)
    n_classes : int
    clusters : KeyClusters
    config : IndexConfig, optional
    """

    def __init__(
        self,
        unit: Tensor,
        labels: Tensor,
        weights: Tensor,
        n_classes: int,
        clusters: KeyClusters,
        config: IndexConfig | None = None,
    ) -> None:
        super().__init__(unit, labels, weights, n_classes, config)
        device = unit.device
        self.position = torch.as_tensor(np.argsort(clusters.order), device=device)
        self.starts = clusters.starts.tolist()
        self.sizes = torch.as_tensor(np.diff(clusters.starts), device=device)
        self.n_clusters = len(self.sizes)
        self.class_of_cluster = labels[torch.as_tensor(clusters.starts[:-1], device=device)]
        n_keys = torch.bincount(labels, minlength=n_classes)
        self.class_starts = [0, *torch.cumsum(n_keys, 0).tolist()]
        cluster_of_key = torch.repeat_interleave(torch.arange(self.n_clusters, device=device), self.sizes)
        self.centers = F.normalize(unit.new_zeros(self.n_clusters, unit.shape[1]).index_add_(0, cluster_of_key, unit))
        every = (n_keys // self.config.min_sample).clamp(1, self.config.sample_every)[labels]
        place = torch.arange(len(labels), device=device) - torch.tensor(self.class_starts, device=device)[labels]
        # keys of a cluster are neighbors in this order, so a systematic sample is spread over all clusters
        sampled = place % every == every // 2
        self.sample = KeyIndex(unit[sampled], cluster_of_key[sampled], weights[sampled], self.n_clusters, self.config)
        self.sample_sizes = torch.bincount(self.sample.labels, minlength=self.n_clusters)
        self.largest_weight = float(weights.max())

    def evidence(self, queries: Tensor, beta: float) -> Tensor:
        """Sum ``Σ v exp(β (cos − 1))`` (n, C) over all keys of each class."""
        if torch.compiler.is_compiling():
            return super().evidence(queries, beta)
        runs = zip(self.class_starts, self.class_starts[1:], strict=False)
        return torch.stack([self._sum(queries, start, stop, beta) for start, stop in runs], dim=1)

    def bounded_evidence(
        self, queries: Tensor, beta: float, combine: Sequence[Combine], skip_if_certain: bool = True
    ) -> Tensor:
        """Evidence (n, C): exact for the classes that can change a probability, estimated for the others.

        Parameters
        ----------
        queries : Tensor of shape (n, R), L2-normalized
        beta : float
        combine : sequence of callable
            From evidence to logits. The softmax of each of these is within `IndexConfig.tolerance` of the exact one.
        skip_if_certain : bool
            See :func:`classes_to_score`.
        """
        if torch.compiler.is_compiling():
            return self.evidence(queries, beta)
        evidence, error = self.estimate(queries, beta)
        margin = self.config.n_standard_errors * error
        low, high = (evidence - margin).clamp_min(0), evidence + margin
        read = torch.zeros_like(evidence, dtype=torch.bool)
        for logits in combine:
            read |= classes_to_score(logits(low), logits(high), self.config.tolerance, skip_if_certain)
        read &= error > 0
        for c in read.any(0).nonzero()[:, 0].tolist():
            rows = read[:, c].nonzero()[:, 0]
            evidence[rows, c] = self._sum(queries[rows], self.class_starts[c], self.class_starts[c + 1], beta)
        return evidence

    def estimate(self, queries: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        """Estimate the evidence from the nearest clusters and a sample of all others.

        Returns
        -------
        evidence, standard_error : Tensor of shape (n, C)
        """
        near = (queries @ self.centers.T).topk(min(self.config.n_probes, self.n_clusters), dim=1).indices
        is_near = torch.zeros(len(queries), self.n_clusters, dtype=torch.bool, device=queries.device)
        is_near.scatter_(1, near, True)
        total, squares = self._sample_sums(queries, beta)
        total, squares = (sums.masked_fill_(is_near, 0.0) for sums in (total, squares))
        # a key as near as the nearest that was sampled may have been missed in any class
        missed = squares.amax(1, keepdim=True).sqrt()
        total, squares = self._by_class(total), self._by_class(squares)
        away = ~is_near
        n_read, n_left = (self._by_class(away * n.to(queries)) for n in (self.sample_sizes, self.sizes))
        mean = total / n_read.clamp_min(1)
        variance = (squares / n_read.clamp_min(1) - mean**2).clamp_min(0)
        # standard error of a total of n_left from a sample of n_read without replacement
        error = n_left * ((1 - n_read / n_left.clamp_min(1)) * variance / n_read.clamp_min(1)).sqrt()
        error = torch.where(n_left > n_read, error + missed, 0.0)
        # of keys from which none was read it is known only that no cosine is above 1
        error = torch.where((n_read == 0) & (n_left > 0), n_left * self.largest_weight, error)
        return n_left * mean + self._near_sums(queries, near, beta), error

    def _by_class(self, cluster_values: Tensor) -> Tensor:
        """Sum values (n, J) over the clusters of each class, giving (n, C)."""
        return F.sum_by_class(cluster_values, self.class_of_cluster, self.n_classes)

    def _sample_sums(self, queries: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        """Sums and sums of squares (n, J) of the contributions of each cluster's sampled keys."""
        total, squares = queries.new_zeros(2, len(queries), self.n_clusters)
        for tile in self._tiles(0, len(self.sample.unit), len(queries)):
            contributions = self.sample._contributions(queries, tile, beta)
            # the keys of a tile are those of a few neighboring clusters
            clusters = self.sample.labels[tile]
            first, last = int(clusters[0]), int(clusters[-1])
            columns, n_columns = slice(first, last + 1), last - first + 1
            total[:, columns] += F.sum_by_class(contributions, clusters - first, n_columns)
            squares[:, columns] += F.sum_by_class(contributions.square_(), clusters - first, n_columns)
        return total, squares

    def _near_sums(self, queries: Tensor, near: Tensor, beta: float) -> Tensor:
        """Evidence (n, C) of all keys in the clusters `near` (n, P) each query."""
        total = queries.new_zeros(len(queries), self.n_classes)
        # cluster by cluster, so that each is read once for all queries that are near it
        clusters, order = near.flatten().sort(stable=True)
        rows = order // near.shape[1]
        present, counts = clusters.unique_consecutive(return_counts=True)
        classes = self.class_of_cluster[present].tolist()
        for j, c, some in zip(present.tolist(), classes, rows.split(counts.tolist()), strict=True):
            total[some, c] += self._sum(queries[some], self.starts[j], self.starts[j + 1], beta)
        return total

    def _sum(self, queries: Tensor, start: int, stop: int, beta: float) -> Tensor:
        """Evidence (n,) of a run of keys."""
        total = queries.new_zeros(len(queries))
        for tile in self._tiles(start, stop, len(queries)):
            total += self._contributions(queries, tile, beta).sum(1)
        return total


def build_index(
    keys: Tensor,
    labels: Tensor,
    weights: Tensor,
    n_classes: int,
    clusters: KeyClusters | None,
    metric: Callable[[Tensor], Tensor] = F.normalize,
) -> ExactIndex | ClusteredIndex:
    """Build an index of keys (N, D) mapped by a metric: an exact one, or with clusters a bounded one."""
    order = None if clusters is None else torch.as_tensor(clusters.order, device=keys.device)
    unit = torch.empty_like(keys)
    for block in blocks.slices(len(keys), blocks.KEY_ROWS):
        unit[block] = F.normalize(metric(keys[block if order is None else order[block]]))
    if order is None or clusters is None:
        return ExactIndex(unit, labels, weights, n_classes)
    return ClusteredIndex(unit, labels[order], weights[order], n_classes, clusters)
