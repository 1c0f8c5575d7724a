"""Content keys: identify an image by its pixels, and a file by its version on disk."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from skxma.errors import ImageError
from skxma.images._reading import _explain, load_image
from skxma.images._rgb import Rescaling
from skxma.images._sources import ImageLike, is_file, is_path, path_of, plain, read_file
from skxma.images._validation import _place, find_problem

FileVersion: TypeAlias = tuple[str, int, int, int, int]
SETTLED_NS = 2 * 10**9


def file_version(item: ImageLike) -> FileVersion | None:
    """Tell one state of a file from another without reading it; None for what is no file or was changed just now.

    Parameters
    ----------
    item : image
        As in `check_images`.

    Returns
    -------
    version : tuple of path, device, inode, size and time of the last change, or None
        A file that is younger than the clock's coarsest tick could change again and look the same.
    """
    item = plain(item)
    if not is_path(item):
        return None
    try:
        found = Path(item).stat()
    except OSError:
        return None
    if time.time_ns() - found.st_mtime_ns < SETTLED_NS:
        return None
    return str(Path(item).absolute()), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def content_key(item: ImageLike, index: int | None = None, rescale_16bit: Rescaling = "dtype") -> bytes:
    """Digest the content of an image, so that equal images share their embedding wherever they lie.

    Parameters
    ----------
    item : image
        As in `check_images`; it must pass `find_problem`.
    index : int, optional
        Its position in what the user gave, for the error's message.
    rescale_16bit : {"dtype", "range"} or int, default="dtype"
        As in `load_image`; two images of 16 bits may look the same by one way and not by another.

    Returns
    -------
    key : bytes of length 32
        For a file, its path or its content the digest of its bytes; for a PIL image or an array that of its size and
        RGB pixels.

    Raises
    ------
    ImageError
        If the item can't be read.
    """
    source, path = plain(item), path_of(item)
    if isinstance(source, (Image.Image, np.ndarray)):
        image = load_image(item, index, rescale_16bit=rescale_16bit)
        digest = _blake2b()
        digest.update(f"{image.mode}{image.size}".encode())
        digest.update(image.tobytes())
        return digest.digest()
    try:
        if not is_path(source):
            digest = _blake2b()
            digest.update(read_file(source) if is_file(source) else source)
            return digest.digest()
        with Path(source).open("rb") as file:
            return hashlib.file_digest(file, _blake2b).digest()
    except (OSError, ValueError, TypeError) as error:
        problem = find_problem(item) or _explain(error, source)
        raise ImageError(f"{_place(index, path)}: {problem}", index=index, path=path, reason=problem) from error


def _blake2b() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=32)
