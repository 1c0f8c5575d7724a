"""Check images before any is read: the container, and each item as far as it shows without being opened."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skxma.errors import ImageError
from skxma.images._sources import (
    CHANNELS,
    ImageLike,
    can_rewind,
    is_content,
    is_file,
    is_path,
    is_record,
    is_tensor,
    is_text_file,
    path_of,
    plain,
    tensor_as_array,
)

_EXPECTED = (
    "a path, a PIL image, the bytes of an image file, an open file, or a uint8 array of shape "
    "(height, width[, 1, 3 or 4])"
)
_URL = re.compile(r"^([a-z][a-z0-9+.-]+://|data:)", re.IGNORECASE)
_N_NAMED = 5


def check_images(X: Any) -> Sequence[ImageLike]:
    """Validate the container and its items without opening anything.

    Parameters
    ----------
    X : sequence of images, or array or tensor of shape (n_samples, height, width[, 1, 3 or 4])
        Each a path (str or path-like), a PIL image, a uint8 array or torch tensor, the content of a file (bytes), a
        binary file that is open for reading, or a record ``{"bytes": ..., "path": ...}`` of Hugging Face's data sets.
        A 1-D array, a column vector, a pandas Series and a data frame of one column hold such items too. A tensor may
        have its channels first.

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
    X : sequence of images, array or tensor
        As in `check_images`.

    Returns
    -------
    items : sequence of length n_samples
        The items, in the order given.

    Raises
    ------
    ImageError
        If `X` is a single image, or an iterator, a data set, a mapping or an array that can't hold images.
    """
    if is_path(X) or is_content(X) or isinstance(X, Image.Image) or is_record(X) or is_file(X):
        raise ImageError(f"Expected a list of images, got a single {type(X).__name__} ({X!r:.80}); wrap it: [image].")
    if is_tensor(X):
        return _tensor_items(X)
    if hasattr(X, "to_pylist"):  # pyarrow
        X = X.to_pylist()
    if not isinstance(X, np.ndarray) and hasattr(X, "to_numpy"):  # pandas and polars
        X = X.to_numpy()
    if isinstance(X, np.ndarray):
        return _array_items(X)
    if not isinstance(X, Sequence):
        raise ImageError(
            f"Expected a list of images, each {_EXPECTED}; got {type(X).__name__}: {_remedy_for_container(X)}"
        )
    return X


def _remedy_for_container(X: Any, name: str = "X") -> str:
    """Say how to get a list of images out of an iterable, a data set of torch or of Hugging Face."""
    if hasattr(X, "dataset") and hasattr(X, "batch_size"):
        # a loader of torch: its batches are tensors, transformed already
        return f"not its batches, but its data set has them: {_remedy_for_container(X.dataset, f'{name}.dataset')}"
    if hasattr(X, "samples") and hasattr(X, "targets"):
        return f"pass the paths, [path for path, _ in {name}.samples], and {name}.targets as y."
    if isinstance(X, Mapping):
        return f"pass its images, list({name}.values())."
    if hasattr(X, "__getitem__") and hasattr(X, "__len__") and len(X):
        try:
            first = X[0]
        except Exception:  # a container of somebody else, indexed in another way
            return f"pass list({name})."
        if isinstance(first, Mapping) and not is_record(first):
            return f"pass {_images_of_rows(first, name)}."
        if isinstance(first, tuple):
            # many data sets of torch end by an IndexError only where a for loop does not look for it
            return f"pass its images without their labels: [{name}[i][0] for i in range(len({name}))]."
    return f"pass list({name})." if hasattr(X, "__iter__") or hasattr(X, "__getitem__") else "pass a list."


def _images_of_rows(row: Mapping[Any, Any], name: str = "X") -> str:
    """The expression that takes the images out of rows like this one."""
    keys = [key for key, value in row.items() if find_problem(value) is None] or list(row)[:1]
    return f"[row[{keys[0]!r}] for row in {name}]"


def _array_items(X: NDArray[Any]) -> Sequence[ImageLike]:
    if X.dtype.kind in "OUT":
        if X.ndim == 2 and X.shape[1] == 1:
            X = X[:, 0]
        if X.ndim != 1:
            raise ImageError(
                f"Expected one image a row, got an array of {X.dtype} of shape {X.shape}; pass one column."
            )
        return cast(Sequence[ImageLike], X.tolist())
    if X.dtype.kind == "S":
        # numpy drops the zeros at the end of each
        raise ImageError(f"Expected images, got an array of {X.dtype}; pass a list of bytes, or an array of objects.")
    problem = _array_problem(X, "n_samples, ", n_extra=1)
    if problem is not None:
        raise ImageError(f"Expected images, got {problem}")
    return cast(Sequence[ImageLike], X)


def _tensor_items(X: Any) -> Sequence[ImageLike]:
    shape = tuple(X.shape)
    if len(shape) == 2 and X.is_floating_point():
        raise ImageError(
            f"Expected images, got a tensor of {X.dtype} of shape {shape}; embeddings go in as an array: "
            "X.detach().cpu().numpy()."
        )
    if len(shape) == 3 and (shape[0] in CHANNELS or shape[-1] in CHANNELS) and 0 not in shape:
        raise ImageError(
            f"Expected images, got a tensor of shape {shape}, which looks like one image: pass X[None]; images without "
            "channels X[:, None]."
        )
    problem = _tensor_problem(X, "n_samples, ", n_extra=1)
    if problem is not None:
        raise ImageError(f"Expected images, got {problem}")
    return cast(Sequence[ImageLike], tensor_as_array(X, n_extra=1))


def _tensor_problem(tensor: Any, prefix: str = "", *, n_extra: int = 0) -> str | None:
    """Say why a tensor is no image (or, with n_extra=1, no batch of them), or None if it is one."""
    given = f"a tensor of {tensor.dtype} of shape {tuple(tensor.shape)}"
    wanted = f"uint8 of shape ({prefix}3, height, width) or ({prefix}height, width, 3)"
    if tensor.is_floating_point():
        return f"{given}; expected {wanted}: for values in [0, 1] pass (255 * x).round().byte(). {_OTHER_RANGE}"
    if str(tensor.dtype) != "torch.uint8":
        return f"{given}; expected {wanted}: for values from 0 to 255 pass x.byte()."
    return _array_problem(tensor_as_array(tensor, n_extra), prefix, n_extra=n_extra)


_AS_EMBEDDINGS = "Embeddings are passed as one array of shape (n_samples, n_features): numpy.stack(X)."
_OTHER_RANGE = "Bring another range there first: x = (x - x.min()) / (x.max() - x.min())."


def _array_problem(array: NDArray[Any], prefix: str = "", *, n_extra: int = 0) -> str | None:
    """Say why an array is no image (or, with n_extra=1, no stack of them), or None if it is one."""
    wanted = f"uint8 of shape ({prefix}height, width[, 1, 3 or 4])"
    given = f"an array of {array.dtype} of shape {array.shape}"
    if array.dtype.kind == "f" and array.ndim == 1 and not n_extra:
        return f"{given}, like an embedding; expected {wanted}. {_AS_EMBEDDINGS}"
    if array.dtype.kind == "f":
        return (
            f"{given}; expected {wanted}: for values in [0, 1] pass (255 * x).round().astype('uint8'). {_OTHER_RANGE}"
        )
    if array.dtype == np.uint16:
        return (
            f"{given}; expected {wanted}: for the full 16-bit range pass (x // 257).astype('uint8'), for values of 12 "
            "bits (x >> 4).astype('uint8')."
        )
    if array.dtype == np.bool_:
        return f"{given}; expected {wanted}: pass 255 * x.astype('uint8')."
    if array.dtype != np.uint8:
        return f"{given}; expected {wanted}: for values from 0 to 255 pass x.astype('uint8')."
    ndim = array.ndim - n_extra
    if n_extra and array.ndim == 3 and array.shape[-1] in CHANNELS:
        return f"{given}, which looks like one image; expected {wanted}: pass x[None]."
    if ndim == 3 and array.shape[-1] not in CHANNELS:
        channels_first = array.shape[n_extra] in CHANNELS
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
    if is_tensor(item):
        return _tensor_problem(item)
    if is_record(item) and item.get("bytes") is None and item.get("path") is None:
        return "a record with neither bytes nor a path"
    item = plain(item)
    if isinstance(item, Image.Image):
        return None if min(item.size) > 0 else "an image without pixels"
    if isinstance(item, np.ndarray):
        return _array_problem(item)
    if is_path(item):
        return _path_problem(item)
    if isinstance(item, bytes):
        return None if item else "the content is empty (0 bytes)"
    if is_file(item):
        return _file_problem(item)
    return _other_problem(item)


def _file_problem(file: Any) -> str | None:
    if getattr(file, "closed", False):
        return "a closed file; open it again, or pass its path"
    if is_text_file(file):
        return "a file opened as text; open it with mode 'rb', or pass its path"
    if not can_rewind(file):
        return "a stream that can't be read twice; pass its bytes: image.read()"
    return None


def _other_problem(item: object) -> str:
    if item is None or type(item).__name__ == "NAType" or (isinstance(item, float) and math.isnan(item)):
        return f"a missing value ({item}); expected {_EXPECTED}"
    if isinstance(item, list) and item and all(isinstance(value, (int, float)) for value in item):
        return f"a list of {len(item)} numbers, like an embedding; expected {_EXPECTED}. {_AS_EMBEDDINGS}"
    if isinstance(item, tuple) and len(item) == 2 and find_problem(item[0]) is None:
        return "an image with something beside it, as torch's data sets have them; pass [row[0] for row in X]"
    if isinstance(item, Mapping) and item:
        return f"a row of a table with the keys {list(item)[:5]}; pass its image alone: {_images_of_rows(item)}"
    return f"{type(item).__name__} {item!r:.80}; expected {_EXPECTED}"


def _path_problem(item: str | os.PathLike[Any]) -> str | None:
    path = os.fspath(item)
    if not isinstance(path, str):
        return "a path of bytes; expected a str: os.fsdecode(path)"
    if is_url(path):
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


def is_url(path: str) -> bool:
    """Tell whether a path is an address, of which nothing is downloaded."""
    return _URL.match(path) is not None


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
