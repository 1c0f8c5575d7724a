"""Images that the command line names: files, folders, tables, and paths on standard input."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skxma.cli._streams import paths_on_stdin, say


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the columns of a table."""
    for what, usual in (("path", "path, filename, file, image, ..."), ("label", "label, class, category, ...")):
        parser.add_argument(
            f"--{what}-column", metavar="NAME", help=f"the column of {what}s in a table (default: one of {usual})"
        )


def read_labeled_images(path: str, arguments: argparse.Namespace, part: str = "train") -> Any:
    """List the images and labels of a folder or a table, and say on standard error what was taken and skipped.

    Parameters
    ----------
    path : str
    arguments : argparse.Namespace
        With the options of `add_columns`, if the command has them.
    part : {"train", "val", "test"}, default="train"
        Which part to take of a folder that has train/ and test/ or val/.

    Returns
    -------
    data : Bunch
        As :func:`skxma.datasets.load_image_folder` gives it.
    """
    from skxma.datasets._folders import read_image_folder
    from skxma.datasets._table import Columns

    path_column, label_column = (getattr(arguments, f"{what}_column", None) for what in ("path", "label"))
    data = read_image_folder(
        path, part=part, columns=Columns(path_column, label_column, ("--path-column ", "--label-column "))
    )
    say_skipped(path, data.notes, data.skipped)
    return data


def image_paths(given: Sequence[str]) -> list[str]:
    """Return the images that the command line names, and say on standard error what of the folders was skipped.

    Parameters
    ----------
    given : sequence of str
        Files, which are taken as they are; folders, whose images are taken; and "-" for paths on standard input.
    """
    from skxma.datasets._listing import list_images

    paths: list[str] = []
    for name in given:
        if name == "-":
            paths += paths_on_stdin()
        elif Path(name).is_dir():
            listing = list_images(name)
            say_skipped(name, [], listing.describe_skipped())
            paths += listing.paths
        else:
            paths.append(name)
    return paths


def check_files(paths: Sequence[str]) -> None:
    """Refuse images that are no files, without opening any.

    Parameters
    ----------
    paths : sequence of str

    Raises
    ------
    ImageError
        As `fit` and `predict` would raise it, once their libraries are imported.
    """
    from skxma.images._validation import check_images

    check_images(paths)


def without_copies(paths: Sequence[str], of: Sequence[str]) -> list[str]:
    """Return the files that are not equal to any of the others, byte for byte.

    Parameters
    ----------
    paths, of : sequence of str
        Files; those of `of` that cannot be read are passed over.
    """
    from skxma.images._content_key import content_key

    by_size: dict[int, list[str]] = {}
    for path in of:
        if os.access(path, os.R_OK):
            by_size.setdefault(Path(path).stat().st_size, []).append(path)
    known: dict[int, set[bytes]] = {}

    def is_copy(path: str) -> bool:
        # files of another size are no copies, so that most need not be read
        size = Path(path).stat().st_size
        if size not in by_size or not os.access(path, os.R_OK):
            return False
        if size not in known:
            known[size] = {content_key(one) for one in by_size[size]}
        return content_key(path) in known[size]

    return [path for path in paths if not is_copy(path)]


def existing_files(paths: Sequence[str]) -> list[str]:
    """Return the images that are files; the others are named on standard error.

    Parameters
    ----------
    paths : sequence of str
    """
    from skxma.images._validation import find_problem

    problems = {path: find_problem(path) for path in dict.fromkeys(paths)}
    for path in paths:
        if problems[path] is not None:
            say(f"skxma: {path}: {problems[path]}")
    return [path for path in paths if problems[path] is None]


def say_skipped(path: str, notes: Sequence[str], skipped: str | None) -> None:
    """Say on standard error what of a folder or table was taken, and what was skipped."""
    for note in notes:
        say(f"skxma: {note}")
    if skipped:
        say(f"skxma: {path}: {skipped}")
