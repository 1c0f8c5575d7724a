"""The forms in which an image comes: path, content, open file, record of a data set, PIL image, array, tensor."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ImageRecord: TypeAlias = Mapping[str, Any]
ImageLike: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO | ImageRecord | Image.Image | NDArray[np.uint8]

CHANNELS = (1, 3, 4)
_RECORD_KEYS = {"bytes", "path"}
# An open file has one position, which threads would move under each other.
_reading = threading.Lock()


def _renew_reading_lock() -> None:
    global _reading
    _reading = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_reading_lock)


def is_path(item: object) -> TypeGuard[str | os.PathLike[str]]:
    """Tell whether an item is a path."""
    return isinstance(item, (str, os.PathLike))


def is_content(item: object) -> TypeGuard[bytes | bytearray | memoryview]:
    """Tell whether an item is the content of an image file."""
    return isinstance(item, (bytes, bytearray, memoryview))


def is_file(item: object) -> bool:
    """Tell whether an item is an open file, or an object that reads like one."""
    # a path of py.path, or of a cloud, can be read as well
    is_other = is_path(item) or isinstance(item, (Image.Image, np.ndarray))
    return not is_other and callable(getattr(item, "read", None))


def is_record(item: object) -> TypeGuard[ImageRecord]:
    """Tell whether an item is an image as Hugging Face's data sets hold it: ``{"bytes": ..., "path": ...}``."""
    return isinstance(item, Mapping) and bool(item) and set(item) <= _RECORD_KEYS


def is_tensor(item: object) -> bool:
    """Tell whether an item is a torch tensor; this module does not import torch."""
    return any(base.__module__ == "torch" and base.__name__ == "Tensor" for base in type(item).__mro__)


def plain(item: Any) -> Any:
    """Return the path, content, open file, PIL image or array that an item stands for.

    Parameters
    ----------
    item : object
        A record gives its bytes, or else its path; a tensor gives an array with its channels last; a readable buffer
        gives bytes; everything else is returned as it is.

    Returns
    -------
    item : object
    """
    if is_record(item):
        content = item.get("bytes")
        item = item.get("path") if content is None else content
    if isinstance(item, (bytearray, memoryview)):
        return bytes(item)
    return tensor_as_array(item) if is_tensor(item) else item


def tensor_as_array(tensor: Any, n_extra: int = 0) -> NDArray[Any]:
    """Return a tensor as an array on the CPU, with its channels last.

    Parameters
    ----------
    tensor : torch.Tensor of shape (height, width), (channels, height, width) or (height, width, channels)
        With `n_extra` more dimensions in front. Where both ends could be the channels, the first are taken, as torch
        has it.
    n_extra : int, default=0
        1 for a batch.

    Returns
    -------
    array : ndarray
        A view of the tensor's memory where it lies on the CPU.
    """
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    first = array.ndim == n_extra + 3 and array.shape[n_extra] in CHANNELS
    return np.moveaxis(array, n_extra, -1) if first else array


def read_file(file: Any) -> bytes:
    """Return the whole content of an open file, and put its position back where it was.

    Parameters
    ----------
    file : binary file
        It must be seekable; it is read from its start.

    Returns
    -------
    content : bytes
    """
    with _reading:
        position = file.tell()
        file.seek(0)
        try:
            return bytes(file.read())
        finally:
            file.seek(position)


def is_text_file(file: Any) -> bool:
    """Tell whether an open file gives str, not bytes."""
    return isinstance(file, io.TextIOBase) or isinstance(getattr(file, "file", None), io.TextIOBase)


def can_rewind(file: Any) -> bool:
    """Tell whether a file can be read from its start once more."""
    seekable = getattr(file, "seekable", None)
    return bool(seekable()) if callable(seekable) else hasattr(file, "seek") and hasattr(file, "tell")


def path_of(item: object) -> str | None:
    """Return the path of an item that has one.

    Parameters
    ----------
    item : object
        A path, a record, an open file, a PIL image that was opened from a file, or anything else.

    Returns
    -------
    path : str or None
        As the user gave it.
    """
    if is_record(item):
        item = item.get("path")
    elif isinstance(item, Image.Image):
        item = getattr(item, "filename", None)
    elif is_file(item):
        item = getattr(item, "name", None)
    return os.fsdecode(item) or None if is_path(item) else None
