"""Encoding on more than one machine, with Dask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skxma._runtime.optional import require

__all__ = ["dask_embeddings"]

PARTITION = 256


def dask_embeddings(encoder: Any, images: Any, *, partition_size: int = PARTITION) -> Any:
    """Embeddings of images as a Dask array: one task a partition, one loaded model a worker process.

    Nothing is computed until it is asked for, by ``compute()``, ``to_zarr()`` and the like. With an encoder whose
    `memory` is a folder that the workers share, what a worker had encoded before it was lost is not encoded again.

    Parameters
    ----------
    encoder : CLIPEncoder, or any picklable object with ``encode_image``
    images : sequence of paths, PIL images or uint8 arrays; dask.bag.Bag; or dask.array.Array of paths
        A bag or array keeps its own partitions. Paths must mean the same on every worker.
    partition_size : int, default=256
        Images of a task, of a sequence.

    Returns
    -------
    embeddings : dask.array.Array of shape (n_images, n_features), float32
        The number of rows is unknown to Dask where `images` is a bag.

    Raises
    ------
    ImportError
        Dask is not installed.
    ValueError
        The partition size is less than 1, or there are no images.
    """
    da, db, delayed = (
        require(f"dask.{name}", what="dask_embeddings", extra="dask") for name in ("array", "bag", "delayed")
    )
    if partition_size < 1:
        raise ValueError(f"partition_size must be at least 1, got {partition_size}.")
    if isinstance(images, db.Bag):
        parts, lengths = images.to_delayed(), [float("nan")] * images.npartitions
    elif isinstance(images, da.Array):
        parts, lengths = images.ravel().to_delayed().tolist(), list(images.ravel().chunks[0])
    else:
        pieces = [images[start : start + partition_size] for start in range(0, len(images), partition_size)]
        parts, lengths = pieces, [len(piece) for piece in pieces]
    if not parts:
        raise ValueError("there are no images to encode.")
    encode, width = delayed.delayed(_encode_part, pure=True), encoder.n_features
    blocks = [
        da.from_delayed(encode(encoder, part), shape=(length, width), dtype=np.float32)
        for part, length in zip(parts, lengths, strict=True)
    ]
    return da.concatenate(blocks, axis=0, allow_unknown_chunksizes=True)


def _encode_part(encoder: Any, images: Sequence[Any]) -> NDArray[np.float32]:
    """Plain rows, which join to a plain array."""
    return np.asarray(encoder.encode_image(list(images)), dtype=np.float32)
