"""Labeled images as other libraries hold them: data frames, data sets of Hugging Face and of torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from skxma.datasets._bunch import bunch
from skxma.datasets._table import GROUP_NAMES, LABEL_NAMES, PATH_NAMES, column_position
from skxma.embeddings import is_frame
from skxma.errors import ImageError
from skxma.images._sources import is_path
from skxma.images._validation import check_images, find_problem, is_url

if TYPE_CHECKING:
    from sklearn.utils import Bunch

UNLABELED = -1
_ACCEPTED = (
    "a pandas or polars frame, a split of Hugging Face's datasets, an ImageFolder of torchvision or another map-style "
    "data set of torch"
)


class ImageSequence(Sequence[Any]):
    """Images that are read when they are asked for, and not kept.

    Parameters
    ----------
    read : callable
        From a row number to an image.
    rows : sequence of int
    """

    def __init__(self, read: Callable[[int], Any], rows: Sequence[int]) -> None:
        self._read, self._rows = read, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> ImageSequence: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return ImageSequence(self._read, self._rows[index])
        return self._read(self._rows[index])

    def __repr__(self) -> str:
        return f"<{len(self)} images, read when they are asked for>"


def load_labeled_images(
    data: Any,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Bunch:
    """Take images and labels out of a data frame or a data set, for ``clf.fit(found.images, found.target)``.

    No image is kept in memory. Of a frame, a Hugging Face split and an ``ImageFolder`` none is opened before it is
    encoded; a data set of torch that has no ``targets`` is run through once for its labels, and asked for each image
    as often as it is needed.

    Parameters
    ----------
    data : object
        - A pandas or polars frame with a column of paths (or of other images, such as bytes) and one of labels.
        - A split of Hugging Face's `datasets`, with a column of images or paths and one of labels; a ``ClassLabel``
          gives the class names.
        - An ``ImageFolder`` of torchvision, or another data set of torch with a length, whose items are an image and
          a label, made without a transform; its ``classes`` give the class names. A ``Subset`` of one too.
    image_column, label_column : str, optional
        Names of columns or keys. By default the first of the usual names: ``path``, ``filename``, ``image``, ...;
        ``label``, ``class``, ``category``, ``target``, ...
    folder : str or path-like, optional
        What relative paths of a frame are relative to; the working directory by default.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the attributes

        images : sequence of length n_samples
            Images that `fit` takes.
        target : ndarray of shape (n_samples,)
            Labels; class names where the data set has them.
        target_names : ndarray of shape (n_classes,)
            The different labels, sorted.
        groups : ndarray of shape (n_samples,) or None
            The column ``group``.

    Raises
    ------
    TypeError
        Anything else, such as a loader of batches or a stream; the message names what to pass.
    ValueError
        No such column, or rows without a label.
    skxma.errors.ImageError
        Paths that lead nowhere, or are addresses of the web: nothing is downloaded.

    Examples
    --------
    >>> import pandas as pd
    >>> from skxma.datasets import load_emoji, load_labeled_images
    >>> emoji = load_emoji(as_paths=True)
    >>> found = load_labeled_images(pd.DataFrame({"path": emoji.images, "label": emoji.target}))
    >>> len(found.images), found.target_names[:2].tolist()
    (200, ['artist palette', 'bar chart'])
    """
    columns = image_column, label_column
    if is_frame(data):
        return _of_frame(data, columns, folder)
    if hasattr(data, "cast_column"):
        return _of_hugging_face(data, columns)
    _refuse_others(data)
    if hasattr(data, "dataset") and hasattr(data, "indices"):
        whole = load_labeled_images(data.dataset, image_column=image_column, label_column=label_column)
        rows = [int(row) for row in data.indices]
        return _bunch_of_images(ImageSequence(whole.images.__getitem__, rows), whole.target[rows])
    if hasattr(data, "samples") and hasattr(data, "classes"):
        return _bunch_of_images(
            [path for path, _ in data.samples], _named([label for _, label in data.samples], data.classes)
        )
    return _of_torch(data, columns)


def _of_frame(frame: Any, columns: tuple[str | None, str | None], folder: str | os.PathLike[str] | None) -> Bunch:
    header = [str(name) for name in frame.columns]
    image, label = _columns(header, columns, "The frame")
    images, labels = (list(frame[frame.columns[place]]) for place in (image, label))
    if folder is not None:
        # joining leaves absolute paths as they are, and addresses must stay what they are to be refused
        images = [os.fspath(Path(folder) / one) if is_path(one) and not is_url(str(one)) else one for one in images]
    check_images(images)
    group = column_position(header, None, GROUP_NAMES)
    return _bunch_of_images(images, labels, None if group is None else np.array(list(frame[frame.columns[group]])))


def _of_hugging_face(data: Any, columns: tuple[str | None, str | None]) -> Bunch:
    if isinstance(data, Mapping):
        raise TypeError(f"Expected one split, got all of them; pass data[{next(iter(data), 'train')!r}].")
    if not hasattr(data, "__len__"):
        raise TypeError(
            "Expected a split that can be read by row numbers, got a stream; load it without streaming=True, or take "
            "some of it: datasets.Dataset.from_list(list(data.take(100)), features=data.features)."
        )
    header = list(data.features)
    kinds = {name: type(feature).__name__ for name, feature in data.features.items()}
    of_kind = [next((name for name in header if kinds[name] == kind), None) for kind in ("Image", "ClassLabel")]
    image, label = _columns(header, tuple(a or b for a, b in zip(columns, of_kind, strict=True)), "The data set")
    name, feature = header[image], data.features[header[image]]
    plain = data.with_format(None)
    labels = list(plain[header[label]])
    if hasattr(feature, "decode"):
        # the content of the files, which skxma decodes as any other
        plain = plain.cast_column(name, replace(feature, decode=False))
    rows = plain.select_columns([name])
    names = getattr(data.features[header[label]], "names", None)
    images = ImageSequence(lambda row: rows[row][name], range(len(rows)))
    return _bunch_of_images(images, labels if names is None else _named(labels, names))


def _of_torch(data: Any, columns: tuple[str | None, str | None]) -> Bunch:
    first = data[0]
    if isinstance(first, Mapping):
        header = [str(key) for key in first]
        image, label = (list(first)[place] for place in _columns(header, columns, "An item of the data set"))
    elif isinstance(first, (tuple, list)) and len(first) > 1:
        image, label = 0, 1
    else:
        raise TypeError(f"Expected items of an image and a label, got {type(first).__name__}; expected {_ACCEPTED}.")
    problem = find_problem(first[image])
    if problem is not None:
        raise ImageError(
            f"The first item of the data set: {problem}. Make the data set without its transform: skxma does the "
            "model's own preprocessing.",
            index=0,
            reason=problem,
        )
    labels = getattr(data, "targets", None)
    if labels is None or len(labels) != len(data) or getattr(data, "target_transform", None) is not None:
        labels = [data[row][label] for row in range(len(data))]
    labels = [one.item() if hasattr(one, "item") else one for one in labels]
    classes = getattr(data, "classes", None)
    images = ImageSequence(lambda row: data[row][image], range(len(data)))
    return _bunch_of_images(images, labels if classes is None else _named(labels, classes))


def _refuse_others(data: Any) -> None:
    """Refuse what is no collection of labeled images; the message names what to pass instead."""
    if is_path(data):
        raise TypeError(f"Expected {_ACCEPTED}; {os.fspath(data)!r:.80} is a path: see load_image_folder.")
    if hasattr(data, "dataset") and hasattr(data, "batch_size"):
        raise TypeError(
            "Expected a data set, got a loader, whose batches are transformed already; pass loader.dataset."
        )
    if isinstance(data, (Mapping, Iterator)) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise TypeError(f"Expected {_ACCEPTED}, got {type(data).__name__}.")
    if not len(data):
        raise ValueError(f"The {type(data).__name__} is empty; give some labeled images.")


def _columns(header: Sequence[str], columns: tuple[str | None, ...], owner: str) -> list[int]:
    """Positions of the columns of images and of labels."""
    found = []
    usual = ("image", PATH_NAMES), ("label", LABEL_NAMES)
    for wanted, (what, names) in zip(columns, usual, strict=True):
        place = column_position(header, wanted, names)
        if place is None:
            asked = f"no column {wanted}" if wanted is not None else f"no column of {what}s that is known by its name"
            raise ValueError(f"{owner} has {asked}; it has {', '.join(header)}. Name one with {what}_column=.")
        found.append(place)
    return found


def _named(labels: Sequence[Any], names: Sequence[str]) -> list[str]:
    """Names of the classes with these numbers."""
    _refuse_unlabeled([label is None or label == UNLABELED for label in labels])
    return [str(names[label]) for label in labels]


def _refuse_unlabeled(unlabeled: Sequence[bool]) -> None:
    lost = np.flatnonzero(unlabeled)
    if len(lost):
        raise ValueError(
            f"{len(lost)} of {len(unlabeled)} rows have no label, the first of them row {lost[0]}; leave them out."
        )


def _bunch_of_images(
    images: Sequence[Any], labels: Sequence[Any] | NDArray[Any], groups: NDArray[Any] | None = None
) -> Bunch:
    # only NaN is unlike itself
    _refuse_unlabeled([bool(label is None or label != label) for label in labels])
    target = np.asarray(labels)
    return bunch(images=images, target=target, target_names=np.unique(target), groups=groups)
