"""Encoding on more than one machine, with Dask."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skxma._runtime.optional import require
from skxma.images._validation import as_items

__all__ = ["dask_embeddings"]

PARTITION = 256


def dask_embeddings(encoder: Any, images: Any, *, partition_size: int = PARTITION) -> Any:
    """Embeddings of images as a Dask array: one task a partition, one loaded model a worker process.

    Nothing is computed until it is asked for, by ``compute()``, ``to_zarr()`` and the like. With an encoder whose
    `memory` is a folder that the workers share, what a worker had encoded before it was lost is not encoded again.

    Parameters
    ----------
    encoder : CLIPEncoder, or any picklable object with ``encode_image`` and ``n_features``
    images : sequence of images as in `CLIPEncoder`; dask.bag.Bag, dask.dataframe.Series or dask.array.Array of paths
        A collection of Dask keeps its own partitions. Paths must mean the same on every worker.
    partition_size : int, default=256
        Images of a task, of a sequence.

    Returns
    -------
    embeddings : dask.array.Array of shape (n_images, n_features), float32
        The number of rows is unknown to Dask where `images` is a bag or a series.

    Raises
    ------
    ImportError
        Dask is not installed.
    ValueError
        The partition size is no integer of at least 1, there are no images, or the array has several columns.
    TypeError
        The encoder is none, or does not tell its `n_features`.
    skxma.errors.ImageError
        `images` is no collection of images.
    """
    da, db, delayed = (
        require(f"dask.{name}", what="dask_embeddings", extra="dask") for name in ("array", "bag", "delayed")
    )
    if not isinstance(partition_size, Integral) or partition_size < 1:
        raise ValueError(f"partition_size={partition_size!r} must be an integer of at least 1.")
    if not hasattr(encoder, "encode_image") or not hasattr(encoder, "n_features"):
        raise TypeError(
            f"encoder={encoder!r:.80} has no encode_image with n_features; pass an encoder, such as "
            "CLIPEncoder('ViT-B-32/laion2b_s34b_b79k')."
        )
    if isinstance(images, db.Bag) or hasattr(images, "to_dask_array"):
        parts, lengths = images.to_delayed(), [float("nan")] * images.npartitions
    elif isinstance(images, da.Array):
        if images.ndim > 1 and images.shape[1:] != (1,):
            raise ValueError(
                f"images is a Dask array of {images.dtype} of shape {images.shape}; expected one of paths of shape "
                "(n_images,). Pass pixels as a dask.bag of arrays."
            )
        parts, lengths = images.ravel().to_delayed().tolist(), list(images.ravel().chunks[0])
    else:
        items = as_items(images)
        pieces = [items[start : start + partition_size] for start in range(0, len(items), partition_size)]
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
    items = images if hasattr(images, "to_numpy") else list(images)
    return np.asarray(encoder.encode_image(items), dtype=np.float32)
