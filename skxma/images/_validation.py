"""A user's pictures: paths, PIL images and arrays are checked, keyed by content, and read as RGB, one at a time."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skxma.errors import ImageError

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]

_EXPECTED = "a path, a PIL image or a uint8 array of shape (height, width[, 1, 3 or 4])"
_URL = re.compile(r"^([a-z][a-z0-9+.-]+://|data:)", re.IGNORECASE)
_N_NAMED = 5


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
