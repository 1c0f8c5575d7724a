"""Decode an image to RGB, in whatever form it comes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from skxma.errors import ImageError
from skxma.images._other_kinds import N_FIRST, kind_by_start
from skxma.images._png import without_notes
from skxma.images._rgb import Rescaling, refuse_unknown_range, to_rgb
from skxma.images._sources import ImageLike, is_file, is_path, path_of, plain, read_file
from skxma.images._validation import _place, find_problem

T = TypeVar("T")

# Pillow hands these to Ghostscript and to Windows
_PROGRAMS = {"EPS", "WMF"}
_NOTE_LIMITS = ("MAX_TEXT_CHUNK", "MAX_TEXT_MEMORY")
_LONGEST_PATH = 1024


class EmptyFileError(Exception):
    """An open file that holds nothing."""


def load_image(
    item: ImageLike, index: int | None = None, min_short_side: int | None = None, rescale_16bit: Rescaling = "dtype"
) -> Image.Image:
    """Read one item as an upright RGB image; the file is closed again.

    The EXIF orientation is applied before anything else, transparency is laid on white, and 16-bit grayscale is
    rescaled, so that what follows sees the image that a viewer shows.

    Parameters
    ----------
    item : image
        As in `check_images`. A PIL image is left as it is; one that is not read yet is read from its file, so that a
        list of opened images does not fill the memory. An open file keeps its position.
    index : int, optional
        Its position in what the user gave, for the error's message.
    min_short_side : int, optional
        How many pixels of the short side are enough. A JPEG file is decoded at a half, a quarter or an eighth of its
        size where that leaves as many and divides both sides, which is several times as fast and, once resized, hardly
        another image.
    rescale_16bit : {"dtype", "range"} or int, default="dtype"
        What becomes white in an image of 16-bit gray values: 65535, its own brightest value (and its darkest black),
        or the largest value of that many bits.

    Returns
    -------
    image : PIL.Image.Image of mode RGB
        An image of its own: changing it does not change the item.

    Raises
    ------
    ImageError
        If the item can't be read as an image.
    """
    problem = find_problem(item)
    if problem is None:
        try:
            return _decode_rgb(plain(item), min_short_side, rescale_16bit)
        except MemoryError as error:
            place = _place(index, path_of(item))
            raise MemoryError(f"{place}: too large for the memory that is left; leave it out or shrink it") from error
        # Pillow's decoders raise OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error and more
        except Exception as error:
            problem = _explain(error, plain(item))
    path = path_of(item)
    raise ImageError(f"{_place(index, path)}: {problem}", index=index, path=path, reason=problem)


def check_header(item: ImageLike, index: int | None = None) -> None:
    """Open a file far enough to know that it is an image, without decoding its pixels.

    Parameters
    ----------
    item : image
        A path, a file's content, an open file or a record; a PIL image and an array pass as far as they can be read.
    index : int, optional
        Its position in what the user gave.

    Raises
    ------
    ImageError
        If the item is no readable image.
    """
    problem = find_problem(item)
    source = plain(item)
    if problem is None:
        try:
            if isinstance(source, Image.Image):
                refuse_unknown_range(source, from_file=source.format is not None)
            elif not isinstance(source, np.ndarray):
                _with_file(source, lambda opened: refuse_unknown_range(opened, from_file=True))
        except Exception as error:
            problem = _explain(error, source)
        if problem is None:
            return
    path = path_of(item)
    raise ImageError(f"{_place(index, path)}: {problem}", index=index, path=path, reason=problem)


def _explain(error: Exception, source: object) -> str:
    """Say in words what an error of reading means; `source` is a plain item."""
    if isinstance(error, ImageError):
        return error.reason
    if is_path(source) and Path(source).is_file() and Path(source).stat().st_size == 0:
        return "the file is empty (0 bytes)"
    if isinstance(error, EmptyFileError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        if (known := kind_by_start(_start_of(source))) is not None:
            kind, remedy = known
            return f"not an image in a format that Pillow reads, but {kind}; {remedy}"
        hint = "; a path must be a str: os.fsdecode(image)" if _may_be_path(source) else ""
        return f"not an image in a format that Pillow reads; leave it out, or convert it{hint}"
    if isinstance(error, Image.DecompressionBombError):
        size = str(error).partition(",")[0]
        return (
            f"refused as a decompression bomb ({size}); make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you "
            "trust it"
        )
    if isinstance(error, PermissionError):
        return "no permission to read the file"
    return f"damaged or truncated ({type(error).__name__}: {error})"


def _start_of(source: Any) -> bytes:
    """The first bytes of the file, as far as there is one."""
    if isinstance(source, bytes):
        return source[:N_FIRST]
    if is_file(source):
        return read_file(source)[:N_FIRST]
    path = path_of(source)
    if path is None:
        return b""
    with Path(path).open("rb") as file:
        return file.read(N_FIRST)


def _may_be_path(source: object) -> bool:
    """Return True if bytes that are no image read like a file name."""
    return isinstance(source, bytes) and len(source) < _LONGEST_PATH and os.fsdecode(source).isprintable()


def _decode_rgb(item: Any, min_short_side: int | None, rescale_16bit: Rescaling) -> Image.Image:
    if isinstance(item, np.ndarray):
        array = item[..., 0] if item.ndim == 3 and item.shape[-1] == 1 else item
        return to_rgb(Image.fromarray(np.ascontiguousarray(array)), rescale_16bit)
    source = _unread_file(item) if isinstance(item, Image.Image) else item
    if source is None:
        return to_rgb(item, rescale_16bit)

    def decode(opened: Image.Image) -> Image.Image:
        if min_short_side is not None:
            _draft(opened, min_short_side)
        return to_rgb(opened, rescale_16bit)

    return _with_file(source, decode)


def _with_file(source: Any, use: Callable[[Image.Image], T]) -> T:
    """Open a path, a content or a file and use the image; a PNG with a large profile or texts goes without them."""
    file = source
    if is_file(source):
        file = read_file(source)
        if not file:
            raise EmptyFileError("the file is empty (0 bytes)")
    try:
        with _open(BytesIO(file) if isinstance(file, bytes) else file) as opened:
            return use(opened)
    except ValueError as error:
        if not any(limit in str(error) for limit in _NOTE_LIMITS):
            raise
        slim = without_notes(file if isinstance(file, bytes) else Path(file).read_bytes())
        if slim is None:
            raise
    with _open(BytesIO(slim)) as opened:
        return use(opened)


def _draft(image: Image.Image, min_short_side: int) -> None:
    """Have a JPEG decoded smaller; with a side that does not divide, all would lie half a pixel off."""
    for part in (8, 4, 2):
        if min(image.size) >= part * min_short_side and not any(side % part for side in image.size):
            image.draft(None, (image.width // part, image.height // part))
            return


@contextmanager
def _open(path: str | os.PathLike[str] | BinaryIO) -> Iterator[Image.Image]:
    """Open a file as an image, refusing before any pixel is decoded what Pillow would hand to a program."""
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
    except Exception:  # closed already: the file's first image is all that is left
        at_start = True
    return path if at_start else None
