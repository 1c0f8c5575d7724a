"""Sizes of the blocks in which large arrays are computed, so that memory does not grow with the support set.

No answer depends on them, except through the order in which floating-point numbers are added. Sizes from which on the
method itself changes (a subsample, one metric instead of several) are fields of the configurations instead.
"""

from __future__ import annotations

from collections.abc import Iterator

SCORE_ENTRIES = 2**22
"""Entries of an (n, N) block of leave-one-out cosines: 16 MB in single precision. Much larger arrays go back to the
system and come anew, page by page, which takes as long as the arithmetic."""

CLASS_SUM_ROWS = 2**14
"""Samples whose one-hot rows (C, n) are multiplied at once for the class means."""

HELD_OUT_ROWS = 2**12
"""Samples that are left out, or predicted, at once where the fit has learned its weights on others."""

POOL_ENTRIES = 2**22
"""Entries of a block of pool images times dimensions, classes or keys."""

KEY_ROWS = 2**14
"""Keys that are mapped by a metric at once when an index is built."""

TILE_ENTRIES = 2**21
"""Cosines of a tile of queries and keys: 8 MB in single precision, which stay in the processor's cache."""

LIKELIHOOD_ENTRIES = 2**20
"""Weighted scores of samples whose likelihoods are computed at once: larger arrays take longer per entry."""

TILE_ROWS = 1024
"""Queries of a tile."""

BATCH_ENTRIES = 2**22
"""Scores of several metrics whose fusions are learned at once: more of them would not be faster together."""


def slices(n: int, size: int) -> Iterator[slice]:
    """Yield slices of `size`, of one at least, that together are n rows."""
    size = max(1, size)
    return (slice(start, start + size) for start in range(0, n, size))
