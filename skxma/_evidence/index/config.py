"""Limits of the approximate retrieval."""

from __future__ import annotations

from dataclasses import dataclass

from skxma._runtime import blocks


@dataclass(frozen=True)
class IndexConfig:
    """Settings of :class:`~skxma._evidence.index.clustered.ClusteredIndex` (docs/method.md, "Very many images").

    They trade keys read for classes read in full, never accuracy on a data set: ``benchmarks/many_keys.py`` prints what
    they gain and the largest probability error that they cause.
    """

    tolerance: float = 0.01
    """Largest probability error that leaving classes unread may cause, where the evidence lies within its limits."""

    n_standard_errors: float = 6.0
    """Half-width of these limits, in standard errors of the sampled sums."""

    cluster_size: int = 128
    """Keys per cluster, about."""

    n_probes: int = 32
    """Clusters nearest to a query that are read in full."""

    sample_every: int = 16
    """One in so many keys of all other clusters is read ..."""

    min_sample: int = 64
    """... but at least so many per class."""

    kmeans_iterations: int = 4
    """Iterations of spherical k-means; clusters need not be optimal, only compact."""

    points_per_center: int = 64
    """Keys per center from which k-means learns."""

    max_sharpness: float = 2.5
    """Largest ``β σ`` for which a sample of keys tells about the others; learned values lie near 2. Where β is sharper
    single keys decide, and all are read."""

    sharpness_sample: int = 2**14
    """Keys from which σ is estimated for that test."""

    block_classes: int = 1024
    """Classes of about as many keys that are summed at once, at most."""

    padding: float = 0.1
    """Share of keys of weight 0 by which their numbers of keys may be made equal."""

    stacked_entries: int = 2**20
    """Entries of the keys in all metrics up to which they are kept a second time, as one array."""

    few_queries: int = 16
    """Queries up to which several threads share the keys: a product of so few rows does not share its columns."""

    n_parts: int = 8
    """Parts of the keys among which the threads choose then; 4 to 16 took equally long on two threads."""

    tile_entries: int = blocks.TILE_ENTRIES
    tile_rows: int = blocks.TILE_ROWS
