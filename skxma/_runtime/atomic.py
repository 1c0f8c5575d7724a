"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Return the file that a path stands for, links followed; refuse one that cannot be written, before long work.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    target : pathlib.Path

    Raises
    ------
    OSError
        If it names a folder, or its folder is missing.
    """
    target = Path(os.path.realpath(Path(path).expanduser()))
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} is no folder to save {target.name} in; make it first.")
    return target


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write beside a file and move it there once all is on disk; after an error the old one is as it was.

    A killed process may leave its part, a hidden file that ends in ".part".

    Parameters
    ----------
    path : str or path-like

    Yields
    ------
    stream : binary file

    Raises
    ------
    OSError
        If the folder is missing or cannot be written, or the disk is full.
    """
    target = check_writable(path)
    part = target.with_name(f".skxma-{secrets.token_hex(8)}.part")
    try:
        # opened by its mode alone, so that the file gets the permissions that any other would
        with part.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, f"{error.strerror or error}; no file was changed", str(target)) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Put the move itself on disk, where the platform can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
