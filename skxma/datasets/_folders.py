"""Images of one's own: one folder per class, or a table of paths and labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skxma._runtime.warning import warn
from skxma.datasets._bunch import bunch
from skxma.datasets._layout import FOLDERS_OF_PARTS, find_class_folders
from skxma.datasets._listing import IMAGE_ENDINGS
from skxma.datasets._table import Columns, read_table
from skxma.images._validation import is_url

if TYPE_CHECKING:
    from sklearn.utils import Bunch

__all__ = ["IMAGE_ENDINGS", "load_image_folder", "read_image_folder"]


def load_image_folder(
    path: str | os.PathLike[str],
    *,
    part: str = "train",
    path_column: str | None = None,
    label_column: str | None = None,
) -> Bunch:
    """List images and their labels; none is opened.

    Hidden files and folders, and those that systems leave behind (``._*``, ``__MACOSX``, ``.ipynb_checkpoints``,
    ``@eaDir``, ``Thumbs.db``, ``desktop.ini``), are skipped, as are files whose ending is not that of an image.

    Parameters
    ----------
    path : str or path-like
        A folder with a folder of images for each class (at any depth), or a table: a text file whose first line names
        the columns, delimited by commas, semicolons or tabs. Where a folder has ``train/`` and ``test/`` or ``val/``,
        one of them is taken; where a single folder in it has images, the classes are sought in that. Paths in a table
        are relative to its folder. A column called ``group`` names images that belong together.
    part : {"train", "val", "test"}, default="train"
        Which part of a divided folder to take.
    path_column, label_column : str, optional
        The columns of a table that hold the paths and the labels. By default the first of the usual names: ``path``,
        ``filename``, ``file``, ``image``, ...; ``label``, ``class``, ``category``, ``target``, ...

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the attributes

        paths : list of str
            The images, class by class in a folder, row by row in a table.
        target : ndarray of shape (n_samples,) of str
            Their labels: names of folders, or the column of labels.
        target_names : ndarray of shape (n_classes,) of str
            The classes, sorted.
        groups : ndarray of shape (n_samples,) of str, or None
            The column ``group``.
        name : str
            Name of the folder or, without its ending, of the table.
        notes : list of str
            Sentences about what was taken and what was left out; each is a warning, too.
        n_skipped : int
            The number of hidden files, service files and files of other types that were skipped.
        skipped : str or None
            The same by kind, in words.

    Raises
    ------
    FileNotFoundError
        There is no such folder or table, or an image of the table is missing.
    ValueError
        No images, fewer than two classes, or a table without its columns.
    """
    data = read_image_folder(path, part=part, columns=Columns(path_column, label_column))
    for note in data.notes:
        warn(note)
    return data


def read_image_folder(path: str | os.PathLike[str], *, part: str = "train", columns: Columns | None = None) -> Bunch:
    """Do what `load_image_folder` does, without its warnings.

    Parameters
    ----------
    path, part
        As in `load_image_folder`.
    columns : Columns, optional
        Columns of a table that the caller names.
    """
    if part not in FOLDERS_OF_PARTS:
        raise ValueError(f"part={part!r} must be one of {', '.join(map(repr, FOLDERS_OF_PARTS))}.")
    place = Path(path)
    if place.is_dir():
        return _of_folder(place, part)
    if place.is_file():
        return _of_table(place, columns or Columns())
    if is_url(os.fspath(path)):
        raise FileNotFoundError(f"{path} is a URL, and nothing is downloaded: fetch it first and give its folder.")
    raise FileNotFoundError(
        f"There is no folder or table {path}. Give a folder with a folder of images for each class, or a CSV file "
        "with the columns path and label."
    )


def _of_folder(path: Path, part: str) -> Bunch:
    found = find_class_folders(path, part)
    paths = [image for images in found.images.values() for image in images]
    labels = [name for name, images in found.images.items() for _ in images]
    skipped = found.skipped.describe_skipped()
    if len(found.images) < 2:
        about = [*found.notes, *([f"{skipped[0].upper()}{skipped[1:]}."] if skipped else [])]
        raise ValueError(" ".join([_too_few(path, list(found.images)), *about]))
    return _bunch_of_paths(paths, labels, None, path.resolve().name, found.notes, found.skipped.n_skipped, skipped)


def _of_table(path: Path, columns: Columns) -> Bunch:
    table = read_table(path, columns)
    labels = [row.label for row in table.rows]
    classes = sorted(set(labels))
    if len(classes) < 2:
        named = f" ({classes[0]})" if classes else ""
        raise ValueError(f"{path} has {_counted_classes(classes)} with images{named}; at least two are needed.")
    groups = [row.group for row in table.rows]
    return _bunch_of_paths(
        [row.path for row in table.rows],
        labels,
        None if None in groups else np.array(groups),
        path.stem,
        table.notes,
        0,
        None,
    )


def _bunch_of_paths(
    paths: list[str],
    labels: list[str],
    groups: np.ndarray | None,
    name: str,
    notes: list[str],
    n_skipped: int,
    skipped: str | None,
) -> Bunch:
    target = np.array(labels)
    return bunch(
        paths=paths,
        target=target,
        target_names=np.unique(target),
        groups=groups,
        name=name,
        notes=notes,
        n_skipped=n_skipped,
        skipped=skipped,
    )


def _too_few(path: Path, classes: list[str]) -> str:
    if not classes:
        return f"{path} has no folders with images in them; one folder per class is needed."
    return f"{path} has 1 class with images ({classes[0]}); at least two are needed, each in a folder of its own."


def _counted_classes(classes: list[str]) -> str:
    return f"{len(classes)} class{'es' * (len(classes) != 1)}"
