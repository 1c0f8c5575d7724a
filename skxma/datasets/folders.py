"""Pictures of one's own: a folder a class, or a table of paths and labels."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

Row = tuple[str, str, str | None]
IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".jfif", ".avif"})


def load_image_folder(path: str | os.PathLike[str]) -> Bunch:
    """List pictures and their labels; none is opened.

    Parameters
    ----------
    path : str or path-like
        A folder with a folder of pictures for each class (at any depth), or a CSV file with the columns ``path`` and
        ``label`` and, where pictures belong together, ``group``. Paths in it are relative to the file.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the attributes

        paths : list of str
            The pictures, class by class in a folder, row by row in a table.
        target : ndarray of shape (n_samples,) of str
            Their labels: names of folders, or the column ``label``.
        target_names : ndarray of shape (n_classes,) of str
            The classes, sorted.
        groups : ndarray of shape (n_samples,) of str, or None
            The column ``group``.
        name : str
            Name of the folder or, without its ending, of the table.

    Raises
    ------
    FileNotFoundError
        There is no such folder or table, or a picture of the table is missing.
    ValueError
        No pictures, fewer than two classes, or a table without its columns.
    """
    path = Path(path)
    if path.is_dir():
        rows: list[Row] = list(_walk(path))
        if not rows:
            raise ValueError(f"{path} has no folders with pictures in them; one folder a class is needed.")
    elif path.is_file():
        rows = list(_read_table(path))
    else:
        raise FileNotFoundError(
            f"There is no folder or table {path}. Give a folder with a folder of pictures for each class, or a CSV "
            "file with the columns path and label."
        )
    paths, labels, groups = zip(*rows, strict=True) if rows else ((), (), ())
    names = np.unique(np.array(labels, dtype=str))
    if len(names) < 2:
        raise ValueError(
            f"{path} has {len(names)} class{'es' * (len(names) == 0)} with pictures; at least two are needed."
        )
    return Bunch(
        paths=list(paths),
        target=np.array(labels),
        target_names=names,
        groups=None if None in groups else np.array(groups),
        name=path.stem if path.is_file() else path.resolve().name,
    )


def _walk(folder: Path) -> Iterator[Row]:
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for entry in classes:
        for file in sorted(entry.rglob("*")):
            if file.suffix.lower() in IMAGE_ENDINGS and not file.name.startswith("."):
                yield str(file), entry.name, None


def _read_table(file: Path) -> Iterator[Row]:
    with file.open(newline="", encoding="utf-8-sig") as lines:
        table = csv.DictReader(lines)
        missing = {"path", "label"} - set(table.fieldnames or ())
        if missing:
            raise ValueError(
                f"{file} has the columns {', '.join(table.fieldnames or ()) or 'none'}; it lacks "
                f"{' and '.join(sorted(missing))}. Its first line must name the columns path and label."
            )
        for row in table:
            picture = file.parent / (row["path"] or "")
            if not row["label"]:
                raise ValueError(f"{file} line {table.line_num}: {row['path']} has no label.")
            if not picture.is_file():
                raise FileNotFoundError(f"{file} line {table.line_num}: there is no picture {picture}.")
            yield str(picture), row["label"], row.get("group")
