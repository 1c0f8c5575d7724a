"""Arrays that are computed once per machine, because every model needs the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from skxma._runtime.atomic import atomic_write
from skxma.store._resolve import cache_folder

KEPT_PREFIX = "kept-"


def kept_arrays(
    about: Iterable[str | bytes],
    make: Callable[[], Mapping[str, NDArray[Any]]],
    fits: Callable[[Mapping[str, NDArray[Any]]], bool],
) -> Mapping[str, NDArray[Any]]:
    """Return arrays from the user's cache folder, or make them and keep them there.

    Nothing is said where they can be neither read nor written: they are made again at the next start.

    Parameters
    ----------
    about : iterable of str or bytes
        All that the arrays depend on.
    make : callable
        Returns the arrays by name.
    fits : callable
        Whether arrays that were read are what `make` would return, by their names, shapes and values.

    Returns
    -------
    arrays : mapping of str to ndarray
    """
    folder = cache_folder()
    if folder is None:
        return make()
    digest = hashlib.sha256()
    for part in about:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    path = folder / f"{KEPT_PREFIX}{digest.hexdigest()[:32]}.npz"
    # absent, or damaged
    with suppress(OSError, ValueError, EOFError, KeyError, BadZipFile), np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
        if fits(found):
            return found
    made = make()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as stream:
            np.savez(stream, **dict[str, Any](made))
    return made


def kept_files(folder: Path) -> list[Path]:
    """Return the files of arrays that are kept in a folder.

    Parameters
    ----------
    folder : pathlib.Path
        As of `default_folder`.

    Returns
    -------
    paths : list of pathlib.Path
    """
    return sorted(folder.glob(f"{KEPT_PREFIX}*.npz")) if folder.is_dir() else []
