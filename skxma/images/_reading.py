"""Decode an image file, PIL image or array to RGB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from skxma.errors import ImageError
from skxma.images._rgb import to_rgb
from skxma.images._validation import ImageLike, _place, find_problem, path_of

# Pillow hands these to Ghostscript and to Windows
_PROGRAMS = {"EPS", "WMF"}


def load_image(item: ImageLike, index: int | None = None, enough: int | None = None) -> Image.Image:
    """Read one item as an upright RGB picture; the file is closed again.

    The EXIF orientation is applied before anything else, transparency is laid on white, and 16-bit greyscale is
    rescaled, so that what follows sees the picture that a viewer shows.

    Parameters
    ----------
    item : str, path-like, PIL image or uint8 array of shape (height, width[, 1, 3 or 4])
        The picture. A PIL image is left as it is; one that is not read yet is read from its file, so that a list of
        opened images does not fill the memory.
    index : int, optional
        Its position in what the user gave, for the error's message.
    enough : int, optional
        How many pixels of the short side are enough. A JPEG file is decoded at a half, a quarter or an eighth of its
        size where that leaves as many and divides both sides, which is several times as fast and, once resized, hardly
        another picture.

    Returns
    -------
    image : PIL.Image.Image of mode RGB
        A picture of its own: changing it does not change the item.

    Raises
    ------
    ImageError
        If the item can't be read as a picture.
    """
    problem = find_problem(item)
    if problem is None:
        try:
            return _read(item, enough)
        except MemoryError as error:
            place = _place(index, path_of(item))
            raise MemoryError(f"{place}: too large for the memory that is left; leave it out or shrink it") from error
        # Pillow's decoders raise OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error and more
        except Exception as error:
            problem = _explain(error, path_of(item))
    path = path_of(item)
    raise ImageError(f"{_place(index, path)}: {problem}", index=index, path=path, reason=problem)


def check_header(item: ImageLike, index: int | None = None) -> None:
    """Open a path far enough to know that it is a picture, without decoding its pixels.

    Parameters
    ----------
    item : str, path-like, PIL image or array
        The item; anything but a path passes.
    index : int, optional
        Its position in what the user gave.

    Raises
    ------
    ImageError
        If the path is no readable picture.
    """
    if not isinstance(item, (str, os.PathLike)):
        return
    problem = find_problem(item)
    if problem is None:
        try:
            with _open(item):
                return
        except Exception as error:
            problem = _explain(error, path_of(item))
    path = path_of(item)
    raise ImageError(f"{_place(index, path)}: {problem}", index=index, path=path, reason=problem)


def _explain(error: Exception, path: str | None) -> str:
    if isinstance(error, ImageError):
        return error.reason
    if path is not None and Path(path).is_file() and Path(path).stat().st_size == 0:
        return "the file is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a format that Pillow reads; leave it out, or convert it"
    if isinstance(error, Image.DecompressionBombError):
        return f"refused as a decompression bomb ({error}); if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS"
    if isinstance(error, PermissionError):
        return "no permission to read the file"
    return f"damaged or truncated ({type(error).__name__}: {error})"


def _read(item: ImageLike, enough: int | None) -> Image.Image:
    if isinstance(item, np.ndarray):
        array = item[..., 0] if item.ndim == 3 and item.shape[-1] == 1 else item
        return to_rgb(Image.fromarray(np.ascontiguousarray(array)))
    source = _unread_file(item) if isinstance(item, Image.Image) else item
    if source is None:
        return to_rgb(cast(Image.Image, item))
    with _open(source) as opened:
        if enough is not None:
            _draft(opened, enough)
        return to_rgb(opened)


def _draft(image: Image.Image, enough: int) -> None:
    """Have a JPEG decoded smaller; with a side that does not divide, all would lie half a pixel off."""
    for part in (8, 4, 2):
        if min(image.size) >= part * enough and not any(side % part for side in image.size):
            image.draft(None, (image.width // part, image.height // part))
            return


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open a file as a picture, refusing before any pixel is decoded what Pillow would hand to a program."""
    with Image.open(path) as image:
        if image.format in _PROGRAMS:
            raise ImageError(f"{image.format} is run by another program, not read; convert it, for instance to PNG")
        yield image


def _unread_file(image: Image.Image) -> str | None:
    """Return the file of an image that Pillow has opened but not decoded, else None."""
    path = path_of(image)
    # what is decoded lies in `im` before Pillow 11
    decoded = next((vars(image)[name] for name in ("_im", "im") if name in vars(image)), image)
    if path is None or decoded is not None or not Path(path).is_file():
        return None
    try:
        at_start = image.tell() == 0
    except Exception:  # closed already: the file's first picture is all that is left
        at_start = True
    return path if at_start else None
