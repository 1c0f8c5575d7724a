"""Resolve the `memory` parameter to a store."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from skxma.store._memory import MemoryStore, default_memory_store
from skxma.store._sqlite import EmbeddingStore


def resolve_store(memory: object) -> MemoryStore | EmbeddingStore | None:
    """Return the store that an estimator's `memory` parameter stands for.

    Parameters
    ----------
    memory : None, bool, str, path-like, MemoryStore or EmbeddingStore
        None is the process-wide `MemoryStore`, False no store, True the `EmbeddingStore` in the user's cache folder (or
        in the folder that the environment variable SKXMA_CACHE names), a path one there, and a store itself.

    Returns
    -------
    store : MemoryStore, EmbeddingStore or None
        None if nothing is to be kept.

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

    Returns
    -------
    folder : pathlib.Path
        It need not exist.
    """
    named = os.environ.get("SKXMA_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "skxma"
