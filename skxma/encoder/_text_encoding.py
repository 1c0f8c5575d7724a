"""Batches of prompts and row normalization for text embeddings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def _chunks(keys: list[bytes], groups: dict[bytes, list[str]], batch_size: int) -> Iterator[list[bytes]]:
    """Split groups into runs of at least a batch of prompts, for the store to be filled on the way."""
    chunk: list[bytes] = []
    size = 0
    for key in keys:
        chunk.append(key)
        size += len(groups[key])
        if size >= batch_size:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _unit_rows(features: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)
