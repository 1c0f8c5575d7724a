"""Atomic file writes."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PATIENCE = (0.01, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts to replace a file that another program has open."""


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Resolve a path, following links, and raise before any long work if it cannot be written.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    target : pathlib.Path

    Raises
    ------
    OSError
        If it names a folder, or its folder is missing or cannot be written.
    """
    target = Path(os.path.realpath(Path(path).expanduser()))
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the path of a file inside it.")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"{target.parent} is not a folder, so {target.name} cannot be saved there; create it first."
        )
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(
            f"{target.parent} cannot be written, so {target.name} cannot be saved there; no file was changed. Name "
            "another folder."
        )
    return target


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write to a temporary file beside the target and rename it when complete; an error leaves the old file unchanged.

    A killed process may leave the temporary file behind, a hidden file that ends in ".part".

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
        # a plain open, so that the file gets the usual permissions
        with part.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        _replace(part, target)
    except OSError as error:
        # of a file system that has become read-only, removing fails as well
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OSError(error.errno, f"{error.strerror or error}; no file was changed", str(target)) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _replace(part: Path, target: Path) -> None:
    """Rename a file over another; Windows refuses that as long as anybody, a virus scanner too, has it open."""
    for wait in (*PATIENCE, None) if sys.platform == "win32" else (None,):
        try:
            part.replace(target)
            return
        except PermissionError:
            if wait is None:
                raise
            time.sleep(wait)


def _sync_folder(folder: Path) -> None:
    """Flush the rename itself to disk, where the platform supports that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
