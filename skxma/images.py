"""A user's pictures: paths, PIL images and arrays are checked, keyed by content, and read as RGB, one at a time."""

import hashlib
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from skxma._rgb import to_rgb
from skxma.errors import ImageError

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]

_EXPECTED = "a path, a PIL image or a uint8 array of shape (height, width[, 1, 3 or 4])"
_URL = re.compile(r"^([a-z][a-z0-9+.-]+://|data:)", re.IGNORECASE)
_N_NAMED = 5
FileVersion: TypeAlias = tuple[str, int, int, int, int]
SETTLED_NS = 2 * 10**9
# Pillow hands these to Ghostscript and to Windows
_PROGRAMS = {"EPS", "WMF"}


def check_images(X: Any) -> Sequence[ImageLike]:
    """Validate the container and its items without decoding anything.

    Parameters
    ----------
    X : sequence of paths, PIL images or uint8 arrays, or array of shape (n_samples, height, width[, 1, 3 or 4])
        Strings and path-like objects are paths. A 1-D array, a column vector and a pandas Series of such items are
        accepted too.

    Returns
    -------
    items : sequence of length n_samples
        The items in the order given; a uint8 stack is returned as it is.

    Raises
    ------
    ImageError
        If `X` is no collection of images, or an item is of another kind or names no file; all bad items are counted,
        the first few named.
    """
    items = as_items(X)
    if isinstance(items, np.ndarray):
        return items
    problems = [(index, problem) for index, item in enumerate(items) if (problem := find_problem(item)) is not None]
    if problems:
        _raise_problems(items, problems)
    return items


def as_items(X: Any) -> Sequence[ImageLike]:
    """Return the images of `X` as a sequence, refusing what is no collection of images; the items stay unchecked.

    Parameters
    ----------
    X : sequence of paths, PIL images or arrays, or array
        As in `check_images`.

    Returns
    -------
    items : sequence of length n_samples
        The items, in the order given.

    Raises
    ------
    ImageError
        If `X` is a single image, or an iterator, a mapping, a tensor or an array that can't hold images.
    """
    if isinstance(X, (str, bytes, os.PathLike, Image.Image)):
        raise ImageError(f"Expected a list of images, got a single {type(X).__name__} ({X!r:.80}); wrap it: [image].")
    if not isinstance(X, np.ndarray) and hasattr(X, "to_numpy"):  # pandas and polars
        X = X.to_numpy()
    if isinstance(X, np.ndarray):
        return _array_items(X)
    if type(X).__module__.partition(".")[0] == "torch":
        raise ImageError("Expected images, got a torch tensor; pass uint8 arrays with channels last: X.cpu().numpy().")
    if not isinstance(X, Sequence):
        raise ImageError(f"Expected a list of images, each {_EXPECTED}; got {type(X).__name__}: pass list(X).")
    return X


def _array_items(X: NDArray[Any]) -> Sequence[ImageLike]:
    if X.dtype.kind in "OUT":
        if X.ndim == 2 and X.shape[1] == 1:
            X = X[:, 0]
        if X.ndim != 1:
            raise ImageError(
                f"Expected one image a row, got an array of {X.dtype} of shape {X.shape}; pass one column."
            )
        return cast(Sequence[ImageLike], X.tolist())
    problem = _array_problem(X, "n_samples, ", n_extra=1)
    if problem is not None:
        raise ImageError(f"Expected images, got {problem}")
    return cast(Sequence[ImageLike], X)


def _array_problem(array: NDArray[Any], prefix: str = "", *, n_extra: int = 0) -> str | None:
    """Say why an array is no image (or, with n_extra=1, no stack of them), or None if it is one."""
    wanted = f"uint8 of shape ({prefix}height, width[, 1, 3 or 4])"
    given = f"an array of {array.dtype} of shape {array.shape}"
    if array.dtype.kind == "f":
        return f"{given}; expected {wanted}: for values in [0, 1] pass (255 * x).round().astype('uint8')."
    if array.dtype == np.uint16:
        return f"{given}; expected {wanted}: for the full 16-bit range pass (x // 257).astype('uint8')."
    if array.dtype != np.uint8:
        return f"{given}; expected {wanted}."
    ndim = array.ndim - n_extra
    if n_extra and array.ndim == 3 and array.shape[-1] in (1, 3, 4):
        return f"{given}, which looks like one picture; expected {wanted}: pass x[None]."
    if ndim == 3 and array.shape[-1] not in (1, 3, 4):
        channels_first = array.shape[n_extra] in (1, 3, 4)
        remedy = "move the channels last: np.moveaxis(x, -3, -1)." if channels_first else "keep 1, 3 or 4 channels."
        return f"{given}; expected {wanted}: {remedy}"
    if ndim not in (2, 3):
        return f"{given}; expected {wanted}."
    if 0 in array.shape[n_extra : n_extra + 2]:
        return f"{given}, which has no pixels; expected {wanted}."
    return None


def find_problem(item: object) -> str | None:
    """Say why an item can't be an image, without opening it; None if nothing speaks against it.

    Parameters
    ----------
    item : object
        One item of what `as_items` returned.

    Returns
    -------
    problem : str or None
        The reason and what was expected.
    """
    if isinstance(item, Image.Image):
        return None if min(item.size) > 0 else "an image without pixels"
    if isinstance(item, np.ndarray):
        return _array_problem(item)
    if isinstance(item, (str, os.PathLike)):
        return _path_problem(item)
    if isinstance(item, float) and math.isnan(item):
        return f"a missing value (nan); expected {_EXPECTED}"
    return f"{type(item).__name__} {item!r:.80}; expected {_EXPECTED}"


def _path_problem(item: str | os.PathLike[Any]) -> str | None:
    path = os.fspath(item)
    if not isinstance(path, str):
        return "a path of bytes; expected a str: os.fsdecode(path)"
    if _URL.match(path):
        return "a URL; nothing is downloaded: fetch it first and pass the file's path"
    if not path:
        return "an empty path"
    try:
        if Path(path).is_file():
            return None
        if Path(path).is_dir():
            return "a directory; expected a file: list its files, e.g. sorted(Path(folder).glob('*.jpg'))"
        if Path(path).exists():
            # to read one could take forever
            return "a pipe, socket or device; expected a file"
        if Path(path).is_symlink():
            return "a symbolic link that leads to no file"
    except (OSError, ValueError) as error:  # a name too long, or with a null byte
        return f"not a usable path ({error})"
    return "no such file" + ("" if Path(path).is_absolute() else f" (relative to {Path.cwd()})")


def _raise_problems(items: Sequence[object], problems: list[tuple[int, str]]) -> NoReturn:
    named = [f"{_place(index, path_of(items[index]))}: {problem}" for index, problem in problems[:_N_NAMED]]
    index, problem = problems[0]
    message = named[0]
    if len(problems) > 1:
        more = [f"and {len(problems) - _N_NAMED} more"] if len(problems) > _N_NAMED else []
        message = "\n  ".join([f"{len(problems)} of {len(items)} images can't be read:", *named, *more])
    raise ImageError(message, index=index, path=path_of(items[index]), reason=problem)


def _place(index: int | None, path: str | None) -> str:
    return ("image" if index is None else f"image {index}") + ("" if path is None else f" ({path!r})")


def path_of(item: object) -> str | None:
    """Return the path of an item that has one: a path, or a PIL image that was opened from a file.

    Parameters
    ----------
    item : object
        A path, PIL image, array or anything else.

    Returns
    -------
    path : str or None
        The path as the user gave it.
    """
    if isinstance(item, Image.Image):
        item = getattr(item, "filename", None)
    if isinstance(item, (str, os.PathLike)):
        return os.fsdecode(item) or None
    return None


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
