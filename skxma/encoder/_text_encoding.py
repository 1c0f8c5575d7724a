"""Batches of prompts for text embeddings."""

from __future__ import annotations

from collections.abc import Iterator


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
