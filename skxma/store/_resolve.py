"""Resolve the `memory` parameter to a store."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from skxma._runtime.warning import warn
from skxma.store._memory import MemoryStore, default_memory_store
from skxma.store._sqlite import EmbeddingStore

# the folder chosen for a user without a home folder, once the warning was given
_temporary: list[Path] = []


def resolve_store(memory: object) -> MemoryStore | EmbeddingStore | None:
    """Resolve an estimator's `memory` parameter to a store.

    Parameters
    ----------
    memory : None, bool, str, path-like, MemoryStore or EmbeddingStore
        None is the process-wide `MemoryStore`, False no store, True the `EmbeddingStore` in the user's cache folder
        (or in the folder that the environment variable SKXMA_CACHE names), a path an `EmbeddingStore` there, and a
        store stands for itself.

    Returns
    -------
    store : MemoryStore, EmbeddingStore or None
        None to keep nothing.

    Raises
    ------
    TypeError
        If `memory` is none of these.
    """
    if memory is None:
        return default_memory_store()
    if memory is False:
        return None
    if memory is True:
        return EmbeddingStore(default_folder())
    if isinstance(memory, (str, os.PathLike)):
        return EmbeddingStore(memory)
    if isinstance(memory, (MemoryStore, EmbeddingStore)):
        return memory
    raise TypeError(
        f"memory must be None, True, False, a path, a MemoryStore or an EmbeddingStore; got {type(memory).__name__}."
    )


def default_folder() -> Path:
    """Return the folder of embeddings on disk: SKXMA_CACHE, or `skxma` in the platform's cache folder.

    Where the user has no home folder, as in some containers and under some schedulers, it is a private folder
    among the temporary files, and a warning names it.

    Returns
    -------
    folder : pathlib.Path
        It need not exist.
    """
    return cache_folder() or _temporary_folder()


def cache_folder() -> Path | None:
    """Return the folder of `default_folder`, but None for a user without a home folder.

    Returns
    -------
    folder : pathlib.Path or None
        It need not exist.
    """
    named = os.environ.get("SKXMA_CACHE")
    try:
        return Path(named).expanduser() if named else _user_cache() / "skxma"
    except RuntimeError:  # neither HOME nor an entry in passwd
        return None


def _user_cache() -> Path:
    """Return the user's cache folder on this platform."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _temporary_folder() -> Path:
    """Return a folder among the temporary files that no other user can write; warn once per process."""
    if _temporary and _temporary[0].is_dir():
        return _temporary[0]
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"skxma-{user}"
    with suppress(OSError):
        folder.mkdir(mode=0o700)
    if not _is_private(folder):
        # another user created it first, and could put embeddings into it
        folder = Path(tempfile.mkdtemp(prefix="skxma-"))
    _temporary[:] = [folder]
    warn(
        f"This user has no home folder, so embeddings are kept in {str(folder)!r}; set SKXMA_CACHE, or HOME, to keep "
        "them elsewhere.",
        RuntimeWarning,
    )
    return folder


def _is_private(folder: Path) -> bool:
    """Return whether a folder belongs to this user, is not a link, and cannot be written by others."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return stat.S_ISDIR(found.st_mode) and mine and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
