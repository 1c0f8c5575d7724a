"""Content keys: identify an image by its pixels, and a file by its version on disk."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TypeAlias

from skxma.errors import ImageError
from skxma.images._reading import _explain, load_image
from skxma.images._validation import ImageLike, _place, find_problem, path_of

FileVersion: TypeAlias = tuple[str, int, int, int, int]
SETTLED_NS = 2 * 10**9


def file_version(item: ImageLike) -> FileVersion | None:
    """Tell one state of a file from another without reading it; None for what is no file or was changed just now.

    Parameters
    ----------
    item : str, path-like, PIL image or uint8 array

    Returns
    -------
    version : tuple of path, device, inode, size and time of the last change, or None
        A file that is younger than the clock's coarsest tick could change again and look the same.
    """
    if not isinstance(item, (str, os.PathLike)):
        return None
    try:
        found = Path(item).stat()
    except OSError:
        return None
    if time.time_ns() - found.st_mtime_ns < SETTLED_NS:
        return None
    return str(Path(item).absolute()), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def content_key(item: ImageLike, index: int | None = None) -> bytes:
    """Digest what a picture is made of, so that equal pictures share their embedding wherever they lie.

    Parameters
    ----------
    item : str, path-like, PIL image or uint8 array
        The picture; it must pass `find_problem`.
    index : int, optional
        Its position in what the user gave, for the error's message.

    Returns
    -------
    key : bytes of length 32
        For a path the digest of the file's bytes; for a PIL image or an array that of its size and RGB pixels.

    Raises
    ------
    ImageError
        If the item can't be read.
    """
    if isinstance(item, (str, os.PathLike)):
        path = path_of(item)
        try:
            with Path(item).open("rb") as file:
                return hashlib.file_digest(file, _digest).digest()
        except OSError as error:
            problem = find_problem(item) or _explain(error, path)
            raise ImageError(f"{_place(index, path)}: {problem}", index=index, path=path, reason=problem) from error
    image = load_image(item, index)
    digest = _digest()
    digest.update(f"{image.mode}{image.size}".encode())
    digest.update(image.tobytes())
    return digest.digest()


def _digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=32)
